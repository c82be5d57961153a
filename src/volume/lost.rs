//! A bare ext file system whose start a partition table was written over: found by its backup superblocks.
//!
//! ```text
//!   before   │ boot │ superblock │ descriptors │ …          │ backup superblock │ …
//!   after    │ protective MBR │ GPT ─ a reserved partition  │ backup superblock │ …       │ GPT │
//!            0                                              group 1, 3, 5, 7, 9
//! ```
//! Windows asks to "initialise" a disk that it does not know, as it does not know WSL's `ext4.vhdx`, and then
//! writes a partition table over its first 17 KiB and its last. The files are all still there. Nothing of such
//! a disk is mapped, and the person is told what happened and how to get the file system back.
//!
//! Source: the kernel's `Documentation/filesystems/ext4` (super block, sparse_super); `e2fsck(8)`, option `-b`.

use zerocopy::byteorder::{LE, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::signature::{Claim, Class, Native, claims};
use super::{VolumeTable, covers};
use crate::checksum::crc32c;
use crate::error::{Result, Warning};
use crate::io::{ReadAt, Window, check_range, read_struct, read_vec};

/// The groups below ten that have a backup with `sparse_super`; group 1 always has.
const GROUPS: [u16; 5] = [1, 3, 5, 7, 9];
const MAGIC: u16 = 0xEF53;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// How much of a superblock its checksum covers.
const CHECKED: usize = 1020;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Backup {
    _inodes_count: U32<LE>,
    blocks_count_lo: U32<LE>,
    _counts: [u8; 12],
    first_data_block: U32<LE>,
    log_block_size: U32<LE>,
    _log_cluster_size: U32<LE>,
    blocks_per_group: U32<LE>,
    _times: [u8; 20],
    magic: U16<LE>,
    _state: [u8; 32],
    block_group_nr: U16<LE>,
    _feature_compat: U32<LE>,
    feature_incompat: U32<LE>,
    feature_ro_compat: U32<LE>,
    _uuid: [u8; 16],
    label: [u8; 16],
    _middle: [u8; 200],
    blocks_count_hi: U32<LE>,
    _rest: [u8; 680],
    checksum: U32<LE>,
}

/// What to tell of a disk with a partition table: a bare ext file system that lies under it.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn bare_ext(disk: &dyn ReadAt, claims: &[Claim], table: &VolumeTable) -> Result<Option<Warning>> {
    let is_whole = claims.iter().any(|claim| claim.class == Class::Native(Native::Ext));
    for log_block_size in 0..=2u32 {
        for group in GROUPS {
            let Some(place) = Place::new(log_block_size, group) else { continue };
            let Some(found) = place.read(disk)? else { continue };
            if is_of_a_volume(disk, table, place.offset)? {
                return Ok(None);
            }
            return Ok(Some(place.finding(&found, is_whole)));
        }
    }
    Ok(None)
}

/// Whether the place belongs to a partition that holds something.
fn is_of_a_volume(disk: &dyn ReadAt, table: &VolumeTable, offset: u64) -> Result<bool> {
    let Some(volume) = table.volumes.iter().find(|volume| covers(volume, offset)) else { return Ok(false) };
    Ok(!claims(&Window::new(disk, volume.segments.clone())?)?.is_empty())
}

/// Where a backup stands.
struct Place {
    log_block_size: u32,
    group: u16,
    block_size: u64,
    block: u64,
    offset: u64,
}

impl Place {
    /// None never happens: the products of these few numbers are small.
    fn new(log_block_size: u32, group: u16) -> Option<Self> {
        let block_size = 1024u64.checked_shl(log_block_size)?;
        let blocks_per_group = block_size.checked_mul(8)?;
        let block = blocks_per_group.checked_mul(group.into())?.checked_add(first_data_block(block_size))?;
        let offset = block.checked_mul(block_size)?;
        Some(Self { log_block_size, group, block_size, block, offset })
    }

    /// The superblock here, if its own fields say that it is the backup of this group on this disk.
    fn read(&self, disk: &dyn ReadAt) -> Result<Option<Backup>> {
        if check_range(disk, self.offset, 1024).is_err() {
            return Ok(None);
        }
        let found: Backup = read_struct(disk, self.offset)?;
        let is_here = found.magic.get() == MAGIC
            && found.block_group_nr.get() == self.group
            && found.log_block_size.get() == self.log_block_size
            && u64::from(found.first_data_block.get()) == first_data_block(self.block_size)
            && Some(u64::from(found.blocks_per_group.get())) == self.block_size.checked_mul(8)
            && self.size(&found).is_some_and(|size| size > self.offset && size <= disk.size());
        let checked = found.feature_ro_compat.get() & RO_COMPAT_METADATA_CSUM == 0
            || !crc32c(&read_vec(disk, self.offset, CHECKED)?) == found.checksum.get();
        Ok((is_here && checked).then_some(found))
    }

    fn size(&self, found: &Backup) -> Option<u64> {
        let is_64bit = found.feature_incompat.get() & INCOMPAT_64BIT != 0;
        let high = if is_64bit { u64::from(found.blocks_count_hi.get()) } else { 0 };
        (high << 32 | u64::from(found.blocks_count_lo.get())).checked_mul(self.block_size)
    }

