//! What every transport must do, asked of each of them: memory, raw sockets, and the reference.
//!
//! A claim that nothing arrives is proven with a fence: a good frame sent afterwards, which order makes arrive last.

use crate::support::machine::root;
use crate::support::{BATCH, FRAME_LEN, Lan, SocketTransport, hear, ipv6_options, is_up, open, options, send, until};
use ssyncp::transport::memory::MemoryOptions;
use ssyncp::transport::pcap::{Tap, TapOptions};
use ssyncp::transport::{MemoryHub, NixTransport, PacketTransport, RawOptions, RawTransport, Transport, XdpTransport};

/// Transports on one medium, and whatever keeps the medium alive.
struct World {
    ports: Vec<Box<dyn Transport>>,
    _medium: Option<Lan>,
}

fn memory(ports: usize) -> Option<World> {
    let hub = MemoryHub::with_options(MemoryOptions { frame_len: FRAME_LEN, batch: BATCH, queue: 1024 });
    let port = |_| -> Box<dyn Transport> { Box::new(hub.port()) };
    Some(World { ports: (0..ports).map(port).collect(), _medium: None })
}

/// Taps whose disk does not work: nobody but the tap may notice.
fn tapped(ports: usize) -> Option<World> {
    let hub = MemoryHub::with_options(MemoryOptions { frame_len: FRAME_LEN, batch: BATCH, queue: 1024 });
    let [source, destination] = ["10.0.0.1", "224.0.0.81"].map(|address| address.parse().unwrap());
    let options = TapOptions { file: "/nowhere/tap.pcap".into(), file_len: 1 << 20, files: 1, source, destination };
    let tap = |_| -> Box<dyn Transport> { Box::new(Tap::new(hub.port(), &options).unwrap()) };
    Some(World { ports: (0..ports).map(tap).collect(), _medium: None })
}

fn raw(ports: usize) -> Option<World> {
    sockets::<RawTransport>(ports, options())
}

fn reference(ports: usize) -> Option<World> {
    sockets::<NixTransport>(ports, options())
}

fn raw_ipv6(ports: usize) -> Option<World> {
    sockets::<RawTransport>(ports, ipv6_options())
}

fn reference_ipv6(ports: usize) -> Option<World> {
    sockets::<NixTransport>(ports, ipv6_options())
}

fn packet(ports: usize) -> Option<World> {
    sockets::<PacketTransport>(ports, options())
}

fn packet_ipv6(ports: usize) -> Option<World> {
    sockets::<PacketTransport>(ports, ipv6_options())
}

fn xdp(ports: usize) -> Option<World> {
    sockets::<XdpTransport>(ports, options())
}

fn xdp_ipv6(ports: usize) -> Option<World> {
    sockets::<XdpTransport>(ports, ipv6_options())
}

fn sockets<T: SocketTransport>(ports: usize, options: RawOptions) -> Option<World> {
    if !root() {
        return None;
    }
    let lan = Lan::new(ports, 1);
    let port = |node| -> Box<dyn Transport> {
        let mut port = open::<T>(&lan, node, &options);
        until(|| is_up(&lan, node, &mut port));
        Box::new(port)
    };
    Some(World { ports: (0..ports).map(port).collect(), _medium: Some(lan) })
}

/// Frames that differ, of different lengths.
fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| [&(n as u32).to_be_bytes()[..], &vec![n as u8; n % 7]].concat()).collect()
}

macro_rules! conformance {
    ($($transport:ident)*) => {$(
        mod $transport {
            conformance!(@ $transport
                a_frame_arrives_whole_and_once_everywhere_but_at_its_sender
                order_is_kept
                the_largest_frame_passes_and_a_longer_one_is_refused
                an_empty_frame_is_refused
                nothing_to_receive_is_none_and_does_not_block
                nothing_to_send_is_none
                a_call_asks_for_no_more_than_a_batch
                a_burst_arrives_whole_in_calls_of_a_batch
                what_was_moved_is_counted
                the_sender_may_speak_again_after_it_has_listened
            );
        }
    )*};
    (@ $transport:ident $($claim:ident)*) => {$(
        #[test]
        fn $claim() {
            if let Some(world) = super::$transport(3) {
                super::$claim(world);
            }
        }
    )*};
}

conformance!(memory tapped raw reference packet xdp raw_ipv6 reference_ipv6 packet_ipv6 xdp_ipv6);

