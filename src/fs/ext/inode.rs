//! Inodes: what of one says which space it owns.
//!
//! ```text
//!   0x00 i_mode   0x04 i_size_lo   0x1A i_links_count   0x1C i_blocks_lo   0x20 i_flags
//!   0x24 i_osd1 (GNU/Hurd: the block of a passive translator)     0x28 i_block[15]: the map of the file,
//!   0x64 i_generation   0x68 i_file_acl: a block of attributes         a short symlink, or inline data
//!   0x6C i_size_high    0x76 i_file_acl_high    0x7C checksum, lower half
//!   0x80 i_extra_isize │ 0x82 checksum, upper half │ … │ attributes inside the inode
//! ```
//! An inode is in use when it has links (so `e2fsck` judges, too), or when the inode bitmap says so: a file
//! that was deleted while open has no links and still has its blocks. Source: the kernel's
//! `ext4/inodes.rst`, `ext4/ifork.rst`.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::blockmap::{self, Lead};
use super::features;
use super::superblock::Superblock;
use super::{checksum, site};
use crate::error::{Error, Site};
use crate::fs::Stop;

/// The inodes that every volume has at fixed numbers.
pub(super) const BAD_BLOCKS: u32 = 1;
pub(super) const ROOT: u32 = 2;
pub(super) const RESIZE: u32 = 7;
/// The first number that is not reserved, on a volume that does not say otherwise.
pub(super) const FIRST_USUAL: u32 = 11;

const EXTENTS_FL: u32 = 0x8_0000;
const EA_INODE_FL: u32 = 0x20_0000;
const INLINE_DATA_FL: u32 = 0x1000_0000;
/// A symlink shorter than this has its target in i_block.
const SHORT_SYMLINK: u64 = 60;
/// i_blocks counts sectors.
const SECTOR: u64 = 512;
/// The part of an inode that every revision has.
const SMALL: usize = 128;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInode {
    i_mode: U16,
    i_uid: U16,
    i_size_lo: U32,
    i_times: [u8; 16],
    i_gid: U16,
    i_links_count: U16,
    i_blocks_lo: U32,
    i_flags: U32,
    i_osd1: U32,
    i_block: [u8; 60],
    i_generation: U32,
    i_file_acl_lo: U32,
    i_size_high: U32,
    i_obso_faddr: U32,
    i_blocks_high: U16,
    i_file_acl_high: U16,
    i_osd2: [u8; 8],
}

/// What an inode is, by its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Directory,
    Symlink,
    /// A device, pipe or socket.
    Special,
    /// Nothing: never used, or a reserved number without a use.
    Empty,
    Unknown,
}

/// Where the contents of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// In blocks that an extent tree maps.
    Extents,
    /// In blocks that pointers map.
    Pointers,
    /// In the inode itself.
    Inline,
    /// There is none, or it is a short symlink.
    None,
}

/// One inode in memory.
pub(super) struct Inode<'b> {
    pub number: u32,
    /// The byte of the volume at which it lies.
    pub at: u64,
    raw: &'b RawInode,
    bytes: &'b [u8],
}

impl<'b> Inode<'b> {
    /// The inode `number`, which lies at byte `at` of the volume and reads `bytes`.
    pub(super) fn new(number: u32, at: u64, bytes: &'b [u8]) -> Result<Self, Stop> {
        let Ok((raw, _)) = RawInode::ref_from_prefix(bytes) else {
            return Err(Error::internal("an inode was read with the wrong length").into());
        };
        Ok(Self { number, at, raw, bytes })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.raw.i_mode.get() >> 12 {
            0 if self.raw.i_mode.get() == 0 => Kind::Empty,
            0x8 => Kind::Regular,
            0x4 => Kind::Directory,
            0xA => Kind::Symlink,
            0x1 | 0x2 | 0x6 | 0xC => Kind::Special,
            _ => Kind::Unknown,
        }
    }

    /// Whether it holds the value of an attribute that is too large for a block.
    pub(super) fn is_attribute_value(&self) -> bool {
        self.raw.i_flags.get() & EA_INODE_FL != 0
    }

    /// Whether it is all zeros: never used.
    pub(super) fn is_blank(&self) -> bool {
        self.bytes.iter().all(|&byte| byte == 0)
    }

    pub(super) fn links(&self) -> u16 {
        self.raw.i_links_count.get()
    }

    /// The size in bytes. Only large directories and files use the upper half.
    pub(super) fn size(&self, superblock: &Superblock) -> u64 {
        let wide = self.kind() == Kind::Regular || superblock.features.has(features::LARGE_DIR);
        let high = if wide { u64::from(self.raw.i_size_high.get()) << 32 } else { 0 };
        high | u64::from(self.raw.i_size_lo.get())
    }

    /// What the checksums of the inode's own structures start from.
    pub(super) fn seed(&self, superblock: &Superblock) -> u32 {
        [self.number, self.raw.i_generation.get()]
            .iter()
            .fold(superblock.checksum_seed, |crc, value| checksum::crc32c(crc, &value.to_le_bytes()))
    }

    /// The block of extended attributes, if there is one.
    pub(super) fn attribute_block(&self, superblock: &Superblock) -> Option<u64> {
        let wide = superblock.features.has(features::BIT64);
        let high = if wide { u64::from(self.raw.i_file_acl_high.get()) << 32 } else { 0 };
        Some(high | u64::from(self.raw.i_file_acl_lo.get())).filter(|&block| block != 0)
    }

