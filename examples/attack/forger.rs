//! Makes hostile frames out of what was overheard.
//!
//! Where a secret is in use, what is forged comes in three dresses, in turn: in the clear, sealed with another secret, and
//! with the flag of a seal over random bytes; its checksum is always right. Where none is in use, it is what a node would say.

use super::hostile::Wiretap;
use ssyncp::flow::{Endpoint, Flow, FlowKey, Zone, protocol, status};
use ssyncp::wire::{
    self, Advert, AdvertFlags, BucketRange, DataWriter, DigestsRequest, Frame, FrameFlags, HEADER_LEN, Header, Kind,
    MergePull, MissingRange, NodeId, Pull, Sealer, Secret, Status, SyncCode, TAG_LEN, Target, WireRole,
};
use std::net::{IpAddr, Ipv4Addr};

/// The two nodes, and one that does not exist.
pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const NOBODY: NodeId = NodeId(9);
/// Number of the secret that frames are sealed with.
pub const SECRET_NUMBER: u8 = 1;
/// Another secret under the same number.
const WRONG_SECRET: [u8; 32] = [0x66; 32];
/// Where the checksum stands in a frame.
const CHECKSUM_AT: usize = 8;
/// Where forged flows come from: a network that no honest flow has.
const FORGED: u32 = 0x0ac8_0000;

/// Frames of other times.
#[derive(Debug, Default)]
pub struct Archive {
    /// Of another group with the same secret.
    pub other_group: Vec<Vec<u8>>,
    /// Of this group, from before both nodes were started anew.
    pub before_restart: Vec<Vec<u8>>,
    /// Of the nodes that run, from the beginning.
    pub early: Vec<Vec<u8>>,
}

/// Who makes them.
pub struct Forger {
    /// What is on the wire now.
    pub tap: Wiretap,
    /// What was there before.
    pub archive: Archive,
    /// Whether the nodes have a secret.
    pub sealed: bool,
    /// Number of the frame that is being made, from 0.
    pub number: u64,
    wrong: Secret,
    random: u64,
}

impl Forger {
    /// One with these ears.
    pub fn new(tap: Wiretap, sealed: bool) -> Option<Self> {
        let wrong = Secret::new(SECRET_NUMBER, &WRONG_SECRET)?;
        Some(Forger { tap, archive: Archive::default(), sealed, number: 0, wrong, random: 0x5eed })
    }

