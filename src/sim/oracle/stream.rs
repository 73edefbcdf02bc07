//! What is said, and what becomes of it: a master's frames must say what its source said, a number has one content for ever,
//! and of the words on one entry the last one wins, in whatever order they arrive.
//!
//! ```text
//!   a frame of …               number …                              what may change in the table
//!   another stream             any                                   nothing
//!   the followed stream        ≤ frontier, or taken before           nothing
//!                              beyond the window                     nothing
//!                              new                                   each entry becomes what the highest number says;
//!                                                                    or stays, where there may be no room
//! ```

use super::node::Taken;
use super::prints::{Name, Value, of_frame};
use super::sent::{Beat, Content, Frame as SentFrame, StreamId, Told};
use super::shadow::Word;
use super::{Oracle, told};
use crate::engine::{Engine, Role};
use crate::flow::{Attributes, Change, Flow, attribute};
use crate::time::Instant;
use crate::wire::{Frame, Header, Payload, Record, Records, WireRole};
use core::ops::Range;
use std::collections::BTreeMap;

/// What a frame may do to a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Foreign,
    Old,
    Beyond,
    New,
}

impl Mode {
    fn why(self) -> &'static str {
        match self {
            Mode::Foreign => "of a stream that is not followed",
            Mode::Old => "that was taken before, or is below the frontier",
            Mode::Beyond => "beyond the window",
            Mode::New => "that is new",
        }
    }
}

/// Free blocks of the annex below which a flow may find no room: as many as the longest takes.
const ANNEX_MARGIN: u64 = 24;

/// Slots that may be taken by what only waits for the sink.
const ROOM_MARGIN: usize = 8;

/// What a part, and a value that has come in part, take at most beside their bytes.
const PART_COST: u64 = 64;
const VALUE_COST: u64 = 64 + 256;

impl Oracle {
    // ------------------------------------------------------------------ the way out

    pub(super) fn judge_sent(&mut self, now: Instant, at: usize, engine: &Engine, bytes: &[u8]) {
        let verified = match Frame::parse(bytes).and_then(Frame::verify) {
            Ok(verified) => verified,
            Err(error) => return self.broken(now, "well-formed", format!("node {at} sent a frame that is {error}")),
        };
        let (header, print) = (verified.header(), of_frame(bytes));
        self.judge_voice(now, at, &header);
        if let Some(before) = self.sent.frame(&header) {
            if before.print != print {
                let kind = header.kind.name();
                let text =
                    format!("node {at} sent {kind} {} twice, with other bytes than at {:?}", header.seq, before.at);
                self.broken(now, "same-bytes", text);
            }
            return;
        }
        let stream = StreamId { node: header.node, incarnation: header.incarnation, term: header.term };
        let content = match verified.payload() {
            Payload::Data(records) => Content::Data(self.judge_data_sent(now, at, engine, &header, stream, records)),
            Payload::Advert(advert) => {
                let beat = Beat::new(&header, &advert);
                self.judge_beat_sent(now, at, engine, stream, beat);
                Content::Advert(beat)
            }
            Payload::Status(status) => {
                self.judge_status_sent(now, at, &status);
                Content::Other
            }
            Payload::MergePull(pull) => {
                self.note_question(now, at, engine, &pull);
                Content::Other
            }
            Payload::MergeRecords(page) => self.note_page(&page),
            _ => Content::Other,
        };
        self.sent.keep(&header, SentFrame { at: now, print, stream, content });
    }

