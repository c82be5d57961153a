//! Sets checksums right after a patch, so that it is not stopped at the first of them.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc};
use vhd_compactor::io::ReadAt;

use crate::pages::Pages;

const KIB: u64 = 1 << 10;

fn crc32c(bytes: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Repairs the checksums of containers, and of partition tables and superblocks on bare volumes. What no patch reached
/// is as sound as its seed.
pub fn repair(file: &mut Pages) {
    if file.bytes(0, 8) == *b"vhdxfile" {
        for (at, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
            with_crc32c(file, at * KIB, (len * KIB) as usize);
        }
        repair_log(file);
        return;
    }
    repair_vhd(file, 0, 512, b"conectix", 64);
    repair_vhd(file, 512, 1024, b"cxsparse", 36);
    if let Some(at) = file.size().checked_sub(512) {
        repair_vhd(file, at, 512, b"conectix", 64);
    }
    repair_gpt(file);
    repair_ext(file);
}

/// A structure of a VHDX with its checksum at offset 4.
fn with_crc32c(file: &mut Pages, at: u64, len: usize) {
    let range = at..at.saturating_add(len as u64);
    if range.end > file.size() || !file.was_written(range) {
        return;
    }
    let mut bytes = file.bytes(at, len);
    bytes[4..8].fill(0);
    file.put(at + 4, &crc32c(&bytes).to_le_bytes());
}

/// Entries of the log of a VHDX, wherever a sector of it begins like one.
fn repair_log(file: &mut Pages) {
    let header = file.bytes(128 * KIB, 80);
    let (at, len) = (u64_at(&header, 72), u64::from(u32_at(&header, 68)).min(4 << 20));
    for entry in (0..len / 4096).map(|n| at.saturating_add(n * 4096)) {
        if entry.saturating_add(4096) > file.size() {
            break;
        }
        let head = file.bytes(entry, 64);
        let length = u32_at(&head, 8);
        if head.starts_with(b"loge") && length.is_multiple_of(4096) && (4096..=1 << 20).contains(&length) {
            with_crc32c(file, entry, length as usize);
        }
    }
}

fn repair_vhd(file: &mut Pages, at: u64, len: usize, cookie: &[u8], sum_at: usize) {
    let range = at..at.saturating_add(len as u64);
    if range.end > file.size() || !file.was_written(range) {
        return;
    }
    let mut bytes = file.bytes(at, len);
    if bytes.starts_with(cookie) {
        bytes[sum_at..sum_at + 4].fill(0);
        let sum = !bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        file.put(at + sum_at as u64, &sum.to_be_bytes());
    }
}

fn repair_gpt(file: &mut Pages) {
    let mut header = file.bytes(512, 512);
    if !header.starts_with(b"EFI PART") || file.size() < 1024 {
        return;
    }
    let entries = (u64::from(u32_at(&header, 80)) * u64::from(u32_at(&header, 84))).min(1 << 20) as usize;
    if let Some(at) = u64_at(&header, 72).checked_mul(512) {
        let sum = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&file.bytes(at, entries));
        header[88..92].copy_from_slice(&sum.to_le_bytes());
    }
    header[16..20].fill(0);
    let len = u32_at(&header, 12).clamp(92, 512) as usize;
    let sum = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&header[..len]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    file.put(512, &header);
}

/// The superblock of ext4 with metadata_csum.
fn repair_ext(file: &mut Pages) {
    const METADATA_CSUM: u32 = 0x400;
    let superblock = file.bytes(1024, 1024);
    let is_ext = superblock[0x38..0x3A] == [0x53, 0xEF] && file.size() >= 2048;
    if is_ext && file.was_written(1024..2048) && u32_at(&superblock, 0x64) & METADATA_CSUM != 0 {
        // ext4 leaves out the last inversion.
        file.put(1024 + 0x3FC, &(!crc32c(&superblock[..0x3FC])).to_le_bytes());
    }
}
