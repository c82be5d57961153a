//! Writing a dynamic or differencing VHDX around payload that lies elsewhere, in Windows' order.
//!
//! ```text
//!   0        1 MiB   2 MiB      3 MiB    …
//!   headers │ log │ metadata │ BAT … │ sector bitmap blocks │ payload block │ payload block │ …
//!             └ empty                  └ differencing: one for each chunk that has a
//!                                        partially present block
//! ```
//! Every part is a whole number of MiB. The BAT is made 1 MiB at a time: that of a 64 TiB disk is 512 MiB.

use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    FLAG_REQUIRED, FLAG_VIRTUAL_DISK, FULLY_PRESENT, FileIdentifier, HAS_PARENT, HEADER_OFFSETS, Header,
    ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR_SIZE, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR_SIZE,
    ITEM_VIRTUAL_DISK_ID, ITEM_VIRTUAL_DISK_SIZE, MIB, MetadataTableEntry, MetadataTableHeader,
    PAYLOAD_NOT_PRESENT, PAYLOAD_PARTIALLY_PRESENT, PAYLOAD_ZERO, REGION_BAT, REGION_METADATA,
    REGION_TABLE_OFFSETS, RegionTableEntry, RegionTableHeader, TABLE_LEN, bat_entries, checksum, chunk_ratio,
};
use super::locator::Locator;
use super::metadata::Item;
use super::open::Metadata;
use super::{MAX_BLOCK_SIZE, MAX_DISK_SIZE};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{BitmapSource, BlockPlan, ContainerWriter, DiskType, Geometry, OutState, Piece};
use crate::units::{add, index, len64, mul, round_up};

/// BAT entries in one step: 1 MiB.
const ENTRIES_A_STEP: u64 = MIB / 8;
/// Where the log and the metadata go, and how long the log is.
const LOG_OFFSET: u64 = MIB;
const LOG_LENGTH: u64 = MIB;
const METADATA_OFFSET: u64 = LOG_OFFSET + LOG_LENGTH;
/// What the file identifier says of who made the file.
const CREATOR: &str =
    concat!("vhd-compactor ", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

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
    block_size: u64,
    /// Bytes of one block's part of a sector bitmap block.
    bitmap_len: u64,
    ratio: u64,
    bat_offset: u64,
    bat_length: u64,
}

