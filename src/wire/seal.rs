//! Seals frames and opens them: who does not have the secret can read nothing, and can say nothing (docs/protocol.md 3.4).
//!
//! ```text
//!   secret ─HKDF-SHA256─▶ key of one node's one incarnation in one group
//!
//!   ┌────────── header, 40 bytes ──────────┬─────── payload ───────┬── tag, 16 ──┐
//!   │ size with the tag, SEALED, key id …  │ AES-256-GCM           │             │
//!   └──────────────────────────────────────┴───────────────────────┴─────────────┘
//!     additional data, with checksum zero    nonce: channel ‖ 000 ‖ seq
//!   checksum: CRC-32 of the sealed frame, so that who has no secret still tells damage
//! ```
//!
//! A nonce is never used twice under one key, or GCM gives its authentication key away (Joux 2006): the key belongs to one
//! incarnation, an incarnation numbers each channel upwards, and [`Sealer`] refuses a number that is not above the last. A
//! frame that is sent again is the stored bytes.
//!
//! No secret stays in memory as it was configured: what is kept is the state of HMAC keyed with HKDF's pseudorandom key.

use super::frame::{self, CHECKSUM_AT};
use super::{FRAME_LEN_MAX, Frame, FrameError, FrameFlags, HEADER_LEN, Header, Kind, NodeId};
use crate::planted::{Plant, planted};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use core::fmt;
use zeroize::Zeroize;

/// Bytes of the tag behind a sealed payload.
pub const TAG_LEN: usize = 16;
/// Bytes of a secret.
pub const SECRET_LEN: usize = 32;
/// Secrets that can be told apart in a frame: their numbers are 0 to 3.
pub const SECRETS_MAX: usize = 4;

/// HKDF's salt (RFC 5869 section 3.1): it parts these keys from those of any other use of the same secret.
const SALT: &[u8] = b"SSYNCP/1";
/// HKDF's info for the fingerprint. No key has an info of this length.
const FINGERPRINT: &[u8] = b"fingerprint";
/// HKDF's counter behind info, for the first 32 bytes (RFC 5869 section 2.3).
const FIRST_BLOCK: u8 = 1;

/// What the nodes of a group share, and nobody else has.
#[derive(Clone)]
pub struct Secret {
    id: u8,
    prk: hmac::Key,
    fingerprint: [u8; 32],
}

impl Secret {
    /// Takes a secret under its number, 0 to 3; `None` for another number. The caller wipes what it has read.
    pub fn new(id: u8, secret: &[u8; SECRET_LEN]) -> Option<Self> {
        let id = Some(id).filter(|id| usize::from(*id) < SECRETS_MAX)?;
        let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SALT), secret);
        let prk = hmac::Key::new(hmac::HMAC_SHA256, extracted.as_ref());
        let fingerprint = expand(&prk, &[FINGERPRINT]);
        Some(Secret { id, prk, fingerprint })
    }

    /// Its number in frames, 0 to 3.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Two bytes that say which secret it is and nothing about it: nodes compare them before they rely on it [3.4.8].
    pub fn check(&self) -> u16 {
        u16::from_be_bytes([self.fingerprint[0], self.fingerprint[1]])
    }

    /// The same of several: each turned left by four bits for its number, so that two that have changed places show [3.4.8].
    pub fn check_of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> u16 {
        secrets.into_iter().fold(0, |all, secret| all ^ secret.check().rotate_left(4 * u32::from(secret.id)))
    }

    /// The key with which one incarnation of a node seals what it sends to a group [3.4.1].
    pub fn key(&self, sync_id: u8, node: NodeId, incarnation: u64) -> Key {
        let mut bytes = expand(&self.prk, &[&[sync_id], &node.0.to_be_bytes(), &incarnation.to_be_bytes()]);
        let cipher = UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new).ok();
        bytes.zeroize();
        Key { id: self.id, cipher }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.fingerprint == other.fingerprint
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The first block of HKDF-Expand: all that a key of 32 bytes needs.
fn expand(prk: &hmac::Key, info: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(prk);
    info.iter().for_each(|part| context.update(part));
    context.update(&[FIRST_BLOCK]);
    let mut block = [0; 32];
    block.copy_from_slice(context.sign().as_ref());
    block
}

