//! Sections in the table: versions, parts and tombstones, against literals and against a plain map. Numbers in brackets
//! are sections of docs/protocol.md.

use proptest::prelude::*;
use ssyncp::flow::{Section, SectionChange, SectionKey};
use ssyncp::table::{Applied, SectionLimits, SectionPart, SectionRefused, Table};
use ssyncp::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn table() -> Table {
    Table::new(16, 16, SEED)
}

fn limited(entries: u32, bytes: u32, partial_bytes: u32) -> Table {
    table().with_section_limits(SectionLimits { entries, bytes, partial_bytes })
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn key(name: &[u8]) -> SectionKey {
    SectionKey { table: 7, key: name.into() }
}

fn put(table: &mut Table, name: &[u8], value: &[u8], expiry: u32, now: Instant) -> Result<bool, SectionRefused> {
    table.put_section(&Section { key: key(name), value: value.into(), expiry }, now)
}

fn value_of(table: &Table, name: &[u8]) -> Option<Vec<u8>> {
    table.section(&key(name), Instant::ZERO).map(|section| section.value.into())
}

#[test]
fn a_list_has_the_length_of_each_value_and_what_is_left_of_it_in_the_order_of_keys() {
    let mut table = table();
    put(&mut table, b"b", b"12345", 0, at(0)).unwrap();
    put(&mut table, b"a", b"", 30, at(0)).unwrap();
    put(&mut table, b"c", b"x", 0, at(0)).unwrap();
    assert!(table.take_section(&key(b"c")));
    let listed: Vec<_> =
        table.section_list(at(10)).map(|(key, length, left)| (key.key.to_vec(), length, left)).collect();
    assert_eq!(listed, [(b"a".to_vec(), 0, 20), (b"b".to_vec(), 5, 0)]);
}

/// The bytes `from` to `to` of a value, in frame `number`, whose first part is in frame `first`.
struct Part<'a> {
    value: &'a [u8],
    range: (usize, usize),
    first: u64,
    number: u64,
}

impl Part<'_> {
    fn apply(&self, table: &mut Table, name: &[u8], frontier: u64) -> Result<Applied, SectionRefused> {
        let part = SectionPart {
            expiry: 0,
            total: self.value.len() as u32,
            offset: self.range.0 as u32,
            back: (self.number - self.first) as u32,
            bytes: &self.value[self.range.0..self.range.1],
        };
        let applied = table.apply_section(&key(name), &part, self.number, frontier, Instant::ZERO);
        table.assert_consistent();
        applied
    }
}

fn whole(table: &mut Table, name: &[u8], value: &[u8], number: u64, frontier: u64) -> Result<Applied, SectionRefused> {
    Part { value, range: (0, value.len()), first: number, number }.apply(table, name, frontier)
}

/// [4.4.1] [4.4.2] [4.4.3] The vectors of the protocol; made with another implementation of XXH3.
#[test]
fn the_digest_of_sections_is_exact_to_the_byte() {
    let long_key: Vec<u8> = (0..=255).collect();
    let long_value: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
    type Vector<'a> = (u16, &'a [u8], &'a [u8], u64, u16);
    let vectors: [Vector<'_>; 4] = [
        (7, b"web", b"hello", 0x001a_b844_08d4_4ec5, 2005),
        (7, b"web", b"", 0x7d56_86b8_d112_573a, 2005),
        (8, b"web", b"hello", 0x7f60_1c53_1efc_db21, 2754),
        (65_535, &long_key, &long_value, 0xc0d6_9b53_2446_6e1b, 3149),
    ];
    for (number, name, value, digest, bucket) in vectors {
        let mut table = Table::new(16, 16, 1);
        let key = SectionKey { table: number, key: name.into() };
        let section = Section { key: key.clone(), value: value.into(), expiry: 60 };
        table.put_section(&section, Instant::ZERO).unwrap();
        table.reseed(SEED);
        table.assert_consistent();
        assert_eq!((table.digest(), table.bucket_of_section(&key), table.len()), (digest, bucket, 1));
        assert_eq!((table.bucket_digest(bucket), table.bucket_pending(bucket)), (digest, 1));
        assert!(table.take_section(&key));
        assert_eq!((table.digest(), table.bucket_pending(bucket), table.is_empty()), (0, 0, true));
    }
}

