//! The comparison of two disks, byte by byte or by where the bytes come from.
//!
//! ```text
//!   source disk   ░░▓▓▓▓░░▓▓▒▒   ▒ proved free, and dropped
//!   output disk   ░░▓▓▓▓░░▓▓░░
//!                   =      = └── may differ there, and nowhere else
//!
//!   output's tables ─► range of the output ─► piece ─► range of a source file ┐ the same range of the
//!   source's tables ──────────────────────────────────► range of a source file ┘ same file: traced, not read
//! ```
//! Where a new image consists of ranges of the source, reading both compares a file with itself. What can be
//! wrong there are the tables and the order of the pieces; so the reopened output's own tables are followed to
//! the pieces, and those to the source. What was composed is read and compared. What is stored in neither
//! image reads as zero in both and costs nothing; nor does what both read from the same place of one parent.
//!
//! In here nothing defaults: what cannot be had is an error, and an empty stretch equals nothing.

use std::ops::Range;
use std::rc::Rc;

use super::analysis::Analysis;
use super::scan::{is_zero, window_of};
use super::trace::{Traced, Tracer};
use crate::error::{Error, ErrorKind, Result, Site};
use crate::extents::Extents;
use crate::image::{Bitmaps, Disk, Image, Origin, Segment};
use crate::units::{FileOffset, Progress, Space, add, len64, length};

/// How much is read and compared at a time.
const RUN: u64 = 8 << 20;
/// How much of the disk is resolved at a time.
const WINDOW: u64 = 256 << 20;

/// What a finished comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Stored bytes that were read from both images and are equal.
    pub compared: u64,
    /// Stored bytes that the new image's own tables lead back to the very same bytes of a source file.
    pub traced: u64,
    /// Stored bytes that were left out, and that were read and found zero before.
    pub zero: u64,
    /// Stored bytes that may differ, because they were proved free (or given up by request).
    pub skipped: u64,
}

/// What is known beforehand of the two disks.
pub struct Terms {
    /// Where the disks may differ (disk offsets).
    pub may_differ: Extents,
    /// Whether the sector bitmaps of dynamic VHDs must be the same too, so that programs that honour them and
    /// programs that do not both read what they read before.
    pub same_bitmaps: bool,
    /// Whether both disks are read as the programs that made them read them: where blocks were composed anew.
    pub as_programs_read: bool,
    /// As `tracer`, for the sector bitmaps.
    pub bitmap_tracer: Option<Tracer>,
    /// Where the source was read before and found zero (disk offsets).
    pub seen_zero: Extents,
    /// Where the host vouches that the output consists of the pieces of a layout: those pieces.
    pub tracer: Option<Tracer>,
}

/// A comparison of two disks under way.
pub struct Comparison {
    source: Rc<Analysis>,
    disks: Rc<Disks>,
    terms: Terms,
    at: u64,
    size: u64,
    total: u64,
    done: u64,
    verdict: Verdict,
    buffers: (Vec<u8>, Vec<u8>),
}

struct Disks {
    source: Disk,
    output: Disk,
}

/// A stretch of the disk that has one origin in each of the images.
struct Stretch {
    range: Range<u64>,
    source: Origin,
    output: Origin,
}

impl Comparison {
    /// A comparison of `source` with `output` on these terms.
    ///
    /// # Errors
    /// `differs` where the sizes of the disks already differ.
    pub fn new(source: Rc<Analysis>, output: Rc<Analysis>, terms: Terms) -> Result<Self> {
        let size = check_sizes(source.top(), output.top())?;
        let (a, b) = (source.disk(), output.disk());
        let total = stored_bytes(a, b)?.max(stored_bytes(b, a)?);
        let read = |disk: &Disk| if terms.as_programs_read { disk.as_programs_read() } else { disk.clone() };
        let disks = Rc::new(Disks { source: read(a), output: read(b) });
        Ok(Self {
            source,
            disks,
            terms,
            at: 0,
            size,
            total,
            done: 0,
            verdict: Verdict::default(),
            buffers: Default::default(),
        })
    }

