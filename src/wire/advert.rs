//! ADVERT: who I am, whom I hear, how far I am. Every node sends it every interval; elections, the proof that a link
//! works in both directions, and the proof that two tables are equal all rest on it.
//!
//! ```text
//!    0 role u8, priority u8, interval u16 (ms)      4 flags u32
//!    8 term_start u64       16 stream_seq u64      24 history_start u64     32 digest u64      40 entries u64
//!   48 follows: node u32, heir u32                 56 incarnation u64       64 term u64
//!   72 hash_seed u64        80 capabilities u32    84 kernel: capacity u32, buckets u32
//!   92 name length u8, peer count u8, zero u16     96 name, not padded; then per peer 32 bytes:
//!      node u32, credit u32, incarnation u64, heard u64, frontier u64
//! ```

use super::control::{encode, list};
use super::{FrameError, Header, Kind, NAME_LEN_MAX, NodeId, PEERS_MAX, SECRETS_MAX, Secret};
use crate::planted::{Plant, planted};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// ADVERT: who I am, whom I hear, how far I am [3.5].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Advert<'a> {
    /// The sender's role.
    pub role: WireRole,
    /// VRRP priority: 1 to 254, 255 owner, 0 leaving.
    pub priority: u8,
    /// Time between two of its ADVERTs in milliseconds; not zero.
    pub interval_ms: u16,
    /// Flags.
    pub flags: AdvertFlags,
    /// The stream's number before the first of the sender's mastership.
    pub term_start: u64,
    /// The sender's last DATA number: what reveals a lost tail.
    pub stream_seq: u64,
    /// Oldest frame that it can send again.
    pub history_start: u64,
    /// Digest of its whole table at `stream_seq`; means something only under [`AdvertFlags::DIGEST_VALID`].
    pub digest: u64,
    /// Entries of its table at `stream_seq`; as the digest.
    pub entries: u64,
    /// The stream that it follows while that one's master lives.
    pub follows: Follows,
    /// Seed of the digest's hash; a new master keeps that of the stream that it followed [4.4.7].
    pub hash_seed: u64,
    /// What it can take; for people, nothing is sent or held back for it.
    pub capabilities: Capabilities,
    /// Most entries that its kernel's connection table takes (`nf_conntrack_max`); 0 if it has none or does not know.
    pub kernel_capacity: u32,
    /// Hash buckets of that table (`nf_conntrack_buckets`); 0 likewise.
    pub kernel_buckets: u32,
    /// Name for people, at most [`NAME_LEN_MAX`] bytes, hopefully UTF-8.
    pub name: &'a [u8],
    /// Whom it hears, at most [`PEERS_MAX`].
    pub peers: &'a [PeerReport],
}

/// A node's role as it travels. Any number is valid: a role of unknown meaning is a role that is not master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct WireRole(pub u8);

impl WireRole {
    /// Just started.
    pub const INIT: WireRole = WireRole(0);
    /// Follows a master or waits for one.
    pub const BACKUP: WireRole = WireRole(1);
    /// On the way from backup to master.
    pub const PROMOTING: WireRole = WireRole(2);
    /// Owns the addresses and the stream.
    pub const MASTER: WireRole = WireRole(3);
    /// Cannot work.
    pub const FAULT: WireRole = WireRole(4);
    /// Takes part in nothing.
    pub const NONE: WireRole = WireRole(5);

    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            WireRole::INIT => "init",
            WireRole::BACKUP => "backup",
            WireRole::PROMOTING => "promoting",
            WireRole::MASTER => "master",
            WireRole::FAULT => "fault",
            WireRole::NONE => "none",
            _ => "unknown",
        }
    }
}

/// Flags of an ADVERT. Bits of unknown meaning are kept: a later version may say more here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct AdvertFlags(pub u32);

impl AdvertFlags {
    /// Not yet proven equal since it started.
    pub const COLD: AdvertFlags = AdvertFlags(1);
    /// `digest` and `entries` are those of `stream_seq`.
    pub const DIGEST_VALID: AdvertFlags = AdvertFlags(2);
    /// Asks the master for the role.
    pub const ASKS: AdvertFlags = AdvertFlags(4);
    /// Is handing the role over to `follows.heir`.
    pub const HANDING_OVER: AdvertFlags = AdvertFlags(8);
    /// Is to be without the role while anybody else may have it.
    pub const DRAINING: AdvertFlags = AdvertFlags(16);
    /// Its table is proven equal to that of the master that `follows` names [6.0.2].
    pub const PROVEN: AdvertFlags = AdvertFlags(32);
    /// Was master, and holds what the present one has not asked for yet [5.5.3].
    pub const OFFERS: AdvertFlags = AdvertFlags(64);

