//! The virtual disk as a guest sees it: one image, or a chain of a child and its parents.
//!
//! ```text
//!   layer 0  child    ░▓▓░░▒▒░   ▓ present  ▒ partially present (sector bitmap)  ░ not present
//!   layer 1  parent   ▓░▓▓▓░░░                                                     └► next layer
//!   layer 2  base     ▓▓▓▓▓▓▓▓   ░ in the last layer reads as zero
//! ```
//! [`Disk::resolve`] answers with *ranges of files*; the caller moves the bytes (or does not).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::{Bitmaps, BlockState, DiskType, Image, ParentLink};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{ReadAt, check_range};
use crate::units::{FileOffset, add, index, len64, length};

/// Where a stretch of the disk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Stored in the file of image `layer` from `offset` on.
    Stored {
        /// Which image of the chain: 0 is the first.
        layer: usize,
        /// Where in its file.
        offset: FileOffset,
    },
    /// Reads as zero and is stored nowhere.
    Zero,
    /// The parent's, and the parent was not given.
    Missing,
}

/// A stretch of the disk with one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Disk bytes.
    pub range: Range<u64>,
    /// Where they come from.
    pub origin: Origin,
}

impl Segment {
    /// How many bytes it covers.
    #[must_use]
    pub fn len(&self) -> u64 {
        length(&self.range)
    }

    /// Whether it covers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A virtual disk: an image over its parents.
#[derive(Clone)]
pub struct Disk {
    top: Rc<Image>,
    /// In order: `parents[0]` is layer 1.
    parents: Vec<Rc<Image>>,
    /// Whether sectors whose bits are clear read as the programs of their images read them.
    as_programs_read: bool,
}

impl Disk {
    /// The disk of one image that has no parent, or whose parents are not at hand.
    #[must_use]
    pub fn single(image: impl Into<Rc<Image>>) -> Self {
        Self { top: image.into(), parents: Vec::new(), as_programs_read: false }
    }

