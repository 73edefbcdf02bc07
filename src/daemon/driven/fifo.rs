//! A FIFO that somebody else may make, remove and make anew, seen from its reader.
//!
//! ```text
//!   path ─▶ pipe ◀── keepalived    it opens it for both directions: what it writes while nobody reads stays in the pipe
//!            └──────▶ us           read: bytes; nothing yet (keepalived is there); end (it is not)
//! ```
//!
//! keepalived (2.2.7) makes a FIFO that is not there, and then also removes it when it ends or reloads; one that is there it
//! leaves alone. So it is made here whenever it is missing, and is never removed. After an end of file it is opened anew,
//! because a pipe that has lost its last writer is "ready" for ever. A path that leads to another pipe is noticed within
//! [`LOOK_INTERVAL`](super::LOOK_INTERVAL); until then the other pipe keeps what is written to it.

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Which pipe it is: device and number of the inode.
pub type Identity = (u64, u64);

/// What reading found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now; a writer has it open.
    Nothing,
    /// Nobody has it open for writing.
    NoWriter,
}

/// The reading end.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    file: File,
    identity: Identity,
}

impl Fifo {
    /// Opens the FIFO at `path`, and makes it if there is none. Waits for nobody.
    ///
    /// # Errors
    /// The operating system's error; `InvalidInput` for what is there and is no FIFO.
    pub fn open(path: &Path) -> io::Result<Self> {
        match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.file_type().is_fifo() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no FIFO; remove it, or name another"));
        }
        Ok(Fifo { path: path.to_owned(), file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Which pipe it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether its path still leads to it.
    pub fn is_at_its_path(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Found> {
        loop {
            return match self.file.read(buffer) {
                Ok(0) => Ok(Found::NoWriter),
                Ok(length) => Ok(Found::Bytes(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Found::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }
}

impl AsFd for Fifo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// As keepalived opens it.
    fn writer(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    #[test]
    fn what_was_written_before_there_was_a_reader_is_read_and_a_writer_that_goes_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("fifo");
        let mut buffer = [0; 16];
        assert_eq!(Fifo::open(&path).unwrap().read(&mut buffer).unwrap(), Found::NoWriter);
        let mut keepalived = writer(&path);
        keepalived.write_all(b"early").unwrap();
        let mut fifo = Fifo::open(&path).unwrap();
        assert_eq!(fifo.read(&mut buffer).unwrap(), Found::Bytes(5));
        assert_eq!(&buffer[..5], b"early");
        assert_eq!(fifo.read(&mut buffer).unwrap(), Found::Nothing);
        drop(keepalived);
        assert_eq!(fifo.read(&mut buffer).unwrap(), Found::NoWriter);
    }

    #[test]
    fn a_pipe_that_was_removed_or_replaced_is_no_longer_at_its_path() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("fifo");
        let fifo = Fifo::open(&path).unwrap();
        assert!(fifo.is_at_its_path());
        std::fs::rename(&path, place.path().join("old")).unwrap();
        assert!(!fifo.is_at_its_path());
        let other = Fifo::open(&path).unwrap();
        assert!(other.is_at_its_path() && !fifo.is_at_its_path());
        assert_ne!(other.identity(), fifo.identity());
    }

    #[test]
    fn what_is_no_fifo_is_refused_and_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, "something").unwrap();
        assert_eq!(Fifo::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something");
        assert_eq!(Fifo::open(&place.path().join("no/fifo")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