/// What seals, or opens, the frames of one incarnation of one node in one group.
pub struct Key {
    id: u8,
    /// `None` only if the library refused 32 bytes: then nothing is sealed and nothing opened.
    cipher: Option<LessSafeKey>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which channel a frame's number belongs to, and so its nonce.
fn nonce(header: &Header) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[0] = if header.kind == Kind::DATA { 1 } else { 2 };
    nonce[4..].copy_from_slice(&header.seq.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Key {
    /// The number of its secret.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Opens, in place, a frame that [`Frame::parse`] has taken and that this key's owner is said to have sealed.
    ///
    /// # Errors
    /// [`FrameError::Forged`]: nobody who has the secret has sealed these bytes. They are spoilt then.
    pub fn open<'a>(&self, bytes: &'a mut [u8]) -> Result<Frame<'a>, FrameError> {
        let header = Frame::of_checked(bytes).ok_or(FrameError::Forged)?.header();
        if bytes.len() < HEADER_LEN + TAG_LEN {
            let opened = Frame::of_opened(bytes).filter(|_| planted(Plant::SealTag));
            return opened.ok_or(FrameError::Forged);
        }
        let cipher = self.cipher.as_ref().ok_or(FrameError::Forged)?;
        let (head, sealed) = bytes.split_at_mut(HEADER_LEN);
        let additional = additional_data(head).ok_or(FrameError::Forged)?;
        cipher.open_in_place(nonce(&header), Aad::from(additional), sealed).map_err(|_| FrameError::Forged)?;
        let end = bytes.len() - TAG_LEN;
        Frame::of_opened(&bytes[..end]).ok_or(FrameError::Forged)
    }

    /// Seals the frame of `length` bytes that stands at the beginning of `slot`; its length then, or `None` if the slot has
    /// no room for the tag.
    fn seal(&self, slot: &mut [u8], length: usize) -> Option<usize> {
        let sealed = length + TAG_LEN;
        if length < HEADER_LEN || sealed > slot.len().min(FRAME_LEN_MAX) {
            return None;
        }
        let mut header = Frame::of_checked(&slot[..length])?.header();
        let count = slot[0];
        header.flags = FrameFlags::sealed_with(self.id);
        frame::write_header(&mut slot[..sealed], &header, count)?;
        let (head, payload) = slot.split_at_mut(HEADER_LEN);
        let (payload, tag) = payload[..sealed - HEADER_LEN].split_at_mut(length - HEADER_LEN);
        let additional = additional_data(head)?;
        let cipher = self.cipher.as_ref()?;
        let made = cipher.seal_in_place_separate_tag(nonce(&header), Aad::from(additional), payload).ok()?;
        tag.copy_from_slice(made.as_ref());
        frame::complete_checksum(&mut slot[..sealed]);
        Some(sealed)
    }
}

