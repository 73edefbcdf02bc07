//! What AF_XDP does otherwise than raw sockets, and what it must leave alone: the rest of the host's traffic, and the
//! interface once its process is gone.

use crate::support::machine::{ip, path_of, program, root, shell_output};
use crate::support::{
    Crafted, Lan, hear, hear_others, ipv6_frame, ipv6_options, is_up, open, options, send, until, until_heard,
};
use ssyncp::transport::{LinkCondition, Mode, RawOptions, RawTransport, Transport, TransportError, XdpTransport};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

fn pair(lan: &Lan, options: &RawOptions) -> (XdpTransport, XdpTransport) {
    let (mut a, mut b): (XdpTransport, XdpTransport) = (open(lan, 0, options), open(lan, 1, options));
    until(|| is_up(lan, 0, &mut a) && is_up(lan, 1, &mut b));
    (a, b)
}

/// What `ip` says of XDP at a node's `sync0`: nothing, or a mode.
fn attached(lan: &Lan, node: usize) -> Option<&'static str> {
    let said = ip(&lan.nodes[node], &["-d", "-j", "link", "show", "sync0"]);
    let link: serde_json::Value = serde_json::from_str(&said).unwrap();
    // XDP_ATTACHED_DRV and XDP_ATTACHED_SKB of linux/if_link.h.
    match link[0]["xdp"]["mode"].as_u64() {
        None => None,
        Some(1) => Some("native"),
        Some(2) => Some("SKB"),
        Some(other) => panic!("mode {other}: {said}"),
    }
}

#[test]
fn a_driver_that_can_runs_the_program_itself_and_others_have_it_run_behind_them() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (a, _b) = pair(&lan, &options());
    assert_eq!(a.links()[0].mode, Mode { word: "xdp-native", instead_of: None });
    assert_eq!(attached(&lan, 0), Some("native"));
    drop(a);
    until(|| attached(&lan, 0).is_none());
    lan.ip(0, "link set lo up");
    let loopback: XdpTransport = open(&lan, 0, &RawOptions { interfaces: vec!["lo".into()], ..options() });
    let mode = loopback.links().remove(0).mode;
    assert_eq!(mode.word, "xdp-skb");
    assert!(mode.instead_of.unwrap().starts_with("xdp-native: Operation not supported"));
}

/// [3.0.1] Byte for byte what a raw socket would send, but for the identification, which is 0.
#[test]
fn a_frame_is_a_datagram_as_the_rules_want_it() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut a: XdpTransport = open(&lan, 0, &options());
    let mut wire = lan.packet_socket(1, 0x0800);
    let mac = lan.nodes[0].run(|| ssyncp::sys::socket::interface("sync0")).unwrap().mac;
    send(&mut a, &[b"data"]);
    let mut buffer = [0; 100];
    let mut found = Vec::new();
    until(|| {
        while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
            if buffer[23] == 114 {
                found = buffer[..length].to_vec();
            }
        }
        !found.is_empty()
    });
    assert_eq!(found[..6], [1, 0, 0x5e, 0, 0, 0x51]);
    assert_eq!(found[6..12], mac);
    assert_eq!(found[12..24], [8, 0, 0x45, 0, 0, 24, 0, 0, 0x40, 0, 255, 114]);
    // 4500 + 0018 + 4000 + ff72 + 0a72 + 0001 + e000 + 0051 = 26f4e, and so not 6f50.
    assert_eq!(found[24..26], [0x90, 0xaf]);
    assert_eq!(found[26..38], [10, 114, 0, 1, 224, 0, 0, 81, b'd', b'a', b't', b'a']);
}

