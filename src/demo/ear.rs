//! The ear on the sync link: who says, in public, that he is master.
//!
//! A node that was stopped, or cut off, and comes back late must not speak as master once more. The ear stands at the switch,
//! hears what everybody says, and notes each ADVERT whose role is master. It walks the bytes itself (docs/protocol.md 3.2.1 and
//! 3.5.1) and believes no code of ours, but for the seal:
//!
//! ```text
//!   bytes  0          14                34                                            74
//!          ├ Ethernet ┼ IPv4, 20 .. 60 ─┼ frame: 5 kind = 1 │ 12 node, 4 │ ... ──────── ┼ ADVERT: 0 role = 3
//!                       9 protocol = 114          7 sealed: opened first
//! ```

use super::watch::{Frames, Watch};
use crate::sys::namespace::Namespace;
use crate::wire::{self, Secret};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// ETH_P_IP (linux/if_ether.h).
const ETHERTYPE_IP: u16 = 0x0800;
/// Bytes of Ethernet, the longest IPv4 header, and the longest ADVERT, as only a whole one can be opened: header, 96 bytes, a
/// name of 32, 32 peers of 32, the tag.
const HEARD_LENGTH: usize = 14 + 60 + 40 + 96 + 32 + 32 * 32 + 16;
/// ADVERTs that are remembered, the oldest goes first: a minute of two masters at 1 ms.
const ADVERTS_MAX: usize = 1 << 17;

/// An ADVERT in which a node says that it is master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// When it was heard, by CLOCK_REALTIME since the epoch.
    at: Duration,
    /// Who said it.
    node: u32,
}

/// What of a node was heard too late.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Late {
    /// ADVERTs as master that it sent after its successor's first one.
    pub adverts: u32,
    /// Time from the first of these to the last.
    pub lasting: Duration,
}

/// Listens in a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Ear(Watch<Claims>);

impl Ear {
    /// Begins to listen at `interface` inside `namespace`, with what opens sealed frames.
    ///
    /// # Errors
    /// The operating system's error (no such interface; no CAP_NET_RAW).
    pub fn open(namespace: &Namespace, interface: &str, secrets: Vec<Secret>) -> io::Result<Ear> {
        Watch::start::<HEARD_LENGTH>(namespace, interface, ETHERTYPE_IP, Claims { secrets, ..Claims::default() })
            .map(Ear)
    }

    /// What `node` has said from `from` on (both by CLOCK_REALTIME): as master, after another one had said that since
    /// `since`.
    pub fn late_claims_of(&self, node: u32, since: Duration, from: Duration) -> Late {
        late(&self.0.lock().claims, node, since, from)
    }
}

/// What has been heard.
#[derive(Debug, Default)]
struct Claims {
    secrets: Vec<Secret>,
    claims: VecDeque<Claim>,
}

impl Frames for Claims {
    fn take(&mut self, frame: &[u8], at: Duration) -> bool {
        let Some(node) = claimant(frame, &self.secrets) else { return false };
        if self.claims.len() == ADVERTS_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back(Claim { at, node });
        true
    }
}

fn late(claims: &VecDeque<Claim>, node: u32, since: Duration, from: Duration) -> Late {
    let successor = claims.iter().find(|claim| claim.at >= since && claim.node != node);
    let Some(successor) = successor else { return Late::default() };
    let is_late = |claim: &&Claim| claim.node == node && claim.at > successor.at && claim.at >= from;
    let mut too_late = claims.iter().filter(is_late).map(|claim| claim.at);
    let Some(first) = too_late.next() else { return Late::default() };
    let (mut adverts, mut last) = (1, first);
    for at in too_late {
        (adverts, last) = (adverts + 1, at);
    }
    Late { adverts, lasting: last.saturating_sub(first) }
}

