//! Whose frames are believed: the secrets of this group, this node's own keys made of them, and what it takes from whom
//! (docs/protocol.md 3.4). With what it seals is chosen in `sealing`.
//!
//! ```text
//!   frame ─▶ sealed? ─ no ─▶ auth = enforce, and a secret ─▶ Unsealed
//!              │ yes
//!              ▼
//!           secret of that number? ─ no ─▶ Sealed
//!              │
//!              ▼
//!           sender established, or an ADVERT? ─ no ─▶ Unestablished       nothing else is believed of who is not proven
//!              │
//!              ▼
//!           number taken before? ─ yes ─▶ a copy, a duplicate, Replayed   tested before the cipher, marked after it
//!              │
//!              ▼
//!           sender known? ─ no, and no place ─▶ Crowded
//!              │      └───── no, and too many ─▶ Untried                  a key for it alone must be derived
//!              │
//!              ▼
//!           its key opens it? ─ no ─▶ Forged
//! ```
//!
//! Unsealed, Sealed and Forged are reported as AuthFailed, at most every 10 s.

use super::Engine;
use super::breakage::Breakage;
use super::config::Config;
use super::event::Event;
use super::inbox::Number;
use super::strangers::Strangers;
use crate::time::{Duration, Instant};
use crate::wire::{
    Capabilities, Frame, FrameError, FrameMeta, Header, Key, Kind, NodeId, SECRETS_MAX, Sealer, Secret, TAG_LEN,
};
use std::net::IpAddr;

/// Least time between two reports of frames that did not pass.
const FAILURE_REPORT_SPACING: Duration = Duration::from_secs(10);

/// What a frame is sealed with: the number of a secret; `None` leaves it in the clear.
pub(super) type Seal = Option<u8>;

/// Places that one seal each needs where something is kept for all of them: the secrets, and the clear behind them.
pub(super) const SEALS: usize = SECRETS_MAX + 1;

/// The place of a seal.
pub(super) fn place(seal: Seal) -> usize {
    seal.map_or(SECRETS_MAX, usize::from).min(SECRETS_MAX)
}

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

/// The secrets of a group, this node's own keys made of them, and what it seals with.
#[derive(Debug)]
pub(super) struct Keyring {
    auth: Auth,
    secrets: Vec<Secret>,
    sealer: Sealer,
    /// What the stream, and all that answers it, is sealed with.
    pub(super) stream: Seal,
    /// What ADVERTs are sealed with: they are for candidates, too.
    pub(super) adverts: Seal,
    /// The number of the newest DATA frame that has left under each seal.
    left: [u64; SEALS],
    pub(super) strangers: Strangers,
    pub(super) failures: Failures,
}

impl Keyring {
    pub(super) fn new(config: &Config, incarnation: u64) -> Self {
        let mut keyring = Keyring {
            auth: config.auth,
            secrets: config.secrets.clone(),
            sealer: Sealer::new(&config.secrets, config.sync_id, config.node, incarnation),
            stream: None,
            adverts: None,
            left: [0; SEALS],
            strangers: Strangers::new(config.seed),
            failures: Failures::default(),
        };
        let first = keyring.seals().next().unwrap_or(None);
        (keyring.stream, keyring.adverts) = (first, first);
        keyring
    }

    /// Keys for a new incarnation of this node, which begins its numbers anew.
    pub(super) fn begin_incarnation(&mut self, config: &Config, incarnation: u64) {
        self.sealer = Sealer::new(&config.secrets, config.sync_id, config.node, incarnation);
        self.left = [0; SEALS];
    }

    /// What the owner has configured anew; numbers go on.
    pub(super) fn set_secrets(&mut self, config: &Config, incarnation: u64) {
        self.sealer.set_secrets(&config.secrets, config.sync_id, config.node, incarnation);
        (self.auth, self.secrets) = (config.auth, config.secrets.clone());
    }

