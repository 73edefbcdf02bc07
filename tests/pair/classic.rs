//! Two `ssyncp run` with `profile = "classic"`, and a third party on their link who sends what it likes.

use crate::machine;
use crate::support::{Node, Pair, eventually, root, run};
use serde_json::Value;
use socket2::{SockAddr, Socket};
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, Zone, protocol, status};
use ssyncp::sys::socket::{self, PacketSocket};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::process::Command;

/// Octets of an Ethernet and an IPv4 header.
const HEADERS: usize = 14 + 20;
/// TCP 198.18.0.1:40000 -> 192.0.2.10:80, served by 203.0.113.7:8080, ESTABLISHED, group 51. Put together by hand, the
/// checksum by Python.
const ESTABLISHED: [u8; 32] = [
    1, 51, 0, 32, 0, 0, 0x7e, 0x5e, // count, sync id, size, reserved, checksum
    0, 6, 0x9c, 0x40, 0, 80, 0x1f, 0x90, // zero, protocol, three ports
    198, 18, 0, 1, 192, 0, 2, 10, 203, 0, 113, 7, // client, service, server
    0, 0, 0, 1, // flags, state
];
/// The same when it has ended: CLOSE (6), inactive (0x0100).
const CLOSED: [u8; 32] = [
    1, 51, 0, 32, 0, 0, 0x7d, 0x59, 0, 6, 0x9c, 0x40, 0, 80, 0x1f, 0x90, 198, 18, 0, 1, 192, 0, 2, 10, 203, 0, 113, 7,
    1, 0, 0, 6,
];

/// A pair with the classic profile; nothing runs yet.
fn pair() -> Pair {
    let pair = Pair::new("");
    for (node, id, letter) in [(&pair.a, 1, 'a'), (&pair.b, 2, 'b')] {
        node.configure(&format!(
            "[node]\nid = {id}\nname = \"{letter}\"\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
             interfaces = [\"s{letter}\"]\nprofile = \"classic\"\ndump_interval = \"1s\"\n",
            node.socket().display()
        ));
    }
    pair
}

/// `ssyncp role`, as an operator types it.
fn role(node: &Node, word: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    let output = command.args(["role", word, "--socket"]).arg(node.socket()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    eventually("the role is taken", || node.group()["role"] == word);
}

/// Both run; `a` sends, `b` receives.
fn start(pair: &mut Pair) {
    pair.a.start();
    pair.b.start();
    for node in [&pair.a, &pair.b] {
        eventually("a backup that knows nothing", || node.is("backup", "unknown"));
        eventually("its link is up", || node.group()["link_up"] == true);
    }
    role(&pair.a, "master");
}

/// A translated connection from port 40000 + `number`.
fn connection(number: u16, protocol: u8, state: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40000 + number,
        destination_port: 80,
        protocol,
        zone: Zone::DEFAULT,
    };
    Flow {
        reply_source: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), port: 8080 }),
        state,
        status: status::SEEN_REPLY | status::ASSURED | status::CONFIRMED | status::DST_NAT,
        timeout: 3000,
        ..Flow::new(key)
    }
}

/// Writes into a node's kernel, as packets would.
fn write(node: &Node, changes: &[Change]) {
    let write = || {
        let mut sink = ConntrackSink::open(&SinkOptions::default()).map_err(io::Error::other)?;
        changes.iter().try_for_each(|change| sink.apply(change))?;
        sink.flush().map(|_| ())
    };
    node.namespace.run(write).unwrap();
}

/// State and time-out of the flow from this port in a node's table.
fn held(node: &Node, port: u16) -> Option<(u64, u64)> {
    let answer = node.ask("/v1/flows")?;
    let flows = answer["flows"].as_array()?;
    let flow = flows.iter().find(|flow| flow["source_port"] == port)?;
    Some((flow["state"].as_u64()?, flow["timeout_s"].as_u64()?))
}

/// Seconds left of the entry from this port in a node's kernel, as `conntrack` shows them: `tcp 6 899 ESTABLISHED …`.
fn kernel_timeout(node: &Node, port: u16) -> Option<u64> {
    let list = run(&node.namespace, "conntrack", &["-L"]);
    let line = list.lines().find(|line| line.contains(&format!("sport={port} ")))?;
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Payloads of protocol 114 that the third party has seen since it was last asked.
fn overhear(wire: &mut PacketSocket, frames: &mut Vec<Vec<u8>>) {
    let mut buffer = [0; 2048];
    while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
        if length > HEADERS && buffer[14 + 9] == 114 {
            frames.push(buffer[HEADERS..length].to_vec());
        }
    }
}

