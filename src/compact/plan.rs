//! The plan: for every block of the new image, what the block table and the free maps already decide.
//!
//! ```text
//!   block table × free map × options ─► Absent          nothing is stored
//!                                       Free            everything stored is proved free
//!                                       Candidate       must be looked at (or kept, where nobody looks)
//! ```
//! A pure function of what is known: no payload is read. **In use is a reason to read, never to keep;
//! free is a reason not to read.**

use std::ops::Range;

use super::options::{Mode, Options};
use super::target::Target;
use crate::error::Result;
use crate::extents::Extents;
use crate::image::{BlockState, Disk, DiskType, Image, Origin, OutState, Pairs};

/// What is known of a block before its payload is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing of it is stored, and nothing was: not present in the new image either.
    Absent,
    /// Nothing of it is stored, and it reads as zero whatever a parent holds; or its contents were
    /// given up (VHDX ZERO, UNMAPPED, UNDEFINED).
    Void,
    /// All that is stored of it is proved free.
    Free,
    /// Something of it is stored that is not free.
    Candidate,
}

impl Decision {
    const fn pack(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Void => 1,
            Self::Free => 2,
            Self::Candidate => 3,
        }
    }

    const fn unpack(bits: u64) -> Self {
        match bits {
            1 => Self::Void,
            2 => Self::Free,
            3 => Self::Candidate,
            _ => Self::Absent,
        }
    }
}

/// How many blocks were decided how, and what they hold (bytes of the disk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Blocks of which nothing is stored.
    pub absent: u64,
    /// Blocks that go because all that is stored of them is free.
    pub free: u64,
    /// Blocks that stay unless they turn out zero (or equal to the parent).
    pub candidate: u64,
    /// Bytes that no image stores.
    pub absent_bytes: u64,
    /// Stored bytes in blocks that go as free.
    pub free_bytes: u64,
    /// Stored bytes in candidates.
    pub candidate_bytes: u64,
    /// Free bytes in candidates: they share a block with bytes that are in use.
    pub trapped_bytes: u64,
    /// Candidates of which less than a tenth is in use.
    pub fragmented: u64,
}

/// The decision for every block of the new image.
pub struct Plan {
    /// What is to be made.
    pub target: Target,
    /// The options it follows.
    pub options: Options,
    /// What counts as free under them (disk offsets).
    pub free: Extents,
    /// Sums.
    pub counts: Counts,
    decisions: Pairs,
}

impl Plan {
    /// Plans the compaction of `disk`, of which `free` counts as free.
    ///
    /// # Errors
    /// What [`Target::resolve`] refuses; read errors of sector bitmaps.
    pub fn new(disk: &Disk, free: Extents, options: Options) -> Result<Self> {
        let target = Target::resolve(disk, &options)?;
        // Zero mode believes no file system, whatever it is told; and without all of its parents nobody
        // knows what a child's file systems read.
        let believed = options.mode != Mode::Zero && disk.is_complete();
        let free = if believed { free } else { Extents::new() };
        let decisions = Pairs::new(target.blocks)?;
        let mut plan = Self { target, options, free, counts: Counts::default(), decisions };
        plan.counts.absent = plan.target.blocks;
        let mut block = plan.next_touched(disk, 0);
        while let Some(at) = block.filter(|&at| at < plan.target.blocks) {
            let decision = plan.decide(disk, at)?;
            plan.decisions.set(at, decision.pack());
            block = plan.next_touched(disk, at.saturating_add(1));
        }
        let known = plan.counts.free_bytes.saturating_add(plan.counts.candidate_bytes);
        plan.counts.absent_bytes = plan.target.addressable_size.saturating_sub(known);
        Ok(plan)
    }

    /// The decision for a block.
    #[must_use]
    pub fn decision(&self, block: u64) -> Decision {
        Decision::unpack(self.decisions.get(block))
    }

    /// The first block at or after `from` that is not [`Decision::Absent`].
    #[must_use]
    pub fn next_decided(&self, from: u64) -> Option<u64> {
        self.decisions.next_nonzero(from)
    }

    /// The first candidate at or after `from`.
    #[must_use]
    pub fn next_candidate(&self, from: u64) -> Option<u64> {
        let mut block = self.next_decided(from);
        while let Some(at) = block {
            if self.decision(at) == Decision::Candidate {
                return Some(at);
            }
            block = self.next_decided(at.saturating_add(1));
        }
        None
    }

    /// The part of the disk that block `block` of the new image covers.
    #[must_use]
    pub fn range(&self, block: u64) -> Range<u64> {
        self.target.block_size.span(block, self.target.addressable_size)
    }

    /// Whether the new image has a marker for "zero, whatever the parent holds".
    #[must_use]
    pub fn has_zero_marker(&self) -> bool {
        self.target.format.description().has_zero_marker
    }

    /// Whether free sectors of kept blocks are written as zeros.
    #[must_use]
    pub const fn scrubs(&self) -> bool {
        self.options.scrub
    }