    /// The disk of `top` over its `parents`, in order. The parents may be incomplete: what only the
    /// missing ones hold is then [`Origin::Missing`].
    ///
    /// # Errors
    /// `invalid-argument` with a parent under an image that has none.
    pub fn new(top: impl Into<Rc<Image>>, parents: Vec<Rc<Image>>) -> Result<Self> {
        let disk = Self { top: top.into(), parents, as_programs_read: false };
        let children = disk.layers().take(disk.parents.len());
        if children.into_iter().any(|image| image.parent.is_none()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a parent was given for an image that has none",
            ));
        }
        Ok(disk)
    }

    /// The disk of `layers`, the child first.
    ///
    /// # Errors
    /// As [`Disk::new`], and without any image.
    pub fn of_layers(layers: Vec<Rc<Image>>) -> Result<Self> {
        let mut layers = layers.into_iter();
        let top = layers.next().ok_or_else(|| Error::internal("a disk without images"))?;
        Self::new(top, layers.collect())
    }

    /// The same disk, as the programs that made its images read it: where such a program reads a sector as zero
    /// whose bit is clear (see [`super::ClearBits`]), so does this. It is the disk of which an image composed
    /// anew consists; to resolve it takes a read for the bitmap of each block.
    #[must_use]
    pub fn as_programs_read(&self) -> Self {
        Self { as_programs_read: true, ..self.clone() }
    }

    /// The image itself, without its parents: layer 0.
    #[must_use]
    pub fn top(&self) -> &Rc<Image> {
        &self.top
    }

    /// The parents that were given, in order: layers 1, 2, …
    #[must_use]
    pub fn parents(&self) -> &[Rc<Image>] {
        &self.parents
    }

    /// The images, the child first.
    pub fn layers(&self) -> impl Iterator<Item = &Rc<Image>> {
        std::iter::once(&self.top).chain(&self.parents)
    }

    /// The image of a layer: 0 is the image itself.
    ///
    /// # Errors
    /// `internal` for a layer that is not there.
    pub fn layer(&self, layer: usize) -> Result<&Rc<Image>> {
        self.layer_if_given(layer).ok_or_else(|| Error::internal("a layer went missing"))
    }

    fn layer_if_given(&self, layer: usize) -> Option<&Rc<Image>> {
        match layer.checked_sub(1) {
            None => Some(&self.top),
            Some(parent) => self.parents.get(parent),
        }
    }

    /// The last image of the chain, as far as it was given.
    #[must_use]
    pub fn bottom(&self) -> &Rc<Image> {
        self.parents.last().unwrap_or(&self.top)
    }

    /// Whether every parent was given.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bottom().parent.is_none()
    }

    /// The parent that was not given, if one was not.
    #[must_use]
    pub fn missing_parent(&self) -> Option<&ParentLink> {
        self.bottom().parent.as_ref()
    }

    /// What `range` reads as seen from `layer` down: 0 is the whole disk, 1 the disk of the parents alone.
    /// Calls `visit` with the stretches of `range` in ascending order; together they cover it.
    ///
    /// # Errors
    /// Read errors of sector bitmaps, and what `visit` gives.
    pub fn resolve_from(
        &self,
        layer: usize,
        range: Range<u64>,
        visit: &mut dyn FnMut(Segment) -> Result<()>,
    ) -> Result<()> {
        let Some(image) = self.layer_if_given(layer) else {
            let origin = if self.is_complete() { Origin::Zero } else { Origin::Missing };
            return emit(visit, range, origin);
        };
        let size = image.geometry.addressable_size;
        // A parent may be smaller than its child: past its end it reads as zero.
        let inside = range.start.min(size)..range.end.min(size);
        let outside = range.start.max(size)..range.end.max(size);
        let mut at = inside.start;
        while at < inside.end {
            let block = image.geometry.block_size.block_of(at);
            let state = image.blocks.get(block);
            // Long stretches that were never written are one segment.
            let stop = match state {
                BlockState::NotPresent => image
                    .blocks
                    .next_known(block)
                    .map_or(u64::MAX, |next| image.geometry.block_size.start_of(next)),
                _ => image.geometry.block_size.span(block, size).end,
            };
            let part = at..inside.end.min(stop);
            at = part.end;
            match state {
                BlockState::Present(payload) if self.as_programs_read => {
                    resolve_as_read(image, layer, payload, part, visit)?;
                }
                BlockState::Present(payload) => {
                    let offset = payload.plus(image.geometry.block_size.offset_in_block(part.start))?;
                    emit(visit, part, Origin::Stored { layer, offset })?;
                }
                BlockState::PartiallyPresent(payload) => {
                    self.resolve_partial(layer, block, payload, part, visit)?;
                }
                BlockState::NotPresent if image.disk_type == DiskType::Differencing => {
                    self.resolve_from(next(layer)?, part, visit)?;
                }
                // What UNDEFINED and UNMAPPED read is arbitrary; zero is one of the answers.
                BlockState::NotPresent | BlockState::Zero | BlockState::Undefined | BlockState::Unmapped => {
                    emit(visit, part, Origin::Zero)?
                }
            }
        }
        emit(visit, outside, Origin::Zero)
    }

    fn resolve_partial(
        &self,
        layer: usize,
        block: u64,
        payload: FileOffset,
        part: Range<u64>,
        visit: &mut dyn FnMut(Segment) -> Result<()>,
    ) -> Result<()> {
        let image = self.layer(layer)?;
        let bitmap = image
            .sector_bitmap(block)?
            .ok_or_else(|| Error::internal("a partially present block without sector bitmap"))?;
        let start = image.geometry.block_size.start_of(block);
        let from = image.geometry.block_size.offset_in_block(part.start);
        for (run, own) in bitmap.runs(from..add(from, length(&part), "a place in a block")?) {
            let range = add(start, run.start, "a disk offset")?..add(start, run.end, "a disk offset")?;
            if own {
                let offset = payload.plus(run.start)?;
                emit(visit, range, Origin::Stored { layer, offset })?;
            } else {
                self.resolve_from(next(layer)?, range, visit)?;
            }
        }
        Ok(())
    }

    /// Whether the images from `layer` on say what all of `range` reads, although parents may be missing.
    ///
    /// # Errors
    /// Read errors of sector bitmaps.
    pub fn is_known_from(&self, layer: usize, range: Range<u64>) -> Result<bool> {
        if self.is_complete() {
            return Ok(true);
        }
        let mut known = true;
        self.resolve_from(layer, range, &mut |segment| {
            known &= segment.origin != Origin::Missing;
            Ok(())
        })?;
        Ok(known)
    }

    /// Calls `visit` with the stretches of `range`, ascending; together they cover it.
    ///
    /// # Errors
    /// Read errors of sector bitmaps, and what `visit` gives.
    pub fn resolve(&self, range: Range<u64>, visit: &mut dyn FnMut(Segment) -> Result<()>) -> Result<()> {
        self.resolve_from(0, range, visit)
    }

    /// The stretches of `range`, ascending.
    ///
    /// # Errors
    /// Read errors of sector bitmaps.
    pub fn segments(&self, range: Range<u64>) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        self.resolve(range, &mut |segment| {
            segments.push(segment);
            Ok(())
        })?;
        Ok(segments)
    }

    /// Reads the bytes that `segment` stands for.
    ///
    /// # Errors
    /// `needs-parent` for missing stretches; read errors.
    pub fn read_segment(&self, segment: &Segment, buf: &mut [u8]) -> Result<()> {
        match segment.origin {
            Origin::Zero => {
                buf.fill(0);
                Ok(())
            }
            Origin::Missing => Err(Error::new(
                ErrorKind::NeedsParent,
                "these bytes are the parent's, and the parent was not given",
            )),
            Origin::Stored { layer, offset } => self.layer(layer)?.container.read_payload(offset, buf),
        }
    }

    /// A reader of this disk that is asked for metadata: it caches, and it notices where programs read
    /// the disk differently.
    #[must_use]
    pub fn reader(&self) -> DiskReader<'_> {
        self.reader_from(0)
    }

    /// The same as seen from `layer` down: 1 is the disk that a child's parents hold.
    #[must_use]
    pub fn reader_from(&self, layer: usize) -> DiskReader<'_> {
        DiskReader { disk: self, layer, ambiguous: Cell::new(false), bits_all_set: RefCell::default() }
    }

    fn read_from(
        &self,
        layer: usize,
        offset: u64,
        buf: &mut [u8],
        read: &mut dyn FnMut(&Segment, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let end = add(offset, len64(buf.len()), "a disk offset")?;
        let mut rest = buf;
        self.resolve_from(layer, offset..end, &mut |segment| {
            let (part, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(index(segment.len(), "a read")?)
                .ok_or_else(|| Error::internal("segments longer than their range"))?;
            rest = after;
            read(&segment, part)
        })?;
        if rest.is_empty() { Ok(()) } else { Err(Error::internal("segments shorter than their range")) }
    }
}

/// Reads payload, past the cache.
impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.top.geometry.addressable_size
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        self.read_from(0, offset, buf, &mut |segment, part| self.read_segment(segment, part))
    }
}

