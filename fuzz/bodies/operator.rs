//! What an operator writes: the configuration file, and requests on the control socket.

use super::captures::text;
use ssyncp::daemon::flows::{FlowFilter, LIMIT_MAX};
use ssyncp::daemon::http::request::{
    BadRequest, DrainBody, FlowQuery, FlushBody, PeerDeadBody, ResyncBody, RoleBody, SectionQuery, SwitchoverBody,
    group_query,
};
use ssyncp::daemon::settings::secret::{self, SecretFile};
use ssyncp::daemon::settings::{Settings, duration};
use ssyncp::daemon::who::Who;
use ssyncp::time::Duration;
use ssyncp::wire::{NodeId, SECRETS_MAX};
use std::path::Path;

/// A configuration file. One that is right reads back from what `check --show` prints.
pub fn config(data: &[u8]) {
    secrets(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::parse(text, Path::new("fuzz.toml")) {
        Ok(settings) => {
            let _ = settings.warnings();
            let shown = settings.to_toml();
            let again = Settings::parse(&shown, Path::new("shown.toml")).expect("what is shown can be read");
            assert_eq!(again.to_toml(), shown);
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// The same as a file of secrets, and as a duration: what is refused is refused in words.
fn secrets(data: &[u8]) {
    match secret::parse(&SecretFile::Path("/etc/ssyncp/secret".into()), data) {
        Ok(secrets) => assert!((1..=SECRETS_MAX).contains(&secrets.len())),
        Err(problems) => assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.is_empty())),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(duration(text).map_or_else(|problem| !problem.is_empty(), |_| true));
    }
}

/// The files of README and of the operator's guide, and some with most of what there is: no fuzzer invents the name of a key.
pub fn config_seeds() -> Vec<Vec<u8>> {
    let full = "[node]\nid = 1\nname = \"a\"\n[[group]]\nsync_id = 1\ntransport = \"memory\"\nsource = \"synthetic\"\n\
                priority = 150\nadvert_interval = \"10ms\"\naddresses = [\"192.0.2.10/24 dev eth0\"]\n\
                filter = [\"not dst 192.168.0.0/16\", \"tcp or udp port 53\"]\n\
                [control]\nsocket = \"/tmp/s\"\nlisten = \"127.0.0.1:9114\"\n";
    let classic = "[node]\nid = 1\n[[group]]\nsync_id = 51\nprofile = \"classic\"\ninterfaces = [\"eth1\", \"eth2\"]\n";
    let readme = text("README.md");
    let files = readme.split("<<END\n").skip(1).filter_map(|rest| rest.split("\nEND").next());
    let driven = "[node]\nid = 2\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\nrole = \"keepalived\"\n\
                  keepalived_fifo = \"/run/k.fifo\"\nkeepalived_instance = \"VI_51\"\n";
    let moved = "[node]\nid = 3\n[[group]]\nsync_id = 9\ninterfaces = [\"eth1\"]\npriority = 100\n\
                 addresses = [\"192.0.2.10/24 dev eth0\", \"2001:db8::10/64 dev eth0\"]\nvirtual_mac = true\n\
                 routes = [\"default via 192.0.2.1 dev eth0 metric 50\", \"2001:db8:1::/48 dev eth0 table 7\"]\n\
                 notify_master = [\"/bin/true\", \"x\"]\nnotify_fifo = \"/run/n.fifo\"\nwait = \"nap\"\n\
                 track = [\"eth0\", \"web\", \"ping\", \"proxy\", \"load\"]\n\
                 [[track]]\nname = \"eth0\"\ninterface = \"eth0\"\n\
                 [[track]]\nname = \"web\"\nhttp = \"http://127.0.0.1:8080/healthz\"\ninterval = \"2s\"\nrise = 2\nfall = 3\nweight = -30\n\
                 [[track]]\nname = \"ping\"\nscript = [\"/usr/bin/ping\", \"-c1\", \"192.0.2.1\"]\ntimeout = \"1s\"\n\
                 [[track]]\nname = \"proxy\"\nprocess = \"haproxy\"\n\
                 [[track]]\nname = \"load\"\nfile = \"/run/load\"\n";
    let guide = text("docs/operations.md");
    let files = files.chain(guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()));
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";
    files.chain([full, classic, driven, moved, secret, "5124095h"]).map(|file| file.as_bytes().to_vec()).collect()
}

/// A request: the first line is the path with its query, the rest the body.
pub fn control(data: &[u8]) {
    let (line, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let body = body.get(1..).unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (path, query) = line.split_once('?').unwrap_or((line, ""));
    let refused = match path {
        "/v1/flows" => FlowQuery::parse(query).map(|asked| check_query(&asked)),
        "/v1/role" => RoleBody::parse(body).and_then(|body| body.request()).map(drop),
        "/v1/resync" => ResyncBody::parse(body).map(drop),
        "/v1/drain" => DrainBody::parse(body).map(drop),
        "/v1/peer-dead" => PeerDeadBody::parse(body).map(drop),
        "/v1/switchover" => SwitchoverBody::parse(body).map(|body| {
            let names = [(NodeId(1), "lb1"), (NodeId(2), "lb2")];
            let found = body.to.map(|who: Who| who.number(&names));
            assert!(found.is_none_or(|found| found.map_or_else(|why| !why.is_empty(), |_| true)));
        }),
        "/v1/sections" => SectionQuery::parse(query).map(|asked| {
            let group = asked.group.map(|group| format!("&group={group}")).unwrap_or_default();
            assert_eq!(SectionQuery::parse(&format!("expires_s={}{group}", asked.expires_s)), Ok(asked));
        }),
        "/v1/flush" => FlushBody::parse(body).and_then(|body| body.timeout()).map(|timeout| {
            assert!(timeout <= Duration::from_secs(50), "a flush that waits for {timeout:?}");
        }),
        _ => group_query(query).map(|group| {
            let again = group.map(|group| format!("group={group}")).unwrap_or_default();
            assert_eq!(group_query(&again), Ok(group));
        }),
    };
    if let Err(BadRequest { reason, sentence }) = refused {
        let reasons = ["unknown_filter", "bad_filter", "bad_json", "unknown_role", "bad_timeout"];
        assert!(reasons.contains(&reason) && !sentence.is_empty(), "{reason}: {sentence}");
    }
}

/// What is asked, asked again in the shortest words.
fn check_query(asked: &FlowQuery) {
    assert!(asked.limit <= LIMIT_MAX);
    let FlowFilter { protocol, source, destination, port, source_port, destination_port, zone } = asked.filter;
    let mut query = format!("limit={}", asked.limit);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query += &format!("&{name}={value}");
        }
    };
    add("group", asked.group.map(|group| group.to_string()));
    add("protocol", protocol.map(|protocol| protocol.to_string()));
    add("source", source.map(|address| address.to_string()));
    add("destination", destination.map(|address| address.to_string()));
    add("port", port.map(|port| port.to_string()));
    add("source_port", source_port.map(|port| port.to_string()));
    add("destination_port", destination_port.map(|port| port.to_string()));
    add("zone", zone.map(|zone| zone.to_string()));
    assert_eq!(FlowQuery::parse(&query).as_ref(), Ok(asked), "{query}");
}