/// [3.3.12] The version of a value is the number of its first part, in whatever order they come.
#[test]
fn a_value_has_the_version_of_its_first_part() {
    let value = b"0123456789ab";
    let mut table = table();
    let part = |from, to, number| Part { value, range: (from, to), first: 5, number };
    assert_eq!(part(8, 12, 7).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!(part(8, 12, 7).apply(&mut table, b"k", 4), Ok(Applied::Unchanged), "twice");
    assert_eq!(part(0, 4, 5).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!((value_of(&table, b"k"), table.pop_section(Instant::ZERO)), (None, None), "parts are no value");
    assert_eq!(part(4, 8, 6).apply(&mut table, b"k", 5), Ok(Applied::Changed));
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&value[..]));
    assert_eq!((table.partial_bytes(), table.touched(table.bucket_of_section(&key(b"k")))), (0, 7));
    assert_eq!(whole(&mut table, b"k", b"older", 4, 2), Ok(Applied::Older));
    assert_eq!(table.apply_section_delete(&key(b"k"), 5, 2), Ok(Applied::Older));
    assert_eq!(whole(&mut table, b"k", b"newer", 6, 5), Ok(Applied::Changed), "the parts of 6 and 7 were of 5");
    assert_eq!(table.unapplied_sections(), 1);
    let section = Section { key: key(b"k"), value: (*b"newer").into(), expiry: 0 };
    assert_eq!(table.pop_section(Instant::ZERO), Some(SectionChange::Put(section)));
    assert_eq!(table.pop_section(Instant::ZERO), None);
}

/// [3.3.12] [4.2.2] A newer value, or a delete, ends one that has come in part; and nothing brings it back.
#[test]
fn what_is_newer_ends_what_has_come_in_part() {
    let old = [1; 12];
    let part = |from, to, number| Part { value: &old, range: (from, to), first: 5, number };
    let mut table = table();
    assert_eq!(part(0, 4, 5).apply(&mut table, b"k", 3), Ok(Applied::Unchanged));
    assert_eq!(table.apply_section_delete(&key(b"k"), 9, 3), Ok(Applied::Unchanged));
    assert_eq!((table.partial_bytes(), table.partials_discarded()), (0, 1));
    assert_eq!(part(4, 8, 6).apply(&mut table, b"k", 3), Ok(Applied::Older));
    assert_eq!(whole(&mut table, b"k", b"late", 8, 3), Ok(Applied::Older), "a tombstone stands there");
    table.passed(9);
    table.assert_consistent();
    assert_eq!((table.is_empty(), table.section_bytes()), (true, 0), "and goes when the frontier passes it");
    // A newer value that is whole before the older one; and one that is not.
    assert_eq!(
        Part { value: &old, range: (0, 4), first: 11, number: 11 }.apply(&mut table, b"k", 9),
        Ok(Applied::Unchanged)
    );
    assert_eq!(whole(&mut table, b"k", b"new", 14, 9), Ok(Applied::Changed));
    assert_eq!(
        Part { value: &old, range: (4, 8), first: 11, number: 12 }.apply(&mut table, b"k", 9),
        Ok(Applied::Older)
    );
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&b"new"[..]));
}

/// [3.3.12] Parts of a newer value that came early do not stop an older one: the frontier passes that one first.
#[test]
fn parts_of_a_newer_value_leave_the_older_one_alone() {
    let (old, new) = (b"old value", b"new value");
    let part = |value, range, first, number| Part { value, range, first, number };
    let mut table = table();
    assert_eq!(part(old, (0, 4), 5, 5).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!(part(new, (0, 4), 8, 8).apply(&mut table, b"k", 5), Ok(Applied::Unchanged));
    table.assert_consistent();
    assert_eq!(part(old, (4, 9), 5, 6).apply(&mut table, b"k", 5), Ok(Applied::Changed));
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&b"old value"[..]));
    assert_eq!(whole(&mut table, b"k", b"between", 7, 6), Ok(Applied::Changed));
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&b"between"[..]));
    assert_eq!(part(new, (4, 9), 8, 9).apply(&mut table, b"k", 8), Ok(Applied::Changed));
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&b"new value"[..]));
    assert_eq!((table.partial_bytes(), table.partials_discarded()), (0, 0));
}

