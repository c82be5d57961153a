//! The superblock: what the volume is made of, parsed once and never trusted before that.
//!
//! ```text
//!   byte 0      1024            2048
//!   │ boot code │ superblock    │ …        block 1 of 1 KiB, else inside block 0
//!                 ├ 0x04 s_blocks_count   0x18 s_log_block_size   0x38 s_magic 0xEF53
//!                 ├ 0x5C features         0xE0 s_journal_inum     0xFE s_desc_size
//!                 └ 0x3FC s_checksum (metadata_csum: CRC-32C of all that precedes)
//! ```
//! Source: the kernel's `ext4/super.rst`; limits as the kernel's mount and `mke2fs` have them.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum;
use super::features::{self, Features};
use super::site;
use crate::error::{Error, Site};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_struct};
use crate::units::{add, index, mul, round_up};

/// Where the superblock lies, whatever the block size.
pub(super) const OFFSET: u64 = 1024;
const MAGIC: u16 = 0xEF53;
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

/// The superblock as it lies on the volume.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawSuperblock {
    s_inodes_count: U32,
    s_blocks_count_lo: U32,
    s_r_blocks_count_lo: U32,
    s_free_blocks_count_lo: U32,
    s_free_inodes_count: U32,
    s_first_data_block: U32,
    s_log_block_size: U32,
    s_log_cluster_size: U32,
    s_blocks_per_group: U32,
    s_clusters_per_group: U32,
    s_inodes_per_group: U32,
    s_times_and_mounts: [u8; 12],
    s_magic: U16,
    s_state: U16,
    s_errors: U16,
    s_minor_rev_level: U16,
    s_lastcheck: U32,
    s_checkinterval: U32,
    s_creator_os: U32,
    s_rev_level: U32,
    s_def_resuid: U16,
    s_def_resgid: U16,
    s_first_ino: U32,
    s_inode_size: U16,
    s_block_group_nr: U16,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_volume_name: [u8; 16],
    s_last_mounted: [u8; 64],
    s_algorithm_usage_bitmap: U32,
    s_prealloc: [u8; 2],
    s_reserved_gdt_blocks: U16,
    s_journal_uuid: [u8; 16],
    s_journal_inum: U32,
    s_journal_dev: U32,
    s_last_orphan: U32,
    s_hash_seed: [u8; 16],
    s_def_hash_version: u8,
    s_jnl_backup_type: u8,
    s_desc_size: U16,
    s_default_mount_opts: U32,
    s_first_meta_bg: U32,
    s_mkfs_time: U32,
    s_jnl_blocks: [u8; 68],
    s_blocks_count_hi: U32,
    s_r_blocks_count_hi: U32,
    s_free_blocks_count_hi: U32,
    s_min_extra_isize: U16,
    s_want_extra_isize: U16,
    s_flags: U32,
    s_raid_stride: U16,
    s_mmp_interval: U16,
    s_mmp_block: U64,
    s_raid_stripe_width: U32,
    s_log_groups_per_flex: u8,
    s_checksum_type: u8,
    s_reserved_pad: U16,
    s_kbytes_written: U64,
    s_snapshots_and_errors: [u8; 128],
    s_mount_opts: [u8; 64],
    s_quota_inums: [U32; 2],
    s_overhead_blocks: U32,
    s_backup_bgs: [U32; 2],
    s_encryption_and_more: [u8; 24],
    s_prj_quota_inum: U32,
    s_checksum_seed: U32,
    s_times_high_and_encoding: [u8; 12],
    s_orphan_file_inum: U32,
    s_reserved: [u8; 376],
    s_checksum: U32,
}

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

/// Reads the superblock, if the volume has one that could be ext's: the magic number and a few fields
/// that no ext volume has otherwise, since two bytes alone turn up anywhere.
pub(super) fn read(volume: &dyn ReadAt) -> Option<RawSuperblock> {
    let raw: RawSuperblock = read_struct(volume, OFFSET).ok()?;
    let plausible = raw.s_magic.get() == MAGIC
        && raw.s_log_block_size.get() <= 6
        && raw.s_rev_level.get() <= 1
        && (raw.features().has(features::JOURNAL_DEV)
            || (raw.s_blocks_per_group.get() != 0 && raw.s_inodes_per_group.get() != 0));
    plausible.then_some(raw)
}

