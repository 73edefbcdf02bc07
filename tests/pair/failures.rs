//! What goes wrong, done to two `ssyncp run` with real kernels. After each of these one node is master and has the
//! address, the other is in sync and holds the same entries in its kernel, and nobody has given a command.

use crate::support::{Node, Pair, eventually, ip, root};
use nix::sys::signal::Signal;
use ssyncp::sys::socket::{self, PacketSocket};

/// What both kernels hold before something goes wrong.
const BEFORE: u32 = 3000;

/// A pair at work, with [`BEFORE`] connections in both kernels.
fn at_work(more: &str) -> Pair {
    let mut pair = Pair::new(more);
    pair.start();
    pair.a.connect(0..BEFORE);
    pair.until_equal(BEFORE as usize);
    pair
}

fn until_master(node: &Node) {
    eventually("the other one is master", || node.is("master", "source") && node.holds_the_address());
}

/// The master's process ends, connections come and go on the other one, and the process comes back.
fn the_master_ends_and_comes_back(signal: Signal, more: &str) {
    let mut pair = at_work(more);
    pair.a.end(signal);
    until_master(&pair.b);
    assert_eq!(pair.b.kernel_entries(), u64::from(BEFORE), "the new master has everything");
    pair.b.connect(5000..5500);
    pair.b.disconnect(0..200);
    pair.a.start();
    pair.settle();
    pair.until_equal(3300);
}

#[test]
fn a_master_that_is_killed_comes_back_to_an_equal_kernel() {
    if root() {
        the_master_ends_and_comes_back(Signal::SIGKILL, "");
    }
}

#[test]
fn a_master_that_is_told_to_end_comes_back_to_an_equal_kernel() {
    if root() {
        the_master_ends_and_comes_back(Signal::SIGTERM, "");
    }
}

#[test]
fn without_preemption_the_one_that_comes_back_is_backup_and_equal() {
    if root() {
        the_master_ends_and_comes_back(Signal::SIGKILL, "preempt = false");
    }
}

#[test]
fn a_master_that_is_restarted_at_once_costs_nothing() {
    if !root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut pair = at_work("");
        pair.a.end(signal);
        pair.a.start();
        pair.settle();
        pair.until_equal(BEFORE as usize);
    }
}

#[test]
fn a_backup_that_is_restarted_catches_up_with_what_it_missed() {
    if !root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut pair = at_work("");
        pair.b.end(signal);
        pair.a.connect(5000..5500);
        pair.a.disconnect(0..200);
        pair.b.start();
        pair.settle();
        pair.until_equal(3300);
    }
}

/// [5.6.1] While it stands, packets and commands go on changing both kernels. What only its own has learned meanwhile is
/// lost, as after a split: to the backup that it is now it is stale [5.2.6].
#[test]
fn a_master_that_stood_still_steps_back_and_both_kernels_become_equal() {
    if !root() {
        return;
    }
    let pair = at_work("");
    pair.a.tell(Signal::SIGSTOP);
    until_master(&pair.b);
    pair.b.connect(5000..5500);
    pair.b.disconnect(0..200);
    pair.a.connect(7000..7100);
    pair.a.tell(Signal::SIGCONT);
    eventually("the master of before takes the role again", || pair.a.is("master", "source"));
    pair.settle();
    pair.until_equal(3300);
    assert_eq!(pair.a.kernel_entries(), 3300);
    let events = pair.a.group()["last_events"].to_string();
    assert!(events.contains("StallDetected"), "{events}");
}

/// [5.4.1] A switch that passes nothing, while both links have a carrier: two masters. Then the newer term stays, and
/// what the other one has learned alone is gone from both.
#[test]
fn a_split_ends_with_one_master_equal_kernels_and_neighbours_that_know() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment makes no term newer.
    let pair = at_work("preempt = false\nadvert_interval = \"400ms\"");
    let mut neighbour = announcements(&pair.b, "lb0");
    let mut heard = 0;
    let mut hear = || {
        let mut buffer = [0; 64];
        heard += std::iter::from_fn(|| neighbour.receive(&mut buffer).unwrap()).count();
        heard
    };
    ip(&pair.switch, "link set pb nomaster");
    until_master(&pair.b);
    until_master(&pair.a);
    pair.b.connect(5000..5500);
    pair.b.disconnect(0..200);
    pair.a.connect(7000..7100);
    pair.a.disconnect(500..600);
    // Two packets, five times in a second; more of them if it has taken the role twice.
    eventually("b has announced its takeover to the end", || hear() >= 10);
    let announced = hear();
    ip(&pair.switch, "link set pb master sync");
    pair.settle();
    assert!(pair.b.is("master", "source"), "its term is the newer one");
    pair.until_equal(3300);
    // While both had the address, both said so. The one that stays says it once more, or the other one's word stands.
    eventually("b announces its address again", || hear() > announced);
}

