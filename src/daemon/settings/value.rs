//! Values that TOML has no type for: durations and sizes with units, multicast groups, names of interfaces.

use crate::planted::{Plant, planted};
pub(super) use crate::time::words as duration_words;
use crate::time::{Duration, UNITS};
use crate::wire::{GROUP, GROUP6};
use std::net::IpAddr;

/// Longest name of a network interface in bytes: `IFNAMSIZ` of linux/if.h less its terminating zero.
pub(super) const INTERFACE_NAME_MAX: usize = 15;

/// Reads `"100ms"`.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("\"{text}\" is no duration; write a whole number with a unit, as \"100ms\", \"1s\" or \"5m\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit; write \"{number}ms\" or \"{number}s\""));
    }
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    let product = if planted(Plant::DurationOverflow) { Some(number * scale) } else { number.checked_mul(*scale) };
    product.map(Duration::from_nanos).ok_or_else(wrong)
}

/// Units of sizes, largest first, in bytes.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads `"64MiB"`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("\"{text}\" is no size; write a whole number with a unit, as \"512KiB\", \"64MiB\" or \"1GiB\"");
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    number.checked_mul(*scale).ok_or_else(wrong)
}

/// Writes a size, which is a multiple of 1 KiB, in the largest unit that is exact.
pub(super) fn size_words(size: u64) -> String {
    let (unit, scale) = SIZES.iter().find(|(_, scale)| size.is_multiple_of(*scale)).unwrap_or(&("KiB", 1 << 10));
    format!("{}{unit}", size / scale)
}

/// Reads the multicast group of the frames. An IPv6 one says in itself how far routers may pass it on (RFC 4291 section
/// 2.7), and frames are for the link alone.
pub(super) fn multicast_group(text: &str) -> Result<IpAddr, String> {
    let group = text.parse().ok().filter(IpAddr::is_multicast);
    match group {
        None => Err(format!("\"{text}\" is no multicast address; write \"{GROUP}\", or \"{GROUP6}\" for IPv6")),
        Some(IpAddr::V6(group)) if group.segments()[0] != 0xff02 => {
            Err(format!("\"{text}\" is not of link-local scope (ff02::/16); write \"{GROUP6}\""))
        }
        Some(group) => Ok(group),
    }
}

/// Checks the name of an interface as the kernel does (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX {
        return Err(format!("\"{name}\" is no interface; a name has 1 to {INTERFACE_NAME_MAX} bytes"));
    }
    if name == "."
        || name == ".."
        || name.bytes().any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace())
    {
        return Err(format!("\"{name}\" is no interface; a name has no '/', no ':' and no blank"));
    }
    Ok(())
}

/// Checks a name that is passed on to scripts and metrics: no blanks, no quotes, nothing that a terminal obeys.
pub(super) fn plain_name(name: &str, most: usize) -> Result<String, String> {
    if name.is_empty() || name.len() > most {
        return Err(format!("\"{name}\" is no name; one has 1 to {most} bytes"));
    }
    if name.chars().any(|letter| letter.is_control() || letter.is_whitespace() || letter == '"') {
        return Err(format!("{name:?} is no name; one has no blank, no quote and no control character"));
    }
    Ok(name.to_owned())
}

/// Writes a policy as its word.
pub(super) fn ack_word<S: serde::Serializer>(ack: &crate::engine::Ack, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(ack.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_units() {
        for (text, nanoseconds) in
            [("100ms", 100_000_000), ("1s", 1_000_000_000), ("5m", 300_000_000_000), ("250us", 250_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)));
            assert_eq!(duration_words(Duration::from_nanos(nanoseconds)), text);
        }
        assert_eq!(duration("1500ms").map(duration_words), Ok("1500ms".to_owned()));
        assert_eq!(duration("120s").map(duration_words), Ok("2m".to_owned()));
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_the_cure() {
        assert_eq!(duration("100"), Err("\"100\" has no unit; write \"100ms\" or \"100s\"".to_owned()));
        for wrong in ["", "ms", "-1s", "1.5s", "1 week", "99999999999999h"] {
            assert!(duration(wrong).unwrap_err().contains("is no duration"), "{wrong}");
        }
    }
}
