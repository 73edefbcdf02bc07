//! What every target's program is made of: compiled once.

#[path = "bodies/mod.rs"]
pub mod bodies;

/// Plants the bug that the environment names (`PLANT`, one of `ssyncp::planted`), if it names one.
pub fn plant() {
    if let Ok(name) = std::env::var("PLANT") {
        assert!(ssyncp::planted::plant(&name), "there is no plant {name}");
    }
}

/// The program of one target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(init: $crate::plant(), |data: &[u8]| $crate::bodies::run($name, data));
    };
}
