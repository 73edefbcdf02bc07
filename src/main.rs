//! The binary: it only opens the door to the library's command line, and says which allocator there is.

/// Address sanitizer watches the system's allocator alone: it would not know of a block that has a mapping of its own, nor
/// of a read behind it. So under `tools/sanitize` there is no other.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: ssyncp::sys::huge::HugePages = ssyncp::sys::huge::HugePages;

fn main() -> std::process::ExitCode {
    ssyncp::cli::main()
}