    /// Whether all bits of `flags` are set.
    pub const fn contains(self, flags: AdvertFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, flags: AdvertFlags) -> AdvertFlags {
        AdvertFlags(self.0 | flags.0)
    }

    /// These flags, and those as `on` says.
    #[must_use]
    pub const fn with_if(self, flags: AdvertFlags, on: bool) -> AdvertFlags {
        if on { self.with(flags) } else { self }
    }
}

/// What a node can take beyond the records and kinds that every node of version 1 takes. Bits of unknown meaning are
/// kept: a later version may be able to do more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// None.
    pub const NONE: Capabilities = Capabilities(0);
    /// Its table holds connections over IPv6.
    pub const CONN6: Capabilities = Capabilities(1);
    /// Its table keeps attributes and passes them on.
    pub const ATTRIBUTES: Capabilities = Capabilities(2);
    /// It keeps sections.
    pub const SECTION: Capabilities = Capabilities(4);
    /// It answers with the digests of buckets.
    pub const DIGESTS: Capabilities = Capabilities(8);
    /// It answers a PULL of what another stream left (the merge).
    pub const MERGE: Capabilities = Capabilities(16);
    /// It takes no frame that is not sealed [3.4.7].
    pub const ENFORCES: Capabilities = Capabilities(1 << 12);

    /// Bits 16 to 31: the check of all secrets that it can open [3.4.8].
    const CHECK_AT: u32 = 16;

    /// Those that this version has a name for.
    pub const NAMES: [(Capabilities, &str); 10] = [
        (Self::CONN6, "conn6"),
        (Self::ATTRIBUTES, "attributes"),
        (Self::SECTION, "section"),
        (Self::DIGESTS, "digests"),
        (Self::MERGE, "merge"),
        (Self::opens(0), "secret0"),
        (Self::opens(1), "secret1"),
        (Self::opens(2), "secret2"),
        (Self::opens(3), "secret3"),
        (Self::ENFORCES, "enforces"),
    ];

    /// It can open what was sealed with the secret of this number, 0 to 3: bits 8 to 11 [3.4.8].
    pub const fn opens(id: u8) -> Capabilities {
        Capabilities(1 << (8 + id % SECRETS_MAX as u8))
    }

    /// It can open what any of these has sealed, and these are they.
    #[must_use]
    pub fn with_secrets(self, secrets: &[Secret]) -> Capabilities {
        let opens = secrets.iter().fold(self, |all, secret| all.with(Capabilities::opens(secret.id())));
        opens.with(Capabilities(u32::from(Secret::check_of(secrets)) << Self::CHECK_AT))
    }

    /// The numbers of the secrets that it can open, ascending.
    pub fn secrets(self) -> impl Iterator<Item = u8> {
        (0..SECRETS_MAX as u8).filter(move |id| self.contains(Capabilities::opens(*id)))
    }

    /// [`Secret::check_of`] those.
    pub const fn secrets_check(self) -> u16 {
        (self.0 >> Self::CHECK_AT) as u16
    }

    /// Whether all bits of `capabilities` are set.
    pub const fn contains(self, capabilities: Capabilities) -> bool {
        self.0 & capabilities.0 == capabilities.0
    }

    /// These capabilities and those.
    #[must_use]
    pub const fn with(self, capabilities: Capabilities) -> Capabilities {
        Capabilities(self.0 | capabilities.0)
    }
}

/// The stream that a node follows, and to whom its master hands over. The default is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Follows {
    /// Its master; zero is nobody.
    pub node: NodeId,
    /// Under [`AdvertFlags::HANDING_OVER`]: who is to be the next master.
    pub heir: NodeId,
    /// The master's incarnation.
    pub incarnation: u64,
    /// The mastership's term.
    pub term: u64,
}

/// One peer in an ADVERT: what the sender has heard of it, and how far it holds its stream. As it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct PeerReport {
    node: U32,
    credit: U32,
    incarnation: U64,
    heard: U64,
    frontier: U64,
}

impl PeerReport {
    /// A report about `incarnation` of `node`, neither of which is zero: `credit` frames may be sent to it, its
    /// control frame `heard` was the highest that arrived, and its stream is held up to `frontier`.
    pub const fn new(node: NodeId, incarnation: u64, credit: u32, heard: u64, frontier: u64) -> Self {
        PeerReport {
            node: U32::new(node.0),
            credit: U32::new(credit),
            incarnation: U64::new(incarnation),
            heard: U64::new(heard),
            frontier: U64::new(frontier),
        }
    }

