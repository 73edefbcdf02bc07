//! Addresses and announcements against the real kernel, in namespaces of their own.

use crate::machine;
use crate::machine::{PATIENCE, eventually, ip, path_of, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pnet::datalink::{self, Channel, Config, DataLinkReceiver};
use serde_json::{Value, json};
use ssyncp::daemon::announce::Announce;
use ssyncp::daemon::build;
use ssyncp::daemon::client;
use ssyncp::daemon::settings::{Moves, VirtualAddress};
use ssyncp::daemon::takeover::{Plan, Takeover};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::nftables::{Batch, Expression, NF_ACCEPT, hook, priority};
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
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
    start_plan(namespace, plan(addresses, Moves::default()))
}

fn plan(addresses: &[&str], moves: Moves) -> Plan {
    Plan { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(), moves }
}

fn start_plan(namespace: &Namespace, plan: Plan) -> Takeover {
    namespace.run(|| Takeover::start(51, plan, build::announcer)).unwrap()
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
        losses.extend(takeover.next_told().map(|told| told.text));
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
    assert_eq!(takeover.next_told(), None);
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
    let plan = Plan { addresses: wanted, ..Plan::default() };
    let takeover = here.run(|| Takeover::start(51, plan, looks)).unwrap();
    takeover.hold(true);
    eventually("each address is announced", || TAKEN.lock().unwrap().len() >= 8);
    assert_eq!(TAKEN.lock().unwrap()[..8], [true; 8]);
    takeover.finish();
}

/// The routes of a table; none where the kernel has not made the table yet, which `ip` calls an error.
fn routes(namespace: &Namespace, table: &str) -> String {
    machine::shell_output(namespace, &format!("ip route show table {table} 2>/dev/null || true"))
}

fn with_routes(routes: &[&str]) -> Moves {
    Moves { routes: routes.iter().map(|text| text.parse().unwrap()).collect(), ..Moves::default() }
}

#[test]
fn routes_come_behind_the_addresses_that_they_need_and_go_before_them() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    // Its only address on the link is the virtual one: without it neither router nor source could be used.
    let moves = with_routes(&[
        "198.51.100.0/24 via 192.0.2.1 dev va src 192.0.2.10 metric 50 table 100",
        "default via 192.0.2.1",
        "203.0.113.7/32 dev va",
        "2001:db8:1::/48 via 2001:db8::1 metric 7",
    ]);
    let takeover = start_plan(&here, plan(&["192.0.2.10/24 dev va", "2001:db8::10/64 dev va"], moves));
    takeover.hold(true);
    eventually("the routes are there", || {
        routes(&here, "100").trim() == "198.51.100.0/24 via 192.0.2.1 dev va proto 114 src 192.0.2.10 metric 50"
            && routes(&here, "main").contains("default via 192.0.2.1 dev va proto 114")
            && routes(&here, "main").contains("203.0.113.7 dev va proto 114 scope link")
            && ip(&here, &["-6", "route"]).contains("2001:db8:1::/48 via 2001:db8::1 dev va proto 114 metric 7")
    });
    takeover.hold(false);
    eventually("all of it is gone", || {
        routes(&here, "main").is_empty()
            && !ip(&here, &["-6", "route"]).contains("2001:db8:1::")
            && !has(&here, "192.0.2")
    });
    takeover.finish();
}

#[test]
fn a_route_that_somebody_else_made_stays_and_one_that_somebody_removes_comes_back() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    ip(&here, &["address", "add", "192.0.2.2/24", "dev", "va"]);
    ip(&here, &["route", "add", "198.51.100.0/24", "via", "192.0.2.1"]);
    let moves = with_routes(&["198.51.100.0/24 via 192.0.2.1", "203.0.113.0/24 via 192.0.2.1"]);
    let takeover = start_plan(&here, plan(&[], moves));
    takeover.hold(true);
    let ours = || routes(&here, "main").contains("203.0.113.0/24 via 192.0.2.1 dev va proto 114");
    eventually("ours is there", ours);
    ip(&here, &["route", "del", "203.0.113.0/24"]);
    eventually("it is told", || takeover.next_told().is_some_and(|told| told.event == "RouteLost"));
    assert!(ours());
    takeover.finish();
    assert!(!routes(&here, "main").contains("203.0.113.0/24"), "{}", routes(&here, "main"));
    assert!(routes(&here, "main").contains("198.51.100.0/24 via 192.0.2.1 dev va"), "{}", routes(&here, "main"));
}

