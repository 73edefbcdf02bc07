//! A transport allocates when it is opened, and never again.

#[path = "support/allocations.rs"]
mod allocations;
#[path = "transport/support.rs"]
mod transport_support;

use allocations::allocations;
use ssyncp::transport::memory::MemoryOptions;
use ssyncp::transport::{MemoryHub, PacketTransport, RawOptions, RawTransport, Transport, XdpTransport};
use transport_support::machine::root;
use transport_support::{Lan, SocketTransport, is_up, open, until};

/// Moves `batches` times 8 frames and says how often memory was asked for meanwhile.
fn allocations_of(sender: &mut dyn Transport, receiver: &mut dyn Transport, batches: u64) -> u64 {
    allocations(|| {
        for _ in 0..batches {
            let (mut left, mut heard) = (0, 0);
            let fill = &mut |slot: &mut [u8]| {
                slot[0] = 1;
                Some(slot.len())
            };
            left += sender.transmit(fill).unwrap();
            while heard < left {
                heard += receiver.receive(&mut |_, frame| assert_eq!(frame[0], 1)).unwrap();
            }
            assert_eq!((left, heard), (8, 8));
        }
    })
}

#[test]
fn frames_through_memory_need_none() {
    let hub = MemoryHub::with_options(MemoryOptions { frame_len: 1208, batch: 8, queue: 64 });
    let (mut a, mut b) = (hub.port(), hub.port());
    allocations_of(&mut a, &mut b, 1);
    assert_eq!(allocations_of(&mut a, &mut b, 100), 0);
}

#[test]
fn frames_through_raw_sockets_need_none() {
    frames_over_a_link_need_none::<RawTransport>();
}

#[test]
fn frames_through_packet_sockets_need_none() {
    frames_over_a_link_need_none::<PacketTransport>();
}

#[test]
fn frames_through_rings_of_af_xdp_need_none() {
    frames_over_a_link_need_none::<XdpTransport>();
}

fn frames_over_a_link_need_none<T: SocketTransport>() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let options = RawOptions { batch: 8, ..RawOptions::new(["sync0"]) };
    let (mut a, mut b): (T, T) = (open(&lan, 0, &options), open(&lan, 1, &options));
    until(|| is_up(&lan, 0, &mut a) && is_up(&lan, 1, &mut b));
    allocations_of(&mut a, &mut b, 1);
    // So many that all slots of all rings come round.
    assert_eq!(allocations_of(&mut a, &mut b, 1000), 0);
    // Nor does refusing: frames that one link takes and another does not, or none does.
    lan.ip(0, "link set sync0 down");
    let asked = allocations(|| assert!(a.transmit(&mut |_| Some(8)).is_err()));
    assert_eq!(asked, 0);
}
