//! The scan: reads what the plan could not decide, and finds what is zero or equal to the parent.
//!
//! A block stays as soon as one byte of it is neither zero nor free, so most blocks cost one short
//! read; only a block that goes is read whole. Zeros are looked for byte by byte: no grain can lose
//! a sector.

use std::ops::Range;

use super::Progress;
use super::options::Mode;
use super::plan::{Decision, Plan};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::image::{Bitmaps, BlockPlan, BlockState, Disk, DiskType, Origin, OutState};
use crate::units::{index, len64};

/// The first read of a block: a block in use nearly always shows it there.
const PROBE: u64 = 64 << 10;
/// Later reads of the same block.
const RUN: u64 = 4 << 20;
/// What a read costs besides its bytes, in bytes, when a step's work is bounded.
const CALL: u64 = 128 << 10;

/// How many blocks were omitted and kept, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Stored in the new image.
    pub kept: u64,
    /// Never stored in the source.
    pub absent: u64,
    /// Omitted for being zero.
    pub zero: u64,
    /// Omitted for being free.
    pub free: u64,
    /// Omitted for being equal to the parent.
    pub equal_to_parent: u64,
}

/// A scan under way.
pub struct Scan {
    out: BlockPlan,
    /// The next block to look at.
    next: Option<u64>,
    tally: Tally,
    done: u64,
    total: u64,
    bytes_read: u64,
    /// Whether anything that may not read as zero was omitted, or is scrubbed.
    reads_changed: bool,
    /// Whether a block that is composed anew holds data where its sector bitmap says "never written".
    readings_differ: bool,
    buffer: Vec<u8>,
    other: Vec<u8>,
}

impl Scan {
    /// The scan of `plan`. In quick mode there is nothing to read: it is finished with its first step.
    ///
    /// # Errors
    /// `limit-exceeded` where the blocks do not fit memory.
    pub fn new(plan: &Plan) -> Result<Self> {
        let total = if plan.options.mode == Mode::Quick { 0 } else { plan.counts.candidate_bytes };
        Ok(Self {
            out: BlockPlan::new(plan.target.blocks)?,
            next: plan.next_decided(0),
            tally: Tally { absent: plan.target.blocks, ..Tally::default() },
            done: 0,
            total,
            bytes_read: 0,
            reads_changed: false,
            readings_differ: false,
            buffer: Vec::new(),
            other: Vec::new(),
        })
    }

    /// Goes back to what an earlier scan of the same plan had found.
    pub(super) fn restore(
        &mut self,
        words: Vec<u64>,
        next: Option<u64>,
        tally: Tally,
        done: u64,
        flags: u64,
    ) {
        self.out.restore(words);
        self.next = next;
        self.tally = tally;
        self.done = done.min(self.total);
        self.reads_changed = flags & 1 != 0;
        self.readings_differ = flags & 2 != 0;
    }

    /// Looks at blocks until about `budget` bytes' worth of reading is done.
    ///
    /// # Errors
    /// Read errors.
    pub fn step(&mut self, disk: &Disk, plan: &Plan, budget: u64) -> Result<Progress> {
        let limit = self.bytes_read.saturating_add(budget);
        let mut spent = self.bytes_read;
        let mut blocks = 0u64;
        while let Some(block) = self.next {
            if spent >= limit || blocks >= 1 << 16 {
                return Ok(self.progress());
            }
            let before = self.bytes_read;
            self.settle(disk, plan, block)?;
            let read = self.bytes_read.saturating_sub(before);
            spent = spent.saturating_add(read).saturating_add(if read > 0 { CALL } else { 0 });
            blocks = blocks.saturating_add(1);
            self.next = plan.next_decided(block.saturating_add(1));
        }
        self.out.seal();
        self.done = self.total;
        Ok(Progress { done: self.total, total: self.total, finished: true })
    }

