//! Volume shadow copies: which blocks of the volume a snapshot still reads.
//!
//! ```text
//!   0x1E00 volume header ─► catalogue block ─► catalogue block …
//!                             entry 2: a snapshot and its age
//!                             entry 3: where its store is ─┬─► block list ─► …     what was copied away
//!                                                          ├─► range list ─► …     where the store's file lies
//!                                                          ├─► bitmap ─► …         what need not be copied
//!                                                          └─► previous bitmap ─► …
//! ```
//! A snapshot is the volume with blocks of 16 KiB put over it: a block that is about to change for the
//! first time after the newest snapshot is copied into that snapshot's store. An older snapshot is read
//! through its own store, then through every newer one, then from the volume itself. So the volume's own
//! block is dispensable when $Bitmap calls it free and, for every snapshot, either its bitmap said that the
//! block held nothing, or this or a newer store has the whole block.
//!
//! Kept on top of that, since their meaning is known in part only: the targets of *forwarders* (blocks that
//! a file move left elsewhere), blocks with *overlays* (sectors over an older copy), blocks that the
//! previous bitmap calls needed, and every block that a store's lists, bitmaps, copies and ranges lie in.
//! (Windows cuts an older store's file short and leaves its ranges as they were: then a range keeps more than
//! the store needs.) Whatever cannot be read or understood makes the whole answer *unknown*.
//!
//! Source: libvshadow's "Volume Shadow Snapshot (VSS) format", "Volume header" to "Reading snapshot data".

use std::collections::HashSet;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::blocks::{BLOCK, BlockSet};
use crate::error::Result;
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::index;

/// Where the volume header lies: in the last sector of $Boot.
const VOLUME_HEADER: u64 = 0x1E00;
/// 3808876b-c176-4e48-b7ae-04046e6cc752.
const IDENTIFIER: [u8; 16] =
    [0x6B, 0x87, 0x08, 0x38, 0x76, 0xC1, 0x48, 0x4E, 0xB7, 0xAE, 0x04, 0x04, 0x6E, 0x6C, 0xC7, 0x52];
/// Windows keeps at most 512 snapshots of a volume.
const MAX_SNAPSHOTS: usize = 512;
/// How many blocks of lists and bitmaps are read in all: 1 GiB, which describe 500 GiB of copies.
const MAX_STRUCTURES: usize = 1 << 16;

const RECORD_VOLUME: u32 = 1;
const RECORD_CATALOGUE: u32 = 2;
const RECORD_BLOCK_LIST: u32 = 3;
const RECORD_STORE: u32 = 4;
const RECORD_RANGE_LIST: u32 = 5;
const RECORD_BITMAP: u32 = 6;

const ENTRY_EMPTY: u64 = 0;
const ENTRY_UNUSED: u64 = 1;
const ENTRY_SNAPSHOT: u64 = 2;
const ENTRY_STORE: u64 = 3;

