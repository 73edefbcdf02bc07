//! How a group's loop waits for frames and for changes of its source.
//!
//! ```text
//!   wait = "adaptive"           block while little comes, nap while naps bring several things at once
//!   latency_bound = "200us"     longest nap: what arrives meanwhile waits as long at most
//! ```
//!
//! One loop serves the sync links and the source with one wait, so there is one setting for all of them.

use super::read::Section;
use super::{duration_words as durations, value};
use crate::time::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shortest nap that can be asked for: less than this is what falling asleep costs.
pub const LATENCY_BOUND_MIN: Duration = Duration::from_micros(10);
/// Longest one: more than this and buffers fill meanwhile.
pub const LATENCY_BOUND_MAX: Duration = Duration::from_millis(10);

/// How the loop waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitKind {
    /// Until something comes: a wake-up for each frame or event that does not come with others.
    Block,
    /// Always for `latency_bound`, whatever comes.
    Nap,
    /// Not at all. The loop needs a processor of its own.
    Spin,
    /// Block, or nap while that pays.
    Adaptive,
}

impl WaitKind {
    /// All, by their words.
    pub const WORDS: [(&'static str, WaitKind); 4] = [
        ("adaptive", WaitKind::Adaptive),
        ("block", WaitKind::Block),
        ("nap", WaitKind::Nap),
        ("spin", WaitKind::Spin),
    ];
}

/// The wait of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Wait {
    /// How the loop waits: adaptive, block, nap or spin.
    #[serde(rename = "wait")]
    pub kind: WaitKind,
    /// Longest nap.
    #[serde(serialize_with = "durations")]
    #[schemars(with = "String")]
    pub latency_bound: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Wait { kind: WaitKind::Adaptive, latency_bound: Duration::from_micros(200) }
    }
}

/// Reads `wait` and `latency_bound`.
pub(super) fn read(section: &Section<'_, '_>) -> Wait {
    let default = Wait::default();
    let kind = section.word("wait", default.kind, &WaitKind::WORDS, &[]);
    let latency_bound = section.duration("latency_bound", default.latency_bound);
    if !(LATENCY_BOUND_MIN..=LATENCY_BOUND_MAX).contains(&latency_bound) {
        let [given, least, most] = [latency_bound, LATENCY_BOUND_MIN, LATENCY_BOUND_MAX].map(value::duration_words);
        section.wrong("latency_bound", format!("{given}; at least {least} and at most {most}"));
    } else if matches!(kind, WaitKind::Block | WaitKind::Spin) && section.get("latency_bound").is_some() {
        section.wrong("latency_bound", "bounds naps, and this wait has none; remove it, or write wait = \"adaptive\"");
    }
    Wait { kind, latency_bound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::{Problems, Settings};
    use std::path::Path;

    fn parse(more: &str) -> Result<Wait, Problems> {
        let text = format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n{more}\n");
        Settings::parse(&text, Path::new("ssyncp.toml")).map(|settings| settings.groups[0].wait)
    }

    fn told(more: &str) -> String {
        parse(more).unwrap_err().to_string()
    }

    #[test]
    fn it_is_adaptive_and_naps_200_us_unless_it_is_told_otherwise() {
        let micros = Duration::from_micros;
        assert_eq!(parse("").unwrap(), Wait { kind: WaitKind::Adaptive, latency_bound: micros(200) });
        let given = "wait = \"nap\"\nlatency_bound = \"1ms\"";
        assert_eq!(parse(given).unwrap(), Wait { kind: WaitKind::Nap, latency_bound: micros(1000) });
        assert_eq!(parse("wait = \"spin\"").unwrap().kind, WaitKind::Spin);
        assert_eq!(parse("wait = \"block\"").unwrap().kind, WaitKind::Block);
    }

    #[test]
    fn what_cannot_be_waited_is_told_with_its_line() {
        assert_eq!(
            told("wait = \"doze\""),
            "ssyncp.toml:6: wait: \"doze\" is unknown; write \"adaptive\" or \"block\" or \"nap\" or \"spin\""
        );
        let bounds = "at least 10us and at most 10ms";
        assert_eq!(told("latency_bound = \"9us\""), format!("ssyncp.toml:6: latency_bound: 9us; {bounds}"));
        assert_eq!(told("latency_bound = \"11ms\""), format!("ssyncp.toml:6: latency_bound: 11ms; {bounds}"));
        assert!(told("wait = \"block\"\nlatency_bound = \"1ms\"").contains("bounds naps, and this wait has none"));
    }
}
