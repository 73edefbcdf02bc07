//! Two tables become one: which entries another node may lack, in pages, and what is adopted from such a page.
//!
//! ```text
//!   hash   0 ──────────────── cursor ───────── next ───────────────────── 2^64
//!   cells  │ run │ │ run  │   ├─ one page ───┤ run │      │ run       │      an empty cell ends a run
//! ```
//!
//! Cells of the index keep the order of the hashes, but for what collisions push about within a run; so a page is some runs, each
//! sorted, and its cursor is a hash. That means the same after any change of the table: an entry never gets another
//! hash, and a page that is asked for again begins where it began.
//!
//! What this node's source has ended since it took over must not come back by a merge: [`Ended`] remembers.

use super::entry::{Kind, MAX_NUMBER, OWED, OWN, Place, SAID, TOMBSTONE, Version, deadline};
use super::record::Packed;
use super::{Refused, Table};
use crate::flow::Flow;
use crate::time::Instant;

/// Most keys that are remembered as ended: half a megabyte.
const ENDED_MAX: u32 = 1 << 16;

/// Keys that the source has ended in this mastership, by their hashes: each has one place, where a later one replaces it.
/// So it costs a store for each delete, and what is forgotten is what ended long ago.
pub(super) struct Ended(Box<[u64]>);

impl Ended {
    /// Remembers as many as there may be tombstones, or [`ENDED_MAX`].
    pub(super) fn new(tombstones: u32) -> Self {
        Ended(vec![0; tombstones.clamp(1, ENDED_MAX).next_power_of_two() as usize].into_boxed_slice())
    }

    pub(super) fn note(&mut self, hash: u64) {
        let at = self.place(hash);
        self.0[at] = hash.max(1);
    }

    fn has(&self, hash: u64) -> bool {
        self.0[self.place(hash)] == hash.max(1)
    }

    fn forget(&mut self) {
        self.0.fill(0);
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }
}

/// What became of an entry that another node holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Adopted {
    /// The table holds it now; wire and sink will hear of it.
    Taken,
    /// It was held already, with this value.
    Same,
    /// What is known here is newer.
    Kept,
}

/// An entry of a page, for [`Table::flow_in_slot`] of the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageEntry {
    /// The cursor of a page that begins with it.
    pub cursor: u64,
    /// Where it is now.
    pub slot: u32,
}

impl Table {
    /// Which of the streams that this table has followed or mastered is the present one: they are counted from 1.
    pub fn ordinal(&self) -> u16 {
        self.ordinal
    }

    /// The first stream of the present mastership, or of the last one.
    pub fn reign(&self) -> u16 {
        self.reign
    }

    /// The stream that has just begun is this node's own, and the first of its mastership.
    pub fn begin_reign(&mut self) {
        self.reign = self.ordinal;
        self.ended.forget();
    }

