//! The lines that keepalived writes to its FIFO (keepalived.conf(5), `notify_fifo` and `vrrp_sync_group`).
//!
//! ```text
//!   INSTANCE "VI_51" MASTER 150       kind, name in quotes, state, priority
//!   GROUP "G" BACKUP 0                a sync group has no priority: 0
//!   VS [192.0.2.10]:tcp:80 UP         of the health checkers: nothing of ours
//! ```

use crate::planted::{Plant, planted};
use std::fmt;

/// Longest line that is read: keepalived's names are shorter by far.
pub const LINE_LEN_MAX: usize = 512;

/// Who is followed: one of keepalived's instances, or one of its sync groups.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Name {
    /// `vrrp_instance`.
    Instance(String),
    /// `vrrp_sync_group`.
    Group(String),
}

impl Name {
    /// Reads `VI_51` or `group:G`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, kind): (&str, fn(String) -> Name) = match text.strip_prefix("group:") {
            Some(name) => (name, Name::Group),
            None => (text, Name::Instance),
        };
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(|c: char| c == '"' || c.is_control()) {
            return Err(format!("\"{text}\" is no name of keepalived's; write \"VI_51\", or \"group:NAME\""));
        }
        Ok(kind(name.to_owned()))
    }

    /// Its kind and its name, as a line says them.
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Name::Instance(name) => ("INSTANCE", name),
            Name::Group(name) => ("GROUP", name),
        }
    }

    fn is(&self, kind: &str, name: &str) -> bool {
        self.words() == (kind, name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Instance(name) => f.write_str(name),
            Name::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// Longest name, so that its line fits.
const NAME_LEN_MAX: usize = LINE_LEN_MAX - 64;

/// What keepalived says of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It holds the addresses.
    Master,
    /// Another does.
    Backup,
    /// Something that it tracks is broken.
    Fault,
    /// keepalived ends.
    Stop,
    /// The instance is no longer configured.
    Deleted,
}

impl State {
    /// keepalived's word for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Master => "MASTER",
            State::Backup => "BACKUP",
            State::Fault => "FAULT",
            State::Stop => "STOP",
            State::Deleted => "DELETED",
        }
    }

    /// The words of a FIFO. Some are told again to a state that is not new, and name it.
    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "MASTER" | "MASTER_RX_LOWER_PRI" | "MASTER_PRIORITY" => State::Master,
            "BACKUP" | "BACKUP_PRIORITY" => State::Backup,
            "FAULT" => State::Fault,
            "STOP" => State::Stop,
            "DELETED" => State::Deleted,
            _ => return None,
        })
    }
}

/// Why a line was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is none of keepalived's forms.
    Malformed,
    /// Its state is a word that nobody knows.
    UnknownState,
    /// It is longer than [`LINE_LEN_MAX`].
    TooLong,
}

/// What a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// An instance or a sync group is in a state.
    State {
        /// `INSTANCE` or `GROUP`.
        kind: &'a str,
        /// Its name.
        name: &'a str,
        /// The state.
        state: State,
        /// Its priority, 0 to 255; 0 for a sync group.
        priority: u8,
    },
    /// Something about a virtual or a real server.
    Server,
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn parse(line: &'a [u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(line).map_err(|_| Refused::Malformed)?;
        let (kind, rest) = text.split_once(' ').ok_or(Refused::Malformed)?;
        match kind {
            "VS" | "RS" => return Ok(Line::Server),
            "INSTANCE" | "GROUP" => {}
            _ => return Err(Refused::Malformed),
        }
        let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once("\" "));
        let (name, rest) = quoted.ok_or(Refused::Malformed)?;
        let (word, priority) = rest.split_once(' ').ok_or(Refused::Malformed)?;
        let priority = priority.parse().map_err(|_| Refused::Malformed)?;
        let state = State::of_word(word).ok_or(Refused::UnknownState)?;
        Ok(Line::State { kind, name, state, priority })
    }

    /// State and priority, if the line is about `wanted`.
    pub fn about(&self, wanted: &Name) -> Option<(State, u8)> {
        match *self {
            Line::State { kind, name, state, priority } if wanted.is(kind, name) => Some((state, priority)),
            _ => None,
        }
    }
}

/// Cuts what comes out of a FIFO, piece by piece, into lines; remembers at most one line.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// The line that is being read is too long, and its rest is not kept.
    skips: bool,
}

