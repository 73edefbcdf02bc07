//! What was sent: every frame once, by its number; and what each stream has said up to each of its numbers.
//!
//! ```text
//!   stream (node, incarnation, term)    start        start + 1     start + 2  …
//!   the master's table as said          print[0]     print[1]      print[2]
//! ```
//!
//! Print n is what a follower must hold that holds everything up to frame n and nothing above.

use super::prints::{Map, Name, Print, Value};
use crate::time::Instant;
use crate::wire::{Advert, AdvertFlags, Follows, Header, Kind, NodeId, Target, WireRole};
use core::ops::Range;
use std::collections::BTreeMap;

/// One mastership's frames under one term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct StreamId {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) term: u64,
}

impl From<(NodeId, u64, u64)> for StreamId {
    fn from((node, incarnation, term): (NodeId, u64, u64)) -> Self {
        StreamId { node, incarnation, term }
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// A flow is this, or gone; or a section whose value is in one record.
    Entry { name: Name, value: Option<Value> },
    /// A part of a section's value, whose first part was in frame `first`.
    Part { name: Name, first: u64, len: u32, total: u32 },
    /// A walk of a bucket has ended that began behind frame `since`.
    Walked { since: u64 },
}

/// What an ADVERT says of its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) role: WireRole,
    pub(super) priority: u8,
    pub(super) flags: AdvertFlags,
    pub(super) interval_ms: u16,
    pub(super) term: u64,
    pub(super) stream_seq: u64,
    pub(super) history_start: u64,
    pub(super) follows: Follows,
}

impl Beat {
    pub(super) fn new(header: &Header, advert: &Advert<'_>) -> Beat {
        let &Advert { role, priority, flags, interval_ms, stream_seq, history_start, follows, .. } = advert;
        let term = header.term;
        Beat { role, priority, flags, interval_ms, term, stream_seq, history_start, follows }
    }

    pub(super) fn is_cold(&self) -> bool {
        self.flags.contains(AdvertFlags::COLD)
    }

    pub(super) fn is_master(&self) -> bool {
        self.role == WireRole::MASTER && self.priority != 0
    }
}

/// What is in a frame that was sent.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Records, by their places in [`Sent::told`].
    Data(Range<usize>),
    Advert(Beat),
    /// Of a merge: for whom, the cursor of the question, and the entries.
    Page {
        target: Target,
        cursor: u64,
        range: Range<usize>,
    },
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) at: Instant,
    pub(super) print: u64,
    pub(super) stream: StreamId,
    pub(super) content: Content,
}

/// A stream, as it was said.
#[derive(Debug)]
pub(super) struct Stream {
    /// The master, as nodes are counted here.
    pub(super) master: usize,
    /// The number before the first frame.
    pub(super) start: u64,
    pub(super) began: Instant,
    prints: Vec<Print>,
    /// Nodes that were proven on it and follow it no longer: what they held when they left.
    pub(super) left: BTreeMap<usize, Print>,
}

impl Stream {
    pub(super) fn new(master: usize, start: u64, began: Instant, print: Print) -> Self {
        Stream { master, start, began, prints: vec![print], left: BTreeMap::new() }
    }

    /// The number of the newest frame.
    pub(super) fn newest(&self) -> u64 {
        self.start + self.prints.len() as u64 - 1
    }

    /// What the whole table is, by the word of all frames up to this one.
    pub(super) fn print(&self, seq: u64) -> Option<Print> {
        self.prints.get(usize::try_from(seq.checked_sub(self.start)?).ok()?).copied()
    }

    /// The next frame was sent.
    pub(super) fn push(&mut self, print: Print) {
        self.prints.push(print);
    }
}

/// What a master has said of its table so far, in the frames of its present mastership.
#[derive(Debug, Default)]
pub(super) struct Saying {
    pub(super) content: Map<Name, Value>,
    pub(super) print: Print,
    pub(super) stream: Option<StreamId>,
    /// Sections whose values are being sent: their first frame, and the bytes so far.
    pub(super) parts: Map<Name, (u64, Vec<u8>)>,
}

impl Saying {
    pub(super) fn say(&mut self, name: Name, value: Option<Value>) {
        let old = match value {
            Some(value) => self.content.insert(name, value),
            None => self.content.remove(&name),
        };
        if let Some(old) = old {
            self.print.remove(name, old);
        }
        if let Some(value) = value {
            self.print.add(name, value);
        }
    }
}

/// The number of a frame: DATA and control frames are counted apart.
type Number = (NodeId, u64, bool, u64);

/// Everything that was ever sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    frames: Map<Number, Frame>,
    pub(super) told: Vec<Told>,
    pub(super) streams: Map<StreamId, Stream>,
    /// Values of sections that took several records, by their first frame.
    pub(super) wholes: Map<(NodeId, u64, u64, Name), Value>,
}

impl Sent {
    fn number(header: &Header) -> Number {
        (header.node, header.incarnation, header.kind == Kind::DATA, header.seq)
    }

    pub(super) fn frame(&self, header: &Header) -> Option<&Frame> {
        self.frames.get(&Self::number(header))
    }

    pub(super) fn data(&self, stream: StreamId, seq: u64) -> Option<&Frame> {
        self.frames.get(&(stream.node, stream.incarnation, true, seq))
    }

    pub(super) fn keep(&mut self, header: &Header, frame: Frame) {
        self.frames.insert(Self::number(header), frame);
    }

    /// The lowest number, not below `base`, behind which a walk began that ends in this frame.
    pub(super) fn walked(&self, stream: StreamId, seq: u64, base: u64) -> Option<u64> {
        let Content::Data(range) = &self.data(stream, seq)?.content else { return None };
        let since = |told: &Told| if let Told::Walked { since } = told { Some(*since) } else { None };
        self.told[range.clone()].iter().filter_map(since).filter(|since| *since >= base).min()
    }

    /// When the frame left, or the stream began.
    pub(super) fn left_at(&self, stream: StreamId, seq: u64) -> Option<Instant> {
        let it = self.streams.get(&stream)?;
        if seq <= it.start { Some(it.began) } else { Some(self.data(stream, seq)?.at) }
    }
}
