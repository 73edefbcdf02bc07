//! An honest pair, and a third on its link: the two exchange what they have, undisturbed; the third sends what the input says.
//!
//! ```text
//!   node 1 ◀────── every frame, at once ──────▶ node 2
//!      ▲                  │ tape                   ▲
//!      └────── third: forged frames of every kind, frames of the tape changed, crowds, noise ──────┘
//! ```
//!
//! The first byte says whether the pair has a secret. The third has none: then nothing that it sends may make a difference, and
//! the tables are equal in the end. Without a secret it may talk the pair into anything but panic and growth, and once it is
//! silent and both have been started anew, they find together.

use super::engine::{CAPACITY, config, flow};
use super::frames::mend;
use arbitrary::{Result, Unstructured};
use ssyncp::engine::{Config, Engine, Role, SyncState, UpdateError};
use ssyncp::flow::{Change, Section, SectionChange, SectionKey};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{
    Advert, AdvertFlags, BucketDigest, BucketRange, CURSOR_END, Capabilities, DataWriter, DigestsAnswer,
    DigestsRequest, FRAME_LEN_MIN, Follows, Fragment, FrameFlags, FrameMeta, HEADER_LEN, Header, Kind, MergePull,
    MergeWriter, MissingRange, NodeId, PEERS_MAX, PeerReport, Pull, SECRET_LEN, Secret, Status, SyncCode, Target,
    WireRole, encode_advert, encode_digests_answer, encode_digests_request, encode_merge_pull, encode_pull,
    encode_status,
};
use std::net::IpAddr;

/// Operations of one run; more bytes are not read.
const OPERATIONS_MAX: usize = 200;
/// Frames that the third keeps.
const TAPE: usize = 64;
/// Frames that a node sends in one turn.
const TURN_MAX: usize = 64;
/// Rounds of 5 ms that the pair has to find together: five seconds.
const CALM_ROUNDS: usize = 1000;
/// Flows that the master's kernel has in the beginning, and after a start.
const KERNEL: u8 = 9;

struct World {
    now: Instant,
    nodes: [Engine; 2],
    sealed: bool,
    lives: u64,
    tape: Vec<Vec<u8>>,
    slot: Vec<u8>,
}

/// Every operation once and again, with a secret and without one.
pub fn third_seeds() -> Vec<Vec<u8>> {
    let forged = |kind: u8| vec![4, 0, kind, 2, 1, 3, 2, 1, 5, 9, 7, 40, 1, 1, 3];
    let all_kinds: Vec<u8> = (0..10).flat_map(forged).collect();
    let traffic = [0, 9, 1, 3, 1, 70, 1, 200, 2, 3, 3, 1, 90].repeat(6);
    let replays = [[1, 8, 0, 2], [5, 0, 3, 0], [5, 1, 9, 2], [7, 1, 30, 4], [5, 1, 20, 1], [50, 2, 0, 9]].concat();
    let crowds = [6, 0, 3, 1, 1, 6, 1, 5, 2, 0, 0, 9].to_vec();
    let scripts = [all_kinds, traffic, replays, crowds, [7, 0, 4, 1, 2, 3, 4, 0, 1].repeat(8)];
    scripts.iter().flat_map(|script| [0, 1].map(|sealed| [&[sealed][..], script].concat())).collect()
}

/// See the module.
pub fn third(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let mut input = Unstructured::new(rest);
    let mut world = World::new(first & 1 == 1);
    world.calm("in the beginning");
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || world.operate(&mut input).is_err() {
            break;
        }
        world.check();
    }
    if !world.sealed {
        (0..2).for_each(|at| world.restart(at));
    }
    world.calm("in the end");
}

