//! A recorded frame, read by somebody who has the secrets.
//!
//! ```text
//!   parse ─▶ sealed? ─ no ──────────────────────────────────────────────▶ Frame
//!              │ yes
//!              ▼
//!            a secret of that number? ─ no ─▶ Sealed
//!              │ yes
//!              ▼
//!            the key of its sender opens it? ─ no ─▶ Forged ─ yes ─▶ Frame, its payload in the clear
//! ```
//!
//! A node asks more (whom it knows, what it has seen before), and keeps its keys: that is `engine/keyring.rs`. Here nothing
//! is kept, and a key is derived for each frame.

use super::{Frame, FrameError, Secret};

/// Takes the bytes of one datagram as a frame, and opens it, in place, if it is sealed.
///
/// # Errors
/// Those of [`Frame::parse`]; [`FrameError::Sealed`] if none of the secrets has the frame's number, and
/// [`FrameError::Forged`] if the one that has it does not open it: the bytes are spoilt then.
pub fn unseal<'a>(secrets: &[Secret], bytes: &'a mut [u8]) -> Result<Frame<'a>, FrameError> {
    let header = Frame::parse(bytes)?.header();
    if !header.flags.is_sealed() {
        return Frame::parse(bytes);
    }
    let id = header.flags.key_id();
    let secret = secrets.iter().find(|secret| secret.id() == id).ok_or(FrameError::Sealed)?;
    secret.key(header.sync_id, header.node, header.incarnation).open(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FrameFlags, HEADER_LEN, Header, Kind, NodeId, Sealer, frame};

    const HEADER: Header = Header {
        sync_id: 51,
        kind: Kind::DATA,
        flags: FrameFlags(0),
        node: NodeId(3),
        incarnation: 9,
        seq: 1,
        term: 1,
    };

    fn secret(id: u8, byte: u8) -> Secret {
        Secret::new(id, &[byte; 32]).unwrap()
    }

    fn sealed() -> [u8; 56] {
        let mut slot = [0; 56];
        frame::complete(&mut slot[..HEADER_LEN], &HEADER, 0).unwrap();
        assert_eq!(Sealer::new(&[secret(2, 7)], 51, NodeId(3), 9).seal(2, &mut slot, 40), Some(56));
        slot
    }

    /// [3.4.2]
    #[test]
    fn a_frame_is_opened_by_the_secret_of_its_number_or_says_why_not() {
        let verdict =
            |secrets: &[Secret], mut bytes: [u8; 56]| unseal(secrets, &mut bytes).map(|frame| frame.verify().is_ok());
        let right = secret(2, 7);
        assert_eq!(verdict(&[secret(1, 7), right.clone()], sealed()), Ok(true));
        assert_eq!(verdict(&[], sealed()), Err(FrameError::Sealed));
        assert_eq!(verdict(&[secret(1, 7)], sealed()), Err(FrameError::Sealed), "another number");
        assert_eq!(verdict(&[secret(2, 8)], sealed()), Err(FrameError::Forged), "another secret");
        let mut damaged = sealed();
        damaged[50] ^= 1;
        assert_eq!(verdict(&[right], damaged), Err(FrameError::Checksum));
    }

    #[test]
    fn an_opened_frame_is_written_as_it_was_before_it_was_sealed() {
        let mut plain = [0; HEADER_LEN];
        frame::complete(&mut plain, &HEADER, 0).unwrap();
        let (mut bytes, mut slot) = (sealed(), [0xee; 60]);
        assert_eq!(Frame::parse(&sealed()).unwrap().write_unsealed(&mut slot), None, "it was not opened");
        let opened = unseal(&[secret(2, 7)], &mut bytes).unwrap();
        assert_eq!(opened.write_unsealed(&mut slot[..39]), None, "no room");
        assert_eq!(opened.write_unsealed(&mut slot), Some(40));
        assert_eq!(slot[..40], plain);
        assert_eq!(unseal(&[], &mut plain.clone()).unwrap().write_unsealed(&mut slot), Some(40));
        assert_eq!(slot[..40], plain);
    }
}
