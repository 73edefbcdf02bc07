//! Sealed frames: what nobody has sealed does not open, whatever was done to it; and what we seal opens to the same bytes.

use super::captures::{payloads, text};
use super::frames::mend;
use ssyncp::wire::{self, FRAME_LEN_MAX, Frame, FrameError, Sealer, Secret, TAG_LEN, unseal};
use std::sync::OnceLock;

/// The secrets of docs/vectors/seal.json, by their numbers.
fn secrets() -> &'static [Secret] {
    static SECRETS: OnceLock<Vec<Secret>> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let file = text("docs/vectors/seal.json");
        let found = file.split("\"secret\": \"").skip(1).map(|rest| {
            let byte = |at: usize| u8::from_str_radix(&rest[at * 2..at * 2 + 2], 16).expect("hexadecimal");
            std::array::from_fn(byte)
        });
        let secrets: Vec<Secret> =
            (0..).zip(found).map(|(id, bytes)| Secret::new(id, &bytes).expect("a number that there is")).collect();
        assert_eq!(secrets.len(), 4);
        secrets
    })
}

/// The golden frames that are sealed with them.
fn honest() -> &'static [Vec<u8>] {
    static HONEST: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    HONEST.get_or_init(|| {
        let opens = |frame: &Vec<u8>| unseal(secrets(), &mut frame.clone()).is_ok();
        sealed_seeds().into_iter().filter(opens).collect()
    })
}

/// A sealed frame of ours that somebody has changed, its checksum made to fit; then the bytes as something to be sealed.
pub fn sealed(data: &[u8]) {
    let data = &data[..data.len().min(FRAME_LEN_MAX)];
    forged(data);
    let mut mended = data.to_vec();
    if mend(&mut mended) {
        forged(&mended);
        // Its flags made those of a frame that is sealed with one of our secrets.
        (mended[6], mended[7]) = (mended[6] & 3, 1);
        mend(&mut mended);
        forged(&mended);
        (mended[6], mended[7]) = (0, 0);
        mend(&mut mended);
        sealed_and_opened(&mended);
    }
}

/// Frames of all recordings that are sealed.
pub fn sealed_seeds() -> Vec<Vec<u8>> {
    let all = payloads("pcap").into_iter();
    all.filter(|frame| Frame::parse(frame).is_ok_and(|frame| frame.header().flags.is_sealed())).collect()
}

fn forged(data: &[u8]) {
    let mut copy = data.to_vec();
    let opened = unseal(secrets(), &mut copy);
    if let Ok(frame) = opened
        && frame.header().flags.is_sealed()
    {
        assert!(honest().iter().any(|known| known == data), "it opens, and nobody has sealed it");
    }
    let refused = wire::checks(data, secrets()).iter().any(|check| matches!(check.outcome, wire::Outcome::Failed(_)));
    assert_eq!(refused, !wire::describe(data, secrets()).contains("\naccepted\n"));
}

fn sealed_and_opened(plain: &[u8]) {
    let Ok(frame) = Frame::parse(plain) else { return };
    let (header, said) = (frame.header(), frame.verify().err());
    let mut slot = [0; FRAME_LEN_MAX];
    slot[..plain.len()].copy_from_slice(plain);
    let mut sealer = Sealer::new(secrets(), header.sync_id, header.node, header.incarnation);
    let Some(length) = sealer.seal(3, &mut slot, plain.len()) else {
        assert!(plain.len() + TAG_LEN > FRAME_LEN_MAX, "there is room, and it is not sealed");
        return;
    };
    assert_eq!(sealer.seal(3, &mut slot.clone(), plain.len()), None, "no number is sealed twice");
    let sealed = &mut slot[..length];
    assert_eq!(Frame::parse(sealed).and_then(Frame::verify).err(), Some(FrameError::Sealed));
    let opened = unseal(secrets(), sealed).expect("what we seal opens");
    assert_eq!(opened.verify().err(), said, "sealing changes what is said");
    let mut clear = vec![0; plain.len()];
    assert_eq!(opened.write_unsealed(&mut clear), Some(plain.len()));
    assert_eq!(clear, plain);
}
