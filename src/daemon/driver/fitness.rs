//! How fit this node is for the role, by what it tracks: the priority in force, and whether it is to be without the role.
//!
//! ```text
//!   configured 150 ── tracks: −40 +7 ──▶ in force 117 ──▶ engine, in the same turn
//!   track of weight 0 down ── drain, cause "track"
//! ```

use super::Driver;
use crate::daemon::draining::Cause;
use crate::daemon::journal::Weight;
use crate::daemon::track::{self, Heed, TrackState};
use crate::engine::Tuning;
use crate::time::Instant;

/// What a group's fitness is made of.
#[derive(Debug)]
pub(super) struct Fitness {
    /// The group's settings for the engine, with the configured priority.
    configured: Tuning,
    heed: Heed,
    bonus: i32,
    /// A track of weight 0 is down.
    forbidden: bool,
}

impl Fitness {
    pub(super) fn new(configured: Tuning, heed: Heed) -> Self {
        Fitness { configured, heed, bonus: 0, forbidden: false }
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
        let before = std::mem::replace(&mut self.fitness.forbidden, change.forbids);
        if change.forbids != before
            && let Err(why) = self.drain_role(now, Cause::Track, change.forbids)
        {
            // Only the classic profile does not drain, and it has no tracks.
            self.journal.note(now, Weight::Failure, "TrackFailed", format!("the role was not given up: {why}"));
        }
    }

    fn note_track(&mut self, now: Instant, track: &TrackState, priority: u8) {
        let TrackState { name, kind, output, weight, .. } = track;
        let words = if output.is_empty() { String::new() } else { format!(": {output}") };
        let (weighty, event, is) = match (track.up, track.number) {
            (Some(true), None) => (Weight::Notice, "TrackUp", "up"),
            (Some(true), Some(_)) => (Weight::Notice, "TrackChanged", "another number"),
            _ => (Weight::Warning, "TrackDown", "down"),
        };
        let means = match (weight, track.up) {
            (0, Some(true)) => "it no longer forbids the role".to_owned(),
            (0, _) => "this node is to be without the role".to_owned(),
            (_, Some(false)) if track.number.is_some() => "this node is to be without the role".to_owned(),
            _ => format!("priority {priority} of {} configured", self.fitness.configured_priority()),
        };
        self.journal.note(now, weighty, event, format!("track {name} ({kind}) is {is}{words}; {means}"));
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
