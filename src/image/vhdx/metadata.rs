//! The metadata region: file parameters, sizes, identity, and whatever else the file carries
//! (MS-VHDX 2.6).
//!
//! ```text
//!   0        32                        64 KiB                             end of region
//!   header │ entry │ entry │ …       │ item │ item …, anywhere, never overlapping
//!            └ id, flags, offset ──────►
//! ```

use std::ops::Range;

use uuid::Uuid;
use zerocopy::FromBytes;

use super::format::{
    FLAG_REQUIRED, FLAG_USER, FLAG_VIRTUAL_DISK, HAS_PARENT, ITEM_CHS_PARAMETERS, ITEM_FILE_PARAMETERS,
    ITEM_INCOMPLETE_FILE, ITEM_LOGICAL_SECTOR_SIZE, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR_SIZE,
    ITEM_PMEM_LABELS, ITEM_VIRTUAL_DISK_ID, ITEM_VIRTUAL_DISK_SIZE, LEAVE_BLOCK_ALLOCATED, MAX_TABLE_ENTRIES,
    MIB, MetadataTableEntry, MetadataTableHeader, TABLE_LEN,
};
use super::locator::Locator;
use crate::error::{Error, Result, Site};
use crate::image::{BlockSize, Format};
use crate::io::{ReadAt, read_vec};
use crate::units::{Space, add, index, length};

/// Most bytes of one item (2.6.1.2).
const MAX_ITEM: u64 = MIB;
/// Most bytes of all items together: what is carried over is held in memory.
const MAX_ITEMS: u64 = 32 << 20;
/// Most user items (2.6.1.2).
const MAX_USER_ITEMS: usize = 1024;

/// A metadata item that is carried over as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which item.
    pub id: Uuid,
    /// `IsUser`, `IsVirtualDisk`, `IsRequired`.
    pub flags: u32,
    /// Its contents.
    pub data: Vec<u8>,
}

/// What the metadata region says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskMetadata {
    /// Bytes of a payload block.
    pub block_size: BlockSize,
    /// The mark of a fixed disk.
    pub leave_block_allocated: bool,
    /// Whether it is a differencing disk.
    pub has_parent: bool,
    /// Bytes of the virtual disk.
    pub virtual_size: u64,
    /// The disk's identity on its bus (SCSI page 83).
    pub virtual_disk_id: Uuid,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Where the parent is, for a differencing disk.
    pub locator: Option<Locator>,
    /// Everything else, in the order of the table.
    pub others: Vec<Item>,
}

/// Reads the metadata region at `region`.
pub fn read_metadata<R: ReadAt + ?Sized>(file: &R, region: &Range<u64>) -> Result<DiskMetadata> {
    let table = Table::read(file, region)?;
    table.check_places(region)?;
    table.parse(file)
}

struct Entry {
    id: Uuid,
    flags: u32,
    /// File offset of the entry.
    at: u64,
    /// File offsets of the item.
    place: Range<u64>,
}

impl Entry {
    fn is_user(&self) -> bool {
        self.flags & FLAG_USER != 0
    }

    fn field(&self, by: u64) -> Site {
        site("VHDX metadata table", self.at, by)
    }

    /// A field of the item itself.
    fn inside(&self, by: u64) -> Site {
        site("VHDX metadata item", self.place.start, by)
    }
}

fn site(structure: &'static str, at: u64, by: u64) -> Site {
    Site { structure, space: Space::File, offset: at }.field(by)
}

struct Table {
    at: u64,
    entries: Vec<Entry>,
}

