//! Writing a dynamic or differencing VHDX around payload that lies elsewhere, in Windows' order.
//!
//! ```text
//!   0        1 MiB   2 MiB      3 MiB    …
//!   headers │ log │ metadata │ BAT … │ sector bitmap blocks │ payload block │ payload block │ …
//!             └ empty                  └ differencing: one for each chunk that has a
//!                                        partially present block
//! ```
//! Every part is a whole number of MiB. The BAT is made 1 MiB at a time: that of a 64 TiB disk is 512 MiB.

use std::iter::repeat_n;
use std::ops::Range;

use uuid::Uuid;
use zerocopy::FromZeros;

use super::encode::{Parameters, header_section, metadata_region};
use super::format::{
    FULLY_PRESENT, Header, MIB, PAYLOAD_NOT_PRESENT, PAYLOAD_PARTIALLY_PRESENT, PAYLOAD_ZERO, bat_entries,
    chunk_ratio,
};
use super::open::Metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    BitmapSource, BlockPlan, BlockSize, ContainerWriter, DiskType, Format, Geometry, OutState, Piece,
};
use crate::units::{add, index, len64, length, mul, round_up};

/// BAT entries in one step: 1 MiB.
const ENTRIES_A_STEP: u64 = MIB / 8;
/// Where the log and the metadata go, and how long the log is.
const LOG_OFFSET: u64 = MIB;
const LOG_LENGTH: u64 = MIB;
const METADATA_OFFSET: u64 = LOG_OFFSET + LOG_LENGTH;
/// New identifiers for a new file. They come from the caller, so that a layout is a pure function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guids {
    /// For the file's contents: new in every file.
    pub file_write: Uuid,
    /// For the virtual disk's contents, where they change.
    pub data_write: Uuid,
    /// For the disk itself, where there was no VHDX before.
    pub virtual_disk: Uuid,
}

/// Lays out a VHDX.
pub struct Writer {
    header: Header,
    /// The metadata table and its items, without the rest of the region.
    metadata: Vec<u8>,
    differencing: bool,
    blocks: u64,
    block_size: BlockSize,
    /// Bytes of one block's part of a sector bitmap block.
    bitmap_len: u64,
    ratio: u64,
    /// Where the BAT is in the file: whole MiB.
    bat: Range<u64>,
}