/// The header as it is authenticated: with the checksum taken as zero.
fn additional_data(head: &[u8]) -> Option<[u8; HEADER_LEN]> {
    let mut additional: [u8; HEADER_LEN] = head.try_into().ok()?;
    additional[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    Some(additional)
}

/// The keys of one incarnation of this node, and the last number that was sealed on each channel.
#[derive(Debug)]
pub struct Sealer {
    keys: Vec<Key>,
    /// DATA, control.
    last: [u64; 2],
}

impl Sealer {
    /// The keys of all these secrets, for what this incarnation of a node sends to a group.
    pub fn new(secrets: &[Secret], sync_id: u8, node: NodeId, incarnation: u64) -> Self {
        Sealer { keys: secrets.iter().map(|it| it.key(sync_id, node, incarnation)).collect(), last: [0; 2] }
    }

    /// Other secrets for the same incarnation: its numbers go on.
    pub fn set_secrets(&mut self, secrets: &[Secret], sync_id: u8, node: NodeId, incarnation: u64) {
        self.keys = Sealer::new(secrets, sync_id, node, incarnation).keys;
    }

    /// For a rule that is broken on purpose only: every number may be sealed once more.
    #[cfg(any(test, feature = "breakages"))]
    #[doc(hidden)]
    pub fn forget_numbers(&mut self) {
        self.last = [0; 2];
    }

    /// Seals, with the secret of this number, the frame of `length` bytes that stands at the beginning of `slot`; its length
    /// then. `None`, and nothing that may be sent: there is no such secret, no room for the tag, or the frame's number is
    /// not above the last one of its channel.
    pub fn seal(&mut self, id: u8, slot: &mut [u8], length: usize) -> Option<usize> {
        let header = Frame::of_checked(slot.get(..length)?)?.header();
        let last = &mut self.last[usize::from(header.kind != Kind::DATA)];
        let key = self.keys.iter().find(|key| key.id == id)?;
        if header.seq <= *last {
            return None;
        }
        *last = header.seq;
        key.seal(slot, length)
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    /// 00 01 02 … 1f.
    fn secret(id: u8) -> Secret {
        Secret::new(id, &core::array::from_fn(|at| at as u8)).unwrap()
    }

    const NODE: NodeId = NodeId(7);
    const INCARNATION: u64 = 0x1122_3344_5566_7788;

    /// An empty DATA frame, number 258 of term 3, sealed with secret 2 by Python's `cryptography` (see docs/protocol.md 3.4).
    const SEALED: [u8; 56] = [
        0, 81, 0, 56, 1, 2, 2, 1, // count, sync id, size, version, kind, flags
        0x6d, 0xb5, 0x53, 0x0c, 0, 0, 0, 7, // checksum, node
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // incarnation
        0, 0, 0, 0, 0, 0, 1, 2, // seq
        0, 0, 0, 0, 0, 0, 0, 3, // term
        0xa6, 0x65, 0x6b, 0x3e, 0x2f, 0xf3, 0xaa, 0xb9, 0x20, 0xc9, 0x3c, 0x1b, 0x9d, 0xa5, 0xe4, 0x81, // tag
    ];

    #[test]
    fn a_key_knows_the_number_of_its_secret() {
        assert_eq!([0, 3].map(|id| secret(id).key(81, NODE, INCARNATION).id()), [0, 3]);
    }

    fn header(kind: Kind, seq: u64) -> Header {
        Header { sync_id: 81, kind, flags: FrameFlags(0), node: NODE, incarnation: INCARNATION, seq, term: 3 }
    }

    fn encoded(kind: Kind, seq: u64) -> [u8; 100] {
        let mut slot = [0x5a; 100];
        frame::complete(&mut slot[..60], &header(kind, seq), 0).unwrap();
        slot
    }

    /// [3.4.1] [3.4.2]
    #[test]
    fn another_implementation_seals_the_same_bytes() {
        let mut slot = [0; 56];
        frame::complete(&mut slot[..40], &header(Kind::DATA, 258), 0).unwrap();
        let mut sealer = Sealer::new(&[secret(2)], 81, NODE, INCARNATION);
        assert_eq!(sealer.seal(2, &mut slot, 40), Some(56));
        assert_eq!(slot, SEALED);
        assert!(Frame::parse(&SEALED).is_ok(), "who has no secret can tell damage");
        let mut bytes = SEALED;
        let frame = secret(2).key(81, NODE, INCARNATION).open(&mut bytes).unwrap();
        assert_eq!(frame.header().seq, 258);
        assert!(frame.verify().is_ok());
    }

    /// [3.4.8]
    #[test]
    fn the_check_is_that_of_another_implementation() {
        assert_eq!(secret(0).check(), 0x7bbb);
    }

    /// [3.4.8] 0x7bbb, and 0xbbb7, which is it turned left by four bits.
    #[test]
    fn the_check_of_several_tells_who_stands_where() {
        assert_eq!(Secret::check_of(&[]), 0);
        assert_eq!(Secret::check_of(&[secret(1)]), 0xbbb7);
        assert_eq!(Secret::check_of(&[secret(0), secret(1)]), 0xc00c);
        let capabilities = crate::wire::Capabilities(1).with_secrets(&[secret(0), secret(1)]);
        assert_eq!(capabilities.0, 0xc00c_0301);
        assert_eq!(capabilities.secrets_check(), 0xc00c);
    }

    /// [3.4.2] One bit of header, payload or tag, its checksum made to fit.
    #[test]
    fn whatever_is_changed_does_not_open() {
        let mut slot = encoded(Kind::DATA, 9);
        let length = Sealer::new(&[secret(1)], 81, NODE, INCARNATION).seal(1, &mut slot, 60).unwrap();
        assert_eq!(length, 76);
        let key = secret(1).key(81, NODE, INCARNATION);
        assert!(key.open(&mut { slot }[..76]).is_ok());
        for bit in 0..76 * 8 {
            if (64..96).contains(&bit) {
                continue;
            }
            let mut changed = slot;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&mut changed[..76]).err(), Some(FrameError::Forged), "bit {bit}");
        }
    }

    /// [3.4.1] A key is that of one secret, one group, one node and one incarnation.
    #[test]
    fn nobody_elses_key_opens_it() {
        let other = Secret::new(1, &[9; 32]).unwrap();
        for key in [
            other.key(81, NODE, INCARNATION),
            secret(1).key(82, NODE, INCARNATION),
            secret(1).key(81, NodeId(8), INCARNATION),
            secret(1).key(81, NODE, INCARNATION + 1),
        ] {
            assert_eq!(key.open(&mut SEALED.clone()).err(), Some(FrameError::Forged));
        }
    }

    /// [3.4.5] Two frames under one number would give GCM's authentication key away.
    #[test]
    fn a_number_is_sealed_once_on_each_channel() {
        let mut sealer = Sealer::new(&[secret(1), secret(2)], 81, NODE, INCARNATION);
        let mut seal = |id, kind, seq| sealer.seal(id, &mut encoded(kind, seq), 60);
        assert_eq!(seal(1, Kind::DATA, 5), Some(76));
        assert_eq!(seal(1, Kind::DATA, 5), None);
        assert_eq!(seal(2, Kind::DATA, 5), None, "not even with another secret");
        assert_eq!(seal(1, Kind::DATA, 4), None);
        assert_eq!(seal(1, Kind::ADVERT, 5), Some(76), "another channel");
        assert_eq!(seal(1, Kind::STATUS, 5), None, "but all control frames share one");
        assert_eq!(seal(2, Kind::DATA, 6), Some(76));
        sealer.set_secrets(&[secret(3)], 81, NODE, INCARNATION);
        assert_eq!(sealer.seal(3, &mut encoded(Kind::DATA, 6), 60), None, "nor with one that came later");
        assert_eq!(sealer.seal(1, &mut encoded(Kind::DATA, 7), 60), None, "it is gone");
        assert_eq!(sealer.seal(3, &mut encoded(Kind::DATA, 7), 60), Some(76));
    }

    #[test]
    fn a_slot_without_room_for_the_tag_is_left_alone() {
        let mut sealer = Sealer::new(&[secret(1)], 81, NODE, INCARNATION);
        let mut slot = encoded(Kind::DATA, 5);
        assert_eq!(sealer.seal(1, &mut slot[..75], 60), None);
        assert!(Frame::parse(&slot[..60]).is_ok());
    }

    /// [3.4.2] What is too short for a tag, and what says that it is sealed and was never opened.
    #[test]
    fn a_frame_without_a_tag_is_forged_and_one_that_was_not_opened_has_no_payload() {
        let mut short = [0; 50];
        let sealed = Header { flags: FrameFlags::sealed_with(1), ..header(Kind::DATA, 1) };
        frame::complete(&mut short, &sealed, 0).unwrap();
        assert_eq!(secret(1).key(81, NODE, INCARNATION).open(&mut short).err(), Some(FrameError::Forged));
        assert_eq!(Frame::parse(&SEALED).unwrap().verify().err(), Some(FrameError::Sealed));
    }

    #[test]
    fn a_secret_has_one_of_four_numbers_and_shows_nothing_else() {
        assert_eq!(Secret::new(4, &[7; 32]), None);
        assert_eq!(format!("{:?}", secret(3)), "Secret { id: 3, .. }");
        assert_eq!(format!("{:?}", secret(3).key(1, NODE, 1)), "Key { id: 3, .. }");
        assert_ne!(secret(3), secret(2));
        assert_ne!(secret(1), Secret::new(1, &[9; 32]).unwrap());
        assert_eq!(secret(1), secret(1));
    }
}
