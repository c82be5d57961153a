//! The block table: for each block of the disk, its state and the place of its payload.
//!
//! ```text
//!   page 0     page 1                   page 2              page 3
//!   Uniform(0) Few(0, [(17, word), …])  Absent[1024 × u8]   Mixed[1024 × u64]
//!              one word a block: file offset │ state (3 bits)
//! ```
//! Long stretches in one state cost a word a page, blocks scattered among them a little more, and stretches
//! without payload a byte a block, so that a 64 TiB disk with little in it is small.

use crate::error::{Error, Result};
use crate::units::{FileOffset, index, len64};

/// What an image says of one block. Payload offsets are multiples of 512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// Never written: reads as zero, or as the parent.
    NotPresent,
    /// Reads as zero, whatever the parent holds (VHDX).
    Zero,
    /// Contents are arbitrary (VHDX).
    Undefined,
    /// Was unmapped by the guest (VHDX).
    Unmapped,
    /// Wholly in the file at this offset.
    Present(FileOffset),
    /// In the file at this offset as far as its sector bitmap says; the rest is the parent's.
    PartiallyPresent(FileOffset),
}

impl BlockState {
    /// Where the payload lies, if there is any.
    #[must_use]
    pub const fn payload(self) -> Option<FileOffset> {
        match self {
            Self::Present(at) | Self::PartiallyPresent(at) => Some(at),
            _ => None,
        }
    }

    const fn pack(self) -> u64 {
        match self {
            Self::NotPresent => 0,
            Self::Zero => 1,
            Self::Undefined => 2,
            Self::Unmapped => 3,
            Self::Present(at) => at.get() & !STATE | 4,
            Self::PartiallyPresent(at) => at.get() & !STATE | 5,
        }
    }

    const fn unpack(word: u64) -> Self {
        let at = FileOffset::new(word & !STATE);
        match word & STATE {
            1 => Self::Zero,
            2 => Self::Undefined,
            3 => Self::Unmapped,
            4 => Self::Present(at),
            5 => Self::PartiallyPresent(at),
            _ => Self::NotPresent,
        }
    }
}

const STATE: u64 = 511;
const PAGE: usize = 1024;

/// Most blocks of a page that differ from the rest before each block has a word of its own.
const MAX_EXCEPTIONS: usize = 128;

#[derive(Debug, Clone)]
enum Page {
    Uniform(u64),
    /// All blocks have this word but those listed, by slot, ascending.
    Few(u64, Box<[(u16, u64)]>),
    /// No block has payload: the word is the state.
    Absent(Box<[u8]>),
    Mixed(Box<[u64]>),
}

impl Page {
    fn of(words: &[u64]) -> Self {
        let absent = [0, 1, 2, 3].map(|state| (words.iter().filter(|&&word| word == state).count(), state));
        let (count, common) = absent.into_iter().max().unwrap_or_default();
        let first = words.first().copied().unwrap_or_default();
        if words.iter().all(|&word| word == first) {
            return Self::Uniform(first);
        }
        if words.len().saturating_sub(count) <= MAX_EXCEPTIONS {
            let others = (0u16..).zip(words.iter().copied()).filter(|&(_, word)| word != common);
            return Self::Few(common, others.collect());
        }
        let states: Option<Vec<u8>> = words.iter().map(|&word| u8::try_from(word).ok()).collect();
        match states {
            Some(states) => Self::Absent(states.into()),
            None => Self::Mixed(words.into()),
        }
    }

    fn get(&self, slot: usize) -> Option<u64> {
        match self {
            Self::Uniform(word) => Some(*word),
            Self::Few(common, others) => {
                let place = others.binary_search_by_key(&slot, |&(slot, _)| usize::from(slot)).ok();
                Some(place.and_then(|place| others.get(place)).map_or(*common, |&(_, word)| word))
            }
            Self::Absent(states) => states.get(slot).copied().map(u64::from),
            Self::Mixed(words) => words.get(slot).copied(),
        }
    }

    /// The first slot at or after `from` whose block is not [`BlockState::NotPresent`].
    fn next_known(&self, from: usize) -> Option<usize> {
        match self {
            Self::Uniform(0) => None,
            Self::Few(0, others) => {
                others.iter().map(|&(slot, _)| usize::from(slot)).find(|&slot| slot >= from)
            }
            _ => (from..PAGE).find(|&slot| self.get(slot).is_some_and(|word| word != 0)),
        }
    }
}

/// The states of all blocks, in disk order.
#[derive(Debug, Clone, Default)]
pub struct BlockTable {
    pages: Vec<Page>,
    tail: Vec<u64>,
    present: u64,
    partial: u64,
}

