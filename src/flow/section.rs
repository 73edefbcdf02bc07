//! What is replicated beside flows: values under keys, in numbered tables, that mean something to their owner only.
//! IPVS services, a persistence engine's memory, a configuration: what checkpoints and configuration stores keep.

/// What names a section's entry: the table, and a key of 1 to 256 bytes in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SectionKey {
    /// Which table; numbers are the owner's.
    pub table: u16,
    /// The key in it, 1 to 256 bytes.
    pub key: Box<[u8]>,
}

/// One entry: key and value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Section {
    /// What names it.
    pub key: SectionKey,
    /// The value; may be empty, and longer than a frame.
    pub value: Box<[u8]>,
    /// Seconds until it is forgotten; 0 is never.
    pub expiry: u32,
}

/// A change to one entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SectionChange {
    /// The entry is this, whatever it was.
    Put(Section),
    /// The entry is gone.
    Delete(SectionKey),
}

impl SectionChange {
    /// What names the entry.
    pub fn key(&self) -> &SectionKey {
        match self {
            SectionChange::Put(section) => &section.key,
            SectionChange::Delete(key) => key,
        }
    }
}
