//! The demo's laboratory with a real kernel: it carries traffic, it can be cut, and it leaves nothing behind. Needs root.

use crate::machine::{program, root};
use ssyncp::demo::lab::{
    BACK, FRONT, GATEWAY, GATEWAY6, Lab, SERVER_PORT, SERVERS, SERVERS6, SYNC, VIRTUAL, services, services6,
};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Longest time that anything here may take before it counts as not happening.
const WITHIN: Duration = Duration::from_secs(5);

/// A TCP listener inside the lab's server.
fn listen(lab: &Lab, server: usize) -> TcpListener {
    lab.server.run(|| TcpListener::bind((SERVERS[server], SERVER_PORT))).unwrap()
}

/// A TCP connection from the lab's client.
fn connect(lab: &Lab, to: SocketAddrV4) -> io::Result<TcpStream> {
    lab.client.run(|| TcpStream::connect_timeout(&to.into(), WITHIN))
}

/// One byte there and back over an open connection.
fn echo(near: &mut TcpStream, far: &mut TcpStream) -> io::Result<()> {
    for stream in [&*near, &*far] {
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    let mut byte = [0];
    near.write_all(b"?")?;
    far.read_exact(&mut byte)?;
    far.write_all(b"!")?;
    near.read_exact(&mut byte)?;
    assert_eq!(&byte, b"!");
    Ok(())
}

/// Tries until it works, or until [`WITHIN`] has passed.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < WITHIN, "{what}: {error}"),
        }
    }
}

#[test]
fn a_client_reaches_each_server_through_both_translations() {
    if !root() {
        return;
    }
    let lab = Lab::build(false).unwrap();
    lab.take_addresses(0).unwrap();
    for (server, service) in services().into_iter().enumerate() {
        let listener = listen(&lab, server);
        let mut near = connect(&lab, service).unwrap();
        let (mut far, seen) = listener.accept().unwrap();
        assert_eq!(seen.ip(), GATEWAY, "the server sees the gateway, not the client");
        assert_eq!(far.local_addr().unwrap(), SocketAddrV4::new(SERVERS[server], 7000).into());
        echo(&mut near, &mut far).unwrap();
    }
    assert_eq!(lab.balancers[0].tracked().unwrap(), 4);
    assert_eq!(lab.balancers[1].tracked().unwrap(), 0);
}

#[test]
fn a_client_of_ipv6_reaches_each_server_through_both_translations_and_over_a_move() {
    if !root() {
        return;
    }
    let lab = Lab::build(true).unwrap();
    for balancer in 0..2 {
        lab.take_addresses(balancer).unwrap();
        for (server, service) in services6().into_iter().enumerate() {
            let listen = || TcpListener::bind((SERVERS6[server], SERVER_PORT));
            let listener = lab.server.run(listen).unwrap();
            let mut near = lab.client.run(|| TcpStream::connect_timeout(&service, WITHIN)).unwrap();
            let (mut far, seen) = listener.accept().unwrap();
            assert_eq!(seen.ip(), GATEWAY6, "the server sees the gateway, not the client");
            echo(&mut near, &mut far).unwrap();
        }
        assert_eq!(lab.balancers[balancer].tracked().unwrap(), 4);
        lab.cut(balancer).unwrap();
    }
}

/// Ethertype of the frames of a test (IEEE 802: local experimental).
const EXPERIMENTAL: u16 = 0x88b5;

/// An Ethernet frame with one byte in it.
fn frame(to: [u8; 6], from: [u8; 6], says: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&EXPERIMENTAL.to_be_bytes());
    frame[14] = says;
    frame
}

/// What the next frame says.
fn heard(socket: &mut PacketSocket) -> u8 {
    let mut buffer = [0; 60];
    eventually("a frame", || socket.receive(&mut buffer)?.ok_or_else(|| io::ErrorKind::WouldBlock.into()));
    buffer[14]
}

