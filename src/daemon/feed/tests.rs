use super::*;
use crate::bridge::ReadOutcome;
use crate::flow::Zone;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

type Script = Rc<RefCell<VecDeque<Result<(usize, bool), Option<i32>>>>>;

/// Yields what its script says: (changes, dump complete), an error number, or `None` for an overrun.
struct Scripted {
    script: Script,
    dumps: Rc<RefCell<Vec<io::Result<()>>>>,
    asked: Rc<RefCell<u32>>,
    /// What it tells are ends.
    ends: Rc<RefCell<bool>>,
    /// What it was told to tell.
    interests: Rc<RefCell<Vec<Interest>>>,
    /// It cannot be told so, so often.
    deaf: Rc<RefCell<u32>>,
}

impl Source for Scripted {
    fn read(&mut self, emit: &mut dyn FnMut(Change)) -> Result<ReadOutcome, SourceError> {
        match self.script.borrow_mut().pop_front() {
            None => Ok(ReadOutcome { changes: 0, dump_complete: false, drained: true }),
            Some(Ok((changes, dump_complete))) => {
                let ends = *self.ends.borrow();
                let told = |change: Change| if ends { Change::Delete(*change.key()) } else { change };
                (0..changes).for_each(|number| emit(told(change(number as u16))));
                Ok(ReadOutcome { changes, dump_complete, drained: false })
            }
            Some(Err(None)) => Err(SourceError::Overrun),
            Some(Err(Some(number))) => Err(SourceError::Io(io::Error::from_raw_os_error(number))),
        }
    }
    fn request_dump(&mut self) -> io::Result<()> {
        *self.asked.borrow_mut() += 1;
        self.dumps.borrow_mut().pop().unwrap_or(Ok(()))
    }
    fn set_interest(&mut self, interest: Interest) -> io::Result<()> {
        if *self.deaf.borrow() > 0 {
            *self.deaf.borrow_mut() -= 1;
            return Err(io::Error::from_raw_os_error(1));
        }
        self.interests.borrow_mut().push(interest);
        Ok(())
    }
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![]
    }
}

#[derive(Default)]
struct Heard(Vec<&'static str>);

/// The table behind it holds the flows with an even port.
fn holds(key: &FlowKey) -> bool {
    key.source_port.is_multiple_of(2)
}

impl Listener for Heard {
    fn look_ahead(&self, _: &[Change]) {}

    fn update(&mut self, _: Instant, change: &Change) -> Result<(), UpdateError> {
        self.0.push("update");
        match change.key().source_port {
            9 => Err(UpdateError::TableFull),
            1001..=1002 => Err(UpdateError::AnnexFull),
            1003..=1005 => Err(UpdateError::Unsupported),
            _ => Ok(()),
        }
    }
    fn begin_dump(&mut self, _: Instant) {
        self.0.push("begin");
    }
    fn end_dump(&mut self, _: Instant) {
        self.0.push("end");
    }
    fn source_overrun(&mut self, _: Instant) {
        self.0.push("overrun");
    }
    fn put_back(&mut self, key: &FlowKey) -> bool {
        self.0.push("put back");
        holds(key)
    }
    fn set_filling(&mut self, filling: bool) {
        self.0.push(if filling { "fill" } else { "filled" });
    }
    fn fill(&mut self, _: Instant, flow: &Flow) -> Result<(), UpdateError> {
        self.0.push("preload");
        if flow.key.source_port == 9 { Err(UpdateError::TableFull) } else { Ok(()) }
    }
}

fn change(port: u16) -> Change {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Change::Upsert(Flow::new(FlowKey {
        source: address,
        destination: address,
        source_port: port,
        destination_port: 1,
        protocol: 6,
        zone: Zone::DEFAULT,
    }))
}

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

struct Bench {
    feed: Feed,
    heard: Heard,
    script: Script,
    dumps: Rc<RefCell<Vec<io::Result<()>>>>,
    asked: Rc<RefCell<u32>>,
    ends: Rc<RefCell<bool>>,
    interests: Rc<RefCell<Vec<Interest>>>,
    deaf: Rc<RefCell<u32>>,
    journal: Journal,
}

impl Bench {
    fn new() -> Self {
        let (script, dumps, asked, ends) = (Script::default(), Rc::default(), Rc::default(), Rc::default());
        let (interests, deaf) = (Rc::default(), Rc::default());
        let source = Scripted {
            script: Rc::clone(&script),
            dumps: Rc::clone(&dumps),
            asked: Rc::clone(&asked),
            ends: Rc::clone(&ends),
            interests: Rc::clone(&interests),
            deaf: Rc::clone(&deaf),
        };
        let feed = Feed::new(Some(Box::new(source)), Duration::from_secs(30));
        let (heard, journal) = (Heard::default(), Journal::new(51));
        Bench { feed, heard, script, dumps, asked, ends, interests, deaf, journal }
    }

    /// Becomes master of a source that has nothing to say yet.
    fn master(&mut self, ms: u64) {
        self.feed.master(at(ms), true);
        assert_eq!(self.turn(ms, &[]), Vec::<&str>::new());
    }

    fn turn(&mut self, ms: u64, script: &[Result<(usize, bool), Option<i32>>]) -> Vec<&'static str> {
        self.script.borrow_mut().extend(script.iter().copied());
        self.feed.turn(at(ms), &mut self.heard, true, &mut self.journal, &mut Load::default());
        std::mem::take(&mut self.heard.0)
    }

    fn count(&self, name: &str) -> u64 {
        self.feed.counters().iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn events(&self) -> Vec<&'static str> {
        self.journal.entries().map(|entry| entry.name).collect()
    }
}