    /// Compares about `budget` bytes more.
    ///
    /// # Errors
    /// `differs` with the disk offset of the first byte that differs and may not; read errors.
    pub fn step(&mut self, budget: u64) -> Result<Progress> {
        let disks = Rc::clone(&self.disks);
        let Disks { source, output } = &*disks;
        let limit = add(self.read(), budget, "a step")?;
        let mut windows = 0..MAX_WINDOWS_A_STEP;
        while self.at < self.size {
            if self.read() >= limit || windows.next().is_none() {
                return Ok(Progress { done: self.done.min(self.total), total: self.total, finished: false });
            }
            let quiet = next_stored(source, self.at).min(next_stored(output, self.at)).min(self.size);
            if quiet > self.at {
                self.at = quiet;
                continue;
            }
            // Where bytes are read, a step is about its budget; where they are traced, a window costs little.
            let reach = if self.terms.tracer.is_some() { WINDOW } else { WINDOW.min(budget.max(RUN)) };
            let window = self.at..add(self.at, reach, "a disk offset")?.min(self.size);
            self.compare_window(source, output, window.clone())?;
            if self.terms.same_bitmaps {
                self.compare_bitmaps(source.top(), output.top(), &window)?;
            }
            self.at = window.end;
        }
        Ok(Progress { done: self.total, total: self.total, finished: true })
    }

    /// What was found so far; complete once a step says so.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    const fn read(&self) -> u64 {
        self.verdict.compared
    }

    fn compare_window(&mut self, source: &Disk, output: &Disk, window: Range<u64>) -> Result<()> {
        for stretch in stretches(&source.segments(window.clone())?, &output.segments(window)?)? {
            if !same_place(source, output, &stretch) && !is_nowhere(&stretch) {
                self.compare_stretch(source, output, &stretch)?;
                self.done = add(self.done, length(&stretch.range), "what was compared")?;
            }
        }
        Ok(())
    }

    fn compare_stretch(&mut self, source: &Disk, output: &Disk, stretch: &Stretch) -> Result<()> {
        let range = stretch.range.clone();
        let skipped = self.terms.may_differ.total_within(range.clone());
        self.verdict.skipped = add(self.verdict.skipped, skipped, "what was skipped")?;
        for used in self.terms.may_differ.gaps(range) {
            let used = cut(stretch, used)?;
            if used.output == Origin::Zero {
                // Left out as zero: what was read and found zero before need not be read again.
                let seen = self.terms.seen_zero.total_within(used.range.clone());
                self.verdict.zero = add(self.verdict.zero, seen, "what was found zero")?;
                for unseen in self.terms.seen_zero.gaps(used.range.clone()) {
                    self.compare_bytes(source, output, &cut(&used, unseen)?)?;
                }
                continue;
            }
            for traced in self.trace(source, &used)? {
                match traced {
                    Traced::Same(range) => {
                        self.verdict.traced = add(self.verdict.traced, length(&range), "what was traced")?;
                    }
                    Traced::Unknown(range) => self.compare_bytes(source, output, &cut(&used, range)?)?,
                }
            }
        }
        Ok(())
    }

    /// Which parts of a stretch (disk offsets) the pieces of the output lead back to where the source has them.
    fn trace(&mut self, source: &Disk, stretch: &Stretch) -> Result<Vec<Traced>> {
        let range = stretch.range.clone();
        let (
            Some(tracer),
            Origin::Stored { layer, offset: from },
            Origin::Stored { layer: 0, offset: written },
        ) = (&mut self.terms.tracer, stretch.source, stretch.output)
        else {
            return Ok(vec![Traced::Unknown(range)]);
        };
        // A file whose log was replayed does not hold what is read from it.
        if !source.layer(layer)?.container.is_verbatim(from, length(&range)) {
            return Ok(vec![Traced::Unknown(range)]);
        }
        tracer.trace(range, written, self.source.file_of(layer)?, from)
    }

    /// Compares the sector bitmaps of the blocks that begin in `window`, where both images keep them.
    fn compare_bitmaps(&mut self, source: &Image, output: &Image, window: &Range<u64>) -> Result<()> {
        let block_size = source.geometry.block_size;
        let mut next = source.blocks.next_known(block_size.count_for(window.start));
        while let Some(block) = next.filter(|&block| block_size.start_of(block) < window.end) {
            // The new image's first: a block that was left out has none, and the source's need not be read.
            if !self.is_bitmap_traced(source, output, block)?
                && let Some(y) = output.sector_bitmap(block)?
                && let Some(x) = source.sector_bitmap(block)?
                && x != y
            {
                let site = Site {
                    structure: "sector bitmap",
                    space: Space::Disk,
                    offset: block_size.start_of(block),
                };
                return Err(
                    Error::new(ErrorKind::Differs, "a sector bitmap of the new image differs").at(site)
                );
            }
            next = source.blocks.next_known(add(block, 1, "a block")?);
        }
        Ok(())
    }

    /// Whether the sector bitmap before a block's payload was copied from before the source's payload.
    fn is_bitmap_traced(&mut self, source: &Image, output: &Image, block: u64) -> Result<bool> {
        let (Bitmaps::BeforePayload { len }, Bitmaps::BeforePayload { len: other }) =
            (&source.bitmaps, &output.bitmaps)
        else {
            return Ok(false);
        };
        let start = |image: &Image| {
            Some(FileOffset::new(image.blocks.get(block).payload()?.get().checked_sub(*len)?))
        };
        let (Some(tracer), Some(from), Some(written), true) =
            (&mut self.terms.bitmap_tracer, start(source), start(output), len == other)
        else {
            return Ok(false);
        };
        let copied = source.container.is_verbatim(from, *len);
        Ok(copied
            && tracer.trace(0..*len, written, self.source.file_of(0)?, from)? == [Traced::Same(0..*len)])
    }

    fn compare_bytes(&mut self, source: &Disk, output: &Disk, stretch: &Stretch) -> Result<()> {
        let mut at = stretch.range.start;
        while at < stretch.range.end {
            let end = add(at, RUN, "a disk offset")?.min(stretch.range.end);
            let run = cut(stretch, at..end)?;
            let x = window_of(&mut self.buffers.0, length(&run.range))?;
            source.read_segment(&Segment { range: run.range.clone(), origin: run.source }, x)?;
            if run.output == Origin::Zero {
                if !is_zero(x) {
                    return Err(difference(at, x, None));
                }
            } else {
                let y = window_of(&mut self.buffers.1, length(&run.range))?;
                output.read_segment(&Segment { range: run.range.clone(), origin: run.output }, y)?;
                if x != y {
                    return Err(difference(at, x, Some(y)));
                }
            }
            self.verdict.compared = add(self.verdict.compared, length(&run.range), "what was compared")?;
            at = end;
        }
        Ok(())
    }
}

