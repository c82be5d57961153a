//! The header section and the metadata region of a new file, as bytes (MS-VHDX 2.2, 2.6).
//!
//! ```text
//!   identifier │ header 1 │ header 2 │ region table │ its copy          metadata table │ item │ item …
//! ```

use std::ops::Range;

use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    FLAG_REQUIRED, FLAG_VIRTUAL_DISK, FileIdentifier, HAS_PARENT, HEADER_OFFSETS, Header,
    ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR_SIZE, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR_SIZE,
    ITEM_VIRTUAL_DISK_ID, ITEM_VIRTUAL_DISK_SIZE, MetadataTableEntry, MetadataTableHeader, REGION_BAT,
    REGION_METADATA, REGION_TABLE_OFFSETS, RegionTableEntry, RegionTableHeader, TABLE_LEN, checksum,
};
use super::locator::Locator;
use super::metadata::Item;
use crate::error::{Error, Result};
use crate::image::BlockSize;
use crate::units::{add, index, len64, length};

/// What the file identifier says of who made the file.
const CREATOR: &str =
    concat!("vhd-compactor ", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// What goes into the metadata region.
pub struct Parameters<'a> {
    /// Bytes of the disk.
    pub virtual_size: u64,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Bytes of a payload block.
    pub block_size: BlockSize,
    /// The disk's identity on its bus.
    pub virtual_disk_id: Uuid,
    /// Where the parent is, for a differencing disk.
    pub locator: Option<&'a Locator>,
    /// Other items, as they are.
    pub items: &'a [Item],
}

/// Identifier, both headers and both region tables; `header` is given without its sequence number.
pub fn header_section(header: &Header, bat: Range<u64>, metadata: Range<u64>) -> Result<Vec<u8>> {
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
    put(first, Header { sequence_number: 1.into(), ..*header }.sealed().as_bytes());
    put(second, Header { sequence_number: 2.into(), ..*header }.sealed().as_bytes());
    let regions = region_table(&[(REGION_BAT, bat), (REGION_METADATA, metadata)])?;
    put(table, &regions);
    put(copy, &regions);
    Ok(bytes)
}

fn region_table(regions: &[(Uuid, Range<u64>)]) -> Result<Vec<u8>> {
    let too_large = |_| Error::internal("a region is too long");
    let mut entries = Vec::new();
    for (guid, range) in regions {
        let entry = RegionTableEntry {
            guid: guid.to_bytes_le(),
            file_offset: range.start.into(),
            length: u32::try_from(length(range)).map_err(too_large)?.into(),
            required: 1.into(),
        };
        entries.extend_from_slice(entry.as_bytes());
    }
    let table = |checksum: u32| {
        let header = RegionTableHeader {
            signature: *b"regi",
            checksum: checksum.into(),
            entry_count: u32::try_from(regions.len()).map_err(too_large)?.into(),
            reserved: 0.into(),
        };
        let mut bytes = [header.as_bytes(), &entries].concat();
        bytes.resize(index(TABLE_LEN, "a region table")?, 0);
        Ok::<_, Error>(bytes)
    };
    table(checksum([table(0)?.as_slice()]))
}

/// The metadata table and its items, without what fills the region up.
pub fn metadata_region(parameters: &Parameters) -> Result<Vec<u8>> {
    let block_size =
        u32::try_from(parameters.block_size.get()).map_err(|_| Error::internal("a block size"))?;
    // LeaveBlockAllocated stays clear: what is written here is never fixed.
    let flags = if parameters.locator.is_some() { HAS_PARENT } else { 0 };
    let file = FLAG_REQUIRED;
    let disk = FLAG_REQUIRED | FLAG_VIRTUAL_DISK;
    let mut items = vec![
        (ITEM_FILE_PARAMETERS, file, [block_size.to_le_bytes(), flags.to_le_bytes()].concat()),
        (ITEM_VIRTUAL_DISK_SIZE, disk, parameters.virtual_size.to_le_bytes().to_vec()),
        (ITEM_LOGICAL_SECTOR_SIZE, disk, parameters.logical_sector_size.to_le_bytes().to_vec()),
        (ITEM_PHYSICAL_SECTOR_SIZE, disk, parameters.physical_sector_size.to_le_bytes().to_vec()),
        (ITEM_VIRTUAL_DISK_ID, disk, parameters.virtual_disk_id.to_bytes_le().to_vec()),
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
