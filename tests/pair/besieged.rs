//! Sealed pairs of real daemons, and somebody else on their sync links: on two links that speak IPv6, with what it has heard
//! there and changed; and a third daemon that has another secret under the same number.

use crate::support::{Node, Pair, eventually, ip, path_of, root};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{self, PacketSocket};
use ssyncp::wire::{self, Advert, GROUP6, Header, NodeId, WireRole};
use std::fs::{self, Permissions};
use std::net::SocketAddrV6;
use std::os::unix::fs::PermissionsExt;

const SECRET: &str = "5a1fc09b7e3386d24417f0aa91cce5037bd86e1240f95b3cb7812a6f0d94e3c8";
const OTHER: &str = "c3d0418f5be92a7610ff86b4e37dc15a2298047ed13b6fa5c8e6905b71f2ad34";
/// Connections in both kernels.
const ENTRIES: u32 = 500;
/// Octets of an Ethernet and an IPv6 header.
const HEADERS: usize = 14 + 40;
/// Frames that are sent before anybody looks.
const BURST: usize = 200;
/// Events by which a peer is lost or taken for new, and by which a role moves.
const UPHEAVALS: [&str; 5] = ["PeerDown", "PeerLeft", "PeerUp", "RoleChanged", "SyncStarted"];

/// Gives a node this secret, under the number 1.
fn seal(node: &Node, secret: &str) {
    let file = node.configuration().with_file_name("secret");
    fs::write(&file, format!("1 {secret}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(node.configuration()).unwrap();
    node.configure(&text.replacen("[node]\n", &format!("[node]\nsecret_file = \"{}\"\n", file.display()), 1));
}

/// What must not change.
fn standing(node: &Node) -> (Vec<Value>, usize) {
    let (group, log) = (node.group(), node.log());
    let told = ["role", "term", "master", "entries", "digest", "sync", "seal"].map(|key| group[key].clone());
    (told.into(), UPHEAVALS.iter().map(|name| log.matches(&format!("event=\"{name}\"")).count()).sum())
}

fn dropped(node: &Node, reason: &str) -> u64 {
    node.counter(&format!("engine_drop_{reason}"))
}

/// Somebody on one link.
struct Intruder {
    mouth: Socket,
    ears: PacketSocket,
    group: SockAddr,
}

impl Intruder {
    fn new(stranger: &Namespace, link: &str) -> Self {
        let open = || {
            let index = socket::interface(link)?.index;
            let mouth = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(114)))?;
            mouth.set_multicast_if_v6(index)?;
            mouth.set_multicast_hops_v6(255)?;
            let group = SockAddr::from(SocketAddrV6::new(GROUP6, 0, 0, index));
            Ok(Intruder { mouth, ears: PacketSocket::open(index, libc::ETH_P_IPV6 as u16)?, group })
        };
        stranger.run(open).unwrap()
    }

    /// Takes in what is said on the link.
    fn listen(&mut self, frames: &mut Vec<Vec<u8>>) {
        let mut buffer = [0; 2048];
        while let Some((length, _)) = self.ears.receive(&mut buffer).unwrap() {
            if length > HEADERS && buffer[14 + 6] == 114 {
                frames.push(buffer[HEADERS..length].to_vec());
            }
        }
    }

    /// Sends it, once the queue has room and the address of the link may be used.
    fn send(&self, frame: &[u8]) {
        eventually("a frame leaves", || match self.mouth.send_to(frame, &self.group) {
            Ok(_) => true,
            Err(error) => {
                let passes = [libc::EAGAIN, libc::ENOBUFS, libc::EADDRNOTAVAIL];
                assert!(error.raw_os_error().is_some_and(|code| passes.contains(&code)), "{error}");
                false
            }
        });
    }
}

/// A sealed pair on two links that speak IPv6, each a switch with a port for somebody else. A machine that stands still for a
/// moment moves no role.
fn on_two_links() -> (Node, Node, Namespace, Namespace) {
    let slowly = "advert_interval = \"1s\"";
    let (a, b) = (Node::new('a', 150, slowly), Node::new('b', 100, slowly));
    let (stranger, switch) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    for link in ["s1", "s2"] {
        ip(&switch, &format!("link add {link} type bridge mcast_snooping 0\nlink set {link} up"));
        for (letter, machine) in [('a', &a.namespace), ('b', &b.namespace), ('i', &stranger)] {
            let (port, there) = (format!("{link}{letter}"), path_of(machine));
            ip(
                &switch,
                &format!(
                    "link add {port} type veth peer name {link} netns {there}
                     link set {port} master {link} up"
                ),
            );
            ip(machine, &format!("link set {link} up"));
        }
    }
    for (node, letter) in [(&a, 'a'), (&b, 'b')] {
        let links = format!("interfaces = [\"s1\", \"s2\"]\ngroup = \"{GROUP6}\"");
        let text = fs::read_to_string(node.configuration()).unwrap();
        node.configure(&text.replace(&format!("interfaces = [\"s{letter}\"]"), &links));
        seal(node, SECRET);
    }
    (a, b, stranger, switch)
}

/// The same frame with a bit changed, and a checksum that fits.
fn changed(frame: &[u8], bit: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[bit / 8] ^= 1 << (bit % 8);
    frame[8..12].fill(0);
    let sum = crc32fast::hash(&frame).to_be_bytes();
    frame[8..12].copy_from_slice(&sum);
    frame
}

