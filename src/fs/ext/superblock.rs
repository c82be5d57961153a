//! The superblock: what the volume is made of, parsed once and never trusted before that.
//!
//! Source: the kernel's `ext4/super.rst`; limits as the kernel's mount and `mke2fs` have them.

use std::ops::Range;

use zerocopy::byteorder::little_endian::U32;

use super::checksum;
use super::features::{self, Features};
use super::raw_superblock::{RawSuperblock, damaged, field_at, impossible};
use crate::error::Error;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::units::{add, index, mul, round_up};

/// s_state: cleanly unmounted, and no error seen.
const STATE_VALID: u16 = 0x1;
const STATE_ERROR: u16 = 0x2;
/// How many groups one volume may have: 64 TiB (the largest VHDX) in groups of 128 MiB.
const MAX_GROUPS: u64 = 1 << 19;
/// s_creator_os of GNU/Hurd, which keeps a block of its own in inodes.
const OS_HURD: u32 = 1;
/// The largest group descriptor that the kernel and libext2fs take.
const MAX_DESCRIPTOR: u16 = 1024;
/// The part of an inode that s_min_extra_isize and s_want_extra_isize come on top of.
const SMALL_INODE: u64 = 128;

/// Where the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JournalPlace {
    /// There is none.
    Nowhere,
    /// In a file of this file system.
    Inode(u32),
    /// On another device.
    Elsewhere,
}

/// A superblock whose numbers make sense together.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub features: Features,
    /// Bytes of one block: 1 KiB – 64 KiB.
    pub block_size: u64,
    /// Blocks of one cluster, the unit of the bitmaps: 1 unless bigalloc is on.
    pub blocks_per_cluster: u64,
    /// The first block that belongs to a group: 1 where clusters have 1 KiB, else 0.
    pub first_data_block: u64,
    /// Blocks of the volume; the last one is `blocks - 1`.
    pub blocks: u64,
    pub blocks_per_group: u64,
    pub clusters_per_group: u64,
    pub groups: u32,
    pub inodes: u32,
    pub inodes_per_group: u32,
    pub inode_size: u64,
    /// The first inode number that is not reserved.
    pub first_inode: u32,
    /// Inodes that the superblock names, and for what.
    pub named_inodes: Vec<(u32, &'static str)>,
    /// Whether GNU/Hurd made it.
    pub is_hurd: bool,
    /// Blocks of one group's inode table.
    pub inode_table_blocks: u64,
    /// Bytes of one group descriptor: 32, or 64 and more.
    pub descriptor_size: usize,
    pub reserved_gdt_blocks: u64,
    /// The first group of descriptors (counted in blocks of descriptors) that is laid out as meta_bg has it.
    pub first_meta_group: u64,
    pub backup_groups: [u32; 2],
    /// Groups whose bitmaps and tables lie together.
    pub groups_per_flex: u64,
    /// Free blocks by the superblock's own count.
    pub free_blocks: u64,
    pub uuid: [u8; 16],
    /// What every metadata checksum starts from.
    pub checksum_seed: u32,
    pub journal: JournalPlace,
    pub mmp_block: u64,
    state: u16,
}

