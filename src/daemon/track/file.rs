//! A number that somebody else writes into a file, as keepalived's `track_file`: times the weight it is added to the
//! priority.
//!
//! ```text
//!   "40\n"   weight -1 ──▶ -40      priority 150 becomes 110
//!   "300"    weight -1 ──▶ -300     below -253: to be without the role
//!   "1"      weight  0 ──▶ a failure, as any number but 0
//!   no file                ──▶ 0, as in keepalived
//!   "", "x"  ──▶ the number before: whoever writes may be in the middle of it
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

/// Bytes of a file that are looked at.
const READ_LEN: u64 = 128;
/// Least product that lowers the priority; below it the node is to be without the role (keepalived's fault).
const LEAST: i64 = -253;
/// Largest product that counts.
const MOST: i64 = 253;

/// What stands in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// There is none.
    Missing,
    /// Nothing stands in it.
    Empty,
    /// This number.
    Number(i32),
}

/// Reads the number of a file: its first word.
///
/// # Errors
/// The operating system's error, or that the word is no number.
pub(super) fn read(path: &str) -> io::Result<Found> {
    // Whoever made a FIFO of it must not keep all other checks waiting.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(READ_LEN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let Some(word) = text.split_whitespace().next() else { return Ok(Found::Empty) };
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, format!("{word:?} is no number"));
    word.parse().map(Found::Number).map_err(wrong)
}

/// What a number adds to the priority; `None` if the node is to be without the role.
pub(super) fn bonus(number: i32, weight: i16) -> Option<i32> {
    if weight == 0 {
        return (number == 0).then_some(0);
    }
    let product = i64::from(number) * i64::from(weight);
    (product >= LEAST).then(|| i32::try_from(product.min(MOST)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_number_and_what_is_none_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(path.to_str().unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(said("40\n"), Ok(Found::Number(40)));
        assert_eq!(said("  -7 of 9"), Ok(Found::Number(-7)));
        assert_eq!(said(" \n"), Ok(Found::Empty));
        assert_eq!(said("down\n"), Err("\"down\" is no number".into()));
        assert_eq!(said("2147483648"), Err("\"2147483648\" is no number".into()));
        assert_eq!(read("/no/such/file").unwrap(), Found::Missing);
        assert!(read("/").is_err());
    }

    #[test]
    fn a_fifo_without_a_writer_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(path.to_str().unwrap()).unwrap(), Found::Empty);
    }

    #[test]
    fn a_number_counts_times_its_weight_as_in_keepalived() {
        assert_eq!(bonus(40, -1), Some(-40));
        assert_eq!(bonus(-40, 1), Some(-40));
        assert_eq!(bonus(5, 10), Some(50));
        assert_eq!((bonus(253, -1), bonus(254, -1)), (Some(-253), None));
        assert_eq!(bonus(i32::MAX, 253), Some(253));
        assert_eq!(bonus(i32::MIN, 253), None);
        assert_eq!((bonus(0, 0), bonus(1, 0), bonus(-1, 0)), (Some(0), None, None));
    }
}