const FLAG_FORWARDER: u32 = 0x01;
const FLAG_OVERLAY: u32 = 0x02;
const FLAG_NOT_USED: u32 = 0x04;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VolumeHeader {
    identifier: [u8; 16],
    version: U32,
    record: U32,
    own_offset: U64,
    _unknown: [u8; 16],
    catalogue_offset: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockHeader {
    identifier: [u8; 16],
    version: U32,
    record: U32,
    _relative_offset: U64,
    own_offset: U64,
    next_offset: U64,
    _unknown: [u8; 80],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SnapshotEntry {
    kind: U64,
    _volume_size: U64,
    store: [u8; 16],
    sequence: U64,
    _flags: U64,
    created: U64,
    _unknown: [u8; 72],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone)]
#[repr(C)]
struct StoreEntry {
    kind: U64,
    block_list: U64,
    store: [u8; 16],
    header: U64,
    range_list: U64,
    bitmap: U64,
    _file: U64,
    _allocated: U64,
    previous_bitmap: U64,
    _unknown: [u8; 48],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Descriptor {
    original: U64,
    relative: U64,
    stored: U64,
    flags: U32,
    _sectors: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoreRange {
    start: U64,
    _relative: U64,
    len: U64,
}

/// What the shadow copies of a volume need.
pub(super) enum Shadows {
    /// There are none.
    None,
    /// They need at most these blocks.
    Need(BlockSet),
    /// There are some, and what they need cannot be told, for this reason.
    Unknown(String),
}

/// Why the needs cannot be told.
struct Doubt(String);

impl Doubt {
    fn at(what: &str, offset: u64) -> Self {
        Self(format!("{what} at volume offset {offset:#x}"))
    }
}

impl From<crate::Error> for Doubt {
    fn from(error: crate::Error) -> Self {
        Self(error.to_string())
    }
}

/// Reads the catalogue and the stores, if the volume has them.
///
/// # Errors
/// Only where the volume header cannot be read.
pub(super) fn read(volume: &dyn ReadAt) -> Result<Shadows> {
    let header: VolumeHeader = read_struct(volume, VOLUME_HEADER)?;
    if header.identifier != IDENTIFIER {
        return Ok(Shadows::None);
    }
    let known = matches!(header.version.get(), 1 | 2)
        && header.record.get() == RECORD_VOLUME
        && header.own_offset.get() == VOLUME_HEADER;
    if !known {
        return Ok(Shadows::Unknown("their volume header has an unknown version".into()));
    }
    let catalogue = header.catalogue_offset.get();
    if catalogue == 0 {
        return Ok(Shadows::None);
    }
    let needs = Reader::new(volume).and_then(|reader| reader.needs(catalogue));
    Ok(needs.unwrap_or_else(|doubt| Shadows::Unknown(doubt.0)))
}

/// A snapshot with its store.
struct Snapshot {
    created: u64,
    sequence: u64,
    store: StoreEntry,
}

struct Reader<'v> {
    volume: &'v dyn ReadAt,
    /// Offsets of the structures read so far: each belongs to one chain, once.
    seen: HashSet<u64>,
    /// What some snapshot needs.
    needed: BlockSet,
    /// What the stores read so far, newest first, hold whole copies of.
    copied: BlockSet,
}

impl<'v> Reader<'v> {
    fn new(volume: &'v dyn ReadAt) -> Result<Self, Doubt> {
        let blocks = || {
            BlockSet::for_volume(volume.size())
                .ok_or_else(|| Doubt("the volume is larger than is looked through".into()))
        };
        let (needed, copied) = (blocks()?, blocks()?);
        Ok(Self { volume, seen: HashSet::new(), needed, copied })
    }

    fn needs(mut self, catalogue: u64) -> Result<Shadows, Doubt> {
        let snapshots = self.snapshots(catalogue)?;
        if snapshots.is_empty() {
            return Ok(Shadows::None);
        }
        for snapshot in snapshots.into_iter().rev() {
            self.store(&snapshot.store)?;
        }
        Ok(Shadows::Need(self.needed))
    }

    /// The snapshots of the catalogue, oldest first.
    fn snapshots(&mut self, catalogue: u64) -> Result<Vec<Snapshot>, Doubt> {
        let (mut entries, mut stores) = (Vec::new(), Vec::new());
        self.chain(catalogue, RECORD_CATALOGUE, |_, payload| {
            for entry in payload.as_chunks::<128>().0 {
                let Ok((kind, _)) = U64::ref_from_prefix(entry) else { continue };
                match kind.get() {
                    ENTRY_EMPTY | ENTRY_UNUSED => {}
                    ENTRY_SNAPSHOT => entries.extend(SnapshotEntry::read_from_bytes(entry).ok()),
                    ENTRY_STORE => stores.extend(StoreEntry::read_from_bytes(entry).ok()),
                    other => {
                        return Err(Doubt(format!("the catalogue has an entry of unknown type {other}")));
                    }
                }
            }
            Ok(())
        })?;
        if entries.len() > MAX_SNAPSHOTS || entries.len() != stores.len() {
            return Err(Doubt(format!(
                "the catalogue has {} snapshots and {} stores; a store may lie on another volume",
                entries.len(),
                stores.len()
            )));
        }
        let mut snapshots = Vec::new();
        for entry in entries {
            let mut own = stores.iter().filter(|store| store.store == entry.store);
            let (Some(store), None) = (own.next(), own.next()) else {
                return Err(Doubt("the catalogue has a snapshot without a store of its own".into()));
            };
            let (created, sequence) = (entry.created.get(), entry.sequence.get());
            snapshots.push(Snapshot { created, sequence, store: store.clone() });
        }
        snapshots.sort_unstable_by_key(|snapshot| snapshot.created);
        let ordered = snapshots.is_sorted_by(|a, b| a.created < b.created && a.sequence < b.sequence);
        if !ordered {
            return Err(Doubt("the age of the snapshots is contradictory".into()));
        }
        Ok(snapshots)
    }

    /// Adds what a snapshot needs; all newer ones are done.
    fn store(&mut self, store: &StoreEntry) -> Result<(), Doubt> {
        self.chain(store.header.get(), RECORD_STORE, |_, _| Ok(()))?;
        self.chain(store.block_list.get(), RECORD_BLOCK_LIST, |reader, payload| {
            for entry in payload.as_chunks::<{ size_of::<Descriptor>() }>().0 {
                if entry.iter().any(|&byte| byte != 0)
                    && let Ok(descriptor) = Descriptor::ref_from_bytes(entry)
                {
                    reader.descriptor(descriptor)?;
                }
            }
            Ok(())
        })?;
        if store.range_list.get() != 0 {
            self.ranges(store.range_list.get())?;
        }
        self.bitmap(store.bitmap.get())?;
        if store.previous_bitmap.get() != 0 {
            self.bitmap(store.previous_bitmap.get())?;
        }
        Ok(())
    }

    /// Keeps the ranges of the volume that a store's file is made of.
    fn ranges(&mut self, first: u64) -> Result<(), Doubt> {
        // The parts of a file do not overlap, so together they are no longer than the volume.
        let mut left = self.volume.size();
        self.chain(first, RECORD_RANGE_LIST, |reader, payload| {
            for entry in payload.as_chunks::<{ size_of::<StoreRange>() }>().0 {
                let Ok(range) = StoreRange::ref_from_bytes(entry) else { continue };
                let (start, len) = (range.start.get(), range.len.get());
                left = left
                    .checked_sub(len)
                    .ok_or_else(|| Doubt::at("a store is larger than the volume: its range", start))?;
                reader.keep(start, len)?;
            }
            Ok(())
        })
    }

    /// Notes what a descriptor says of its block.
    fn descriptor(&mut self, descriptor: &Descriptor) -> Result<(), Doubt> {
        let (original, flags) = (descriptor.original.get(), descriptor.flags.get());
        if flags & FLAG_FORWARDER != 0 {
            self.keep(descriptor.relative.get(), BLOCK)?;
        } else if descriptor.stored.get() != 0 {
            self.keep(descriptor.stored.get(), BLOCK)?;
        }
        if flags & FLAG_NOT_USED != 0 {
            return Ok(());
        }
        if !original.is_multiple_of(BLOCK) || original >= self.volume.size() {
            return Err(Doubt::at("a block list names a block outside the volume", original));
        }
        let block = original.checked_div(BLOCK).unwrap_or(0);
        if flags == 0 && descriptor.stored.get() != 0 {
            self.copied.insert(block);
        }
        // An overlay that comes before the copy it lies over keeps a block too many.
        if flags & FLAG_OVERLAY != 0 && !self.copied.contains(block) {
            self.needed.insert(block);
        }
        Ok(())
    }

    /// Adds the blocks that a bitmap does not call unneeded and that no copy stands for. Blocks that
    /// the bitmap is too short for are needed.
    fn bitmap(&mut self, first: u64) -> Result<(), Doubt> {
        let mut words = 0..self.needed.words();
        self.chain(first, RECORD_BITMAP, |reader, payload| {
            // Bits past the volume's end are about no block.
            for (unneeded, word) in payload.as_chunks::<8>().0.iter().zip(&mut words) {
                reader.needed.insert_word(word, !u64::from_le_bytes(*unneeded) & !reader.copied.word(word));
            }
            Ok(())
        })?;
        for word in words {
            self.needed.insert_word(word, !self.copied.word(word));
        }
        Ok(())
    }

    /// Follows a chain of 16 KiB structures and gives each one's payload to `visit`.
    fn chain(
        &mut self,
        first: u64,
        record: u32,
        mut visit: impl FnMut(&mut Self, &[u8]) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let mut offset = first;
        loop {
            if self.seen.len() >= MAX_STRUCTURES || !self.seen.insert(offset) {
                return Err(Doubt::at("a chain of structures runs in a circle, or is too long,", offset));
            }
            self.keep(offset, BLOCK)?;
            let bytes = read_vec(self.volume, offset, index(BLOCK, "a shadow copy structure")?)?;
            let Ok((header, payload)) = BlockHeader::ref_from_prefix(&bytes) else {
                return Err(Doubt::at("a structure is too short", offset));
            };
            let sound = header.identifier == IDENTIFIER
                && header.version.get() == 1
                && header.record.get() == record
                && header.own_offset.get() == offset;
            if !sound {
                return Err(Doubt::at("a structure is not what its place says", offset));
            }
            visit(self, payload)?;
            offset = header.next_offset.get();
            if offset == 0 {
                return Ok(());
            }
        }
    }

    /// Keeps every block that the bytes touch.
    fn keep(&mut self, start: u64, len: u64) -> Result<(), Doubt> {
        let end = start.checked_add(len).filter(|&end| end <= self.volume.size().next_multiple_of(BLOCK));
        let end = end.ok_or_else(|| Doubt::at("a store lies outside the volume", start))?;
        self.needed.insert_bytes(start..end);
        Ok(())
    }
}

#[cfg(test)]
#[path = "shadow_tests.rs"]
pub(super) mod tests;