    pub(super) fn auth(&self) -> Auth {
        self.auth
    }

    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// What this node may seal with, best first [3.4.7].
    pub(super) fn seals(&self) -> impl DoubleEndedIterator<Item = Seal> {
        let auth = if self.secrets.is_empty() { Auth::Off } else { self.auth };
        let secrets = self.secrets.iter().filter(move |_| auth != Auth::Off).map(|secret| Some(secret.id()));
        secrets.chain((auth != Auth::Enforce).then_some(None))
    }

    /// What its ADVERTs say that this node can take.
    pub(super) fn capabilities(&self, others: Capabilities) -> Capabilities {
        let capabilities = others.with_secrets(&self.secrets);
        if self.takes_unsealed() { capabilities } else { capabilities.with(Capabilities::ENFORCES) }
    }

    /// Bytes that sealing may add to a frame.
    pub(super) fn overhead(&self) -> usize {
        if self.secrets.is_empty() || self.auth == Auth::Off { 0 } else { TAG_LEN }
    }

    /// Seals a frame of any kind but ADVERT, if frames are sealed: its length then, or `None` if it must not be sent.
    pub(super) fn seal(&mut self, slot: &mut [u8], length: usize) -> Option<usize> {
        self.seal_with(self.stream, slot, length)
    }

    /// The same of an ADVERT.
    pub(super) fn seal_advert(&mut self, slot: &mut [u8], length: usize) -> Option<usize> {
        self.seal_with(self.adverts, slot, length)
    }

    fn seal_with(&mut self, seal: Seal, slot: &mut [u8], length: usize) -> Option<usize> {
        match seal {
            Some(id) => self.sealer.seal(id, slot, length),
            None => Some(length),
        }
    }

    /// For a breakage only: every number may be sealed once more.
    #[cfg(any(test, feature = "breakages"))]
    pub(super) fn forget_numbers(&mut self) {
        self.sealer.forget_numbers();
    }

    /// A DATA frame of this number has left.
    pub(super) fn data_left(&mut self, seq: u64) {
        self.left[place(self.stream)] = seq;
    }

    /// The newest DATA frame that has left under this seal; 0 if none has.
    pub(super) fn newest_under(&self, seal: Seal) -> u64 {
        self.left[place(seal)]
    }

    pub(super) fn takes_unsealed(&self) -> bool {
        self.secrets.is_empty() || self.auth != Auth::Enforce
    }
}

/// The keys that open what one incarnation of a node has sealed, by the number of the secret.
#[derive(Default, Debug)]
pub(super) struct Keys {
    keys: [Option<Key>; SECRETS_MAX],
    /// The secrets whose key has opened a frame.
    proven: [bool; SECRETS_MAX],
}

impl Keys {
    /// Takes the key that has opened a frame.
    pub(super) fn put(&mut self, key: Key) {
        let id = usize::from(key.id());
        self.keys[id] = Some(key);
    }

    /// A frame that was sealed with the secret of this number was opened.
    pub(super) fn prove(&mut self, id: u8) {
        self.proven[usize::from(id) % SECRETS_MAX] = true;
    }

    /// Whether both have the same secret of this number, beyond doubt.
    pub(super) fn is_proven(&self, id: u8) -> bool {
        self.proven[usize::from(id) % SECRETS_MAX]
    }

    /// Forgets what the secret of this number has made.
    pub(super) fn forget(&mut self, id: u8) {
        let at = usize::from(id) % SECRETS_MAX;
        (self.keys[at], self.proven[at]) = (None, false);
    }

    fn get_or_derive(&mut self, secret: &Secret, sync_id: u8, node: NodeId, incarnation: u64) -> Option<&Key> {
        let key = self.keys.get_mut(usize::from(secret.id()))?;
        Some(key.get_or_insert_with(|| secret.key(sync_id, node, incarnation)))
    }
}

/// Frames that were refused for want of a seal that fits, until they are reported.
#[derive(Default, Debug)]
pub(super) struct Failures {
    /// The last of them: who it says that it is from, where it came from, what was wrong.
    last: Option<(NodeId, IpAddr, FrameError)>,
    count: u64,
    reported_at: Option<Instant>,
}

