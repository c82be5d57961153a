//! The header section: file type identifier, the two headers, the two region tables (MS-VHDX 2.2).
//!
//! ```text
//!   0          64 KiB     128 KiB    192 KiB          256 KiB          1 MiB
//!   identifier │ header 1 │ header 2 │ region table 1 │ region table 2 │ …
//!              └─ the valid one with    └─ the first valid one is used
//!                 the greater sequence number is current
//! ```
//! Headers are never in the log; region tables are, so they are read after it is replayed.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    FileIdentifier, HEADER_OFFSETS, Header, MAX_TABLE_ENTRIES, MIB, REGION_BAT, REGION_METADATA,
    REGION_TABLE_OFFSETS, RegionTableEntry, RegionTableHeader, SIGNATURE, TABLE_LEN, checksum,
};
use super::space::{Conflict, FileSpace, file_range};
use crate::error::{Error, Result, Site, Warning};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{Space, add, index, mul};

/// What the current header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentHeader {
    /// Identifies the file's contents.
    pub file_write_guid: Uuid,
    /// Identifies the virtual disk's contents.
    pub data_write_guid: Uuid,
    /// The identifier that valid log entries carry; none if there is nothing to replay.
    pub log_guid: Option<Uuid>,
    /// The log's bytes in the file; empty if there is no log.
    pub log: Range<u64>,
}

/// Where the regions are. Both lie inside the file, on MiB, and overlap nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    /// The BAT.
    pub bat: Range<u64>,
    /// The metadata.
    pub metadata: Range<u64>,
}

