//! What a node's fitness for the role depends on beside its sync link: interfaces, scripts, processes, HTTP servers, numbers
//! in files. Each `[[track]]` is looked at once for the whole node; a group heeds those that it names.
//!
//! ```text
//!   thread "errands"                              a group's loop
//!     interface ─ rtnetlink ┐                       Heed: anything new? (one load of an atomic, each turn)
//!     script ─── exit 0?    ├─ Damper ─▶ Board ─────▶ TrackDown, TrackUp ─▶ priority in force
//!     process ── /proc      │ rise,fall    │ wake   └▶ weight 0: drain, cause "track"
//!     http ───── 2xx, 3xx?  ┘              └▶ status, metrics
//!     file ───── number, to be multiplied by the weight ──▲
//! ```
//!
//! As in keepalived: a negative weight is subtracted while the track is down, a positive one added while it is up; with
//! weight 0 the node is to be without the role while it is down; [`mod@file`] has its own arithmetic. Before its first result a track counts as neither, and
//! the first result counts at once, whatever `rise` and `fall`. A check that cannot even be run counts as down.

mod checks;
mod file;
mod http;
mod process;

pub use checks::Tracker;

use crate::daemon::control::Alarm;
use crate::daemon::settings::Track;
use crate::daemon::status::TrackRow;
use crate::sys::clock;
use crate::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Least priority that tracks can leave a node: 0 would say "I am leaving" (RFC 9568 section 5.2.4).
pub const PRIORITY_MIN: u8 = 1;
/// Greatest priority that tracks can give a node: 255 is the owner's.
pub const PRIORITY_MAX: u8 = 254;
/// Priority of the owner of the addresses, which no track changes.
const OWNER: u8 = 255;

/// What is known of a track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackState {
    /// Its name.
    pub name: String,
    /// Its kind: interface, script, process, http or file.
    pub kind: &'static str,
    /// What it costs or brings.
    pub weight: i16,
    /// Whether it is up; `None` before the first result.
    pub up: Option<bool>,
    /// The number of a file; `None` of other kinds, and before the first result.
    pub number: Option<i32>,
    /// Since when it is up or down, or the number is this.
    pub since: Instant,
    /// What the last look found, in a few words: of a script its last line.
    pub output: String,
    /// Looks so far.
    pub checks: u64,
    /// Of these, how many were bad.
    pub failures: u64,
    /// Of these, how many could not even be made.
    pub not_run: u64,
}

impl TrackState {
    fn unknown(track: &Track) -> Self {
        TrackState {
            name: track.name.clone(),
            kind: track.check.kind(),
            weight: track.weight,
            up: None,
            number: None,
            since: clock::now(),
            output: String::new(),
            checks: 0,
            failures: 0,
            not_run: 0,
        }
    }
}

impl TrackState {
    /// The same, up or down by its number, if it has one.
    fn judged(mut self) -> Self {
        if let Some(number) = self.number {
            self.up = Some(file::bonus(number, self.weight).is_some());
        }
        self
    }
}

/// What is known of all tracks: written by who checks, read by who heeds.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    /// Changes with every state, weight and track that does.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    tracks: Vec<TrackState>,
    alarms: Vec<Alarm>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it has written whole values or nothing.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Other tracks: what is known of those that stay is kept.
    fn replace(&self, tracks: &[(Track, bool)]) {
        let mut state = self.lock();
        let old = std::mem::take(&mut state.tracks);
        state.tracks = tracks
            .iter()
            .map(|(track, stays)| match old.iter().find(|old| old.name == track.name && *stays) {
                Some(known) => TrackState { weight: track.weight, ..known.clone() }.judged(),
                None => TrackState::unknown(track),
            })
            .collect();
        self.tell(state);
    }

    /// One look has been made.
    fn note(&self, name: &str, look: Look, up: Option<bool>) {
        let mut state = self.lock();
        let Some(track) = state.tracks.iter_mut().find(|track| track.name == name) else { return };
        let before = (track.up, track.number);
        track.checks += 1;
        track.not_run += u64::from(look.not_run);
        track.output = look.words;
        (track.up, track.number) = (up, look.number);
        *track = track.clone().judged();
        track.failures += u64::from(!look.good || (track.number.is_some() && track.up == Some(false)));
        if before != (track.up, track.number) {
            track.since = clock::now();
            self.tell(state);
        }
    }

    /// Wakes whoever heeds. The version is changed while the state is held, so that nobody takes old for new.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        self.version.fetch_add(1, Ordering::Release);
        state.alarms.retain(Alarm::ring);
    }
}

