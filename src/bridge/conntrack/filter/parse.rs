//! From the operator's words to tests. A mistake names its column and its cure.

use super::{Ends, Network, PROTOCOLS, STATES, STATUS, Term, Test};
use crate::planted::{Plant, planted};
use std::fmt::Display;
use std::net::IpAddr;

/// Most words of one rule.
const WORDS_MAX: usize = 512;

/// What is wrong with a rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct FilterError {
    /// Where in the rule, in characters from 1.
    pub column: usize,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// What the words of a rule are for.
const CONDITIONS: &str = "a protocol (tcp, udp, ...), src, dst, addr, sport, dport, port, mark, zone, \"ct state\" or \
                          \"ct status\"";

/// Reads a rule: alternatives, each a row of terms.
pub(super) fn alternatives(text: &str) -> Result<Vec<Vec<Term>>, FilterError> {
    let mut words = Words::new(text)?;
    if words.peek().is_none() {
        return Err(words.wrong(format!("an empty rule; write {CONDITIONS}")));
    }
    let mut alternatives = vec![Vec::new()];
    loop {
        let terms = alternatives.last_mut().expect("never empty");
        term(&mut words, terms)?;
        match words.next() {
            None => return Ok(alternatives),
            Some("and") => {}
            Some("or") => alternatives.push(Vec::new()),
            Some(other) => {
                let message = format!("\"{other}\" does not go on from here; write \"and\", \"or\" or nothing");
                return Err(words.wrong_before(message));
            }
        }
    }
}

/// What no rule has, and others' rules do.
const BRACKETS: [char; 2] = ['(', '{'];
const UNBRACKETED: &str =
    "there are no brackets; write a list as \"dport 80, 443\", and of what is in brackets several rules";

/// Words and commas, each with its column.
struct Words<'t> {
    words: Vec<(usize, &'t str)>,
    at: usize,
    end: usize,
}

impl<'t> Words<'t> {
    fn new(text: &'t str) -> Result<Self, FilterError> {
        let mut words = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
            rest = &rest[start..];
            let length = if rest.starts_with(',') {
                1
            } else {
                rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len())
            };
            let column = 1 + text[..text.len() - rest.len()].chars().count();
            if words.len() == WORDS_MAX {
                let message = format!("more than {WORDS_MAX} words; make several rules of it");
                return Err(FilterError { column, message });
            }
            words.push((column, &rest[..length]));
            rest = &rest[length..];
        }
        Ok(Words { words, at: 0, end: 1 + text.chars().count() })
    }

    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).map(|(_, word)| *word)
    }

    fn next(&mut self) -> Option<&'t str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// A mistake at the next word.
    fn wrong(&self, message: impl Display) -> FilterError {
        let word = if planted(Plant::RuleEnd) { Some(&self.words[self.at]) } else { self.words.get(self.at) };
        let column = word.map_or(self.end, |(column, _)| *column);
        FilterError { column, message: message.to_string() }
    }

    /// A mistake at the word that was just taken.
    fn wrong_before(&self, message: impl Display) -> FilterError {
        let column = self.words.get(self.at.saturating_sub(1)).map_or(self.end, |(column, _)| *column);
        FilterError { column, message: message.to_string() }
    }

    /// One or more values with commas between them, each read by `read`; `what` says what is expected.
    fn list<T>(&mut self, what: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, FilterError> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                None => return Err(self.wrong(format!("something is missing; write {what}"))),
                Some(word) if word.starts_with(BRACKETS) => return Err(self.wrong_before(UNBRACKETED)),
                Some(word) => values.push(read(word).map_err(|message| self.wrong_before(message))?),
            }
            if self.peek() != Some(",") {
                return Ok(values);
            }
            self.at += 1;
        }
    }
}

fn term(words: &mut Words<'_>, terms: &mut Vec<Term>) -> Result<(), FilterError> {
    let mut negated = false;
    while words.peek() == Some("not") {
        negated = !negated;
        words.at += 1;
    }
    let from_protocol = words.peek().is_some_and(|word| protocol(word).is_ok());
    let test = condition(words)?;
    let goes_on = from_protocol
        && matches!(test, Test::Protocol(_))
        && matches!(words.peek(), Some("sport" | "dport" | "port" | "src" | "dst" | "addr"));
    if goes_on && negated {
        return Err(
            words.wrong("\"not\" is about one condition; write \"not tcp or not dport 22\" for what is not both")
        );
    }
    terms.push(Term { negated, test });
    if goes_on {
        let test = condition(words)?;
        terms.push(Term { negated, test });
    }
    Ok(())
}