fn a_frame_arrives_whole_and_once_everywhere_but_at_its_sender(mut world: World) {
    send(&mut *world.ports[0], &[b"from the first"]);
    assert_eq!(hear(&mut *world.ports[1], 1), [b"from the first"]);
    send(&mut *world.ports[1], &[b"from the second"]);
    // Each hears the fence next: nothing came twice, and nothing came back.
    assert_eq!(hear(&mut *world.ports[0], 1), [b"from the second"]);
    assert_eq!(hear(&mut *world.ports[2], 2), [b"from the first".as_slice(), b"from the second"]);
    send(&mut *world.ports[2], &[b"fence"]);
    assert_eq!(hear(&mut *world.ports[0], 1), [b"fence"]);
    assert_eq!(hear(&mut *world.ports[1], 1), [b"fence"]);
}

fn order_is_kept(mut world: World) {
    let frames = numbered(200);
    send(&mut *world.ports[0], &frames);
    assert_eq!(hear(&mut *world.ports[1], 200), frames);
}

fn the_largest_frame_passes_and_a_longer_one_is_refused(mut world: World) {
    let [sender, receiver, ..] = &mut world.ports[..] else { unreachable!() };
    assert_eq!(sender.limits().frame_len, 1208);
    let mut slots = Vec::new();
    let mut lengths = [1208, 1209, 1].into_iter();
    let fill = &mut |slot: &mut [u8]| {
        let length = lengths.next()?;
        slots.push(slot.len());
        slot.fill(0xa5);
        Some(length)
    };
    assert_eq!(sender.transmit(fill).unwrap(), 2);
    assert_eq!(slots, [1208, 1208, 1208]);
    assert_eq!(hear(&mut **receiver, 2), [vec![0xa5; 1208], vec![0xa5; 1]]);
    assert_eq!((sender.counters().send_errors, sender.counters().frames_sent), (1, 2));
}

fn an_empty_frame_is_refused(mut world: World) {
    let mut lengths = [0, 5].into_iter();
    assert_eq!(world.ports[0].transmit(&mut |_| lengths.next()).unwrap(), 1);
    assert_eq!(hear(&mut *world.ports[1], 1).len(), 1);
    assert_eq!(world.ports[0].counters().send_errors, 1);
    // A caller that goes mad cannot hold the thread.
    assert_eq!(world.ports[0].transmit(&mut |_| Some(0)).unwrap(), 0);
    assert_eq!(world.ports[0].counters().send_errors, 1 + 8);
}

fn nothing_to_receive_is_none_and_does_not_block(mut world: World) {
    assert_eq!(world.ports[0].receive(&mut |_, _| panic!("nothing was sent")).unwrap(), 0);
    assert!(!world.ports[0].readiness().is_empty());
}

fn nothing_to_send_is_none(mut world: World) {
    assert_eq!(world.ports[0].transmit(&mut |_| None).unwrap(), 0);
    assert_eq!(world.ports[0].pending(), 0);
}

fn a_call_asks_for_no_more_than_a_batch(mut world: World) {
    let mut asked = 0;
    let fill = &mut |slot: &mut [u8]| {
        asked += 1;
        slot[0] = asked;
        Some(1)
    };
    assert_eq!(world.ports[0].limits().batch, 8);
    assert_eq!(world.ports[0].transmit(fill).unwrap(), 8);
    assert_eq!(asked, 8);
    assert_eq!(hear(&mut *world.ports[1], 8), [[1], [2], [3], [4], [5], [6], [7], [8]]);
}

fn a_burst_arrives_whole_in_calls_of_a_batch(mut world: World) {
    let frames = numbered(100);
    send(&mut *world.ports[0], &frames);
    let mut heard = Vec::new();
    let mut longest = 0;
    until(|| {
        let before = heard.len();
        let count = world.ports[1].receive(&mut |_, frame| heard.push(frame.to_vec())).unwrap();
        assert_eq!(count, heard.len() - before);
        longest = longest.max(count);
        heard.len() == 100
    });
    assert_eq!(heard, frames);
    assert_eq!(longest, 8);
}

fn what_was_moved_is_counted(mut world: World) {
    send(&mut *world.ports[0], &[&b"four"[..], b"seven.."]);
    hear(&mut *world.ports[1], 2);
    let (sent, received) = (world.ports[0].counters(), world.ports[1].counters());
    assert_eq!((sent.frames_sent, sent.bytes_sent), (2, 11));
    assert_eq!((received.frames_received, received.bytes_received), (2, 11));
    assert_eq!((sent.frames_received, received.frames_sent), (0, 0));
    for counters in [sent, received] {
        let refused = [counters.ttl_refused, counters.malformed, counters.oversized, counters.dropped_by_kernel];
        assert_eq!((refused, counters.send_errors), ([0; 4], 0));
    }
}

fn the_sender_may_speak_again_after_it_has_listened(mut world: World) {
    for round in 0..50u8 {
        let (speaker, listener) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        send(&mut *world.ports[speaker], &[[round]]);
        assert_eq!(hear(&mut *world.ports[listener], 1), [[round]]);
    }
}
