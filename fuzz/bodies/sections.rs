//! Values of sections, in parts: a master's table, a backup's that gets its frames in another order, and one that is told
//! whatever the input says.
//!
//! ```text
//!   master ─▶ frames ─▶ line ─▶ backup      in the end the same values, and the same digest
//!                          └──▶ victim ◀─── parts with any total, offset and number: bounded, and consistent
//! ```

use arbitrary::{Result, Unstructured};
use ssyncp::flow::{Section, SectionKey};
use ssyncp::table::{PendingSection, SectionLimits, SectionPart, SectionRefused, Table};
use ssyncp::time::Instant;
use ssyncp::wire::{
    self, DataWriter, FRAME_LEN_MIN, Fragment, Frame, Header, Kind, NodeId, Payload, PushError, Record,
};
use std::collections::{BTreeMap, VecDeque};

/// Operations of one run; more bytes are not read.
const OPERATIONS_MAX: usize = 300;
/// Frames on the line.
const LINE_MAX: usize = 8;
/// What the victim may hold: few bytes, so that few parts fill it.
const VICTIM: SectionLimits = SectionLimits { entries: 8, bytes: 2000, partial_bytes: 1000 };
/// What the backup may hold of values in parts; of whole ones, more than the master has.
const BACKUP: SectionLimits = SectionLimits { entries: 64, bytes: 1 << 20, partial_bytes: 3000 };
/// The longest part, with what the table adds for each.
const PART_COST_MAX: u64 = 1500;
const SEED: u64 = 0x0123_4567_89ab_cdef;

struct World {
    master: Table,
    backup: Table,
    victim: Table,
    /// What was put, and not taken.
    model: BTreeMap<SectionKey, Vec<u8>>,
    /// Number of the newest frame; the line; up to where the backup holds all.
    newest: u64,
    line: VecDeque<(u64, Vec<u8>)>,
    held: Vec<u64>,
    frontier: u64,
    /// The same of the victim.
    victim_frontier: u64,
    /// It was told a part in its turn, which needs no room among the partial values.
    in_turn: bool,
}

/// Puts, takes, frames in order and out of order, and hostile parts.
pub fn section_seeds() -> Vec<Vec<u8>> {
    let put = |key: u8, length: u16| [&[0, key][..], &length.to_le_bytes(), &[key]].concat();
    let part = |key: u8, total: u16, offset: u16, length: u16, ahead: u8, back: u8| {
        let words = [total, offset, length].map(u16::to_le_bytes).concat();
        [&[5, key][..], &words, &[ahead, back]].concat()
    };
    let (send, deliver, second, take) = (vec![2], vec![3], vec![4], vec![1, 1]);
    let scripts: [Vec<Vec<u8>>; 6] = [
        vec![put(1, 900), send.clone(), deliver.clone(), take.clone(), send.clone(), deliver.clone()],
        vec![put(1, 2400), put(2, 7), send.clone(), send.clone(), send.clone(), second.clone(), second, deliver],
        vec![put(1, 2400), send.clone(), put(1, 40), send.clone(), take, send],
        vec![part(1, 12, 0, 4, 0, 0), part(1, 12, 4, 4, 1, 2), part(1, 12, 8, 4, 3, 4), part(2, 8, 0, 8, 0, 0)],
        vec![part(1, 60, 4, 16, 9, 0), part(2, 60, 8, 16, 8, 1), [&[6, 3][..], &[0; 20]].concat()],
        vec![part(1, 1900, 0, 700, 9, 1), part(2, 1900, 8, 4, 8, 1)],
    ];
    scripts.map(|script| script.concat()).into()
}

/// See the module.
pub fn sections(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || world.operate(&mut input).is_err() {
            break;
        }
    }
    world.calm();
}

/// Eight keys: short ones, a long one, and one that is too long.
fn key(number: u8) -> SectionKey {
    let length = [1, 2, 3, 4, 5, 255, 256, 257][usize::from(number & 7)];
    SectionKey { table: u16::from(number >> 7), key: vec![number & 7; length].into() }
}

