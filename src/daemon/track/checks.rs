//! Who looks: one task for each track that some group heeds, on the thread of the errands. A look never overlaps the next
//! one of its track, and never waits for that of another.

use super::file::Found;
use super::process::Finder;
use super::{Board, Look, file, http};
use crate::daemon::errands::Errands;
use crate::daemon::program::{self, Outcome};
use crate::daemon::settings::{Check, CheckPace, Settings, Track};
use crate::sys::interface::{InterfaceWatch, LinkState};
use futures_util::{FutureExt, StreamExt};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use std::io;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until};

/// Time after which an interface is asked again when the kernel could not be asked at all.
const RETRY: Duration = Duration::from_secs(1);

/// The tasks of all tracks.
#[derive(Debug)]
pub struct Tracker {
    board: Arc<Board>,
    errands: Errands,
    running: Vec<Running>,
}

/// A track whose task runs.
#[derive(Debug)]
struct Running {
    track: Track,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Whether its task would do the same for another track.
    fn looks_at_the_same(&self, other: &Track) -> bool {
        let weightless = |track: &Track| Track { weight: 0, ..track.clone() };
        weightless(&self.track) == weightless(other)
    }
}

impl Tracker {
    /// Nothing is looked at yet.
    pub fn new(errands: Errands) -> Self {
        Tracker { board: Arc::default(), errands, running: Vec::new() }
    }

    /// Where the results stand.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Looks at those tracks from now on that some group heeds. One that was looked at the same way already keeps its state
    /// and its task.
    pub fn replace(&mut self, settings: &Settings) {
        let heeded = |track: &&Track| settings.groups.iter().any(|group| group.track.contains(&track.name));
        let wanted: Vec<&Track> = settings.tracks.iter().filter(heeded).collect();
        self.running.retain(|running| wanted.iter().any(|track| running.looks_at_the_same(track)));
        let stays = |track: &Track| self.running.iter().any(|running| running.looks_at_the_same(track));
        let tracks: Vec<(Track, bool)> = wanted.iter().map(|track| ((*track).clone(), stays(track))).collect();
        // A task that was ended may have been in the middle of its last word: it says it to a track that is new, and the next
        // look puts it right.
        self.board.replace(&tracks);
        for (track, _) in tracks.into_iter().filter(|(_, stays)| !stays) {
            let report = Report::new(&self.board, &track);
            let task = self.errands.spawn(look_for_ever(track.clone(), report));
            self.running.push(Running { track, task });
        }
    }
}

/// Where one track's task says what it has found.
struct Report {
    board: Arc<Board>,
    name: String,
    damper: Damper,
    /// That the check cannot be run was told.
    told: bool,
}

impl Report {
    fn new(board: &Arc<Board>, track: &Track) -> Self {
        let (rise, fall) = track.pace.as_ref().map_or((None, None), |pace| (pace.rise, pace.fall));
        Report {
            board: Arc::clone(board),
            name: track.name.clone(),
            damper: Damper::new(rise.unwrap_or(1), fall.unwrap_or(1)),
            told: false,
        }
    }

    fn say(&mut self, look: Look) {
        if look.not_run && !self.told {
            tracing::warn!(track = self.name, "the check {}", look.words);
        }
        self.told = look.not_run;
        let up = self.damper.take(look.good);
        self.board.note(&self.name, look, Some(up));
    }
}

/// From looks to states: it takes some in a row to change one, but the first counts at once.
#[derive(Debug)]
struct Damper {
    rise: u32,
    fall: u32,
    up: Option<bool>,
    /// Looks in a row that contradict the state.
    streak: u32,
}

impl Damper {
    fn new(rise: u32, fall: u32) -> Self {
        Damper { rise, fall, up: None, streak: 0 }
    }

    /// Takes a look; the state after it.
    fn take(&mut self, good: bool) -> bool {
        let up = *self.up.get_or_insert(good);
        self.streak = if up == good { 0 } else { self.streak + 1 };
        let needed = if good { self.rise } else { self.fall };
        if self.streak >= needed && up != good {
            (self.up, self.streak) = (Some(good), 0);
            return good;
        }
        up
    }
}

async fn look_for_ever(track: Track, mut report: Report) {
    let Some(pace) = track.pace else {
        if let Check::Interface(name) = &track.check {
            watch_interface(name, &mut report).await;
        }
        return;
    };
    let CheckPace { interval, timeout, .. } = pace;
    let limit = timeout.unwrap_or(interval);
    let mut finder = match &track.check {
        Check::Process(name) => Finder::new(name),
        _ => Finder::new(""),
    };
    let mut number = 0;
    loop {
        let next = Instant::now() + interval;
        let look = match &track.check {
            Check::Script(words) => by_script(&program::run(words, limit).await),
            Check::Http(target) => by_answer(http::status(target, limit).await),
            Check::Process(_) => by_process(finder.find()),
            Check::File(path) => by_number(file::read(path), &mut number),
            Check::Interface(_) => return,
        };
        report.say(look);
        sleep_until(next).await;
    }
}

fn by_script(outcome: &Outcome) -> Look {
    let words = match outcome {
        Outcome::Ended { status, line } if status.success() => line.clone(),
        other => other.to_string(),
    };
    Look { good: outcome.is_success(), not_run: matches!(outcome, Outcome::NotRun(_)), words, number: None }
}

