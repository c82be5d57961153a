//! The layout: the new image as an ordered list of pieces, made a few at a time.
//!
//! ```text
//!   writer.front(0), front(1), … │ for each stored block: before_payload, payload │ writer.tail
//!                                          └ source ranges where they are long, bytes where the
//!                                            stretches are short or a log patches them
//! ```
//! Adjacent source ranges become one: a browser pays for every piece of a composed file.

use std::ops::Range;
use std::rc::Rc;

use super::plan::Plan;
use super::scan::{Scan, Tally, next};
use super::target::Fresh;
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::image::{
    BitmapSource, Bitmaps, BlockPlan, ContainerWriter, DiskType, Format, Origin, Piece, SectorBitmap,
};
use crate::units::{FileOffset, add, index, len64, length};

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
    /// Whether programs read the source differently in blocks that are composed anew.
    pub readings_differ: bool,
    /// The exact size of the new image.
    pub size: u64,
}

/// The new image, ready to be written.
pub struct Layout {
    plan: Rc<Plan>,
    writer: Box<dyn ContainerWriter>,
    out: BlockPlan,
    seen_zero: Extents,
    outcome: Outcome,
}

impl Layout {
    /// The layout that a finished `scan` leads to.
    ///
    /// # Errors
    /// What the writer refuses: `limit-exceeded` for what the format cannot address.
    pub fn new(scan: Scan, fresh: &Fresh) -> Result<Self> {
        let plan = Rc::clone(scan.plan());
        let writer = plan.target.writer(plan.top(), scan.reads_changed(), fresh)?;
        let (tally, reads_changed, readings_differ) =
            (scan.tally(), scan.reads_changed(), scan.readings_differ());
        let (out, seen_zero) = scan.into_parts();
        let size = writer.file_size(&out)?;
        let outcome = Outcome { tally, reads_changed, readings_differ, size };
        Ok(Self { plan, writer, out, seen_zero, outcome })
    }

    /// What it is a layout of.
    #[must_use]
    pub const fn plan(&self) -> &Rc<Plan> {
        &self.plan
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

    /// What the scan read and found zero, of blocks that are omitted for it (disk offsets). A scan that
    /// went on where another had stopped knows only of its own reading.
    #[must_use]
    pub const fn seen_zero(&self) -> &Extents {
        &self.seen_zero
    }

    /// Where the new disk may differ from the source (disk offsets): what is free, in blocks that are
    /// omitted; and all that is free, where it was to be scrubbed.
    #[must_use]
    pub fn may_differ(&self) -> Extents {
        let plan = &self.plan;
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
            block = self.out.next_stored(next(at));
        }
        plan.free.within(from..plan.target.addressable_size).for_each(|range| may_differ.push(range));
        may_differ
    }
}

/// The pieces of a layout, in the order of the new file. The same layout always gives the same ones.
pub struct Pieces {
    layout: Rc<Layout>,
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

impl Pieces {
    /// All pieces of `layout`, from the first on.
    #[must_use]
    pub fn of(layout: &Rc<Layout>) -> Self {
        Self { layout: Rc::clone(layout), stage: Stage::Front(0), pending: None }
    }

