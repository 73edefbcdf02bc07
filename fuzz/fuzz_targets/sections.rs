#![no_main]
#[path = "../target.rs"]
mod target;

target::target!("sections");
