//! What happens, told to whoever listens: one ring of events for the whole node, read by any number of subscribers.
//!
//! ```text
//!   group 51 ──publish──▶ ┌───────────────────────────┐ ──▶ subscriber, at its own pace
//!   group 52 ──publish──▶ │ the last 256 events, shared │ ──▶ one that is slow: "Lost", and how many
//!   reload ────publish──▶ └───────────────────────────┘
//! ```
//!
//! Publishing never waits: a subscriber that is more than a ring behind loses the oldest and is told so.

use crate::daemon::status::GroupStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Events that wait for a subscriber at most.
pub const EVENTS_WAITING_MAX: usize = 256;
/// The schema of [`EventMessage`].
pub const EVENT_SCHEMA: &str = "ssyncp.event/1";

/// One event of `GET /v1/events`, and one line of `ssyncp events --json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EventMessage {
    /// `ssyncp.event/1`.
    #[schemars(extend("const" = "ssyncp.event/1"))]
    pub schema: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// In which group (its sync id); null for the node itself.
    pub group: Option<u8>,
    /// Its number among the group's events since the start, from 1. A `State` carries that of the last event before it.
    pub number: u64,
    /// Its name as docs/protocol.md lists it, or one of the daemon's own. `State` opens a stream, `Lost` tells of a gap.
    pub event: String,
    /// What happened, in a sentence.
    pub text: String,
    /// The whole state of the group, with a `State`; else null.
    pub state: Option<Box<GroupStatus>>,
    /// How many events this subscriber has lost because it was too slow, with a `Lost`; else null.
    pub lost: Option<u64>,
}

impl EventMessage {
    /// An event that happens now.
    pub fn now(group: Option<u8>, number: u64, event: &str, text: String) -> Self {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let (schema, event) = (EVENT_SCHEMA.to_owned(), event.to_owned());
        EventMessage { schema, unix_ms, group, number, event, text, state: None, lost: None }
    }
}

/// The node's events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<EventMessage>);

impl Default for Events {
    fn default() -> Self {
        Events(broadcast::Sender::new(EVENTS_WAITING_MAX))
    }
}

impl Events {
    /// Tells whoever listens; never waits.
    pub fn publish(&self, event: EventMessage) {
        // With nobody listening there is nobody to tell.
        let _ = self.0.send(event);
    }

    /// Everything that is published from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<EventMessage> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broadcast::error::TryRecvError;

    #[test]
    fn a_slow_subscriber_is_told_how_many_it_lost_and_a_quick_one_loses_none() {
        let events = Events::default();
        let (mut slow, mut quick) = (events.subscribe(), events.subscribe());
        for number in 1..=300 {
            events.publish(EventMessage::now(Some(51), number, "LinkUp", String::new()));
            assert_eq!(quick.try_recv().unwrap().number, number);
        }
        assert_eq!(slow.try_recv(), Err(TryRecvError::Lagged(44)));
        assert_eq!(slow.try_recv().unwrap().number, 45);
    }
}
