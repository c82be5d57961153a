//! Reading the BAT: every entry must lie inside the file, clear of headers and of every other block.
//!
//! ```text
//!   entry │ u32 sector of the block's bitmap; all ones: not present
//!   block │ bitmap (a bit a sector, rounded up to 512 bytes) │ payload
//! ```

use super::footer::End;
use super::format::{FOOTER_LEN, HEADER_LEN, NOT_PRESENT};
use super::open::MAX_BLOCKS;
use crate::error::{Error, Result, Site, Warning};
use crate::image::{BlockSize, BlockState, BlockTable, Container, DiskType};
use crate::io::read_vec;
use crate::units::{FileOffset, Space, add, index, mul};

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
    /// Where a batmap seems to be (start, length): it is none if a block lies there.
    pub batmap: Vec<(u64, u64)>,
}

/// What the BAT says.
pub struct BatContents {
    pub blocks: BlockTable,
    /// Whether a block lies where a batmap seemed to be.
    pub over_batmap: bool,
}

impl Bat<'_> {
    fn site(&self, entry: u64) -> Result<Site> {
        let offset = add(self.at, mul(entry, 4, "the BAT")?, "the BAT")?;
        Ok(Site { structure: "VHD BAT", space: Space::File, offset })
    }

    fn len(&self) -> Result<u64> {
        mul(self.entries, 4, "the BAT")
    }

    pub fn check_place(&self, field: Site) -> Result<()> {
        let len = self.len()?;
        let fits = self.at.checked_add(len).is_some_and(|bat_end| bat_end <= self.end.payload_end);
        if self.at < FOOTER_LEN || !fits {
            return Err(Error::corrupt(field, "the BAT does not lie inside the file").expected(
                format_args!("{len} bytes before {}", self.end.payload_end),
                format_args!("offset {}", self.at),
            ));
        }
        if overlaps((self.at, len), (self.header_at, HEADER_LEN)) {
            return Err(Error::corrupt(field, "the BAT overlaps the dynamic header"));
        }
        Ok(())
    }

    pub fn read(&self, addressable: u64, warnings: &mut Vec<Warning>) -> Result<BatContents> {
        let mut contents = BatContents { blocks: BlockTable::new(), over_batmap: false };
        let stride = self.stride()?;
        let mut beyond = 0u64;
        let mut last: Option<u32> = None;
        let mut in_order = true;
        // What lies past the disk is only counted; a hostile count is not worth more reading.
        let entries = self.entries.min(add(self.used, MAX_BLOCKS, "the BAT")?);
        let mut entry = 0;
        while entry < entries {
            let to = entries.min(add(entry, BAT_RUN / 4, "the BAT")?);
            let from = self.site(entry)?.offset;
            let len = mul(to.checked_sub(entry).ok_or_else(no_entries)?, 4, "the BAT")?;
            let bytes = read_vec(self.container, from, index(len, "the BAT")?)?;
            let (words, _) = bytes.as_chunks::<4>();
            for (number, word) in (entry..to).zip(words) {
                let sector = u32::from_be_bytes(*word);
                if sector == NOT_PRESENT {
                    if number < self.used {
                        contents.blocks.push(BlockState::NotPresent)?;
                    }
                    continue;
                }
                if number >= self.used {
                    beyond = add(beyond, 1, "the BAT")?;
                    continue;
                }
                let state = self.check_entry(number, sector, addressable, &mut contents.over_batmap)?;
                contents.blocks.push(state)?;
                let stored = add(contents.blocks.present(), contents.blocks.partially_present(), "the BAT")?;
                if mul(stored, stride, "the blocks")? > self.end.payload_end / 512 {
                    let message = "more blocks are present than the file has room for: some overlap";
                    return Err(Error::corrupt(self.site(number)?, message));
                }
                in_order &= last.is_none_or(|last| apart(last, sector, stride));
                last = Some(sector);
            }
            entry = to;
        }
        if !in_order {
            self.check_overlaps(&contents.blocks, stride)?;
        }
        // A table longer than the disk: none of its blocks can be read through the disk.
        if beyond > 0 {
            warnings.push(Warning::new(
                "blocks-past-end",
                format!(
                    "{beyond} blocks lie past the end of the disk. No program reads them; they are not carried \
                     over."
                ),
            ));
        }
        Ok(contents)
    }

    fn check_entry(
        &self,
        entry: u64,
        sector: u32,
        addressable: u64,
        over_batmap: &mut bool,
    ) -> Result<BlockState> {
        let bitmap = mul(u64::from(sector), 512, "a block")?;
        let payload = add(bitmap, self.bitmap_len, "a block")?;
        // The last block need only be as long as the disk.
        let len = add(self.bitmap_len, self.block_size.span_len(entry, addressable), "a block")?;
        let block_end = add(bitmap, len, "a block")?;
        if block_end > self.end.payload_end {
            return Err(Error::corrupt(
                self.site(entry)?,
                format!("block {entry} lies past the end of the file (is the file cut off, or a part of a split set?)"),
            )
            .expected(format_args!("an end of at most {}", self.end.payload_end), block_end));
        }
        let overlapped = [(0, FOOTER_LEN), (self.header_at, HEADER_LEN), (self.at, self.len()?)]
            .into_iter()
            .any(|structure| overlaps(structure, (bitmap, len)));
        if overlapped {
            return Err(Error::corrupt(
                self.site(entry)?,
                format!("block {entry} overlaps a header or the BAT"),
            )
            .expected("an offset of its own", format_args!("{bitmap:#x}")));
        }
        *over_batmap |= self.batmap.iter().any(|&place| overlaps(place, (bitmap, len)));
        Ok(if self.disk_type == DiskType::Differencing {
            BlockState::PartiallyPresent(FileOffset::new(payload))
        } else {
            BlockState::Present(FileOffset::new(payload))
        })
    }

    /// Sectors from one block to the next where blocks lie side by side.
    fn stride(&self) -> Result<u64> {
        Ok(add(self.bitmap_len, self.block_size.get(), "a block")? / 512)
    }

    /// Blocks that lie in the file in another order than on the disk: sorted, each must end before the next
    /// begins.
    fn check_overlaps(&self, blocks: &BlockTable, stride: u64) -> Result<()> {
        let mut starts = Vec::new();
        let mut known = blocks.next_known(0);
        while let Some(block) = known {
            starts.extend(self.sector_of(blocks, block));
            known = blocks.next_known(add(block, 1, "a block")?);
        }
        starts.sort_unstable();
        for pair in starts.windows(2) {
            let &[first, second] = pair else { continue };
            if !apart(first, second, stride) {
                return Err(self.overlap(blocks, stride, first, second)?);
            }
        }
        Ok(())
    }

    fn sector_of(&self, blocks: &BlockTable, block: u64) -> Option<u32> {
        let bitmap = blocks.get(block).payload()?.get().checked_sub(self.bitmap_len)?;
        u32::try_from(bitmap / 512).ok()
    }

    /// Names the two blocks that begin at these sectors. Asked once, before giving up.
    fn overlap(&self, blocks: &BlockTable, stride: u64, first: u32, second: u32) -> Result<Error> {
        let mut found = Vec::new();
        let mut known = blocks.next_known(0);
        while let Some(block) = known {
            if self.sector_of(blocks, block).is_some_and(|sector| sector == first || sector == second) {
                found.push(block);
            }
            known = blocks.next_known(add(block, 1, "a block")?);
        }
        found.sort_unstable_by_key(|&block| self.sector_of(blocks, block));
        let &[a, b, ..] = found.as_slice() else { return Err(no_entries()) };
        Ok(Error::corrupt(self.site(b)?, format!("blocks {a} and {b} overlap in the file"))
            .expected(format_args!("{stride} sectors apart"), first.abs_diff(second)))
    }
}

/// Whether a block at sector `second` lies wholly behind one at sector `first`.
fn apart(first: u32, second: u32, stride: u64) -> bool {
    second.checked_sub(first).is_some_and(|distance| u64::from(distance) >= stride)
}

fn no_entries() -> Error {
    Error::internal("the BAT lost its place")
}

fn overlaps(a: (u64, u64), b: (u64, u64)) -> bool {
    let ends_before = |a: (u64, u64), b: (u64, u64)| a.0.checked_add(a.1).is_some_and(|end| end <= b.0);
    !ends_before(a, b) && !ends_before(b, a)
}
