//! Bytes ⇄ values: the frames of protocol 114. (Room under construction.)

use core::net::IpAddr;

/// Who sends: a node's number, never zero in a valid frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NodeId(pub u32);

/// What a transport knows about a frame that is not in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameMeta {
    /// Which of the group's sync links it came in on, counted from 0 in the order of the configuration.
    pub link: u8,
    /// Address of the sender; the protocol trusts it for nothing but logs.
    pub source: IpAddr,
}
