//! The one place where the protocol engine meets sockets, kernel and operator.
//!
//! ```text
//!   settings ─▶ run ─┬─▶ group ─▶ driver ◀─▶ engine          one thread a group
//!                    │              │ ├─ feed ◀── source      kernel → engine
//!                    │              │ ├─ drain ──▶ sink       engine → kernel
//!                    │              │ ├─ audit ◀── inspector  engine ≟ kernel
//!                    │              │ └─ link ◀─▶ transport   frames
//!                    │              └─ takeover               one thread a group with addresses
//!                    ├─▶ http ─ control ─▲                    one thread; client is its other end
//!                    ├─▶ errands ─ track, notify                checks, hooks, FIFOs: one thread
//!                    ├── driven ─▲                            one thread a FIFO of keepalived's
//!                    ├── reload ─ roster                      what is in force, and what comes instead
//!                    └── signals, systemd
//! ```
//!
//! Threads talk by channel and waker; none of them waits for another while it holds something. `build` is the only file
//! that names concrete transports, sources and sinks.

pub mod announce;
pub mod answers;
pub mod audit;
pub mod build;
pub mod client;
pub mod control;
mod drain;
pub mod draining;
pub mod driven;
pub mod driver;
pub mod errands;
pub mod events;
mod feed;
pub mod flows;
pub mod group;
pub mod http;
pub mod journal;
pub mod link;
pub mod measures;
pub mod notify;
pub mod pace;
pub mod privilege;
pub mod program;
pub mod protocol;
pub mod reload;
mod room;
pub mod roster;
pub mod run;
pub mod sandbox;
pub mod sections;
pub mod settings;
pub mod status;
mod swap;
pub mod takeover;
pub mod track;
mod watchdog;
pub mod who;