    /// How far it is.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        Progress { done: self.done, total: self.total, finished: false }
    }

    /// Payload bytes read so far.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What is known of each block so far; sealed once finished.
    #[must_use]
    pub const fn out(&self) -> &BlockPlan {
        &self.out
    }

    /// What was decided, of a finished scan.
    #[must_use]
    pub fn into_out(mut self) -> BlockPlan {
        self.out.seal();
        self.out
    }

    /// Counts so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether anything that may not read as zero was omitted or is scrubbed: then reads of free space
    /// change.
    #[must_use]
    pub const fn reads_changed(&self) -> bool {
        self.reads_changed
    }

    /// Whether programs read the source differently (a dynamic VHD whose sector bitmaps contradict
    /// its payload) in blocks that are composed anew: the payload's reading is the one that is kept.
    #[must_use]
    pub const fn readings_differ(&self) -> bool {
        self.readings_differ
    }

    /// The first block that is not settled yet.
    #[must_use]
    pub fn settled_up_to(&self) -> u64 {
        self.next.unwrap_or(u64::MAX)
    }

    fn settle(&mut self, disk: &Disk, plan: &Plan, block: u64) -> Result<()> {
        let top = disk.top()?;
        match plan.decision(block) {
            Decision::Absent => return Ok(()),
            Decision::Void => {
                self.out.set(block, plan.omitted_state());
                return Ok(());
            }
            Decision::Free => {
                self.tally.free = self.tally.free.saturating_add(1);
                self.reads_changed = true;
                self.out.set(block, plan.omitted_state());
            }
            Decision::Candidate => {
                let verdict = if plan.options.mode == Mode::Quick {
                    Verdict::InUse
                } else if plan.target.disk_type == DiskType::Differencing {
                    self.look_at_child(disk, plan, block)?
                } else {
                    self.look_at(disk, plan, block)?
                };
                let range = plan.range(block);
                self.done = self.done.saturating_add(range.end.saturating_sub(range.start)).min(self.total);
                if matches!(verdict, Verdict::InUse) {
                    self.reads_changed |= plan.scrubs() && plan.free.intersects(range.clone());
                    if plan.recomposes() && !self.readings_differ {
                        self.readings_differ = contradicts_bitmap(disk, range)?;
                    }
                }
                let (state, count) = match verdict {
                    Verdict::InUse => (plan.kept_state(top, block), &mut self.tally.kept),
                    Verdict::Zero => (plan.omitted_state(), &mut self.tally.zero),
                    Verdict::EqualToParent => (OutState::NotPresent, &mut self.tally.equal_to_parent),
                };
                *count = count.saturating_add(1);
                self.out.set(block, state);
            }
        }
        self.tally.absent = self.tally.absent.saturating_sub(1);
        Ok(())
    }

    /// A block of a disk that is read whole: it goes if all that is stored and not free is zero.
    fn look_at(&mut self, disk: &Disk, plan: &Plan, block: u64) -> Result<Verdict> {
        let mut some_free = false;
        for segment in disk.segments(plan.range(block))? {
            let Origin::Stored { layer, offset } = segment.origin else { continue };
            let free: Vec<_> = plan.free.within(segment.range.clone()).collect();
            some_free |= !free.is_empty();
            let mut at = segment.range.start;
            let mut size = PROBE;
            while let Some(from) = skip(&free, at, segment.range.end) {
                let to = from.saturating_add(size).min(segment.range.end);
                let place = offset.plus(from.saturating_sub(segment.range.start))?;
                let image =
                    disk.layers().get(layer).ok_or_else(|| Error::internal("a layer went missing"))?;
                let len = index(to.saturating_sub(from), "a run")?;
                self.buffer.resize(len.max(self.buffer.len()), 0);
                let bytes = self.buffer.get_mut(..len).unwrap_or_default();
                image.container.read_payload(place, bytes)?;
                self.bytes_read = self.bytes_read.saturating_add(len64(len));
                if !zero_except(bytes, from, &free) {
                    return Ok(Verdict::InUse);
                }
                (at, size) = (to, RUN);
            }
        }
        self.reads_changed |= some_free;
        Ok(Verdict::Zero)
    }

    /// A block of a child that stays a child. It goes as zero (VHDX) if all of it reads as zero; as equal
    /// if the parents read the same where it holds sectors of its own, or zero where those are free; and as
    /// zero again if what is not zero is free. Zero comes first: what a parent reads where nothing was ever
    /// written is not for every program zero. What a missing parent would tell speaks against all of it.
    ///
    /// Sectors of a block that stays are left alone, even where they equal the parent: a block takes the
    /// same space with any bitmap, and what the child holds itself no other file can lose.
    fn look_at_child(&mut self, disk: &Disk, plan: &Plan, block: u64) -> Result<Verdict> {
        let top = disk.top()?;
        let range = plan.range(block);
        let len = range.end.saturating_sub(range.start);
        let own = match top.blocks.get(block) {
            BlockState::PartiallyPresent(_) => {
                top.sector_bitmap(block)?.map(|bitmap| bitmap.runs(0..len)).unwrap_or_default()
            }
            _ => vec![(0..len, true)],
        };
        let free: Vec<_> = plan.free.within(range.clone()).collect();
        let mut zero = plan.has_zero_marker();
        let mut wholly_zero = zero;
        let mut equal = true;
        let mut differs_where_free = false;
        for (run, is_own) in own {
            let mut at = range.start.saturating_add(run.start);
            let end = range.start.saturating_add(run.end);
            let mut size = PROBE;
            while at < end && (zero || is_own) {
                let to = at.saturating_add(size).min(end);
                let parent_tells = disk.tells(1, at..to)?;
                zero &= is_own || parent_tells;
                equal &= !is_own || parent_tells;
                if !zero && !equal {
                    return Ok(Verdict::InUse);
                }
                if !is_own && !zero {
                    break;
                }
                let n = index(to.saturating_sub(at), "a run")?;
                self.buffer.resize(n.max(self.buffer.len()), 0);
                let bytes = self.buffer.get_mut(..n).unwrap_or_default();
                disk.read_below(0, at, bytes)?;
                self.bytes_read = self.bytes_read.saturating_add(len64(n));
                zero = zero && zero_except(bytes, at, &free);
                wholly_zero = wholly_zero && is_zero(bytes);
                if is_own && equal {
                    self.other.resize(n.max(self.other.len()), 0);
                    let parent = self.other.get_mut(..n).unwrap_or_default();
                    disk.take_ambiguity();
                    disk.read_below(1, at, parent)?;
                    // A parent that programs read differently equals nothing.
                    let agreed = !disk.take_ambiguity();
                    differs_where_free |= bytes != parent;
                    equal = agreed && (bytes == parent || shows_nothing(bytes, parent, at, &plan.free));
                }
                (at, size) = (to, RUN);
            }
        }
        if zero && wholly_zero {
            return Ok(Verdict::Zero);
        }
        if equal {
            self.reads_changed |= differs_where_free;
            return Ok(Verdict::EqualToParent);
        }
        if zero {
            self.reads_changed = true;
            return Ok(Verdict::Zero);
        }
        Ok(Verdict::InUse)
    }
}