    /// Fills `page`, up to its capacity, with living entries from `cursor` on in the order of their hashes; `wanted` is
    /// given the ordinal of the stream in which an entry was said last, and the number of the frame there (the highest, if
    /// it still waits to be sent). Looks at about `slots` slots. The cursor to go on with; `None` behind the last entry.
    pub fn page(
        &self,
        cursor: u64,
        slots: u32,
        page: &mut Vec<PageEntry>,
        wanted: impl Fn(u16, u64) -> bool,
    ) -> Option<u64> {
        page.clear();
        let (first, count, limit) =
            (self.slots.index.home(cursor), u64::from(self.slots.index.count()), page.capacity().max(4));
        let (mut at, mut looked, mut wrapped) = (first, 0_u64, false);
        // The part of the page that the present run has filled, and where that run had to be cut off.
        let (mut run, mut cut) = (0, None);
        loop {
            let slot = self.slots.index.get(at).slot();
            let live = slot.filter(|slot| self.slots.get(*slot).kind == Kind::Live);
            if slot.is_none() {
                page[run..].sort_unstable();
                run = page.len();
                if cut.is_some() || wrapped {
                    return cut;
                }
                if looked >= u64::from(slots) || run >= limit / 2 {
                    return self.slots.index.first_hash_from(at + 1);
                }
            } else if let Some(slot) = live {
                let (entry, hash) = (self.slots.get(slot), self.slots.hash_at(slot));
                // What lies before its home has gone round the end of the table.
                let in_turn = (self.slots.index.home(hash) > at) == wrapped;
                let version = entry.version;
                let (ordinal, number) = match entry.place {
                    Place::Wire => (self.ordinal, MAX_NUMBER),
                    _ => (version.ordinal(), version.number()),
                };
                if in_turn && hash >= cursor && cut.is_none_or(|cut| hash < cut) && wanted(ordinal, number) {
                    if page.len() == limit {
                        page[run..].sort_unstable();
                        cut = page.get(limit - limit / 4).map(|entry| entry.cursor);
                        page.truncate(limit - limit / 4);
                    }
                    if cut.is_none_or(|cut| hash < cut) {
                        page.push(PageEntry { cursor: hash, slot });
                    }
                }
            }
            looked += 1;
            at = self.slots.index.after(at);
            wrapped |= at == 0;
            // The first cells are looked at twice, for what has gone round; there is an empty slot, so this never ends it.
            if looked > 2 * count {
                return cut;
            }
        }
    }

    /// The flow of a [`PageEntry`].
    pub fn flow_in_slot(&self, slot: u32, now: Instant) -> Flow {
        self.flow_at(slot, now)
    }

    /// A master takes what another node has: if the key is absent and was not ended here, or if nothing was said of it
    /// since this mastership began. It goes to the wire, and then to the sink, whose kernel does not know it.
    ///
    /// # Errors
    /// As [`Table::put`].
    pub fn adopt(&mut self, flow: &Flow, now: Instant) -> Result<Adopted, Refused> {
        let said = Packed::new(flow, self.seed()).ok_or(Refused::Unsupported)?;
        let hash = said.key.hash;
        if self.ended.has(hash) {
            return Ok(Adopted::Kept);
        }
        let at = match self.slots.find(&said.key) {
            Ok(at) if self.is_said_here(at) => return Ok(Adopted::Kept),
            Ok(at) if self.slots.get(at).kind == Kind::Live && self.slots.has_value(at, &said) => {
                return Ok(Adopted::Same);
            }
            Ok(at) => {
                self.assign(at, (&said, flow.timeout), now, Place::Wire)?;
                at
            }
            Err(gap) => {
                let at = self.create(gap, &said, deadline(flow.timeout, now))?;
                self.place(at, hash, Place::Wire);
                at
            }
        };
        let dump = self.dump;
        let entry = self.slots.get_mut(at);
        self.owed += u32::from(!entry.is(OWED));
        entry.set(SAID | OWED);
        entry.clear(OWN);
        entry.dump = dump;
        Ok(Adopted::Taken)
    }

    /// A node that is no master yet takes what another node has, whose word is newer than all that was said up to frame
    /// `upto` of the stream that was followed last. The sink hears of it.
    ///
    /// # Errors
    /// As [`Table::apply_upsert`].
    pub fn adopt_early(&mut self, flow: &Flow, upto: u64, now: Instant) -> Result<Adopted, Refused> {
        let said = Packed::new(flow, self.seed()).ok_or(Refused::Unsupported)?;
        let hash = said.key.hash;
        match self.slots.find(&said.key) {
            Ok(at) if self.slots.get(at).version > Version::new(self.ordinal, upto) => Ok(Adopted::Kept),
            Ok(at) if self.slots.get(at).kind == Kind::Live && self.slots.has_value(at, &said) => Ok(Adopted::Same),
            Ok(at) => {
                self.assign(at, (&said, flow.timeout), now, Place::Sink)?;
                Ok(Adopted::Taken)
            }
            Err(_) if self.graves.number_of(&said.key, self.seed()).is_some_and(|buried| buried > upto) => {
                Ok(Adopted::Kept)
            }
            Err(gap) => {
                let at = self.create(gap, &said, deadline(flow.timeout, now))?;
                self.place(at, hash, Place::Sink);
                Ok(Adopted::Taken)
            }
        }
    }

