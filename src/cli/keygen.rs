//! `ssyncp keygen`: a secret out of the kernel's random numbers, on standard output or in a file that only its owner can read.
//!
//! ```text
//!   keygen            one line on standard output
//!   keygen FILE       a new file, never over another
//!   keygen --add FILE .FILE.new: what FILE says, and one line more ──fsync, rename──▶ FILE: the old or the new, never half
//! ```

use super::output::{complain, print};
use super::{EXIT_NO, EXIT_REFUSED, EXIT_USAGE};
use crate::daemon::settings::SecretFile;
use crate::daemon::settings::secret::{self, LINE_LEN, SECRET_FILE_MAX, line, new_file};
use crate::wire::SECRETS_MAX;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// What `ssyncp keygen` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp keygen /etc/ssyncp/secret\n  ssyncp keygen --add /etc/ssyncp/secret\n\n\
    The nodes of a cluster have the same file. Its first secret seals, the others open only: so a new one is added at the \
    end everywhere before it is moved to the top.")]
pub(super) struct Options {
    /// Where it is written: a new file, for its owner alone; standard output without one.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Add the secret to the end of a file that is there.
    #[arg(long, requires = "file")]
    add: bool,
    /// Its number in frames, 0 to 3 [default: 0; with --add the next that is free].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=SECRETS_MAX as i64 - 1))]
    number: Option<u8>,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is such a file.
    #[error("{0} is there already; add to it with --add, or name another file")]
    Exists(String),
    /// A file to which nothing can be added.
    #[error("{}", .0.join("\n"))]
    Unfit(Vec<String>),
    /// The number that was asked for is that of another secret.
    #[error("{file} has a secret {number} already; without --number it gets one that is free")]
    Taken { file: String, number: u8 },
    /// All numbers are in use.
    #[error(
        "{0} holds {SECRETS_MAX} secrets, which is all that there can be; remove one that no node seals with any more"
    )]
    Full(String),
    /// The operating system refused.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

impl Failure {
    fn exit(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Exists(_) | Failure::Taken { .. } | Failure::Full(_) => EXIT_REFUSED,
            Failure::Unfit(_) => EXIT_USAGE,
            Failure::Io(..) => EXIT_NO,
        })
    }
}

pub(super) fn run(options: &Options) -> ExitCode {
    secret::forgo_dumps();
    let made = match &options.file {
        None => return to_standard_output(options.number.unwrap_or(0)),
        Some(file) if options.add => append(file, options.number),
        Some(file) => create(file, options.number.unwrap_or(0)),
    };
    match made {
        Ok(next) => print(&next),
        Err(failure) => {
            failure.to_string().lines().for_each(complain);
            failure.exit()
        }
    }
}

fn to_standard_output(number: u8) -> ExitCode {
    let printed = print(&line(number));
    complain(
        "this line is a secret: it belongs into a file that only the daemon's user can read, the same on all nodes (ssyncp keygen FILE \
         makes one), which [node] secret_file names",
    );
    printed
}

/// A new file with one secret; what to do next.
fn create(path: &Path, number: u8) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Exists(shown.clone()),
        _ => Failure::Io(shown.clone(), error),
    };
    let mut file = new_file(path).map_err(failed)?;
    // What root makes here is for the daemon, which must be able to read it.
    let daemon = secret::daemon_user().filter(|_| nix::unistd::geteuid().is_root());
    let given = daemon.map_or(Ok(()), |(user, group)| fchown(&file, Some(user.as_raw()), Some(group.as_raw())));
    let written = given
        .and_then(|()| file.write_all(line(number).as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_parent(path));
    if let Err(error) = written {
        // Half a secret helps nobody.
        let _ = fs::remove_file(path);
        return Err(failed(error));
    }
    // A configuration takes it only so.
    let absolute = std::path::absolute(path).map_err(failed)?;
    let absolute = absolute.display();
    let reader = daemon.map_or_else(|| "its owner".to_owned(), |_| format!("the user {}", secret::DAEMON_USER));
    Ok(format!(
        "{shown}: secret {number}, which only {reader} can read\n\
         next: copy the file to every other node (scp -p, and chown {user} there), write secret_file = \"{absolute}\" into [node] there and here, and\n\
         ssyncp check. Nodes that run without a secret begin with auth = \"permissive\" (docs/operations.md)\n",
        user = secret::DAEMON_USER
    ))
}

