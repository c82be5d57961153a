//! Writing a dynamic or differencing VHD around payload that lies elsewhere.
//!
//! ```text
//!   0      512      1536                        first block
//!   footer │ header │ locator data │ BAT │ pad │ [pad │ bitmap │ payload]… │ footer
//!                                              └─ payload on a 4 KiB boundary, as Windows
//!                                                 Server 2012 and later place it
//! ```

use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    DynamicHeader, FOOTER_COOKIE, FOOTER_LEN, Footer, HEADER_COOKIE, HEADER_LEN, NO_OFFSET, NOT_PRESENT,
    TYPE_DYNAMIC, VERSION,
};
use super::geometry::geometry_for;
use super::open::{MAX_BLOCK, MAX_LOCATOR, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::image::bitmap::{full_vhd_bitmap, vhd_bitmap_len};
use crate::image::{BitmapSource, BlockPlan, BlockSize, ContainerWriter, DiskType, Format, OutState, Piece};
use crate::units::{add, index, len64, mul, round_up};

/// BAT entries in one step: 1 MiB.
const ENTRIES_A_STEP: u64 = 1 << 18;
/// Where payload is aligned, for blocks that are large against it.
const ALIGNMENT: u64 = 4096;
/// Smallest block that is aligned; below it the padding would outweigh what is gained.
const ALIGNED_FROM: u64 = 64 << 10;

/// Lays out a VHD.
pub struct Writer {
    footer: Footer,
    header: DynamicHeader,
    locators: Vec<Vec<u8>>,
    blocks: u64,
    block_size: BlockSize,
    /// Padding before each bitmap.
    lead: u64,
    bitmap_len: u64,
    table_offset: u64,
    first_block: u64,
}

impl Writer {
    /// A writer that keeps the identity of `source`: unique id, time stamp, creator, geometry, both
    /// sizes and, for a differencing result, the parent. Any other `disk_type` makes a dynamic disk.
    ///
    /// # Errors
    /// `invalid-argument` for a block size that is no power of two from 512 B to 1 GiB.
    pub fn like(
        source: &Metadata,
        addressable_size: u64,
        block_size: BlockSize,
        disk_type: DiskType,
    ) -> Result<Self> {
        let mut footer = source.footer;
        let size = addressable_size.max(footer.current_size.get());
        if disk_type == DiskType::Differencing {
            let header =
                source.header.ok_or_else(|| Error::internal("a differencing disk without header"))?;
            return Self::lay_out(footer, header, source.locators.clone(), size, block_size);
        }
        footer.disk_type = TYPE_DYNAMIC.into();
        let reserved2 = source.header.map_or([0; 256], |header| header.reserved2);
        Self::lay_out(footer, DynamicHeader { reserved2, ..new_header() }, Vec::new(), size, block_size)
    }

    /// A writer for a new dynamic disk of `disk_size` bytes.
    ///
    /// # Errors
    /// `invalid-argument` for a bad block size, `limit-exceeded` above 2040 GiB.
    pub fn new(disk_size: u64, block_size: BlockSize, unique_id: Uuid, time_stamp: u32) -> Result<Self> {
        let limit = Format::Vhd.description().max_disk_size;
        if disk_size > limit || !disk_size.is_multiple_of(512) || disk_size == 0 {
            return Err(Error::new(ErrorKind::LimitExceeded, "a VHD holds disks of up to 2040 GiB")
                .expected(format_args!("at most {limit} bytes"), disk_size));
        }
        let (cylinders, heads, sectors_per_track) = geometry_for(disk_size);
        let footer = Footer {
            cookie: FOOTER_COOKIE,
            features: 2.into(),
            version: VERSION.into(),
            data_offset: FOOTER_LEN.into(),
            time_stamp: time_stamp.into(),
            // "win ": the one creator for which every program takes the size field and not the geometry.
            creator_application: *b"win ",
            creator_version: 0x000a_0000.into(),
            creator_host_os: *b"Wi2k",
            original_size: disk_size.into(),
            current_size: disk_size.into(),
            cylinders: cylinders.into(),
            heads,
            sectors_per_track,
            disk_type: TYPE_DYNAMIC.into(),
            unique_id: unique_id.into_bytes(),
            ..Footer::new_zeroed()
        };
        Self::lay_out(footer, new_header(), Vec::new(), disk_size, block_size)
    }

    fn lay_out(
        mut footer: Footer,
        mut header: DynamicHeader,
        locators: Vec<Vec<u8>>,
        size: u64,
        block_size: BlockSize,
    ) -> Result<Self> {
        let allowed = (BlockSize::SECTOR..=MAX_BLOCK).contains(&block_size);
        let Some(block_field) = u32::try_from(block_size.get()).ok().filter(|_| allowed) else {
            return Err(Error::new(ErrorKind::InvalidArgument, "this is no block size for a VHD")
                .expected("a power of two from 512 to 1073741824", block_size));
        };
        let mut at = FOOTER_LEN.saturating_add(HEADER_LEN);
        for (locator, data) in header.parent_locators.iter_mut().zip(&locators) {
            if locator.platform_code == [0; 4] {
                continue;
            }
            // One without data moves as well: its old place may now be somebody's payload.
            let (field, space) = locator_space(locator.data_space.get(), len64(data.len()))?;
            locator.data_space = field.into();
            locator.data_offset = if space == 0 { 0 } else { at }.into();
            at = add(at, space, "parent locators")?;
        }
        let table_offset = at;
        let blocks = block_size.count_for(size);
        let entries = u32::try_from(blocks)
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, "the disk has too many blocks for a VHD"))?;
        let bitmap_len = vhd_bitmap_len(block_size)?;
        let alignment = if block_size.get() >= ALIGNED_FROM { ALIGNMENT } else { 512 };
        let lead = round_up(bitmap_len, alignment, "a sector bitmap")?.saturating_sub(bitmap_len);
        let table_end = add(table_offset, mul(blocks, 4, "the BAT")?, "the BAT")?;
        let first_block = round_up(table_end, alignment, "the BAT")?;
        footer.data_offset = FOOTER_LEN.into();
        header.data_offset = NO_OFFSET.into();
        header.table_offset = table_offset.into();
        header.max_table_entries = entries.into();
        header.block_size = block_field.into();
        Ok(Self {
            footer: footer.sealed(),
            header: header.sealed(),
            locators,
            blocks,
            block_size,
            lead,
            bitmap_len,
            table_offset,
            first_block,
        })
    }

    fn stride(&self) -> u64 {
        self.lead.saturating_add(self.bitmap_len).saturating_add(self.block_size.get())
    }

    /// The BAT entry of a stored block.
    fn entry(&self, rank: u64) -> Result<u32> {
        let bitmap = add(
            add(self.first_block, mul(rank, self.stride(), "a block")?, "a block")?,
            self.lead,
            "a block",
        )?;
        u32::try_from(bitmap / 512).ok().filter(|&sector| sector != NOT_PRESENT).ok_or_else(|| {
            Error::new(
                ErrorKind::LimitExceeded,
                "the new image would be larger than the 2 TiB a VHD can address",
            )
        })
    }

    fn head(&self) -> Vec<Piece> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(self.footer.as_bytes());
        bytes.extend_from_slice(self.header.as_bytes());
        for (locator, data) in self.header.parent_locators.iter().zip(&self.locators) {
            if !data.is_empty() {
                let at = usize::try_from(locator.data_offset.get()).unwrap_or(bytes.len());
                bytes.resize(at.max(bytes.len()), 0);
                bytes.extend_from_slice(data);
            }
        }
        let end = usize::try_from(self.table_offset).unwrap_or(bytes.len());
        bytes.resize(end.max(bytes.len()), 0);
        vec![Piece::Bytes(bytes)]
    }

    fn table(&self, plan: &BlockPlan, from: u64) -> Result<Vec<Piece>> {
        let to = from.saturating_add(ENTRIES_A_STEP).min(self.blocks);
        let mut bytes = Vec::with_capacity(index(mul(to.saturating_sub(from), 4, "the BAT")?, "the BAT")?);
        let mut rank = plan.rank(from);
        for block in from..to {
            let entry = match plan.get(block) {
                OutState::Present | OutState::PartiallyPresent => {
                    let entry = self.entry(rank)?;
                    rank = rank.saturating_add(1);
                    entry
                }
                OutState::NotPresent => NOT_PRESENT,
                OutState::Zero => return Err(Error::internal("a VHD cannot mark a block as zero")),
            };
            bytes.extend_from_slice(&entry.to_be_bytes());
        }
        let mut pieces = vec![];
        if to == self.blocks {
            // The table is padded to a sector with what reads as "not present".
            bytes.resize(bytes.len().next_multiple_of(512), 0xff);
            let end =
                add(self.table_offset, mul(self.blocks, 4, "the BAT")?, "the BAT")?.next_multiple_of(512);
            pieces.push(Piece::Bytes(bytes));
            pieces.push(Piece::Zeros(self.first_block.saturating_sub(end)));
        } else {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(pieces)
    }
}