/// A disk as file systems are read from it. See [`Disk::reader`].
pub struct DiskReader<'d> {
    disk: &'d Disk,
    layer: usize,
    ambiguous: Cell<bool>,
    /// For blocks of a dynamic VHD that were read: whether all their bits are set.
    bits_all_set: RefCell<HashMap<(usize, u64), bool>>,
}

/// How many blocks a reader remembers at most.
const MAX_REMEMBERED: usize = 4096;

impl DiskReader<'_> {
    /// Whether a read so far met a sector that programs read differently: its bit in a dynamic VHD says
    /// "never written" and its payload is not zero (the specification reads zero, QEMU the payload).
    #[must_use]
    pub fn met_ambiguity(&self) -> bool {
        self.ambiguous.get()
    }

    fn note_ambiguity(&self, segment: &Segment, bytes: &[u8]) -> Result<()> {
        let Origin::Stored { layer, .. } = segment.origin else { return Ok(()) };
        let image = self.disk.layer(layer)?;
        if image.disk_type != DiskType::Dynamic || !matches!(image.bitmaps, Bitmaps::BeforePayload { .. }) {
            return Ok(());
        }
        let block_size = image.geometry.block_size;
        let block = block_size.block_of(segment.range.start);
        if self.bits_all_set.borrow().get(&(layer, block)) == Some(&true) {
            return Ok(());
        }
        let Some(bitmap) = image.sector_bitmap(block)? else { return Ok(()) };
        let all_set = bitmap.all_set(length(&image.block_range(block)));
        let mut known = self.bits_all_set.borrow_mut();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert((layer, block), all_set);
        let from = block_size.offset_in_block(segment.range.start);
        for (run, set) in bitmap.runs(from..add(from, len64(bytes.len()), "a place in a block")?) {
            // Runs begin at `from` and end within the bytes.
            let window =
                index(length(&(from..run.start)), "a read")?..index(length(&(from..run.end)), "a read")?;
            let bytes = bytes.get(window).ok_or_else(|| Error::internal("a run longer than its read"))?;
            if !set && bytes.iter().any(|&byte| byte != 0) {
                self.ambiguous.set(true);
            }
        }
        Ok(())
    }
}

impl ReadAt for DiskReader<'_> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        self.disk.read_from(self.layer, offset, buf, &mut |segment, part| {
            match segment.origin {
                Origin::Stored { layer, offset } => {
                    self.disk.layer(layer)?.container.read_exact_at(offset.get(), part)?;
                }
                _ => self.disk.read_segment(segment, part)?,
            }
            self.note_ambiguity(segment, part)
        })
    }
}

fn next(layer: usize) -> Result<usize> {
    layer.checked_add(1).ok_or_else(|| Error::internal("a chain without end"))
}

/// The stretches of `part`, which lies in one present block, as the image's own program reads them.
fn resolve_as_read(
    image: &Image,
    layer: usize,
    payload: FileOffset,
    part: Range<u64>,
    visit: &mut dyn FnMut(Segment) -> Result<()>,
) -> Result<()> {
    let block_size = image.geometry.block_size;
    let block = block_size.block_of(part.start);
    let start = block_size.start_of(block);
    let whole = || vec![(0..block_size.get(), true)];
    for (run, is_payload) in image.runs_as_its_program_reads(block)?.unwrap_or_else(whole) {
        let on_disk = |at: u64| Ok(add(start, at, "a disk offset")?.clamp(part.start, part.end));
        let range = on_disk(run.start)?..on_disk(run.end)?;
        let offset = payload.plus(length(&(start..range.start)))?;
        let origin = if is_payload { Origin::Stored { layer, offset } } else { Origin::Zero };
        emit(visit, range, origin)?;
    }
    Ok(())
}

fn emit(visit: &mut dyn FnMut(Segment) -> Result<()>, range: Range<u64>, origin: Origin) -> Result<()> {
    if range.start < range.end { visit(Segment { range, origin }) } else { Ok(()) }
}
