//! Small habits: short files, nothing left half done, no file that nobody compiles, no word of the machine that the
//! text was written on.

use super::source::{Source, text_at};
use super::tree::{Finding, Text, module_files};
use std::collections::BTreeSet;

/// Longest file of src in lines; a longer one wants a split by noun.
const LONGEST_FILE: usize = 800;

/// Paths that only one person's machine has. In pieces, so that this list does not find itself.
const PRIVATE_PATHS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/tmp/", "wt")];

/// Words of unfinished work in comments. In pieces for the same reason.
const LEFTOVER_WORDS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// A file that is too long to be read in one go.
pub(crate) fn too_long(source: &Source) -> Option<Finding> {
    let lines = source.code.lines().count();
    let message = format!("{lines} lines; a file of src has at most {LONGEST_FILE}: split it by noun");
    (lines > LONGEST_FILE).then(|| Finding::new(&source.path, lines, message))
}

/// Work that was left half done: unfinished bodies, switched-off tests, notes to self.
pub(crate) fn leftovers(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tokens = source.tokens();
    for (at, token) in tokens.iter().enumerate() {
        let unfinished = matches!(token.text, "todo" | "unimplemented") && text_at(&tokens, at + 1) == "!";
        let switched_off = token.text == "ignore" && at > 1 && tokens[at - 1].text == "[" && tokens[at - 2].text == "#";
        if unfinished || switched_off {
            findings.push(Finding::new(&source.path, token.line, format!("`{}` is left here", token.text)));
        }
    }
    for (at, comment) in source.comments.lines().enumerate() {
        for word in LEFTOVER_WORDS.iter().filter(|word| comment.contains(**word)) {
            findings.push(Finding::new(&source.path, at + 1, format!("`{word}` is left here")));
        }
    }
    findings
}

/// Files of src that no `mod` declares: they look like code and are none.
pub(crate) fn orphans(sources: &[Source]) -> Vec<Finding> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&Source> = sources.iter().filter(|source| is_crate_root(&source.path)).collect();
    while let Some(source) = open.pop() {
        if reached.insert(&source.path) {
            let files: Vec<String> =
                source.declared_modules().iter().flat_map(|(name, _)| module_files(&source.path, name)).collect();
            open.extend(sources.iter().filter(|child| files.contains(&child.path)));
        }
    }
    let orphan = |source: &&Source| source.path.starts_with("src/") && !reached.contains(source.path.as_str());
    let message = "no `mod` declares this file";
    sources.iter().filter(orphan).map(|source| Finding::new(&source.path, 1, message)).collect()
}

/// Paths of one person's machine.
pub(crate) fn private_paths(file: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for path in PRIVATE_PATHS.iter().filter(|path| line.contains(**path)) {
            findings.push(Finding::new(&file.path, at + 1, format!("`{path}` is a path of one machine")));
        }
    }
    findings
}

fn is_crate_root(path: &str) -> bool {
    matches!(path, "src/lib.rs" | "src/main.rs") || path.starts_with("src/bin/")
}

mod tests {
    use super::*;

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_file_of_801_lines_is_too_long() {
        assert!(too_long(&Source::new("src/a.rs", &"\n".repeat(800))).is_none());
        assert_eq!(
            too_long(&Source::new("src/a.rs", &"\n".repeat(801))).map(|finding| finding.to_string()),
            Some("src/a.rs:801: 801 lines; a file of src has at most 800: split it by noun".to_owned())
        );
    }

    #[test]
    fn half_done_work_is_found() {
        let source = Source::new("src/a.rs", "fn a() { todo!() }\n#[ignore]\nfn b() { unimplemented!(\"x\") }\n");
        assert_eq!(
            shown(&leftovers(&source)),
            [
                "src/a.rs:1: `todo` is left here",
                "src/a.rs:2: `ignore` is left here",
                "src/a.rs:3: `unimplemented` is left here"
            ]
        );
        let note = format!("// {}: later\n", LEFTOVER_WORDS[0]);
        assert_eq!(leftovers(&Source::new("src/a.rs", &note)).len(), 1);
        assert!(leftovers(&Source::new("src/a.rs", "let todo = ignore; // \"todo!\"\n")).is_empty());
    }

    #[test]
    fn a_file_that_no_mod_declares_is_found() {
        let sources = [
            Source::new("src/lib.rs", "pub mod wire;"),
            Source::new("src/wire/mod.rs", "mod frame; mod inline { }"),
            Source::new("src/wire/frame.rs", ""),
            Source::new("src/wire/attic.rs", ""),
        ];
        assert_eq!(shown(&orphans(&sources)), ["src/wire/attic.rs:1: no `mod` declares this file"]);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let file = Text { path: "README.md".into(), text: format!("a\ncd {}x/y\n", PRIVATE_PATHS[0]) };
        let expected = format!("README.md:2: `{}` is a path of one machine", PRIVATE_PATHS[0]);
        assert_eq!(shown(&private_paths(&file)), [expected]);
    }
}
