//! Real sockets on the loopback interface and on veth pairs, in namespaces.

use super::*;
use crate::sys::bpf::{Mode, Redirect};
use crate::sys::namespace::Namespace;
use crate::sys::socket::{PacketSocket, interface};
use std::process::Command;

fn options(index: u32) -> XskOptions {
    XskOptions {
        index,
        queue: 0,
        receive_memory: 64 * 4096,
        slots: 8,
        frame_len: 9014,
        frame_len_now: 1514,
        send_buffer: 1 << 20,
        zero_copy: false,
        patience: Duration::from_secs(1),
    }
}

/// A socket on queue 0 of the loopback interface, which is switched on.
pub(in crate::sys) fn on_loopback() -> XskSocket {
    ip("link set lo up");
    XskSocket::open(&options(1)).unwrap()
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split_whitespace()).status().unwrap().success(), "ip {arguments}");
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root() && Namespace::create().is_ok();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Two ends of a cable in one namespace, with one queue each.
fn on_a_cable(mtu: u32, test: impl FnOnce(u32, u32) + Send) {
    with_queues(1, mtu, test);
}

/// The same with so many queues.
fn with_queues(queues: u32, mtu: u32, test: impl FnOnce(u32, u32) + Send) {
    if !root() {
        return;
    }
    let namespace = Namespace::create().unwrap();
    let work = namespace.run(|| {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!("link add near {queues} type veth peer name far {queues}"));
        for end in ["near", "far"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1")?;
            ip(&format!("link set {end} mtu {mtu} up"));
        }
        test(interface("near")?.index, interface("far")?.index);
        Ok(())
    });
    work.unwrap();
}

/// An IPv4 packet of protocol 114 to 224.0.0.81, filled up with `byte`.
fn frame(length: usize, byte: u8) -> Vec<u8> {
    let mut frame = vec![byte; length];
    frame[..14].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0x51, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 255, 114, 0, 0, 10, 0, 0, 1, 224, 0, 0, 81]);
    frame
}

fn send(socket: &mut XskSocket, frames: &[Vec<u8>]) -> Vec<(usize, bool)> {
    let mut left = Vec::new();
    for frame in frames {
        while socket.slot().is_none() {
            socket.push(&mut |length, arrived| left.push((length, arrived))).unwrap();
        }
        socket.slot().unwrap()[..frame.len()].copy_from_slice(frame);
        socket.commit(frame.len());
    }
    socket.push(&mut |length, arrived| left.push((length, arrived))).unwrap();
    left
}

fn hear(socket: &mut XskSocket, count: usize) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    let start = Instant::now();
    while heard.len() < count {
        socket.receive(7, &mut |frame| heard.push(frame.to_vec()));
        assert!(start.elapsed() < Duration::from_secs(10), "{} of {count}", heard.len());
    }
    heard
}

/// Waits until the kernel has dropped so many; before anything is read, because what comes later than that would find room.
fn until_dropped(socket: &XskSocket, count: u64) {
    let start = Instant::now();
    while socket.statistics().unwrap().dropped < count {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}, not {count}", socket.statistics());
    }
}

fn redirect() -> Redirect {
    Redirect::load(114, "224.0.0.81".parse().unwrap()).unwrap()
}

#[test]
fn receive_memory_is_a_power_of_two_of_chunks() {
    let chunks = [0, 64 * 4096, 100 * 4096, 16 << 20, usize::MAX].map(chunks_of);
    assert_eq!(chunks, [2, 64, 64, 4096, 65536]);
}

#[test]
fn frames_of_all_lengths_pass_in_both_modes_whole_and_in_order() {
    for mode in [Mode::Native, Mode::Skb] {
        on_a_cable(9000, |near, far| {
            let redirect = redirect();
            let _attached = redirect.attach(far, mode).unwrap();
            let mut receiver =
                XskSocket::open(&XskOptions { zero_copy: mode == Mode::Native, ..options(far) }).unwrap();
            redirect.set(0, &receiver).unwrap();
            let mut sender = XskSocket::open(&options(near)).unwrap();
            assert!(!receiver.is_zero_copy(), "a veth cannot");
            let frames: Vec<Vec<u8>> = [60, 1514, 3840, 3841, 4096, 4097, 8192, 9014, 42, 1242]
                .map(|length| frame(length, length as u8))
                .into();
            for round in 0..30 {
                let left = send(&mut sender, &frames);
                let lengths: Vec<(usize, bool)> = frames.iter().map(|frame| (frame.len(), true)).collect();
                assert_eq!(left, lengths, "round {round}");
                assert!(hear(&mut receiver, 10) == frames, "round {round}, {mode:?}");
            }
            assert_eq!((sender.unsent(), sender.impossible(), receiver.impossible()), (0, 0, 0));
            assert_eq!(receiver.statistics().unwrap(), XskStatistics::default());
        });
    }
}

#[test]
fn a_frame_longer_than_the_longest_is_cut_and_the_next_one_is_not() {
    on_a_cable(9000, |near, far| {
        let redirect = redirect();
        let _attached = redirect.attach(far, Mode::Skb).unwrap();
        let mut receiver = XskSocket::open(&XskOptions { frame_len: 5000, ..options(far) }).unwrap();
        redirect.set(0, &receiver).unwrap();
        let mut sender = XskSocket::open(&options(near)).unwrap();
        send(&mut sender, &[frame(9014, 1), frame(5000, 2), frame(60, 3)]);
        let lengths: Vec<usize> = hear(&mut receiver, 3).iter().map(Vec::len).collect();
        assert_eq!(lengths, [5000, 5000, 60]);
    });
}

