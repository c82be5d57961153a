//! How a format lays out a new image: the shapes that its writer and the planner share.
//!
//! ```text
//!   front: headers, tables (bitmap blocks) │ before │ payload │ before │ payload │ … │ tail
//!          steps of at most a few MiB      └ one kept block ──┘
//! ```
//! Kept blocks follow each other in disk order, so every place in the file is arithmetic: a block's
//! place is its rank among the kept ones. Payload is named, not moved.

use std::ops::Range;

use super::{BlockSize, SectorBitmap};
use crate::error::Result;
use crate::units::{index, len64, length};

/// One piece of a new image. A layout is these, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes `range` of one of the files that were given.
    Source {
        /// Which file: 0 is the image itself, 1 the first parent as given, …
        file: usize,
        /// Which of its bytes.
        range: Range<u64>,
    },
    /// This many zeros.
    Zeros(u64),
    /// Bytes that were made here: tables, headers, footers, mixed blocks.
    Bytes(Vec<u8>),
}

impl Piece {
    /// How many bytes it stands for.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Source { range, .. } => length(range),
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => len64(bytes.len()),
        }
    }

    /// Whether it stands for no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What becomes of a block in the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutState {
    /// Not stored: reads as zero, or as the parent.
    NotPresent,
    /// Not stored: reads as zero, whatever the parent holds (VHDX).
    Zero,
    /// Stored whole.
    Present,
    /// Stored with a sector bitmap that says which sectors are its own.
    PartiallyPresent,
}

/// The [`OutState`] of every block, with ranks.
#[derive(Debug, Clone, Default)]
pub struct BlockPlan {
    states: Pairs,
    /// How many blocks are stored before each stretch of [`STRETCH`] words.
    ranks: Vec<u64>,
    stored: u64,
}

const STRETCH: u64 = 64;

impl BlockPlan {
    /// A plan of `len` blocks that stores none.
    ///
    /// # Errors
    /// `limit-exceeded` where `len` does not fit memory.
    pub fn new(len: u64) -> Result<Self> {
        Ok(Self { states: Pairs::new(len)?, ranks: Vec::new(), stored: 0 })
    }

    /// A plan that stores no block, in which those are [`OutState::Zero`] whose number in `numbers` is 1.
    #[must_use]
    pub fn with_zeros(numbers: &Pairs) -> Self {
        let ones = |word: &u64| word & !(word >> 1) & !STORED;
        let states = Pairs { words: numbers.words.iter().map(ones).collect(), len: numbers.len };
        Self { states, ranks: Vec::new(), stored: 0 }
    }

    /// Sets the state of block `block`; out of range is ignored.
    pub fn set(&mut self, block: u64, state: OutState) {
        self.states.set(
            block,
            match state {
                OutState::NotPresent => 0,
                OutState::Zero => 1,
                OutState::Present => 2,
                OutState::PartiallyPresent => 3,
            },
        );
        self.ranks.clear();
    }

    /// The states as words, for keeping them.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.states.words
    }

    /// Replaces all states by words that [`BlockPlan::words`] gave of a plan of this length.
    pub fn restore(&mut self, words: Vec<u64>) {
        if words.len() == self.states.words.len() {
            self.states.words = words;
            self.ranks.clear();
        }
    }

    /// Counts, so that [`BlockPlan::rank`] and [`BlockPlan::stored`] may be asked.
    pub fn seal(&mut self) {
        self.ranks.clear();
        let mut count = 0u64;
        for (i, &word) in self.states.words.iter().enumerate() {
            if len64(i).is_multiple_of(STRETCH) {
                self.ranks.push(count);
            }
            // No more than there are blocks, whose number fits 64 bits.
            count = count.wrapping_add(stored_in(word));
        }
        self.stored = count;
    }

    /// How many blocks there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.states.len
    }

    /// Whether there are no blocks.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.states.len == 0
    }

    /// How many blocks are stored (of a sealed plan).
    #[must_use]
    pub const fn stored(&self) -> u64 {
        self.stored
    }

    /// The state of block `block`.
    #[must_use]
    pub fn get(&self, block: u64) -> OutState {
        match self.states.get(block) {
            1 => OutState::Zero,
            2 => OutState::Present,
            3 => OutState::PartiallyPresent,
            _ => OutState::NotPresent,
        }
    }

    /// How many stored blocks come before block `block` (of a sealed plan): its place in the file.
    #[must_use]
    pub fn rank(&self, block: u64) -> u64 {
        let word = block / PER_WORD;
        let stretch = word / STRETCH;
        let base = index(stretch, "a block").ok().and_then(|i| self.ranks.get(i)).copied();
        // A number is at least what it leaves when divided.
        let first = word.wrapping_sub(word % STRETCH);
        let words = index(first, "a block").ok().zip(index(word, "a block").ok());
        let whole = words.and_then(|(a, b)| self.states.words.get(a..b)).unwrap_or_default();
        let cut = self.states.word(word) & !(u64::MAX << shift_of(block));
        let in_stretch: u64 = whole.iter().chain([&cut]).copied().map(stored_in).sum();
        // No more than there are blocks, whose number fits 64 bits.
        base.unwrap_or(self.stored).wrapping_add(in_stretch)
    }

    /// The first stored block at or after `from`.
    #[must_use]
    pub fn next_stored(&self, from: u64) -> Option<u64> {
        self.states.next(from..self.len(), |word| word & STORED)
    }

    /// The first partially present block of `range`.
    #[must_use]
    pub fn first_partial(&self, range: Range<u64>) -> Option<u64> {
        self.states.next(range, |word| word & word << 1 & STORED)
    }

    /// The first block of `range` that is in another state than [`OutState::NotPresent`].
    #[must_use]
    pub fn first_known(&self, range: Range<u64>) -> Option<u64> {
        self.states.next(range, |word| (word | word << 1) & STORED)
    }
}

