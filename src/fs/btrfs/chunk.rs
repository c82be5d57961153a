//! Chunks: where the addresses that trees speak of lie on the device.
//!
//! ```text
//!   address   0 … │ chunk, 1 GiB │ chunk, 256 MiB │ …          what everything else counts in ("logical")
//!   device        │ …  copy 2 of │ … data …│ copy 1 of │ …     one stripe (single) or two (dup) a chunk
//! ```
//! The chunks of the chunk tree itself are told in the superblock, and must be told by the tree in the same way.
//!
//! Source: btrfs-progs documentation, "On-disk Format" (`CHUNK_ITEM`, `DEV_ITEM`); the kernel's `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::features::unknown;
use super::superblock::Fs;
use super::tree::{Key, RawKey, Tree};
use super::{damaged, site};
use crate::error::Site;
use crate::fs::Stop;
use crate::io::ReadAt;
use crate::units::length;

const DEV_ITEM: u8 = 216;
const CHUNK_ITEM: u8 = 228;
/// The object that all chunks and block groups belong to.
pub(super) const FIRST_CHUNK_TREE: u64 = 256;
/// Kinds of a chunk: data, system, metadata; two copies on one device.
const DATA: u64 = 1;
pub(super) const METADATA: u64 = 2 | 4;
const DUP: u64 = 32;
/// So many chunks fit 64 TiB in the usual sizes.
const MAX_CHUNKS: usize = 1 << 18;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone)]
#[repr(C)]
pub(super) struct RawDevice {
    pub(super) id: U64<LE>,
    pub(super) total: U64<LE>,
    pub(super) used: U64<LE>,
    _io: [u8; 12],
    _kind: U64<LE>,
    _generation: U64<LE>,
    _start_and_speed: [u8; 14],
    pub(super) uuid: [u8; 16],
    _fsid: [u8; 16],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawChunk {
    len: U64<LE>,
    _owner: U64<LE>,
    _stripe_len: U64<LE>,
    kind: U64<LE>,
    _io: [U32<LE>; 3],
    stripes: U16<LE>,
    _sub_stripes: U16<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStripe {
    device: U64<LE>,
    start: U64<LE>,
    uuid: [u8; 16],
}

/// A range of addresses, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) addresses: Range<u64>,
    pub(super) kind: u64,
    /// Where its one or two copies begin on the device.
    pub(super) copies: Vec<u64>,
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        length(&self.addresses)
    }

    /// The bytes on the device of a range inside the chunk, for each copy.
    pub(super) fn places(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let place = move |copy: &u64| {
            // Checked when the chunk was read: copies lie on the device, and the range in the chunk.
            let base = copy.wrapping_sub(self.addresses.start);
            base.wrapping_add(range.start)..base.wrapping_add(range.end)
        };
        self.copies.iter().map(place)
    }
}

/// All chunks, by address.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
}

impl Chunks {
    pub(super) fn all(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The chunk that holds `len` bytes at an address, whole; its number and itself.
    pub(super) fn of(&self, start: u64, len: u64) -> Option<(usize, &Chunk, Range<u64>)> {
        let number = self.chunks.partition_point(|chunk| chunk.addresses.end <= start);
        let chunk = self.chunks.get(number)?;
        let end = start.checked_add(len)?;
        let fits = len != 0 && chunk.addresses.start <= start && end <= chunk.addresses.end;
        fits.then_some((number, chunk, start..end))
    }

    /// Those that the superblock tells.
    pub(super) fn of_superblock(mut array: &[u8], fs: &Fs, at: Site) -> Result<Self, Stop> {
        let mut found = Self::default();
        while !array.is_empty() {
            let Ok((key, rest)) = RawKey::ref_from_prefix(array) else {
                return Err(damaged("its list of system chunks is cut off", at));
            };
            array = found.push(key.get(), rest, fs, at)?;
        }
        Ok(found)
    }

    /// Those of the chunk tree, which must agree with those that are known from the superblock.
    pub(super) fn of_tree(tree: &mut Tree, fs: &Fs, volume: &dyn ReadAt) -> Result<Self, Stop> {
        let mut found = Self::default();
        let mut devices = 0;
        while let Some(leaf) = tree.next_leaf(fs, volume)? {
            for (key, item) in leaf.items() {
                match key.kind {
                    DEV_ITEM => {
                        let same = RawDevice::ref_from_prefix(item).is_ok_and(|(device, _)| {
                            device.id.get() == fs.device
                                && device.uuid == fs.device_uuid
                                && device.total.get() == fs.total
                                && device.used.get() == fs.device_used
                        });
                        if !same || devices != 0 {
                            return Err(damaged("its device is not the one of its chunk tree", leaf.site));
                        }
                        devices = 1;
                    }
                    CHUNK_ITEM => {
                        if !found.push(key, item, fs, leaf.site)?.is_empty() {
                            return Err(damaged("a chunk is longer than it says", leaf.site));
                        }
                    }
                    _ => return Err(unknown(&format!("Its chunk tree has an item of kind {}.", key.kind))),
                }
            }
        }
        let at = site("Btrfs chunk tree", 0);
        if devices != 1 || fs.chunks.chunks.iter().any(|chunk| !found.chunks.contains(chunk)) {
            return Err(damaged("its chunk tree and its superblock differ", at));
        }
        Ok(found)
    }

    /// Adds the chunk of an item at `at`; gives what follows it.
    fn push<'a>(&mut self, key: Key, item: &'a [u8], fs: &Fs, at: Site) -> Result<&'a [u8], Stop> {
        let wrong = |what: &str| damaged(&format!("the chunk at address {:#x} {what}", key.offset), at);
        let Ok((raw, mut rest)) = RawChunk::ref_from_prefix(item) else { return Err(wrong("is cut off")) };
        if key.object != FIRST_CHUNK_TREE || key.kind != CHUNK_ITEM {
            return Err(wrong("is none"));
        }
        let (kind, stripes) = (raw.kind.get(), raw.stripes.get());
        if kind & !(DATA | METADATA | DUP) != 0 {
            return Err(unknown(&format!(
                "Its chunks are of kind {kind:#x}; the profiles single and dup are understood."
            )));
        }
        let wanted = if kind & DUP == 0 { 1 } else { 2 };
        if stripes != wanted || kind & (DATA | METADATA) == 0 {
            return Err(wrong("has an impossible kind or number of copies"));
        }
        let (start, len) = (key.offset, raw.len.get());
        let aligned = |value: u64| value.is_multiple_of(fs.sector);
        let mut copies = Vec::new();
        for _ in 0..stripes {
            let Ok((stripe, after)) = RawStripe::ref_from_prefix(rest) else {
                return Err(wrong("is cut off"));
            };
            rest = after;
            if stripe.device.get() != fs.device || stripe.uuid != fs.device_uuid {
                return Err(wrong("lies on another device"));
            }
            let copy = stripe.start.get();
            if fs.on_device(copy, len).is_none() || !aligned(copy) {
                return Err(wrong("does not lie on its device"));
            }
            copies.push(copy);
        }
        let end = start.checked_add(len).filter(|_| aligned(start) && aligned(len));
        let last = self.chunks.last().map_or(0, |chunk| chunk.addresses.end);
        let Some(end) = end.filter(|_| start >= last) else {
            return Err(wrong("overlaps another one, or is out of order"));
        };
        if self.chunks.len() >= MAX_CHUNKS {
            return Err(unknown(&format!("It has more than {MAX_CHUNKS} chunks.")));
        }
        self.chunks.push(Chunk { addresses: start..end, kind, copies });
        Ok(rest)
    }
}
