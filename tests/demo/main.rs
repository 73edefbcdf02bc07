//! `ssyncp demo`: real connections through a real router that really dies.

#[path = "../support/machine.rs"]
mod machine;

mod causes;
mod command;
mod lab;
mod traffic;
