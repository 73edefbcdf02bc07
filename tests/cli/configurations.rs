//! Every configuration that stands in a document or is shipped is one that `ssyncp check` takes. They are found by themselves:
//!
//! ```text
//!   *.md, docs/*.md    each ```toml block; one that is only a part is completed with what must be given
//!                      each `cat > NAME.toml <<END` of a shell's block
//!   packaging/*.toml   as they are
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A configuration, and where it stands.
struct Example {
    place: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder with this extension, in the order of their names.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

fn documents() -> Vec<(String, String)> {
    let files = [files("", "md"), files("docs", "md")].concat();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// What stands between a line that `begins` and one that is `end`.
fn blocks(document: &(String, String), begins: impl Fn(&str) -> bool, end: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = document.1.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if begins(line) {
            let text = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != end)
                .fold(String::new(), |text, line| text + line + "\n");
            found.push(Example { place: format!("{}:{}", document.0, number + 1), text });
        }
    }
    found
}

/// What must be given is put before a block that is only a part. A table that is begun there goes on in the block.
fn completed(text: &str) -> (String, bool) {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let node = table.get("node").and_then(|node| node.get("id")).is_some();
    let group = table.contains_key("group");
    let mut whole = text.to_owned();
    if !node {
        whole = match whole.contains("[node]\n") {
            true => whole.replacen("[node]\n", "[node]\nid = 1\n", 1),
            false => format!("[node]\nid = 1\n\n{whole}"),
        };
    }
    if !group {
        whole.push_str("\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n");
    }
    (whole, node && group)
}

/// `ssyncp check` takes it, with a secret that exists in the place of the one that it names, and a shell's folder that does.
fn is_taken(example: &Example, text: &str, directory: &Path) {
    let secret = directory.join("secret").display().to_string();
    let text = text.replace("/etc/ssyncp/secret", &secret).replace("$PWD", &directory.display().to_string());
    let file = directory.join("ssyncp.toml");
    fs::write(&file, &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ssyncp")).arg("check").arg("-c").arg(&file).output().unwrap();
    let said = [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "{}: {said}\n{text}", example.place);
}

fn directory_with_a_secret() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_ssyncp")).arg("keygen").arg(directory.path().join("secret")).output();
    assert!(made.unwrap().status.success());
    directory
}

#[test]
fn check_takes_every_configuration_of_the_documents() {
    let directory = directory_with_a_secret();
    let (mut wholes, mut parts) = (Vec::new(), Vec::new());
    for document in documents() {
        for example in blocks(&document, |line| line == "```toml", "```") {
            let (text, whole) = completed(&example.text);
            is_taken(&example, &text, directory.path());
            if whole { &mut wholes } else { &mut parts }.push(example.place);
        }
    }
    let of = |file: &str, all: &[String]| all.iter().filter(|place| place.starts_with(file)).count();
    // Two nodes, keepalived's way and ours. Who adds one needs to change nothing here.
    assert!(of("docs/operations.md", &wholes) >= 4, "{wholes:?}");
    assert!(of("docs/operations.md", &parts) >= 1 && of("README.md", &parts) >= 1, "{parts:?}");
}

#[test]
fn check_takes_every_configuration_that_a_reader_is_to_paste() {
    let directory = directory_with_a_secret();
    let mut found = 0;
    for document in documents() {
        let begins = |line: &str| line.starts_with("cat > ") && line.ends_with(".toml <<END");
        for example in blocks(&document, begins, "END") {
            assert!(completed(&example.text).1, "{} is not whole", example.place);
            is_taken(&example, &example.text, directory.path());
            found += 1;
        }
    }
    assert!(found >= 2, "the README's two nodes by hand, at least, and not {found}");
}

#[test]
fn check_takes_every_configuration_that_is_shipped() {
    let directory = directory_with_a_secret();
    let shipped = files("packaging", "toml");
    assert!(shipped.iter().any(|path| path.ends_with("ssyncp.toml")));
    for path in shipped {
        let text = fs::read_to_string(&path).unwrap();
        is_taken(&Example { place: path.display().to_string(), text: text.clone() }, &text, directory.path());
    }
}

#[test]
fn a_part_that_check_refuses_is_refused() {
    let directory = directory_with_a_secret();
    let example = Example { place: "here".into(), text: "[[group]]\nsync_id = 51\nnonsense = true\n".into() };
    let (text, whole) = completed(&example.text);
    assert!(!whole);
    let refused = std::panic::catch_unwind(|| is_taken(&example, &text, directory.path()));
    assert!(refused.unwrap_err().downcast_ref::<String>().unwrap().contains("nonsense"));
}
