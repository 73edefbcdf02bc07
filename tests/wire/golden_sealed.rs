//! Golden frames that are sealed: those of docs/vectors/seal.json, which another implementation has made, as packets in
//! `pcap/`, with what they say to who has the secrets beside them. `SSYNCP_BLESS=1 cargo test --test wire golden_sealed`
//! writes them anew.

use crate::kept;
use crate::kept::{file, read_packet, text};
use crate::vectors::{bytes, document, secrets};
use pnet::packet::Packet;
use pnet::packet::ipv4::{Ipv4Packet, checksum};
use ssyncp::wire::{Frame, FrameError, Outcome, Secret, checks, describe, unseal};
use std::fs;

/// Name, story, and how it is read by who has all secrets.
const GOLDENS: [(&str, &str, Result<(), FrameError>); 5] = [
    (
        "sealed-data-empty",
        "An empty DATA frame, sealed with secret 2: nothing but the tag is behind the header.",
        Ok(()),
    ),
    ("sealed-data-plain", "One TCP connection without NAT (data-plain), sealed with secret 0.", Ok(())),
    ("sealed-advert", "A master's ADVERT (advert-master-with-peers), sealed with secret 1.", Ok(())),
    ("sealed-status", "A STATUS of the highest numbers that a header can carry, sealed with secret 3.", Ok(())),
    (
        "refused-forged",
        "sealed-data-plain with one bit of its payload flipped, and a checksum that fits.",
        Err(FrameError::Forged),
    ),
];

/// The sealed frame of this name that the other implementation has made.
fn frame(name: &str) -> Vec<u8> {
    let frames = document()["frames"].as_array().unwrap().clone();
    bytes(&frames.iter().find(|frame| frame["name"] == name).unwrap()["frame"])
}

fn bytes_of(name: &str) -> Vec<u8> {
    if name != "refused-forged" {
        return frame(name);
    }
    let mut bytes = frame("sealed-data-plain");
    bytes[53] ^= 1;
    bytes[8..12].fill(0);
    let sum = crc32fast::hash(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn bless() {
    kept::bless(&secrets(), || GOLDENS.iter().map(|(name, story, _)| (*name, *story, bytes_of(name))).collect());
}

fn read_frame(name: &str) -> Vec<u8> {
    Ipv4Packet::new(&read_packet(name)).unwrap().payload().to_vec()
}

/// [3.0.1] [3.4.2] The packets carry the frames of the other implementation, and say what stands beside them.
#[test]
fn every_sealed_packet_carries_its_vector_and_says_what_its_text_says() {
    bless();
    for (name, story, _) in GOLDENS {
        let packet = read_packet(name);
        assert_eq!(read_frame(name), bytes_of(name), "pcap/{name}.pcap");
        assert_eq!((packet[0], packet[6], packet[8], packet[9]), (0x45, 0x40, 255, 114), "{name}");
        let ip = Ipv4Packet::new(&packet).unwrap();
        assert_eq!((ip.get_checksum(), usize::from(ip.get_total_length())), (checksum(&ip), packet.len()), "{name}");
        let expected = fs::read_to_string(file(name, "txt")).unwrap_or_default();
        assert_eq!(text(name, story, &packet, &secrets()), expected, "pcap/{name}.txt");
    }
}

/// [3.4.6] No secret of its number, another secret of its number, the right one.
#[test]
fn a_sealed_frame_is_read_by_who_has_its_secret_and_by_nobody_else() {
    bless();
    let wrong: Vec<Secret> = (0..4).map(|id| Secret::new(id, &[0x77; 32]).unwrap()).collect();
    for (name, _, verdict) in GOLDENS {
        let sealed = read_frame(name);
        let read = |secrets: &[Secret]| unseal(secrets, &mut sealed.clone()).and_then(Frame::verify).map(drop);
        assert_eq!(read(&secrets()), verdict, "{name}");
        assert_eq!(read(&[]), Err(FrameError::Sealed), "{name}");
        assert_eq!(read(&wrong), Err(FrameError::Forged), "{name}");
        let seal = |secrets: &[Secret]| checks(&sealed, secrets)[4].outcome;
        let id = sealed[6];
        let opened = verdict.map_or_else(Outcome::Failed, |()| Outcome::Opened(id));
        assert_eq!(seal(&secrets()), opened, "{name}");
        assert_eq!(seal(&[]), Outcome::Failed(FrameError::Sealed), "{name}");
        assert_eq!(seal(&wrong), Outcome::Failed(FrameError::Forged), "{name}");
    }
}

/// An opened frame is told field by field, with its tag, and without a word on a checksum that is not of what is shown.
#[test]
fn an_opened_frame_is_described_in_the_clear() {
    let told = describe(&frame("sealed-data-plain"), &secrets());
    for line in [
        "     6  00 01                     flags                   0x1 sealed",
        "                                  --                      opened with secret 0",
        "                                  --                      record 1: upsert tcp 10.0.0.1:40000 -> 192.0.2.10:80",
        "    44  0a 00 00 01               source                  10.0.0.1",
        "    64  34 0d ff 5a d0 a6 ee 14   tag",
    ] {
        assert!(told.lines().any(|it| it == line), "{line:?} is not in\n{told}");
    }
    assert!(told.ends_with("accepted\n"), "{told}");
    assert!(!told.contains("own checksum"), "{told}");
    let closed = describe(&frame("sealed-data-plain"), &secrets()[1..]);
    assert!(closed.contains("  sealed payload\n") && closed.ends_with("there is no key for it\n"), "{closed}");
}