/// Whether a stretch of a child may go: `bytes`, which stand at disk offset `at`, equal the `parent`'s, or
/// are free where the parent's are zero. Free space may change; it must not show what was once deleted.
fn shows_nothing(bytes: &[u8], parent: &[u8], at: u64, free: &Extents) -> bool {
    if bytes.iter().zip(parent).any(|(own, below)| own != below && *below != 0) {
        return false;
    }
    let differing = |range: &Range<u64>| {
        let window = index(range.start.saturating_sub(at), "a run").ok()?
            ..index(range.end.saturating_sub(at), "a run").ok()?;
        Some(bytes.get(window.clone())? != parent.get(window)?)
    };
    let end = at.saturating_add(len64(bytes.len()));
    free.gaps(at..end).into_iter().all(|used| differing(&used) == Some(false))
}

/// Whether the dynamic VHD at the root of a chain holds data in `range` of the disk where its bitmaps say
/// "never written".
fn contradicts_bitmap(disk: &Disk, range: Range<u64>) -> Result<bool> {
    let Some(root) = disk.layers().last() else { return Ok(false) };
    if root.disk_type != DiskType::Dynamic || !matches!(root.bitmaps, Bitmaps::BeforePayload { .. }) {
        return Ok(false);
    }
    disk.take_ambiguity();
    let block_size = root.geometry.block_size;
    let mut at = range.start;
    while at < range.end.min(root.geometry.addressable_size) {
        let block = block_size.block_of(at);
        let covered = root.block_range(block);
        let end = covered.end.min(range.end);
        let all_set =
            root.sector_bitmap(block)?.is_none_or(|b| b.all_set(covered.end.saturating_sub(covered.start)));
        while !all_set && at < end {
            let to = at.saturating_add(RUN).min(end);
            let mut bytes = vec![0; index(to.saturating_sub(at), "a run")?];
            disk.read_below(0, at, &mut bytes)?;
            at = to;
        }
        at = end;
    }
    Ok(disk.take_ambiguity())
}

