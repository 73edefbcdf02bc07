//! What proves two tables equal [4.4]: a hash of every entry, summed per bucket and in all.
//!
//! ```text
//! bucket of a key   = top 12 bits of XXH3-64(seed, key bytes)       4096 buckets; 16 bytes, or 40 of IPv6
//! h(entry)          = XXH3-64(seed, encoding)                       see record.rs
//! digest of bucket  = sum of h over its live entries, wrapping at 2^64
//! digest of table   = sum over the buckets, wrapping
//! ```
//!
//! The seed is the master's `hash_seed`, drawn at random and inherited [4.4.7]: clients choose their ports, and must
//! not be able to choose their bucket. A sum (and not an exclusive or) so that an entry that was counted twice does not
//! vanish.

use twox_hash::XxHash3_64;

/// Buckets of a digest: enough that a repair costs in proportion to the difference, few enough for one answer.
pub const BUCKETS: usize = 4096;

/// Bits of a key's hash below its bucket.
const BUCKET_SHIFT: u32 = 64 - BUCKETS.ilog2();

/// Hash of a key: its place in the table and its bucket.
#[inline]
pub(super) fn hash_key<const N: usize>(seed: u64, key: &[u8; N]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, key)
}

/// Bucket of a key with this hash.
pub(super) fn bucket_of_hash(hash: u64) -> u16 {
    (hash >> BUCKET_SHIFT) as u16
}

/// The lowest hash of a bucket.
pub(super) fn first_hash(bucket: u16) -> u64 {
    u64::from(bucket) << BUCKET_SHIFT
}

/// What is kept per bucket.
#[derive(Clone, Copy, Default)]
pub(super) struct Bucket {
    /// Sum of the hashes of its live entries.
    pub(super) sum: u64,
    /// Highest stream number that touched it.
    pub(super) touched: u64,
    /// Entries on the wire list.
    pub(super) pending: u32,
}

/// The sums of all buckets, and their total.
pub(super) struct Digest {
    seed: u64,
    total: u64,
    buckets: Box<[Bucket]>,
}

impl Digest {
    pub(super) fn new(seed: u64) -> Self {
        Digest { seed, total: 0, buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice() }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// One bucket; all zero if there is none with this number.
    pub(super) fn bucket(&self, bucket: u16) -> Bucket {
        self.buckets.get(usize::from(bucket)).copied().unwrap_or_default()
    }

    /// The bucket of a hash, to be changed.
    pub(super) fn bucket_mut(&mut self, hash: u64) -> &mut Bucket {
        &mut self.buckets[usize::from(bucket_of_hash(hash))]
    }

    /// Hash of a flow with this encoding.
    #[inline]
    pub(super) fn of_bytes(&self, encoding: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed, encoding)
    }

    /// A live entry of hash `h` is there now; `hash` is that of its key.
    pub(super) fn add(&mut self, hash: u64, h: u64) {
        let bucket = self.bucket_mut(hash);
        bucket.sum = bucket.sum.wrapping_add(h);
        self.total = self.total.wrapping_add(h);
    }

    /// A live entry is there no more.
    pub(super) fn remove(&mut self, hash: u64, h: u64) {
        let bucket = self.bucket_mut(hash);
        bucket.sum = bucket.sum.wrapping_sub(h);
        self.total = self.total.wrapping_sub(h);
    }

    /// Stream number `number` said something about a key of this hash.
    pub(super) fn touch(&mut self, hash: u64, number: u64) {
        let bucket = self.bucket_mut(hash);
        bucket.touched = bucket.touched.max(number);
    }

    /// No number of the present stream has touched anything.
    pub(super) fn untouch(&mut self) {
        for bucket in &mut self.buckets {
            bucket.touched = 0;
        }
    }

    /// Nothing is there, under another seed. Keys change their buckets, so that every bucket now counts as touched by
    /// the highest number that touched any.
    pub(super) fn restart(&mut self, seed: u64) {
        let touched = self.buckets.iter().map(|bucket| bucket.touched).max().unwrap_or(0);
        self.buckets.fill(Bucket { sum: 0, touched, pending: 0 });
        self.seed = seed;
        self.total = 0;
    }
}
