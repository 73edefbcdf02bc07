//! Whose frames are believed: the secrets of this group, what this node seals with, and what it takes from whom
//! (docs/protocol.md 3.4).
//!
//! ```text
//!   frame ─▶ sealed? ─ no ─▶ auth = enforce, and a secret ─▶ Unsealed
//!              │ yes
//!              ▼
//!           secret of that number? ─ no ─▶ Sealed
//!              │
//!              ▼
//!           number taken before? ─ yes ─▶ a copy, or Replayed        tested before the cipher, marked after it
//!              │
//!              ▼
//!           sender known? ─ no, and no ADVERT ─▶ Unestablished       no ADVERT: nothing that could be believed
//!              │             ─ no, and too many ─▶ Crowded
//!              ▼
//!           its key opens it? ─ no ─▶ Forged, AuthFailed
//! ```

use super::Engine;
use super::config::Config;
use crate::time::Instant;
use crate::wire::{Frame, FrameError, Header, Key, Kind, NodeId, SECRETS_MAX, Sealer, Secret, TAG_LEN};

/// What sealing is asked of others, where a secret is configured.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Auth {
    /// Nothing is sealed; sealed frames are opened.
    Off,
    /// Unsealed frames are taken; frames are sealed once every peer can open them.
    Permissive,
    /// Every frame is sealed, and no other is taken.
    #[default]
    Enforce,
}

impl Auth {
    /// The word in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Auth::Off => "off",
            Auth::Permissive => "permissive",
            Auth::Enforce => "enforce",
        }
    }
}

/// The secrets of a group, and this node's own keys made of them.
#[derive(Debug)]
pub(super) struct Keyring {
    auth: Auth,
    /// The first seals, where peers have it.
    secrets: Vec<Secret>,
    sealer: Sealer,
}

impl Keyring {
    pub(super) fn new(config: &Config, incarnation: u64) -> Self {
        let sealer = Sealer::new(&config.secrets, config.sync_id, config.node, incarnation);
        Keyring { auth: config.auth, secrets: config.secrets.clone(), sealer }
    }

    /// Number of the secret that frames are sealed with now; `None` while they leave in the clear.
    pub(super) fn seals_with(&self) -> Option<u8> {
        let first = self.secrets.first()?;
        (self.auth == Auth::Enforce).then_some(first.id())
    }

    /// Bytes that sealing adds to a frame.
    pub(super) fn overhead(&self) -> usize {
        if self.seals_with().is_some() { TAG_LEN } else { 0 }
    }

    /// Seals a frame, if frames are sealed: its length then, or `None` if it must not be sent.
    pub(super) fn seal(&mut self, slot: &mut [u8], length: usize) -> Option<usize> {
        match self.seals_with() {
            Some(id) => self.sealer.seal(id, slot, length),
            None => Some(length),
        }
    }

    fn takes_unsealed(&self) -> bool {
        self.secrets.is_empty() || self.auth != Auth::Enforce
    }

    fn secret(&self, id: u8) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.id() == id)
    }
}

/// The keys that open what one incarnation of a node has sealed, by the number of the secret.
#[derive(Default, Debug)]
pub(super) struct Keys([Option<Key>; SECRETS_MAX]);

impl Keys {
    pub(super) fn put(&mut self, key: Key) {
        let id = usize::from(key.id());
        self.0[id] = Some(key);
    }

    fn get_or_derive(&mut self, secret: &Secret, sync_id: u8, node: NodeId, incarnation: u64) -> Option<&Key> {
        let key = self.0.get_mut(usize::from(secret.id()))?;
        Some(key.get_or_insert_with(|| secret.key(sync_id, node, incarnation)))
    }
}

impl Engine {
    /// Whether a frame may be taken that is not sealed.
    pub(super) fn take_in_the_clear(&self) -> Result<(), FrameError> {
        if self.keyring.takes_unsealed() { Ok(()) } else { Err(FrameError::Unsealed) }
    }

    /// Opens a sealed frame; with the key of its sender, if that was not known.
    pub(super) fn open<'a>(
        &mut self,
        now: Instant,
        header: &Header,
        bytes: &'a mut [u8],
    ) -> Result<(Frame<'a>, Option<Key>), FrameError> {
        let _ = now;
        let secret = self.keyring.secret(header.flags.key_id()).ok_or(FrameError::Sealed)?;
        let (sync_id, node, incarnation) = (self.config.sync_id, header.node, header.incarnation);
        let Some(peer) = self.peers.get_mut(node, incarnation) else {
            if header.kind != Kind::ADVERT {
                return Err(FrameError::Unestablished);
            }
            let key = secret.key(sync_id, node, incarnation);
            return Ok((key.open(bytes)?, Some(key)));
        };
        if header.kind != Kind::DATA && peer.was_taken(header.seq) {
            return Err(FrameError::Replayed);
        }
        let key = peer.keys.get_or_derive(secret, sync_id, node, incarnation).ok_or(FrameError::Sealed)?;
        Ok((key.open(bytes)?, None))
    }

    /// This node's own keys, for its new incarnation.
    pub(super) fn renew_keys(&mut self) {
        self.keyring = Keyring::new(&self.config, self.incarnation);
    }
}
