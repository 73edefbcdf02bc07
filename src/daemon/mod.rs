//! The one place where the protocol engine meets sockets, kernel and operator.

pub mod announce;
pub mod build;
pub mod control;
pub mod driver;
mod drain;
mod feed;
pub mod flows;
pub mod journal;
pub mod link;
pub mod pace;
pub mod settings;
pub mod status;
pub mod takeover;
