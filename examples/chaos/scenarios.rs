//! The faults: what is done to the pair, and when it is over.
//!
//! Each scenario builds a laboratory of its own, lets the pair settle, does its worst while flows are made, and hands the
//! moment of the return to the judge. From then on nobody helps: no command, no traffic. A fault that did not happen (no
//! overrun, no takeover) is a problem of the scenario and no success.

use super::interrupt::{nap, until};
use super::lab::{Lab, Plan};
use super::node::PATIENCE;
use super::report::Outcome;
use super::traffic::{self, Means, Tally, Traffic};
use super::verdict::judge;
use super::{Context, Trouble};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Settings of tables that get more than the default's 262,144 flows.
const LARGE: &str = "capacity = 1048576";
/// Entries that a kernel must be able to hold for those.
const LARGE_TABLE: u64 = 1 << 20;

/// One fault.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub what: &'static str,
    /// Entries that the kernels must be able to hold, where the usual limit may be too small.
    pub table: u64,
    /// Does it.
    pub run: fn(&Context) -> Result<Outcome, Trouble>,
}

/// All of them. (The names of losses: per cent, and on the way to whom.)
pub const SCENARIOS: [Scenario; 18] = [
    scenario("loss-1-backup", "1 % loss towards the backup while flows begin and end", |c| loss(c, 10, [false, true])),
    scenario("loss-1-master", "1 % loss towards the master", |c| loss(c, 10, [true, false])),
    scenario("loss-1-both", "1 % loss in both directions", |c| loss(c, 10, [true, true])),
    scenario("loss-5-backup", "5 % loss towards the backup", |c| loss(c, 50, [false, true])),
    scenario("loss-5-master", "5 % loss towards the master", |c| loss(c, 50, [true, false])),
    scenario("loss-5-both", "5 % loss in both directions", |c| loss(c, 50, [true, true])),
    scenario("loss-20-backup", "20 % loss towards the backup", |c| loss(c, 200, [false, true])),
    scenario("loss-20-master", "20 % loss towards the master", |c| loss(c, 200, [true, false])),
    scenario("loss-20-both", "20 % loss in both directions", |c| loss(c, 200, [true, true])),
    Scenario {
        table: LARGE_TABLE,
        ..scenario("silent", "the link is silent for 10 s at 20,000 connections/s; roles are decided elsewhere", |c| {
            silent(c, true)
        })
    },
    Scenario {
        table: LARGE_TABLE,
        ..scenario("silent-split", "the same with an election: two masters, which merge", |c| silent(c, false))
    },
    scenario("receiver-kill", "SIGKILL of the backup's daemon, back after 2 s", receiver_kill),
    scenario(
        "sender-kill",
        "SIGKILL of the master's daemon: the standby takes over, it returns after 2 s",
        sender_kill,
    ),
    scenario("receiver-stop", "SIGSTOP of the backup's daemon for 10 s", receiver_stop),
    scenario("history-gone", "the link is cut until the history (64 frames) no longer reaches back", history_gone),
    scenario("ended-while-dead", "60,000 flows end while the master's daemon is dead", ended_while_dead),
    scenario("overrun", "the kernel drops events: a receive buffer of 8 KiB", overrun),
    scenario("three", "three nodes: the master dies, then its successor; both return", three),
];

const fn scenario(name: &'static str, what: &'static str, run: fn(&Context) -> Result<Outcome, Trouble>) -> Scenario {
    Scenario { name, what, table: 0, run }
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Runs traffic at a node beside `work`, and stops it when that is done; says what was made, and when it stopped.
///
/// # Errors
/// [`Trouble`], of the work or of the traffic.
pub fn during(
    lab: &mut Lab,
    node: usize,
    traffic: &Traffic,
    work: impl FnOnce(&mut Lab) -> Result<(), Trouble>,
) -> Result<(Tally, Instant), Trouble> {
    let stop = AtomicBool::new(false);
    // The thread that makes flows has the two namespaces of the node, and nothing else of it.
    let place = traffic.place(&lab.nodes[node])?;
    std::thread::scope(|scope| {
        let made = scope.spawn(|| traffic.run(place, &stop));
        let done = work(lab);
        let ended = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let made = made.join().unwrap_or(Err(Trouble::Panicked))?;
        done?;
        Ok((Tally { held: lab.nodes[node].count()?, ..made }, ended))
    })
}

fn loss(context: &Context, of_a_thousand: u32, towards: [bool; 2]) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context))?;
    lab.start()?;
    for (node, _) in towards.into_iter().enumerate().filter(|(_, lossy)| *lossy) {
        lab.lose(node, of_a_thousand)?;
    }
    let (rate, time) = context.scale((5_000, 4), (2_000, 1));
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate).ending(2, rate / 2);
    let (tally, _) = during(&mut lab, 0, &traffic, |_| nap(time))?;
    lab.lose_everywhere(0)?;
    let verdict = judge(&lab, Instant::now())?;
    Ok(Outcome::new(verdict, tally, Means::Packets))
}

/// With an election the only link between the two carries that, too: silence makes two masters, and what the one has learned
/// that steps down afterwards is merged [5.5.1]. `manual` leaves the roles as they are, as conntrackd does.
fn silent(context: &Context, manual: bool) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan { manual, ..Plan::new(context).with(LARGE) })?;
    lab.start()?;
    let (rate, time) = context.scale((20_000, 10), (5_000, 2));
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate);
    let (tally, returned) = during(&mut lab, 0, &traffic, |lab| {
        nap(Duration::from_secs(1))?;
        lab.lose_everywhere(1000)?;
        nap(time)?;
        lab.lose_everywhere(0)
    })?;
    Ok(Outcome::new(judge(&lab, returned)?, tally, Means::Packets))
}

