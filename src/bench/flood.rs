//! Frames as fast as they go: through a transport, and through a bare pair beside it.
//!
//! ```text
//!   sender's thread    ── 64 frames of 1480 bytes a call ──▶ ═══ ──▶ receiver's thread
//!                      until the time is over                        until nothing comes any more
//! ```
//!
//! The bare pair ([`super::bare`]) is the limit: the same frames on the same system calls or rings, and nothing around them.
//! Both wait as the daemon does, and both receivers look at each frame's length and first bytes, without which nobody could say
//! that it has arrived. (To read one cache line that another processor has just written is most of what receiving costs.)

use super::bare::BATCH;
use super::rest::{Resting, Spent, Stopwatch};
use super::ways::{Ends, Link};
use super::workload::{self, FRAME_LEN};
use super::{BenchError, Doing};
use crate::daemon::pace::Found;
use crate::sys::clock;
use crate::sys::poll::{self, Descriptors};
use crate::time::{Duration, Instant};
use crate::wire::HEADER_LEN;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Longest wait of a receiver before it looks whether all is over.
const LOOK: Duration = Duration::from_millis(5);
/// Time between two frames that are alone on the line.
const LONELY: Duration = Duration::from_millis(2);

/// What one run of a flood came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    /// Frames that left.
    pub(super) sent: u64,
    /// What the sender's thread used.
    pub(super) sender: Spent,
    /// Frames that arrived, and what the receiver's thread used; `None` if nobody is there.
    pub(super) received: Option<(u64, Spent)>,
}

impl Flood {
    /// Frames a second that arrived. What comes after the sender's end counts for its time.
    pub(super) fn received_per_s(&self) -> Option<f64> {
        self.received.map(|(frames, _)| frames as f64 / self.sender.wall_s)
    }

    /// Frames a second that left.
    pub(super) fn sent_per_s(&self) -> f64 {
        self.sent as f64 / self.sender.wall_s
    }
}

/// An end that frames leave by. No call waits.
pub(super) trait Sending: Send {
    /// Sends a batch of the same frame; how many left, none if the line takes no more now.
    fn send(&mut self) -> io::Result<usize>;
    /// Sends this frame alone; false if the line takes no more now.
    fn send_one(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<bool>;
}

/// An end that frames arrive at. No call waits.
pub(super) trait Receiving: Send {
    /// Lends the frames of a batch, as they stand behind the IP header; how many there were.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize>;
    /// What to wait on for the next one.
    fn readiness(&self) -> Descriptors<'_>;
}

/// Both ends of a bare pair; the second may be nobody's.
pub(super) type BareEnds = (Box<dyn Sending>, Option<Box<dyn Receiving>>);

/// Both ends of a transport, as something that can be flooded.
pub(super) fn of_transport(ends: Ends) -> BareEnds {
    let end = |link| OfTransport { link, frame: workload::full_frame(workload::SYNC_ID) };
    (Box::new(end(ends.0)), ends.1.map(|link| Box::new(end(link)) as Box<dyn Receiving>))
}

/// One end of a transport, with the frame that it repeats.
struct OfTransport {
    link: Link,
    frame: [u8; FRAME_LEN],
}

impl Sending for OfTransport {
    fn send(&mut self) -> io::Result<usize> {
        let frame = &self.frame;
        self.link.transmit(&mut |slot| Some(put(slot, frame)))
    }

    fn send_one(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<bool> {
        let mut one = Some(frame);
        self.link.transmit(&mut |slot| one.take().map(|frame| put(slot, frame)))?;
        // What it has taken leaves, now or in the next call.
        Ok(one.is_none())
    }
}

fn put(slot: &mut [u8], frame: &[u8; FRAME_LEN]) -> usize {
    let length = slot.len().min(FRAME_LEN);
    slot[..length].copy_from_slice(&frame[..length]);
    length
}

impl Receiving for OfTransport {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        self.link.receive(&mut |_, frame| each(frame))
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.link.readiness()
    }
}

/// A frame that says when it left, and which of its row it is.
pub(super) struct Stamped([u8; FRAME_LEN]);

impl Stamped {
    /// A full frame of this group.
    pub(super) fn new(sync_id: u8) -> Self {
        Stamped(workload::full_frame(sync_id))
    }

    /// The frame with this moment in it. (Its checksum no longer fits: nobody on the way looks.)
    pub(super) fn at(&mut self, moment: Instant) -> &[u8; FRAME_LEN] {
        self.0[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&moment.as_nanos().to_le_bytes());
        &self.0
    }

