//! The audit against an invented table and an invented kernel, on an invented clock.

use super::*;
use crate::bridge::Sink;
use crate::daemon::settings::Commit;
use crate::flow::{Change, Zone};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

/// Port of an entry that is this machine's own.
const LOCAL: u16 = 9999;
const MINUTE: Duration = Duration::from_secs(60);

fn flow(port: u16, mark: u32) -> Flow {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    let key = FlowKey {
        source: address,
        destination: address,
        source_port: port,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    Flow { mark, ..Flow::new(key) }
}

/// Port and mark of every entry, and the seconds that some of them have left; the next readings fail so, and whoever begins one is counted.
#[derive(Default)]
struct Entries {
    held: BTreeMap<u16, u32>,
    left: BTreeMap<u16, u32>,
    fails: Option<Failure>,
    begun: u32,
    /// Whether each entry is read twice.
    doubled: bool,
    /// Whether it takes nothing, and how often it was asked to.
    refuses: bool,
    flushed: u32,
}

#[derive(Clone, Copy)]
enum Failure {
    Begin,
    Read,
    Torn,
    Silent,
}

#[derive(Clone, Default)]
struct Kernel(Rc<RefCell<Entries>>);

impl Kernel {
    fn holds(&self) -> Vec<u16> {
        self.0.borrow().held.keys().copied().collect()
    }
}

impl Sink for Kernel {
    fn apply(&mut self, change: &Change) -> io::Result<()> {
        let mut entries = self.0.borrow_mut();
        if !entries.refuses {
            entries.held.remove(&change.key().source_port);
        }
        Ok(())
    }
    fn flush(&mut self) -> io::Result<usize> {
        let mut entries = self.0.borrow_mut();
        entries.flushed += 1;
        if entries.refuses { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(0) }
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![]
    }
}

/// Reads one entry a call.
struct Reader {
    kernel: Kernel,
    left: Option<Vec<Flow>>,
}

impl Inspector for Reader {
    fn room(&self) -> io::Result<Room> {
        Ok(Room::default())
    }
    fn begin(&mut self) -> io::Result<()> {
        let mut entries = self.kernel.0.borrow_mut();
        entries.begun += 1;
        if matches!(entries.fails, Some(Failure::Begin)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let times = if entries.doubled { 2 } else { 1 };
        let timeout = |port: &u16| entries.left.get(port).copied().unwrap_or_default();
        let read = |(port, mark): (&u16, &u32)| Flow { timeout: timeout(port), ..flow(*port, *mark) };
        self.left = Some(entries.held.iter().map(read).flat_map(|flow| std::iter::repeat_n(flow, times)).collect());
        Ok(())
    }
    fn read(&mut self, found: &mut dyn FnMut(Flow)) -> io::Result<Piece> {
        let left = self.left.as_mut().expect("a reading that has begun");
        match self.kernel.0.borrow().fails {
            Some(Failure::Read) => return Err(io::ErrorKind::OutOfMemory.into()),
            Some(Failure::Torn) => return Ok(Piece::Torn),
            Some(Failure::Silent) => return Ok(Piece::More),
            _ => {}
        }
        left.pop().map(&mut *found);
        Ok(if left.is_empty() { Piece::Complete } else { Piece::More })
    }
    fn stop(&mut self) {
        self.left = None;
    }
    fn agrees(&self, held: &Flow, wanted: &Flow) -> bool {
        held.mark == wanted.mark
    }
    fn takes(&self, _: &Flow) -> bool {
        true
    }
    fn is_local(&self, held: &Flow) -> bool {
        held.key.source_port == LOCAL
    }
}

/// A table that says of each port what mark it should have; it repairs nothing, and remembers what it should.
struct Table {
    role: Role,
    proof: Option<u64>,
    flows: BTreeMap<u16, u32>,
    named: Vec<u16>,
    repaired: Vec<u16>,
    preemption_held: bool,
}

impl Audited for Table {
    fn role(&self) -> Role {
        self.role
    }
    fn proof(&self) -> Option<u64> {
        self.proof
    }
    fn slots(&self) -> u32 {
        2 * SLOTS_PER_TURN
    }
    fn begin_audit(&mut self) {
        self.named.clear();
    }
    fn audit_held(&mut self, held: &Flow, _: Instant, repair: bool, inspector: &dyn Inspector) -> Held {
        let port = held.key.source_port;
        let Some(mark) = self.flows.get(&port) else { return Held::Unknown };
        self.named.push(port);
        if inspector.agrees(held, &flow(port, *mark)) {
            return Held::Equal;
        }
        self.repaired.extend(repair.then_some(port));
        Held::Differs
    }
    fn audit_missing(&mut self, from: u32, _: Instant, repair: bool, _: &dyn Inspector) -> u32 {
        // All of them lie in the second half of the table.
        let missing = self.flows.keys().filter(|port| from == SLOTS_PER_TURN && !self.named.contains(port));
        let missing: Vec<u16> = missing.copied().collect();
        self.repaired.extend(missing.iter().filter(|_| repair));
        missing.len() as u32
    }
    fn lacks(&self, key: &FlowKey) -> bool {
        !self.flows.contains_key(&key.source_port)
    }
    fn hold_preemption(&mut self, held: bool) {
        self.preemption_held = held;
    }
}

/// A proven backup and its kernel, whose daemon turns once a millisecond.
struct Node {
    audit: Audit,
    table: Table,
    kernel: Kernel,
    drain: Drain,
    journal: Journal,
    now: Instant,
}

impl Node {
    fn new(mode: AuditMode, sole: bool, flows: &[(u16, u32)], held: &[(u16, u32)]) -> Self {
        let kernel = Kernel::default();
        kernel.0.borrow_mut().held = held.iter().copied().collect();
        let inspector = Reader { kernel: kernel.clone(), left: None };
        let orders = AuditOrders { mode, interval: MINUTE, sole };
        let parts = AuditParts { inspector: Some(Box::new(inspector)), orders };
        let now = Instant::from_nanos(1_000_000_000);
        let flows = flows.iter().copied().collect();
        Node {
            audit: Audit::new(parts, now),
            table: Table {
                role: Role::Backup,
                proof: Some(1),
                flows,
                named: vec![],
                repaired: vec![],
                preemption_held: false,
            },
            drain: Drain::new(Some(Box::new(kernel.clone())), Commit::Continuous),
            kernel,
            journal: Journal::new(51),
            now,
        }
    }

    fn turn(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            self.audit.turn(self.now, &mut self.table, &mut self.drain, &mut self.journal);
            self.now += Duration::from_millis(1);
        }
    }

    /// entries, differing, missing, extra
    fn found(&self) -> Option<[u64; 4]> {
        let verified = self.audit.verified(self.now)?;
        Some([verified.entries, verified.differing, verified.missing, verified.extra])
    }

    fn events(&self) -> Vec<&'static str> {
        self.journal.entries().map(|entry| entry.name).collect()
    }

    fn begun(&self) -> u32 {
        self.kernel.0.borrow().begun
    }
}