    /// Who.
    pub const fn node(&self) -> NodeId {
        NodeId(self.node.get())
    }

    /// Which incarnation of it.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation.get()
    }

    /// Frames of its stream that the sender can still take.
    pub const fn credit(&self) -> u32 {
        self.credit.get()
    }

    /// Highest control number received from it.
    pub const fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// Up to where its stream is held without a hole.
    pub const fn frontier(&self) -> u64 {
        self.frontier.get()
    }

    fn is_valid(&self) -> bool {
        self.node.get() != 0 && self.incarnation.get() != 0
    }
}

/// Writes a whole ADVERT frame into `slot` and says how long it is; `None` if the slot is too small, or if a value is
/// one that a receiver would refuse. The header's kind is set here.
#[must_use]
pub fn encode_advert(slot: &mut [u8], header: Header, advert: &Advert<'_>) -> Option<usize> {
    let Advert { name, peers, follows, .. } = *advert;
    if name.len() > NAME_LEN_MAX || peers.len() > PEERS_MAX || !advert.is_valid() {
        return None;
    }
    let fixed = RawAdvert {
        role: advert.role.0,
        priority: advert.priority,
        interval_ms: U16::new(advert.interval_ms),
        flags: U32::new(advert.flags.0),
        term_start: U64::new(advert.term_start),
        stream_seq: U64::new(advert.stream_seq),
        history_start: U64::new(advert.history_start),
        digest: U64::new(advert.digest),
        entries: U64::new(advert.entries),
        follows_node: U32::new(follows.node.0),
        follows_heir: U32::new(follows.heir.0),
        follows_incarnation: U64::new(follows.incarnation),
        follows_term: U64::new(follows.term),
        hash_seed: U64::new(advert.hash_seed),
        capabilities: U32::new(advert.capabilities.0),
        kernel_capacity: U32::new(advert.kernel_capacity),
        kernel_buckets: U32::new(advert.kernel_buckets),
        name_len: name.len() as u8,
        peer_count: peers.len() as u8,
        zero: U16::ZERO,
    };
    encode(slot, Header { kind: Kind::ADVERT, ..header }, [fixed.as_bytes(), name, peers.as_bytes()])
}

impl<'a> Advert<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (raw, lists) = RawAdvert::ref_from_prefix(payload).map_err(|_| FrameError::AdvertLength)?;
        let name_len_max = NAME_LEN_MAX + usize::from(planted(Plant::NameLength));
        if usize::from(raw.name_len) > name_len_max || usize::from(raw.peer_count) > PEERS_MAX || raw.zero != U16::ZERO
        {
            return Err(FrameError::AdvertField);
        }
        let (name, peers) = lists.split_at_checked(usize::from(raw.name_len)).ok_or(FrameError::AdvertLength)?;
        let advert = Advert {
            role: WireRole(raw.role),
            priority: raw.priority,
            interval_ms: raw.interval_ms.get(),
            flags: AdvertFlags(raw.flags.get()),
            term_start: raw.term_start.get(),
            stream_seq: raw.stream_seq.get(),
            history_start: raw.history_start.get(),
            digest: raw.digest.get(),
            entries: raw.entries.get(),
            follows: Follows {
                node: NodeId(raw.follows_node.get()),
                heir: NodeId(raw.follows_heir.get()),
                incarnation: raw.follows_incarnation.get(),
                term: raw.follows_term.get(),
            },
            hash_seed: raw.hash_seed.get(),
            capabilities: Capabilities(raw.capabilities.get()),
            kernel_capacity: raw.kernel_capacity.get(),
            kernel_buckets: raw.kernel_buckets.get(),
            name,
            peers: list(peers, raw.peer_count).ok_or(FrameError::AdvertLength)?,
        };
        if advert.is_valid() { Ok(advert) } else { Err(FrameError::AdvertField) }
    }

    /// An interval of zero would make every timer that is built on it run out at once.
    fn is_valid(&self) -> bool {
        self.interval_ms != 0 && self.peers.iter().all(PeerReport::is_valid)
    }
}

