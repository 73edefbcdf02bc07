//! What a client may cost: size, time and number of requests, answers that nobody takes, and that nothing is changed through
//! `listen`. Each limit is reached on the control socket or on the TCP address, by a client that writes its own bytes.

use serde_json::{Value, json};
use ssyncp::daemon::client;
use ssyncp::daemon::control::{Command, GroupDesk, GroupHandle, Page, desk};
use ssyncp::daemon::http::{self, Patience, Server, ServerOptions, Sockets};
use ssyncp::daemon::roster::Roster;
use ssyncp::daemon::sandbox::Sandbox;
use ssyncp::daemon::settings::Settings;
use ssyncp::daemon::status::GroupStatus;
use ssyncp::flow::{Flow, FlowKey, Zone};
use ssyncp::sys::poll::{self, Waker};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(100);
/// The same for a head: it holds for what the test itself asks, too, on a busy machine.
const HEAD: Duration = Duration::from_secs(1);
const PATIENT: Patience = Patience { head: NEVER, body: NEVER, taking: NEVER };

/// A server with group 51, whose driver has more flows than any socket buffers, and counts what would change something.
struct World {
    directory: tempfile::TempDir,
    server: Server,
    listen: SocketAddr,
    handle: GroupHandle,
    driver: JoinHandle<u32>,
}