    /// Whether stored blocks are composed anew from what the whole chain reads, rather than copied with their
    /// sector bitmaps.
    #[must_use]
    pub const fn recomposes(&self) -> bool {
        let differencing = matches!(self.target.disk_type, DiskType::Differencing);
        !self.target.same_blocks || (self.scrubs() && !differencing)
    }

    /// How a candidate that stays is stored.
    #[must_use]
    pub fn kept_state(&self, top: &Image, block: u64) -> OutState {
        match top.blocks.get(block) {
            BlockState::PartiallyPresent(_) if self.target.disk_type == DiskType::Differencing => {
                OutState::PartiallyPresent
            }
            _ => OutState::Present,
        }
    }

    /// How a block that is omitted for being free or zero is marked.
    #[must_use]
    pub fn omitted_state(&self) -> OutState {
        if self.has_zero_marker() { OutState::Zero } else { OutState::NotPresent }
    }

    /// The first block of the new image at or after `from` of which any layer that counts says
    /// more than "not present".
    fn next_touched(&self, disk: &Disk, from: u64) -> Option<u64> {
        let start = self.target.block_size.start_of(from);
        let counted = if self.target.disk_type == DiskType::Differencing { 1 } else { disk.layers().len() };
        let nearest = disk.layers().iter().take(counted).filter_map(|image| {
            let block_size = image.geometry.block_size;
            let known = image.blocks.next_known(block_size.block_of(start))?;
            Some(block_size.start_of(known).max(start))
        });
        Some(self.target.block_size.block_of(nearest.min()?))
    }

    fn decide(&mut self, disk: &Disk, block: u64) -> Result<Decision> {
        let found = if self.target.disk_type == DiskType::Differencing {
            self.survey_child(disk, block)?
        } else {
            self.survey(disk, block)?
        };
        let counts = &mut self.counts;
        let decision = match found {
            Survey { stored: 0, void: false, .. } => return Ok(Decision::Absent),
            Survey { stored: 0, void: true, .. } => return Ok(Decision::Void),
            Survey { droppable: true, .. } => Decision::Free,
            Survey { .. } => Decision::Candidate,
        };
        counts.absent = counts.absent.saturating_sub(1);
        if decision == Decision::Free {
            counts.free = counts.free.saturating_add(1);
            counts.free_bytes = counts.free_bytes.saturating_add(found.stored);
        } else {
            let in_use = found.stored.saturating_sub(found.free);
            counts.candidate = counts.candidate.saturating_add(1);
            counts.candidate_bytes = counts.candidate_bytes.saturating_add(found.stored);
            counts.trapped_bytes = counts.trapped_bytes.saturating_add(found.free);
            let fragmented = in_use.saturating_mul(10) < self.target.block_size.get();
            counts.fragmented = counts.fragmented.saturating_add(u64::from(fragmented));
        }
        Ok(decision)
    }

    /// A block of a disk that is read whole: dynamic, fixed, or a chain to be flattened.
    fn survey(&self, disk: &Disk, block: u64) -> Result<Survey> {
        let mut found = Survey::default();
        let range = self.range(block);
        disk.resolve(range.clone(), &mut |segment| {
            if matches!(segment.origin, Origin::Stored { .. } | Origin::Missing) {
                found.stored = found.stored.saturating_add(segment.len());
                found.free = found.free.saturating_add(self.free.total_within(segment.range));
            }
            Ok(())
        })?;
        found.void = found.stored == 0;
        found.droppable = found.free == found.stored;
        Ok(found)
    }

    /// A block of a child that stays a child: what counts is what the child itself holds, and a zero
    /// marker hides the parent, so the whole block must be free. Without that marker (VHD) the parent's
    /// old bytes might show: then the scan must look at them.
    fn survey_child(&self, disk: &Disk, block: u64) -> Result<Survey> {
        let image = disk.top()?;
        let range = self.range(block);
        let mut found = Survey::default();
        match image.blocks.get(block) {
            BlockState::NotPresent => {}
            BlockState::Zero | BlockState::Undefined | BlockState::Unmapped => found.void = true,
            BlockState::Present(_) => {
                found.stored = range.end.saturating_sub(range.start);
                found.free = self.free.total_within(range.clone());
            }
            BlockState::PartiallyPresent(_) => {
                let bitmap = image.sector_bitmap(block)?;
                let len = range.end.saturating_sub(range.start);
                for (run, own) in bitmap.iter().flat_map(|bitmap| bitmap.runs(0..len)) {
                    if own {
                        let run = range.start.saturating_add(run.start)..range.start.saturating_add(run.end);
                        found.stored = found.stored.saturating_add(run.end.saturating_sub(run.start));
                        found.free = found.free.saturating_add(self.free.total_within(run));
                    }
                }
            }
        }
        found.droppable = self.has_zero_marker() && self.free.contains(range);
        Ok(found)
    }
}

/// What a block holds.
#[derive(Default)]
struct Survey {
    /// Bytes that are stored.
    stored: u64,
    /// How many of them are free.
    free: u64,
    /// Whether its state says more than "never written".
    void: bool,
    /// Whether it may go for being free.
    droppable: bool,
}
