//! Master boot record: four entries in sector 0, and a chain of extended boot records (EBR) for
//! logical partitions.
//!
//! ```text
//!   sector 0            extended partition ─────────────────────────────────────────┐
//!   │ code │ 4×16 │55AA│   EBR ─ entry 0 ► logical 5     EBR ─ entry 0 ► logical 6  │
//!                           └── entry 1 ───────────────► └── entry 1 ► …            │
//! ```
//! Entry 0 of an EBR counts from that EBR, entry 1 from the start of the extended partition. All
//! numbers are logical sectors of the disk.
//!
//! There is no formal standard; sources: UEFI 2.10 §5.2.1, and how Linux (`block/partitions/msdos.c`)
//! and Windows read it. What they read differently is refused here.

use std::collections::HashSet;
use std::ops::Range;

use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::kinds;
use super::signature::BOOT_SIGNATURE;
use crate::error::Result;
use crate::io::{ReadAt, check_range, read_struct};

/// How many logical partitions are followed: Linux stops at 256 partitions a disk.
const MAX_LOGICAL: usize = 256;

/// A boot record, master or extended, as it lies on disk.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BootRecord {
    _code: [u8; 446],
    entries: [Entry; 4],
    signature: [u8; 2],
}

/// One entry of a boot record.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    boot_flag: u8,
    _first_chs: [u8; 3],
    kind: u8,
    _last_chs: [u8; 3],
    first_sector: U32<LE>,
    sectors: U32<LE>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.kind == 0 || self.sectors.get() == 0
    }

    fn is_protective(&self) -> bool {
        self.kind == kinds::PROTECTIVE
    }

    /// The partition whose sectors count from `base`: none where they do not fit 64 bits. The first of a
    /// disk and those of its EBRs, which come from 32-bit fields, always do.
    fn slot(&self, index: u32, base: u64) -> Option<Slot> {
        let first = base.checked_add(self.first_sector.get().into())?;
        let end = first.checked_add(self.sectors.get().into())?;
        Some(Slot { index, kind: self.kind, first, end })
    }
}

/// A partition in logical sectors of the disk, `end` excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) kind: u8,
    pub(super) first: u64,
    pub(super) end: u64,
}

impl Slot {
    /// Whether it begins inside a disk of `sectors`, and not at its first one, where the table itself is.
    pub(super) const fn starts_inside(&self, sectors: u64) -> bool {
        self.first > 0 && self.first < sectors
    }
}

/// What sector 0 is.
pub(super) enum FirstSector {
    /// No partition table, or an empty one.
    NoTable,
    /// Entries of known types that begin inside the disk, under boot flags that no table has: a damaged
    /// table, which systems ignore and which is no boot code either.
    Odd(Vec<Slot>),
    /// A protective MBR, with the other entries of a hybrid one.
    Protective(Vec<Slot>),
    /// A table with primary (and extended) partitions.
    Table(Vec<Slot>),
}

impl BootRecord {
    /// What ends like a boot record at `offset`, whatever it is.
    fn read(disk: &dyn ReadAt, offset: u64) -> Result<Option<Self>> {
        if check_range(disk, offset, 512).is_err() {
            return Ok(None);
        }
        let record: Self = read_struct(disk, offset)?;
        Ok((record.signature == BOOT_SIGNATURE).then_some(record))
    }

    /// Whether all boot flags are right. Linux and Windows agree that a table with any other boot flag is
    /// none; the boot code and the messages of a file system's boot sector nearly always have one.
    fn has_boot_flags(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.boot_flag, 0 | 0x80))
    }

    /// The used entries, as sectors of the disk.
    fn slots(&self) -> impl Iterator<Item = Slot> {
        let used = (1u32..).zip(&self.entries).filter(|(_, entry)| !entry.is_empty());
        used.filter_map(|(index, entry)| entry.slot(index, 0))
    }
}

/// Reads sector 0.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn first_sector(disk: &dyn ReadAt) -> Result<FirstSector> {
    let Some(record) = BootRecord::read(disk, 0)? else { return Ok(FirstSector::NoTable) };
    let sectors = disk.size() / 512;
    let slots: Vec<Slot> = record.slots().collect();
    let protective = record.entries.iter().any(Entry::is_protective);
    // Text and code would have to look like a partition of this disk in every entry that they touch.
    let plausible = |slot: &Slot| kinds::is_known(slot.kind) && slot.starts_inside(sectors);
    Ok(match (record.has_boot_flags(), slots.is_empty()) {
        (true, _) if protective => {
            FirstSector::Protective(slots.into_iter().filter(|slot| slot.kind != kinds::PROTECTIVE).collect())
        }
        (_, true) => FirstSector::NoTable,
        (true, false) => FirstSector::Table(slots),
        (false, false) if slots.iter().all(plausible) => FirstSector::Odd(slots),
        (false, false) => FirstSector::NoTable,
    })
}

