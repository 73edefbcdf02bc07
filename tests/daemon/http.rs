//! The control interface over a real socket, with drivers that the test plays itself.

use serde_json::{Value, json};
use ssyncp::daemon::client::{self, ClientError};
use ssyncp::daemon::control::{Command, GroupDesk, GroupHandle, Page, desk};
use ssyncp::daemon::http::{Patience, Server, ServerError, ServerOptions, Sockets};
use ssyncp::daemon::measures::Measures;
use ssyncp::daemon::roster::Roster;
use ssyncp::daemon::sandbox::Sandbox;
use ssyncp::daemon::sections::Refused;
use ssyncp::daemon::settings::Settings;
use ssyncp::daemon::status::GroupStatus;
use ssyncp::engine::{Role, RoleRequest};
use ssyncp::flow::{Flow, FlowKey, Zone};
use ssyncp::sys::poll::Waker;
use ssyncp::sys::{clock, poll};
use ssyncp::wire::NodeId;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Flows that the played driver has: sources 10.0.0.0 upwards, in pages of 1000.
const FLOWS: u32 = 100_000;

struct World {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    server: Option<Server>,
    roster: Option<Arc<Roster>>,
    handles: Vec<GroupHandle>,
    drivers: Vec<JoinHandle<Vec<RoleRequest>>>,
    /// The desks of groups whose driver is dead but holds on to them.
    _dead: Vec<GroupDesk>,
}

impl World {
    fn new(alive: &[u8], dead: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/control.sock");
        let mut world = World {
            socket: socket.clone(),
            _directory: directory,
            server: None,
            roster: None,
            handles: vec![],
            drivers: vec![],
            _dead: vec![],
        };
        for sync_id in alive {
            let (handle, desk) = desk(*sync_id).unwrap();
            world.handles.push(handle);
            world.drivers.push(std::thread::spawn(move || drive(&desk)));
        }
        for sync_id in dead {
            let (handle, desk) = desk(*sync_id).unwrap();
            world.handles.push(handle);
            world._dead.push(desk);
        }
        world.roster = Some(roster(world.handles.clone()));
        world.server = Some(Server::start(world.options()).unwrap());
        world
    }

    fn options(&self) -> ServerOptions {
        ServerOptions {
            roster: Arc::clone(self.roster.as_ref().unwrap()),
            sockets: Sockets::open(&self.socket, Some("127.0.0.1:0".parse().unwrap())).unwrap(),
            answer_deadline: Duration::from_secs(1),
            patience: Patience::default(),
        }
    }

    fn get(&self, path: &str) -> Value {
        client::get(&self.socket, path).unwrap()
    }

    /// Status and sentence of a request that is refused.
    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let method = method.parse().unwrap();
        match client::send(&self.socket, method, path, body.to_owned()) {
            Err(ClientError::Refused { status, sentence, .. }) => (status, sentence),
            other => panic!("a refusal was expected and not {other:?}"),
        }
    }

    /// Ends everything; what the drivers were told about roles.
    fn end(mut self) -> Vec<Vec<RoleRequest>> {
        self.server.take().unwrap().stop();
        assert!(!self.socket.exists(), "the socket is removed");
        self.handles.iter().for_each(GroupHandle::stop);
        self.drivers.drain(..).map(|driver| driver.join().unwrap()).collect()
    }
}

/// A node called lb-a with these groups, whose main thread does not exist.
fn roster(groups: Vec<GroupHandle>) -> Arc<Roster> {
    let text = "[node]\nid = 1\nname = \"lb-a\"\n[[group]]\nsync_id = 51\ntransport = \"memory\"\n";
    let settings = Settings::parse(text, Path::new("ssyncp.toml")).unwrap();
    Roster::new(Path::new("ssyncp.toml"), settings, groups, Arc::new(Waker::new().unwrap()), Sandbox::default()).0
}

