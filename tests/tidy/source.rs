//! One Rust file as the checks see it: its code without comments and strings, its comments without code, and which
//! lines are tests. Everything keeps its place, so a byte's line is the same in each view.
//!
//! ```text
//!   text      let a = "unsafe"; // SAFETY: none      what the file says
//!   code      let a =         ;                      comments and literals blanked
//!   comments                    // SAFETY: none      everything else blanked
//! ```

/// A Rust file, split into views.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path from the top of the tree, with `/`.
    pub(crate) path: String,
    /// The file without comments, strings and character literals.
    pub(crate) code: String,
    /// The comments alone.
    pub(crate) comments: String,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`.
    test_lines: Vec<bool>,
}

/// A word or a sign of the code, with its line (counted from 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
    at: usize,
}

/// A path as written, groups of a `use` spelled out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Path<'a> {
    pub(crate) names: Vec<&'a str>,
    pub(crate) line: usize,
}

impl Source {
    /// Splits `text`, which stands in the file `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let whole = code.contains("#![cfg(test)]");
        let mut test_lines = vec![whole; text.lines().count() + 2];
        for (first, last) in test_items(&code) {
            test_lines[first..=last].fill(true);
        }
        Source { path: path.to_owned(), code, comments, test_lines }
    }

    /// Whether the line (from 1) is a test's.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.path.starts_with("tests/") || self.test_lines.get(line).copied().unwrap_or(false)
    }

    /// Declares the whole file a test: its parent says `#[cfg(test)] mod it;`.
    pub(crate) fn mark_as_test(&mut self) {
        self.test_lines.fill(true);
    }

    /// The room that the file belongs to: `src/wire/frame.rs` and `src/wire.rs` are in `wire`. Empty outside src.
    pub(crate) fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or("");
        let first = inside.split('/').next().unwrap_or("");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Words and signs of the code, tests included.
    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.code)
    }

    /// Every path of two or more names, tests included.
    pub(crate) fn paths(&self) -> Vec<Path<'_>> {
        let tokens = self.tokens();
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let starts = is_name(tokens[at].text) && text_at(&tokens, at + 1) == "::";
            if starts && (at == 0 || tokens[at - 1].text != "::") {
                at = walk_path(&tokens, at, &mut Vec::new(), &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    /// How many `mod name { … }` blocks stand around a line.
    pub(crate) fn inline_depth(&self, line: usize) -> usize {
        let tokens = self.tokens();
        let opens = |at: usize| tokens[at].text == "mod" && text_at(&tokens, at + 2) == "{";
        (0..tokens.len())
            .filter(|&at| opens(at))
            .filter(|&at| tokens[at].line <= line && line <= tokens[closing(&tokens, at + 2)].line)
            .count()
    }

    /// Modules that the file declares by `mod name;`, each with whether it stands under `#[cfg(test)]`.
    pub(crate) fn declared_modules(&self) -> Vec<(&str, bool)> {
        let tokens = self.tokens();
        (0..tokens.len())
            .filter(|&at| tokens[at].text == "mod" && text_at(&tokens, at + 2) == ";")
            .map(|at| (tokens[at + 1].text, self.is_test(tokens[at].line)))
            .collect()
    }
}

/// The text of a token, or nothing past the end.
pub(crate) fn text_at<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads one path from `at` on (a name before `::`) and what it groups; answers where it ends.
fn walk_path<'a>(tokens: &[Token<'a>], mut at: usize, prefix: &mut Vec<&'a str>, found: &mut Vec<Path<'a>>) -> usize {
    let depth = prefix.len();
    let line = tokens[at].line;
    while is_name(text_at(tokens, at)) || text_at(tokens, at) == "*" {
        prefix.push(tokens[at].text);
        at += 1;
        if text_at(tokens, at) != "::" {
            break;
        }
        at += 1;
    }
    if text_at(tokens, at) == "{" && text_at(tokens, at.wrapping_sub(1)) == "::" {
        at += 1;
        while at < tokens.len() && text_at(tokens, at) != "}" {
            let starts = is_name(tokens[at].text) || tokens[at].text == "*";
            at = if starts { walk_path(tokens, at, prefix, found) } else { at + 1 };
        }
        at += 1;
    } else if prefix.len() > 1 {
        found.push(Path { names: prefix.clone(), line });
    }
    prefix.truncate(depth);
    at
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut line, mut rest, mut at) = (1, code, 0);
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            found.push(Token { text: &rest[..length], line, at });
        }
        line += usize::from(first == '\n');
        at += length;
        rest = &rest[length..];
    }
    found
}

