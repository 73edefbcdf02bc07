//! The IPv4 header in front of a frame, as a raw socket delivers it (RFC 791 section 3.1; raw(7)).
//!
//! ```text
//!   0        version (4 bits), header length in words (4 bits)
//!   2..4     total length, header included
//!   8        time to live
//!  12..16    source
//!  header length × 4 .. total length    the frame
//! ```

use super::Refusal;
use crate::wire::TTL;
use std::net::Ipv4Addr;

/// Bytes of an IPv4 header without options: what a sender puts in front of a frame.
pub(super) const HEADER_LEN: usize = 20;
/// Bytes of the longest IPv4 header: what a receiver needs room for.
pub(super) const HEADER_LEN_MAX: usize = 60;

/// The sender's address and the frame in a datagram, of which a receive slot may have cut off the end.
pub(super) fn frame(datagram: &mut [u8], frame_len_max: usize) -> Result<(Ipv4Addr, &mut [u8]), Refusal> {
    let arrived = datagram.len();
    let Some((header, _)) = datagram.split_first_chunk::<HEADER_LEN>() else { return Err(Refusal::Malformed) };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    if header[0] >> 4 != 4 || header_len < HEADER_LEN || total_len <= header_len {
        return Err(Refusal::Malformed);
    }
    if header[8] != TTL {
        return Err(Refusal::Ttl);
    }
    if total_len - header_len > frame_len_max {
        return Err(Refusal::Oversized);
    }
    if total_len != arrived {
        return Err(Refusal::Malformed);
    }
    Ok((source, &mut datagram[header_len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 bytes "data" from 10.0.0.1 to 224.0.0.81, TTL 255, protocol 114.
    const PLAIN: [u8; 24] =
        [0x45, 0xc0, 0, 24, 0, 0, 0x40, 0, 255, 114, 0, 0, 10, 0, 0, 1, 224, 0, 0, 81, b'd', b'a', b't', b'a'];

    fn refusal(mut datagram: Vec<u8>) -> Refusal {
        frame(&mut datagram, 4).unwrap_err()
    }

    fn with(index: usize, value: u8) -> Vec<u8> {
        let mut datagram = PLAIN.to_vec();
        datagram[index] = value;
        datagram
    }

    #[test]
    fn the_frame_follows_the_header() {
        let mut datagram = PLAIN;
        let (source, data) = frame(&mut datagram, 4).unwrap();
        assert_eq!((source, &*data), (Ipv4Addr::new(10, 0, 0, 1), b"data".as_slice()));
    }

    #[test]
    fn options_belong_to_the_header() {
        let mut datagram = with(0, 0x46);
        datagram.splice(20..20, [1, 1, 1, 0]);
        datagram[3] = 28;
        assert_eq!(frame(&mut datagram, 4).unwrap().1, b"data");
    }

    /// [3.0.2] [3] a receiver drops TTL ≠ 255.
    #[test]
    fn what_has_crossed_a_router_is_refused() {
        assert_eq!(refusal(with(8, 254)), Refusal::Ttl);
        assert_eq!(refusal(with(8, 0)), Refusal::Ttl);
    }

    #[test]
    fn a_header_that_contradicts_itself_is_malformed() {
        assert_eq!(refusal(with(0, 0x65)), Refusal::Malformed, "version 6");
        assert_eq!(refusal(with(0, 0x44)), Refusal::Malformed, "a header of 16 bytes");
        assert_eq!(refusal(with(0, 0x46)), Refusal::Malformed, "nothing after the header");
        assert_eq!(refusal(with(0, 0x4f)), Refusal::Malformed, "a header longer than the datagram");
        assert_eq!(refusal(with(3, 23)), Refusal::Malformed, "more arrived than the length says");
        assert_eq!(refusal(with(3, 20)), Refusal::Malformed, "no frame");
    }

    #[test]
    fn a_datagram_of_any_length_is_refused_without_panic() {
        for length in 0..PLAIN.len() {
            assert_eq!(refusal(PLAIN[..length].to_vec()), Refusal::Malformed, "{length} bytes");
        }
    }

    #[test]
    fn one_byte_more_than_the_largest_frame_is_oversized_even_where_the_slot_cut_it_off() {
        let mut datagram = with(3, 25);
        assert_eq!(refusal(datagram.clone()), Refusal::Oversized);
        datagram.push(b'!');
        assert_eq!(refusal(datagram), Refusal::Oversized);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_refusal_or_a_frame_within_bounds(
            start in 0u8..=255, total_len: u16, mut rest in proptest::collection::vec(0u8.., 0..100),
        ) {
            rest.insert(0, start);
            if let Some(length) = rest.get_mut(2..4) {
                length.copy_from_slice(&total_len.to_be_bytes());
            }
            if let Ok((_, data)) = frame(&mut rest, 64) {
                assert!((1..=64).contains(&data.len()));
            }
        }
    }
}
