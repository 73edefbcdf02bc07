//! `[[track]]`: what a node's fitness for the role depends on beside its sync link, and what a failure of it costs.
//!
//! The words are those of keepalived.conf(5): weight, interval, timeout, rise, fall.

use super::read::{Section, shown};
use super::{Group, Profile, RoleKind, duration_words, value};
use crate::time::Duration;
use hyper::Uri;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};

/// Most tracks in one file.
pub const TRACKS_MAX: usize = 64;
/// Longest name of a track in bytes.
const TRACK_NAME_MAX: usize = 32;
/// Words of a command, the program included.
const COMMAND_WORDS_MAX: usize = 64;
/// Largest weight, and the smallest with a minus: between the least priority and the greatest that is not the owner's.
const WEIGHT_MAX: i16 = 253;
/// Default of `interval`.
const TRACK_INTERVAL: Duration = Duration::from_secs(1);
/// Least `interval` and `timeout`.
const TRACK_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Greatest `interval` and `timeout`.
const TRACK_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Greatest `rise` and `fall`.
const STREAK_MAX: u32 = 1000;

const KEYS: &[&str] =
    &["name", "interface", "script", "process", "http", "file", "weight", "interval", "timeout", "rise", "fall"];
const KINDS: [&str; 5] = ["interface", "script", "process", "http", "file"];

/// `[[track]]`: something that is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Track {
    /// Its name, by which groups heed it.
    pub name: String,
    /// What is looked at.
    #[serde(flatten)]
    pub check: Check,
    /// Negative: subtracted from the priority while it is down. Positive: added while it is up. Zero: while it is down,
    /// this node is to be without the role. Of a file: its number times this is added to the priority.
    pub weight: i16,
    /// How often, and how patiently; the kernel tells of interfaces.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub pace: Option<CheckPace>,
}

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// An interface; up while it is running.
    Interface(String),
    /// A program with its arguments; up if it ends with status 0.
    Script(Vec<String>),
    /// A program by its name; up while a process of that name lives.
    Process(String),
    /// An address on the web; up if it answers with 2xx or 3xx.
    Http(HttpTarget),
    /// A file, by its absolute path, with a number in it.
    File(String),
}

impl Check {
    /// The key that it stands under.
    pub fn kind(&self) -> &'static str {
        match self {
            Check::Interface(_) => "interface",
            Check::Script(_) => "script",
            Check::Process(_) => "process",
            Check::Http(_) => "http",
            Check::File(_) => "file",
        }
    }
}

/// How often something is looked at, and how often it must be so before it counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CheckPace {
    /// Time from the beginning of one look to the next.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// Time that one look may take, where it can take any.
    #[serde(serialize_with = "limit_words", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Duration>,
    /// Good looks in a row until it is up again; a number has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Bad looks in a row until it is down; a number has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
}

/// Where an HTTP check asks, as `http://127.0.0.1:8080/healthz`. An address and no name: a resolver may take its time, and
/// may be what is broken.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(with = "String")]
pub struct HttpTarget {
    /// As the operator wrote it.
    pub url: String,
    /// Where the server is.
    pub address: SocketAddr,
    /// What is asked for: path and query.
    pub path: String,
}

impl HttpTarget {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{url}\" {what}; write \"http://127.0.0.1:8080/healthz\"");
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("asks for TLS, which checks do not speak (a script can)")),
            _ => return Err(wrong("is no URL of http")),
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let address: IpAddr = host.parse().map_err(|_| wrong("has a name where an address must stand"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("has a user, which checks do not send (a script can)"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(HttpTarget { url: url.to_owned(), address: (address, uri.port_u16().unwrap_or(80)).into(), path })
    }
}

impl Serialize for HttpTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.url)
    }
}

fn limit_words<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&limit.map(value::duration_words).unwrap_or_default())
}

/// Reads every `[[track]]`. One that has a problem is among them all the same, so that its name is known.
pub(super) fn tracks(root: &Section<'_, '_>) -> Vec<Track> {
    let mut tracks: Vec<Track> = Vec::new();
    for section in root.sections("track", TRACKS_MAX, KEYS) {
        let track = track(&section);
        if tracks.iter().any(|other| other.name == track.name) && !track.name.is_empty() {
            section.wrong("name", format!("\"{}\" is taken by a track above; each has its own", track.name));
        }
        tracks.push(track);
    }
    tracks
}