/// The index of the brace that closes the one at `open`; the last token if none does.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// First and last line of every item under `#[cfg(test)]` (or `all(test, …)`), attribute included.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at].text == "#") {
        let words: String = tokens[at..].iter().take(7).map(|token| token.text).collect();
        if !words.starts_with("#[cfg(test)]") && !words.starts_with("#[cfg(all(test") {
            continue;
        }
        let attribute_end = (at..tokens.len()).find(|&end| tokens[end].text == "]").unwrap_or(at);
        let ends = |token: &Token<'_>| token.text == "{" || token.text == ";";
        let Some(body) = (attribute_end..tokens.len()).find(|&body| ends(&tokens[body])) else { continue };
        let last = if tokens[body].text == "{" { closing(&tokens, body) } else { body };
        found.push((tokens[at].line, tokens[last].line));
    }
    found
}

/// Splits a file into its code and its comments, both as long as the file, the rest blanked.
fn split(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let (length, kind) = next_piece(rest, first, after_word);
        let piece = &rest[..length];
        let blank: String = piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.push_str(if kind == Piece::Code { piece } else { &blank });
        comments.push_str(if kind == Piece::Comment { piece } else { &blank });
        after_word = kind == Piece::Code && (first.is_alphanumeric() || first == '_');
        rest = &rest[length..];
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    Literal,
}

/// Length in bytes and kind of what `rest` begins with.
fn next_piece(rest: &str, first: char, after_word: bool) -> (usize, Piece) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Piece::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Piece::Comment);
    }
    let literal = match first {
        '"' => Some(quoted(rest, 0)),
        '\'' => character(rest),
        'r' | 'b' | 'c' if !after_word => prefixed(rest),
        _ => None,
    };
    literal.map_or((first.len_utf8(), Piece::Code), |length| (length, Piece::Literal))
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of a string that opens with a quote at `open`.
fn quoted(rest: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at <= open) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `'x'` or `'\n'`; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut inside = rest.char_indices().skip(1);
    let (_, first) = inside.next()?;
    if first == '\\' {
        inside.next();
        return rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| at + 3);
    }
    match inside.next() {
        Some((at, '\'')) => Some(at + 1),
        _ => None,
    }
}

/// Length of a literal with a prefix: `b"…"`, `c"…"`, `b'…'`, `r"…"`, `br##"…"##`.
fn prefixed(rest: &str) -> Option<usize> {
    let letters = rest.find(|c| !matches!(c, 'r' | 'b' | 'c'))?;
    let (letters, after) = rest.split_at(letters);
    if letters == "b" && after.starts_with('\'') {
        return character(after).map(|length| length + 1);
    }
    if !letters.ends_with('r') {
        return after.starts_with('"').then(|| quoted(rest, letters.len()));
    }
    let hashes = after.find(|c| c != '#')?;
    if !after[hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = letters.len() + hashes + 1;
    Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()))
}

mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let source = Source::new(
            "src/a.rs",
            "let a = \"unsafe \\\" x\"; // unsafe\n/* unsafe /* nested */ unsafe */ let b = r#\"unsafe \" x\"#; let c = '\"'; c\n",
        );
        assert!(!source.code.contains("unsafe"));
        assert!(source.code.contains("let b"));
        assert!(source.code.contains("let c"));
        assert!(source.code.trim_end().ends_with("; c"));
        assert_eq!(source.comments.matches("unsafe").count(), 3);
    }

    #[test]
    fn a_lifetime_opens_no_literal() {
        let source = Source::new("src/a.rs", "fn a<'a>(b: &'a str) -> &'a str { unsafe { b } } let c = b'\\''; d");
        assert!(source.code.contains("unsafe"));
        assert!(source.code.ends_with("; d"));
    }

    #[test]
    fn a_test_module_ends_where_its_brace_closes() {
        let source = Source::new("src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { }\n}\nfn c() {}\n");
        let tests: Vec<bool> = (1..=6).map(|line| source.is_test(line)).collect();
        assert_eq!(tests, [false, true, true, true, true, false]);
    }

    #[test]
    fn the_groups_of_a_use_are_spelled_out() {
        let source =
            Source::new("src/a.rs", "use crate::{flow, wire::{frame::Frame, *}};\nlet x = crate::time::ZERO;\n");
        let paths: Vec<String> = source.paths().iter().map(|path| path.names.join("::")).collect();
        assert_eq!(paths, ["crate::flow", "crate::wire::frame::Frame", "crate::wire::*", "crate::time::ZERO"]);
    }

    #[test]
    fn a_file_knows_its_room() {
        assert_eq!(Source::new("src/wire/frame.rs", "").room(), "wire");
        assert_eq!(Source::new("src/flow.rs", "").room(), "flow");
        assert_eq!(Source::new("tests/tidy.rs", "").room(), "");
    }
}
