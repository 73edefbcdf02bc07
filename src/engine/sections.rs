//! Sections: what is replicated beside flows (docs/protocol.md 3.3, SECTION).
//!
//! ```text
//!   value of 1 MB     frame 41            frame 42            frame 43
//!                     [part, part]        [flow, flow, part]  [part, part]     …
//!                      back 0  back 0                  back 1  back 2
//! ```
//!
//! One value leaves at a time, from its first part to its last. In every other frame flows go first, so that a live change of
//! a flow never waits behind more than one frame of it.

use super::{Engine, Event, Role, Store, UpdateError};
use crate::flow::{Section, SectionChange, SectionKey};
use crate::table::{Applied, PendingSection, SectionPart, SectionRefused};
use crate::time::Instant;
use crate::wire::{self, DataWriter, Fragment, PushError};

const _: () = assert!(crate::table::SECTION_KEY_MAX == wire::SECTION_KEY_MAX);

/// Bytes of the shortest record of a section: a delete under a key of at most four bytes.
const RECORD_LEN_MIN: usize = 12;

/// Whether a record of a section was received; what was refused was too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    Yes,
    /// The frame counts as not received; it is asked for again.
    NotReceived,
}

/// How much of the room for sections is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionUse {
    /// Entries that are held.
    pub entries: u64,
    /// Entries that fit, those included that are gone while a peer has yet to hear of it.
    pub entries_max: u64,
    /// Bytes of all keys and values, those included of what is gone.
    pub bytes: u64,
    /// Bytes that fit.
    pub bytes_max: u64,
}