    /// A new DATA frame: the next number of the mastership, and nothing but what the source said.
    fn judge_data_sent(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        header: &Header,
        stream: StreamId,
        records: Records<'_>,
    ) -> Range<usize> {
        if engine.role() != Role::Master {
            self.broken(now, "roles", format!("node {at} is {} and sends DATA {}", engine.role().name(), header.seq));
        }
        self.speak(now, at, stream, header.seq - 1);
        self.judge_credit(now, at, engine, header.seq);
        let from = self.sent.told.len();
        for record in records {
            match record {
                Record::Upsert(conn) => {
                    let flow = conn.flow();
                    let name = self.flow_name(&flow.key);
                    self.judge_said(now, at, engine, header.seq, name, Some(Value::of_flow(&flow)));
                }
                Record::Delete(conn) => {
                    let name = self.flow_name(&conn.key());
                    self.judge_said(now, at, engine, header.seq, name, None);
                }
                Record::BucketEnd { since, .. } => self.sent.told.push(Told::Walked { since }),
                Record::Section(section) => self.judge_section_said(now, at, engine, header, stream, &section),
                Record::Unknown { kind } => {
                    self.broken(now, "well-formed", format!("node {at} sent a record of type {kind}"));
                }
            }
        }
        let Some(saying) = &self.nodes[at].saying else { return from..self.sent.told.len() };
        if let Some(said) = self.sent.streams.get_mut(&stream) {
            let expected = said.newest() + 1;
            said.push(saying.print);
            if header.seq != expected {
                self.broken(now, "numbers", format!("node {at} sent DATA {}; the next is {expected}", header.seq));
            }
        }
        from..self.sent.told.len()
    }

    fn judge_said(&mut self, now: Instant, at: usize, engine: &Engine, seq: u64, name: Name, value: Option<Value>) {
        self.sent.told.push(Told::Entry { name, value });
        let source_expires = self.nodes[at].config.as_ref().is_some_and(|config| config.source_expires);
        if value.is_none() && !source_expires && self.held(engine, name, now).is_none() {
            self.nodes[at].shadow.put(now, name, None, 0);
        }
        let said = self.nodes[at].shadow.value(name);
        if said != value && !(value.is_none() && self.nodes[at].condemned.contains(&name)) {
            let (label, expected, seen) = (self.label(name), told(said), told(value));
            let text = format!("node {at} sends {seen} of {label} in DATA {seq}; by its source it is {expected}");
            self.broken(now, "stream-is-source", text);
        }
        if let Some(saying) = &mut self.nodes[at].saying {
            saying.say(name, value);
            saying.parts.remove(&name);
        }
        self.carried(at, name, seq);
    }

    fn judge_section_said(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        header: &Header,
        stream: StreamId,
        section: &crate::wire::Section<'_>,
    ) {
        let name = self.section_name(section.table, section.key);
        let Some(part) = &section.fragment else {
            return self.judge_said(now, at, engine, header.seq, name, None);
        };
        if part.offset == 0 && part.is_last() {
            return self.judge_said(now, at, engine, header.seq, name, Some(Value::of_section(part.bytes)));
        }
        let first = header.seq.saturating_sub(u64::from(part.back));
        let (len, total) = (part.bytes.len() as u32, part.total);
        self.sent.told.push(Told::Part { name, first, len, total });
        let Some(saying) = &mut self.nodes[at].saying else { return };
        let (begun, bytes) = saying.parts.entry(name).or_default();
        if part.offset == 0 {
            (*begun, *bytes) = (first, Vec::new());
        }
        if *begun != first || bytes.len() != part.offset as usize {
            let (begun, known) = (*begun, bytes.len());
            let text = format!(
                "node {at} sends bytes from {} on of {}, begun in DATA {first}; it has sent {known} bytes of it since DATA \
                 {begun}",
                part.offset,
                self.label(name)
            );
            return self.broken(now, "stream-is-source", text);
        }
        bytes.extend_from_slice(part.bytes);
        if part.is_last() {
            let value = Value::of_section(bytes);
            saying.parts.remove(&name);
            saying.say(name, Some(value));
            self.sent.wholes.insert((stream.node, stream.incarnation, first, name), value);
            self.carried(at, name, first);
        }
    }