/// A driver that is backup and in sync, refuses to become master, and has [`FLOWS`] flows.
fn drive(desk: &GroupDesk) -> Vec<RoleRequest> {
    let mut requests = Vec::new();
    let mut listings = Vec::new();
    while !desk.stopped() {
        desk.turned(clock::now());
        while let Some(command) = desk.next() {
            match command {
                Command::Status(answer) => answer.send(status(desk.sync_id)).unwrap(),
                Command::Measures(answer) => answer.send(Measures::unmeasured(status(desk.sync_id))).unwrap(),
                Command::Resync { answer, .. } => answer.send(Err("not now".into())).unwrap(),
                Command::Section(order) => order.refuse(Refused::None("not here".into())),
                Command::Flush(order) => order.answer.send(Err("not master".into())).unwrap(),
                Command::Reconfigure { answer, .. } => answer.send(Ok(())).unwrap(),
                // Of group 52 it is master; of the others it is a backup, which may ask.
                Command::Switchover { to, asks, answer } => {
                    let to = to.map_or(Ok(NodeId(2)), |to| to.number(&[(NodeId(2), "lb2"), (NodeId(5), "lb5")]));
                    let is_master = desk.sync_id == 52;
                    let heir = to.map(|to| if is_master { Some(to) } else { asks.then_some(NodeId(1)) });
                    answer.send(heir).unwrap();
                }
                Command::Drain { holds: true, answer, .. } => {
                    answer.send(Ok((Role::Master, vec!["track".into()]))).unwrap()
                }
                Command::Drain { answer, .. } => answer.send(Err("no".into())).unwrap(),
                Command::PeerDead { answer, .. } if desk.sync_id == 52 => answer.send(Ok(Role::Backup)).unwrap(),
                Command::PeerDead { answer, .. } => answer.send(Err("who?".into())).unwrap(),
                Command::Role(RoleRequest::Master, answer) => answer.send(Err("not proven".into())).unwrap(),
                Command::Role(request, answer) => {
                    requests.push(request);
                    answer.send(Ok(Role::Backup)).unwrap();
                }
                Command::Flows(listing) => listings.push(listing),
            }
        }
        listings.retain_mut(|listing| {
            let Ok(room) = listing.pages.try_reserve() else { return !listing.pages.is_closed() };
            let end = (listing.slot + 1000).min(FLOWS);
            let page = (listing.slot..end).map(flow);
            let flows: Vec<Flow> = page.filter(|flow| listing.filter.matches(&flow.key)).take(listing.limit).collect();
            listing.slot = end;
            listing.limit -= flows.len();
            let last = listing.limit == 0 || end == FLOWS;
            room.send(Page { flows, last });
            !last
        });
        poll::wait(&[desk.waker().as_fd()], Some(Duration::from_millis(1))).unwrap();
        desk.waker().drain();
    }
    requests
}

fn status(sync_id: u8) -> GroupStatus {
    let sync = if sync_id == 52 { "syncing" } else { "in_sync" }.to_owned();
    GroupStatus { sync_id, role: "backup".into(), sync, ..GroupStatus::default() }
}

fn flow(number: u32) -> Flow {
    Flow::new(FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    })
}

#[test]
fn status_names_the_node_and_its_groups() {
    let world = World::new(&[51], &[]);
    let status = world.get("/v1/status");
    assert_eq!(status["schema"], "ssyncp.status/1");
    assert_eq!(status["node"], json!({ "id": 1, "name": "lb-a", "version": env!("CARGO_PKG_VERSION") }));
    assert_eq!(status["groups"][0]["sync_id"], 51);
    assert_eq!(status["groups"][0]["digest"], Value::Null);
    world.end();
}

#[test]
fn the_socket_is_for_its_owner_and_group_and_a_second_daemon_is_refused() {
    let world = World::new(&[51], &[]);
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(Sockets::open(&world.socket, None), Err(ServerError::AnotherRuns(_))));
    world.get("/v1/status");
    world.end();
}