impl Table {
    fn read<R: ReadAt + ?Sized>(file: &R, region: &Range<u64>) -> Result<Self> {
        let at = region.start;
        let field = |by| site("VHDX metadata table", at, by);
        if length(region) < TABLE_LEN {
            return Err(Error::corrupt(field(0), "the metadata region is too short for its table"));
        }
        let bytes = read_vec(file, at, index(TABLE_LEN, "a metadata table")?)?;
        let Ok((header, rest)) = MetadataTableHeader::read_from_prefix(&bytes) else {
            return Err(Error::internal("a metadata table of the wrong length"));
        };
        if header.signature != *b"metadata" {
            return Err(Error::corrupt(field(0), "the metadata table has no signature"));
        }
        if header.reserved.get() != 0 || header.reserved2 != [0; 20] {
            return Err(Error::corrupt(field(8), "a reserved field of the metadata table is in use"));
        }
        let count = header.entry_count.get();
        if count > MAX_TABLE_ENTRIES {
            return Err(Error::corrupt(field(10), "the metadata table has too many entries")
                .expected(format_args!("at most {MAX_TABLE_ENTRIES}"), count));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let places = (add(at, 32, "a metadata table")?..).step_by(32);
        for (at, bytes) in places.zip(rest.chunks_exact(32)).take(usize::from(count)) {
            let entry = MetadataTableEntry::read_from_bytes(bytes)
                .map_err(|_| Error::internal("a metadata table entry of the wrong length"))?;
            entries.push(check_entry(&entry, at, region)?);
        }
        Ok(Self { at, entries })
    }

    /// Items must not overlap, nor appear twice, nor be too many or too much.
    fn check_places(&self, region: &Range<u64>) -> Result<()> {
        let field = |by| site("VHDX metadata table", self.at, by);
        let mut places: Vec<&Entry> = self.entries.iter().filter(|e| !e.place.is_empty()).collect();
        places.sort_unstable_by_key(|entry| entry.place.start);
        for pair in places.windows(2) {
            let [a, b] = pair else { continue };
            if b.place.start < a.place.end {
                return Err(Error::corrupt(b.field(16), "two metadata items overlap").expected(
                    format_args!("an offset of at least {}", length(&(region.start..a.place.end))),
                    length(&(region.start..b.place.start)),
                ));
            }
        }
        // At most 2047 items of at most 1 MiB.
        let total: u64 = places.iter().map(|entry| length(&entry.place)).sum();
        if total > MAX_ITEMS {
            return Err(Error::limit(field(10), "the file carries too much metadata")
                .expected(format_args!("at most {MAX_ITEMS} bytes"), total));
        }
        let mut names: Vec<(Uuid, bool)> = self.entries.iter().map(|e| (e.id, e.is_user())).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Error::corrupt(field(32), "the metadata table names an item twice"));
        }
        let user_items = self.entries.iter().filter(|entry| entry.is_user()).count();
        if user_items > MAX_USER_ITEMS {
            return Err(Error::corrupt(field(10), "the metadata table has too many user items")
                .expected(format_args!("at most {MAX_USER_ITEMS}"), user_items));
        }
        Ok(())
    }

    fn parse<R: ReadAt + ?Sized>(&self, file: &R) -> Result<DiskMetadata> {
        let (parameters_entry, parameters) = self.fixed::<8, R>(file, ITEM_FILE_PARAMETERS, false)?;
        let [a, b, c, d, e, f, g, h] = parameters;
        let stored = u64::from(u32::from_le_bytes([a, b, c, d]));
        let flags = u32::from_le_bytes([e, f, g, h]);
        let limits = Format::Vhdx.description();
        let block_size = limits.block_size(stored).ok_or_else(|| {
            Error::corrupt(parameters_entry.inside(0), "the block size is not allowed")
                .expected("a power of two from 1048576 to 268435456", stored)
        })?;
        if flags & !(LEAVE_BLOCK_ALLOCATED | HAS_PARENT) != 0 {
            return Err(Error::corrupt(
                parameters_entry.inside(4),
                "a reserved bit of the file parameters is in use",
            )
            .expected("0 to 3", flags));
        }
        let logical_sector_size = self.sector_size(file, ITEM_LOGICAL_SECTOR_SIZE)?;
        let physical_sector_size = self.sector_size(file, ITEM_PHYSICAL_SECTOR_SIZE)?;
        let (size_entry, size) = self.fixed::<8, R>(file, ITEM_VIRTUAL_DISK_SIZE, true)?;
        let virtual_size = u64::from_le_bytes(size);
        if virtual_size == 0 || !virtual_size.is_multiple_of(u64::from(logical_sector_size)) {
            return Err(Error::corrupt(
                size_entry.inside(0),
                "the size of the disk is no multiple of its sector size",
            )
            .expected(format_args!("n × {logical_sector_size}"), virtual_size));
        }
        if virtual_size > limits.max_disk_size {
            return Err(Error::corrupt(
                size_entry.inside(0),
                "the disk is larger than the 64 TiB that a VHDX can hold",
            )
            .expected(format_args!("at most {}", limits.max_disk_size), virtual_size));
        }
        let (_, id) = self.fixed::<16, R>(file, ITEM_VIRTUAL_DISK_ID, true)?;
        let has_parent = flags & HAS_PARENT != 0;
        Ok(DiskMetadata {
            block_size,
            leave_block_allocated: flags & LEAVE_BLOCK_ALLOCATED != 0,
            has_parent,
            virtual_size,
            virtual_disk_id: Uuid::from_bytes_le(id),
            logical_sector_size,
            physical_sector_size,
            locator: self.locator(file, has_parent)?,
            others: self.others(file)?,
        })
    }

    /// The system item `id`, which must be there.
    fn system(&self, id: Uuid, name: &str, virtual_disk: bool) -> Result<&Entry> {
        let entry =
            self.entries.iter().find(|entry| entry.id == id && !entry.is_user()).ok_or_else(|| {
                let field = site("VHDX metadata table", self.at, 10);
                Error::corrupt(field, format!("the metadata has no {name}"))
            })?;
        if (entry.flags & FLAG_VIRTUAL_DISK != 0) != virtual_disk {
            return Err(Error::corrupt(
                entry.field(24),
                format!(
                    "the flags of the {name} say the wrong thing of whether it belongs to the virtual disk"
                ),
            )
            .expected(if virtual_disk { "IsVirtualDisk set" } else { "IsVirtualDisk clear" }, entry.flags));
        }
        Ok(entry)
    }

    fn fixed<const N: usize, R: ReadAt + ?Sized>(
        &self,
        file: &R,
        id: Uuid,
        virtual_disk: bool,
    ) -> Result<(&Entry, [u8; N])> {
        let name = item_name(id);
        let entry = self.system(id, name, virtual_disk)?;
        let data = read_item(file, entry)?;
        let found = data.len();
        let bytes = data.try_into().map_err(|_| {
            Error::corrupt(entry.field(20), format!("the {name} has the wrong length"))
                .expected(format_args!("{N} bytes"), found)
        })?;
        Ok((entry, bytes))
    }

    fn sector_size<R: ReadAt + ?Sized>(&self, file: &R, id: Uuid) -> Result<u32> {
        let (entry, bytes) = self.fixed::<4, R>(file, id, true)?;
        let size = u32::from_le_bytes(bytes);
        if !matches!(size, 512 | 4096) {
            return Err(Error::corrupt(entry.inside(0), format!("the {} is not allowed", item_name(id)))
                .expected("512 or 4096", size));
        }
        Ok(size)
    }

    fn locator<R: ReadAt + ?Sized>(&self, file: &R, has_parent: bool) -> Result<Option<Locator>> {
        if !has_parent {
            // Without the flag nothing reads it.
            return Ok(None);
        }
        let entry = self.system(ITEM_PARENT_LOCATOR, item_name(ITEM_PARENT_LOCATOR), false)?;
        Locator::parse(&read_item(file, entry)?, entry.place.start).map(Some)
    }

    fn others<R: ReadAt + ?Sized>(&self, file: &R) -> Result<Vec<Item>> {
        let mut others = Vec::new();
        for entry in &self.entries {
            match entry.id {
                ITEM_FILE_PARAMETERS
                | ITEM_VIRTUAL_DISK_SIZE
                | ITEM_VIRTUAL_DISK_ID
                | ITEM_LOGICAL_SECTOR_SIZE
                | ITEM_PHYSICAL_SECTOR_SIZE
                | ITEM_PARENT_LOCATOR
                    if !entry.is_user() =>
                {
                    continue;
                }
                ITEM_INCOMPLETE_FILE if !entry.is_user() => {
                    return Err(Error::unsupported(
                        entry.field(0),
                        "the program that was making this VHDX has not ended its work; make the file again",
                    ));
                }
                ITEM_CHS_PARAMETERS | ITEM_PMEM_LABELS if !entry.is_user() => {}
                id if entry.flags & FLAG_REQUIRED != 0 => {
                    let message =
                        format!("this VHDX has metadata {id} that must be understood and is not known");
                    return Err(Error::unsupported(entry.field(0), message));
                }
                _ => {}
            }
            others.push(Item { id: entry.id, flags: entry.flags, data: read_item(file, entry)? });
        }
        Ok(others)
    }
}