    fn judge_beat_sent(&mut self, now: Instant, at: usize, engine: &Engine, stream: StreamId, beat: Beat) {
        let node = &mut self.nodes[at];
        node.beat = Some(beat);
        node.warm |= !beat.is_cold();
        if beat.role != WireRole::MASTER {
            return;
        }
        self.speak(now, at, stream, beat.stream_seq);
        self.judge_digest_sent(now, at, engine, stream, beat);
    }

    // ------------------------------------------------------------------ the source

    /// What the source says is in the table at once.
    pub(super) fn judge_update(&mut self, now: Instant, at: usize, engine: &Engine, name: Name, change: &Change) {
        let mut value = None;
        if let Change::Upsert(flow) = change {
            let flow = flow.clone().canonical();
            value = Some(Value::of_flow(&flow));
            // Attributes that no source of this version knows stay with the flow [4.1.5].
            let kept = engine.flow(&flow.key, now).filter(|held| is_with_unknown(held, &flow));
            value = kept.as_ref().map(Value::of_flow).or(value);
        }
        self.must_hold(now, at, engine, name, value);
        let node = &mut self.nodes[at];
        node.work += 1;
        node.condemned.retain(|condemned| *condemned != name);
        self.note_learned(now, at, name, value);
        self.nodes[at].shadow.put(now, name, value, 0);
    }

    /// The table must hold what its owner has just said.
    pub(super) fn must_hold(&mut self, now: Instant, at: usize, engine: &Engine, name: Name, value: Option<Value>) {
        let held = self.held(engine, name, now);
        if held != value {
            let (label, expected, seen) = (self.label(name), told(value), told(held));
            let text = format!("node {at} holds {seen} of {label}; its source has just said {expected}");
            self.broken(now, "table-is-source", text);
        }
    }

    // ------------------------------------------------------------------ the way in

    pub(super) fn judge_taken(&mut self, now: Instant, at: usize, engine: &Engine, bytes: &[u8]) {
        let known = Frame::parse(bytes).ok().and_then(|frame| {
            let header = frame.header();
            let known = self.sent.frame(&header).filter(|known| known.print == of_frame(bytes))?;
            Some((header, known.stream, known.content.clone()))
        });
        match known {
            Some((header, stream, Content::Data(range))) => {
                self.judge_data_taken(now, at, engine, stream, header.seq, range);
            }
            Some((header, stream, Content::Advert(beat))) => {
                let followed = self.nodes[at].following == Some(stream);
                self.nodes[at].handed = Some((header.node, header.incarnation, beat));
                let news = self.note_heard(now, at, &header, beat);
                self.note_told(now, at, engine, (header.node, header.incarnation), beat, news);
                if let Ok(Payload::Advert(advert)) = Frame::parse(bytes).and_then(Frame::verify).map(|it| it.payload())
                {
                    self.note_stand(at, &header, &advert);
                }
                self.look_further(now, at, engine, None, followed.then_some(beat.history_start));
                if news {
                    self.judge_beat_taken(now, at, engine, &header, beat);
                }
            }
            Some((header, _, Content::Other)) => {
                self.note_control(at, &header);
                self.look(now, at, engine);
            }
            Some((header, _, Content::Page { target, cursor, range })) => {
                self.note_control(at, &header);
                self.judge_page_taken(now, at, engine, &header, (target, cursor), range);
            }
            // Damaged, or nobody's.
            None => self.look(now, at, engine),
        }
    }