impl Failures {
    /// When those that wait are to be reported; `None` if there are none.
    pub(super) fn report_at(&self) -> Option<Instant> {
        let earliest = self.reported_at.map_or(Instant::ZERO, |at| at + FAILURE_REPORT_SPACING);
        self.last.map(|_| earliest)
    }

    fn take(&mut self, now: Instant) -> Option<Event> {
        let _ = self.report_at().filter(|at| *at <= now)?;
        let (node, source, reason) = self.last.take()?;
        self.reported_at = Some(now);
        Some(Event::AuthFailed { node, source, reason, count: std::mem::take(&mut self.count) })
    }
}

impl Engine {
    /// Whether a frame may be taken that is not sealed.
    pub(super) fn take_in_the_clear(&self) -> Result<(), FrameError> {
        let broken = self.breaks(Breakage::UnsealedUnderEnforce) || self.breaks(Breakage::TagNotTested);
        if self.keyring.takes_unsealed() || broken { Ok(()) } else { Err(FrameError::Unsealed) }
    }

    /// Opens a sealed frame; with the key of its sender, if that was not known. `None`: it was held already, and is counted.
    pub(super) fn open<'a>(
        &mut self,
        now: Instant,
        source: IpAddr,
        header: &Header,
        bytes: &'a mut [u8],
    ) -> Result<Option<(Frame<'a>, Option<Key>)>, FrameError> {
        let Keyring { secrets, strangers, .. } = &mut self.keyring;
        let secret = secrets.iter().find(|secret| secret.id() == header.flags.key_id()).ok_or(FrameError::Sealed)?;
        let (sync_id, node, incarnation) = (self.config.sync_id, header.node, header.incarnation);
        let (is_advert, is_data) = (header.kind == Kind::ADVERT, header.kind == Kind::DATA);
        let Some(peer) = self.peers.get_mut(node, incarnation).filter(|peer| peer.established || is_advert) else {
            if !is_advert {
                return Err(FrameError::Unestablished);
            }
            if (node, incarnation) == (self.config.node, self.incarnation) {
                return Err(FrameError::OwnNode);
            }
            self.peers.may_come(now, header)?;
            if !strangers.may_try(now, source) {
                return Err(FrameError::Untried);
            }
            let key = secret.key(sync_id, node, incarnation);
            return Ok(Some((key.open(bytes)?, Some(key))));
        };
        if !is_data {
            if peer.was_taken(header.seq) && !self.config.broken().is(Breakage::ReplayWindowNotTested) {
                return Err(FrameError::Replayed);
            }
        } else if self.inbox.follows(header) && self.inbox.number(header.seq) == Number::Duplicate {
            // It may be a recording: it says nothing of its sender's life, and asks for no acknowledgement.
            self.counters.data_duplicate += 1;
            return Ok(None);
        }
        let marked = self.config.broken().is(Breakage::MarkedBeforeCipher) && !is_data;
        let key = peer.keys.get_or_derive(secret, sync_id, node, incarnation).ok_or(FrameError::Sealed)?;
        match key.open(bytes) {
            Ok(frame) => Ok(Some((frame, None))),
            Err(reason) => {
                if marked {
                    peer.mark(header.seq);
                }
                Err(reason)
            }
        }
    }

    /// A frame was refused: if for its seal, somebody has to hear of it.
    pub(super) fn note_failure(&mut self, now: Instant, reason: FrameError, meta: &FrameMeta, frame: &[u8]) {
        if matches!(reason, FrameError::Unsealed | FrameError::Sealed | FrameError::Forged) {
            let node = Frame::claim(frame).map_or(NodeId(0), |claim| claim.node);
            self.keyring.failures.last = Some((node, meta.source, reason));
            self.keyring.failures.count += 1;
            self.report_refused(now);
        }
    }

    pub(super) fn report_refused(&mut self, now: Instant) {
        if let Some(event) = self.keyring.failures.take(now) {
            self.event(event);
        }
    }
}