fn track(section: &Section<'_, '_>) -> Track {
    if section.get("name").is_none() {
        section.wrong("name", "is missing; write name = \"uplink\"");
    }
    let name = section.read("name", String::new(), |found| match found.as_str() {
        Some(text) => value::plain_name(text, TRACK_NAME_MAX),
        None => Err(format!("{} is no text; write \"uplink\"", shown(found))),
    });
    let check = check(section);
    // keepalived's default of a number, too.
    let usual = i16::from(matches!(check, Check::File(_)));
    let weight = section.number("weight", usual, i128::from(-WEIGHT_MAX)..=i128::from(WEIGHT_MAX));
    Track { name, pace: pace(section, &check), check, weight }
}

fn check(section: &Section<'_, '_>) -> Check {
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| section.get(kind).is_some()).collect();
    let text = |key, example: &str, read: fn(&str) -> Result<String, String>| {
        section.read(key, String::new(), |found| match found.as_str() {
            Some(text) => read(text),
            None => Err(format!("{} is no text; write {example}", shown(found))),
        })
    };
    let kind = match given[..] {
        [] => {
            section
                .wrong("name", "nothing is tracked; write one of interface, script, process, http and file below it");
            ""
        }
        [kind] => kind,
        [first, second, ..] => {
            let named = given.join(" and ");
            section.wrong(
                second,
                format!("a track looks at one thing, and {named} are given; write a [[track]] for each"),
            );
            first
        }
    };
    match kind {
        "interface" => {
            Check::Interface(text("interface", "\"eth0\"", |name| value::interface(name).map(|()| name.to_owned())))
        }
        "process" => Check::Process(text("process", "\"nginx\"", process_name)),
        "http" => {
            let nowhere = HttpTarget { url: String::new(), address: ([0, 0, 0, 0], 0).into(), path: String::new() };
            Check::Http(section.read("http", nowhere, |found| match found.as_str() {
                Some(url) => HttpTarget::parse(url),
                None => Err(format!("{} is no text; write \"http://127.0.0.1:8080/healthz\"", shown(found))),
            }))
        }
        "file" => Check::File(text("file", "\"/run/ssyncp/penalty\"", path)),
        "script" => Check::Script(command(section, "script")),
        _ => Check::Script(Vec::new()),
    }
}

fn path(path: &str) -> Result<String, String> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(path.to_owned()),
        false => Err(format!("{path:?} is no absolute path; write \"/run/ssyncp/penalty\"")),
    }
}

fn process_name(name: &str) -> Result<String, String> {
    match name {
        "" => Err("is empty; write \"nginx\"".into()),
        name if name.contains('/') => {
            Err(format!("\"{name}\" is a path; write the program's name alone, as \"nginx\""))
        }
        name => Ok(name.to_owned()),
    }
}

/// Reads a program with its arguments: an absolute path comes first, and no shell looks at it.
pub(super) fn command(section: &Section<'_, '_>, key: &str) -> Vec<String> {
    let example = "\"/etc/ssyncp/check\", \"argument\"";
    let words = section.list(key, COMMAND_WORDS_MAX, example, |word| match word.contains('\0') {
        true => Err("a word has no zero byte".into()),
        false => Ok(word.to_owned()),
    });
    let whole =
        section.get(key).is_some_and(|found| found.get_ref().as_array().is_some_and(|a| a.len() == words.len()));
    match words.first() {
        _ if !whole => {}
        None => section.wrong(key, format!("names no program; write [{example}]")),
        Some(program) if !program.starts_with('/') => {
            section.wrong(key, format!("\"{program}\" is no absolute path; write [{example}]"));
        }
        Some(_) => {}
    }
    words
}

fn pace(section: &Section<'_, '_>, check: &Check) -> Option<CheckPace> {
    let refuse = |key: &str, why: &str| {
        if section.get(key).is_some() {
            section.wrong(key, format!("{why}; remove it"));
        }
    };
    if let Check::Interface(_) = check {
        for key in ["interval", "timeout", "rise", "fall"] {
            refuse(key, "the kernel tells of an interface at once, nobody asks");
        }
        return None;
    }
    let timed = !matches!(check, Check::Process(_) | Check::File(_));
    match check {
        Check::Process(_) => refuse("timeout", "looking for a process takes no time"),
        Check::File(_) => {
            refuse("timeout", "reading a number takes no time");
            ["rise", "fall"].into_iter().for_each(|key| refuse(key, "each number counts at once"));
        }
        _ => {}
    }
    let interval = duration(section, "interval", TRACK_INTERVAL);
    let streak = |key| section.number(key, 1, 1..=i128::from(STREAK_MAX));
    let (rise, fall) = match check {
        Check::File(_) => (None, None),
        _ => (Some(streak("rise")), Some(streak("fall"))),
    };
    Some(CheckPace { interval, timeout: timed.then(|| duration(section, "timeout", interval)), rise, fall })
}

