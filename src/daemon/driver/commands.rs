//! What operators ask of a group's loop, answered between two turns: never more than a few commands, and a page of a
//! listing, at a time.

use super::{COMMANDS_PER_TURN, Driver, INTERVALS_OF_PATIENCE, Load, Reins};
use crate::daemon::answers::FlushRow;
use crate::daemon::audit::AuditOrders;
use crate::daemon::control::{Command, FLUSHES_MAX, FlushOrder, LISTINGS_MAX, Listing, PAGE_SLOTS, Page};
use crate::daemon::draining::Cause;
use crate::daemon::protocol::Protocol;
use crate::daemon::settings::{Group, Node};
use crate::daemon::status::GroupStatus;
use crate::engine::FlushState;
use crate::flow::Flow;
use crate::time::Instant;

impl Driver {
    pub(super) fn answer(&mut self, now: Instant, load: &mut Load) {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.desk.next() else { break };
            load.worked = true;
            match command {
                // Whoever asked may have gone meanwhile; that is nobody's error.
                Command::Status(answer) => drop(answer.send(self.status(now))),
                Command::Role(request, answer) => {
                    let told = self.undriven().map(|()| self.engine.set_role(now, request));
                    drop(answer.send(told.map(|()| self.engine.role())));
                }
                // A listing too many is dropped, which its asker sees as an answer that ends early.
                Command::Flows(listing) if self.listings.len() < LISTINGS_MAX => self.listings.push(listing),
                Command::Flows(_) => tracing::warn!(group = self.desk.sync_id, "too many listings at the same time"),
                Command::Measures(answer) => drop(answer.send(self.measures(now))),
                Command::Resync { full, answer } => {
                    drop(answer.send(self.engine.resync(now, full)));
                }
                Command::Switchover { answer, .. } if self.reins.is_some() => {
                    drop(answer.send(Err(self.reins.as_ref().map(Reins::refusal).unwrap_or_default())));
                }
                Command::Drain { cause: Cause::Operator, answer, .. } if self.reins.is_some() => {
                    drop(answer.send(Err(self.reins.as_ref().map(Reins::refusal).unwrap_or_default())));
                }
                Command::Switchover { to, asks, answer } => {
                    drop(answer.send(self.undriven().and_then(|()| self.engine.switchover(now, to.as_ref(), asks))));
                }
                Command::Drain { cause, holds, answer } => {
                    let drained = self.undriven().and_then(|()| self.drain_role(now, cause, holds));
                    drop(answer.send(drained.map(|()| (self.engine.role(), self.draining.names()))));
                }
                Command::PeerDead { node, answer } => {
                    drop(answer.send(self.engine.peer_is_dead(now, node).map(|()| self.engine.role())));
                }
                Command::Section(order) => order.answer(now, &mut self.engine),
                Command::Flush(order) => self.begin_flush(now, order),
                Command::Reconfigure { group, audit, node, answer } => {
                    drop(answer.send(self.reconfigure(now, &group, audit, &node)));
                }
            }
        }
        if !self.listings.is_empty() {
            let engine = &self.engine;
            self.listings.retain_mut(|listing| match serve(listing, engine, now) {
                Served::Page => {
                    load.more = true;
                    true
                }
                Served::NoRoom => true,
                Served::Done => false,
            });
        }
    }

    /// Where keepalived decides, nobody else is asked: the addresses would stay where they are.
    fn undriven(&self) -> Result<(), String> {
        self.reins.as_ref().map_or(Ok(()), |reins| Err(reins.refusal()))
    }

    pub(super) fn begin_flush(&mut self, now: Instant, order: FlushOrder) {
        match self.engine.begin_flush(now, order.deadline.since(now)) {
            Err(reason) => drop(order.answer.send(Err(reason))),
            Ok(_) if self.flushes.len() == FLUSHES_MAX => {
                drop(order.answer.send(Err("too many flushes at the same time".into())));
            }
            Ok(mark) => self.flushes.push(FlushOrder { mark: Some((now, mark)), ..order }),
        }
    }

    /// Answers whoever waits for a flush that is done, can no longer be done, or has taken too long.
    pub(super) fn flush(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.flushes.len() {
            let order = &mut self.flushes[at];
            let state = match &mut order.mark {
                Some((_, mark)) => self.engine.flush_state(now, mark),
                None => Ok(FlushState::TimedOut),
            };
            if state == Ok(FlushState::Waiting) && !order.answer.is_closed() {
                at += 1;
                continue;
            }
            let order = self.flushes.swap_remove(at);
            let row = |state| self.flush_row(now, &order, state == FlushState::Done);
            let row = state.map(row).map_err(|error| error.to_string());
            drop(order.answer.send(row));
        }
    }

    pub(super) fn flush_row(&self, now: Instant, order: &FlushOrder, flushed: bool) -> FlushRow {
        let status = GroupStatus::of_engine(&self.engine.status(), now);
        let (since, seq) = order.mark.as_ref().map_or((now, None), |(since, mark)| (*since, mark.seq()));
        FlushRow {
            sync_id: self.desk.sync_id,
            flushed,
            took_ms: now.since(since).as_secs_f64() * 1e3,
            seq,
            pending: status.pending,
            held_by: status
                .peers
                .iter()
                .filter(|peer| seq.is_some() && peer.acknowledged >= seq)
                .map(|peer| peer.node)
                .collect(),
            peers: status.peers,
        }
    }

    /// Applies what of a group's settings can be applied to a loop that runs. The filter comes first: only the kernel can
    /// say whether it takes it, and if not, nothing has changed.
    pub(super) fn reconfigure(
        &mut self,
        now: Instant,
        group: &Group,
        audit: AuditOrders,
        node: &Node,
    ) -> Result<(), String> {
        let filter = group.flow_filter();
        if self.filter != filter {
            self.feed.set_filter(now, &filter).map_err(|error| format!("filter: {error}"))?;
            self.audit.set_filter(now, &filter);
            self.drain.set_filter(&filter);
            self.filter = filter;
        }
        self.tune(now, group.tuning(), &group.track)?;
        self.engine.set_secrets(now, &node.sealing)?;
        self.notify.replace(group);
        if let Some(engine) = self.engine.ssyncp1() {
            self.audit.reconfigure(now, audit, engine);
        }
        self.feed.set_keeps(self.audit.keeps());
        self.feed.set_dump_interval(now, group.dump_interval);
        self.drain.set_commit(group.commit);
        if let Some(reins) = &mut self.reins {
            reins.set_interval(group.advert_interval);
        }
        self.watch.set_patience(group.advert_interval * INTERVALS_OF_PATIENCE);
        self.pace.set_wait(group.wait);
        if let Some(takeover) = &mut self.takeover {
            takeover.replace(group.into());
        }
        crate::daemon::privilege::be_heard_in_time(node.realtime_priority);
        Ok(())
    }
}