/// Checks the file type identifier and gives the creator's name: text of unknown origin.
pub fn read_creator<R: ReadAt + ?Sized>(file: &R) -> Result<String> {
    let site = Site { structure: "VHDX file identifier", space: Space::File, offset: 0 };
    if file.size() < MIB {
        return Err(Error::corrupt(
            site,
            "the file is too short to hold a VHDX header section (is it cut off?)",
        )
        .expected(format_args!("{MIB} bytes or more"), file.size()));
    }
    let identifier: FileIdentifier = read_struct(file, 0)?;
    if identifier.signature != *SIGNATURE {
        return Err(Error::corrupt(site, "the file identifier has no signature"));
    }
    let units = identifier.creator.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
    let units = units.map(u16::from_le_bytes).take_while(|&unit| unit != 0);
    Ok(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

/// Finds the current header.
pub fn read_header<R: ReadAt + ?Sized>(file: &R, warnings: &mut Vec<Warning>) -> Result<CurrentHeader> {
    let [first, second] = HEADER_OFFSETS;
    let (header, at) = match (valid_header(file, first)?, valid_header(file, second)?) {
        (Some(a), Some(b)) if a.sequence_number.get() > b.sequence_number.get() => (a, first),
        (Some(a), Some(b)) if a.sequence_number.get() < b.sequence_number.get() => (b, second),
        // Disk2vhd writes the same header twice.
        (Some(a), Some(b)) if a == b => (a, first),
        (Some(a), Some(_)) => {
            return Err(Error::corrupt(
                site("VHDX header", second, 8),
                "the two headers have the same sequence number and differ, so neither is current",
            )
            .expected("different sequence numbers", a.sequence_number.get()));
        }
        (Some(header), None) => (header, first),
        (None, Some(header)) => (header, second),
        (None, None) => {
            return Err(Error::corrupt(
                site("VHDX header", first, 0),
                "neither of the two headers has its signature and a right checksum",
            ));
        }
    };
    let other = if at == first { second } else { first };
    if valid_header(file, other)?.is_none() {
        warnings.push(Warning::new(
            "header-damaged",
            format!(
                "The header at {other:#x} is damaged (a power failure?); the other one is good and was used."
            ),
        ));
    }
    check_header(&header, at, file.size())
}

fn site(structure: &'static str, at: u64, by: u64) -> Site {
    Site { structure, space: Space::File, offset: at }.field(by)
}

fn valid_header<R: ReadAt + ?Sized>(file: &R, at: u64) -> Result<Option<Header>> {
    let header: Header = read_struct(file, at)?;
    let valid = header.signature == *b"head" && header.checksum.get() == checksum([header.as_bytes()]);
    Ok(valid.then_some(header))
}

fn check_header(header: &Header, at: u64, file_size: u64) -> Result<CurrentHeader> {
    let field = |by| site("VHDX header", at, by);
    if header.version.get() != 1 {
        return Err(Error::unsupported(field(66), "the version of this VHDX is not known")
            .expected(1, header.version.get()));
    }
    let log_guid = Some(Uuid::from_bytes_le(header.log_guid)).filter(|guid| !guid.is_nil());
    if log_guid.is_some() && header.log_version.get() != 0 {
        return Err(Error::unsupported(
            field(64),
            "the log must be replayed and is of a version that is not known",
        )
        .expected(0, header.log_version.get()));
    }
    let (offset, length) = (header.log_offset.get(), u64::from(header.log_length.get()));
    if !length.is_multiple_of(MIB) {
        return Err(Error::corrupt(field(68), "the length of the log is no multiple of 1 MiB")
            .expected("n × 1048576", length));
    }
    if !offset.is_multiple_of(MIB) {
        return Err(Error::corrupt(field(72), "the log does not begin on a multiple of 1 MiB")
            .expected("n × 1048576", offset));
    }
    if length == 0 && log_guid.is_some() {
        return Err(Error::corrupt(field(68), "there is something to replay and no log")
            .expected("1048576 or more", 0));
    }
    let end = offset.checked_add(length).filter(|&end| end <= file_size);
    let log = match end {
        _ if length == 0 => 0..0,
        Some(end) if offset >= MIB => offset..end,
        Some(_) => {
            return Err(Error::corrupt(field(72), "the log lies in the header section")
                .expected(format_args!("{MIB} or more"), offset));
        }
        None => {
            return Err(Error::corrupt(
                field(72),
                "the log reaches past the end of the file (is it cut off?)",
            )
            .expected(format_args!("{length} bytes before {file_size}"), format_args!("offset {offset}")));
        }
    };
    Ok(CurrentHeader {
        file_write_guid: Uuid::from_bytes_le(header.file_write_guid),
        data_write_guid: Uuid::from_bytes_le(header.data_write_guid),
        log_guid,
        log,
    })
}

/// Finds the regions, and takes their space.
pub fn read_regions<R: ReadAt + ?Sized>(
    file: &R,
    space: &mut FileSpace,
    warnings: &mut Vec<Warning>,
) -> Result<Regions> {
    let [first, second] = REGION_TABLE_OFFSETS;
    let (table, at) = match (valid_table(file, first)?, valid_table(file, second)?) {
        (Some(a), Some(b)) => {
            if a != b {
                warnings.push(Warning::new(
                    "region-tables-differ",
                    "The two copies of the region table differ; the first one was used.",
                ));
            }
            (a, first)
        }
        (Some(table), None) => {
            warnings.push(damaged_table(second));
            (table, first)
        }
        (None, Some(table)) => {
            warnings.push(damaged_table(first));
            (table, second)
        }
        (None, None) => {
            return Err(Error::corrupt(
                site("VHDX region table", first, 0),
                "neither copy of the region table has its signature, a right checksum and at most 2047 entries",
            ));
        }
    };
    RegionTable { entries: table, at }.check(space, warnings)
}

fn damaged_table(at: u64) -> Warning {
    Warning::new(
        "region-table-damaged",
        format!("The copy of the region table at {at:#x} is damaged; the other one is good and was used."),
    )
}

/// The entries of a valid table, as bytes.
fn valid_table<R: ReadAt + ?Sized>(file: &R, at: u64) -> Result<Option<Vec<u8>>> {
    let bytes = read_vec(file, at, index(TABLE_LEN, "a region table")?)?;
    let Ok((header, rest)) = RegionTableHeader::read_from_prefix(&bytes) else { return Ok(None) };
    let count = header.entry_count.get();
    let valid = header.signature == *b"regi"
        && header.checksum.get() == checksum([bytes.as_slice()])
        && count <= u32::from(MAX_TABLE_ENTRIES);
    if !valid {
        return Ok(None);
    }
    let len = index(mul(u64::from(count), 32, "a region table")?, "a region table")?;
    Ok(rest.get(..len).map(<[u8]>::to_vec))
}

struct RegionTable {
    entries: Vec<u8>,
    at: u64,
}

impl RegionTable {
    fn check(&self, space: &mut FileSpace, warnings: &mut Vec<Warning>) -> Result<Regions> {
        self.check_unique()?;
        let (mut bat, mut metadata) = (None, None);
        let places = (add(self.at, 16, "a region table")?..).step_by(32);
        for (at, bytes) in places.zip(self.entries.chunks_exact(32)) {
            let entry = RegionTableEntry::read_from_bytes(bytes)
                .map_err(|_| Error::internal("a region table entry of the wrong length"))?;
            let guid = Uuid::from_bytes_le(entry.guid);
            let range = check_entry(&entry, at, space)?;
            match guid {
                REGION_BAT => bat = Some(range),
                REGION_METADATA => metadata = Some(range),
                _ if entry.required.get() != 0 => {
                    return Err(Error::unsupported(
                        site("VHDX region table", at, 0),
                        format!("this VHDX has a region {guid} that must be understood and is not known"),
                    ));
                }
                _ => warnings.push(Warning::new(
                    "region-dropped",
                    format!(
                        "The file has an optional region {guid} that is not known; it is not carried over."
                    ),
                )),
            }
        }
        let missing = |name: &str| {
            Error::corrupt(site("VHDX region table", self.at, 16), format!("the region table has no {name}"))
        };
        Ok(Regions {
            bat: bat.ok_or_else(|| missing("BAT"))?,
            metadata: metadata.ok_or_else(|| missing("metadata region"))?,
        })
    }

    fn check_unique(&self) -> Result<()> {
        let mut guids: Vec<&[u8]> = self.entries.chunks_exact(32).filter_map(|e| e.get(..16)).collect();
        guids.sort_unstable();
        if guids.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            let field = site("VHDX region table", self.at, 16);
            return Err(Error::corrupt(field, "the region table names a region twice"));
        }
        Ok(())
    }
}

fn check_entry(entry: &RegionTableEntry, at: u64, space: &mut FileSpace) -> Result<Range<u64>> {
    let field = |by| site("VHDX region table", at, by);
    let (offset, length) = (entry.file_offset.get(), u64::from(entry.length.get()));
    if !offset.is_multiple_of(MIB) || offset < MIB {
        return Err(Error::corrupt(field(16), "a region does not begin on a multiple of 1 MiB")
            .expected("n × 1048576, at least 1048576", offset));
    }
    if !length.is_multiple_of(MIB) {
        return Err(Error::corrupt(field(24), "the length of a region is no multiple of 1 MiB")
            .expected("n × 1048576", length));
    }
    let name = match Uuid::from_bytes_le(entry.guid) {
        REGION_BAT => "the BAT",
        REGION_METADATA => "the metadata region",
        _ => "a region",
    };
    let range = file_range(offset, length);
    match space.claim_structure(name, range.clone()) {
        Ok(()) => Ok(range),
        Err(Conflict::PastEnd) => Err(Error::corrupt(
            field(16),
            format!("{name} reaches past the end of the file (is it cut off?)"),
        )
        .expected(format_args!("an end of at most {}", space.size()), range.end)),
        Err(Conflict::Structure(other)) => Err(Error::corrupt(field(16), format!("{name} overlaps {other}"))
            .expected("an offset of its own", format_args!("{offset:#x}"))),
        Err(Conflict::Block) => Err(Error::internal("a block was placed before the regions")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BAT, HEADER_1, HEADER_2, METADATA, MIB as MB, REGIONS_1, REGIONS_2, TestImage, breaks, breaks_as,
    };
    use crate::error::ErrorKind;

    /// Changes both headers alike.
    fn both(image: &mut TestImage, change: impl Fn(&mut TestImage, usize)) {
        change(image, HEADER_1);
        change(image, HEADER_2);
    }

    /// Changes both region tables alike.
    fn tables(image: &mut TestImage, change: impl Fn(&mut TestImage, usize)) {
        change(image, REGIONS_1);
        change(image, REGIONS_2);
    }

    fn codes(image: &TestImage) -> Vec<&'static str> {
        image.open().unwrap().warnings.iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn the_identifier_and_the_length_are_checked() {
        let image = TestImage::dynamic();
        breaks(&image, "identifier has no signature", |i| i.put(0, b"vhdxfilf"));
        let short = TestImage { bytes: image.bytes[..MB - 1].to_vec() };
        short.refused(ErrorKind::Corrupt, "too short");
        TestImage { bytes: Vec::new() }.refused(ErrorKind::Corrupt, "too short");
    }

    #[test]
    fn the_header_with_the_greater_sequence_number_is_current() {
        let mut image = TestImage::dynamic();
        image.put(HEADER_1 + 32, &[1; 16]);
        image.put(HEADER_2 + 32, &[2; 16]);
        image.seal();
        assert_eq!(image.open().unwrap().identity.into_bytes(), [2; 16]);
        image.put64(HEADER_1 + 8, 6);
        image.seal();
        assert_eq!(image.open().unwrap().identity.into_bytes(), [1; 16]);
        assert!(codes(&image).is_empty());
    }

    #[test]
    fn one_damaged_header_is_told_and_two_are_refused() {
        for (damaged, other) in [(HEADER_1, HEADER_2), (HEADER_2, HEADER_1)] {
            for by in [0, 4, 4095] {
                let mut image = TestImage::dynamic();
                image.put64(damaged + 8, 9);
                image.put(other + 32, &[7; 16]);
                image.seal();
                image.bytes[damaged + by] ^= 1;
                assert_eq!(codes(&image), ["header-damaged"]);
                assert_eq!(image.open().unwrap().identity.into_bytes(), [7; 16]);
                image.bytes[other + by] ^= 1;
                image.refused(ErrorKind::Corrupt, "neither of the two headers");
            }
        }
    }

    #[test]
    fn twin_headers_are_taken_only_if_they_are_the_same() {
        let mut image = TestImage::dynamic();
        image.put64(HEADER_1 + 8, 5);
        image.seal();
        assert!(codes(&image).is_empty());
        image.put(HEADER_1 + 16, &[9; 16]);
        image.seal();
        image.refused(ErrorKind::Corrupt, "same sequence number");
    }

    #[test]
    fn every_field_of_the_header_is_checked() {
        let image = TestImage::dynamic();
        breaks_as(&image, ErrorKind::Unsupported, "version of this VHDX", |i| {
            both(i, |i, at| i.put16(at + 66, 2))
        });
        breaks(&image, "length of the log is no multiple", |i| both(i, |i, at| i.put32(at + 68, 4096)));
        breaks(&image, "log does not begin on", |i| both(i, |i, at| i.put64(at + 72, 4096)));
        breaks(&image, "in the header section", |i| both(i, |i, at| i.put64(at + 72, 0)));
        breaks(&image, "log reaches past the end", |i| both(i, |i, at| i.put64(at + 72, 6 << 20)));
        breaks(&image, "log reaches past the end", |i| both(i, |i, at| i.put64(at + 72, u64::MAX << 20)));
        breaks(&image, "something to replay and no log", |i| {
            both(i, |i, at| i.put32(at + 68, 0));
            i.dirty();
        });
        breaks_as(&image, ErrorKind::Unsupported, "of a version that is not known", |i| {
            both(i, |i, at| i.put16(at + 64, 1));
            i.dirty();
        });
    }

    #[test]
    fn what_is_reserved_and_to_be_ignored_is_ignored() {
        let mut image = TestImage::dynamic();
        both(&mut image, |i, at| {
            i.put(at + 80, &[1; 4016]);
            // No log to replay, so its version says nothing.
            i.put16(at + 64, 7);
        });
        tables(&mut image, |i, at| {
            i.put32(at + 12, 1);
            i.put(at + 16 + 64, &[0xff; 32]);
        });
        image.seal();
        assert!(codes(&image).is_empty());
    }

    #[test]
    fn a_file_without_a_log_is_read() {
        let mut image = TestImage::dynamic();
        both(&mut image, |i, at| i.put32(at + 68, 0));
        image.seal();
        assert!(codes(&image).is_empty());
    }

    #[test]
    fn one_damaged_region_table_is_told_and_two_are_refused() {
        for (damaged, other) in [(REGIONS_1, REGIONS_2), (REGIONS_2, REGIONS_1)] {
            let mut image = TestImage::dynamic();
            image.bytes[damaged + 16] ^= 1;
            assert_eq!(codes(&image), ["region-table-damaged"]);
            image.bytes[other + 4] ^= 1;
            image.refused(ErrorKind::Corrupt, "neither copy of the region table");
        }
        let mut image = TestImage::dynamic();
        image.put32(REGIONS_2 + 28, 0);
        image.seal();
        assert_eq!(codes(&image), ["region-tables-differ"]);
    }

    #[test]
    fn every_field_of_the_region_table_is_checked() {
        let image = TestImage::dynamic();
        let bat = 16;
        breaks(&image, "neither copy", |i| tables(i, |i, at| i.put(at, b"rege")));
        breaks(&image, "neither copy", |i| tables(i, |i, at| i.put32(at + 8, 2048)));
        breaks(&image, "names a region twice", |i| {
            tables(i, |i, at| {
                i.put32(at + 8, 3);
                i.region(at, 2, "2dc27766-f623-4200-9d64-115e9bfd4a08", 5 * MB, MB, 1);
            });
        });
        breaks(&image, "has no BAT", |i| {
            tables(i, |i, at| i.region(at, 0, "00000000-0000-0000-0000-00000000abcd", BAT, MB, 0));
        });
        breaks(&image, "has no metadata region", |i| {
            tables(i, |i, at| i.region(at, 1, "00000000-0000-0000-0000-00000000abcd", METADATA, MB, 0));
        });
        breaks_as(&image, ErrorKind::Unsupported, "must be understood", |i| {
            tables(i, |i, at| {
                i.put32(at + 8, 3);
                i.region(at, 2, "00000000-0000-0000-0000-00000000abcd", 0x50_0000, 0, 1);
            });
        });
        breaks(&image, "region does not begin on", |i| {
            tables(i, |i, at| i.put64(at + bat + 16, (3 << 20) + 4096));
        });
        breaks(&image, "region does not begin on", |i| tables(i, |i, at| i.put64(at + bat + 16, 0)));
        breaks(&image, "length of a region", |i| tables(i, |i, at| i.put32(at + bat + 24, 4096)));
        breaks(&image, "the BAT reaches past the end", |i| {
            tables(i, |i, at| i.put64(at + bat + 16, 6 << 20));
        });
        breaks(&image, "the BAT reaches past the end", |i| {
            tables(i, |i, at| i.put64(at + bat + 16, u64::MAX << 20));
        });
        breaks(&image, "the BAT overlaps the log", |i| tables(i, |i, at| i.put64(at + bat + 16, 1 << 20)));
        breaks(&image, "the metadata region overlaps the BAT", |i| {
            tables(i, |i, at| i.put64(at + bat + 16, 2 << 20));
        });
    }

    #[test]
    fn an_optional_region_is_told() {
        let mut image = TestImage::dynamic();
        image.bytes.resize(7 * MB, 0);
        tables(&mut image, |i, at| {
            i.put32(at + 8, 3);
            i.region(at, 2, "00000000-0000-0000-0000-00000000abcd", 6 * MB, MB, 0);
        });
        image.seal();
        assert_eq!(codes(&image), ["region-dropped"]);
        // QEMU marks none of its regions as required.
        let mut image = TestImage::dynamic();
        tables(&mut image, |i, at| {
            i.put32(at + 16 + 28, 0);
            i.put32(at + 48 + 28, 0);
        });
        image.seal();
        assert!(codes(&image).is_empty());
    }
}
