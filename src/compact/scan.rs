//! The scan: reads what the plan could not decide, and finds what is zero or equal to the parent.
//!
//! A block stays as soon as one byte of it is neither zero nor free, so most blocks cost one short
//! read; only a block that goes is read whole. Zeros are looked for byte by byte: no grain can lose
//! a sector.

use std::ops::Range;
use std::rc::Rc;

use super::options::Mode;
use super::outlook::{Foreseen, Outlook, Sample};
use super::plan::{Decision, Plan};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::image::{Bitmaps, BlockPlan, Disk, DiskType, Origin, OutState};
use crate::io::ReadAt;
use crate::units::{Progress, add, index, len64, length};

/// The first read of a block: a block in use nearly always shows it there.
const PROBE: u64 = 64 << 10;
/// Later reads of the same block.
const RUN: u64 = 4 << 20;
/// How many blocks one step settles at most: those that need no reading cost little, and not nothing.
const MAX_BLOCKS_A_STEP: u32 = 1 << 16;
/// What a read costs besides its bytes, in bytes, when a step's work is bounded and what is left is foreseen: about
/// 150 KiB in Node, 480 KiB in browsers.
const READ_OVERHEAD: u64 = 256 << 10;

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
    plan: Rc<Plan>,
    out: BlockPlan,
    /// The next block to look at.
    next: Option<u64>,
    tally: Tally,
    /// What was foreseen before the first block was settled; none until then.
    outlook: Option<Outlook>,
    /// What the looking took so far, in bytes of reading.
    done: u64,
    bytes_read: u64,
    /// What was read and is zero, of blocks that go for it (disk offsets).
    seen_zero: Extents,
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
    pub fn new(plan: &Rc<Plan>) -> Result<Self> {
        Ok(Self {
            plan: Rc::clone(plan),
            out: plan.unstored()?,
            next: plan.next_stored(0),
            tally: Tally { absent: plan.target.blocks, ..Tally::default() },
            outlook: None,
            done: 0,
            bytes_read: 0,
            seen_zero: Extents::new(),
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
        self.done = done;
        self.reads_changed = flags & 1 != 0;
        self.readings_differ = flags & 2 != 0;
    }

    /// Looks at blocks until about `budget` bytes' worth of reading is done.
    ///
    /// # Errors
    /// Read errors.
    pub fn step(&mut self, budget: u64) -> Result<Progress> {
        let plan = Rc::clone(&self.plan);
        if self.outlook.is_none() {
            let outlook = self.look_ahead(&plan)?;
            let has_looked = !outlook.is_empty();
            self.outlook = Some(outlook);
            if has_looked {
                return Ok(self.progress());
            }
        }
        let mut left = budget;
        let mut blocks = 0..MAX_BLOCKS_A_STEP;
        while let Some(block) = self.next {
            if left == 0 || blocks.next().is_none() {
                return Ok(self.progress());
            }
            let before = self.bytes_read;
            self.settle(&plan, block)?;
            let work = work_of(length(&(before..self.bytes_read)));
            self.done = add(self.done, work, "what was looked at")?;
            // The last block may cost more than what is left.
            left = left.saturating_sub(work);
            self.next = plan.next_stored(next(block));
        }
        self.out.seal();
        Ok(Progress { finished: true, ..self.progress() })
    }

    /// Looks at some of the blocks that are to come, for what the others will take.
    fn look_ahead(&mut self, plan: &Plan) -> Result<Outlook> {
        if plan.options.mode == Mode::Quick || plan.target.disk_type == DiskType::Differencing {
            return Ok(Outlook::default());
        }
        let stored = std::iter::successors(self.next, |&block| plan.next_stored(next(block)));
        let candidates = stored.filter(|&block| plan.decision(block) == Decision::Candidate);
        Outlook::sample(self.left(), candidates, |block| {
            let (mut first, mut wanted) = (None, 0);
            for segment in plan.disk().segments(plan.range(block))? {
                let Origin::Stored { layer, offset } = segment.origin else { continue };
                for used in plan.free.gaps(segment.range.clone()) {
                    let place = offset.plus(length(&(segment.range.start..used.start)))?;
                    wanted = add(wanted, length(&used), "what is to be read")?;
                    first.get_or_insert((layer, place, length(&used).min(PROBE)));
                }
            }
            let Some((layer, place, len)) = first else {
                return Ok(Sample { block, work: 0, is_zero: true });
            };
            let bytes = window_of(&mut self.buffer, len)?;
            plan.disk().layer(layer)?.container.read_payload(place, bytes)?;
            self.bytes_read = add(self.bytes_read, len, "what was read")?;
            let is_zero = is_zero(bytes);
            Ok(Sample { block, work: work_of(if is_zero { wanted } else { len }), is_zero })
        })
    }

    /// How many candidates are not settled yet.
    fn left(&self) -> u64 {
        let Tally { kept, zero, equal_to_parent, .. } = self.tally;
        let settled = kept.saturating_add(zero).saturating_add(equal_to_parent);
        length(&(settled..self.plan.counts.candidate))
    }

    /// What is to come, by the sample, or else as what was: at first, that all is to be read.
    fn foresee(&self) -> Foreseen {
        if self.next.is_none() || self.plan.options.mode == Mode::Quick {
            return Foreseen::default();
        }
        let left = self.left();
        let sampled = self.outlook.as_ref().and_then(|outlook| outlook.foresee(self.settled_up_to(), left));
        sampled.unwrap_or_else(|| {
            let whole = self.plan.counts.candidate_bytes.checked_div(self.plan.counts.candidate);
            let settled = length(&(left..self.plan.counts.candidate));
            let each = self.done.checked_div(settled).or(whole).unwrap_or(0);
            Foreseen { work: each.saturating_mul(left), zero: 0 }
        })
    }

    /// About how large the new image gets, as far as this can be foreseen; nothing is promised by it.
    #[must_use]
    pub fn foreseen_size(&self) -> u64 {
        let Tally { zero, equal_to_parent, .. } = self.tally;
        let gone = zero.saturating_add(equal_to_parent).saturating_add(self.foresee().zero);
        length(&(gone.saturating_mul(self.plan.target.block_size.get())..self.plan.size))
    }

    /// What it is a scan of.
    #[must_use]
    pub const fn plan(&self) -> &Rc<Plan> {
        &self.plan
    }

    /// How far it is: what the looking took, and with what it will take still, in bytes of reading.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let total = self.done.saturating_add(self.foresee().work);
        Progress { done: self.done, total, finished: false }
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

    /// Whether every block is settled.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.next.is_none()
    }

    /// What was decided, and what was read and is zero, of a finished scan.
    #[must_use]
    pub fn into_parts(mut self) -> (BlockPlan, Extents) {
        self.out.seal();
        (self.out, self.seen_zero)
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
    /// its payload) in blocks that are composed anew: one reading is kept, see [`Plan::reads_by_bitmap`].
    #[must_use]
    pub const fn readings_differ(&self) -> bool {
        self.readings_differ
    }

    /// The first block that is not settled yet.
    #[must_use]
    pub fn settled_up_to(&self) -> u64 {
        self.next.unwrap_or(u64::MAX)
    }

    fn settle(&mut self, plan: &Plan, block: u64) -> Result<()> {
        match plan.decision(block) {
            // They were marked in the beginning.
            Decision::Absent | Decision::Void => return Ok(()),
            Decision::Free => {
                count(&mut self.tally.free)?;
                self.reads_changed = true;
                self.out.set(block, plan.omitted_state());
            }
            Decision::Candidate => {
                let verdict = if plan.options.mode == Mode::Quick {
                    Verdict::InUse
                } else if plan.target.disk_type == DiskType::Differencing {
                    self.look_at_child(plan, block)?
                } else {
                    self.look_at(plan, block)?
                };
                let range = plan.range(block);
                if matches!(verdict, Verdict::InUse) {
                    self.reads_changed |= plan.scrubs() && plan.free.intersects(range.clone());
                }
                // Also of a block that is left out because its own program reads zeros.
                let composed = matches!(verdict, Verdict::InUse) || plan.reads_by_bitmap();
                if plan.recomposes() && composed && !self.readings_differ {
                    self.readings_differ = contradicts_bitmap(plan.analysis().disk(), range)?;
                }
                let (state, tally) = match verdict {
                    Verdict::InUse => (plan.kept_state(block), &mut self.tally.kept),
                    Verdict::Zero => (plan.omitted_state(), &mut self.tally.zero),
                    Verdict::EqualToParent => (OutState::NotPresent, &mut self.tally.equal_to_parent),
                };
                count(tally)?;
                self.out.set(block, state);
            }
        }
        // Every block was counted as absent in the beginning.
        self.tally.absent =
            self.tally.absent.checked_sub(1).ok_or_else(|| Error::internal("a miscounted block"))?;
        Ok(())
    }

    /// A block of a disk that is read whole: it goes if all that is stored and not free is zero.
    fn look_at(&mut self, plan: &Plan, block: u64) -> Result<Verdict> {
        let disk = plan.disk();
        let mut some_free = false;
        let mut zero = Vec::new();
        for segment in disk.segments(plan.range(block))? {
            let Origin::Stored { layer, offset } = segment.origin else { continue };
            let free: Vec<_> = plan.free.within(segment.range.clone()).collect();
            some_free |= !free.is_empty();
            let mut at = segment.range.start;
            let mut size = PROBE;
            while let Some(from) = skip(&free, at, segment.range.end) {
                let to = add(from, size, "a disk offset")?.min(segment.range.end);
                let place = offset.plus(length(&(segment.range.start..from)))?;
                let bytes = window_of(&mut self.buffer, length(&(from..to)))?;
                disk.layer(layer)?.container.read_payload(place, bytes)?;
                self.bytes_read = add(self.bytes_read, length(&(from..to)), "what was read")?;
                if !zero_except(bytes, from, &free)? {
                    return Ok(Verdict::InUse);
                }
                zero.push(from..to);
                (at, size) = (to, RUN);
            }
        }
        for range in zero {
            plan.free.gaps(range).into_iter().for_each(|used| self.seen_zero.push(used));
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
    fn look_at_child(&mut self, plan: &Plan, block: u64) -> Result<Verdict> {
        let disk = plan.disk();
        let range = plan.range(block);
        let free: Vec<_> = plan.free.within(range.clone()).collect();
        let mut zero = plan.has_zero_marker();
        let mut wholly_zero = zero;
        let mut equal = true;
        let mut differs_where_free = false;
        for (run, is_own) in plan.top().own_runs(block)? {
            let (mut at, end) = (run.start, run.end);
            let mut size = PROBE;
            while at < end && (zero || is_own) {
                let to = add(at, size, "a disk offset")?.min(end);
                let parent_tells = disk.is_known_from(1, at..to)?;
                zero &= is_own || parent_tells;
                equal &= !is_own || parent_tells;
                if !zero && !equal {
                    return Ok(Verdict::InUse);
                }
                if !is_own && !zero {
                    break;
                }
                let len = length(&(at..to));
                let bytes = window_of(&mut self.buffer, len)?;
                disk.read_exact_at(at, bytes)?;
                self.bytes_read = add(self.bytes_read, len, "what was read")?;
                zero = zero && zero_except(bytes, at, &free)?;
                wholly_zero = wholly_zero && is_zero(bytes);
                if is_own && equal {
                    let parent = window_of(&mut self.other, len)?;
                    let reader = disk.reader_from(1);
                    reader.read_exact_at(at, parent)?;
                    // A parent that programs read differently equals nothing.
                    let agreed = !reader.met_ambiguity();
                    differs_where_free |= bytes != parent;
                    equal = agreed && (bytes == parent || may_fall_through(bytes, parent, at, &plan.free)?);
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

/// Whether a stretch of a child may fall through to its parent: `bytes`, which stand at disk offset `at`, equal
/// the `parent`'s, or are free where the parent's are zero. Free space may change; it must not show what was
/// once deleted.
fn may_fall_through(bytes: &[u8], parent: &[u8], at: u64, free: &Extents) -> Result<bool> {
    if bytes.iter().zip(parent).any(|(own, below)| own != below && *below != 0) {
        return Ok(false);
    }
    let end = add(at, len64(bytes.len()), "a disk offset")?;
    for used in free.gaps(at..end) {
        if part(bytes, at, &used)? != part(parent, at, &used)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes that stand at `range` of the disk, of `bytes`, which stand at `at`.
///
/// # Errors
/// `internal` where `range` is not within them: nothing that is compared may silently be empty.
pub(super) fn part<'b>(bytes: &'b [u8], at: u64, range: &Range<u64>) -> Result<&'b [u8]> {
    let place = |offset: u64| offset.checked_sub(at).and_then(|by| usize::try_from(by).ok());
    let window = place(range.start).zip(place(range.end)).and_then(|(from, to)| bytes.get(from..to));
    window.ok_or_else(|| Error::internal("a stretch outside of what was read"))
}

/// The first `len` bytes of a buffer that grows to hold them.
pub(super) fn window_of(buffer: &mut Vec<u8>, len: u64) -> Result<&mut [u8]> {
    let len = index(len, "a run")?;
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    buffer.get_mut(..len).ok_or_else(|| Error::internal("a buffer shorter than its run"))
}

/// The block after `block`. The last one that there can be is followed by itself, which no table has.
pub(super) const fn next(block: u64) -> u64 {
    block.saturating_add(1)
}

/// What reading `bytes` of a block takes: a short read and, of a block of zeros, long ones.
fn work_of(bytes: u64) -> u64 {
    let reads = if bytes == 0 { 0 } else { length(&(PROBE..bytes)).div_ceil(RUN).saturating_add(1) };
    bytes.saturating_add(reads.saturating_mul(READ_OVERHEAD))
}

fn count(tally: &mut u64) -> Result<()> {
    *tally = add(*tally, 1, "a number of blocks")?;
    Ok(())
}

/// Whether the dynamic VHD at the root of a chain holds data in `range` of the disk where its bitmaps say
/// "never written".
fn contradicts_bitmap(disk: &Disk, range: Range<u64>) -> Result<bool> {
    let root = disk.bottom();
    if root.disk_type != DiskType::Dynamic || !matches!(root.bitmaps, Bitmaps::BeforePayload { .. }) {
        return Ok(false);
    }
    let reader = disk.reader();
    let mut buffer = Vec::new();
    let mut at = range.start;
    let end = range.end.min(root.geometry.addressable_size);
    while at < end {
        let block = root.geometry.block_size.block_of(at);
        let covered = root.block_range(block);
        let stop = covered.end.min(end);
        let all_set = root.sector_bitmap(block)?.is_none_or(|bitmap| bitmap.all_set(length(&covered)));
        while !all_set && at < stop {
            let to = add(at, RUN, "a disk offset")?.min(stop);
            reader.read_exact_at(at, window_of(&mut buffer, length(&(at..to)))?)?;
            at = to;
        }
        at = stop;
    }
    Ok(reader.met_ambiguity())
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
fn zero_except(bytes: &[u8], at: u64, free: &[Range<u64>]) -> Result<bool> {
    let end = add(at, len64(bytes.len()), "a disk offset")?;
    let mut from = at;
    let first = free.partition_point(|range| range.end <= at);
    for range in free.iter().skip(first).take_while(|range| range.start < end) {
        if from < range.start && !is_zero(part(bytes, at, &(from..range.start))?) {
            return Ok(false);
        }
        from = range.end.min(end);
    }
    Ok(is_zero(part(bytes, at, &(from..end))?))
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
            prop_assert_eq!(zero_except(&bytes, at, free.ranges()).unwrap(), expected);
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
