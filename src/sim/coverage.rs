//! What happened in a run, by name: every fault kind and every engine event that a batch must have seen often enough.

/// Something that can happen in a world. Its name is that of the verdict's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen(pub &'static str);

/// How often each happened.
#[derive(Clone, Default, Debug)]
pub struct Coverage(std::collections::BTreeMap<Seen, u64>);

impl Coverage {
    pub(super) fn note(&mut self, seen: Seen) {
        *self.0.entry(seen).or_default() += 1;
    }

    /// Everything that happened, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(seen, count)| (seen.0, *count))
    }
}
