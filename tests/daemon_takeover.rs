//! Addresses and announcements against the real kernel, in namespaces of their own.

#[path = "support/machine.rs"]
mod machine;

use machine::{PATIENCE, eventually, ip, path_of, root};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver};
use ssyncp::daemon::announce::Announce;
use ssyncp::daemon::build;
use ssyncp::daemon::settings::VirtualAddress;
use ssyncp::daemon::takeover::Takeover;
use ssyncp::sys::namespace::Namespace;
use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Two namespaces with a veth pair between them: `va` in the first, `vb` in the second.
fn pair() -> (Namespace, Namespace) {
    let (first, second) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    ip(&first, &["link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", &path_of(&second)]);
    ip(&first, &["link", "set", "va", "up"]);
    ip(&second, &["link", "set", "vb", "up"]);
    (first, second)
}

fn has(namespace: &Namespace, address: &str) -> bool {
    ip(namespace, &["-4", "-o", "address", "show"]).contains(address)
}

fn start(namespace: &Namespace, addresses: &[&str]) -> Takeover {
    let addresses: Vec<VirtualAddress> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    namespace.run(|| Takeover::start(51, addresses, build::announcer)).unwrap()
}

/// A receiver of everything that arrives at an interface.
fn listen(namespace: &Namespace, name: &str) -> Box<dyn DataLinkReceiver> {
    namespace
        .run(|| {
            let interface = datalink::interfaces().into_iter().find(|interface| interface.name == name).unwrap();
            let config = Config { read_timeout: Some(Duration::from_millis(100)), ..Config::default() };
            match datalink::channel(&interface, config)? {
                Channel::Ethernet(_, receiver) => Ok(receiver),
                _ => Err(io::Error::other("no Ethernet")),
            }
        })
        .unwrap()
}

/// The operations of the next `count` ARP packets whose sender address is `address`.
fn arp_operations(receiver: &mut dyn DataLinkReceiver, address: [u8; 4], count: usize) -> Vec<u8> {
    let start = Instant::now();
    let mut operations = Vec::new();
    while operations.len() < count {
        assert!(start.elapsed() < PATIENCE, "only {operations:?} of {count} announcements");
        let Ok(frame) = receiver.next() else { continue };
        if frame.len() >= 42 && frame[12..14] == [0x08, 0x06] && frame[28..32] == address && frame[38..42] == address {
            assert_eq!(frame[..6], [0xff; 6]);
            operations.push(frame[21]);
        }
    }
    operations
}

#[test]
fn a_master_holds_its_addresses_and_its_neighbours_hear_of_it_five_times() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    let mut receiver = listen(&there, "vb");
    let takeover = start(&here, &["192.0.2.10/24 dev va", "192.0.2.11/32 dev va"]);
    assert_eq!(takeover.status()[0].held, Some(false));
    takeover.hold(true);
    assert_eq!(arp_operations(&mut *receiver, [192, 0, 2, 10], 10), [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
    assert!(has(&here, "192.0.2.10/24") && has(&here, "192.0.2.11/32"));
    assert_eq!(takeover.status()[1].held, Some(true));

    takeover.hold(false);
    eventually("the addresses are removed", || !has(&here, "192.0.2.1"));
    eventually("the status says so", || takeover.status().iter().all(|address| address.held == Some(false)));
    takeover.hold(true);
    assert_eq!(arp_operations(&mut *receiver, [192, 0, 2, 11], 2), [1, 2]);
    takeover.finish();
    assert!(!has(&here, "192.0.2.1"), "finish returns when the addresses are gone");
}

#[test]
fn what_a_dead_predecessor_left_is_gone_when_the_start_returns() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    ip(&here, &["address", "add", "192.0.2.10/24", "dev", "va"]);
    ip(&here, &["address", "add", "198.51.100.1/24", "dev", "va"]);
    let takeover = start(&here, &["192.0.2.10/24 dev va"]);
    assert!(!has(&here, "192.0.2.10"));
    assert!(has(&here, "198.51.100.1"), "an address that is not configured is nobody's business");
    takeover.finish();
}

#[test]
fn addresses_leave_with_the_thread_that_wished_for_them() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    let takeover = start(&here, &["192.0.2.10/24 dev va"]);
    takeover.hold(true);
    eventually("the address is there", || has(&here, "192.0.2.10"));
    drop(takeover);
    eventually("the address is removed", || !has(&here, "192.0.2.10"));
}

#[test]
fn an_interface_that_comes_later_gets_its_address_and_one_made_anew_gets_it_again() {
    if !root() {
        return;
    }
    let here = Namespace::create().unwrap();
    let takeover = start(&here, &["192.0.2.10/24 dev va"]);
    takeover.hold(true);
    ip(&here, &["link", "add", "va", "type", "veth", "peer", "name", "vb"]);
    eventually("the address is there", || has(&here, "192.0.2.10/24"));

    takeover.hold(false);
    eventually("the address is removed", || !has(&here, "192.0.2.10"));
    ip(&here, &["link", "del", "va"]);
    ip(&here, &["link", "add", "va", "type", "veth", "peer", "name", "vb"]);
    takeover.hold(true);
    eventually("the address is there again", || has(&here, "192.0.2.10/24"));
    takeover.finish();
}