/// What goes into the metadata region and the header.
struct Parameters<'a> {
    virtual_size: u64,
    logical_sector_size: u32,
    physical_sector_size: u32,
    block_size: u64,
    file_write: Uuid,
    data_write: Uuid,
    virtual_disk: Uuid,
    locator: Option<&'a Locator>,
    items: &'a [Item],
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
        block_size: u64,
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
        Self::lay_out(&Parameters {
            virtual_size: geometry.virtual_size,
            logical_sector_size: geometry.logical_sector_size,
            physical_sector_size: geometry.physical_sector_size,
            block_size,
            file_write: fresh.file_write,
            data_write: if reads_changed { fresh.data_write } else { source.data_write_guid },
            virtual_disk: source.virtual_disk_id,
            locator,
            items: &source.items,
        })
    }

    /// A writer for a new dynamic disk of `disk_size` bytes.
    ///
    /// # Errors
    /// `invalid-argument` for a bad block or sector size, `limit-exceeded` above 64 TiB.
    pub fn new(
        disk_size: u64,
        logical_sector_size: u32,
        physical_sector_size: u32,
        block_size: u64,
        guids: &Guids,
    ) -> Result<Self> {
        Self::lay_out(&Parameters {
            virtual_size: disk_size,
            logical_sector_size,
            physical_sector_size,
            block_size,
            file_write: guids.file_write,
            data_write: guids.data_write,
            virtual_disk: guids.virtual_disk,
            locator: None,
            items: &[],
        })
    }

    fn lay_out(parameters: &Parameters) -> Result<Self> {
        let Parameters { virtual_size, block_size, .. } = *parameters;
        let sector_size = u64::from(parameters.logical_sector_size);
        if !block_size.is_power_of_two() || !(MIB..=MAX_BLOCK_SIZE).contains(&block_size) {
            return Err(Error::new(ErrorKind::InvalidArgument, "this is no block size for a VHDX")
                .expected("a power of two from 1048576 to 268435456", block_size));
        }
        for size in [parameters.logical_sector_size, parameters.physical_sector_size] {
            if !matches!(size, 512 | 4096) {
                return Err(Error::new(ErrorKind::InvalidArgument, "this is no sector size for a VHDX")
                    .expected("512 or 4096", size));
            }
        }
        if virtual_size > MAX_DISK_SIZE {
            return Err(Error::new(ErrorKind::LimitExceeded, "a VHDX holds disks of up to 64 TiB")
                .expected(format_args!("at most {MAX_DISK_SIZE} bytes"), virtual_size));
        }
        if virtual_size == 0 || !virtual_size.is_multiple_of(sector_size) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the size of the disk is no multiple of its sector size",
            )
            .expected(format_args!("n × {sector_size}"), virtual_size));
        }
        let differencing = parameters.locator.is_some();
        let blocks = virtual_size.div_ceil(block_size);
        let ratio = chunk_ratio(block_size, sector_size);
        let metadata = metadata_region(parameters)?;
        let bat_offset = round_up(add(METADATA_OFFSET, len64(metadata.len()), "metadata")?, MIB, "metadata")?;
        let bat_length = mul(bat_entries(blocks, ratio, differencing), 8, "the BAT")?;
        let header = Header {
            signature: *b"head",
            file_write_guid: parameters.file_write.to_bytes_le(),
            data_write_guid: parameters.data_write.to_bytes_le(),
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
            bitmap_len: (block_size / 8).checked_div(sector_size).unwrap_or_default(),
            ratio,
            bat_offset,
            bat_length: round_up(bat_length, MIB, "the BAT")?,
        })
    }

    fn chunks(&self) -> u64 {
        if self.differencing { self.blocks.div_ceil(self.ratio) } else { 0 }
    }

    /// How many sector bitmap blocks stand before that of chunk `chunk`.
    fn bitmap_rank(&self, plan: &BlockPlan, chunk: u64) -> u64 {
        let end = chunk.saturating_mul(self.ratio);
        let mut count = 0u64;
        let mut from = 0;
        while let Some(block) = plan.first_partial(from..end) {
            count = count.saturating_add(1);
            let next = block.checked_div(self.ratio).unwrap_or_default().saturating_add(1);
            from = next.saturating_mul(self.ratio);
        }
        count
    }

    /// Where sector bitmap blocks begin.
    fn bitmaps_offset(&self) -> u64 {
        self.bat_offset.saturating_add(self.bat_length)
    }

    /// Where payload begins.
    fn payload_offset(&self, plan: &BlockPlan) -> Result<u64> {
        let bitmaps = self.bitmap_rank(plan, self.chunks());
        add(self.bitmaps_offset(), mul(bitmaps, MIB, "sector bitmaps")?, "sector bitmaps")
    }

    /// Header section, log, metadata.
    fn head(&self) -> Result<Vec<Piece>> {
        let [first, second] = HEADER_OFFSETS;
        let [table, copy] = REGION_TABLE_OFFSETS;
        let mut bytes = Vec::new();
        let mut put = |at: u64, part: &[u8]| {
            bytes.resize(usize::try_from(at).unwrap_or(bytes.len()).max(bytes.len()), 0);
            bytes.extend_from_slice(part);
        };
        let mut identifier = FileIdentifier { signature: *b"vhdxfile", ..FileIdentifier::new_zeroed() };
        for (place, unit) in identifier.creator.chunks_exact_mut(2).zip(CREATOR.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
        put(0, identifier.as_bytes());
        put(first, Header { sequence_number: 1.into(), ..self.header }.sealed().as_bytes());
        put(second, Header { sequence_number: 2.into(), ..self.header }.sealed().as_bytes());
        let regions = self.region_table()?;
        put(table, &regions);
        put(copy, &regions);
        let to_metadata = METADATA_OFFSET.saturating_sub(len64(bytes.len()));
        let metadata_end = METADATA_OFFSET.saturating_add(len64(self.metadata.len()));
        Ok(vec![
            Piece::Bytes(bytes),
            Piece::Zeros(to_metadata),
            Piece::Bytes(self.metadata.clone()),
            Piece::Zeros(self.bat_offset.saturating_sub(metadata_end)),
        ])
    }

    fn region_table(&self) -> Result<Vec<u8>> {
        let entry = |guid: Uuid, offset: u64, length: u64| {
            let length = u32::try_from(length).map_err(|_| Error::internal("a region is too long"))?;
            Ok::<_, Error>(RegionTableEntry {
                guid: guid.to_bytes_le(),
                file_offset: offset.into(),
                length: length.into(),
                required: 1.into(),
            })
        };
        let bat = entry(REGION_BAT, self.bat_offset, self.bat_length)?;
        let metadata =
            entry(REGION_METADATA, METADATA_OFFSET, self.bat_offset.saturating_sub(METADATA_OFFSET))?;
        let header = RegionTableHeader {
            signature: *b"regi",
            entry_count: 2.into(),
            ..RegionTableHeader::new_zeroed()
        };
        let table = |header: RegionTableHeader| {
            let mut bytes = [header.as_bytes(), bat.as_bytes(), metadata.as_bytes()].concat();
            bytes.resize(index(TABLE_LEN, "a region table")?, 0);
            Ok::<_, Error>(bytes)
        };
        let checksum = checksum([table(header)?.as_slice()]);
        table(RegionTableHeader { checksum: checksum.into(), ..header })
    }

    /// 1 MiB of the BAT, from entry `from` on.
    fn table(&self, plan: &BlockPlan, from: u64) -> Result<Vec<Piece>> {
        let stride = self.ratio.saturating_add(1);
        let mut chunk = from.checked_div(stride).unwrap_or_default();
        let mut in_chunk = from.checked_rem(stride).unwrap_or_default();
        let mut block = from.saturating_sub(chunk);
        let mut payload = add(
            self.payload_offset(plan)?,
            mul(plan.rank(block), self.block_size, "the new image")?,
            "the new image",
        )?;
        let rank = if self.differencing { self.bitmap_rank(plan, chunk) } else { 0 };
        let mut bitmap = add(self.bitmaps_offset(), mul(rank, MIB, "sector bitmaps")?, "sector bitmaps")?;
        // No more blocks than entries; the first bitmap entry speaks of blocks before them, too.
        let touched = chunk.saturating_mul(self.ratio)..block.saturating_add(ENTRIES_A_STEP);
        if plan.first_known(touched).is_none() {
            return Ok(vec![Piece::Zeros(MIB)]);
        }
        let mut words: Vec<u64> = Vec::with_capacity(index(ENTRIES_A_STEP, "the BAT")?);
        for _ in 0..ENTRIES_A_STEP {
            if in_chunk == self.ratio {
                // The bitmap block of a chunk comes after its payload entries, all of them.
                let partial = plan.first_partial(chunk.saturating_mul(self.ratio)..block).is_some();
                words.push(if partial { bitmap | FULLY_PRESENT } else { PAYLOAD_NOT_PRESENT });
                bitmap = bitmap.saturating_add(if partial { MIB } else { 0 });
                chunk = chunk.saturating_add(1);
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
                payload = add(payload, self.block_size, "the new image")?;
            }
            block = block.saturating_add(1);
            in_chunk = in_chunk.saturating_add(1);
        }
        Ok(vec![Piece::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())])
    }

    /// The sector bitmap block of chunk `chunk`, if it has one.
    fn bitmap_block(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, chunk: u64) -> Result<Vec<Piece>> {
        let first = chunk.saturating_mul(self.ratio);
        let end = first.saturating_add(self.ratio).min(self.blocks);
        if plan.first_partial(first..end).is_none() {
            return Ok(Vec::new());
        }
        let len = index(self.bitmap_len, "a sector bitmap")?;
        let mut bytes = Vec::with_capacity(index(MIB, "a sector bitmap block")?);
        for block in first..end {
            let bits = match plan.get(block) {
                OutState::PartiallyPresent => bitmaps.bitmap(block)?,
                // Not consulted; what is set here says the same to who consults it all the same.
                OutState::Present => None,
                OutState::NotPresent | OutState::Zero => {
                    bytes.resize(bytes.len().saturating_add(len), 0);
                    continue;
                }
            };
            match bits {
                Some(bits) if bits.as_bytes().len() == len => bytes.extend_from_slice(bits.as_bytes()),
                Some(_) => return Err(Error::internal("a sector bitmap of the wrong length")),
                None => bytes.resize(bytes.len().saturating_add(len), 0xff),
            }
        }
        bytes.resize(index(MIB, "a sector bitmap block")?, 0);
        Ok(vec![Piece::Bytes(bytes)])
    }
}

