//! Two daemons and more in namespaces, and what happens between them.

#[path = "../../examples/rivals/keepalived.rs"]
#[allow(dead_code, unreachable_pub)] // As it stands there.
mod keepalived;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../../examples/rivals/process.rs"]
#[allow(dead_code, unreachable_pub)] // As it stands there.
mod process;
#[path = "../support/mod.rs"]
mod support;

mod active;
mod besieged;
mod classic;
mod clocks;
mod driven;
mod failures;
mod intruder;
mod joiner;
mod links;
mod sealed;
mod switchover;
mod three;
mod traffic;
mod wire;
