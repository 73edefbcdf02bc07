//! Which room may use which: the picture of docs/architecture.md, held against every `crate::` path of the code.

use super::source::Source;
use super::tree::{Finding, Text};
use std::collections::BTreeMap;

/// The picture: a fenced block `imports` with lines `room -> room room` and `wing: room room`.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    arrows: BTreeMap<String, Vec<String>>,
    wings: BTreeMap<String, Vec<String>>,
}

impl Picture {
    /// Reads the block out of the document.
    pub(crate) fn parse(document: &str) -> Self {
        let mut picture = Picture::default();
        let lines = document.lines().skip_while(|line| *line != "```imports").skip(1);
        for line in lines.take_while(|line| *line != "```") {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            if let Some((room, may_use)) = line.split_once("->") {
                picture.arrows.insert(room.trim().to_owned(), words(may_use));
            } else if let Some((wing, rooms)) = line.split_once(':') {
                picture.wings.insert(wing.trim().to_owned(), words(rooms));
            }
        }
        picture
    }

    /// The rooms of a wing.
    pub(crate) fn wing(&self, wing: &str) -> &[String] {
        self.wings.get(wing).map_or(&[], Vec::as_slice)
    }

    fn allows(&self, from: &str, to: &str) -> bool {
        from == to || self.arrows.get(from).is_some_and(|rooms| rooms.iter().any(|room| room == to))
    }
}

/// Arrows of the code that the picture does not have. Tests may use what they like.
pub(crate) fn wrong_arrows(picture: &Picture, source: &Source) -> Vec<Finding> {
    let room = source.room();
    let mut findings = Vec::new();
    for path in source.paths().iter().filter(|path| !source.is_test(path.line)) {
        let mut finding = |message: String| findings.push(Finding::new(&source.path, path.line, message));
        match path.names[0] {
            "crate" | "ssyncp" if room != "lib" => {
                // In the crate's root there are names that are no rooms (a macro, say): they begin no arrow.
                let to = path.names[1];
                if picture.arrows.contains_key(to) && !picture.allows(room, to) {
                    finding(format!("`{room}` must not use `{to}` (imports in docs/architecture.md)"));
                }
            }
            "super" => {
                let climbs = path.names.iter().take_while(|name| **name == "super").count();
                if climbs >= depth(&source.path) + source.inline_depth(path.line) {
                    finding("`super::` leaves the room; say `crate::…`, so that the arrow is seen".into());
                }
            }
            _ => {}
        }
    }
    findings
}

/// Rooms that the picture forgets, and rooms that it invents.
pub(crate) fn forgotten_rooms(picture: &Picture, document: &Text, sources: &[Source]) -> Vec<Finding> {
    let exists = |room: &str| sources.iter().any(|source| source.room() == room);
    let in_a_wing = |room: &str| picture.wings.values().flatten().any(|name| name == room);
    let line = document.text.lines().position(|line| line == "```imports").map_or(1, |at| at + 1);
    let mut findings: Vec<Finding> = sources
        .iter()
        .filter(|source| !matches!(source.room(), "" | "lib"))
        .filter(|source| !picture.arrows.contains_key(source.room()))
        .map(|source| Finding::new(&source.path, 1, format!("room `{}` is not in the imports picture", source.room())))
        .collect();
    for room in picture.arrows.keys() {
        if !exists(room) {
            findings.push(Finding::new(&document.path, line, format!("there is no room `{room}` in src")));
        }
        if !in_a_wing(room) {
            findings.push(Finding::new(&document.path, line, format!("room `{room}` is in no wing")));
        }
    }
    findings
}

/// How many modules deep a file is: 1 for src/wire/mod.rs and src/flow.rs, 2 for src/wire/frame.rs.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').filter(|name| !matches!(*name, "mod.rs" | "lib.rs" | "main.rs")).count()
}

mod tests {
    use super::*;

    const PICTURE: &str =
        "text\n```imports\nthinking: time wire engine\ntime ->\nwire -> time\nengine -> time wire\n```\n";

    fn arrows(path: &str, text: &str) -> Vec<String> {
        let findings = wrong_arrows(&Picture::parse(PICTURE), &Source::new(path, text));
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn an_arrow_that_is_not_in_the_picture_is_found_wherever_it_stands() {
        let message = "`wire` must not use `engine` (imports in docs/architecture.md)";
        assert_eq!(arrows("src/wire/a.rs", "\nuse crate::engine::Engine;"), [format!("src/wire/a.rs:2: {message}")]);
        assert_eq!(arrows("src/wire/a.rs", "use crate::{time, engine};"), [format!("src/wire/a.rs:1: {message}")]);
        assert_eq!(arrows("src/wire/a.rs", "fn a() { crate::engine::go() }"), [format!("src/wire/a.rs:1: {message}")]);
    }

    #[test]
    fn a_way_out_by_super_is_found() {
        let message = "`super::` leaves the room; say `crate::…`, so that the arrow is seen";
        assert_eq!(arrows("src/wire/mod.rs", "use super::engine;"), [format!("src/wire/mod.rs:1: {message}")]);
        assert_eq!(arrows("src/wire/a.rs", "use super::super::engine;"), [format!("src/wire/a.rs:1: {message}")]);
        assert!(arrows("src/wire/a.rs", "use super::Frame;").is_empty());
        assert!(arrows("src/time.rs", "mod inner {\n use super::Instant;\n}").is_empty());
    }

    #[test]
    fn the_picture_own_rooms_tests_and_comments_are_free() {
        assert!(arrows("src/engine/a.rs", "use crate::wire::Frame; use crate::engine::b;").is_empty());
        assert!(arrows("src/wire/a.rs", "//! [`crate::engine::Engine`]\nfn a() {}").is_empty());
        assert!(arrows("src/wire/a.rs", "#[cfg(test)]\nmod tests { use crate::engine::Engine; }").is_empty());
    }

    #[test]
    fn a_room_without_a_line_and_a_line_without_a_room_are_found() {
        let document = Text { path: "docs/a.md".into(), text: PICTURE.into() };
        let sources =
            [Source::new("src/time.rs", ""), Source::new("src/attic/mod.rs", ""), Source::new("src/wire.rs", "")];
        let findings = forgotten_rooms(&Picture::parse(PICTURE), &document, &sources);
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "src/attic/mod.rs:1: room `attic` is not in the imports picture",
                "docs/a.md:2: there is no room `engine` in src",
            ]
        );
    }
}