impl Engine {
    /// The owner says that an entry of a section has changed.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn update_section(&mut self, now: Instant, change: &SectionChange) -> Result<(), UpdateError> {
        self.change_section(now, change)?;
        self.submitted(now);
        Ok(())
    }

    /// Takes a change.
    pub(super) fn change_section(&mut self, now: Instant, change: &SectionChange) -> Result<(), UpdateError> {
        if self.role() != Role::Master {
            return Err(UpdateError::NotMaster);
        }
        self.counters.updates += 1;
        let changed = match change {
            SectionChange::Put(section) => self.table.put_section(section, now).map(|_| ()),
            SectionChange::Delete(key) => {
                self.table.take_section(key);
                Ok(())
            }
        };
        self.count_sections();
        changed.map_err(|refused| match refused {
            SectionRefused::Key => {
                self.counters.updates_unsupported += 1;
                UpdateError::SectionKey
            }
            _ => {
                self.sections_are_full();
                UpdateError::SectionsFull
            }
        })
    }

    /// The next change of a section that the followed stream has brought.
    pub fn poll_section(&mut self, now: Instant) -> Option<SectionChange> {
        self.table.pop_section(now)
    }

    /// One entry; its expiry is what is left of it.
    pub fn section(&self, key: &SectionKey, now: Instant) -> Option<Section> {
        self.table.section(key, now)
    }

    /// Every entry, in the order of tables and keys.
    pub fn sections(&self, now: Instant) -> impl Iterator<Item = Section> + '_ {
        self.table.sections(now)
    }

    /// Every entry without its value: key, length of the value in bytes, seconds that it has left (0: for ever); in the order
    /// of tables and keys.
    pub fn section_list(&self, now: Instant) -> impl Iterator<Item = (&SectionKey, usize, u32)> {
        self.table.section_list(now)
    }

    /// How much of the room for sections is taken.
    pub fn section_use(&self) -> SectionUse {
        SectionUse {
            entries: u64::from(self.table.sections_len()),
            entries_max: u64::from(self.config.sections),
            bytes: self.table.section_bytes(),
            bytes_max: u64::from(self.config.section_bytes),
        }
    }

    // ------------------------------------------------------------------ the followed stream

    /// Frame `number` of the followed stream brings this record.
    pub(super) fn apply_section(
        &mut self,
        now: Instant,
        said: &wire::Section<'_>,
        number: u64,
        frontier: u64,
    ) -> Taken {
        let key = SectionKey { table: said.table, key: said.key.into() };
        let applied = match &said.fragment {
            None => self.table.apply_section_delete(&key, number, frontier),
            Some(fragment) => {
                let &Fragment { expiry, total, offset, back, bytes } = fragment;
                self.counters.section_parts_received += u64::from(bytes.len() as u64 != u64::from(total));
                let part = SectionPart { expiry, total, offset, back, bytes };
                self.table.apply_section(&key, &part, number, frontier, now)
            }
        };
        match applied {
            Ok(Applied::Changed | Applied::Unchanged) => self.counters.records_applied += 1,
            Ok(Applied::Older) => self.counters.records_older += 1,
            Err(SectionRefused::TombstonesFull) => {
                self.counters.data_no_tombstone += 1;
                return Taken::NotReceived;
            }
            Err(SectionRefused::PartialFull) => {
                self.counters.data_no_partial_room += 1;
                return Taken::NotReceived;
            }
            Err(SectionRefused::Full) => {
                self.sections_short = Some(self.table.section_bytes());
                self.section_refused(now, &key, number);
                self.sections_are_full();
            }
            Err(SectionRefused::Stray | SectionRefused::Key) => {
                self.section_refused(now, &key, number);
                self.counters.section_parts_stray += 1;
            }
        }
        Taken::Yes
    }

    fn section_refused(&mut self, now: Instant, key: &SectionKey, number: u64) {
        self.table.touch_section(key, number);
        self.bucket_refused(now, self.table.bucket_of_section(key));
    }

    // ------------------------------------------------------------------ the own stream

    /// Whether a record of a section may leave now.
    pub(super) fn sections_wait(&self) -> bool {
        self.table.pending_sections() > 0 && self.may_walk()
    }

    /// Whether what waits of sections is enough for a frame.
    pub(super) fn sections_fill_a_frame(&self) -> bool {
        let waiting = self.table.pending_sections() as usize * RECORD_LEN_MIN + self.table.section_bytes_leaving();
        waiting >= self.config.frame_len - wire::HEADER_LEN && self.sections_wait()
    }

    /// Fills a frame of the own stream with what waits of sections; how many records.
    pub(super) fn write_sections(&mut self, now: Instant, seq: u64, writer: &mut DataWriter<'_>) -> usize {
        let number = self.outbox.local(seq);
        let mut records = 0;
        while self.sections_wait() {
            let Some(PendingSection { key, rest }) = self.table.peek_section(now) else { break };
            let pushed = match rest {
                None => {
                    let gone = wire::Section { table: key.table, key: &key.key, fragment: None };
                    writer.push_section(&gone).map(|()| 0)
                }
                Some(rest) => {
                    let back = rest.first.map_or(0, |first| u32::try_from(number - first).unwrap_or(u32::MAX));
                    let (expiry, total, offset) = (rest.expiry, rest.total, rest.offset);
                    let rest = Fragment { expiry, total, offset, back, bytes: rest.bytes };
                    writer.push_section_part(key.table, &key.key, rest)
                }
            };
            let length = match pushed {
                Ok(length) => length,
                Err(PushError::Full) => break,
                // The table takes nothing that has no form here. If it did, one such must not stop all others.
                Err(_) => {
                    self.counters.records_unsayable += 1;
                    self.table.section_bytes_leaving()
                }
            };
            records += 1;
            if !self.table.section_sent(number, length) {
                break;
            }
        }
        self.counters.records_sent += records as u64;
        records
    }

    // ------------------------------------------------------------------ small helpers

    /// Only a master removes by time, and sends the delete.
    pub(super) fn expire_sections(&mut self, now: Instant) {
        if self.role() == Role::Master {
            self.counters.sections_expired += u64::from(self.table.expire_sections(now));
        }
    }

    pub(super) fn section_expiry_at(&self) -> Option<Instant> {
        self.table.next_section_expiry().filter(|_| self.role() == Role::Master)
    }

    /// What the table has counted.
    pub(super) fn count_sections(&mut self) {
        self.counters.section_partials_discarded = self.table.partials_discarded();
        self.counters.section_values_restarted = self.table.sections_restarted();
    }

    fn sections_are_full(&mut self) {
        self.counters.sections_full += 1;
        if !std::mem::replace(&mut self.sections_full_reported, true) {
            self.event(Event::TableFull { store: Store::Sections, capacity: self.config.sections });
        }
    }
}
