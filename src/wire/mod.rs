//! Bytes ⇄ values: the frames of IPv4 protocol 114, version SSYNCP/1.
//!
//! A frame is one datagram. It begins with 40 bytes that say who sent it and which one of the sender's frames it is,
//! and ends where its `size` says; every integer in it is big-endian, nothing in it is aligned, and nothing outside it
//! enters its checksum. [`Frame::parse`] believes the outside (size, version, checksum, sender), [`Frame::verify`] the
//! inside, *all* of it, before anybody sees a value: a frame is taken whole or refused whole, under one named reason,
//! a [`FrameError`]. Decoding borrows from the frame and encoding writes into a lent slot; neither allocates.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +---------------+---------------+-------------------------------+
//!  |     count     |    sync_id    |             size              |   0   these 8 bytes stand in every version,
//!  +---------------+---------------+-------------------------------+       the draft of 2002 included
//!  |  version = 1  |     kind      |             flags             |   4
//!  +---------------+---------------+-------------------------------+
//!  |                           checksum                            |   8   CRC-32 (IEEE), this field taken as zero
//!  +---------------------------------------------------------------+
//!  |                             node                              |  12   sender, not zero
//!  +---------------------------------------------------------------+
//!  |                          incarnation                          |  16   of the sender, not zero
//!  |                                                               |
//!  +---------------------------------------------------------------+
//!  |                              seq                              |  24   from 1: DATA counts the stream,
//!  |                                                               |       everything else the sender's own counter
//!  +---------------------------------------------------------------+
//!  |                             term                              |  32   DATA: its mastership,
//!  |                                                               |       everything else the newest term known
//!  +---------------------------------------------------------------+
//!  |                           payload ...                         |  40
//! ```
//!
//! One way in, one way out:
//!
//! ```text
//!   slot ──▶ Frame::parse ──▶ Frame ──▶ verify ──▶ Verified ──▶ Payload ─┬─ Advert   who I am, whom I hear
//!            size, version,             flags,                           ├─ Records  DATA: what has changed
//!            checksum, sender           kind, the                        ├─ Status   what I hold, what I miss
//!                                       whole payload                    ├─ Pull     what I ask for again
//!                                                                        ├─ Digests… which buckets differ
//!                                                                        └─ Merge…   what another stream left
//!
//!   slot ◀── DataWriter · MergeWriter · encode_advert · encode_status · encode_pull · encode_…
//! ```
//!
//! Sealing sits between the two steps: [`Key::open`] opens a frame with the flag SEALED, and [`Sealer`] seals what was encoded.
//!
//! # What is refused and what is let pass
//!
//! One rule for all kinds. A byte that is reserved must be zero, and a length must be exactly what the counts and bits
//! before it imply: whoever sends anything else is broken or hostile. What a later version adds, it adds where this
//! one already has a way around it: a kind (skipped, counted), a record type (skipped by its length, counted), an
//! attribute (kept), a flag or capability of an ADVERT, a role or a state (kept as numbers). A value that is only said
//! at more length than needed, such as a mark that is present and zero, is taken and made canonical.

#![forbid(unsafe_code)]

mod advert;
mod checks;
pub mod classic;
mod conn;
mod control;
mod data;
mod describe;
mod digests;
mod error;
mod frame;
pub mod ipvs;
mod merge;
mod pull;
mod record;
mod seal;
mod section;
mod sequence;
mod status;
mod unseal;

pub use advert::{Advert, AdvertFlags, Capabilities, Follows, PeerReport, WireRole, encode_advert};
pub use checks::{Check, Outcome, checks};
pub use conn::Conn;
pub use control::Target;
pub use data::{DataWriter, PushError};
pub use describe::describe;
pub use digests::{
    BucketDigest, DIGESTS_MAX, DigestsAnswer, DigestsRequest, encode_digests_answer, encode_digests_request,
};
pub use error::{DropCounters, FrameError};
pub use frame::{Claim, Frame, Payload, Verified};
pub use merge::{CURSOR_END, MergePull, MergeRecords, MergeWriter, encode_merge_pull};
pub use pull::{BucketRange, Pull, encode_pull};
pub use record::{Record, Records};
pub use seal::{Key, SECRET_LEN, SECRETS_MAX, Sealer, Secret, TAG_LEN};
pub use section::{Fragment, SECTION_KEY_MAX, Section};
pub use sequence::ReplayWindow;
pub use status::{MissingRange, Status, SyncCode, encode_status};
pub use unseal::unseal;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IANA protocol number of the frames ("Any 0-hop protocol"; the number that Cassen's draft of 2002 took).
pub const IP_PROTOCOL: u8 = 114;
/// Multicast group that the frames go to; the one that the kernel's IPVS daemon uses too (with UDP 8848).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
/// The group on an IPv6 sync link: of link-local scope, so no router passes it on; 0x72 is the protocol (114), 0x51 the 81
/// of [`GROUP`]. Its Ethernet address is 33:33:00:00:72:51 (RFC 2464 section 7).
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7251);
/// Time to live (IPv6: hop limit) of every frame: one that arrives with less has crossed a router (as VRRP, RFC 9568 section 5.1.1.3).
pub const TTL: u8 = 255;
/// Version in byte 4. Zero there is the classic profile.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 40;
/// Smallest value that the largest frame may be configured to, in bytes: what the draft's messages have at most.
pub const FRAME_LEN_MIN: usize = 1208;
/// Largest frame in bytes, for links with jumbo frames.
pub const FRAME_LEN_MAX: usize = 8960;
/// Most records in a DATA frame.
pub const RECORDS_MAX: usize = 255;
/// Most peers that an ADVERT lists.
pub const PEERS_MAX: usize = 32;
/// Longest name of a node in an ADVERT, in bytes.
pub const NAME_LEN_MAX: usize = 32;
/// Most ranges in a STATUS or a PULL.
pub const RANGES_MAX: usize = 64;
/// Buckets that a table is divided into for digest and repair.
pub const BUCKETS: u16 = 4096;

