//! The superblock: where the trees begin, and whether it may be believed.
//!
//! ```text
//!   0        64 KiB         1 MiB                  64 MiB                          256 GiB
//!   │ anyone │ superblock │ …  │ chunks, free space │ copy │ chunks, free space … │ copy │ …
//! ```
//! The first mebibyte and 64 KiB at each copy are never given to anybody, and stay.
//!
//! Source: btrfs-progs documentation, "On-disk Format" (superblock); the kernel's `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksum::Checksum;
use super::chunk::{Chunks, RawDevice};
use super::features::{self, BLOCK_GROUP_TREE, METADATA_UUID};
use super::tree::{Pointer, Tree};
use super::{damaged, site, unfinished};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_vec};
use crate::units::add;

pub(super) const PRIMARY: &str = "Btrfs superblock";
const MAGIC: [u8; 8] = *b"_BHRfS_M";
const AT: u64 = 64 << 10;
const SIZE: u64 = 4096;
const COPIES: [u64; 3] = [64 << 20, 256 << 30, 1 << 50];
/// How much is kept for a superblock.
const RESERVED: u64 = 64 << 10;
/// What is kept at the beginning.
const RESERVED_START: u64 = 1 << 20;
/// Where the chunks of the chunk tree are told, and how many bytes of them there may be.
const SYSTEM_CHUNKS: usize = 0x32B;
const MAX_SYSTEM_CHUNKS: usize = 2048;
const MAX_LEVEL: u8 = 7;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone)]
#[repr(C)]
pub(super) struct RawSuperblock {
    _checksum: [u8; 32],
    fsid: [u8; 16],
    place: U64<LE>,
    pub(super) flags: U64<LE>,
    magic: [u8; 8],
    generation: U64<LE>,
    root: U64<LE>,
    chunk_root: U64<LE>,
    log_root: U64<LE>,
    _log_root_transid: U64<LE>,
    total_bytes: U64<LE>,
    bytes_used: U64<LE>,
    _root_dir: U64<LE>,
    pub(super) num_devices: U64<LE>,
    sectorsize: U32<LE>,
    nodesize: U32<LE>,
    _leafsize: U32<LE>,
    _stripesize: U32<LE>,
    system_chunks: U32<LE>,
    chunk_root_generation: U64<LE>,
    _compat: U64<LE>,
    pub(super) compat_ro: U64<LE>,
    pub(super) incompat: U64<LE>,
    pub(super) csum_type: U16<LE>,
    root_level: u8,
    chunk_root_level: u8,
    _log_root_level: u8,
    device: RawDevice,
    label: [u8; 256],
    _generations: [u8; 16],
    metadata_uuid: [u8; 16],
}

/// A superblock as it was read.
pub(super) struct Superblock {
    bytes: Vec<u8>,
    raw: RawSuperblock,
}

impl Superblock {
    /// The first superblock, if it is one of Btrfs.
    pub(super) fn read(volume: &dyn ReadAt) -> Option<Self> {
        Self::read_at(volume, AT)
    }

    fn read_at(volume: &dyn ReadAt, at: u64) -> Option<Self> {
        let bytes = read_vec(volume, at, usize::try_from(SIZE).ok()?).ok()?;
        let (raw, _) = RawSuperblock::read_from_prefix(&bytes).ok()?;
        (raw.magic == MAGIC).then_some(Self { bytes, raw })
    }