/// A packet socket hears what a firewall drops, so the silence must come from the switch.
#[test]
fn whoever_shall_not_hear_the_sync_link_hears_nothing_by_any_socket_and_is_heard() {
    if !root() {
        return;
    }
    const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x51];
    const ALL: [u8; 6] = [0xff; 6];
    let lab = Lab::build(false).unwrap();
    let open = |namespace: &Namespace| {
        let open = || interface(SYNC).and_then(|own| Ok((PacketSocket::open(own.index, EXPERIMENTAL)?, own.mac)));
        namespace.run(open).unwrap()
    };
    let (mut a, mac_a) = open(&lab.balancers[0].namespace);
    let (mut b, mac_b) = open(&lab.balancers[1].namespace);
    // The switch learns who is where.
    a.send(&frame(ALL, mac_a, 1)).unwrap();
    assert_eq!(heard(&mut b), 1);
    b.send(&frame(mac_a, mac_b, 2)).unwrap();
    assert_eq!(heard(&mut a), 2);

    lab.hear_sync(1, false).unwrap();
    for to in [GROUP, ALL, mac_b] {
        a.send(&frame(to, mac_a, 3)).unwrap();
    }
    for to in [GROUP, ALL, mac_a] {
        b.send(&frame(to, mac_b, 4)).unwrap();
        assert_eq!(heard(&mut a), 4);
    }
    for to in [GROUP, ALL, mac_b] {
        a.send(&frame(to, mac_a, 3)).unwrap();
    }
    lab.hear_sync(1, true).unwrap();
    a.send(&frame(GROUP, mac_a, 5)).unwrap();
    assert_eq!(heard(&mut b), 5, "what was sent meanwhile was heard");
}

#[test]
fn datagrams_pass_both_translations_and_come_back() {
    if !root() {
        return;
    }
    let lab = Lab::build(false).unwrap();
    lab.take_addresses(1).unwrap();
    let server = lab.server.run(|| UdpSocket::bind((SERVERS[2], SERVER_PORT))).unwrap();
    let client = lab.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.connect(services()[2]).unwrap();
    client.send(b"ping").unwrap();
    let mut buffer = [0; 16];
    server.set_read_timeout(Some(WITHIN)).unwrap();
    client.set_read_timeout(Some(WITHIN)).unwrap();
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"ping"[..], GATEWAY.into()));
    server.send_to(b"pong", from).unwrap();
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"pong");
}

#[test]
fn a_connection_whose_entry_is_missing_finds_no_way_through_the_other_balancer() {
    if !root() {
        return;
    }
    let lab = Lab::build(false).unwrap();
    lab.take_addresses(0).unwrap();
    let listener = listen(&lab, 0);
    let mut near = connect(&lab, services()[0]).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    echo(&mut near, &mut far).unwrap();

    lab.cut(0).unwrap();
    lab.take_addresses(1).unwrap();
    // A new connection finds its way by the announcement; the old one is dropped, and must not be adopted.
    let mut fresh = connect(&lab, services()[0]).unwrap();
    let (mut fresh_far, _) = listener.accept().unwrap();
    echo(&mut fresh, &mut fresh_far).unwrap();
    echo(&mut near, &mut far).unwrap_err();
    assert_eq!(lab.balancers[1].tracked().unwrap(), 1);
}

#[test]
fn a_balancer_that_is_rebuilt_has_an_empty_kernel_and_works_again() {
    if !root() {
        return;
    }
    let mut lab = Lab::build(false).unwrap();
    lab.take_addresses(0).unwrap();
    let listener = listen(&lab, 0);
    let _first = connect(&lab, services()[0]).unwrap();
    assert_eq!(lab.balancers[0].tracked().unwrap(), 1);
    lab.cut(0).unwrap();
    lab.reboot(0).unwrap();
    assert_eq!(lab.balancers[0].tracked().unwrap(), 0);
    lab.take_addresses(0).unwrap();
    let _second = eventually("a connection through the rebuilt balancer", || connect(&lab, services()[0]));
    listener.accept().unwrap();
}

