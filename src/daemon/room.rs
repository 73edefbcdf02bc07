//! How large the kernel's table is: read now and then, and compared with what the group asks of it.
//!
//! ```text
//!   nf_conntrack_max ── this kernel ──▶ smaller than the master's?   KernelSmaller   what it cannot hold is lost at a takeover
//!                            │     └──▶ larger than `capacity`?      TableSmaller    what the table cannot hold is not replicated
//!   nf_conntrack_count ──────┴────────▶ nearly reached?              KernelFull      the kernel refuses new connections
//! ```
//!
//! Each is told once when it becomes so, and again only after it was not so in between.

use crate::bridge::Room;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::status::KernelRow;
use crate::engine::KernelRoom;
use crate::time::{Duration, Instant};
use std::io;

/// Time between two looks: three files of a few bytes.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// The kernel counts as full from this many entries in a hundred on, ...
pub(crate) const FULL_PERCENT: u64 = 95;
/// ... until it holds fewer than this.
pub(crate) const NO_LONGER_FULL_PERCENT: u64 = 90;

/// What the group knows that the kernel's size is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wanted {
    /// Flows that fit the group's table.
    pub(crate) capacity: u64,
    /// The master's kernel, on a backup; `None` until it is told.
    pub(crate) master: Option<KernelRoom>,
}

/// What is known of the kernel's table.
#[derive(Default)]
pub(crate) struct RoomWatch {
    next_at: Instant,
    room: Option<Room>,
    smaller: bool,
    table_smaller: bool,
    full: bool,
    failing: bool,
}

impl RoomWatch {
    /// Whether it is time for another look.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.next_at
    }

    /// Takes what the kernel says, and tells what is wrong with it. What there is now, if it could be read.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        room: io::Result<Room>,
        wanted: &Wanted,
        journal: &mut Journal,
    ) -> Option<Room> {
        self.next_at = now + INTERVAL;
        match room {
            Ok(room) => {
                self.failing = false;
                self.room = Some(room);
                self.compare(now, room, wanted, journal);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let text = format!("the size of the kernel's table cannot be read: {error}");
                    journal.note(now, Weight::Warning, "AuditFailed", text);
                }
                self.room = None;
            }
        }
        self.room
    }

    fn compare(&mut self, now: Instant, room: Room, wanted: &Wanted, journal: &mut Journal) {
        let mut warn = |name, text| journal.note(now, Weight::Warning, name, text);
        let Room { capacity, entries, buckets } = room;
        if becomes(&mut self.table_smaller, wanted.capacity < capacity) {
            let own = wanted.capacity;
            warn(
                "TableSmaller",
                format!("the kernel can hold {capacity} entries, this group {own}: more are not replicated (capacity)"),
            );
        }
        let smaller = wanted.master.is_some_and(|master| capacity < u64::from(master.capacity));
        if let Some(master) = wanted.master
            && becomes(&mut self.smaller, smaller)
        {
            warn(
                "KernelSmaller",
                format!(
                    "this kernel can hold {capacity} entries ({buckets} buckets), the master's {} ({} buckets): what does \
                     not fit is lost at a takeover (net.netfilter.nf_conntrack_max)",
                    master.capacity, master.buckets
                ),
            );
        }
        let percent = if self.full { NO_LONGER_FULL_PERCENT } else { FULL_PERCENT };
        if becomes(&mut self.full, entries.saturating_mul(100) >= capacity.saturating_mul(percent)) {
            let text = format!("the kernel's table is full: {entries} of {capacity} entries; it refuses what is new");
            journal.note(now, Weight::Failure, "KernelFull", text);
        }
    }

    /// What status shows, beside a peer's size.
    pub(crate) fn row(&self, peer: Option<KernelRoom>) -> Option<KernelRow> {
        let Room { capacity, entries, buckets } = self.room?;
        let (peer_capacity, peer_buckets) =
            (peer.map(|peer| peer.capacity.into()), peer.map(|peer| peer.buckets.into()));
        Some(KernelRow { capacity, entries, buckets, peer_capacity, peer_buckets })
    }
}

/// Keeps what is so, and says whether it has become true.
fn becomes(was: &mut bool, is: bool) -> bool {
    !std::mem::replace(was, is) && is
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn room(capacity: u64, entries: u64) -> io::Result<Room> {
        Ok(Room { capacity, entries, buckets: 64 })
    }

    fn wanted(master: u32) -> Wanted {
        Wanted { capacity: 1000, master: Some(KernelRoom { capacity: master, buckets: 128 }) }
    }

    fn told(looks: impl IntoIterator<Item = (io::Result<Room>, Wanted)>) -> Vec<&'static str> {
        let (mut watch, mut journal) = (RoomWatch::default(), Journal::new(51));
        for (room, wanted) in looks {
            watch.look(NOW, room, &wanted, &mut journal);
        }
        journal.entries().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_backup_whose_kernel_is_smaller_than_the_masters_says_so_once_until_it_is_not() {
        assert!(told([(room(1000, 0), wanted(1000))]).is_empty());
        let smaller = || (room(999, 0), wanted(1000));
        assert_eq!(told([smaller(), smaller()]), ["KernelSmaller"]);
        assert_eq!(told([smaller(), (room(1000, 0), wanted(1000)), smaller()]), ["KernelSmaller", "KernelSmaller"]);
        assert!(told([(room(999, 0), Wanted { master: None, ..wanted(0) })]).is_empty());
    }

    #[test]
    fn a_group_that_takes_fewer_flows_than_the_kernel_says_so() {
        assert_eq!(told([(room(1001, 0), wanted(0))]), ["TableSmaller"]);
        assert!(told([(room(1000, 0), wanted(0))]).is_empty());
    }

    #[test]
    fn a_kernel_is_full_at_95_in_a_hundred_and_until_it_is_below_90() {
        let at = |entries| (room(1000, entries), wanted(0));
        assert!(told([at(949)]).is_empty());
        assert_eq!(told([at(950), at(900), at(950)]), ["KernelFull"]);
        assert_eq!(told([at(950), at(899), at(949), at(950)]), ["KernelFull", "KernelFull"]);
    }

    #[test]
    fn status_shows_what_was_read_last_and_nothing_after_a_failure_which_is_told_once() {
        let (mut watch, mut journal) = (RoomWatch::default(), Journal::new(51));
        assert!(watch.is_due(NOW) && watch.row(None).is_none());
        watch.look(NOW, room(1000, 7), &wanted(0), &mut journal);
        let peer = KernelRoom { capacity: 5, buckets: 6 };
        let row = KernelRow { capacity: 1000, entries: 7, buckets: 64, peer_capacity: Some(5), peer_buckets: Some(6) };
        assert_eq!(watch.row(Some(peer)), Some(row));
        assert!(!watch.is_due(Instant::from_nanos(5_999_999_999)) && watch.is_due(Instant::from_nanos(6_000_000_000)));
        for _ in 0..2 {
            watch.look(NOW, Err(io::ErrorKind::NotFound.into()), &wanted(0), &mut journal);
        }
        assert_eq!((watch.row(None), journal.entries().count()), (None, 1));
    }
}
