//! placeholder
#![allow(missing_docs, dead_code, unused)]
mod keepalived;
mod process;
fn main() {}
