//! The capabilities that a thread keeps, and all threads that it starts.

use crate::daemon::privilege::Capability;
use caps::{CapSet, CapsHashSet};

/// Keeps of the capabilities that the thread has those that are `wanted`, as a mask of their numbers; and says what of
/// that did not work.
///
/// A program that is run gets what the inheritable and the ambient set say, and for root what the bounding set leaves: where
/// `programs` are run these stay as they were, because a hook is the operator's and not ours to bind.
pub(super) fn keep(wanted: &[(Capability, &'static str)], programs: bool) -> (u64, Option<String>) {
    let permitted = match caps::read(None, CapSet::Permitted) {
        Ok(permitted) => permitted,
        Err(error) => return (u64::MAX, Some(error.to_string())),
    };
    let wanted: u64 = wanted.iter().map(|(capability, _)| capability.mask()).fold(0, |all, mask| all | mask);
    let kept: CapsHashSet = permitted.into_iter().filter(|capability| capability.bitmask() & wanted != 0).collect();
    let mask = kept.iter().fold(0, |all, capability| all | capability.bitmask());
    let mut problem = None;
    let mut note = |result: Result<(), caps::errors::CapsError>| {
        if let Err(error) = result {
            problem.get_or_insert(error.to_string());
        }
    };
    if !programs {
        note(caps::clear(None, CapSet::Ambient));
        drop_from_bounding(&kept);
        note(caps::clear(None, CapSet::Inheritable));
    }
    note(caps::set(None, CapSet::Effective, &kept));
    if !programs {
        note(caps::set(None, CapSet::Permitted, &kept));
    } else {
        // The ambient set is cut down to the permitted one, and a hook may need more of it than we do.
        let ambient = caps::read(None, CapSet::Ambient).unwrap_or_default();
        note(caps::set(None, CapSet::Permitted, &kept.union(&ambient).copied().collect()));
    }
    (mask, problem)
}

/// The calling thread gives up what it may load programs of the kernel with, for good. (Where it stands in the ambient set,
/// it is there for hooks, which would lose it with the permitted one: then it is switched off here, and no more.)
pub(super) fn give_up_bpf() {
    let bpf = caps::Capability::CAP_BPF;
    let sets = match caps::has_cap(None, CapSet::Ambient, bpf) {
        Ok(true) => &[CapSet::Effective][..],
        _ => &[CapSet::Effective, CapSet::Permitted, CapSet::Inheritable],
    };
    for set in sets {
        // A thread that does not have it has lost nothing.
        let _ = caps::drop(None, *set, bpf);
    }
}

/// Without CAP_SETPCAP the bounding set stays, and means nothing: with no new privileges nobody gains from it.
fn drop_from_bounding(kept: &CapsHashSet) {
    if !caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        return;
    }
    let Ok(bounding) = caps::read(None, CapSet::Bounding) else { return };
    for capability in bounding.difference(kept) {
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
}
