//! Frames on their way: loss, bursts, duplicates, delay, order, damage, cuts in one or both directions, and sockets of bounded size.
