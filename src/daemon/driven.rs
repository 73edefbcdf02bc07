//! keepalived decides the role: what it writes to its `notify_fifo` is read here and given to the groups (protocol.md, 5.7).
//!
//! ```text
//!   keepalived ──INSTANCE "VI_51" MASTER 150──▶ FIFO ──▶ one thread a FIFO ──newest word──▶ group 51's loop ─▶ request
//!                                                │            │
//!                  groups of one node may share it            └─▶ FIFO.said    for the next start of this program
//! ```
//!
//! keepalived says a state once, when it begins. So nothing that it said may get lost: what it writes while this program is
//! not there waits in the pipe; what was read is kept beside it ([`memory`]); and a group's loop gets the newest word
//! whenever it comes to it, however many there were (a flood costs this thread's time, and no room).
//!
//! The end of keepalived is no word of keepalived: the role stays as it is until somebody says something else. If it left
//! the addresses behind, this node is still what the network takes it for; and once the other node's keepalived says
//! MASTER there, that node's term is the higher one.

pub mod fifo;
pub mod line;
pub mod memory;

use crate::daemon::control::GroupHandle;
use crate::daemon::sandbox;
use crate::daemon::settings::Settings;
use crate::engine::RoleRequest;
use crate::sys::poll::{self, Waker};
use crate::time::Duration;
use fifo::{Fifo, Found};
use line::{Line, Lines, Name, Refused, State};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Time between two looks whether the path leads to the same FIFO still. Nothing gets lost meanwhile.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const READ_LEN: usize = 4096;
/// Reads between two looks, and two words to the groups: a whole pipe of 64 KiB.
const READS_PER_TURN: usize = 16;

/// What an operator is told who asks for a role that keepalived decides.
pub(crate) fn refusal(instance: &Name) -> String {
    format!("keepalived decides the role ({instance}); change its priority there, or stop it")
}

/// The newest word about an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// The state that it is in.
    pub state: State,
    /// Its priority.
    pub priority: u8,
    /// How many words this reader has heard of it; another number is a word that was said anew.
    pub number: u64,
}

impl Said {
    /// What it asks of the role machine.
    pub fn request(&self) -> RoleRequest {
        match self.state {
            State::Master => RoleRequest::Master,
            State::Backup | State::Fault | State::Stop | State::Deleted => RoleRequest::Backup,
        }
    }
}

/// What came out of a FIFO.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Lines about a followed instance.
    pub words: u64,
    /// Lines about anything else of keepalived's.
    pub others: u64,
    /// Lines of no form that keepalived has.
    pub malformed: u64,
    /// Lines with a state that nobody knows.
    pub unknown_states: u64,
    /// Lines that were too long to be read.
    pub too_long: u64,
}

impl Counters {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("words", self.words),
            ("others", self.others),
            ("malformed", self.malformed),
            ("unknown_states", self.unknown_states),
            ("too_long", self.too_long),
        ]
    }
}

/// A pipe with so many bytes was full when it was opened: 16 pages (pipe(7)), each less a line that did not fit into it.
const FULL_PIPE: usize = 16 * (4096 - line::LINE_LEN_MAX);

/// What a group is told: always all of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct News {
    /// The newest word; none while keepalived has said nothing.
    pub said: Option<Said>,
    /// Whether somebody has the FIFO open for writing.
    pub connected: bool,
    /// Why the FIFO cannot be read.
    pub trouble: Option<String>,
    /// What came out of it.
    pub counters: Counters,
}

/// Every FIFO that a group of this node follows, each with its thread.
#[derive(Debug, Default)]
pub struct Readers(Vec<Reader>);

/// A FIFO, those who follow it, and the thread that reads it.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    followers: Vec<(u8, Name)>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
}

