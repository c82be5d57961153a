//! The layout: the new image as an ordered list of pieces, made a few at a time.
//!
//! ```text
//!   writer.front(0), front(1), … │ for each stored block: before_payload, payload │ writer.tail
//!                                          └ source ranges where they are long, bytes where the
//!                                            stretches are short or a log patches them
//! ```
//! Adjacent source ranges become one: a browser pays for every piece of a composed file.

use std::ops::Range;

use super::plan::Plan;
use super::scan::{Scan, Tally};
use super::target::Fresh;
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::image::{
    BitmapSource, Bitmaps, BlockPlan, BlockState, ContainerWriter, Disk, DiskType, Format, Image, Origin,
    Piece, SectorBitmap,
};
use crate::units::{FileOffset, index, len64};

/// Source ranges and zeros shorter than this are copied into a piece of bytes.
const WORTH_NAMING: u64 = 64 << 10;
/// Largest piece of bytes that is composed from payload.
const COMPOSED: u64 = 1 << 20;
/// How much of a block is composed at a time: blocks may be as large as 1 GiB.
const SLICE: u64 = 4 << 20;
/// Most slices that are dealt with at a time, where all of them become one piece.
const MAX_SLICES: u32 = 1 << 16;

/// What the scan decided, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Blocks kept and omitted.
    pub tally: Tally,
    /// Whether free space reads differently in the new image.
    pub reads_changed: bool,
    /// The exact size of the new image.
    pub size: u64,
}

/// The new image, ready to be written.
pub struct Layout {
    writer: Box<dyn ContainerWriter>,
    out: BlockPlan,
    outcome: Outcome,
    stage: Stage,
    /// A piece that was made and may still grow.
    pending: Option<Piece>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Front(u64),
    Block(Option<u64>),
    /// The payload of a block, from a byte of the disk on.
    Payload(u64, u64),
    Tail,
    Done,
}

impl Layout {
    /// The layout that a finished `scan` of `plan` leads to.
    ///
    /// # Errors
    /// What the writer refuses: `limit-exceeded` for what the format cannot address.
    pub fn new(disk: &Disk, plan: &Plan, scan: Scan, fresh: &Fresh) -> Result<Self> {
        let writer = plan.target.writer(disk.top()?, scan.reads_changed(), fresh)?;
        let (tally, reads_changed) = (scan.tally(), scan.reads_changed());
        let out = scan.into_out();
        let size = writer.file_size(&out)?;
        let outcome = Outcome { tally, reads_changed, size };
        Ok(Self { writer, out, outcome, stage: Stage::Front(0), pending: None })
    }

    /// What was decided, and the exact size.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What becomes of each block.
    #[must_use]
    pub const fn out(&self) -> &BlockPlan {
        &self.out
    }

    /// Where the new disk may differ from the source (disk offsets): what is free, in blocks that are
    /// omitted; and all that is free, where it was to be scrubbed.
    #[must_use]
    pub fn may_differ(&self, plan: &Plan) -> Extents {
        if plan.scrubs() {
            return plan.free.clone();
        }
        // Put together from what is omitted, not by taking away what is kept: a set may forget ranges.
        let mut may_differ = Extents::new();
        let mut from = 0;
        let mut block = self.out.next_stored(0);
        while let Some(at) = block {
            let kept = plan.range(at);
            plan.free.within(from..kept.start).for_each(|range| may_differ.push(range));
            from = kept.end;
            block = self.out.next_stored(at.saturating_add(1));
        }
        plan.free.within(from..plan.target.addressable_size).for_each(|range| may_differ.push(range));
        may_differ
    }

    /// The next pieces: about `max_pieces`, and at most about `max_bytes` of made bytes. Empty when
    /// all have been given.
    ///
    /// # Errors
    /// Read errors, where bytes must be composed.
    pub fn next_pieces(
        &mut self,
        disk: &Disk,
        plan: &Plan,
        max_pieces: usize,
        max_bytes: u64,
    ) -> Result<Vec<Piece>> {
        let mut given = Given { pieces: Vec::new(), pending: self.pending.take(), made: 0 };
        let mut slices = 0u32;
        while given.pieces.is_empty() || given.pieces.len() < max_pieces && given.made < max_bytes {
            if slices == MAX_SLICES {
                given.flush();
                break;
            }
            slices = slices.saturating_add(1);
            let bitmaps = SourceBitmaps { disk, plan };
            self.stage = match self.stage {
                Stage::Front(step) => match self.writer.front(&self.out, &bitmaps, step)? {
                    Some(pieces) => {
                        given.extend(pieces);
                        Stage::Front(step.saturating_add(1))
                    }
                    None => Stage::Block(self.out.next_stored(0)),
                },
                Stage::Block(Some(block)) => {
                    given.extend(self.writer.before_payload(block, &bitmaps)?);
                    Stage::Payload(block, plan.range(block).start)
                }
                Stage::Payload(block, from) => {
                    let range = plan.range(block);
                    let to = from.saturating_add(SLICE).min(range.end);
                    self.payload(disk, plan, block, from..to, &mut given)?;
                    if to < range.end {
                        Stage::Payload(block, to)
                    } else {
                        // Past the disk's end a block holds nothing.
                        given.zeros(
                            self.writer.block_size().get().saturating_sub(to.saturating_sub(range.start)),
                        );
                        Stage::Block(self.out.next_stored(block.saturating_add(1)))
                    }
                }
                Stage::Block(None) => Stage::Tail,
                Stage::Tail => {
                    given.extend(self.writer.tail(&self.out)?);
                    Stage::Done
                }
                Stage::Done => break,
            };
        }
        if matches!(self.stage, Stage::Done) {
            given.flush();
        }
        self.pending = given.pending;
        Ok(given.pieces)
    }