/// The calls of README, and what it does not show.
pub fn control_seeds() -> Vec<Vec<u8>> {
    let by_hand = [
        "/v1/flows?group=51&protocol=sctp&source=10.0.0.1&destination=2001%3Adb8%3A%3a1&port=80&limit=268435456",
        "/v1/flows?source_port=1024&destination_port=80&zone=7",
        "/v1/peers?group=51",
        "/v1/role\n{\"role\": \"none\"}",
        "/v1/resync\n",
        "/v1/sections?group=51&expires_s=3600",
        "/v1/drain\n{\"group\": 51, \"off\": true}",
        "/v1/peer-dead\n{\"node\": 2}",
        "/v1/switchover\n{\"group\": 51, \"to\": \"lb2\"}",
        "/v1/switchover\n{\"to\": 2}",
        "/v1/flush\n{\"group\": 51, \"timeout_ms\": 50001}",
    ];
    let readme = text("README.md");
    let documented = readme.lines().filter(|line| line.starts_with("ctl ")).filter_map(|line| {
        let path = line.split("http://localhost").nth(1)?.split([' ', '\'']).next()?;
        let body = line.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        Some(format!("{path}\n{body}"))
    });
    by_hand.into_iter().map(str::to_owned).chain(documented).map(String::into_bytes).collect()
}
