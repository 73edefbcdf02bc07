//! Keys and values that are no flows, as long as they like to be: what is held of them, who has yet to hear of it, and
//! what of it has come only in part. They share the table's streams, versions and digest with the flows.
//!
//! ```text
//!              put, take                                       apply_section, apply_section_delete
//!   owner ─────────────────▶ entries ─┬─ wire ─▶ frames, a value in parts:  ├──┤├──┤├──┤├─┤
//!                                     │                                      first          back = frames since first
//!   frames ─ partials ─ whole? ──────▶┴─ sink ─▶ owner of the backup
//! ```
//!
//! An entry stands under the hash of its key, so that a bucket is a range of the map. It may wait for the wire and for
//! the sink, and stays after its death as long as one of them, or the frontier, has yet to hear of it. Both queues go by
//! turns, numbers that only grow: "all that waited then has left" is a comparison with the oldest turn.
//!
//! Allocation is bounded by [`SectionLimits`], and happens only where there are sections.

mod backup;
mod master;
mod partial;

use super::Faults;
use super::Table;
use super::digest::{Digest, bucket_of_hash, first_hash};
use super::entry::Version;
use crate::flow::{Section, SectionKey};
use crate::time::{Duration, Instant};
use partial::Partials;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Longest key of an entry, in bytes.
pub const SECTION_KEY_MAX: usize = 256;

/// How much is held of sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionLimits {
    /// Most entries, those included that are gone while somebody has yet to hear of it.
    pub entries: u32,
    /// Most bytes of all their keys and values.
    pub bytes: u32,
    /// Most bytes of parts that came before what is missing; see [`Table::apply_section`].
    pub partial_bytes: u32,
}

impl Default for SectionLimits {
    fn default() -> Self {
        SectionLimits { entries: 4096, bytes: 16 << 20, partial_bytes: 4 << 20 }
    }
}

/// Why a change to a section was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SectionRefused {
    /// A key has 1 to 256 bytes.
    #[error("the key of a section's entry has 1 to 256 bytes")]
    Key,
    /// No room for another entry, or for so long a value. One that is held keeps the value that it had.
    #[error("the sections are full")]
    Full,
    /// No room for a delete that came before what it deletes; the frame counts as not received [4.2.3].
    #[error("no room for a tombstone among the sections")]
    TombstonesFull,
    /// No room for a part that came before others; the frame counts as not received [3.3.12].
    #[error("too many bytes of values that have come only in part")]
    PartialFull,
    /// Its value can never be whole: parts before it were never received, or it contradicts them [3.3.12].
    #[error("a part of a value that can never be whole")]
    Stray,
}

/// A value of a frame, or a part of one, as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionPart<'a> {
    /// Seconds that remain; 0 is never.
    pub expiry: u32,
    /// Bytes of the whole value.
    pub total: u32,
    /// Where in the value `bytes` stand.
    pub offset: u32,
    /// Frames since the one with offset 0.
    pub back: u32,
    /// Not beyond `total`.
    pub bytes: &'a [u8],
}

/// What waits longest for the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingSection<'a> {
    /// Which entry.
    pub key: &'a SectionKey,
    /// What of its value has not left; `None`: it is gone.
    pub rest: Option<Rest<'a>>,
}

/// What of a value has not left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest<'a> {
    /// Seconds that remain; 0 is never.
    pub expiry: u32,
    /// Bytes of the whole value.
    pub total: u32,
    /// Where in the value `bytes` stand.
    pub offset: u32,
    /// The frame in which offset 0 left; `None` if nothing has left.
    pub first: Option<u64>,
    /// The rest.
    pub bytes: &'a [u8],
}

/// Where an entry stands: its hash first, so that those of a bucket are neighbours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Name {
    hash: u64,
    key: Arc<SectionKey>,
}

