//! The superblock as it lies on the volume, before its numbers are believed.
//!
//! ```text
//!   byte 0      1024            2048
//!   │ boot code │ superblock    │ …        block 1 of 1 KiB, else inside block 0
//!                 ├ 0x04 s_blocks_count   0x18 s_log_block_size   0x38 s_magic 0xEF53
//!                 ├ 0x5C features         0xE0 s_journal_inum     0xFE s_desc_size
//!                 └ 0x3FC s_checksum (metadata_csum: CRC-32C of all that precedes)
//! ```
//! Source: the kernel's `ext4/super.rst`.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum;
use super::features::{self, Features};
use super::site;
use crate::error::Site;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_struct};

/// Where the superblock lies, whatever the block size.
pub(super) const OFFSET: u64 = 1024;
const MAGIC: u16 = 0xEF53;

/// The superblock as it lies on the volume.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawSuperblock {
    pub(super) s_inodes_count: U32,
    pub(super) s_blocks_count_lo: U32,
    pub(super) s_r_blocks_count_lo: U32,
    pub(super) s_free_blocks_count_lo: U32,
    pub(super) s_free_inodes_count: U32,
    pub(super) s_first_data_block: U32,
    pub(super) s_log_block_size: U32,
    pub(super) s_log_cluster_size: U32,
    pub(super) s_blocks_per_group: U32,
    pub(super) s_clusters_per_group: U32,
    pub(super) s_inodes_per_group: U32,
    pub(super) s_times_and_mounts: [u8; 12],
    pub(super) s_magic: U16,
    pub(super) s_state: U16,
    pub(super) s_errors: U16,
    pub(super) s_minor_rev_level: U16,
    pub(super) s_lastcheck: U32,
    pub(super) s_checkinterval: U32,
    pub(super) s_creator_os: U32,
    pub(super) s_rev_level: U32,
    pub(super) s_def_resuid: U16,
    pub(super) s_def_resgid: U16,
    pub(super) s_first_ino: U32,
    pub(super) s_inode_size: U16,
    pub(super) s_block_group_nr: U16,
    pub(super) s_feature_compat: U32,
    pub(super) s_feature_incompat: U32,
    pub(super) s_feature_ro_compat: U32,
    pub(super) s_uuid: [u8; 16],
    pub(super) s_volume_name: [u8; 16],
    pub(super) s_last_mounted: [u8; 64],
    pub(super) s_algorithm_usage_bitmap: U32,
    pub(super) s_prealloc: [u8; 2],
    pub(super) s_reserved_gdt_blocks: U16,
    pub(super) s_journal_uuid: [u8; 16],
    pub(super) s_journal_inum: U32,
    pub(super) s_journal_dev: U32,
    pub(super) s_last_orphan: U32,
    pub(super) s_hash_seed: [u8; 16],
    pub(super) s_def_hash_version: u8,
    pub(super) s_jnl_backup_type: u8,
    pub(super) s_desc_size: U16,
    pub(super) s_default_mount_opts: U32,
    pub(super) s_first_meta_bg: U32,
    pub(super) s_mkfs_time: U32,
    pub(super) s_jnl_blocks: [u8; 68],
    pub(super) s_blocks_count_hi: U32,
    pub(super) s_r_blocks_count_hi: U32,
    pub(super) s_free_blocks_count_hi: U32,
    pub(super) s_min_extra_isize: U16,
    pub(super) s_want_extra_isize: U16,
    pub(super) s_flags: U32,
    pub(super) s_raid_stride: U16,
    pub(super) s_mmp_interval: U16,
    pub(super) s_mmp_block: U64,
    pub(super) s_raid_stripe_width: U32,
    pub(super) s_log_groups_per_flex: u8,
    pub(super) s_checksum_type: u8,
    pub(super) s_reserved_pad: U16,
    pub(super) s_kbytes_written: U64,
    pub(super) s_snapshots_and_errors: [u8; 128],
    pub(super) s_mount_opts: [u8; 64],
    pub(super) s_quota_inums: [U32; 2],
    pub(super) s_overhead_blocks: U32,
    pub(super) s_backup_bgs: [U32; 2],
    pub(super) s_encryption_and_more: [u8; 24],
    pub(super) s_prj_quota_inum: U32,
    pub(super) s_checksum_seed: U32,
    pub(super) s_times_high_and_encoding: [u8; 12],
    pub(super) s_orphan_file_inum: U32,
    pub(super) s_reserved: [u8; 376],
    pub(super) s_checksum: U32,
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

    pub(super) fn dynamic(&self) -> bool {
        self.s_rev_level.get() > 0
    }

    /// Declines the original revision with features set: the kernel heeds the words, other programs do not,
    /// and a pending journal would be one of them.
    pub(super) fn require_revision(&self, features: Features) -> Result<(), Decline> {
        if self.dynamic() || features == Features::default() {
            return Ok(());
        }
        Err(damaged("it is of revision 0, which has no features, and has some".to_owned(), 0x4C))
    }

    /// The inodes that it names for the file system's own use.
    pub(super) fn named_inodes(&self, features: Features) -> Vec<(u32, &'static str)> {
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

    pub(super) fn require_checksum(&self, features: Features) -> Result<(), Decline> {
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

pub(super) fn impossible(field: &str, value: impl std::fmt::Display, at: u64) -> Stop {
    Stop::from(damaged(format!("{field} is {value}"), at))
}

/// A superblock that contradicts itself or the volume, seen at its byte `at`.
pub(super) fn damaged(what: String, at: u64) -> Decline {
    Decline::new(
        DeclineReason::Inconsistent,
        format!("The superblock makes no sense ({what}). Run e2fsck on the file system, then try again."),
    )
    .at(field_at(at))
}

/// The place of the superblock's byte `at`, which is below its 1024.
pub(super) fn field_at(at: u64) -> Site {
    site("ext superblock", OFFSET | at)
}