/// The logical partitions of one extended partition.
#[derive(Debug, Default)]
pub(super) struct Logical {
    /// The partitions, in the order of the chain.
    pub(super) slots: Vec<Slot>,
    /// The sectors of the EBRs themselves, which belong to no partition.
    pub(super) records: Vec<Range<u64>>,
    /// What is wrong with the chain: then none of `slots` can be believed.
    pub(super) damage: Option<&'static str>,
}

/// Follows the chain of EBRs of `extended`; its partitions are numbered from `index` on.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn logical(
    disk: &dyn ReadAt,
    extended: Slot,
    sector_size: u64,
    mut index: u32,
) -> Result<Logical> {
    let mut found = Logical::default();
    let mut seen = HashSet::new();
    let mut next = Some(extended.first);
    while let Some(at) = next {
        if !seen.insert(at) {
            found.damage = Some("it runs in a circle");
            break;
        }
        if seen.len() > MAX_LOGICAL {
            found.damage = Some("it is too long");
            break;
        }
        let record = match at.checked_mul(sector_size) {
            Some(offset) => BootRecord::read(disk, offset)?.filter(BootRecord::has_boot_flags),
            None => None,
        };
        let Some(record) = record else {
            found.damage = Some("one of its records is not valid");
            break;
        };
        // It was read there, so the next sector's number fits, too.
        found.records.push(at..at.wrapping_add(1));
        match step(&record, at, extended, index) {
            Ok((partition, follower)) => {
                if let Some(slot) = partition {
                    found.slots.push(slot);
                    // Counts at most `MAX_LOGICAL` partitions.
                    index = index.wrapping_add(1);
                }
                next = follower;
            }
            Err(damage) => {
                found.damage = Some(damage);
                break;
            }
        }
    }
    Ok(found)
}