impl Name {
    fn new(digest: &Digest, key: &SectionKey) -> Name {
        Name { hash: digest.of_bytes(&encode(key, &[])), key: Arc::new(key.clone()) }
    }

    /// `None` if a key has not 1 to [`SECTION_KEY_MAX`] bytes.
    fn of(digest: &Digest, key: &SectionKey) -> Option<Name> {
        (1..=SECTION_KEY_MAX).contains(&key.key.len()).then(|| Name::new(digest, key))
    }
}

/// The canonical encoding of an entry [4.4.2]: table, length of the key, key, value; of a key, the same without value.
fn encode(key: &SectionKey, value: &[u8]) -> Vec<u8> {
    let length = key.key.len() as u16;
    [&key.table.to_be_bytes()[..], &length.to_be_bytes(), &key.key, value].concat()
}

/// One entry.
#[derive(Default, Debug)]
struct Entry {
    /// `None`: gone, while the wire, the sink or the frontier has yet to hear of it.
    value: Option<Box<[u8]>>,
    /// Hash of the encoding, if it lives.
    digest: u64,
    version: Version,
    /// When it is forgotten; `None` is never.
    deadline: Option<Instant>,
    /// The deadline that the listener (a master's peers, a backup's sink) was told last.
    told: Option<Instant>,
    /// Its turn, if it waits to be sent.
    wire: Option<u64>,
    /// Its turn, if it waits for the sink.
    sink: Option<u64>,
    /// In no frame of this stream, and not held when it began.
    unsent: bool,
    /// Dead, and the frontier has not passed its version.
    tombstone: bool,
}

impl Entry {
    /// Whether the listener has to hear another deadline: "never" has become a time or the other way round, or one of the
    /// two is more than twice the other [4.6.2].
    fn must_tell(&self, deadline: Option<Instant>, now: Instant) -> bool {
        match (self.told, deadline) {
            (None, None) => false,
            (Some(told), Some(deadline)) => {
                let (told, new) = (u64::from(remaining(Some(told), now)), u64::from(remaining(Some(deadline), now)));
                new > 2 * told || told > 2 * new
            }
            _ => true,
        }
    }
}

/// When an entry is forgotten that has so many seconds left.
fn deadline(expiry: u32, now: Instant) -> Option<Instant> {
    (expiry > 0).then(|| now + Duration::from_secs(expiry.into()))
}