/// The fixed part as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAdvert {
    role: u8,
    priority: u8,
    interval_ms: U16,
    flags: U32,
    term_start: U64,
    stream_seq: U64,
    history_start: U64,
    digest: U64,
    entries: U64,
    follows_node: U32,
    follows_heir: U32,
    follows_incarnation: U64,
    follows_term: U64,
    hash_seed: U64,
    capabilities: U32,
    kernel_capacity: U32,
    kernel_buckets: U32,
    name_len: u8,
    peer_count: u8,
    zero: U16,
}

const _: () = assert!(size_of::<RawAdvert>() == 96 && size_of::<PeerReport>() == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::with;

    #[test]
    fn roles_have_the_words_of_the_log() {
        let names: Vec<_> = (0..7).map(|role| WireRole(role).name()).collect();
        assert_eq!(names, ["init", "backup", "promoting", "master", "fault", "none", "unknown"]);
    }

    #[test]
    fn the_secrets_that_a_node_can_open_are_told_by_their_numbers() {
        let secret = |id| Secret::new(id, &core::array::from_fn(|at| at as u8)).unwrap();
        let some = Capabilities(0).with_secrets(&[secret(3), secret(0)]);
        assert_eq!(some.secrets().collect::<Vec<_>>(), [0, 3]);
        assert_eq!(Capabilities(0).secrets().count(), 0);
    }

    const PEERS: [PeerReport; 1] = [PeerReport::new(NodeId(2), 0x2222_2222_2222_2222, 4096, 17, 99)];

    const ADVERT: Advert<'_> = Advert {
        role: WireRole::MASTER,
        priority: 150,
        interval_ms: 100,
        flags: AdvertFlags::DIGEST_VALID,
        term_start: 1,
        stream_seq: 2,
        history_start: 3,
        digest: 0x0405_0607_0809_0a0b,
        entries: 5,
        follows: Follows { node: NodeId(6), heir: NodeId(7), incarnation: 8, term: 9 },
        hash_seed: 10,
        capabilities: Capabilities(11),
        kernel_capacity: 0x0004_0000,
        kernel_buckets: 0x0001_0000,
        name: b"lb1",
        peers: &PEERS,
    };

    const ADVERT_PAYLOAD: [u8; 131] = [
        3, 150, 0, 100, 0, 0, 0, 2, // role, priority, interval, flags
        0, 0, 0, 0, 0, 0, 0, 1, // term_start
        0, 0, 0, 0, 0, 0, 0, 2, // stream_seq
        0, 0, 0, 0, 0, 0, 0, 3, // history_start
        4, 5, 6, 7, 8, 9, 10, 11, // digest
        0, 0, 0, 0, 0, 0, 0, 5, // entries
        0, 0, 0, 6, 0, 0, 0, 7, // follows: node, heir
        0, 0, 0, 0, 0, 0, 0, 8, // incarnation
        0, 0, 0, 0, 0, 0, 0, 9, // term
        0, 0, 0, 0, 0, 0, 0, 10, // hash_seed
        0, 0, 0, 11, 0, 4, 0, 0, // capabilities, the kernel's capacity
        0, 1, 0, 0, 3, 1, 0, 0, // the kernel's buckets, name length, peer count, zero
        b'l', b'b', b'1', // name
        0, 0, 0, 2, 0, 0, 16, 0, // node, credit
        0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, // incarnation
        0, 0, 0, 0, 0, 0, 0, 17, // heard
        0, 0, 0, 0, 0, 0, 0, 99, // frontier
    ];

    /// [3.5.1] Every field stands where the figure says.
    #[test]
    fn an_advert_is_written_and_read_field_by_field() {
        let mut slot = [0xaa; 171];
        assert_eq!(encode_advert(&mut slot, Header::default(), &ADVERT), Some(171));
        assert_eq!(slot[40..], ADVERT_PAYLOAD);
        assert_eq!(slot[5], 1);
        assert_eq!(Advert::decode(&ADVERT_PAYLOAD), Ok(ADVERT));
        let [peer] = PEERS;
        assert_eq!((peer.node(), peer.incarnation()), (NodeId(2), 0x2222_2222_2222_2222));
        assert_eq!((peer.credit(), peer.heard(), peer.frontier()), (4096, 17, 99));
    }

    #[test]
    fn a_role_or_a_flag_of_unknown_meaning_is_kept() {
        let advert = with(&ADVERT_PAYLOAD, &[(0, 77), (4, 0x80)]);
        let advert = Advert::decode(&advert).expect("valid");
        assert_eq!((advert.role, advert.role.name()), (WireRole(77), "unknown"));
        assert_eq!(advert.flags, AdvertFlags(0x8000_0002));
    }

    /// [3.5.13]
    #[test]
    fn a_capability_of_unknown_meaning_is_kept() {
        let advert = with(&ADVERT_PAYLOAD, &[(80, 0x80)]);
        let capabilities = Advert::decode(&advert).expect("valid").capabilities;
        assert_eq!(capabilities, Capabilities(0x8000_000b));
        assert!(capabilities.contains(Capabilities::CONN6.with(Capabilities::DIGESTS)));
        assert!(!capabilities.contains(Capabilities::DIGESTS.with(Capabilities::SECTION)), "all of them, not some");
    }

    #[test]
    fn flags_are_a_set() {
        let both = AdvertFlags::COLD.with(AdvertFlags::ASKS);
        assert_eq!(both, AdvertFlags(5));
        assert_eq!(both.with(AdvertFlags::ASKS), both);
        assert_eq!(both.with_if(AdvertFlags::DRAINING, true), AdvertFlags(21));
        assert_eq!(both.with_if(AdvertFlags::DRAINING, false), both);
        assert!(both.contains(AdvertFlags::COLD) && both.contains(both));
        assert!(!both.contains(AdvertFlags::HANDING_OVER));
        assert!(!AdvertFlags::COLD.contains(both), "all of them, and not some");
    }

    #[test]
    fn adverts_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| Advert::decode(&with(&ADVERT_PAYLOAD, changes)).err();
        assert_eq!(Advert::decode(&ADVERT_PAYLOAD[..95]), Err(FrameError::AdvertLength));
        assert_eq!(Advert::decode(&ADVERT_PAYLOAD[..98]), Err(FrameError::AdvertLength));
        assert_eq!(Advert::decode(&ADVERT_PAYLOAD[..130]), Err(FrameError::AdvertLength));
        assert_eq!(Advert::decode(&[&ADVERT_PAYLOAD[..], &[0]].concat()), Err(FrameError::AdvertLength));
        assert_eq!(refused(&[(92, 2)]), Some(FrameError::AdvertLength));
        assert_eq!(refused(&[(93, 2)]), Some(FrameError::AdvertLength));
        assert_eq!(refused(&[(92, 33)]), Some(FrameError::AdvertField));
        assert_eq!(refused(&[(93, 33)]), Some(FrameError::AdvertField));
        assert_eq!(refused(&[(94, 1)]), Some(FrameError::AdvertField));
        assert_eq!(refused(&[(95, 1)]), Some(FrameError::AdvertField));
        assert_eq!(refused(&[(3, 0)]), Some(FrameError::AdvertField), "interval 0");
        assert_eq!(refused(&[(102, 0)]), Some(FrameError::AdvertField), "peer's node 0");
        let anonymous: Vec<(usize, u8)> = (107..115).map(|index| (index, 0)).collect();
        assert_eq!(refused(&anonymous), Some(FrameError::AdvertField), "peer's incarnation 0");
    }

    /// [3.5.1]
    #[test]
    fn an_advert_of_the_longest_name_and_the_most_peers_is_read() {
        let mut slot = [0; 1192];
        let full = Advert { name: &[b'x'; 32], peers: &[PEERS[0]; 32], ..ADVERT };
        assert_eq!(encode_advert(&mut slot, Header::default(), &full), Some(1192));
        assert_eq!(Advert::decode(&slot[40..]), Ok(full));
    }

    /// An encoder never writes what a receiver would refuse; and what it writes fits the smallest frame that may be
    /// configured, even with a seal's tag of 16 bytes [8].
    #[test]
    fn what_would_be_refused_is_not_written() {
        let mut slot = [0; 1208 - 16];
        let mut advert = |advert: Advert<'_>| encode_advert(&mut slot, Header::default(), &advert);
        assert_eq!(advert(Advert { name: &[b'x'; 32], peers: &[PEERS[0]; 32], ..ADVERT }), Some(1192));
        assert_eq!(advert(Advert { name: &[b'x'; 33], ..ADVERT }), None);
        assert_eq!(advert(Advert { peers: &[PEERS[0]; 33], ..ADVERT }), None);
        assert_eq!(advert(Advert { interval_ms: 0, ..ADVERT }), None);
        assert_eq!(advert(Advert { peers: &[PeerReport::new(NodeId(0), 1, 0, 0, 0)], ..ADVERT }), None);
        assert_eq!(encode_advert(&mut [0; 170], Header::default(), &ADVERT), None, "too small");
    }
}