/// A list of numbers from 0 to 3, two bits each: what is said of each of millions of blocks.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    words: Vec<u64>,
    len: u64,
}

const PER_WORD: u64 = 32;

impl Pairs {
    /// `len` zeros.
    ///
    /// # Errors
    /// `limit-exceeded` where `len` does not fit memory.
    pub fn new(len: u64) -> Result<Self> {
        Ok(Self { words: vec![0; index(len.div_ceil(PER_WORD), "a block count")?], len })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number at `at`; 0 out of range.
    #[must_use]
    pub fn get(&self, at: u64) -> u64 {
        self.word(at / PER_WORD) >> shift_of(at) & 3
    }

    /// Sets the number at `at` to the low two bits of `value`; out of range is ignored.
    pub fn set(&mut self, at: u64, value: u64) {
        let shift = shift_of(at);
        if let Some(word) = index(at / PER_WORD, "a block").ok().and_then(|i| self.words.get_mut(i)) {
            *word = *word & !(3 << shift) | (value & 3) << shift;
        }
    }

    /// Sets the numbers of a whole range to the low two bits of `value`; what is out of range is ignored.
    pub fn fill(&mut self, range: Range<u64>, value: u64) {
        let pattern = (value & 3).wrapping_mul(!STORED);
        let mut at = range.start;
        let end = range.end.min(self.len);
        while at < end {
            let word = at / PER_WORD;
            // A remainder is less than what was divided by, and what is added ends at `end`.
            let taken = PER_WORD.wrapping_sub(at % PER_WORD).min(length(&(at..end)));
            let next = at.wrapping_add(taken);
            if taken == PER_WORD {
                if let Some(word) = index(word, "a block").ok().and_then(|i| self.words.get_mut(i)) {
                    *word = pattern;
                }
            } else {
                (at..next).for_each(|at| self.set(at, value));
            }
            at = next;
        }
    }

    /// The first place at or after `from` whose number is 2 or 3.
    #[must_use]
    pub fn next_above_one(&self, from: u64) -> Option<u64> {
        self.next(from..self.len, |word| word & STORED)
    }

    /// The first place of `range` whose upper bit `pick` keeps.
    fn next(&self, range: Range<u64>, pick: impl Fn(u64) -> u64) -> Option<u64> {
        let end = range.end.min(self.len);
        let words = range.start / PER_WORD..end.div_ceil(PER_WORD);
        let mut mask = u64::MAX << shift_of(range.start);
        let bits = self.words.get(index(words.start, "a block").ok()?..index(words.end, "a block").ok()?)?;
        for (word, &bits) in words.zip(bits) {
            let picked = pick(bits) & mask;
            if picked != 0 {
                // The numbers of the words in memory fit 64 bits.
                let at = word.wrapping_mul(PER_WORD).wrapping_add(u64::from(picked.trailing_zeros()) / 2);
                return (at < end).then_some(at);
            }
            mask = u64::MAX;
        }
        None
    }

    fn word(&self, word: u64) -> u64 {
        index(word, "a block").ok().and_then(|i| self.words.get(i)).copied().unwrap_or_default()
    }
}

/// The upper bit of each pair: set for both stored states.
const STORED: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Where in its word the number at `at` begins.
const fn shift_of(at: u64) -> u64 {
    // At most 62.
    (at % PER_WORD).wrapping_mul(2)
}

const fn stored_in(word: u64) -> u64 {
    // At most 32, so nothing is cut.
    #[allow(clippy::as_conversions)]
    {
        (word & STORED).count_ones() as u64
    }
}

/// The sector bitmap that a stored block of the *new* image shall have.
pub trait BitmapSource {
    /// The bitmap of block `block`; none where every sector is the block's own.
    ///
    /// # Errors
    /// What reading the source gives.
    fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>>;

