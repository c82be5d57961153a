//! ext2, ext3 and ext4.
//!
//! ```text
//!   superblock ──► understood? clean? ──► journal ──► replayed in memory, if it must be
//!                                                         │
//!        free map ◄── bitmaps ◄── group descriptors ◄─────┘ superblock, once more
//! ```
//! The order matters: a volume that was in use when its image was taken has the newest descriptors
//! and bitmaps only in its journal. Nothing is believed before the journal is, and nothing is written.
//! Source: the kernel's `Documentation/filesystems/ext4`.

mod bitmap;
mod checksum;
mod features;
mod groups;
mod inode;
mod jbd2;
mod journal;
mod map;
mod mmp;
mod rival;
mod superblock;

use self::map::Total;
use self::superblock::{RawSuperblock, Superblock};
use super::{Context, Detected, FreeMap, Stop, settle};
use crate::error::{Site, Warning};
use crate::io::ReadAt;
use crate::units::Space;

/// Recognises ext2, ext3 and ext4.
pub fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let raw = superblock::read(volume)?;
    let mut warnings = Vec::new();
    let mapping = settle(free_map(volume, &raw, &mut warnings));
    Some(Detected { name: raw.features().name(), label: raw.label(), mapping, warnings })
}

fn free_map(volume: &dyn ReadAt, raw: &RawSuperblock, warnings: &mut Vec<Warning>) -> Result<FreeMap, Stop> {
    let on_disk = Superblock::parse(raw, volume.size())?;
    rival::require_none(volume)?;
    on_disk.require_clean()?;

    let journal = journal::open(volume, &on_disk)?;
    let Some(replay) = journal.replay()? else {
        mmp::require_idle(volume, &on_disk)?;
        return map::free_map(volume, &on_disk, Total::Exact, &journal.blocks());
    };
    warnings.push(replay_warning(replay.transactions));

    let volume: &dyn ReadAt = &replay.volume;
    let raw = superblock::read(volume).ok_or_else(|| jbd2::damaged("it replaces the superblock"))?;
    let replayed = Superblock::parse(&raw, volume.size())?;
    replayed.require_clean()?;
    mmp::require_idle(volume, &replayed)?;
    map::free_map(volume, &replayed, Total::Stale, &journal.blocks())
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
