//! Connections as IPVS knows them: messages of the classic profile, and those of the kernel.

use super::captures;
use ssyncp::engine::{ClassicConfig, ClassicEngine, RoleRequest};
use ssyncp::flow::{FlowKey, protocol};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::classic::{self, Message, Writer};
use ssyncp::wire::ipvs::{self, Connection, WordOrder};
use ssyncp::wire::{self, FrameMeta, NodeId};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A message of the classic profile as it comes from the wire; then the same with size and checksum put right.
pub fn classic(data: &[u8]) {
    take_classic(data);
    let mut data = data[..data.len().min(classic::MESSAGE_LEN_MAX)].to_vec();
    if data.len() < classic::HEADER_LEN {
        return;
    }
    let [high, low] = (data.len() as u16).to_be_bytes();
    data[2..6].copy_from_slice(&[high, low, 0, 0]);
    let sum = checksum(&data);
    data[6..8].copy_from_slice(&sum.to_be_bytes());
    take_classic(&data);
}

/// Messages of the recordings.
pub fn classic_seeds() -> Vec<Vec<u8>> {
    captures::payloads("pcap").into_iter().filter(|message| message.get(4) == Some(&0)).collect()
}

/// A message of the kernel's IPVS, its words in both orders; then the same with the size put right.
pub fn ipvs(data: &[u8]) {
    take_ipvs(data);
    let mut data = data[..data.len().min(usize::from(u16::MAX))].to_vec();
    if data.len() >= 4 {
        let size = (data.len() as u16).to_be_bytes();
        data[2..4].copy_from_slice(&size);
        take_ipvs(&data);
    }
}

/// Messages of real kernels, and those of the classic profile, whose records are the same.
pub fn ipvs_seeds() -> Vec<Vec<u8>> {
    captures::datagrams("pcap/ipvs").into_iter().chain(classic_seeds()).collect()
}

fn take_classic(data: &[u8]) {
    assert!(!wire::describe(data, &[]).is_empty());
    let Ok(message) = Message::parse(data) else { return };
    let sync_id = message.sync_id();
    let Ok(records) = message.verify() else { return };
    assert_eq!(records.clone().count(), usize::from(data[0]), "another number of records than it says");
    let connections: Vec<Connection<'_>> = records.flatten().collect();
    let mut slot = [0; classic::MESSAGE_LEN_MAX];
    let mut writer = Writer::new(&mut slot, sync_id).expect("room for a header");
    assert!(connections.iter().all(|connection| writer.push(connection)), "what came in one message fits one");
    let len = writer.finish();
    let message = Message::parse(&slot[..len]).expect("what we write is a message");
    let again: Vec<Connection<'_>> = message.verify().expect("what we write is valid").flatten().collect();
    assert_eq!(again, connections);
    connections.iter().for_each(check_flow);
    pass_on(data, sync_id, &connections);
}

/// What a backup has taken it can send when it is master: nothing that came in stays behind or holds the rest up.
fn pass_on(data: &[u8], sync_id: u8, connections: &[Connection<'_>]) {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut engine = ClassicEngine::new(
        ClassicConfig {
            node: NodeId(1),
            sync_id,
            capacity: 64,
            batch_delay: Duration::from_millis(1),
            seed: 7,
            own_addresses: Vec::new(),
        },
        now,
    );
    engine.handle_link(now, true);
    engine.handle_frame(now, FrameMeta { link: 0, source: IpAddr::from([10, 99, 0, 1]) }, data);
    let sayable = |connection: &&Connection<'_>| Connection::of_flow(&connection.to_flow()).is_ok();
    let wanted: BTreeSet<FlowKey> = connections.iter().filter(sayable).map(|it| it.to_flow().key).collect();
    engine.set_role(now, RoleRequest::Master);
    let mut sent = BTreeSet::new();
    // A whole period of refreshment, in as many steps as the engine takes it, and some to send what waits.
    for _ in 0..300 {
        now += Duration::from_millis(118);
        engine.handle_timeout(now);
        let mut slot = [0; wire::FRAME_LEN_MIN];
        while let Some(len) = engine.poll_transmit(now, &mut slot) {
            let message = Message::parse(&slot[..len]).expect("what is sent is a message");
            sent.extend(message.verify().expect("what is sent is valid").flatten().map(|it| it.to_flow().key));
        }
    }
    assert_eq!(sent, wanted, "sent is not what was taken");
}

fn take_ipvs(data: &[u8]) {
    for order in [WordOrder::LittleEndian, WordOrder::BigEndian] {
        let Ok(message) = ipvs::Message::parse(data, order) else { continue };
        let records: Vec<_> = message.records().collect();
        assert_eq!(records.len(), usize::from(message.count));
        assert!(message.surplus <= data.len());
        records.iter().flatten().for_each(check_flow);
    }
}

/// What a flow has kept of a connection it keeps for ever: a second way there and back changes nothing.
fn check_flow(connection: &Connection<'_>) {
    let flow = connection.to_flow();
    if protocol::is_icmp(connection.protocol) {
        // Nobody looks at a template's protocol, and what IPVS does not balance has no templates. An ICMP answer has no
        // port of its own.
        return;
    }
    assert_eq!(flow, flow.clone().canonical());
    assert_eq!(connection.flow().is_none(), connection.flags.is_template());
    let Ok(said) = Connection::of_flow(&flow) else { return };
    assert_eq!((said.client, said.service, said.server), (connection.client, connection.service, connection.server));
    assert_eq!(said.protocol, connection.protocol);
    assert_eq!((said.engine, said.engine_data), (connection.engine, connection.engine_data));
    assert_eq!(said.firewall_mark, connection.firewall_mark);
    let once = said.to_flow();
    let nature = |said: &Connection<'_>| (said.flags.forwarding(), said.flags.is_template());
    assert_eq!(nature(&said), nature(connection));
    let again = Connection::of_flow(&once).expect("what was sayable stays so").to_flow();
    assert_eq!(again, once);
}

/// The Internet checksum (RFC 1071) of a message, its own field left out: a second opinion.
fn checksum(message: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for (at, byte) in message.iter().enumerate().filter(|(at, _)| !(6..8).contains(at)) {
        sum += u64::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
