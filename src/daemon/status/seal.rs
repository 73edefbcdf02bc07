//! How frames are sealed, as a program and a person read it: what this node does, what its peers can open and do, and whether
//! the next step of a roll-out or a rotation may be taken (docs/operations.md).

use crate::engine::{Auth, EngineStatus, PeerStatus, SealStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a group does with its secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SealRow {
    /// `auth` of the configuration: off, permissive or enforce.
    pub auth: String,
    /// Numbers of the secrets that this node holds, in the order of the file: the first is the one to seal with.
    pub secrets: Vec<u8>,
    /// Number of the secret that frames are sealed with now; null: they leave in the clear.
    pub seals_with: Option<u8>,
    /// Nodes for whose sake that is not the first secret: they do not take it yet.
    pub waits_for: Vec<u32>,
    /// There are peers, and each of them can open all that these secrets seal and seals with the first, as this node does: the
    /// next step may be taken. (With `auth = "off"` nobody has to seal.)
    pub ready: bool,
}

/// What a peer does with its secrets.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeerSealRow {
    /// Numbers of the secrets that it can open, by its own word.
    pub opens: Vec<u8>,
    /// It takes no frame that is not sealed, by its own word.
    pub enforces: bool,
    /// Whether these are this node's secrets of the same numbers; null while that cannot be told.
    pub agrees: Option<bool>,
    /// Number of the secret that its newest frame was sealed with; null: it came in the clear.
    pub sealed_with: Option<u8>,
    /// Whether it is ready for the next step, as in `seal.ready`; null where this node has no secret.
    pub ready: Option<bool>,
}

impl SealRow {
    /// `None` where there is no secret.
    pub(super) fn new(engine: &EngineStatus) -> Option<Self> {
        let seal = &engine.seal;
        let first = *seal.secrets.first()?;
        let mut proven = engine.peers.iter().filter(|peer| peer.established).peekable();
        let own = seal.auth == Auth::Off || seal.seals_with == Some(first);
        Some(SealRow {
            auth: seal.auth.name().to_owned(),
            secrets: seal.secrets.clone(),
            seals_with: seal.seals_with,
            waits_for: seal.waits_for.iter().map(|node| node.0).collect(),
            ready: own && proven.peek().is_some() && proven.all(|peer| is_ready(seal, peer) == Some(true)),
        })
    }

    /// In a line, for a person; with how many peers there are.
    pub fn words(&self, peers: usize) -> String {
        let list = |numbers: &[u8]| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let leave = match self.seals_with {
            Some(secret) => format!("frames leave sealed with secret {secret}"),
            None => "frames leave in the clear".to_owned(),
        };
        let waits = match self.waits_for.as_slice() {
            [] => String::new(),
            nodes => {
                let nodes: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
                format!(" for the sake of {}", nodes.join(", "))
            }
        };
        let ready = match (peers, self.ready) {
            (0, _) => "no peer is proven",
            (_, true) => "every peer is ready",
            (_, false) => "not every peer is ready",
        };
        format!("{}, {leave}{waits}, opens {}; {ready}", self.auth, list(&self.secrets))
    }
}

impl PeerSealRow {
    pub(super) fn new(own: &SealStatus, peer: &PeerStatus) -> Self {
        let seal = &peer.seal;
        let (opens, enforces, agrees, sealed_with) = (seal.opens.clone(), seal.enforces, seal.agrees, seal.sealed_with);
        PeerSealRow { opens, enforces, agrees, sealed_with, ready: is_ready(own, peer) }
    }

    /// In a few words, for a person; empty if neither it nor this node has a secret.
    pub fn words(&self) -> String {
        if self.ready.is_none() && self.opens.is_empty() {
            return String::new();
        }
        let opens: Vec<String> = self.opens.iter().map(u8::to_string).collect();
        let opens = if opens.is_empty() { "no secret".to_owned() } else { format!("opens {}", opens.join(", ")) };
        let sealed = match self.sealed_with {
            Some(secret) => format!("seals with {secret}"),
            None => "in the clear".to_owned(),
        };
        let other = if self.agrees == Some(false) { " (another secret of that number)" } else { "" };
        let ready = if self.ready == Some(false) { ", not ready" } else { "" };
        format!("{sealed}, {opens}{other}{ready}")
    }
}