impl Readers {
    /// Follows what `settings` say, for the groups behind `handles`; readers that are as they should be go on.
    ///
    /// # Errors
    /// The operating system's error: no thread or descriptor left.
    pub fn follow(&mut self, settings: &Settings, handles: &[GroupHandle]) -> io::Result<()> {
        let mut wanted: Vec<(PathBuf, Vec<Follower>)> = Vec::new();
        for group in &settings.groups {
            let Some((fifo, name)) = group.keepalived() else { continue };
            let Some(handle) = handles.iter().find(|handle| handle.sync_id == group.sync_id) else { continue };
            let follower = Follower { name: name.clone(), handle: handle.clone(), news: News::default() };
            match wanted.iter_mut().find(|(path, _)| path == fifo) {
                Some((_, followers)) => followers.push(follower),
                None => wanted.push((fifo.to_owned(), vec![follower])),
            }
        }
        let names = |followers: &[Follower]| -> Vec<(u8, Name)> {
            followers.iter().map(|follower| (follower.handle.sync_id, follower.name.clone())).collect()
        };
        let stays = |reader: &Reader| {
            wanted.iter().any(|(path, followers)| *path == reader.path && names(followers) == reader.followers)
        };
        // One pipe has one reader: those that go are gone before others come.
        self.0.retain(stays);
        for (path, followers) in wanted {
            if self.0.iter().all(|reader| reader.path != path) {
                self.0.push(Reader::start(path, names(&followers), followers)?);
            }
        }
        Ok(())
    }
}

impl Reader {
    fn start(path: PathBuf, names: Vec<(u8, Name)>, followers: Vec<Follower>) -> io::Result<Self> {
        let shared = Arc::new(Shared { waker: Waker::new()?, stop: AtomicBool::new(false) });
        let (mut ear, to_thread) = (Ear::new(&path, followers), Arc::clone(&shared));
        let body = move || {
            sandbox::opens_no_link();
            while !to_thread.stop.load(Ordering::Acquire) {
                let more = ear.turn();
                ear.rest(&to_thread.waker, more);
            }
        };
        let thread = std::thread::Builder::new().name("keepalived".into()).spawn(body)?;
        Ok(Reader { path, followers: names, shared, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reader of {} has panicked", self.path.display());
        }
    }
}

/// A group that follows an instance.
#[derive(Debug)]
struct Follower {
    name: Name,
    handle: GroupHandle,
    /// What it was told.
    news: News,
}

/// What the thread has.
#[derive(Debug)]
struct Ear {
    path: PathBuf,
    memory: PathBuf,
    fifo: Option<Fifo>,
    lines: Lines,
    connected: bool,
    /// Nothing has been recalled of this pipe yet.
    fresh: bool,
    /// Bytes that stood in the pipe at the start.
    waited: usize,
    trouble: Option<String>,
    counters: Counters,
    followers: Vec<Follower>,
    said: Vec<Option<Said>>,
    /// What was kept cannot be replaced; told once.
    forgetful: bool,
}

impl Ear {
    fn new(path: &Path, followers: Vec<Follower>) -> Self {
        Ear {
            path: path.to_owned(),
            memory: memory::beside(path),
            fifo: None,
            lines: Lines::default(),
            connected: false,
            fresh: true,
            waited: 0,
            trouble: None,
            counters: Counters::default(),
            said: vec![None; followers.len()],
            followers,
            forgetful: false,
        }
    }

    /// Reads what there is, looks where the path leads, and tells the groups; whether there may be more.
    fn turn(&mut self) -> bool {
        let before = self.said.clone();
        let mut more = self.listen();
        if !more && !self.fifo.as_ref().is_some_and(Fifo::is_at_its_path) {
            self.open();
            more = self.listen();
        }
        if self.said != before {
            self.keep();
        }
        self.tell();
        more
    }

    /// Waits for the next word, or for the next look.
    fn rest(&self, waker: &Waker, more: bool) {
        if more {
            return;
        }
        let descriptors = [Some(waker.as_fd()), self.fifo.as_ref().map(AsFd::as_fd)];
        let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
        if poll::wait(&descriptors, Some(LOOK_INTERVAL)).is_err() {
            std::thread::sleep(LOOK_INTERVAL);
        }
        waker.drain();
    }

