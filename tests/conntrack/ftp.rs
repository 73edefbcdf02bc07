//! Ftp through NAT over a change of routers: a real server, real helpers of the kernel, and what one router knows copied
//! into the other. Rules let nothing through but the control connection and what is expected.
//!
//! ```text
//!   client 10.1.0.1 ──┐                  ┌── a ──┐                 ┌── server 10.2.0.1
//!                     ├── bridge front ──┤       ├── bridge back ──┤   vsftpd
//!                     │                  └── b ──┘                 │
//!   both routers are 10.1.0.254 and 10.2.0.254, with the same MAC; one of them is plugged in
//!   DNAT 10.1.0.254:21 to 10.2.0.1:21, SNAT to 10.2.0.254
//! ```

use crate::support::*;
use ssyncp::bridge::conntrack::{ConntrackSink, ConntrackSource, SinkOptions, SourceOptions};
use ssyncp::bridge::{Sink, Source};
use ssyncp::flow::Flow;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for an answer of the server.
const WITHIN: Option<Duration> = Some(Duration::from_secs(20));
/// Bytes of the large file, and how fast the server sends it: four seconds.
const LARGE: usize = 800_000;
const BYTES_PER_SECOND: usize = 200_000;
const SMALL: &[u8] = b"what the small file says\n";