    /// A number that nobody foresees but who knows the seed (Knuth's LCG).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 24 ^ self.random << 40
    }

    /// Random bytes.
    pub fn noise(&mut self, slot: &mut [u8]) {
        slot.chunks_mut(8).for_each(|chunk| {
            let length = chunk.len();
            chunk.copy_from_slice(&self.random().to_be_bytes()[..length]);
        });
    }

    /// What a header of the node would be; `ahead` numbers after the newest. Of a node that was never heard: something.
    pub fn header(&mut self, node: NodeId, kind: Kind, ahead: u64) -> Header {
        let heard = self.tap.next_header(node, kind).or_else(|| self.tap.next_header(node, Kind::ADVERT));
        let header =
            heard.unwrap_or(Header { sync_id: 51, node, incarnation: 77, seq: 1, term: 1, ..Header::default() });
        Header { kind, node, seq: header.seq + ahead, ..header }
    }

    /// The incarnation of a node, as a target.
    pub fn target(&mut self, node: NodeId) -> Target {
        Target { node, incarnation: self.header(node, Kind::ADVERT, 0).incarnation }
    }

    /// One of these frames, in their order and again from the first.
    pub fn copy(frames: &[Vec<u8>], number: u64, slot: &mut [u8]) -> usize {
        let Some(frame) = frames.get(number as usize % frames.len().max(1)) else { return 0 };
        let length = frame.len().min(slot.len());
        slot[..length].copy_from_slice(&frame[..length]);
        length
    }

    /// One of the last frames, any.
    pub fn overheard(&mut self, slot: &mut [u8]) -> usize {
        let at = self.random() % self.tap.recent().len().max(1) as u64;
        let Some(frame) = self.tap.recent().get(at as usize) else { return 0 };
        let length = frame.len().min(slot.len());
        slot[..length].copy_from_slice(&frame[..length]);
        length
    }

    /// Dresses a frame as the nodes would believe it soonest.
    pub fn dress(&mut self, slot: &mut [u8], length: usize) -> usize {
        match self.number % 3 {
            _ if !self.sealed => length,
            0 => length,
            1 => self.seal_wrongly(slot, length),
            _ => self.pretend_sealed(slot, length),
        }
    }

    /// Seals it with another secret.
    pub fn seal_wrongly(&mut self, slot: &mut [u8], length: usize) -> usize {
        let Ok(frame) = Frame::parse(&slot[..length]) else { return length };
        let Header { sync_id, node, incarnation, .. } = frame.header();
        let mut sealer = Sealer::new(std::slice::from_ref(&self.wrong), sync_id, node, incarnation);
        sealer.seal(SECRET_NUMBER, slot, length).unwrap_or(length)
    }

    /// Sets the flag of a seal, and writes random bytes where its payload and tag would be.
    pub fn pretend_sealed(&mut self, slot: &mut [u8], length: usize) -> usize {
        let length = (length.max(HEADER_LEN) + TAG_LEN).min(slot.len());
        self.noise(&mut slot[HEADER_LEN..length]);
        slot[6..8].copy_from_slice(&FrameFlags::sealed_with(SECRET_NUMBER).0.to_be_bytes());
        set_size(&mut slot[..length]);
        set_checksum(&mut slot[..length]);
        length
    }

    /// DATA in the name of a node: flows that do not exist, and the end of one that does.
    pub fn data(&mut self, slot: &mut [u8], node: NodeId, ahead: u64, victim: &FlowKey) -> usize {
        let header = self.header(node, Kind::DATA, ahead);
        let Some(mut writer) = DataWriter::new(slot, header) else { return 0 };
        for _ in 0..3 {
            let flow = forged_flow(self.random() as u32 & 0xffff);
            // Two of one number in a frame are refused, which is what this is for, too.
            let _ = writer.push_upsert(&flow);
        }
        let _ = writer.push_delete(victim);
        let _ = writer.push_bucket_end((self.number % 4096) as u16, 0);
        writer.finish()
    }

    /// An ADVERT in the name of a node, which is master by it, in the next term.
    pub fn advert(&mut self, slot: &mut [u8], node: NodeId, priority: u8, ahead: u64) -> usize {
        let header = self.header(node, Kind::ADVERT, ahead);
        let term = header.term + u64::from(priority != 0);
        let advert = Advert {
            role: WireRole::MASTER,
            priority,
            interval_ms: 10,
            flags: AdvertFlags(0),
            history_start: 1,
            ..Advert::default()
        };
        wire::encode_advert(slot, Header { term, ..header }, &advert).unwrap_or(0)
    }

    /// A request for everything, in the name of the other node: which of the four by the frame's number.
    pub fn request(&mut self, slot: &mut [u8], ahead: u64) -> usize {
        let target = self.target(A);
        let header = self.header(B, Kind::STATUS, ahead);
        let incarnation = header.incarnation;
        let all = BucketRange::new(0, 4096);
        let length = match self.number / 3 % 4 {
            0 => wire::encode_pull(slot, header, &Pull { target, ranges: &[all] }),
            1 => wire::encode_digests_request(slot, header, &DigestsRequest { target, buckets: all }),
            2 => wire::encode_merge_pull(
                slot,
                header,
                &MergePull {
                    target,
                    node: target.node,
                    incarnation: target.incarnation.max(incarnation),
                    after: 0,
                    cursor: 0,
                },
            ),
            _ => {
                let missing = [MissingRange::new(1, 4096)];
                let status =
                    Status { target, frontier: 0, base: 0, credit: 4096, state: SyncCode::COLD, missing: &missing };
                wire::encode_status(slot, header, &status)
            }
        };
        length.unwrap_or(0)
    }
}

/// A flow that exists nowhere but in a forged frame.
pub fn forged_flow(number: u32) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(FORGED + (number >> 8))),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + (number & 0xff) as u16,
        destination_port: 22,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    let server = Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), port: 22 };
    let answered = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED | status::DST_NAT;
    Flow { status: answered, timeout: 3000, state: 3, reply_source: Some(server), ..Flow::new(key) }
}

/// Makes the size field say how long it is.
pub fn set_size(frame: &mut [u8]) {
    let size = (frame.len() as u16).to_be_bytes();
    frame[2..4].copy_from_slice(&size);
}

/// Makes the checksum fit.
pub fn set_checksum(frame: &mut [u8]) {
    if frame.len() < HEADER_LEN {
        return;
    }
    frame[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let sum = crc32fast::hash(frame).to_be_bytes();
    frame[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum);
}