fn item_name(id: Uuid) -> &'static str {
    match id {
        ITEM_FILE_PARAMETERS => "file parameters item",
        ITEM_VIRTUAL_DISK_SIZE => "virtual disk size",
        ITEM_VIRTUAL_DISK_ID => "virtual disk id",
        ITEM_LOGICAL_SECTOR_SIZE => "logical sector size",
        ITEM_PHYSICAL_SECTOR_SIZE => "physical sector size",
        ITEM_PARENT_LOCATOR => "parent locator",
        _ => "metadata item",
    }
}

fn check_entry(entry: &MetadataTableEntry, at: u64, region: &Range<u64>) -> Result<Entry> {
    let field = |by| site("VHDX metadata table", at, by);
    let (offset, len) = (u64::from(entry.offset.get()), u64::from(entry.length.get()));
    if len > MAX_ITEM {
        return Err(Error::corrupt(field(20), "a metadata item is too long")
            .expected(format_args!("at most {MAX_ITEM} bytes"), len));
    }
    let region_len = length(region);
    let item_end = add(offset, len, "a metadata item")?;
    let fits = offset >= TABLE_LEN && item_end <= region_len;
    if len == 0 && offset != 0 || len != 0 && !fits {
        return Err(Error::corrupt(field(16), "a metadata item does not lie inside the metadata region")
            .expected(format_args!("{len} bytes from {TABLE_LEN} to {region_len}, or 0 for none"), offset));
    }
    let flags = entry.flags.get();
    if flags & !(FLAG_USER | FLAG_VIRTUAL_DISK | FLAG_REQUIRED) != 0 || entry.reserved2.get() != 0 {
        return Err(Error::corrupt(field(24), "a reserved field of a metadata entry is in use")
            .expected("flags of 0 to 7", flags));
    }
    let place =
        add(region.start, offset, "a metadata item")?..add(region.start, item_end, "a metadata item")?;
    Ok(Entry { id: Uuid::from_bytes_le(entry.item_id), flags, at, place })
}