/// Who sends: a node's number, never zero in a valid frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Most sync links of a group.
pub const LINKS_MAX: usize = 8;

/// What a transport knows about a frame that is not in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameMeta {
    /// Which of the group's sync links (at most [`LINKS_MAX`]) it came in on, counted from 0 in the order of the
    /// configuration.
    pub link: u8,
    /// Address of the sender; the protocol trusts it for nothing but logs.
    pub source: IpAddr,
}

/// What a frame is for (byte 5). A number, because a later version may know more of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// Who I am, whom I hear, how far I am.
    pub const ADVERT: Kind = Kind(1);
    /// Records of the stream.
    pub const DATA: Kind = Kind(2);
    /// What I hold of the stream and what I miss.
    pub const STATUS: Kind = Kind(3);
    /// Asks for the digests of buckets.
    pub const DIGESTS_REQUEST: Kind = Kind(4);
    /// Answers with them.
    pub const DIGESTS_ANSWER: Kind = Kind(5);
    /// Asks for the entries of buckets.
    pub const PULL: Kind = Kind(6);
    /// Entries outside the stream, for a merge.
    pub const RECORDS: Kind = Kind(7);

    /// Whether this version has a meaning for it.
    pub const fn is_known(self) -> bool {
        matches!(self.0, 1..=7)
    }

    /// The word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ADVERT => "advert",
            Kind::DATA => "data",
            Kind::STATUS => "status",
            Kind::DIGESTS_REQUEST => "digests_request",
            Kind::DIGESTS_ANSWER => "digests_answer",
            Kind::PULL => "pull",
            Kind::RECORDS => "records",
            _ => "unknown",
        }
    }
}

/// The header's flags (bytes 6 and 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FrameFlags(pub u16);

impl FrameFlags {
    /// Bit 0: the payload is encrypted, and a tag of 16 bytes follows it.
    pub const SEALED: FrameFlags = FrameFlags(1);
    /// Bits 8 and 9: which of the secrets sealed it.
    const KEY_ID: u16 = 0x0300;

    /// Those of a frame that is sealed with the secret of this number, 0 to 3.
    pub const fn sealed_with(id: u8) -> FrameFlags {
        FrameFlags(Self::SEALED.0 | ((id as u16) << 8 & Self::KEY_ID))
    }

    /// Whether the payload is sealed.
    pub const fn is_sealed(self) -> bool {
        self.0 & Self::SEALED.0 != 0
    }

    /// Number of the secret that sealed it, 0 to 3.
    pub const fn key_id(self) -> u8 {
        ((self.0 & Self::KEY_ID) >> 8) as u8
    }

    /// The bits that this version gives no meaning here: undefined ones, and a key's number where nothing is sealed.
    pub(crate) const fn unknown(self) -> u16 {
        let known = if self.is_sealed() { Self::SEALED.0 | Self::KEY_ID } else { 0 };
        self.0 & !known
    }
}

/// The header as values. `count`, `size`, `version` and `checksum` are not here: whoever encodes a frame computes them,
/// and whoever parses one has checked them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Header {
    /// Group: which replicated table this is about.
    pub sync_id: u8,
    /// What the frame is for. The encoders set it themselves.
    pub kind: Kind,
    /// Flags.
    pub flags: FrameFlags,
    /// Sender; not zero.
    pub node: NodeId,
    /// Number that the sender drew at random when it started; not zero.
    pub incarnation: u64,
    /// From 1. DATA: number in the stream; other kinds: the sender's control counter.
    pub seq: u64,
    /// DATA: the term of its mastership; other kinds: the newest term that the sender knows.
    pub term: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_number_without_a_seal_means_nothing() {
        assert_eq!(FrameFlags(0x0201).unknown(), 0);
        assert_eq!(FrameFlags(0x0201).key_id(), 2);
        assert_eq!(FrameFlags(0x0200).unknown(), 0x0200);
        assert_eq!(FrameFlags(0x8003).unknown(), 0x8002);
        assert!(!FrameFlags(0xfffe).is_sealed());
    }
}