impl ContainerWriter for Writer {
    fn block_size(&self) -> u64 {
        self.block_size
    }

    fn file_size(&self, plan: &BlockPlan) -> Result<u64> {
        if !self.differencing && plan.first_partial(0..self.blocks).is_some() {
            return Err(no_parent());
        }
        let payload = mul(plan.stored(), self.block_size, "the new image")?;
        add(self.payload_offset(plan)?, payload, "the new image")
    }

    fn front(&self, plan: &BlockPlan, bitmaps: &dyn BitmapSource, step: u64) -> Result<Option<Vec<Piece>>> {
        let Some(table_step) = step.checked_sub(1) else { return self.head().map(Some) };
        let tables = self.bat_length / MIB;
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

/// The metadata table and its items.
fn metadata_region(parameters: &Parameters) -> Result<Vec<u8>> {
    let block_size = u32::try_from(parameters.block_size).map_err(|_| Error::internal("a block size"))?;
    // LeaveBlockAllocated stays clear: what is written here is never fixed.
    let flags = if parameters.locator.is_some() { HAS_PARENT } else { 0 };
    let file = FLAG_REQUIRED;
    let disk = FLAG_REQUIRED | FLAG_VIRTUAL_DISK;
    let mut items = vec![
        (ITEM_FILE_PARAMETERS, file, [block_size.to_le_bytes(), flags.to_le_bytes()].concat()),
        (ITEM_VIRTUAL_DISK_SIZE, disk, parameters.virtual_size.to_le_bytes().to_vec()),
        (ITEM_LOGICAL_SECTOR_SIZE, disk, parameters.logical_sector_size.to_le_bytes().to_vec()),
        (ITEM_PHYSICAL_SECTOR_SIZE, disk, parameters.physical_sector_size.to_le_bytes().to_vec()),
        (ITEM_VIRTUAL_DISK_ID, disk, parameters.virtual_disk.to_bytes_le().to_vec()),
    ];
    if let Some(locator) = parameters.locator {
        items.push((ITEM_PARENT_LOCATOR, file, locator.to_bytes()?));
    }
    items.extend(parameters.items.iter().map(|item| (item.id, item.flags, item.data.clone())));
    let header = MetadataTableHeader {
        signature: *b"metadata",
        entry_count: u16::try_from(items.len()).map_err(|_| Error::internal("too many items"))?.into(),
        ..MetadataTableHeader::new_zeroed()
    };
    let mut region = header.as_bytes().to_vec();
    let mut at = TABLE_LEN;
    for (id, flags, data) in &items {
        let length = len64(data.len());
        let offset = if length == 0 { 0 } else { at };
        let entry = MetadataTableEntry {
            item_id: id.to_bytes_le(),
            offset: u32::try_from(offset).map_err(|_| Error::internal("too much metadata"))?.into(),
            length: u32::try_from(length).map_err(|_| Error::internal("too much metadata"))?.into(),
            flags: (*flags).into(),
            reserved2: 0.into(),
        };
        region.extend_from_slice(entry.as_bytes());
        at = add(at, length, "metadata")?.next_multiple_of(8);
    }
    region.resize(index(TABLE_LEN, "a metadata table")?, 0);
    for (_, _, data) in &items {
        region.extend_from_slice(data);
        region.resize(region.len().next_multiple_of(8), 0);
    }
    Ok(region)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::rc::Rc;

    use super::super::testing::{DATA_WRITE, ITEMS, PARENT, TestImage};
    use super::*;
    use crate::image::{BitOrder, BlockState, Disk, Image, Metadata as AnyMetadata, SectorBitmap};
    use crate::io::read_vec;
    use crate::units::FileOffset;
    use proptest::prelude::*;

    const GUIDS: Guids = Guids {
        file_write: Uuid::from_u128(0xf11e),
        data_write: Uuid::from_u128(0xda7a),
        virtual_disk: Uuid::from_u128(0xd15c),
    };

    /// Bits that tell blocks apart; every seventh block has none, which stands for "all its own".
    struct Bits(usize, u64);

    impl BitmapSource for Bits {
        fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
            let bits = vec![block as u8; self.0];
            let bitmap = SectorBitmap::new(bits, BitOrder::LeastSignificantFirst, self.1);
            Ok((!block.is_multiple_of(7)).then_some(bitmap))
        }
        fn stored_at(&self, _block: u64) -> Option<Range<u64>> {
            None
        }
    }

    fn plan(states: &[OutState]) -> BlockPlan {
        let mut plan = BlockPlan::new(states.len() as u64).unwrap();
        for (block, &state) in states.iter().enumerate() {
            plan.set(block as u64, state);
        }
        plan.seal();
        plan
    }

    /// The file, with each stored block filled with its number.
    fn assemble(writer: &Writer, plan: &BlockPlan, bitmaps: &dyn BitmapSource) -> Vec<u8> {
        let mut file = Vec::new();
        let mut put = |pieces: Vec<Piece>| {
            for piece in pieces {
                match piece {
                    Piece::Zeros(len) => file.resize(file.len() + len as usize, 0),
                    Piece::Bytes(bytes) => file.extend(bytes),
                    Piece::Source { .. } => panic!("nothing comes from the source here"),
                }
            }
        };
        let mut step = 0;
        while let Some(pieces) = writer.front(plan, bitmaps, step).unwrap() {
            put(pieces);
            step += 1;
        }
        let mut from = 0;
        while let Some(block) = plan.next_stored(from) {
            put(writer.before_payload(block, bitmaps).unwrap());
            put(vec![Piece::Bytes(vec![block as u8; writer.block_size() as usize])]);
            from = block + 1;
        }
        put(writer.tail(plan).unwrap());
        assert_eq!(file.len() as u64, writer.file_size(plan).unwrap());
        file
    }

    fn metadata(image: &Image) -> &Metadata {
        let AnyMetadata::Vhdx(metadata) = &image.metadata else { panic!() };
        metadata
    }

    #[test]
    fn a_new_disk_is_read_back() {
        let plan = plan(&[OutState::NotPresent, OutState::Present, OutState::Zero, OutState::Present]);
        let writer = Writer::new((3 << 20) + 4096, 4096, 4096, 1 << 20, &GUIDS).unwrap();
        let file = assemble(&writer, &plan, &Bits(0, 4096));
        assert_eq!(file.len(), 6 << 20);
        let image = super::super::open(Rc::new(file.clone())).unwrap();
        assert!(image.warnings.is_empty());
        assert_eq!(image.disk_type, DiskType::Dynamic);
        assert_eq!(image.creator, "vhd-compactor 0.1");
        assert_eq!(image.geometry.virtual_size, (3 << 20) + 4096);
        assert_eq!((image.geometry.logical_sector_size, image.geometry.physical_sector_size), (4096, 4096));
        assert_eq!(image.identity, GUIDS.data_write);
        assert_eq!(metadata(&image).file_write_guid, GUIDS.file_write);
        assert_eq!(metadata(&image).virtual_disk_id, GUIDS.virtual_disk);
        let states: Vec<_> = (0..4).map(|block| image.blocks.get(block)).collect();
        let at = |mib: u64| BlockState::Present(FileOffset::new(mib << 20));
        assert_eq!(states, [BlockState::NotPresent, at(4), BlockState::Zero, at(5)]);
        // Byte for byte where the specification puts it; Windows' order of regions.
        assert_eq!(&file[..8], b"vhdxfile");
        assert_eq!(&file[64 << 10..(64 << 10) + 4], b"head");
        assert_eq!(file[192 << 10..256 << 10], file[256 << 10..320 << 10]);
        assert!(file[1 << 20..2 << 20].iter().all(|&byte| byte == 0));
        assert_eq!(&file[2 << 20..(2 << 20) + 8], b"metadata");
        assert_eq!(
            file[(3 << 20)..(3 << 20) + 32],
            [[0u64, 4 << 20 | 6, 2, 5 << 20 | 6].map(u64::to_le_bytes)].concat().concat()
        );
    }

    #[test]
    fn what_the_source_is_stays() {
        let mut source = TestImage::dynamic();
        source.item(5, "00000000-0000-0000-0000-00000000abcd", ITEMS + 100, 5, 2);
        source.put(ITEMS + 100, b"hello");
        source.item(6, "00000000-0000-0000-0000-00000000abcd", 0, 0, 3);
        source.put32(ITEMS + 4, 1);
        let source = source.open().unwrap();
        assert_eq!(source.disk_type, DiskType::Fixed);
        for (changed, identity) in [(false, DATA_WRITE), (true, GUIDS.data_write)] {
            let writer = Writer::like(
                metadata(&source),
                &source.geometry,
                DiskType::Dynamic,
                source.geometry.block_size,
                &GUIDS,
                changed,
            )
            .unwrap();
            let file = assemble(&writer, &plan(&[OutState::NotPresent; 4]), &Bits(0, 512));
            let image = super::super::open(Rc::new(file)).unwrap();
            assert_eq!(image.identity, identity);
            assert_eq!(image.disk_type, DiskType::Dynamic);
            assert_eq!(image.geometry, source.geometry);
            let (old, new) = (metadata(&source), metadata(&image));
            assert_eq!((new.virtual_disk_id, &new.items), (old.virtual_disk_id, &old.items));
            assert_eq!(new.file_write_guid, GUIDS.file_write);
        }
    }

    #[test]
    fn a_differencing_disk_keeps_its_parent_or_loses_it() {
        let source = TestImage::differencing().open().unwrap();
        let like =
            |disk_type| Writer::like(metadata(&source), &source.geometry, disk_type, 1 << 20, &GUIDS, false);
        let states =
            [OutState::PartiallyPresent, OutState::NotPresent, OutState::Present, OutState::PartiallyPresent];
        let writer = like(DiskType::Differencing).unwrap();
        let file = assemble(&writer, &plan(&states), &Bits(256, 512));
        let image = super::super::open(Rc::new(file.clone())).unwrap();
        assert_eq!(image.disk_type, DiskType::Differencing);
        assert_eq!(image.parent, source.parent);
        assert_eq!(image.parent.as_ref().unwrap().ids, [PARENT]);
        assert_eq!(image.blocks.get(0), BlockState::PartiallyPresent(FileOffset::new(5 << 20)));
        // Block 0 has no bitmap, so it is all its own; block 2 is present as a whole.
        let bits = &file[4 << 20..5 << 20];
        assert_eq!(bits[..256], [0xff; 256]);
        assert_eq!(bits[256..512], [0; 256]);
        assert_eq!(bits[512..768], [0xff; 256]);
        assert_eq!(bits[768..1024], [3; 256]);
        assert!(bits[1024..].iter().all(|&byte| byte == 0));
        // Without a partially present block there is no sector bitmap block.
        let full = plan(&[OutState::Present, OutState::Zero, OutState::NotPresent, OutState::NotPresent]);
        assert_eq!(writer.file_size(&full).unwrap(), 5 << 20);
        let merged =
            super::super::open(Rc::new(assemble(&like(DiskType::Dynamic).unwrap(), &full, &Bits(256, 512))));
        let merged = merged.unwrap();
        assert_eq!((merged.disk_type, &merged.parent), (DiskType::Dynamic, &None));
        assert!(like(DiskType::Dynamic).unwrap().file_size(&plan(&states)).is_err());
        assert_eq!(like(DiskType::Fixed).err().unwrap().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn sector_bitmaps_of_the_wrong_length_are_noticed() {
        let source = TestImage::differencing().open().unwrap();
        let writer =
            Writer::like(metadata(&source), &source.geometry, DiskType::Differencing, 2 << 20, &GUIDS, false);
        let plan = plan(&[OutState::NotPresent, OutState::PartiallyPresent]);
        let error = writer.unwrap().front(&plan, &Bits(256, 512), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn senseless_arguments_are_refused() {
        let new = |size, logical, physical, block| {
            Writer::new(size, logical, physical, block, &GUIDS).err().map(|error| error.kind())
        };
        assert_eq!(new(1 << 30, 512, 4096, 1 << 20), None);
        for block in [0, 512 << 10, 3 << 20, 512 << 20, u64::MAX] {
            assert_eq!(new(1 << 30, 512, 512, block), Some(ErrorKind::InvalidArgument));
        }
        assert_eq!(new(1 << 30, 1024, 512, 1 << 20), Some(ErrorKind::InvalidArgument));
        assert_eq!(new(1 << 30, 512, 0, 1 << 20), Some(ErrorKind::InvalidArgument));
        assert_eq!(new(0, 512, 512, 1 << 20), Some(ErrorKind::InvalidArgument));
        assert_eq!(new(512, 4096, 512, 1 << 20), Some(ErrorKind::InvalidArgument));
        assert_eq!(new((64 << 40) + 512, 512, 512, 1 << 20), Some(ErrorKind::LimitExceeded));
    }

    #[test]
    fn much_metadata_moves_the_bat() {
        let mut source = metadata(&TestImage::dynamic().open().unwrap()).clone();
        source.items = (0..3u8)
            .map(|n| Item { id: Uuid::from_u128(n.into()), flags: 1, data: vec![n + 1; 700_000] })
            .collect();
        let geometry = TestImage::dynamic().open().unwrap().geometry;
        let writer = Writer::like(&source, &geometry, DiskType::Dynamic, 1 << 20, &GUIDS, false).unwrap();
        let states = [OutState::NotPresent, OutState::NotPresent, OutState::NotPresent, OutState::Present];
        let file = assemble(&writer, &plan(&states), &Bits(0, 512));
        let image = super::super::open(Rc::new(file)).unwrap();
        assert_eq!(metadata(&image).items, source.items);
        assert_eq!(image.blocks.get(3), BlockState::Present(FileOffset::new(6 << 20)));
    }

    /// The BAT of the largest disk in the smallest blocks is 513 MiB; it is made and read in pieces.
    #[test]
    fn the_largest_disk_is_made_in_small_steps() {
        let writer = Writer::new(64 << 40, 512, 4096, 1 << 20, &GUIDS).unwrap();
        let mut plan = BlockPlan::new(64 << 20).unwrap();
        let last = (64 << 20) - 1;
        plan.set(last, OutState::Present);
        plan.seal();
        let (mut size, mut step) = (0, 0);
        while let Some(pieces) = writer.front(&plan, &Bits(0, 512), step).unwrap() {
            let len: u64 = pieces.iter().map(Piece::len).sum();
            assert!(
                len <= 4 << 20
                    && pieces.iter().all(|piece| !matches!(piece, Piece::Bytes(b) if b.len() > 1 << 20))
            );
            size += len;
            step += 1;
        }
        assert_eq!(step, 514);
        assert_eq!(size + (1 << 20), writer.file_size(&plan).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_plan_is_read_back(
            pattern in proptest::collection::vec((0u8..4, 1usize..90), 1..24),
            large in proptest::bool::ANY,
        ) {
            // 32 768 blocks of 1 MiB make a chunk of 4 KiB sectors; 16 of 256 MiB one of 512 B sectors. The file
            // is not assembled: only its front is made and read, with a source that is as long as it should be.
            let states: Vec<OutState> = pattern.iter().flat_map(|&(state, count)| {
                let state = match state {
                    0 => OutState::NotPresent,
                    1 => OutState::Zero,
                    2 => OutState::Present,
                    _ => OutState::PartiallyPresent,
                };
                std::iter::repeat_n(state, if large { count } else { count * 700 })
            }).collect();
            let (block_size, sector) = if large { (256u64 << 20, 512u32) } else { (1 << 20, 4096) };
            let mut geometry = TestImage::differencing().open().unwrap().geometry;
            geometry.virtual_size = states.len() as u64 * block_size;
            geometry.logical_sector_size = sector;
            let source = TestImage::differencing().open().unwrap();
            let writer = Writer::like(metadata(&source), &geometry, DiskType::Differencing, block_size, &GUIDS, false).unwrap();
            let plan = plan(&states);
            let bitmaps = Bits((block_size / 8 / u64::from(sector)) as usize, sector.into());
            let (mut file, mut step) = (Vec::new(), 0);
            while let Some(pieces) = writer.front(&plan, &bitmaps, step).unwrap() {
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => file.extend(bytes),
                        other => file.resize(file.len() + other.len() as usize, 0),
                    }
                }
                step += 1;
            }
            let front = file.len() as u64;
            let mut whole = crate::io::Overlay::new(file);
            whole.extend_to(writer.file_size(&plan).unwrap());
            let image = super::super::open(Rc::new(whole)).unwrap();
            let mut next = front;
            for (block, &state) in states.iter().enumerate() {
                let block = block as u64;
                let at = FileOffset::new(next);
                let expected = match state {
                    OutState::NotPresent => BlockState::NotPresent,
                    OutState::Zero => BlockState::Zero,
                    OutState::Present => BlockState::Present(at),
                    OutState::PartiallyPresent => BlockState::PartiallyPresent(at),
                };
                prop_assert_eq!(image.blocks.get(block), expected);
                if expected.payload().is_some() {
                    next += block_size;
                }
                if state == OutState::PartiallyPresent && block.is_multiple_of(5) {
                    let stored = image.sector_bitmap(block).unwrap().unwrap();
                    let ones = vec![0xff; bitmaps.0];
                    let own = bitmaps.bitmap(block).unwrap();
                    prop_assert_eq!(stored.as_bytes(), own.as_ref().map_or(ones.as_slice(), SectorBitmap::as_bytes));
                }
            }
            prop_assert_eq!(next, writer.file_size(&plan).unwrap());
        }
    }

    #[test]
    fn payload_is_read_where_it_was_put() {
        let states = [OutState::Present, OutState::Zero, OutState::Present, OutState::NotPresent];
        let writer = Writer::new(8 << 20, 512, 512, 2 << 20, &GUIDS).unwrap();
        let file = assemble(&writer, &plan(&states), &Bits(0, 512));
        let disk = Disk::new(vec![super::super::open(Rc::new(file)).unwrap()]).unwrap();
        let bytes = read_vec(&disk, 0, 8 << 20).unwrap();
        assert!(bytes[4 << 20..6 << 20].iter().all(|&byte| byte == 2));
        assert!(bytes[..4 << 20].iter().chain(&bytes[6 << 20..]).all(|&byte| byte == 0));
    }
}
