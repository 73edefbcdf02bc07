//! A whole cluster in one thread, out of one number: nodes, clocks, a network that loses and delays, kernels, traffic and
//! faults. What goes wrong in it goes wrong again with the same seed (`ssyncp sim --seed S --trace`).
//!
//! ```text
//!            ┌────────── world: one queue of what happens next, by virtual time ──────────┐
//!   workload ▶ kernel ▶ engine ─ frames ▶ network (loss, delay, cuts …) ─ frames ▶ engine ▶ kernel
//!            └──────────────────────── oracle: sees everything, believes nobody ──────────┘
//! ```
//!
//! A run has two phases. In the first one everything may fail, and at every step nothing unsafe may happen. Then the faults
//! stop, and within a stated time all must be equal and proven.

#![forbid(unsafe_code)]

mod attacker;
mod batch;
mod breakages;
mod coverage;
mod faults;
mod forgery;
mod kernel;
mod network;
mod node;
mod options;
mod oracle;
mod random;
mod reload;
mod seal;
mod story;
mod trace;
mod watch;
mod workload;
mod world;

pub use batch::{Batch, Found, JUDGED_FROM, Occurrence, attempt};
pub use breakages::fits;
pub use coverage::{Coverage, REQUIRED, Seen};
pub use options::Options;
pub use oracle::{Attacks, Violation};
pub use world::{Outcome, run};
