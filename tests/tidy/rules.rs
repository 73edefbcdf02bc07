//! The rules of docs/protocol.md: numbered without a gap, and each of them that is not planned is named by a test.

use super::source::Source;
use super::tree::{Finding, Text};
use std::collections::{BTreeMap, BTreeSet};

/// A rule's number: section, subsection (0 for the section itself), rule.
pub(crate) type Number = (u32, u32, u32);

/// The rules as the document states them.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Every rule, with its line and whether it is planned.
    stated: BTreeMap<Number, (usize, bool)>,
    /// Every section that may be named: those with a heading, and n.0.
    sections: BTreeSet<(u32, u32)>,
    /// What is wrong with the numbering.
    pub(crate) findings: Vec<Finding>,
}

/// A mention of a rule or (without its last number) of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mention {
    section: (u32, u32),
    rule: Option<u32>,
    line: usize,
}

impl Rules {
    /// Reads the document: headings `## 3.` and `### 3.2`, rules `**[3.2.1]**`, each perhaps followed by `*planned*`.
    pub(crate) fn parse(document: &Text) -> Self {
        let mut rules = Rules::default();
        let mut heading = (0, 0);
        let mut last = (0, 0, 0);
        for (at, text) in document.text.lines().enumerate() {
            if let Some(section) = heading_number(text) {
                heading = section;
                rules.sections.extend([section, (section.0, 0)]);
            }
            for (number, planned) in rules_in(text) {
                let mut wrong = |message: String| rules.findings.push(Finding::new(&document.path, at + 1, message));
                if (number.0, number.1) != heading {
                    wrong(format!("rule {} stands under heading {}.{}", show(number), heading.0, heading.1));
                }
                let first_of_section = (number.0, number.1) != (last.0, last.1);
                let expected = if first_of_section { 1 } else { last.2 + 1 };
                if number.2 != expected {
                    wrong(format!("rule {} where number {expected} of its section was due", show(number)));
                }
                if rules.stated.insert(number, (at + 1, planned)).is_some() {
                    wrong(format!("rule {} is stated twice", show(number)));
                }
                last = number;
            }
        }
        rules
    }

    /// Names of rules and sections that are not in the document, anywhere in the code.
    pub(crate) fn unknown_mentions(&self, source: &Source) -> Vec<Finding> {
        let known = |mention: &Mention| match mention.rule {
            Some(rule) => self.stated.contains_key(&(mention.section.0, mention.section.1, rule)),
            None => self.sections.contains(&mention.section),
        };
        mentions(&source.comments)
            .iter()
            .filter(|mention| !known(mention))
            .map(|mention| {
                Finding::new(&source.path, mention.line, format!("{} is no rule of the protocol", mention.show()))
            })
            .collect()
    }

    /// Rules without a proof, and rules called planned that a test proves.
    pub(crate) fn unproven(&self, document: &Text, sources: &[Source]) -> Vec<Finding> {
        let proven: BTreeSet<Number> = sources.iter().flat_map(proven_rules).collect();
        let mut findings = Vec::new();
        for (number, (line, planned)) in &self.stated {
            let message = match (planned, proven.contains(number)) {
                (false, false) => "is named by no test",
                (true, true) => "is marked planned, but a test proves it",
                _ => continue,
            };
            findings.push(Finding::new(&document.path, *line, format!("rule {} {message}", show(*number))));
        }
        findings
    }
}

impl Mention {
    fn show(&self) -> String {
        match self.rule {
            Some(rule) => show((self.section.0, self.section.1, rule)),
            None => format!("[{}.{}]", self.section.0, self.section.1),
        }
    }
}

fn show(number: Number) -> String {
    format!("[{}.{}.{}]", number.0, number.1, number.2)
}

/// Rules that the file's tests name in their comments.
fn proven_rules(source: &Source) -> Vec<Number> {
    mentions(&source.comments)
        .iter()
        .filter(|mention| source.is_test(mention.line))
        .filter_map(|mention| mention.rule.map(|rule| (mention.section.0, mention.section.1, rule)))
        .collect()
}