fn condition(words: &mut Words<'_>) -> Result<Test, FilterError> {
    let Some(word) = words.next() else {
        return Err(words.wrong(format!("a condition is missing; write {CONDITIONS}")));
    };
    let ends = |source, destination| Ends { source, destination };
    match word {
        "src" => addresses(words, ends(true, false)),
        "dst" => addresses(words, ends(false, true)),
        "addr" => addresses(words, ends(true, true)),
        "sport" => ports(words, ends(true, false)),
        "dport" => ports(words, ends(false, true)),
        "port" => ports(words, ends(true, true)),
        "proto" => Ok(Test::Protocol(words.list("\"proto 132\" or \"proto tcp\"", protocol)?)),
        "zone" => {
            Ok(Test::Zone(words.list("\"zone 5\"", |word| number(word, "zone", 0xffff).map(|zone| zone as u16))?))
        }
        "mark" => mark(words),
        "ct" => connection(words),
        _ if protocol(word).is_ok() => protocol_first(words),
        // nft's words, which say the family too.
        "ip" | "ip6" | "saddr" | "daddr" => {
            Err(words
                .wrong_before(format!("\"{word}\" is not needed; write \"src 10.0.0.0/8\" or \"dst 2001:db8::/32\"")))
        }
        _ if word.starts_with(BRACKETS) => Err(words.wrong_before(UNBRACKETED)),
        other => Err(words.wrong_before(format!("\"{other}\" is no condition; write {CONDITIONS}"))),
    }
}

/// `tcp`, `tcp, udp` or `tcp state established`; the first word has been taken.
fn protocol_first(words: &mut Words<'_>) -> Result<Test, FilterError> {
    words.at -= 1;
    let numbers = words.list("\"tcp\"", protocol)?;
    if words.peek() != Some("state") {
        return Ok(Test::Protocol(numbers));
    }
    let named = |number: u8| STATES.iter().find(|(of, _)| *of == number).map(|(_, names)| *names);
    let (&[number], Some(names)) = (numbers.as_slice(), named(numbers[0])) else {
        return Err(words.wrong("tcp, sctp and dccp have states, and each its own; write \"tcp state established\""));
    };
    words.at += 1;
    let states = words.list("\"tcp state established\"", |word| {
        let position = names.iter().position(|name| name.eq_ignore_ascii_case(word));
        let position = position.ok_or_else(|| format!("\"{word}\" is no state; write one of {}", names.join(", ")))?;
        Ok(position as u8)
    })?;
    Ok(Test::State { protocol: number, states })
}

fn connection(words: &mut Words<'_>) -> Result<Test, FilterError> {
    match words.next() {
        Some("state") => {
            let (mut new, mut established, mut related) = (false, false, false);
            for state in words.list("\"ct state established\"", |word| match word {
                "new" => Ok(0),
                "established" => Ok(1),
                "related" => Ok(2),
                other => Err(format!(
                    "\"{other}\" is no state of ct; write new, established or related (those of tcp: \"tcp state \
                     time_wait\")"
                )),
            })? {
                new |= state == 0;
                established |= state == 1;
                related |= state == 2;
            }
            Ok(Test::Connection { new, established, related })
        }
        Some("status") => {
            let bits = words.list("\"ct status assured\"", |word| {
                let known = STATUS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit);
                let names = STATUS.map(|(name, _)| name).join(", ");
                known.ok_or_else(|| format!("\"{word}\" is no status; write one of {names}"))
            })?;
            Ok(Test::Status(bits.into_iter().fold(0, |all, bit| all | bit)))
        }
        Some(other) => {
            Err(words.wrong_before(format!("\"ct {other}\" is unknown; write \"ct state\" or \"ct status\"")))
        }
        None => Err(words.wrong("\"ct\" of what? write \"ct state established\" or \"ct status assured\"")),
    }
}

fn addresses(words: &mut Words<'_>, ends: Ends) -> Result<Test, FilterError> {
    let networks = words.list("an address or a network, as \"10.0.0.0/8\" or \"2001:db8::/32\"", |word| {
        let (address, length) = match word.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (word, None),
        };
        let wrong = || format!("\"{word}\" is no address or network; write it as \"10.0.0.0/8\" or \"2001:db8::1\"");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all: u8 = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => all,
            Some(length) => {
                let length = length.parse().ok().filter(|length| *length <= all);
                length.ok_or_else(|| format!("\"{word}\": a prefix has 0 to {all} bits"))?
            }
        };
        let behind = || format!("\"{word}\" has bits behind its prefix; write the network's own address");
        Network::new(address, length).ok_or_else(behind)
    })?;
    Ok(Test::Address { ends, networks })
}

