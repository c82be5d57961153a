//! Writing a dynamic or differencing VHD around payload that lies elsewhere.
//!
//! ```text
//!   0      512      1536                                 first block
//!   footer │ header │ locator data │ BAT │ batmap │ pad │ [pad │ bitmap │ payload]… │ footer
//!                                          └ XenServer's        └─ payload on a 4 KiB boundary, as
//!                                                                  Windows Server 2012 and later place it
//! ```

use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::batmap::{self, Batmap, XENSERVER_BLOCK};
use super::format::{
    DynamicHeader, FOOTER_COOKIE, FOOTER_LEN, Footer, HEADER_COOKIE, HEADER_LEN, NO_OFFSET, NOT_PRESENT,
    TYPE_DYNAMIC, VERSION,
};
use super::geometry::geometry_for;
use super::locators::MAX_LOCATOR;
use super::open::{MAX_BLOCK, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::image::bitmap::{full_vhd_bitmap, vhd_bitmap_len};
use crate::image::{BitmapSource, BlockPlan, BlockSize, ContainerWriter, DiskType, Format, OutState, Piece};
use crate::units::{add, index, len64, length, mul, round_up};

/// BAT entries in one step: 1 MiB.
const ENTRIES_A_STEP: u64 = 1 << 18;
/// How much of a file 32-bit sector numbers reach.
const ADDRESSABLE: u64 = 1 << 41;
/// Where payload is aligned, for blocks that are large against it.
const ALIGNMENT: u64 = 4096;
/// Smallest block that is aligned; below it the padding would outweigh what is gained.
const ALIGNED_FROM: u64 = 64 << 10;

/// Lays out a VHD.
pub struct Writer {
    footer: Footer,
    header: DynamicHeader,
    locators: Vec<Vec<u8>>,
    /// Blocks of the disk.
    blocks: u64,
    /// Entries of the BAT: at least as many.
    entries: u64,
    block_size: BlockSize,
    /// XenServer's batmap of the source, which is carried over; none where no batmap is written.
    batmap: Option<Option<Batmap>>,
    /// Padding before each bitmap.
    lead: u64,
    bitmap_len: u64,
    table_offset: u64,
    first_block: u64,
}

impl Writer {
    /// A writer that keeps the identity of `source`: unique id, time stamp, creator, geometry, both
    /// sizes and, for a differencing result, the parent. Any other `disk_type` makes a dynamic disk. What
    /// XenServer made gets what its programs need: a batmap, and room in the BAT for a disk that grows.
    ///
    /// # Errors
    /// `invalid-argument` for a block size that is no power of two from 512 B to 1 GiB; `unsupported` for one
    /// that the source's own program does not take; `limit-exceeded` above 2040 GiB.
    pub fn like(
        source: &Metadata,
        addressable_size: u64,
        block_size: BlockSize,
        disk_type: DiskType,
    ) -> Result<Self> {
        let mut footer = source.footer;
        let size = addressable_size.max(footer.current_size.get());
        let stays = source.header.is_some_and(|h| u64::from(h.block_size.get()) == block_size.get());
        if footer.xenserver_version().is_some() && block_size != XENSERVER_BLOCK && !stays {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "XenServer made this disk, and reads blocks of 2 MiB only",
            )
            .expected(XENSERVER_BLOCK, block_size));
        }
        let room = source.header.map_or(0, |header| u64::from(header.max_table_entries.get()));
        let spare = Spare { room, batmap: &source.batmap };
        if disk_type == DiskType::Differencing {
            let header =
                source.header.ok_or_else(|| Error::internal("a differencing disk without header"))?;
            return Self::lay_out(footer, header, source.locators.clone(), size, block_size, spare);
        }
        footer.disk_type = TYPE_DYNAMIC.into();
        let reserved2 = source.header.map_or([0; 256], |header| header.reserved2);
        Self::lay_out(
            footer,
            DynamicHeader { reserved2, ..new_header() },
            Vec::new(),
            size,
            block_size,
            spare,
        )
    }

    /// A writer for a new dynamic disk of `disk_size` bytes.
    ///
    /// # Errors
    /// `invalid-argument` for a bad block size, `limit-exceeded` above 2040 GiB.
    pub fn new(disk_size: u64, block_size: BlockSize, unique_id: Uuid, time_stamp: u32) -> Result<Self> {
        if !disk_size.is_multiple_of(512) || disk_size == 0 {
            let message = "the size of the disk is no multiple of 512";
            return Err(Error::new(ErrorKind::LimitExceeded, message).expected("n × 512", disk_size));
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
        let spare = Spare { room: 0, batmap: &None };
        Self::lay_out(footer, new_header(), Vec::new(), disk_size, block_size, spare)
    }

    fn lay_out(
        mut footer: Footer,
        mut header: DynamicHeader,
        locators: Vec<Vec<u8>>,
        size: u64,
        block_size: BlockSize,
        spare: Spare,
    ) -> Result<Self> {
        let limit = Format::Vhd.description().max_disk_size;
        if size > limit {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "a VHD whose blocks are not all stored holds disks of up to 2040 GiB; a VHDX holds larger ones",
            )
            .expected(format_args!("at most {limit} bytes"), size));
        }
        let allowed = (BlockSize::SECTOR..=MAX_BLOCK).contains(&block_size);
        let Some(block_field) = u32::try_from(block_size.get()).ok().filter(|_| allowed) else {
            return Err(Error::new(ErrorKind::InvalidArgument, "this is no block size for a VHD")
                .expected("a power of two from 512 to 1073741824", block_size));
        };
        let mut at = FOOTER_LEN + HEADER_LEN;
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
        let with_batmap = batmap::is_expected(&footer, block_size) || spare.batmap.is_some();
        // XenServer's programs make the table as long as the disk may ever grow. More than 32-bit sector
        // numbers reach makes no sense.
        let entries =
            if with_batmap { blocks.max(spare.room.min(block_size.count_for(ADDRESSABLE))) } else { blocks };
        let entries_field = u32::try_from(entries)
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, "the disk has too many blocks for a VHD"))?;
        let bitmap_len = vhd_bitmap_len(block_size)?;
        let alignment = if block_size.get() >= ALIGNED_FROM { ALIGNMENT } else { 512 };
        let lead = length(&(bitmap_len..round_up(bitmap_len, alignment, "a sector bitmap")?));
        let mut tables_end = batmap::place_after(table_offset, entries)?;
        if with_batmap {
            tables_end = add(tables_end, batmap::len_for(entries)?, "the batmap")?;
        }
        let first_block = round_up(tables_end, alignment, "the BAT")?;
        footer.data_offset = FOOTER_LEN.into();
        header.data_offset = NO_OFFSET.into();
        header.table_offset = table_offset.into();
        header.max_table_entries = entries_field.into();
        header.block_size = block_field.into();
        Ok(Self {
            footer: footer.sealed(),
            header: header.sealed(),
            locators,
            blocks,
            entries,
            block_size,
            batmap: with_batmap.then(|| spare.batmap.clone()),
            lead,
            bitmap_len,
            table_offset,
            first_block,
        })
    }

    fn stride(&self) -> u64 {
        // A block has at most 1 GiB, and its bitmap with what stands before it far less.
        self.lead.wrapping_add(self.bitmap_len).wrapping_add(self.block_size.get())
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
        let to = add(from, ENTRIES_A_STEP, "the BAT")?.min(self.entries);
        let mut bytes = Vec::new();
        let mut rank = plan.rank(from);
        for block in from..to.min(self.blocks) {
            let entry = match plan.get(block) {
                OutState::Present | OutState::PartiallyPresent => {
                    let entry = self.entry(rank)?;
                    rank = add(rank, 1, "a block")?;
                    entry
                }
                OutState::NotPresent => NOT_PRESENT,
                OutState::Zero => return Err(Error::internal("a VHD cannot mark a block as zero")),
            };
            bytes.extend_from_slice(&entry.to_be_bytes());
        }
        // Entries past the disk, and the padding to a sector, read as "not present".
        let step_end = batmap::place_after(self.table_offset, to)?;
        let step_start = batmap::place_after(self.table_offset, from)?;
        let len = step_end.checked_sub(step_start).ok_or_else(|| Error::internal("a BAT of no length"))?;
        bytes.resize(index(len, "the BAT")?, 0xff);
        Ok(vec![Piece::Bytes(bytes)])
    }

    /// What stands between the BAT and the first block.
    fn after_table(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource) -> Result<Vec<Piece>> {
        let table_end = batmap::place_after(self.table_offset, self.entries)?;
        let mut pieces = Vec::new();
        let mut made = 0;
        if let Some(carried) = &self.batmap {
            let mut full = Vec::new();
            let mut stored = plan.next_stored(0);
            while let Some(block) = stored {
                // A bitmap that is copied is full where the source says so; to look costs a read for each
                // block, and a clear bit is always right.
                let known = carried.as_ref().is_some_and(|carried| carried.is_full(block));
                if known || bitmaps.stored_at(block).is_none() && bitmaps.bitmap(block)?.is_none() {
                    full.push(block);
                }
                stored = plan.next_stored(add(block, 1, "a block")?);
            }
            let full = full.into_iter();
            let bytes = batmap::encode(carried.as_ref(), &self.footer, table_end, self.entries, full)?;
            made = len64(bytes.len());
            pieces.push(Piece::Bytes(bytes));
        }
        let end = add(table_end, made, "the batmap")?;
        let pad =
            self.first_block.checked_sub(end).ok_or_else(|| Error::internal("tables that are too long"))?;
        pieces.push(Piece::Zeros(pad));
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

    fn front(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, step: u64) -> Result<Option<Vec<Piece>>> {
        let Some(table_step) = step.checked_sub(1) else { return Ok(Some(self.head())) };
        let from = mul(table_step, ENTRIES_A_STEP, "the BAT")?;
        match table_step.checked_sub(self.entries.div_ceil(ENTRIES_A_STEP)) {
            None => self.table(plan, from).map(Some),
            Some(0) => self.after_table(plan, bitmaps).map(Some),
            Some(_) => Ok(None),
        }
    }

    fn before_payload(&self, block: u64, bitmaps: &dyn BitmapSource) -> Result<Vec<Piece>> {
        let bitmap = match bitmaps.stored_at(block) {
            Some(range) => Piece::Source { file: 0, range },
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

/// What a source has beyond its own needs.
struct Spare<'a> {
    /// Entries of its BAT.
    room: u64,
    batmap: &'a Option<Batmap>,
}

fn new_header() -> DynamicHeader {
    DynamicHeader { cookie: HEADER_COOKIE, header_version: VERSION.into(), ..DynamicHeader::new_zeroed() }
}

/// The space field of a parent locator, and the bytes to set aside for it. The field counts sectors by
/// the specification and bytes on disks that Windows made, so a small number is taken for sectors. It
/// stays as it is, unless it claims more than any locator needs.
fn locator_space(field: u32, data: u64) -> Result<(u32, u64)> {
    let claimed = u64::from(field);
    let space = if claimed < 512 { mul(claimed, 512, "a parent locator")? } else { claimed };
    if space <= MAX_LOCATOR {
        return Ok((field, round_up(space.max(data), 512, "a parent locator")?));
    }
    let space = round_up(data, 512, "a parent locator")?;
    let field = u32::try_from(space).map_err(|_| Error::internal("a parent locator is too long"))?;
    Ok((field, space))
}
