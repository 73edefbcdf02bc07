//! The attacks, each with its name, what it is, and how one of its frames is made.

use super::chaos::traffic::{Means, flow};
use super::forger::{A, Archive, B, Forger, NOBODY, forged_flow, set_checksum, set_size};
use super::report::{Expected, KILL};
use ssyncp::wire::{Frame, HEADER_LEN, Kind, NodeId, classic};
use std::net::Ipv4Addr;

/// One kind of hostile frames.
pub struct Kinds {
    /// Its name in tables.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub what: &'static str,
    /// How it is sent.
    pub pace: Pace,
    /// Writes the next frame into the slot, and says how long it is: 0 if none can be made.
    pub make: fn(&mut Forger, &mut [u8]) -> usize,
}

/// How frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A number of them, at a rate that loses none on the way.
    Counted,
    /// As many as the machine can send, for a time.
    Flood,
    /// The same, and the backup is killed and started again meanwhile.
    FloodAndRestart,
    /// The master is killed, and frames are sent until the backup has taken over.
    KillMaster,
}

impl Pace {
    /// What must come of it.
    pub fn expected(self) -> Expected {
        match self {
            Pace::Counted | Pace::Flood => Expected::Refused,
            Pace::FloodAndRestart => Expected::Restarted,
            Pace::KillMaster => Expected::TakenOver,
        }
    }
}

/// Sync id of the group that is attacked.
pub const SYNC_ID: u8 = 51;

/// All of them, in the order in which they are done. Those that break an unsealed pair for good come last.
pub const KINDS: [Kinds; 27] = [
    kind("noise", "random bytes of any length", |forger, slot| {
        let length = (forger.random() % slot.len() as u64) as usize;
        forger.noise(&mut slot[..length]);
        length
    }),
    kind("version-2", "frames of another version", |forger, slot| {
        let length = forger.overheard(slot);
        edited(slot, length, |frame| frame[4] = 2)
    }),
    kind("classic", "messages of the draft of 2002", |forger, slot| {
        let Some(writer) = classic::Writer::new(slot, SYNC_ID) else { return 0 };
        let _ = forger;
        writer.finish()
    }),
    kind("truncate", "overheard frames cut short, half of them with size and checksum made to fit", |forger, slot| {
        let length = forger.overheard(slot);
        let cut = (forger.random() % length.max(1) as u64) as usize;
        if forger.number.is_multiple_of(2) { cut } else { edited(slot, cut, set_size) }
    }),
    kind(
        "extend",
        "overheard frames with bytes behind them, half with size and checksum made to fit",
        |forger, slot| {
            let length = forger.overheard(slot);
            let longer = (length + 1 + (forger.random() % 64) as usize).min(slot.len());
            forger.noise(&mut slot[length..longer]);
            if forger.number.is_multiple_of(2) { longer } else { edited(slot, longer, set_size) }
        },
    ),
    kind("bit-flip", "one bit of an overheard frame changed, the checksum made to fit", |forger, slot| {
        let length = forger.overheard(slot);
        let bit = (forger.random() % (length.max(1) as u64 * 8)) as usize;
        edited(slot, length, |frame| frame[bit / 8] ^= 1 << (bit % 8))
    }),
    kind("replay-at-once", "the newest frames sent again", |forger, slot| {
        let Some(frame) = forger.tap.recent().back() else { return 0 };
        slot[..frame.len()].copy_from_slice(frame);
        frame.len()
    }),
    kind("reorder", "overheard frames again in the reverse order", |forger, slot| {
        let recent = forger.tap.recent();
        let count = recent.len().max(1);
        let Some(frame) = recent.get(count - 1 - forger.number as usize % count) else { return 0 };
        slot[..frame.len()].copy_from_slice(frame);
        frame.len()
    }),
    kind("spoof-source", "overheard and forged frames from other source addresses", |forger, slot| {
        let length = if forger.number.is_multiple_of(2) { forger.overheard(slot) } else { data_of(forger, slot, A, 1) };
        forger.dress(slot, length)
    }),
    kind("own-node", "frames that carry the receiver's own number", |forger, slot| {
        let node = if forger.number.is_multiple_of(2) { A } else { B };
        let length = forger.advert(slot, node, 100, 1);
        let incarnation = forger.random().max(1).to_be_bytes();
        let length = edited(slot, length, |frame| frame[16..24].copy_from_slice(&incarnation));
        forger.dress(slot, length)
    }),
    kind("stranger", "ADVERTs and DATA of a node that nobody knows", |forger, slot| {
        let length = match forger.number / 3 % 2 {
            0 => forger.advert(slot, NOBODY, 255, forger.number),
            _ => data_of(forger, slot, NOBODY, 1),
        };
        forger.dress(slot, length)
    }),
    kind("resync", "requests for everything (PULL, DIGESTS, merge, STATUS) in the backup's name", |forger, slot| {
        let ahead = forger.number;
        let length = forger.request(slot, ahead);
        forger.dress(slot, length)
    }),
    kind("forge-random", "DATA in the master's name: the flag of a seal over random bytes", |forger, slot| {
        let length = data_of(forger, slot, A, 0);
        forger.pretend_sealed(slot, length)
    }),
    kind("forge-wrong", "DATA in the master's name, sealed with another secret", |forger, slot| {
        let length = data_of(forger, slot, A, 0);
        forger.seal_wrongly(slot, length)
    }),
    flood("flood-valid", "DATA in the master's name as fast as it goes", |forger, slot| {
        let length = data_of(forger, slot, A, forger.number % 512);
        if forger.sealed { forger.pretend_sealed(slot, length) } else { length }
    }),
    flood("flood-strangers", "ADVERTs of incarnations that nobody knows, as fast as it goes", |forger, slot| {
        let node = NodeId(NOBODY.0 + (forger.number % 64) as u32);
        let length = forger.advert(slot, node, 255, 1);
        let incarnation = forger.random().max(1).to_be_bytes();
        let length = edited(slot, length, |frame| frame[16..24].copy_from_slice(&incarnation));
        if forger.sealed { forger.pretend_sealed(slot, length) } else { length }
    }),
    flood("flood-noise", "random bytes as fast as it goes", |forger, slot| {
        let length = (forger.random() % 200) as usize;
        forger.noise(&mut slot[..length]);
        length
    }),
    kind("replay-early", "frames of the running nodes from the beginning of all this", |forger, slot| {
        Forger::copy(&forger.archive.early, forger.number, slot)
    }),
    Kinds {
        pace: Pace::FloodAndRestart,
        ..flood(
            "flood-restart",
            "DATA in the master's name, while the backup is killed and comes back",
            |forger, slot| {
                let length = data_of(forger, slot, A, forger.number % 512);
                if forger.sealed { forger.pretend_sealed(slot, length) } else { length }
            },
        )
    },
    kind("replay-restart", "frames from before both nodes were started anew", |forger, slot| {
        Forger::copy(&forger.archive.before_restart, forger.number, slot)
    }),
    kind("old-adverts", "ADVERTs of the master's former incarnation", old_advert),
    kind("replay-group", "frames of another group with the same secret, its sync id made to fit", |forger, slot| {
        let length = Forger::copy(&forger.archive.other_group, forger.number, slot);
        edited(slot, length, |frame| frame[1] = SYNC_ID)
    }),
    kind("forge-clear", "DATA in the master's name, in the clear", |forger, slot| data_of(forger, slot, A, 0)),
    kind("priority-255", "ADVERTs of a master with priority 255 and a higher term, in either name", |forger, slot| {
        let node = if forger.number / 3 % 2 == 0 { A } else { B };
        let length = forger.advert(slot, node, 255, 1);
        forger.dress(slot, length)
    }),
    kind("goodbye", "ADVERTs with priority 0 in the master's name", |forger, slot| {
        let length = forger.advert(slot, A, 0, 1);
        forger.dress(slot, length)
    }),
    Kinds { pace: Pace::KillMaster, ..kind(KILL, "nothing, while the master is killed: for comparison", |_, _| 0) },
    Kinds {
        pace: Pace::KillMaster,
        ..kind("kill-replay", "ADVERTs of the master's former incarnation, while the master is killed", old_advert)
    },
];

