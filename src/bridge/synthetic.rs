//! Flows that nobody made, for tests, demonstrations and measurements: [`SyntheticSource`] invents connections through a
//! director, and [`MapSink`] keeps what it is given where it can be looked at.
//!
//! What happens is decided by the seed alone; the clock only decides when:
//!
//! ```text
//! changes   flow 1, flow 2 ... flow N | change N+1, N+2 ...
//! when      as fast as it is read     | changes_per_second, after the last flow
//! ```

use super::{ReadOutcome, Sink, Source, SourceError};
use crate::flow::{
    Attributes, Change, Endpoint, Flow, FlowKey, SequenceAdjustment, TcpInfo, Zone, attribute, protocol, status,
};
use crate::sys::clock;
use crate::time::Instant;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most steps per [`Source::read`]; a step is one change, or the two of a connection that ends and one that begins.
const STEPS_PER_READ: usize = 1024;

/// Most flows: each has its own client address and port, and addresses are taken from 10.0.0.0/8.
pub const FLOWS_MAX: u32 = 1 << 24;

/// How often the source wakes its reader: every millisecond.
const TICK: TimeSpec = TimeSpec::new(0, 1_000_000);

/// Settings of a [`SyntheticSource`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyntheticOptions {
    /// Equal seeds yield equal changes.
    pub seed: u64,
    /// Flows that exist at any time, at most [`FLOWS_MAX`].
    pub flows: u32,
    /// Steps per second once all flows exist; 0 is silence.
    pub changes_per_second: u32,
    /// How many of a hundred steps end a connection and begin another; the others change a connection's value.
    pub churn_percent: u8,
    /// How many of a hundred flows are of IPv6.
    pub ipv6_percent: u8,
    /// How many of a hundred flows have attributes: a helper and labels, and every third adjusted sequence numbers too.
    pub attributes_percent: u8,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        SyntheticOptions {
            seed: 1,
            flows: 10_000,
            changes_per_second: 1_000,
            churn_percent: 20,
            ipv6_percent: 0,
            attributes_percent: 0,
        }
    }
}

/// Invents connections.
#[derive(Debug)]
pub struct SyntheticSource {
    options: SyntheticOptions,
    random: u64,
    /// For every flow, how often it has begun anew and how often its value has changed.
    flows: Vec<Life>,
    /// Flows that have begun.
    begun: usize,
    /// When the last flow began.
    complete_at: Option<Instant>,
    /// Steps since then.
    steps: u64,
    /// Next flow that a dump hands over.
    dump: Option<usize>,
    timer: TimerFd,
    changes: u64,
    dumps_completed: u64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Life {
    generation: u16,
    value: u16,
}

impl SyntheticSource {
    /// A source with these settings.
    ///
    /// # Errors
    /// The operating system's error (no descriptors left for its timer).
    pub fn new(options: &SyntheticOptions) -> io::Result<Self> {
        let options = SyntheticOptions { flows: options.flows.min(FLOWS_MAX), ..*options };
        Ok(SyntheticSource {
            random: options.seed,
            flows: vec![Life::default(); options.flows as usize],
            begun: 0,
            complete_at: None,
            steps: 0,
            dump: None,
            timer: timer(if options.changes_per_second > 0 {
                Expiration::Interval(TICK)
            } else {
                Expiration::OneShot(TICK)
            })?,
            changes: 0,
            dumps_completed: 0,
            options,
        })
    }

    /// As [`Source::read`], at a time that the caller says.
    pub fn read_at(&mut self, now: Instant, emit: &mut dyn FnMut(Change)) -> ReadOutcome {
        let mut outcome = ReadOutcome::default();
        let mut emit = |change| {
            outcome.changes += 1;
            emit(change);
        };
        let mut left = STEPS_PER_READ;
        while left > 0 && self.begun < self.flows.len() {
            emit(Change::Upsert(self.flow(self.begun)));
            self.begun += 1;
            left -= 1;
        }
        let mut due = 0;
        if self.begun == self.flows.len() {
            due = self.due(now);
            while left > 0 && due > 0 {
                self.step(&mut emit);
                due -= 1;
                left -= 1;
            }
        }
        let dumped = self.read_dump(left, &mut emit);
        outcome.dump_complete = dumped;
        outcome.drained = self.begun == self.flows.len() && due == 0 && self.dump.is_none();
        self.changes += outcome.changes as u64;
        outcome
    }

