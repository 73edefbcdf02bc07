//! The kernel's connection table as source and sink, judged by code of the tests' own.

mod attributes;
mod codec;
mod filter;
mod ftp;
mod permission;
mod sink;
mod source;
mod support;
