//! Partition tables of any kind at the start of an area: what makes a volume a container.
//!
//! ```text
//!   0             512                1024  …  4096              …   14848
//!   │ MBR, Sun,   │ GPT, BSD, Mac,   │        │ GPT with sectors  │ UnixWare
//!   │ SGI, Mac    │ Solaris, Plan 9  │        │ of 4096 bytes     │
//! ```
//! A partition that holds a partition table of its own is a disk inside a disk: a raw disk of a nested
//! machine, a slice of BSD or Solaris. What stands at the place of a file system's superblock there is a
//! leftover from an earlier use, and its free space is the nested disk's data. Only MBR and GPT are read as
//! tables (on the disk itself); of the others it is enough to know them.
//!
//! Sources: as [`super::mbr`] and [`super::gpt`]; `sys/disklabel.h` of the BSDs, Linux
//! `block/partitions/*`, and libblkid's places, checked with tables that `fdisk`, `sfdisk` and `parted` write.

use zerocopy::byteorder::{BE, LE, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::gpt;
use super::mbr::{self, FirstSector};
use crate::error::Result;
use crate::io::{ReadAt, read_vec};
use crate::units::index;

/// A partition table inside an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The name of the scheme as people know it.
    pub name: &'static str,
    /// Where its signature stands.
    pub offset: u64,
}

/// The partition table at the start of `area`, if there is one. `has_boot_sector`: the first sector belongs
/// to the file system that the area seems to hold, so that what looks like entries there may be its boot code.
///
/// # Errors
/// Where the area cannot be read.
pub fn find(area: &dyn ReadAt, has_boot_sector: bool) -> Result<Option<Label>> {
    if holds_mbr(area, has_boot_sector)? {
        return Ok(Some(Label { name: "MBR", offset: 446 }));
    }
    let start = read_vec(area, 0, index(area.size().min(START), "the start of a volume")?)?;
    Ok(LABELS.iter().find_map(|(name, offsets, matches)| {
        let is_there =
            |offset: &&u64| index(**offset, "").ok().and_then(|at| start.get(at..)).is_some_and(matches);
        offsets.iter().find(is_there).map(|&offset| Label { name, offset })
    }))
}

/// The byte ranges (cut off at the end of `area`) of the partitions of a backup GPT at its end, whose primary
/// copy is gone. Many a healthy disk that was formatted whole carries such a leftover.
///
/// # Errors
/// Where the area cannot be read.
pub fn backup_gpt_partitions(area: &dyn ReadAt) -> Result<Vec<std::ops::Range<u64>>> {
    let mut found = Vec::new();
    for sector_size in [512, 4096] {
        let Some(table) = gpt::read(area, sector_size)? else { continue };
        for partition in table.partitions {
            let bytes = super::bytes(&(partition.first..partition.end), sector_size);
            let bytes = bytes.start..bytes.end.min(area.size());
            if bytes.start > 0 && bytes.start < bytes.end {
                found.push(bytes);
            }
        }
    }
    Ok(found)
}

/// A boot sector with boot code in place of entries has none that begins inside the volume; that of a file
/// system which leaves the first sector alone has no entries at all.
fn holds_mbr(area: &dyn ReadAt, has_boot_sector: bool) -> Result<bool> {
    let sectors = area.size() / 512;
    Ok(match mbr::first_sector(area)? {
        FirstSector::NoTable => false,
        FirstSector::Odd(_) => true,
        // The protective entry itself begins at sector 1.
        FirstSector::Protective(_) => true,
        FirstSector::Table(slots) => !has_boot_sector || slots.iter().any(|slot| slot.starts_inside(sectors)),
    })
}

/// How much of the start is looked at.
const START: u64 = 32 << 10;

/// Name, places, and whether what begins at such a place is the scheme's.
type Known = (&'static str, &'static [u64], fn(&[u8]) -> bool);

