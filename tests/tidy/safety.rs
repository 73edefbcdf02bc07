//! Where `unsafe` may stand, and what must stand beside it.

use super::source::{Source, Token, text_at};
use super::tree::Finding;

/// The rooms in which `unsafe` may stand.
const UNSAFE_ROOMS: [&str; 2] = ["sys", "ffi"];

/// Everything that is wrong with the file's `unsafe`, tests included. (A test outside src may need it: an allocator that
/// counts is `unsafe` by its trait. It says why, like everybody.)
pub(crate) fn unsafe_findings(source: &Source) -> Vec<Finding> {
    let tokens = source.tokens();
    let mut findings = Vec::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at].text == "unsafe") {
        let mut finding = |message: &str| findings.push(Finding::new(&source.path, tokens[at].line, message));
        if source.path.starts_with("src/") && !UNSAFE_ROOMS.contains(&source.room()) {
            finding("`unsafe` outside src/sys and src/ffi");
        }
        if source.room() == "sys" && is_exported_function(&tokens, at) {
            finding("src/sys exports no `unsafe fn`: make it safe, or keep it inside");
        }
        if matches!(text_at(&tokens, at + 1), "{" | "impl") && !has_safety_comment(source, tokens[at].line) {
            finding("`unsafe` without a `// SAFETY:` comment above it");
        }
    }
    findings
}

/// Whether a room of the thinking wing forbids `unsafe` in its first file.
pub(crate) fn forbids_unsafe(source: &Source) -> Vec<Finding> {
    if source.code.contains("#![forbid(unsafe_code)]") {
        return Vec::new();
    }
    vec![Finding::new(&source.path, 1, "a room of the thinking wing begins with `#![forbid(unsafe_code)]`")]
}

/// Whether the `unsafe` at `at` is that of `pub unsafe fn` or `pub(crate) unsafe fn`.
fn is_exported_function(tokens: &[Token<'_>], at: usize) -> bool {
    let function =
        text_at(tokens, at + 1) == "fn" || (text_at(tokens, at + 1) == "extern" && text_at(tokens, at + 2) == "fn");
    let before: Vec<&str> =
        tokens[..at].iter().rev().take(5).map(|token| token.text).filter(|text| *text != "const").collect();
    let public = before.first() == Some(&"pub") || before.starts_with(&[")", "crate", "(", "pub"]);
    function && public
}

/// Whether a comment with `SAFETY:` stands on the line itself, or above it within the same statement.
fn has_safety_comment(source: &Source, line: usize) -> bool {
    let code: Vec<&str> = source.code.lines().collect();
    let comments: Vec<&str> = source.comments.lines().collect();
    let mut at = line;
    loop {
        if comments[at - 1].contains("SAFETY:") {
            return true;
        }
        if at == 1 {
            return false;
        }
        at -= 1;
        let above = code[at - 1].trim();
        let blank = above.is_empty() && comments[at - 1].trim().is_empty();
        // An attribute between the comment and its block belongs to the statement.
        if blank || (above.ends_with([';', '{', '}']) && !comments[at - 1].contains("SAFETY:")) {
            return false;
        }
    }
}

mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        unsafe_findings(&Source::new(path, text)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn unsafe_outside_its_rooms_is_found_and_the_word_alone_is_not() {
        assert_eq!(
            findings("src/wire/a.rs", "// SAFETY: no\nunsafe { a() }"),
            ["src/wire/a.rs:2: `unsafe` outside src/sys and src/ffi"]
        );
        assert_eq!(
            findings("tests/a.rs", "unsafe { a() }"),
            ["tests/a.rs:1: `unsafe` without a `// SAFETY:` comment above it"]
        );
        assert!(findings("src/wire/a.rs", "#![forbid(unsafe_code)]\n// unsafe\nlet a = \"unsafe\";").is_empty());
    }

    #[test]
    fn an_exported_unsafe_function_of_sys_is_found() {
        let expected = ["src/sys/a.rs:1: src/sys exports no `unsafe fn`: make it safe, or keep it inside"];
        assert_eq!(findings("src/sys/a.rs", "pub unsafe fn a() {}"), expected);
        assert_eq!(findings("src/sys/a.rs", "pub const unsafe fn a() {}"), expected);
        assert_eq!(findings("src/sys/a.rs", "pub(crate) unsafe extern \"C\" fn a() {}"), expected);
        assert!(findings("src/sys/a.rs", "unsafe fn a() {}").is_empty());
    }

    #[test]
    fn a_block_without_its_reason_is_found() {
        let expected = ["src/sys/a.rs:3: `unsafe` without a `// SAFETY:` comment above it"];
        assert_eq!(findings("src/sys/a.rs", "// SAFETY: of another\nlet b = 1;\nlet a = unsafe { b() };"), expected);
        assert_eq!(findings("src/sys/a.rs", "// SAFETY: far away\n\nunsafe impl Send for A {}"), expected);
        assert!(findings("src/sys/a.rs", "// SAFETY: fine\nlet a =\n    unsafe { b() };").is_empty());
        assert!(findings("src/sys/a.rs", "// SAFETY: two lines\n// of reason\nunsafe impl Send for A {}").is_empty());
    }

    #[test]
    fn a_thinking_room_without_its_lock_is_found() {
        let open = forbids_unsafe(&Source::new("src/wire/mod.rs", "//! #![forbid(unsafe_code)]\n"));
        assert_eq!(open.len(), 1, "in a comment it forbids nothing");
        assert!(forbids_unsafe(&Source::new("src/wire/mod.rs", "//! Doc.\n#![forbid(unsafe_code)]\n")).is_empty());
    }
}
