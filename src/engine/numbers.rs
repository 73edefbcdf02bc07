//! Numbers come to their end, and a past that cannot be trusted any more ends with them: a new incarnation (docs/protocol.md
//! 5.6, 8.0.4).
//!
//! ```text
//!   incarnation A, term 7   … 2^48 − 2, 2^48 − 1 │ incarnation B, term 8   1, 2, 3 …
//!                                                └ same master, same table, same queue; every peer proves itself anew
//! ```

use super::event::Role;
use super::{Engine, STREAM_SEQ_MAX, TERM_MAX, splitmix64};
use crate::time::Instant;

/// The highest number of a control frame that a node gives.
const CONTROL_SEQ_MAX: u64 = 1 << 62;

impl Engine {
    /// Another incarnation, which no number was given under: what was proven with the old one must be proven anew.
    pub(super) fn draw_incarnation(&mut self, now: Instant) {
        self.incarnation = loop {
            let drawn = splitmix64(&mut self.random);
            if drawn != 0 && drawn != self.incarnation {
                break drawn;
            }
        };
        self.control_seq = 0;
        self.keyring.begin_incarnation(&self.config, self.incarnation);
        self.peers.doubt_all(now, 1);
        self.twins.clear();
        self.choose_seals(now);
        self.counters.incarnations_drawn += 1;
    }

    /// Before numbers come to their end, a new incarnation begins with 1 (docs/protocol.md 8.0.4). A master stays master, in
    /// a new term; its table, and what waits to be sent, stay.
    pub(super) fn renew_before_numbers_end(&mut self, now: Instant) {
        let stream_ends = self.role() == Role::Master && self.outbox.seq() >= STREAM_SEQ_MAX;
        if !stream_ends && self.control_seq < CONTROL_SEQ_MAX {
            return;
        }
        self.draw_incarnation(now);
        if self.role() == Role::Master {
            self.term = TERM_MAX.min(self.term + 1);
            self.table.begin_numbers();
            self.table.restart_section();
            self.outbox.begin_numbers();
            self.know_own(false);
            self.peers.forget_frontiers();
        }
        self.advert_at = now;
    }
}