enum Verdict {
    InUse,
    Zero,
    EqualToParent,
}

/// The first byte at or after `at` and before `end` that is not in `free`.
fn skip(free: &[Range<u64>], at: u64, end: u64) -> Option<u64> {
    let next = free.partition_point(|range| range.end <= at);
    let from = free.get(next).filter(|range| range.start <= at).map_or(at, |range| range.end);
    (from < end).then_some(from)
}

/// Whether `bytes`, which stand at disk offset `at`, are zero outside `free`.
fn zero_except(bytes: &[u8], at: u64, free: &[Range<u64>]) -> bool {
    let end = at.saturating_add(len64(bytes.len()));
    let mut from = at;
    let first = free.partition_point(|range| range.end <= at);
    for range in free.get(first..).unwrap_or_default() {
        if range.start >= end {
            break;
        }
        if !zero_window(bytes, at, from..range.start) {
            return false;
        }
        from = range.end.min(end);
    }
    zero_window(bytes, at, from..end)
}

fn zero_window(bytes: &[u8], at: u64, window: Range<u64>) -> bool {
    if window.start >= window.end {
        return true;
    }
    let part = index(window.start.saturating_sub(at), "a run")
        .ok()
        .zip(index(window.end.saturating_sub(at), "a run").ok())
        .and_then(|(from, to)| bytes.get(from..to));
    part.is_some_and(is_zero)
}

/// Whether all of `bytes` are zero. Looks at 64 bytes at a time, as words, so that it is fast also
/// where the rest of the program is compiled for size.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let any = |chunk: &[u8; 64]| {
        let (words, _) = chunk.as_chunks::<8>();
        words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word))
    };
    chunks.iter().all(|chunk| any(chunk) == 0) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn zero_except_sees_every_byte_that_is_not_free(
            at in 0u64..50,
            bytes in proptest::collection::vec(prop_oneof![6 => Just(0u8), 1 => Just(1u8)], 0..600),
            free in proptest::collection::vec((0u64..700, 1u64..90), 0..6),
        ) {
            let free = crate::extents::Extents::from_ranges(free.iter().map(|&(s, l)| s..s + l).collect());
            let expected = bytes.iter().enumerate().all(|(i, &b)| {
                let place = at + i as u64;
                b == 0 || free.contains(place..place + 1)
            });
            prop_assert_eq!(zero_except(&bytes, at, free.ranges()), expected);
            prop_assert_eq!(is_zero(&bytes), bytes.iter().all(|&b| b == 0));
        }

        #[test]
        fn skip_finds_the_first_byte_in_use(
            at in 0u64..100, len in 0u64..50,
            free in proptest::collection::vec((0u64..150, 1u64..30), 0..6),
        ) {
            let free = crate::extents::Extents::from_ranges(free.iter().map(|&(s, l)| s..s + l).collect());
            let expected = (at..at + len).find(|&p| !free.contains(p..p + 1));
            prop_assert_eq!(skip(free.ranges(), at, at + len), expected);
        }
    }
}