/// What a backup's sink writes would be events for nobody.
#[test]
fn a_backup_hears_of_ends_alone_and_a_master_of_everything_before_its_dump() {
    let mut bench = Bench::new();
    bench.feed.start(at(0), &mut bench.heard, true, &mut bench.journal);
    bench.turn(0, &[Ok((1, false))]);
    assert_eq!(*bench.interests.borrow(), [], "as it began");
    bench.turn(1, &[Ok((1, true))]);
    bench.turn(2, &[]);
    bench.turn(3, &[]);
    assert_eq!(*bench.interests.borrow(), [Interest::Ends], "told once");
    *bench.deaf.borrow_mut() = 1;
    bench.feed.master(at(10), true);
    assert_eq!(bench.turn(10, &[Ok((1, false))]), Vec::<&str>::new());
    assert_eq!((bench.events(), bench.count("source_errors")), (vec!["SourceFailed"], 1));
    assert_eq!(bench.turn(109, &[]), Vec::<&str>::new(), "paused");
    bench.turn(110, &[]);
    assert_eq!((bench.interests.borrow().len(), *bench.asked.borrow()), (2, 1), "what was left over is read first");
    assert_eq!(bench.turn(111, &[]), ["begin"]);
    assert_eq!(*bench.interests.borrow(), [Interest::Ends, Interest::Changes]);
    bench.feed.master(at(200), false);
    bench.turn(200, &[]);
    assert_eq!(*bench.interests.borrow(), [Interest::Ends, Interest::Changes, Interest::Ends]);
}

/// [4.6.6] What waits to be read when the role begins was said by a backup's kernel: the end of a copy kills no flow, and is
/// put right before the dump is asked for.
#[test]
fn a_new_master_takes_no_end_of_a_copy_for_the_end_of_a_flow() {
    let mut bench = Bench::new();
    *bench.ends.borrow_mut() = true;
    bench.feed.master(at(5), true);
    assert_eq!(bench.turn(5, &[Ok((2, false)), Ok((1, false))]), ["put back", "put back", "put back"]);
    assert_eq!(bench.count("source_copies_put_back"), 2);
    assert_eq!(bench.turn(6, &[Ok((1, false))]), ["begin", "update"], "from now on it is the end of a flow");
    assert_eq!((bench.count("source_changes_taken"), bench.feed.take_unheard()), (1, false));
}

/// [4.6.6] A source that never falls silent delays the dump by so many reads, and no more.
#[test]
fn what_was_left_over_is_read_for_a_bounded_time() {
    let mut bench = Bench::new();
    bench.feed.master(at(0), true);
    bench.script.borrow_mut().extend(std::iter::repeat_n(Ok((1, false)), 300));
    for turn in 0..32 {
        assert_eq!(bench.turn(turn, &[]), Vec::<&str>::new());
    }
    assert_eq!(bench.count("source_changes_dropped_as_backup"), 256);
    assert_eq!(bench.turn(32, &[]), ["begin", "update"]);
}