/// [3.1.1] [3.1.6] [3.1.7] [3.1.8] From kernel to kernel over the draft's bytes, with the time-outs of IPVS's states.
#[test]
fn entries_of_one_kernel_are_in_the_others_with_the_time_outs_of_their_states() {
    if !root() || !machine::program("conntrack") {
        return;
    }
    let mut pair = pair();
    start(&mut pair);
    let open = || PacketSocket::open(socket::interface("si")?.index, 0x0800);
    let (mut wire, mut frames) = (pair.stranger.run(open).unwrap(), Vec::new());
    write(&pair.a, &[Change::Upsert(connection(0, protocol::TCP, 3))]);
    eventually("the record is on the wire", || {
        overhear(&mut wire, &mut frames);
        !frames.is_empty()
    });
    assert_eq!(frames[0], ESTABLISHED);

    // TIME_WAIT, SYN_RECV, UDP; and what no record can say.
    let gateway = Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), port: 1 };
    let snat = Flow { reply_destination: Some(gateway), ..connection(10, protocol::TCP, 3) };
    let mut zoned = connection(11, protocol::TCP, 3);
    zoned.key.zone = Zone { id: 7, direction: Zone::BOTH };
    let said = [connection(1, protocol::TCP, 7), connection(2, protocol::TCP, 2), connection(3, protocol::UDP, 0)];
    let unsaid = [snat, zoned];
    write(&pair.a, &said.into_iter().chain(unsaid).map(Change::Upsert).collect::<Vec<_>>());
    eventually("b's table", || pair.b.group()["entries"] == 4);
    eventually("what cannot be said is counted", || {
        pair.a.counter("engine_unsaid_source_nat") > 0 && pair.a.counter("engine_unsaid_zone") > 0
    });
    for (port, state, timeout) in [(40000, 3, 900), (40001, 7, 120), (40002, 2, 60), (40003, 0, 300)] {
        let (is, left) = held(&pair.b, port).unwrap();
        assert_eq!(is, state, "state from port {port}");
        assert!(left <= timeout && left > timeout / 2, "{left} s left from port {port}");
        eventually("b's kernel has it too", || kernel_timeout(&pair.b, port).is_some());
        let left = kernel_timeout(&pair.b, port).unwrap();
        assert!(left <= timeout && left > timeout / 2, "{left} s left in the kernel from port {port}");
    }
    let kernel = |node: &Node| {
        let mut tuples: Vec<_> =
            node.table().iter().map(|entry| format!("{:?} {:?}", entry.original, entry.reply)).collect();
        tuples.retain(|tuple| !tuple.contains("40010") && !tuple.contains("40011"));
        tuples.sort();
        tuples
    };
    assert_eq!(kernel(&pair.a), kernel(&pair.b), "both directions of each entry");

    // The end of a TCP connection is said as its closing state, which dies of age; that of UDP cannot be said.
    frames.clear();
    write(&pair.a, &[0, 3].map(|number| Change::Delete(connection(number, [6, 0, 0, 17][usize::from(number)], 0).key)));
    eventually("the closing state is on the wire", || {
        overhear(&mut wire, &mut frames);
        frames.contains(&CLOSED.to_vec())
    });
    eventually("b has it", || held(&pair.b, 40000).is_some_and(|(state, left)| state == 8 && left <= 10));
    eventually("it has died of age", || held(&pair.b, 40000).is_none());
    eventually("in b's kernel too", || kernel_timeout(&pair.b, 40000).is_none());
    assert!(held(&pair.b, 40003).is_some(), "the copy of the UDP flow lives on");
    assert_eq!(pair.a.counter("engine_deletes_unsaid"), 1);
    assert!(pair.b.counter("engine_records_aged") >= 1);
}