impl BlockTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the state of the next block.
    ///
    /// # Errors
    /// `internal` if the payload offset is no multiple of 512.
    pub fn push(&mut self, state: BlockState) -> Result<()> {
        if state.payload().is_some_and(|at| at.get() & STATE != 0) {
            return Err(Error::internal("a payload offset is no multiple of 512"));
        }
        match state {
            BlockState::Present(_) => self.present = self.present.saturating_add(1),
            BlockState::PartiallyPresent(_) => self.partial = self.partial.saturating_add(1),
            _ => {}
        }
        self.tail.push(state.pack());
        if self.tail.len() == PAGE {
            self.pages.push(Page::of(&self.tail));
            self.tail.clear();
        }
        Ok(())
    }

    /// Adds the state of the next `count` blocks, which have no payload.
    ///
    /// # Errors
    /// `internal` if the state has payload: no two blocks share it.
    pub fn push_many(&mut self, state: BlockState, count: u64) -> Result<()> {
        if state.payload().is_some() {
            return Err(Error::internal("blocks cannot share their payload"));
        }
        let mut rest = count;
        while rest > 0 {
            let page = len64(PAGE);
            if self.tail.is_empty() && rest >= page {
                self.pages.push(Page::Uniform(state.pack()));
                rest = rest.saturating_sub(page);
            } else {
                self.push(state)?;
                rest = rest.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        let full = len64(self.pages.len()).saturating_mul(len64(PAGE));
        full.saturating_add(len64(self.tail.len()))
    }

    /// Whether there are no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many blocks are wholly present.
    #[must_use]
    pub const fn present(&self) -> u64 {
        self.present
    }

    /// How many blocks are partially present.
    #[must_use]
    pub const fn partially_present(&self) -> u64 {
        self.partial
    }

    /// The state of a block; a block past the end is not present.
    #[must_use]
    pub fn get(&self, block: u64) -> BlockState {
        let word = index(block, "a block number").ok().and_then(|block| {
            let (page, slot) = (block / PAGE, block % PAGE);
            match self.pages.get(page) {
                Some(page) => page.get(slot),
                None if page == self.pages.len() => self.tail.get(slot).copied(),
                None => None,
            }
        });
        BlockState::unpack(word.unwrap_or_default())
    }

    /// The first block at or after `from` that is in another state than [`BlockState::NotPresent`],
    /// found in big steps over what was never written.
    #[must_use]
    pub fn next_known(&self, from: u64) -> Option<u64> {
        let first = index(from, "a block number").ok()?;
        let mut slot = first % PAGE;
        let mut start = from.saturating_sub(len64(slot));
        for page in self.pages.get(first / PAGE..).unwrap_or_default() {
            if let Some(known) = page.next_known(slot) {
                return Some(start.saturating_add(len64(known)));
            }
            slot = 0;
            start = start.saturating_add(len64(PAGE));
        }
        (start.max(from)..self.len()).find(|&block| self.get(block) != BlockState::NotPresent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sparse_table_is_small() {
        let mut table = BlockTable::new();
        for block in 0..100_000u64 {
            let state = if block == 70_001 {
                BlockState::Present(FileOffset::new(512 * 9))
            } else {
                BlockState::NotPresent
            };
            table.push(state).unwrap();
        }
        assert_eq!(table.pages.iter().filter(|p| matches!(p, Page::Few(0, _))).count(), 1);
        assert_eq!(table.pages.iter().filter(|p| matches!(p, Page::Uniform(0))).count(), 96);
        assert_eq!(table.len(), 100_000);
        assert_eq!(table.next_known(0), Some(70_001));
        assert_eq!(table.next_known(70_002), None);
        assert_eq!(table.get(70_001), BlockState::Present(FileOffset::new(4608)));
        assert_eq!(table.get(u64::MAX), BlockState::NotPresent);
        assert!(table.push(BlockState::Present(FileOffset::new(100))).is_err());
    }

    #[test]
    fn stretches_without_payload_are_small() {
        let mut table = BlockTable::new();
        table.push(BlockState::Zero).unwrap();
        table.push_many(BlockState::NotPresent, 5000).unwrap();
        for _ in 0..2048 {
            table.push(BlockState::Unmapped).unwrap();
            table.push(BlockState::Zero).unwrap();
        }
        assert!(!table.pages.iter().any(|p| matches!(p, Page::Mixed(_))));
        assert!(table.pages.iter().any(|p| matches!(p, Page::Absent(_))));
        assert_eq!(table.len(), 5001 + 4096);
        assert_eq!((table.get(0), table.get(1)), (BlockState::Zero, BlockState::NotPresent));
        assert_eq!(table.next_known(1), Some(5001));
        assert_eq!((table.get(5001), table.get(5002)), (BlockState::Unmapped, BlockState::Zero));
        assert!(table.push_many(BlockState::Present(FileOffset::new(512)), 2).is_err());
    }

    fn state(absent: u32) -> impl Strategy<Value = BlockState> {
        let at = (0u64..1 << 50).prop_map(|s| FileOffset::new(s * 512));
        prop_oneof![
            absent => Just(BlockState::NotPresent),
            1 => Just(BlockState::Zero),
            1 => Just(BlockState::Undefined),
            1 => Just(BlockState::Unmapped),
            2 => at.clone().prop_map(BlockState::Present),
            1 => at.prop_map(BlockState::PartiallyPresent),
        ]
    }

    proptest! {
        #[test]
        fn holds_what_was_pushed(
            states in prop_oneof![
                proptest::collection::vec(state(4), 0..3000),
                proptest::collection::vec(state(90), 0..5000),
            ],
        ) {
            let mut table = BlockTable::new();
            for &s in &states {
                table.push(s).unwrap();
            }
            for (i, &s) in states.iter().enumerate() {
                prop_assert_eq!(table.get(i as u64), s);
            }
            let known: Vec<_> = (0..states.len()).filter(|&i| states[i] != BlockState::NotPresent).collect();
            let mut walked = Vec::new();
            let mut at = 0;
            while let Some(b) = table.next_known(at) {
                walked.push(b as usize);
                at = b + 1;
            }
            prop_assert_eq!(walked, known);
        }
    }
}
