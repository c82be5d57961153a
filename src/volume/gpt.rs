//! GUID partition table.
//!
//! ```text
//!   LBA 0            1        2 …                              …      last
//!   │ protective MBR │ header │ entries │ partitions │ entries │ header │
//!                      primary ─────────┘              └──────── backup
//! ```
//! The header carries a CRC of itself and one of the entries; the backup header mirrors the primary
//! with its own places. An LBA counts logical sectors, so a disk copied between sector sizes of 512
//! and 4096 bytes has its header where the other size would put it.
//!
//! Source: UEFI 2.10 §5.3.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32;
use crate::error::Result;
use crate::io::{ReadAt, check_range, read_vec};
use crate::units::{index, sort_ranges};

const SIGNATURE: [u8; 8] = *b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// The smallest header size of the specification: nothing above it is defined.
const HEADER_SIZE: u64 = 92;
/// Tools write 128 entries; nothing is known to write more than a few hundred.
const MAX_ENTRIES: u32 = 8192;
/// How many bytes of entries are read at most.
const MAX_ENTRY_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32<LE>,
    header_size: U32<LE>,
    header_crc32: U32<LE>,
    reserved: U32<LE>,
    my_lba: U64<LE>,
    alternate_lba: U64<LE>,
    first_usable_lba: U64<LE>,
    last_usable_lba: U64<LE>,
    disk_guid: [u8; 16],
    partition_entry_lba: U64<LE>,
    number_of_partition_entries: U32<LE>,
    size_of_partition_entry: U32<LE>,
    partition_entry_array_crc32: U32<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    partition_type: [u8; 16],
    _partition: [u8; 16],
    starting_lba: U64<LE>,
    ending_lba: U64<LE>,
    _attributes: U64<LE>,
    name: [U16<LE>; 36],
}

/// One partition; sectors with `end` excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) index: u32,
    pub(super) kind: Uuid,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) name: Option<String>,
}

/// A partition table that its checksums prove.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The size of the sectors it counts in.
    pub(super) sector_size: u64,
    pub(super) partitions: Vec<Partition>,
    /// The sectors for partitions.
    pub(super) usable: Range<u64>,
    /// The sectors of the table's own structures.
    pub(super) own: Vec<Range<u64>>,
    /// What the other copy looks like.
    pub(super) copies: Copies,
}

/// How the two copies of the table agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// Both are valid and say the same.
    Agree,
    /// Only the primary is valid.
    NoBackup,
    /// Only the backup is valid.
    NoPrimary,
    /// Both are valid and differ; every system reads the primary.
    Differ,
}

/// Reads the table of a disk with sectors of `sector_size` bytes; none if neither copy is valid.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn read(disk: &dyn ReadAt, sector_size: u64) -> Result<Option<Table>> {
    let Some(last) = disk.size().checked_div(sector_size).and_then(|sectors| sectors.checked_sub(1)) else {
        return Ok(None);
    };
    let primary = Copy::read(disk, sector_size, 1)?;
    let backup_at = header(disk, sector_size, 1)?.map_or(last, |header| header.alternate_lba.get());
    let backup = if backup_at > 1 { Copy::read(disk, sector_size, backup_at)? } else { None };
    let (copy, copies) = match (primary, &backup) {
        (Some(primary), Some(backup)) if primary.says_the_same(backup) => (primary, Copies::Agree),
        (Some(primary), Some(_)) => (primary, Copies::Differ),
        (Some(primary), None) => (primary, Copies::NoBackup),
        (None, Some(backup)) => (backup.clone(), Copies::NoPrimary),
        (None, None) => return Ok(None),
    };
    let mut own = vec![0..1, 1..2];
    for copy in backup.iter().chain([&copy]) {
        own.extend([copy.own_header(), copy.own_entries(sector_size)]);
    }
    sort_ranges(&mut own);
    own.dedup();
    let usable = copy.header.first_usable_lba.get()..after(copy.header.last_usable_lba.get());
    Ok(Some(Table { sector_size, partitions: copy.partitions()?, usable, own, copies }))
}

/// Whether a valid primary header stands in sector 1, whatever the entries are.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn has_primary_header(disk: &dyn ReadAt, sector_size: u64) -> Result<bool> {
    Ok(header(disk, sector_size, 1)?.is_some())
}

/// One valid copy of the table.
#[derive(Clone)]
struct Copy {
    header: RawHeader,
    entries: Vec<u8>,
}

impl Copy {
    /// The copy whose header is at `lba`, if its checksums are right.
    fn read(disk: &dyn ReadAt, sector_size: u64, lba: u64) -> Result<Option<Self>> {
        let Some(header) = header(disk, sector_size, lba)? else { return Ok(None) };
        let count = header.number_of_partition_entries.get();
        let size = u64::from(header.size_of_partition_entry.get());
        let bytes = size.checked_mul(count.into()).filter(|&bytes| bytes <= MAX_ENTRY_BYTES);
        let Some(bytes) = bytes else { return Ok(None) };
        let sane =
            (128..=4096).contains(&size) && size.is_power_of_two() && (1..=MAX_ENTRIES).contains(&count);
        let offset = header.partition_entry_lba.get().checked_mul(sector_size);
        let Some(offset) = offset.filter(|&at| sane && check_range(disk, at, bytes).is_ok()) else {
            return Ok(None);
        };
        let entries = read_vec(disk, offset, index(bytes, "the GPT entries")?)?;
        let valid = crc32([entries.as_slice()]) == header.partition_entry_array_crc32.get();
        Ok(valid.then_some(Self { header, entries }))
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.entries == other.entries && self.header.disk_guid == other.header.disk_guid
    }

