//! The binary: it only opens the door to the library's command line.

use ssyncp::demo::{PartOptions, run_part};

fn main() -> std::process::ExitCode {
    // Stands in for the command line, as far as the demo's own processes need it.
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("demo-part"), Some(part), Some(instructions)) => run_part(&PartOptions { part, instructions }),
        _ => std::process::ExitCode::SUCCESS,
    }
}