#[test]
fn an_address_has_the_scope_and_the_label_that_it_is_given() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    let takeover = start(&here, &["192.0.2.10/24 dev va scope link label va:1"]);
    takeover.hold(true);
    eventually("the address is there", || {
        ip(&here, &["-4", "-o", "address", "show"]).contains("192.0.2.10/24 brd 192.0.2.255 scope link va:1")
    });
    takeover.hold(false);
    eventually("the address is removed", || !has(&here, "192.0.2.10"));
    takeover.finish();
}

/// Beyond the five of a takeover.
#[test]
fn a_master_tells_its_neighbours_again_and_again_if_it_is_asked_to() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    let mut receiver = listen(&there, "vb");
    let moves = Moves { announce_refresh: Duration::from_secs(1), ..Moves::default() };
    let takeover = start_plan(&here, plan(&["192.0.2.10/24 dev va"], moves));
    takeover.hold(true);
    assert_eq!(arp_operations(&mut *receiver, [192, 0, 2, 10], 16).len(), 16);
    takeover.finish();
}

/// How a connection to a port of the virtual address ends, seen from the other machine.
fn knock(there: &Namespace, port: u16) -> io::ErrorKind {
    let address = SocketAddr::from(([192, 0, 2, 10], port));
    there.run(|| Ok(TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err().kind())).unwrap()
}

/// The same of a datagram.
fn knock_by_udp(there: &Namespace) -> io::ErrorKind {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.connect("192.0.2.10:9")?;
        socket.send(b"?")?;
        Ok(socket.recv(&mut [0; 8]).unwrap_err().kind())
    };
    there.run(ask).unwrap()
}

/// Ports from 8000 on are not tracked, so that their packets pass the guard's first chain.
fn leave_untracked(here: &Namespace) {
    let destination = [
        Expression::Meta(libc::NFT_META_L4PROTO),
        Expression::Compare(libc::NFT_CMP_EQ, vec![6]),
        Expression::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2 },
        Expression::Compare(libc::NFT_CMP_GTE, 8000_u16.to_be_bytes().to_vec()),
        Expression::Untrack,
    ];
    let mut batch = Batch::begin("untracked", 2);
    batch.table(0);
    batch.chain("in", "filter", hook::PREROUTING, priority::RAW, NF_ACCEPT);
    batch.rule("in", &destination);
    // Who asks for a connection's state has all others tracked.
    batch.chain("tracked", "filter", hook::PREROUTING, priority::FILTER, NF_ACCEPT);
    batch.rule("tracked", &[Expression::Connection(libc::NFT_CT_STATE)]);
    here.run(|| batch.commit(&mut Batch::socket()?)).unwrap();
}

#[test]
fn while_the_guard_is_shut_nobody_is_told_that_there_is_no_connection() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    ip(&there, &["address", "add", "192.0.2.1/24", "dev", "vb"]);
    // Another program moves the address, as keepalived does: before the state is here.
    ip(&here, &["address", "add", "192.0.2.10/24", "dev", "va"]);
    let moves = Moves { guard: true, foreign_addresses: vec![[192, 0, 2, 10].into()], ..Moves::default() };
    let plan = plan(&["2001:db8::10/64 dev va"], moves);
    let mut takeover = start_plan(&here, plan.clone());
    leave_untracked(&here);
    let refused = io::ErrorKind::ConnectionRefused;
    assert_ne!(knock(&there, 80), refused);
    assert_ne!(knock(&there, 8000), refused);
    assert_ne!(knock_by_udp(&there), refused);
    takeover.guard(false);
    eventually("the kernel answers again", || knock(&there, 80) == refused);
    assert_eq!((knock(&there, 8000), knock_by_udp(&there)), (refused, refused));

    takeover.guard(true);
    eventually("the guard is shut again", || knock(&there, 80) != refused);
    takeover.replace(Plan { moves: Moves::default(), ..plan });
    eventually("a plan without a guard lifts it", || knock(&there, 80) == refused);
    assert_eq!(takeover.next_told(), None);
    takeover.finish();
    assert!(has(&here, "192.0.2.10/24"), "what another program moves is never touched");
}

