//! The block table: for each block of the disk, its state and the place of its payload.
//!
//! ```text
//!   page 0            page 1                   page 2              page 3             page 4
//!   Run(word, step)   Few(0, [(17, word), …])  Absent[1024 × u8]   Mib[1024 × u32]    Mixed[1024 × u64]
//!                     one word a block: file offset │ state (3 bits)
//! ```
//! Stretches in one state, or with payload side by side, cost a word or two a page; blocks scattered among
//! absent ones a little more; stretches without payload a byte a block; payload on whole MiB (VHDX) four
//! bytes. So a 64 TiB disk with little in it is small, and the largest table that is read has 128 MiB.

use crate::error::{Error, Result};
use crate::units::{FileOffset, add, index, len64};

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

    /// Whether the file holds anything of it.
    #[must_use]
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Present(_) | Self::PartiallyPresent(_))
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
/// Blocks of one page.
const PAGE: usize = 1024;
/// A MiB, by its power of two.
const MIB_SHIFT: u32 = 20;

/// Most blocks of a page that differ from the rest before each block has a word of its own.
const MAX_EXCEPTIONS: usize = 128;

#[derive(Debug, Clone)]
enum Page {
    /// The first block has the first word, each further one the second more: 0 in one state without payload,
    /// the distance of blocks that lie side by side. Sums wrap, so that the distance may be backwards.
    Run(u64, u64),
    /// All blocks have this word but those listed, by slot, ascending.
    Few(u64, Box<[(u16, u64)]>),
    /// No block has payload: the word is the state.
    Absent(Box<[u8]>),
    /// All payload lies on whole MiB: a word is the MiB and the state in three bits.
    Mib(Box<[u32]>),
    Mixed(Box<[u64]>),
}

impl Page {
    fn of(words: &[u64]) -> Self {
        if let &[first, second, ..] = words {
            let step = second.wrapping_sub(first);
            if words.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step))
                && (step == 0 || step & STATE == 0 && is_stored(first))
            {
                return Self::Run(first, step);
            }
        }
        let mut counts = [0usize; 4];
        for &word in words {
            if let Some(count) = index(word, "a state").ok().and_then(|state| counts.get_mut(state)) {
                // At most a page.
                *count = count.wrapping_add(1);
            }
        }
        let most = counts.into_iter().zip(0u64..).max_by_key(|&(count, _)| count);
        if let Some((count, common)) = most
            && words.len() <= MAX_EXCEPTIONS.wrapping_add(count)
        {
            let others = (0u16..).zip(words.iter().copied()).filter(|&(_, word)| word != common);
            return Self::Few(common, others.collect());
        }
        if let Some(states) = words.iter().map(|&word| u8::try_from(word).ok()).collect::<Option<Vec<u8>>>() {
            return Self::Absent(states.into());
        }
        match words.iter().map(|&word| to_mib(word)).collect::<Option<Vec<u32>>>() {
            Some(narrow) => Self::Mib(narrow.into()),
            None => Self::Mixed(words.into()),
        }
    }

    fn get(&self, slot: usize) -> Option<u64> {
        match self {
            Self::Run(first, step) => Some(first.wrapping_add(len64(slot).wrapping_mul(*step))),
            Self::Few(common, others) => {
                let place = others.binary_search_by_key(&slot, |&(slot, _)| usize::from(slot)).ok();
                Some(place.and_then(|place| others.get(place)).map_or(*common, |&(_, word)| word))
            }
            Self::Absent(states) => states.get(slot).copied().map(u64::from),
            Self::Mib(words) => words.get(slot).copied().map(from_mib),
            Self::Mixed(words) => words.get(slot).copied(),
        }
    }

    /// The first slot at or after `from` whose block has another word than `word`.
    fn next_other(&self, from: usize, word: u64) -> Option<usize> {
        match self {
            Self::Run(first, 0) if *first == word => None,
            Self::Few(common, others) if *common == word => {
                others.iter().map(|&(slot, _)| usize::from(slot)).find(|&slot| slot >= from)
            }
            _ => (from..PAGE).find(|&slot| self.get(slot).is_some_and(|other| other != word)),
        }
    }
}

const fn is_stored(word: u64) -> bool {
    word & STATE >= 4
}

fn to_mib(word: u64) -> Option<u32> {
    let (at, state) = (word & !STATE, word & STATE);
    let whole = at.trailing_zeros() >= MIB_SHIFT;
    u32::try_from(at >> MIB_SHIFT << 3 | state).ok().filter(|_| whole)
}

