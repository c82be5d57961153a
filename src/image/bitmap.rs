//! Sector bitmaps: which sectors of a block are stored in it.
//!
//! VHD keeps each block's bitmap right before its payload, most significant bit first. VHDX keeps a
//! 1 MiB bitmap block for each chunk of 2²³ sectors, least significant bit first (MS-VHDX 2.5.1.2).

use std::ops::Range;

use super::{Bitmaps, BlockSize, BlockState, Format, Image};
use crate::error::{Error, ErrorKind, Result, Site};
use crate::io::read_vec;
use crate::units::{FileOffset, Space, add, index, length, mul};

/// Which bit of a byte belongs to the lowest sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitOrder {
    /// VHD.
    MostSignificantFirst,
    /// VHDX.
    LeastSignificantFirst,
}

/// The bitmap of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectorBitmap {
    bits: Vec<u8>,
    order: BitOrder,
    sector_size: u64,
}

impl SectorBitmap {
    /// A bitmap of `bits` for sectors of `sector_size` bytes.
    #[must_use]
    pub const fn new(bits: Vec<u8>, order: BitOrder, sector_size: u64) -> Self {
        Self { bits, order, sector_size }
    }

    /// The bytes as the file holds them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Whether sector `sector` of the block is stored in it.
    #[must_use]
    pub fn is_set(&self, sector: u64) -> bool {
        let byte = index(sector / 8, "a sector number").ok().and_then(|i| self.bits.get(i));
        let bit = sector % 8;
        match (byte, self.order) {
            (Some(byte), BitOrder::MostSignificantFirst) => byte & (0x80 >> bit) != 0,
            (Some(byte), BitOrder::LeastSignificantFirst) => byte & (1 << bit) != 0,
            (None, _) => false,
        }
    }

    /// Splits `range` (bytes from the block's start) into stretches that are all stored (`true`) or
    /// all not, ascending.
    #[must_use]
    pub fn runs(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut runs: Vec<(Range<u64>, bool)> = Vec::new();
        let size = self.sector_size.max(1);
        let mut at = range.start;
        while at < range.end {
            let sector = at.checked_div(size).unwrap_or_default();
            // A remainder is less than what was divided by, and what is added ends where the range does.
            let rest = size.wrapping_sub(at.checked_rem(size).unwrap_or_default());
            let end = at.wrapping_add(rest.min(length(&(at..range.end))));
            let set = self.is_set(sector);
            match runs.last_mut() {
                Some((last, was)) if *was == set => last.end = end,
                _ => runs.push((at..end, set)),
            }
            at = end;
        }
        runs
    }

    /// Whether every sector that begins before byte `len` of the block is stored.
    #[must_use]
    pub fn all_set(&self, len: u64) -> bool {
        matches!(self.runs(0..len).as_slice(), [] | [(_, true)])
    }
}

/// Bytes of a VHD bitmap for blocks of `block_size` bytes: one bit a sector, rounded up to a sector.
///
/// # Errors
/// `limit-exceeded` on overflow, which no checked block size reaches.
pub fn vhd_bitmap_len(block_size: BlockSize) -> Result<u64> {
    crate::units::round_up((block_size.get() / 512).div_ceil(8), 512, "a sector bitmap")
}

