//! The log: finds the active sequence and replays it in memory (MS-VHDX 2.3).
//!
//! ```text
//!   log (a ring of 4 KiB sectors)
//!   ░░░ entry 7 │ entry 8 │ entry 9 ░░░░░ old entry ░░░░
//!       ▲ tail ◄──────────── head: the newest valid entry; its `Tail` names the oldest one that is
//!                                  still needed. Tail to head is the active sequence.
//!   entry = header │ descriptors … │ data sector │ data sector │ …
//! ```
//! An entry that a power failure tore has a wrong checksum and is passed over, as the specification
//! wants. An entry with a *right* checksum that breaks a rule was not torn but wrongly made: it is not
//! passed over, since what it says may be what the file needs; the file is refused.
//!
//! Where there should be a log and no valid sequence is found, the file is refused, as the specification
//! and Windows do (QEMU reads such a file as if there were no log, which may be stale).

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use uuid::Uuid;
use zerocopy::FromBytes;

use super::format::{
    LOG_SECTOR, LogDataSector, LogDescriptor, LogEntryHeader, MIB, REGION_TABLE_OFFSETS, checksum,
};
use crate::error::{Error, Result, Site};
use crate::io::{Overlay, ReadAt, read_vec};
use crate::units::{Space, index};

/// Largest log that is replayed; real ones have 1 MiB.
const MAX_LOG: u64 = 64 << 20;
/// Bytes of an entry's header, and of a descriptor.
const HEADER: u64 = 64;
const DESCRIPTOR: u64 = 32;

/// Replays the log at `range` of `file`, whose valid entries carry `guid`. Also tells how many entries
/// were replayed.
pub fn replay(
    file: Rc<dyn ReadAt>,
    range: Range<u64>,
    guid: Uuid,
) -> Result<(Overlay<Rc<dyn ReadAt>>, usize)> {
    let length = range.end.saturating_sub(range.start);
    if length > MAX_LOG {
        let site = Site { structure: "VHDX header", space: Space::File, offset: range.start };
        return Err(Error::limit(site, "the log that must be replayed is too long; let Windows mount the disk, or `qemu-img check -r all` replay it, on a copy")
            .expected(format_args!("at most {MAX_LOG} bytes"), length));
    }
    let bytes = read_vec(&file, range.start, index(length, "the log")?)?;
    let log = Log { bytes: &bytes, sectors: length / LOG_SECTOR, range, guid };
    let sequence = log.active_sequence()?;
    let overlay = log.apply(&sequence, file)?;
    Ok((overlay, sequence.len()))
}

struct Log<'a> {
    bytes: &'a [u8],
    sectors: u64,
    /// Where it is in the file.
    range: Range<u64>,
    guid: Uuid,
}

/// A valid entry. Places in the log are counted in sectors.
#[derive(Debug, Clone)]
struct Entry {
    start: u64,
    sectors: u64,
    descriptor_sectors: u64,
    header: LogEntryHeader,
}

impl Entry {
    fn sequence(&self) -> u64 {
        self.header.sequence_number.get()
    }

    fn tail(&self) -> u64 {
        u64::from(self.header.tail.get()) / LOG_SECTOR
    }
}

/// One write that the log asks for.
enum Write<'a> {
    Zeros(u64),
    Sector { leading: [u8; 8], sector: &'a LogDataSector, trailing: [u8; 4] },
}