fn read_item<R: ReadAt + ?Sized>(file: &R, entry: &Entry) -> Result<Vec<u8>> {
    read_vec(file, entry.place.start, index(length(&entry.place), "a metadata item")?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        DISK_ID, DISK_SIZE, FILE_PARAMETERS, ITEMS, LOGICAL, METADATA, MIB as MB, PHYSICAL, TestImage,
        breaks, breaks_as,
    };
    use crate::error::ErrorKind;
    use crate::image::{DiskType, Metadata};
    use uuid::Uuid;

    const UNKNOWN: &str = "00000000-0000-0000-0000-00000000abcd";

    #[test]
    fn every_field_of_the_table_is_checked() {
        let image = TestImage::dynamic();
        let fp = image.item_entry(0);
        breaks(&image, "table has no signature", |i| i.put(METADATA, b"metadatb"));
        breaks(&image, "reserved field of the metadata table", |i| i.put16(METADATA + 8, 1));
        breaks(&image, "reserved field of the metadata table", |i| i.put(METADATA + 31, &[1]));
        breaks(&image, "too many entries", |i| i.put16(METADATA + 10, 2048));
        // So many there may be; those behind the first five are empty here, and name the same item.
        breaks(&image, "names an item twice", |i| i.put16(METADATA + 10, 2047));
        breaks(&image, "reserved field of a metadata entry", |i| i.put32(fp + 24, 4 | 8));
        breaks(&image, "reserved field of a metadata entry", |i| i.put32(fp + 28, 1));
        breaks(&image, "item is too long", |i| i.put32(fp + 20, (1 << 20) + 1));
        breaks(&image, "does not lie inside", |i| i.put32(fp + 16, (64 << 10) - 8));
        breaks(&image, "does not lie inside", |i| i.put32(fp + 16, (1 << 20) - 7));
        breaks(&image, "does not lie inside", |i| i.put32(fp + 16, u32::MAX));
        breaks(&image, "does not lie inside", |i| i.put32(fp + 20, 0));
        breaks(&image, "items overlap", |i| i.put32(fp + 16, (64 << 10) + 4));
        breaks(&image, "names an item twice", |i| i.item(5, UNKNOWN_FP, ITEMS + 200, 8, 4));
        breaks(&image, "too many user items", |i| {
            for n in 0..1025 {
                i.item(5 + n, &Uuid::from_u128(n as u128).to_string(), 0, 0, 1);
            }
        });
    }

    const UNKNOWN_FP: &str = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";

    #[test]
    fn required_items_must_be_there_and_known() {
        let image = TestImage::dynamic();
        let names =
            ["file parameters", "virtual disk size", "virtual disk id", "logical sector", "physical sector"];
        for (n, name) in names.into_iter().enumerate() {
            let at = image.item_entry(n);
            // Another id, as an optional item; and the same one as a user's item.
            breaks(&image, &format!("metadata has no {name}"), |i| {
                i.put(at, &[7; 16]);
                i.put32(at + 24, 0);
            });
            breaks(&image, &format!("metadata has no {name}"), |i| i.put32(at + 24, 1));
            breaks(&image, "flags of the", |i| i.put32(at + 24, if n == 0 { 6 } else { 4 }));
            breaks(&image, "has the wrong length", |i| i.put32(at + 20, 3));
        }
        for flags in [4, 5, 6] {
            breaks_as(&image, ErrorKind::Unsupported, "must be understood", |i| {
                i.item(5, UNKNOWN, 0, 0, flags)
            });
        }
        breaks_as(&image, ErrorKind::Unsupported, "has not ended its work", |i| {
            i.item(5, "71cc85f0-1b69-4e28-9558-c3bf83ae75d3", 0, 0, 4);
        });
    }

    #[test]
    fn every_value_is_checked() {
        let image = TestImage::dynamic();
        for bad in [0, 512 << 10, 3 << 20, 512 << 20] {
            breaks(&image, "block size is not allowed", |i| i.put32(FILE_PARAMETERS, bad));
        }
        breaks(&image, "reserved bit of the file parameters", |i| i.put32(FILE_PARAMETERS + 4, 4));
        breaks(&image, "no parent locator", |i| i.put32(FILE_PARAMETERS + 4, 2));
        for (place, name) in [(LOGICAL, "logical"), (PHYSICAL, "physical")] {
            for bad in [0, 513, 1024, 8192] {
                breaks(&image, &format!("{name} sector size is not allowed"), |i| i.put32(place, bad));
            }
        }
        breaks(&image, "no multiple of its sector size", |i| i.put64(DISK_SIZE, 0));
        breaks(&image, "no multiple of its sector size", |i| i.put64(DISK_SIZE, (3 << 20) + 511));
        breaks(&image, "no multiple of its sector size", |i| {
            i.put32(LOGICAL, 4096);
            i.put64(DISK_SIZE, (3 << 20) + 512);
        });
        breaks(&image, "larger than the 64 TiB", |i| i.put64(DISK_SIZE, (64 << 40) + 512));
        // So large it may be; the table of this image is not.
        breaks(&image, "BAT", |i| i.put64(DISK_SIZE, 64 << 40));
    }

    #[test]
    fn sizes_and_identity_are_read() {
        let mut image = TestImage::dynamic();
        image.put(DISK_ID, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let opened = image.open().unwrap();
        assert_eq!(opened.geometry.virtual_size, (3 << 20) + (512 << 10));
        assert_eq!(opened.geometry.addressable_size, opened.geometry.virtual_size);
        assert_eq!((opened.geometry.logical_sector_size, opened.geometry.physical_sector_size), (512, 4096));
        let Metadata::Vhdx(metadata) = &opened.metadata else { panic!() };
        assert_eq!(metadata.virtual_disk_id.to_string(), "04030201-0605-0807-090a-0b0c0d0e0f10");
        for (flags, disk_type) in [(0, DiskType::Dynamic), (1, DiskType::Fixed)] {
            image.put32(FILE_PARAMETERS + 4, flags);
            assert_eq!(image.open().unwrap().disk_type, disk_type);
        }
        let mut child = TestImage::differencing();
        child.put32(FILE_PARAMETERS + 4, 3);
        assert_eq!(child.open().unwrap().disk_type, DiskType::Differencing);
    }

    #[test]
    fn other_items_are_kept_as_they_are() {
        let mut image = TestImage::dynamic();
        image.item(5, UNKNOWN, ITEMS + 100, 5, 2);
        image.put(ITEMS + 100, b"hello");
        image.item(6, UNKNOWN, 0, 0, 3);
        image.item(7, "da02d7bc-3d3a-423c-ac88-2a36ab21479b", ITEMS + 300, 12, 6);
        let Metadata::Vhdx(metadata) = image.open().unwrap().metadata else { panic!() };
        let items: Vec<_> = metadata.items.iter().map(|item| (item.flags, item.data.len())).collect();
        assert_eq!(items, [(2, 5), (3, 0), (6, 12)]);
        assert_eq!(metadata.items[0].data, b"hello");
        assert_eq!(metadata.items[0].id.to_string(), UNKNOWN);
    }

    #[test]
    fn metadata_does_not_fill_memory() {
        let mut image = TestImage::dynamic();
        image.bytes.resize(46 * MB, 0);
        for table in [192 << 10, 256 << 10] {
            image.region(table, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", 6 * MB, 40 * MB, 1);
        }
        let table = image.bytes[METADATA..METADATA + (128 << 10)].to_vec();
        image.put(6 * MB, &table);
        image.seal();
        image.open().unwrap();
        for n in 0..33u32 {
            let at = 6 * MB + 32 + (5 + n as usize) * 32;
            image.put(at, &[n as u8 + 1; 16]);
            image.put32(at + 16, (n + 1) << 20);
            image.put32(at + 20, 1 << 20);
            image.put32(at + 24, 1);
            image.put16(6 * MB + 10, n as u16 + 6);
        }
        image.refused(ErrorKind::LimitExceeded, "too much metadata");
        // What the disk itself says takes little: 31 more are within the limit.
        image.put16(6 * MB + 10, 31 + 5);
        image.open().unwrap();
    }
}
