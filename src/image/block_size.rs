//! The size of a block: a power of two, so that places are shifts and nothing divides by zero.
//!
//! ```text
//!   disk    0 ─────────── size ─────────── 2·size ── … ── disk's end
//!   block   ├──── 0 ─────┼────── 1 ───────┼── … ──┼─ last ─┤   the last may be shorter
//! ```

use std::fmt;
use std::ops::Range;

/// The size of a block in bytes: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize {
    /// 0 to 63.
    log2: u32,
}

impl BlockSize {
    /// 512 bytes: one sector, the smallest block of a VHD.
    pub const SECTOR: Self = Self { log2: 9 };
    /// 512 KiB.
    pub const KIB_512: Self = Self { log2: 19 };
    /// 1 MiB.
    pub const MIB_1: Self = Self { log2: 20 };
    /// 2 MiB.
    pub const MIB_2: Self = Self { log2: 21 };
    /// 4 MiB.
    pub const MIB_4: Self = Self { log2: 22 };
    /// 8 MiB.
    pub const MIB_8: Self = Self { log2: 23 };
    /// 16 MiB.
    pub const MIB_16: Self = Self { log2: 24 };
    /// 32 MiB.
    pub const MIB_32: Self = Self { log2: 25 };
    /// 64 MiB.
    pub const MIB_64: Self = Self { log2: 26 };
    /// 128 MiB.
    pub const MIB_128: Self = Self { log2: 27 };
    /// 256 MiB.
    pub const MIB_256: Self = Self { log2: 28 };
    /// 1 GiB.
    pub const GIB_1: Self = Self { log2: 30 };

    /// The block size of `bytes`, if that is a power of two.
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() { Some(Self { log2: bytes.trailing_zeros() }) } else { None }
    }

    /// How many bytes a block has.
    #[must_use]
    pub const fn get(self) -> u64 {
        1u64.wrapping_shl(self.log2)
    }

    /// The block that byte `offset` lies in.
    #[must_use]
    pub const fn block_of(self, offset: u64) -> u64 {
        offset.wrapping_shr(self.log2)
    }

    /// How far into its block byte `offset` lies.
    #[must_use]
    pub const fn offset_in_block(self, offset: u64) -> u64 {
        offset & !u64::MAX.wrapping_shl(self.log2)
    }

    /// Where block `block` starts. A start that does not fit 64 bits becomes the largest number that
    /// does, which lies past the end of every disk.
    #[must_use]
    pub const fn start_of(self, block: u64) -> u64 {
        block.saturating_mul(self.get())
    }

    /// The part of a disk of `disk_size` bytes that block `block` covers: empty past the disk's end.
    #[must_use]
    pub fn span(self, block: u64, disk_size: u64) -> Range<u64> {
        let start = self.start_of(block).min(disk_size);
        // The sum can only pass 64 bits where the disk's end cuts the block anyway.
        start..start.saturating_add(self.get()).min(disk_size)
    }

    /// How many bytes of a disk of `disk_size` bytes block `block` covers.
    #[must_use]
    pub fn span_len(self, block: u64, disk_size: u64) -> u64 {
        let span = self.span(block, disk_size);
        // A span never ends before it starts.
        span.end.wrapping_sub(span.start)
    }

    /// How many blocks a disk of `disk_size` bytes has, the last one perhaps cut by its end.
    #[must_use]
    pub const fn count_for(self, disk_size: u64) -> u64 {
        disk_size.div_ceil(self.get())
    }

    /// The block size twice as large; none past 2⁶³.
    #[must_use]
    pub fn doubled(self) -> Option<Self> {
        self.get().checked_mul(2).and_then(Self::new)
    }
}

/// The number of bytes.
impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_powers_of_two_are_block_sizes() {
        for bytes in [0, 3, 511, 513, (1 << 20) + 1, u64::MAX] {
            assert_eq!(BlockSize::new(bytes), None);
        }
        for log2 in 0..64 {
            assert_eq!(BlockSize::new(1 << log2).unwrap().get(), 1 << log2);
        }
        assert_eq!(BlockSize::new(1 << 63).unwrap().doubled(), None);
        assert_eq!(BlockSize::MIB_1.doubled(), Some(BlockSize::MIB_2));
        let named = [
            (BlockSize::SECTOR, 512),
            (BlockSize::KIB_512, 512 << 10),
            (BlockSize::MIB_1, 1 << 20),
            (BlockSize::MIB_2, 2 << 20),
            (BlockSize::MIB_32, 32 << 20),
            (BlockSize::MIB_256, 256 << 20),
            (BlockSize::GIB_1, 1 << 30),
        ];
        assert!(named.into_iter().all(|(size, bytes)| size.get() == bytes));
    }

    proptest! {
        #[test]
        fn every_byte_lies_in_one_block(log2 in 0u32..64, offset: u64, disk_size: u64) {
            let size = BlockSize::new(1 << log2).unwrap();
            let block = size.block_of(offset);
            prop_assert_eq!(size.start_of(block) + size.offset_in_block(offset), offset);
            let span = size.span(block, disk_size);
            prop_assert_eq!(span.contains(&offset), offset < disk_size);
            prop_assert_eq!(size.span_len(block, disk_size), span.end - span.start);
            let blocks = size.count_for(disk_size);
            prop_assert!(size.span(blocks, disk_size).is_empty());
            prop_assert_eq!(disk_size == 0, blocks == 0);
            if let Some(last) = blocks.checked_sub(1) {
                prop_assert_eq!(size.span(last, disk_size).end, disk_size);
                prop_assert!(!size.span(last, disk_size).is_empty());
            }
        }
    }
}
