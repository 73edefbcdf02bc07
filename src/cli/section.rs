//! `ssyncp section`: entries that are replicated beside the flows.

use super::output::{complain, show, unanswered};
use super::{EXIT_NO, EXIT_USAGE, Reach};
use crate::daemon::answers::{SectionAnswer, SectionDeleteAnswer, SectionRow, SectionsAnswer};
use crate::daemon::client::{self, ClientError};
use crate::daemon::sections::{KEY_MAX, VALUE_MAX};
use crate::daemon::settings;
use crate::time::Duration;
use hyper::Method;
use hyper::body::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `ssyncp section` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp section put haproxy.cfg /etc/haproxy/haproxy.cfg && ssyncp flush\n  \
    ssyncp section get haproxy.cfg > /etc/haproxy/haproxy.cfg\n  date | ssyncp section put --expires 1h last-run -\n\n\
    Only the master takes changes; every node can be read, and a takeover keeps all. A value has up to 1 MiB, and all\n\
    keys and values of a group up to 16 MiB, in up to 4096 entries. They live in memory: when all nodes are down at the\n\
    same time they are gone.\n\n\
    Exit status: 0 done, 1 there is no such entry, 4 if this node is not master, or there is no room.")]
pub(super) struct Options {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, clap::Subcommand)]
enum Order {
    /// Make an entry, or change its value.
    Put(Put),
    /// Write the value of an entry to standard output, as it is.
    Get(Place),
    /// Remove an entry.
    Delete(Delete),
    /// Show every entry without its value.
    List(List),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// What names the entry, 1 to 256 bytes.
    #[arg(value_parser = key)]
    key: String,
    /// The section that it is in; numbers mean what you like.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    table: u16,
    /// The group (its sync id); needed if there are several.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Args)]
struct Put {
    #[command(flatten)]
    place: Place,
    /// Where the value is; - is standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Time after which it is forgotten, in whole seconds; never without it.
    #[arg(long, value_name = "TIME", value_parser = settings::duration)]
    expires: Option<Duration>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    place: Place,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only this group (its sync id).
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    match &options.order {
        Order::Put(order) => put(order),
        Order::Get(place) => get(place),
        Order::Delete(order) => delete(order),
        Order::List(order) => list(order),
    }
}

fn put(order: &Put) -> ExitCode {
    let value = match read(&order.file) {
        Ok(value) if value.len() <= VALUE_MAX => value,
        Ok(_) => {
            complain(&format!("{}: a value has at most {VALUE_MAX} bytes; put it in parts", order.file.display()));
            return ExitCode::from(EXIT_USAGE);
        }
        Err(error) => {
            complain(&format!("{}: {error}", order.file.display()));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let expires = order.expires.map(|time| format!("expires_s={}", seconds(time)));
    match send(&order.place, Method::PUT, expires, value.into()) {
        Ok(bytes) => show(&bytes, order.json, |answer: &SectionAnswer| line(&answer.section)),
        Err(error) => unanswered(&error),
    }
}

fn get(place: &Place) -> ExitCode {
    let value = match send(place, Method::GET, None, Bytes::new()) {
        Ok(value) => value,
        Err(error) => return absent(&error),
    };
    let mut output = io::stdout().lock();
    match output.write_all(&value).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A value that is cut off is none.
            complain(&format!("standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn delete(order: &Delete) -> ExitCode {
    let bytes = match send(&order.place, Method::DELETE, None, Bytes::new()) {
        Ok(bytes) => bytes,
        Err(error) => return unanswered(&error),
    };
    let absent = serde_json::from_slice::<SectionDeleteAnswer>(&bytes).is_ok_and(|answer| !answer.deleted);
    let printed = show(&bytes, order.json, |answer: &SectionDeleteAnswer| {
        let gone = if answer.deleted { "deleted" } else { "there was no such entry" };
        format!("{}/{}: {gone}\n", answer.table, answer.key)
    });
    if absent { ExitCode::from(EXIT_NO) } else { printed }
}

fn list(order: &List) -> ExitCode {
    let path = match order.group {
        Some(group) => format!("/v1/sections?group={group}"),
        None => "/v1/sections".to_owned(),
    };
    match client::fetch(&order.reach.socket, &path) {
        Ok(bytes) => show(&bytes, order.json, words),
        Err(error) => unanswered(&error),
    }
}

/// Sends a call about one entry.
fn send(place: &Place, method: Method, expires: Option<String>, body: Bytes) -> Result<Bytes, ClientError> {
    let key = utf8_percent_encode(&place.key, NON_ALPHANUMERIC);
    let group = place.group.map(|group| format!("group={group}"));
    let query: Vec<String> = [group, expires].into_iter().flatten().collect();
    let path = format!("/v1/sections/{}/{key}?{}", place.table, query.join("&"));
    client::send(&place.reach.socket, method, &path, body)
}

/// Says why there is no value; that there is none is an answer.
fn absent(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Refused { status: 404, sentence, .. } => {
            complain(sentence);
            ExitCode::from(EXIT_NO)
        }
        error => unanswered(error),
    }
}

/// Reads a value, and one byte more than it may have.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let most = VALUE_MAX as u64 + 1;
    let mut value = Vec::new();
    match file.as_os_str() == "-" {
        true => io::stdin().lock().take(most).read_to_end(&mut value)?,
        false => File::open(file)?.take(most).read_to_end(&mut value)?,
    };
    Ok(value)
}

/// Rounded up: what shall live for half a second is there for one.
fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000_000).max(1)).unwrap_or(u64::MAX)
}

fn key(text: &str) -> Result<String, String> {
    match (1..=KEY_MAX).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(format!("{} bytes; a key has 1 to {KEY_MAX}", text.len())),
    }
}

fn words(answer: &SectionsAnswer) -> String {
    let mut text = String::new();
    for group in &answer.groups {
        let count = group.sections.len();
        let (most, bytes, bytes_max) = (group.entries_max, group.bytes, group.bytes_max);
        // Writing to a string never fails.
        let _ = writeln!(text, "group {}: {count} of {most} entries, {bytes} of {bytes_max} bytes", group.sync_id);
        text.extend(group.sections.iter().map(|section| format!("  {}", line(section))));
    }
    text
}

fn line(section: &SectionRow) -> String {
    let SectionRow { table, key, bytes, expires_s } = section;
    let expires = expires_s.map_or(String::new(), |seconds| format!(", expires in {seconds} s"));
    format!("{table}/{key}: {bytes} bytes{expires}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::answers::SectionsRow;

    #[test]
    fn a_list_shows_the_room_and_each_entry() {
        let row = |table, key: &str, expires_s| SectionRow { table, key: key.into(), bytes: 12, expires_s };
        let sections = vec![row(0, "a b", None), row(7, "c", Some(30))];
        let group = SectionsRow { sync_id: 51, entries_max: 4096, bytes: 28, bytes_max: 16_777_216, sections };
        let answer = SectionsAnswer { schema: String::new(), groups: vec![group] };
        assert_eq!(
            words(&answer),
            "group 51: 2 of 4096 entries, 28 of 16777216 bytes\n  0/a b: 12 bytes\n  7/c: 12 bytes, expires in 30 s\n"
        );
    }

    #[test]
    fn keys_and_times_are_those_of_the_format() {
        assert!(key("").is_err() && key(&"k".repeat(257)).is_err());
        assert_eq!(key(&"k".repeat(256)).unwrap().len(), 256);
        let rounded = [0, 1, 1000, 1001].map(|milliseconds| seconds(Duration::from_millis(milliseconds)));
        assert_eq!(rounded, [1, 1, 1, 2]);
    }
}
