//! The documents: links that lead somewhere, and no package that nobody accounts for.

use super::tree::{Finding, Text};

/// Links of a document to files and headings that are not there. `exists` is asked with paths from the top of the
/// tree, `headings` with a document's path.
pub(crate) fn broken_links(
    document: &Text,
    exists: &dyn Fn(&str) -> bool,
    headings: &dyn Fn(&str) -> Vec<String>,
) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, target) in links(&document.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = if file.is_empty() { document.path.clone() } else { resolve(folder, file) };
        if !exists(&path) {
            findings.push(Finding::new(&document.path, line, format!("link to `{target}`: there is no `{path}`")));
        } else if !anchor.is_empty() && !headings(&path).iter().any(|heading| heading == anchor) {
            findings.push(Finding::new(
                &document.path,
                line,
                format!("link to `{target}`: no such heading in `{path}`"),
            ));
        }
    }
    findings
}

/// Packages of the manifest that the document does not name with the manifest's version: `` `libc` 0.2 ``.
pub(crate) fn unnamed_dependencies(manifest: &Text, document: &Text) -> Vec<Finding> {
    let mut section = "";
    let mut findings = Vec::new();
    for (at, line) in manifest.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim();
        } else if section.ends_with("dependencies]")
            && let Some((name, value)) = line.split_once('=')
        {
            let wanted = format!("`{}` {}", name.trim(), version(value));
            if !document.text.contains(&format!("{wanted} ")) {
                let message = format!("{wanted} is not accounted for in {}", document.path);
                findings.push(Finding::new(&manifest.path, at + 1, message));
            }
        }
    }
    findings
}

/// The version in `"0.2"` or `{ version = "0.2", … }`.
fn version(value: &str) -> &str {
    let from = value.split_once("version").map_or(value, |(_, rest)| rest);
    from.split('"').nth(1).unwrap_or_default()
}

/// The anchors of a document's headings, as GitHub makes them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let heading = |line: &&str| line.starts_with('#');
    outside_fences(text).map(|(_, line)| line).filter(heading).map(anchor).collect()
}

fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let text: String = heading.trim_start_matches('#').trim().to_lowercase().chars().filter(|c| kept(*c)).collect();
    text.replace(' ', "-")
}

/// The targets of `[text](target)`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let targets = |line: &str| -> Vec<String> {
        let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        ends.map(|(target, _)| target.to_owned()).collect()
    };
    outside_fences(text).flat_map(|(at, line)| targets(line).into_iter().map(move |target| (at, target))).collect()
}

/// The lines of a document that are not in a fenced block, counted from 1.
fn outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

/// `file` as seen from `folder`, with `..` and `.` worked out.
fn resolve(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

mod tests {
    use super::*;

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](protocol.md) [b](../README.md#the-house) [c](gone.md)\n[d](../README.md#gone) [e](https://example.net/x)\n\
                    ```\n[f](gone.md)\n```\n";
        let document = Text { path: "docs/a.md".into(), text: text.into() };
        let exists = |path: &str| matches!(path, "docs/protocol.md" | "README.md");
        let headings = |_: &str| anchors("# The *house*\n");
        assert_eq!(
            shown(&broken_links(&document, &exists, &headings)),
            [
                "docs/a.md:1: link to `gone.md`: there is no `docs/gone.md`",
                "docs/a.md:2: link to `../README.md#gone`: no such heading in `README.md`"
            ]
        );
    }

    #[test]
    fn a_package_that_nobody_accounts_for_is_found() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nlibc = \"0.2\"\nattic = \"1\"\n\
                    [dev-dependencies]\nloft = { version = \"1\" }\ncellar = { features = [], version = \"2\" }\n";
        let manifest = Text { path: "Cargo.toml".into(), text: text.into() };
        let text = "| `libc` 0.2 | the system's door; attic 1 is not in backticks, and `cellar` 1 was exchanged";
        let document = Text { path: "docs/b.md".into(), text: text.into() };
        assert_eq!(
            shown(&unnamed_dependencies(&manifest, &document)),
            [
                "Cargo.toml:5: `attic` 1 is not accounted for in docs/b.md",
                "Cargo.toml:7: `loft` 1 is not accounted for in docs/b.md",
                "Cargo.toml:8: `cellar` 2 is not accounted for in docs/b.md"
            ]
        );
    }
}