impl World {
    fn new() -> Self {
        let table = |limits| Table::new(16, 16, SEED).with_section_limits(limits);
        World {
            master: table(SectionLimits { entries: 16, bytes: 40_000, partial_bytes: 0 }),
            backup: table(BACKUP),
            victim: table(VICTIM),
            model: BTreeMap::new(),
            newest: 0,
            line: VecDeque::new(),
            held: Vec::new(),
            frontier: 0,
            victim_frontier: 0,
            in_turn: false,
        }
    }

    fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 7 {
            0 => self.put(input)?,
            1 => {
                let key = key(input.arbitrary()?);
                assert_eq!(self.master.take_section(&key), self.model.remove(&key).is_some());
            }
            2 => self.send(),
            3 => self.deliver(0),
            4 => self.deliver(1),
            5 => self.hostile(input)?,
            _ => record(input)?,
        }
        let in_turn = if self.in_turn { u64::from(VICTIM.bytes) + PART_COST_MAX } else { 0 };
        let most = u64::from(VICTIM.partial_bytes) + in_turn;
        assert!(self.victim.partial_bytes() <= most, "{} bytes of values in parts", self.victim.partial_bytes());
        assert!(self.victim.section_bytes() <= u64::from(VICTIM.bytes) && self.victim.sections_len() <= VICTIM.entries);
        Ok(())
    }

    fn put(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (key, length) = (key(input.arbitrary()?), usize::from(input.arbitrary::<u16>()? % 2500));
        let value = vec![input.arbitrary::<u8>()?; length];
        let section = Section { key: key.clone(), value: value.clone().into(), expiry: 0 };
        match self.master.put_section(&section, Instant::ZERO) {
            Ok(_) => drop(self.model.insert(key, value)),
            Err(SectionRefused::Key) => assert_eq!(key.key.len(), 257),
            Err(refused) => assert_eq!(refused, SectionRefused::Full),
        }
        Ok(())
    }

    /// The next frame of the master's goes onto the line, if there is room on it.
    fn send(&mut self) {
        if self.line.len() == LINE_MAX || self.master.pending_sections() == 0 {
            return;
        }
        self.newest += 1;
        let mut slot = [0; FRAME_LEN_MIN];
        let mut writer = DataWriter::new(&mut slot, header()).expect("room");
        while let Some(PendingSection { key, rest }) = self.master.peek_section(Instant::ZERO) {
            let pushed = match rest {
                None => {
                    writer.push_section(&wire::Section { table: key.table, key: &key.key, fragment: None }).map(|()| 0)
                }
                Some(rest) => {
                    let back = rest.first.map_or(0, |first| (self.newest - first) as u32);
                    let (expiry, total, offset) = (rest.expiry, rest.total, rest.offset);
                    writer.push_section_part(
                        key.table,
                        &key.key,
                        Fragment { expiry, total, offset, back, bytes: rest.bytes },
                    )
                }
            };
            match pushed {
                Ok(length) if self.master.section_sent(self.newest, length) => {}
                Ok(_) | Err(PushError::Full) => break,
                Err(refused) => panic!("what the table took has no form: {refused}"),
            }
        }
        let length = writer.finish();
        self.line.push_back((self.newest, slot[..length].to_vec()));
    }

    /// A frame of the line comes to the backup; one that finds no room there stays where it was.
    fn deliver(&mut self, at: usize) {
        let Some((number, frame)) = self.line.get(at).cloned() else { return };
        for section in read(&frame) {
            match apply(&mut self.backup, &section, number, self.frontier) {
                Ok(()) => {}
                Err(SectionRefused::PartialFull | SectionRefused::TombstonesFull) => {
                    assert!(number > self.frontier + 1, "what comes in its turn finds room");
                    return;
                }
                Err(refused) => panic!("an honest frame is refused: {refused}"),
            }
        }
        self.line.remove(at);
        self.held.push(number);
        while let Some(at) = self.held.iter().position(|held| *held == self.frontier + 1) {
            self.held.swap_remove(at);
            self.frontier += 1;
        }
        while self.backup.pop_section(Instant::ZERO).is_some() {}
    }

    /// A part that says what it likes.
    fn hostile(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let key = key(input.arbitrary()?);
        let [total, offset, length] = input.arbitrary::<[u16; 3]>()?;
        let (ahead, back) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
        let number = self.victim_frontier + 1 + u64::from(ahead);
        let bytes = vec![back; usize::from(length % 1000)];
        let part =
            SectionPart { expiry: 0, total: total.into(), offset: offset.into(), back: back.into(), bytes: &bytes };
        let applied = self.victim.apply_section(&key, &part, number, self.victim_frontier, Instant::ZERO);
        let fits = u32::from(offset) + bytes.len() as u32 <= u32::from(total);
        assert!(fits || applied.is_err(), "a part that ends beyond its value is taken");
        if ahead == 0 {
            self.in_turn = true;
            self.victim_frontier += 1;
            while self.victim.pop_section(Instant::ZERO).is_some() {}
        }
        Ok(())
    }

    /// All that waits is sent, and all that was sent comes.
    fn calm(&mut self) {
        [&self.master, &self.backup, &self.victim].into_iter().for_each(Table::assert_consistent);
        while !self.line.is_empty() || self.master.pending_sections() > 0 {
            self.send();
            self.deliver(0);
        }
        let held = |table: &Table| -> BTreeMap<SectionKey, Vec<u8>> {
            table.sections(Instant::ZERO).map(|section| (section.key, section.value.into())).collect()
        };
        assert!(held(&self.master) == self.model && held(&self.backup) == self.model, "other values than were put");
        assert_eq!(self.master.digest(), self.backup.digest());
        assert_eq!(self.backup.partial_bytes(), 0, "parts of a value that will never come");
        [&self.master, &self.backup].into_iter().for_each(Table::assert_consistent);
    }
}