    fn own_header(&self) -> Range<u64> {
        let at = self.header.my_lba.get();
        at..after(at)
    }

    fn own_entries(&self, sector_size: u64) -> Range<u64> {
        let at = self.header.partition_entry_lba.get();
        // They were read there, so their end fits.
        at..at.wrapping_add(crate::units::len64(self.entries.len()).div_ceil(sector_size))
    }

    fn partitions(&self) -> Result<Vec<Partition>> {
        let size = index(self.header.size_of_partition_entry.get().into(), "a GPT entry")?;
        let entries = self.entries.chunks_exact(size).map(RawEntry::ref_from_prefix);
        Ok((1u32..)
            .zip(entries)
            .filter_map(|(index, entry)| Some((index, entry.ok()?.0)))
            .filter(|(_, entry)| entry.partition_type != [0; 16])
            .map(|(index, entry)| Partition {
                index,
                kind: Uuid::from_bytes_le(entry.partition_type),
                first: entry.starting_lba.get(),
                end: after(entry.ending_lba.get()),
                name: text(&entry.name),
            })
            .collect())
    }
}

/// The sector after `last`. The highest number is clamped: no disk has a sector there.
const fn after(last: u64) -> u64 {
    last.saturating_add(1)
}

/// The header at `lba`, if it is valid by itself.
fn header(disk: &dyn ReadAt, sector_size: u64, lba: u64) -> Result<Option<RawHeader>> {
    let Some(offset) = lba.checked_mul(sector_size).filter(|&at| check_range(disk, at, sector_size).is_ok())
    else {
        return Ok(None);
    };
    let sector = read_vec(disk, offset, index(sector_size, "a sector")?)?;
    let Ok((header, _)) = RawHeader::read_from_prefix(&sector) else { return Ok(None) };
    let size = u64::from(header.header_size.get());
    let usable = header.first_usable_lba.get()..=header.last_usable_lba.get();
    let valid = header.signature == SIGNATURE
        && header.revision.get() == REVISION
        && (HEADER_SIZE..=sector_size).contains(&size)
        && header.my_lba.get() == lba
        && !usable.is_empty()
        && header.header_crc32.get() == header_crc(&header, sector.get(..index(size, "a GPT header")?));
    Ok(valid.then_some(header))
}

/// The CRC of a header counts its own field as zero, and whatever follows the defined fields.
fn header_crc(header: &RawHeader, sector: Option<&[u8]>) -> u32 {
    let mut blank = header.clone();
    blank.header_crc32.set(0);
    let rest = sector.and_then(|bytes| bytes.get(size_of::<RawHeader>()..)).unwrap_or_default();
    crc32([blank.as_bytes(), rest])
}

