//! The block map: the disk as a picture of so many cells, each with the class that says most about it.

use super::plan::{Decision, Plan};
use crate::error::Result;
use crate::extents::Extents;
use crate::image::{BlockPlan, OutState};
use crate::units::index;

/// What a cell of the picture stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellClass {
    /// Nothing is stored there.
    Absent,
    /// In use, as a file system says.
    InUse,
    /// Free, and about to be dropped.
    Free,
    /// Was found to be zero (or equal to the parent), and is dropped.
    Zero,
    /// Partly free: kept for what else is in the block.
    PartlyFree,
    /// Of unknown use: no file system tells.
    Unknown,
    /// Was looked at, and is kept.
    Kept,
    /// Is dropped for being free.
    Dropped,
}

impl CellClass {
    /// The classes, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::InUse,
        Self::Free,
        Self::Zero,
        Self::PartlyFree,
        Self::Unknown,
        Self::Kept,
        Self::Dropped,
    ];

    /// Its number in a [`BlockMap`].
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::InUse => 1,
            Self::Free => 2,
            Self::Zero => 3,
            Self::PartlyFree => 4,
            Self::Unknown => 5,
            Self::Kept => 6,
            Self::Dropped => 7,
        }
    }
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// The class of each cell, by number.
    pub cells: Vec<u8>,
    /// How many blocks a cell stands for; the last may stand for fewer.
    pub blocks_per_cell: u64,
}

/// Most cells of one picture.
const MAX_CELLS: u64 = 1 << 16;

/// What a scan has found: the state of every block before the second number.
pub type Found<'a> = (&'a BlockPlan, u64);

/// The picture of `plan` in at most `cells` cells, with what a scan has found so far. `mapped` holds the
/// disk bytes of which some file system tells.
///
/// # Errors
/// None in practice.
pub fn block_map(plan: &Plan, mapped: &Extents, found: Option<Found<'_>>, cells: u64) -> Result<BlockMap> {
    let blocks = plan.target.blocks.max(1);
    let cells = cells.clamp(1, MAX_CELLS).min(blocks);
    let blocks_per_cell = blocks.div_ceil(cells);
    let count = blocks.div_ceil(blocks_per_cell);
    let mut weights = vec![[0u32; 8]; index(count, "a picture")?];
    let mut block = plan.next_decided(0);
    while let Some(at) = block {
        let class = classify(plan, mapped, found, at);
        let cell = at.checked_div(blocks_per_cell).and_then(|cell| index(cell, "a cell").ok());
        if let Some(weight) =
            cell.and_then(|cell| weights.get_mut(cell)).and_then(|w| w.get_mut(usize::from(class.number())))
        {
            *weight = weight.saturating_add(1);
        }
        block = plan.next_decided(at.saturating_add(1));
    }
    let cells = weights.iter().map(dominant).collect();
    Ok(BlockMap { cells, blocks_per_cell })
}

/// The class that most blocks of a cell have; absent only where all are.
fn dominant(weights: &[u32; 8]) -> u8 {
    let best = CellClass::ALL
        .iter()
        .filter(|class| **class != CellClass::Absent)
        .max_by_key(|class| weights.get(usize::from(class.number())).copied().unwrap_or_default());
    best.filter(|class| weights.get(usize::from(class.number())).is_some_and(|&w| w > 0))
        .map_or(0, |class| class.number())
}

fn classify(plan: &Plan, mapped: &Extents, found: Option<Found<'_>>, block: u64) -> CellClass {
    let settled = found.filter(|(_, up_to)| block < *up_to);
    match (plan.decision(block), settled) {
        (Decision::Absent | Decision::Void, _) => CellClass::Absent,
        (Decision::Free, None) => CellClass::Free,
        (Decision::Free, Some(_)) => CellClass::Dropped,
        (Decision::Candidate, Some((out, _))) => match out.get(block) {
            OutState::Present | OutState::PartiallyPresent => CellClass::Kept,
            _ => CellClass::Zero,
        },
        (Decision::Candidate, None) => {
            let range = plan.range(block);
            if plan.free.intersects(range.clone()) {
                CellClass::PartlyFree
            } else if mapped.intersects(range) {
                CellClass::InUse
            } else {
                CellClass::Unknown
            }
        }
    }
}
