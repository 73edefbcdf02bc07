//! The frames that are on their way out, and how far each link has got with them.
//!
//! ```text
//!   batch     │ 0 │ 1 │ 2 │ 3 │ 4 │          a frame is written once, and every link reads it
//!   link 0                    ▲ next         has taken 0 to 3
//!   link 1            ▲ next                 its queue is full: 2 waits
//!                     └ done                 0 and 1 have left
//! ```
//!
//! With several links each has its own place in the batch, and a frame has left when every link that moves has taken it.
//! A link that fails, or that takes nothing in [`STALLED_CALLS_MAX`] calls while another has taken all, is not waited
//! for: what it did not get is counted as send errors.
//!
//! A single link that has slots of its own lends them to the writer instead, while one is free ([`straight`]).

use super::TransportCounters;
use super::link::{self, Link, Links};
use super::port::Port;
use crate::sys::mmsg::SendBatch;
use std::io;

/// Calls in which a link with a full queue may hold up a batch that another link has already taken.
pub const STALLED_CALLS_MAX: u32 = 32;

/// The frames that are on their way out, and how far each link has got with them.
pub(super) struct Outgoing {
    batch: SendBatch,
    cursors: Vec<Cursor>,
    /// Frames at the head of the batch that every link is done with.
    done: usize,
    /// For each frame of the batch, whether some link has taken it.
    taken: Vec<bool>,
}

/// A link's place in the batch.
#[derive(Clone, Default)]
struct Cursor {
    next: usize,
    stalled_calls: u32,
}

impl Cursor {
    /// Notes a call that began at `before`, with `filled` frames in the batch.
    fn note_progress(&mut self, before: usize, filled: usize) {
        if self.next > before {
            self.stalled_calls = 0;
        } else if self.next < filled {
            self.stalled_calls = self.stalled_calls.saturating_add(1);
        }
    }

    fn is_stuck(&self) -> bool {
        self.stalled_calls >= STALLED_CALLS_MAX
    }
}

impl Outgoing {
    /// Nothing, for this many links; the batch has room for `frames`.
    pub(super) fn new(batch: SendBatch, frames: usize, links: usize) -> Self {
        Outgoing { batch, cursors: vec![Cursor::default(); links], done: 0, taken: vec![false; frames] }
    }

    /// Frames that some link has still to take.
    pub(super) fn pending(&self) -> usize {
        self.batch.len() - self.done
    }

    /// Asks for at most `room` frames of at most `frame_len` bytes. The batch is empty before.
    pub(super) fn fill(
        &mut self,
        room: usize,
        frame_len: usize,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
        counters: &mut TransportCounters,
    ) {
        for _ in 0..room {
            let Some(length) = self.batch.slot().and_then(|slot| fill(&mut slot[..frame_len])) else { break };
            if (1..=frame_len).contains(&length) {
                self.taken[self.batch.len()] = false;
                self.batch.commit(length);
            } else {
                counters.send_errors += 1;
            }
        }
    }

    /// Gives every link what it has not had yet, and says how many frames have left with that. An error is that of the
    /// last link, when all have failed; the frames are dropped then, as a dead wire would.
    pub(super) fn flush<P: Port>(
        &mut self,
        links: &mut Links<P>,
        counters: &mut TransportCounters,
    ) -> io::Result<usize> {
        if self.batch.is_empty() {
            return Ok(0);
        }
        let mut failures = 0;
        let mut failure = None;
        let another_is_up = links.any_is_up();
        for (link, cursor) in links.iter_mut().zip(&mut self.cursors) {
            let before = cursor.next;
            if another_is_up && !link.is_up() {
                // Without a carrier its queue is full for ever, and would hold up the others.
                give_up(&self.batch, link, cursor, counters);
                failures += 1;
            } else if let Err(error) = push(&mut self.batch, link, cursor, &mut self.taken, counters) {
                failures += 1;
                failure = Some(error);
            }
            cursor.note_progress(before, self.batch.len());
        }
        self.leave_stalled_links_behind(links, counters);
        let left = self.settle(counters);
        match failure {
            Some(error) if failures == self.cursors.len() => Err(error),
            _ => Ok(left),
        }
    }