/// [3.0.5]
#[test]
fn over_ipv6_it_is_one_too_and_without_an_address_a_look_finds_the_link_down() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut a: XdpTransport = open(&lan, 0, &ipv6_options());
    until(|| is_up(&lan, 0, &mut a));
    let mut wire = lan.packet_socket(1, 0x86dd);
    send(&mut a, &[b"over six"]);
    let mut buffer = [0; 200];
    let mut found = Vec::new();
    until(|| {
        while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
            if buffer[20] == 114 {
                found = buffer[..length].to_vec();
            }
        }
        !found.is_empty()
    });
    assert_eq!(found[..6], [0x33, 0x33, 0, 0, 0x72, 0x51]);
    assert_eq!(found[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 114, 255]);
    assert_eq!(found[22..24], [0xfe, 0x80]);
    assert_eq!(found[38..], *b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\x72\x51over six");
    lan.ip(0, "addr flush dev sync0 scope link");
    until(|| !is_up(&lan, 0, &mut a));
    assert_eq!(a.links()[0].condition, LinkCondition::NoAddress);
    let mut frames = 1;
    let error = a.transmit(&mut |_| (frames > 0).then(|| frames -= 1).map(|()| 10)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    lan.ip(0, "addr add fe80::114/64 dev sync0 nodad");
    until(|| is_up(&lan, 0, &mut a));
    send(&mut a, &[b"addressed"]);
}

#[test]
fn another_group_of_the_same_interface_is_heard_by_whom_it_is_for() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut port: XdpTransport = open(&lan, 1, &options());
    let other = "224.0.0.82".parse().unwrap();
    let mut neighbour: RawTransport = open(&lan, 1, &RawOptions { group: other, ..options() });
    let mut six: RawTransport = open(&lan, 1, &ipv6_options());
    let wire = lan.packet_socket(0, 0);
    let std::net::IpAddr::V4(group) = other else { unreachable!() };
    wire.send(&Crafted { group, ..Crafted::new(b"not for us") }.bytes()).unwrap();
    wire.send(&ipv6_frame(0x7251, 255, b"nor this")).unwrap();
    wire.send(&Crafted::new(b"fence").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"fence"]);
    assert_eq!(hear(&mut neighbour, 1), [b"not for us"]);
    assert_eq!(hear(&mut six, 1), [b"nor this"]);
}

#[test]
fn a_second_program_is_refused_by_name_and_the_first_goes_on() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    let refused = lan.nodes[0].run(|| Ok(XdpTransport::open(&options()))).unwrap().err().unwrap();
    assert_eq!(
        refused.to_string(),
        "interface \"sync0\": another XDP program is attached to it already (`ip link show sync0` names it); two cannot be"
    );
    assert!(matches!(refused, TransportError::Unsupported { .. }) && refused.is_of_this_transport());
    send(&mut b, &[b"still here"]);
    assert_eq!(hear(&mut a, 1), [b"still here"]);
}

/// Whoever opens it again at once finds queue and interface as the kernel leaves them: not free for some milliseconds.
#[test]
fn what_was_just_closed_can_be_opened() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    for round in 0..10u8 {
        let (mut a, mut b) = pair(&lan, &options());
        send(&mut a, &[[round]]);
        assert_eq!(hear(&mut b, 1), [[round]]);
    }
}

/// Under traffic of our own: ping, and a megabyte over TCP, on the same cable.
#[test]
fn the_hosts_other_traffic_goes_its_way() {
    if !root() || !program("ping") {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    let (node, other) = (&lan.nodes[0], &lan.nodes[1]);
    let (pinged, moved) = std::thread::scope(|scope| {
        let ping = scope.spawn(|| shell_output(node, "ping -q -c 50 -i 0.002 10.114.0.2"));
        let listener = other.run(|| TcpListener::bind("10.114.0.2:7")).unwrap();
        let server = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let client = scope.spawn(|| {
            let mut stream = node.run(|| TcpStream::connect("10.114.0.2:7")).unwrap();
            stream.write_all(&vec![7; 1 << 20]).unwrap();
        });
        let mut round = 0u32;
        while !(ping.is_finished() && server.is_finished() && client.is_finished()) {
            round += 1;
            send(&mut a, &[round.to_be_bytes()]);
            assert_eq!(hear(&mut b, 1), [round.to_be_bytes()]);
        }
        assert!(round > 0);
        (ping.join().unwrap(), server.join().unwrap())
    });
    assert!(pinged.contains("50 packets transmitted, 50 received, 0% packet loss"), "{pinged}");
    assert!(moved == vec![7; 1 << 20]);
    let counters = b.counters();
    assert_eq!((counters.malformed, counters.dropped_by_kernel, counters.ttl_refused), (0, 0, 0));
}

/// The program takes no fragments; the kernel puts them together, and the port's raw socket hears them.
#[test]
fn what_the_program_lets_pass_is_heard_by_the_stack() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut b: XdpTransport = open(&lan, 1, &options());
    let sender = lan.nodes[0].run(|| {
        let sender =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::from(114)))?;
        sender.bind_device(Some(b"sync0"))?;
        sender.set_multicast_ttl_v4(255)?;
        Ok(sender)
    });
    let to: socket2::SockAddr = "224.0.0.81:0".parse::<std::net::SocketAddr>().unwrap().into();
    let sender = sender.unwrap();
    assert_eq!(sender.send_to(&[3; 4000], &to).unwrap(), 4000);
    assert_eq!(hear(&mut b, 1), [[3; 4000]]);
}