/// Whether a peer takes all that this node may seal with, and seals with the first of it; `None` where there is no secret.
fn is_ready(own: &SealStatus, peer: &PeerStatus) -> Option<bool> {
    let first = own.secrets.first()?;
    let opens = own.secrets.iter().all(|secret| peer.seal.opens.contains(secret)) && peer.seal.agrees != Some(false);
    Some(opens && (own.auth == Auth::Off || peer.seal.sealed_with == Some(*first)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::engine::PeerSeal;
    use crate::wire::NodeId;

    fn status(auth: Auth, secrets: &[u8], seals_with: Option<u8>, peer: PeerSeal) -> EngineStatus {
        let mut status = engine();
        let waits_for = if seals_with == secrets.first().copied() { vec![] } else { vec![NodeId(2)] };
        status.seal = SealStatus { auth, secrets: secrets.to_vec(), seals_with, waits_for };
        status.peers[0].seal = peer;
        status
    }

    fn peer(opens: &[u8], sealed_with: Option<u8>) -> PeerSeal {
        PeerSeal { opens: opens.to_vec(), enforces: false, agrees: (!opens.is_empty()).then_some(true), sealed_with }
    }

    fn ready(status: &EngineStatus) -> bool {
        SealRow::new(status).unwrap().ready
    }

    #[test]
    fn a_roll_out_is_ready_when_every_peer_opens_and_seals() {
        let permissive = |seals, theirs| status(Auth::Permissive, &[0], seals, theirs);
        assert!(!ready(&permissive(None, peer(&[], None))));
        assert!(!ready(&permissive(Some(0), peer(&[0], None))), "it would be cut off");
        assert!(!ready(&permissive(None, peer(&[0], Some(0)))), "and so would this node");
        assert!(ready(&permissive(Some(0), peer(&[0], Some(0)))));
        let other = PeerSeal { agrees: Some(false), ..peer(&[0], Some(0)) };
        assert!(!ready(&permissive(Some(0), other)));
        assert!(ready(&status(Auth::Off, &[0], None, peer(&[0], None))));
    }

    #[test]
    fn each_step_of_a_rotation_waits_for_every_peer() {
        let enforce = |secrets: &[u8], seals, theirs| status(Auth::Enforce, secrets, Some(seals), theirs);
        assert!(!ready(&enforce(&[0, 1], 0, peer(&[0], Some(0)))), "it does not have the new one");
        assert!(ready(&enforce(&[0, 1], 0, peer(&[0, 1], Some(0)))));
        assert!(!ready(&enforce(&[1, 0], 1, peer(&[0, 1], Some(0)))), "it still seals with the old one");
        assert!(ready(&enforce(&[1, 0], 1, peer(&[0, 1], Some(1)))));
        assert!(ready(&enforce(&[1], 1, PeerSeal { agrees: None, ..peer(&[0, 1], Some(1)) })));
    }

    #[test]
    fn who_is_alone_or_has_only_candidates_is_not_ready() {
        let mut status = status(Auth::Enforce, &[0], Some(0), peer(&[0], Some(0)));
        status.peers[0].established = false;
        assert!(!ready(&status));
        status.peers.clear();
        assert!(!ready(&status));
    }

    #[test]
    fn a_node_without_a_secret_has_no_row_and_says_of_its_peer_what_that_says() {
        let status = status(Auth::Enforce, &[], None, peer(&[0], None));
        assert_eq!(SealRow::new(&status), None);
        let row = PeerSealRow::new(&status.seal, &status.peers[0]);
        assert_eq!((row.ready, row.words().as_str()), (None, "in the clear, opens 0"));
        assert_eq!(PeerSealRow::default().words(), "");
    }

    #[test]
    fn the_words_for_a_person() {
        let status = status(Auth::Permissive, &[1, 0], Some(0), peer(&[0], Some(0)));
        assert_eq!(
            SealRow::new(&status).unwrap().words(1),
            "permissive, frames leave sealed with secret 0 for the sake of node 2, opens 1, 0; not every peer is ready"
        );
        assert_eq!(PeerSealRow::new(&status.seal, &status.peers[0]).words(), "seals with 0, opens 0, not ready");
        let all = self::status(Auth::Enforce, &[0], Some(0), peer(&[0], Some(0)));
        let words = |peers| SealRow::new(&all).unwrap().words(peers);
        assert_eq!(words(1), "enforce, frames leave sealed with secret 0, opens 0; every peer is ready");
        assert_eq!(words(0), "enforce, frames leave sealed with secret 0, opens 0; no peer is proven");
        let other = PeerSealRow { agrees: Some(false), ..PeerSealRow::new(&all.seal, &all.peers[0]) };
        assert_eq!(other.words(), "seals with 0, opens 0 (another secret of that number)");
    }
}