fn repairing(flows: &[(u16, u32)], held: &[(u16, u32)]) -> Node {
    Node::new(AuditMode::Repair, true, flows, held)
}

/// [5.2.6]
#[test]
fn a_kernel_that_holds_what_it_should_is_verified_by_one_reading() {
    let mut node = repairing(&[(1, 5), (2, 6)], &[(1, 5), (2, 6), (LOCAL, 0)]);
    node.turn(100);
    assert_eq!((node.found(), node.events()), (Some([3, 0, 0, 0]), vec!["KernelVerified"]));
    assert_eq!(node.begun(), 1);
    node.turn(59_000);
    assert_eq!(node.begun(), 1);
    node.turn(2000);
    assert_eq!((node.begun(), node.events().len()), (2, 1), "what has not changed is no news");
}

/// [5.2.6]
#[test]
fn what_is_other_or_missing_is_repaired_and_what_is_stale_removed_after_a_second_look() {
    let mut node = repairing(&[(1, 5), (2, 6), (3, 7)], &[(1, 5), (2, 0), (4, 0), (5, 0), (LOCAL, 0)]);
    node.turn(100);
    assert_eq!((node.begun(), node.found()), (1, None), "two seconds lie between the two");
    node.turn(2000);
    assert_eq!(node.found(), Some([5, 1, 1, 2]));
    assert_eq!(node.table.repaired, [2, 3]);
    assert_eq!(node.kernel.holds(), [1, 2, LOCAL]);
    assert_eq!(node.begun(), 2);
    assert_eq!(
        node.audit.counters()[3..],
        [("audit_differing", 1), ("audit_missing", 1), ("audit_extra", 2), ("audit_removed", 2)]
    );
    node.kernel.0.borrow_mut().held = BTreeMap::from([(1, 5), (2, 6), (3, 7), (LOCAL, 0)]);
    node.turn(1000);
    assert_eq!((node.found(), node.begun()), (Some([4, 0, 0, 0]), 3));
    assert_eq!(node.events(), ["KernelDiffers", "KernelVerified"]);
}

