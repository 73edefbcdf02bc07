//! The backup's side of sections: parts go in, in any order, and the sink hears of what is whole.

use super::{Entry, Name, SectionPart, SectionRefused, Sections, deadline, remaining};
use crate::flow::{Section, SectionChange, SectionKey};
use crate::planted::{Plant, planted};
use crate::table::digest::Digest;
use crate::table::entry::Version;
use crate::table::{Applied, Table};
use crate::time::Instant;

impl Sections {
    /// A whole value of the followed stream. There is room for it.
    fn accept(
        &mut self,
        digest: &mut Digest,
        name: &Name,
        version: Version,
        value: &[u8],
        clock: (Option<Instant>, Instant),
    ) -> Applied {
        let (deadline, now) = clock;
        let entry = self.entry(name);
        let changed = entry.value.as_deref() != Some(value);
        let due = changed || entry.must_tell(deadline, now);
        let old = std::mem::replace(&mut entry.version, version);
        if std::mem::take(&mut entry.tombstone) {
            self.graves.remove(&(old.number(), name.clone()));
        }
        self.leave_wire(digest, name);
        self.assign(digest, name, Some(value), deadline);
        if due {
            self.join_sink(name);
        }
        if changed { Applied::Changed } else { Applied::Unchanged }
    }

    /// There is no room for the value that this version has: what is held stays as it is, and counts as named.
    fn keep_former(&mut self, name: &Name, version: Version) {
        self.partials.makes_way(name, version.number() + 1);
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.value.is_some()) {
            entry.version = version;
        }
    }

    /// The frontier stands at `frontier` now; as [`Table::passed`].
    pub(in crate::table) fn passed(&mut self, frontier: u64) {
        self.partials.passed(frontier);
        while self.graves.first().is_some_and(|(number, _)| *number <= frontier) {
            let Some((_, name)) = self.graves.pop_first() else { return };
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.tombstone = false;
            }
            self.free(&name);
        }
    }
}

impl Table {
    /// Frame `number` of the followed stream brings a value of a section, or a part of one, while the frontier stands at
    /// `frontier`. The version of the value is the number of the frame that brought its first part [3.3.12]; it applies
    /// when it is whole, if the key is unknown or its version is older [4.2.1].
    ///
    /// A part in frame `frontier` + 1 needs no room among the partial values: whatever stands before it has come, so
    /// that there is one such value at most, which needs its room among the entries anyway.
    ///
    /// # Errors
    /// [`SectionRefused::Full`], and what is held counts as named; [`SectionRefused::PartialFull`], and the frame counts as
    /// not received; [`SectionRefused::Stray`]; [`SectionRefused::Key`].
    pub fn apply_section(
        &mut self,
        key: &SectionKey,
        part: &SectionPart<'_>,
        number: u64,
        frontier: u64,
        now: Instant,
    ) -> Result<Applied, SectionRefused> {
        self.passed(frontier);
        let (sections, digest) = (&mut self.sections, &mut self.digest);
        let name = Name::of(digest, key).ok_or(SectionRefused::Key)?;
        let first = number.checked_sub(part.back.into()).filter(|first| *first > 0).ok_or(SectionRefused::Stray)?;
        let end = u64::from(part.offset) + part.bytes.len() as u64;
        if end > u64::from(part.total) && !planted(Plant::SectionOffset) {
            return Err(SectionRefused::Stray);
        }
        let version = Version::new(self.ordinal, first);
        if sections.entries.get(&name).is_some_and(|entry| entry.version >= version) {
            return Ok(Applied::Older);
        }
        if !sections.fits(&name, part.total.into()) {
            sections.keep_former(&name, version);
            digest.touch(name.hash, number);
            return Err(SectionRefused::Full);
        }
        let deadline = deadline(part.expiry, now);
        if part.bytes.len() as u64 == u64::from(part.total) {
            sections.partials.makes_way(&name, first);
            digest.touch(name.hash, number);
            return Ok(sections.accept(digest, &name, version, part.bytes, (deadline, now)));
        }
        let in_order = number <= frontier.saturating_add(1);
        if sections.faults.parts_of_any_version() {
            sections.partials.adopt(&name, first);
        }
        let whole = sections.partials.add(&name, first, part, deadline, in_order)?;
        digest.touch(name.hash, number);
        Ok(match whole {
            Some((value, deadline)) => {
                sections.partials.makes_way(&name, first);
                sections.accept(digest, &name, version, &value, (deadline, now))
            }
            None => Applied::Unchanged,
        })
    }

