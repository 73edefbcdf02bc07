//! Why the engine did not do what its owner asked of it. Nothing has changed then; what is for want of room is counted.

use super::durability::TICKETS_MAX;

/// Why a change from the owner was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpdateError {
    /// Only the master's source is listened to.
    #[error("this node is not master")]
    NotMaster,
    /// The table has no room for another key; the refusal is counted.
    #[error("the table is full")]
    TableFull,
    /// The table's annex has no room for its addresses or attributes; the refusal is counted.
    #[error("the annex of the table is full")]
    AnnexFull,
    /// Its addresses are of two families, or its zone has no direction that exists: the wire has no form for it.
    #[error("this kind of flow is not replicated")]
    Unsupported,
    /// No room for another entry of a section, or for so long a value; the refusal is counted.
    #[error("the sections are full")]
    SectionsFull,
    /// A key of a section has 1 to 256 bytes.
    #[error("the key of a section's entry has 1 to 256 bytes")]
    SectionKey,
    /// The submission is to wait for a part of the members, and nobody knows how many there are.
    #[error("quorum and all count the members of the group; set `members`")]
    MembersUnknown,
    /// Too many submissions are waited for, or too few of those that are resolved were fetched; the refusal is counted.
    #[error("at most {TICKETS_MAX} submissions can be waited for at the same time")]
    TicketsFull,
}

/// Why a table is not compared anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResyncError {
    /// A master's table is the one to equal.
    #[error("this node is master: its table is the one that the others are to equal; ask them")]
    Master,
    /// There is nobody to compare with.
    #[error("no master is followed; there is nothing to compare with")]
    NoMaster,
}