#[test]
fn what_cannot_be_repaired_is_looked_at_no_more_often_than_the_rest_and_told_once() {
    let mut node = repairing(&[(1, 5)], &[]);
    node.turn(2000);
    assert_eq!((node.begun(), node.found()), (2, Some([0, 0, 1, 0])));
    node.turn(50_000);
    assert_eq!((node.begun(), node.events()), (2, vec!["KernelDiffers"]));
}

#[test]
fn what_is_gone_by_the_second_look_was_never_stale() {
    let mut node = repairing(&[], &[(4, 0), (5, 0)]);
    while node.begun() < 2 {
        node.turn(1);
    }
    // Read already; the table knows it by the time it would be removed.
    node.table.flows.insert(4, 0);
    node.turn(100);
    assert_eq!((node.kernel.holds(), node.audit.counters()[6]), (vec![4], ("audit_removed", 1)));
    let mut node = repairing(&[], &[(4, 0), (5, 0)]);
    while node.begun() < 1 {
        node.turn(1);
    }
    node.kernel.0.borrow_mut().held = BTreeMap::from([(6, 0)]);
    node.turn(2100);
    assert_eq!((node.found(), node.kernel.holds()), (Some([1, 0, 0, 0]), vec![6]));
}

#[test]
fn a_proof_that_is_lost_between_two_looks_begins_everything_anew() {
    let mut node = repairing(&[], &[(4, 0)]);
    while node.begun() < 2 {
        node.turn(1);
    }
    node.table.proof = Some(2);
    node.turn(1);
    assert_eq!((node.begun(), node.kernel.holds()), (3, vec![4]), "a first look again");
    node.table.proof = None;
    node.turn(100);
    assert_eq!((node.begun(), node.kernel.holds()), (3, vec![4]));
    assert_eq!(node.audit.counters()[1], ("audits_given_up", 2));
    node.table.proof = Some(3);
    node.turn(2200);
    assert_eq!((node.begun(), node.kernel.holds()), (5, vec![]));
}

/// [5.2.6] A clock that does not run down is a connection that lives: this node carries traffic of its own.
#[test]
fn while_packets_of_one_unknown_entry_pass_here_nothing_is_removed() {
    let mut node = repairing(&[], &[(4, 0), (5, 0)]);
    node.kernel.0.borrow_mut().left = BTreeMap::from([(4, 600), (5, 600)]);
    while node.begun() < 1 {
        node.turn(1);
    }
    node.kernel.0.borrow_mut().left = BTreeMap::from([(4, 598), (5, 600)]);
    node.turn(2200);
    assert_eq!((node.found(), node.kernel.holds()), (Some([2, 0, 0, 2]), vec![4, 5]));
    assert!(node.journal.entries().any(|entry| entry.text.contains("packets of unknown connections pass here")));
    // It stays so for as long as the node is backup.
    node.kernel.0.borrow_mut().left = BTreeMap::from([(4, 400), (5, 400)]);
    node.turn(70_000);
    assert_eq!(node.kernel.holds(), [4, 5]);

    let mut idle = repairing(&[], &[(4, 0), (5, 0)]);
    idle.kernel.0.borrow_mut().left = BTreeMap::from([(4, 600), (5, 600)]);
    while idle.begun() < 1 {
        idle.turn(1);
    }
    idle.kernel.0.borrow_mut().left = BTreeMap::from([(4, 598), (5, 599)]);
    idle.turn(2200);
    assert_eq!(idle.kernel.holds(), [0; 0], "a second more is how whole seconds are told");
}

#[test]
fn several_groups_over_one_kernel_look_for_nothing_stale_and_a_report_repairs_nothing() {
    let mut shared = Node::new(AuditMode::Repair, false, &[(1, 5)], &[(4, 0)]);
    shared.turn(100);
    assert_eq!((shared.found(), shared.table.repaired.len()), (Some([1, 0, 1, 0]), 1));
    let mut report = Node::new(AuditMode::Report, true, &[(1, 5), (2, 6)], &[(1, 4), (4, 0)]);
    report.turn(2200);
    assert_eq!((report.found(), report.table.repaired.len()), (Some([2, 1, 1, 1]), 0));
    assert_eq!(report.kernel.holds(), [1, 4]);
    assert!(!report.table.preemption_held);
}

