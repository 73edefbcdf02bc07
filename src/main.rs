//! The binary: it only opens the door to the library's command line.

fn main() -> std::process::ExitCode {
    ssyncp::cli::main()
}