#[test]
fn an_address_that_is_there_already_is_held_all_the_same() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    let takeover = start(&here, &["192.0.2.10/24 dev va"]);
    ip(&here, &["address", "add", "192.0.2.10/24", "dev", "va"]);
    takeover.hold(true);
    eventually("it counts as held", || takeover.status()[0].held == Some(true));
    takeover.hold(false);
    eventually("it is removed", || !has(&here, "192.0.2.10"));
    takeover.finish();
}

#[test]
fn an_address_that_somebody_removes_comes_back_is_announced_and_told() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    let mut receiver = listen(&there, "vb");
    let takeover = start(&here, &["192.0.2.10/24 dev va", "192.0.2.11/24 dev va"]);
    takeover.hold(true);
    arp_operations(&mut *receiver, [192, 0, 2, 10], 10);
    // The second goes with the first, whose network it shares.
    ip(&here, &["address", "del", "192.0.2.10/24", "dev", "va"]);
    let mut losses = Vec::new();
    eventually("both losses are told", || {
        losses.extend(takeover.next_loss());
        losses.len() == 2
    });
    assert_eq!(
        losses,
        [
            "address 192.0.2.10/24 dev va was removed by somebody else; it is back",
            "address 192.0.2.11/24 dev va was removed by somebody else; it is back",
        ]
    );
    assert!(has(&here, "192.0.2.10/24") && has(&here, "192.0.2.11/24"));
    assert_eq!(arp_operations(&mut *receiver, [192, 0, 2, 10], 2), [1, 2]);
    takeover.hold(false);
    eventually("an own removal is no loss", || !has(&here, "192.0.2.1"));
    assert_eq!(takeover.next_loss(), None);
    takeover.finish();
}

/// A neighbour that knew the address elsewhere follows at once, and the address can be used at once: no duplicate address
/// detection keeps it tentative.
#[test]
fn an_ipv6_address_is_usable_at_once_and_a_neighbour_follows_it() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    ip(&there, &["address", "add", "2001:db8::1/64", "dev", "vb", "nodad"]);
    ip(&there, &["neighbour", "add", "2001:db8::10", "lladdr", "02:00:00:00:00:99", "dev", "vb", "nud", "reachable"]);
    let takeover = start(&here, &["2001:db8::10/64 dev va"]);
    assert_eq!(takeover.status()[0].held, Some(false));
    takeover.hold(true);
    let addresses = || ip(&here, &["-6", "-o", "address", "show", "dev", "va", "scope", "global"]);
    eventually("the address is there", || addresses().contains("2001:db8::10/64"));
    assert!(!addresses().contains("tentative"), "{}", addresses());
    let link = ip(&here, &["-o", "link", "show", "dev", "va"]);
    let mac = link.split_ascii_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    eventually("the neighbour follows", || {
        ip(&there, &["neighbour", "show", "2001:db8::10", "dev", "vb"]).contains(mac)
    });
    takeover.hold(false);
    eventually("the address is removed", || !addresses().contains("2001:db8::10"));
    takeover.finish();
}

/// What the kernel did with packets for each IPv6 address at the moment when it was announced.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// An announcer that tells nobody, and looks whether the address of an advertisement is local: then a packet to it leaves
/// from it.
fn looks(_: u32) -> io::Result<Box<dyn Announce>> {
    struct Looks;
    impl Announce for Looks {
        fn send(&mut self, frame: &[u8]) -> io::Result<()> {
            let address = Ipv6Addr::from(*frame[22..].first_chunk().unwrap());
            let socket = UdpSocket::bind("[::]:0")?;
            socket.connect((address, 9))?;
            TAKEN.lock().unwrap().push(socket.local_addr()?.ip() == address);
            Ok(())
        }
    }
    Ok(Box::new(Looks))
}

/// The kernel says yes to an address before it takes packets for it.
#[test]
fn an_ipv6_address_is_announced_when_the_kernel_takes_packets_for_it() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    ip(&here, &["address", "add", "2001:db8::2/64", "dev", "va", "nodad"]);
    let wanted: Vec<VirtualAddress> =
        (0x10..0x18).map(|host| format!("2001:db8::{host:x}/64 dev va").parse().unwrap()).collect();
    let takeover = here.run(|| Takeover::start(51, wanted, looks)).unwrap();
    takeover.hold(true);
    eventually("each address is announced", || TAKEN.lock().unwrap().len() >= 8);
    assert_eq!(TAKEN.lock().unwrap()[..8], [true; 8]);
    takeover.finish();
}