    /// Nanoseconds from the moment in a frame of this group until `now`; `None` for another frame.
    pub(super) fn age_ns(sync_id: u8, frame: &[u8], now: Instant) -> Option<u64> {
        let stamp = frame.get(HEADER_LEN..)?.first_chunk()?;
        (frame[1] == sync_id).then(|| now.as_nanos().saturating_sub(u64::from_le_bytes(*stamp)))
    }
}

/// Nanoseconds of single frames on an idle line, from before the call that sends one to after the one that brings it, for a
/// receiver that sleeps meanwhile.
pub(super) fn lonely_ns(ends: &mut BareEnds, time: Duration) -> Result<Vec<u64>, BenchError> {
    let (sender, receiver) = ends;
    let receiver = receiver.as_mut().ok_or(BenchError::NobodyThere)?;
    let (over, until, mut frame) = (AtomicBool::new(false), clock::now() + time, Stamped::new(workload::SYNC_ID));
    thread::scope(|scope| {
        let heard = scope.spawn(|| -> io::Result<Vec<u64>> {
            let mut latencies = Vec::new();
            while !over.load(Ordering::Relaxed) {
                poll::wait(&receiver.readiness(), Some(LOOK))?;
                receiver
                    .receive(&mut |bytes| latencies.extend(Stamped::age_ns(workload::SYNC_ID, bytes, clock::now())))?;
            }
            Ok(latencies)
        });
        let mut said = Ok(true);
        while said.is_ok() && clock::now() < until {
            thread::sleep(LONELY);
            said = sender.send_one(frame.at(clock::now()));
        }
        over.store(true, Ordering::Relaxed);
        said.doing("sending a bare frame")?;
        heard.join().map_err(|_| BenchError::Panicked)?.doing("receiving bare frames")
    })
}

/// As many frames as go.
pub(super) fn flood(ends: &mut BareEnds, time: Duration) -> Result<Flood, BenchError> {
    let (sender, receiver) = ends;
    let (over, until) = (AtomicBool::new(false), clock::now() + time);
    thread::scope(|scope| {
        let hearing = receiver.as_mut().map(|receiver| scope.spawn(|| hear(receiver.as_mut(), &over)));
        let said = say(sender.as_mut(), until);
        over.store(true, Ordering::Relaxed);
        let heard = hearing.map(|thread| thread.join().map_err(|_| BenchError::Panicked)).transpose()?;
        let (sent, sender) = said.doing("sending frames")?;
        let received = heard.transpose().doing("receiving frames")?;
        Ok(Flood { sent, sender, received })
    })
}

fn say(sender: &mut dyn Sending, until: Instant) -> io::Result<(u64, Spent)> {
    let (watch, mut resting, mut sent) = (Stopwatch::start(), Resting::new(), 0);
    while clock::now() < until {
        match sender.send()? {
            0 => resting.rest(Found::FullQueue, Descriptors::default, LOOK),
            frames => sent += frames as u64,
        }
    }
    Ok((sent, watch.stop()))
}

/// Receives until it is over and nothing comes any more.
fn hear(receiver: &mut dyn Receiving, over: &AtomicBool) -> io::Result<(u64, Spent)> {
    let (watch, mut resting, mut heard) = (Stopwatch::start(), Resting::new(), 0);
    loop {
        let last = over.load(Ordering::Relaxed);
        let frames = receiver.receive(&mut |frame| heard += u64::from(has_arrived(frame)))?;
        if frames == 0 && last {
            return Ok((heard, watch.stop()));
        }
        resting.rest(found(frames), || receiver.readiness(), LOOK);
    }
}

/// Whether these bytes are a frame of a flood, as far as its first cache line tells.
fn has_arrived(frame: &[u8]) -> bool {
    frame.len() == FRAME_LEN && frame[1] == workload::SYNC_ID
}

/// What a look at a receiver has found.
pub(super) fn found(frames: usize) -> Found {
    match frames {
        0 => Found::Nothing,
        BATCH.. => Found::MoreThanOneTurn,
        _ => Found::Work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_frame_of_the_group_has_arrived() {
        let frame = workload::full_frame(workload::SYNC_ID);
        assert!(has_arrived(&frame));
        assert!(!has_arrived(&frame[..1479]) && !has_arrived(&[]));
        assert!(!has_arrived(&workload::full_frame(82)));
    }

    #[test]
    fn a_stamped_frame_tells_its_age_and_another_groups_does_not() {
        let mut frame = Stamped::new(81);
        let bytes = *frame.at(Instant::from_nanos(5_000));
        assert_eq!(Stamped::age_ns(81, &bytes, Instant::from_nanos(7_500)), Some(2_500));
        assert_eq!(Stamped::age_ns(82, &bytes, Instant::from_nanos(7_500)), None);
        assert_eq!(Stamped::age_ns(81, &bytes[..47], Instant::from_nanos(7_500)), None);
    }
}
