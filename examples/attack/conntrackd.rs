//! The same done to conntrackd (FTFW over multicast, as Debian ships it), for the figures beside.
//!
//! Its messages carry no proof of who sent them. What is forged here is an overheard message with other addresses in it, and
//! control messages of 16 bytes, sent by an ordinary UDP socket of a third machine:
//!
//! ```text
//!   0 version and type u8, flags u8, length u16      4 sequence u32      8 from u32, to u32 (control messages)
//! ```
//!
//! A message with the flag HELLO begins a conversation anew, whatever its number.

use super::chaos::interrupt::nap;
use super::chaos::lab::{Lab, Plan, SYNC};
use super::chaos::node::Node;
use super::chaos::traffic::{Means, flow, write};
use super::chaos::{Context, Doing, Trouble, conntrackd as daemon};
use super::report::{Report, rounded};
use serde::Serialize;
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where it listens.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(225, 0, 0, 50), 3780);
/// Bytes of Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Flags: a request for everything; a sign of life; the first message of a conversation.
const RESYNC: u8 = 0x02;
const ALIVE: u8 = 0x10;
const HELLO: u8 = 0x20;
/// Type of control messages, in the low bits of the first byte.
const CONTROL: u8 = 10;
/// Entries that are forged, those that a request for everything finds, and honest connections after the forged hello.
const FORGED: u32 = 500;
const ENTRIES: u32 = 20_000;
const AFTER: u32 = 500;
/// Number of the flow whose message is overheard: plain TCP.
const PATTERN: u32 = 1;
/// Where forged flows go: nobody honest does.
const FORGED_TO: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// Time that it gets for each step: it says nothing when it is done.
const STEP: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rival {
    /// What `conntrackd -v` says of itself.
    pub version: String,
    /// Messages of new connections that were forged, each of one packet.
    pub forged: u64,
    /// Of them, those that stand in its external cache, from where a failover puts them into the kernel.
    pub accepted: u64,
    /// Bytes on the wire of one forged request for everything.
    pub request_bytes: u64,
    /// Bytes that the answer had.
    pub answer_bytes: u64,
    /// Bytes of the answer for each byte of the request.
    pub amplification: f64,
    /// Honest connections that were made after one forged hello with a high number.
    pub made_after_hello: u64,
    /// Of them, those that the backup has heard of.
    pub arrived_after_hello: u64,
}

/// Does it, where it is installed, and shows it beside what was done to SSYNCP.
pub fn beside(context: &Context, report: &mut Report, tell: &dyn Fn(String)) {
    if !daemon::is_installed() {
        tell(format!("skipped: needs the program {}", daemon::PROGRAM));
        return;
    }
    match attack(context) {
        Ok(rival) => {
            let row = |what: &str, ours: String, theirs: String| tell(format!("{what:<52} {ours:>18} {theirs:>18}"));
            let ours = |name: &str| report.attacks.iter().find(|it| it.name == name);
            let changed = |name| ours(name).map_or("-".into(), |it| format!("{} of {}", it.changed, it.sent));
            let amplified = ours("resync").map_or("-".into(), |it| format!("x{}", it.answer_per_byte));
            let silenced = ours("goodbye")
                .map_or("-".into(), |it| format!("{} of {}", it.delay.flows - it.delay.late, it.delay.flows));
            let secret = if report.secret { "ssyncp, secret" } else { "ssyncp, no secret" };
            row("side by side", secret.into(), rival.version.clone());
            let forged = if report.secret { "forge-wrong" } else { "forge-clear" };
            row(
                "forged connections that were believed",
                changed(forged),
                format!("{} of {}", rival.accepted, rival.forged),
            );
            row("bytes answered for a byte of forged requests", amplified, format!("x{}", rival.amplification));
            let theirs = format!("{} of {}", rival.arrived_after_hello, rival.made_after_hello);
            row("honest flows that arrive after a forged goodbye/hello", silenced, theirs);
            report.conntrackd = Some(rival);
        }
        Err(trouble) => report.problems.push(format!("conntrackd: {trouble}")),
    }
}