fn receiver_kill(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context))?;
    lab.start()?;
    let (rate, time) = context.scale((7_500, 2), (2_000, 1));
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate).ending(1, rate / 2);
    let (tally, returned) = during(&mut lab, 0, &traffic, |lab| {
        nap(time)?;
        lab.nodes[1].kill()?;
        nap(time)?;
        lab.nodes[1].start()
    })?;
    Ok(Outcome::new(judge(&lab, returned)?, tally, Means::Packets))
}

fn sender_kill(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context))?;
    lab.start()?;
    let (rate, time) = context.scale((7_500, 2), (2_000, 1));
    let before = Traffic::new(Means::Packets, 0, u32::MAX, rate);
    let (first, _) = during(&mut lab, 0, &before, |lab| {
        nap(time)?;
        lab.nodes[0].kill()
    })?;
    let killed = Instant::now();
    let takeover = lab.nodes[1].until("master", super::node::Status::is_master)?;
    // The standby's kernel has the traffic now; a part of what the dead one still holds ends here.
    let after = Traffic::new(Means::Packets, first.made, u32::MAX, rate).ending(2, rate / 2);
    let (second, returned) = during(&mut lab, 1, &after, |lab| {
        traffic::end(&lab.nodes[1], 0..first.made / 3, Means::Packets)?;
        nap(time.saturating_sub(killed.elapsed()))?;
        lab.nodes[0].start()
    })?;
    let note = format!("the standby was master {} ms after the kill", takeover.as_millis());
    Ok(Outcome::new(judge(&lab, returned)?, second.after(first), Means::Packets).note(note))
}

fn receiver_stop(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context))?;
    lab.start()?;
    let (rate, time) = context.scale((5_000, 10), (2_000, 2));
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate).ending(2, rate / 2);
    let (tally, returned) = during(&mut lab, 0, &traffic, |lab| {
        nap(Duration::from_secs(1))?;
        lab.nodes[1].tell(Signal::SIGSTOP)?;
        nap(time)?;
        lab.nodes[1].tell(Signal::SIGCONT)
    })?;
    Ok(Outcome::new(judge(&lab, returned)?, tally, Means::Packets))
}

fn history_gone(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context).with("history = 64"))?;
    lab.start()?;
    let (rate, time) = context.scale((5_000, 5), (3_000, 1));
    let traffic = Traffic::new(Means::Packets, 0, u32::MAX, rate).ending(2, rate / 2);
    let (tally, returned) = during(&mut lab, 0, &traffic, |lab| {
        nap(Duration::from_secs(1))?;
        lab.cut(1)?;
        nap(time)?;
        lab.mend(1)
    })?;
    Ok(Outcome::new(judge(&lab, returned)?, tally, Means::Packets))
}

/// The master owns its addresses (priority 255) and is heard once a second, so that it is back before anybody misses it:
/// what ended meanwhile ended in its own kernel, unseen.
fn ended_while_dead(context: &Context) -> Result<Outcome, Trouble> {
    let plan = Plan { first_priority: 255, ..Plan::new(context).with("advert_interval = \"1s\"") };
    let mut lab = Lab::build(&plan)?;
    lab.start()?;
    let (count, ended) = if context.quick { (5_000, 3_000) } else { (100_000, 60_000) };
    let start = Instant::now();
    traffic::write(&lab.nodes[0], 0..count)?;
    let seconds = start.elapsed().as_secs_f64();
    let copied = || lab.nodes[1].count().is_ok_and(|entries| entries >= u64::from(count));
    until("the backup's kernel has all flows", PATIENCE, copied)?;
    lab.nodes[0].kill()?;
    traffic::end(&lab.nodes[0], 0..ended, Means::Netlink)?;
    lab.nodes[0].start()?;
    let verdict = judge(&lab, Instant::now())?;
    Ok(Outcome::new(verdict, Tally { made: count, ended, seconds, held: u64::from(count - ended) }, Means::Netlink))
}

fn overrun(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan::new(context).with("event_buffer = \"8KiB\""))?;
    lab.start()?;
    let count = if context.quick { 5_000 } else { 50_000 };
    let start = Instant::now();
    traffic::write(&lab.nodes[0], 0..count)?;
    traffic::end(&lab.nodes[0], 0..count / 2, Means::Netlink)?;
    let held = u64::from(count - count / 2);
    let tally = Tally { made: count, ended: count / 2, seconds: start.elapsed().as_secs_f64(), held };
    let verdict = judge(&lab, Instant::now())?;
    let overruns = lab.nodes[0].status().map_or(0, |status| status.counter("source_overruns"));
    let outcome = Outcome::new(verdict, tally, Means::Netlink).note(format!("{overruns} overruns"));
    Ok(if overruns == 0 { outcome.problem("no overrun was forced") } else { outcome })
}

fn three(context: &Context) -> Result<Outcome, Trouble> {
    let mut lab = Lab::build(&Plan { machines: 3, ..Plan::new(context) })?;
    lab.start()?;
    let (rate, time) = context.scale((3_000, 2), (1_000, 1));
    let mut all = Tally::default();
    for master in 0..3 {
        lab.nodes[master].until("master", super::node::Status::is_master)?;
        let traffic = Traffic::new(Means::Packets, all.made, u32::MAX, rate).ending(2, rate / 2);
        let (tally, _) = during(&mut lab, master, &traffic, |lab| {
            nap(time)?;
            if master < 2 { lab.nodes[master].kill() } else { Ok(()) }
        })?;
        all = tally.after(all);
    }
    lab.nodes[0].start()?;
    lab.nodes[1].start()?;
    Ok(Outcome::new(judge(&lab, Instant::now())?, all, Means::Packets))
}
