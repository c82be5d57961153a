//! The proof: reopens the output with our own reader and compares the whole virtual disk.
//!
//! ```text
//!   source disk   ░░▓▓▓▓░░▓▓▒▒   ▒ proved free, and dropped
//!   output disk   ░░▓▓▓▓░░▓▓░░
//!                   =      = └── may differ there, and nowhere else
//! ```
//! What neither image stores reads as zero in both and costs nothing; nor does what both read from the same
//! place of the same parent.

use std::ops::Range;
use std::rc::Rc;

use super::Progress;
use crate::error::{Error, ErrorKind, Result, Site};
use crate::extents::Extents;
use crate::image::{Disk, Image, Origin, Segment};
use crate::units::{Space, index, len64};

/// How much is compared at a time.
const RUN: u64 = 4 << 20;
/// How much of the disk is resolved at a time.
const WINDOW: u64 = 64 << 20;

/// What a finished verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Stored bytes that were compared and are equal.
    pub compared: u64,
    /// Stored bytes that may differ, because they were proved free (or given up by request).
    pub skipped: u64,
    /// Of those, bytes that do differ.
    pub differing: u64,
    /// BLAKE3 over the compared bytes, in disk order, as 64 hexadecimal digits.
    pub digest: String,
}

/// A comparison of two disks under way.
pub struct Verification {
    at: u64,
    size: u64,
    /// Where the disks may differ.
    may_differ: Extents,
    same_bitmaps: bool,
    total: u64,
    done: u64,
    verdict: Verdict,
    hasher: blake3::Hasher,
    buffers: (Vec<u8>, Vec<u8>),
}

impl Verification {
    /// A comparison of `source` with `output`, which may differ in `may_differ` (disk offsets). With
    /// `same_bitmaps`, the sector bitmaps of dynamic VHDs must be the same too, so that programs that
    /// honour them and programs that do not both read what they read before.
    ///
    /// # Errors
    /// `write-failed` where the sizes of the disks already differ.
    pub fn new(source: &Disk, output: &Disk, may_differ: Extents, same_bitmaps: bool) -> Result<Self> {
        let size = check_sizes(source.top()?, output.top()?)?;
        Ok(Self {
            at: 0,
            size,
            may_differ,
            same_bitmaps,
            total: stored_bytes(source, output)?.max(stored_bytes(output, source)?),
            done: 0,
            verdict: Verdict { compared: 0, skipped: 0, differing: 0, digest: String::new() },
            hasher: blake3::Hasher::new(),
            buffers: (Vec::new(), Vec::new()),
        })
    }

    /// Compares about `budget` bytes more.
    ///
    /// # Errors
    /// `write-failed` with the disk offset of the first byte that differs and may not; read errors.
    pub fn step(&mut self, source: &Disk, output: &Disk, budget: u64) -> Result<Progress> {
        let limit = self.done.saturating_add(budget);
        while self.at < self.size {
            if self.done >= limit {
                return Ok(Progress { done: self.done.min(self.total), total: self.total, finished: false });
            }
            let quiet = next_stored(source, self.at).min(next_stored(output, self.at)).min(self.size);
            if quiet > self.at {
                self.at = quiet;
                continue;
            }
            let window = self.at..self.at.saturating_add(WINDOW.min(budget.max(RUN))).min(self.size);
            self.compare_window(source, output, window.clone())?;
            if self.same_bitmaps {
                compare_bitmaps(source.top()?, output.top()?, window.clone())?;
            }
            self.at = window.end;
        }
        self.verdict.digest = self.hasher.finalize().to_hex().to_string();
        Ok(Progress { done: self.total, total: self.total, finished: true })
    }