/// Seconds that are left, rounded up; 0 is never, so that the last second is never over.
fn remaining(deadline: Option<Instant>, now: Instant) -> u32 {
    let Some(deadline) = deadline else { return 0 };
    let seconds = (deadline - now).as_nanos().div_ceil(1_000_000_000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Who waits, in the order of their turns.
#[derive(Default, Debug)]
struct Queue {
    members: BTreeMap<u64, Name>,
    /// The next turn.
    next: u64,
}

impl Queue {
    fn join(&mut self, name: &Name) -> u64 {
        let turn = self.next;
        self.next += 1;
        self.members.insert(turn, name.clone());
        turn
    }

    fn len(&self) -> u32 {
        self.members.len() as u32
    }

    /// The turn of who waits longest; of the next to come if nobody waits.
    fn oldest(&self) -> u64 {
        self.members.keys().next().copied().unwrap_or(self.next)
    }
}

/// A value of which parts have left, and parts have not.
#[derive(Debug)]
struct Leaving {
    name: Name,
    /// The frame in which its first part left.
    first: u64,
    /// Bytes that have left.
    offset: usize,
    /// A walk has asked for it meanwhile: it leaves once more from the beginning.
    again: bool,
}

/// All of it.
#[derive(Default, Debug)]
pub(super) struct Sections {
    limits: SectionLimits,
    entries: BTreeMap<Name, Entry>,
    live: u32,
    /// Bytes of all keys and values.
    bytes: u64,
    wire: Queue,
    sink: Queue,
    /// Tombstones by number.
    graves: BTreeSet<(u64, Name)>,
    deadlines: BTreeSet<(Instant, Name)>,
    leaving: Option<Leaving>,
    /// The turn of a value that changed while it was leaving: another goes first, so that it cannot keep all others waiting.
    yields: Option<u64>,
    /// Values that changed while they were leaving.
    restarted: u64,
    partials: Partials,
    pub(super) faults: Faults,
}

impl Sections {
    pub(super) fn new(limits: SectionLimits) -> Self {
        Sections { limits, partials: Partials::new(limits.partial_bytes), ..Sections::default() }
    }

    pub(super) fn len(&self) -> u32 {
        self.live
    }

    pub(super) fn room(&self) -> u32 {
        self.limits.entries.saturating_sub(self.entries.len() as u32)
    }

    /// A stream begins: as [`Table::begin_stream`] says of flows. What has come in part never gets whole.
    pub(super) fn begin_stream(&mut self, digest: &mut Digest) {
        (self.leaving, self.yields) = (None, None);
        self.partials.clear();
        self.graves.clear();
        for name in std::mem::take(&mut self.wire.members).into_values() {
            digest.bucket_mut(name.hash).pending -= 1;
        }
        self.entries.retain(|name, entry| {
            (entry.wire, entry.unsent, entry.tombstone) = (None, false, false);
            let stays = entry.value.is_some() || entry.sink.is_some();
            self.bytes -= if stays { 0 } else { name.key.key.len() as u64 };
            stays
        });
    }

    /// The streams are counted anew: all that is held is of none.
    pub(super) fn forget_versions(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.version = Version::default());
    }

    /// The digest has another seed, and is empty: every entry gets its place and hash anew. Queues keep their turns.
    pub(super) fn reseed(&mut self, digest: &mut Digest) {
        self.partials.clear();
        self.leaving = None;
        self.graves.clear();
        self.deadlines.clear();
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            let name = Name::new(digest, &name.key);
            if let Some(value) = &entry.value {
                entry.digest = digest.of_bytes(&encode(&name.key, value));
                digest.add(name.hash, entry.digest);
            }
            if let Some(turn) = entry.wire {
                digest.bucket_mut(name.hash).pending += 1;
                self.wire.members.insert(turn, name.clone());
            }
            if let Some(turn) = entry.sink {
                self.sink.members.insert(turn, name.clone());
            }
            if entry.tombstone {
                self.graves.insert((entry.version.number(), name.clone()));
            }
            self.deadlines.extend(entry.deadline.map(|at| (at, name.clone())));
            self.entries.insert(name, entry);
        }
    }

    /// Whether there is room for a value of so many bytes under this key.
    fn fits(&self, name: &Name, length: u64) -> bool {
        let held = self.entries.get(name);
        let (key, old) = match held {
            None => (name.key.key.len() as u64, 0),
            Some(entry) => (0, entry.value.as_ref().map_or(0, |value| value.len() as u64)),
        };
        let is_room = held.is_some() || self.room() > 0;
        is_room && self.bytes - old + key + length <= u64::from(self.limits.bytes)
    }

    /// The entry of this name; a new one is dead, on no queue, and of no stream.
    fn entry(&mut self, name: &Name) -> &mut Entry {
        self.entries.entry(name.clone()).or_insert_with(|| {
            self.bytes += name.key.key.len() as u64;
            Entry::default()
        })
    }

    /// Gives a held entry a value, or takes it away, with its clock.
    fn assign(&mut self, digest: &mut Digest, name: &Name, value: Option<&[u8]>, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(at) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(at, name.clone()));
        }
        self.deadlines.extend(deadline.map(|at| (at, name.clone())));
        if entry.value.as_deref() == value {
            return;
        }
        if let Some(old) = entry.value.take() {
            digest.remove(name.hash, entry.digest);
            self.live -= 1;
            self.bytes -= old.len() as u64;
        }
        if let Some(value) = value {
            entry.digest = digest.of_bytes(&encode(&name.key, value));
            digest.add(name.hash, entry.digest);
            self.live += 1;
            self.bytes += value.len() as u64;
            entry.value = Some(value.into());
        }
    }

    fn join_wire(&mut self, digest: &mut Digest, name: &Name) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.wire.is_none()) else { return };
        entry.wire = Some(self.wire.join(name));
        digest.bucket_mut(name.hash).pending += 1;
    }

    fn leave_wire(&mut self, digest: &mut Digest, name: &Name) {
        let Some(turn) = self.entries.get_mut(name).and_then(|entry| entry.wire.take()) else { return };
        self.wire.members.remove(&turn);
        digest.bucket_mut(name.hash).pending -= 1;
    }

    fn join_sink(&mut self, name: &Name) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.sink.is_none()) else { return };
        entry.sink = Some(self.sink.join(name));
    }

    fn leave_sink(&mut self, name: &Name) {
        let Some(turn) = self.entries.get_mut(name).and_then(|entry| entry.sink.take()) else { return };
        self.sink.members.remove(&turn);
    }

    /// Forgets a dead entry that nobody waits for.
    fn free(&mut self, name: &Name) {
        let is_idle =
            |entry: &Entry| entry.value.is_none() && entry.wire.is_none() && entry.sink.is_none() && !entry.tombstone;
        if self.entries.get(name).is_some_and(is_idle) {
            self.entries.remove(name);
            self.bytes -= name.key.key.len() as u64;
        }
    }

    /// The entries of a bucket.
    fn of_bucket(&self, bucket: u16) -> impl Iterator<Item = (&Name, &Entry)> {
        // No key is as short as this one: it stands before all others of its hash.
        let lowest = Name { hash: first_hash(bucket), key: Arc::new(SectionKey { table: 0, key: Box::default() }) };
        let is_in = move |(name, _): &(&Name, &Entry)| bucket_of_hash(name.hash) == bucket;
        self.entries.range(lowest..).take_while(is_in)
    }

    /// Asserts all that must be true between two calls, and adds what is held to an empty digest; O(n), for tests.
    pub(super) fn assert_consistent(&self, digest: &mut Digest) {
        let count = |what: &dyn Fn(&Entry) -> bool| self.entries.values().filter(|entry| what(entry)).count();
        assert_eq!(self.live as usize, count(&|entry| entry.value.is_some()), "live sections");
        assert_eq!(self.wire.members.len(), count(&|entry| entry.wire.is_some()), "sections on the wire queue");
        assert_eq!(self.sink.members.len(), count(&|entry| entry.sink.is_some()), "sections on the sink queue");
        assert_eq!(self.graves.len(), count(&|entry| entry.tombstone), "tombstones of sections");
        assert_eq!(self.deadlines.len(), count(&|entry| entry.deadline.is_some()), "clocks of sections");
        let held = |(name, entry): (&Name, &Entry)| name.key.key.len() + entry.value.as_ref().map_or(0, |it| it.len());
        assert_eq!(self.bytes, self.entries.iter().map(held).sum::<usize>() as u64, "bytes of sections");
        assert!(self.entries.len() <= self.limits.entries as usize, "too many sections");
        assert!(self.bytes <= u64::from(self.limits.bytes), "too many bytes of sections");
        for (name, entry) in &self.entries {
            assert_eq!(name.hash, Name::new(digest, &name.key).hash, "a section in another's place");
            assert!(entry.wire.is_none_or(|turn| self.wire.members.get(&turn) == Some(name)), "wire");
            assert!(entry.sink.is_none_or(|turn| self.sink.members.get(&turn) == Some(name)), "sink");
            assert!(entry.deadline.is_none_or(|at| self.deadlines.contains(&(at, name.clone()))), "clock");
            assert!(!entry.tombstone || self.graves.contains(&(entry.version.number(), name.clone())), "grave");
            digest.bucket_mut(name.hash).pending += u32::from(entry.wire.is_some());
            match &entry.value {
                Some(value) => digest.add(name.hash, digest.of_bytes(&encode(&name.key, value))),
                None => assert!(
                    entry.wire.is_some() || entry.sink.is_some() || entry.tombstone,
                    "a dead section that nobody waits for"
                ),
            }
            assert!(entry.value.is_none() || !entry.tombstone, "a living tombstone");
        }
        self.partials.assert_consistent();
    }
}

