//! The tree on disk, and what is found wrong in it.

use super::source::Source;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Something wrong, at a place that an editor can jump to.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    pub(crate) message: String,
}

impl Finding {
    /// A finding in `path` at `line` (from 1).
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Fails with one line per finding.
#[track_caller]
pub(crate) fn assert_clean(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s):\n{}", lines.len(), lines.join("\n"));
}

/// A text file with its path from the top of the tree.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The top of the tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One file of the tree, which must be there.
pub(crate) fn read(path: &str) -> Text {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Text { path: path.to_owned(), text }
}

/// Every text file that belongs to the project: not what is built, and not what git keeps for itself.
pub(crate) fn texts() -> Vec<Text> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file under one of the folders, with test modules in files of their own marked as tests.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    // Taken apart once for all checks: that is what takes their time.
    static ALL: OnceLock<Vec<Source>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let files = texts().into_iter().filter(|file| file.path.ends_with(".rs"));
        let mut sources: Vec<Source> = files.map(|file| Source::new(&file.path, &file.text)).collect();
        mark_test_files(&mut sources);
        sources
    });
    let wanted = |source: &&Source| folders.iter().any(|folder| source.path.starts_with(folder));
    all.iter().filter(wanted).cloned().collect()
}

/// Marks every file that a `#[cfg(test)] mod it;` stands for, and every file below it.
fn mark_test_files(sources: &mut [Source]) {
    loop {
        let of_tests: Vec<String> = sources.iter().flat_map(files_of_test_modules).collect();
        let is_news = |source: &&mut Source| of_tests.contains(&source.path) && !source.is_test(1);
        let mut news = false;
        for source in sources.iter_mut().filter(is_news) {
            source.mark_as_test();
            news = true;
        }
        if !news {
            return;
        }
    }
}

fn files_of_test_modules(source: &Source) -> Vec<String> {
    let declared = source.declared_modules();
    declared.iter().filter(|(_, is_test)| *is_test).flat_map(|(name, _)| module_files(&source.path, name)).collect()
}

/// The two places where `mod name;` of the file `path` may have its text.
pub(crate) fn module_files(path: &str, name: &str) -> [String; 2] {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let (folder, file) = stem.rsplit_once('/').unwrap_or(("", stem));
    let home = if matches!(file, "mod" | "lib" | "main") { folder.to_owned() } else { stem.to_owned() };
    [format!("{home}/{name}.rs"), format!("{home}/{name}/mod.rs")]
}

fn collect(folder: &Path, found: &mut Vec<Text>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || matches!(name.as_str(), "target" | ".git") {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let inside = path.strip_prefix(root()).expect("below the top").to_string_lossy().into_owned();
            found.push(Text { path: inside, text });
        }
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compilers() {
        assert_eq!(Finding::new("src/a.rs", 7, "wrong").to_string(), "src/a.rs:7: wrong");
    }

    #[test]
    #[should_panic(expected = "src/a.rs:7: wrong")]
    fn a_finding_fails_the_test() {
        assert_clean(&[Finding::new("src/a.rs", 7, "wrong")]);
    }

    #[test]
    fn files_below_a_test_module_are_tests() {
        let mut sources = [
            Source::new("src/engine/mod.rs", "mod peers;\n#[cfg(test)]\nmod tests;\n"),
            Source::new("src/engine/peers.rs", "fn a() {}\n"),
            Source::new("src/engine/tests/mod.rs", "mod roles;\n"),
            Source::new("src/engine/tests/roles.rs", "fn a() {}\n"),
        ];
        mark_test_files(&mut sources);
        let tests: Vec<bool> = sources.iter().map(|source| source.is_test(1)).collect();
        assert_eq!(tests, [false, false, true, true]);
    }

    #[test]
    fn a_module_has_its_text_beside_or_below() {
        assert_eq!(module_files("src/lib.rs", "wire"), ["src/wire.rs", "src/wire/mod.rs"]);
        assert_eq!(module_files("src/wire/mod.rs", "frame"), ["src/wire/frame.rs", "src/wire/frame/mod.rs"]);
        assert_eq!(module_files("src/flow.rs", "tests"), ["src/flow/tests.rs", "src/flow/tests/mod.rs"]);
    }
}