impl Superblock {
    /// Makes sense of `raw` for a volume of `volume_size` bytes.
    pub(super) fn parse(raw: &RawSuperblock, volume_size: u64) -> Result<Self, Stop> {
        let features = raw.features();
        features.require_understood()?;
        raw.require_checksum(features)?;
        raw.require_revision(features)?;
        let is_hurd = raw.s_creator_os.get() == OS_HURD;
        if is_hurd && (features.has(features::BIT64) || features.has(features::EA_INODE)) {
            return Err(impossible("s_creator_os, which has no such features,", OS_HURD, 0x48));
        }

        let block_size = 1024u64.checked_shl(raw.s_log_block_size.get()).unwrap_or(0);
        let bigalloc = features.has(features::BIGALLOC);
        if bigalloc && !features.has(features::EXTENTS) {
            return Err(impossible("s_feature_ro_compat with bigalloc and no extents", "wrong", 0x64));
        }
        let cluster_shift = raw.s_log_cluster_size.get().checked_sub(raw.s_log_block_size.get());
        let blocks_per_cluster = match (bigalloc, cluster_shift) {
            (false, Some(0)) => 1,
            (true, Some(shift)) if shift <= 16 => 1u64 << shift,
            _ => return Err(impossible("s_log_cluster_size", raw.s_log_cluster_size.get(), 0x1C)),
        };

        let high = |value: U32| {
            if features.has(features::BIT64) { u64::from(value.get()) << 32 } else { 0 }
        };
        let blocks = u64::from(raw.s_blocks_count_lo.get()) | high(raw.s_blocks_count_hi);
        let free_blocks = u64::from(raw.s_free_blocks_count_lo.get()) | high(raw.s_free_blocks_count_hi);
        if mul(blocks, block_size, "the size of the file system")? > volume_size {
            return Err(Stop::from(damaged(
                format!("the file system has {blocks} blocks of {block_size} bytes, the volume is smaller"),
                0x4,
            )));
        }

        let reserved = u64::from(raw.s_r_blocks_count_lo.get()) | high(raw.s_r_blocks_count_hi);
        if reserved > blocks / 2 {
            return Err(impossible("s_r_blocks_count", reserved, 0x8));
        }
        let first_data_block = u64::from(raw.s_first_data_block.get());
        let cluster_size = mul(block_size, blocks_per_cluster, "the size of a cluster")?;
        if first_data_block != u64::from(cluster_size == 1024) || first_data_block >= blocks {
            return Err(impossible("s_first_data_block", first_data_block, 0x14));
        }
        if !blocks.is_multiple_of(blocks_per_cluster) {
            return Err(impossible("s_blocks_count, which splits a cluster,", blocks, 0x4));
        }

        let blocks_per_group = u64::from(raw.s_blocks_per_group.get());
        let clusters_per_group = blocks_per_group.checked_div(blocks_per_cluster).unwrap_or(0);
        let whole = clusters_per_group.checked_mul(blocks_per_cluster) == Some(blocks_per_group)
            && clusters_per_group.is_multiple_of(8)
            && clusters_per_group > 0
            && clusters_per_group / 8 <= block_size
            && u64::from(raw.s_clusters_per_group.get()) == clusters_per_group;
        if !whole {
            return Err(impossible("s_blocks_per_group", blocks_per_group, 0x20));
        }
        let in_groups = blocks
            .checked_sub(first_data_block)
            .ok_or_else(|| impossible("s_first_data_block", first_data_block, 0x14))?;
        let groups = in_groups.div_ceil(blocks_per_group.max(1));
        if groups > MAX_GROUPS {
            return Err(Stop::from(Decline::new(
                DeclineReason::NotSupported,
                format!("The file system has {groups} block groups; more than {MAX_GROUPS} are not read."),
            )));
        }

        let (inode_size, descriptor_size) = sizes(raw, features, block_size)?;
        let inodes_per_group = u64::from(raw.s_inodes_per_group.get());
        let table_len = mul(inodes_per_group, inode_size, "the size of an inode table")?;
        let inode_table_blocks = table_len.div_ceil(block_size);
        if inodes_per_group.div_ceil(8) > block_size
            || table_len < block_size
            || inode_table_blocks >= blocks_per_group
        {
            return Err(impossible("s_inodes_per_group", inodes_per_group, 0x28));
        }
        if groups.checked_mul(inodes_per_group) != Some(raw.s_inodes_count.get().into()) {
            return Err(impossible("s_inodes_count", raw.s_inodes_count.get(), 0x0));
        }
        let first_inode = if raw.dynamic() { raw.s_first_ino.get() } else { super::inode::FIRST_USUAL };
        if first_inode < super::inode::FIRST_USUAL {
            return Err(impossible("s_first_ino", first_inode, 0x54));
        }
        if raw.dynamic() && u64::from(raw.s_reserved_gdt_blocks.get()) > block_size / 4 {
            return Err(impossible("s_reserved_gdt_blocks", raw.s_reserved_gdt_blocks.get(), 0xCE));
        }
        if features.has(features::EXTRA_ISIZE) && inode_size > SMALL_INODE {
            let extra = raw.s_want_extra_isize.get().max(raw.s_min_extra_isize.get());
            if add(SMALL_INODE, extra.into(), "an inode")? > inode_size {
                return Err(impossible("s_want_extra_isize or s_min_extra_isize", extra, 0x15C));
            }
        }

        let groups = u32::try_from(groups).map_err(|_| Error::internal("more groups than were allowed"))?;
        let superblock = Self {
            features,
            block_size,
            blocks_per_cluster,
            first_data_block,
            blocks,
            blocks_per_group,
            clusters_per_group,
            groups,
            inodes: raw.s_inodes_count.get(),
            inodes_per_group: raw.s_inodes_per_group.get(),
            inode_size,
            first_inode,
            named_inodes: raw.named_inodes(features),
            is_hurd,
            inode_table_blocks,
            descriptor_size,
            reserved_gdt_blocks: if raw.dynamic() { u64::from(raw.s_reserved_gdt_blocks.get()) } else { 0 },
            first_meta_group: u64::from(raw.s_first_meta_bg.get()),
            backup_groups: raw.s_backup_bgs.map(U32::get),
            groups_per_flex: if features.has(features::FLEX_BG) {
                1u64.checked_shl(raw.s_log_groups_per_flex.into()).unwrap_or(1)
            } else {
                1
            },
            free_blocks,
            uuid: raw.s_uuid,
            checksum_seed: if features.has(features::CSUM_SEED) {
                raw.s_checksum_seed.get()
            } else {
                checksum::crc32c(checksum::START, &raw.s_uuid)
            },
            journal: journal_place(raw, features)?,
            mmp_block: raw.s_mmp_block.get(),
            state: raw.s_state.get(),
        };
        if superblock.features.has(features::META_BG)
            && superblock.first_meta_group > superblock.descriptor_blocks()
        {
            return Err(impossible("s_first_meta_bg", superblock.first_meta_group, 0x104));
        }
        Ok(superblock)
    }