    /// The next pieces: about `max_pieces`, and at most about `max_bytes` of made bytes. Empty when
    /// all have been given.
    ///
    /// # Errors
    /// Read errors, where bytes must be composed.
    pub fn next(&mut self, max_pieces: usize, max_bytes: u64) -> Result<Vec<Piece>> {
        let layout = Rc::clone(&self.layout);
        let Layout { plan, writer, out, .. } = &*layout;
        let mut given = Given { plan, pieces: Vec::new(), pending: self.pending.take(), made: 0 };
        let mut slices = 0..MAX_SLICES;
        while given.pieces.is_empty() || given.pieces.len() < max_pieces && given.made < max_bytes {
            if slices.next().is_none() {
                given.flush();
                break;
            }
            let bitmaps = SourceBitmaps { plan };
            self.stage = match self.stage {
                Stage::Front(step) => match writer.front(out, &bitmaps, step)? {
                    Some(pieces) => {
                        given.extend(pieces)?;
                        Stage::Front(add(step, 1, "a step")?)
                    }
                    None => Stage::Block(out.next_stored(0)),
                },
                Stage::Block(Some(block)) => {
                    given.extend(writer.before_payload(block, &bitmaps)?)?;
                    Stage::Payload(block, plan.range(block).start)
                }
                Stage::Payload(block, from) => {
                    let range = plan.range(block);
                    let to = add(from, SLICE, "a disk offset")?.min(range.end);
                    payload(block, from..to, &mut given)?;
                    if to < range.end {
                        Stage::Payload(block, to)
                    } else {
                        // Past the disk's end a block holds nothing.
                        let len = writer.block_size().get().checked_sub(length(&range));
                        given.zeros(len.ok_or_else(|| Error::internal("a block longer than its size"))?)?;
                        Stage::Block(out.next_stored(next(block)))
                    }
                }
                Stage::Block(None) => Stage::Tail,
                Stage::Tail => {
                    given.extend(writer.tail(out)?)?;
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
}

/// Gives the payload of `part` of the disk, which lies in the stored block `block`.
fn payload(block: u64, part: Range<u64>, given: &mut Given<'_>) -> Result<()> {
    let plan = given.plan;
    if plan.recomposes() {
        for segment in plan.disk().segments(part)? {
            match segment.origin {
                Origin::Stored { layer, offset } => stretch(layer, offset, segment.range, given)?,
                _ => given.zeros(segment.len())?,
            }
        }
        return Ok(());
    }
    let payload = plan.top().blocks.get(block).payload();
    let payload = payload.ok_or_else(|| Error::internal("a kept block without payload"))?;
    let offset = payload.plus(length(&(plan.range(block).start..part.start)))?;
    stretch(0, offset, part, given)
}

/// Gives the disk bytes `range`, which the file of layer `layer` holds from `offset` on, as they are, or with
/// zeros where they are free and to be scrubbed. In a child the sectors stay its own, so that they read as
/// zero and not as the parent.
fn stretch(layer: usize, offset: FileOffset, range: Range<u64>, given: &mut Given<'_>) -> Result<()> {
    let plan = given.plan;
    let free: Vec<Range<u64>> =
        if plan.scrubs() { plan.free.within(range.clone()).collect() } else { Vec::new() };
    let mut at = range.start;
    for hole in free.into_iter().chain(std::iter::once(range.end..range.end)) {
        let from = offset.plus(length(&(range.start..at)))?;
        given.stored(layer, from, length(&(at..hole.start)))?;
        given.zeros(length(&hole))?;
        at = hole.end;
    }
    Ok(())
}

/// The pieces made so far; the last may still grow.
struct Given<'p> {
    plan: &'p Plan,
    pieces: Vec<Piece>,
    pending: Option<Piece>,
    /// Bytes held in pieces of bytes.
    made: u64,
}

impl Given<'_> {
    fn extend(&mut self, pieces: Vec<Piece>) -> Result<()> {
        pieces.into_iter().try_for_each(|piece| self.push(piece))
    }

    fn push(&mut self, piece: Piece) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Piece::Bytes(bytes) = &piece {
            self.made = add(self.made, len64(bytes.len()), "made bytes")?;
        }
        match (&mut self.pending, piece) {
            (Some(Piece::Source { file, range }), Piece::Source { file: next_file, range: next })
                if *file == next_file && range.end == next.start =>
            {
                range.end = next.end;
            }
            (Some(Piece::Zeros(len)), Piece::Zeros(more)) => *len = add(*len, more, "a run of zeros")?,
            // Short zeros between bytes are cheaper as bytes than as a piece.
            (Some(Piece::Bytes(bytes)), Piece::Zeros(len))
                if len < WORTH_NAMING && len64(bytes.len()) < COMPOSED =>
            {
                bytes.extend(std::iter::repeat_n(0, index(len, "a run of zeros")?));
            }
            (Some(Piece::Bytes(bytes)), Piece::Bytes(more)) if len64(bytes.len()) < COMPOSED => {
                bytes.extend_from_slice(&more);
            }
            (_, piece) => {
                self.flush();
                self.pending = Some(piece);
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.pieces.extend(self.pending.take());
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        self.push(Piece::Zeros(len))
    }

    /// `len` bytes of the file of layer `layer` from `offset` on: as a source range, or as bytes where the
    /// range is short or the file does not hold them as they read.
    fn stored(&mut self, layer: usize, offset: FileOffset, len: u64) -> Result<()> {
        let file = self.plan.analysis().file_of(layer)?;
        let container = &self.plan.disk().layer(layer)?.container;
        let continues = matches!(&self.pending, Some(Piece::Source { file: f, range })
            if *f == file && range.end == offset.get());
        if container.is_verbatim(offset, len) && (len >= WORTH_NAMING || continues) {
            return self.push(Piece::Source { file, range: offset.get()..offset.plus(len)?.get() });
        }
        let mut at = 0;
        while at < len {
            let n = COMPOSED.min(length(&(at..len)));
            let mut bytes = vec![0; index(n, "a piece")?];
            container.read_payload(offset.plus(at)?, &mut bytes)?;
            self.push(Piece::Bytes(bytes))?;
            at = add(at, n, "a place in a block")?;
        }
        Ok(())
    }
}

/// The sector bitmaps of stored blocks: the source's own, where blocks stay what they are.
struct SourceBitmaps<'a> {
    plan: &'a Plan,
}

impl BitmapSource for SourceBitmaps<'_> {
    fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
        if self.plan.target.disk_type == DiskType::Differencing {
            self.plan.top().sector_bitmap(block)
        } else {
            Ok(None)
        }
    }

    fn stored_at(&self, block: u64) -> Option<Range<u64>> {
        let top = self.plan.top();
        let Bitmaps::BeforePayload { len } = top.bitmaps else { return None };
        // A block that is composed anew has all its bits set.
        if self.plan.recomposes() || top.format != Format::Vhd {
            return None;
        }
        let at = top.blocks.get(block).payload()?;
        Some(at.get().checked_sub(len)?..at.get())
    }
}
