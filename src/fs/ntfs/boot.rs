//! The boot sector: whether a volume is NTFS, and its geometry.
//!
//! ```text
//!   0x000  jump, OEM id "NTFS    "
//!   0x00B  bytes per sector · sectors per cluster · fields that FAT uses, all 0
//!   0x028  total sectors · LCN of $MFT · LCN of $MFTMirr
//!   0x040  clusters per file record · clusters per index block
//!   0x1FE  55 AA
//!   …
//!   0x2000 end of $Boot                              ($Boot is always 8 KiB)
//!
//!   |◄────────── total sectors ──────────►| backup boot sector |
//!   |◄─ cluster 0 … cluster n−1 ─►| rest  |                    |
//! ```
//! Source: the linux-ntfs project's NTFS documentation, "$Boot"; the checks are those of ntfs-3g's
//! `bootsect.c` and some more. `BitLocker` writes `-FVE-FS-` as its OEM id, so it is never taken for
//! NTFS here.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::site;
use crate::error::{Error, Result};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{index, mul};

/// Bytes of $Boot, whatever the sector size.
pub(super) const BOOT_FILE_BYTES: usize = 8192;

const OEM_ID: [u8; 8] = *b"NTFS    ";
const END_MARKER: u16 = 0xAA55;
const SECTOR_SIZES: std::ops::RangeInclusive<u64> = 256..=4096;
const CLUSTER_SIZES: std::ops::RangeInclusive<u64> = 512..=2 << 20;
const RECORD_SIZES: std::ops::RangeInclusive<u64> = 512..=64 << 10;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BootSector {
    _jump: [u8; 3],
    oem_id: [u8; 8],
    bytes_per_sector: U16,
    sectors_per_cluster: u8,
    reserved_sectors: U16,
    fats: u8,
    root_entries: U16,
    sectors_16: U16,
    _media: u8,
    sectors_per_fat: U16,
    _geometry: [u8; 8],
    sectors_32: U32,
    _drive: [u8; 4],
    total_sectors: U64,
    mft_lcn: U64,
    mft_mirror_lcn: U64,
    clusters_per_record: i8,
    _reserved_1: [u8; 3],
    _clusters_per_index_block: i8,
    _reserved_2: [u8; 3],
    _serial: U64,
    _checksum: U32,
    _boot_code: [u8; 426],
    end_marker: U16,
}

/// Sizes and places that everything else is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    pub(super) cluster_size: u64,
    /// How many clusters the volume has; `clusters * cluster_size` lies within the volume.
    pub(super) clusters: u64,
    /// Bytes of a file record: a power of two from 512 to 64 KiB.
    pub(super) record_size: usize,
    /// First cluster of $MFT.
    pub(super) mft_lcn: u64,
    /// First cluster of $MFTMirr.
    pub(super) mft_mirror_lcn: u64,
}

/// The boot sector of a volume that says it is NTFS.
pub(super) fn recognise(volume: &dyn ReadAt) -> Option<BootSector> {
    let boot: BootSector = read_struct(volume, 0).ok()?;
    if boot.oem_id != OEM_ID {
        return None;
    }
    // The OEM id of an old NTFS stays behind where its successor leaves the first sector alone. What
    // follows in $Boot holds nothing but boot code, so a superblock there means another owner.
    let rest = read_vec(volume, 0, BOOT_FILE_BYTES).ok()?;
    if has_foreign_superblock(&rest) { None } else { Some(boot) }
}

fn has_foreign_superblock(boot_file: &[u8]) -> bool {
    let holds = |offset: usize, magic: &[u8]| boot_file.get(offset..).is_some_and(|b| b.starts_with(magic));
    // Two bytes of ext's magic are too few to go by: its block size and revision must make sense too.
    let ext = holds(0x438, &[0x53, 0xEF])
        && (0..=6).any(|log_block_size| holds(0x418, &[log_block_size, 0, 0, 0]))
        && (0..=1).any(|revision| holds(0x44C, &[revision, 0, 0, 0]));
    ext || holds(0x400, &[0x10, 0x20, 0xF5, 0xF2])
        || [0x000, 0x200, 0x400, 0x600].into_iter().any(|sector| holds(sector, b"LABELONE"))
        || holds(0x1000, &[0xFC, 0x4E, 0x2B, 0xA9])
        || holds(0xFF6, b"SWAPSPACE2")
}

