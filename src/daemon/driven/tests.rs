//! FIFOs as keepalived uses them: an ear on one end, and on the other one a writer that comes, goes and babbles.

use super::*;
use crate::daemon::control::{self, GroupDesk};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// A directory with a FIFO, whoever reads it, and the desks of the groups that follow it.
struct Bench {
    path: PathBuf,
    ear: Ear,
    desks: Vec<GroupDesk>,
    place: tempfile::TempDir,
}

impl Bench {
    fn new(names: &[&str]) -> Self {
        Self::at(tempfile::tempdir().unwrap(), names)
    }

    fn at(place: tempfile::TempDir, names: &[&str]) -> Self {
        let path = place.path().join("keepalived.fifo");
        let (mut followers, mut desks) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            let (handle, desk) = control::desk(51 + number as u8).unwrap();
            followers.push(Follower { name: Name::parse(name).unwrap(), handle, news: News::default() });
            desks.push(desk);
        }
        Bench { ear: Ear::new(&path, followers), path, desks, place }
    }

    /// This program starts anew.
    fn restart(self, names: &[&str]) -> Self {
        drop(self.ear);
        Self::at(self.place, names)
    }

    /// Opens the FIFO as keepalived does, and makes it if it is not there.
    fn keepalived(&self) -> File {
        let _ = nix::unistd::mkfifo(&self.path, nix::sys::stat::Mode::S_IRWXU);
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.path).unwrap()
    }

    /// One turn, and what the first group is told then.
    fn turn(&mut self) -> Option<News> {
        self.ear.turn();
        self.desks[0].news()
    }

    fn state(&mut self) -> Option<(State, u64)> {
        let said = self.turn().and_then(|news| news.said)?;
        Some((said.state, said.number))
    }
}

#[test]
fn whoever_comes_first_makes_the_fifo_and_a_word_reaches_its_group_only() {
    let mut bench = Bench::new(&["VI_51", "group:G", "VI_52"]);
    assert_eq!(bench.turn(), None, "nobody is there, as nobody was before");
    let mut keepalived = bench.keepalived();
    assert!(bench.turn().unwrap().connected);
    keepalived.write_all(b"INSTANCE \"VI_51\" BACKUP 150\nGROUP \"G\" MASTER 0\nINSTANCE \"VI_9\" FAULT 1\n").unwrap();
    assert_eq!(bench.state(), Some((State::Backup, 1)));
    assert_eq!(bench.desks[1].news().unwrap().said.unwrap().state, State::Master);
    let third = bench.desks[2].news().unwrap();
    assert_eq!((third.said, third.counters.words, third.counters.others), (None, 2, 1));
    assert_eq!(bench.turn(), None, "nothing is new");
}

#[test]
fn what_was_said_before_this_program_started_is_heard() {
    let mut bench = Bench::new(&["VI_51"]);
    bench.keepalived().write_all(b"nobody keeps this").unwrap();
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" BACKUP 150\nINSTANCE \"VI_51\" MASTER 150\n").unwrap();
    assert_eq!(bench.state(), Some((State::Master, 2)));
}

#[test]
fn a_word_that_was_read_by_a_predecessor_is_true_while_the_writer_is_the_same() {
    let mut bench = Bench::new(&["VI_51"]);
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" MASTER 150\n").unwrap();
    assert_eq!(bench.state(), Some((State::Master, 1)));
    let mut bench = bench.restart(&["VI_51"]);
    assert_eq!(bench.state(), Some((State::Master, 0)));
    // What came meanwhile is newer.
    let bench = bench.restart(&["VI_51"]);
    keepalived.write_all(b"INSTANCE \"VI_51\" BACKUP 150\n").unwrap();
    let mut bench = bench.restart(&["VI_51"]);
    assert_eq!(bench.state(), Some((State::Backup, 1)));
    // keepalived is gone when this program starts: nobody knows.
    drop(keepalived);
    let mut bench = bench.restart(&["VI_51"]);
    assert_eq!(bench.turn(), None);
    let _keepalived = bench.keepalived();
    let found = bench.turn().unwrap();
    assert_eq!((found.connected, found.said), (true, None));
}

