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
const WORD_MASK: u64 = 63;

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
        let (mut block, end) = (number(bytes.start), bytes.end.div_ceil(BLOCK).min(self.end()));
        while block < end {
            let next = next_word(block).min(end);
            let (word, _) = split(block);
            self.insert_word(word, from_bit(block) & !from_bit_of_next(next));
            block = next;
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
                // Nothing is in the set past the last block, so the rest of the range is alike.
                let end = self.run_end(block).and_then(|end| end.checked_mul(BLOCK));
                let end = end.map_or(range.end, |end| end.min(range.end));
                let part = if member { &mut inside } else { &mut outside };
                part.push(at..end);
                at = end;
            }
        }
        (outside, inside)
    }

    /// The first block after `block` that differs from it, if there is one.
    fn run_end(&self, block: u64) -> Option<u64> {
        let member = self.contains(block);
        let mut next = block.checked_add(1)?;
        while next < self.end() {
            let (number, _) = split(next);
            let word = self.word(number);
            let others = from_bit(next) & if member { !word } else { word };
            if others != 0 {
                return (next & !WORD_MASK).checked_add(others.trailing_zeros().into());
            }
            next = next_word(next);
        }
        member.then(|| self.end())
    }

    /// The number of blocks, rounded up to a word.
    fn end(&self) -> u64 {
        // A set has at most MAX_BLOCKS blocks.
        len64(self.words.len()).wrapping_mul(WORD_BITS)
    }
}

fn number(byte: u64) -> u64 {
    byte.checked_div(BLOCK).unwrap_or(0)
}

fn split(block: u64) -> (usize, u64) {
    let word = usize::try_from(block.checked_div(WORD_BITS).unwrap_or(0)).unwrap_or(usize::MAX);
    (word, 1u64.checked_shl(bit(block)).unwrap_or(0))
}

/// The place of a block's bit in its word.
fn bit(block: u64) -> u32 {
    u32::try_from(block & WORD_MASK).unwrap_or(0)
}

/// The bits of a block's word from that block on.
fn from_bit(block: u64) -> u64 {
    u64::MAX.checked_shl(bit(block)).unwrap_or(0)
}

/// The bits from `end` on of the word that holds the block before it.
fn from_bit_of_next(end: u64) -> u64 {
    if bit(end) == 0 { 0 } else { from_bit(end) }
}

/// The first block of the next word; a set's last word is far from the largest number.
fn next_word(block: u64) -> u64 {
    (block | WORD_MASK).wrapping_add(1)
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
        for (start, end) in [(0, 64), (63, 65), (64, 128), (1, 200), (130, 131), (0, 0), (191, 192)] {
            let mut set = BlockSet::for_volume(200 * BLOCK).unwrap();
            set.insert_bytes(start * BLOCK..end * BLOCK);
            assert!(
                (0..200).all(|block| set.contains(block) == (start..end).contains(&block)),
                "{start}..{end}"
            );
        }
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