    /// Where the source's file holds just these bytes, for a format that keeps them beside the
    /// payload: then they are copied with it.
    fn stored_at(&self, block: u64) -> Option<Range<u64>>;
}

/// How one format writes an image whose payload is laid out in disk order.
///
/// The file is: the pieces of `front(0)`, `front(1)`, … until it gives `None`; then for each stored
/// block `before_payload` and [`ContainerWriter::block_size`] bytes of payload; then `tail`.
pub trait ContainerWriter {
    /// Bytes of payload of every stored block.
    fn block_size(&self) -> BlockSize;

    /// The exact size of the file for this sealed plan, without making any of it.
    ///
    /// # Errors
    /// `limit-exceeded` where the format cannot address so much.
    fn file_size(&self, plan: &BlockPlan) -> Result<u64>;

    /// Step `step` of what comes before the first stored block, at most a few MiB; `None` after the
    /// last step.
    ///
    /// # Errors
    /// What reading the source's bitmaps gives.
    fn front(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, step: u64) -> Result<Option<Vec<Piece>>>;

    /// What stands right before a stored block's payload (padding, a VHD's sector bitmap).
    ///
    /// # Errors
    /// What reading the source's bitmaps gives.
    fn before_payload(&self, block: u64, bitmaps: &dyn BitmapSource) -> Result<Vec<Piece>>;

    /// What comes after the last payload.
    ///
    /// # Errors
    /// None in practice.
    fn tail(&self, plan: &BlockPlan) -> Result<Vec<Piece>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_filled(ranges in proptest::collection::vec((0u64..300, 0u64..300, 0u64..4), 1..8)) {
            let mut pairs = Pairs::new(250).unwrap();
            let mut model = [0u64; 250];
            for (from, to, value) in ranges {
                pairs.fill(from..to, value);
                (from..to.min(250)).for_each(|at| model[at as usize] = value);
            }
            let zeros = BlockPlan::with_zeros(&pairs);
            for (at, &value) in model.iter().enumerate() {
                prop_assert_eq!(pairs.get(at as u64), value);
                let expected = if value == 1 { OutState::Zero } else { OutState::NotPresent };
                prop_assert_eq!(zeros.get(at as u64), expected);
                let next = (at..250).find(|&i| model[i] >= 2).map(|i| i as u64);
                prop_assert_eq!(pairs.next_above_one(at as u64), next);
            }
        }

        #[test]
        fn ranks_count_what_is_stored(states in proptest::collection::vec(0u8..4, 0..9000)) {
            let of = |s: u8| match s {
                0 => OutState::NotPresent,
                1 => OutState::Zero,
                2 => OutState::Present,
                _ => OutState::PartiallyPresent,
            };
            let mut plan = BlockPlan::new(states.len() as u64).unwrap();
            for (i, &s) in states.iter().enumerate() {
                plan.set(i as u64, OutState::Present);
                plan.set(i as u64, of(s));
            }
            plan.seal();
            let mut rank = 0;
            for (i, &s) in states.iter().enumerate() {
                prop_assert_eq!(plan.get(i as u64), of(s));
                prop_assert_eq!(plan.rank(i as u64), rank);
                rank += u64::from(s >= 2);
            }
            prop_assert_eq!(plan.stored(), rank);
            let stored: Vec<u64> = (0..states.len() as u64).filter(|&i| states[i as usize] >= 2).collect();
            let mut walked = Vec::new();
            let mut from = 0;
            while let Some(b) = plan.next_stored(from) {
                walked.push(b);
                from = b + 1;
            }
            prop_assert_eq!(walked, stored);
            for (from, len) in [(0, 9000), (5, 40), (31, 1), (32, 3), (64, 0), (100, 8000), (7000, 3000)] {
                let first = |wanted: fn(u8) -> bool| {
                    (from..from + len).find(|&i| states.get(i).is_some_and(|&s| wanted(s))).map(|i| i as u64)
                };
                let range = from as u64..(from + len) as u64;
                prop_assert_eq!(plan.first_partial(range.clone()), first(|s| s == 3));
                prop_assert_eq!(plan.first_known(range), first(|s| s != 0));
            }
        }
    }
}