fn ports(words: &mut Words<'_>, ends: Ends) -> Result<Test, FilterError> {
    let ranges = words.list("a port or a range, as \"80\" or \"1024-65535\"", |word| {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        let port = |text: &str| text.parse::<u16>().map_err(|_| format!("\"{word}\" is no port; write 0 to 65535"));
        let (low, high) = (port(low)?, port(high)?);
        if low > high { Err(format!("\"{word}\" is empty; write \"{high}-{low}\"")) } else { Ok((low, high)) }
    })?;
    Ok(Test::Port { ends, ranges })
}

fn mark(words: &mut Words<'_>) -> Result<Test, FilterError> {
    let Some(word) = words.next() else { return Err(words.wrong("a mark is missing; write \"mark 0x1/0xff\"")) };
    let (value, mask) = word.split_once('/').unwrap_or((word, "0xffffffff"));
    let number = |text| number(text, "mark", u32::MAX).map_err(|message| words.wrong_before(message));
    let (value, mask) = (number(value)?, number(mask)?);
    if value & !mask != 0 {
        return Err(words.wrong_before(format!("\"{word}\" can never be: the mark has bits outside of its mask")));
    }
    Ok(Test::Mark { value, mask })
}

fn protocol(word: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    let names = || PROTOCOLS.map(|(name, _)| name).join(", ");
    named
        .or_else(|| word.parse().ok())
        .ok_or_else(|| format!("\"{word}\" is no protocol; write {} or a number from 0 to 255", names()))
}

fn number(word: &str, what: &str, most: u32) -> Result<u32, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed
        .ok()
        .filter(|number| *number <= most)
        .ok_or_else(|| format!("\"{word}\" is no {what}; write a number from 0 to {most}, as \"42\" or \"0x2a\""))
}

#[cfg(test)]
mod tests {
    use crate::bridge::conntrack::filter::Rule;
    use proptest::prelude::*;

    #[test]
    fn a_mistake_names_its_column_and_its_cure() {
        for (text, column, words) in [
            ("", 1, "an empty rule"),
            ("tpc", 1, "\"tpc\" is no condition; write a protocol"),
            ("tcp, udq", 6, "\"udq\" is no protocol; write tcp, udp"),
            ("tcp,", 5, "something is missing"),
            ("not dst 10.0.0.1/8", 9, "has bits behind its prefix"),
            ("src 10.0.0.0/33", 5, "a prefix has 0 to 32 bits"),
            ("src 10.0.0", 5, "is no address or network"),
            ("dport 80-22", 7, "write \"22-80\""),
            ("dport http", 7, "is no port"),
            ("tcp dport { 80, 443 }", 11, "write a list as \"dport 80, 443\""),
            ("tcp dport (80, 443)", 11, "there are no brackets"),
            ("(tcp or udp) and dport 53", 1, "there are no brackets"),
            ("ip saddr 10.0.0.0/8", 1, "\"ip\" is not needed; write \"src 10.0.0.0/8\""),
            ("daddr 10.0.0.0/8", 1, "write \"src 10.0.0.0/8\" or \"dst 2001:db8::/32\""),
            ("ct state establishd", 10, "write new, established or related"),
            ("ct", 3, "write \"ct state established\""),
            ("ct mark 1", 4, "\"ct mark\" is unknown"),
            ("ct status sure", 11, "one of expected, seen-reply"),
            ("udp state established", 5, "tcp, sctp and dccp have states"),
            ("tcp state open", 11, "write one of none, syn_sent"),
            ("mark 0x5/0x3", 6, "can never be"),
            ("zone 65536", 6, "a number from 0 to 65535"),
            ("tcp udp", 5, "write \"and\", \"or\" or nothing"),
            ("tcp and", 8, "a condition is missing"),
            ("tcp or or udp", 8, "is no condition"),
            ("not tcp dport 22", 9, "not tcp or not dport 22"),
            ("\u{e9} tcp", 1, "is no condition"),
            ("tcp \u{e9}", 5, "does not go on"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
        let error = "ct state x".parse::<Rule>().unwrap_err().to_string();
        assert!(error.starts_with("column 10: \"x\" is no state of ct"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            words in prop::collection::vec(prop_oneof![
                Just("not".to_owned()), Just("tcp".to_owned()), Just(",".to_owned()), Just("ct".to_owned()),
                Just("state".to_owned()), Just("port".to_owned()), Just("and".to_owned()), Just("mark".to_owned()),
                Just("src".to_owned()), "[0-9a-f./:-]{1,8}", "\\PC{0,4}",
            ], 0..12),
        ) {
            let _ = words.join(" ").parse::<Rule>();
        }
    }
}