/// The same file with one secret more; what to do next.
fn append(path: &Path, number: Option<u8>) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| Failure::Io(shown.clone(), error);
    let file = SecretFile::Path(path.to_owned());
    let text = secret::read_bytes(&file).map_err(Failure::Unfit)?;
    let secrets = secret::parse(&file, &text).map_err(Failure::Unfit)?;
    let taken = |number: u8| secrets.iter().any(|secret| secret.id() == number);
    if secrets.len() == SECRETS_MAX {
        return Err(Failure::Full(shown));
    }
    // The number after the newest, so that one which was removed just now comes back last.
    let newest = secrets.last().map_or(0, |secret| secret.id());
    let next = (1..=SECRETS_MAX as u8).map(|step| (newest + step) % SECRETS_MAX as u8).find(|number| !taken(*number));
    let number = number.or(next).unwrap_or(0);
    if taken(number) {
        return Err(Failure::Taken { file: shown, number });
    }
    let mut longer = Zeroizing::new(Vec::with_capacity(text.len() + 1 + LINE_LEN));
    longer.extend_from_slice(&text);
    if !text.ends_with(b"\n") {
        longer.push(b'\n');
    }
    longer.extend_from_slice(line(number).as_bytes());
    if longer.len() > SECRET_FILE_MAX {
        return Err(Failure::Unfit(vec![format!(
            "{shown}: would have more than {SECRET_FILE_MAX} bytes; shorten its comments"
        )]));
    }
    replace(path, &longer).map_err(failed)?;
    Ok(format!(
        "{shown}: secret {number} stands at the end, so that it opens and does not seal yet\n\
         next: copy the file to every other node (scp -p, and chown {} there), and ssyncp reload on each; then move the line to the top on each,\n\
         and reload; then remove the old one on each, and reload (docs/operations.md)\n",
        secret::DAEMON_USER
    ))
}

/// Puts a file in the place of another, at once; mode and owner are those of the other.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let old = fs::symlink_metadata(path)?;
    let mut file = new_file(&temporary)?;
    let mut write = || {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_parent(path)
}

/// Makes a name in a directory outlive a loss of power.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn numbers(path: &Path) -> Vec<u8> {
        let secrets = secret::read(&SecretFile::Path(path.to_owned())).unwrap();
        secrets.iter().map(|secret| secret.id()).collect()
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_no_other_is_written_over() {
        let directory = directory();
        let path = directory.path().join("secret");
        assert!(create(&path, 2).unwrap().contains("secret 2, which only"));
        assert_eq!((fs::metadata(&path).unwrap().mode() & 0o7777, numbers(&path)), (0o600, vec![2]));
        let before = fs::read(&path).unwrap();
        assert!(matches!(create(&path, 0), Err(Failure::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), before);
        // A link to nowhere is a name that is taken.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
        assert!(matches!(create(&link, 0), Err(Failure::Exists(_))));
    }

    #[test]
    fn what_is_added_stands_at_the_end_under_the_next_number_until_all_are_taken() {
        let directory = directory();
        let path = directory.path().join("secret");
        create(&path, 2).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        // With a comment, and without the last line's end.
        fs::write(&path, format!("# ours\n{}", first.trim_end())).unwrap();
        for expected in [&[2, 3][..], &[2, 3, 0], &[2, 3, 0, 1]] {
            append(&path, None).unwrap();
            assert_eq!(numbers(&path), expected);
        }
        assert!(fs::read_to_string(&path).unwrap().starts_with(&format!("# ours\n{first}3 ")));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(append(&path, None), Err(Failure::Full(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_number_that_is_taken_and_a_file_that_is_unfit_are_refused_and_nothing_changes() {
        let directory = directory();
        let path = directory.path().join("secret");
        create(&path, 1).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(append(&path, Some(1)), Err(Failure::Taken { number: 1, .. })));
        append(&path, Some(0)).unwrap();
        assert_eq!(numbers(&path), [1, 0]);
        fs::write(&path, &before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(append(&path, None), Err(Failure::Unfit(_))));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(matches!(append(&directory.path().join("none"), None), Err(Failure::Unfit(_))));
    }
}