impl World {
    fn new(sealed: bool) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let nodes = [0, 1].map(|at| start(at, 1, sealed, now));
        World { now, nodes, sealed, lives: 1, tape: Vec::new(), slot: vec![0; FRAME_LEN_MIN] }
    }

    fn restart(&mut self, at: usize) {
        self.lives += 1;
        self.nodes[at] = start(at, self.lives, self.sealed, self.now);
    }

    fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 8 {
            0 => {
                for _ in 0..=input.arbitrary::<u8>()? % 16 {
                    self.round();
                }
            }
            1 => self.change(&Change::Upsert(flow(input.arbitrary()?))),
            2 => self.change(&Change::Delete(flow(input.arbitrary()?).key)),
            3 => {
                let [key, length] = input.arbitrary::<[u8; 2]>()?;
                let value = vec![length; usize::from(length) * 16];
                let key = SectionKey { table: 7, key: vec![key & 3].into() };
                let change = SectionChange::Put(Section { key, value: value.into(), expiry: 0 });
                self.with_master(|engine, now| engine.update_section(now, &change));
            }
            4 => {
                let to = input.arbitrary::<u8>()?;
                if let Some(length) = self.forge(input)? {
                    self.tell(to, length);
                }
            }
            5 => {
                let [to, which, changes] = input.arbitrary::<[u8; 3]>()?;
                let Some(frame) = self.tape.get(usize::from(which) % TAPE).cloned() else { return Ok(()) };
                self.slot[..frame.len()].copy_from_slice(&frame);
                for _ in 0..changes % 4 {
                    let [at, how] = [input.arbitrary::<u16>()?, input.arbitrary::<u16>()?];
                    self.slot[usize::from(at) % frame.len()] ^= how as u8;
                }
                if changes > 3 {
                    mend(&mut self.slot[..frame.len()]);
                }
                self.tell(to, frame.len());
            }
            6 => self.crowd(input)?,
            _ => {
                let [to, length] = input.arbitrary::<[u8; 2]>()?;
                let length = usize::from(length).min(input.len());
                let noise = input.bytes(length)?;
                self.slot[..length].copy_from_slice(noise);
                mend(&mut self.slot[..length]);
                self.tell(to, length);
            }
        }
        self.turn();
        Ok(())
    }

    // ------------------------------------------------------------------ the honest two

    /// The change is made in the kernel of whoever is master.
    fn change(&mut self, change: &Change) {
        self.with_master(|engine, now| engine.update(now, change));
    }

    /// Whether there was room for it is the engine's to say.
    fn with_master(&mut self, act: impl FnOnce(&mut Engine, Instant) -> std::result::Result<(), UpdateError>) {
        if let Some(master) = self.nodes.iter_mut().find(|engine| engine.role() == Role::Master) {
            let _ = act(master, self.now);
        }
    }

    fn round(&mut self) {
        self.now += Duration::from_millis(5);
        self.turn();
    }

    /// Time-outs, dumps and sinks of both, and their frames to each other.
    fn turn(&mut self) {
        let now = self.now;
        for at in 0..2 {
            let engine = &mut self.nodes[at];
            engine.handle_timeout(now);
            if engine.role() == Role::Master && engine.is_cold() {
                engine.begin_dump(now);
                for number in 0..KERNEL {
                    let _ = engine.update(now, &Change::Upsert(flow(number.wrapping_mul(29))));
                }
                engine.end_dump(now);
            }
            let mut batch = Vec::new();
            while engine.poll_applied(now, &mut batch, 64) > 0 {
                batch.clear();
            }
            while engine.poll_section(now).is_some() {}
            engine.handle_committed(now);
            while engine.poll_event().is_some() {}
            let mut slot = [0; FRAME_LEN_MIN];
            for _ in 0..TURN_MAX {
                let Some(length) = self.nodes[at].poll_transmit(now, &mut slot) else { break };
                if self.tape.len() == TAPE {
                    self.tape.remove(0);
                }
                self.tape.push(slot[..length].to_vec());
                self.nodes[1 - at].handle_frame(now, meta(at), &mut slot[..length]);
            }
        }
    }

    // ------------------------------------------------------------------ the third

    /// What stands in the slot comes to one of the two, or to both.
    fn tell(&mut self, to: u8, length: usize) {
        for at in 0..2 {
            if usize::from(to % 3) != 1 - at {
                let mut copy = self.slot[..length].to_vec();
                self.nodes[at].handle_frame(self.now, meta(2), &mut copy);
            }
        }
    }

    /// ADVERTs of many who were never heard of.
    fn crowd(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [to, many, role, priority] = input.arbitrary::<[u8; 4]>()?;
        for number in 0..u32::from(many) {
            let header = Header {
                sync_id: 51,
                kind: Kind::ADVERT,
                node: NodeId(1000 + number),
                incarnation: 5,
                seq: 1,
                term: 1,
                ..Header::default()
            };
            let advert = Advert { role: WireRole(role), priority, interval_ms: 100, ..Advert::default() };
            if let Some(length) = encode_advert(&mut self.slot, header, &advert) {
                self.tell(to, length);
            }
        }
        Ok(())
    }

    /// A well-formed frame of any kind, or of bytes behind a well-formed header; its length.
    fn forge(&mut self, input: &mut Unstructured<'_>) -> Result<Option<usize>> {
        let kind = input.arbitrary::<u8>()? % 10;
        let header = self.header(input)?;
        let number = number(input)?;
        let [first, how] = input.arbitrary::<[u8; 2]>()?;
        let at = usize::from(how & 1);
        let target = Target { node: NodeId(at as u32 + 1), incarnation: self.incarnation(at) };
        let buckets = BucketRange::new(u16::from(first) * 16, u16::from(how) + 1);
        let slot = &mut self.slot[..];
        Ok(match kind {
            0 | 1 => advert(input, slot, header, target)?,
            2 => {
                let missing = [MissingRange::new(number, u32::from(how))];
                let (state, credit) = (SyncCode(first % 8), u32::from(how & 7));
                encode_status(
                    slot,
                    header,
                    &Status { target, frontier: number, base: 0, credit, state, missing: &missing },
                )
            }
            3 => encode_pull(slot, header, &Pull { target, ranges: &[buckets] }),
            4 => encode_digests_request(slot, header, &DigestsRequest { target, buckets }),
            5 => {
                let digests = [BucketDigest::new(number); 4];
                let answer =
                    DigestsAnswer { target, cut: number, first: u16::from(first), settled: 15, digests: &digests };
                encode_digests_answer(slot, header, &answer)
            }
            6 => {
                let (node, incarnation) = (header.node, header.incarnation);
                let cursor = [0, 1, u64::from(how), CURSOR_END][usize::from(first & 3)];
                encode_merge_pull(slot, header, &MergePull { target, node, incarnation, after: number, cursor })
            }
            7 => MergeWriter::new(slot, header, target, u64::from(first & 1)).map(|mut page| {
                let _ = page.push_upsert(&flow(how));
                page.finish(number)
            }),
            8 => data(input, slot, header)?,
            _ => {
                let length = usize::from(how).min(input.len());
                let pull = Pull { target, ranges: &[BucketRange::new(0, 1)] };
                assert!(encode_pull(slot, header, &pull).is_some(), "no header");
                slot[5] = first;
                slot[HEADER_LEN..HEADER_LEN + length].copy_from_slice(input.bytes(length)?);
                mend(&mut slot[..HEADER_LEN + length]).then_some(HEADER_LEN + length)
            }
        })
    }

    /// Of one of the two, of the third, or of anybody; in this life or another; now or at the end of numbers.
    fn header(&self, input: &mut Unstructured<'_>) -> Result<Header> {
        let [who, life, flags] = input.arbitrary::<[u8; 3]>()?;
        let at = usize::from(who & 1);
        let node = NodeId([1, 2, 3, 1000 + u32::from(who)][usize::from(who & 3)]);
        let incarnation = if life & 1 == 0 { u64::from(life) } else { self.incarnation(at) };
        let flags = if flags & 3 == 3 { FrameFlags::sealed_with(flags >> 2) } else { FrameFlags(0) };
        let (seq, term) = (number(input)?, number(input)?);
        Ok(Header { sync_id: 51, kind: Kind::DATA, flags, node, incarnation, seq, term })
    }

    fn incarnation(&self, at: usize) -> u64 {
        config(at, if self.lives > 1 { self.lives - 1 + at as u64 } else { 1 }).incarnation
    }

    // ------------------------------------------------------------------ what must be true

    fn check(&self) {
        for engine in &self.nodes {
            let peers = engine.peers();
            assert!(engine.entries() <= u64::from(CAPACITY) + engine.section_use().entries_max, "more than fits");
            assert!(peers.len() <= 2 * PEERS_MAX, "{} peers and candidates", peers.len());
            let strangers = peers.iter().filter(|peer| peer.established && peer.node.0 > 2).count();
            assert!(!self.sealed || strangers == 0, "a stranger without the secret is believed");
        }
    }

    /// The third is silent: one master, and one backup that holds the same and is proven to.
    fn calm(&mut self, when: &str) {
        for _ in 0..CALM_ROUNDS {
            self.round();
            let [a, b] = &self.nodes;
            let backup = match [a.role(), b.role()] {
                [Role::Master, Role::Backup] => b,
                [Role::Backup, Role::Master] => a,
                _ => continue,
            };
            let [a, b] = [a.status(), b.status()];
            if backup.sync_state() == SyncState::InSync
                && (a.entries, a.digest) == (b.entries, b.digest)
                && a.pending + b.pending == 0
            {
                return;
            }
        }
        let [a, b] = [self.nodes[0].status(), self.nodes[1].status()];
        panic!("not together {when}: {a:#?}, {b:#?}");
    }
}

