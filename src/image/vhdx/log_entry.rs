//! One entry of the log: what makes it valid, and the writes it asks for (MS-VHDX 2.3.1).
//!
//! ```text
//!   4 KiB sectors:  header, ≤ 126 descriptors │ ≤ 128 descriptors │ … │ data sector │ data sector │ …
//!   descriptor:     “zero” (how many bytes) or “desc” (first 8 and last 4 bytes of its data sector)
//! ```
//! An entry that a power failure tore has a wrong checksum and is passed over, as the specification
//! wants. An entry with a *right* checksum that breaks a rule was not torn but wrongly made: it is not
//! passed over, since what it says may be what the file needs; the file is refused.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::FromBytes;

use super::format::{
    LOG_SECTOR, LogDataSector, LogDescriptor, LogEntryHeader, MIB, REGION_TABLE_OFFSETS, checksum,
};
use crate::error::{Error, Result, Site};
use crate::units::{Space, add, index, mul};

/// Bytes of an entry's header, and of a descriptor.
const HEADER: u64 = 64;
const DESCRIPTOR: u64 = 32;

/// The log as a ring of sectors.
pub struct Ring<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How many sectors these are.
    pub sectors: u64,
    /// Where they are in the file.
    pub range: Range<u64>,
    /// What valid entries carry.
    pub guid: Uuid,
}

/// Where in its entry descriptor `number` is.
fn descriptor_place(number: u64) -> Result<u64> {
    add(HEADER, mul(number, DESCRIPTOR, "a log entry")?, "a log entry")
}

/// Where in its sector field `by` of the descriptor at `descriptor` is.
const fn field_of(descriptor: u64, by: u64) -> u64 {
    // Both are less than a sector.
    descriptor.wrapping_add(by)
}

/// A valid entry. Places in the log are counted in sectors.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub sectors: u64,
    descriptor_sectors: u64,
    /// Its header.
    pub header: LogEntryHeader,
}

impl Entry {
    /// Its sequence number.
    pub fn sequence(&self) -> u64 {
        self.header.sequence_number.get()
    }

    /// Where the oldest entry begins that is still needed.
    pub fn tail(&self) -> u64 {
        u64::from(self.header.tail.get()) / LOG_SECTOR
    }
}

/// One write that the log asks for.
pub enum Write<'a> {
    /// So many zeros.
    Zeros(u64),
    /// One sector, whose ends are kept apart.
    Sector {
        /// Its first bytes.
        leading: [u8; 8],
        /// What lies between.
        middle: &'a [u8],
        /// Its last bytes.
        trailing: [u8; 4],
    },
}

impl<'a> Ring<'a> {
    /// The sector that is `by` sectors after `sector`, counted around the ring.
    pub fn onward(&self, sector: u64, by: u64) -> u64 {
        // Neither is more than 2³²: the ring's sectors are fewer, and so are those of all descriptors.
        sector.wrapping_add(by).checked_rem(self.sectors).unwrap_or_default()
    }

    /// Where in the log a sector of the ring begins.
    fn place(sector: u64) -> u64 {
        // Less than the length of the log, of which the sectors were counted.
        sector.wrapping_mul(LOG_SECTOR)
    }

    fn site(&self, sector: u64, by: u64) -> Site {
        let log = Site { structure: "VHDX log entry", space: Space::File, offset: self.range.start };
        log.field(Self::place(sector)).field(by)
    }

    /// What is wrong at byte `by` of sector `sector`.
    pub fn corrupt(&self, sector: u64, by: u64, message: &'static str) -> Error {
        Error::corrupt(self.site(sector, by), message)
    }