    /// The payload of `part` of the disk, which lies in the stored block `block`.
    fn payload(
        &self,
        disk: &Disk,
        plan: &Plan,
        block: u64,
        part: Range<u64>,
        given: &mut Given,
    ) -> Result<()> {
        if plan.recomposes() {
            return self.compose(disk, plan, part, given);
        }
        let top = disk.top()?;
        let payload = top.blocks.get(block).payload();
        let payload = payload.ok_or_else(|| Error::internal("a kept block without payload"))?;
        let offset = payload.plus(part.start.saturating_sub(plan.range(block).start))?;
        Own { image: top, layer: 0, offset, range: part }.give(plan, given)
    }

    fn compose(&self, disk: &Disk, plan: &Plan, range: Range<u64>, given: &mut Given) -> Result<()> {
        for segment in disk.segments(range)? {
            let Origin::Stored { layer, offset } = segment.origin else {
                given.zeros(segment.len());
                continue;
            };
            let image = disk.layers().get(layer).ok_or_else(|| Error::internal("a layer went missing"))?;
            Own { image, layer, offset, range: segment.range }.give(plan, given)?;
        }
        Ok(())
    }
}

/// Disk bytes `range`, which the file of `image` holds from `offset` on.
struct Own<'a> {
    image: &'a Image,
    layer: usize,
    offset: FileOffset,
    range: Range<u64>,
}

impl Own<'_> {
    /// Gives them as they are, or with zeros where they are free and to be scrubbed. In a child the sectors
    /// stay its own, so that they read as zero and not as the parent.
    fn give(&self, plan: &Plan, given: &mut Given) -> Result<()> {
        let free: Vec<Range<u64>> =
            if plan.scrubs() { plan.free.within(self.range.clone()).collect() } else { Vec::new() };
        let mut at = self.range.start;
        for hole in free.into_iter().chain(std::iter::once(self.range.end..self.range.end)) {
            let from = self.offset.plus(at.saturating_sub(self.range.start))?;
            given.stored(self.image, self.layer, from, hole.start.saturating_sub(at))?;
            given.zeros(hole.end.saturating_sub(hole.start));
            at = hole.end;
        }
        Ok(())
    }
}

/// The pieces made so far; the last may still grow.
struct Given {
    pieces: Vec<Piece>,
    pending: Option<Piece>,
    /// Bytes held in pieces of bytes.
    made: u64,
}

impl Given {
    fn extend(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.push(piece);
        }
    }

    fn push(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        if let Piece::Bytes(bytes) = &piece {
            self.made = self.made.saturating_add(len64(bytes.len()));
        }
        match (&mut self.pending, piece) {
            (Some(Piece::Source { layer, range }), Piece::Source { layer: next_layer, range: next })
                if *layer == next_layer && range.end == next.start =>
            {
                range.end = next.end;
            }
            (Some(Piece::Zeros(len)), Piece::Zeros(more)) => *len = len.saturating_add(more),
            // Short zeros between bytes are cheaper as bytes than as a piece.
            (Some(Piece::Bytes(bytes)), Piece::Zeros(len))
                if len < WORTH_NAMING && len64(bytes.len()) < COMPOSED =>
            {
                let len = usize::try_from(len).unwrap_or_default();
                bytes.resize(bytes.len().saturating_add(len), 0);
            }
            (Some(Piece::Bytes(bytes)), Piece::Bytes(more)) if len64(bytes.len()) < COMPOSED => {
                bytes.extend_from_slice(&more);
            }
            (_, piece) => {
                self.flush();
                self.pending = Some(piece);
            }
        }
    }

    fn flush(&mut self) {
        self.pieces.extend(self.pending.take());
    }

    fn zeros(&mut self, len: u64) {
        self.push(Piece::Zeros(len));
    }

    /// `len` bytes of `image`'s file from `offset` on: as a source range, or as bytes where the range
    /// is short or the file does not hold them as they read.
    fn stored(&mut self, image: &Image, layer: usize, offset: FileOffset, len: u64) -> Result<()> {
        let continues = matches!(&self.pending, Some(Piece::Source { layer: l, range })
            if *l == layer && range.end == offset.get());
        if image.container.is_verbatim(offset, len) && (len >= WORTH_NAMING || continues) {
            self.push(Piece::Source { layer, range: offset.get()..offset.plus(len)?.get() });
            return Ok(());
        }
        let mut at = offset;
        let mut left = len;
        while left > 0 {
            let n = left.min(COMPOSED);
            let mut bytes = vec![0; index(n, "a piece")?];
            image.container.read_payload(at, &mut bytes)?;
            self.push(Piece::Bytes(bytes));
            at = at.plus(n)?;
            left = left.saturating_sub(n);
        }
        Ok(())
    }
}

/// The sector bitmaps of stored blocks: the source's own, where blocks stay what they are.
struct SourceBitmaps<'a> {
    disk: &'a Disk,
    plan: &'a Plan,
}

impl BitmapSource for SourceBitmaps<'_> {
    fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
        if self.plan.target.disk_type == DiskType::Differencing {
            self.disk.top()?.sector_bitmap(block)
        } else {
            Ok(None)
        }
    }

    fn stored_at(&self, block: u64) -> Option<Range<u64>> {
        let top = self.disk.top().ok()?;
        let Bitmaps::BeforePayload { len } = top.bitmaps else { return None };
        // A block that is composed anew has all its bits set.
        if self.plan.recomposes() || top.format != Format::Vhd {
            return None;
        }
        match top.blocks.get(block) {
            BlockState::Present(at) | BlockState::PartiallyPresent(at) => {
                let start = at.get().checked_sub(len)?;
                Some(start..at.get())
            }
            _ => None,
        }
    }
}