/// [5.3.3]
#[test]
fn a_node_does_not_preempt_before_its_first_audit_is_through_but_waits_only_so_long() {
    let mut node = repairing(&[], &[(4, 0)]);
    node.table.proof = None;
    node.turn(1);
    assert!(node.table.preemption_held, "before there is a proof");
    node.table.proof = Some(1);
    while node.found().is_none() {
        assert!(node.table.preemption_held);
        node.turn(1);
    }
    node.turn(1);
    assert!(!node.table.preemption_held);
    node.table.role = Role::Master;
    node.turn(1);
    assert!(node.table.preemption_held && node.found().is_none(), "what it finds when it steps down is new");

    let mut node = repairing(&[], &[]);
    node.kernel.0.borrow_mut().fails = Some(Failure::Begin);
    node.turn(30_000);
    assert!(node.table.preemption_held);
    node.turn(1);
    assert!(!node.table.preemption_held);
}

#[test]
fn a_kernel_that_cannot_be_read_is_told_once_and_read_again_a_second_later() {
    for (failure, told, errors) in [(Failure::Begin, 1, 3), (Failure::Read, 1, 3), (Failure::Torn, 0, 0)] {
        let mut node = repairing(&[(1, 5)], &[(1, 5)]);
        node.kernel.0.borrow_mut().fails = Some(failure);
        node.turn(3500);
        assert_eq!((node.begun(), node.events()), (3, vec!["AuditFailed"; told]), "at 0, 1 and 3 s");
        assert_eq!(node.audit.counters()[2], ("audit_errors", errors));
        node.kernel.0.borrow_mut().fails = None;
        node.turn(4000);
        assert_eq!(node.found(), Some([1, 0, 0, 0]));
    }
    let mut silent = repairing(&[(1, 5)], &[(1, 5)]);
    silent.kernel.0.borrow_mut().fails = Some(Failure::Silent);
    silent.turn(5000);
    assert_eq!(silent.events(), Vec::<&str>::new());
    silent.turn(1);
    assert_eq!((silent.begun(), silent.events()), (1, vec!["AuditFailed"]));
}

/// A kernel that is never read to its end costs ever less, up to a reading per interval, and an operator hears of it.
#[test]
fn readings_that_come_to_nothing_are_ever_rarer_and_told() {
    let mut node = repairing(&[(1, 5)], &[(1, 5)]);
    node.kernel.0.borrow_mut().fails = Some(Failure::Torn);
    node.turn(6900);
    assert_eq!((node.begun(), node.events()), (3, vec![]), "at 0, 1 and 3 s");
    node.turn(200);
    assert_eq!((node.begun(), node.events()), (4, vec!["AuditFailed"]));
    node.turn(175_000);
    assert_eq!((node.begun(), node.events().len()), (8, 1), "at 15, 31, 63 and 123 s, and then once a minute");
    node.kernel.0.borrow_mut().fails = None;
    node.turn(2000);
    assert_eq!((node.begun(), node.found()), (9, Some([1, 0, 0, 0])));
    node.kernel.0.borrow_mut().fails = Some(Failure::Read);
    node.turn(63_000);
    assert_eq!(node.begun(), 9 + 3, "one that went well begins the row anew");
}

#[test]
fn a_sink_that_refuses_removals_is_asked_ten_times_a_second_until_it_takes_them() {
    let mut node = repairing(&[], &[(4, 0)]);
    node.kernel.0.borrow_mut().refuses = true;
    while node.begun() < 2 {
        node.turn(1);
    }
    node.turn(1000);
    assert_eq!((node.kernel.0.borrow().flushed, node.events()), (10, vec!["SinkFailed"]));
    node.kernel.0.borrow_mut().refuses = false;
    node.turn(200);
    assert_eq!((node.kernel.holds(), node.found()), (vec![], Some([1, 0, 0, 1])));
    assert_eq!(node.audit.counters()[6], ("audit_removed", 1));
}