impl World {
    fn new(patience: Patience) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (handle, desk) = desk(51).unwrap();
        let driver = std::thread::spawn(move || drive(&desk));
        let text = "[node]\nid = 1\n[[group]]\nsync_id = 51\ntransport = \"memory\"\n";
        let settings = Settings::parse(text, Path::new("ssyncp.toml")).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let (roster, _) =
            Roster::new(Path::new("ssyncp.toml"), settings, vec![handle.clone()], waker, Sandbox::default());
        let sockets =
            Sockets::open(&directory.path().join("control.sock"), Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let answer_deadline = Duration::from_secs(10);
        let server = Server::start(ServerOptions { roster, sockets, answer_deadline, patience }).unwrap();
        let listen = server.listen().unwrap();
        World { directory, server, listen, handle, driver }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// One connection to each of the two addresses, with what was sent.
    fn both(&self, bytes: &[u8]) -> [Client; 2] {
        let unix = UnixStream::connect(self.socket()).unwrap();
        unix.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let tcp = TcpStream::connect(self.listen).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut clients: [Client; 2] = [Box::new(unix), Box::new(tcp)];
        for client in &mut clients {
            client.write_all(bytes).unwrap();
        }
        clients
    }

    fn refused(&self) -> Value {
        client::get(&self.socket(), "/v1/status").unwrap()["refused_requests"].clone()
    }

    fn until_refused(&self, expected: &Value) {
        let start = Instant::now();
        while self.refused() != *expected {
            assert!(start.elapsed() < Duration::from_secs(60), "{} and not {expected}", self.refused());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends everything; how many commands there were that change something.
    fn end(self) -> u32 {
        self.server.stop();
        self.handle.stop();
        self.driver.join().unwrap()
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
type Client = Box<dyn ReadWrite>;

/// Everything until the end; a reset is an end, too.
fn rest(client: &mut Client) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = client.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server did not close in time");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn drive(desk: &GroupDesk) -> u32 {
    let (mut changes, mut listings) = (0, Vec::new());
    while !desk.stopped() {
        while let Some(command) = desk.next() {
            match command {
                Command::Status(answer) => {
                    let _ = answer.send(GroupStatus { sync_id: 51, ..GroupStatus::default() });
                }
                Command::Flows(listing) => listings.push(listing),
                _ => changes += 1,
            }
        }
        listings.retain_mut(|listing| match listing.pages.try_reserve() {
            Ok(room) => {
                let flows = (0..1000).map(flow).collect();
                listing.limit = listing.limit.saturating_sub(1000);
                room.send(Page { flows, last: listing.limit == 0 });
                listing.limit > 0
            }
            Err(_) => !listing.pages.is_closed(),
        });
        poll::wait(&[desk.waker().as_fd()], Some(Duration::from_millis(1))).unwrap();
        desk.waker().drain();
    }
    changes
}

fn flow(number: u32) -> Flow {
    let (source, destination) = (IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), Ipv4Addr::new(192, 0, 2, 10).into());
    let (source_port, destination_port) = (1024, 80);
    Flow::new(FlowKey { source, destination, source_port, destination_port, protocol: 6, zone: Zone::DEFAULT })
}

#[test]
fn a_head_that_does_not_end_or_does_not_begin_is_not_waited_for() {
    let world = World::new(Patience { head: HEAD, ..PATIENT });
    for bytes in [&b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: "[..], b""] {
        for mut client in world.both(bytes) {
            assert_eq!(rest(&mut client), "");
        }
    }
    world.until_refused(&json!({ "head_too_late": 4 }));
    // Who has asked before is only forgotten.
    for mut client in world.both(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") {
        assert!(rest(&mut client).starts_with("HTTP/1.1 200 "));
    }
    for mut client in world.both(b"") {
        assert_eq!(rest(&mut client), "");
    }
    world.until_refused(&json!({ "head_too_late": 6 }));
    assert_eq!(world.end(), 0);
}

#[test]
fn a_connection_on_which_nothing_more_is_asked_is_closed() {
    let world = World::new(Patience { head: HEAD, ..PATIENT });
    for mut client in world.both(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") {
        assert!(rest(&mut client).starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(world.end(), 0);
}

#[test]
fn a_body_that_does_not_end_is_refused_and_nothing_is_done() {
    let world = World::new(Patience { body: SOON, ..PATIENT });
    let head = "POST /v1/role HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 18\r\n\r\n";
    let mut client = UnixStream::connect(world.socket()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(format!("{head}{{\"role\": \"back").as_bytes()).unwrap();
    let mut client: Client = Box::new(client);
    let answer = rest(&mut client);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_late"), "{answer}");
    world.until_refused(&json!({ "body_too_late": 1 }));
    assert_eq!(world.end(), 0);
}

/// Whatever time it has: what is read of it takes memory.
#[test]
fn a_head_of_more_than_sixteen_kilobytes_is_too_large_before_it_ends() {
    let world = World::new(PATIENT);
    let head = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(17_000));
    for mut client in world.both(head.as_bytes()) {
        let answer = rest(&mut client);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(world.end(), 0);
}

/// As docs/operations.md says.
#[test]
fn the_daemon_waits_ten_seconds_for_a_request_and_thirty_for_an_answer_to_be_taken() {
    let seconds = Duration::from_secs;
    let said = Patience { head: seconds(10), body: seconds(10), taking: seconds(30) };
    assert_eq!(Patience::default(), said);
}

/// A place is not held by who asks for megabytes and takes nothing.
#[test]
fn an_answer_that_nobody_takes_is_given_up_and_costs_a_few_pages_meanwhile() {
    let world = World::new(Patience { taking: SOON, ..PATIENT });
    let clients = world.both(b"GET /v1/flows?limit=1000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    world.until_refused(&json!({ "answer_not_taken": 2 }));
    for mut client in clients {
        let answer = rest(&mut client);
        assert!(!answer.contains("\"complete\""), "it was not sent to its end");
        assert!(answer.len() < 100 << 20, "{} bytes", answer.len());
    }
    assert_eq!(world.end(), 0);
}

/// A million flows, to somebody who takes them: no limit is in the way.
#[test]
fn an_answer_that_is_taken_comes_whole_however_long_it_is() {
    let world = World::new(Patience { taking: Duration::from_secs(5), ..PATIENT });
    let mut client: Client = Box::new(TcpStream::connect(world.listen).unwrap());
    client.write_all(b"GET /v1/flows?limit=50000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let answer = rest(&mut client);
    assert!(answer.contains("],\"count\":50000,\"complete\":"), "{} bytes", answer.len());
    assert_eq!(world.end(), 0);
}

#[test]
fn the_control_socket_has_as_many_places_as_the_other_and_not_one_more() {
    let world = World::new(PATIENT);
    let held: Vec<_> = (0..64).map(|_| UnixStream::connect(world.socket()).unwrap()).collect();
    let mut one_more: Client = Box::new(UnixStream::connect(world.socket()).unwrap());
    assert_eq!(rest(&mut one_more), "");
    drop(held);
    // The places are free again as soon as the server has seen the ends.
    let start = Instant::now();
    let refused = loop {
        match client::get(&world.socket(), "/v1/status") {
            Ok(status) => break status["refused_requests"]["too_many_connections"].as_u64().unwrap(),
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    assert!(refused >= 1);
    assert_eq!(world.end(), 0);
}

#[test]
fn a_body_of_one_byte_too_many_is_refused_and_a_value_may_be_longer() {
    let world = World::new(PATIENT);
    let put = |path: &str, length: usize| {
        let head = format!("HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let method = if path.contains("sections") { "PUT" } else { "POST" };
        let mut client: Client = Box::new(UnixStream::connect(world.socket()).unwrap());
        client.write_all(format!("{method} {path} {head}").as_bytes()).unwrap();
        // It may be refused before all of it was sent.
        let _ = client.write_all(&vec![b' '; length]);
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status).into_owned()
    };
    assert_eq!(put("/v1/resync", 65_537), "HTTP/1.1 413");
    assert_eq!(put("/v1/resync", 65_536), "HTTP/1.1 400", "spaces are no JSON, but short enough");
    assert_eq!(put("/v1/sections/0/x", (1 << 20) + 1), "HTTP/1.1 413");
    assert_eq!(world.refused()["body_too_large"], 2);
    assert_eq!(world.end(), 0);
}

/// Every call of the table from which the routes are made, by its method: none that changes something passes.
#[test]
fn no_call_that_changes_something_passes_through_the_tcp_address() {
    let world = World::new(PATIENT);
    let document = http::openapi();
    let mut tried = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|method| *method != "get") {
            let path = path.replace("{table}", "0").replace("{key}", "x");
            let head = format!("{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close", method.to_uppercase());
            let mut client: Client = Box::new(TcpStream::connect(world.listen).unwrap());
            client.write_all(format!("{head}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
            let answer = rest(&mut client);
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("read_only"), "{method} {path}: {answer}");
            tried.push(format!("{method} {path}"));
        }
    }
    tried.sort();
    let expected = [
        "delete /v1/sections/0/x",
        "post /v1/drain",
        "post /v1/flush",
        "post /v1/peer-dead",
        "post /v1/reload",
        "post /v1/resync",
        "post /v1/role",
        "post /v1/switchover",
        "put /v1/sections/0/x",
    ];
    assert_eq!(tried, expected);
    // Methods that nothing takes, and those that could be taken for another one.
    for head in [
        "PATCH /v1/role HTTP/1.1\r\nHost: x",
        "TRACE /v1/role HTTP/1.1\r\nHost: x",
        "post /v1/role HTTP/1.1\r\nHost: x",
        "GET /v1/role HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: POST",
        "GET /v1/sections/0/x HTTP/1.1\r\nHost: x",
    ] {
        let mut client: Client = Box::new(TcpStream::connect(world.listen).unwrap());
        client.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let answer = rest(&mut client);
        assert!(["HTTP/1.1 403 ", "HTTP/1.1 405 "].iter().any(|status| answer.starts_with(status)), "{head}: {answer}");
    }
    assert_eq!(world.end(), 0);
}
