//! Well-formed frames that say what would do most harm if anybody believed them: the attacker's payloads, one of each kind.

use super::random::Random;
use crate::flow::{Flow, FlowKey, Zone, protocol};
use crate::wire::{
    Advert, AdvertFlags, BucketDigest, BucketRange, CURSOR_END, Capabilities, DataWriter, DigestsAnswer,
    DigestsRequest, Follows, Header, Kind, MergePull, MergeWriter, MissingRange, NodeId, PeerReport, Pull, Status,
    SyncCode, Target, WireRole, encode_advert, encode_digests_answer, encode_digests_request, encode_merge_pull,
    encode_pull, encode_status,
};
use std::net::{IpAddr, Ipv4Addr};

/// Buckets that can be asked for from any first one on that is drawn.
const BUCKETS_ASKED: u16 = 90;
/// First buckets that are drawn.
const FIRST_BUCKETS: u64 = 4000;

/// Writes a frame of any kind; its length, or `None` if what was drawn has no form on the wire.
pub(super) fn write(dice: &mut Random, slot: &mut [u8], header: Header, target: Target) -> Option<usize> {
    let first = dice.below(FIRST_BUCKETS) as u16;
    let number = dice.doubling(1, 1 << 40);
    match dice.below(10) {
        0..=2 => advert(dice, slot, header, target),
        3 => {
            let missing = [MissingRange::new(1, u32::MAX)];
            let (frontier, state) = (number, dice.pick(&[SyncCode::PROVEN, SyncCode::COLD, SyncCode::LAGGING]));
            let credit = dice.pick(&[0, 1, u32::MAX]);
            encode_status(slot, header, &Status { target, frontier, base: 0, credit, state, missing: &missing })
        }
        4 => encode_pull(slot, header, &Pull { target, ranges: &[BucketRange::new(first, BUCKETS_ASKED)] }),
        5 => {
            let buckets = BucketRange::new(first, BUCKETS_ASKED);
            encode_digests_request(slot, header, &DigestsRequest { target, buckets })
        }
        6 => {
            let digests = [BucketDigest::new(dice.next()); 4];
            encode_digests_answer(
                slot,
                header,
                &DigestsAnswer { target, cut: number, first, settled: 0b1111, digests: &digests },
            )
        }
        7 => {
            let cursor = dice.pick(&[0, 1, CURSOR_END]);
            let (node, incarnation) = (header.node, header.incarnation);
            encode_merge_pull(slot, header, &MergePull { target, node, incarnation, after: 0, cursor })
        }
        8 => {
            let mut page = MergeWriter::new(slot, header, target, 0)?;
            page.push_upsert(&flow(dice)).ok()?;
            Some(page.finish(CURSOR_END))
        }
        _ => {
            let mut records = DataWriter::new(slot, Header { kind: Kind::DATA, ..header })?;
            let flow = flow(dice);
            if dice.one_in(2) {
                records.push_upsert(&flow).ok()?;
            } else {
                records.push_delete(&flow.key).ok()?;
                records.push_bucket_end(first, 0).ok()?;
            }
            Some(records.finish())
        }
    }
}

/// An owner of the addresses, a goodbye, a master of the last term, one that hands over: proven, and hearing everybody.
fn advert(dice: &mut Random, slot: &mut [u8], header: Header, target: Target) -> Option<usize> {
    let number = dice.doubling(1, 1 << 40);
    let peers = [PeerReport::new(target.node, target.incarnation, u32::MAX, u64::MAX >> 1, number)];
    let nobody = Follows { node: NodeId(0), heir: NodeId(0), incarnation: 0, term: 0 };
    let heir = Follows { heir: target.node, ..nobody };
    let handing_over = dice.one_in(4);
    let flags = dice.pick(&[AdvertFlags(0), AdvertFlags::DIGEST_VALID, AdvertFlags::PROVEN, AdvertFlags::ASKS]);
    let advert = Advert {
        role: dice.pick(&[WireRole::MASTER, WireRole::MASTER, WireRole::BACKUP, WireRole::FAULT]),
        priority: dice.pick(&[255, 255, 0, 100]),
        interval_ms: dice.pick(&[1, 100, u16::MAX]),
        flags: if handing_over { AdvertFlags::HANDING_OVER } else { flags },
        term_start: 0,
        stream_seq: number,
        history_start: dice.pick(&[1, number]),
        digest: dice.next(),
        entries: dice.below(100),
        follows: if handing_over { heir } else { nobody },
        hash_seed: dice.next(),
        capabilities: Capabilities(dice.next() as u32),
        kernel_capacity: 0,
        kernel_buckets: 0,
        name: b"owner",
        peers: &peers,
    };
    encode_advert(slot, header, &advert)
}

/// A flow that nobody has.
fn flow(dice: &mut Random) -> Flow {
    let address = |last| IpAddr::V4(Ipv4Addr::new(203, 0, 113, last));
    let source_port = dice.within(1, 65_535) as u16;
    let (destination_port, zone) = (22, Zone::DEFAULT);
    let (source, destination) = (address(66), address(1));
    Flow::new(FlowKey { source, destination, source_port, destination_port, protocol: protocol::TCP, zone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_LEN_MIN, Frame, FrameFlags};
    use std::collections::BTreeSet;

    #[test]
    fn what_is_forged_is_well_formed_and_of_every_kind() {
        let (mut dice, mut kinds) = (Random::new(4), BTreeSet::new());
        let (node, incarnation) = (NodeId(3), 7);
        let flags = FrameFlags(0);
        for _ in 0..1000 {
            let header = Header { sync_id: 51, kind: Kind::ADVERT, flags, node, incarnation, seq: 5, term: 2 };
            let mut slot = [0; FRAME_LEN_MIN];
            let length = write(&mut dice, &mut slot, header, Target { node: NodeId(1), incarnation: 9 });
            let length = length.expect("everything that is drawn has a form");
            let verified = Frame::parse(&slot[..length]).and_then(Frame::verify).expect("well-formed");
            kinds.insert(verified.header().kind.0);
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    }
}
