//! What this node seals with: the first of its secrets that its peers can open, so that a group goes to a secret, and from one
//! to the next, without a frame that is refused (docs/protocol.md 3.4.7, 3.4.8).
//!
//! ```text
//!            A (1)  B (1)     A (1 2)  B (1)     A (1 2)  B (1 2)    A (2 1)  B (1 2)    A (2 1)  B (2 1)    A (2)  B (2)
//!   A seals    1                1                  1                   2                   2                  2
//!   B seals           1                  1                  1                   1                  2                 2
//!           └── reload A ──┘  └── reload B ──┘   └── reload A ──┘    └── reload B ──┘    └── both, once all seal with 2
//! ```
//!
//! A seal is out of use when this node may not seal so any more, or when one of its peers does not take it. The history begins
//! behind the last frame of a seal that is out of use: a frame that is sent again is the stored bytes.

use super::keyring::{Seal, place};
use super::peers::Peer;
use super::{Config, ConfigError, Engine, Event, PeerSeal, SealStatus};
use crate::time::Instant;
use crate::wire::{Capabilities, Secret};
use core::cmp::Reverse;

impl Engine {
    /// Other secrets, or another answer to what is not sealed; numbers of frames go on. What is out of use then is not sent
    /// again, and what this node seals with it chooses anew.
    ///
    /// # Errors
    /// The first of [`Config::problems`]; nothing has changed then.
    pub fn set_secrets(&mut self, now: Instant, secrets: Vec<Secret>, auth: super::Auth) -> Result<(), ConfigError> {
        let changed = Config { secrets, auth, ..self.config.clone() };
        if let Some(problem) = changed.problems().into_iter().next() {
            return Err(problem);
        }
        for secret in self.keyring.secrets().iter().filter(|secret| !changed.secrets.contains(secret)) {
            self.peers.iter_mut().for_each(|peer| peer.keys.forget(secret.id()));
        }
        self.config = changed;
        self.keyring.set_secrets(&self.config, self.incarnation);
        self.choose_seals(now);
        self.advert_soon(now);
        Ok(())
    }

    /// Chooses what to seal with, after anything that it depends on has changed: this node's secrets, its peers, or their word.
    pub(super) fn choose_seals(&mut self, now: Instant) {
        let stream = self.best_seal(false);
        self.keyring.adverts = self.best_seal(true);
        if std::mem::replace(&mut self.keyring.stream, stream) != stream {
            self.event(Event::SealChanged { secret: stream });
            self.advert_soon(now);
        }
        self.forget_out_of_use();
    }

    /// Of what this node may seal with, the first that the most peers take, and of those the most candidates, if they count.
    fn best_seal(&self, for_candidates: bool) -> Seal {
        let taken_by = |seal| {
            let takes = self.peers.iter().filter(|peer| self.is_taken(seal, peer));
            takes.fold((0, 0), |(peers, candidates), peer| {
                if peer.established { (peers + 1, candidates) } else { (peers, candidates + u32::from(for_candidates)) }
            })
        };
        // The least of the reversed, because the first of those that are equal is wanted.
        self.keyring.seals().min_by_key(|seal| Reverse(taken_by(*seal))).unwrap_or(None)
    }

    /// Whether a peer takes what is sealed so, as far as can be known: by its own word, and where the secret is the same.
    fn is_taken(&self, seal: Seal, peer: &Peer) -> bool {
        let capabilities = peer.word.capabilities;
        match seal {
            None => !capabilities.contains(Capabilities::ENFORCES),
            Some(id) => {
                let same = peer.keys.is_proven(id) || self.agrees(capabilities) == Some(true);
                capabilities.contains(Capabilities::opens(id)) && same
            }
        }
    }

    /// Whether a peer's secrets are ours of the same numbers; `None` if it has none, or one that this node has not.
    fn agrees(&self, capabilities: Capabilities) -> Option<bool> {
        let secrets = self.keyring.secrets();
        let held = |id| secrets.iter().any(|secret| secret.id() == id);
        if capabilities.secrets().next().is_none() || !capabilities.secrets().all(held) {
            return None;
        }
        let shared = secrets.iter().filter(|secret| capabilities.contains(Capabilities::opens(secret.id())));
        Some(Secret::check_of(shared) == capabilities.secrets_check())
    }

    fn forget_out_of_use(&mut self) {
        let keyring = &self.keyring;
        let seals = (0..super::keyring::SEALS as u8).map(|id| Some(id).filter(|id| place(Some(*id)) < place(None)));
        let out_of_use = seals.filter(|seal| {
            *seal != keyring.stream
                && keyring.newest_under(*seal) > 0
                && (!keyring.seals().any(|usable| usable == *seal)
                    || self.peers.established().any(|peer| !self.is_taken(*seal, peer)))
        });
        if let Some(newest) = out_of_use.map(|seal| keyring.newest_under(seal)).max() {
            self.outbox.forget_up_to(newest);
        }
    }

    pub(super) fn seal_status(&self) -> SealStatus {
        let first = self.keyring.seals().next().unwrap_or(None);
        let waits = |peer: &&Peer| self.keyring.stream != first && !self.is_taken(first, peer);
        SealStatus {
            auth: self.keyring.auth(),
            secrets: self.keyring.secrets().iter().map(Secret::id).collect(),
            seals_with: self.keyring.stream,
            waits_for: self.peers.established().filter(waits).map(|peer| peer.node).collect(),
        }
    }

    pub(super) fn peer_seal(&self, peer: &Peer) -> PeerSeal {
        let capabilities = peer.word.capabilities;
        PeerSeal {
            opens: capabilities.secrets().collect(),
            enforces: capabilities.contains(Capabilities::ENFORCES),
            agrees: self.agrees(capabilities),
            sealed_with: peer.sealed_with,
        }
    }
}