/// [4.2.1] [4.5.3] Parts of a later value hide no older one, in one frame or in several: its walk has named the key.
#[test]
fn a_walk_takes_nothing_that_it_sent_while_a_later_value_had_come_in_part() {
    let (later, between) = ([7; 12], [2; 12]);
    let part = |from, to, number| Part { value: &later, range: (from, to), first: 31, number };
    let mut table = table();
    let bucket = table.bucket_of_section(&key(b"k"));
    assert_eq!(whole(&mut table, b"k", b"held", 3, 2), Ok(Applied::Changed));
    assert_eq!(part(4, 8, 32).apply(&mut table, b"k", 3), Ok(Applied::Unchanged));
    assert_eq!(whole(&mut table, b"k", b"walked", 9, 8), Ok(Applied::Changed));
    assert_eq!(table.remove_older(bucket, 6), 0, "a walk that began at 6 has sent it in 9");
    let overtaken = |from, to, number| Part { value: &between, range: (from, to), first: 20, number };
    assert_eq!(overtaken(0, 4, 20).apply(&mut table, b"k", 19), Ok(Applied::Unchanged));
    assert_eq!(value_of(&table, b"k").as_deref(), Some(&b"walked"[..]));
    assert_eq!(overtaken(4, 12, 21).apply(&mut table, b"k", 20), Ok(Applied::Changed));
    assert_eq!(table.remove_older(bucket, 15), 0, "and one that began at 15 in 20 and 21");
    assert_eq!(value_of(&table, b"k"), Some(between.to_vec()));
    assert_eq!(part(0, 4, 31).apply(&mut table, b"k", 30), Ok(Applied::Unchanged));
    assert_eq!(part(8, 12, 33).apply(&mut table, b"k", 30), Ok(Applied::Changed));
    assert_eq!((value_of(&table, b"k"), table.partials_discarded()), (Some(later.to_vec()), 0));
    assert_eq!(table.remove_older(bucket, 31), 1, "no walk since then has sent it");
}

