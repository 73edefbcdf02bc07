//! The replay window of one sender's numbers, against a plain set.

use ssyncp::wire::ReplayWindow;
use std::collections::BTreeSet;

/// Two bytes are one number: near the highest, near zero, or near the last that there is. It is tested, and perhaps marked.
pub fn window(data: &[u8]) {
    let mut window = ReplayWindow::default();
    let (mut marked, mut highest) = (BTreeSet::new(), 0_u64);
    for step in data.chunks_exact(2) {
        let (what, how) = (step[0], u64::from(step[1]));
        let seq = match what & 3 {
            0 => highest.saturating_add(how),
            1 => highest.saturating_sub(how),
            2 => how,
            _ => u64::MAX - how,
        };
        let in_reach = seq > highest || highest - seq < 64;
        assert_eq!(window.test(seq).is_ok(), seq != 0 && in_reach && !marked.contains(&seq), "number {seq}");
        if what & 4 == 0 {
            window.mark(seq);
            marked.insert(seq);
            highest = highest.max(seq);
        }
        assert_eq!(window.highest(), highest);
    }
}

/// Numbers one by one, with gaps, and backwards.
pub fn window_seeds() -> Vec<Vec<u8>> {
    vec![[0, 1].repeat(20), [0, 9, 1, 3, 5, 1].repeat(10), [[0, 30], [1, 1], [1, 2], [5, 29], [3, 4], [2, 7]].concat()]
}