    fn open(&mut self) {
        self.lines.forget();
        self.connected = false;
        match Fifo::open(&self.path) {
            Ok(fifo) => (self.fifo, self.trouble) = (Some(fifo), None),
            Err(error) => {
                self.fifo = None;
                self.trouble = Some(format!("keepalived_fifo {}: {error}", self.path.display()));
            }
        }
    }

    /// Takes what the pipe holds; whether there may be more.
    fn listen(&mut self) -> bool {
        let mut buffer = [0; READ_LEN];
        for _ in 0..READS_PER_TURN {
            let Some(fifo) = &mut self.fifo else { return false };
            match fifo.read(&mut buffer) {
                Ok(Found::Bytes(length)) => {
                    self.connected = true;
                    self.waited += if self.fresh { length } else { 0 };
                    self.hear(&buffer[..length]);
                }
                Ok(Found::Nothing) => {
                    self.connected = true;
                    self.recall();
                    return false;
                }
                Ok(Found::NoWriter) => {
                    // What nobody has open says nothing about who wrote it once.
                    self.fresh = false;
                    if self.connected {
                        self.open();
                    }
                    return false;
                }
                Err(error) => {
                    self.trouble = Some(format!("reading {}: {error}", self.path.display()));
                    self.fifo = None;
                    return false;
                }
            }
        }
        true
    }

    fn hear(&mut self, piece: &[u8]) {
        let Ear { lines, counters, followers, said, waited, fresh, trouble, .. } = self;
        lines.feed(piece, |line| match line.and_then(Line::parse) {
            Ok(line) => {
                let mut known = false;
                let full = *waited >= FULL_PIPE && !*fresh;
                for (follower, said) in followers.iter().zip(said.iter_mut()) {
                    let Some((state, priority)) = line.about(&follower.name) else { continue };
                    known = true;
                    let number = said.map_or(0, |said| said.number) + 1;
                    *said = Some(Said { state, priority, number });
                }
                let count = if known { &mut counters.words } else { &mut counters.others };
                *count += 1;
                // A word that was said since makes up for those that were lost.
                if known && full {
                    (*waited, *trouble) = (0, None);
                }
            }
            Err(Refused::Malformed) => counters.malformed += 1,
            Err(Refused::UnknownState) => counters.unknown_states += 1,
            Err(Refused::TooLong) => counters.too_long += 1,
        });
    }

    /// At the start: of whom the pipe says nothing, what was kept is true still.
    fn recall(&mut self) {
        let Some(fifo) = self.fifo.as_ref().filter(|_| std::mem::take(&mut self.fresh)) else { return };
        if self.waited >= FULL_PIPE {
            let path = self.path.display();
            self.trouble = Some(format!("{path} was full: keepalived's newest words may be lost; reload keepalived"));
        }
        for (follower, said) in self.followers.iter().zip(&mut self.said) {
            if said.is_none() {
                let kept = memory::recall(&self.memory, fifo.identity(), &follower.name);
                *said = kept.map(|(state, priority)| Said { state, priority, number: 0 });
            }
        }
    }

    fn keep(&mut self) {
        let Some(fifo) = &self.fifo else { return };
        let said = self.followers.iter().zip(&self.said);
        let said = said.filter_map(|(follower, said)| said.map(|said| (&follower.name, said.state, said.priority)));
        match memory::keep(&self.memory, fifo.identity(), said) {
            Ok(()) => self.forgetful = false,
            Err(error) => {
                if !std::mem::replace(&mut self.forgetful, true) {
                    tracing::warn!("{}: what keepalived says cannot be kept: {error}", self.memory.display());
                }
            }
        }
    }

    /// Whoever was told the same already is left alone.
    fn tell(&mut self) {
        for (follower, said) in self.followers.iter_mut().zip(&self.said) {
            let (connected, trouble, counters) = (self.connected, self.trouble.clone(), self.counters);
            let news = News { said: *said, connected, trouble, counters };
            if follower.news != news {
                follower.handle.drive(news.clone());
                follower.news = news;
            }
        }
    }
}

#[cfg(test)]
mod tests;