    /// Whether flows wait for the sink, and for nobody else before.
    pub fn sink_waits(&self) -> bool {
        self.slots.sink.first().is_some()
    }

    /// Whether this node's source, or a merge, has said something of this entry in the present mastership. A walk says
    /// nothing.
    fn is_said_here(&self, at: u32) -> bool {
        self.slots.get(at).is(SAID) && self.is_of_reign(at)
    }

    /// Whether the clock is one that this node's source has told in the present mastership.
    pub(super) fn is_own(&self, at: u32) -> bool {
        self.slots.get(at).is(OWN) && self.is_of_reign(at)
    }

    fn is_of_reign(&self, at: u32) -> bool {
        let entry = self.slots.get(at);
        entry.place == Place::Wire || entry.version.ordinal() >= self.reign
    }

    /// A walk queues this entry: that an earlier mastership has said something of it counts no more.
    pub(super) fn forget_said(&mut self, at: u32) {
        if !self.is_of_reign(at) {
            self.slots.get_mut(at).clear(SAID | OWN);
        }
    }

    /// What waits for the wire when another stream begins was said in this one, behind all of its frames.
    pub(super) fn say_unsent(&mut self, at: u32) {
        let ordinal = self.ordinal;
        let entry = self.slots.get_mut(at);
        if entry.kind == Kind::Live && entry.is(SAID) && !entry.is(TOMBSTONE) {
            entry.version = Version::new(ordinal, MAX_NUMBER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Change, FlowKey, Zone};
    use crate::table::Pending;
    use crate::time::Duration;
    use core::net::{IpAddr, Ipv4Addr};
    use std::collections::BTreeSet;

    const NOW: Instant = Instant::ZERO;

    fn flow(number: u32) -> Flow {
        let key = FlowKey {
            source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)),
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            source_port: 1,
            destination_port: 2,
            protocol: 17,
            zone: Zone::DEFAULT,
        };
        Flow { timeout: 600, ..Flow::new(key) }
    }

    fn sources(table: &Table, page: &[PageEntry]) -> Vec<IpAddr> {
        page.iter().map(|entry| table.flow_in_slot(entry.slot, NOW).key.source).collect()
    }

