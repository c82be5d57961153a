//! The block map: the disk as a picture of so many cells, each with the bytes of every class in it.

use super::plan::{Decision, Plan};
use crate::error::{Error, Result};
use crate::image::{BlockPlan, OutState};
use crate::units::{add, index, length};

/// What bytes of the disk are, or become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellClass {
    /// Stored nowhere.
    Absent,
    /// In use, as a file system says.
    InUse,
    /// Free, and will go.
    Free,
    /// Was found to be zero (or equal to the parent), and goes.
    Zero,
    /// Free, and stays: it shares a block with bytes that stay.
    Held,
    /// Of unknown use: no file system tells.
    Unknown,
    /// Was free, and is settled to go.
    Dropped,
}

impl CellClass {
    /// The classes, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Absent, Self::InUse, Self::Free, Self::Zero, Self::Held, Self::Unknown, Self::Dropped];

    /// Its number in a [`BlockMap`].
    #[must_use]
    pub const fn number(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::InUse => 1,
            Self::Free => 2,
            Self::Zero => 3,
            Self::Held => 4,
            Self::Unknown => 5,
            Self::Dropped => 6,
        }
    }
}

/// Bytes of the disk by class, in the order of [`CellClass::ALL`].
pub type Mixture = [u64; CellClass::ALL.len()];

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// The bytes of each cell, by class; together they are the cell's part of the disk.
    pub cells: Vec<Mixture>,
    /// How many blocks a cell stands for; the last may stand for fewer.
    pub blocks_per_cell: u64,
}

/// Most cells of one picture.
const MAX_CELLS: u64 = 1 << 16;

/// What a scan has found: the state of every block before the second number.
pub type Found<'a> = (&'a BlockPlan, u64);

/// The picture of `plan` in at most `cells` cells, with what a scan has found so far.
///
/// # Errors
/// None in practice.
pub fn block_map(plan: &Plan, found: Option<Found<'_>>, cells: u64) -> Result<BlockMap> {
    let blocks = plan.target.blocks.max(1);
    let cells = cells.clamp(1, MAX_CELLS).min(blocks);
    let blocks_per_cell = blocks.div_ceil(cells);
    let count = blocks.div_ceil(blocks_per_cell);
    let mut map = vec![Mixture::default(); index(count, "a picture")?];
    let mapped = plan.analysis().mapped()?;
    let mut block = plan.next_stored(0);
    while let Some(at) = block {
        let range = plan.range(at);
        let cell =
            index(at.checked_div(blocks_per_cell).ok_or_else(|| Error::internal("no cells"))?, "a cell")?;
        let cell = map.get_mut(cell).ok_or_else(|| Error::internal("a block outside of the picture"))?;
        let mut count = |class: CellClass, bytes: u64| -> Result<()> {
            let sum =
                cell.get_mut(class.number()).ok_or_else(|| Error::internal("a class without number"))?;
            *sum = add(*sum, bytes, "the bytes of a cell")?;
            Ok(())
        };
        let settled = found.filter(|(_, up_to)| at < *up_to);
        let free = plan.free.total_within(range.clone());
        let len = length(&range);
        match (plan.decision(at), settled.map(|(out, _)| out.get(at))) {
            (Decision::Absent | Decision::Void, _) => {}
            (Decision::Free, None) => count(CellClass::Free, len)?,
            (Decision::Free, Some(_)) => count(CellClass::Dropped, len)?,
            (Decision::Candidate, Some(OutState::NotPresent | OutState::Zero)) => {
                count(CellClass::Dropped, free)?;
                count(CellClass::Zero, length(&(free..len)))?;
            }
            (Decision::Candidate, None | Some(OutState::Present | OutState::PartiallyPresent)) => {
                // Free space lies in mapped volumes.
                let known = mapped.total_within(range).max(free);
                count(CellClass::Held, free)?;
                count(CellClass::InUse, length(&(free..known)))?;
                count(CellClass::Unknown, length(&(known..len)))?;
            }
        }
        block = plan.next_stored(add(at, 1, "a block")?);
    }
    let size = plan.target.block_size.start_of(blocks_per_cell);
    let mut start = 0u64;
    for cell in &mut map {
        let end = add(start, size, "a disk offset")?.min(plan.target.addressable_size);
        let stored = cell.iter().try_fold(0, |sum, bytes| add(sum, *bytes, "the bytes of a cell"))?;
        let [absent, ..] = cell;
        *absent = length(&(stored..length(&(start..end))));
        start = end;
    }
    Ok(BlockMap { cells: map, blocks_per_cell })
}
