//! The demo's traffic in two namespaces joined by a veth pair, without any balancer: what lives, what breaks, and what
//! is seen.

use crate::machine::{PATIENCE, path_of, root, shell};
use nix::time::{ClockId, clock_gettime};
use ssyncp::demo::client::{Client, ClientPlan};
use ssyncp::demo::kernel;
use ssyncp::demo::probe::{Probe, ProbePlan};
use ssyncp::demo::server::{Server, ServerPlan};
use ssyncp::demo::watch::Watcher;
use ssyncp::sys::namespace::Namespace;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const HTTP: SocketAddrV4 = SocketAddrV4::new(SERVER, 80);
const HTTP_ALT: SocketAddrV4 = SocketAddrV4::new(SERVER, 8080);
const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);

/// Two namespaces and a cable.
struct Room {
    near: Namespace,
    far: Namespace,
}

impl Room {
    /// `None`, and a line that says so, without root.
    fn open() -> Option<Room> {
        if !root() {
            return None;
        }
        let room = Room { near: Namespace::create().unwrap(), far: Namespace::create().unwrap() };
        // The far end is made in the near namespace and moved by descriptor: /proc/PID/fd/N is a name for it.
        let far = path_of(&room.far);
        room.near(&format!(
            "ip link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02 && \
             ip link set far netns {far} && ip address add {CLIENT}/24 dev near && \
             ip address add {OTHER_CLIENT}/24 dev near && ip link set near up && ip link set lo up"
        ));
        room.far(&format!("ip address add {SERVER}/24 dev far && ip link set far up && ip link set lo up"));
        Some(room)
    }

    fn near(&self, script: &str) {
        shell(&self.near, script);
    }

    fn far(&self, script: &str) {
        shell(&self.far, script);
    }

    fn server(&self) -> Server {
        let plan = ServerPlan { listen: vec![HTTP.into(), HTTP_ALT.into()], udp: vec![ECHO.into()] };
        Server::spawn_from(executable(), &self.far, &plan).unwrap()
    }

    /// Clients of which every one is connected.
    fn client(&self, connections: u32, fast: u32) -> Client {
        let plan = ClientPlan {
            targets: vec![HTTP.into(), HTTP_ALT.into()],
            sources: vec![CLIENT.into(), OTHER_CLIENT.into()],
            connections,
            fast,
            fast_interval_ms: 10,
            slow_interval_ms: 1000,
            seed: 1,
        };
        let mut client = Client::spawn_from(executable(), &self.near, &plan).unwrap();
        assert_eq!(client.wait_connected(PATIENCE).unwrap(), connections);
        client
    }

    /// Cuts the cable for 300 ms.
    fn pause(&self) {
        self.far("ip link set far down; sleep 0.3; ip link set far up");
    }
}

fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ssyncp"))
}

fn wall_clock() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).unwrap().into()
}

#[test]
fn all_connections_survive_a_short_pause_and_another_one() {
    let Some(room) = Room::open() else { return };
    let _server = room.server();
    let mut client = room.client(200, 20);
    let mut checked = 0;
    for _ in 0..2 {
        client.mark_death().unwrap();
        room.pause();
        let verdict = client.verdict(Duration::from_secs(10)).unwrap();
        assert_eq!((verdict.connections, verdict.survived, verdict.reset, verdict.stalled), (200, 200, 0, 0));
        assert_eq!(verdict.mismatches, 0);
        // 200 answers at least since the last look, none shorter than 32 bytes.
        assert!(verdict.bytes_checked >= checked + 200 * 32, "{verdict:?}");
        assert!(verdict.tcp_gap_ms_p50 >= 250.0 && verdict.tcp_gap_ms_max >= verdict.tcp_gap_ms_p50, "{verdict:?}");
        assert!((1..60_000).contains(&verdict.rto_min_ms), "{verdict:?}");
        checked = verdict.bytes_checked;
    }
}

