//! The same claims, asked of every way for frames to travel.

#[macro_use]
mod support;

mod conformance;
mod links;
mod packet;
mod wire;
mod xdp;
