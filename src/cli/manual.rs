//! `ssyncp manual FOLDER`: man pages and completions, out of the same words as `--help`. Hidden: it is for who makes a package.

use super::output::complain;
use super::{Arguments, EXIT_NO};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `ssyncp manual` can be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where `man/` and `completions/` are made.
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> ExitCode {
    match write(&options.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{}: {error}", options.folder.display()));
            ExitCode::from(EXIT_NO)
        }
    }
}

/// One page for the program and one for each subcommand that is shown; and a file for each shell.
fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Arguments::command(), &man)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Arguments::command(), "ssyncp", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_no_hidden_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name));
        let whole = page("ssyncp.1").unwrap();
        assert!(whole.contains("Keeps the connection tables of a "), "{whole}");
        assert!(page("ssyncp-status.1").unwrap().contains("exit status"));
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert_eq!(page(&format!("ssyncp-{name}.1")).is_ok(), !command.is_hide_set(), "{name}");
        }
        assert!(page("ssyncp-section-put.1").is_ok());
        for completion in ["ssyncp.bash", "ssyncp.fish", "_ssyncp"] {
            assert!(folder.path().join("completions").join(completion).is_file(), "{completion}");
        }
    }
}