    fn judge_data_taken(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        stream: StreamId,
        seq: u64,
        range: Range<usize>,
    ) {
        let mode = self.mode(at, stream, seq);
        let mut tight = mode == Mode::New && self.is_tight(at, range.len());
        // A record that found no room takes the rest of its frame with it: by the engine's own count the frame was refused.
        let count = engine.counters().data_no_tombstone + engine.counters().data_no_partial_room;
        let cut_short = std::mem::replace(&mut self.nodes[at].frames_refused, count) < count;
        if mode == Mode::New {
            tight |= cut_short;
            let node = &mut self.nodes[at];
            let before = node.taken.insert(seq, Taken { uncertain: tight });
            node.work += range.len();
            // It came before, when there may have been no room. If it was received then, it says nothing now.
            tight |= before.is_some();
        }
        self.look(now, at, engine);
        if mode != Mode::Foreign && self.nodes[at].following != Some(stream) {
            return;
        }
        let mut refused = mode == Mode::New && self.may_want_room_for_parts(at, seq, range.clone());
        if refused && let Some(taken) = self.nodes[at].taken.get_mut(&seq) {
            taken.uncertain = true;
        }
        tight |= refused;
        for index in range {
            let told = self.sent.told[index];
            let mut tight = tight;
            let (name, value, version) = match told {
                Told::Walked { .. } => continue,
                Told::Entry { name, value } => (name, value, seq),
                // What is not whole changes nothing; what the frame makes whole is judged by its last part.
                Told::Part { name, first, len, total } if mode == Mode::New => {
                    match self.part(at, stream, seq, name, (index, first, len, total)) {
                        Some((value, uncertain)) => {
                            tight |= uncertain;
                            (name, Some(value), first)
                        }
                        None => continue,
                    }
                }
                Told::Part { name, .. } => (name, None, 0),
            };
            if mode == Mode::New {
                refused |= self.judge_word(now, at, engine, (name, value, version), tight);
            } else {
                self.judge_unchanged(now, at, engine, name, (seq, mode));
            }
        }
        if refused && let Some(taken) = self.nodes[at].taken.get_mut(&seq) {
            taken.uncertain = true;
        }
        if self.nodes[at].work > self.nodes[at].shadow.len() {
            self.compare_whole(now, at, engine, None);
        }
    }

    fn mode(&self, at: usize, stream: StreamId, seq: u64) -> Mode {
        let node = &self.nodes[at];
        let history = node.config.as_ref().map_or(0, |config| config.history);
        let window = u64::from(history.next_power_of_two().max(64));
        if node.following != Some(stream) {
            Mode::Foreign
        } else if seq <= node.frontier || node.taken.get(&seq).is_some_and(|taken| !taken.uncertain) {
            Mode::Old
        } else if seq - node.frontier > window {
            Mode::Beyond
        } else {
            Mode::New
        }
    }

    /// Nothing may have changed by a frame of this mode.
    fn judge_unchanged(&mut self, now: Instant, at: usize, engine: &Engine, name: Name, (seq, mode): (u64, Mode)) {
        let (expected, seen) = (self.nodes[at].shadow.value(name), self.held(engine, name, now));
        if expected == seen || self.nodes[at].condemned.contains(&name) {
            return;
        }
        if seen.is_none() {
            return self.removed(now, at, name);
        }
        let (label, why) = (self.label(name), mode.why());
        let (expected, seen) = (told(expected), told(seen));
        let text = format!("node {at}: frame {seq}, {why}, made {seen} of {label}; it must stay {expected}");
        self.broken(now, "not-followed", text);
    }