/// A connection that the kernel knows goes on while the guard is shut, and other addresses are nobody's business.
#[test]
fn what_the_kernel_knows_passes_the_guard() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    ip(&there, &["address", "add", "192.0.2.1/24", "dev", "vb"]);
    let takeover = start_plan(&here, plan(&["192.0.2.10/24 dev va"], Moves { guard: true, ..Moves::default() }));
    takeover.guard(false);
    ip(&here, &["address", "add", "192.0.2.10/24", "dev", "va"]);
    ip(&here, &["address", "add", "192.0.2.2/24", "dev", "va"]);
    // Something must ask for connection tracking.
    leave_untracked(&here);
    let listener = here.run(|| TcpListener::bind("192.0.2.10:80")).unwrap();
    let connect = || TcpStream::connect("192.0.2.10:80");
    let mut known = there.run(connect).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(PATIENCE)).unwrap();
    takeover.guard(true);
    eventually("the guard is shut", || knock(&there, 81) != io::ErrorKind::ConnectionRefused);
    known.write_all(b"x").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    let other = SocketAddr::from(([192, 0, 2, 2], 80));
    let elsewhere = || Ok(TcpStream::connect_timeout(&other, PATIENCE).unwrap_err().kind());
    assert_eq!(there.run(elsewhere).unwrap(), io::ErrorKind::ConnectionRefused);
    takeover.finish();
}

/// A kernel without macvlan says so, and the addresses come up all the same; one with it gives them their own link address.
#[test]
fn a_virtual_link_address_is_that_of_the_virtual_router_or_its_lack_is_told_with_its_cure() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    let mut receiver = listen(&there, "vb");
    let moves = Moves { virtual_mac: true, ..Moves::default() };
    let takeover = start_plan(&here, plan(&["192.0.2.10/24 dev va"], moves));
    takeover.hold(true);
    arp_operations(&mut *receiver, [192, 0, 2, 10], 2);
    let told: Vec<_> = std::iter::from_fn(|| takeover.next_told()).collect();
    let address = ip(&here, &["-4", "-o", "address", "show"]);
    if let Some(refused) = told.iter().find(|told| told.event == "VirtualMacRefused") {
        assert!(
            refused.text.contains("modprobe macvlan") && refused.text.contains("remove virtual_mac"),
            "{refused:?}"
        );
        assert!(address.contains("va    inet 192.0.2.10/24"), "{address}");
    } else {
        let link = ip(&here, &["-o", "link", "show", "type", "macvlan"]);
        assert!(link.contains("00:00:5e:00:01:33") && address.contains("vmac4-51-"), "{link} {address}");
    }
    takeover.finish();
    assert!(!has(&here, "192.0.2.10") && !ip(&here, &["link"]).contains("vmac4"));
}

/// A daemon in a namespace, alone on a medium in memory.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(here: &Namespace, directory: &Path, role: &str, virtual_mac: bool) -> Self {
        let (file, socket) = (directory.join("ssyncp.toml"), directory.join("control.sock"));
        let text = format!(
            "[node]\nid = 1\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\ntransport = \"memory\"\n\
             source = \"synthetic\"\nrole = \"{role}\"\nguard = true\naddresses = [\"192.0.2.10/24 dev va\"]\n\
             routes = [\"198.51.100.0/24 via 192.0.2.1\"]\nvirtual_mac = {virtual_mac}\n",
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = here.command(env!("CARGO_BIN_EXE_ssyncp")).unwrap();
        command.arg("run").arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        Daemon { child: command.spawn().unwrap(), socket }
    }

    fn group(&self) -> Value {
        client::get(&self.socket, "/v1/status").map_or(Value::Null, |status| status["groups"][0].clone())
    }

    fn role(&self) -> String {
        self.group()["role"].as_str().unwrap_or_default().to_owned()
    }

    /// Asks it to end, and waits until it has.
    fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGKILL; both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_node_that_starts_removes_what_its_dead_predecessor_left() {
    if !root() {
        return;
    }
    let (here, there) = pair();
    ip(&there, &["address", "add", "192.0.2.1/24", "dev", "vb"]);
    let directory = tempfile::tempdir().unwrap();
    let route = || routes(&here, "main").contains("198.51.100.0/24 via 192.0.2.1 dev va proto 114");
    let master = Daemon::start(&here, directory.path(), "vrrp", false);
    eventually("it is master", || master.role() == "master" && has(&here, "192.0.2.10/24") && route());
    eventually("its guard is lifted", || knock(&there, 80) == io::ErrorKind::ConnectionRefused);
    let row = |held: bool| json!([{ "route": "198.51.100.0/24 via 192.0.2.1", "held": held }]);
    eventually("its status has the route", || master.group()["routes"] == row(true));
    drop(master);
    assert!(has(&here, "192.0.2.10/24") && route(), "a dead daemon's kernel goes on");

    let idle = Daemon::start(&here, directory.path(), "manual", false);
    eventually("it runs", || idle.role() == "backup");
    assert!(!has(&here, "192.0.2.10") && !route(), "{}", routes(&here, "main"));
    assert_eq!(idle.group()["routes"], row(false));
    ip(&here, &["address", "add", "192.0.2.10/24", "dev", "va"]);
    assert_ne!(knock(&there, 80), io::ErrorKind::ConnectionRefused, "its guard is shut");
    drop(idle);
    assert_eq!(knock(&there, 80), io::ErrorKind::ConnectionRefused, "a guard dies with its process");
}