impl RawSuperblock {
    /// The volume's label, as text that may hold anything.
    pub(super) fn label(&self) -> Option<String> {
        let name = self.s_volume_name.split(|&byte| byte == 0).next().unwrap_or(&[]);
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// The feature words as they stand. The original revision has none: see [`Superblock::parse`].
    pub(super) fn features(&self) -> Features {
        Features {
            compat: self.s_feature_compat.get(),
            incompat: self.s_feature_incompat.get(),
            ro_compat: self.s_feature_ro_compat.get(),
        }
    }

    fn dynamic(&self) -> bool {
        self.s_rev_level.get() > 0
    }

    /// Declines the original revision with features set: the kernel heeds the words, other programs do not,
    /// and a pending journal would be one of them.
    fn require_revision(&self, features: Features) -> Result<(), Decline> {
        if self.dynamic() || features == Features::default() {
            return Ok(());
        }
        Err(damaged("it is of revision 0, which has no features, and has some".to_owned(), 0x4C))
    }

    /// The inodes that it names for the file system's own use.
    fn named_inodes(&self, features: Features) -> Vec<(u32, &'static str)> {
        let has_quota = features.has(features::QUOTA);
        let [user, group] = self.s_quota_inums;
        let all = [
            (features.has(features::HAS_JOURNAL), self.s_journal_inum, "the journal"),
            (has_quota, user, "user quotas"),
            (has_quota, group, "group quotas"),
            (has_quota && features.has(features::PROJECT), self.s_prj_quota_inum, "project quotas"),
            (features.has(features::ORPHAN_FILE), self.s_orphan_file_inum, "the orphan file"),
        ];
        let used = all.into_iter().filter(|(used, number, _)| *used && number.get() != 0);
        let mut named: Vec<_> = used.map(|(_, number, purpose)| (number.get(), purpose)).collect();
        named.push((super::inode::ROOT, "the root directory"));
        named
    }

    fn require_checksum(&self, features: Features) -> Result<(), Decline> {
        if !features.has(features::METADATA_CSUM) {
            return Ok(());
        }
        if self.s_checksum_type != 1 {
            return Err(Decline::new(
                DeclineReason::UnknownFeature,
                format!("The metadata checksums are of the unknown type {}.", self.s_checksum_type),
            )
            .at(field_at(0x175)));
        }
        let Some(covered) = self.as_bytes().get(..0x3FC) else {
            return Err(damaged("it is too short".to_owned(), 0x3FC));
        };
        let found = self.s_checksum.get();
        let expected = checksum::crc32c(checksum::START, covered);
        if found == expected {
            return Ok(());
        }
        Err(damaged(format!("the superblock's checksum is {found:#x} and should be {expected:#x}"), 0x3FC))
    }
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

    /// The bytes in groups: all but the block of the boot code, where that is in none.
    pub(super) fn grouped_bytes(&self) -> Result<u64, Error> {
        // The first data block is below the count of blocks, see above.
        self.byte_of(self.blocks.abs_diff(self.first_data_block))
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

fn impossible(field: &str, value: impl std::fmt::Display, at: u64) -> Stop {
    Stop::from(damaged(format!("{field} is {value}"), at))
}

/// A superblock that contradicts itself or the volume, seen at its byte `at`.
fn damaged(what: String, at: u64) -> Decline {
    Decline::new(
        DeclineReason::Inconsistent,
        format!("The superblock makes no sense ({what}). Run e2fsck on the file system, then try again."),
    )
    .at(field_at(at))
}

/// The place of the superblock's byte `at`, which is below its 1024.
fn field_at(at: u64) -> Site {
    site("ext superblock", OFFSET | at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::DeclineReason::{Dirty, ErrorState, Inconsistent, NotSupported, UnknownFeature};
    use crate::fs::ext::sample::{SUPERBLOCK, Sample};

    #[test]
    fn the_structure_has_its_size_and_its_fields_their_places() {
        use std::mem::offset_of;
        assert_eq!(size_of::<RawSuperblock>(), 1024);
        for (field, at) in [
            (offset_of!(RawSuperblock, s_magic), 0x38),
            (offset_of!(RawSuperblock, s_rev_level), 0x4C),
            (offset_of!(RawSuperblock, s_feature_compat), 0x5C),
            (offset_of!(RawSuperblock, s_volume_name), 0x78),
            (offset_of!(RawSuperblock, s_reserved_gdt_blocks), 0xCE),
            (offset_of!(RawSuperblock, s_journal_inum), 0xE0),
            (offset_of!(RawSuperblock, s_desc_size), 0xFE),
            (offset_of!(RawSuperblock, s_first_meta_bg), 0x104),
            (offset_of!(RawSuperblock, s_blocks_count_hi), 0x150),
            (offset_of!(RawSuperblock, s_mmp_block), 0x168),
            (offset_of!(RawSuperblock, s_log_groups_per_flex), 0x174),
            (offset_of!(RawSuperblock, s_backup_bgs), 0x24C),
            (offset_of!(RawSuperblock, s_want_extra_isize), 0x15E),
            (offset_of!(RawSuperblock, s_quota_inums), 0x240),
            (offset_of!(RawSuperblock, s_prj_quota_inum), 0x26C),
            (offset_of!(RawSuperblock, s_checksum_seed), 0x270),
            (offset_of!(RawSuperblock, s_orphan_file_inum), 0x280),
            (offset_of!(RawSuperblock, s_checksum), 0x3FC),
        ] {
            assert_eq!(field, at);
        }
    }

    #[test]
    fn what_is_not_ext_is_left_to_others() {
        assert!(read(&Vec::new()).is_none());
        assert!(read(&vec![0; 4096]).is_none());
        for (field, value) in [(0x38, 0), (0x18, 7), (0x4C, 2), (0x20, 0), (0x28, 0)] {
            let mut sample = Sample::new();
            sample.put16(SUPERBLOCK + field, value);
            assert!(read(&sample.bytes).is_none(), "{field:#x}");
        }
    }

    #[test]
    fn a_label_ends_at_its_first_zero_and_may_hold_anything() {
        assert_eq!(Sample::new().detect().label.as_deref(), Some("sample"));
        let mut sample = Sample::new();
        sample.bytes[SUPERBLOCK + 0x78..][..16].copy_from_slice(b"sixteen\xFFletters!");
        assert_eq!(sample.detect().label.as_deref(), Some("sixteen\u{FFFD}letters!"));
        sample.bytes[SUPERBLOCK + 0x78..][..16].fill(0);
        assert_eq!(sample.detect().label, None);
    }

    #[test]
    fn each_impossible_field_declines() {
        for (what, sample) in [
            ("more blocks than the volume", Sample::new().with32(0x04, 4598)),
            ("blocks in the high word", Sample::new().with32(0x150, 1)),
            ("no first data block", Sample::new().with32(0x14, 0)),
            ("a first data block past the end", Sample::new().with32(0x14, 5000)),
            ("no whole bytes of bitmap", Sample::new().with32(0x20, 2047)),
            ("more clusters than bits", Sample::new().with32(0x20, 8200)),
            ("clusters smaller than blocks", Sample::new().with32(0x18, 1).with_bits(0x64, 0x200)),
            ("huge clusters", Sample::new().with32(0x1C, 17).with_bits(0x64, 0x200)),
            ("clusters without bigalloc", Sample::new().with32(0x1C, 1)),
            ("another count of clusters", Sample::new().with32(0x24, 1024)),
            ("bigalloc without extents", Sample::new().with32(0x60, 0x82).with_bits(0x64, 0x200)),
            ("more inodes than the groups have", Sample::new().with32(0x00, 97)),
            ("fewer inodes than the groups have", Sample::new().with32(0x00, 64)),
            ("less than a block of inodes", Sample::new().with32(0x28, 2).with32(0x00, 6)),
            ("more than half of it reserved", Sample::new().with32(0x08, 2299)),
            ("no reserved inodes", Sample::new().with32(0x54, 10)),
            ("too many reserved descriptors", Sample::new().with16(0xCE, 257)),
            ("fields longer than an inode", Sample::new().with_bits(0x64, 0x40).with16(0x15E, 129)),
            ("fields longer than an inode, at least", Sample::new().with_bits(0x64, 0x40).with16(0x15C, 129)),
            ("GNU/Hurd with 64 bits", Sample::new().with32(0x48, 1)),
            ("GNU/Hurd with values in inodes", Sample::new().with32(0x48, 1).with32(0x60, 0x442)),
            ("revision 0 with features", Sample::new().with32(0x4C, 0)),
            ("revision 0 with a journal", Sample::new().with32(0x4C, 0).with32(0x60, 0).with32(0x64, 0)),
            ("no clusters in a group", Sample::new().with32(0x1C, 16).with_bits(0x64, 0x200)),
            ("an inode table as large as a group", Sample::new().with32(0x28, 8192)),
            ("more inodes than bits", Sample::new().with32(0x28, 8193)),
            ("a crooked inode size", Sample::new().with16(0x58, 200)),
            ("a tiny inode", Sample::new().with16(0x58, 64)),
            ("an inode larger than a block", Sample::new().with16(0x58, 2048)),
            ("a crooked descriptor size", Sample::new().with16(0xFE, 96)),
            ("a short descriptor", Sample::new().with16(0xFE, 32)),
            ("a descriptor larger than a block", Sample::new().with16(0xFE, 2048)),
            ("meta groups past the last", Sample::new().with_bits(0x60, 0x10).with32(0x104, 2)),
            ("two journals", Sample::new().with32(0xE4, 7)),
            ("a journal, and the UUID of another", Sample::new().with32(0xDC, 0x0B00)),
        ] {
            let decline = sample.declined();
            assert_eq!(decline.reason, Inconsistent, "{what}: {decline:?}");
        }
        let mut sample = Sample::new();
        sample.put32(SUPERBLOCK + 0x30, 1);
        let decline = sample.declined();
        assert!(decline.reason == Inconsistent && decline.detail.contains("checksum"), "{decline:?}");
        assert_eq!(decline.site.unwrap().offset, 1024 + 0x3FC);
        assert_eq!(
            Sample::new().with32(0x174, 0x0200).declined().reason,
            UnknownFeature,
            "another kind of checksum"
        );
    }

    #[test]
    fn too_many_groups_are_not_read() {
        let sample = Sample::new().with32(0x20, 8).with32(0x24, 8).with32(0x28, 4).with32(0x04, 4_194_400);
        let raw = read(&sample.bytes).unwrap();
        let Err(Stop::Decline(decline)) = Superblock::parse(&raw, 1 << 40) else { panic!() };
        assert_eq!(decline.reason, NotSupported);
    }

    #[test]
    fn each_state_but_clean_declines() {
        for (state, reason) in [(0, Dirty), (3, ErrorState), (2, ErrorState), (5, Dirty), (0x21, Dirty)] {
            let decline = Sample::new().with16(0x3A, state).declined();
            assert_eq!(decline.reason, reason, "{state:#x}");
        }
    }

    #[test]
    fn unknown_features_and_a_journal_device_decline() {
        assert_eq!(Sample::new().with_bits(0x60, 0x1000).declined().reason, UnknownFeature);
        assert_eq!(Sample::new().with_bits(0x64, 0x800).declined().reason, UnknownFeature);
        assert_eq!(Sample::new().with_bits(0x5C, 0x100).declined().reason, UnknownFeature);
        let device = Sample::new().with32(0x60, 0x8).with32(0x20, 0).detect();
        assert_eq!(device.name, "ext4 journal");
    }
}