    /// Steps that should have been taken by `now`, and were not.
    fn due(&mut self, now: Instant) -> u64 {
        if self.flows.is_empty() {
            return 0;
        }
        let elapsed = now.since(*self.complete_at.get_or_insert(now));
        let steps = elapsed.as_nanos() * u128::from(self.options.changes_per_second) / 1_000_000_000;
        u64::try_from(steps).unwrap_or(u64::MAX).saturating_sub(self.steps)
    }

    fn step(&mut self, emit: &mut dyn FnMut(Change)) {
        self.steps += 1;
        let random = self.next_random();
        let index = (((random >> 32) * self.flows.len() as u64) >> 32) as usize;
        if random % 100 < u64::from(self.options.churn_percent) {
            emit(Change::Delete(self.key(index)));
            let life = &mut self.flows[index];
            *life = Life { generation: life.generation.wrapping_add(1), value: 0 };
        } else {
            self.flows[index].value = self.flows[index].value.wrapping_add(1);
        }
        emit(Change::Upsert(self.flow(index)));
    }

    /// Hands over at most `left` flows of the dump; says whether it is complete.
    fn read_dump(&mut self, left: usize, emit: &mut dyn FnMut(Change)) -> bool {
        let Some(next) = self.dump else { return false };
        let end = self.begun.min(next.saturating_add(left));
        (next..end).for_each(|index| emit(Change::Upsert(self.flow(index))));
        // Flows that begin while it runs are told as they begin.
        let complete = end == self.begun;
        self.dump = Some(end).filter(|_| !complete);
        self.dumps_completed += u64::from(complete);
        complete
    }

    /// One generation after the other comes from the next port of the same client.
    fn key(&self, index: usize) -> FlowKey {
        let [_, b, c, d] = (index as u32).to_be_bytes();
        let (source, destination): (IpAddr, IpAddr) = if is_among(index, self.options.ipv6_percent) {
            // The documentation prefix of RFC 3849.
            let address = |last| Ipv6Addr::from(0x2001_0db8 << 96 | last);
            (address(1 << 64 | index as u128).into(), address(10).into())
        } else {
            ([10, b, c, d].into(), [192, 0, 2, 10].into())
        };
        FlowKey {
            source,
            destination,
            source_port: 1024 + self.flows[index].generation % 64_000,
            destination_port: 80,
            protocol: protocol::TCP,
            zone: Zone::DEFAULT,
        }
    }

    fn flow(&self, index: usize) -> Flow {
        let value = self.flows[index].value;
        let seen = status::CONFIRMED | status::DST_NAT | status::SRC_NAT_DONE | status::DST_NAT_DONE;
        let (state, assured) = match value {
            0 => (1, 0),
            1 => (2, status::SEEN_REPLY),
            _ => (3, status::SEEN_REPLY | status::ASSURED),
        };
        let server = 1 + (index % 16) as u8;
        let key = self.key(index);
        let address = match key.source {
            IpAddr::V4(_) => IpAddr::from([172, 16, 0, server]),
            IpAddr::V6(_) => Ipv6Addr::from(0x2001_0db8 << 96 | 2 << 64 | u128::from(server)).into(),
        };
        Flow {
            reply_source: Some(Endpoint { address, port: 8080 }),
            state,
            status: seen | assured,
            timeout: 600,
            tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 8, flags_original: 3, flags_reply: 3 }),
            mark: u32::from(value),
            attributes: self.attributes(index),
            ..Flow::new(key)
        }
    }

    fn attributes(&self, index: usize) -> Attributes {
        let mut attributes = Attributes::NONE;
        // Not the same flows as those of IPv6, so that there are all four kinds.
        if !is_among(index / 7, self.options.attributes_percent) {
            return attributes;
        }
        let value = u32::from(self.flows[index].value);
        let labels = (1u128 << (index % 128)).to_be_bytes();
        let moved = SequenceAdjustment { position: 1000 * value, before: 0, after: value };
        let adjusted = SequenceAdjustment::to_wire(&[moved, SequenceAdjustment::default()]);
        let all = [
            (attribute::HELPER, &b"ftp"[..]),
            (attribute::LABELS, &labels),
            (attribute::SEQUENCE_ADJUSTMENT, &adjusted),
        ];
        for (kind, data) in &all[..if index.is_multiple_of(3) { 3 } else { 2 }] {
            // They are short.
            let _ = attributes.set(*kind, data);
        }
        attributes
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Source for SyntheticSource {
    fn read(&mut self, emit: &mut dyn FnMut(Change)) -> Result<ReadOutcome, SourceError> {
        // Only whether it ticked could be learnt from it.
        let _ = nix::unistd::read(&self.timer, &mut [0; 8]);
        Ok(self.read_at(clock::now(), emit))
    }

    fn request_dump(&mut self) -> io::Result<()> {
        self.dump = Some(0);
        if self.options.changes_per_second == 0 {
            self.timer.set(Expiration::OneShot(TICK), TimerSetTimeFlags::empty())?;
        }
        Ok(())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.timer.as_fd())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("changes", self.changes), ("steps", self.steps), ("dumps_completed", self.dumps_completed)]
    }
}