#[test]
fn the_rules_read_back_as_they_were_meant() {
    if !root() {
        return;
    }
    if !program("nft") {
        return;
    }
    let lab = Lab::build(true).unwrap();
    let output = lab.balancers[0].namespace.command("nft").unwrap().args(["list", "ruleset"]).output().unwrap();
    let rules = String::from_utf8(output.stdout).unwrap();
    let expected = r#"table ip ssyncp_demo {
	chain untracked_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sync" notrack
	}

	chain untracked_out {
		type filter hook output priority raw; policy accept;
		oifname "sync" notrack
	}

	chain invalid {
		type filter hook prerouting priority mangle; policy accept;
		ct state invalid counter packets 0 bytes 0 drop
	}

	chain services {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 198.51.100.10 tcp dport 8001 dnat to 203.0.113.101:7000
		ip daddr 198.51.100.10 udp dport 8001 dnat to 203.0.113.101:7000
		ip daddr 198.51.100.10 sctp dport 8001 dnat to 203.0.113.101:7000
		ip daddr 198.51.100.10 tcp dport 8002 dnat to 203.0.113.102:7000
		ip daddr 198.51.100.10 udp dport 8002 dnat to 203.0.113.102:7000
		ip daddr 198.51.100.10 sctp dport 8002 dnat to 203.0.113.102:7000
		ip daddr 198.51.100.10 tcp dport 8003 dnat to 203.0.113.103:7000
		ip daddr 198.51.100.10 udp dport 8003 dnat to 203.0.113.103:7000
		ip daddr 198.51.100.10 sctp dport 8003 dnat to 203.0.113.103:7000
		ip daddr 198.51.100.10 tcp dport 8004 dnat to 203.0.113.104:7000
		ip daddr 198.51.100.10 udp dport 8004 dnat to 203.0.113.104:7000
		ip daddr 198.51.100.10 sctp dport 8004 dnat to 203.0.113.104:7000
	}

	chain gateway {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "back" snat to 203.0.113.1
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct status dnat accept
	}
}
table ip6 ssyncp_demo {
	chain untracked_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sync" notrack
	}

	chain untracked_out {
		type filter hook output priority raw; policy accept;
		oifname "sync" notrack
	}

	chain invalid {
		type filter hook prerouting priority mangle; policy accept;
		ct state invalid counter packets 0 bytes 0 drop
	}

	chain services {
		type nat hook prerouting priority dstnat; policy accept;
		ip6 daddr 2001:db8:f::10 tcp dport 8001 dnat to [2001:db8:b::101]:7000
		ip6 daddr 2001:db8:f::10 udp dport 8001 dnat to [2001:db8:b::101]:7000
		ip6 daddr 2001:db8:f::10 sctp dport 8001 dnat to [2001:db8:b::101]:7000
		ip6 daddr 2001:db8:f::10 tcp dport 8002 dnat to [2001:db8:b::102]:7000
		ip6 daddr 2001:db8:f::10 udp dport 8002 dnat to [2001:db8:b::102]:7000
		ip6 daddr 2001:db8:f::10 sctp dport 8002 dnat to [2001:db8:b::102]:7000
		ip6 daddr 2001:db8:f::10 tcp dport 8003 dnat to [2001:db8:b::103]:7000
		ip6 daddr 2001:db8:f::10 udp dport 8003 dnat to [2001:db8:b::103]:7000
		ip6 daddr 2001:db8:f::10 sctp dport 8003 dnat to [2001:db8:b::103]:7000
		ip6 daddr 2001:db8:f::10 tcp dport 8004 dnat to [2001:db8:b::104]:7000
		ip6 daddr 2001:db8:f::10 udp dport 8004 dnat to [2001:db8:b::104]:7000
		ip6 daddr 2001:db8:f::10 sctp dport 8004 dnat to [2001:db8:b::104]:7000
	}

	chain gateway {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "back" snat to 2001:db8:b::1
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct status dnat accept
	}
}
"#;
    assert_eq!(rules, expected);
}

#[test]
fn the_lab_touches_nothing_outside_its_own_namespaces() {
    if !root() {
        return;
    }
    let links = |path: &str| {
        let table = std::fs::read_to_string(path).unwrap();
        table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect::<Vec<_>>()
    };
    let before = links("/proc/self/net/dev");
    let lab = Lab::build(false).unwrap();
    assert_eq!(links("/proc/self/net/dev"), before);
    let inside = lab.balancers[0].namespace.run(|| Ok(links("/proc/thread-self/net/dev"))).unwrap();
    for link in [FRONT, BACK, SYNC] {
        assert!(inside.iter().any(|name| name == link), "{link} is missing in {inside:?}");
    }
    UdpSocket::bind((VIRTUAL, 0)).unwrap_err();
}