    /// The label, or none.
    pub(super) fn label(&self) -> Option<String> {
        let text = self.raw.label.split(|&byte| byte == 0).next()?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// Whether it is what was once written to `at`.
    fn is_whole(&self, at: u64) -> bool {
        let checksum = Checksum::of(self.raw.csum_type.get());
        checksum.is_some_and(|checksum| checksum.seals(&self.bytes)) && self.raw.place.get() == at
    }
}

/// A file system that is understood, and where its chunks lie.
#[derive(Debug)]
pub(super) struct Fs {
    /// Sizes in bytes.
    pub(super) total: u64,
    pub(super) sector: u64,
    pub(super) node: u64,
    /// What its blocks are sealed with.
    pub(super) checksum: Checksum,
    /// What the superblock says is used, counted once whatever the copies.
    pub(super) used: u64,
    /// What the device says chunks take.
    pub(super) device_used: u64,
    /// Whether block groups are told by a tree of their own.
    pub(super) block_group_tree: bool,
    /// The number of the last transaction.
    pub(super) generation: u64,
    /// The UUID that tree blocks bear, and that of the chunk tree, once it is known.
    pub(super) uuid: [u8; 16],
    pub(super) chunk_tree_uuid: Option<[u8; 16]>,
    pub(super) device: u64,
    pub(super) device_uuid: [u8; 16],
    pub(super) root: Pointer,
    pub(super) chunk_root: Pointer,
    pub(super) chunks: Chunks,
}

impl Fs {
    /// Understands a superblock and reads the chunk tree, or declines.
    pub(super) fn open(superblock: &Superblock, volume: &dyn ReadAt) -> Result<Self, Stop> {
        let raw = &superblock.raw;
        let at = site(PRIMARY, AT);
        let checksum = features::check(raw)?;
        if !superblock.is_whole(AT) {
            let detail = "The superblock of the Btrfs file system is damaged. Run btrfs rescue super-recover on it, \
                          then try again.";
            return Err(Decline::new(DeclineReason::Inconsistent, detail).at(at).into());
        }
        let (sector, node) = (raw.sectorsize.get(), raw.nodesize.get());
        let sizes = 4096..=1 << 16;
        if ![sector, node].iter().all(|size| size.is_power_of_two() && sizes.contains(size)) || node < sector
        {
            return Err(damaged("its block sizes are impossible", at));
        }
        let total = raw.total_bytes.get();
        if total > volume.size() {
            return Err(damaged("it is larger than its partition", at));
        }
        let device = &raw.device;
        if device.total.get() != total || total < RESERVED_START {
            return Err(damaged("its device has another size than it has", at));
        }
        for place in COPIES {
            let newer = |copy: &Superblock| {
                copy.is_whole(place)
                    && copy.raw.fsid == raw.fsid
                    && copy.raw.generation.get() > raw.generation.get()
            };
            if Superblock::read_at(volume, place).as_ref().is_some_and(newer) {
                return Err(damaged(
                    "a copy of its superblock is newer than the first one",
                    site(PRIMARY, place),
                ));
            }
        }
        if raw.log_root.get() != 0 {
            let what = "What was last written to files may be in its log tree only: mount and unmount it once (shut \
                        the machine down completely).";
            return Err(unfinished(DeclineReason::JournalPending, what, at));
        }
        let uuid = if raw.incompat.get() & METADATA_UUID == 0 { raw.fsid } else { raw.metadata_uuid };
        let pointer = |place: &U64<LE>, level, generation: &U64<LE>, owner| {
            if level > MAX_LEVEL {
                return Err(damaged("a tree has too many levels", at));
            }
            let (at, generation) = (place.get(), generation.get());
            Ok(Pointer { at, level, generation, owner: Some(owner), first: None })
        };
        let len = usize::try_from(raw.system_chunks.get()).ok().filter(|&len| len <= MAX_SYSTEM_CHUNKS);
        let array = superblock.bytes.get(SYSTEM_CHUNKS..).zip(len).and_then(|(rest, len)| rest.get(..len));
        let Some(array) = array else { return Err(damaged("its list of system chunks is too long", at)) };
        let mut fs = Self {
            total,
            sector: sector.into(),
            node: node.into(),
            checksum,
            used: raw.bytes_used.get(),
            device_used: device.used.get(),
            block_group_tree: raw.compat_ro.get() & BLOCK_GROUP_TREE != 0,
            generation: raw.generation.get(),
            uuid,
            chunk_tree_uuid: None,
            device: device.id.get(),
            device_uuid: device.uuid,
            root: pointer(&raw.root, raw.root_level, &raw.generation, 1)?,
            chunk_root: pointer(&raw.chunk_root, raw.chunk_root_level, &raw.chunk_root_generation, 3)?,
            chunks: Chunks::default(),
        };
        fs.chunks = Chunks::of_superblock(array, &fs, at)?;
        // All tree blocks must bear the identity of the first one.
        let root = fs.chunk_root.read(&fs, volume)?;
        fs.chunk_tree_uuid = Some(root.chunk_tree_uuid());
        let mut tree = Tree::new(fs.chunk_root.clone());
        fs.chunks = Chunks::of_tree(&mut tree, &fs, volume)?;
        Ok(fs)
    }

    /// What is kept for superblocks, and at the beginning.
    pub(super) fn reserved(&self) -> impl Iterator<Item = Range<u64>> {
        let total = self.total;
        let copies = COPIES.into_iter().filter_map(|at| Some(at..at.checked_add(RESERVED)?));
        let all = std::iter::once(0..RESERVED_START).chain(copies);
        all.map(move |range| range.start..range.end.min(total)).filter(|range| range.start < range.end)
    }

    /// The bytes of a range of the device, which must lie in it.
    pub(super) fn on_device(&self, start: u64, len: u64) -> Option<Range<u64>> {
        let end = add(start, len, "a range").ok()?;
        (len != 0 && end <= self.total).then_some(start..end)
    }
}
