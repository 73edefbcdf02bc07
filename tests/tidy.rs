//! Reads the tree and fails, with file and line, where it is not as docs/architecture.md and docs/protocol.md say.
//!
//! Each check lives in `tests/tidy/`, a pure function of text, with tests of its own on literal snippets that show it
//! failing. Here they are held against the real files.

mod tidy {
    pub(crate) mod docs;
    pub(crate) mod habits;
    pub(crate) mod imports;
    pub(crate) mod purity;
    pub(crate) mod rules;
    pub(crate) mod safety;
    pub(crate) mod source;
    pub(crate) mod tree;
}

use tidy::imports::Picture;
use tidy::rules::Rules;
use tidy::source::Source;
use tidy::tree::{Finding, Text, assert_clean, read, root, sources, texts};
use tidy::{docs, habits, imports, purity, safety};

const ALL_CODE: [&str; 4] = ["src/", "tests/", "benches/", "examples/"];

fn picture() -> (Text, Picture) {
    let document = read("docs/architecture.md");
    let picture = Picture::parse(&document.text);
    (document, picture)
}

fn in_wing(picture: &Picture, wing: &str) -> Vec<Source> {
    let rooms = picture.wing(wing);
    assert!(!rooms.is_empty(), "docs/architecture.md names no rooms for the {wing} wing");
    sources(&["src/"]).into_iter().filter(|source| rooms.iter().any(|room| room == source.room())).collect()
}

/// The tidy tests themselves quote rules in snippets; they prove none.
fn code_that_names_rules() -> Vec<Source> {
    sources(&ALL_CODE).into_iter().filter(|source| !source.path.starts_with("tests/tidy")).collect()
}

#[test]
fn every_arrow_between_rooms_is_in_the_picture() {
    let (_, picture) = picture();
    let findings: Vec<Finding> =
        sources(&["src/"]).iter().flat_map(|source| imports::wrong_arrows(&picture, source)).collect();
    assert_clean(&findings);
}

#[test]
fn the_picture_shows_the_rooms_that_there_are() {
    let (document, picture) = picture();
    assert_clean(&imports::forgotten_rooms(&picture, &document, &sources(&["src/"])));
}

#[test]
fn unsafe_stands_only_in_its_rooms_and_says_why() {
    let findings: Vec<Finding> = sources(&ALL_CODE).iter().flat_map(safety::unsafe_findings).collect();
    assert_clean(&findings);
}

#[test]
fn the_thinking_wing_forbids_unsafe() {
    let (_, picture) = picture();
    let is_front = |source: &&Source| {
        let path = &source.path;
        path.matches('/').count() == 1 || path.matches('/').count() == 2 && path.ends_with("/mod.rs")
    };
    let thinking = in_wing(&picture, "thinking");
    let findings: Vec<Finding> = thinking.iter().filter(is_front).flat_map(safety::forbids_unsafe).collect();
    assert_clean(&findings);
}

#[test]
fn the_thinking_wing_has_no_clock_no_entropy_and_no_io() {
    let (_, picture) = picture();
    let findings: Vec<Finding> = in_wing(&picture, "thinking").iter().flat_map(purity::impurities).collect();
    assert_clean(&findings);
}

#[test]
fn the_rules_are_numbered_without_a_gap() {
    assert_clean(&Rules::parse(&read("docs/protocol.md")).findings);
}

#[test]
fn every_rule_that_the_code_names_exists() {
    let rules = Rules::parse(&read("docs/protocol.md"));
    let findings: Vec<Finding> =
        code_that_names_rules().iter().flat_map(|source| rules.unknown_mentions(source)).collect();
    assert_clean(&findings);
}

#[test]
fn every_rule_that_is_not_planned_is_named_by_a_test() {
    let document = read("docs/protocol.md");
    assert_clean(&Rules::parse(&document).unproven(&document, &code_that_names_rules()));
}

#[test]
fn no_file_is_too_long() {
    let findings: Vec<Finding> = sources(&["src/"]).iter().filter_map(habits::too_long).collect();
    assert_clean(&findings);
}

#[test]
fn nothing_is_left_half_done() {
    let findings: Vec<Finding> = sources(&ALL_CODE).iter().flat_map(habits::leftovers).collect();
    assert_clean(&findings);
}

#[test]
fn every_file_is_compiled() {
    assert_clean(&habits::orphans(&sources(&["src/"])));
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    let findings: Vec<Finding> = texts().iter().flat_map(habits::private_paths).collect();
    assert_clean(&findings);
}

#[test]
fn every_link_leads_somewhere() {
    let documents: Vec<Text> = texts().into_iter().filter(|file| file.path.ends_with(".md")).collect();
    assert!(documents.iter().any(|file| file.path == "README.md"));
    let exists = |path: &str| root().join(path).exists();
    let headings = |path: &str| docs::anchors(&read(path).text);
    let findings: Vec<Finding> =
        documents.iter().flat_map(|document| docs::broken_links(document, &exists, &headings)).collect();
    assert_clean(&findings);
}

#[test]
fn every_package_is_accounted_for() {
    assert_clean(&docs::unnamed_dependencies(&read("Cargo.toml"), &read("docs/architecture.md")));
}
