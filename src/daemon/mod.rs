//! The one place where the protocol engine meets sockets, kernel and operator.

pub mod settings;
