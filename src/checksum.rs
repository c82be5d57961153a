//! CRC-32 and CRC-32C, as containers, partition tables and file systems store them.
//!
//! One small table each: only metadata is checked, and the large tables of the fastest libraries would be a
//! tenth of the whole program over the wire.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc};

static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// CRC-32 (ISO-HDLC; GPT) of parts that follow each other.
pub fn crc32<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = CRC32.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// The CRC-32 of LVM2, which begins with a number of its own and is not inverted in the end.
pub fn crc32_lvm<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = CRC32.digest_with_initial(0xF597_A6CFu32.reverse_bits());
    for part in parts {
        digest.update(part);
    }
    !digest.finalize()
}

/// CRC-32C (Castagnoli; VHDX, ext4) of `bytes`, carried on from `crc`, which is 0 at the beginning.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // The register is the checksum without its final inversion; the library wants it unreflected.
    let mut digest = CRC32C.digest_with_initial((!crc).reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        assert_eq!(crc32([b"12345".as_slice(), b"6789"]), 0xcbf4_3926);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b""), b"123456789"), 0xe306_9283);
    }
}
