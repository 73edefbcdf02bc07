//! The commands that need no daemon.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/vectors.rs"]
mod vectors;

mod commands;
mod configurations;
mod recordings;
mod sealed;
mod sim;
