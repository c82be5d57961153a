//! Reading the BAT: every entry must lie inside the file, clear of headers and of every other block.
//!
//! ```text
//!   entry │ u32 sector of the block's bitmap; all ones: not present
//!   block │ bitmap (a bit a sector, rounded up to 512 bytes) │ payload
//! ```

use super::format::{FOOTER_LEN, HEADER_LEN, NOT_PRESENT};
use super::open::{End, MAX_BLOCKS};
use crate::error::{Error, Result, Site, Warning};
use crate::image::{BlockSize, BlockState, BlockTable, Container, DiskType};
use crate::io::{ReadAt, read_vec};
use crate::units::{FileOffset, Space, add, index, len64, mul};

/// How much of the BAT is read at a time.
const BAT_RUN: u64 = 1 << 20;

/// The BAT in the file, and what its entries must keep clear of.
pub struct Bat<'a> {
    pub container: &'a Container,
    pub at: u64,
    /// Entries that the header counts.
    pub entries: u64,
    /// Entries that the disk needs.
    pub used: u64,
    pub block_size: BlockSize,
    pub bitmap_len: u64,
    pub disk_type: DiskType,
    pub header_at: u64,
    pub end: &'a End,
}

impl Bat<'_> {
    fn site(&self, entry: u64) -> Site {
        let offset = self.at.saturating_add(entry.saturating_mul(4));
        Site { structure: "VHD BAT", space: Space::File, offset }
    }

    fn len(&self) -> u64 {
        self.entries.saturating_mul(4)
    }

    pub fn check_place(&self, field: Site) -> Result<()> {
        let fits = self.at.checked_add(self.len()).is_some_and(|bat_end| bat_end <= self.end.payload_end);
        if self.at < FOOTER_LEN || !fits {
            return Err(Error::corrupt(field, "the BAT does not lie inside the file").expected(
                format_args!("{} bytes before {}", self.len(), self.end.payload_end),
                format_args!("offset {}", self.at),
            ));
        }
        if overlaps((self.at, self.len()), (self.header_at, HEADER_LEN)) {
            return Err(Error::corrupt(field, "the BAT overlaps the dynamic header"));
        }
        Ok(())
    }

    pub fn read(&self, addressable: u64, warnings: &mut Vec<Warning>) -> Result<BlockTable> {
        let mut blocks = BlockTable::new();
        let mut present: Vec<(u32, u32)> = Vec::new();
        let mut beyond = 0u64;
        let mut entry = 0;
        while entry < self.entries {
            let count = self.entries.saturating_sub(entry).min(BAT_RUN / 4);
            let from = add(self.at, mul(entry, 4, "the BAT")?, "the BAT")?;
            let bytes = read_vec(self.container, from, index(mul(count, 4, "the BAT")?, "the BAT")?)?;
            for word in bytes.chunks_exact(4) {
                let sector = word.try_into().map_or(NOT_PRESENT, u32::from_be_bytes);
                if entry >= self.used {
                    beyond = beyond.saturating_add(u64::from(sector != NOT_PRESENT));
                } else if sector == NOT_PRESENT {
                    blocks.push(BlockState::NotPresent)?;
                } else {
                    blocks.push(self.check_entry(entry, sector, addressable)?)?;
                    if len64(present.len())
                        > self
                            .end
                            .payload_end
                            .checked_div(self.stride().saturating_mul(512))
                            .unwrap_or_default()
                    {
                        let message = "more blocks are present than the file has room for: some overlap";
                        return Err(Error::corrupt(self.site(entry), message));
                    }
                    present.push((sector, u32::try_from(entry).unwrap_or(u32::MAX)));
                }
                entry = entry.saturating_add(1);
            }
            // What lies past the disk is only counted; a hostile count is not worth more reading.
            if entry >= self.used && entry.saturating_sub(self.used) > MAX_BLOCKS {
                break;
            }
        }
        self.check_overlaps(present)?;
        // A table longer than the disk: none of its blocks can be read through the disk.
        if beyond > 0 {
            warnings.push(Warning::new(
                "blocks-past-end",
                format!("{beyond} blocks lie past the end of the disk. No program reads them; they are not carried over."),
            ));
        }
        Ok(blocks)
    }

    fn check_entry(&self, entry: u64, sector: u32, addressable: u64) -> Result<BlockState> {
        let bitmap = u64::from(sector).saturating_mul(512);
        let payload = bitmap.saturating_add(self.bitmap_len);
        // The last block need only be as long as the disk.
        let span = self.block_size.span(entry, addressable);
        let block_end = payload.saturating_add(span.end.saturating_sub(span.start));
        if block_end > self.end.payload_end {
            return Err(Error::corrupt(
                self.site(entry),
                format!("block {entry} lies past the end of the file (is the file cut off, or a part of a split set?)"),
            )
            .expected(format_args!("an end of at most {}", self.end.payload_end), block_end));
        }
        let len = block_end.saturating_sub(bitmap);
        let overlapped = [(0, FOOTER_LEN), (self.header_at, HEADER_LEN), (self.at, self.len())]
            .into_iter()
            .any(|structure| overlaps(structure, (bitmap, len)));
        if overlapped {
            return Err(Error::corrupt(
                self.site(entry),
                format!("block {entry} overlaps a header or the BAT"),
            )
            .expected("an offset of its own", format_args!("{bitmap:#x}")));
        }
        Ok(if self.disk_type == DiskType::Differencing {
            BlockState::PartiallyPresent(FileOffset::new(payload))
        } else {
            BlockState::Present(FileOffset::new(payload))
        })
    }

    /// Sectors from one block to the next where blocks lie side by side.
    fn stride(&self) -> u64 {
        self.bitmap_len.saturating_add(self.block_size.get()) / 512
    }

    fn check_overlaps(&self, mut present: Vec<(u32, u32)>) -> Result<()> {
        present.sort_unstable();
        let stride = self.stride();
        for pair in present.windows(2) {
            let [(first, a), (second, b)] = pair else { continue };
            if u64::from(second.saturating_sub(*first)) < stride {
                return Err(Error::corrupt(
                    self.site(u64::from(*b)),
                    format!("blocks {a} and {b} overlap in the file"),
                )
                .expected(format_args!("{stride} sectors apart"), second.saturating_sub(*first)));
            }
        }
        Ok(())
    }

    /// XenServer's batmap follows the BAT, at the next sector.
    pub fn has_batmap(&self) -> Result<bool> {
        let at = add(self.at, self.len(), "the BAT")?.next_multiple_of(512);
        if at.saturating_add(8) > self.container.size() {
            return Ok(false);
        }
        Ok(read_vec(self.container, at, 8)? == b"tdbatmap")
    }
}

fn overlaps(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.0.saturating_add(b.1) && b.0 < a.0.saturating_add(a.1)
}
