//! The binary: it only opens the door to the library's command line, and says which allocator there is.

use ssyncp::sys::huge::HugePages;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> std::process::ExitCode {
    ssyncp::cli::main()
}
