//! System calls made safe. The only room (beside the C door) in which `unsafe` may stand; it exports no `unsafe fn`,
//! and it knows nothing of frames, flows or roles.

pub mod cbpf;
pub mod child;
pub mod clock;
pub mod interface;
pub mod mmsg;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod poll;
pub mod schedule;
pub mod socket;
pub mod swap;
pub mod tcp;
