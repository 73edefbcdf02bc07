//! Reloads: the operator gives the nodes other secrets, one node after the other, while all else happens.
//!
//! ```text
//!   roll-out   none        ▶ 1, permissive ▶ 1, enforce      and from there
//!   rotation   1           ▶ 1 2           ▶ 2 1 ▶ 2         ▶ 2 3 …
//!                 └ add          └ prefer     └ remove, when every node runs and seals with the new one
//! ```
//!
//! The next step begins when every node has reloaded the last one, in whatever order. At any moment the secrets of two nodes
//! are at most a step apart, and so they may stay: all must be equal in the end all the same.

use super::random::Random;
use super::world::{What, World};
use crate::engine::Auth;
use crate::time::Duration;
use crate::wire::{SECRET_LEN, SECRETS_MAX, Secret};

/// The reloads of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reloads {
    /// What their randomness comes from.
    pub(super) seed: u64,
    /// Mean time between two.
    pub(super) spacing: Duration,
}

/// All secrets that a world can ever have.
pub(super) fn secrets(seed: u64) -> Vec<Secret> {
    let mut random = Random::new(seed ^ 0x7365_6372_6574_7321);
    let drawn = (0..SECRETS_MAX as u8).filter_map(|id| Secret::new(id, &[random.next() as u8; SECRET_LEN]));
    drawn.collect()
}

/// Where the operator stands.
#[derive(Debug)]
pub(super) struct Operator {
    reloads: Reloads,
    pub(super) dice: Random,
    secrets: Vec<Secret>,
    /// Numbers of the secrets in use, the preferred one first, and what becomes of frames without a seal.
    wanted: (Vec<u8>, Auth),
    /// Nodes that are still to be told.
    untold: Vec<usize>,
}

impl Operator {
    pub(super) fn new(reloads: Reloads, secrets: Vec<Secret>, begins_with: &[Secret]) -> Self {
        let ids = begins_with.iter().map(Secret::id).collect();
        Operator { reloads, dice: Random::new(reloads.seed), secrets, wanted: (ids, Auth::Enforce), untold: Vec::new() }
    }

    fn wanted(&self) -> (Vec<Secret>, Auth) {
        let by_id = |id: &u8| self.secrets.iter().find(|secret| secret.id() == *id).cloned();
        (self.wanted.0.iter().filter_map(by_id).collect(), self.wanted.1)
    }

    /// The next step, and the secret that every node has to seal with before it.
    fn next(&mut self) -> ((Vec<u8>, Auth), Option<u8>) {
        let (ids, auth) = &self.wanted;
        match (ids[..].first().copied(), ids.get(1).copied(), auth) {
            (None, ..) => ((vec![self.dice.below(SECRETS_MAX as u64) as u8], Auth::Permissive), None),
            (Some(one), None, Auth::Permissive | Auth::Off) => ((vec![one], Auth::Enforce), Some(one)),
            (Some(one), None, Auth::Enforce) => ((vec![one, (one + 1) % SECRETS_MAX as u8], Auth::Enforce), None),
            (Some(one), Some(other), _) if other == (one + 1) % SECRETS_MAX as u8 => {
                ((vec![other, one], Auth::Enforce), None)
            }
            (Some(one), Some(_), _) => ((vec![one], Auth::Enforce), Some(one)),
        }
    }
}

impl World {
    /// A node is given other secrets, or the next step begins.
    pub(super) fn reload(&mut self) {
        let Some(mut operator) = self.operator.take() else { return };
        let at = self.now + operator.dice.around(operator.reloads.spacing);
        self.agenda.push(at, What::Reload);
        if operator.untold.is_empty() {
            self.begin_step(&mut operator);
        } else {
            let place = operator.dice.below(operator.untold.len() as u64) as usize;
            let node = operator.untold[place];
            let (secrets, auth) = operator.wanted();
            if self.reload_node(node, secrets, auth) {
                operator.untold.swap_remove(place);
            }
        }
        self.operator = Some(operator);
    }

    fn begin_step(&mut self, operator: &mut Operator) {
        let (next, sealing) = operator.next();
        let seals =
            |node: &super::node::Node| node.running().is_some_and(|engine| engine.status().seal.seals_with == sealing);
        if sealing.is_none() || self.nodes.iter().all(seals) {
            operator.wanted = next;
            operator.untold = (0..self.nodes.len()).collect();
            self.watch
                .tell(self.now, format_args!("reload: secrets {:?}, {}", operator.wanted.0, operator.wanted.1.name()));
        }
    }

    /// Who stands still cannot be told; who is down finds it in its configuration.
    fn reload_node(&mut self, node: usize, secrets: Vec<Secret>, auth: Auth) -> bool {
        if self.nodes[node].is_resting() {
            return false;
        }
        self.watch.tell(self.now, format_args!("reload: node {node}"));
        self.watch.happened(super::coverage::Seen(if auth == Auth::Permissive { "roll-out" } else { "reload" }));
        self.nodes[node].set_secrets(&secrets, auth);
        self.watch.oracle.reloaded(node, &secrets, auth);
        if let Some((local, engine)) = self.nodes[node].speak(self.now) {
            let taken = engine.set_secrets(local, secrets, auth);
            if let Err(error) = taken {
                self.watch.violated(self.now, "reloads", error.to_string());
            }
            self.spoken(node);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_to_a_secret_and_then_from_one_to_the_next() {
        let reloads = Reloads { seed: 3, spacing: Duration::from_millis(1) };
        let mut operator = Operator::new(reloads, secrets(5), &[]);
        let mut steps = Vec::new();
        for _ in 0..8 {
            let (next, waits) = operator.next();
            steps.push((next.0.len(), next.1, waits.is_some()));
            operator.wanted = next;
        }
        let expected = [
            (1, Auth::Permissive, false),
            (1, Auth::Enforce, true),
            (2, Auth::Enforce, false),
            (2, Auth::Enforce, false),
            (1, Auth::Enforce, true),
            (2, Auth::Enforce, false),
            (2, Auth::Enforce, false),
            (1, Auth::Enforce, true),
        ];
        assert_eq!(steps, expected);
        assert_eq!(operator.wanted().0.len(), 1);
    }
}