impl Writer {
    /// A writer that keeps what `source` is: virtual disk id, sizes, parent, user metadata and, unless
    /// `reads_changed`, the data write GUID by which children know it. A fixed disk becomes dynamic;
    /// a differencing one may, when its parents are merged in.
    ///
    /// # Errors
    /// `invalid-argument` for a block size that is no power of two from 1 to 256 MiB, for another type than
    /// dynamic and differencing, and for a differencing disk without a parent.
    pub fn like(
        source: &Metadata,
        geometry: &Geometry,
        disk_type: DiskType,
        block_size: BlockSize,
        fresh: &Guids,
        reads_changed: bool,
    ) -> Result<Self> {
        let locator = match (disk_type, &source.locator) {
            (DiskType::Dynamic, _) => None,
            (DiskType::Differencing, Some(locator)) => Some(locator),
            (DiskType::Differencing, None) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "there is no parent to differ from"));
            }
            (DiskType::Fixed, _) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "a fixed disk is not written"));
            }
        };
        let parameters = Parameters {
            virtual_size: geometry.virtual_size,
            logical_sector_size: geometry.logical_sector_size,
            physical_sector_size: geometry.physical_sector_size,
            block_size,
            virtual_disk_id: source.virtual_disk_id,
            locator,
            items: &source.items,
        };
        let data_write = if reads_changed { fresh.data_write } else { source.data_write_guid };
        Self::lay_out(&parameters, fresh.file_write, data_write)
    }

    /// A writer for a new dynamic disk of `disk_size` bytes.
    ///
    /// # Errors
    /// `invalid-argument` for a bad block or sector size, `limit-exceeded` above 64 TiB.
    pub fn new(
        disk_size: u64,
        logical_sector_size: u32,
        physical_sector_size: u32,
        block_size: BlockSize,
        guids: &Guids,
    ) -> Result<Self> {
        let parameters = Parameters {
            virtual_size: disk_size,
            logical_sector_size,
            physical_sector_size,
            block_size,
            virtual_disk_id: guids.virtual_disk,
            locator: None,
            items: &[],
        };
        Self::lay_out(&parameters, guids.file_write, guids.data_write)
    }

    fn lay_out(parameters: &Parameters, file_write: Uuid, data_write: Uuid) -> Result<Self> {
        let Parameters { virtual_size, block_size, .. } = *parameters;
        let sector_size = u64::from(parameters.logical_sector_size);
        let limits = Format::Vhdx.description();
        if limits.block_size(block_size.get()).is_none() {
            return Err(Error::new(ErrorKind::InvalidArgument, "this is no block size for a VHDX")
                .expected("a power of two from 1048576 to 268435456", block_size));
        }
        for size in [parameters.logical_sector_size, parameters.physical_sector_size] {
            if !matches!(size, 512 | 4096) {
                return Err(Error::new(ErrorKind::InvalidArgument, "this is no sector size for a VHDX")
                    .expected("512 or 4096", size));
            }
        }
        if virtual_size > limits.max_disk_size {
            return Err(Error::new(ErrorKind::LimitExceeded, "a VHDX holds disks of up to 64 TiB")
                .expected(format_args!("at most {} bytes", limits.max_disk_size), virtual_size));
        }
        if virtual_size == 0 || !virtual_size.is_multiple_of(sector_size) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the size of the disk is no multiple of its sector size",
            )
            .expected(format_args!("n × {sector_size}"), virtual_size));
        }
        let differencing = parameters.locator.is_some();
        let blocks = block_size.count_for(virtual_size);
        let ratio = chunk_ratio(block_size, sector_size);
        let metadata = metadata_region(parameters)?;
        let bat_offset = round_up(add(METADATA_OFFSET, len64(metadata.len()), "metadata")?, MIB, "metadata")?;
        let bat_length = mul(bat_entries(blocks, ratio, differencing)?, 8, "the BAT")?;
        let bat_end = add(bat_offset, round_up(bat_length, MIB, "the BAT")?, "the BAT")?;
        let header = Header {
            signature: *b"head",
            file_write_guid: file_write.to_bytes_le(),
            data_write_guid: data_write.to_bytes_le(),
            version: 1.into(),
            log_length: u32::try_from(LOG_LENGTH).map_err(|_| Error::internal("a log length"))?.into(),
            log_offset: LOG_OFFSET.into(),
            ..Header::new_zeroed()
        };
        Ok(Self {
            header,
            metadata,
            differencing,
            blocks,
            block_size,
            bitmap_len: (block_size.get() / 8).checked_div(sector_size).unwrap_or_default(),
            ratio,
            bat: bat_offset..bat_end,
        })
    }

    fn chunks(&self) -> u64 {
        if self.differencing { self.blocks.div_ceil(self.ratio) } else { 0 }
    }

    /// How many sector bitmap blocks stand before that of chunk `chunk`.
    fn bitmap_rank(&self, plan: &BlockPlan, chunk: u64) -> u64 {
        len64((0..chunk).filter(|&chunk| self.has_bitmap(plan, chunk)).count())
    }

    /// Whether chunk `chunk` has a sector bitmap block.
    fn has_bitmap(&self, plan: &BlockPlan, chunk: u64) -> bool {
        plan.first_partial(self.blocks_of(chunk)).is_some()
    }

    /// The blocks of chunk `chunk`: none past the end of the disk.
    fn blocks_of(&self, chunk: u64) -> Range<u64> {
        // Nobody asks for a chunk past the end of the BAT, the bytes of which are counted in 64 bits.
        let first = chunk.wrapping_mul(self.ratio);
        first..first.wrapping_add(self.ratio).min(self.blocks)
    }

    /// Where payload begins.
    fn payload_offset(&self, plan: &BlockPlan) -> Result<u64> {
        let bitmaps = self.bitmap_rank(plan, self.chunks());
        add(self.bat.end, mul(bitmaps, MIB, "sector bitmaps")?, "sector bitmaps")
    }

    /// Header section, log, metadata.
    fn head(&self) -> Result<Vec<Piece>> {
        let section = header_section(&self.header, self.bat.clone(), METADATA_OFFSET..self.bat.start)?;
        let to_metadata = length(&(len64(section.len())..METADATA_OFFSET));
        let metadata_end = add(METADATA_OFFSET, len64(self.metadata.len()), "metadata")?;
        Ok(vec![
            Piece::Bytes(section),
            Piece::Zeros(to_metadata),
            Piece::Bytes(self.metadata.clone()),
            Piece::Zeros(length(&(metadata_end..self.bat.start))),
        ])
    }

    /// 1 MiB of the BAT, from entry `from` on.
    fn table(&self, plan: &BlockPlan, from: u64) -> Result<Vec<Piece>> {
        // Entries, blocks and chunks are counted here up to the end of the BAT, the bytes of which are counted in
        // 64 bits; a chunk ratio is at most 2¹⁵.
        let stride = self.ratio.wrapping_add(1);
        let mut chunk = from.checked_div(stride).unwrap_or_default();
        let mut in_chunk = from.checked_rem(stride).unwrap_or_default();
        let mut block = from.wrapping_sub(chunk);
        let mut payload = add(
            self.payload_offset(plan)?,
            mul(plan.rank(block), self.block_size.get(), "the new image")?,
            "the new image",
        )?;
        let rank = if self.differencing { self.bitmap_rank(plan, chunk) } else { 0 };
        let mut bitmap = add(self.bat.end, mul(rank, MIB, "sector bitmaps")?, "sector bitmaps")?;
        // No more blocks than entries; the first bitmap entry speaks of blocks before them, too.
        let touched = self.blocks_of(chunk).start..block.wrapping_add(ENTRIES_A_STEP);
        if plan.first_known(touched).is_none() {
            return Ok(vec![Piece::Zeros(MIB)]);
        }
        let mut words: Vec<u64> = Vec::with_capacity(index(ENTRIES_A_STEP, "the BAT")?);
        for _ in 0..ENTRIES_A_STEP {
            if in_chunk == self.ratio {
                // The bitmap block of a chunk comes after its payload entries, all of them.
                let partial = self.has_bitmap(plan, chunk);
                words.push(if partial { bitmap | FULLY_PRESENT } else { PAYLOAD_NOT_PRESENT });
                bitmap = add(bitmap, if partial { MIB } else { 0 }, "sector bitmaps")?;
                chunk = chunk.wrapping_add(1);
                in_chunk = 0;
                continue;
            }
            let state = if block < self.blocks { plan.get(block) } else { OutState::NotPresent };
            words.push(match state {
                OutState::NotPresent => PAYLOAD_NOT_PRESENT,
                // With offset 0: Hyper-V reads no file that has another one here.
                OutState::Zero => PAYLOAD_ZERO,
                OutState::Present => payload | FULLY_PRESENT,
                OutState::PartiallyPresent if self.differencing => payload | PAYLOAD_PARTIALLY_PRESENT,
                OutState::PartiallyPresent => return Err(no_parent()),
            });
            if matches!(state, OutState::Present | OutState::PartiallyPresent) {
                payload = add(payload, self.block_size.get(), "the new image")?;
            }
            block = block.wrapping_add(1);
            in_chunk = in_chunk.wrapping_add(1);
        }
        Ok(vec![Piece::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())])
    }

    /// The sector bitmap block of chunk `chunk`, if it has one.
    fn bitmap_block(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, chunk: u64) -> Result<Vec<Piece>> {
        if !self.has_bitmap(plan, chunk) {
            return Ok(Vec::new());
        }
        let len = index(self.bitmap_len, "a sector bitmap")?;
        let mut bytes = Vec::with_capacity(index(MIB, "a sector bitmap block")?);
        for block in self.blocks_of(chunk) {
            let bits = match plan.get(block) {
                OutState::PartiallyPresent => bitmaps.bitmap(block)?,
                // Not consulted; what is set here says the same to who consults it all the same.
                OutState::Present => None,
                OutState::NotPresent | OutState::Zero => {
                    bytes.extend(repeat_n(0, len));
                    continue;
                }
            };
            match bits {
                Some(bits) if bits.as_bytes().len() == len => bytes.extend_from_slice(bits.as_bytes()),
                Some(_) => return Err(Error::internal("a sector bitmap of the wrong length")),
                None => bytes.extend(repeat_n(0xff, len)),
            }
        }
        bytes.resize(index(MIB, "a sector bitmap block")?, 0);
        Ok(vec![Piece::Bytes(bytes)])
    }
}