fn from_mib(word: u32) -> u64 {
    let word = u64::from(word);
    word >> 3 << MIB_SHIFT | word & 7
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
            BlockState::Present(_) => self.present = add(self.present, 1, "a block count")?,
            BlockState::PartiallyPresent(_) => self.partial = add(self.partial, 1, "a block count")?,
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
        self.push_run(count, |_| Ok(state))
    }

    /// Adds `count` blocks that are present and lie side by side from `first` on, `step` bytes from one to
    /// the next: as a fixed disk has them.
    ///
    /// # Errors
    /// `internal` for offsets that are no multiples of 512; `limit-exceeded` past 64 bits.
    pub fn push_side_by_side(&mut self, first: FileOffset, step: u64, count: u64) -> Result<()> {
        if step == 0 || step & STATE != 0 {
            return Err(Error::internal("blocks cannot share their payload"));
        }
        self.push_run(count, |n| {
            let by = crate::units::mul(n, step, "a block")?;
            first.plus(by).map(BlockState::Present)
        })
    }

    /// Adds `count` blocks whose states are the same or lie at one distance, a page at a time.
    fn push_run(&mut self, count: u64, state: impl Fn(u64) -> Result<BlockState>) -> Result<()> {
        let mut at = 0;
        while at < count {
            let page_end = add(at, len64(PAGE), "a block count")?;
            if !self.tail.is_empty() || page_end > count {
                self.push(state(at)?)?;
                at = add(at, 1, "a block count")?;
                continue;
            }
            let (first, second) = (state(at)?, state(add(at, 1, "a block count")?)?);
            if first.payload().is_some() {
                self.present = add(self.present, len64(PAGE), "a block count")?;
            }
            self.pages.push(Page::Run(first.pack(), second.pack().wrapping_sub(first.pack())));
            at = page_end;
        }
        Ok(())
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        // Each page takes memory, so there are never so many that this leaves 64 bits.
        len64(self.pages.len()).wrapping_mul(len64(PAGE)).wrapping_add(len64(self.tail.len()))
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
        BlockState::unpack(self.word(block).unwrap_or(BlockState::NotPresent.pack()))
    }

    fn word(&self, block: u64) -> Option<u64> {
        let block = index(block, "a block number").ok()?;
        let (page, slot) = (block / PAGE, block % PAGE);
        match self.pages.get(page) {
            Some(page) => page.get(slot),
            None if page == self.pages.len() => self.tail.get(slot).copied(),
            None => None,
        }
    }

    /// The first block at or after `from` that is in another state than [`BlockState::NotPresent`],
    /// found in big steps over what was never written.
    #[must_use]
    pub fn next_known(&self, from: u64) -> Option<u64> {
        self.next_other(from, BlockState::NotPresent.pack())
    }

    /// The end of the stretch of blocks, from `block` on, that are all in the state of `block`: found in big
    /// steps, so that millions of blocks can be dealt with at once. A block with payload is a stretch of its
    /// own, and what lies past the end of the table is one.
    #[must_use]
    pub fn stretch_end(&self, block: u64) -> u64 {
        match self.word(block) {
            // A block of the table is never the last number that there is.
            Some(word) if is_stored(word) => block.wrapping_add(1),
            Some(word) => self.next_other(block, word).unwrap_or_else(|| self.len()),
            None => u64::MAX,
        }
    }

    fn next_other(&self, from: u64, word: u64) -> Option<u64> {
        let first = index(from, "a block number").ok()?;
        let mut slot = first % PAGE;
        let pages = self.pages.get(first / PAGE..).unwrap_or_default();
        for (page, number) in pages.iter().zip(first / PAGE..) {
            if let Some(other) = page.next_other(slot, word) {
                return len64(number).checked_mul(len64(PAGE))?.checked_add(len64(other));
            }
            slot = 0;
        }
        let tail = len64(self.pages.len()).checked_mul(len64(PAGE))?;
        (tail.max(from)..self.len()).find(|&block| self.word(block).is_some_and(|other| other != word))
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
        assert_eq!(table.pages.iter().filter(|p| matches!(p, Page::Run(0, 0))).count(), 96);
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

    #[test]
    fn payload_side_by_side_is_small() {
        let mut table = BlockTable::new();
        table.push(BlockState::NotPresent).unwrap();
        table.push_side_by_side(FileOffset::new(512), 1024, 5000).unwrap();
        assert_eq!((table.len(), table.present()), (5001, 5000));
        for block in 1..=5000 {
            let place = FileOffset::new(512 + 1024 * (block - 1));
            assert_eq!(table.get(block), BlockState::Present(place));
        }
        // The page that was begun is filled block by block, and is small all the same.
        assert!(table.pages[1..].iter().all(|page| matches!(page, Page::Run(_, 1024))), "{:?}", table.pages);
        // In the other direction, too.
        let mut table = BlockTable::new();
        for block in 0..2048 {
            table.push(BlockState::PartiallyPresent(FileOffset::new(512 * (4000 - block)))).unwrap();
        }
        assert!(table.pages.iter().all(|page| matches!(page, Page::Run(..))));
        assert_eq!(table.get(2047), BlockState::PartiallyPresent(FileOffset::new(512 * 1953)));
        assert!(table.push_side_by_side(FileOffset::new(512), 0, 2).is_err());
        assert!(table.push_side_by_side(FileOffset::new(u64::MAX - 511), 512, 2).is_err());
    }

    #[test]
    fn scattered_payload_on_whole_mib_takes_four_bytes_a_block() {
        let mut table = BlockTable::new();
        let place = |block: u64| FileOffset::new((block * 7919 % 4099 + ((1 << 27) - 4100)) << 20);
        for block in 0..4096 {
            table.push(BlockState::Present(place(block))).unwrap();
        }
        assert!(table.pages.iter().all(|page| matches!(page, Page::Mib(_))));
        assert!((0..4096).all(|block| table.get(block) == BlockState::Present(place(block))));
    }

    fn state(absent: u32) -> impl Strategy<Value = BlockState> {
        let at = prop_oneof![0u64..1 << 50, (0u64..1 << 28).prop_map(|mib| mib << 11)];
        let at = at.prop_map(|s| FileOffset::new(s * 512));
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
            let mut at = 0;
            while at < states.len() {
                let end = table.stretch_end(at as u64) as usize;
                let same = states[at..].iter().take_while(|&&s| s == states[at]).count();
                let expected = if states[at].payload().is_some() { 1 } else { same };
                prop_assert_eq!(end, at + expected);
                at = end;
            }
            prop_assert_eq!(table.stretch_end(states.len() as u64), u64::MAX);
        }
    }
}
