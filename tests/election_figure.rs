//! The transition table in docs/protocol.md (section 5) is what the role machine does: made by asking it every question in every
//! state. `UPDATE_DOCS=1 cargo test --test election_figure` writes it.

use ssyncp::engine::election::{Election, Input};
use ssyncp::engine::{RoleMode, RoleRequest};
use ssyncp::time::{Duration, Instant};
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- transitions: made by tests/election_figure.rs -->\n";
const END: &str = "<!-- end of transitions -->\n";
/// The columns, and what leads there from the start.
const STATES: [(&str, RoleMode, &[Input]); 8] = [
    ("Init", RoleMode::Vrrp, &[]),
    ("Backup", RoleMode::Vrrp, &[Input::LinkUp]),
    ("Backup, manual", RoleMode::Manual, &[Input::LinkUp]),
    ("Promoting, master dead", RoleMode::Vrrp, &[Input::LinkUp, Input::TimerExpired]),
    ("Promoting, master of term 7 lives", RoleMode::Vrrp, &[Input::LinkUp, Input::Preempt { term: 7 }]),
    ("Master", RoleMode::Vrrp, &[Input::LinkUp, Input::TimerExpired, Input::Committed]),
    ("Fault", RoleMode::Vrrp, &[Input::LinkUp, Input::LinkDown]),
    ("None", RoleMode::Vrrp, &[Input::Request(RoleRequest::None)]),
];

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// The rows. One more kind of input is an error of the compiler in [`words`].
fn inputs() -> [Input; 15] {
    let interval = Duration::from_millis(256);
    [
        Input::LinkUp,
        Input::LinkDown,
        Input::MasterHeard { term: 7, interval },
        Input::MasterHeard { term: 8, interval },
        Input::MasterLeft { interval },
        Input::Hold { wait: Duration::from_secs(10) },
        Input::TimerExpired,
        Input::Preempt { term: 7 },
        Input::Inherit { term: 7 },
        Input::Committed,
        Input::Outranked { interval },
        Input::Stalled,
        Input::Request(RoleRequest::Master),
        Input::Request(RoleRequest::Backup),
        Input::Request(RoleRequest::None),
    ]
}

fn words(input: Input) -> String {
    match input {
        Input::LinkUp => "a link is up".into(),
        Input::LinkDown => "no link is".into(),
        Input::MasterHeard { term, .. } => format!("a master of term {term} is heard"),
        Input::MasterLeft { .. } => "the master has left".into(),
        Input::Hold { .. } => "a reason to wait (3.5, 5.1, 5.2)".into(),
        Input::TimerExpired => "its timer runs out".into(),
        Input::Preempt { .. } => "it may preempt (5.3.1)".into(),
        Input::Inherit { .. } => "it inherits (5.3.2)".into(),
        Input::Committed => "the sink holds the table".into(),
        Input::Outranked { .. } => "another master outranks it".into(),
        Input::Stalled => "it has stood still (5.6)".into(),
        Input::Request(RoleRequest::Master) => "request: master".into(),
        Input::Request(RoleRequest::Backup) => "request: backup".into(),
        Input::Request(RoleRequest::None) => "request: none".into(),
    }
}

fn machine(mode: RoleMode, way: &[Input]) -> Election {
    let interval = Duration::from_millis(100);
    let mut election = Election::new(mode, 100, interval, Duration::from_secs(1));
    for input in way {
        election.handle(at(1000), *input);
    }
    election
}

/// What an input does to a state, in a word: where it leads, and what it does to the timer of a state that stays.
fn answer(before: &Election, input: Input) -> String {
    let mut after = before.clone();
    match after.handle(at(1100), input) {
        Some((_, to)) => format!("**{to:?}**"),
        None if after.deadline() > before.deadline() => "later".into(),
        None if after.deadline() < before.deadline() => "sooner".into(),
        None => "·".into(),
    }
}

fn table() -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names = STATES.iter().map(|(name, ..)| (*name).to_owned());
    let mut table = row([String::new()].into_iter().chain(names).collect());
    table += &row(vec!["---".to_owned(); STATES.len() + 1]);
    for input in inputs() {
        let answers = STATES.iter().map(|(_, mode, way)| answer(&machine(*mode, way), input));
        table += &row([words(input)].into_iter().chain(answers).collect());
    }
    table
}

/// [5.0.2]
#[test]
fn the_figure_of_transitions_is_what_the_machine_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let kept = fs::read_to_string(&file).unwrap();
    let (head, rest) = kept.split_once(BEGIN).expect("the place for the figure");
    let (_, tail) = rest.split_once(END).expect("the end of the figure");
    let made = format!("{head}{BEGIN}{}{END}{tail}", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let same = kept == made || std::env::var_os("UPDATE_DOCS").is_some();
    assert!(same, "docs/protocol.md is not what the code does: UPDATE_DOCS=1 cargo test --test election_figure");
}

/// The figure's words against literals: whoever changes both machine and figure is to see it here.
#[test]
fn the_figure_has_a_row_for_each_input_and_says_what_rfc_9568_asks() {
    let table = table();
    let row = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert_eq!(table.lines().count(), 17);
    assert_eq!(
        row("| its timer"),
        "| its timer runs out | · | **Promoting** | · | **Master** | **Master** | · | · | · |"
    );
    assert_eq!(
        row("| a master of term 7"),
        "| a master of term 7 is heard | · | later | · | **Backup** | · | · | · | · |"
    );
    assert_eq!(row("| the master has left"), "| the master has left | · | sooner | · | · | · | · | · | · |");
    assert_eq!(
        row("| no link is"),
        "| no link is | · | **Fault** | **Fault** | **Fault** | **Fault** | **Fault** | · | · |"
    );
}