/// What one look has found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Look {
    good: bool,
    /// It could not be made at all; bad then.
    not_run: bool,
    words: String,
    /// Of a file.
    number: Option<i32>,
}

/// The tracks that a group heeds, as its loop sees them.
#[derive(Debug)]
pub struct Heed {
    board: Arc<Board>,
    names: Vec<String>,
    /// Version of the board that was looked at last; `None`: look.
    seen: Option<u64>,
    /// What was known then.
    known: Vec<TrackState>,
}

/// What has become of the tracks of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Those whose state is another now, as it is now.
    pub changed: Vec<TrackState>,
    /// Sum of the weights that count now, to be added to the priority.
    pub bonus: i32,
    /// One of weight 0 is down: this node is to be without the role.
    pub forbids: bool,
}

impl Heed {
    /// The tracks with these names; `alarm` is rung whenever one of the node's tracks changes.
    pub fn new(board: &Arc<Board>, names: &[String], alarm: Alarm) -> Self {
        board.lock().alarms.push(alarm);
        Heed { board: Arc::clone(board), names: names.to_vec(), seen: None, known: Vec::new() }
    }

    /// No tracks.
    pub fn nothing() -> Self {
        Heed { board: Arc::default(), names: Vec::new(), seen: None, known: Vec::new() }
    }

    /// Other names.
    pub fn replace(&mut self, names: &[String]) {
        if self.names != names {
            self.names = names.to_vec();
            self.seen = None;
        }
    }

    /// What has changed since the last call; `None` if nothing has.
    pub fn look(&mut self) -> Option<Change> {
        let version = self.board.version.load(Ordering::Acquire);
        if self.seen == Some(version) {
            return None;
        }
        let state = self.board.lock();
        self.seen = Some(self.board.version.load(Ordering::Acquire));
        let now = self.heeded(&state);
        drop(state);
        let before = std::mem::replace(&mut self.known, now);
        let is_news = |track: &&TrackState| {
            let known = before.iter().find(|known| known.name == track.name);
            let seen = known.map_or((None, None), |known| (known.up, known.number));
            track.up.is_some() && seen != (track.up, track.number)
        };
        Some(Change {
            changed: self.known.iter().filter(is_news).cloned().collect(),
            bonus: self.known.iter().map(bonus).sum(),
            forbids: self.known.iter().any(forbids),
        })
    }

    fn heeded(&self, state: &State) -> Vec<TrackState> {
        let find = |name: &String| state.tracks.iter().find(|track| track.name == *name).cloned();
        self.names.iter().filter_map(find).collect()
    }

    /// The tracks as status shows them.
    pub fn rows(&self, now: Instant) -> Vec<TrackRow> {
        self.heeded(&self.board.lock()).iter().map(|track| TrackRow::new(track, now)).collect()
    }
}

/// What a track adds to the priority now.
fn bonus(track: &TrackState) -> i32 {
    if let Some(number) = track.number {
        return file::bonus(number, track.weight).unwrap_or(0);
    }
    match track.up {
        Some(true) => i32::from(track.weight.max(0)),
        Some(false) => i32::from(track.weight.min(0)),
        None => 0,
    }
}

/// Whether it forbids the role now.
fn forbids(track: &TrackState) -> bool {
    track.up == Some(false) && (track.weight == 0 || track.number.is_some())
}

