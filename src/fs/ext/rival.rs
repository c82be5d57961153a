//! Signatures of other formats that leave an old ext superblock at byte 1024 in place.
//!
//! A volume that was ext4 once and was made something else without being wiped may still have all of
//! ext4's structures, checksums and all. Where another format's signature stands as well, nobody can
//! tell whose the blocks are, so nothing is free.

use super::site;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, check_range, read_vec};
use crate::units::len64;

/// Where a signature stands, its bytes, and whose it is.
const SIGNATURES: [(u64, &[u8], &str); 21] = [
    (0x3, b"NTFS    ", "NTFS"),
    (0x3, b"EXFAT   ", "exFAT"),
    (0x3, b"-FVE-FS-", "BitLocker"),
    (0x36, b"FAT12   ", "FAT12"),
    (0x36, b"FAT16   ", "FAT16"),
    (0x52, b"FAT32   ", "FAT32"),
    (0x0, b"XFSB", "XFS"),
    (0x0, b"LUKS\xBA\xBE", "LUKS"),
    (0x20, b"NXSB", "APFS"),
    (0x0, b"LABELONE", "LVM2"),
    (0x200, b"LABELONE", "LVM2"),
    (0x0, b"\xFC\x4E\x2B\xA9", "Linux RAID"),
    (0x1000, b"\xFC\x4E\x2B\xA9", "Linux RAID"),
    (0xFF6, b"SWAPSPACE2", "Linux swap"),
    (0x1018, b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81", "bcache"),
    (0x1018, b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF", "bcachefs"),
    (0x8000, b"JFS1", "JFS"),
    (0x8001, b"CD001", "ISO 9660"),
    (0x1_0034, b"ReIsEr", "ReiserFS"),
    (0x1_0040, b"_BHRfS_M", "Btrfs"),
    (0x1_0000, b"\x01\x16\x19\x70", "GFS2"),
];

/// ZFS keeps its newest state in one of many slots of its label.
const ZFS_SLOTS: u64 = 0x2_0000;
const ZFS_SLOT: usize = 1024;
const ZFS_MAGIC: u64 = 0x00BA_B10C;

/// Declines a volume that another format claims too.
pub(super) fn require_none(volume: &dyn ReadAt) -> Result<(), Stop> {
    for (at, signature, name) in SIGNATURES {
        if check_range(volume, at, len64(signature.len())).is_ok()
            && read_vec(volume, at, signature.len())? == signature
        {
            return Err(claimed_by(name, at));
        }
    }
    if check_range(volume, ZFS_SLOTS, ZFS_SLOTS).is_ok() {
        let slots = read_vec(volume, ZFS_SLOTS, 128 * ZFS_SLOT)?;
        let is_zfs = slots
            .chunks_exact(ZFS_SLOT)
            .filter_map(<[u8]>::first_chunk::<8>)
            .any(|&magic| [u64::from_le_bytes(magic), u64::from_be_bytes(magic)].contains(&ZFS_MAGIC));
        if is_zfs {
            return Err(claimed_by("ZFS", ZFS_SLOTS));
        }
    }
    Ok(())
}

fn claimed_by(name: &str, at: u64) -> Stop {
    Decline::new(
        DeclineReason::Inconsistent,
        format!(
            "This volume has the superblock of an ext file system and the signature of {name}: one of \
             them is left over from an earlier use, and which one cannot be told. If it is the one of \
             {name}, remove it with wipefs."
        ),
    )
    .at(site("signature of another format", at))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::Sample;

    #[test]
    fn each_signature_of_another_format_declines() {
        Sample::new().mapped();
        let zfs = (ZFS_SLOTS + 7 * 1024, ZFS_MAGIC.to_be_bytes().to_vec(), "ZFS");
        let all = SIGNATURES.iter().map(|&(at, bytes, name)| (at, bytes.to_vec(), name)).chain([zfs]);
        for (at, signature, name) in all {
            let mut sample = Sample::new();
            let at = usize::try_from(at).unwrap();
            sample.bytes[at..at + signature.len()].copy_from_slice(&signature);
            let decline = sample.declined();
            assert_eq!(decline.reason, DeclineReason::Inconsistent, "{name}");
            assert!(decline.detail.contains(name), "{decline:?}");
        }
    }

    #[test]
    fn a_boot_loader_in_the_first_kilobyte_is_no_rival() {
        let mut sample = Sample::new();
        sample.bytes[..512].fill(0x90);
        sample.bytes[3..11].copy_from_slice(b"SYSLINUX");
        sample.bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        sample.mapped();
    }
}
