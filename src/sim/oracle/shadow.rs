//! What a node's table must hold, by all that went into it and came out: a plain map, beside the engine's own.
//!
//! ```text
//!   Name ─▶ Word { value, or none: deleted │ said by which stream, in which frame │ lives since │ named by which dump }
//! ```
//!
//! Deletes stay as words without a value: whoever brings the entry back with an older frame is found out by them.

use super::prints::{Map, Name, Print, Value};
use crate::time::Instant;

/// The newest word on one entry.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Word {
    /// What it is; `None`: it was deleted.
    pub(super) value: Option<Value>,
    /// Which of the streams that the node has followed said so, and in which frame.
    ordinal: u32,
    seq: u64,
    /// When it last came into being here.
    pub(super) since: Instant,
    /// The dump of the source that named it last.
    dump: u32,
    /// Whether the node remembers this delete nobody can tell: it may have refused it for want of room.
    pub(super) uncertain: bool,
}

/// One node's table, seen from outside.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    words: Map<Name, Word>,
    print: Print,
    ordinal: u32,
    dump: u32,
}

impl Shadow {
    pub(super) fn print(&self) -> Print {
        self.print
    }

    /// Words, deletes included.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn value(&self, name: Name) -> Option<Value> {
        self.words.get(&name)?.value
    }

    pub(super) fn word(&self, name: Name) -> Option<&Word> {
        self.words.get(&name)
    }

    /// The frame of the present stream that spoke last of this entry; 0 if none did.
    pub(super) fn seq(&self, name: Name) -> u64 {
        self.words.get(&name).filter(|word| word.ordinal == self.ordinal).map_or(0, |word| word.seq)
    }

    /// Whether the present stream, or the source in the present mastership, has spoken of this entry.
    pub(super) fn is_of_this_stream(&self, name: Name) -> bool {
        self.words.get(&name).is_some_and(|word| word.ordinal == self.ordinal)
    }

    /// Another stream begins: all that is held is older than all of it.
    pub(super) fn begin_stream(&mut self) {
        self.ordinal += 1;
    }

    /// Frame `seq` (0: no frame) says that the entry is this, or is gone.
    pub(super) fn put(&mut self, now: Instant, name: Name, value: Option<Value>, seq: u64) {
        let word = self.words.entry(name).or_default();
        if let Some(old) = word.value {
            self.print.remove(name, old);
        } else if value.is_some() {
            word.since = now;
        }
        if let Some(new) = value {
            self.print.add(name, new);
        }
        (word.value, word.ordinal, word.seq, word.uncertain) = (value, self.ordinal, seq, false);
        word.dump = self.dump;
    }

    pub(super) fn doubt(&mut self, name: Name) {
        if let Some(word) = self.words.get_mut(&name) {
            word.uncertain = true;
        }
    }

    /// A dump of the source begins: nothing is named yet.
    pub(super) fn begin_dump(&mut self) {
        self.dump += 1;
    }

    /// What lives and was not named since the dump began.
    pub(super) fn unnamed(&self) -> Vec<Name> {
        let unnamed = self.words.iter().filter(|(_, word)| word.value.is_some() && word.dump != self.dump);
        unnamed.map(|(name, _)| *name).collect()
    }

    /// Every living entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Name, Value)> + '_ {
        self.words.iter().filter_map(|(name, word)| Some((*name, word.value?)))
    }

    /// Forgets deletes that no frame can undo any more: those up to the frontier, and of former streams; but for those
    /// that `keep` wants.
    pub(super) fn purge(&mut self, frontier: u64, keep: impl Fn(Name) -> bool) {
        let ordinal = self.ordinal;
        self.words.retain(|name, word| {
            word.value.is_some() || (word.ordinal == ordinal && word.seq > frontier) || keep(*name)
        });
    }
}
