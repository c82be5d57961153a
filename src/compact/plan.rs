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
use std::rc::Rc;

use super::analysis::Analysis;
use super::options::{BlockSizeChoice, Options};
use super::target::{Fresh, Target};
use crate::error::Result;
use crate::extents::Extents;
use crate::image::{BlockPlan, BlockState, ClearBits, Disk, DiskType, Image, Origin, OutState, Pairs};
use crate::units::{add, length};

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
    analysis: Rc<Analysis>,
    /// The source as the new image shall read.
    disk: Disk,
    /// What is to be made.
    pub target: Target,
    /// The options it follows.
    pub options: Options,
    /// What counts as free under them (disk offsets).
    pub free: Extents,
    /// Sums.
    pub counts: Counts,
    /// The size of the new image if every candidate stays.
    pub size: u64,
    decisions: Pairs,
}

/// Smaller blocks are taken where they may save more than one part in this many of the new image.
const WORTH_SMALLER_BLOCKS: u64 = 50;

impl Plan {
    /// Plans the compaction of the disk that `analysis` tells of.
    ///
    /// # Errors
    /// What [`Target::resolve`] refuses; read errors of sector bitmaps.
    pub fn new(analysis: &Rc<Analysis>, options: Options) -> Result<Self> {
        let free = analysis.free(&options)?;
        let (nearest, smaller) = Target::resolve(analysis.disk(), &options)?;
        let plan = Self::for_target(analysis, nearest, free, options)?;
        let Some(smaller) = smaller else { return Ok(plan) };
        let smaller = Self::for_target(analysis, smaller, plan.free.clone(), options)?;
        // What no file system tells of may turn out zero, and goes only in blocks that are small enough.
        let unknown = smaller.unknown_bytes(&analysis.mapped()?)?;
        let may_save = add(length(&(smaller.size..plan.size)), unknown, "what may be saved")?;
        Ok(if may_save > plan.size / WORTH_SMALLER_BLOCKS { smaller } else { plan })
    }

    fn for_target(analysis: &Rc<Analysis>, target: Target, free: Extents, options: Options) -> Result<Self> {
        let decisions = Pairs::new(target.blocks)?;
        let analysis = Rc::clone(analysis);
        let counts = Counts { absent: target.blocks, ..Counts::default() };
        let disk = analysis.disk().clone();
        let mut plan = Self { analysis, disk, target, options, free, counts, size: 0, decisions };
        if plan.recomposes() {
            plan.disk = plan.disk.as_programs_read();
        }
        let mut out = BlockPlan::new(plan.target.blocks)?;
        let mut block = plan.next_touched(0);
        while let Some(at) = block.filter(|&at| at < plan.target.blocks) {
            // Most of the largest tables is blocks that are marked as zero.
            if let Some(end) = plan.void_stretch_end(at) {
                plan.decisions.fill(at..end, Decision::Void.pack());
                block = plan.next_touched(end);
                continue;
            }
            let decision = plan.decide(at)?;
            plan.decisions.set(at, decision.pack());
            match decision {
                Decision::Candidate => out.set(at, plan.kept_state(at)),
                // Whatever is not stored takes no room.
                Decision::Free | Decision::Void | Decision::Absent => {}
            }
            block = plan.next_touched(add(at, 1, "a block")?);
        }
        let known = add(plan.counts.free_bytes, plan.counts.candidate_bytes, "the stored bytes")?;
        // Stored bytes are bytes of the disk.
        plan.counts.absent_bytes = length(&(known..plan.target.addressable_size));
        out.seal();
        let writer = plan.target.writer(plan.top(), plan.counts.free > 0, &Fresh::default())?;
        plan.size = writer.file_size(&out)?;
        Ok(plan)
    }

    /// What it is a plan for.
    #[must_use]
    pub const fn analysis(&self) -> &Rc<Analysis> {
        &self.analysis
    }

