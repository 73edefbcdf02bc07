//! What stands on the wire: golden frames, history, properties, refusals.

#[path = "../support/vectors.rs"]
mod vectors;

mod classic;
mod golden;
mod golden_sealed;
mod history;
mod kept;
mod properties;
mod refusals;