impl<'a> Log<'a> {
    /// The entries of the newest valid and complete sequence, the oldest first (2.3.3, steps 1 to 7).
    ///
    /// Entries cannot share sectors, so each has at most one successor and one predecessor, and the
    /// sequences that the specification's scan would try are the chains of successors.
    fn active_sequence(&self) -> Result<Vec<Entry>> {
        let mut entries = BTreeMap::new();
        for sector in 0..self.sectors {
            if let Some(entry) = self.entry(sector)? {
                entries.insert(sector, entry);
            }
        }
        let successor = |entry: &Entry| {
            let next = entries.get(&self.wrapped(entry.start.saturating_add(entry.sectors)))?;
            (entry.sequence().checked_add(1) == Some(next.sequence())).then_some(next)
        };
        let followers: Vec<u64> = entries.values().filter_map(successor).map(|entry| entry.start).collect();
        let mut follows = vec![false; index(self.sectors, "the log")?];
        for start in followers {
            if let Some(flag) = index(start, "the log").ok().and_then(|i| follows.get_mut(i)) {
                *flag = true;
            }
        }
        let mut active: Vec<Entry> = Vec::new();
        for first in entries.values() {
            if index(first.start, "the log").ok().and_then(|i| follows.get(i)).copied().unwrap_or_default() {
                continue;
            }
            let mut chain: Vec<&Entry> = vec![first];
            while let Some(next) = chain.last().and_then(|last| successor(last)) {
                chain.push(next);
            }
            let Some(head) = chain.last() else { continue };
            let Some(from) = chain.iter().position(|entry| entry.start == head.tail()) else { continue };
            match active.last().map(Entry::sequence) {
                Some(best) if best > head.sequence() => {}
                Some(best) if best == head.sequence() => {
                    return Err(self.corrupt(
                        head.start,
                        16,
                        "two sequences of log entries claim to be the newest",
                    ));
                }
                _ => active = chain.iter().skip(from).map(|&entry| entry.clone()).collect(),
            }
        }
        if active.is_empty() {
            return Err(self.corrupt(
                0,
                0,
                "the log must be replayed, and there is no complete sequence of entries in it",
            ));
        }
        Ok(active)
    }

    fn wrapped(&self, sector: u64) -> u64 {
        sector.checked_rem(self.sectors).unwrap_or_default()
    }

    fn site(&self, sector: u64, by: u64) -> Site {
        let at = self.wrapped(sector).saturating_mul(LOG_SECTOR).saturating_add(by);
        Site { structure: "VHDX log entry", space: Space::File, offset: self.range.start.saturating_add(at) }
    }

    fn corrupt(&self, sector: u64, by: u64, message: &'static str) -> Error {
        Error::corrupt(self.site(sector, by), message)
    }