/// Hears the ARP frames that arrive at an interface from now on.
fn announcements(node: &Node, interface: &str) -> PacketSocket {
    node.namespace.run(|| PacketSocket::open(socket::interface(interface)?.index, 0x0806)).unwrap()
}

/// [5.0.5] A backup without a carrier takes nothing over. (The kernel may take a second to tell of a carrier: adverts are
/// slow enough to wait for it.)
#[test]
fn a_backup_whose_link_goes_down_is_equal_again_when_it_is_up() {
    if !root() {
        return;
    }
    let pair = at_work("advert_interval = \"1s\"");
    ip(&pair.switch, "link set pb down");
    eventually("b knows", || pair.b.group()["role"] == "fault");
    assert!(!pair.b.holds_the_address() && pair.a.is("master", "source"));
    pair.a.connect(5000..5500);
    pair.a.disconnect(0..200);
    ip(&pair.switch, "link set pb up");
    pair.settle();
    pair.until_equal(3300);
}

/// [5.0.5]
#[test]
fn a_master_whose_link_goes_down_gives_the_role_away() {
    if !root() {
        return;
    }
    let pair = at_work("");
    ip(&pair.switch, "link set pa down");
    until_master(&pair.b);
    eventually("a has let go", || pair.a.group()["role"] == "fault" && !pair.a.holds_the_address());
    pair.b.connect(5000..5500);
    pair.b.disconnect(0..200);
    ip(&pair.switch, "link set pa up");
    pair.settle();
    pair.until_equal(3300);
}

#[test]
fn a_sync_link_that_was_down_for_both_comes_back_to_one_master() {
    if !root() {
        return;
    }
    let pair = at_work("");
    ip(&pair.switch, "link set pa down\nlink set pb down");
    eventually("nobody is master without a link", || {
        [&pair.a, &pair.b].iter().all(|node| node.group()["role"] == "fault" && !node.holds_the_address())
    });
    ip(&pair.switch, "link set pa up\nlink set pb up");
    pair.settle();
    eventually("the one with the higher priority", || pair.a.is("master", "source"));
    pair.settle();
    pair.until_equal(BEFORE as usize);
    pair.a.connect(5000..5500);
    pair.until_equal(3500);
}

#[test]
fn a_sync_interface_that_is_made_anew_is_used() {
    if !root() {
        return;
    }
    // What a learns while it is out of the game is stale by the time it is back [5.2.6].
    for (letter, after) in [('a', 3000), ('b', 3500)] {
        let pair = at_work("");
        ip(&pair.switch, &format!("link del p{letter}"));
        let node = if letter == 'a' { &pair.a } else { &pair.b };
        eventually("it is missed", || node.group()["link_up"] == false);
        pair.a.connect(5000..5500);
        pair.plug_in(letter);
        pair.settle();
        eventually("the one with the higher priority", || pair.a.is("master", "source"));
        pair.until_equal(after);
        assert_eq!(pair.a.kernel_entries(), after as u64);
    }
}

/// [4.3.2] More happens to the master's kernel than its socket holds while nobody reads: of 4 MiB, the double of what is asked
/// for, an event takes 1280 bytes. So 3276 fit, and 8000 come. The adverts are so slow that it keeps the role.
#[test]
fn changes_that_the_kernel_dropped_are_made_up_for() {
    if !root() {
        return;
    }
    let pair = at_work("advert_interval = \"3s\"\nevent_buffer = \"2MiB\"");
    pair.a.tell(Signal::SIGSTOP);
    pair.a.disconnect(0..1000);
    pair.a.connect(10_000..16_000);
    pair.a.disconnect(10_000..11_000);
    pair.a.tell(Signal::SIGCONT);
    eventually("a knows that it has missed something", || pair.a.counter("source_overruns") > 0);
    pair.until_equal(7000);
    pair.settle();
    assert!(pair.a.is("master", "source") && pair.a.group()["term"] == 1, "the role has not moved");
}
