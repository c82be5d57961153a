//! A set of 16 KiB blocks of a volume, one bit each: what shadow copies need.
//!
//! Unlike [`Extents`] it never forgets a member: it is an *upper* bound of what is needed.

use std::ops::Range;

use crate::extents::Extents;
use crate::units::len64;

/// Bytes of a block of the shadow copy provider.
pub(super) const BLOCK: u64 = 16 << 10;
/// The largest set: 16 MiB of bits, for a volume of 2 TiB.
const MAX_BLOCKS: u64 = 1 << 27;
const WORD_BITS: u64 = 64;

/// A set of block numbers.
pub(super) struct BlockSet {
    words: Vec<u64>,
}

impl BlockSet {
    /// The empty set for a volume of `size` bytes; none if the volume is too large.
    pub(super) fn for_volume(size: u64) -> Option<Self> {
        let blocks = size.div_ceil(BLOCK);
        let words = usize::try_from(blocks.div_ceil(WORD_BITS)).ok()?;
        (blocks <= MAX_BLOCKS).then(|| Self { words: vec![0; words] })
    }

    /// How many words of 64 blocks there are.
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// Blocks `64 * number` and the 63 after, least significant bit first; none past the end.
    pub(super) fn word(&self, number: usize) -> u64 {
        self.words.get(number).copied().unwrap_or(0)
    }

    /// Adds the blocks of one word; past the end there are none to add.
    pub(super) fn insert_word(&mut self, number: usize, blocks: u64) {
        if let Some(word) = self.words.get_mut(number) {
            *word |= blocks;
        }
    }

    /// Adds one block.
    pub(super) fn insert(&mut self, block: u64) {
        let (word, bit) = split(block);
        self.insert_word(word, bit);
    }

    /// Adds every block that the bytes touch.
    pub(super) fn insert_bytes(&mut self, bytes: Range<u64>) {
        for block in number(bytes.start)..bytes.end.div_ceil(BLOCK).min(self.end()) {
            self.insert(block);
        }
    }

    pub(super) fn contains(&self, block: u64) -> bool {
        let (word, bit) = split(block);
        self.word(word) & bit != 0
    }

    /// The bytes of `extents` outside the set, and those inside.
    pub(super) fn divide(&self, extents: &Extents) -> (Extents, Extents) {
        let (mut outside, mut inside) = (Extents::new(), Extents::new());
        for range in extents.ranges() {
            let mut at = range.start;
            while at < range.end {
                let block = number(at);
                let member = self.contains(block);
                let end = self.run_end(block).saturating_mul(BLOCK).min(range.end);
                let part = if member { &mut inside } else { &mut outside };
                part.push(at..end);
                at = end;
            }
        }
        (outside, inside)
    }

    /// The first block after `block` that differs from it; past the end nothing is in the set.
    fn run_end(&self, block: u64) -> u64 {
        let member = self.contains(block);
        let mut next = block.saturating_add(1);
        loop {
            let (number, _) = split(next);
            let Some(&word) = self.words.get(number) else {
                return if member { self.end() } else { u64::MAX };
            };
            let within = u32::try_from(next & (WORD_BITS - 1)).unwrap_or(0);
            let rest = word.checked_shr(within).unwrap_or(0);
            let same = if member { rest.trailing_ones() } else { rest.trailing_zeros() };
            if u64::from(same) < WORD_BITS.saturating_sub(u64::from(within)) {
                return next.saturating_add(u64::from(same));
            }
            next = (next | (WORD_BITS - 1)).saturating_add(1);
        }
    }

    fn end(&self) -> u64 {
        len64(self.words.len()).saturating_mul(WORD_BITS)
    }
}

fn number(byte: u64) -> u64 {
    byte.checked_div(BLOCK).unwrap_or(0)
}

fn split(block: u64) -> (usize, u64) {
    let word = usize::try_from(block.checked_div(WORD_BITS).unwrap_or(0)).unwrap_or(usize::MAX);
    let bit = u32::try_from(block & (WORD_BITS - 1)).unwrap_or(0);
    (word, 1u64.checked_shl(bit).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_volume_that_is_too_large_has_no_set() {
        assert!(BlockSet::for_volume(MAX_BLOCKS * BLOCK).is_some());
        assert!(BlockSet::for_volume(MAX_BLOCKS * BLOCK + 1).is_none());
    }

    #[test]
    fn bytes_take_every_block_they_touch() {
        let mut set = BlockSet::for_volume(10 * BLOCK).unwrap();
        set.insert_bytes(BLOCK - 1..2 * BLOCK + 1);
        set.insert_bytes(9 * BLOCK..u64::MAX);
        let members: Vec<u64> = (0..10).filter(|&b| set.contains(b)).collect();
        assert_eq!(members, [0, 1, 2, 9]);
    }

    proptest! {
        #[test]
        fn dividing_asks_each_block(
            members in proptest::collection::btree_set(0u64..300, 0..80),
            full in proptest::collection::vec(0usize..5, 0..3),
            ranges in proptest::collection::vec((0u64..310 * BLOCK, 0u64..40 * BLOCK), 0..8),
        ) {
            let mut set = BlockSet::for_volume(300 * BLOCK).unwrap();
            members.iter().for_each(|&b| set.insert(b));
            full.iter().for_each(|&w| set.insert_word(w, u64::MAX));
            let all = Extents::from_ranges(ranges.iter().map(|&(s, l)| s..s + l).collect());
            let (outside, inside) = set.divide(&all);
            prop_assert_eq!(outside.union(&inside), all.clone());
            prop_assert_eq!(outside.total() + inside.total(), all.total());
            for (part, member) in [(&outside, false), (&inside, true)] {
                for range in part.ranges() {
                    for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
                        prop_assert_eq!(set.contains(block), member);
                    }
                }
            }
        }
    }
}
