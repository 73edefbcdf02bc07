//! Which node an operator means: by its number, or by its name as `ssyncp status` shows it.
//!
//! ```text
//!   "3"   ─▶ Number(3) ──────────────────────────────────▶ node 3, whether it is known or not
//!   "lb2" ─▶ Name("lb2") ─▶ this node and its peers ─▶ node 2, or: nobody is called that; the nearest names are …
//! ```

use crate::wire::NodeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::convert::Infallible;
use std::str::FromStr;

/// Names that are told where none is right.
const NEAREST: usize = 3;

/// A node, as an operator names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a node is a number or a name")]
pub enum Who {
    /// Its number.
    Number(#[schemars(range(min = 1))] u32),
    /// Its name.
    Name(String),
}

impl FromStr for Who {
    type Err = Infallible;

    /// What is a number is no name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Who::Name(text.to_owned()), Who::Number))
    }
}

impl Who {
    /// The number of the node, of those that are known: number and name of each, this node first.
    ///
    /// # Errors
    /// A sentence: nobody has this name, with the nearest ones; or several have it.
    pub fn number(&self, known: &[(NodeId, &str)]) -> Result<NodeId, String> {
        let name = match self {
            Who::Number(number) => return Ok(NodeId(*number)),
            Who::Name(name) => name,
        };
        let mut called = known.iter().filter(|(_, theirs)| theirs == name).map(|(node, _)| node.0);
        match (called.next(), called.next()) {
            (Some(node), None) => Ok(NodeId(node)),
            (Some(one), Some(other)) => {
                Err(format!("nodes {one} and {other} are both called \"{name}\"; say a number"))
            }
            (None, _) => Err(format!("no node is called \"{name}\"; known are {}", nearest(name, known))),
        }
    }
}

/// The names that are most alike, the likeliest first.
fn nearest(name: &str, known: &[(NodeId, &str)]) -> String {
    let mut known = known.to_vec();
    let name = name.to_lowercase();
    let likeness = |theirs: &str| (strsim::jaro_winkler(&name, &theirs.to_lowercase()) * 1e6) as u32;
    known.sort_by_key(|(node, theirs)| (Reverse(likeness(theirs)), *node));
    let words = known.iter().take(NEAREST).map(|(node, theirs)| format!("\"{theirs}\" (node {})", node.0));
    let words = words.collect::<Vec<_>>().join(", ");
    match known.len().saturating_sub(NEAREST) {
        0 => words,
        more => format!("{words} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(NodeId, &str); 4] =
        [(NodeId(1), "gw-east"), (NodeId(2), "gw-west"), (NodeId(3), "lb"), (NodeId(7), "lb")];

    fn number(text: &str) -> Result<u32, String> {
        text.parse::<Who>().unwrap_or_else(|never| match never {}).number(&KNOWN).map(|node| node.0)
    }

    #[test]
    fn a_node_is_found_by_number_and_by_name() {
        assert_eq!((number("2"), number("gw-west"), number("99")), (Ok(2), Ok(2), Ok(99)));
        assert_eq!(number("lb").unwrap_err(), "nodes 3 and 7 are both called \"lb\"; say a number");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_ones() {
        let said = "no node is called \"GW-WEST2\"; known are \"gw-west\" (node 2), \"gw-east\" (node 1), \"lb\" (node 3) and 1 more";
        assert_eq!(number("GW-WEST2").unwrap_err(), said);
        let alone = Who::Name("b".into()).number(&KNOWN[..1]);
        assert_eq!(alone.unwrap_err(), "no node is called \"b\"; known are \"gw-east\" (node 1)");
    }

    #[test]
    fn json_says_either() {
        let read = |text: &str| serde_json::from_str::<Who>(text).map_err(|error| error.to_string());
        assert_eq!((read("2"), read("\"2\"")), (Ok(Who::Number(2)), Ok(Who::Name("2".into()))));
        assert_eq!(read("-1").unwrap_err(), "a node is a number or a name");
        assert_eq!(serde_json::to_string(&Who::Number(2)).ok().as_deref(), Some("2"));
    }
}