/// The priority in force: the configured one and what the tracks add.
pub fn priority(configured: u8, bonus: i32) -> u8 {
    if configured == OWNER {
        return OWNER;
    }
    let sum = (i32::from(configured) + bonus).clamp(PRIORITY_MIN.into(), PRIORITY_MAX.into());
    u8::try_from(sum).unwrap_or(PRIORITY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::Check;

    fn track(name: &str, weight: i16) -> Track {
        Track { name: name.into(), check: Check::Process("x".into()), weight, pace: None }
    }

    fn board(tracks: &[(&str, i16)]) -> Arc<Board> {
        let board = Arc::new(Board::default());
        board.replace(&tracks.iter().map(|(name, weight)| (track(name, *weight), false)).collect::<Vec<_>>());
        board
    }

    fn heed(board: &Arc<Board>, names: &[&str]) -> Heed {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Heed { names, ..Heed { board: Arc::clone(board), ..Heed::nothing() } }
    }

    fn say(board: &Board, name: &str, up: bool) {
        board.note(name, Look { good: up, not_run: false, words: "said".into(), number: None }, Some(up));
    }

    fn names(change: &Change) -> Vec<(&str, Option<bool>)> {
        change.changed.iter().map(|track| (track.name.as_str(), track.up)).collect()
    }

    #[test]
    fn a_priority_stays_within_what_vrrp_leaves_it_and_the_owners_never_changes() {
        assert_eq!(priority(150, -60), 90);
        assert_eq!(priority(150, 0), 150);
        assert_eq!(priority(100, -100), 1);
        assert_eq!(priority(1, -253 * 64), 1);
        assert_eq!(priority(200, 54), 254);
        assert_eq!(priority(254, 253 * 64), 254);
        assert_eq!(priority(255, -253), 255);
    }

    #[test]
    fn weights_count_as_in_keepalived_and_nothing_counts_before_the_first_result() {
        let board = board(&[("minus", -40), ("plus", 7), ("zero", 0)]);
        let mut heed = heed(&board, &["minus", "plus", "zero"]);
        let first = heed.look().unwrap();
        assert_eq!(first, Change { changed: vec![], bonus: 0, forbids: false });
        assert_eq!(heed.look(), None);
        for name in ["minus", "plus", "zero"] {
            say(&board, name, true);
        }
        let up = heed.look().unwrap();
        assert_eq!(names(&up), [("minus", Some(true)), ("plus", Some(true)), ("zero", Some(true))]);
        assert_eq!((up.bonus, up.forbids), (7, false));
        for name in ["minus", "plus", "zero"] {
            say(&board, name, false);
        }
        let down = heed.look().unwrap();
        assert_eq!((down.changed.len(), down.bonus, down.forbids), (3, -40, true));
    }

    #[test]
    fn the_same_result_again_is_no_news_but_counted() {
        let board = board(&[("a", -1)]);
        let mut heed = heed(&board, &["a"]);
        say(&board, "a", false);
        assert_eq!(names(&heed.look().unwrap()), [("a", Some(false))]);
        say(&board, "a", false);
        assert_eq!(heed.look(), None);
        let row = &heed.rows(Instant::from_nanos(u64::MAX))[0];
        assert_eq!((row.checks, row.failures, row.up, row.output.as_str()), (2, 2, Some(false), "said"));
    }

    #[test]
    fn a_group_hears_only_of_what_it_heeds_and_may_heed_something_else() {
        let board = board(&[("a", -1), ("b", -2)]);
        let mut heed = heed(&board, &["a"]);
        say(&board, "b", false);
        assert_eq!(heed.look().unwrap().bonus, 0);
        heed.replace(&["b".to_owned(), "gone".to_owned()]);
        let change = heed.look().unwrap();
        assert_eq!((names(&change), change.bonus), (vec![("b", Some(false))], -2));
        heed.replace(&[]);
        assert_eq!(heed.look().unwrap(), Change { changed: vec![], bonus: 0, forbids: false });
    }

    #[test]
    fn what_is_known_of_a_track_that_stays_is_kept_and_its_weight_may_be_another() {
        let board = board(&[("a", -1), ("b", -2)]);
        let mut heed = heed(&board, &["a", "b"]);
        say(&board, "a", false);
        say(&board, "b", false);
        assert_eq!(heed.look().unwrap().bonus, -3);
        board.replace(&[(track("a", -9), true), (track("b", -2), false)]);
        let change = heed.look().unwrap();
        assert_eq!((names(&change), change.bonus), (vec![], -9));
    }

    #[test]
    fn a_number_is_news_whenever_it_is_another_and_forbids_the_role_where_it_is_too_much() {
        let board = board(&[("load", -2)]);
        let mut heed = heed(&board, &["load"]);
        let mut say = |number: i32| {
            let look = Look { good: true, not_run: false, words: number.to_string(), number: Some(number) };
            board.note("load", look, Some(true));
            heed.look().map(|change| (names(&change).len(), change.bonus, change.forbids))
        };
        assert_eq!(say(0), Some((1, 0, false)));
        assert_eq!(say(20), Some((1, -40, false)));
        assert_eq!(say(20), None);
        assert_eq!(say(127), Some((1, 0, true)), "254 is more than a priority has");
        assert_eq!(say(-10), Some((1, 20, false)));
        // Another weight judges the number anew: of weight 0 any but 0 is a failure.
        board.replace(&[(track("load", 0), true)]);
        let change = heed.look().unwrap();
        assert_eq!((names(&change), change.forbids), (vec![("load", Some(false))], true));
        let row = &heed.rows(Instant::from_nanos(u64::MAX))[0];
        assert_eq!((row.number, row.failures, row.checks), (Some(-10), 1, 5));
    }
}