impl ContainerWriter for Writer {
    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn file_size(&self, plan: &BlockPlan) -> Result<u64> {
        if let Some(last) = plan.stored().checked_sub(1) {
            self.entry(last)?;
        }
        let payload = mul(plan.stored(), self.stride(), "the new image")?;
        add(add(self.first_block, payload, "the new image")?, FOOTER_LEN, "the new image")
    }

    fn front(&self, plan: &BlockPlan, _bitmaps: &dyn BitmapSource, step: u64) -> Result<Option<Vec<Piece>>> {
        let Some(table_step) = step.checked_sub(1) else { return Ok(Some(self.head())) };
        let from = mul(table_step, ENTRIES_A_STEP, "the BAT")?;
        if from >= self.blocks { Ok(None) } else { self.table(plan, from).map(Some) }
    }

    fn before_payload(&self, block: u64, bitmaps: &dyn BitmapSource) -> Result<Vec<Piece>> {
        let bitmap = match bitmaps.stored_at(block) {
            Some(range) => Piece::Source { layer: 0, range },
            None => Piece::Bytes(match bitmaps.bitmap(block)? {
                Some(bitmap) => bitmap.as_bytes().to_vec(),
                None => full_vhd_bitmap(self.block_size)?,
            }),
        };
        if bitmap.len() != self.bitmap_len {
            return Err(Error::internal("a sector bitmap of the wrong length"));
        }
        Ok(vec![Piece::Zeros(self.lead), bitmap])
    }

    fn tail(&self, _plan: &BlockPlan) -> Result<Vec<Piece>> {
        Ok(vec![Piece::Bytes(self.footer.as_bytes().to_vec())])
    }
}

fn new_header() -> DynamicHeader {
    DynamicHeader { cookie: HEADER_COOKIE, header_version: VERSION.into(), ..DynamicHeader::new_zeroed() }
}

/// The space field of a parent locator, and the bytes to set aside for it. The field counts sectors by
/// the specification and bytes on disks that Windows made, so a small number is taken for sectors. It
/// stays as it is, unless it claims more than any locator needs.
fn locator_space(field: u32, data: u64) -> Result<(u32, u64)> {
    let claimed = u64::from(field);
    let space = if claimed < 512 { claimed.saturating_mul(512) } else { claimed };
    if space <= MAX_LOCATOR {
        return Ok((field, round_up(space.max(data), 512, "a parent locator")?));
    }
    let space = round_up(data, 512, "a parent locator")?;
    let field = u32::try_from(space).map_err(|_| Error::internal("a parent locator is too long"))?;
    Ok((field, space))
}