#[test]
fn a_keepalived_that_goes_is_told_and_one_that_comes_back_is_heard() {
    let mut bench = Bench::new(&["VI_51"]);
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" MASTER 150\nINSTANCE \"VI").unwrap();
    assert_eq!(bench.state(), Some((State::Master, 1)));
    drop(keepalived);
    let lost = bench.turn().unwrap();
    assert_eq!((lost.connected, lost.said.map(|said| said.state)), (false, Some(State::Master)));
    // Half a line of the old one is no beginning of the new one's.
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" BACKUP 150\n").unwrap();
    let back = bench.turn().unwrap();
    assert_eq!((back.connected, back.said.map(|said| said.state)), (true, Some(State::Backup)));
    assert_eq!(back.counters.malformed, 0);
}

#[test]
fn a_fifo_that_is_removed_and_made_anew_is_followed() {
    let mut bench = Bench::new(&["VI_51"]);
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" BACKUP 150\n").unwrap();
    assert_eq!(bench.state(), Some((State::Backup, 1)));
    // keepalived removes the FIFO that it has made, while it has it open still or no longer.
    std::fs::remove_file(&bench.path).unwrap();
    let mut newer = bench.keepalived();
    newer.write_all(b"INSTANCE \"VI_51\" MASTER 150\n").unwrap();
    assert_eq!(bench.state(), Some((State::Master, 2)));
    drop(newer);
    std::fs::remove_file(&bench.path).unwrap();
    assert!(!bench.turn().unwrap().connected);
    assert!(bench.path.exists(), "the next keepalived finds one, and will not remove it");
}

#[test]
fn garbage_is_counted_by_reason_and_changes_nothing() {
    let mut bench = Bench::new(&["VI_51"]);
    let mut keepalived = bench.keepalived();
    keepalived.write_all(b"INSTANCE \"VI_51\" MASTER 150\n").unwrap();
    bench.turn();
    keepalived.write_all(b"\0\xff\nINSTANCE \"VI_51\" SLAVE 1\nRS a b UP\n").unwrap();
    keepalived.write_all(&[b'x'; 513]).unwrap();
    keepalived.write_all(b"\nINSTANCE \"VI_51\" MAS").unwrap();
    let news = bench.turn().unwrap();
    assert_eq!(news.said.map(|said| (said.state, said.number)), Some((State::Master, 1)));
    let counted = Counters { words: 1, others: 1, malformed: 1, unknown_states: 1, too_long: 1 };
    assert_eq!(news.counters, counted);
    keepalived.write_all(b"TER 150\n").unwrap();
    assert_eq!(bench.state(), Some((State::Master, 2)));
}

#[test]
fn of_a_flood_only_the_newest_word_reaches_the_group_and_a_pipe_that_was_full_is_told() {
    let mut bench = Bench::new(&["VI_51"]);
    let mut keepalived = bench.keepalived();
    let mut written = 0;
    while keepalived.write_all(b"INSTANCE \"VI_51\" MASTER 150\nINSTANCE \"VI_51\" BACKUP 150\n").is_ok() {
        written += 2;
    }
    while bench.ear.turn() {}
    let news = bench.desks[0].news().unwrap();
    assert!(written > 2000, "{written}");
    assert_eq!((news.said.map(|said| said.state), news.counters.words >= written), (Some(State::Backup), true));
    assert!(news.trouble.unwrap().ends_with("was full: keepalived's newest words may be lost; reload keepalived"));
    assert_eq!(bench.desks[0].news(), None);
    keepalived.write_all(b"\nINSTANCE \"VI_51\" MASTER 150\n").unwrap();
    let news = bench.turn().unwrap();
    assert_eq!((news.said.map(|said| said.state), news.trouble), (Some(State::Master), None));
}

#[test]
fn what_is_no_fifo_is_told_and_a_fifo_in_its_place_cures_it() {
    let mut bench = Bench::new(&["VI_51"]);
    std::fs::write(&bench.path, "").unwrap();
    let trouble = bench.turn().unwrap().trouble.unwrap();
    assert!(trouble.ends_with("keepalived.fifo: it is no FIFO; remove it, or name another"), "{trouble}");
    std::fs::remove_file(&bench.path).unwrap();
    assert_eq!(bench.turn().unwrap().trouble, None);
}
