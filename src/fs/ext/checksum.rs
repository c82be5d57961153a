//! The three checksums of ext and jbd2, as running values that are carried from piece to piece.
//!
//! Linux carries them raw, without the inversion at start and end that libraries apply; so does this
//! module, that a stored seed can be used as it is. Source: the kernel's `ext4/checksums.rst` and
//! `ext4/group_descr.rst`.

/// The start value of a chain that no seed precedes.
pub(super) const START: u32 = u32::MAX;

/// CRC-32C (Castagnoli) of `bytes`, carried on from `running`.
pub(super) fn crc32c(running: u32, bytes: &[u8]) -> u32 {
    !crate::checksum::crc32c_append(!running, bytes)
}

/// CRC-16 (polynomial 0x8005, reflected) of `bytes`, carried on from `running`: group descriptors
/// with the `uninit_bg` feature. Descriptors are short, so bit by bit is fast enough.
pub(super) fn crc16(running: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(running, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            let shifted = crc >> 1;
            if crc & 1 == 0 { shifted } else { shifted ^ 0xA001 }
        })
    })
}

/// CRC-32 (polynomial 0x04C11DB7, most significant bit first) of `bytes`, carried on from `running`:
/// whole transactions of a jbd2 journal with checksums of version 1.
pub(super) fn crc32_be(running: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(running, |crc, &byte| {
        let [top, _, _, _] = crc.to_be_bytes();
        // A byte is always below 256: there is no other case.
        (crc << 8) ^ CRC32_BE.get(usize::from(top ^ byte)).copied().unwrap_or(0)
    })
}

const CRC32_BE: [u32; 256] = crc32_be_table();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)] // evaluated by the compiler
const fn crc32_be_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc >> 31 == 0 { crc << 1 } else { (crc << 1) ^ 0x04C1_1DB7 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: &[u8] = b"123456789";

    #[test]
    fn published_check_values() {
        assert_eq!(!crc32c(START, CHECK), 0xE306_9283, "CRC-32/ISCSI");
        assert_eq!(crc16(0, CHECK), 0xBB3D, "CRC-16/ARC");
        assert_eq!(crc16(u16::MAX, CHECK), 0x4B37, "CRC-16/MODBUS");
        assert_eq!(crc32_be(START, CHECK), 0x0376_E6E7, "CRC-32/MPEG-2");
    }

    #[test]
    fn pieces_chain() {
        let (head, tail) = CHECK.split_at(4);
        assert_eq!(crc32c(crc32c(START, head), tail), crc32c(START, CHECK));
        assert_eq!(crc16(crc16(0, head), tail), crc16(0, CHECK));
        assert_eq!(crc32_be(crc32_be(START, head), tail), crc32_be(START, CHECK));
    }
}