    /// The bytes of sector `sector` of the ring.
    fn sector(&self, sector: u64) -> Result<&'a [u8]> {
        let at = index(Self::place(sector), "the log")?;
        let len = index(LOG_SECTOR, "a log sector")?;
        self.bytes
            .get(at..)
            .and_then(|rest| rest.get(..len))
            .ok_or_else(|| Error::internal("a sector past the end of the log"))
    }

    /// The entry that begins at `sector`, if there is a valid one.
    pub fn entry(&self, sector: u64) -> Result<Option<Entry>> {
        let Ok((header, _)) = LogEntryHeader::read_from_prefix(self.sector(sector)?) else { return Ok(None) };
        let length = u64::from(header.entry_length.get());
        let sectors = length / LOG_SECTOR;
        if header.signature != *b"loge"
            || Uuid::from_bytes_le(header.log_guid) != self.guid
            || !length.is_multiple_of(LOG_SECTOR)
            || sectors == 0
            || sectors > self.sectors
        {
            return Ok(None);
        }
        let mut parts = vec![self.sector(sector)?];
        for i in 1..sectors {
            let part = self.sector(self.onward(sector, i))?;
            // Overwritten by a newer entry. This also bounds the work: no sector is summed twice.
            if part.starts_with(b"loge") {
                return Ok(None);
            }
            parts.push(part);
        }
        if header.checksum.get() != checksum(parts) {
            return Ok(None);
        }
        let descriptor_sectors =
            descriptor_place(u64::from(header.descriptor_count.get()))?.div_ceil(LOG_SECTOR);
        let entry = Entry { start: sector, sectors, descriptor_sectors, header };
        self.check_header(&entry)?;
        self.writes(&entry, &mut |_, _| Ok(()))?;
        Ok(Some(entry))
    }

    fn check_header(&self, entry: &Entry) -> Result<()> {
        let header = &entry.header;
        let tail = u64::from(header.tail.get());
        if !tail.is_multiple_of(LOG_SECTOR) || tail / LOG_SECTOR >= self.sectors {
            return Err(self
                .corrupt(entry.start, 12, "the tail of a log entry is no place for an entry")
                .expected("a multiple of 4096 inside the log", tail));
        }
        if header.sequence_number.get() == 0 {
            return Err(self.corrupt(entry.start, 16, "a log entry has the sequence number zero"));
        }
        if header.reserved.get() != 0 {
            return Err(self.corrupt(entry.start, 28, "a reserved field of a log entry is in use"));
        }
        if entry.descriptor_sectors > entry.sectors {
            return Err(self
                .corrupt(entry.start, 24, "a log entry has more descriptors than room for them")
                .expected(
                    format_args!("at most {} sectors", entry.sectors),
                    format_args!("{} descriptors", header.descriptor_count),
                ));
        }
        for (by, size) in [(48, header.flushed_file_offset.get()), (56, header.last_file_offset.get())] {
            if !size.is_multiple_of(MIB) {
                return Err(self
                    .corrupt(entry.start, by, "a file size in a log entry is no multiple of 1 MiB")
                    .expected("n × 1048576", size));
            }
        }
        Ok(())
    }

    /// Calls `visit` with every write of `entry`, in order, and checks each on the way.
    pub fn writes(
        &self,
        entry: &Entry,
        visit: &mut dyn FnMut(Range<u64>, Write<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut data_sector = entry.descriptor_sectors;
        for number in 0..u64::from(entry.header.descriptor_count.get()) {
            let place = descriptor_place(number)?;
            let sector = self.onward(entry.start, place / LOG_SECTOR);
            let by = place % LOG_SECTOR;
            let bytes = self.sector(sector)?.get(index(by, "a log entry")?..).unwrap_or_default();
            let Ok((descriptor, _)) = LogDescriptor::ref_from_prefix(bytes) else {
                return Err(Error::internal("a log descriptor across sectors"));
            };
            if descriptor.sequence_number.get() != entry.sequence() {
                return Err(self
                    .corrupt(sector, field_of(by, 24), "a log descriptor belongs to another entry")
                    .expected(entry.sequence(), descriptor.sequence_number));
            }
            let write = match &descriptor.signature {
                b"zero" => self.zeros(descriptor, sector, by)?,
                b"desc" => {
                    if data_sector >= entry.sectors {
                        return Err(self.corrupt(sector, by, "a log descriptor has no data sector"));
                    }
                    let at = self.onward(entry.start, data_sector);
                    // Less than `entry.sectors`, so one more fits.
                    data_sector = data_sector.wrapping_add(1);
                    self.data(descriptor, entry, at)?
                }
                _ => return Err(self.corrupt(sector, by, "a log descriptor is neither “zero” nor “desc”")),
            };
            let range = self.target(descriptor, &write, sector, by)?;
            visit(range, write)?;
        }
        if data_sector != entry.sectors {
            return Err(self
                .corrupt(entry.start, 8, "the length of a log entry does not fit its descriptors")
                .expected(format_args!("{data_sector} sectors"), format_args!("{} sectors", entry.sectors)));
        }
        Ok(())
    }

    fn zeros(&self, descriptor: &LogDescriptor, sector: u64, by: u64) -> Result<Write<'a>> {
        if descriptor.trailing_bytes != [0; 4] {
            return Err(self.corrupt(
                sector,
                field_of(by, 4),
                "a reserved field of a zero descriptor is in use",
            ));
        }
        let length = u64::from_le_bytes(descriptor.leading_bytes);
        if !length.is_multiple_of(LOG_SECTOR) {
            return Err(self
                .corrupt(sector, field_of(by, 8), "the length of a zero descriptor is no multiple of 4 KiB")
                .expected("n × 4096", length));
        }
        Ok(Write::Zeros(length))
    }

    fn data(&self, descriptor: &LogDescriptor, entry: &Entry, at: u64) -> Result<Write<'a>> {
        let Ok(sector) = LogDataSector::ref_from_bytes(self.sector(at)?) else {
            return Err(Error::internal("a log sector of the wrong length"));
        };
        if sector.signature != *b"data" {
            return Err(self.corrupt(at, 0, "a data sector of the log has no signature"));
        }
        let sequence = u64::from(sector.sequence_high.get()) << 32 | u64::from(sector.sequence_low.get());
        if sequence != entry.sequence() {
            return Err(self
                .corrupt(at, 4, "a data sector of the log belongs to another entry")
                .expected(entry.sequence(), sequence));
        }
        Ok(Write::Sector {
            leading: descriptor.leading_bytes,
            middle: &sector.data,
            trailing: descriptor.trailing_bytes,
        })
    }

    /// Where a write goes. The file identifier, the headers and the log itself are never logged.
    fn target(&self, descriptor: &LogDescriptor, write: &Write, sector: u64, by: u64) -> Result<Range<u64>> {
        let [lowest, _] = REGION_TABLE_OFFSETS;
        let offset = descriptor.file_offset.get();
        let length = if let Write::Zeros(length) = write { *length } else { LOG_SECTOR };
        let field = field_of(by, 16);
        let end = offset.checked_add(length).filter(|_| offset.is_multiple_of(LOG_SECTOR));
        let Some(end) = end.filter(|_| offset >= lowest) else {
            return Err(self
                .corrupt(
                    sector,
                    field,
                    "a log descriptor does not point behind the headers, to a 4 KiB sector",
                )
                .expected(format_args!("n × 4096, at least {lowest}"), offset));
        };
        if offset < self.range.end && self.range.start < end {
            return Err(self.corrupt(sector, field, "a log descriptor points into the log itself"));
        }
        Ok(offset..end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desc, FILE, LOG, bat_sector, dirty, log_entry, seal_entry, state};
    use crate::error::ErrorKind;
    use crate::image::BlockState;

    #[test]
    fn many_descriptors_take_several_sectors() {
        for count in [126, 127, 200] {
            let mut writes: Vec<Desc> = (0..count - 1).map(|_| Desc::Zero(5 << 20, 4096)).collect();
            writes.push(bat_sector(3, 3));
            let image = dirty(&[(0, log_entry(1, 0, FILE, &writes))]);
            assert_eq!(state(&image, 3), BlockState::Unmapped);
        }
    }

    #[test]
    fn an_entry_itself_may_go_around_the_end() {
        let writes: Vec<Desc> = (0..4).map(|n| bat_sector(3, n)).collect();
        let image = dirty(&[(254, log_entry(1, 254, FILE, &writes))]);
        assert_eq!(state(&image, 3), BlockState::Unmapped);
    }

    #[test]
    fn torn_and_foreign_entries_are_passed_over() {
        let good = (0, log_entry(1, 0, FILE, &[bat_sector(3, 1)]));
        let newer = || log_entry(2, 0, FILE, &[bat_sector(3, 2)]);
        type Tear = fn(&mut Vec<u8>);
        let tears: [Tear; 8] = [
            |e| e[0] = b'L',
            |e| e[4] ^= 1,
            |e| e[5000] ^= 1,
            |e| e[4095] ^= 1,
            |e| {
                e[32] ^= 1;
                seal_entry(e);
            },
            |e| {
                e[8..12].copy_from_slice(&0u32.to_le_bytes());
                seal_entry(e);
            },
            |e| {
                e[8..12].copy_from_slice(&8191u32.to_le_bytes());
                seal_entry(e);
            },
            |e| {
                e[8..12].copy_from_slice(&(2u32 << 20).to_le_bytes());
                seal_entry(e);
            },
        ];
        for (n, tear) in tears.into_iter().enumerate() {
            let mut entry = newer();
            tear(&mut entry);
            assert_eq!(state(&dirty(&[good.clone(), (2, entry)]), 3), BlockState::Undefined, "tear {n}");
        }
        // Its second sector was overwritten by an entry of another session.
        let mut foreign = log_entry(9, 3, FILE, &[]);
        foreign[32] ^= 1;
        seal_entry(&mut foreign);
        let image = dirty(&[good.clone(), (2, newer()), (3, foreign)]);
        assert_eq!(state(&image, 3), BlockState::Undefined);
        assert_eq!(state(&dirty(&[good, (2, newer())]), 3), BlockState::Zero);
    }

    /// An entry whose checksum is right was not torn: what is wrong with it was meant.
    #[test]
    fn a_rule_broken_under_a_right_checksum_is_refused() {
        let broken = |what: &str, writes: &[Desc], at: usize, bytes: &[u8]| {
            let mut entry = log_entry(7, 0, FILE, writes);
            entry[at..at + bytes.len()].copy_from_slice(bytes);
            seal_entry(&mut entry);
            dirty(&[(0, entry)]).refused(ErrorKind::Corrupt, what);
        };
        let one = || [bat_sector(3, 1)];
        broken("tail of a log entry", &one(), 12, &4097u32.to_le_bytes());
        broken("tail of a log entry", &one(), 12, &(1u32 << 20).to_le_bytes());
        broken("sequence number zero", &one(), 16, &[0; 8]);
        broken("more descriptors than room", &one(), 24, &1000u32.to_le_bytes());
        broken("more descriptors than room", &one(), 24, &u32::MAX.to_le_bytes());
        broken("reserved field of a log entry", &one(), 28, &[1]);
        broken("file size in a log entry", &one(), 48, &4096u64.to_le_bytes());
        broken("file size in a log entry", &one(), 56, &4096u64.to_le_bytes());
        broken("neither “zero” nor “desc”", &one(), 64, b"none");
        broken("behind the headers", &one(), 64 + 16, &((3u64 << 20) + 512).to_le_bytes());
        broken("behind the headers", &one(), 64 + 16, &(128u64 << 10).to_le_bytes());
        broken("behind the headers", &one(), 64 + 16, &(u64::MAX << 12).to_le_bytes());
        broken("into the log itself", &one(), 64 + 16, &(LOG as u64).to_le_bytes());
        broken("log descriptor belongs to another entry", &one(), 64 + 24, &[8]);
        broken("data sector of the log has no signature", &one(), 4096, b"none");
        broken("data sector of the log belongs to another", &one(), 4096 + 4, &[1]);
        broken("data sector of the log belongs to another", &one(), 8188, &[1]);
        broken("length of a log entry does not fit", &one(), 24, &[0]);
        broken("has no data sector", &[bat_sector(3, 1), Desc::Zero(4 << 20, 0)], 96, b"desc");
        let zero = || [Desc::Zero(4 << 20, 4096)];
        broken("reserved field of a zero descriptor", &zero(), 64 + 4, &[1]);
        broken("length of a zero descriptor", &zero(), 64 + 8, &100u64.to_le_bytes());
        broken("behind the headers", &zero(), 64 + 8, &(u64::MAX << 12).to_le_bytes());
        broken("into the log itself", &[Desc::Zero(192 << 10, 4096)], 64 + 8, &(1u64 << 20).to_le_bytes());
    }
}