/// Whoever dies of SIGKILL leaves its virtual interface behind, with the address on it, and the network goes on to find it
/// there. Its successor removes it, also where it is configured to make none, or its predecessor was.
#[test]
fn a_virtual_interface_of_a_dead_predecessor_is_gone_before_anything_else_and_taken_up_anew() {
    if !root() {
        return;
    }
    let (here, _there) = pair();
    if !can_make_macvlan(&here) {
        return println!("skipped: needs a kernel with macvlan");
    }
    let directory = tempfile::tempdir().unwrap();
    let start = |role: &str, virtual_mac: bool| Daemon::start(&here, directory.path(), role, virtual_mac);
    let virtual_links = || ip(&here, &["-o", "link", "show", "type", "macvlan"]);
    let number = || virtual_links().split(':').next().unwrap_or_default().trim().to_owned();
    let address = || ip(&here, &["-4", "-o", "address", "show", "to", "192.0.2.10"]);
    let serves = |daemon: &Daemon, place: &str| {
        eventually("it is master, with the address", || daemon.role() == "master" && address().contains(place));
    };
    // Not up, and none of another number beside it.
    let is_ready = |links: &str| links.lines().count() == 1 && links.contains("state DOWN");

    let master = start("vrrp", true);
    serves(&master, "vmac4-51-");
    let first = number();
    drop(master);
    assert!(virtual_links().contains("00:00:5e:00:01:33") && address().contains("vmac4-51-"), "it is left behind");

    let idle = start("manual", true);
    eventually("it runs", || idle.role() == "backup");
    assert!(is_ready(&virtual_links()) && address().is_empty(), "{} {}", virtual_links(), address());
    assert_ne!(number(), first, "it is a new one");
    drop(idle);

    let idle = start("manual", false);
    eventually("it runs", || idle.role() == "backup");
    assert_eq!(virtual_links(), "");
    drop(idle);

    let master = start("vrrp", false);
    serves(&master, "va ");
    drop(master);
    let idle = start("manual", true);
    eventually("it runs", || idle.role() == "backup");
    assert!(is_ready(&virtual_links()) && address().is_empty(), "{} {}", virtual_links(), address());
    drop(idle);

    // What somebody else has made is nobody's business, whatever it is called.
    ip(&here, &["link", "add", "vmac4-51-99", "link", "va", "type", "macvlan", "mode", "private"]);
    let master = start("vrrp", true);
    serves(&master, "vmac4-51-");
    assert_eq!(virtual_links().matches("00:00:5e:00:01:33").count(), 1);
    master.end();
    let left = virtual_links();
    assert!(left.lines().count() == 1 && left.contains("vmac4-51-99"), "{left}");
    assert_eq!(address(), "");
}

fn can_make_macvlan(here: &Namespace) -> bool {
    let words = ["link", "add", "probe", "link", "va", "type", "macvlan", "mode", "private"];
    let made = here.run(|| std::process::Command::new("ip").args(words).output()).unwrap().status.success();
    if made {
        ip(here, &["link", "del", "probe"]);
    }
    made
}
