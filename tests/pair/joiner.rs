//! A node that starts late, against a kernel that is full already.

use crate::support::{Pair, eventually, figure, root};
use std::time::Instant;

/// [1.1.1] Nobody gives a command: the late node asks for everything, and its kernel gets it.
///
/// By hand, to see figures: `JOIN_ENTRIES=100000 cargo test --release --test pair joiner -- --nocapture`
#[test]
fn a_kernel_that_was_full_before_the_other_node_started_is_copied_whole() {
    if !root() {
        return;
    }
    let entries = figure("JOIN_ENTRIES", 20_000);
    let mut pair = Pair::new("");
    pair.a.connect(0..entries);
    let start = Instant::now();
    pair.a.start();
    eventually("a is master with its whole table", || {
        pair.a.is("master", "source") && pair.a.group()["entries"] == entries
    });
    println!("{entries} entries; a is master and has read its kernel after {:?}", start.elapsed());

    let (start, before) = (Instant::now(), pair.a.cpu());
    pair.b.start();
    eventually("b is in sync", || pair.b.is("backup", "in_sync"));
    println!("b is in sync after {:?}", start.elapsed());
    eventually("b's kernel has them", || pair.b.kernel_entries() >= u64::from(entries));
    println!("b's kernel has all of them after {:?}", start.elapsed());
    pair.until_equal(entries as usize);
    println!("processor: a {:?}, b {:?}", pair.a.cpu() - before, pair.b.cpu());
    println!("b: {:?}", pair.b.counters(""));
}