impl BootSector {
    /// Checks every field that the map depends on.
    pub(super) fn geometry(&self, volume_size: u64) -> Result<Geometry> {
        let fat_fields = [
            u32::from(self.reserved_sectors.get()),
            u32::from(self.fats),
            u32::from(self.root_entries.get()),
            u32::from(self.sectors_16.get()),
            u32::from(self.sectors_per_fat.get()),
            self.sectors_32.get(),
        ];
        if fat_fields.into_iter().any(|field| field != 0) {
            return Err(corrupt("a field of the boot sector that only FAT uses is not 0", 0x0E));
        }
        if self.end_marker.get() != END_MARKER {
            return Err(corrupt("the boot sector does not end in 55 AA", 0x1FE));
        }
        let sector_size = u64::from(self.bytes_per_sector.get());
        if !sector_size.is_power_of_two() || !SECTOR_SIZES.contains(&sector_size) {
            return Err(corrupt("the sector size is none that NTFS has", 0x0B)
                .expected("a power of two from 256 to 4096", sector_size));
        }
        let sectors_per_cluster = match self.sectors_per_cluster {
            n if n.is_power_of_two() => Some(u64::from(n)),
            // Above 128 the byte is the negative exponent of a power of two.
            n if n > 0x80 => 1u64.checked_shl(u32::from(n.wrapping_neg())),
            _ => None,
        };
        let cluster_size = sectors_per_cluster
            .and_then(|n| n.checked_mul(sector_size))
            .filter(|size| CLUSTER_SIZES.contains(size))
            .ok_or_else(|| {
                corrupt("the cluster size is none that NTFS has", 0x0D)
                    .expected("sectors per cluster that make 512 bytes to 2 MiB", self.sectors_per_cluster)
            })?;
        let total_bytes = mul(self.total_sectors.get(), sector_size, "the NTFS volume size")?;
        if total_bytes > volume_size {
            return Err(corrupt("the file system is larger than its volume", 0x28)
                .expected(format_args!("at most {volume_size} bytes"), total_bytes));
        }
        let clusters = total_bytes.checked_div(cluster_size).unwrap_or(0);
        let lcn = |lcn: u64, offset| {
            if lcn == 0 || lcn >= clusters {
                return Err(corrupt("the boot sector places the MFT outside the volume", offset)
                    .expected(format_args!("a cluster below {clusters}"), lcn));
            }
            Ok(lcn)
        };
        Ok(Geometry {
            cluster_size,
            clusters,
            record_size: self.record_size(cluster_size)?,
            mft_lcn: lcn(self.mft_lcn.get(), 0x30)?,
            mft_mirror_lcn: lcn(self.mft_mirror_lcn.get(), 0x38)?,
        })
    }

    fn record_size(&self, cluster_size: u64) -> Result<usize> {
        let size = match self.clusters_per_record {
            n if n > 0 => cluster_size.checked_mul(u64::from(n.unsigned_abs())),
            n => 1u64.checked_shl(u32::from(n.unsigned_abs())),
        };
        let size = size.filter(|size| size.is_power_of_two() && RECORD_SIZES.contains(size));
        let size = size.ok_or_else(|| {
            corrupt("the file record size is none that NTFS has", 0x40)
                .expected("a power of two from 512 to 65536", self.clusters_per_record)
        })?;
        index(size, "the file record size")
    }
}

