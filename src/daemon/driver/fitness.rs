//! How fit this node is for the role, by what it tracks: the priority in force, and whether it is to be without the role.
//!
//! ```text
//!   configured 150 ── tracks: −40 +7 ──▶ in force 117 ──▶ engine, at the next turn
//!   track of weight 0 down ──┐
//!   operator's drain ────────┴ any? ──▶ set_draining
//! ```

use super::Driver;
use crate::daemon::journal::Weight;
use crate::daemon::track::{self, Heed, TrackState};
use crate::engine::Tuning;
use crate::time::Instant;

/// Why a node is to be without the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DrainCause {
    /// Somebody has said so.
    #[allow(dead_code, reason = "an operator's drain comes with the planned switch")]
    Operator,
    /// A track of weight 0 is down.
    Track,
}

/// What a group's fitness is made of.
#[derive(Debug)]
pub(super) struct Fitness {
    /// The group's settings for the engine, with the configured priority.
    configured: Tuning,
    heed: Heed,
    bonus: i32,
    /// A bit for each cause.
    drains: u8,
}

impl Fitness {
    pub(super) fn new(configured: Tuning, heed: Heed) -> Self {
        Fitness { configured, heed, bonus: 0, drains: 0 }
    }

    /// The priority of the configuration.
    pub(super) fn configured_priority(&self) -> u8 {
        self.configured.priority
    }

    /// The priority that the group has now.
    pub(super) fn priority(&self) -> u8 {
        track::priority(self.configured.priority, self.bonus)
    }

    pub(super) fn heed(&self) -> &Heed {
        &self.heed
    }

    /// What the engine is to be told.
    fn in_force(&self) -> Tuning {
        Tuning { priority: self.priority(), ..self.configured.clone() }
    }
}

impl Driver {
    /// Looks whether a track has changed, and tells engine and journal. Costs one load if none has.
    pub(super) fn follow_tracks(&mut self, now: Instant) {
        let Some(change) = self.fitness.heed.look() else { return };
        let before = self.fitness.priority();
        self.fitness.bonus = change.bonus;
        let priority = self.fitness.priority();
        for track in &change.changed {
            self.note_track(now, track, priority);
        }
        if priority != before
            && let Err(why) = self.engine.reconfigure(now, &self.fitness.in_force())
        {
            // The configured settings were taken, and a priority of 1 to 254 is one of them.
            self.journal.note(now, Weight::Failure, "TrackFailed", format!("priority {priority} was not taken: {why}"));
        }
        self.drain_for(now, DrainCause::Track, !change.forbidding.is_empty());
    }

    fn note_track(&mut self, now: Instant, track: &TrackState, priority: u8) {
        let TrackState { name, kind, output, weight, .. } = track;
        let words = if output.is_empty() { String::new() } else { format!(": {output}") };
        let (weighty, event, is) = match track.up {
            Some(true) => (Weight::Notice, "TrackUp", "up"),
            _ => (Weight::Warning, "TrackDown", "down"),
        };
        let means = match (weight, track.up) {
            (0, Some(true)) => "it no longer forbids the role".to_owned(),
            (0, _) => "this node is to be without the role".to_owned(),
            _ => format!("priority {priority} of {} configured", self.fitness.configured_priority()),
        };
        self.journal.note(now, weighty, event, format!("track {name} ({kind}) is {is}{words}; {means}"));
    }

    /// Begins or ends to be without the role for one cause; it lasts as long as there is any.
    pub(super) fn drain_for(&mut self, now: Instant, cause: DrainCause, wanted: bool) {
        let bit = 1 << cause as u8;
        let before = self.fitness.drains;
        self.fitness.drains = if wanted { before | bit } else { before & !bit };
        if (before == 0) != (self.fitness.drains == 0)
            && let Some(engine) = self.engine.ssyncp1()
        {
            engine.set_draining(now, wanted);
        }
    }

    /// Takes other settings; the tracks count as before.
    ///
    /// # Errors
    /// The engine's first problem; nothing has changed then.
    pub(super) fn tune(&mut self, now: Instant, configured: Tuning, tracks: &[String]) -> Result<(), String> {
        let before = std::mem::replace(&mut self.fitness.configured, configured);
        if let Err(why) = self.engine.reconfigure(now, &self.fitness.in_force()) {
            self.fitness.configured = before;
            return Err(why);
        }
        self.fitness.heed.replace(tracks);
        self.follow_tracks(now);
        Ok(())
    }
}
