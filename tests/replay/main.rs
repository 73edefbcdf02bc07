//! Recordings, captures of real kernels, and what is rebuilt from them.

#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/mod.rs"]
mod support;

mod history;
mod ipvs;
mod pair;
mod tshark;