pub(super) fn load(image: &Image, block: u64) -> Result<Option<SectorBitmap>> {
    let sector_size = u64::from(image.geometry.logical_sector_size);
    match (&image.bitmaps, image.blocks.get(block)) {
        (Bitmaps::BeforePayload { len }, BlockState::Present(at) | BlockState::PartiallyPresent(at)) => {
            let start =
                at.get().checked_sub(*len).ok_or_else(|| Error::internal("a payload without bitmap"))?;
            let bits = read_vec(&image.container, start, index(*len, "a sector bitmap")?)?;
            let bitmap = SectorBitmap::new(bits, BitOrder::MostSignificantFirst, 512);
            let span = image.geometry.block_size.span_len(block, image.geometry.addressable_size);
            let differencing = matches!(image.blocks.get(block), BlockState::PartiallyPresent(_));
            if differencing && image.is_full_by_batmap(block) && !bitmap.all_set(span) {
                // Its own program would read the child's payload, any other the parent's.
                let site = Site { structure: "sector bitmap", space: Space::File, offset: start };
                return Err(Error::corrupt(
                    site,
                    format!(
                        "XenServer's batmap says that block {block} is full, and its sector bitmap is not"
                    ),
                ));
            }
            Ok(Some(bitmap))
        }
        (Bitmaps::Chunked { blocks, at }, BlockState::PartiallyPresent(_)) => {
            let chunk = block.checked_div(*blocks).unwrap_or_default();
            let place = index(chunk, "a chunk")?;
            let start = at.get(place).copied().flatten().ok_or_else(|| no_bitmap(image.format, block))?;
            let len = image.geometry.block_size.get().checked_div(sector_size).unwrap_or_default() / 8;
            let in_chunk = block.checked_rem(*blocks).unwrap_or_default();
            let from: FileOffset = start.plus(mul(in_chunk, len, "a sector bitmap")?)?;
            add(from.get(), len, "a sector bitmap")?;
            let bits = read_vec(&image.container, from.get(), index(len, "a sector bitmap")?)?;
            Ok(Some(SectorBitmap::new(bits, BitOrder::LeastSignificantFirst, sector_size)))
        }
        _ => Ok(None),
    }
}

fn no_bitmap(format: Format, block: u64) -> Error {
    let site = Site { structure: "sector bitmap", space: Space::File, offset: 0 };
    let message = format!(
        "block {block} of this {} is partially present, and its sector bitmap is missing",
        format.name()
    );
    Error::new(ErrorKind::Corrupt, message).at(site)
}

/// A VHD bitmap with every bit of the block's sectors set, padded with zeros.
///
/// # Errors
/// As [`vhd_bitmap_len`].
pub fn full_vhd_bitmap(block_size: BlockSize) -> Result<Vec<u8>> {
    let mut bits = vec![0; index(vhd_bitmap_len(block_size)?, "a sector bitmap")?];
    let sectors = block_size.get() / 512;
    for (first, byte) in (0..).step_by(8).zip(&mut bits) {
        let set = length(&(first..sectors)).min(8);
        *byte = (0..set).fold(0, |byte, bit| byte | 0x80 >> bit);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vhd_counts_from_the_top_bit_and_vhdx_from_the_bottom() {
        let msb = SectorBitmap::new(vec![0b1100_0000, 0b0000_0001], BitOrder::MostSignificantFirst, 512);
        assert!(msb.is_set(0) && msb.is_set(1) && !msb.is_set(2) && msb.is_set(15) && !msb.is_set(16));
        assert_eq!(msb.runs(0..8192), [(0..1024, true), (1024..7680, false), (7680..8192, true)]);
        let lsb = SectorBitmap::new(vec![0b1100_0000], BitOrder::LeastSignificantFirst, 4096);
        assert!(!lsb.is_set(0) && lsb.is_set(6) && lsb.is_set(7));
        assert_eq!(lsb.runs(100..30_000), [(100..24_576, false), (24_576..30_000, true)]);
    }

    #[test]
    fn all_set_looks_at_the_block_alone() {
        let bitmap = SectorBitmap::new(vec![0xff, 0], BitOrder::MostSignificantFirst, 512);
        assert!(bitmap.all_set(4096) && !bitmap.all_set(4097) && bitmap.all_set(0));
    }

    #[test]
    fn bitmap_lengths_round_up_to_sectors() {
        for (block, len) in [(512, 512), (512 << 10, 512), (2 << 20, 512), (4 << 20, 1024)] {
            assert_eq!(vhd_bitmap_len(BlockSize::new(block).unwrap()).unwrap(), len);
        }
        assert_eq!(full_vhd_bitmap(BlockSize::SECTOR).unwrap()[..2], [0x80, 0]);
        assert_eq!(full_vhd_bitmap(BlockSize::KIB_512).unwrap()[126..130], [0xff, 0xff, 0, 0]);
        assert!(full_vhd_bitmap(BlockSize::MIB_2).unwrap().iter().all(|&b| b == 0xff));
    }
}
