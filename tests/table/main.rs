//! The table, as its users see it: rules, clocks, sections, and a plain model beside it.

mod clocks;
mod model;
mod plain;
mod rules;
mod sections;
mod wide;