/// What one EBR says: its logical partition, and where the next EBR is.
fn step(
    record: &BootRecord,
    at: u64,
    extended: Slot,
    index: u32,
) -> Result<(Option<Slot>, Option<u64>), &'static str> {
    let [data, link, third, fourth] = &record.entries;
    if !third.is_empty() || !fourth.is_empty() {
        return Err("one of its records has more than two entries");
    }
    let partition = match data {
        data if data.is_empty() => None,
        data if kinds::is_extended(data.kind) => return Err("one of its records nests another chain"),
        data => match data.slot(index, at) {
            Some(slot) if slot.first > at && slot.end <= extended.end => Some(slot),
            _ => return Err("a logical partition lies outside the extended one"),
        },
    };
    let follower = match link {
        link if link.is_empty() => None,
        link if !kinds::is_extended(link.kind) => return Err("a link has the type of a partition"),
        link => match link.slot(0, extended.first) {
            Some(slot) if slot.first > extended.first && slot.first < extended.end => Some(slot.first),
            _ => return Err("a link leads out of the extended partition"),
        },
    };
    Ok((partition, follower))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a boot record of entries (boot indicator, type, first sector, sectors).
    pub(in crate::volume) fn put(disk: &mut [u8], sector: usize, entries: &[(u8, u8, u32, u32)]) {
        for (i, &(boot, kind, first, sectors)) in entries.iter().enumerate() {
            let at = sector * 512 + 446 + i * 16;
            disk[at] = boot;
            disk[at + 4] = kind;
            disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[sector * 512 + 510..][..2].copy_from_slice(&BOOT_SIGNATURE);
    }

    const EXTENDED: Slot = Slot { index: 2, kind: 0x05, first: 100, end: 200 };

    /// An extended partition of two logical ones, at sectors 101–119 and 131–149.
    fn chain() -> Vec<u8> {
        let mut disk = vec![0; 256 * 512];
        put(&mut disk, 100, &[(0, 0x83, 1, 19), (0, 0x05, 30, 20)]);
        put(&mut disk, 130, &[(0, 0x07, 1, 19)]);
        disk
    }

    fn slots(disk: &dyn ReadAt) -> Logical {
        logical(disk, EXTENDED, 512, 5).unwrap()
    }

    #[test]
    fn logical_partitions_are_numbered_from_five() {
        let found = slots(&chain());
        assert_eq!(found.damage, None);
        assert_eq!(found.records, [100..101, 130..131]);
        let [a, b] = found.slots[..] else { panic!("{found:?}") };
        assert_eq!(a, Slot { index: 5, kind: 0x83, first: 101, end: 120 });
        assert_eq!(b, Slot { index: 6, kind: 0x07, first: 131, end: 150 });
    }

    #[test]
    fn a_chain_may_go_backwards_and_have_empty_links() {
        let mut disk = vec![0; 256 * 512];
        put(&mut disk, 100, &[(0, 0, 0, 0), (0, 0x0F, 60, 20)]);
        put(&mut disk, 160, &[(0, 0x83, 1, 9), (0, 0x85, 30, 20)]);
        put(&mut disk, 130, &[(0, 0x83, 1, 9)]);
        let found = slots(&disk);
        assert_eq!((found.damage, found.slots.len()), (None, 2));
    }

    #[test]
    fn every_damage_is_named() {
        type Break = fn(&mut Vec<u8>);
        let breaks: [(&str, Break); 8] = [
            ("circle", |d| put(d, 130, &[(0, 0x07, 1, 19), (0, 0x05, 30, 20)])),
            ("not valid", |d| d[130 * 512 + 511] = 0),
            ("not valid", |d| d[130 * 512 + 446] = 7),
            ("more than two", |d| put(d, 130, &[(0, 7, 1, 19), (0, 0, 0, 0), (0, 7, 1, 1)])),
            ("nests", |d| put(d, 130, &[(0, 0x05, 1, 19)])),
            ("outside", |d| put(d, 130, &[(0, 0x07, 1, 190)])),
            ("outside", |d| put(d, 130, &[(0, 0x07, 0, 19)])),
            ("leads out", |d| put(d, 130, &[(0, 0x07, 1, 19), (0, 0x05, 100, 20)])),
        ];
        for (word, change) in breaks {
            let mut disk = chain();
            change(&mut disk);
            let damage = slots(&disk).damage;
            assert!(damage.is_some_and(|d| d.contains(word)), "{word}: {damage:?}");
        }
        let mut disk = chain();
        put(&mut disk, 130, &[(0, 0x07, 1, 19), (0, 0x83, 40, 20)]);
        assert!(slots(&disk).damage.is_some_and(|d| d.contains("type of a partition")));
    }

    #[test]
    fn a_chain_without_end_is_left() {
        let mut disk = vec![0; 4096 * 512];
        let extended = Slot { index: 1, kind: 0x05, first: 1, end: 4096 };
        for i in 0..2000u32 {
            put(&mut disk, 1 + usize::try_from(i).unwrap(), &[(0, 0, 0, 0), (0, 0x05, i + 1, 1)]);
        }
        assert!(logical(&disk, extended, 512, 5).unwrap().damage.is_some_and(|d| d.contains("too long")));
    }

    #[test]
    fn sector_zero_is_told_apart() {
        let kind = |disk: &dyn ReadAt| match first_sector(disk).unwrap() {
            FirstSector::NoTable => "none".to_owned(),
            FirstSector::Protective(others) => format!("protective+{}", others.len()),
            FirstSector::Table(slots) => format!("{} slots", slots.len()),
            FirstSector::Odd(slots) => format!("odd {}", slots.len()),
        };
        let mut disk = vec![0; 2048 * 512];
        assert_eq!(kind(&disk), "none");
        put(&mut disk, 0, &[]);
        assert_eq!(kind(&disk), "none");
        put(&mut disk, 0, &[(0x80, 7, 63, 100), (0, 0, 1, 1), (0, 7, 300, 0), (0, 0x83, 200, 9)]);
        assert_eq!(kind(&disk), "2 slots");
        put(&mut disk, 0, &[(0, 0xEE, 1, 2047)]);
        assert_eq!(kind(&disk), "protective+1");
        disk[446 + 16] = 0x12;
        assert_eq!(kind(&disk), "odd 2");
        assert_eq!(kind(&vec![0; 100]), "none");
    }

    #[test]
    fn a_damaged_table_is_told_from_boot_code() {
        let odd = |entries: &[(u8, u8, u32, u32)]| {
            let mut disk = vec![0; 2048 * 512];
            put(&mut disk, 0, entries);
            matches!(first_sector(&disk).unwrap(), FirstSector::Odd(_))
        };
        assert!(odd(&[(0x01, 0x83, 63, 1000)]) && odd(&[(0x80, 7, 63, 100), (0x12, 0x0F, 2047, 9999)]));
        // A type that nobody uses, a start outside, and one entry of text beside a good one.
        assert!(!odd(&[(0x01, 0x74, 63, 1000)]) && !odd(&[(0x01, 0x83, 2048, 1000)]));
        assert!(!odd(&[(0x01, 0x83, 0, 1000)]));
        assert!(!odd(&[(0x80, 7, 63, 100), (0x6F, 0x72, 0x7369_6420, 0x2E6B_7369)]));
    }
}