/// Whether a number is one of so many of a hundred, evenly mixed.
fn is_among(number: usize, percent: u8) -> bool {
    // 61 and 100 have no common factor: a hundred numbers in a row take each remainder once.
    number * 61 % 100 < usize::from(percent)
}

fn timer(expiration: Expiration) -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    timer.set(expiration, TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// Keeps the flows that it is given. Clones of its [`MapSink::table`] see them.
#[derive(Clone, Default, Debug)]
pub struct MapSink {
    table: MapTable,
    taken: usize,
    created: u64,
    updated: u64,
    deleted: u64,
    delete_missing: u64,
}

/// The flows of a [`MapSink`], for whoever wants to look at them.
#[derive(Clone, Default, Debug)]
pub struct MapTable(Arc<Mutex<HashMap<FlowKey, Flow>>>);

impl MapTable {
    /// The flows, locked for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<FlowKey, Flow>> {
        // No change is half made when a thread that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MapSink {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it keeps.
    pub fn table(&self) -> MapTable {
        self.table.clone()
    }
}

impl Sink for MapSink {
    fn apply(&mut self, change: &Change) -> io::Result<()> {
        self.taken += 1;
        let mut flows = self.table.lock();
        match change {
            Change::Upsert(flow) => match flows.entry(flow.key) {
                Entry::Occupied(mut known) => {
                    known.insert(flow.clone());
                    self.updated += 1;
                }
                Entry::Vacant(room) => {
                    room.insert(flow.clone());
                    self.created += 1;
                }
            },
            Change::Delete(key) if flows.remove(key).is_some() => self.deleted += 1,
            Change::Delete(_) => self.delete_missing += 1,
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<usize> {
        Ok(std::mem::take(&mut self.taken))
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("created", self.created),
            ("updated", self.updated),
            ("deleted", self.deleted),
            ("delete_missing", self.delete_missing),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanoseconds: u64) -> Instant {
        Instant::from_nanos(nanoseconds)
    }

    fn source(options: SyntheticOptions) -> SyntheticSource {
        SyntheticSource::new(&options).unwrap()
    }

    /// Reads at the given times until nothing is left each time.
    fn changes(source: &mut SyntheticSource, times: &[u64]) -> Vec<Change> {
        let mut changes = Vec::new();
        for time in times {
            while !source.read_at(at(*time), &mut |change| changes.push(change)).drained {}
        }
        changes
    }

    #[test]
    fn the_seed_decides_what_and_the_clock_only_when() {
        let options = SyntheticOptions {
            seed: 7,
            flows: 50,
            changes_per_second: 100,
            churn_percent: 30,
            ..SyntheticOptions::default()
        };
        let at_once = changes(&mut source(options), &[0, SECOND]);
        let in_steps = changes(&mut source(options), &[0, SECOND / 3, SECOND / 2, SECOND]);
        assert_eq!(at_once, in_steps);
        let other = changes(&mut source(SyntheticOptions { seed: 8, ..options }), &[0, SECOND]);
        assert_ne!(at_once, other);
    }

    #[test]
    fn first_come_all_flows_and_then_as_many_steps_as_time_allows() {
        let options = SyntheticOptions {
            seed: 1,
            flows: 3000,
            changes_per_second: 500,
            churn_percent: 0,
            ..SyntheticOptions::default()
        };
        let mut source = source(options);
        let mut count = 0;
        // At most 1024 in one read.
        assert_eq!(source.read_at(at(0), &mut |_| count += 1).changes, 1024);
        assert_eq!(changes(&mut source, &[0]).len(), 1976);
        assert_eq!(changes(&mut source, &[SECOND]).len(), 500);
        assert_eq!(changes(&mut source, &[SECOND]).len(), 0);
        assert_eq!(changes(&mut source, &[3 * SECOND]).len(), 1000);
    }

    #[test]
    fn churn_ends_one_connection_and_begins_another_so_that_their_number_stays() {
        let options = SyntheticOptions {
            seed: 3,
            flows: 100,
            changes_per_second: 1000,
            churn_percent: 100,
            ..SyntheticOptions::default()
        };
        let mut sink = MapSink::new();
        for change in changes(&mut source(options), &[0, SECOND]) {
            sink.apply(&change).unwrap();
        }
        assert_eq!(sink.table().lock().len(), 100);
        assert_eq!(sink.flush().unwrap(), 2100);
        assert_eq!(sink.flush().unwrap(), 0);
        assert_eq!(sink.counters(), [("created", 1100), ("updated", 0), ("deleted", 1000), ("delete_missing", 0)]);
    }

    #[test]
    fn a_dump_is_what_the_changes_led_to() {
        let options = SyntheticOptions {
            seed: 5,
            flows: 2500,
            changes_per_second: 4000,
            churn_percent: 50,
            ..SyntheticOptions::default()
        };
        let mut source = source(options);
        let (mut followed, mut dumped) = (MapSink::new(), MapSink::new());
        for change in changes(&mut source, &[0, SECOND]) {
            followed.apply(&change).unwrap();
        }
        source.request_dump().unwrap();
        let mut complete = 0;
        loop {
            let outcome = source.read_at(at(SECOND), &mut |change| dumped.apply(&change).unwrap());
            complete += usize::from(outcome.dump_complete);
            if outcome.drained {
                break;
            }
        }
        assert_eq!((complete, dumped.flush().unwrap()), (1, 2500));
        assert_eq!(*followed.table().lock(), *dumped.table().lock());
    }

    #[test]
    fn every_flow_is_canonical() {
        let options = SyntheticOptions {
            seed: 5,
            flows: 100,
            changes_per_second: 1000,
            churn_percent: 50,
            ..SyntheticOptions::default()
        };
        for change in changes(&mut source(options), &[0, SECOND]) {
            if let Change::Upsert(flow) = change {
                assert_eq!(flow, flow.clone().canonical());
            }
        }
    }

    /// Among a thousand flows so many of each kind, and all of them canonical, whatever happens to them.
    #[test]
    fn families_and_attributes_are_mixed_on_request() {
        let options =
            SyntheticOptions { flows: 1400, ipv6_percent: 30, attributes_percent: 10, ..SyntheticOptions::default() };
        let mut sink = MapSink::new();
        for change in changes(&mut source(options), &[0, SECOND]) {
            if let Change::Upsert(flow) = &change {
                assert_eq!(*flow, flow.clone().canonical());
            }
            sink.apply(&change).unwrap();
        }
        let table = sink.table();
        let flows = table.lock();
        let count = |wanted: &dyn Fn(&Flow) -> bool| flows.values().filter(|flow| wanted(flow)).count();
        assert_eq!(flows.len(), 1400);
        assert_eq!(count(&|flow| flow.key.source.is_ipv6()), 420);
        assert_eq!(count(&|flow| flow.attributes.helper() == Some("ftp")), 140);
        assert_eq!(count(&|flow| flow.key.source.is_ipv6() && flow.attributes.labels().is_some()), 52);
        assert!(count(&|flow| flow.attributes.sequence_adjustment().is_some()) > 40);
        drop(flows);
        assert!(changes(&mut source(SyntheticOptions::default()), &[0]).iter().all(|change| match change {
            Change::Upsert(flow) => flow.key.source.is_ipv4() && flow.attributes.is_empty(),
            Change::Delete(_) => false,
        }));
    }

    #[test]
    fn no_flows_and_no_changes_are_silence() {
        let mut nothing = source(SyntheticOptions { flows: 0, ..SyntheticOptions::default() });
        assert_eq!(changes(&mut nothing, &[0, SECOND]), []);
        let mut still = source(SyntheticOptions { flows: 5, changes_per_second: 0, ..SyntheticOptions::default() });
        assert_eq!(changes(&mut still, &[0, 100 * SECOND]).len(), 5);
    }

    #[test]
    fn the_reader_is_woken_for_the_first_flows_and_for_a_dump_even_if_nothing_changes() {
        for changes_per_second in [0, 1] {
            let mut source = source(SyntheticOptions { flows: 5, changes_per_second, ..SyntheticOptions::default() });
            // Without a tick these would never return.
            crate::sys::poll::wait(&[source.readiness().unwrap()], None).unwrap();
            assert_eq!(source.read(&mut |_| {}).unwrap().changes, 5);
            source.request_dump().unwrap();
            crate::sys::poll::wait(&[source.readiness().unwrap()], None).unwrap();
            assert!(source.read(&mut |_| {}).unwrap().dump_complete);
        }
    }
}