    /// What was found; complete once a step says so.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    fn compare_window(&mut self, source: &Disk, output: &Disk, window: Range<u64>) -> Result<()> {
        let (a, b) = (source.segments(window.clone())?, output.segments(window)?);
        let (mut i, mut j) = (0usize, 0usize);
        let mut at = a.first().map_or(0, |segment| segment.range.start);
        while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
            let end = x.range.end.min(y.range.end);
            self.compare_stretch(source, output, cut(x, at, end)?, cut(y, at, end)?)?;
            at = end;
            i = i.saturating_add(usize::from(x.range.end == end));
            j = j.saturating_add(usize::from(y.range.end == end));
        }
        Ok(())
    }

    fn compare_stretch(&mut self, source: &Disk, output: &Disk, a: Segment, b: Segment) -> Result<()> {
        match (a.origin, b.origin) {
            (Origin::Zero, Origin::Zero) | (Origin::Missing, Origin::Missing) => return Ok(()),
            (Origin::Stored { layer: i, offset: x }, Origin::Stored { layer: j, offset: y }) => {
                let same_file = source.layers().get(i).zip(output.layers().get(j));
                if x == y && same_file.is_some_and(|(a, b)| Rc::ptr_eq(a, b)) {
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut at = a.range.start;
        while at < a.range.end {
            let end = at.saturating_add(RUN).min(a.range.end);
            let len = index(end.saturating_sub(at), "a run")?;
            let (mut x, mut y) = (std::mem::take(&mut self.buffers.0), std::mem::take(&mut self.buffers.1));
            x.resize(len, 0);
            y.resize(len, 0);
            source.read_segment(&cut(&a, at, end)?, &mut x)?;
            output.read_segment(&cut(&b, at, end)?, &mut y)?;
            self.compare_bytes(at, &x, &y)?;
            self.buffers = (x, y);
            self.done = self.done.saturating_add(end.saturating_sub(at));
            at = end;
        }
        Ok(())
    }

    fn compare_bytes(&mut self, at: u64, x: &[u8], y: &[u8]) -> Result<()> {
        let end = at.saturating_add(len64(x.len()));
        let part = |bytes: &[u8], range: &Range<u64>| -> Result<Vec<u8>> {
            let from = index(range.start.saturating_sub(at), "a run")?;
            let to = index(range.end.saturating_sub(at), "a run")?;
            Ok(bytes.get(from..to).unwrap_or_default().to_vec())
        };
        let free: Vec<Range<u64>> = self.may_differ.within(at..end).collect();
        if free.is_empty() {
            if x != y {
                return Err(difference(at, x, y));
            }
            self.hasher.update(x);
            self.verdict.compared = self.verdict.compared.saturating_add(len64(x.len()));
            return Ok(());
        }
        for range in self.may_differ.gaps(at..end) {
            let (x, y) = (part(x, &range)?, part(y, &range)?);
            if x != y {
                return Err(difference(range.start, &x, &y));
            }
            self.hasher.update(&x);
            self.verdict.compared = self.verdict.compared.saturating_add(len64(x.len()));
        }
        for range in free {
            let (x, y) = (part(x, &range)?, part(y, &range)?);
            let differing = x.iter().zip(&y).filter(|(x, y)| x != y).count();
            self.verdict.skipped = self.verdict.skipped.saturating_add(len64(x.len()));
            self.verdict.differing = self.verdict.differing.saturating_add(len64(differing));
        }
        Ok(())
    }
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
    Err(Error::new(ErrorKind::WriteFailed, "the two disks have different sizes")
        .expected(a.addressable_size, b.addressable_size))
}

/// Compares the sector bitmaps of the blocks that begin in `window`, where both images keep them.
fn compare_bitmaps(source: &Image, output: &Image, window: Range<u64>) -> Result<()> {
    let block_size = source.geometry.block_size;
    let mut block = block_size.count_for(window.start);
    while block_size.start_of(block) < window.end {
        if let (Some(x), Some(y)) = (source.sector_bitmap(block)?, output.sector_bitmap(block)?)
            && x != y
        {
            let site =
                Site { structure: "sector bitmap", space: Space::Disk, offset: block_size.start_of(block) };
            return Err(
                Error::new(ErrorKind::WriteFailed, "a sector bitmap of the new image differs").at(site)
            );
        }
        block = block.saturating_add(1);
    }
    Ok(())
}

fn cut(segment: &Segment, start: u64, end: u64) -> Result<Segment> {
    let origin = match segment.origin {
        Origin::Stored { layer, offset } => {
            let by = start.saturating_sub(segment.range.start);
            Origin::Stored { layer, offset: offset.plus(by)? }
        }
        other => other,
    };
    Ok(Segment { range: start..end, origin })
}

fn difference(at: u64, x: &[u8], y: &[u8]) -> Error {
    let by = x.iter().zip(y).position(|(x, y)| x != y).unwrap_or_default();
    let found = (x.get(by).copied().unwrap_or_default(), y.get(by).copied().unwrap_or_default());
    let offset = at.saturating_add(len64(by));
    Error::new(ErrorKind::WriteFailed, "the new image does not read the same as the source")
        .at(Site { structure: "virtual disk", space: Space::Disk, offset })
        .expected(format_args!("byte {:#04x}", found.0), format_args!("byte {:#04x}", found.1))
}

/// Bytes that the images of `disk` which `other` does not share store, at most: what there is to compare.
fn stored_bytes(disk: &Disk, other: &Disk) -> Result<u64> {
    let mut sum = 0u64;
    for image in disk.layers() {
        if other.layers().iter().any(|shared| Rc::ptr_eq(image, shared)) {
            continue;
        }
        let blocks = image.blocks.present().saturating_add(image.blocks.partially_present());
        sum = sum.saturating_add(image.geometry.block_size.start_of(blocks));
    }
    Ok(sum.min(disk.top()?.geometry.addressable_size))
}

/// The first disk offset at or after `from` that any image of `disk` may store.
fn next_stored(disk: &Disk, from: u64) -> u64 {
    let nearest = disk.layers().iter().filter_map(|image| {
        let block_size = image.geometry.block_size;
        let known = image.blocks.next_known(block_size.block_of(from))?;
        Some(block_size.start_of(known).max(from))
    });
    nearest.min().unwrap_or(u64::MAX)
}