    /// A link that was left behind once is left behind at once in later batches, until it takes a frame again.
    fn leave_stalled_links_behind<P: Port>(&mut self, links: &mut Links<P>, counters: &mut TransportCounters) {
        let filled = self.batch.len();
        if self.cursors.iter().all(|cursor| cursor.next < filled) {
            return;
        }
        for (link, cursor) in links.iter_mut().zip(&mut self.cursors) {
            if cursor.is_stuck() {
                give_up(&self.batch, link, cursor, counters);
            }
        }
    }

    /// Counts what every link is done with since the last call, and empties a batch that is done.
    fn settle(&mut self, counters: &mut TransportCounters) -> usize {
        let done = self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        let mut left = 0;
        for index in self.done..done {
            if self.taken[index] {
                counters.sent(self.batch.datagram_len(index));
                left += 1;
            }
        }
        self.done = done;
        if done == self.batch.len() {
            self.batch.clear();
            self.done = 0;
            self.cursors.iter_mut().for_each(|cursor| cursor.next = 0);
        }
        left
    }
}

/// Has at most `room` frames written into the slots of the only link itself, and sends them: nothing is copied. Says how many
/// left, `None` if the link lends no slot now. An error is that of the link, as with a batch.
pub(super) fn straight<P: Port>(
    link: &mut Link<P>,
    room: usize,
    frame_len: usize,
    fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
    counters: &mut TransportCounters,
) -> Option<io::Result<usize>> {
    link.port.slot()?;
    let (mut frames, mut bytes) = (0, 0);
    for _ in 0..room {
        let Some(length) = link.port.slot().and_then(|slot| fill(&mut slot[..frame_len])) else { break };
        if (1..=frame_len).contains(&length) {
            link.port.commit(length);
            frames += 1;
            bytes += length;
        } else {
            counters.send_errors += 1;
        }
    }
    if frames == 0 {
        return Some(Ok(0));
    }
    let mut failure = None;
    if let Err(dropped) = link.port.flush(frames) {
        link.counters.send_errors += dropped.frames as u64;
        counters.send_errors += dropped.frames as u64;
        (frames, bytes) = (frames - dropped.frames, bytes - dropped.bytes);
        failure = Some(dropped.error).filter(link::is_link_failure);
    }
    link.counters.frames_sent += frames as u64;
    link.counters.bytes_sent += bytes as u64;
    counters.frames_sent += frames as u64;
    counters.bytes_sent += bytes as u64;
    Some(failure.map_or(Ok(frames), Err))
}

/// Gives one link what it has not had yet, until its queue is full. A frame that it will not have is skipped and
/// counted; when the link itself has failed, all that is left of the batch is.
fn push<P: Port>(
    batch: &mut SendBatch,
    link: &mut Link<P>,
    cursor: &mut Cursor,
    taken: &mut [bool],
    counters: &mut TransportCounters,
) -> io::Result<()> {
    while cursor.next < batch.len() {
        match link.port.send(batch, cursor.next) {
            Ok(count) => {
                let sent = cursor.next..cursor.next + count;
                link.counters.frames_sent += count as u64;
                link.counters.bytes_sent += sent.clone().map(|index| batch.datagram_len(index) as u64).sum::<u64>();
                taken[sent].fill(true);
                cursor.next += count;
            }
            Err(error) if link::is_full(&error) => break,
            Err(error) if link::is_link_failure(&error) => {
                if link::is_no_address(&error) {
                    link.note_no_address();
                }
                give_up(batch, link, cursor, counters);
                return Err(error);
            }
            Err(_) => {
                link.counters.send_errors += 1;
                counters.send_errors += 1;
                cursor.next += 1;
            }
        }
    }
    Ok(())
}

/// The link does not get what is left of the batch.
fn give_up<P>(batch: &SendBatch, link: &mut Link<P>, cursor: &mut Cursor, counters: &mut TransportCounters) {
    let missed = (batch.len() - cursor.next) as u64;
    link.counters.send_errors += missed;
    counters.send_errors += missed;
    cursor.next = batch.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_stuck_after_thirty_two_calls_without_a_frame_and_until_it_takes_one() {
        let mut cursor = Cursor { next: 3, stalled_calls: 0 };
        for _ in 0..31 {
            cursor.note_progress(3, 8);
        }
        assert!(!cursor.is_stuck());
        cursor.note_progress(3, 8);
        assert!(cursor.is_stuck());
        // With nothing left to take it proves nothing.
        cursor.next = 8;
        cursor.note_progress(8, 8);
        assert!(cursor.is_stuck());
        cursor.next = 1;
        cursor.note_progress(0, 8);
        assert!(!cursor.is_stuck());
    }
}