#[test]
fn no_connection_survives_the_death_of_its_server_and_a_restart_brings_all_back() {
    let Some(room) = Room::open() else { return };
    let server = room.server();
    let mut client = room.client(100, 10);
    drop(server);
    client.mark_death().unwrap();
    let verdict = client.verdict(Duration::from_secs(1)).unwrap();
    assert_eq!((verdict.survived, verdict.reset + verdict.stalled), (0, 100));
    assert!(verdict.reset > 0, "{verdict:?}");

    // Not opened again, they stay broken.
    client.mark_death().unwrap();
    assert_eq!(client.verdict(Duration::from_secs(1)).unwrap().survived, 0);

    client.restart().unwrap();
    let _server = room.server();
    assert_eq!(client.wait_connected(PATIENCE).unwrap(), 100);
    client.mark_death().unwrap();
    assert_eq!(client.verdict(Duration::from_secs(10)).unwrap().survived, 100);
}

#[test]
fn connections_whose_packets_vanish_have_stalled() {
    let Some(room) = Room::open() else { return };
    let _server = room.server();
    let mut client = room.client(50, 5);
    room.far("ip link set far down");
    client.mark_death().unwrap();
    let verdict = client.verdict(Duration::from_secs(1)).unwrap();
    assert_eq!((verdict.survived, verdict.reset, verdict.stalled), (0, 0, 50));
    assert!(verdict.tcp_gap_ms_p50 >= 900.0, "{verdict:?}");
}

#[test]
fn a_connection_that_is_rejected_afterwards_has_been_reset() {
    let Some(room) = Room::open() else { return };
    let _server = room.server();
    let mut client = room.client(50, 5);
    client.mark_death().unwrap();
    room.far(
        "nft 'table ip t { chain c { type filter hook input priority 0; tcp dport 80 reject with tcp reset; }; }'",
    );
    let verdict = client.verdict(Duration::from_secs(10)).unwrap();
    assert_eq!((verdict.survived, verdict.reset, verdict.stalled), (25, 25, 0));
}

#[test]
fn a_wrong_byte_is_found_and_is_no_survival() {
    let Some(room) = Room::open() else { return };
    let listener = room.far.run(|| TcpListener::bind(HTTP)).unwrap();
    let falsify = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let falsify = &falsify;
        scope.spawn(move || {
            for stream in listener.incoming().take(3) {
                scope.spawn(move || echo_or_falsify(stream.unwrap(), falsify));
            }
        });
        let plan = ClientPlan {
            targets: vec![HTTP.into()],
            sources: vec![],
            connections: 3,
            fast: 1,
            fast_interval_ms: 10,
            slow_interval_ms: 1000,
            seed: 1,
        };
        let mut client = Client::spawn_from(executable(), &room.near, &plan).unwrap();
        assert_eq!(client.wait_connected(PATIENCE).unwrap(), 3);
        client.mark_death().unwrap();
        let verdict = client.verdict(Duration::from_secs(10)).unwrap();
        assert_eq!((verdict.survived, verdict.mismatches), (3, 0));
        falsify.store(true, Ordering::Relaxed);
        client.mark_death().unwrap();
        let verdict = client.verdict(Duration::from_secs(10)).unwrap();
        assert_eq!((verdict.survived, verdict.reset, verdict.mismatches), (0, 3, 3));
    });
}

/// Echoes until the other side ends it; with one bit wrong in each last byte once `falsify` is set.
fn echo_or_falsify(mut stream: TcpStream, falsify: &AtomicBool) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        buffer[length - 1] ^= u8::from(falsify.load(Ordering::Relaxed));
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_in_words() {
    let Some(room) = Room::open() else { return };
    let plan = ServerPlan { listen: vec![SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 80).into()], udp: vec![] };
    let error = Server::spawn_from(executable(), &room.far, &plan).unwrap_err();
    assert!(error.to_string().contains("cannot listen on TCP 203.0.113.1:80"), "{error}");

    let mut plan = ClientPlan {
        targets: vec![HTTP.into()],
        sources: vec![],
        connections: u32::MAX,
        fast: 0,
        fast_interval_ms: 10,
        slow_interval_ms: 1000,
        seed: 1,
    };
    let error = Client::spawn_from(executable(), &room.near, &plan).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    plan.connections = 0;
    assert!(Client::spawn_from(executable(), &room.near, &plan).is_err());

    plan.connections = 3;
    let mut client = Client::spawn_from(executable(), &room.near, &plan).unwrap();
    // Nobody listens, and there is no death to judge.
    assert_eq!(client.wait_connected(Duration::ZERO).unwrap(), 0);
    assert!(client.verdict(Duration::from_secs(1)).unwrap_err().to_string().contains("without a death"));
}

