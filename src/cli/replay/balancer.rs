//! The connections that a backup of IPVS would hold after the messages of a recording.
//!
//! The rules are those of `ip_vs_proc_conn`: a record makes or refreshes the connection of its client and service; a record
//! about another real server replaces it, unless it is the last word about an old one (inactive).

use crate::cli::decode::{connection_words, json};
use crate::flow::Endpoint;
use crate::time::Duration;
use crate::wire::ipvs::{Connection, ConnectionFlags, Message, Sequences, WordOrder};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most connections; what comes beyond them is counted.
const CONNECTIONS_MAX: usize = 1 << 20;
/// Flags that a later record may change (`IP_VS_CONN_F_BACKUP_UPD_MASK`).
const UPDATED: u32 = ConnectionFlags::INACTIVE | ConnectionFlags::IN_SEQ | ConnectionFlags::OUT_SEQ;

/// What names a connection; templates are kept apart.
type Key = (bool, u8, (std::net::IpAddr, u16), (std::net::IpAddr, u16));

/// A connection that outlives its message.
struct Kept {
    protocol: u8,
    client: Endpoint,
    service: Endpoint,
    server: Endpoint,
    flags: ConnectionFlags,
    state: u16,
    firewall_mark: u32,
    timeout: Option<u32>,
    sequences: Option<Sequences>,
    engine: Vec<u8>,
    engine_data: Vec<u8>,
    /// When it is forgotten.
    until: Duration,
}

/// What a backup holds.
#[derive(Default)]
pub(super) struct Balancer {
    connections: BTreeMap<Key, Kept>,
    now: Duration,
    messages: u64,
    /// Messages of other sync ids.
    others: u64,
    /// What was refused or stepped over, by reason.
    refused: BTreeMap<&'static str, u64>,
}

impl Balancer {
    /// Takes the payload of one datagram, seen so long after the start. Only messages of `sync_id`, if one is named.
    pub(super) fn take(&mut self, time: Duration, bytes: &[u8], order: WordOrder, sync_id: Option<u8>) {
        self.now = self.now.max(time);
        let message = match Message::parse(bytes, order) {
            Ok(message) => message,
            Err(error) => return self.refuse(error.name()),
        };
        if sync_id.is_some_and(|id| id != message.sync_id) {
            self.others += 1;
            return;
        }
        self.messages += 1;
        for record in message.records() {
            match record {
                Ok(connection) => self.put(&connection),
                Err(skipped) => self.refuse(skipped.name()),
            }
        }
    }

    fn refuse(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    fn put(&mut self, connection: &Connection<'_>) {
        let endpoint = |endpoint: Endpoint| (endpoint.address, endpoint.port);
        let template = connection.flags.is_template();
        let key = (template, connection.protocol, endpoint(connection.client), endpoint(connection.service));
        let mut kept = Kept::new(connection, self.now);
        if let Some(known) = self.connections.get(&key).filter(|known| known.until >= self.now) {
            if known.server == connection.server || template {
                let flags = connection.flags.0 & UPDATED | known.flags.0 & !UPDATED;
                (kept.flags, kept.server) = (ConnectionFlags(flags), known.server);
                kept.sequences = kept.sequences.or(known.sequences);
            } else if connection.flags.0 & ConnectionFlags::INACTIVE != 0 {
                return;
            }
        } else if self.connections.len() >= CONNECTIONS_MAX {
            let now = self.now;
            self.connections.retain(|_, kept| kept.until >= now);
            if self.connections.len() >= CONNECTIONS_MAX {
                return self.refuse("full");
            }
        }
        self.connections.insert(key, kept);
    }

    fn living(&self) -> impl Iterator<Item = &Kept> {
        self.connections.values().filter(|kept| kept.until >= self.now)
    }

    /// Every connection in a line.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.living().map(|kept| connection_words(&kept.view()))
    }

    /// Every connection as JSON.
    pub(super) fn json(&self) -> Value {
        self.living().map(|kept| json::connection(&kept.view())).collect()
    }

    /// How it went, in one line.
    pub(super) fn words(&self) -> String {
        let templates = self.living().filter(|kept| kept.flags.is_template()).count();
        let connections = self.living().count() - templates;
        let mut text = format!("{} messages, {connections} connections and {templates} templates", self.messages);
        if self.others > 0 {
            text += &format!("; {} messages of other sync ids left out", self.others);
        }
        for (name, count) in &self.refused {
            text += &format!("; {count} × {name}");
        }
        text
    }
}

impl Kept {
    fn new(connection: &Connection<'_>, now: Duration) -> Self {
        Kept {
            protocol: connection.protocol,
            client: connection.client,
            service: connection.service,
            server: connection.server,
            flags: connection.flags,
            state: connection.state,
            firewall_mark: connection.firewall_mark,
            timeout: connection.timeout,
            sequences: connection.sequences,
            engine: connection.engine.to_vec(),
            engine_data: connection.engine_data.to_vec(),
            until: now + Duration::from_secs(connection.timeout_s().into()),
        }
    }

    fn view(&self) -> Connection<'_> {
        Connection {
            protocol: self.protocol,
            client: self.client,
            service: self.service,
            server: self.server,
            flags: self.flags,
            state: self.state,
            firewall_mark: self.firewall_mark,
            timeout: self.timeout,
            sequences: self.sequences,
            engine: &self.engine,
            engine_data: &self.engine_data,
        }
    }
}