/// [3.3.12] A part that comes early needs room; the one behind the frontier needs none, so that it always goes on.
#[test]
fn the_frame_behind_the_frontier_needs_no_room_for_parts() {
    let value = [3; 400];
    let mut table = limited(16, 10_000, 500);
    let part = |nth: usize, number| Part { value: &value, range: (100 * nth, 100 * nth + 100), first: 5, number };
    assert_eq!(part(1, 6).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!(part(2, 7).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!(table.partial_bytes(), 100 + 128 + 1 + 100 + 64);
    assert_eq!(part(3, 8).apply(&mut table, b"k", 4), Err(SectionRefused::PartialFull));
    assert_eq!(part(0, 5).apply(&mut table, b"k", 4), Ok(Applied::Unchanged));
    assert_eq!(part(3, 8).apply(&mut table, b"k", 6), Err(SectionRefused::PartialFull));
    assert_eq!(part(3, 8).apply(&mut table, b"k", 7), Ok(Applied::Changed));
    assert_eq!((value_of(&table, b"k").as_deref(), table.partial_bytes()), (Some(&value[..]), 0));
}

/// [3.3.12] A part whose forerunners were never received, or that contradicts them, is of no value.
#[test]
fn a_part_that_can_never_be_whole_is_stray() {
    let value = [3; 400];
    let part = |from, to, first, number| Part { value: &value, range: (from, to), first, number };
    let mut table = table();
    assert_eq!(part(100, 200, 4, 5).apply(&mut table, b"k", 4), Err(SectionRefused::Stray), "0 to 100 was missed");
    let before_the_stream = SectionPart { expiry: 0, total: 8, offset: 4, back: 6, bytes: &[0; 4] };
    let stray = table.apply_section(&key(b"k"), &before_the_stream, 6, 4, Instant::ZERO);
    assert_eq!(stray, Err(SectionRefused::Stray));
    assert_eq!(part(0, 100, 6, 6).apply(&mut table, b"k", 5), Ok(Applied::Unchanged));
    let other_total = Part { value: &[3; 404], range: (100, 200), first: 6, number: 7 };
    assert_eq!(other_total.apply(&mut table, b"k", 5), Err(SectionRefused::Stray));
    assert_eq!((table.partial_bytes(), table.partials_discarded()), (0, 1));
    assert_eq!(part(0, 100, 8, 8).apply(&mut table, b"k", 7), Ok(Applied::Unchanged));
    assert_eq!(part(50, 150, 8, 9).apply(&mut table, b"k", 7), Err(SectionRefused::Stray), "it overlaps");
}

/// [3.3.12] One value is sent at a time: what began before another that began below the frontier was given up.
#[test]
fn a_value_that_was_given_up_does_not_keep_its_room() {
    let value = [3; 400];
    let begin = |number| Part { value: &value, range: (0, 100), first: number, number };
    let mut table = table();
    assert_eq!(begin(5).apply(&mut table, b"given up", 4), Ok(Applied::Unchanged));
    assert_eq!(begin(7).apply(&mut table, b"leaving", 5), Ok(Applied::Unchanged));
    table.passed(6);
    assert_eq!(table.partials_discarded(), 0, "what is in 6 may still end it");
    table.passed(7);
    table.assert_consistent();
    assert_eq!((table.partials_discarded(), table.partial_bytes()), (1, 100 + 128 + 7));
    table.begin_stream();
    assert_eq!((table.partials_discarded(), table.partial_bytes()), (2, 0), "another stream ends all of them");
}

/// [8.0.2] A full store refuses what is new; what is held keeps its value, and counts as named.
#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let mut table = limited(2, 20, 1000);
    assert_eq!(whole(&mut table, b"a", b"12345", 1, 0), Ok(Applied::Changed));
    assert_eq!(whole(&mut table, b"a", &[0; 20], 2, 1), Err(SectionRefused::Full), "20 bytes, and the key");
    assert_eq!(whole(&mut table, b"b", &[0; 13], 3, 2), Ok(Applied::Changed));
    assert_eq!((table.section_bytes(), table.sections_len()), (20, 2));
    assert_eq!(whole(&mut table, b"c", b"", 4, 3), Err(SectionRefused::Full), "a third entry");
    assert_eq!(table.apply_section_delete(&key(b"c"), 9, 3), Err(SectionRefused::TombstonesFull));
    assert_eq!(table.apply_section_delete(&key(b"c"), 4, 3), Ok(Applied::Unchanged), "frontier + 1 needs no tombstone");
    assert_eq!(table.apply_section_delete(&key(b"a"), 9, 3), Ok(Applied::Changed), "it has its room already");
    let bucket = table.bucket_of_section(&key(b"a"));
    assert_eq!(table.remove_older(table.bucket_of_section(&key(b"b")), 2), 0);
    assert_eq!(table.remove_older(table.bucket_of_section(&key(b"b")), 3), 1);
    assert_eq!(table.remove_older(bucket, 9), 0, "dead already");
    let mut table = limited(2, 20, 1000);
    whole(&mut table, b"a", b"12345", 1, 0).unwrap();
    assert_eq!(whole(&mut table, b"a", &[0; 20], 2, 1), Err(SectionRefused::Full));
    assert_eq!(table.remove_older(bucket, 1), 0, "frame 2 has named it");
    assert_eq!(value_of(&table, b"a").as_deref(), Some(&b"12345"[..]));
}

/// [8.0.2] As above, and there is room for bytes.
#[test]
fn a_store_takes_no_more_keys_than_its_limit() {
    let mut table = limited(2, 1000, 1000);
    assert_eq!(table.section_room(), 2);
    assert_eq!(whole(&mut table, b"a", b"12345", 1, 0), Ok(Applied::Changed));
    assert_eq!(table.section_room(), 1);
    assert_eq!(whole(&mut table, b"b", b"12345", 2, 1), Ok(Applied::Changed));
    assert_eq!(table.section_room(), 0);
    assert_eq!(whole(&mut table, b"c", b"12345", 3, 2), Err(SectionRefused::Full), "a third entry");
    assert_eq!(put(&mut table, b"c", b"12345", 0, at(0)), Err(SectionRefused::Full), "a third entry");
    assert_eq!(table.apply_section_delete(&key(b"c"), 9, 2), Err(SectionRefused::TombstonesFull));
    assert_eq!(whole(&mut table, b"a", b"678901", 4, 2), Ok(Applied::Changed), "it is no third one");
}

/// A key; if a value leaves with it: the offset, the length and the version of the part.
type Left = (Vec<u8>, Option<(usize, usize, u64)>);

/// What leaves, in parts of at most `most` bytes a frame: key, offset, bytes, and the version that `back` says.
fn leave(table: &mut Table, number: u64, most: usize) -> Option<Left> {
    let pending = table.peek_section(Instant::ZERO)?;
    let name = pending.key.key.to_vec();
    let rest =
        pending.rest.map(|rest| (rest.offset as usize, rest.bytes.len().min(most), rest.first.unwrap_or(number)));
    table.section_sent(number, rest.map_or(0, |(_, length, _)| length));
    table.assert_consistent();
    Some((name, rest))
}

/// [3.3.12] [4.2.4] [4.2.5]
#[test]
fn values_leave_one_after_the_other_and_begin_anew_when_they_change() {
    let mut table = table();
    table.begin_stream();
    assert_eq!(put(&mut table, b"a", &[1; 250], 0, at(0)), Ok(true));
    assert_eq!(put(&mut table, b"b", b"b", 0, at(0)), Ok(true));
    assert_eq!(put(&mut table, b"c", b"c", 0, at(0)), Ok(true));
    assert!(table.take_section(&key(b"c")), "never sent, and so never to be sent");
    let mark = table.section_mark();
    assert_eq!(leave(&mut table, 1, 100), Some((b"a".to_vec(), Some((0, 100, 1)))));
    assert_eq!(leave(&mut table, 2, 100), Some((b"a".to_vec(), Some((100, 100, 1)))));
    assert_eq!(put(&mut table, b"a", &[1; 250], 0, at(0)), Ok(true), "the same again changes nothing");
    assert_eq!(table.sections_restarted(), 0);
    assert_eq!(put(&mut table, b"a", &[2; 150], 0, at(0)), Ok(true));
    assert_eq!(table.sections_restarted(), 1);
    assert_eq!(leave(&mut table, 3, 100), Some((b"b".to_vec(), Some((0, 1, 3)))));
    assert_eq!(leave(&mut table, 4, 100), Some((b"a".to_vec(), Some((0, 100, 4)))));
    assert!(!table.sections_left(mark));
    assert_eq!(leave(&mut table, 5, 100), Some((b"a".to_vec(), Some((100, 50, 4)))));
    assert!(table.sections_left(mark));
    assert_eq!((leave(&mut table, 6, 100), table.pending_sections()), (None, 0));
    assert_eq!(put(&mut table, b"a", &[2; 150], 0, at(0)), Ok(false));
    assert!(table.take_section(&key(b"a")) && !table.take_section(&key(b"a")));
    assert_eq!(leave(&mut table, 6, 100), Some((b"a".to_vec(), None)));
    assert_eq!((table.sections_len(), table.section_bytes()), (1, 2));
}

/// [4.5.2] A walk that begins while a value leaves waits for it to leave once more, because its version is from before.
#[test]
fn a_walk_names_what_is_leaving_once_more() {
    let mut table = table();
    table.begin_stream();
    put(&mut table, b"a", &[1; 150], 0, at(0)).unwrap();
    leave(&mut table, 1, 100);
    let bucket = table.bucket_of_section(&key(b"a"));
    assert_eq!(table.queue_bucket(bucket), 0);
    let mark = table.section_mark();
    assert_eq!(leave(&mut table, 2, 100), Some((b"a".to_vec(), Some((100, 50, 1)))));
    assert!(!table.bucket_sections_left(bucket, mark));
    assert_eq!(leave(&mut table, 3, 100), Some((b"a".to_vec(), Some((0, 100, 3)))));
    assert_eq!(leave(&mut table, 4, 100), Some((b"a".to_vec(), Some((100, 50, 3)))));
    assert!(table.bucket_sections_left(bucket, mark) && table.sections_left(mark));
    assert_eq!(table.queue_bucket(bucket), 1);
}

/// [4.3.2] A dump of the source names flows; sections are none of its business.
#[test]
fn a_dump_of_the_source_leaves_sections_alone() {
    let mut table = table();
    put(&mut table, b"a", b"a", 0, at(0)).unwrap();
    table.begin_dump();
    while table.dumping() {
        assert_eq!(table.end_dump(16), 0);
    }
    assert_eq!(table.sections_len(), 1);
}

/// [4.6.1] [4.6.2]
#[test]
fn clocks_are_told_when_they_are_another() {
    let mut table = table();
    table.begin_stream();
    let mut say = |expiry, now| {
        let due = put(&mut table, b"a", b"a", expiry, at(now));
        leave(&mut table, 1 + now, 100);
        due
    };
    assert_eq!(say(100, 0), Ok(true));
    assert_eq!(say(100, 50), Ok(false), "twice what is left");
    assert_eq!(say(100, 51), Ok(true), "more than that");
    assert_eq!(say(49, 51), Ok(true), "less than half");
    assert_eq!(say(0, 52), Ok(true), "for ever");
    assert_eq!(say(0, 53), Ok(false));
    assert_eq!(say(10, 60), Ok(true));
    assert_eq!(table.next_section_expiry(), Some(at(70)));
    assert_eq!(table.section(&key(b"a"), at(69)).map(|section| section.expiry), Some(1));
    assert_eq!(table.section(&key(b"a"), at(80)).map(|section| section.expiry), Some(1), "0 would be never");
    assert_eq!((table.expire_sections(at(69)), table.expire_sections(at(70))), (0, 1));
    assert_eq!((leave(&mut table, 99, 9), table.is_empty()), (Some((b"a".to_vec(), None)), true));
}

/// What a master does in the property: put a value of some words under a key, take it, send a frame, or be walked.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, usize),
    Take(u8),
    Send(usize),
    Walk(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_u8, any::<u8>(), 0..40_usize).prop_map(|(key, byte, words)| Step::Put(key, byte, 4 * words)),
        1 => (0..6_u8).prop_map(Step::Take),
        6 => (1..6_usize).prop_map(Step::Send),
        1 => (0..6_u8).prop_map(Step::Walk),
    ]
}

