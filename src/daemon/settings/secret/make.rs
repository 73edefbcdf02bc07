//! A secret that nobody has seen, and a file that only its owner can read.

use crate::sys::clock;
use crate::wire::SECRET_LEN;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of a line: the number, a blank, two digits a byte, the line's end.
pub const LINE_LEN: usize = 3 + 2 * SECRET_LEN;

/// Draws a secret, as the line of a file under the number of one digit.
pub fn line(number: u8) -> Zeroizing<String> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    clock::random(&mut *secret);
    // It never grows: a string that does leaves what it held behind.
    let mut line = Zeroizing::new(String::with_capacity(LINE_LEN));
    line.push(char::from(HEX[usize::from(number & 15)]));
    line.push(' ');
    for byte in secret.iter() {
        line.push(char::from(HEX[usize::from(byte >> 4)]));
        line.push(char::from(HEX[usize::from(byte & 15)]));
    }
    line.push('\n');
    line
}

/// A file that was not there, for its owner alone whatever the umask says.
///
/// # Errors
/// The operating system's error; `EEXIST` also for a link that leads nowhere.
pub fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_number_and_64_digits_that_nobody_has_seen() {
        let (one, two) = (line(3), line(3));
        assert_eq!((one.len(), &one[..2], &one[66..]), (67, "3 ", "\n"));
        assert!(one[2..66].bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)));
        assert_ne!(*one, *two);
    }
}
