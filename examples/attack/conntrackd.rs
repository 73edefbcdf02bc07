//! The same done to conntrackd (FTFW).
use super::chaos::Context;
use super::report::Report;
use serde::Serialize;

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rival {
    /// Entries that were forged.
    pub forged: u64,
}

/// Does it, where it is installed.
pub fn beside(_context: &Context, _report: &mut Report, _tell: &dyn Fn(String)) {}