#[test]
fn what_finds_no_memory_is_counted_by_the_kernel_and_the_rest_arrives() {
    on_a_cable(1500, |near, far| {
        let redirect = redirect();
        let _attached = redirect.attach(far, Mode::Native).unwrap();
        let mut receiver = XskSocket::open(&options(far)).unwrap();
        redirect.set(0, &receiver).unwrap();
        let mut sender = XskSocket::open(&options(near)).unwrap();
        let frames: Vec<Vec<u8>> = (0..100).map(|number| frame(60, number)).collect();
        assert_eq!(send(&mut sender, &frames).len(), 100);
        // 64 chunks, all of them in the fill ring.
        until_dropped(&receiver, 36);
        let heard = hear(&mut receiver, 64);
        assert!(heard == frames[..64]);
        assert_eq!(receiver.receive(100, &mut |_| panic!("there was no room for more")), 0);
        assert_eq!(receiver.statistics().unwrap(), XskStatistics { dropped: 36, invalid: 0 });
        send(&mut sender, &frames[..64]);
        assert!(hear(&mut receiver, 64) == frames[..64], "every chunk is back in the fill ring");
    });
}

/// The smallest rings there are: whatever is read goes back to the kernel at once.
#[test]
fn two_chunks_are_enough_to_go_on_for_ever() {
    on_a_cable(1500, |near, far| {
        let redirect = redirect();
        let _attached = redirect.attach(far, Mode::Native).unwrap();
        let mut receiver = XskSocket::open(&XskOptions { receive_memory: 8192, ..options(far) }).unwrap();
        redirect.set(0, &receiver).unwrap();
        let mut sender = XskSocket::open(&options(near)).unwrap();
        for round in 1..=50 {
            send(&mut sender, &vec![frame(60, round); 5]);
            until_dropped(&receiver, 3 * u64::from(round));
            assert_eq!(hear(&mut receiver, 2), vec![frame(60, round); 2]);
            assert_eq!(receiver.statistics().unwrap().dropped, 3 * u64::from(round));
        }
    });
}

#[test]
fn what_an_interface_that_is_switched_off_did_not_take_never_leaves() {
    on_a_cable(1500, |near, far| {
        let wire = PacketSocket::open(far, libc::ETH_P_IP as u16).unwrap();
        let mut wire = wire;
        let mut sender = XskSocket::open(&options(near)).unwrap();
        send(&mut sender, &[frame(60, 1)]);
        ip("link set near down");
        for number in 2..5 {
            sender.slot().unwrap()[..60].copy_from_slice(&frame(60, number));
            sender.commit(60);
        }
        let error = sender.push(&mut |_, _| panic!("nothing leaves")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(sender.unsent(), 3);
        let mut back = Vec::new();
        sender.take_unsent_back(&mut |length| back.push(length));
        assert_eq!((back, sender.unsent()), (vec![60; 3], 0));
        ip("link set near up");
        for round in 0..20 {
            let frames = vec![frame(60, 100 + round); 8];
            assert_eq!(send(&mut sender, &frames), [(60, true); 8], "round {round}");
        }
        let mut buffer = [0; 100];
        let mut heard = Vec::new();
        let start = Instant::now();
        while heard.len() < 161 && start.elapsed() < Duration::from_secs(10) {
            if wire.receive(&mut buffer).is_ok_and(|frame| frame.is_some()) {
                heard.push(buffer[59]);
            }
        }
        let expected: Vec<u8> = std::iter::once(1).chain((100..120).flat_map(|byte| [byte; 8])).collect();
        assert_eq!(heard, expected);
    });
}

#[test]
fn a_frame_that_is_lost_further_down_is_told_of() {
    on_a_cable(1500, |near, _| {
        let mut sender = XskSocket::open(&options(near)).unwrap();
        ip("link set far down");
        assert_eq!(send(&mut sender, &[frame(60, 1), frame(60, 2)]), [(60, false), (60, false)]);
    });
}

#[test]
fn a_queue_that_was_just_left_is_waited_for_and_one_that_is_taken_is_an_error() {
    on_a_cable(1500, |near, _| {
        for _ in 0..5 {
            drop(XskSocket::open(&options(near)).unwrap());
        }
        let first = XskSocket::open(&options(near)).unwrap();
        let impatient = XskOptions { patience: Duration::from_millis(20), ..options(near) };
        let error = XskSocket::open(&impatient).unwrap_err();
        assert_eq!((error.step, error.source.raw_os_error()), ("bind", Some(libc::EBUSY)));
        drop(first);
        let missing = XskSocket::open(&XskOptions { queue: 1, ..options(near) }).unwrap_err();
        assert_eq!((missing.step, missing.source.raw_os_error()), ("bind", Some(libc::EINVAL)));
    });
}

/// What the other end sends by its second queue arrives by the second one here.
#[test]
fn each_queue_has_its_own_socket() {
    with_queues(2, 1500, |near, far| {
        assert_eq!(receive_queues("far").unwrap(), Some(2));
        let redirect = redirect();
        let _attached = redirect.attach(far, Mode::Native).unwrap();
        let open = |index, queue| XskSocket::open(&XskOptions { queue, ..options(index) }).unwrap();
        let mut receivers = [0, 1].map(|queue| open(far, queue));
        let mut senders = [0, 1].map(|queue| open(near, queue));
        for (queue, receiver) in [0, 1].into_iter().zip(&receivers) {
            redirect.set(queue, receiver).unwrap();
        }
        for (number, sender) in (1u8..).zip(&mut senders) {
            send(sender, &[frame(60, number)]);
        }
        for (number, receiver) in (1u8..).zip(&mut receivers) {
            assert!(hear(receiver, 1) == [frame(60, number)], "queue {}", number - 1);
            assert_eq!(receiver.receive(8, &mut |_| panic!("and nothing else")), 0);
        }
    });
}