/// A frame: what the stream says in it.
#[derive(Clone, Debug)]
struct Said {
    key: SectionKey,
    part: Option<(u32, u32, u32, Vec<u8>)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// [1.1.1] [3.3.12] [4.2.1] Frames in any order, some of them twice, some for a long time not at all, and hardly any room
    /// for parts: in the end both tables hold what a plain map holds.
    #[test]
    fn parts_in_any_order_make_the_tables_equal(
        steps in prop::collection::vec(step(), 1..120),
        order in prop::collection::vec(any::<u16>(), 400),
        partial_bytes in prop_oneof![Just(0_u32), Just(400), Just(100_000)],
    ) {
        let (mut master, mut backup) = (table(), limited(64, 100_000, partial_bytes));
        master.begin_stream();
        backup.begin_stream();
        let mut oracle = BTreeMap::new();
        let mut frames: Vec<Vec<Said>> = Vec::new();
        let name = |number: u8| key(&[number; 3]);
        let rest = std::iter::repeat_n(&Step::Send(9), 400);
        for step in steps.iter().chain(rest) {
            match step {
                Step::Put(number, byte, length) => {
                    let value = vec![*byte; *length];
                    oracle.insert(name(*number), value.clone());
                    put(&mut master, &[*number; 3], &value, 0, at(0)).unwrap();
                }
                Step::Take(number) => {
                    oracle.remove(&name(*number));
                    master.take_section(&name(*number));
                }
                Step::Walk(number) => {
                    master.queue_bucket(master.bucket_of_section(&name(*number)));
                }
                Step::Send(parts) => {
                    let frame = frame(&mut master, frames.len() as u64 + 1, *parts);
                    if !frame.is_empty() {
                        frames.push(frame);
                    }
                }
            }
        }
        master.assert_consistent();
        let (mut held, mut frontier) = (BTreeSet::new(), 0);
        let mut told = BTreeMap::new();
        let in_order = (0..frames.len()).flat_map(|at| [at, at]);
        let shuffled = order.iter().map(|at| usize::from(*at) % frames.len().max(1));
        for nth in shuffled.chain(in_order).filter(|nth| *nth < frames.len()) {
            let number = nth as u64 + 1;
            if held.contains(&number) {
                continue;
            }
            if receive(&mut backup, &frames[nth], number, frontier) {
                held.insert(number);
            } else {
                prop_assert!(number > frontier + 1, "the frame behind the frontier must always be taken");
            }
            while held.contains(&(frontier + 1)) {
                frontier += 1;
            }
            backup.passed(frontier);
            while let Some(change) = backup.pop_section(at(0)) {
                match change {
                    SectionChange::Put(section) => drop(told.insert(section.key, section.value.to_vec())),
                    SectionChange::Delete(key) => drop(told.remove(&key)),
                }
            }
        }
        backup.assert_consistent();
        prop_assert_eq!(frontier, frames.len() as u64);
        let of = |table: &Table| -> BTreeMap<SectionKey, Vec<u8>> {
            table.sections(at(0)).map(|section| (section.key, section.value.into())).collect()
        };
        prop_assert_eq!(&of(&master), &oracle);
        prop_assert_eq!(&of(&backup), &oracle);
        prop_assert_eq!(&told, &oracle);
        prop_assert_eq!((backup.digest(), backup.len()), (master.digest(), master.len()));
        prop_assert_eq!((backup.partial_bytes(), backup.section_bytes()), (0, master.section_bytes()));
    }
}