/// `## 3. On the wire` is section (3, 0), `### 3.2 Header` is (3, 2).
fn heading_number(line: &str) -> Option<(u32, u32)> {
    let text = line.strip_prefix("### ").or_else(|| line.strip_prefix("## "))?;
    let word = text.split_whitespace().next()?.trim_end_matches('.');
    match numbers(word)?.as_slice() {
        [section] => Some((*section, 0)),
        [section, subsection] => Some((*section, *subsection)),
        _ => None,
    }
}

/// The rules that a line of the document states.
fn rules_in(line: &str) -> Vec<(Number, bool)> {
    let stated = line.split("**[").skip(1).filter_map(|rest| {
        let (inside, after) = rest.split_once("]**")?;
        match numbers(inside)?.as_slice() {
            [section, subsection, rule] => {
                Some(((*section, *subsection, *rule), after.trim_start().starts_with("*planned*")))
            }
            _ => None,
        }
    });
    stated.collect()
}

/// Every `[3.2]` and `[3.2.1]` of a text.
fn mentions(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for inside in line.split('[').skip(1).filter_map(|rest| rest.split_once(']')) {
            let (section, rule) = match numbers(inside.0).as_deref() {
                Some([section, subsection]) => ((*section, *subsection), None),
                Some([section, subsection, rule]) => ((*section, *subsection), Some(*rule)),
                _ => continue,
            };
            found.push(Mention { section, rule, line: at + 1 });
        }
    }
    found
}

/// The numbers of `3.2.1`; nothing if anything else is in it.
fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

mod tests {
    use super::*;

    fn document(text: &str) -> Text {
        Text { path: "docs/p.md".into(), text: text.into() }
    }

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    const GOOD: &str = "## 3. Wire\n**[3.0.1]** A.\n### 3.2 Header\n**[3.2.1]** B.\n**[3.2.2]** *planned* C.\n";

    #[test]
    fn gaps_repetitions_and_strays_are_found() {
        assert!(Rules::parse(&document(GOOD)).findings.is_empty());
        let gap = Rules::parse(&document("### 3.2 A\n**[3.2.1]** A\n**[3.2.3]** B\n"));
        assert_eq!(shown(&gap.findings), ["docs/p.md:3: rule [3.2.3] where number 2 of its section was due"]);
        let twice = Rules::parse(&document("### 3.2 A\n**[3.2.1]** A\n**[3.2.1]** B\n"));
        assert_eq!(
            shown(&twice.findings),
            [
                "docs/p.md:3: rule [3.2.1] where number 2 of its section was due",
                "docs/p.md:3: rule [3.2.1] is stated twice"
            ]
        );
        let stray = Rules::parse(&document("### 3.3 A\n**[3.2.1]** A\n"));
        assert_eq!(shown(&stray.findings), ["docs/p.md:2: rule [3.2.1] stands under heading 3.3"]);
    }

    #[test]
    fn a_rule_that_does_not_exist_is_found() {
        let rules = Rules::parse(&document(GOOD));
        let source = Source::new("src/a.rs", "// [3.2.9] and [3.7], but [3.2.1], [3.2] and [3.0]\nlet a = [1.5];\n");
        assert_eq!(
            shown(&rules.unknown_mentions(&source)),
            ["src/a.rs:1: [3.2.9] is no rule of the protocol", "src/a.rs:1: [3.7] is no rule of the protocol"]
        );
    }

    #[test]
    fn a_rule_without_a_test_is_found_and_a_mention_in_the_code_is_no_proof() {
        let document = document(GOOD);
        let rules = Rules::parse(&document);
        let code =
            Source::new("src/a.rs", "/// [3.0.1]\nfn a() {}\n#[cfg(test)]\nmod tests {\n /// [3.2.1]\n fn b() {}\n}\n");
        assert_eq!(shown(&rules.unproven(&document, &[code])), ["docs/p.md:2: rule [3.0.1] is named by no test"]);
    }

    #[test]
    fn a_rule_called_planned_that_is_proven_is_found() {
        let document = document(GOOD);
        let tests = Source::new("tests/a.rs", "// [3.0.1] [3.2.1] [3.2.2]\n");
        let findings = Rules::parse(&document).unproven(&document, &[tests]);
        assert_eq!(shown(&findings), ["docs/p.md:5: rule [3.2.2] is marked planned, but a test proves it"]);
    }
}