const LABELS: &[Known] = &[
    ("GUID partition table", &[512, 4096], |at| at.starts_with(b"EFI PART")),
    ("BSD disk label", &[0, 64, 128, 512, 576, 640, 4096], is_bsd),
    ("DragonFly BSD disk label", &[512, 4096], |at| at.starts_with(b"\x59\x4C\x46\xC4")),
    ("Sun disk label", &[0], is_sun),
    ("SGI disk label", &[0], |at| at.starts_with(b"\x0B\xE5\xA9\x41")),
    ("Apple partition map", &[512, 1024, 2048, 4096], is_apple),
    ("Amiga partition table", &AMIGA, is_amiga),
    ("Plan 9 partition table", &[512], |at| at.starts_with(b"part ")),
    ("Solaris disk label", &[512 + 12], |at| at.starts_with(b"\xEE\xDE\x0D\x60")),
    ("UnixWare disk label", &[29 * 512 + 4], |at| at.starts_with(b"\x0D\x60\x5E\xCA")),
];

/// The first sixteen sectors.
const AMIGA: [u64; 16] =
    [0, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 4608, 5120, 5632, 6144, 6656, 7168, 7680];

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BsdLabel {
    magic: U32<LE>,
    _geometry: [u8; 128],
    magic2: U32<LE>,
}

/// Two magic numbers, in either byte order.
fn is_bsd(at: &[u8]) -> bool {
    const MAGIC: u32 = 0x8256_4557;
    let Ok((label, _)) = BsdLabel::ref_from_prefix(at) else { return false };
    [MAGIC, MAGIC.swap_bytes()].iter().any(|&magic| label.magic.get() == magic && label.magic2.get() == magic)
}

/// The magic number ends the sector but for a checksum, which makes the XOR of all its words zero.
fn is_sun(at: &[u8]) -> bool {
    let Some(sector) = at.first_chunk::<512>() else { return false };
    let words = || sector.chunks_exact(2).filter_map(|word| U16::<BE>::read_from_bytes(word).ok());
    words().nth(254).is_some_and(|magic| magic.get() == 0xDABE)
        && words().fold(0, |sum, word| sum ^ word.get()) == 0
}

/// An entry of the map: signature, padding, and how many entries the map has.
fn is_apple(at: &[u8]) -> bool {
    let entries = at.get(4..8).and_then(|bytes| U32::<BE>::read_from_bytes(bytes).ok());
    at.starts_with(b"PM\0\0") && entries.is_some_and(|entries| (1..=256).contains(&entries.get()))
}

/// A block of some longs whose sum is zero.
fn is_amiga(at: &[u8]) -> bool {
    let mut longs = at.chunks_exact(4).filter_map(|long| U32::<BE>::read_from_bytes(long).ok()).map(U32::get);
    let (Some(id), Some(count)) = (longs.next(), longs.next()) else { return false };
    let Some(rest) = count.checked_sub(2).and_then(|rest| usize::try_from(rest).ok()) else { return false };
    let sum = longs.by_ref().take(rest).fold(id.wrapping_add(count), u32::wrapping_add);
    id == u32::from_be_bytes(*b"RDSK") && count <= 128 && sum == 0
}

#[cfg(test)]
mod tests {
    use super::super::gpt::tests::Builder;
    use super::super::mbr::tests::put;
    use super::*;

    fn blank() -> Vec<u8> {
        vec![0; 1000 * 512]
    }

    fn found(area: &[u8]) -> [Option<&'static str>; 2] {
        [false, true].map(|boot| find(&area, boot).unwrap().map(|label| label.name))
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut area = blank();
        area[at..at + bytes.len()].copy_from_slice(bytes);
        area
    }

    #[test]
    fn an_empty_start_holds_no_table() {
        assert_eq!(found(&blank()), [None; 2]);
        assert_eq!(found(&[]), [None; 2]);
        let mut area = blank();
        put(&mut area, 0, &[]);
        assert_eq!(found(&area), [None; 2]);
    }

