//! SSYNCP keeps the connection tables of a pair (or more) of load balancers, NAT gateways or firewalls equal.

pub mod bench;
pub mod bridge;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod engine;
pub mod flow;
pub mod planted;
pub mod sim;
pub mod sys;
pub mod table;
pub mod time;
pub mod transport;
pub mod wire;