    /// Frame `number` of the followed stream says that the entry is gone; as [`Table::apply_delete`].
    ///
    /// # Errors
    /// [`SectionRefused::TombstonesFull`] if it must leave a tombstone that finds no room; [`SectionRefused::Key`].
    pub fn apply_section_delete(
        &mut self,
        key: &SectionKey,
        number: u64,
        frontier: u64,
    ) -> Result<Applied, SectionRefused> {
        self.passed(frontier);
        let (sections, digest) = (&mut self.sections, &mut self.digest);
        let name = Name::of(digest, key).ok_or(SectionRefused::Key)?;
        let version = Version::new(self.ordinal, number);
        let held = sections.entries.get(&name);
        if held.is_some_and(|entry| entry.version >= version) {
            return Ok(Applied::Older);
        }
        let early = number > frontier.saturating_add(1);
        if early && held.is_none() && !sections.fits(&name, 0) {
            return Err(SectionRefused::TombstonesFull);
        }
        let lives = held.is_some_and(|entry| entry.value.is_some());
        // One that began later goes on: it is newer than this.
        sections.partials.makes_way(&name, number);
        digest.touch(name.hash, number);
        if lives {
            sections.leave_wire(digest, &name);
            sections.assign(digest, &name, None, None);
            sections.join_sink(&name);
        }
        if early || held_is_dead(sections, &name) {
            let entry = sections.entry(&name);
            let old = std::mem::replace(&mut entry.version, version);
            let was_tombstone = std::mem::replace(&mut entry.tombstone, early);
            if was_tombstone {
                sections.graves.remove(&(old.number(), name.clone()));
            }
            if early {
                sections.graves.insert((version.number(), name.clone()));
            }
            sections.free(&name);
        }
        Ok(if lives { Applied::Changed } else { Applied::Unchanged })
    }

    /// Entries of the bucket that the walk did not name die; as [`Table::remove_older`]. How many.
    pub(in crate::table) fn remove_older_sections(&mut self, bucket: u16, since: u64) -> u32 {
        let named = Version::new(self.ordinal, since);
        let is_older = |(_, entry): &(&Name, &Entry)| entry.value.is_some() && entry.version <= named;
        let names: Vec<Name> = self.sections.of_bucket(bucket).filter(is_older).map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.sections.leave_wire(&mut self.digest, name);
            self.sections.assign(&mut self.digest, name, None, None);
            self.sections.join_sink(name);
        }
        names.len() as u32
    }

    /// Changes of sections that wait for the sink.
    pub fn unapplied_sections(&self) -> u32 {
        self.sections.sink.len()
    }

    /// Takes out the change of a section that waits longest for the sink, with the seconds that it has left.
    pub fn pop_section(&mut self, now: Instant) -> Option<SectionChange> {
        let sections = &mut self.sections;
        let (_, name) = sections.sink.members.pop_first()?;
        let entry = sections.entries.get_mut(&name)?;
        entry.sink = None;
        entry.told = entry.deadline;
        let key = (*name.key).clone();
        if let Some(value) = &entry.value {
            let expiry = remaining(entry.deadline, now);
            return Some(SectionChange::Put(Section { key, value: value.clone(), expiry }));
        }
        sections.free(&name);
        Some(SectionChange::Delete(key))
    }
}

/// Whether something is held of an entry that is gone.
fn held_is_dead(sections: &Sections, name: &Name) -> bool {
    sections.entries.get(name).is_some_and(|entry| entry.value.is_none())
}