impl Table {
    /// The table with other limits of its sections, before the first of them comes.
    #[must_use]
    pub fn with_section_limits(mut self, limits: SectionLimits) -> Table {
        self.sections = Sections::new(limits);
        self
    }

    /// The entry of a section, with the seconds that it has left; `None` if it is not held.
    pub fn section(&self, key: &SectionKey, now: Instant) -> Option<Section> {
        let name = Name::of(&self.digest, key)?;
        let entry = self.sections.entries.get(&name)?;
        entry.value.as_ref().map(|value| Section {
            key: key.clone(),
            value: value.clone(),
            expiry: remaining(entry.deadline, now),
        })
    }

    /// Every entry of every section, in the order of tables and keys.
    pub fn sections(&self, now: Instant) -> impl Iterator<Item = Section> + '_ {
        let live = self.sections.entries.iter().filter_map(|(name, entry)| Some((name, entry, entry.value.as_ref()?)));
        let mut live: Vec<_> = live.collect();
        live.sort_unstable_by_key(|(name, ..)| &name.key);
        live.into_iter().map(move |(name, entry, value)| Section {
            key: (*name.key).clone(),
            value: value.clone(),
            expiry: remaining(entry.deadline, now),
        })
    }

    /// The same without values, which may be long: key, length of the value, seconds that it has left.
    pub fn section_list(&self, now: Instant) -> impl Iterator<Item = (&SectionKey, usize, u32)> {
        let live = self.sections.entries.iter().filter_map(|(name, entry)| Some((name, entry, entry.value.as_ref()?)));
        let mut live: Vec<_> = live.collect();
        live.sort_unstable_by_key(|(name, ..)| &name.key);
        live.into_iter().map(move |(name, entry, value)| (&*name.key, value.len(), remaining(entry.deadline, now)))
    }

    /// Entries of sections that are held.
    pub fn sections_len(&self) -> u32 {
        self.sections.live
    }

    /// New keys of sections that would be taken now, if their bytes fit.
    pub fn section_room(&self) -> u32 {
        self.sections.room()
    }

    /// Bytes of the keys and values of sections, the dead included that somebody has yet to hear of.
    pub fn section_bytes(&self) -> u64 {
        self.sections.bytes
    }

    /// Bytes that parts of values take, see [`SectionLimits::partial_bytes`].
    pub fn partial_bytes(&self) -> u64 {
        self.sections.partials.held()
    }

    /// Partial values that were discarded, because something newer made them worthless or because they can never get
    /// whole.
    pub fn partials_discarded(&self) -> u64 {
        self.sections.partials.discarded()
    }

    /// Values that changed while they were being sent, so that the rest of them was not.
    pub fn sections_restarted(&self) -> u64 {
        self.sections.restarted
    }

    /// The bucket of an entry's key, below [`BUCKETS`](super::BUCKETS); 0 for a key that has no form.
    pub fn bucket_of_section(&self, key: &SectionKey) -> u16 {
        Name::of(&self.digest, key).map_or(0, |name| bucket_of_hash(name.hash))
    }

    /// Frame `number` of the followed stream said something about this entry that was refused; as [`Table::touch`].
    pub fn touch_section(&mut self, key: &SectionKey, number: u64) {
        if let Some(name) = Name::of(&self.digest, key) {
            self.digest.touch(name.hash, number);
        }
    }
}