    /// `is_whole`: the superblock at the start was not written over.
    fn finding(&self, found: &Backup, is_whole: bool) -> Warning {
        let label = found.label.split(|&byte| byte == 0).next().map(String::from_utf8_lossy);
        let label =
            label.filter(|label| !label.is_empty()).map_or_else(String::new, |label| format!(" “{label}”"));
        let repair = if is_whole {
            "Its superblock is whole, so that is all; `e2fsck -f DISK` checks it.".to_owned()
        } else {
            format!("Then run `e2fsck -b {} -B {} DISK`.", self.block, self.block_size)
        };
        Warning::new(
            super::LOST_FILE_SYSTEM,
            format!(
                "A Linux file system (ext2, ext3 or ext4{label}) filled this disk before a partition \
                 table was written over it, as Windows does with a disk that a person lets it initialise. Its files \
                 are most likely still there. Do not format or partition this disk, and do not let Windows \
                 initialise it again. The whole disk is kept here. To get the file system back, work on a copy and \
                 under Linux: remove the table, with `sgdisk --zap-all DISK` (a GPT) or `wipefs --all --types dos \
                 DISK` (an MBR). {repair}"
            ),
        )
    }
}

/// With blocks of 1 KiB the boot block is a block of its own.
const fn first_data_block(block_size: u64) -> u64 {
    if block_size == 1024 { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::gpt::tests::Builder;
    use super::super::mbr::tests::put;
    use super::super::{enumerate, tests::codes};
    use super::*;

    /// A disk of 12 MiB with a partition table and the backup of group 1 of an ext file system with blocks of
    /// 1 KiB, whose checksum is right.
    fn disk(partitions: Vec<(u8, u64, u64, &'static str)>) -> Vec<u8> {
        let mut disk = Builder { partitions, ..Builder::new(512, 24 << 10) }.build();
        let fields: [(usize, &[u8]); 8] = [
            (4, &12_000u32.to_le_bytes()),
            (0x14, &1u32.to_le_bytes()),
            (0x20, &8192u32.to_le_bytes()),
            (0x38, &MAGIC.to_le_bytes()),
            (0x5A, &1u16.to_le_bytes()),
            (0x64, &RO_COMPAT_METADATA_CSUM.to_le_bytes()),
            (0x78, b"root"),
            (0x3FC, &[0; 4]),
        ];
        for (at, bytes) in fields {
            edit(&mut disk, at, bytes);
        }
        disk
    }

    const AT: usize = 8193 << 10;

    fn edit(disk: &mut [u8], at: usize, bytes: &[u8]) {
        disk[AT + at..][..bytes.len()].copy_from_slice(bytes);
        let sum = !crc32c(&disk[AT..AT + CHECKED]);
        disk[AT + CHECKED..][..4].copy_from_slice(&sum.to_le_bytes());
    }

    fn reserved() -> Vec<u8> {
        disk(vec![(1, 34, 99, "")])
    }

    fn found(disk: &[u8]) -> Option<String> {
        let table = enumerate(&disk, 512).unwrap();
        let finding = table.warnings.iter().find(|warning| warning.code == "ext-under-partition-table");
        finding.map(|warning| warning.message.clone())
    }

    #[test]
    fn a_backup_superblock_beside_all_partitions_is_told_with_the_way_back() {
        let message = found(&reserved()).unwrap();
        assert!(message.contains("“root”") && message.contains("e2fsck -b 8193 -B 1024"), "{message}");
        let mut mbr = reserved();
        mbr[..17 << 10].fill(0);
        put(&mut mbr, 0, &[(0, 7, 63, 100)]);
        assert!(found(&mbr).is_some());
        mbr[1024 + 0x20] = 1;
        mbr[1024 + 0x38..1024 + 0x3A].copy_from_slice(&MAGIC.to_le_bytes());
        let message = found(&mbr).unwrap();
        assert!(message.contains("is whole") && !message.contains("-b 8193"), "{message}");
    }

    #[test]
    fn each_field_that_does_not_fit_is_no_backup() {
        let edits: [(usize, &[u8]); 7] = [
            (0x38, &[0]),
            (0x5A, &[3]),
            (0x18, &[1]),
            (0x14, &[0]),
            (0x20, &[1]),
            (4, &20_000u32.to_le_bytes()),
            (4, &8_000u32.to_le_bytes()),
        ];
        for (at, bytes) in edits {
            let mut disk = reserved();
            edit(&mut disk, at, bytes);
            assert_eq!(found(&disk), None, "{at:#x}");
        }
        let mut disk = reserved();
        disk[AT + 0x100] ^= 1;
        assert_eq!(found(&disk), None, "the checksum");
    }

    #[test]
    fn a_partition_that_holds_something_has_the_place() {
        let mut disk = disk(vec![(1, 40, 20_000, "")]);
        assert!(found(&disk).is_some(), "a partition that was never formatted");
        disk[40 * 512 + 3..][..8].copy_from_slice(b"NTFS    ");
        assert_eq!(found(&disk), None);
        assert_eq!(codes(&enumerate(&disk, 512).unwrap()), [""; 0]);
    }
}