fn header() -> Header {
    let (kind, node) = (Kind::DATA, NodeId(7));
    Header { sync_id: 51, kind, node, incarnation: 1, seq: 1, term: 1, ..Header::default() }
}

fn read(frame: &[u8]) -> Vec<wire::Section<'_>> {
    let verified = Frame::parse(frame).and_then(Frame::verify).expect("what we write is valid");
    let Payload::Data(records) = verified.payload() else { panic!("not DATA") };
    let section = |record| if let Record::Section(section) = record { section } else { panic!("not a section") };
    records.map(section).collect()
}

fn apply(table: &mut Table, said: &wire::Section<'_>, number: u64, frontier: u64) -> Result<(), SectionRefused> {
    let key = SectionKey { table: said.table, key: said.key.into() };
    let applied = match said.fragment {
        None => table.apply_section_delete(&key, number, frontier),
        Some(Fragment { expiry, total, offset, back, bytes }) => {
            let part = SectionPart { expiry, total, offset, back, bytes };
            table.apply_section(&key, &part, number, frontier, Instant::ZERO)
        }
    };
    applied.map(drop)
}

/// A record of any shape: written if a receiver would take it, and then read as the same; else refused.
fn record(input: &mut Unstructured<'_>) -> Result<()> {
    let key = key(input.arbitrary()?);
    let [expiry, total, offset, back] = input.arbitrary::<[u32; 4]>()?;
    let length = usize::from(input.arbitrary::<u16>()? % 1024);
    let bytes = vec![7; length];
    let fragment = Fragment { expiry, total, offset, back, bytes: &bytes };
    let section = wire::Section { table: key.table, key: &key.key, fragment: Some(fragment) };
    let end = u64::from(offset) + length as u64;
    let ends_well = end == u64::from(total) || (end < u64::from(total) && length % 4 == 0);
    let begins_well = offset % 4 == 0 && (offset != 0 || back == 0);
    let brings_something = length > 0 || total == 0;
    let fits = 24 + key.key.len().next_multiple_of(4) + length.next_multiple_of(4) <= 1020 && key.key.len() <= 256;
    let mut slot = [0; FRAME_LEN_MIN];
    let mut writer = DataWriter::new(&mut slot, header()).expect("room");
    let pushed = writer.push_section(&section);
    assert_eq!(pushed.is_ok(), ends_well && begins_well && brings_something && fits, "{section:?}");
    let length = writer.finish();
    assert_eq!(read(&slot[..length]), if pushed.is_ok() { vec![section] } else { vec![] });
    Ok(())
}