const fn kind(name: &'static str, what: &'static str, make: fn(&mut Forger, &mut [u8]) -> usize) -> Kinds {
    Kinds { name, what, pace: Pace::Counted, make }
}

const fn flood(name: &'static str, what: &'static str, make: fn(&mut Forger, &mut [u8]) -> usize) -> Kinds {
    Kinds { name, what, pace: Pace::Flood, make }
}

impl Kinds {
    /// Where its frames pretend to come from. A machine's kernel drops what bears an address of its own, so most come from
    /// addresses of nobody: then each reaches both nodes.
    pub fn source(&self, number: u64) -> Ipv4Addr {
        if self.name != "spoof-source" {
            return Ipv4Addr::new(10, 255, 0, 9 + (number % 64) as u8);
        }
        let odd = [
            Ipv4Addr::new(10, 255, 0, 1),
            Ipv4Addr::new(10, 255, 0, 2),
            Ipv4Addr::new(127, 0, 0, 1),
            Ipv4Addr::new(224, 0, 0, 81),
            Ipv4Addr::BROADCAST,
            Ipv4Addr::from(number as u32),
        ];
        odd[number as usize % odd.len()]
    }
}

/// What the master said of itself before it was started anew.
fn old_advert(forger: &mut Forger, slot: &mut [u8]) -> usize {
    let Archive { before_restart, .. } = &forger.archive;
    let of_a = |frame: &&Vec<u8>| {
        Frame::parse(frame).is_ok_and(|it| it.header().node == A && it.header().kind == Kind::ADVERT)
    };
    let count = before_restart.iter().filter(of_a).count().max(1);
    let Some(frame) = before_restart.iter().filter(of_a).nth(forger.number as usize % count) else { return 0 };
    slot[..frame.len()].copy_from_slice(frame);
    frame.len()
}

/// Forged DATA, which would also end a flow that exists.
fn data_of(forger: &mut Forger, slot: &mut [u8], node: NodeId, ahead: u64) -> usize {
    let victim = match forger.number % 2 {
        0 => flow((forger.number % 1000) as u32, Means::Netlink).key,
        _ => forged_flow(forger.number as u32 & 0xff).key,
    };
    forger.data(slot, node, ahead, &victim)
}

/// Changes a frame, and makes its checksum fit again.
fn edited(slot: &mut [u8], length: usize, edit: impl FnOnce(&mut [u8])) -> usize {
    if length >= HEADER_LEN {
        edit(&mut slot[..length]);
        set_checksum(&mut slot[..length]);
    }
    length
}