    /// Declines a volume that was not cleanly unmounted or found itself damaged.
    ///
    /// A kernel keeps "valid" set while it uses a volume with a journal, and clears it without one;
    /// so "not valid" always means that only `e2fsck` can tell what the bitmaps are worth.
    pub(super) fn require_clean(&self) -> Result<(), Decline> {
        let at = field_at(0x3A);
        if self.state & STATE_ERROR != 0 {
            return Err(Decline::new(
                DeclineReason::ErrorState,
                "The file system is marked as having errors. Run e2fsck on it, then try again.",
            )
            .at(at));
        }
        if self.state != STATE_VALID {
            return Err(Decline::new(
                DeclineReason::Dirty,
                "The file system was not cleanly unmounted. Shut the system down or unmount it (or run \
                 e2fsck on it), then try again.",
            )
            .at(at));
        }
        Ok(())
    }

    /// How many descriptors one block holds.
    pub(super) fn descriptors_per_block(&self) -> u64 {
        let size = crate::units::len64(self.descriptor_size);
        self.block_size.checked_div(size).unwrap_or(1).max(1)
    }

    /// How many blocks the descriptors of all groups fill.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        u64::from(self.groups).div_ceil(self.descriptors_per_block())
    }

    /// The first byte of `block`, or the length of so many blocks.
    pub(super) fn byte_of(&self, block: u64) -> Result<u64, Error> {
        mul(block, self.block_size, "the place of a block")
    }

    /// The bytes of one block, as a length in memory.
    pub(super) fn block_len(&self) -> Result<usize, Error> {
        index(self.block_size, "a block")
    }

    /// The bytes of one cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        // Checked when the superblock was read: it is at most 64 KiB times 2¹⁶.
        self.block_size.checked_mul(self.blocks_per_cluster).unwrap_or(self.block_size)
    }

    /// The clusters that `blocks` lie in, as blocks.
    pub(super) fn whole_clusters(&self, blocks: Range<u64>) -> Result<Range<u64>, Error> {
        const WHAT: &str = "the place of a cluster";
        // The first block of the groups begins a cluster; the last cluster may be short.
        let inside = |block: u64| {
            let inside = block.checked_sub(self.first_data_block);
            inside.ok_or_else(|| Error::internal("a block before the first group"))
        };
        let start = inside(blocks.start)?.checked_div(self.blocks_per_cluster);
        let start = start.ok_or_else(|| Error::internal("a cluster without blocks"))?;
        let start = add(mul(start, self.blocks_per_cluster, WHAT)?, self.first_data_block, WHAT)?;
        let end = round_up(inside(blocks.end)?, self.blocks_per_cluster, WHAT)?;
        Ok(start..add(end, self.first_data_block, WHAT)?.min(self.blocks))
    }

    /// The group of inode `number` and its place in the table there, if there is such an inode.
    pub(super) fn place_of_inode(&self, number: u32) -> Option<(u32, u32)> {
        let from_zero = number.checked_sub(1).filter(|_| number <= self.inodes)?;
        Some((from_zero.checked_div(self.inodes_per_group)?, from_zero.checked_rem(self.inodes_per_group)?))
    }

    /// Whether `block` belongs to a group.
    pub(super) fn holds(&self, block: u64) -> bool {
        (self.first_data_block..self.blocks).contains(&block)
    }
}

/// The sizes of an inode and of a group descriptor.
fn sizes(raw: &RawSuperblock, features: Features, block_size: u64) -> Result<(u64, usize), Stop> {
    let inode_size = if raw.dynamic() { u64::from(raw.s_inode_size.get()) } else { 128 };
    if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
        return Err(impossible("s_inode_size", inode_size, 0x58));
    }
    let descriptor_size = if features.has(features::BIT64) { raw.s_desc_size.get() } else { 32 };
    let fits = descriptor_size.is_power_of_two()
        && descriptor_size <= MAX_DESCRIPTOR
        && u64::from(descriptor_size) <= block_size;
    if !fits || (features.has(features::BIT64) && descriptor_size < 64) {
        return Err(impossible("s_desc_size", u64::from(descriptor_size), 0xFE));
    }
    Ok((inode_size, usize::from(descriptor_size)))
}

fn journal_place(raw: &RawSuperblock, features: Features) -> Result<JournalPlace, Stop> {
    if !features.has(features::HAS_JOURNAL) {
        return Ok(JournalPlace::Nowhere);
    }
    match (raw.s_journal_inum.get(), raw.s_journal_dev.get()) {
        (0, _) => Ok(JournalPlace::Elsewhere),
        // A kernel replays the journal of the inode, e2fsck looks for the one with the UUID.
        (_, 0) if raw.s_journal_uuid != [0; 16] => {
            Err(impossible("s_journal_uuid (beside a journal inode)", "of another journal", 0xD0))
        }
        (inode, 0) => Ok(JournalPlace::Inode(inode)),
        (_, device) => Err(impossible("s_journal_dev (beside a journal inode)", device, 0xE4)),
    }
}
