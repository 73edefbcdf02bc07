//! Sealing, step by step, against docs/vectors/seal.json, which another implementation has made (`tools/seal-vectors`).

use super::*;
use crate::wire::{Payload, Record};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../docs/vectors/seal.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    assert!(text.is_ascii() && text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A 64-bit number.
fn wide(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap(), 16).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn secret(id: u64) -> Secret {
    let all = vectors();
    let entry = all["secrets"].as_array().unwrap().iter().find(|entry| number(&entry["number"]) == id).unwrap();
    Secret::new(id as u8, &bytes(&entry["secret"]).try_into().unwrap()).unwrap()
}

fn kind(name: &str) -> Kind {
    match name {
        "advert" => Kind::ADVERT,
        "data" => Kind::DATA,
        "status" => Kind::STATUS,
        other => panic!("{other}"),
    }
}

/// A frame of the file: its entry, and its header without a flag.
fn frames() -> Vec<(Value, Header)> {
    let frames = vectors()["frames"].as_array().unwrap().clone();
    let header = |frame: &Value| Header {
        sync_id: number(&frame["sender"]["sync_id"]) as u8,
        kind: kind(frame["header"]["kind"].as_str().unwrap()),
        flags: FrameFlags(0),
        node: NodeId(number(&frame["sender"]["node"]) as u32),
        incarnation: wide(&frame["sender"]["incarnation"]),
        seq: wide(&frame["header"]["seq"]),
        term: wide(&frame["header"]["term"]),
    };
    assert_eq!(frames.len(), 4);
    frames.into_iter().map(|frame| (frame.clone(), header(&frame))).collect()
}

/// [3.4.8] Secret, pseudorandom key, fingerprint, check.
#[test]
fn each_secret_has_the_fingerprint_and_check_that_another_implementation_gives_it() {
    let all = vectors();
    let secrets = all["secrets"].as_array().unwrap();
    assert_eq!(secrets.len(), 4);
    for entry in secrets {
        let ours = secret(number(&entry["number"]));
        assert_eq!(ours.fingerprint.to_vec(), bytes(&entry["fingerprint"]));
        assert_eq!(ours.check().to_be_bytes().to_vec(), bytes(&entry["check"]));
        // The library does not show the key that it holds: one made of the file's bytes gives the same.
        let theirs = hmac::Key::new(hmac::HMAC_SHA256, &bytes(&entry["prk"]));
        assert_eq!(expand(&theirs, &[b"any"]), expand(&ours.prk, &[b"any"]));
    }
}

/// [3.4.1] The key of a secret, a group, a node and an incarnation.
#[test]
fn each_sender_has_the_key_that_another_implementation_gives_it() {
    for (frame, header) in frames() {
        let prk = secret(number(&frame["secret"])).prk;
        assert_eq!(expand(&prk, &[&bytes(&frame["info"])]).to_vec(), bytes(&frame["key"]), "{}", frame["name"]);
        // What the key of a sender is made of is that info: it opens the frame.
        let key = secret(number(&frame["secret"])).key(header.sync_id, header.node, header.incarnation);
        assert!(key.open(&mut bytes(&frame["frame"])).is_ok(), "{}", frame["name"]);
    }
}

/// [3.4.2] Nonce, additional data, ciphertext, tag, checksum, and so every byte of the frame.
#[test]
fn each_frame_is_sealed_to_the_bytes_that_another_implementation_makes() {
    for (frame, header) in frames() {
        let (name, id) = (&frame["name"], number(&frame["secret"]) as u8);
        assert_eq!(nonce(&header).as_ref().to_vec(), bytes(&frame["nonce"]), "{name}");
        let mut slot = [0xee; 400];
        let unsealed = bytes(&frame["unsealed"]);
        slot[..unsealed.len()].copy_from_slice(&unsealed);
        let mut sealer = Sealer::new(&[secret(id.into())], header.sync_id, header.node, header.incarnation);
        let sealed = sealer.seal(id, &mut slot, unsealed.len()).unwrap();
        let slot = &slot[..sealed];
        assert_eq!(additional_data(&slot[..HEADER_LEN]).unwrap().to_vec(), bytes(&frame["additional_data"]), "{name}");
        let (payload, tag) = slot[HEADER_LEN..].split_at(sealed - HEADER_LEN - TAG_LEN);
        assert_eq!(payload.to_vec(), bytes(&frame["ciphertext"]), "{name}");
        assert_eq!(tag.to_vec(), bytes(&frame["tag"]), "{name}");
        assert_eq!(slot[CHECKSUM_AT..][..4].to_vec(), bytes(&frame["checksum"]), "{name}");
        assert_eq!(slot.to_vec(), bytes(&frame["frame"]), "{name}");
    }
}

/// [3.4.2] What is opened is what was sealed, and is taken as if it had come in the clear.
#[test]
fn each_frame_of_another_implementation_opens_and_says_what_was_sealed() {
    let mut told = Vec::new();
    for (frame, header) in frames() {
        let mut sealed = bytes(&frame["frame"]);
        assert_eq!(
            Frame::parse(&sealed).unwrap().header(),
            Header { flags: FrameFlags::sealed_with(number(&frame["secret"]) as u8), ..header }
        );
        let key = secret(number(&frame["secret"])).key(header.sync_id, header.node, header.incarnation);
        let opened = key.open(&mut sealed).unwrap();
        told.push(match opened.verify().unwrap().payload() {
            Payload::Data(records) => records
                .map(|record| match record {
                    Record::Upsert(conn) => conn.key().to_string(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
                .join(" "),
            Payload::Advert(advert) => format!("{} of {} peers", advert.name.escape_ascii(), advert.peers.len()),
            Payload::Status(status) => format!("frontier {}", status.frontier),
            other => panic!("{other:?}"),
        });
        assert_eq!(sealed[HEADER_LEN..sealed.len() - TAG_LEN].to_vec(), bytes(&frame["payload"]));
    }
    assert_eq!(told, ["", "tcp 10.0.0.1:40000 -> 192.0.2.10:80", "lb1.example of 2 peers", "frontier 5001"]);
}