enum Served {
    Page,
    NoRoom,
    Done,
}

/// Serves one page of a listing, if its asker has room for it.
fn serve(listing: &mut Listing, engine: &Protocol, now: Instant) -> Served {
    let room = match listing.pages.try_reserve() {
        Ok(room) => room,
        Err(tokio::sync::mpsc::error::TrySendError::Full(())) => return Served::NoRoom,
        Err(tokio::sync::mpsc::error::TrySendError::Closed(())) => return Served::Done,
    };
    if let Some(keys) = listing.filter.keys() {
        let found = keys.iter().filter_map(|key| engine.flow(key, now));
        let flows = found.filter(|flow| listing.filter.matches(&flow.key)).take(listing.limit).collect();
        room.send(Page { flows, last: true });
        return Served::Done;
    }
    let end = listing.slot.saturating_add(PAGE_SLOTS);
    let wanted = |flow: &Flow| listing.filter.matches(&flow.key);
    let flows = engine.flows_in(listing.slot..end, now, listing.limit, wanted);
    listing.slot = end;
    listing.limit -= flows.len();
    let last = listing.slot >= engine.slots() || listing.limit == 0;
    if last || !flows.is_empty() {
        room.send(Page { flows, last });
    }
    if last { Served::Done } else { Served::Page }
}