    /// Every entry of a full table comes exactly once, whatever the size of a page and of a step; and a page that is asked
    /// for again, after others have come and gone, still holds what it held of those that stayed.
    #[test]
    fn pages_hold_each_entry_once_and_begin_where_they_began() {
        for (room, slots) in [(8, 1), (16, 1000), (256, 64), (256, 1 << 30)] {
            let mut table = Table::new(2000, 16, 77);
            (0..2000).for_each(|number| assert_eq!(table.put(&flow(number), NOW), Ok(true)));
            let (mut cursor, mut seen, mut page) = (Some(0), Vec::new(), Vec::with_capacity(room));
            let mut second = None;
            while let Some(from) = cursor {
                cursor = table.page(from, slots, &mut page, |_, _| true);
                assert!(page.len() <= page.capacity() && page.is_sorted());
                seen.extend(sources(&table, &page));
                second = second.or(cursor);
            }
            assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (2000, 2000));
            let second = second.unwrap_or(0);
            table.page(second, slots, &mut page, |_, _| true);
            let before: BTreeSet<IpAddr> = sources(&table, &page).into_iter().collect();
            (0..1000).for_each(|number| assert!(table.take(&flow(number).key)));
            let mut after = BTreeSet::new();
            let (mut cursor, mut pages) = (Some(second), 0);
            while let Some(from) = cursor {
                cursor = table.page(from, slots, &mut page, |_, _| true);
                after.extend(sources(&table, &page));
                pages += 1;
                assert!(pages < 5000, "no end");
            }
            let gone = |source: &IpAddr| *source < flow(1000).key.source;
            assert!(before.iter().filter(|source| !gone(source)).all(|source| after.contains(source)));
        }
    }

    /// What a collision has pushed from the last slots into the first ones comes too, if one page holds the whole table.
    #[test]
    fn a_page_that_is_the_whole_table_lacks_nothing() {
        for seed in 0..300 {
            let mut table = Table::new(26, 16, seed);
            (0..26).for_each(|number| assert_eq!(table.put(&flow(number), NOW), Ok(true)));
            let mut page = Vec::with_capacity(256);
            assert_eq!(table.page(0, 16_384, &mut page, |_, _| true), None);
            let seen: BTreeSet<IpAddr> = sources(&table, &page).into_iter().collect();
            assert_eq!((page.len(), seen.len()), (26, 26), "seed {seed}");
        }
    }

    /// [5.5.1] What the source has said or ended since the mastership began stays; all else is taken, and the sink hears of
    /// it after the wire.
    #[test]
    fn a_master_adopts_what_is_absent_or_was_not_said_here() {
        let with = |number, mark| Flow { mark, ..flow(number) };
        let mut table = Table::new(100, 16, 77);
        table.begin_stream();
        (0..4).for_each(|number| assert!(table.apply_upsert(&flow(number), 1, NOW).is_ok()));
        while table.pop_applied(NOW).is_some() {}
        table.begin_stream();
        table.begin_reign();
        table.put(&with(1, 9), NOW).unwrap();
        table.take(&flow(2).key);
        // A walk says nothing, and what is said again by it counts as old still.
        (0..4096).for_each(|bucket| assert!(table.queue_bucket(bucket) < 5));
        while table.peek_pending(NOW).is_some() {
            table.sent(1);
        }
        let adopted = [0, 1, 2, 3, 50].map(|number| table.adopt(&with(number, 5), NOW).unwrap());
        use Adopted::{Kept, Same, Taken};
        assert_eq!(adopted, [Taken, Kept, Kept, Taken, Taken]);
        assert_eq!(table.adopt(&with(3, 5), NOW), Ok(Kept), "the first merge wins");
        let mut other = Table::new(10, 16, 77);
        other.preload(&flow(7), Duration::ZERO, false, NOW).unwrap();
        assert_eq!(other.adopt(&flow(7), NOW), Ok(Same));
        assert_eq!((table.pending(), table.unapplied()), (3, 3));
        assert!(!table.sink_waits());
        let mut told = BTreeSet::new();
        while let Some(Pending::Upsert(flow)) = table.peek_pending(NOW) {
            told.insert((flow.key.source, flow.mark));
            table.sent(2);
        }
        assert_eq!(told, [0, 3, 50].map(|number| (flow(number).key.source, 5)).into());
        assert!(table.sink_waits());
        // A dump that began before the sink has taken it cannot name it.
        table.begin_dump();
        while table.dumping() {
            table.end_dump(1000);
        }
        let written: Vec<Change> = std::iter::from_fn(|| table.pop_applied(NOW)).collect();
        assert_eq!(written.len(), 3);
        table.assert_consistent();
    }

    /// [5.2.5] Before a takeover, what came out of order and is newer than the peer stood is kept, deletes too.
    #[test]
    fn who_takes_over_keeps_what_is_newer_than_the_peer_can_know() {
        let with = |number, mark| Flow { mark, ..flow(number) };
        let mut table = Table::new(100, 16, 77);
        table.begin_stream();
        table.apply_upsert(&with(1, 8), 8, NOW).unwrap();
        table.apply_upsert(&with(2, 4), 4, NOW).unwrap();
        table.apply_delete(&flow(3).key, 9, 2).unwrap();
        table.apply_delete(&flow(4).key, 5, 2).unwrap();
        let adopted = [1, 2, 3, 4, 5].map(|number| table.adopt_early(&with(number, 6), 6, NOW).unwrap());
        use Adopted::{Kept, Taken};
        assert_eq!(adopted, [Kept, Taken, Kept, Taken, Taken]);
        table.assert_consistent();
    }
}