/// [3.1.4] Nobody but the operator decides the role; who holds it sends.
#[test]
fn roles_are_what_the_operator_says() {
    if !root() {
        return;
    }
    let mut pair = pair();
    start(&mut pair);
    write(&pair.a, &[Change::Upsert(connection(0, protocol::TCP, 3))]);
    eventually("b has a's flow", || held(&pair.b, 40000).is_some());
    role(&pair.a, "backup");
    write(&pair.a, &[Change::Upsert(connection(1, protocol::TCP, 3))]);
    role(&pair.b, "master");
    write(&pair.b, &[Change::Upsert(connection(2, protocol::TCP, 3))]);
    eventually("a has b's flow", || held(&pair.a, 40002).is_some());
    assert_eq!((held(&pair.b, 40001), pair.a.group()["sync"].clone()), (None, Value::from("unknown")));
    let group = pair.b.group();
    assert_eq!((&group["profile"], &group["sync"], &group["term"]), (&"classic".into(), &"source".into(), &0.into()));
}

/// A raw socket on the third party's interface.
fn intruder(pair: &Pair) -> Socket {
    let open = || {
        let interface = socket::interface("si")?;
        socket::multicast_sender(114, Ipv4Addr::new(224, 0, 0, 81).into(), &interface, 1 << 20)
            .map_err(io::Error::other)
    };
    pair.stranger.run(open).unwrap()
}

fn send(socket: &Socket, frame: &[u8]) {
    let to = SockAddr::from(SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 81), 0));
    socket.send_to(frame, &to).unwrap();
}

/// An empty DATA frame of SSYNCP/1: node 7, sync id 51. The checksum is zlib's.
const SSYNCP1: [u8; 40] = [
    0, 51, 0, 40, 1, 2, 0, 0, 0xa2, 0x29, 0x7e, 0x20, 0, 0, 0, 7, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
    0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3,
];

/// [1.2.1] [3.1.2] [3.1.3] Each is counted under its own name, on master and backup, and changes nothing.
#[test]
fn what_is_no_good_message_is_counted_by_name_and_changes_nothing() {
    if !root() {
        return;
    }
    let mut pair = pair();
    start(&mut pair);
    write(&pair.a, &[Change::Upsert(connection(0, protocol::TCP, 3))]);
    eventually("b has a's flow", || held(&pair.b, 40000).is_some());
    let digest = pair.b.group()["digest"].clone();
    let summed = |mut frame: Vec<u8>| {
        frame[6..8].fill(0);
        let sum = pnet::util::checksum(&frame, 3);
        frame[6..8].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let with = |at: usize, value: u8| {
        // Of another client, so that it would be seen if it were taken.
        let mut frame = ESTABLISHED.to_vec();
        frame[19] = 99;
        frame[at] = value;
        summed(frame)
    };
    let long = summed([&[51, 51, 0x04, 0xd0, 0, 0, 0, 0][..], &[0; 1224]].concat());
    let damaged = [&ESTABLISHED[..31], &[2]].concat();
    let hostile: [(&str, Vec<u8>); 8] = [
        ("truncated", vec![1, 51, 0, 7, 0, 0, 0]),
        ("oversized", long),
        ("size_mismatch", with(3, 31)),
        ("unknown_version", SSYNCP1.to_vec()),
        ("checksum", damaged),
        ("wrong_group", with(1, 52)),
        ("record_truncated", with(28, 2)),
        ("count_mismatch", with(0, 2)),
    ];
    let socket = intruder(&pair);
    for (_, frame) in &hostile {
        send(&socket, frame);
    }
    send(&socket, &with(31, 11));
    send(&socket, &with(8, 1));
    for node in [&pair.a, &pair.b] {
        for (reason, _) in &hostile {
            let name = format!("engine_drop_{reason}");
            eventually(reason, || node.counter(&name) == 1);
        }
        eventually("record_field", || node.counter("engine_drop_record_field") == 2);
        let events = node.group()["last_events"].clone();
        assert!(events.as_array().unwrap().iter().any(|event| event["event"] == "VersionMismatch"), "{events}");
    }
    let group = pair.b.group();
    assert_eq!((&group["entries"], &group["digest"]), (&1.into(), &digest));
    // The same party can say what is right, too: there is no secret.
    send(&socket, &with(0, 1));
    eventually("a good one is taken", || pair.b.group()["entries"] == 2);
}

/// [3.2.3]
#[test]
fn a_group_of_ssyncp1_refuses_classic_messages_by_name() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.a.start();
    eventually("a is master", || pair.a.is("master", "source"));
    send(&intruder(&pair), &ESTABLISHED);
    eventually("it is counted", || pair.a.counter("engine_drop_unknown_version") == 1);
    assert_eq!(pair.a.group()["entries"], 0);
}
