//! `ssyncp run` as an operator meets it: alone, and in pairs in namespaces.

#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod audit;
mod http;
mod http_limits;
mod metrics;
mod notify;
mod packet;
mod pair;
mod readme;
mod reload;
mod sandbox;
mod secret;
mod sections;
mod takeover;
mod track;