#[test]
fn an_entry_that_the_kernel_names_twice_is_stale_once() {
    let mut node = repairing(&[(1, 5)], &[(1, 5), (4, 0)]);
    node.kernel.0.borrow_mut().doubled = true;
    node.turn(2200);
    assert_eq!((node.found(), node.kernel.holds()), (Some([4, 0, 0, 1]), vec![1]));
    assert_eq!(node.audit.counters()[6], ("audit_removed", 1));
}

/// Who repairs nothing, or in vain, does not read a large kernel every second for it.
#[test]
fn more_stale_entries_than_one_audit_remembers_are_looked_for_again_soon_only_if_they_become_fewer() {
    let mut node = Node::new(AuditMode::Report, true, &[], &[]);
    let extra = SUSPECTS_MAX as u64;
    for (entries, rest) in [(200_000, 1), (200_000, 60), (140_000, 1), (140_001, 60)] {
        node.audit.findings = Findings { entries, extra, ..Findings::default() };
        node.audit.conclude(node.now, &mut node.journal);
        assert_eq!(node.audit.next_at, node.now + Duration::from_secs(rest), "{entries}");
    }
}

#[test]
fn who_is_told_not_to_look_does_not() {
    for (mode, interval) in [(AuditMode::Off, MINUTE), (AuditMode::Repair, Duration::ZERO)] {
        let mut node = Node::new(mode, true, &[(1, 5)], &[]);
        node.audit.parts.orders.interval = interval;
        node.turn(100);
        assert_eq!((node.begun(), node.audit.wake_at(), node.table.preemption_held), (0, None, false));
    }
}

/// [5.2.6]
#[test]
fn other_orders_hold_at_once_and_what_was_being_read_is_given_up() {
    let mut node = Node::new(AuditMode::Off, false, &[(1, 5)], &[(1, 5), (4, 0)]);
    let tell = |node: &mut Node, mode, interval, sole| {
        node.audit.reconfigure(node.now, AuditOrders { mode, interval, sole }, &mut node.table);
    };
    node.turn(100);
    tell(&mut node, AuditMode::Repair, MINUTE, false);
    node.turn(1);
    assert!(node.table.preemption_held);
    node.turn(100);
    assert_eq!((node.begun(), node.found(), node.table.preemption_held), (1, Some([2, 0, 0, 0]), false));
    // A shorter interval counts from now on, not from the end of the longer one.
    tell(&mut node, AuditMode::Repair, Duration::from_secs(2), false);
    node.turn(1999);
    assert_eq!(node.begun(), 1);
    node.turn(2);
    assert_eq!(node.begun(), 2);
    // In the middle of a reading, the kernel becomes this group's alone: what was read is not judged by that.
    tell(&mut node, AuditMode::Repair, Duration::from_secs(2), true);
    assert_eq!(node.audit.counters()[1], ("audits_given_up", 1));
    node.turn(3100);
    assert_eq!((node.found(), node.kernel.holds()), (Some([2, 0, 0, 1]), vec![1]));
    tell(&mut node, AuditMode::Off, MINUTE, true);
    let begun = node.begun();
    node.turn(3000);
    assert_eq!((node.begun(), node.found(), node.audit.wake_at()), (begun, None, None));
}

#[test]
fn a_node_whose_audit_is_switched_off_waits_for_none_before_it_preempts() {
    let mut node = repairing(&[(1, 5)], &[]);
    node.turn(1);
    assert!(node.table.preemption_held);
    let orders = AuditOrders { mode: AuditMode::Off, interval: MINUTE, sole: true };
    node.audit.reconfigure(node.now, orders, &mut node.table);
    assert!(!node.table.preemption_held);
    node.turn(10);
    assert!(!node.table.preemption_held);
}

#[test]
fn the_same_orders_again_disturb_nothing_and_other_rules_begin_the_reading_anew() {
    let mut node = repairing(&[(1, 5), (2, 6)], &[(1, 5), (2, 6)]);
    node.turn(2);
    let orders = node.audit.parts.orders;
    node.audit.reconfigure(node.now, orders, &mut node.table);
    assert_eq!((node.begun(), node.audit.counters()[1]), (1, ("audits_given_up", 0)));
    node.audit.set_filter(node.now, &Filter::default());
    assert_eq!(node.audit.counters()[1], ("audits_given_up", 1));
    node.turn(100);
    assert_eq!((node.begun(), node.found()), (2, Some([2, 0, 0, 0])));
}
