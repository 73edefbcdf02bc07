//! A third party on the sync link, who sends what it likes to two `ssyncp run`.

use crate::support::{Node, Pair, connection, eventually, root};
use serde_json::Value;
use socket2::{SockAddr, Socket};
use ssyncp::demo::kernel::Difference;
use ssyncp::sys::socket::{self, PacketSocket};
use ssyncp::wire::{self, Advert, DataWriter, Header, NodeId, WireRole};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Connections in both kernels.
const ENTRIES: u32 = 1000;
/// Datagrams that are sent before anybody looks.
const BURST: u64 = 200;
/// Octets of an Ethernet and an IPv4 header.
const HEADERS: usize = 14 + 20;

/// The raw socket of the third party.
struct Intruder {
    socket: Socket,
    sent: u64,
}

impl Intruder {
    fn new(pair: &Pair) -> Self {
        let open = || {
            let interface = socket::interface("si")?;
            socket::multicast_sender(114, ssyncp::wire::GROUP.into(), &interface, 4 << 20).map_err(io::Error::other)
        };
        Intruder { socket: pair.stranger.run(open).unwrap(), sent: 0 }
    }

    /// Sends one datagram, waiting for a queue that is full.
    fn send(&mut self, frame: &[u8]) {
        let to = SockAddr::from(SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 81), 0));
        while let Err(error) = self.socket.send_to(frame, &to) {
            let full = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
            assert!(full, "{error}");
            std::thread::sleep(Duration::from_micros(100));
        }
        self.sent += 1;
    }

    /// Waits until each node has refused as many as were sent: the kernel's own queues would drop what comes too fast,
    /// and count it for nobody.
    fn until_refused(&self, nodes: [&Node; 2], before: [u64; 2]) {
        for (node, before) in nodes.into_iter().zip(before) {
            eventually("each of them is counted", || refused(node) >= before + self.sent);
        }
    }
}

/// Frames of both nodes as they are on the wire, at least one DATA among them.
fn overheard(pair: &Pair) -> Vec<Vec<u8>> {
    let open = || PacketSocket::open(socket::interface("si")?.index, 0x0800);
    let mut wire = pair.stranger.run(open).unwrap();
    pair.a.connect(ENTRIES..ENTRIES + 1);
    let (mut frames, mut buffer) = (Vec::new(), [0; 2048]);
    eventually("frames of both, and DATA", || {
        while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
            if length > HEADERS && buffer[14 + 9] == 114 {
                frames.push(buffer[HEADERS..length].to_vec());
            }
        }
        let seen = |node: u8, kind: u8| frames.iter().any(|frame| frame[15] == node && frame[5] == kind);
        seen(1, 1) && seen(1, 2) && seen(2, 1)
    });
    frames.truncate(8);
    frames
}

/// Well-formed frames of somebody whom nobody has proven: a new node, and one that says that it is node 1. First DATA,
/// then ADVERTs, by which the two would be masters of a higher term.
fn impostures() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut data, mut adverts) = (Vec::new(), Vec::new());
    for node in [1, 9] {
        let header =
            |seq| Header { sync_id: 51, node: NodeId(node), incarnation: 77, seq, term: 9, ..Header::default() };
        let mut slot = vec![0; 1480];
        let mut writer = DataWriter::new(&mut slot, header(1)).unwrap();
        writer.push_upsert(&connection(ENTRIES + 7)).expect("room");
        writer.push_delete(&connection(1).key).expect("room");
        writer.push_bucket_end(0, 0).expect("room");
        let length = writer.finish();
        data.push(slot[..length].to_vec());
        let advert = Advert { role: WireRole::MASTER, priority: 255, interval_ms: 10, ..Advert::default() };
        let length = wire::encode_advert(&mut slot, header(2), &advert).unwrap();
        adverts.push(slot[..length].to_vec());
    }
    (data, adverts)
}

/// Datagrams of any length, the same ones in each run.
fn garbage(count: u32) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x5eed_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    (0..count).map(move |_| {
        let length = next() % 1481;
        (0..length).map(|_| next() as u8).collect()
    })
}

/// Datagrams that a node has refused, for whatever reason.
fn refused(node: &Node) -> u64 {
    let transport =
        ["transport_malformed", "transport_oversized", "transport_ttl_refused", "transport_dropped_by_kernel"];
    let drops: u64 = node.counters("engine_drop_").iter().map(|(_, count)| count).sum();
    drops + transport.iter().map(|name| node.counter(name)).sum::<u64>()
}

/// What must not change.
fn standing(node: &Node) -> [Value; 6] {
    let group = node.group();
    ["role", "term", "master", "entries", "digest", "sync"].map(|key| group[key].clone())
}

/// [1.2.1] [1.2.2] [3.0.2] [3.5.3] Every datagram is refused for a reason with a name, and that is all it does.
#[test]
fn whatever_a_stranger_sends_is_counted_and_changes_nothing() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new("advert_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..ENTRIES);
    let real = overheard(&pair);
    pair.until_equal(ENTRIES as usize + 1);
    pair.settle();
    let nodes = [&pair.a, &pair.b];
    let (before, refused_before) = (nodes.map(standing), nodes.map(refused));
    let mut intruder = Intruder::new(&pair);

    let mut send = |datagram: &[u8]| {
        intruder.send(datagram);
        if intruder.sent.is_multiple_of(BURST) {
            intruder.until_refused(nodes, refused_before);
        }
    };
    garbage(3_000).for_each(|datagram| send(&datagram));
    for frame in &real {
        (0..frame.len()).step_by(3).for_each(|length| send(&frame[..length]));
        for position in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[position] ^= 1 << (position % 8);
            send(&damaged);
        }
    }
    let (data, adverts) = impostures();
    data.iter().for_each(|frame| send(frame));
    // Anybody may ask to be heard; until it proves that it hears us, that is all.
    adverts.iter().for_each(|frame| intruder.send(frame));
    eventually("the impostures are seen", || pair.a.counter("engine_drop_own_node") == 2);
    intruder.sent -= adverts.len() as u64;
    intruder.socket.set_multicast_ttl_v4(64).unwrap();
    real.iter().for_each(|frame| intruder.send(frame));
    intruder.until_refused(nodes, refused_before);
    println!("{} datagrams; a: {:?}", intruder.sent, pair.a.counters("engine_drop_"));

    assert_eq!(nodes.map(standing), before);
    assert_eq!(pair.difference(), Difference::default());
    for reason in ["truncated", "size_mismatch", "unknown_version", "checksum", "unestablished"] {
        assert_ne!(pair.b.counter(&format!("engine_drop_{reason}")), 0, "{reason}");
    }
    assert_ne!(pair.a.counter("engine_drop_own_node"), 0);
    assert_eq!(pair.b.counter("transport_ttl_refused"), real.len() as u64);
}
