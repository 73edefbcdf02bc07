//! Where in a ring we are, and where the other side is: plain arithmetic on 32-bit indices that only grow, and wrap.
//!
//! ```text
//!      consumed          produced                    size 8, mask 7
//!          ▼                 ▼
//!   │ . │ x │ x │ x │ x │ . │ . │ . │                index & mask = place in the ring
//!          └── waiting ──┘                           produced - consumed, modulo 2^32; never more than size
//! ```
//!
//! One of the two indices is ours, the other the kernel's. What it says is believed only where it is possible: an index
//! that runs ahead of us, or that would leave more than a ring waiting, changes nothing.

/// The side that puts things into a ring.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    size: u32,
    produced: u32,
    consumed: u32,
}

/// The side that takes things out of a ring.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    size: u32,
    consumed: u32,
    produced: u32,
}

impl Producer {
    /// Of an empty ring; `size` is a power of two, and `at` where both indices stand.
    pub(super) fn new(size: u32, at: u32) -> Self {
        debug_assert!(size.is_power_of_two());
        Producer { size, produced: at, consumed: at }
    }

    /// Takes note of how far the other side says that it has come; says by how much it has moved.
    pub(super) fn note_consumed(&mut self, consumed: u32) -> u32 {
        let moved = consumed.wrapping_sub(self.consumed);
        if moved > self.waiting() {
            return 0;
        }
        self.consumed = consumed;
        moved
    }

    /// Things in the ring that the other side has not taken, as far as we know.
    pub(super) fn waiting(&self) -> u32 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// Places that are free, as far as we know.
    pub(super) fn free(&self) -> u32 {
        self.size - self.waiting()
    }

    /// The place for the next thing; `None` if none is free.
    pub(super) fn advance(&mut self) -> Option<usize> {
        (self.free() > 0).then(|| {
            let place = self.produced & (self.size - 1);
            self.produced = self.produced.wrapping_add(1);
            place as usize
        })
    }

    /// The places of what the other side has not taken, as far as we know, oldest first.
    pub(super) fn waiting_places(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, mask) = (self.consumed, self.size - 1);
        (0..self.waiting()).map(move |behind| (first.wrapping_add(behind) & mask) as usize)
    }

    /// What the other side is to be told.
    pub(super) fn produced(&self) -> u32 {
        self.produced
    }
}

impl Consumer {
    /// Of an empty ring; `size` is a power of two, and `at` where both indices stand.
    pub(super) fn new(size: u32, at: u32) -> Self {
        debug_assert!(size.is_power_of_two());
        Consumer { size, consumed: at, produced: at }
    }

    /// Takes note of how far the other side says that it has come.
    pub(super) fn note_produced(&mut self, produced: u32) {
        if produced.wrapping_sub(self.consumed) <= self.size && produced.wrapping_sub(self.consumed) >= self.waiting() {
            self.produced = produced;
        }
    }

    /// Things that wait for us, as far as we know.
    pub(super) fn waiting(&self) -> u32 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// The place of the next thing; `None` if none waits.
    pub(super) fn advance(&mut self) -> Option<usize> {
        (self.waiting() > 0).then(|| {
            let place = self.consumed & (self.size - 1);
            self.consumed = self.consumed.wrapping_add(1);
            place as usize
        })
    }

    /// What the other side is to be told.
    pub(super) fn consumed(&self) -> u32 {
        self.consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn a_producer_fills_each_place_once_and_waits_for_the_other_side() {
        let mut producer = Producer::new(4, u32::MAX - 1);
        let places: Vec<_> = (0..6).map(|_| producer.advance()).collect();
        assert_eq!(places, [Some(2), Some(3), Some(0), Some(1), None, None]);
        assert_eq!((producer.produced(), producer.waiting(), producer.free()), (2, 4, 0));
        assert_eq!(producer.waiting_places().collect::<Vec<_>>(), [2, 3, 0, 1]);
        assert_eq!(producer.note_consumed(0), 2);
        assert_eq!((producer.waiting(), producer.free()), (2, 2));
        assert_eq!(producer.advance(), Some(2));
    }

    #[test]
    fn a_consumer_takes_what_is_there_in_order_over_the_end_of_the_numbers() {
        let mut consumer = Consumer::new(4, u32::MAX);
        assert_eq!(consumer.advance(), None);
        consumer.note_produced(2);
        assert_eq!(consumer.waiting(), 3);
        let places: Vec<_> = (0..4).map(|_| consumer.advance()).collect();
        assert_eq!(places, [Some(3), Some(0), Some(1), None]);
        assert_eq!(consumer.consumed(), 2);
    }

    #[test]
    fn an_index_that_cannot_be_is_not_believed() {
        let mut producer = Producer::new(4, 10);
        producer.advance();
        producer.advance();
        for impossible in [9, 13, 0, u32::MAX] {
            assert_eq!(producer.note_consumed(impossible), 0, "{impossible}");
        }
        assert_eq!(producer.free(), 2);
        assert_eq!(producer.note_consumed(12), 2);
        assert_eq!(producer.note_consumed(11), 0, "not backwards");
        let mut consumer = Consumer::new(4, 10);
        for impossible in [9, 15, 0, u32::MAX] {
            consumer.note_produced(impossible);
            assert_eq!(consumer.waiting(), 0, "{impossible}");
        }
        consumer.note_produced(14);
        assert_eq!(consumer.waiting(), 4);
        consumer.note_produced(12);
        assert_eq!(consumer.waiting(), 4, "not backwards");
    }

    proptest! {
        /// Both ends of one ring against a queue, over the end of the numbers, with news that come late.
        #[test]
        fn two_ends_are_a_queue(start: u32, exponent in 0u32..6, steps in prop::collection::vec(0u8..4, 1..400)) {
            let size = 1 << exponent;
            let (mut producer, mut consumer) = (Producer::new(size, start), Consumer::new(size, start));
            let mut ring = vec![0u32; size as usize];
            let mut queue = VecDeque::new();
            let mut next = 0;
            for step in steps {
                match step {
                    0 => if let Some(place) = producer.advance() {
                        prop_assert!(queue.len() < size as usize);
                        next += 1;
                        ring[place] = next;
                        queue.push_back(next);
                    },
                    1 => if let Some(place) = consumer.advance() {
                        prop_assert_eq!(Some(ring[place]), queue.pop_front());
                    },
                    2 => consumer.note_produced(producer.produced()),
                    _ => { producer.note_consumed(consumer.consumed()); }
                }
                prop_assert!(producer.free() <= size && consumer.waiting() <= size);
            }
            consumer.note_produced(producer.produced());
            prop_assert_eq!(consumer.waiting() as usize, queue.len());
        }

        /// Whatever the other side says, no place is outside of the ring, and never more than a ring is waiting.
        #[test]
        fn lies_stay_inside(start: u32, exponent in 0u32..6, lies in prop::collection::vec(any::<u32>(), 1..200)) {
            let size = 1 << exponent;
            let (mut producer, mut consumer) = (Producer::new(size, start), Consumer::new(size, start));
            for lie in lies {
                let near = start.wrapping_add(lie % 256);
                for said in [lie, near] {
                    producer.note_consumed(said);
                    consumer.note_produced(said);
                    prop_assert!(producer.waiting() <= size && producer.free() <= size && consumer.waiting() <= size);
                    prop_assert!(producer.advance().is_none_or(|place| place < size as usize));
                    prop_assert!(consumer.advance().is_none_or(|place| place < size as usize));
                }
            }
        }
    }
}
