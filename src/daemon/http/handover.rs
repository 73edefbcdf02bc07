//! The calls that move the role: switchover, drain, and the oath that a node is dead. They return when it has begun.

use super::change::{body, refused};
use super::request::{DrainBody, PeerDeadBody, SwitchoverBody};
use super::{Desk, Refusal};
use crate::daemon::answers::{
    DRAIN_SCHEMA, DrainAnswer, DrainRow, PEER_DEAD_SCHEMA, PeerDeadAnswer, PeerDeadRow, SWITCHOVER_SCHEMA,
    SwitchoverAnswer, SwitchoverRow,
};
use crate::daemon::control::Command;
use crate::daemon::draining::Cause;
use crate::wire::NodeId;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

pub(super) async fn switchover(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = begin_switchover(&desk, request).await;
    desk.finish(result)
}

/// Without a named group the masters give; only where this node is master of nothing it asks. One group that refuses is no
/// reason to refuse the others.
async fn begin_switchover(desk: &Desk, request: Request) -> Result<SwitchoverAnswer, Refusal> {
    let body = SwitchoverBody::parse(&body(desk, request).await?)?;
    let handles = desk.groups(body.group)?;
    let (mut groups, mut refusal, mut left_out) = (Vec::new(), None, 0);
    for asks in [body.group.is_some(), true] {
        for group in &handles {
            let to = body.to.clone();
            match desk.ask(group, |answer| Command::Switchover { to, asks, answer }).await? {
                Ok(Some(heir)) => groups.push(SwitchoverRow { sync_id: group.sync_id, heir: heir.0 }),
                Ok(None) => left_out += 1,
                Err(why) => refusal = refusal.or(Some(refused("switchover_refused", group, &why))),
            }
        }
        if asks || left_out < handles.len() {
            break;
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => Ok(SwitchoverAnswer { schema: SWITCHOVER_SCHEMA.to_owned(), groups }),
    }
}

pub(super) async fn drain(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = begin_draining(&desk, request).await;
    desk.finish(result)
}

async fn begin_draining(desk: &Desk, request: Request) -> Result<DrainAnswer, Refusal> {
    let body = DrainBody::parse(&body(desk, request).await?)?;
    let (mut groups, mut refusal) = (Vec::new(), None);
    for group in &desk.groups(body.group)? {
        let order = |answer| Command::Drain { cause: Cause::Operator, holds: !body.off, answer };
        match desk.ask(group, order).await? {
            Ok((role, draining)) => {
                groups.push(DrainRow { sync_id: group.sync_id, role: role.name().to_owned(), draining });
            }
            Err(why) => refusal = refusal.or(Some(refused("drain_refused", group, &why))),
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => Ok(DrainAnswer { schema: DRAIN_SCHEMA.to_owned(), groups }),
    }
}

pub(super) async fn peer_dead(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = bury(&desk, request).await;
    desk.finish(result)
}

/// Without a named group those that do not know the node are left out.
async fn bury(desk: &Desk, request: Request) -> Result<PeerDeadAnswer, Refusal> {
    let body = PeerDeadBody::parse(&body(desk, request).await?)?;
    let (mut groups, mut refusal) = (Vec::new(), None);
    for group in &desk.groups(body.group)? {
        match desk.ask(group, |answer| Command::PeerDead { node: NodeId(body.node), answer }).await? {
            Ok(role) => groups.push(PeerDeadRow { sync_id: group.sync_id, role: role.name().to_owned() }),
            Err(why) => refusal = refusal.or(Some(refused("peer_dead_refused", group, &why))),
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => Ok(PeerDeadAnswer { schema: PEER_DEAD_SCHEMA.to_owned(), node: body.node, groups }),
    }
}