fn by_answer(answer: io::Result<hyper::StatusCode>) -> Look {
    match answer {
        Ok(status) => Look { good: http::is_good(status), not_run: false, words: status.to_string(), number: None },
        Err(error) => Look { good: false, not_run: false, words: error.to_string(), number: None },
    }
}

fn by_process(found: io::Result<Option<u32>>) -> Look {
    match found {
        Ok(Some(process)) => Look { good: true, not_run: false, words: format!("process {process}"), number: None },
        Ok(None) => Look { good: false, not_run: false, words: "no such process".into(), number: None },
        Err(error) => {
            Look { good: false, not_run: true, words: format!("cannot be run: /proc: {error}"), number: None }
        }
    }
}

/// What cannot be read, or is half written, changes nothing: the number before counts.
fn by_number(found: io::Result<Found>, number: &mut i32) -> Look {
    // Whether the number is good is for its weight to say.
    let look = |number, not_run, words| Look { good: true, not_run, words, number: Some(number) };
    match found {
        Ok(Found::Number(found)) => {
            *number = found;
            look(found, false, found.to_string())
        }
        Ok(Found::Missing) => {
            *number = 0;
            look(0, false, "no file: 0".into())
        }
        Ok(Found::Empty) => look(*number, false, number.to_string()),
        Err(error) => look(*number, true, format!("cannot be run: {error}; {number} counts as before")),
    }
}

fn by_link(link: io::Result<LinkState>) -> Look {
    let look = |good, words: &str| Look { good, not_run: false, words: words.into(), number: None };
    match link {
        Ok(LinkState { enabled: false, .. }) => look(false, "switched off"),
        Ok(LinkState { carrier: false, .. }) => look(false, "no carrier"),
        Ok(LinkState { .. }) => look(true, "running"),
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => look(false, "no such interface"),
        Err(error) => Look { good: false, not_run: true, words: format!("cannot be run: {error}"), number: None },
    }
}

/// Says how an interface stands, whenever the kernel says that some interface has changed.
async fn watch_interface(name: &str, report: &mut Report) {
    loop {
        if let Err(error) = watch_until_it_fails(name, report).await {
            report.say(Look { good: false, not_run: true, words: format!("cannot be run: {error}"), number: None });
        }
        sleep(RETRY).await;
    }
}

async fn watch_until_it_fails(name: &str, report: &mut Report) -> io::Result<()> {
    let (connection, _kernel, mut notifications) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    // It ends when its other ends have gone, here.
    tokio::spawn(connection);
    let mut kernel = InterfaceWatch::open()?;
    loop {
        let look = by_link(kernel.ask(name));
        let failed = look.not_run;
        report.say(look);
        if failed || notifications.next().await.is_none() {
            return Ok(());
        }
        // One question answers all that have come so far.
        while let Some(Some(_)) = notifications.next().now_or_never() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(rise: u32, fall: u32, looks: &str) -> String {
        let mut damper = Damper::new(rise, fall);
        looks.chars().map(|look| if damper.take(look == '+') { '+' } else { '-' }).collect()
    }

    #[test]
    fn the_first_look_counts_at_once_and_later_ones_in_a_row() {
        assert_eq!(states(3, 2, "+-+--+++"), "++++---+");
        assert_eq!(states(3, 2, "-++-+++-"), "------++");
        assert_eq!(states(1, 1, "+-+-"), "+-+-");
    }

    #[test]
    fn what_is_no_number_changes_nothing_and_a_file_that_is_gone_is_zero() {
        let mut number = 0;
        let mut look = |found| {
            let look = by_number(found, &mut number);
            (look.number, look.not_run, look.words)
        };
        assert_eq!(look(Ok(Found::Empty)), (Some(0), false, "0".into()));
        assert_eq!(look(Ok(Found::Number(40))), (Some(40), false, "40".into()));
        assert_eq!(look(Ok(Found::Empty)), (Some(40), false, "40".into()));
        let wrong = io::Error::new(io::ErrorKind::InvalidData, "\"x\" is no number");
        let words = "cannot be run: \"x\" is no number; 40 counts as before";
        assert_eq!(look(Err(wrong)), (Some(40), true, words.into()));
        assert_eq!(look(Ok(Found::Missing)), (Some(0), false, "no file: 0".into()));
        assert_eq!(look(Ok(Found::Empty)).0, Some(0));
    }

    #[test]
    fn an_interface_is_up_while_it_runs() {
        let state = |enabled, carrier| Ok(LinkState { index: 1, enabled, carrier, mtu: 1500 });
        let said = |link| {
            let look = by_link(link);
            (look.good, look.not_run, look.words)
        };
        assert_eq!(said(state(true, true)), (true, false, "running".into()));
        assert_eq!(said(state(true, false)), (false, false, "no carrier".into()));
        assert_eq!(said(state(false, false)), (false, false, "switched off".into()));
        assert_eq!(said(Err(Errno::ENODEV.into())), (false, false, "no such interface".into()));
        assert!(by_link(Err(Errno::EMFILE.into())).not_run);
    }
}
