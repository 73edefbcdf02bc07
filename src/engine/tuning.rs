//! What of a configuration can change while the engine runs: neither role nor stream nor table notices.

use super::{Ack, Config, ConfigError, Engine, Role};
use crate::time::{Duration, Instant};

/// ADVERTs that keep the old, shorter interval when a longer one comes: peers count with the one that they heard last,
/// and must not take a lost ADVERT for a dead master.
const ADVERTS_AT_THE_OLD_PACE: u8 = 3;

/// The settings of a [`Config`] that [`Engine::reconfigure`] exchanges. Their meaning is told there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields of Config, under the same names")]
pub struct Tuning {
    pub priority: u8,
    pub preempt: bool,
    pub advert_interval: Duration,
    pub batch_delay: Duration,
    pub ack_every: u32,
    pub ack_delay: Duration,
    pub reorder_delay: Duration,
    pub lag_limit: Duration,
    pub commit_deadline: Duration,
    pub handover_deadline: Duration,
    pub merge_deadline: Duration,
    pub takeover_grace: Duration,
    pub startup_delay: Duration,
    pub ack: Ack,
    pub ack_timeout: Duration,
    pub members: Option<u32>,
}

impl From<&Config> for Tuning {
    fn from(config: &Config) -> Self {
        Tuning {
            priority: config.priority,
            preempt: config.preempt,
            advert_interval: config.advert_interval,
            batch_delay: config.batch_delay,
            ack_every: config.ack_every,
            ack_delay: config.ack_delay,
            reorder_delay: config.reorder_delay,
            lag_limit: config.lag_limit,
            commit_deadline: config.commit_deadline,
            handover_deadline: config.handover_deadline,
            merge_deadline: config.merge_deadline,
            takeover_grace: config.takeover_grace,
            startup_delay: config.startup_delay,
            ack: config.ack,
            ack_timeout: config.ack_timeout,
            members: config.members,
        }
    }
}

impl Engine {
    /// Goes on with other settings. Timers that run are not touched: the next ones use what is new.
    ///
    /// # Errors
    /// The first of [`Config::problems`]; nothing has changed then.
    pub fn reconfigure(&mut self, now: Instant, tuning: &Tuning) -> Result<(), ConfigError> {
        let Tuning { priority, preempt, advert_interval, batch_delay, ack_every, .. } = *tuning;
        let Tuning { ack_delay, reorder_delay, lag_limit, commit_deadline, handover_deadline, .. } = *tuning;
        let Tuning { merge_deadline, takeover_grace, startup_delay, .. } = *tuning;
        let Tuning { ack, ack_timeout, members, .. } = *tuning;
        let before = self.config.clone();
        let config = Config {
            priority,
            preempt,
            advert_interval,
            batch_delay,
            ack_every,
            ack_delay,
            reorder_delay,
            lag_limit,
            commit_deadline,
            handover_deadline,
            merge_deadline,
            takeover_grace,
            startup_delay,
            ack,
            ack_timeout,
            members,
            ..before.clone()
        };
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem);
        }
        if config == before {
            return Ok(());
        }
        // The others learn it at the pace that they know.
        self.advert_soon(now);
        if advert_interval > before.advert_interval {
            self.old_pace = Some((before.advert_interval, ADVERTS_AT_THE_OLD_PACE));
        }
        self.advert_at = self.advert_at.min(now + advert_interval);
        self.election.set_priority(priority);
        self.election.set_timers(advert_interval, commit_deadline);
        self.election.set_startup_delay(startup_delay);
        if takeover_grace > before.takeover_grace && self.role() != Role::Master {
            // The copies that the kernel has stand behind the table's clock by the old margin.
            self.table.set_clocks_back(takeover_grace - before.takeover_grace);
        }
        self.config = config;
        self.table.set_margin(self.named_margin());
        Ok(())
    }

    /// Time from an ADVERT that leaves now to the next one.
    pub(super) fn pace_of_adverts(&mut self) -> Duration {
        let interval = self.config.advert_interval;
        let Some((old, left)) = self.old_pace else { return interval };
        self.old_pace = (left > 1).then_some((old, left - 1));
        interval.min(old)
    }
}