/// Where each of three frames was written, by how far it is from the first.
fn written_at(port: &mut XdpTransport) -> Vec<usize> {
    let mut slots = Vec::new();
    let sent = port.transmit(&mut |slot| {
        (slots.len() < 3).then(|| {
            slots.push(slot.as_ptr() as usize);
            slot[..100].fill(slots.len() as u8);
            100
        })
    });
    assert_eq!(sent.unwrap(), 3);
    slots.iter().map(|slot| slot.abs_diff(slots[0])).collect()
}

/// Frames of 100 bytes in a batch stand at cache lines, one behind the other; in the memory that the interface reads there is a
/// slot for each, of the three pages that the longest takes.
#[test]
fn a_single_link_lends_the_memory_that_it_sends_from_and_several_share_a_batch() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 2);
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() };
    let mut b: XdpTransport = open(&lan, 1, &two);
    let mut one: XdpTransport = open(&lan, 0, &options());
    until(|| is_up(&lan, 0, &mut one) && is_up(&lan, 1, &mut b));
    assert_eq!(written_at(&mut one), [0, 12288, 24576]);
    assert_eq!(hear(&mut b, 3), [vec![1; 100], vec![2; 100], vec![3; 100]]);
    drop(one);
    let mut both: XdpTransport = open(&lan, 0, &two);
    until(|| is_up(&lan, 0, &mut both));
    assert_eq!(written_at(&mut both), [0, 128, 256]);
    assert_eq!(hear(&mut b, 6).len(), 6, "three by each link");
}

/// A sender with the smallest send buffer, at a switch that lets out 20 Mbit/s: a frame is charged to that buffer until it is
/// out. (Past the bridge, which would queue a copy.)
fn at_a_slow_switch(lan: &Lan) -> (XdpTransport, RawTransport) {
    for arguments in [
        "qdisc add dev p0-1 root tbf rate 20mbit burst 3000 limit 4000000",
        "qdisc add dev p0-0 clsact",
        "filter add dev p0-0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev p0-1",
    ] {
        let status = lan.switch.command("tc").unwrap().args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "tc {arguments}");
    }
    let mut a: XdpTransport = open(lan, 0, &RawOptions { send_buffer: 1, ..options() });
    let b: RawTransport = open(lan, 1, &options());
    until(|| is_up(lan, 0, &mut a));
    (a, b)
}

/// Slots that are all on their way cost no frame: what the writer has made then waits in a batch.
#[test]
fn where_all_slots_are_taken_frames_wait_in_the_batch_and_leave_in_order() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = at_a_slow_switch(&lan);
    let numbers = 0..600_u32;
    let mut next = numbers.clone();
    let mut fill = |slot: &mut [u8]| {
        slot[..4].copy_from_slice(&next.next()?.to_be_bytes());
        Some(1208)
    };
    let mut most = 0;
    for _ in 0..100 {
        a.transmit(&mut fill).unwrap();
        most = most.max(a.pending());
    }
    // Those that are out and not read yet have a slot, too.
    assert!(most > 256 && most <= 264, "{most} wait, in 256 slots and a batch of 8");
    let mut heard = Vec::new();
    until(|| {
        a.transmit(&mut fill).unwrap();
        b.receive(&mut |_, frame| heard.push(u32::from_be_bytes(*frame.first_chunk().unwrap()))).unwrap();
        heard.len() == 600
    });
    assert_eq!(heard, numbers.collect::<Vec<_>>());
    assert_eq!((a.counters().frames_sent, a.counters().bytes_sent, a.counters().send_errors), (600, 600 * 1208, 0));
}

/// What left before the link failed has left, and the rest is counted once.
#[test]
fn of_frames_that_were_waiting_when_the_link_failed_each_is_counted_once() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = at_a_slow_switch(&lan);
    let batch = || {
        let mut frames = 8;
        move |_: &mut [u8]| (frames > 0).then(|| frames -= 1).map(|()| 1208)
    };
    assert_eq!(a.transmit(&mut batch()).unwrap(), 8);
    let waiting = a.pending();
    assert!((1..8).contains(&waiting), "{waiting} of 8 wait");
    lan.ip(0, "link set sync0 down");
    a.transmit(&mut batch()).unwrap_err();
    let counters = a.counters();
    assert_eq!((counters.frames_sent, counters.send_errors, a.pending()), (8, waiting as u64 + 8, 0));
    assert_eq!(a.transmit(&mut |_| None).unwrap(), 0);
    assert_eq!(hear(&mut b, 8 - waiting).len(), 8 - waiting);
    assert_eq!(b.receive(&mut |_, _| ()).unwrap(), 0);
}

