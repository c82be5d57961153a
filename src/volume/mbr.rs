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
    boot_indicator: u8,
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

    fn slot(&self, index: u32, base: u64) -> Slot {
        let first = base.saturating_add(self.first_sector.get().into());
        let end = first.saturating_add(self.sectors.get().into());
        Slot { index, kind: self.kind, first, end }
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

/// What sector 0 is.
pub(super) enum FirstSector {
    /// No partition table, or an empty one.
    NoTable,
    /// A protective MBR, with the other entries of a hybrid one.
    Protective(Vec<Slot>),
    /// A table with primary (and extended) partitions.
    Table(Vec<Slot>),
}

impl BootRecord {
    /// The boot record at `offset`, if its signature and its boot indicators are right. Linux and
    /// Windows agree that a table with any other boot indicator is none; the boot code and the
    /// messages of a file system's boot sector nearly always have one.
    fn read(disk: &dyn ReadAt, offset: u64) -> Result<Option<Self>> {
        if check_range(disk, offset, 512).is_err() {
            return Ok(None);
        }
        let record: Self = read_struct(disk, offset)?;
        let valid = record.signature == BOOT_SIGNATURE
            && record.entries.iter().all(|e| matches!(e.boot_indicator, 0 | 0x80));
        Ok(valid.then_some(record))
    }
}

/// Reads sector 0.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn first_sector(disk: &dyn ReadAt) -> Result<FirstSector> {
    let Some(record) = BootRecord::read(disk, 0)? else { return Ok(FirstSector::NoTable) };
    let used = (1u32..).zip(&record.entries).filter(|(_, e)| !e.is_empty());
    let slots = |keep: fn(&Entry) -> bool| -> Vec<Slot> {
        used.clone().filter(|(_, e)| keep(e)).map(|(index, e)| e.slot(index, 0)).collect()
    };
    Ok(if record.entries.iter().any(Entry::is_protective) {
        FirstSector::Protective(slots(|e| !e.is_protective()))
    } else if used.clone().next().is_some() {
        FirstSector::Table(slots(|_| true))
    } else {
        FirstSector::NoTable
    })
}

/// The logical partitions of one extended partition.
#[derive(Debug, Default)]
pub(super) struct Logical {
    /// The partitions, in the order of the chain.
    pub(super) slots: Vec<Slot>,
    /// The sectors of the EBRs themselves, which belong to no partition.
    pub(super) records: Vec<u64>,
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
            Some(offset) => BootRecord::read(disk, offset)?,
            None => None,
        };
        let Some(record) = record else {
            found.damage = Some("one of its records is not valid");
            break;
        };
        found.records.push(at);
        match step(&record, at, extended, index) {
            Ok((partition, follower)) => {
                if let Some(slot) = partition {
                    found.slots.push(slot);
                    index = index.saturating_add(1);
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
        data => {
            let slot = data.slot(index, at);
            if slot.first <= at || slot.end > extended.end {
                return Err("a logical partition lies outside the extended one");
            }
            Some(slot)
        }
    };
    let follower = match link {
        link if link.is_empty() => None,
        link if !kinds::is_extended(link.kind) => return Err("a link has the type of a partition"),
        link => {
            let follower = link.slot(0, extended.first).first;
            if follower <= extended.first || follower >= extended.end {
                return Err("a link leads out of the extended partition");
            }
            Some(follower)
        }
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
        assert_eq!(found.records, [100, 130]);
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
        assert_eq!(kind(&disk), "none");
        assert_eq!(kind(&vec![0; 100]), "none");
    }
}