/// [4.6.6] Whoever finds that too much, or something unheard, was dropped, looks at the kernel itself.
#[test]
fn a_backup_that_keeps_its_copies_puts_back_what_its_kernel_drops_so_many_a_second() {
    let mut bench = Bench::new();
    *bench.ends.borrow_mut() = true;
    assert_eq!(bench.turn(1000, &[Ok((3, false))]), Vec::<&str>::new(), "unless it does not keep them");
    assert!(!bench.feed.take_unheard());
    bench.feed.set_keeps(true);
    assert_eq!(bench.turn(2000, &[Ok((3, false))]), ["put back"; 3]);
    assert_eq!((bench.count("source_copies_put_back"), bench.feed.take_unheard()), (2, false));
    bench.turn(2001, &[Ok((8187, false))]);
    assert_eq!((bench.count("source_copies_put_back"), bench.feed.take_unheard()), (4096, false));
    assert_eq!(bench.turn(2999, &[Ok((4, false))]), Vec::<&str>::new());
    assert!(bench.feed.take_unheard() && !bench.feed.take_unheard());
    assert_eq!(bench.turn(3000, &[Ok((4, false))]), ["put back"; 4]);
    assert_eq!(bench.turn(3001, &[Err(None)]), Vec::<&str>::new());
    assert!(bench.feed.take_unheard());
}

/// [4.5.7]
#[test]
fn the_first_dump_goes_into_the_table_and_then_the_node_follows() {
    let mut bench = Bench::new();
    bench.feed.start(at(0), &mut bench.heard, true, &mut bench.journal);
    assert_eq!(bench.turn(0, &[Ok((2, false))]), ["fill", "preload", "preload"]);
    assert_eq!(bench.turn(1, &[Ok((1, false)), Ok((10, true))]), ["preload"], "one read a turn");
    assert_eq!(bench.turn(2, &[]), [&["preload"; 10][..], &["filled"]].concat());
    assert_eq!(bench.turn(3, &[Ok((1, true))]), Vec::<&str>::new());
    assert_eq!((bench.count("source_flows_preloaded"), bench.count("source_changes_refused_table_full")), (12, 1));
    assert_eq!(*bench.asked.borrow(), 1);
}

/// [4.5.7]
#[test]
fn filling_ends_with_its_patience_an_error_a_loss_or_the_role() {
    let filled = |ms: u64, script: &[Result<(usize, bool), Option<i32>>]| {
        let mut bench = Bench::new();
        bench.feed.start(at(0), &mut bench.heard, true, &mut bench.journal);
        let heard = bench.turn(ms, script);
        heard.last() == Some(&"filled")
    };
    assert!(!filled(4999, &[Ok((1, false))]) && filled(5000, &[Ok((1, false))]));
    assert!(filled(0, &[Err(Some(5))]) && filled(0, &[Err(None)]));
    let mut bench = Bench::new();
    bench.feed.start(at(0), &mut bench.heard, true, &mut bench.journal);
    bench.feed.master(at(1), true);
    assert_eq!(bench.turn(1, &[Ok((1, false))]), ["fill", "filled"]);
    let mut bench = Bench::new();
    bench.feed.start(at(0), &mut bench.heard, false, &mut bench.journal);
    assert_eq!(bench.turn(1, &[Ok((1, false))]), Vec::<&str>::new(), "who is not to be filled only asks");
}

#[test]
fn a_backup_reads_its_source_and_drops_what_it_says() {
    let mut bench = Bench::new();
    assert_eq!(bench.turn(0, &[Ok((3, true))]), Vec::<&str>::new());
    assert_eq!(bench.count("source_changes_dropped_as_backup"), 3);
    assert_eq!(bench.turn(1, &[Err(None)]), Vec::<&str>::new());
    assert_eq!((*bench.asked.borrow(), bench.count("source_overruns")), (0, 1));
}

#[test]
fn a_new_master_compares_its_table_with_a_dump() {
    let mut bench = Bench::new();
    bench.master(5);
    assert_eq!(bench.feed.wake_at(at(5), true), Some(at(5)));
    assert_eq!(bench.turn(5, &[Ok((1, false))]), ["begin", "update"]);
    assert_eq!(bench.turn(6, &[Ok((1, true))]), ["update", "end"]);
    assert_eq!(bench.turn(7, &[Ok((1, true))]), ["update"]);
    assert_eq!((*bench.asked.borrow(), bench.count("source_dumps_completed")), (1, 1));
}

#[test]
fn the_next_dump_begins_an_interval_after_the_end_of_the_last() {
    let mut bench = Bench::new();
    bench.master(0);
    assert_eq!(bench.turn(0, &[Ok((1, false))]), ["begin", "update"]);
    assert_eq!(bench.feed.wake_at(at(0), true), Some(at(1)), "a running dump is waited for");
    assert_eq!(bench.turn(5_000, &[Ok((0, true))]), ["end"]);
    assert_eq!(bench.turn(34_999, &[Ok((1, false))]), ["update"]);
    assert_eq!(bench.turn(35_000, &[Ok((1, true))]), ["begin", "update", "end"]);
    assert_eq!(bench.turn(64_999, &[]), Vec::<&str>::new());
    assert_eq!(bench.turn(65_000, &[]), ["begin"]);
    assert_eq!((bench.count("source_dumps"), bench.count("source_dumps_completed")), (3, 2));
}

