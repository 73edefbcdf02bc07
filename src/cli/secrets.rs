//! `--secret-file`: the secrets that open the sealed frames of a recording.

use crate::wire::{SECRET_LEN, SECRETS_MAX, Secret};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the secrets of a recording's group stand.
#[derive(Debug, clap::Args)]
pub(super) struct SecretFile {
    /// Open sealed frames with the secrets in this file, as the daemon's `secret_file`: a number and 64 hexadecimal digits a line.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretFile {
    /// The secrets, none if no file was named; or what is wrong with it, in words that tell nothing of it.
    pub(super) fn read(&self) -> Result<Vec<Secret>, String> {
        self.secret_file.as_deref().map_or(Ok(Vec::new()), load)
    }
}

fn load(file: &Path) -> Result<Vec<Secret>, String> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    parse(&text).map_err(|(line, problem)| format!("{}:{line}: {problem}", file.display()))
}

/// The secrets of a file, one a line; or the first line that is wrong, and why.
fn parse(text: &str) -> Result<Vec<Secret>, (usize, &'static str)> {
    let mut secrets: Vec<Secret> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let secret = secret(line).ok_or((at + 1, "write a number from 0 to 3 and 64 hexadecimal digits"))?;
        if secrets.iter().any(|known| known.id() == secret.id()) {
            return Err((at + 1, "this number stands above already"));
        }
        secrets.push(secret);
    }
    if secrets.is_empty() { Err((1, "there is no secret in it")) } else { Ok(secrets) }
}

fn secret(line: &str) -> Option<Secret> {
    let (number, digits) = line.split_once(char::is_whitespace)?;
    let digits = digits.trim();
    if digits.len() != 2 * SECRET_LEN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Secret::new(number.parse().ok().filter(|id| usize::from(*id) < SECRETS_MAX)?, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn secrets_stand_one_a_line_in_the_order_of_the_file() {
        let text = format!("# ours\n2 {DIGITS}  # the new one\n\n  0\t{}\n", DIGITS.to_uppercase());
        let secrets = parse(&text).unwrap();
        assert_eq!(secrets.iter().map(Secret::id).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(secrets.iter().map(Secret::check).collect::<Vec<_>>(), [0x7bbb, 0x7bbb]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        let problem = |text: &str| parse(text).map(|_| ()).unwrap_err();
        let form = "write a number from 0 to 3 and 64 hexadecimal digits";
        assert_eq!(problem(&format!("# none\n4 {DIGITS}")), (2, form));
        assert_eq!(problem(&format!("1 {}", &DIGITS[1..])), (1, form));
        assert_eq!(problem(&format!("1 +{}", &DIGITS[1..])), (1, form));
        assert_eq!(problem(DIGITS), (1, form));
        assert_eq!(problem(&format!("1 {DIGITS}\n1 {DIGITS}")), (2, "this number stands above already"));
        assert_eq!(problem("# nothing\n"), (1, "there is no secret in it"));
    }
}