/// The driver runs programs natively only up to some MTU, unless they take frames in pieces, as ours does.
#[test]
fn jumbo_frames_pass_natively_and_the_mtu_may_change_while_it_runs() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let all = RawOptions { frame_len: None, ..options() };
    let (mut a, mut b) = pair(&lan, &all);
    for mtu in [9000, 1500, 9000] {
        for node in 0..2 {
            crate::support::ip(&lan.switch, &format!("link set p0-{node} mtu {mtu}"));
            lan.ip(node, &format!("link set sync0 mtu {mtu}"));
        }
        until(|| is_up(&lan, 0, &mut a) && is_up(&lan, 1, &mut b));
        until(|| {
            a.transmit(&mut |_| None).unwrap();
            a.limits().frame_len == (mtu - 20).min(8960)
        });
        let frame = vec![mtu as u8; a.limits().frame_len];
        until_heard(&mut a, &mut b, b"ready");
        send(&mut a, &[&frame]);
        assert!(hear_others(&mut b, 1, b"ready") == [frame]);
    }
    assert_eq!(b.links()[0].mode.word, "xdp-native");
}

/// What [`a_process_that_is_killed_leaves_nothing_behind`] runs in a process of its own; alone it does nothing.
#[test]
fn holder() {
    let Some(namespace) = std::env::var_os("SSYNCP_XDP_HOLDER") else { return };
    let namespace = std::fs::File::open(namespace).unwrap();
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let port = XdpTransport::open(&options()).unwrap();
    println!("\nholding {}", port.links()[0].mode.word);
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_process_that_is_killed_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let programs = || {
        let said = Command::new("bpftool").args(["net", "show"]).output();
        lan.nodes[0].run(|| Command::new("bpftool").arg("net").output()).ok().or(said.ok()).map_or_else(
            || "sync0".repeat(usize::from(attached(&lan, 0).is_some())),
            |output| String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(attached(&lan, 0), None);
    assert!(!programs().contains("sync0"), "before: {}", programs());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "xdp::holder", "--nocapture"])
        .env("SSYNCP_XDP_HOLDER", path_of(&lan.nodes[0]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "holding xdp-native"));
    assert_eq!(attached(&lan, 0), Some("native"));
    assert!(programs().contains("sync0"), "during: {}", programs());
    child.kill().unwrap();
    child.wait().unwrap();
    until(|| attached(&lan, 0).is_none());
    assert!(!programs().contains("sync0"), "after: {}", programs());
    // And who comes next finds everything free.
    let (mut a, mut b) = pair(&lan, &options());
    send(&mut b, &[b"next"]);
    assert_eq!(hear(&mut a, 1), [b"next"]);
}

/// What [`an_interface_that_was_replaced_is_opened_again_without_cap_bpf`] runs in a process of its own.
#[test]
fn replaced_without_cap_bpf() {
    if std::env::var_os("SSYNCP_XDP_REPLACED").is_none() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    lan.ip(0, "link del sync0");
    until(|| !is_up(&lan, 0, &mut a));
    lan.plug(0, 0);
    lan.await_carrier(0, 0);
    // All but CAP_NET_ADMIN (12), CAP_NET_RAW (13); and CAP_SYS_ADMIN (21) at other threads, for their namespaces.
    let looked = lan.nodes[0].run(|| {
        drop_capabilities_but(1 << 12 | 1 << 13);
        assert!(XdpTransport::open(&options()).err().unwrap().to_string().contains("CAP_BPF"));
        a.look();
        Ok(a.link_is_up())
    });
    assert!(looked.unwrap());
    assert_eq!(attached(&lan, 0), Some("native"));
    until_heard(&mut a, &mut b, b"back");
    send(&mut b, &[b"welcome"]);
    assert_eq!(hear(&mut a, 1), [b"welcome"]);
    println!("\nreplaced and heard");
}

#[test]
fn an_interface_that_was_replaced_is_opened_again_without_cap_bpf() {
    if !root() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "xdp::replaced_without_cap_bpf", "--nocapture"])
        .env("SSYNCP_XDP_REPLACED", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\nreplaced and heard"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Leaves the calling thread these effective and permitted capabilities (capset(2)).
fn drop_capabilities_but(mask: u32) {
    // _LINUX_CAPABILITY_VERSION_3, this thread; then effective, permitted and inheritable, low words and high words.
    let header = [0x2008_0522u32, 0];
    let sets = [mask, mask, 0, 0, 0, 0u32];
    // SAFETY: the kernel reads two and six words, which live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(result, 0);
}