/// [4.3.2] What the sink has not written yet is not in the kernel, and must not be taken for dead.
#[test]
fn a_dump_waits_until_the_sink_has_taken_everything() {
    let mut bench = Bench::new();
    bench.master(0);
    bench.script.borrow_mut().push_back(Ok((1, false)));
    bench.feed.turn(at(0), &mut bench.heard, false, &mut bench.journal, &mut Load::default());
    assert_eq!(bench.feed.wake_at(at(0), false), Some(at(1)), "it does not keep the loop awake");
    assert_eq!(std::mem::take(&mut bench.heard.0), ["update"], "live changes are taken meanwhile");
    assert_eq!(bench.turn(1, &[Ok((1, true))]), ["begin", "update", "end"]);
}

/// [4.3.2]
#[test]
fn an_overrun_begins_the_dump_anew_and_the_end_of_the_old_one_does_not_count() {
    let mut bench = Bench::new();
    bench.master(0);
    assert_eq!(bench.turn(0, &[Err(None)]), ["begin", "overrun"]);
    // At most one dump a second, or a burst of overruns would never let one finish.
    assert_eq!(bench.turn(999, &[Ok((0, true))]), Vec::<&str>::new());
    assert_eq!(bench.turn(1000, &[Ok((1, true))]), ["begin", "update", "end"]);
    assert_eq!(*bench.asked.borrow(), 2);
}

#[test]
fn a_refused_dump_is_an_event_and_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.dumps.borrow_mut().push(Err(io::Error::from_raw_os_error(1)));
    bench.master(0);
    assert_eq!(bench.turn(0, &[]), ["begin"]);
    assert_eq!(bench.events(), ["SourceFailed"]);
    assert!(bench.feed.trouble().unwrap().contains("a dump failed"));
    assert_eq!(bench.feed.wake_at(at(0), true), Some(at(100)));
    assert_eq!(bench.turn(500, &[]), Vec::<&str>::new());
    assert_eq!(bench.turn(1000, &[Ok((1, true))]), ["begin", "update", "end"]);
    assert_eq!(bench.events(), ["SourceFailed", "SourceRecovered"]);
    assert_eq!(bench.feed.trouble(), None);
}

#[test]
fn a_source_that_fails_is_said_once_rests_and_is_dumped_again() {
    let mut bench = Bench::new();
    bench.master(0);
    bench.turn(0, &[Ok((1, true))]);
    bench.turn(2000, &[Err(Some(5))]);
    assert_eq!(bench.turn(2050, &[Ok((1, false))]), Vec::<&str>::new());
    bench.script.borrow_mut().clear();
    assert_eq!(bench.turn(2100, &[Err(Some(5))]), ["begin"]);
    assert_eq!(bench.events(), ["SourceFailed"]);
    assert_eq!(bench.count("source_errors"), 2);
}

#[test]
fn what_the_engine_refuses_is_counted_by_its_reason() {
    let mut bench = Bench::new();
    bench.master(0);
    bench.turn(0, &[Ok((10, false))]);
    assert_eq!((bench.count("source_changes_taken"), bench.count("source_changes_refused_table_full")), (9, 1));
    bench.turn(1, &[Ok((1010, false))]);
    let refused = ["table", "annex"].map(|what| bench.count(&format!("source_changes_refused_{what}_full")));
    assert_eq!((refused, bench.count("source_changes_refused_unsupported")), ([2, 2], 3));
    assert_eq!(bench.count("source_changes_taken"), 9 + 1004);
}

#[test]
fn a_node_that_stops_being_master_forgets_its_dump() {
    let mut bench = Bench::new();
    bench.master(0);
    bench.turn(0, &[]);
    bench.feed.master(at(1), false);
    assert_eq!(bench.turn(2, &[Ok((1, true))]), Vec::<&str>::new());
    assert_eq!(bench.feed.wake_at(at(2), true), None);
}

#[test]
fn one_turn_reads_a_bounded_number_of_times() {
    let mut bench = Bench::new();
    let mut load = Load::default();
    bench.script.borrow_mut().extend(std::iter::repeat_n(Ok((1, false)), 20));
    bench.feed.turn(at(0), &mut bench.heard, true, &mut bench.journal, &mut load);
    assert_eq!(bench.count("source_changes_dropped_as_backup"), 8);
    assert!(load.more);
    bench.script.borrow_mut().clear();
    bench.master(0);
    assert_eq!(
        bench.turn(0, &[Ok((1, false)), Ok((1, false))]),
        ["begin", "update"],
        "ADVERTs must not wait for a dump"
    );
}