const RULES: &str = "
table ip t {
    ct helper ftp { type \"ftp\" protocol tcp; }
    chain help { type filter hook prerouting priority 0; tcp dport 21 ct helper set \"ftp\"; }
    chain there { type nat hook prerouting priority -100; ip daddr 10.1.0.254 tcp dport 21 dnat to 10.2.0.1; }
    chain back { type nat hook postrouting priority 100; oifname back ct state new snat to 10.2.0.254; }
    chain strict {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname front tcp dport 21 tcp flags & (syn | ack) == syn accept
    }
}";

/// Everything that the test runs on.
struct Site {
    switch: Namespace,
    client: Namespace,
    /// Kept for as long as the server runs in it.
    _server: Namespace,
    routers: [Namespace; 2],
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Site {
    /// `None`, and a line that says why, where it cannot be.
    fn build() -> Option<Site> {
        if !["nft", "ip", "vsftpd", "lftp"].into_iter().all(program) {
            return None;
        }
        let [switch, client, server, a, b] = [namespace()?, namespace()?, namespace()?, namespace()?, namespace()?];
        shell(&switch, "for bridge in front back; do ip link add $bridge type bridge; ip link set $bridge up; done");
        let plug = |into: &Namespace, bridge: &str, port: &str, name: &str, mac: &str, address: &str| {
            shell(
                &switch,
                &format!(
                    "ip link add {port} type veth peer name {name} address {mac} netns {}
                     ip link set {port} master {bridge}",
                    path_of(into)
                ),
            );
            shell(into, &format!("ip link set lo up; ip address add {address}/24 dev {name}; ip link set {name} up"));
        };
        plug(&client, "front", "pc", "eth0", "02:00:00:00:01:01", "10.1.0.1");
        plug(&server, "back", "ps", "eth0", "02:00:00:00:02:01", "10.2.0.1");
        for (letter, router) in [("a", &a), ("b", &b)] {
            plug(router, "front", &format!("p{letter}f"), "front", "02:00:00:00:01:fe", "10.1.0.254");
            plug(router, "back", &format!("p{letter}b"), "back", "02:00:00:00:02:fe", "10.2.0.254");
            shell(router, &format!("sysctl -qw net.ipv4.ip_forward=1; nft -f - <<'END'\n{RULES}\nEND"));
        }
        shell(&switch, "for port in pc ps paf pab; do ip link set $port up; done");
        let directory = tempfile::tempdir().unwrap();
        let daemon = serve(&server, directory.path());
        Some(Site { switch, client, _server: server, routers: [a, b], directory, daemon })
    }

    /// Router a is unplugged, b is plugged in.
    fn change_routers(&self) {
        shell(&self.switch, "for port in paf pab; do ip link set $port down; done");
        shell(&self.switch, "for port in pbf pbb; do ip link set $port up; done");
    }

    fn connect(&self, to: &str) -> TcpStream {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self.client.run(|| TcpStream::connect_timeout(&to, WITHIN.unwrap())).unwrap();
        stream.set_read_timeout(WITHIN).unwrap();
        stream
    }
}

/// Starts a server with a large and a small file.
fn serve(namespace: &Namespace, directory: &std::path::Path) -> Child {
    let (root, empty, log) = (directory.join("root"), directory.join("empty"), directory.join("log"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&empty).unwrap();
    // It runs with the rights of the user ftp.
    use std::os::unix::fs::PermissionsExt;
    for path in [directory, &root, &empty] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(root.join("large"), large()).unwrap();
    fs::write(root.join("small"), SMALL).unwrap();
    let configuration = directory.join("vsftpd.conf");
    let text = format!(
        "listen=YES\nlisten_ipv6=NO\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n\
         anon_root={}\nsecure_chroot_dir={}\nanon_max_rate={BYTES_PER_SECOND}\nseccomp_sandbox=NO\n\
         xferlog_enable=YES\nlog_ftp_protocol=YES\nxferlog_std_format=NO\nvsftpd_log_file={}\n\
         connect_from_port_20=YES\naccept_timeout=10\ndata_connection_timeout=20\nidle_session_timeout=30\n",
        root.display(),
        empty.display(),
        log.display()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = namespace.command("vsftpd").unwrap();
    let daemon = command.arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("vsftpd listens", || namespace.run(|| TcpStream::connect("10.2.0.1:21")).is_ok());
    daemon
}

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|number| (number % 251) as u8).collect()
}

/// What one router knows, copied into the other.
struct Copier {
    source: ConntrackSource,
    sink: ConntrackSink,
}

impl Copier {
    fn new(site: &Site) -> Self {
        let [a, b] = &site.routers;
        let mut source = a.run(|| ConntrackSource::open(&SourceOptions::default()).map_err(io_error)).unwrap();
        let sink = b.run(|| ConntrackSink::open(&SinkOptions::default()).map_err(io_error)).unwrap();
        source.request_dump().unwrap();
        Copier { source, sink }
    }

    /// Copies all that there is to copy now.
    fn copy(&mut self) {
        loop {
            let sink = &mut self.sink;
            let outcome = self.source.read(&mut |change| sink.apply(&change).unwrap()).unwrap();
            if outcome.drained && outcome.changes == 0 {
                self.sink.flush().unwrap();
                return;
            }
        }
    }

    fn counter(&self, name: &str) -> u64 {
        counter(&self.sink.counters(), name)
    }
}

/// A client that does one step at a time.
struct Control(BufReader<TcpStream>);

impl Control {
    fn open(site: &Site) -> Self {
        let mut control = Control(BufReader::new(site.connect("10.1.0.254:21")));
        control.answer("220");
        control.say("USER anonymous", "230");
        control.say("TYPE I", "200");
        control
    }

    fn say(&mut self, words: &str, code: &str) -> String {
        self.0.get_mut().write_all(format!("{words}\r\n").as_bytes()).unwrap();
        self.answer(code)
    }

    fn answer(&mut self, code: &str) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert!(line.starts_with(code), "{line}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line;
            }
        }
    }

    /// Asks where to connect to.
    fn passive(&mut self) -> String {
        let line = self.say("PASV", "227");
        let inside = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{line}"));
        let numbers: Vec<u16> = inside.split(',').map(|number| number.trim().parse().unwrap()).collect();
        let &[a, b, c, d, high, low] = numbers.as_slice() else { panic!("{line}") };
        assert_eq!([a, b, c, d], [10, 1, 0, 254], "the router translates what the server says");
        format!("{a}.{b}.{c}.{d}:{}", high << 8 | low)
    }

    /// Says where to connect to.
    fn active(&mut self, site: &Site) -> TcpListener {
        let listener = site.client.run(|| TcpListener::bind("10.1.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.say(&format!("PORT 10,1,0,1,{},{}", port >> 8, port & 0xff), "200");
        listener
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("the server connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let stream = accepted.unwrap().0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(WITHIN).unwrap();
    stream
}

fn read_all(mut data: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes).unwrap();
    bytes
}

fn dump(namespace: &Namespace) -> Vec<Flow> {
    let mut source = namespace.run(|| ConntrackSource::open(&SourceOptions::default()).map_err(io_error)).unwrap();
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    mirror.flows.into_values().collect()
}

#[test]
fn a_passive_transfer_goes_on_and_both_old_and_new_announcements_are_kept() {
    let Some(site) = Site::build() else { return };
    let mut copier = Copier::new(&site);
    let mut control = Control::open(&site);
    let to = control.passive();
    let mut data = site.connect(&to);
    control.say("RETR large", "150");
    let mut begin = vec![0; 1000];
    data.read_exact(&mut begin).unwrap();
    // A second connection has announced its data and not made it yet.
    let mut second = Control::open(&site);
    let announced = second.passive();
    copier.copy();
    let held = dump(&site.routers[1]);
    let masters: Vec<_> = held.iter().filter(|flow| flow.attributes.helper() == Some("ftp")).collect();
    let pending: usize = held.iter().filter_map(|flow| flow.attributes.expectations()).map(|list| list.len()).sum();
    let expected = held.iter().filter(|flow| flow.attributes.master().is_some()).count();
    assert_eq!((held.len(), masters.len(), pending, expected), (3, 2, 1, 1), "{held:#?} {:?}", copier.sink.counters());

    site.change_routers();
    begin.extend(read_all(data));
    assert!(begin == large(), "{} bytes", begin.len());
    control.answer("226");
    // What was announced to the router that is gone.
    let data = site.connect(&announced);
    second.say("RETR small", "150");
    assert_eq!(read_all(data), SMALL);
    second.answer("226");
    // And a new announcement, read by the new router.
    for control in [&mut control, &mut second] {
        let to = control.passive();
        let data = site.connect(&to);
        control.say("RETR small", "150");
        assert_eq!(read_all(data), SMALL);
        control.answer("226");
    }
    assert_eq!(copier.counter("masters_missing") + copier.counter("helpers_missing"), 0);
}

#[test]
fn an_active_transfer_goes_on_and_both_old_and_new_announcements_are_kept() {
    let Some(site) = Site::build() else { return };
    let mut copier = Copier::new(&site);
    let mut control = Control::open(&site);
    let listener = control.active(&site);
    control.say("RETR large", "150");
    let mut data = accept(&listener);
    let mut begin = vec![0; 1000];
    data.read_exact(&mut begin).unwrap();
    let mut second = Control::open(&site);
    let announced = second.active(&site);
    copier.copy();
    let held = dump(&site.routers[1]);
    // PORT 10,1,0,1 has become PORT 10,2,0,254: two characters more from there on.
    let moved = held.iter().filter(|flow| flow.attributes.sequence_adjustment().is_some()).count();
    let pending: usize = held.iter().filter_map(|flow| flow.attributes.expectations()).map(|list| list.len()).sum();
    assert_eq!((held.len(), moved, pending), (3, 2, 1), "{held:#?} {:?}", copier.sink.counters());

    site.change_routers();
    begin.extend(read_all(data));
    assert!(begin == large(), "{} bytes", begin.len());
    control.answer("226");
    second.say("RETR small", "150");
    assert_eq!(read_all(accept(&announced)), SMALL);
    second.answer("226");
    for control in [&mut control, &mut second] {
        let listener = control.active(&site);
        control.say("RETR small", "150");
        assert_eq!(read_all(accept(&listener)), SMALL);
        control.answer("226");
    }
}

/// Two daemons on the routers, as in the field: what one kernel holds comes into the other over the wire.
#[test]
fn a_pair_of_daemons_carries_ftp_over_the_death_of_one() {
    let Some(site) = Site::build() else { return };
    let [a, b] = &site.routers;
    shell(a, &format!("ip link add sync type veth peer name sync netns {}", path_of(b)));
    for (number, router) in [a, b].into_iter().enumerate() {
        shell(router, &format!("ip address add 10.3.0.{}/24 dev sync; ip link set sync up", number + 1));
    }
    let mut first = Daemon::start(a, site.directory.path(), 1, 150);
    let _second = Daemon::start(b, site.directory.path(), 2, 100);
    let mut control = Control::open(&site);
    let mut data = site.connect(&control.passive());
    control.say("RETR large", "150");
    let mut begin = vec![0; 1000];
    data.read_exact(&mut begin).unwrap();
    let mut second = Control::open(&site);
    let announced = second.passive();
    // Three connections, one of them expected, and one announcement, in the kernel of the backup.
    eventually("the backup's kernel holds all", || {
        let held = dump(b);
        let pending: usize = held.iter().filter_map(|flow| flow.attributes.expectations()).map(|list| list.len()).sum();
        let expected = held.iter().filter(|flow| flow.attributes.master().is_some()).count();
        (pending, expected) == (1, 1)
    });
    first.0.kill().unwrap();
    site.change_routers();
    begin.extend(read_all(data));
    assert!(begin == large(), "{} bytes", begin.len());
    control.answer("226");
    let data = site.connect(&announced);
    second.say("RETR small", "150");
    assert_eq!(read_all(data), SMALL);
    second.answer("226");
    for control in [&mut control, &mut second] {
        let data = site.connect(&control.passive());
        control.say("RETR small", "150");
        assert_eq!(read_all(data), SMALL);
        control.answer("226");
    }
}

/// `ssyncp run` on a router.
struct Daemon(Child);

impl Daemon {
    fn start(namespace: &Namespace, directory: &std::path::Path, number: u8, priority: u8) -> Self {
        let file = directory.join(format!("{number}.toml"));
        let socket = directory.join(format!("{number}.sock"));
        let text = format!(
            "[node]\nid = {number}\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\ninterfaces = [\"sync\"]\n\
             priority = {priority}\n",
            socket.display()
        );
        fs::write(&file, text).unwrap();
        let mut command = namespace.command(env!("CARGO_BIN_EXE_ssyncp")).unwrap();
        let log = fs::File::create(directory.join(format!("{number}.log"))).unwrap();
        Daemon(
            command
                .args(["run", "-c"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without what it expects a router lets nothing through: the rules are as strict as they say.
#[test]
fn without_expectations_the_data_do_not_come() {
    let Some(site) = Site::build() else { return };
    let mut copier = Copier::new(&site);
    let mut control = Control::open(&site);
    copier.copy();
    let to: SocketAddr = control.passive().parse().unwrap();
    site.change_routers();
    let refused = site.client.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(1500)));
    assert!(refused.is_err(), "the announcement was not copied, and the data came");
}

/// A client of Debian's, in both modes: the control connection is one and the same before and after.
#[test]
fn lftp_does_not_notice() {
    for passive in ["on", "off"] {
        let Some(site) = Site::build() else { return };
        let mut copier = Copier::new(&site);
        let here = site.directory.path().join("here");
        fs::create_dir(&here).unwrap();
        let mut lftp = lftp(&site, &here, passive);
        eventually("the transfer has begun", || fs::metadata(here.join("large")).is_ok_and(|file| file.len() > 10_000));
        copier.copy();
        assert_eq!(dump(&site.routers[1]).len(), 2);
        site.change_routers();
        let status = lftp.wait().unwrap();
        let log = fs::read_to_string(here.join("log")).unwrap();
        assert!(status.success(), "passive {passive}: {log}");
        assert!(fs::read(here.join("large")).unwrap() == large(), "passive {passive}: {log}");
        assert_eq!(fs::read(here.join("small")).unwrap(), SMALL, "passive {passive}: {log}");
        let server_log = fs::read_to_string(site.directory.path().join("log")).unwrap();
        // It did not come again: this is the one control connection, before and after.
        assert_eq!(server_log.matches("CONNECT: Client \"10.2.0.254\"").count(), 1, "{server_log}");
    }
}

fn lftp(site: &Site, here: &std::path::Path, passive: &str) -> Child {
    let script = format!(
        "debug -o {0}/log 9; set ftp:passive-mode {passive}; set net:max-retries 1; set net:timeout 20; \
         set ftp:sync-mode on; open -u anonymous,none ftp://10.1.0.254; get large -o {0}/large && get small -o {0}/small",
        here.display()
    );
    let mut command: Command = site.client.command("lftp").unwrap();
    command.env("HOME", here).args(["--norc", "-c", &script]).stdin(Stdio::null()).spawn().unwrap()
}
