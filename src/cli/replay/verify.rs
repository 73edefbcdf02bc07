//! Is the rebuilt table the same as one that a daemon has shown? Keys and values count, time-outs do not.

use crate::daemon::flows::FlowRow;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Differences that are named; the others are counted.
const NAMED_MAX: usize = 100;

/// What names a row.
const KEY: [&str; 7] = ["sync_id", "protocol", "source", "source_port", "destination", "destination_port", "zone"];

/// A table as `ssyncp table --json` prints it.
#[derive(Deserialize)]
pub(super) struct Table {
    flows: Vec<Value>,
    complete: bool,
}

/// Fields of a row that a record of the classic profile has no room for.
pub(super) const UNSAID_BY_CLASSIC: [&str; 6] = ["mark", "status", "helper", "labels", "master", "attributes"];

/// How two tables differ, in words.
pub(super) struct Differences {
    named: Vec<String>,
    count: usize,
    same: usize,
}

impl Table {
    /// Reads a file.
    pub(super) fn load(file: &Path) -> Result<Self, String> {
        let wrong = |problem: String| format!("{}: {problem}", file.display());
        let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
        let table: Table = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("is no output of `ssyncp table --json`: {error}")))?;
        if !table.complete {
            return Err(wrong("says that it is not complete; make it without --limit".to_owned()));
        }
        Ok(table)
    }

    /// How the replayed rows differ from this table, of which only one group may count. In groups of the classic profile
    /// only what its records say counts.
    pub(super) fn compare(&self, replayed: Vec<FlowRow>, group: Option<u8>, classic: &[u8]) -> Differences {
        let rows = replayed.iter().filter_map(|row| serde_json::to_value(row).ok());
        let named = |row| named(row, classic);
        let mut replayed: BTreeMap<String, Value> = rows.map(named).collect();
        let of_group = |row: &&Value| group.is_none_or(|group| row["sync_id"] == group);
        let mut differences = Differences { named: Vec::new(), count: 0, same: 0 };
        for (key, theirs) in self.flows.iter().filter(of_group).cloned().map(named) {
            match replayed.remove(&key) {
                None => differences.add(|| format!("only in the table: {key}")),
                Some(ours) if ours == theirs => differences.same += 1,
                Some(ours) => differences.add(|| format!("differs: {key}: {}", fields(&ours, &theirs))),
            }
        }
        for key in replayed.keys() {
            differences.add(|| format!("only in the recording: {key}"));
        }
        differences
    }
}

impl Differences {
    /// Whether there are none.
    pub(super) fn none(&self) -> bool {
        self.count == 0
    }

    /// All that are named, and the verdict.
    pub(super) fn words(&self) -> String {
        let mut text: String = self.named.iter().map(|line| format!("{line}\n")).collect();
        if self.count > self.named.len() {
            text += &format!("and {} more\n", self.count - self.named.len());
        }
        let Differences { count, same, .. } = self;
        text + &if self.none() {
            format!("equal: {same} flows\n")
        } else {
            format!("not equal: {count} differences, {same} flows are equal\n")
        }
    }

    fn add(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(words());
        }
    }
}

/// A row under its name, without its time-out, and without what the classic profile cannot say if it is of such a group.
fn named(mut row: Value, classic: &[u8]) -> (String, Value) {
    let unsaid: &[&str] = if classic.iter().any(|id| row["sync_id"] == *id) { &UNSAID_BY_CLASSIC } else { &[] };
    let of = |field: &str| row[field].as_str().map_or_else(|| row[field].to_string(), str::to_owned);
    let [group, protocol, source, source_port, destination, destination_port, zone] = KEY.map(of);
    let key = format!(
        "group {group} protocol {protocol} {source} port {source_port} -> {destination} port {destination_port} zone {zone}"
    );
    if let Some(fields) = row.as_object_mut() {
        fields.retain(|name, _| name != "timeout_s" && !unsaid.contains(&name.as_str()));
    }
    (key, row)
}

/// The fields in which two rows of one name differ.
fn fields(ours: &Value, theirs: &Value) -> String {
    let names = [ours, theirs].into_iter().filter_map(Value::as_object).flat_map(|row| row.keys());
    let names: std::collections::BTreeSet<&String> = names.filter(|name| ours[*name] != theirs[*name]).collect();
    let words =
        names.into_iter().map(|name| format!("{name} {} in the recording, {} in the table", ours[name], theirs[name]));
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(source_port: u16, status: u16, timeout_s: u32) -> FlowRow {
        let row = json!({
            "sync_id": 51, "protocol": 6, "source": "10.0.0.1", "source_port": source_port,
            "destination": "192.0.2.10", "destination_port": 80, "reply_source": "192.0.2.10", "reply_source_port": 80,
            "reply_destination": "10.0.0.1", "reply_destination_port": source_port, "state": 3,
            "state_name": "ESTABLISHED", "status": status, "timeout_s": timeout_s, "mark": 0, "zone": 0,
        });
        serde_json::from_value(row).unwrap()
    }

    fn table(rows: &[FlowRow]) -> Table {
        Table { flows: rows.iter().map(|row| serde_json::to_value(row).unwrap()).collect(), complete: true }
    }

    #[test]
    fn time_outs_are_no_difference_and_everything_else_is() {
        let table = table(&[row(1, 14, 100), row(2, 14, 100), row(3, 14, 100)]);
        let equal = table.compare(vec![row(3, 14, 1), row(1, 14, 2), row(2, 14, 3)], None, &[]);
        assert_eq!((equal.none(), equal.words().as_str()), (true, "equal: 3 flows\n"));
        let differences = table.compare(vec![row(1, 14, 1), row(2, 10, 1), row(4, 14, 1)], Some(51), &[]);
        assert_eq!(
            differences.words(),
            "differs: group 51 protocol 6 10.0.0.1 port 2 -> 192.0.2.10 port 80 zone 0: status 10 in the recording, \
             14 in the table\n\
             only in the table: group 51 protocol 6 10.0.0.1 port 3 -> 192.0.2.10 port 80 zone 0\n\
             only in the recording: group 51 protocol 6 10.0.0.1 port 4 -> 192.0.2.10 port 80 zone 0\n\
             not equal: 3 differences, 1 flows are equal\n"
        );
        assert!(!differences.none());
    }

    #[test]
    fn what_classic_cannot_say_is_no_difference_there_and_one_elsewhere() {
        let table = table(&[row(1, 14, 100)]);
        let ours = || vec![row(1, 10, 100)];
        assert!(table.compare(ours(), None, &[51]).none());
        assert!(!table.compare(ours(), None, &[52]).none());
        assert!(!table.compare(vec![row(2, 14, 100)], None, &[51]).none(), "another key");
    }

    #[test]
    fn a_group_that_was_not_asked_for_does_not_count() {
        let table = table(&[row(1, 14, 100)]);
        assert!(table.compare(Vec::new(), Some(52), &[]).none());
        assert!(!table.compare(Vec::new(), None, &[]).none());
    }
}