fn attack(context: &Context) -> Result<Rival, Trouble> {
    let mut lab = Lab::build(&Plan { program: daemon::PROGRAM.into(), conntrackd: true, ..Plan::new(context) })?;
    let stranger = lab.stranger(9)?;
    for node in &lab.nodes {
        // With the cache in between, as it is shipped.
        let file = node.file("conf");
        let text = fs::read_to_string(&file).doing("reading a configuration")?;
        fs::write(&file, text.replace("DisableExternalCache on", "")).doing("writing a configuration")?;
    }
    for node in &mut lab.nodes {
        node.start()?;
    }
    nap(STEP)?;
    let (a, b) = (&lab.nodes[0], &lab.nodes[1]);
    let (mut ears, mouth) = open(&stranger).doing("opening sockets")?;
    write(a, 0..8)?;
    let pattern = overhear(&mut ears, PATTERN)?;
    let mut rival = Rival { version: version(), forged: u64::from(FORGED), ..Rival::default() };

    for number in 0..FORGED {
        mouth.send_to(&forged(&pattern, number), GROUP).doing("sending")?;
        std::thread::sleep(Duration::from_millis(1));
    }
    nap(STEP)?;
    rival.accepted = external(b, &format!("dst={FORGED_TO} "))?;

    write(a, 8..ENTRIES)?;
    nap(STEP)?;
    let before = a.octets_sent()?;
    let request = control(&pattern, RESYNC | HELLO, 5);
    mouth.send_to(&request, GROUP).doing("sending")?;
    nap(STEP * 2)?;
    rival.request_bytes = (HEADERS + request.len()) as u64;
    rival.answer_bytes = a.octets_sent()? - before;
    rival.amplification = rounded(rival.answer_bytes as f64 / rival.request_bytes as f64).round();

    let before = external(b, "src=")?;
    let far_ahead = u32::from_be_bytes([pattern[4], pattern[5], pattern[6], pattern[7]]).wrapping_add(1_000_000_000);
    mouth.send_to(&control(&pattern, ALIVE | HELLO, far_ahead), GROUP).doing("sending")?;
    nap(STEP / 4)?;
    write(a, ENTRIES..ENTRIES + AFTER)?;
    nap(STEP * 2)?;
    rival.made_after_hello = u64::from(AFTER);
    rival.arrived_after_hello = external(b, "src=")?.saturating_sub(before);
    Ok(rival)
}

fn open(stranger: &Namespace) -> io::Result<(PacketSocket, UdpSocket)> {
    stranger.run(|| {
        let ears = PacketSocket::open(interface(SYNC)?.index, libc::ETH_P_IP as u16)?;
        let mouth = UdpSocket::bind((Ipv4Addr::new(10, 255, 0, 9), 0))?;
        socket2::SockRef::from(&mouth).set_multicast_if_v4(&Ipv4Addr::new(10, 255, 0, 9))?;
        Ok((ears, mouth))
    })
}

/// The message that tells of a flow, cut out of its datagram.
fn overhear(ears: &mut PacketSocket, number: u32) -> Result<Vec<u8>, Trouble> {
    let source = source(number);
    let (start, mut buffer) = (Instant::now(), [0; 2048]);
    while start.elapsed() < STEP * 2 {
        nap(Duration::from_millis(10))?;
        while let Some((length, _)) = ears.receive(&mut buffer).doing("listening")? {
            let mut rest = buffer.get(HEADERS..length).unwrap_or_default();
            while let Some(&[_, _, high, low]) = rest.first_chunk::<4>() {
                let Some((message, next)) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])).max(8))
                else {
                    break;
                };
                if position(message, &source.0).is_some() && position(message, &source.1).is_some() {
                    return Ok(message.to_vec());
                }
                rest = next;
            }
        }
    }
    Err(Trouble::Never { what: "conntrackd tells of a flow".into(), patience: STEP * 2 })
}

/// Source address, and source and destination port, of an honest flow as they travel.
fn source(number: u32) -> ([u8; 4], [u8; 4]) {
    let key = flow(number, Means::Netlink).key;
    let IpAddr::V4(address) = key.source else { return ([0; 4], [0; 4]) };
    let (from, to) = (key.source_port.to_be_bytes(), key.destination_port.to_be_bytes());
    (address.octets(), [from[0], from[1], to[0], to[1]])
}

fn position(message: &[u8], bytes: &[u8]) -> Option<usize> {
    message.windows(bytes.len()).position(|window| window == bytes)
}

/// The same message about a flow that does not exist.
fn forged(pattern: &[u8], number: u32) -> Vec<u8> {
    let mut message = pattern.to_vec();
    let (address, ports) = source(PATTERN);
    if let (Some(at), Some(ports)) = (position(pattern, &address), position(pattern, &ports)) {
        // Source and destination stand side by side.
        message[at + 4..at + 8].copy_from_slice(&FORGED_TO.octets());
        message[ports..ports + 2].copy_from_slice(&(2000 + number as u16).to_be_bytes());
    }
    message[1] |= HELLO;
    message
}

/// A control message of the version that the pattern has.
fn control(pattern: &[u8], flags: u8, sequence: u32) -> Vec<u8> {
    let mut message = vec![pattern[0] & 0xf0 | CONTROL, flags, 0, 16];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(&[0; 8]);
    message
}

/// Lines of the external cache that have this in them.
fn external(node: &Node, words: &str) -> Result<u64, Trouble> {
    let mut command = node.namespace.command(Path::new(daemon::PROGRAM)).doing("asking conntrackd")?;
    let output = command.arg("-C").arg(node.file("conf")).arg("-e").output();
    let text = output.doing("asking conntrackd")?.stdout;
    Ok(String::from_utf8_lossy(&text).lines().filter(|line| line.contains(words)).count() as u64)
}

fn version() -> String {
    let said = Command::new(daemon::PROGRAM).arg("-v").output();
    let text = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = text
        .split_ascii_whitespace()
        .find(|word| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit()));
    format!("conntrackd {}", version.unwrap_or("?").trim_matches(['v', '.']))
}