fn text(name: &[U16<LE>]) -> Option<String> {
    let units: Vec<u16> = name.iter().map(|unit| unit.get()).take_while(|&unit| unit != 0).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table for tests: what to write, and where.
    #[derive(Clone)]
    pub(in crate::volume) struct Builder {
        pub(in crate::volume) sector_size: usize,
        pub(in crate::volume) sectors: u64,
        /// Type (its first byte), first and last sector, name.
        pub(in crate::volume) partitions: Vec<(u8, u64, u64, &'static str)>,
        pub(in crate::volume) entry_size: usize,
    }

    impl Builder {
        pub(in crate::volume) fn new(sector_size: usize, sectors: u64) -> Self {
            Self { sector_size, sectors, partitions: vec![(1, 40, 99, "Ünix 🐧")], entry_size: 128 }
        }

        fn entries(&self) -> Vec<u8> {
            let mut all = vec![0; 8 * self.entry_size];
            for (i, &(kind, first, last, name)) in self.partitions.iter().enumerate() {
                let entry = &mut all[i * self.entry_size..][..self.entry_size];
                entry[0] = kind;
                entry[16] = 0x77;
                entry[32..40].copy_from_slice(&first.to_le_bytes());
                entry[40..48].copy_from_slice(&last.to_le_bytes());
                for (j, unit) in name.encode_utf16().enumerate() {
                    entry[56 + j * 2..][..2].copy_from_slice(&unit.to_le_bytes());
                }
            }
            all
        }

        pub(in crate::volume) fn build(&self) -> Vec<u8> {
            let size = self.sector_size;
            let mut disk = vec![0; size * usize::try_from(self.sectors).unwrap()];
            let last = self.sectors - 1;
            let entries = self.entries();
            for (my, alternate, at) in [(1, last, 2), (last, 1, last - 8)] {
                disk[usize::try_from(at).unwrap() * size..][..entries.len()].copy_from_slice(&entries);
                let mut header = RawHeader {
                    signature: SIGNATURE,
                    revision: REVISION.into(),
                    header_size: 92.into(),
                    header_crc32: 0.into(),
                    reserved: 0.into(),
                    my_lba: my.into(),
                    alternate_lba: alternate.into(),
                    first_usable_lba: 34.into(),
                    last_usable_lba: (last - 9).into(),
                    disk_guid: [9; 16],
                    partition_entry_lba: at.into(),
                    number_of_partition_entries: 8.into(),
                    size_of_partition_entry: u32::try_from(self.entry_size).unwrap().into(),
                    partition_entry_array_crc32: crc32([entries.as_slice()]).into(),
                };
                header.header_crc32.set(crc32([header.as_bytes()]));
                disk[usize::try_from(my).unwrap() * size..][..92].copy_from_slice(header.as_bytes());
            }
            crate::volume::mbr::tests::put(&mut disk, 0, &[(0, 0xEE, 1, u32::MAX)]);
            disk
        }
    }

    /// Changes `len` bytes at `field` of the header in sector 1 and makes its checksum right again.
    fn edit(disk: &mut [u8], field: usize, value: &[u8]) {
        disk[512 + field..][..value.len()].copy_from_slice(value);
        disk[512 + 16..][..4].fill(0);
        let crc = crc32([&disk[512..512 + 92]]);
        disk[512 + 16..][..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn table(disk: &dyn ReadAt) -> Table {
        read(disk, 512).unwrap().unwrap()
    }

    #[test]
    fn both_sector_sizes_and_larger_entries_are_read() {
        for (sector_size, entry_size) in [(512, 128), (512, 256), (4096, 128), (4096, 4096)] {
            let builder = Builder { entry_size, ..Builder::new(sector_size, 256) };
            let found = read(&builder.build(), sector_size.try_into().unwrap()).unwrap().unwrap();
            assert_eq!(found.copies, Copies::Agree);
            let [only] = &found.partitions[..] else { panic!("{found:?}") };
            assert_eq!((only.index, only.first, only.end), (1, 40, 100));
            assert_eq!(only.name.as_deref(), Some("Ünix 🐧"));
        }
    }

    #[test]
    fn unused_entries_keep_their_numbers_free() {
        let partitions = vec![(1, 40, 49, ""), (0, 0, 0, ""), (1, 50, 59, "c")];
        let disk = Builder { partitions, ..Builder::new(512, 256) }.build();
        let indices: Vec<u32> = table(&disk).partitions.iter().map(|p| p.index).collect();
        assert_eq!(indices, [1, 3]);
    }

    #[test]
    fn a_primary_with_one_wrong_field_gives_way_to_the_backup() {
        let good = Builder::new(512, 256).build();
        assert_eq!(table(&good).copies, Copies::Agree);
        let edits: [(usize, &[u8]); 10] = [
            (0, b"EFI PARX"),
            (8, &0x0002_0000u32.to_le_bytes()),
            (12, &91u32.to_le_bytes()),
            (12, &513u32.to_le_bytes()),
            (24, &2u64.to_le_bytes()),
            (40, &1000u64.to_le_bytes()),
            (72, &u64::MAX.to_le_bytes()),
            (80, &(MAX_ENTRIES + 1).to_le_bytes()),
            (84, &136u32.to_le_bytes()),
            (88, &0u32.to_le_bytes()),
        ];
        for (field, value) in edits {
            let mut disk = good.clone();
            edit(&mut disk, field, value);
            let found = table(&disk);
            assert_eq!((found.copies, found.partitions.len()), (Copies::NoPrimary, 1), "field {field}");
        }
        let mut disk = good.clone();
        disk[512 + 60] ^= 1;
        assert_eq!(table(&disk).copies, Copies::NoPrimary, "checksum of the header");
        let mut disk = good.clone();
        disk[1024 + 100] ^= 1;
        assert_eq!(table(&disk).copies, Copies::NoPrimary, "checksum of the entries");
    }

    #[test]
    fn a_damaged_or_different_backup_is_noticed() {
        let good = Builder::new(512, 256).build();
        let mut disk = good.clone();
        disk[255 * 512] = 0;
        assert_eq!(table(&disk).copies, Copies::NoBackup);
        disk[512] = 0;
        assert!(read(&disk, 512).unwrap().is_none());
        let other = Builder { partitions: vec![(1, 40, 49, "")], ..Builder::new(512, 256) }.build();
        let mut disk = good;
        disk[128 * 512..].copy_from_slice(&other[128 * 512..]);
        let found = table(&disk);
        assert_eq!((found.copies, found.partitions[0].end), (Copies::Differ, 100));
    }

    #[test]
    fn a_disk_of_no_sectors_has_no_table() {
        assert!(read(&vec![0; 511], 512).unwrap().is_none());
        assert!(read(&Vec::new(), 4096).unwrap().is_none());
    }
}