fn duration(section: &Section<'_, '_>, key: &str, default: Duration) -> Duration {
    let duration = section.duration(key, default);
    if !(TRACK_INTERVAL_MIN..=TRACK_INTERVAL_MAX).contains(&duration) {
        section.wrong(key, format!("{} is not from 10ms to 1h; write \"1s\"", value::duration_words(duration)));
    }
    duration
}

/// What a group heeds: names of tracks.
pub(super) fn heeded(section: &Section<'_, '_>) -> Vec<String> {
    section.list("track", TRACKS_MAX, "\"uplink\"", |name| Ok(name.to_owned()))
}

/// Names that are no track's, or stand there twice; and groups that nobody elects.
pub(super) fn problems(section: &Section<'_, '_>, group: &Group, tracks: &[Track]) {
    let mut known: Vec<String> = Vec::new();
    for track in tracks.iter().filter(|track| !track.name.is_empty()) {
        let name = format!("\"{}\"", track.name);
        if !known.contains(&name) {
            known.push(name);
        }
    }
    for (number, name) in group.track.iter().enumerate() {
        if !tracks.iter().any(|track| track.name == *name) {
            let cure = match known[..] {
                [] => format!("write a [[track]] with name = \"{name}\""),
                _ => format!("known are {}", known.join(", ")),
            };
            section.wrong("track", format!("\"{name}\" is no [[track]]; {cure}"));
        }
        if group.track[..number].contains(name) {
            section.wrong("track", format!("\"{name}\" stands there twice; name each track once"));
        }
    }
    // The classic profile says itself that it has none.
    if !group.track.is_empty() && group.role != RoleKind::Vrrp && group.profile != Profile::Classic {
        section.wrong("track", "only an election heeds tracks; remove it, or write role = \"vrrp\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::{Problems, Settings};
    use std::path::Path;

    fn parse(text: &str) -> Result<Settings, Problems> {
        Settings::parse(text, Path::new("ssyncp.toml"))
    }

    const GROUP: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";

    const EACH: &str = r#"
track = ["uplink", "proxy", "nginx", "web", "penalty"]
[[track]]
name = "uplink"
interface = "eth0"
weight = -50
[[track]]
name = "proxy"
script = ["/usr/bin/check", "--now"]
weight = 20
interval = "2s"
timeout = "500ms"
rise = 2
fall = 3
[[track]]
name = "nginx"
process = "nginx"
[[track]]
name = "web"
http = "http://[::1]:8080/healthz?deep=1"
[[track]]
name = "penalty"
file = "/run/ssyncp/penalty"
interval = "100ms"
"#;

    #[test]
    fn a_track_of_each_kind_is_read_and_shown_as_it_reads_back() {
        let settings = parse(&format!("{GROUP}{EACH}")).unwrap();
        assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
        let [uplink, proxy, nginx, web, penalty] = &settings.tracks[..] else { panic!("{settings:?}") };
        assert_eq!((&uplink.check, uplink.weight, &uplink.pace), (&Check::Interface("eth0".into()), -50, &None));
        assert_eq!(proxy.check, Check::Script(vec!["/usr/bin/check".into(), "--now".into()]));
        let (interval, timeout) = (Duration::from_secs(2), Some(Duration::from_millis(500)));
        let pace = CheckPace { interval, timeout, rise: Some(2), fall: Some(3) };
        assert_eq!((proxy.weight, &proxy.pace), (20, &Some(pace)));
        let pace = CheckPace { interval: Duration::from_secs(1), timeout: None, rise: Some(1), fall: Some(1) };
        assert_eq!((nginx.weight, &nginx.pace), (0, &Some(pace)));
        let Check::Http(target) = &web.check else { panic!("{web:?}") };
        assert_eq!((target.address.to_string(), target.path.as_str()), ("[::1]:8080".into(), "/healthz?deep=1"));
        assert_eq!(web.pace.as_ref().unwrap().timeout, Some(Duration::from_secs(1)));
        let pace = CheckPace { interval: Duration::from_millis(100), timeout: None, rise: None, fall: None };
        assert_eq!((&penalty.check, penalty.weight), (&Check::File("/run/ssyncp/penalty".into()), 1));
        assert_eq!(penalty.pace, Some(pace));
    }

    #[test]
    fn every_mistake_of_a_track_is_told_at_once_with_its_cure() {
        let text = r#"[node]
id = 1
[[group]]
sync_id = 51
interfaces = ["eth1"]
track = ["up", "a", "a", 7]
[[group]]
sync_id = 52
interfaces = ["eth1"]
role = "manual"
track = ["a"]
[[track]]
name = "a"
interface = "eth0"
process = "nginx"
weight = 254
[[track]]
name = "a"
interface = "eth0"
interval = "1s"
[[track]]
interface = "an-interface-too-long"
[[track]]
name = "with a blank"
script = ["check"]
[[track]]
name = "none"
timeout = "2h"
[[track]]
name = "shell"
script = "check now"
rise = 0
[[track]]
name = "path"
process = "/usr/sbin/nginx"
timeout = "1s"
[[track]]
name = "tls"
http = "https://127.0.0.1/"
colour = "red"
[[track]]
name = "resolver"
http = "http://localhost/"
[[track]]
name = "number"
file = "penalty"
timeout = "1s"
rise = 2
"#;
        insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
        ssyncp.toml:6: track: 7 is no text; write ["uplink"]
        ssyncp.toml:6: track: "up" is no [[track]]; known are "a", "none", "shell", "path", "tls", "resolver", "number"
        ssyncp.toml:6: track: "a" stands there twice; name each track once
        ssyncp.toml:11: track: only an election heeds tracks; remove it, or write role = "vrrp"
        ssyncp.toml:15: process: a track looks at one thing, and interface and process are given; write a [[track]] for each
        ssyncp.toml:16: weight: 254 is not from -253 to 253
        ssyncp.toml:18: name: "a" is taken by a track above; each has its own
        ssyncp.toml:20: interval: the kernel tells of an interface at once, nobody asks; remove it
        ssyncp.toml:21: name: is missing; write name = "uplink"
        ssyncp.toml:22: interface: "an-interface-too-long" is no interface; a name has 1 to 15 bytes
        ssyncp.toml:24: name: "with a blank" is no name; one has no blank, no quote and no control character
        ssyncp.toml:25: script: "check" is no absolute path; write ["/etc/ssyncp/check", "argument"]
        ssyncp.toml:27: name: nothing is tracked; write one of interface, script, process, http and file below it
        ssyncp.toml:28: timeout: 2h is not from 10ms to 1h; write "1s"
        ssyncp.toml:31: script: "check now" is no list; write ["/etc/ssyncp/check", "argument"]
        ssyncp.toml:32: rise: 0 is not from 1 to 1000
        ssyncp.toml:35: process: "/usr/sbin/nginx" is a path; write the program's name alone, as "nginx"
        ssyncp.toml:36: timeout: looking for a process takes no time; remove it
        ssyncp.toml:39: http: "https://127.0.0.1/" asks for TLS, which checks do not speak (a script can); write "http://127.0.0.1:8080/healthz"
        ssyncp.toml:40: unknown key "colour" in [[track]]; known are name, interface, script, process, http, file, weight, interval, timeout, rise, fall
        ssyncp.toml:43: http: "http://localhost/" has a name where an address must stand; write "http://127.0.0.1:8080/healthz"
        ssyncp.toml:46: file: "penalty" is no absolute path; write "/run/ssyncp/penalty"
        ssyncp.toml:47: timeout: reading a number takes no time; remove it
        ssyncp.toml:48: rise: each number counts at once; remove it
        "#);
    }

    #[test]
    fn addresses_on_the_web_are_of_http_and_need_no_resolver() {
        let target = HttpTarget::parse("http://192.0.2.1").unwrap();
        assert_eq!((target.address.to_string(), target.path.as_str()), ("192.0.2.1:80".into(), "/"));
        for (url, why) in [
            ("127.0.0.1:80", "is no URL of http"),
            ("http://web.example/", "has a name where an address must stand"),
            ("http://me@127.0.0.1/", "has a user"),
            ("ftp://127.0.0.1/", "is no URL of http"),
            ("http://", "is no URL"),
        ] {
            assert!(HttpTarget::parse(url).unwrap_err().contains(why), "{url}: {:?}", HttpTarget::parse(url));
        }
    }
}