#[test]
fn a_socket_that_nobody_answers_on_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let answer_deadline = Duration::from_millis(100);
    let sockets = Sockets::open(&socket, None).unwrap();
    let options = ServerOptions { roster: roster(vec![]), sockets, answer_deadline, patience: Patience::default() };
    let server = Server::start(options).unwrap();
    assert_eq!(client::get(&socket, "/v1/status").unwrap()["node"]["name"], "lb-a");
    server.stop();
}

#[test]
fn a_hundred_thousand_flows_are_answered_and_a_limit_says_that_it_cut() {
    let world = World::new(&[51], &[]);
    let all = world.get("/v1/flows?limit=200000");
    assert_eq!((&all["count"], &all["complete"]), (&json!(100_000), &json!(true)));
    let rows = all["flows"].as_array().unwrap();
    assert_eq!(rows.len(), 100_000);
    assert_eq!(rows[99_999]["source"], "10.1.134.159");
    let exactly = world.get("/v1/flows?limit=100000");
    assert_eq!((&exactly["count"], &exactly["complete"]), (&json!(100_000), &json!(true)));
    let first = world.get("/v1/flows");
    assert_eq!(
        (&first["schema"], &first["count"], &first["complete"]),
        (&json!("ssyncp.flows/1"), &json!(1000), &json!(false))
    );
    world.end();
}

#[test]
fn flows_are_filtered_and_every_group_is_asked() {
    let world = World::new(&[51, 52], &[]);
    let found = world.get("/v1/flows?source=10.0.0.7&protocol=tcp");
    let groups: Vec<&Value> = found["flows"].as_array().unwrap().iter().map(|row| &row["sync_id"]).collect();
    assert_eq!(groups, [&json!(51), &json!(52)]);
    assert_eq!(found["complete"], true);
    assert_eq!(world.get("/v1/flows?source=10.0.0.7&group=52")["count"], 1);
    assert_eq!(world.get("/v1/flows?protocol=udp")["count"], 0);
    // All that names one flow: it is looked up.
    let row = &world.get("/v1/flows?source=10.0.0.7&group=52")["flows"][0];
    let number = |name: &str| row[name].as_u64().unwrap();
    let (from, to) = (number("source_port"), number("destination_port"));
    let destination = row["destination"].as_str().unwrap();
    let of = |to: u64, zone: u16| {
        let ports = format!("source_port={from}&destination_port={to}");
        let answer =
            world.get(&format!("/v1/flows?protocol=tcp&source=10.0.0.7&destination={destination}&{ports}&zone={zone}"));
        (answer["count"].clone(), answer["complete"].clone())
    };
    assert_eq!(of(to, 0), (json!(2), json!(true)));
    assert_eq!((of(to, 1), of(to + 1, 0)), ((json!(0), json!(true)), (json!(0), json!(true))));
    world.end();
}

#[test]
fn a_listing_that_a_driver_cuts_off_says_so() {
    let world = World::new(&[], &[51]);
    let cut = world.get("/v1/flows");
    assert_eq!((&cut["count"], &cut["complete"]), (&json!(0), &json!(false)));
    world.end();
}

