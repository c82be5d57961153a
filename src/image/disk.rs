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
use crate::units::{FileOffset, add, index, len64};

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
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether it covers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A virtual disk: `layers[0]` over `layers[1]` over …
pub struct Disk {
    layers: Vec<Rc<Image>>,
    /// Whether a metadata read met a sector whose VHD bitmap and payload disagree.
    ambiguous: Cell<bool>,
    /// For blocks of a dynamic VHD that were read: whether all their bits are set.
    bits_all_set: RefCell<HashMap<u64, bool>>,
}

impl Disk {
    /// The disk of `layers`: an image and, where it is a differencing one, its parents in order.
    /// The parents may be incomplete: what only they hold is then [`Origin::Missing`].
    ///
    /// # Errors
    /// `invalid-argument` without any image, or with a parent under an image that has none.
    pub fn new(layers: Vec<impl Into<Rc<Image>>>) -> Result<Self> {
        let layers: Vec<Rc<Image>> = layers.into_iter().map(Into::into).collect();
        let with_parent = layers.iter().take(layers.len().saturating_sub(1));
        if layers.is_empty() || with_parent.clone().any(|image| image.parent.is_none()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a parent was given for an image that has none",
            ));
        }
        Ok(Self { layers, ambiguous: Cell::new(false), bits_all_set: RefCell::default() })
    }

    /// The image itself, without its parents.
    ///
    /// # Errors
    /// None in practice: there is always one.
    pub fn top(&self) -> Result<&Image> {
        self.layers.first().map(Rc::as_ref).ok_or_else(|| Error::internal("a disk without images"))
    }

    /// The images, the child first.
    #[must_use]
    pub fn layers(&self) -> &[Rc<Image>] {
        &self.layers
    }

    /// Whether every parent was given.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.layers.last().is_some_and(|image| image.parent.is_none())
    }

    /// The parent that was not given, if one was not.
    #[must_use]
    pub fn missing_parent(&self) -> Option<&ParentLink> {
        self.layers.last().and_then(|image| image.parent.as_ref())
    }

    /// The disk of the parents alone, as far as `range` reads through it, starting at `layer`.
    /// Calls `visit` with the stretches of `range` in ascending order; together they cover it.
    ///
    /// # Errors
    /// Read errors of sector bitmaps, and what `visit` gives.
    pub fn resolve_below(
        &self,
        layer: usize,
        range: Range<u64>,
        visit: &mut dyn FnMut(Segment) -> Result<()>,
    ) -> Result<()> {
        let Some(image) = self.layers.get(layer) else {
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
            let start = image.geometry.block_size.start_of(block);
            let state = image.blocks.get(block);
            // Long stretches that were never written are one segment.
            let stop = match state {
                BlockState::NotPresent => image
                    .blocks
                    .next_known(block)
                    .map_or(u64::MAX, |next| image.geometry.block_size.start_of(next)),
                _ => start.saturating_add(image.geometry.block_size.get()),
            };
            let part = at..inside.end.min(stop);
            at = part.end;
            match state {
                BlockState::Present(payload) => {
                    let offset = payload.plus(part.start.saturating_sub(start))?;
                    emit(visit, part, Origin::Stored { layer, offset })?;
                }
                BlockState::PartiallyPresent(payload) => {
                    self.resolve_partial(layer, block, payload, part, visit)?;
                }
                BlockState::NotPresent if image.disk_type == DiskType::Differencing => {
                    self.resolve_below(layer.saturating_add(1), part, visit)?;
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
        let image = self.layers.get(layer).ok_or_else(|| Error::internal("a layer went missing"))?;
        let bitmap = image
            .sector_bitmap(block)?
            .ok_or_else(|| Error::internal("a partially present block without sector bitmap"))?;
        let start = image.geometry.block_size.start_of(block);
        for (run, own) in bitmap.runs(part.start.saturating_sub(start)..part.end.saturating_sub(start)) {
            let range = add(start, run.start, "a disk offset")?..add(start, run.end, "a disk offset")?;
            if own {
                let offset = payload.plus(run.start)?;
                emit(visit, range, Origin::Stored { layer, offset })?;
            } else {
                self.resolve_below(layer.saturating_add(1), range, visit)?;
            }
        }
        Ok(())
    }

    /// Whether the images from `layer` on say what all of `range` reads, although parents may be missing.
    ///
    /// # Errors
    /// Read errors of sector bitmaps.
    pub fn tells(&self, layer: usize, range: Range<u64>) -> Result<bool> {
        if self.is_complete() {
            return Ok(true);
        }
        let mut known = true;
        self.resolve_below(layer, range, &mut |segment| {
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
        self.resolve_below(0, range, visit)
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
            Origin::Stored { layer, offset } => {
                let image = self.layers.get(layer).ok_or_else(|| Error::internal("a layer went missing"))?;
                image.container.read_exact_at(offset.get(), buf)
            }
        }
    }

    /// Reads disk bytes as [`Disk::resolve_below`] `layer` tells: what a child's parents hold.
    ///
    /// # Errors
    /// `needs-parent` for missing stretches; read errors.
    pub fn read_below(&self, layer: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = add(offset, len64(buf.len()), "a disk offset")?;
        let mut rest = buf;
        self.resolve_below(layer, offset..end, &mut |segment| {
            let (part, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(index(segment.len(), "a read")?)
                .ok_or_else(|| Error::internal("segments longer than their range"))?;
            rest = after;
            self.read_segment(&segment, part)?;
            self.note_ambiguity(&segment, part)
        })
    }

    /// Whether, since the last call, a read met a sector that programs read differently: its bit in
    /// a dynamic VHD says "never written" and its payload is not zero (the specification reads zero,
    /// QEMU the payload).
    pub fn take_ambiguity(&self) -> bool {
        self.ambiguous.replace(false)
    }

    fn note_ambiguity(&self, segment: &Segment, bytes: &[u8]) -> Result<()> {
        let Origin::Stored { layer, .. } = segment.origin else { return Ok(()) };
        let Some(image) = self.layers.get(layer) else { return Ok(()) };
        if image.disk_type != DiskType::Dynamic || !matches!(image.bitmaps, Bitmaps::BeforePayload { .. }) {
            return Ok(());
        }
        let block = image.geometry.block_size.block_of(segment.range.start);
        let key = block.saturating_mul(64).saturating_add(len64(layer));
        let all_set = self.bits_all_set.borrow().get(&key).copied();
        if all_set == Some(true) {
            return Ok(());
        }
        let Some(bitmap) = image.sector_bitmap(block)? else { return Ok(()) };
        let covered = image.block_range(block);
        let all_set = bitmap.all_set(covered.end.saturating_sub(covered.start));
        let mut known = self.bits_all_set.borrow_mut();
        if known.len() > 4096 {
            known.clear();
        }
        known.insert(key, all_set);
        let from = segment.range.start.saturating_sub(covered.start);
        for (run, set) in bitmap.runs(from..from.saturating_add(len64(bytes.len()))) {
            let window = index(run.start.saturating_sub(from), "a read")?
                ..index(run.end.saturating_sub(from), "a read")?;
            if !set && bytes.get(window).unwrap_or_default().iter().any(|&byte| byte != 0) {
                self.ambiguous.set(true);
            }
        }
        Ok(())
    }
}

fn emit(visit: &mut dyn FnMut(Segment) -> Result<()>, range: Range<u64>, origin: Origin) -> Result<()> {
    if range.start < range.end { visit(Segment { range, origin }) } else { Ok(()) }
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.layers.first().map_or(0, |image| image.geometry.addressable_size)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        self.read_below(0, offset, buf)
    }
}
