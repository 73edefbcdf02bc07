//! Real packets through the master, one new connection after the other, while the other node follows.
//!
//! ```text
//!   clients ── la0 ═══ la ── node a: redirect to port 7, where each datagram is answered
//!   10.9.0.1 to .8               └ sa ══ switch ══ sb ── node b
//! ```

use crate::support::{Node, PATIENCE, Pair, eventually, figure, ip, path_of, root, run};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use ssyncp::demo::kernel::Difference;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// Addresses of the clients; each uses every port from [`FIRST_PORT`] on once.
const CLIENTS: u32 = 8;
const FIRST_PORT: u16 = 2000;
/// What they talk to: the address that the master holds.
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80);
/// Octets of a UDP header and one of payload.
const DATAGRAM: u8 = 9;
/// Most datagrams without a pause, however late they are: the kernel drops what waits for a processor beyond 1000.
const MOST_AT_ONCE: u32 = 100;
/// Bytes of receive buffer: whoever answers may stand still for as long as the usual traffic lasts, and loses nothing.
const BUFFER: usize = 8 << 20;

/// The clients behind `la0`, and the rules of `a`: its traffic on the sync link is not tracked, that to the service is
/// translated.
fn clients(a: &Node) -> Namespace {
    let clients = Namespace::create().unwrap();
    ip(&a.namespace, &format!("link set la0 netns {}\nroute add 10.9.0.0/24 dev la", path_of(&clients)));
    ip(&clients, "link set lo up\nlink set la0 up");
    (1..=CLIENTS).for_each(|host| ip(&clients, &format!("address add 10.9.0.{host}/32 dev la0")));
    ip(&clients, "route add 192.0.2.0/24 dev la0 src 10.9.0.1");
    // The answers reach no socket that the kernel knows; it shall not complain to the server.
    let silence = "table ip test {
            chain out { type filter hook output priority 0; ip protocol icmp drop; }
        }";
    run(&clients, "nft", &[silence]);
    let rules = "table ip test {
            chain untracked_in { type filter hook prerouting priority raw; iifname sa notrack; }
            chain untracked_out { type filter hook output priority raw; oifname sa notrack; }
            chain services { type nat hook prerouting priority dstnat; udp dport 80 redirect to :7; }
        }";
    run(&a.namespace, "nft", &[rules]);
    clients
}

/// Answers so many datagrams; each of them comes.
fn echo(socket: &UdpSocket, count: u32) {
    let mut buffer = [0; 64];
    for answered in 0..count {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(error) => panic!("{answered} of {count} have come: {error}"),
        }
    }
}

/// Begins `count` connections of one datagram, `rate` of them a second.
fn begin(clients: &Namespace, count: u32, rate: u32) {
    let open = |host: u32| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1 + host as u8), 0).into())?;
        Ok::<_, io::Error>(socket)
    };
    let sockets: Vec<Socket> = (0..CLIENTS).map(|host| clients.run(|| open(host)).unwrap()).collect();
    let to = SockAddr::from(SERVICE);
    let (start, mut begun) = (Instant::now(), 0);
    while begun < count {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        let due = due.min(count).min(begun + MOST_AT_ONCE);
        while begun < due {
            let port = (FIRST_PORT + (begun / CLIENTS) as u16).to_be_bytes();
            // Source, destination, length, no checksum (RFC 768), one octet.
            let datagram = [port[0], port[1], 0, 80, 0, DATAGRAM, 0, 0, b'?'];
            sockets[(begun % CLIENTS) as usize].send_to(&datagram, &to).unwrap();
            begun += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Datagrams that UDP sockets of this namespace have been given.
fn received(namespace: &Namespace) -> u64 {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let values = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    values.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// [1.1.1] By hand: `TRAFFIC_RATE=10000 TRAFFIC_SECONDS=10 cargo test --release --test pair traffic -- --nocapture`
#[test]
fn what_packets_do_to_the_master_is_in_the_other_kernel_when_they_are_quiet() {
    if !root() {
        return;
    }
    let (rate, seconds) = (figure("TRAFFIC_RATE", 2_000), figure("TRAFFIC_SECONDS", 2));
    let count = rate * seconds;
    let mut pair = Pair::new("audit_interval = \"1s\"\nadvert_interval = \"1s\"");
    let clients = clients(&pair.a);
    pair.start();
    let open = || {
        let socket = UdpSocket::bind(("0.0.0.0", 7))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        Ok(socket)
    };
    let server = pair.a.namespace.run(open).unwrap();
    let usage = |node: &Node| (node.cpu(), node.counter("driver_turns"));
    let before = [usage(&pair.a), usage(&pair.b)];
    let tell = |when: &str| {
        for (node, before) in [&pair.a, &pair.b].into_iter().zip(before) {
            let now = usage(node);
            println!("{when}: {:?} of processor, {} turns", now.0 - before.0, now.1 - before.1);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&server, count));
        let start = Instant::now();
        begin(&clients, count, rate);
        let difference = pair.difference();
        let Difference { missing, extra, stale, .. } = difference;
        println!(
            "{count} connections in {:?}; at once {missing} missing, {extra} extra, {stale} stale",
            start.elapsed()
        );
    });
    assert_eq!(received(&pair.a.namespace), u64::from(count));
    pair.until_equal(count as usize);
    tell("all begun");
    println!("{:?}\n{:?}", pair.a.counters(""), pair.b.counters(""));
    for node in [&pair.a, &pair.b] {
        assert_eq!((node.counter("source_overruns"), node.counter("engine_stalls")), (0, 0));
    }

    run(&pair.a.namespace, "conntrack", &["-F"]);
    eventually("b's kernel is empty, too", || pair.b.table().is_empty());
    eventually("b is in sync", || pair.b.is("backup", "in_sync") && pair.b.group()["entries"] == 0);
    tell("all ended");
    // What changes while an audit runs is never taken for a difference.
    let wrong =
        ["driver_audit_differing", "driver_audit_missing", "driver_audit_extra"].map(|name| pair.b.counter(name));
    assert_eq!(wrong, [0, 0, 0]);
    assert!(pair.b.counter("driver_audits") > 0);
}