    /// The disk whose compaction it plans, as the new image shall read: where blocks are composed anew, as the
    /// programs that made the images read them.
    #[must_use]
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The image itself, without its parents.
    #[must_use]
    pub fn top(&self) -> &Image {
        self.analysis.top()
    }

    /// Stored bytes of candidates that are outside `mapped`, the volumes of which file systems tell.
    fn unknown_bytes(&self, mapped: &Extents) -> Result<u64> {
        let mut sum = 0;
        let mut block = self.next_stored(0);
        while let Some(at) = block {
            if self.decision(at) == Decision::Candidate {
                let range = self.range(at);
                let unknown = length(&(mapped.total_within(range.clone())..length(&range)));
                sum = add(sum, unknown, "what no file system tells of")?;
            }
            block = self.next_stored(add(at, 1, "a block")?);
        }
        Ok(sum)
    }

    /// Whether a person asked for more than a smaller file: then it is carried out even where nothing is saved.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        let Options { scrub, flatten, to_dynamic, block_size, .. } = self.options;
        let top = self.top();
        let another_size = matches!(block_size, BlockSizeChoice::Exactly(_))
            && self.target.block_size != top.geometry.block_size;
        scrub
            || flatten && top.disk_type == DiskType::Differencing
            || to_dynamic && top.disk_type == DiskType::Fixed
            || self.target.format != top.format
            || another_size
    }

    /// The decision for a block.
    #[must_use]
    pub fn decision(&self, block: u64) -> Decision {
        Decision::unpack(self.decisions.get(block))
    }

    /// The first block at or after `from` of which something is stored: [`Decision::Free`] or
    /// [`Decision::Candidate`]. Found in big steps over all others.
    #[must_use]
    pub fn next_stored(&self, from: u64) -> Option<u64> {
        self.decisions.next_above_one(from)
    }

    /// What becomes of the blocks of which nothing is stored; the others are not decided here.
    ///
    /// # Errors
    /// `limit-exceeded` where the blocks do not fit memory.
    pub fn unstored(&self) -> Result<BlockPlan> {
        match self.omitted_state() {
            // The number of `Decision::Void` is 1.
            OutState::Zero => Ok(BlockPlan::with_zeros(&self.decisions)),
            _ => BlockPlan::new(self.target.blocks),
        }
    }

    /// The end of the stretch of blocks from `block` on that are all void, told by the image's block table alone.
    fn void_stretch_end(&self, block: u64) -> Option<u64> {
        if self.target.disk_type == DiskType::Differencing {
            return None;
        }
        let (table, stored) = (&self.top().blocks, self.top().geometry.block_size);
        let known = stored.block_of(self.target.block_size.start_of(block));
        let is_void =
            matches!(table.get(known), BlockState::Zero | BlockState::Undefined | BlockState::Unmapped);
        // A block of the new image that is void in part only is decided by itself.
        let end = self.target.block_size.block_of(stored.start_of(table.stretch_end(known)));
        (is_void && end > block).then(|| end.min(self.target.blocks))
    }

    /// The parts of the disk (disk offsets) whose blocks were decided so; neighbours are one range.
    ///
    /// # Errors
    /// None in practice.
    pub fn decided(&self, decision: Decision) -> Result<Extents> {
        let mut ranges = Extents::new();
        let mut block = self.next_stored(0);
        while let Some(at) = block {
            if self.decision(at) == decision {
                ranges.push(self.range(at));
            }
            block = self.next_stored(add(at, 1, "a block")?);
        }
        Ok(ranges)
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

    /// Whether blocks are composed anew of an image whose own program reads zero where a bit of a sector bitmap
    /// is clear: then so does the new image.
    #[must_use]
    pub fn reads_by_bitmap(&self) -> bool {
        self.recomposes() && self.disk.layers().any(|image| image.clear_bits() == ClearBits::Zero)
    }

    /// How a candidate that stays is stored.
    #[must_use]
    pub fn kept_state(&self, block: u64) -> OutState {
        match self.top().blocks.get(block) {
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
    fn next_touched(&self, from: u64) -> Option<u64> {
        let start = self.target.block_size.start_of(from);
        let counted = if self.target.disk_type == DiskType::Differencing { 1 } else { usize::MAX };
        let nearest = self.disk().layers().take(counted).filter_map(|image| {
            let block_size = image.geometry.block_size;
            let known = image.blocks.next_known(block_size.block_of(start))?;
            Some(block_size.start_of(known).max(start))
        });
        Some(self.target.block_size.block_of(nearest.min()?))
    }

    fn decide(&mut self, block: u64) -> Result<Decision> {
        let found = if self.target.disk_type == DiskType::Differencing {
            self.survey_child(block)?
        } else {
            self.survey(block)?
        };
        let counts = &mut self.counts;
        let decision = match found {
            Survey { stored: 0, void: false, .. } => return Ok(Decision::Absent),
            Survey { stored: 0, void: true, .. } => Decision::Void,
            Survey { droppable: true, .. } => Decision::Free,
            Survey { .. } => Decision::Candidate,
        };
        let count = |sum: &mut u64, more| -> Result<()> {
            *sum = add(*sum, more, "a sum over all blocks")?;
            Ok(())
        };
        match decision {
            Decision::Absent | Decision::Void => {}
            Decision::Free => {
                count(&mut counts.free, 1)?;
                count(&mut counts.free_bytes, found.stored)?;
            }
            Decision::Candidate => {
                // What is free is counted among what is stored.
                let in_use = length(&(found.free..found.stored));
                let fragmented = in_use < self.target.block_size.get() / 10;
                count(&mut counts.candidate, 1)?;
                count(&mut counts.candidate_bytes, found.stored)?;
                count(&mut counts.trapped_bytes, found.free)?;
                count(&mut counts.fragmented, u64::from(fragmented))?;
            }
        }
        // Each block was counted as absent before.
        let decided = add(counts.free, counts.candidate, "a number of blocks")?;
        counts.absent = length(&(decided..self.target.blocks));
        Ok(decision)
    }

    /// A block of a disk that is read whole: dynamic, fixed, or a chain to be flattened.
    fn survey(&self, block: u64) -> Result<Survey> {
        let mut found = Survey::default();
        // Most of the largest tables is blocks that are marked as zero: they need no resolving.
        if self.target.same_blocks && !self.top().blocks.get(block).is_stored() {
            return Ok(Survey { void: true, ..found });
        }
        let range = self.range(block);
        // By the payload, which may be more than what will be composed: a look at every sector bitmap would take
        // long, and the scan looks at them.
        self.analysis.disk().resolve(range, &mut |segment| {
            if matches!(segment.origin, Origin::Stored { .. } | Origin::Missing) {
                found.stored = add(found.stored, segment.len(), "the stored bytes of a block")?;
                let free = self.free.total_within(segment.range);
                found.free = add(found.free, free, "the free bytes of a block")?;
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
    fn survey_child(&self, block: u64) -> Result<Survey> {
        let image = self.top();
        let range = self.range(block);
        let mut found = Survey::default();
        match image.blocks.get(block) {
            BlockState::NotPresent => {}
            BlockState::Zero | BlockState::Undefined | BlockState::Unmapped => found.void = true,
            BlockState::Present(_) => {
                found.stored = length(&range);
                found.free = self.free.total_within(range.clone());
            }
            BlockState::PartiallyPresent(_) => {
                for run in image.own_runs(block)?.into_iter().filter_map(|(run, own)| own.then_some(run)) {
                    found.stored = add(found.stored, length(&run), "the stored bytes of a block")?;
                    let free = self.free.total_within(run);
                    found.free = add(found.free, free, "the free bytes of a block")?;
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
