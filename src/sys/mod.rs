//! System calls made safe. The only room (beside the C door) in which `unsafe` may stand; it exports no `unsafe fn`,
//! and it knows nothing of frames, flows or roles.

pub mod bpf;
pub mod cbpf;
pub mod child;
pub mod clock;
pub mod huge;
pub mod interface;
pub mod mmsg;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod packet;
pub mod poll;
pub mod schedule;
pub mod socket;
pub mod swap;
pub mod tcp;
pub mod xsk;
