//! Bugs on purpose, one at a time, to see whether the fuzzers find them (`tools/fuzz --planted`). Without the feature
//! `planted` nothing can be planted, and the question whether something is costs nothing: its answer is a constant.
//!
//! ```text
//!   PLANT=record-count ─▶ plant() ─▶ CHOSEN ◀─ planted(Plant::RecordCount)    one condition at the check that is left out
//!   once, by the target's program                 at that check
//! ```
//!
//! Each stands for a mistake that parsers are known for: a length that is one too long, a count that nobody looks at, an offset
//! without a bound, a list that grows.

#![forbid(unsafe_code)]

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` is for the fuzzers (tools/fuzz), and for nothing that is shipped");

macro_rules! plants {
    ($($(#[doc = $text:literal])+ $variant:ident, $name:literal, $target:literal;)+) => {
        /// A check that is left out. Each says what goes wrong then.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Plant {
            $($(#[doc = $text])+ $variant,)+
        }

        #[cfg(feature = "planted")]
        impl Plant {
            /// Every one: it, its name, and the fuzz target that must find it.
            pub const ALL: &[(Plant, &str, &str)] = &[$((Plant::$variant, $name, $target),)+];
        }
    };
}

plants! {
    /// The name in an ADVERT may be one byte longer than it may be.
    NameLength, "name-length", "frame";
    /// A frame may hold more or fewer records than it says.
    RecordCount, "record-count", "records";
    /// A part of a section's value may end beyond the value.
    SectionOffset, "section-offset", "sections";
    /// Parts of values are kept without end.
    PartialRoom, "partial-room", "sections";
    /// What is too short to have a tag counts as opened.
    SealTag, "seal-tag", "sealed";
    /// The replay window is one number too wide.
    ReplayEdge, "replay-edge", "window";
    /// A message of the classic profile may hold more or fewer records than it says.
    ClassicCount, "classic-count", "classic";
    /// An option of IPVS may end beyond its record.
    OptionLength, "option-length", "ipvs";
    /// The padding behind an attribute is not there when the data end with the row.
    AttributePadding, "attribute-padding", "attributes";
    /// A cooked capture's header is taken to be there.
    CookedHeader, "cooked-header", "pcap";
    /// A block is believed to hold as many bytes as the packet had on the wire.
    BlockLength, "block-length", "pcapng";
    /// A netlink attribute may end beyond its message.
    NetlinkLength, "netlink-length", "netlink";
    /// Behind the last word of a rule there is another.
    RuleEnd, "rule-end", "filter";
    /// A duration may be longer than nanoseconds can say.
    DurationOverflow, "duration-overflow", "config";
    /// A list of flows may be asked for at any length.
    FlowLimit, "flow-limit", "control";
    /// A line of keepalived's may be as long as it likes, if it comes in pieces.
    LineLength, "line-length", "fifo";
    /// An IP packet is believed to be as long as it says.
    PacketLength, "packet-length", "packet";
    /// A table takes more flows than it was made for.
    TableCapacity, "table-capacity", "engine";
    /// Candidates are remembered without end.
    CandidateRoom, "candidate-room", "third";
}

/// Which one is planted: its place in `Plant::ALL`; anything beyond is none.
#[cfg(feature = "planted")]
static CHOSEN: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(usize::MAX);

/// Plants the bug of this name for the rest of the program; whether there is one.
#[cfg(feature = "planted")]
pub fn plant(name: &str) -> bool {
    let at = Plant::ALL.iter().position(|(_, known, _)| *known == name);
    CHOSEN.store(at.unwrap_or(usize::MAX), core::sync::atomic::Ordering::Relaxed);
    at.is_some()
}

/// Whether this one is planted.
#[cfg(feature = "planted")]
#[inline]
pub(crate) fn planted(plant: Plant) -> bool {
    CHOSEN.load(core::sync::atomic::Ordering::Relaxed) == plant as usize
}

/// Nothing can be.
#[cfg(not(feature = "planted"))]
#[inline]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}
