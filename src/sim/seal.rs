//! How those who look on read the frames of a sealed world: with the world's secrets, and from a copy.
//!
//! ```text
//!   sealed frame ─ copy ─▶ opened ─▶ as it was before it was sealed ─▶ oracle
//!        └── not of a secret of this world, or changed: as it came
//! ```

use crate::engine::Engine;
use crate::wire::{Frame, Header, Key, NodeId, Secret, TAG_LEN};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Who sealed a frame: the number of the secret, node and incarnation.
pub(super) type Sealed = (u8, NodeId, u64);

/// Whose key a sealed frame says that it is sealed with.
pub(super) fn sealed_by(header: &Header) -> Option<Sealed> {
    header.flags.is_sealed().then(|| (header.flags.key_id(), header.node, header.incarnation))
}

/// Has every secret of a world. Without any it gives frames back as they are.
#[derive(Debug, Default)]
pub(super) struct Reader {
    sync_id: u8,
    secrets: Vec<Secret>,
    /// Of those who have sealed something; what does not open leaves nothing behind.
    keys: BTreeMap<Sealed, Key>,
}

impl Reader {
    pub(super) fn new(sync_id: u8, secrets: Vec<Secret>) -> Self {
        Reader { sync_id, secrets, keys: BTreeMap::new() }
    }

    /// Whether the world is a sealed one.
    pub(super) fn reads_seals(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The frame as it was before it was sealed; what was not sealed, or does not open, as it is.
    pub(super) fn plain<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.reads_seals() {
            return Cow::Borrowed(bytes);
        }
        self.open(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned)
    }

    fn open(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let header = Frame::parse(bytes).ok()?.header();
        let by = sealed_by(&header)?;
        let mut plain = bytes.to_vec();
        if let Some(key) = self.keys.get(&by) {
            key.open(&mut plain).ok()?;
        } else {
            let secret = self.secrets.iter().find(|secret| secret.id() == by.0)?;
            let key = secret.key(self.sync_id, by.1, by.2);
            key.open(&mut plain).ok()?;
            self.keys.insert(by, key);
        }
        plain.truncate(bytes.len() - TAG_LEN);
        plain[6..8].fill(0);
        complete(&mut plain);
        Some(plain)
    }
}

/// Makes size and checksum of a frame fit its bytes.
pub(super) fn complete(frame: &mut [u8]) {
    if frame.len() < crate::wire::HEADER_LEN {
        return;
    }
    let size = frame.len() as u16;
    frame[2..4].copy_from_slice(&size.to_be_bytes());
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
}

/// What an engine had counted before a frame, so that afterwards it shows whether it believed the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    refused: u64,
    unheard: u64,
}

impl Before {
    pub(super) fn of(engine: &Engine) -> Self {
        let counters = engine.counters();
        let unheard = counters.ignored_by_role + counters.duplicates + counters.data_duplicate;
        Before { refused: engine.drops().total(), unheard }
    }

    /// Whether the frame between was neither refused nor left unread.
    pub(super) fn believed(&self, engine: &Engine) -> bool {
        let after = Before::of(engine);
        (after.refused, after.unheard) == (self.refused, self.unheard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DataWriter, FrameFlags, Kind, SECRET_LEN, Sealer};

    fn secret(fill: u8) -> Secret {
        Secret::new(2, &[fill; SECRET_LEN]).expect("2 is a number of a secret")
    }

    /// A frame in the clear, and the same sealed.
    fn frames() -> (Vec<u8>, Vec<u8>) {
        let header = Header {
            sync_id: 51,
            kind: Kind::DATA,
            flags: FrameFlags(0),
            node: NodeId(7),
            incarnation: 9,
            seq: 3,
            term: 2,
        };
        let mut slot = [0; 200];
        let mut writer = DataWriter::new(&mut slot, header).expect("room");
        writer.push_bucket_end(77, 1).expect("room");
        let length = writer.finish();
        let plain = slot[..length].to_vec();
        let sealed = Sealer::new(&[secret(1)], 51, NodeId(7), 9).seal(2, &mut slot, length).expect("room");
        (plain, slot[..sealed].to_vec())
    }

    #[test]
    fn a_sealed_frame_is_read_as_it_was_before_and_any_other_as_it_is() {
        let (plain, sealed) = frames();
        let mut reader = Reader::new(51, vec![secret(1)]);
        assert_eq!(reader.plain(&sealed), plain);
        assert_eq!(reader.plain(&plain), plain);
        let mut changed = sealed.clone();
        *changed.last_mut().expect("a tag") ^= 1;
        complete(&mut changed);
        assert_eq!(reader.plain(&changed), changed);
        assert_eq!(Reader::new(51, vec![secret(5)]).plain(&sealed), sealed);
        assert_eq!(Reader::default().plain(&sealed), sealed);
    }
}