fn corrupt(message: &'static str, offset: u64) -> Error {
    Error::corrupt(site("NTFS boot sector", offset), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// 4096-byte clusters of 512-byte sectors, 1000 clusters and 7 sectors.
    fn boot() -> Vec<u8> {
        let mut b = vec![0; BOOT_FILE_BYTES];
        b[3..11].copy_from_slice(b"NTFS    ");
        b[0x0B..0x0D].copy_from_slice(&512u16.to_le_bytes());
        b[0x0D] = 8;
        b[0x28..0x30].copy_from_slice(&8007u64.to_le_bytes());
        b[0x30] = 4;
        b[0x38] = 200;
        b[0x40] = 0xF6;
        b[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        b
    }

    fn geometry_of(b: &[u8], volume_size: u64) -> Result<Geometry> {
        recognise(&b).unwrap().geometry(volume_size)
    }

    fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut b = boot();
        b[offset..offset + bytes.len()].copy_from_slice(bytes);
        b
    }

    #[test]
    fn geometry_counts_whole_clusters_only() {
        let g = geometry_of(&boot(), 8008 * 512).unwrap();
        let expected = Geometry {
            cluster_size: 4096,
            clusters: 1000,
            record_size: 1024,
            mft_lcn: 4,
            mft_mirror_lcn: 200,
        };
        assert_eq!(g, expected);
    }

    #[test]
    fn every_cluster_size_is_understood() {
        let volume = 1 << 40;
        for (byte, sectors) in [(1u8, 1u64), (2, 2), (128, 128), (0xF8, 256), (0xF7, 512), (0xF4, 4096)] {
            let mut b = with(0x0D, &[byte]);
            b[0x28..0x30].copy_from_slice(&(1u64 << 30).to_le_bytes());
            assert_eq!(geometry_of(&b, volume).unwrap().cluster_size, sectors * 512, "{byte:#x}");
        }
        let native_4k = with(0x0B, &4096u16.to_le_bytes());
        assert_eq!(geometry_of(&native_4k, volume).unwrap().cluster_size, 32768);
    }

    #[test]
    fn each_field_out_of_range_is_refused() {
        let volume = 8008 * 512;
        let cases: &[(&str, usize, &[u8])] = &[
            ("sector size not a power of two", 0x0B, &[0x01, 0x02]),
            ("sector size too small", 0x0B, &[0x80, 0]),
            ("sector size too large", 0x0B, &[0, 0x20]),
            ("no sectors in a cluster", 0x0D, &[0]),
            ("cluster not a power of two", 0x0D, &[3]),
            ("cluster above 2 MiB", 0x0D, &[0xF3]),
            ("cluster exponent out of range", 0x0D, &[0x81]),
            ("reserved sectors", 0x0E, &[1]),
            ("number of FATs", 0x10, &[2]),
            ("root entries", 0x11, &[1]),
            ("16-bit sectors", 0x13, &[1]),
            ("sectors per FAT", 0x16, &[1]),
            ("32-bit sectors", 0x20, &[1]),
            ("longer than the volume", 0x28, &8009u64.to_le_bytes()),
            ("length overflows", 0x28, &u64::MAX.to_le_bytes()),
            ("empty", 0x28, &0u64.to_le_bytes()),
            ("MFT at cluster 0", 0x30, &[0]),
            ("MFT past the end", 0x30, &1000u64.to_le_bytes()),
            ("mirror at cluster 0", 0x38, &[0]),
            ("mirror past the end", 0x38, &u64::MAX.to_le_bytes()),
            ("record size 0", 0x40, &[0]),
            ("record too small", 0x40, &[0xF8]),
            ("record too large", 0x40, &[0xEF]),
            ("record exponent out of range", 0x40, &[0x80]),
            ("record not a power of two", 0x40, &[3]),
            ("no end marker", 0x1FE, &[0, 0]),
        ];
        for (what, offset, bytes) in cases {
            let error = geometry_of(&with(*offset, bytes), volume).expect_err(what);
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded), "{what}: {error}");
        }
    }

    #[test]
    fn others_are_not_taken_for_ntfs() {
        assert!(recognise(&with(3, b"-FVE-FS-")).is_none(), "BitLocker");
        assert!(recognise(&with(3, b"MSWIN4.1")).is_none(), "BitLocker To Go and FAT");
        assert!(recognise(&with(3, b"EXFAT   ")).is_none(), "exFAT");
        assert!(recognise(&boot()[..8191].to_vec()).is_none(), "too short for $Boot");
        assert!(recognise(&Vec::new()).is_none());
    }

    #[test]
    fn a_superblock_inside_boot_means_another_owner() {
        let mut ext = with(0x438, &[0x53, 0xEF]);
        ext[0x418] = 2;
        ext[0x44C] = 1;
        assert!(recognise(&ext).is_none());
        ext[0x418] = 200;
        assert!(recognise(&ext).is_some(), "boot code that happens to hold 53 EF");
        assert!(recognise(&with(0x200, b"LABELONE")).is_none());
        assert!(recognise(&with(0x400, &[0x10, 0x20, 0xF5, 0xF2])).is_none());
        assert!(recognise(&with(0x1000, &[0xFC, 0x4E, 0x2B, 0xA9])).is_none());
        assert!(recognise(&with(0xFF6, b"SWAPSPACE2")).is_none());
    }
}