/// A master of a higher term, in the clear, in the name of node 1.
fn usurper() -> Vec<u8> {
    let mut slot = vec![0; 1480];
    let header = Header { sync_id: 51, node: NodeId(1), incarnation: 77, seq: 1 << 20, term: 99, ..Header::default() };
    let advert =
        Advert { role: WireRole::MASTER, priority: 255, interval_ms: 10, history_start: 1, ..Advert::default() };
    let length = wire::encode_advert(&mut slot, header, &advert).unwrap();
    slot.truncate(length);
    slot
}

/// [1.2.3] [3.4.3] [3.4.6] What was heard on either of two links, sent again on the same and on the other, and changed: nobody
/// notices but the counters.
#[test]
fn on_two_links_that_speak_ipv6_what_a_stranger_says_changes_nothing() {
    if !root() {
        return;
    }
    let (mut a, mut b, stranger, _switch) = on_two_links();
    let mut intruders = ["s1", "s2"].map(|link| Intruder::new(&stranger, link));
    a.start();
    eventually("a is master", || a.is("master", "source"));
    b.start();
    eventually("b is in sync", || b.is("backup", "in_sync"));
    let are_up = |node: &Node| (0..2).all(|link| node.group()["links"][link]["up"] == true);
    eventually("both links of both have an address", || are_up(&a) && are_up(&b));
    a.connect(0..ENTRIES);
    let mut heard = [Vec::new(), Vec::new()];
    eventually("DATA and ADVERTs of both links were heard, and the tables are equal", || {
        intruders.iter_mut().zip(&mut heard).for_each(|(intruder, frames)| intruder.listen(frames));
        let has = |frames: &[Vec<u8>], node, kind| frames.iter().any(|it| it[15] == node && it[5] == kind);
        let all = |frames: &Vec<Vec<u8>>| has(frames, 1, 2) && has(frames, 1, 1) && has(frames, 2, 1);
        heard.iter().all(all) && a.group()["digest"] == b.group()["digest"] && b.is("backup", "in_sync")
    });
    assert!(heard.iter().flatten().all(|frame| frame[7] == 1), "everything is sealed");
    let before = [&a, &b].map(standing);

    let mut sent = 0;
    let mut send = |by: usize, frame: &[u8]| {
        intruders[by].send(frame);
        sent += 1;
        if sent % BURST == 0 {
            // What comes too fast the kernel drops, and nobody says why.
            let taken = |node: &Node| node.counter("engine_frames_received");
            let then = [taken(&a), taken(&b)];
            eventually("both have taken more", || taken(&a) > then[0] && taken(&b) > then[1]);
        }
    };
    for (link, frames) in heard.iter().enumerate() {
        for frame in frames.iter().take(100) {
            send(link, frame);
            send(1 - link, frame);
            send(link, frame);
            // Bits of sender, number, term, payload and tag.
            for byte in [12, 20, 31, 39, 40, frame.len() - 1] {
                send(1 - link, &changed(frame, 8 * byte + 3));
            }
        }
        send(link, &usurper());
    }
    let refused = |node: &Node| ["replayed", "forged", "unsealed", "unestablished"].map(|reason| dropped(node, reason));
    eventually("each reason is counted", || [&a, &b].iter().all(|node| !refused(node).contains(&0)));
    println!("{sent} sent; a: {:?}, b: {:?}", refused(&a), refused(&b));
    a.connect(ENTRIES..ENTRIES + 1);
    eventually("what is honest arrives", || b.table().len() > ENTRIES as usize);
    a.disconnect(ENTRIES..ENTRIES + 1);
    eventually("nothing else has", || {
        let equal = ssyncp::demo::kernel::compare(&a.table(), &b.table()) == Default::default();
        equal && [&a, &b].map(standing) == before
    });
}

/// [1.2.3] [3.4.6] A daemon with another secret of the same number hears nobody and is heard by nobody: the pair goes on, also when
/// its master dies.
#[test]
fn a_third_daemon_with_another_secret_is_nobody_to_the_pair() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role of theirs.
    let mut pair = Pair::new("advert_interval = \"400ms\"");
    let mut third = Node::new('c', 255, "");
    ip(
        &pair.switch,
        &format!(
            "link add pc type veth peer name sc netns {}
             link set pc master sync up",
            path_of(&third.namespace)
        ),
    );
    ip(&third.namespace, "address add 10.255.0.4/24 dev sc\nlink set sc up");
    for (node, secret) in [(&pair.a, SECRET), (&pair.b, SECRET), (&third, OTHER)] {
        seal(node, secret);
    }
    pair.start();
    pair.a.connect(0..ENTRIES);
    pair.until_equal(ENTRIES as usize);
    pair.settle();
    let before = [&pair.a, &pair.b].map(standing);
    third.start();
    eventually("the third is master of nobody", || third.is("master", "source"));
    for node in [&pair.a, &pair.b, &third] {
        eventually("it refuses the other secret", || dropped(node, "forged") > 20 && node.log().contains("AuthFailed"));
    }
    assert_eq!([&pair.a, &pair.b].map(standing), before);
    assert_eq!(third.group()["peers"], json!([]));
    assert_eq!(third.table().len(), 0, "it has learned nothing");
    pair.a.end(nix::sys::signal::Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source") && pair.b.holds_the_address());
    assert!(pair.b.table().len() >= ENTRIES as usize);
}