    /// After a new frame the last word on an entry stands. Whether a delete was refused, so that the frame was not received.
    pub(super) fn judge_word(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        (name, value, seq): (Name, Option<Value>, u64),
        tight: bool,
    ) -> bool {
        let seen = self.held(engine, name, now);
        let word = self.word_before(now, at, name, (seen, value));
        let newest = self.nodes[at].shadow.seq(name);
        let wins = newest <= seq;
        let expected = if wins { value } else { word.value };
        if !wins && value.is_some() && word.value.is_none() {
            self.sightings.insert("tombstone-hit");
        }
        if seen == expected {
            if wins {
                self.note_replaced(at, name, seq);
                let node = &mut self.nodes[at];
                node.shadow.put(now, name, value, seq);
                node.unsunk.insert(name, ());
                // With one delete that found no room the frame is as good as lost, whatever else is in it.
                if tight {
                    node.shadow.doubt(name);
                }
            }
            return false;
        }
        if word.uncertain && (seen == value || seen == word.value) {
            let node = &mut self.nodes[at];
            if seen != value {
                node.doubted_at = Some(now);
                if seen.is_none() {
                    node.note_refused(name, seq);
                }
            }
            node.shadow.put(now, name, seen, if seen == value { seq } else { newest });
            node.shadow.doubt(name);
            node.unsunk.insert(name, ());
            return false;
        }
        if wins && seen == word.value && (tight || self.has_no_room(at, engine, name)) {
            self.sightings.insert("refused");
            let node = &mut self.nodes[at];
            node.doubted_at = Some(now);
            if value.is_some() && seen.is_none() {
                node.note_refused(name, seq);
            }
            // With a delete that found no room the rest of its frame is refused too; else the old value counts as named.
            node.shadow.doubt(name);
            return value.is_none() || !self.is_flow(name);
        }
        if seen.is_none() && word.value == expected {
            self.removed(now, at, name);
            return false;
        }
        // The frontier, which this frame lets go on, passes the end of a walk that named the entry in vain [8.0.2].
        if wins && seen.is_none() && self.nodes[at].walk.is_some() && self.nodes[at].frontier >= seq {
            self.nodes[at].shadow.put(now, name, value, seq);
            self.removed(now, at, name);
            return false;
        }
        let resurrected = !wins && word.value.is_none();
        let (label, expected, seen) = (self.label(name), told(expected), told(seen));
        let text = format!(
            "node {at} holds {seen} of {label} after frame {seq}; by the last word, of frame {newest}, it is {expected} (before: \
             {before}; {words} words, room for {room})",
            before = told(word.value),
            words = self.nodes[at].shadow.len(),
            room = self.nodes[at].config.as_ref().map_or(0, |config| config.capacity),
            newest = newest.max(if wins { seq } else { 0 })
        );
        self.broken(now, if resurrected { "resurrected" } else { "last-word" }, text);
        false
    }

    /// The word that stood when a new one came. If the entry is gone, although the new word is a value, then a walk took it
    /// before, and there was no room for it any more.
    fn word_before(
        &mut self,
        now: Instant,
        at: usize,
        name: Name,
        (seen, value): (Option<Value>, Option<Value>),
    ) -> Word {
        let word = |oracle: &Self| oracle.nodes[at].shadow.word(name).copied().unwrap_or_default();
        if seen.is_none() && value.is_some() && word(self).value.is_some() && self.nodes[at].walk.is_some() {
            self.removed(now, at, name);
        }
        word(self)
    }

    /// Notes a part of a section's value; the whole value when all parts are there and it may be the last word, and whether
    /// one of the frames that brought them may not have been received.
    fn part(
        &mut self,
        at: usize,
        stream: StreamId,
        seq: u64,
        name: Name,
        (index, first, len, total): (usize, u64, u32, u32),
    ) -> Option<(Value, bool)> {
        let node = &mut self.nodes[at];
        if node.shadow.seq(name) > first && !node.shadow.word(name).is_some_and(|word| word.uncertain) {
            return None;
        }
        let bytes = node.parts.entry((name, first)).or_default();
        // A frame that comes again brings the same parts again.
        bytes.insert(index, (seq, u64::from(len)));
        if bytes.values().map(|(_, len)| len).sum::<u64>() < u64::from(total) {
            return None;
        }
        let uncertain = bytes.values().any(|(seq, _)| node.taken.get(seq).is_some_and(|taken| taken.uncertain));
        if !uncertain {
            node.parts.remove(&(name, first));
        }
        Some((self.sent.wholes.get(&(stream.node, stream.incarnation, first, name)).copied()?, uncertain))
    }