    /// The block of a passive translator, on a volume of GNU/Hurd.
    pub(super) fn translator_block(&self, superblock: &Superblock) -> Option<u64> {
        let block = u64::from(self.raw.i_osd1.get());
        (superblock.is_hurd && block != 0).then_some(block)
    }

    /// Where its contents are.
    pub(super) fn content(&self, superblock: &Superblock) -> Result<Content, Stop> {
        let flags = self.raw.i_flags.get();
        let by_flags = match (flags & EXTENTS_FL != 0, flags & INLINE_DATA_FL != 0) {
            (true, true) => return Err(self.damaged("it has an extent tree and inline data at once")),
            (false, true) if !superblock.features.has(features::INLINE_DATA) => {
                return Err(self.damaged("it has inline data, and the file system has not"));
            }
            (false, true) => return Ok(Content::Inline),
            (true, false) => Content::Extents,
            (false, false) => Content::Pointers,
        };
        match self.kind() {
            Kind::Regular | Kind::Directory => Ok(by_flags),
            Kind::Symlink if by_flags == Content::Pointers && self.is_short_symlink(superblock) => {
                Ok(Content::None)
            }
            Kind::Symlink => Ok(by_flags),
            Kind::Empty if self.number == BAD_BLOCKS => Ok(by_flags),
            Kind::Empty | Kind::Special => Ok(Content::None),
            Kind::Unknown => Err(self.damaged("its type is unknown")),
        }
    }

    /// Whether the symlink's target is in i_block: it is short, and no blocks are counted but the one of its
    /// attributes (of which some programs count a cluster, and others a block).
    fn is_short_symlink(&self, superblock: &Superblock) -> bool {
        let sectors = u64::from(self.raw.i_blocks_lo.get());
        let block = superblock.block_size / SECTOR;
        let cluster = superblock.cluster_size() / SECTOR;
        let only_attributes = sectors == 0
            || self.attribute_block(superblock).is_some() && (sectors == block || sectors == cluster);
        self.size(superblock) < SHORT_SYMLINK && only_attributes
    }

    /// What the root of its map leads to: nothing where its contents are not in blocks.
    pub(super) fn leads(&self, superblock: &Superblock) -> Result<Vec<Lead>, Stop> {
        let found = match self.content(superblock)? {
            Content::Extents => blockmap::extent_root(superblock, &self.raw.i_block),
            Content::Pointers => blockmap::pointer_root(superblock, &self.raw.i_block),
            Content::Inline | Content::None => Ok(Vec::new()),
        };
        found.map_err(|fault| self.damaged(fault))
    }

    /// The bytes of i_block, where inline data begins.
    pub(super) fn block_field(&self) -> &'b [u8] {
        &self.raw.i_block
    }

    /// The attributes that are kept inside the inode: what follows its fields.
    pub(super) fn attributes(&self) -> Result<&'b [u8], Stop> {
        let Some(extra) = self.half(0x80..0x82) else { return Ok(&[]) };
        let from = SMALL.checked_add(extra.into());
        from.and_then(|from| self.bytes.get(from..))
            .ok_or_else(|| self.damaged("its fields are longer than itself"))
    }

    /// Whether the checksum (metadata_csum) is right.
    pub(super) fn has_right_checksum(&self, superblock: &Superblock) -> bool {
        if !superblock.features.has(features::METADATA_CSUM) {
            return true;
        }
        const LOW: Range<usize> = 0x7C..0x7E;
        const HIGH: Range<usize> = 0x82..0x84;
        // i_extra_isize tells how much of the larger inode is in use; the upper half ends 4 bytes into it.
        let has_high = self.half(0x80..0x82).is_some_and(|extra| extra >= 4);
        let zero = [0u8; 2];
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut from = 0;
        for field in [Some(LOW), has_high.then_some(HIGH)].into_iter().flatten() {
            parts.push(self.bytes.get(from..field.start).unwrap_or(&[]));
            parts.push(&zero);
            from = field.end;
        }
        parts.push(self.bytes.get(from..).unwrap_or(&[]));
        let expected = parts.into_iter().fold(self.seed(superblock), checksum::crc32c);
        let (low, high) = (self.half(LOW).unwrap_or(0), self.half(HIGH).unwrap_or(0));
        let found = u32::from(low) | u32::from(high) << 16;
        let mask = if has_high { u32::MAX } else { u32::from(u16::MAX) };
        (expected ^ found) & mask == 0
    }

    fn half(&self, range: Range<usize>) -> Option<u16> {
        let half = self.bytes.get(range)?;
        <[u8; 2]>::try_from(half).ok().map(u16::from_le_bytes)
    }

    /// Where it lies, for messages.
    pub(super) fn site(&self) -> Site {
        site("ext inode", self.at)
    }

    /// A stop because this inode cannot be understood.
    pub(super) fn damaged(&self, what: &str) -> Stop {
        damaged(self.number, what, self.site())
    }
}

/// A stop because the structures of inode `number` cannot be understood.
pub(super) fn damaged(number: u32, what: &str, site: Site) -> Stop {
    Error::corrupt(site, format!("inode {number} cannot be followed: {what}; run e2fsck")).into()
}

/// A stop because there is no inode `number`, which the superblock names for `purpose`.
pub(super) fn missing(number: u32, purpose: &str) -> Stop {
    let at = site("ext superblock", super::raw_superblock::OFFSET);
    Error::corrupt(at, format!("there is no inode {number} for {purpose}; run e2fsck")).into()
}