/// The node that claims to be master in this Ethernet frame, if one does.
fn claimant(frame: &[u8], secrets: &[Secret]) -> Option<u32> {
    let packet = frame.get(14..)?;
    let [first, ..] = *packet else { return None };
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != 114 {
        return None;
    }
    let ssyncp = packet.get(header..)?;
    let (version, kind, sealed) = (*ssyncp.get(4)?, *ssyncp.get(5)?, *ssyncp.get(7)? & 1 == 1);
    let mut opened = [0; HEARD_LENGTH];
    let role = if sealed && kind == 1 {
        let opened = opened.get_mut(..ssyncp.len())?;
        opened.copy_from_slice(ssyncp);
        wire::unseal(secrets, opened).ok()?;
        *opened.get(40)?
    } else {
        *ssyncp.get(40)?
    };
    let node = u32::from_be_bytes(*ssyncp.get(12..)?.first_chunk()?);
    ((version, kind, role) == (1, 1, 3)).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Advert, Header, NodeId, Sealer, WireRole};

    /// An ADVERT of node 7 as master, as far as it is looked at.
    fn advert() -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 41];
        (frame[12], frame[13]) = (0x08, 0x00);
        (frame[14], frame[14 + 9]) = (0x45, 114);
        (frame[34 + 4], frame[34 + 5], frame[34 + 15], frame[34 + 40]) = (1, 1, 7, 3);
        frame
    }

    #[test]
    fn only_an_advert_of_a_master_is_a_claim() {
        assert_eq!(claimant(&advert(), &[]), Some(7));
        // Another IP version, another protocol, the draft's version, another kind, a backup.
        for (position, value) in [(14, 0x65), (14, 0x44), (23, 17), (38, 0), (39, 2), (74, 1)] {
            let mut frame = advert();
            frame[position] = value;
            assert_eq!(claimant(&frame, &[]), None, "byte {position}");
        }
        for length in 0..75 {
            assert_eq!(claimant(&advert()[..length], &[]), None);
        }
    }

    #[test]
    fn a_sealed_claim_is_opened_and_one_that_does_not_open_is_none() {
        let secret = |byte: u8| Secret::new(2, &[byte; 32]).unwrap();
        let header = Header { sync_id: 51, node: NodeId(7), incarnation: 9, seq: 1, term: 1, ..Header::default() };
        let claim = Advert { role: WireRole::MASTER, priority: 1, interval_ms: 10, ..Advert::default() };
        let mut slot = [0; 1480];
        let length = wire::encode_advert(&mut slot, header, &claim).unwrap();
        let length = Sealer::new(&[secret(5)], 51, NodeId(7), 9).seal(2, &mut slot, length).unwrap();
        let frame = [&advert()[..34], &slot[..length]].concat();
        assert_eq!(claimant(&frame, &[secret(5)]), Some(7));
        assert_eq!(claimant(&frame, &[secret(6)]), None);
        assert_eq!(claimant(&frame, &[]), None);
    }

    #[test]
    fn a_longer_ip_header_is_stepped_over() {
        let mut frame = advert();
        frame[14] = 0x46;
        frame.splice(34..34, [1, 1, 1, 0]);
        assert_eq!(claimant(&frame, &[]), Some(7));
    }

    #[test]
    fn late_is_what_comes_after_the_successors_first_word() {
        let ms = Duration::from_millis;
        let claims = |list: &[(u64, u32)]| list.iter().map(|(at, node)| Claim { at: ms(*at), node: *node }).collect();
        let story: VecDeque<Claim> = claims(&[(1, 1), (2, 1), (40, 2), (50, 2), (60, 1), (61, 2), (75, 1), (80, 2)]);
        assert_eq!(late(&story, 1, ms(0), ms(0)), Late { adverts: 2, lasting: ms(15) });
        assert_eq!(late(&story, 1, ms(0), ms(61)), Late { adverts: 1, lasting: ms(0) });
        // What was before is another story: here node 1 spoke first.
        assert_eq!(late(&story, 2, ms(55), ms(55)), Late { adverts: 2, lasting: ms(19) });
        assert_eq!(late(&story, 1, ms(0), ms(76)), Late::default());
        assert_eq!(late(&claims(&[(1, 1), (2, 1)]), 1, ms(0), ms(0)), Late::default());
    }
}