    /// Whether a slot or a tombstone may be wanting for so many more records: words that a slot may still be spent on are as
    /// many as there are.
    fn is_tight(&mut self, at: usize, more: usize) -> bool {
        let node = &mut self.nodes[at];
        let Some(config) = &node.config else { return false };
        let limits = (config.capacity as usize, config.tombstones as usize);
        let tight = |shadow: &super::shadow::Shadow| {
            let words = shadow.len() + more + ROOM_MARGIN;
            words >= limits.0 || words - shadow.print().live as usize >= limits.1
        };
        if tight(&node.shadow) {
            let unsunk = &node.unsunk;
            node.shadow.purge(node.frontier, |name| unsunk.contains_key(&name));
        }
        tight(&node.shadow)
    }

    /// Whether the annex, or the room for sections, may be wanting. Only asked where something was refused.
    fn has_no_room(&self, at: usize, engine: &Engine, name: Name) -> bool {
        let Some(config) = &self.nodes[at].config else { return false };
        if self.is_flow(name) {
            let status = engine.status();
            return status.annex_used + ANNEX_MARGIN > status.annex_blocks;
        }
        let sections = self.nodes[at].shadow.entries().filter(|(name, _)| !self.is_flow(*name)).count();
        sections >= config.sections as usize || config.section_bytes < 1 << 20
    }

    /// Whether parts of this frame may have found no room, so that it counts as not received and comes again [3.3.12]: it is
    /// above the frontier, and with all parts that ever came and are not known to have become whole the limit is passed.
    /// What is in such a frame may not have been taken; that it is right if it was, is still judged.
    fn may_want_room_for_parts(&self, at: usize, seq: u64, range: Range<usize>) -> bool {
        let node = &self.nodes[at];
        let cost = |len: u64| PART_COST + len;
        let new = self.sent.told[range].iter().filter_map(|told| match told {
            Told::Part { len, .. } => Some(VALUE_COST + cost((*len).into())),
            Told::Entry { .. } | Told::Walked { .. } => None,
        });
        let new = new.sum::<u64>();
        let held =
            |parts: &BTreeMap<usize, (u64, u64)>| VALUE_COST + parts.values().map(|(_, len)| cost(*len)).sum::<u64>();
        let limit = node.config.as_ref().map_or(0, |config| config.partial_bytes);
        new > 0 && seq > node.frontier && new + node.parts.values().map(held).sum::<u64>() > limit.into()
    }

    // ------------------------------------------------------------------ the sink

    /// The sink is told what the table holds, or held while the sink refused it: then it will be told again.
    pub(super) fn judge_applied(&mut self, now: Instant, at: usize, engine: &Engine, name: Name, value: Option<Value>) {
        let expected = self.nodes[at].shadow.value(name);
        if expected != value && value.is_none() && self.held(engine, name, now).is_none() {
            self.removed(now, at, name);
        }
        let node = &mut self.nodes[at];
        let late = node.unsunk.contains_key(&name);
        if node.shadow.value(name) == value {
            node.unsunk.remove(&name);
        } else if !late {
            let (label, expected, seen) = (self.label(name), told(expected), told(value));
            let text = format!("node {at} gives {seen} of {label} to its sink; its table must hold {expected}");
            self.broken(now, "sink-is-table", text);
        }
    }
}

/// Whether `held` is `said` and beside it only attributes of types that this version does not know.
fn is_with_unknown(held: &Flow, said: &Flow) -> bool {
    let plain = |flow: &Flow| Flow { timeout: 0, attributes: Attributes::NONE, ..flow.clone() };
    let unknown = |&(kind, _): &(u8, &[u8])| kind > attribute::KNOWN_MAX;
    let known = |&(kind, _): &(u8, &[u8])| kind <= attribute::KNOWN_MAX && kind != attribute::COUNTERS;
    held.attributes.iter().any(|it| unknown(&it))
        && plain(held) == plain(said)
        && held.attributes.iter().filter(known).eq(said.attributes.iter().filter(known))
}