    /// The bytes of sector `sector`, counted around the ring.
    fn sector(&self, sector: u64) -> Result<&'a [u8]> {
        let at = index(self.wrapped(sector).saturating_mul(LOG_SECTOR), "the log")?;
        let len = index(LOG_SECTOR, "a log sector")?;
        self.bytes
            .get(at..)
            .and_then(|rest| rest.get(..len))
            .ok_or_else(|| Error::internal("a sector past the end of the log"))
    }

    /// The entry that begins at `sector`, if there is a valid one.
    fn entry(&self, sector: u64) -> Result<Option<Entry>> {
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
            let part = self.sector(sector.saturating_add(i))?;
            // Overwritten by a newer entry. This also bounds the work: no sector is summed twice.
            if part.starts_with(b"loge") {
                return Ok(None);
            }
            parts.push(part);
        }
        if header.checksum.get() != checksum(parts) {
            return Ok(None);
        }
        let descriptors = u64::from(header.descriptor_count.get()).saturating_mul(DESCRIPTOR);
        let descriptor_sectors = HEADER.saturating_add(descriptors).div_ceil(LOG_SECTOR);
        let entry = Entry { start: sector, sectors, descriptor_sectors, header };
        self.check_header(&entry)?;
        self.writes(&entry, &mut |_, _| Ok(()))?;
        Ok(Some(entry))
    }

    fn check_header(&self, entry: &Entry) -> Result<()> {
        let header = &entry.header;
        let tail = u64::from(header.tail.get());
        if !tail.is_multiple_of(LOG_SECTOR) || tail >= self.sectors.saturating_mul(LOG_SECTOR) {
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
    fn writes(
        &self,
        entry: &Entry,
        visit: &mut dyn FnMut(Range<u64>, Write<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut data_sector = entry.descriptor_sectors;
        for number in 0..u64::from(entry.header.descriptor_count.get()) {
            let place = HEADER.saturating_add(number.saturating_mul(DESCRIPTOR));
            let sector = entry.start.saturating_add(place / LOG_SECTOR);
            let by = place % LOG_SECTOR;
            let bytes = self.sector(sector)?.get(index(by, "a log entry")?..).unwrap_or_default();
            let Ok((descriptor, _)) = LogDescriptor::ref_from_prefix(bytes) else {
                return Err(Error::internal("a log descriptor across sectors"));
            };
            if descriptor.sequence_number.get() != entry.sequence() {
                return Err(self
                    .corrupt(sector, by.saturating_add(24), "a log descriptor belongs to another entry")
                    .expected(entry.sequence(), descriptor.sequence_number));
            }
            let write = match &descriptor.signature {
                b"zero" => self.zeros(descriptor, sector, by)?,
                b"desc" => {
                    let at = entry.start.saturating_add(data_sector);
                    if data_sector >= entry.sectors {
                        return Err(self.corrupt(sector, by, "a log descriptor has no data sector"));
                    }
                    data_sector = data_sector.saturating_add(1);
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
                by.saturating_add(4),
                "a reserved field of a zero descriptor is in use",
            ));
        }
        let length = u64::from_le_bytes(descriptor.leading_bytes);
        if !length.is_multiple_of(LOG_SECTOR) {
            return Err(self
                .corrupt(
                    sector,
                    by.saturating_add(8),
                    "the length of a zero descriptor is no multiple of 4 KiB",
                )
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
        Ok(Write::Sector { leading: descriptor.leading_bytes, sector, trailing: descriptor.trailing_bytes })
    }

    /// Where a write goes. The file identifier, the headers and the log itself are never logged.
    fn target(&self, descriptor: &LogDescriptor, write: &Write, sector: u64, by: u64) -> Result<Range<u64>> {
        let [lowest, _] = REGION_TABLE_OFFSETS;
        let offset = descriptor.file_offset.get();
        let length = if let Write::Zeros(length) = write { *length } else { LOG_SECTOR };
        let field = by.saturating_add(16);
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

    fn apply(&self, sequence: &[Entry], file: Rc<dyn ReadAt>) -> Result<Overlay<Rc<dyn ReadAt>>> {
        let head = sequence.last().ok_or_else(|| Error::internal("an empty log sequence"))?;
        let flushed = head.header.flushed_file_offset.get();
        if file.size() < flushed {
            let message = "the file is shorter than when its log was written: it was cut off";
            return Err(self
                .corrupt(head.start, 48, message)
                .expected(format_args!("{flushed} bytes or more"), file.size()));
        }
        let mut overlay = Overlay::new(file);
        for entry in sequence {
            self.writes(entry, &mut |range, write| {
                overlay.extend_to(range.end);
                match write {
                    Write::Zeros(length) => overlay.patch_zeros(range.start, length),
                    Write::Sector { leading, sector, trailing } => {
                        overlay.patch_bytes(range.start, [&leading, &sector.data[..], &trailing].concat())
                    }
                }
            })?;
        }
        overlay.extend_to(head.header.last_file_offset.get());
        Ok(overlay)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BAT, Desc, HEADER_1, LOG, MIB as MB, TestImage, log_entry, seal_entry};
    use super::*;
    use crate::error::ErrorKind;
    use crate::image::{BlockState, Disk};
    use crate::units::FileOffset;

    const FILE: (u64, u64) = (6 << 20, 6 << 20);

    /// A sector of the BAT in which entry `entry` is `word`, and the others are as in the image.
    fn bat_sector(entry: usize, word: u64) -> Desc {
        let mut bytes: Box<[u8; 4096]> =
            TestImage::dynamic().bytes[BAT..BAT + 4096].to_vec().try_into().unwrap();
        bytes[entry * 8..entry * 8 + 8].copy_from_slice(&word.to_le_bytes());
        Desc::Data(BAT as u64, bytes)
    }

    fn dirty(entries: &[(usize, Vec<u8>)]) -> TestImage {
        let mut image = TestImage::dynamic();
        for (sector, entry) in entries {
            image.log(*sector, entry);
        }
        image.dirty();
        image
    }

    fn state(image: &TestImage, block: u64) -> BlockState {
        image.open().unwrap().blocks.get(block)
    }

    #[test]
    fn one_entry_is_replayed_and_told() {
        let image = dirty(&[(0, log_entry(1, 0, FILE, &[bat_sector(3, 2)]))]);
        let opened = image.open().unwrap();
        assert_eq!(opened.blocks.get(3), BlockState::Zero);
        assert_eq!(opened.blocks.get(0), BlockState::Present(FileOffset::new(4 << 20)));
        assert_eq!(opened.warnings[0].code, "log-replayed");
        assert!(opened.container.is_verbatim(FileOffset::new(4 << 20), 1 << 20));
        assert!(!opened.container.is_verbatim(FileOffset::new(BAT as u64), 4096));
    }

    #[test]
    fn everything_that_is_logged_is_read_through_the_log() {
        // The region table moves the metadata, which is zero where it was, and the BAT has its first and last
        // bytes in the descriptor.
        let mut moved = TestImage::dynamic();
        moved.bytes.resize(8 * MB, 0);
        let metadata = moved.bytes[2 * MB..3 * MB].to_vec();
        moved.put(7 * MB, &metadata);
        for table in [192 << 10, 256 << 10] {
            moved.region(table, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", 7 * MB, MB, 1);
        }
        moved.seal();
        let sector =
            |at: usize| Desc::Data(at as u64, moved.bytes[at..at + 4096].to_vec().try_into().unwrap());
        let writes = [
            sector(192 << 10),
            sector(256 << 10),
            Desc::Zero(2 << 20, 1 << 20),
            sector(7 * MB),
            sector(7 * MB + (64 << 10)),
            bat_sector(511, 3),
        ];
        let image = dirty(&[(9, log_entry(8, 9, (6 << 20, 8 << 20), &writes))]);
        let mut clean = moved.clone();
        clean.bat(511, 3);
        let read = |image: &TestImage| {
            let opened = image.open().unwrap();
            let disk = Disk::new(vec![opened]).unwrap();
            read_vec(&disk, 0, usize::try_from(disk.size()).unwrap()).unwrap()
        };
        assert_eq!(read(&image), read(&clean));
        assert_eq!(image.open().unwrap().container.size(), 8 << 20);
    }

    #[test]
    fn the_file_grows_as_the_log_says() {
        // Block 3 lies where the file does not reach yet.
        let image = dirty(&[(0, log_entry(1, 0, (6 << 20, 9 << 20), &[bat_sector(3, 8 << 20 | 6)]))]);
        let opened = image.open().unwrap();
        assert_eq!((opened.container.size(), opened.container.file_size()), (9 << 20, 6 << 20));
        assert!(!opened.container.is_verbatim(FileOffset::new(8 << 20), 1 << 20));
        let disk = Disk::new(vec![opened]).unwrap();
        assert_eq!(read_vec(&disk, 3 << 20, 512 << 10).unwrap(), vec![0; 512 << 10]);
    }

    #[test]
    fn replay_starts_at_the_tail_and_goes_around_the_end() {
        // Entries 5 to 8 end on sector 3, after the wrap; the tail is entry 6. Entry 5 is applied already.
        let image = dirty(&[
            (250, log_entry(5, 250, FILE, &[bat_sector(3, 1)])),
            (252, log_entry(6, 250, FILE, &[Desc::Zero(3 << 20, 4096)])),
            (253, log_entry(7, 252, FILE, &[bat_sector(3, 3), bat_sector(3, 2)])),
            (0, log_entry(8, 252, FILE, &[])),
        ]);
        assert_eq!(state(&image, 3), BlockState::Zero);
        assert!(image.open().unwrap().warnings[0].message.contains("3 entries"));
    }

    #[test]
    fn an_entry_itself_may_go_around_the_end() {
        let writes: Vec<Desc> = (0..4).map(|n| bat_sector(3, n)).collect();
        let image = dirty(&[(254, log_entry(1, 254, FILE, &writes))]);
        assert_eq!(state(&image, 3), BlockState::Unmapped);
    }

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
    fn the_newest_complete_sequence_wins() {
        let old = (0, log_entry(20, 0, FILE, &[bat_sector(3, 1)]));
        let new = (100, log_entry(30, 100, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[old.clone(), new.clone()]), 3), BlockState::Zero);
        // The same the other way around.
        let swapped = dirty(&[(100, old.1.clone()), (0, log_entry(30, 0, FILE, &[bat_sector(3, 2)]))]);
        // Entry 20 at sector 100 names sector 0 as its tail, which is not in its sequence.
        assert_eq!(state(&swapped, 3), BlockState::Zero);
        // A newer entry whose tail was overwritten is not complete.
        let incomplete = (100, log_entry(30, 50, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[old.clone(), incomplete]), 3), BlockState::Undefined);
        let twin = (100, log_entry(20, 100, FILE, &[bat_sector(3, 2)]));
        dirty(&[old, twin]).refused(ErrorKind::Corrupt, "claim to be the newest");
    }

    #[test]
    fn numbers_must_follow_each_other() {
        let first = (0, log_entry(1, 0, FILE, &[bat_sector(3, 1)]));
        let next = (2, log_entry(2, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[first.clone(), next]), 3), BlockState::Zero);
        let gap = (2, log_entry(3, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[first.clone(), gap]), 3), BlockState::Undefined);
        let last = (0, log_entry(u64::MAX, 0, FILE, &[bat_sector(3, 1)]));
        let wrapped = (2, log_entry(1, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[last, wrapped]), 3), BlockState::Undefined);
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

    #[test]
    fn without_a_complete_sequence_the_file_is_refused() {
        dirty(&[]).refused(ErrorKind::Corrupt, "no complete sequence");
        dirty(&[(0, log_entry(1, 7, FILE, &[]))]).refused(ErrorKind::Corrupt, "no complete sequence");
    }

    #[test]
    fn a_clean_file_does_not_look_at_its_log() {
        let mut image = TestImage::dynamic();
        image.log(0, &log_entry(1, 0, (7 << 20, 6 << 20), &[bat_sector(3, 1)]));
        assert_eq!(state(&image, 3), BlockState::NotPresent);
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        let image = dirty(&[(0, log_entry(1, 0, (7 << 20, 7 << 20), &[bat_sector(3, 1)]))]);
        image.refused(ErrorKind::Corrupt, "cut off");
        // The size of an older entry does not count: the file may have been shrunk since.
        let image = dirty(&[
            (0, log_entry(1, 0, (7 << 20, 7 << 20), &[bat_sector(3, 1)])),
            (2, log_entry(2, 0, FILE, &[])),
        ]);
        assert_eq!(state(&image, 3), BlockState::Undefined);
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

    #[test]
    fn an_absurd_growth_is_refused() {
        let image = dirty(&[(0, log_entry(1, 0, (6 << 20, 1 << 60), &[]))]);
        image.refused(ErrorKind::LimitExceeded, "larger than any VHDX");
        let image = dirty(&[(0, log_entry(1, 0, FILE, &[Desc::Zero(4 << 20, 1 << 60)]))]);
        image.refused(ErrorKind::LimitExceeded, "larger than any VHDX");
    }

    #[test]
    fn a_log_that_is_too_long_is_refused_only_where_it_must_be_replayed() {
        let mut image = TestImage::dynamic();
        image.bytes.resize(80 * MB, 0);
        for at in [HEADER_1, HEADER_1 * 2] {
            image.put32(at + 68, 65 << 20);
            image.put64(at + 72, 10 << 20);
        }
        image.seal();
        image.open().unwrap();
        image.dirty();
        image.refused(ErrorKind::LimitExceeded, "log that must be replayed is too long");
    }
}