#[test]
fn roles_are_passed_on_and_what_is_refused_is_said() {
    let world = World::new(&[51, 52], &[]);
    let answer = client::post(&world.socket, "/v1/role", &json!({ "role": "backup", "group": 52 })).unwrap();
    assert_eq!(
        answer,
        json!({ "schema": "ssyncp.role/1", "groups": [{ "sync_id": 52, "requested": "backup", "role": "backup" }] })
    );
    client::post(&world.socket, "/v1/role", &json!({ "role": "none" })).unwrap();
    let master = world.refused("POST", "/v1/role", r#"{"role": "master"}"#);
    assert_eq!(master, (409, "group 51: not proven".into()));
    let told = world.end();
    assert_eq!(told, [vec![RoleRequest::None], vec![RoleRequest::Backup, RoleRequest::None]]);
}

/// Without a named group the masters give the role, and only who is master of nothing asks for it.
#[test]
fn a_switch_is_for_the_masters_and_else_for_all() {
    let world = World::new(&[51, 52, 53], &[]);
    let switch = |world: &World, body: Value| {
        let answer = client::post(&world.socket, "/v1/switchover", &body).unwrap();
        assert_eq!(answer["schema"], "ssyncp.switchover/1");
        let rows = answer["groups"].as_array().unwrap().iter();
        rows.map(|row| (row["sync_id"].as_u64().unwrap(), row["heir"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(switch(&world, json!({})), [(52, 2)]);
    assert_eq!(switch(&world, json!({ "to": 3 })), [(52, 3)]);
    assert_eq!(switch(&world, json!({ "to": "lb5" })), [(52, 5)]);
    assert_eq!(switch(&world, json!({ "group": 51 })), [(51, 1)]);
    let drained = client::post(&world.socket, "/v1/drain", &json!({ "group": 53 })).unwrap();
    assert_eq!(drained["groups"], json!([{ "sync_id": 53, "role": "master", "draining": ["track"] }]));
    assert_eq!(world.refused("POST", "/v1/drain", r#"{"off": true}"#), (409, "group 51: no".into()));
    let dead = client::post(&world.socket, "/v1/peer-dead", &json!({ "node": 7 })).unwrap();
    assert_eq!(dead["groups"], json!([{ "sync_id": 52, "role": "backup" }]));
    assert_eq!(world.refused("POST", "/v1/peer-dead", r#"{"node": 7, "group": 51}"#), (409, "group 51: who?".into()));
    world.end();
    let backups = World::new(&[51, 53], &[]);
    assert_eq!(switch(&backups, json!({})), [(51, 1), (53, 1)]);
    backups.end();
}

#[test]
fn bad_requests_are_refused_by_name_and_counted() {
    let world = World::new(&[51], &[]);
    let cases = [
        ("POST", "/v1/role", "{", 400),
        ("POST", "/v1/role", r#"{"role": "king"}"#, 400),
        ("POST", "/v1/role", r#"{"role": "none", "gruop": 51}"#, 400),
        ("POST", "/v1/role", r#"{"role": "none", "group": 9}"#, 404),
        ("GET", "/v1/flows?port=http", "", 400),
        ("GET", "/v1/flows?colour=red", "", 400),
        ("GET", "/v1/nothing", "", 404),
        ("DELETE", "/v1/status", "", 405),
    ];
    for (method, path, body, status) in cases {
        assert_eq!(world.refused(method, path, body).0, status, "{method} {path} {body}");
    }
    let large = format!("{{\"role\": \"{}\"}}", "x".repeat(100_000));
    assert_eq!(world.refused("POST", "/v1/role", &large).0, 413);
    let (_, sentence) = world.refused("POST", "/v1/role", r#"{"role": "king"}"#);
    assert_eq!(sentence, "\"king\" is no role to be given; send master, backup or none");
    let counted = world.get("/v1/status")["refused_requests"].clone();
    let expected = json!({
        "bad_json": 2, "unknown_role": 2, "unknown_group": 1, "bad_filter": 1, "unknown_filter": 1, "unknown_path": 1,
        "wrong_method": 1, "body_too_large": 1,
    });
    assert_eq!(counted, expected);
    world.end();
}

#[test]
fn a_driver_that_does_not_answer_costs_a_503_and_not_a_hang() {
    let world = World::new(&[51], &[52]);
    let (status, sentence) = world.refused("GET", "/v1/status", "");
    assert_eq!((status, sentence.as_str()), (503, "group 52: the group does not answer"));
    assert_eq!(world.refused("GET", "/readyz", "").0, 503);
    // The one that lives can still be told.
    client::post(&world.socket, "/v1/role", &json!({ "role": "backup", "group": 51 })).unwrap();
    world.end();
}

#[test]
fn ready_is_said_only_when_every_group_is() {
    let world = World::new(&[51], &[]);
    assert_eq!(world.get("/readyz")["ok"], true);
    assert_eq!(world.get("/healthz")["ok"], true);
    world.end();
    let world = World::new(&[51, 52], &[]);
    assert_eq!(world.refused("GET", "/readyz", ""), (503, "group 52: backup, syncing".into()));
    world.end();
}

#[test]
fn the_tcp_address_reads_and_changes_nothing() {
    let world = World::new(&[51], &[]);
    let address = world.server.as_ref().unwrap().listen().unwrap();
    let exchange = |request: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let status = exchange("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(status.starts_with("HTTP/1.1 200 ") && status.contains("ssyncp.status/1"), "{status}");
    for path in ["role", "resync", "flush", "reload", "status", "nothing"] {
        let request = format!("POST /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(&request);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("read_only"), "{path}: {answer}");
    }
    let metrics = exchange("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains("ssyncp_requests_refused_total{reason=\"read_only\"} 6"), "{metrics}");
    assert_eq!(world.end(), [vec![]]);
}

#[test]
fn a_connection_too_many_is_turned_away_and_the_others_and_the_socket_go_on() {
    let world = World::new(&[51], &[]);
    let address = world.server.as_ref().unwrap().listen().unwrap();
    let mut held: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let mut answer = String::new();
    // Whoever comes now reads the end at once (or is reset); nothing is asked, so nothing can be answered.
    let _ = std::net::TcpStream::connect(address).unwrap().read_to_string(&mut answer);
    assert_eq!(answer, "");
    assert_eq!(world.get("/v1/status")["refused_requests"], json!({ "too_many_connections": 1 }));
    held[0].write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    held[0].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    world.end();
}

#[test]
fn a_head_that_does_not_end_is_too_large_and_not_waited_for() {
    let world = World::new(&[51], &[]);
    let mut stream = std::os::unix::net::UnixStream::connect(&world.socket).unwrap();
    let head = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(20_000));
    // It may be refused before all of it was sent.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    world.end();
}

#[test]
fn what_a_group_refuses_is_a_conflict_with_its_reason() {
    let world = World::new(&[51], &[]);
    assert_eq!(world.refused("POST", "/v1/resync", "{}"), (409, "group 51: not now".into()));
    assert_eq!(world.refused("POST", "/v1/flush", ""), (409, "group 51: not master".into()));
    assert_eq!(
        world.refused("POST", "/v1/flush", r#"{"timeout_ms": 50001}"#),
        (400, "timeout_ms: at most 50000".into())
    );
    assert_eq!(world.refused("POST", "/v1/resync", r#"{"group": 9}"#), (404, "there is no group 9".into()));
    assert_eq!(world.refused("POST", "/v1/reload", "").0, 503, "there is no main thread here");
    world.end();
}

#[test]
fn subscribers_are_told_the_state_first_and_one_too_many_is_refused() {
    let world = World::new(&[51, 52], &[]);
    let mut first = Vec::new();
    client::follow(&world.socket, "/v1/events", |data| {
        let Some(data) = data else { return true };
        first.push(serde_json::from_str::<Value>(data).unwrap());
        first.len() < 2
    })
    .unwrap();
    let seen: Vec<_> = first.iter().map(|event| (&event["event"], &event["group"], &event["state"]["sync"])).collect();
    assert_eq!(
        seen,
        [(&json!("State"), &json!(51), &json!("in_sync")), (&json!("State"), &json!(52), &json!("syncing"))]
    );
    let address = world.server.as_ref().unwrap().listen().unwrap();
    let follow = || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8_lossy(&head).into_owned(), stream)
    };
    let held: Vec<_> = (0..16).map(|_| follow()).collect();
    assert!(held.iter().all(|(head, _)| head == "HTTP/1.1 200"));
    assert_eq!(follow().0, "HTTP/1.1 503");
    // Those of the socket have places of their own.
    client::follow(&world.socket, "/v1/events?group=52", |_| false).unwrap();
    world.end();
}

#[test]
fn nobody_on_the_socket_is_an_error_of_the_system() {
    let error = client::get(&PathBuf::from("/nonexistent/control.sock"), "/v1/status").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