fn start(at: usize, life: u64, sealed: bool, now: Instant) -> Engine {
    let secrets =
        if sealed { vec![Secret::new(0, &[7; SECRET_LEN]).expect("a number that there is")] } else { Vec::new() };
    let config = Config { secrets, sections: 8, section_bytes: 16_000, partial_bytes: 8_000, ..config(at, life) };
    let mut engine = Engine::new(config, now).expect("a valid configuration");
    engine.handle_link(now, true);
    engine
}

fn meta(from: usize) -> FrameMeta {
    FrameMeta { link: 0, source: IpAddr::from([10, 99, 0, from as u8 + 1]) }
}

/// A small number, or one near the end of a range.
fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    let [how, low] = input.arbitrary::<[u8; 2]>()?;
    let low = u64::from(low);
    Ok(match how % 8 {
        0..=3 => low,
        4 => low << (how >> 2),
        5 => u64::MAX - low,
        6 => (1 << 62) - 128 + low,
        _ => input.arbitrary()?,
    })
}

/// A master, an owner, one that hands over or leaves; of any numbers.
fn advert(input: &mut Unstructured<'_>, slot: &mut [u8], header: Header, target: Target) -> Result<Option<usize>> {
    let [role, priority, flags, capabilities] = input.arbitrary::<[u8; 4]>()?;
    let [term_start, stream_seq, history_start] = [number(input)?, number(input)?, number(input)?];
    let (heard, frontier) = (number(input)?, number(input)?);
    let peers = [PeerReport::new(target.node, target.incarnation, u32::from(flags), heard, frontier)];
    let follows = Follows { node: target.node, heir: target.node, incarnation: target.incarnation, term: header.term };
    let advert = Advert {
        role: WireRole(role % 7),
        priority,
        interval_ms: [1, 20, 100, u16::MAX][usize::from(capabilities & 3)],
        flags: AdvertFlags(u32::from(flags)),
        term_start,
        stream_seq,
        history_start,
        digest: heard,
        entries: frontier,
        follows: if priority & 1 == 0 { follows } else { Follows::default() },
        capabilities: Capabilities(u32::from(capabilities)),
        name: b"third",
        peers: &peers,
        ..Advert::default()
    };
    Ok(encode_advert(slot, header, &advert))
}

/// Records of the stream: flows, deletes, ends of buckets, parts of sections.
fn data(input: &mut Unstructured<'_>, slot: &mut [u8], header: Header) -> Result<Option<usize>> {
    let Some(mut writer) = DataWriter::new(slot, header) else { return Ok(None) };
    for _ in 0..input.arbitrary::<u8>()? % 16 {
        let [what, how] = input.arbitrary::<[u8; 2]>()?;
        let _ = match what % 4 {
            0 => writer.push_upsert(&flow(how)),
            1 => writer.push_delete(&flow(how).key),
            2 => writer.push_bucket_end(u16::from(how) * 16, number(input)?),
            _ => {
                let bytes = [what; 64];
                let (total, back) = (u32::from(how) * 8, number(input)? as u32);
                let fragment = Fragment { expiry: back, total, offset: u32::from(how & 60), back, bytes: &bytes };
                let key = [how & 3];
                writer.push_section(&ssyncp::wire::Section { table: 7, key: &key, fragment: Some(fragment) })
            }
        };
    }
    Ok(Some(writer.finish()))
}
