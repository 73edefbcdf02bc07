//! Entries of sections, put and read by whoever has the control socket: keys and values that mean something to their owner
//! alone, replicated, proven and taken over like flows (docs/protocol.md 3.3.11).
//!
//! ```text
//!   ssyncp section put ─▶ PUT /v1/sections/0/KEY ─▶ [Order] ─▶ loop ─▶ Engine::update_section     master: takes it
//!                                                                        └▶ "put it on node 2"     others: refuse
//!   ssyncp section get ─▶ GET /v1/sections/0/KEY ─▶ [Order] ─▶ loop ─▶ Engine::section            every node
//! ```
//!
//! They live in the memory of the nodes: one that starts anew gets them from its master, and they are gone when all nodes
//! were down at the same time. A value may have [`VALUE_MAX`] bytes here; the engine holds 4096 entries and 16 MiB in all.

use crate::daemon::protocol::Protocol;
use crate::engine::{Engine, Role, SectionUse, UpdateError};
use crate::flow::{Section, SectionChange, SectionKey};
use crate::time::Instant;
use tokio::sync::oneshot;

/// Longest value that the control socket takes, in bytes: the loop copies it between two turns.
pub const VALUE_MAX: usize = 1 << 20;
/// Longest key in bytes.
pub const KEY_MAX: usize = crate::table::SECTION_KEY_MAX;

/// What a group's loop can be asked about its sections, each with where the answer goes.
#[derive(Debug)]
pub enum Order {
    /// An entry is to be this.
    Put(Section, oneshot::Sender<Result<(), Refused>>),
    /// An entry is to be gone; whether there was one.
    Delete(SectionKey, oneshot::Sender<Result<bool, Refused>>),
    /// The entry with its value, if there is one.
    Get(SectionKey, oneshot::Sender<Result<Option<Section>, Refused>>),
    /// Every entry without its value, and the room for them.
    List(oneshot::Sender<Result<(Vec<Listed>, SectionUse), Refused>>),
}

/// An entry without its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// What names it.
    pub key: SectionKey,
    /// Length of its value in bytes.
    pub bytes: u64,
    /// Seconds until it is forgotten; 0 is never.
    pub expiry: u32,
}

/// Why an order was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Only the master takes changes.
    #[error("this node is {role}, and only the master takes changes; {cure}")]
    NotMaster {
        /// What it is.
        role: &'static str,
        /// Where to go.
        cure: String,
    },
    /// No room for another entry, or for so long a value.
    #[error(
        "the sections are full: {} of {} entries, {} of {} bytes; delete some, or let them expire",
        .0.entries, .0.entries_max, .0.bytes, .0.bytes_max
    )]
    Full(SectionUse),
    /// A key has 1 to 256 bytes.
    #[error("a key has 1 to 256 bytes")]
    Key,
    /// The group has none, or none yet.
    #[error("{0}")]
    None(String),
}

impl Order {
    /// Answers every order with the same refusal.
    pub fn refuse(self, why: Refused) {
        // Whoever asked may have gone meanwhile.
        match self {
            Order::Put(_, answer) => drop(answer.send(Err(why))),
            Order::Delete(_, answer) => drop(answer.send(Err(why))),
            Order::Get(_, answer) => drop(answer.send(Err(why))),
            Order::List(answer) => drop(answer.send(Err(why))),
        }
    }

    /// Carries it out, on the loop's thread.
    pub(crate) fn answer(self, now: Instant, protocol: &mut Protocol) {
        let Some(engine) = protocol.ssyncp1() else {
            return self.refuse(Refused::None("profile \"classic\" carries flows alone, and no sections".into()));
        };
        match self {
            Order::Put(section, answer) => drop(answer.send(change(engine, now, &SectionChange::Put(section)))),
            Order::Delete(key, answer) => {
                let held = engine.section(&key, now).is_some();
                drop(answer.send(change(engine, now, &SectionChange::Delete(key)).map(|()| held)));
            }
            Order::Get(key, answer) => drop(answer.send(Ok(engine.section(&key, now)))),
            Order::List(answer) => {
                let listed = |(key, bytes, expiry): (&SectionKey, usize, u32)| Listed {
                    key: key.clone(),
                    bytes: bytes as u64,
                    expiry,
                };
                let entries = engine.section_list(now).map(listed).collect();
                drop(answer.send(Ok((entries, engine.section_use()))));
            }
        }
    }
}

fn change(engine: &mut Engine, now: Instant, change: &SectionChange) -> Result<(), Refused> {
    engine.update_section(now, change).map_err(|error| match error {
        UpdateError::SectionKey => Refused::Key,
        UpdateError::SectionsFull => Refused::Full(engine.section_use()),
        _ => not_master(engine),
    })
}

fn not_master(engine: &Engine) -> Refused {
    let status = engine.status();
    let named = |node| match status.peers.iter().find(|peer| peer.node == node) {
        Some(peer) => format!("node {} ({})", peer.node.0, peer.name),
        None => format!("node {}", node.0),
    };
    let cure = match status.master.filter(|_| status.role != Role::Master) {
        Some(master) => format!("do it on {}", named(master)),
        None => "wait until somebody is".to_owned(),
    };
    Refused::NotMaster { role: status.role.name(), cure }
}