/// The next frame of the master, of at most so many records with 20 bytes of a value each.
fn frame(master: &mut Table, number: u64, records: usize) -> Vec<Said> {
    let mut frame = Vec::new();
    for _ in 0..records {
        let Some(pending) = master.peek_section(at(0)) else { break };
        let part = pending.rest.map(|rest| {
            let bytes = rest.bytes[..rest.bytes.len().min(20)].to_vec();
            (rest.total, rest.offset, (number - rest.first.unwrap_or(number)) as u32, bytes)
        });
        let length = part.as_ref().map_or(0, |(.., bytes)| bytes.len());
        frame.push(Said { key: pending.key.clone(), part });
        if !master.section_sent(number, length) {
            break;
        }
    }
    frame
}

/// Whether the frame counts as received.
fn receive(backup: &mut Table, frame: &[Said], number: u64, frontier: u64) -> bool {
    frame.iter().all(|said| {
        let applied = match &said.part {
            None => backup.apply_section_delete(&said.key, number, frontier),
            Some((total, offset, back, bytes)) => {
                let part = SectionPart { expiry: 0, total: *total, offset: *offset, back: *back, bytes };
                backup.apply_section(&said.key, &part, number, frontier, at(0))
            }
        };
        match applied {
            Ok(_) => true,
            Err(SectionRefused::PartialFull) => false,
            Err(other) => panic!("{other} in frame {number} at {frontier}: {said:?}"),
        }
    })
}
