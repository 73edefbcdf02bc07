//! Who seals with this node's own number (docs/protocol.md 3.5.11). Recordings of this node's former lives do so too, so that
//! another one is believed only when it has heard this life.
//!
//! ```text
//!   this node, incarnation A                      another, given the same number, incarnation B
//!      │ ADVERT of B ◀────────────────────────────────│
//!      │ lists B beside the peers ───────────────────▶│
//!      │ ADVERT of B, lists A, heard: since then ◀────│   DuplicateNode
//! ```

use super::Engine;
use crate::time::Instant;
use crate::wire::{Advert, Header, PeerReport};

/// Other incarnations under this node's number that are remembered at once.
const TWINS_MAX: usize = 4;

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Twin {
    incarnation: u64,
    /// The highest of its control numbers that was heard.
    heard: u64,
    /// It is no recording if it has heard this control number of ours, or a later one.
    challenge: u64,
}

/// The last of them that were heard in this life.
#[derive(Default, Debug)]
pub(super) struct Twins {
    list: [Option<Twin>; TWINS_MAX],
    /// Whose place the next one takes.
    hand: usize,
}

impl Twins {
    /// A new incarnation of this node: nobody has heard it yet.
    pub(super) fn clear(&mut self) {
        *self = Twins::default();
    }

    /// As an ADVERT lists them.
    pub(super) fn reports(&self, node: crate::wire::NodeId) -> impl Iterator<Item = PeerReport> {
        self.list.iter().flatten().map(move |twin| PeerReport::new(node, twin.incarnation, 0, twin.heard, 0))
    }

    /// Notes one that was heard; whether it has proven that it lives. `own` is this incarnation, `sent` the number of the last
    /// control frame of it that has left.
    fn meet(&mut self, header: &Header, advert: &Advert<'_>, own: u64, sent: u64) -> bool {
        let known = self.list.iter_mut().flatten().find(|twin| twin.incarnation == header.incarnation);
        let Some(twin) = known else {
            let twin = Twin { incarnation: header.incarnation, heard: header.seq, challenge: sent + 1 };
            self.list[self.hand] = Some(twin);
            self.hand = (self.hand + 1) % TWINS_MAX;
            return false;
        };
        let newer = header.seq > twin.heard;
        twin.heard = twin.heard.max(header.seq);
        let heard_us = |report: &&PeerReport| report.node() == header.node && report.incarnation() == own;
        let report = advert.peers.iter().find(heard_us);
        newer && report.is_some_and(|report| (twin.challenge..=sent).contains(&report.heard()))
    }
}

impl Engine {
    /// A sealed ADVERT under this node's own number: it is listed, and reported once it has proven that it lives.
    pub(super) fn meet_twin(&mut self, now: Instant, header: &Header, advert: &Advert<'_>) {
        if header.incarnation == self.incarnation {
            return;
        }
        if self.twins.meet(header, advert, self.incarnation, self.control_seq) {
            self.report_duplicate(now, header);
        }
        self.advert_soon(now);
    }
}