    #[test]
    fn an_mbr_is_one_if_an_entry_begins_inside() {
        let both: [&[(u8, u8, u32, u32)]; 7] = [
            &[(0x80, 7, 63, 100)],
            &[(0, 0x83, 999, 5000)],
            &[(0, 0x0F, 2, 100)],
            &[(0, 0x1F, 2, 100)],
            &[(0, 0xEE, 1, u32::MAX)],
            &[(0, 0x74, u32::MAX, 3), (0, 7, 256, 40)],
            &[(1, 7, 63, 100)],
        ];
        for entries in both {
            let mut area = blank();
            put(&mut area, 0, entries);
            assert_eq!(found(&area), [Some("MBR"); 2], "{entries:?}");
        }
        // The fake entry of a superfloppy, and boot code: a table only where no boot sector belongs.
        let code: [&[(u8, u8, u32, u32)]; 3] =
            [&[(0x80, 0x0C, 0, 1000)], &[(0, 0x6F, 0x7369_6420, 9)], &[(0, 7, 1000, 100)]];
        for entries in code {
            let mut area = blank();
            put(&mut area, 0, entries);
            assert_eq!(found(&area), [Some("MBR"), None], "{entries:?}");
        }
    }

    #[test]
    fn other_tables_are_known_at_their_places() {
        let mut bsd = [0; 136];
        bsd[..4].copy_from_slice(b"\x57\x45\x56\x82");
        bsd[132..].copy_from_slice(b"\x57\x45\x56\x82");
        for at in [0, 64, 512, 4096] {
            assert_eq!(found(&with(at, &bsd)), [Some("BSD disk label"); 2]);
        }
        bsd.reverse();
        assert_eq!(found(&with(512, &bsd)), [Some("BSD disk label"); 2]);
        bsd[0] = 0;
        assert_eq!(found(&with(512, &bsd)), [None; 2]);

        let mut sun = blank();
        sun[188] = 0x60;
        sun[508..512].copy_from_slice(&[0xDA, 0xBE, 0xDA ^ 0x60, 0xBE]);
        assert_eq!(found(&sun), [Some("Sun disk label"); 2]);
        sun[200] = 1;
        assert_eq!(found(&sun), [None; 2]);

        let mut amiga = [0; 256];
        amiga[..8].copy_from_slice(b"RDSK\0\0\0\x40");
        let sum = 0u32.wrapping_sub(u32::from_be_bytes(*b"RDSK")).wrapping_sub(0x40);
        amiga[8..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(found(&with(1024, &amiga)), [Some("Amiga partition table"); 2]);
        amiga[12] = 1;
        assert_eq!(found(&with(1024, &amiga)), [None; 2]);

        let fixed: [(&str, usize, &[u8]); 7] = [
            ("GUID partition table", 512, b"EFI PART"),
            ("GUID partition table", 4096, b"EFI PART"),
            ("DragonFly BSD disk label", 512, b"\x59\x4C\x46\xC4"),
            ("SGI disk label", 0, b"\x0B\xE5\xA9\x41"),
            ("Apple partition map", 512, b"PM\0\0\0\0\0\x03"),
            ("Solaris disk label", 524, b"\xEE\xDE\x0D\x60"),
            ("UnixWare disk label", 14852, b"\x0D\x60\x5E\xCA"),
        ];
        for (name, at, bytes) in fixed {
            assert_eq!(found(&with(at, bytes)), [Some(name); 2]);
        }
        assert_eq!(found(&with(512, b"PM\0\0\0\0\0\0")), [None; 2]);
    }

    #[test]
    fn a_backup_gpt_tells_where_its_partitions_were() {
        for sector_size in [512, 4096] {
            let mut area = Builder::new(sector_size, 256).build();
            area[..sector_size * 34].fill(0);
            let size = u64::try_from(sector_size).unwrap();
            assert_eq!(backup_gpt_partitions(&area).unwrap(), [40 * size..100 * size]);
        }
        assert!(backup_gpt_partitions(&blank()).unwrap().is_empty());
    }
}
