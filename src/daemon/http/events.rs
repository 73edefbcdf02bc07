//! `GET /v1/events`: server-sent events. First the state of every group, then whatever happens.
//!
//! ```text
//!   event: State     data: {"schema": "ssyncp.event/1", "group": 51, "number": 7, "state": { … }, …}
//!   event: InSync    data: {"schema": "ssyncp.event/1", "group": 51, "number": 8, "text": "in sync: …", …}
//!   event: Lost      data: {…, "lost": 12}           this subscriber was too slow, and missed so many
//!   :                                                each 15 s, so that a dead connection is noticed
//! ```
//!
//! A subscriber listens before it asks for the states, and leaves out what they already show: nothing is missed between
//! the two, and nothing told twice.

use super::request::group_query;
use super::{Access, Desk, Refusal};
use crate::daemon::control::Command;
use crate::daemon::events::EventMessage;
use crate::daemon::status::GroupStatus;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

pub(super) async fn events(
    State(desk): State<Arc<Desk>>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Response {
    let subscriber = match subscribe(&desk, access, query.as_deref()).await {
        Ok(subscriber) => subscriber,
        Err(refusal) => return desk.refuse(refusal),
    };
    let stream = stream::unfold(subscriber, |mut subscriber| async move {
        let message = subscriber.next().await?;
        Some((Ok::<_, Infallible>(event(&message)), subscriber))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

async fn subscribe(desk: &Desk, access: Access, query: Option<&str>) -> Result<Subscriber, Refusal> {
    let group = group_query(query.unwrap_or(""))?;
    let groups = desk.groups(group)?;
    let places = Arc::clone(&desk.subscribers[usize::from(access == Access::Reading)]);
    let place = places.try_acquire_owned().map_err(|_| {
        let sentence = "too many subscribers follow the events already";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_subscribers", sentence)
    })?;
    let live = desk.roster.events().subscribe();
    let mut subscriber = Subscriber { group, states: VecDeque::new(), shown: BTreeMap::new(), live, _place: place };
    for group in &groups {
        let status = desk.ask(group, Command::Status).await?;
        subscriber.shown.insert(group.sync_id, status.events);
        subscriber.states.push_back(state(status));
    }
    Ok(subscriber)
}

/// A group's state as the event that opens a stream.
fn state(status: GroupStatus) -> EventMessage {
    let text = format!("{}, {}, {} flows", status.role, status.sync, status.entries);
    let opening = EventMessage::now(Some(status.sync_id), status.events, "State", text);
    EventMessage { state: Some(Box::new(status)), ..opening }
}

fn event(message: &EventMessage) -> Event {
    // Numbers and strings into memory: nothing here can fail.
    let json = serde_json::to_string(message).unwrap_or_default();
    Event::default().event(&message.event).data(json)
}

/// One who follows the events.
struct Subscriber {
    group: Option<u8>,
    /// What it is told first.
    states: VecDeque<EventMessage>,
    /// The last event of each group that its state already showed.
    shown: BTreeMap<u8, u64>,
    live: Receiver<EventMessage>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    async fn next(&mut self) -> Option<EventMessage> {
        if let Some(state) = self.states.pop_front() {
            return Some(state);
        }
        loop {
            match self.live.recv().await {
                Ok(message) if self.wants(&message) => return Some(message),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => {
                    let text = format!("{lost} events were not told: this subscriber is too slow");
                    return Some(EventMessage { lost: Some(lost), ..EventMessage::now(None, 0, "Lost", text) });
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, message: &EventMessage) -> bool {
        let Some(group) = message.group else { return self.group.is_none() };
        self.group.is_none_or(|wanted| wanted == group)
            && self.shown.get(&group).is_none_or(|shown| message.number > *shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::events::Events;
    use tokio::sync::Semaphore;

    fn message(group: Option<u8>, number: u64) -> EventMessage {
        EventMessage::now(group, number, "LinkUp", String::new())
    }

    /// [7.0.2]
    #[tokio::test]
    async fn a_subscriber_hears_the_state_first_then_what_it_does_not_show_and_what_it_lost() {
        let events = Events::default();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let states = VecDeque::from([state(GroupStatus { sync_id: 51, events: 2, ..GroupStatus::default() })]);
        let live = events.subscribe();
        let shown = BTreeMap::from([(51, 2)]);
        let mut subscriber = Subscriber { group: Some(51), states, shown, live, _place: place };
        for (group, number) in [(Some(51), 2), (Some(52), 9), (None, 1), (Some(51), 3)] {
            events.publish(message(group, number));
        }
        let first = subscriber.next().await.unwrap();
        assert_eq!((first.event.as_str(), first.number, first.state.is_some()), ("State", 2, true));
        assert_eq!(subscriber.next().await.unwrap().number, 3);
        (4..=260).for_each(|number| events.publish(message(Some(51), number)));
        let lost = subscriber.next().await.unwrap();
        assert_eq!((lost.event.as_str(), lost.lost), ("Lost", Some(1)));
        assert_eq!(subscriber.next().await.unwrap().number, 5);
    }

    #[test]
    fn who_follows_the_whole_node_hears_of_reloads_and_of_groups_that_come_later() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let live = Events::default().subscribe();
        let subscriber =
            Subscriber { group: None, states: VecDeque::new(), shown: BTreeMap::from([(51, 7)]), live, _place: place };
        assert!(subscriber.wants(&message(None, 1)) && subscriber.wants(&message(Some(52), 1)));
        assert!(subscriber.wants(&message(Some(51), 8)) && !subscriber.wants(&message(Some(51), 7)));
    }
}