/// How many windows one step looks at, at most.
const MAX_WINDOWS_A_STEP: u32 = 64;

/// Cuts the segments of both disks, which cover the same range, into stretches of one origin each, as long
/// as can be.
fn stretches(source: &[Segment], output: &[Segment]) -> Result<Vec<Stretch>> {
    let mut all: Vec<Stretch> = Vec::new();
    let (mut a, mut b) = (source.iter(), output.iter());
    let (mut x, mut y) = (a.next(), b.next());
    let mut at = match (x, y) {
        (Some(x), Some(y)) if x.range.start == y.range.start => x.range.start,
        (None, None) => return Ok(all),
        _ => return Err(Error::internal("the disks were not resolved alike")),
    };
    while let (Some(p), Some(q)) = (x, y) {
        let end = p.range.end.min(q.range.end);
        let next = Stretch { range: at..end, source: origin_at(p, at)?, output: origin_at(q, at)? };
        match all.last_mut() {
            Some(last) if continues(last, &next)? => last.range.end = end,
            _ => all.push(next),
        }
        at = end;
        if p.range.end == end {
            x = a.next();
        }
        if q.range.end == end {
            y = b.next();
        }
    }
    if x.is_none() && y.is_none() {
        Ok(all)
    } else {
        Err(Error::internal("the disks were not resolved alike"))
    }
}

fn continues(last: &Stretch, next: &Stretch) -> Result<bool> {
    let by = length(&last.range);
    Ok(last.range.end == next.range.start
        && moved(last.source, by)? == next.source
        && moved(last.output, by)? == next.output)
}

/// The origin of what comes `by` bytes after something of this origin.
fn moved(origin: Origin, by: u64) -> Result<Origin> {
    Ok(match origin {
        Origin::Stored { layer, offset } => Origin::Stored { layer, offset: offset.plus(by)? },
        other => other,
    })
}