#[test]
fn the_retransmission_time_out_in_use_is_told() {
    let Some(room) = Room::open() else { return };
    let _server = room.server();
    let mut verdicts = Vec::new();
    for route in ["", "ip route replace 198.51.100.0/24 dev near rto_min 20ms"] {
        room.near(route);
        let mut client = room.client(10, 10);
        client.mark_death().unwrap();
        verdicts.push(client.verdict(Duration::from_secs(10)).unwrap().rto_min_ms);
    }
    assert!(verdicts[0] >= 200 && (20..200).contains(&verdicts[1]), "{verdicts:?}");
}

#[test]
fn a_part_ends_when_its_parent_is_gone_and_says_what_it_does_not_understand() {
    let start = |part: &str, instructions: &str| {
        let mut command = Command::new(executable());
        command.args(["demo-part", part, instructions]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let listening = r#"{"listen":["127.0.0.1:0"],"udp":["127.0.0.1:0"]}"#;
    // What the standard library waits for with its output is what it has closed the input of.
    let output = start("server", listening).wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"\"ready\"\n"[..]));

    for (part, instructions) in
        [("server", "{"), ("client", listening), ("probe", r#"{"targets":[],"flows":1,"interval_ms":1}"#)]
    {
        let output = start(part, instructions).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{part}");
        assert!(output.stdout.starts_with(br#"{"failed":""#), "{part}");
    }
    assert_eq!(start("juggler", "{}").wait().unwrap().code(), Some(2));

    let mut server = start("server", listening);
    server.stdin.take().unwrap().write_all(b"\"dance\"\n").unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(1));
}

#[test]
fn the_probe_sees_a_hole_as_long_as_the_pause() {
    let Some(room) = Room::open() else { return };
    let _server = room.server();
    let plan = ProbePlan { targets: vec![ECHO.into()], flows: 8, interval_ms: 1 };
    let mut probe = Probe::spawn_from(executable(), &room.near, &plan).unwrap();
    probe.start_window().unwrap();
    let started = Instant::now();
    room.pause();
    // The hole has an end as soon as every flow has heard again: the window is asked for until it stops growing.
    let verdict = loop {
        let verdict = probe.end_window().unwrap();
        let window_ms = started.elapsed().as_secs_f64() * 1000.0;
        if verdict.max_ms < window_ms - 50.0 {
            break verdict;
        }
        assert!(started.elapsed() < PATIENCE, "{verdict:?}");
    };
    assert_eq!((verdict.flows, verdict.gaps_ms.len()), (8, 8));
    assert!(verdict.p50_ms >= 290.0 && verdict.max_ms >= verdict.p50_ms, "{verdict:?}");
    assert!(verdict.answered > 0 && verdict.answered + 200 < verdict.sent, "{verdict:?}");
}

#[test]
fn the_watcher_sees_who_announces_an_address_and_when() {
    let Some(room) = Room::open() else { return };
    let address = Ipv4Addr::new(198, 51, 100, 99);
    let watcher = Watcher::start(&room.near, "near", vec![address]).unwrap();
    assert!(Watcher::start(&room.near, "no-such", vec![address]).is_err());

    let before = wall_clock();
    // Ordinary questions and announcements of others are not it.
    announce(&room.far, Ipv4Addr::new(198, 51, 100, 98), Ipv4Addr::new(198, 51, 100, 98));
    announce(&room.far, address, CLIENT);
    let between = wall_clock();
    announce(&room.far, address, address);
    let seen = watcher.first_announcement_after(before, PATIENCE).unwrap();
    let after = wall_clock();
    assert!(between < seen && seen < after, "{between:?} {seen:?} {after:?}");
    assert_eq!(watcher.first_announcement_after(after, Duration::from_millis(1)), None);
    assert_eq!(watcher.first_announcement_after(seen, Duration::ZERO), None);
}

/// Sends an ARP request from the far end of the cable.
fn announce(namespace: &Namespace, sender: Ipv4Addr, target: Ipv4Addr) {
    let hardware = [2, 0, 0, 0, 0, 2];
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target.octets());
    namespace
        .run(|| {
            let interfaces = pnet::datalink::interfaces();
            let far = interfaces.iter().find(|one| one.name == "far").unwrap();
            match pnet::datalink::channel(far, pnet::datalink::Config::default())? {
                pnet::datalink::Channel::Ethernet(mut sender, _) => sender.send_to(&frame, None).unwrap(),
                _ => unreachable!("there is no other channel"),
            }
        })
        .unwrap();
}

#[test]
fn the_dump_shows_what_the_kernel_has_and_two_kernels_are_compared() {
    let Some(room) = Room::open() else { return };
    // Connection tracking begins with a rule that needs it. The far side translates, so that the two tables differ.
    room.near("nft 'table ip t { chain c { type filter hook output priority 0; ct state established accept; }; }'");
    room.far(
        "nft 'table ip t { \
           chain p { type nat hook prerouting priority -100; tcp dport 443 redirect to :80; }; \
           chain m { type filter hook input priority 0; ct mark set 7; }; }'",
    );
    let _server = room.server();
    let plan = ClientPlan {
        targets: vec![SocketAddrV4::new(SERVER, 443).into()],
        sources: vec![CLIENT.into()],
        connections: 20,
        fast: 0,
        fast_interval_ms: 10,
        slow_interval_ms: 100,
        seed: 1,
    };
    let mut client = Client::spawn_from(executable(), &room.near, &plan).unwrap();
    assert_eq!(client.wait_connected(PATIENCE).unwrap(), 20);

    let near = kernel::dump(&room.near).unwrap();
    let far = kernel::dump(&room.far).unwrap();
    let (near_tcp, far_tcp): (Vec<_>, Vec<_>) = (tcp(&near), tcp(&far));
    assert_eq!((near_tcp.len(), far_tcp.len()), (20, 20));
    assert!(kernel::count(&room.near).unwrap() >= 20);
    for entry in &near_tcp {
        assert_eq!((entry.original.source, entry.original.destination), (CLIENT.into(), SERVER.into()));
        assert_eq!((entry.original.destination_port, entry.reply.source_port), (443, 443));
        assert_eq!((entry.reply.source, entry.reply.destination), (SERVER.into(), CLIENT.into()));
        assert_eq!(entry.original.source_port, entry.reply.destination_port);
        assert_eq!((entry.state, entry.mark), (Some(3), 0), "3 is ESTABLISHED");
        assert_eq!(entry.status & kernel::status::COMPARED, 0x06, "a reply was seen, assured");
    }
    for entry in &far_tcp {
        assert_eq!((entry.original.destination_port, entry.reply.source_port), (443, 80));
        assert_eq!((entry.state, entry.mark), (Some(3), 7));
        assert_eq!(entry.status & kernel::status::COMPARED, 0x26, "a reply was seen, assured, destination translated");
    }
    let difference = kernel::compare(&near_tcp, &far_tcp);
    assert_eq!((difference.missing, difference.extra, difference.stale), (0, 0, 20));
    assert_eq!(difference.examples.len(), 5);
    assert_eq!(kernel::compare(&far_tcp, &far_tcp), kernel::Difference::default());

    let empty = Namespace::create().unwrap();
    assert_eq!(kernel::dump(&empty).unwrap(), []);
    let difference = kernel::compare(&near_tcp, &kernel::dump(&empty).unwrap());
    assert_eq!((difference.missing, difference.extra, difference.stale), (20, 0, 0));
}

fn tcp(entries: &[kernel::Entry]) -> Vec<kernel::Entry> {
    entries.iter().filter(|entry| entry.original.protocol == 6).copied().collect()
}
