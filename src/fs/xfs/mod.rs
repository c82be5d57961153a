//! XFS, versions 4 and 5.
//!
//! ```text
//!   superblock ──► understood? ──► log ──► clean? ──► free space trees of each group ──► free map
//!                                                                                          │
//!                             inodes, names, trees, reverse mappings ──► walk ◄────────────┘
//! ```
//! The order matters: free space trees are believed only of a file system that was unmounted, since newer ones
//! may be in the log. The log is not replayed.
//!
//! Source: XFS Algorithms & Data Structures (third edition); the kernel's `xfs_format.h`.

mod btree;
mod chunk;
mod directory;
mod features;
mod file;
mod group;
mod inode;
mod log;
mod map;
#[cfg(test)]
mod sample;
mod superblock;
#[cfg(test)]
mod tests;
mod walk;

use self::superblock::{Fs, RawSuperblock};
use self::walk::Walk;
use super::witness::OwnerWalk;
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Stop};
use crate::error::Site;
use crate::io::{Cached, ReadAt};
use crate::units::Space;

/// Recognises XFS and maps its free blocks.
pub(super) fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let raw = RawSuperblock::read(volume)?;
    let outcome = map(&Cached::new(volume), &raw);
    Some(Detected::new("XFS", raw.label(), outcome, Vec::new()))
}

fn map(volume: &dyn ReadAt, raw: &RawSuperblock) -> Result<(FreeMap, Box<dyn OwnerWalk>), Stop> {
    let fs = Fs::parse(raw, volume)?;
    let head = log::require_clean(&fs, volume)?;
    let fs = fs.with_head(head)?;
    let map = map::free_map(&fs, volume)?;
    Ok((map, Walk::new(fs).boxed()))
}

/// A place on the volume.
fn site(structure: &'static str, offset: u64) -> Site {
    Site { structure, space: Space::Volume, offset }
}

/// Declines for a contradiction.
fn damaged(what: &str, at: Site) -> Stop {
    let detail = format!(
        "The XFS file system contradicts itself: {what}. Unmount it and run xfs_repair on it, then try again."
    );
    Decline::new(DeclineReason::Inconsistent, detail).at(at).into()
}
