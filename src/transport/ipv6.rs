//! A frame over IPv6, as a raw socket delivers it: without its header (RFC 3542 section 3). What of the header counts
//! comes beside the datagram: hop limit, sender, and whether the slot was too short for it.

use super::Refusal;
use crate::sys::mmsg::Datagram;
use crate::wire::TTL;
use std::net::Ipv6Addr;

/// Bytes of an IPv6 header without extensions: what a sender puts in front of a frame (RFC 8200 section 3).
pub(super) const HEADER_LEN: usize = 40;

/// The sender's address and the frame.
pub(super) fn frame(datagram: Datagram<'_>, frame_len_max: usize) -> Result<(Ipv6Addr, &mut [u8]), Refusal> {
    let Datagram { bytes, hop_limit, source, cut, .. } = datagram;
    let (Some(hop_limit), Some(source)) = (hop_limit, source) else { return Err(Refusal::Malformed) };
    if hop_limit != TTL {
        return Err(Refusal::Ttl);
    }
    if cut || bytes.len() > frame_len_max {
        return Err(Refusal::Oversized);
    }
    if bytes.is_empty() {
        return Err(Refusal::Malformed);
    }
    Ok((source, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(bytes: &mut [u8]) -> Datagram<'_> {
        Datagram { bytes, dropped: None, hop_limit: Some(255), source: Some(Ipv6Addr::LOCALHOST), cut: false }
    }

    #[test]
    fn the_frame_is_all_that_arrived() {
        assert_eq!(frame(arrived(&mut [1, 2, 3, 4]), 4), Ok((Ipv6Addr::LOCALHOST, &mut [1, 2, 3, 4][..])));
    }

    /// [3.0.5] A hop limit that is not 255 has crossed a router.
    #[test]
    fn what_has_crossed_a_router_is_refused() {
        for hop_limit in [254, 64, 0] {
            assert_eq!(frame(Datagram { hop_limit: Some(hop_limit), ..arrived(&mut [1]) }, 4), Err(Refusal::Ttl));
        }
    }

    #[test]
    fn what_is_too_long_is_oversized_and_what_lacks_something_is_malformed() {
        assert_eq!(frame(arrived(&mut [0; 5]), 4), Err(Refusal::Oversized));
        assert_eq!(frame(Datagram { cut: true, ..arrived(&mut [0; 4]) }, 4), Err(Refusal::Oversized));
        assert_eq!(frame(arrived(&mut []), 4), Err(Refusal::Malformed));
        assert_eq!(frame(Datagram { hop_limit: None, ..arrived(&mut [1]) }, 4), Err(Refusal::Malformed));
        assert_eq!(frame(Datagram { source: None, ..arrived(&mut [1]) }, 4), Err(Refusal::Malformed));
    }
}