fn origin_at(segment: &Segment, at: u64) -> Result<Origin> {
    moved(segment.origin, length(&(segment.range.start..at)))
}

/// The part of a stretch that covers `range`, which must lie within it.
fn cut(stretch: &Stretch, range: Range<u64>) -> Result<Stretch> {
    if range.start < stretch.range.start || range.end > stretch.range.end || range.is_empty() {
        return Err(Error::internal("a part outside of its stretch"));
    }
    let by = length(&(stretch.range.start..range.start));
    Ok(Stretch { range, source: moved(stretch.source, by)?, output: moved(stretch.output, by)? })
}

/// Whether both disks have it from the same place of one file that they share.
fn same_place(source: &Disk, output: &Disk, stretch: &Stretch) -> bool {
    let (Origin::Stored { layer: i, offset: x }, Origin::Stored { layer: j, offset: y }) =
        (stretch.source, stretch.output)
    else {
        return false;
    };
    let shared = source.layer(i).ok().zip(output.layer(j).ok()).is_some_and(|(a, b)| Rc::ptr_eq(a, b));
    shared && x == y
}

/// Whether neither disk stores it, and both read the same.
fn is_nowhere(stretch: &Stretch) -> bool {
    matches!(
        (stretch.source, stretch.output),
        (Origin::Zero, Origin::Zero) | (Origin::Missing, Origin::Missing)
    )
}

/// The size of the disk that both images hold. The new one may address more where the source's own
/// structures fall short of a size that they name; then nothing is stored there.
fn check_sizes(source: &Image, output: &Image) -> Result<u64> {
    let (a, b) = (source.geometry, output.geometry);
    let same = if source.format == output.format {
        a.virtual_size == b.virtual_size && a.addressable_size <= b.addressable_size
    } else {
        a.addressable_size == b.addressable_size && b.addressable_size == b.virtual_size
    };
    let past_end = b.block_size.count_for(a.addressable_size);
    if same && output.blocks.next_known(past_end).is_none() {
        return Ok(a.addressable_size);
    }
    Err(Error::new(ErrorKind::Differs, "the two disks have different sizes")
        .expected(a.addressable_size, b.addressable_size))
}

/// The first byte in which `x`, at disk offset `at`, differs from `y`, or from zero.
fn difference(at: u64, x: &[u8], y: Option<&[u8]>) -> Error {
    let other = |by: usize| y.map_or(Some(0), |y| y.get(by).copied());
    let found = x.iter().enumerate().find(|(by, byte)| other(*by) != Some(**byte));
    let error = Error::new(ErrorKind::Differs, "the new image does not read the same as the source");
    match found.and_then(|(by, byte)| Some((at.checked_add(len64(by))?, *byte, other(by)?))) {
        Some((offset, expected, found)) => error
            .at(Site { structure: "virtual disk", space: Space::Disk, offset })
            .expected(format_args!("byte {expected:#04x}"), format_args!("byte {found:#04x}")),
        None => error.at(Site { structure: "virtual disk", space: Space::Disk, offset: at }),
    }
}

/// Bytes that the images of `disk` which `other` does not share store, at most: what there is to compare.
fn stored_bytes(disk: &Disk, other: &Disk) -> Result<u64> {
    let mut sum = 0u64;
    for image in disk.layers() {
        if other.layers().any(|shared| Rc::ptr_eq(image, shared)) {
            continue;
        }
        let blocks = add(image.blocks.present(), image.blocks.partially_present(), "a number of blocks")?;
        sum = add(sum, image.geometry.block_size.start_of(blocks), "the stored bytes")?;
    }
    Ok(sum.min(disk.top().geometry.addressable_size))
}

/// The first disk offset at or after `from` that any image of `disk` may store; the largest number where
/// there is none.
fn next_stored(disk: &Disk, from: u64) -> u64 {
    let nearest = disk.layers().filter_map(|image| {
        let block_size = image.geometry.block_size;
        let known = image.blocks.next_known(block_size.block_of(from))?;
        Some(block_size.start_of(known).max(from))
    });
    nearest.min().unwrap_or(u64::MAX)
}