impl ContainerWriter for Writer {
    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn file_size(&self, plan: &BlockPlan) -> Result<u64> {
        if !self.differencing && plan.first_partial(0..self.blocks).is_some() {
            return Err(no_parent());
        }
        let payload = mul(plan.stored(), self.block_size.get(), "the new image")?;
        add(self.payload_offset(plan)?, payload, "the new image")
    }

    fn front(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, step: u64) -> Result<Option<Vec<Piece>>> {
        let Some(table_step) = step.checked_sub(1) else { return self.head().map(Some) };
        let tables = length(&self.bat) / MIB;
        match table_step.checked_sub(tables) {
            None => self.table(plan, mul(table_step, ENTRIES_A_STEP, "the BAT")?).map(Some),
            Some(chunk) if chunk < self.chunks() => self.bitmap_block(plan, bitmaps, chunk).map(Some),
            Some(_) => Ok(None),
        }
    }

    fn before_payload(&self, _block: u64, _bitmaps: &dyn BitmapSource) -> Result<Vec<Piece>> {
        Ok(Vec::new())
    }

    fn tail(&self, _plan: &BlockPlan) -> Result<Vec<Piece>> {
        Ok(Vec::new())
    }
}

fn no_parent() -> Error {
    Error::internal("a block of a disk without a parent cannot be partially present")
}

#[cfg(test)]
mod tests;
