//! ext2, ext3 and ext4.
//!
//! ```text
//!   superblock ──► understood? clean? ──► journal ──► replayed in memory, if it must be
//!                                                         │
//!        free map ◄── bitmaps ◄── group descriptors ◄─────┘ superblock, once more
//!            ▲
//!            └─── all owners: inode tables ──► maps of files, directories   (the second witness)
//! ```
//! The order matters: a volume that was in use when its image was taken has the newest descriptors
//! and bitmaps only in its journal. Nothing is believed before the journal is, and nothing is written.
//! Source: the kernel's `Documentation/filesystems/ext4`.

mod attribute;
mod bitmap;
mod blockmap;
mod checksum;
mod directory;
mod features;
mod file;
mod groups;
mod inode;
mod inode_bitmaps;
mod jbd2;
mod journal;
mod log;
mod map;
mod metadata;
mod mmp;
mod owners;
#[cfg(test)]
mod owners_tests;
mod path;
mod raw_superblock;
#[cfg(test)]
mod sample;
mod superblock;

use self::map::Total;
use self::owners::Owners;
use self::raw_superblock::RawSuperblock;
use self::superblock::Superblock;
use super::{Context, Detected, FreeMap, OwnerWalk, Stop};
use crate::error::{Site, Warning};
use crate::io::{Patches, ReadAt};
use crate::units::Space;

/// Recognises ext2, ext3 and ext4.
pub fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let raw = raw_superblock::read(volume)?;
    let mut warnings = Vec::new();
    let outcome = free_map(volume, &raw, &mut warnings);
    Some(Detected::new(raw.features().name(), raw.label(), outcome, warnings))
}

fn free_map(
    volume: &dyn ReadAt,
    raw: &RawSuperblock,
    warnings: &mut Vec<Warning>,
) -> Result<(FreeMap, Box<dyn OwnerWalk>), Stop> {
    let on_disk = Superblock::parse(raw, volume.size())?;
    on_disk.require_clean()?;

    let journal = journal::open(volume, &on_disk)?;
    let Some(replay) = journal.replay()? else {
        mmp::require_idle(volume, &on_disk)?;
        let (map, metadata) = map::free_map(volume, &on_disk, Total::Exact)?;
        let walk = Owners::new(on_disk, metadata, Patches::default(), map.used_bytes)?;
        return Ok((map, walk.boxed()));
    };
    let replayed = &replay.volume;
    let raw = raw_superblock::read(replayed).ok_or_else(|| jbd2::damaged("it replaces the superblock"))?;
    let superblock = Superblock::parse(&raw, volume.size())?;
    superblock.require_clean()?;
    mmp::require_idle(replayed, &superblock)?;
    let (map, metadata) = map::free_map(replayed, &superblock, Total::Stale)?;
    let walk = Owners::new(superblock, metadata, replay.volume.into_patches(), map.used_bytes)?;
    warnings.push(replay_warning(replay.transactions));
    Ok((map, walk.boxed()))
}

fn replay_warning(transactions: usize) -> Warning {
    Warning::new(
        "journal-replayed",
        format!(
            "This file system was in use when the image was taken. Its journal ({transactions} \
             transactions) was replayed in memory to learn what is free. Start the system from the new \
             image as after a power failure; do not resume a saved state with it."
        ),
    )
}

/// A place on the volume.
fn site(structure: &'static str, offset: u64) -> Site {
    Site { structure, space: Space::Volume, offset }
}

#[cfg(test)]
mod tests {
    use super::sample::{self, Log, Protection, Sample};
    use super::*;
    use crate::fs::Mapping;
    use proptest::prelude::*;

    /// Bytes whose change matters most: superblock, descriptors, bitmaps, the journal and its inode.
    fn structures() -> impl Strategy<Value = usize> {
        prop_oneof![
            4 => 1024usize..2048,
            2 => 2048usize..2048 + 192,
            2 => 9 * 1024 + 7 * 256..9 * 1024 + 8 * 256usize,
            4 => 2065 * 1024..2065 * 1024 + 12 * 1024usize,
            1 => 0..4500 * 1024usize,
        ]
    }

    fn in_use() -> Sample {
        let mut log = Log::new(Protection::V1);
        log.write(&[(100, vec![1; 1024]), (101, vec![2; 1024])]).commit();
        log.revoke(&[100, 7]).write(&[(102, vec![3; 1024])]).commit();
        let mut sample = Sample::in_use(&log);
        // Without metadata checksums, so that damage goes deeper than the first of them.
        let ro_compat = 0x1;
        sample.put16(2048 + 2 * 64 + 0x12, 0);
        sample.use_bits(2, 0..10);
        sample.with32(0x64, ro_compat)
    }

    #[test]
    fn the_volume_that_is_damaged_here_is_sound() {
        in_use().mapped();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn damage_never_panics_and_never_frees_what_lies_outside(
            damage in proptest::collection::vec((structures(), any::<u8>()), 1..6),
            checked in any::<bool>(),
        ) {
            let mut sample = if checked { Sample::new() } else { in_use() };
            for (at, value) in damage {
                sample.bytes[at] = value;
            }
            if checked {
                sample.seal();
            }
            let size = sample.bytes.size();
            let found = probe(&sample.bytes, Context { sector_size: 512 });
            if let Some(Detected { mapping: Mapping::Mapped(map), .. }) =
                found.map(|found| found.heard(&sample.bytes))
            {
                prop_assert!(!map.free.intersects(0..3072) && !map.free.intersects(size..u64::MAX));
                prop_assert_eq!(map.free.total(), map.free_bytes);
            }
        }

        #[test]
        fn a_volume_cut_off_anywhere_never_panics(len in 0..usize::try_from(sample::BLOCKS).unwrap() * 1024) {
            let mut sample = in_use();
            sample.bytes.truncate(len);
            let found = probe(&sample.bytes, Context { sector_size: 512 });
            let mapped = found.is_some_and(|found| matches!(found.mapping, Mapping::Mapped(_)));
            prop_assert!(!mapped);
        }
    }
}