impl Lines {
    /// Takes a piece, and gives every line that is complete, or why there is none.
    pub fn feed(&mut self, piece: &[u8], mut each: impl FnMut(Result<&[u8], Refused>)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = match part.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (part, false),
            };
            let begun = if planted(Plant::LineLength) { 0 } else { self.begun.len() };
            if self.skips || begun + part.len() > LINE_LEN_MAX {
                self.skips = true;
                self.begun.clear();
            } else {
                self.begun.extend_from_slice(part);
            }
            if ends {
                each(if self.skips { Err(Refused::TooLong) } else { Ok(&self.begun) });
                self.forget();
            }
        }
    }

    /// Forgets a line that was begun: nobody will end it.
    pub fn forget(&mut self) {
        self.begun.clear();
        self.skips = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As keepalived 2.2.7 writes them.
    #[test]
    fn lines_of_instances_and_groups_are_read_and_those_of_servers_are_known() {
        let state = |line| match Line::parse(line) {
            Ok(Line::State { kind, name, state, priority }) => (kind, name, state, priority),
            other => panic!("{other:?}"),
        };
        assert_eq!(state(b"INSTANCE \"VI_51\" MASTER 150"), ("INSTANCE", "VI_51", State::Master, 150));
        assert_eq!(state(b"GROUP \"G\" BACKUP 0"), ("GROUP", "G", State::Backup, 0));
        assert_eq!(state(b"INSTANCE \"VI_51\" FAULT 255"), ("INSTANCE", "VI_51", State::Fault, 255));
        assert_eq!(state(b"INSTANCE \"VI_51\" STOP 150").2, State::Stop);
        assert_eq!(state(b"INSTANCE \"VI_51\" DELETED 150").2, State::Deleted);
        assert_eq!(state(b"INSTANCE \"VI_51\" MASTER_RX_LOWER_PRI 150").2, State::Master);
        assert_eq!(state(b"INSTANCE \"VI_51\" MASTER_PRIORITY 90").2, State::Master);
        assert_eq!(state(b"INSTANCE \"VI_51\" BACKUP_PRIORITY 90").2, State::Backup);
        assert_eq!(state(b"INSTANCE \"two words\" MASTER 1").1, "two words");
        assert_eq!(Line::parse(b"VS [192.0.2.10]:tcp:80 UP"), Ok(Line::Server));
        assert_eq!(Line::parse(b"RS [192.0.2.20]:tcp:80 [192.0.2.10]:tcp:80 DOWN"), Ok(Line::Server));
    }

    #[test]
    fn whatever_else_comes_is_refused_for_a_reason() {
        for line in [
            "",
            "MASTER",
            "INSTANCE VI_51 MASTER 150",
            "INSTANCE \"VI_51 MASTER 150",
            "INSTANCE \"VI_51\" MASTER",
            "INSTANCE \"VI_51\" MASTER many",
            "INSTANCE \"VI_51\" MASTER 256",
            "INSTANCE \"VI_51\" MASTER 150 ",
            "instance \"VI_51\" MASTER 150",
        ] {
            assert_eq!(Line::parse(line.as_bytes()), Err(Refused::Malformed), "{line}");
        }
        assert_eq!(Line::parse(b"INSTANCE \"\xff\" MASTER 150"), Err(Refused::Malformed));
        assert_eq!(Line::parse(b"INSTANCE \"VI_51\" master 150"), Err(Refused::UnknownState));
    }

    #[test]
    fn a_name_is_an_instance_unless_it_is_called_a_group_and_each_hears_its_own_lines_only() {
        let (instance, group) = (Name::parse("VI_51").unwrap(), Name::parse("group:VI_51").unwrap());
        let line = Line::parse(b"INSTANCE \"VI_51\" MASTER 150").unwrap();
        assert_eq!((line.about(&instance), line.about(&group)), (Some((State::Master, 150)), None));
        let line = Line::parse(b"GROUP \"VI_51\" FAULT 0").unwrap();
        assert_eq!((line.about(&instance), line.about(&group)), (None, Some((State::Fault, 0))));
        assert_eq!(line.about(&Name::parse("group:VI_5").unwrap()), None);
        assert_eq!((instance.to_string(), group.to_string()), ("VI_51".into(), "group:VI_51".into()));
        for wrong in ["", "group:", "a\"b", "a\nb", &"x".repeat(449)] {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn cut(pieces: &[&[u8]]) -> Vec<Result<String, Refused>> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, |line| seen.push(line.map(|line| String::from_utf8_lossy(line).into_owned())));
        }
        seen
    }

    #[test]
    fn a_line_may_come_in_pieces_and_pieces_may_hold_several() {
        assert_eq!(cut(&[b"ab\ncd", b"", b"e\n\nf"]), [Ok("ab".into()), Ok("cde".into()), Ok("".into())]);
    }

    #[test]
    fn a_line_of_512_bytes_is_read_and_a_longer_one_is_skipped_to_its_end() {
        let long = [b'x'; 512];
        assert_eq!(cut(&[&long, b"\n"])[0].as_ref().map(String::len), Ok(512));
        assert_eq!(cut(&[&long, b"y", &long, b"z\nab\n"]), [Err(Refused::TooLong), Ok("ab".into())]);
    }

    #[test]
    fn a_line_whose_writer_has_gone_is_forgotten() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        lines.feed(b"INSTANCE \"VI", |_| unreachable!());
        lines.forget();
        lines.feed(b"ab\n", |line| seen.push(line.map(<[u8]>::to_vec)));
        assert_eq!(seen, [Ok(b"ab".to_vec())]);
    }
}
