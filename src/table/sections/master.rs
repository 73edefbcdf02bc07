//! The master's side of sections: what the owner says goes in, values leave in parts.
//!
//! ```text
//!   wire queue   turn 7: a (1 MB, leaving)   8: b   9: c
//!   parts        a a a a …… a   b   c                      one value at a time, so that a follower can tell what is whole
//!   a changes    a a │ b  a' a' a' …… a'  c                 the rest of a is not sent; b goes first, then a anew
//! ```

use super::{Entry, Leaving, Name, PendingSection, Rest, SectionRefused, Sections, deadline, remaining};
use crate::flow::{Section, SectionKey};
use crate::table::Table;
use crate::table::entry::Version;
use crate::time::Instant;

impl Sections {
    /// What leaves next: what is leaving, or else who waits longest, unless that one yields.
    fn front(&self) -> Option<&Name> {
        if let Some(leaving) = &self.leaving {
            return Some(&leaving.name);
        }
        let yields = |turn: u64| self.yields == Some(turn);
        let mut waiting = self.wire.members.iter();
        let (turn, name) = waiting.next()?;
        if yields(*turn) { waiting.next().map(|(_, name)| name).or(Some(name)) } else { Some(name) }
    }

    /// The value that is leaving is not to be sent to its end.
    fn restart(&mut self, name: &Name) {
        if self.leaving.take_if(|leaving| leaving.name == *name).is_some() {
            self.yields = self.entries.get(name).and_then(|entry| entry.wire);
            self.restarted += 1;
        }
    }
}

impl Table {
    /// The owner says that the entry is this. Whether it now waits for the wire: because it is new, because its value is
    /// another, because its clock is [4.6.2], or because it waited already. The owner is newer than what waits for the
    /// sink: that is struck.
    ///
    /// # Errors
    /// [`SectionRefused::Key`], or [`SectionRefused::Full`]: the entry then stays as it was.
    pub fn put_section(&mut self, section: &Section, now: Instant) -> Result<bool, SectionRefused> {
        let (sections, digest) = (&mut self.sections, &mut self.digest);
        let name = Name::of(digest, &section.key).ok_or(SectionRefused::Key)?;
        if !sections.fits(&name, section.value.len() as u64) {
            return Err(SectionRefused::Full);
        }
        let deadline = deadline(section.expiry, now);
        let is_new = !sections.entries.contains_key(&name);
        let entry = sections.entry(&name);
        entry.unsent |= is_new;
        let news = entry.value.as_ref() != Some(&section.value) || entry.must_tell(deadline, now);
        let due = news || entry.wire.is_some();
        if news {
            sections.restart(&name);
        }
        sections.assign(digest, &name, Some(&section.value), deadline);
        sections.leave_sink(&name);
        if due {
            sections.join_wire(digest, &name);
        }
        Ok(due)
    }

    /// The owner says that the entry is gone; as [`Table::take`]. Whether it was held.
    pub fn take_section(&mut self, key: &SectionKey) -> bool {
        let Some(name) = Name::of(&self.digest, key) else { return false };
        self.take_named(&name)
    }

    fn take_named(&mut self, name: &Name) -> bool {
        let (sections, digest) = (&mut self.sections, &mut self.digest);
        let Some(&Entry { unsent, value: Some(_), .. }) = sections.entries.get(name) else { return false };
        sections.restart(name);
        sections.assign(digest, name, None, None);
        sections.leave_sink(name);
        if unsent {
            sections.leave_wire(digest, name);
            sections.free(name);
        } else {
            sections.join_wire(digest, name);
        }
        true
    }

    /// Entries of sections that wait to be sent, or are not sent to their end.
    pub fn pending_sections(&self) -> u32 {
        self.sections.wire.len()
    }

