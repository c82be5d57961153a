//! What lies inside a volume and is no part of its file system: the check that every mapped volume passes.
//!
//! ```text
//!   partition   │ table │ …… nested volume …………………… │ backup table │     a disk inside a partition:
//!   old ext4    0   1024: superblock of long ago                         its free space is the inner data
//! ```
//! A file system that was laid over by a whole disk (a nested machine's raw disk, a slice of another system)
//! can still look alive: formats leave each other's places alone. So a volume whose start holds a partition
//! table is a container, whatever else stands there; and where only the backup of a table is left at the end,
//! the volume is doubted as soon as that table points at a structure in what is called free.
//!
//! Only places that mean something for this volume are looked at. A healthy volume may hold images of disks
//! among its deleted files, and old backups of what it was formatted over.

use super::{Decline, DeclineReason, FreeMap, Stop};
use crate::error::Site;
use crate::io::{ReadAt, Segments, Window};
use crate::units::Space;
use crate::volume::label::{self, Label};
use crate::volume::signature::claims;

/// How many partitions of a backup table are looked at: as many as tools write.
const MAX_PARTITIONS: usize = 128;

/// Declines a mapped volume that holds something else. `has_boot_sector`: its file system has the first
/// sector.
pub(super) fn require_none(volume: &dyn ReadAt, has_boot_sector: bool, map: &FreeMap) -> Result<(), Stop> {
    if let Some(Label { name, offset }) = label::find(volume, has_boot_sector)? {
        let detail = format!(
            "This volume holds a partition table of its own ({name}), so it is a disk inside a disk, and the file \
             system that stands here as well may be a leftover. Nothing of it is taken for free. If the table is \
             the leftover, remove it with wipefs."
        );
        return Err(decline(detail, offset));
    }
    let partitions = label::backup_gpt_partitions(volume)?;
    let in_free = partitions.iter().filter(|range| calls_free(map, range.start));
    for (count, range) in in_free.enumerate() {
        let found = claims(&Window::new(volume, Segments::single(range.clone()))?)?;
        if let Some(claim) = found.first() {
            let detail = format!(
                "The backup of a GUID partition table at the end of this volume points at {} in what its file system \
                 calls free, so one of them is a leftover, and which one cannot be told. If it is the table, remove \
                 it with wipefs.",
                claim.name
            );
            return Err(decline(detail, range.start));
        }
        if count >= MAX_PARTITIONS {
            let detail = "The backup of a GUID partition table at the end of this volume has more partitions in its \
                          free space than are looked at.";
            return Err(decline(detail.to_owned(), range.start));
        }
    }
    Ok(())
}

/// Whether the byte at `offset` is free, or may become so on request.
fn calls_free(map: &FreeMap, offset: u64) -> bool {
    let Some(end) = offset.checked_add(1) else { return false };
    let on_request = map.on_request.iter().map(|(_, extents)| extents);
    std::iter::once(&map.free).chain(on_request).any(|extents| extents.intersects(offset..end))
}

fn decline(detail: String, offset: u64) -> Stop {
    let site = Site { structure: "nested partition table", space: Space::Volume, offset };
    Decline::new(DeclineReason::Inconsistent, detail).at(site).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc32;
    use crate::extents::Extents;
    use crate::fs::Request;
    use std::ops::Range;

    fn free(range: Range<u64>) -> FreeMap {
        FreeMap { free: Extents::from_ranges(vec![range]), ..FreeMap::default() }
    }

    fn refused(volume: &[u8], map: &FreeMap) -> Option<Decline> {
        require_none(&volume, false, map).err().map(Stop::into_decline)
    }

    #[test]
    fn a_table_at_the_start_declines_whatever_is_free() {
        let mut volume = vec![0; 1 << 20];
        assert_eq!(refused(&volume, &free(0..0)), None);
        volume[512..520].copy_from_slice(b"EFI PART");
        let decline = refused(&volume, &FreeMap::default()).unwrap();
        assert_eq!((decline.reason, decline.site.unwrap().offset), (DeclineReason::Inconsistent, 512));
        assert!(decline.detail.contains("GUID partition table"));
    }

    /// The last 33 sectors of a disk with a GPT, whose only partition are the sectors 100–999.
    fn with_backup_gpt(mut volume: Vec<u8>) -> Vec<u8> {
        let last = volume.len() / 512 - 1;
        let mut entries = [0; 128 * 128];
        entries[..16].fill(0x11);
        entries[32..40].copy_from_slice(&100u64.to_le_bytes());
        entries[40..48].copy_from_slice(&999u64.to_le_bytes());
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        let words: [(usize, u64); 5] =
            [(24, last as u64), (32, 1), (40, 34), (48, last as u64 - 33), (72, last as u64 - 32)];
        for (at, value) in words {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(8, 0x1_0000u32), (12, 92), (80, 128), (84, 128), (88, crc32([&entries[..]]))] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32([&header[..]]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        volume[(last - 32) * 512..last * 512].copy_from_slice(&entries);
        volume[last * 512..last * 512 + 92].copy_from_slice(&header);
        volume
    }

    #[test]
    fn a_backup_table_counts_where_a_structure_stands_in_free_space() {
        let blank = with_backup_gpt(vec![0; 1 << 20]);
        assert_eq!(refused(&blank, &free(0..1 << 20)), None, "a leftover of a disk that was formatted whole");
        let mut live = blank;
        live[100 * 512 + 3..][..8].copy_from_slice(b"NTFS    ");
        let decline = refused(&live, &free(100 * 512..200 * 512)).unwrap();
        assert!(decline.detail.contains("NTFS") && decline.site.unwrap().offset == 100 * 512);
        let pages = Extents::from_ranges(vec![0..1 << 20]);
        let on_request = FreeMap { on_request: vec![(Request::PageFiles, pages)], ..FreeMap::default() };
        assert!(refused(&live, &on_request).is_some());
        assert_eq!(refused(&live, &free(101 * 512..1 << 20)), None, "in use: the contents of a file");
    }

    #[test]
    fn a_deleted_image_in_the_middle_is_nobodys() {
        let mut volume = vec![0; 1 << 20];
        volume[300 * 512 + 3..][..8].copy_from_slice(b"NTFS    ");
        volume[301 * 512..][..8].copy_from_slice(b"EFI PART");
        assert_eq!(refused(&volume, &free(4096..1 << 20)), None);
    }
}
