//! What the threads of a run know of each other: who has the address, whether a fault is on, what the daemons say.
//!
//! ```text
//!   listeners, one a machine ── status, 20 a second ──▶ board ──▶ load: where do packets go?
//!   course of the run ───────── faults, pauses, lives ▶       ──▶ gauge: one sample a second of each machine
//!                                                             ──▶ probe: is it calm?
//! ```

use super::chaos::interrupt::interrupted;
use super::chaos::node::Status;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Machines of a pair.
pub const MACHINES: usize = 2;
/// Time between two looks of a listener.
const LISTEN_EVERY: Duration = Duration::from_millis(50);

/// All of it.
#[derive(Debug)]
pub struct Board {
    start: Instant,
    over: AtomicBool,
    paused: AtomicBool,
    holder: AtomicUsize,
    /// Begins and ends of faults: odd while one is on.
    disturbances: AtomicU64,
    /// Connections begun.
    pub begun: AtomicU64,
    /// Daemons that ended without having been killed.
    pub ended: AtomicU64,
    /// Processes of the daemons; 0 while one is dead on purpose.
    processes: [AtomicU32; MACHINES],
    /// How often each was started.
    lives: [AtomicU32; MACHINES],
    statuses: [Mutex<Option<Status>>; MACHINES],
}

impl Board {
    /// Nothing has happened.
    pub fn new() -> Self {
        Board {
            start: Instant::now(),
            over: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            holder: AtomicUsize::new(0),
            disturbances: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            processes: Default::default(),
            lives: Default::default(),
            statuses: Default::default(),
        }
    }

    /// Seconds since the start.
    pub fn now_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Everybody ends.
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether everybody is to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Traffic stops, or goes on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Whether traffic stands still.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// A fault begins or ends.
    pub fn disturb(&self) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
    }

    /// A number that changes with each fault's begin and end; odd while one is on.
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::SeqCst)
    }

    /// A daemon lives (its process), or is dead on purpose (0).
    pub fn lives(&self, machine: usize, process: u32) {
        if process != 0 {
            self.lives[machine].fetch_add(1, Ordering::SeqCst);
        }
        self.processes[machine].store(process, Ordering::SeqCst);
    }

    /// A daemon has ended without having been killed: counted once.
    pub fn has_ended(&self, machine: usize, process: u32) {
        let forgotten = self.processes[machine].compare_exchange(process, 0, Ordering::SeqCst, Ordering::SeqCst);
        self.ended.fetch_add(u64::from(forgotten.is_ok()), Ordering::SeqCst);
    }

    /// A daemon's life, counted from 1, and its process.
    pub fn life(&self, machine: usize) -> (u32, u32) {
        (self.lives[machine].load(Ordering::SeqCst), self.processes[machine].load(Ordering::SeqCst))
    }

    /// Which machine clients find: the master whose term is the newest, as of the last one that announced the address.
    pub fn holder(&self) -> usize {
        self.holder.load(Ordering::Relaxed)
    }

    /// What a daemon said last; `None` while it says nothing.
    pub fn status(&self, machine: usize) -> Option<Status> {
        self.statuses[machine].lock().ok()?.clone()
    }

    /// Asks a daemon again and again until all is over. One that is stopped is asked once, and answers later.
    pub fn listen(&self, machine: usize, ask: impl Fn() -> Option<Status>) {
        while !self.is_over() && !interrupted() {
            let status = ask();
            if let Ok(mut place) = self.statuses[machine].lock() {
                *place = status;
            }
            self.elect();
            std::thread::sleep(LISTEN_EVERY);
        }
    }

    fn elect(&self) {
        let term = |machine: &usize| {
            let status = self.status(*machine).filter(Status::is_master)?;
            Some((status.value()["term"].as_u64()?, *machine))
        };
        if let Some((_, machine)) = (0..MACHINES).filter_map(|machine| term(&machine)).max() {
            self.holder.store(machine, Ordering::Relaxed);
        }
    }
}