    /// What leaves next of sections.
    pub fn peek_section(&self, now: Instant) -> Option<PendingSection<'_>> {
        let name = self.sections.front()?;
        let entry = self.sections.entries.get(name)?;
        let rest = entry.value.as_ref().map(|value| {
            let leaving = self.sections.leaving.as_ref();
            let offset = leaving.map_or(0, |leaving| leaving.offset);
            Rest {
                expiry: remaining(entry.deadline, now),
                total: value.len() as u32,
                offset: offset as u32,
                first: leaving.map(|leaving| leaving.first),
                bytes: &value[offset..],
            }
        });
        Some(PendingSection { key: &name.key, rest })
    }

    /// Bytes of the value that leaves next which have not left.
    pub fn section_bytes_leaving(&self) -> usize {
        self.peek_section(Instant::ZERO).and_then(|it| it.rest).map_or(0, |rest| rest.bytes.len())
    }

    /// So many bytes of what [`Table::peek_section`] showed went out in frame `number` of the own stream; of a delete, or an
    /// empty value, none. Whether what comes next may stand in the same frame: no value begins anew in the frame that brings
    /// its end.
    pub fn section_sent(&mut self, number: u64, length: usize) -> bool {
        let (sections, digest) = (&mut self.sections, &mut self.digest);
        let Some(name) = sections.front().cloned() else { return false };
        let Some(entry) = sections.entries.get_mut(&name) else { return false };
        digest.touch(name.hash, number);
        entry.unsent = false;
        let leaving = sections.leaving.take();
        let (first, offset, again) = leaving.map_or((number, 0, false), |it| (it.first, it.offset, it.again));
        let offset = offset + length;
        if entry.value.as_ref().is_some_and(|value| offset < value.len()) {
            sections.leaving = Some(Leaving { name, first, offset, again });
            return true;
        }
        entry.version = Version::new(self.ordinal, first);
        entry.told = entry.deadline;
        sections.yields = None;
        if !again {
            sections.leave_wire(digest, &name);
            sections.free(&name);
        }
        !again
    }

    /// The numbers of the frames that have left mean nothing any more: a value of which parts have left leaves anew.
    pub fn restart_section(&mut self) {
        self.sections.leaving = None;
    }

    /// Every entry of a bucket is to be sent, for a walk [4.5.2]. One that is leaving already is sent once more, because its
    /// version is from before the walk. How many it adds to the queue.
    pub(in crate::table) fn queue_sections(&mut self, bucket: u16) -> u32 {
        let is_wanted = |(_, entry): &(&Name, &Entry)| entry.value.is_some() && entry.wire.is_none();
        let names: Vec<Name> =
            self.sections.of_bucket(bucket).filter(is_wanted).map(|(name, _)| name.clone()).collect();
        if let Some(leaving) = &mut self.sections.leaving {
            leaving.again |= crate::table::bucket_of_hash(leaving.name.hash) == bucket;
        }
        names.iter().for_each(|name| self.sections.join_wire(&mut self.digest, name));
        names.len() as u32
    }

    /// A mark: every entry that waits for the wire now has a turn below it, and every later one has not.
    pub fn section_mark(&self) -> u64 {
        self.sections.wire.next
    }

    /// Whether all entries that waited when this mark was taken have left, to their end, or need not be sent any more.
    pub fn sections_left(&self, mark: u64) -> bool {
        self.sections.wire.oldest() >= mark
    }

    /// The same of the entries of one bucket.
    pub fn bucket_sections_left(&self, bucket: u16, mark: u64) -> bool {
        self.sections_left(mark)
            || self.sections.of_bucket(bucket).all(|(_, entry)| entry.wire.is_none_or(|turn| turn >= mark))
    }

    /// Takes entries whose time is over; only a master does [4.6.1]. How many were taken.
    pub fn expire_sections(&mut self, now: Instant) -> u32 {
        let mut taken = 0;
        while let Some((_, name)) = self.sections.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            self.take_named(&name);
            taken += 1;
        }
        taken
    }

    /// When the next entry's time is over.
    pub fn next_section_expiry(&self) -> Option<Instant> {
        self.sections.deadlines.first().map(|(at, _)| *at)
    }
}
