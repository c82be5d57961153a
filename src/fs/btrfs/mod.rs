//! Btrfs on one device.
//!
//! ```text
//!   superblock ──► understood? ──► chunk tree ──► device extents, block groups, extent tree ──► free map
//!                                                                                                  │
//!                       root tree ──► all trees ──► tree blocks, extents of files ──► walk ◄───────┘
//! ```
//! Everything is written to new places and then the superblock is turned over to it, so what the superblock
//! leads to is whole at any time, unmounted or not. The exceptions decline: a log tree that is still to be
//! replayed (its blocks are in no extent tree), a balance or a replacement of the device under way. The
//! superblock that counts is the first one, since that is what a kernel mounts by; a copy that is newer, or a
//! first one that is damaged, declines.
//!
//! Read are the profiles "single" and "dup"; of two copies both are kept. All kinds of checksums
//! are read ([`checksum`]).
//!
//! Source: btrfs-progs documentation, "On-disk Format", "Tree items"; the kernel's `btrfs_tree.h`.

mod checksum;
mod chunk;
mod features;
mod map;
#[cfg(test)]
mod sample;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod walk;
#[cfg(test)]
mod walk_tests;

use self::superblock::{Fs, Superblock};
use self::walk::Walk;
use super::witness::OwnerWalk;
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Stop};
use crate::error::Site;
use crate::io::{Cached, ReadAt};
use crate::units::Space;

/// Recognises Btrfs and maps its free space.
pub(super) fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let superblock = Superblock::read(volume)?;
    let label = superblock.label();
    Some(Detected::new("Btrfs", label, map(&Cached::new(volume), &superblock), Vec::new()))
}

fn map(volume: &dyn ReadAt, superblock: &Superblock) -> Result<(FreeMap, Box<dyn OwnerWalk>), Stop> {
    let fs = Fs::open(superblock, volume)?;
    let map = map::free_map(&fs, volume)?;
    Ok((map, Walk::new(fs)?.boxed()))
}

/// A place on the volume.
fn site(structure: &'static str, offset: u64) -> Site {
    Site { structure, space: Space::Volume, offset }
}

/// Declines for a contradiction.
fn damaged(what: &str, at: Site) -> Stop {
    let detail = format!(
        "The Btrfs file system contradicts itself: {what}. See what btrfs check says of it, unmounted, repair it, \
         then try again."
    );
    Decline::new(DeclineReason::Inconsistent, detail).at(at).into()
}

/// Declines for something that a mounted file system must finish first.
fn unfinished(reason: DeclineReason, what: &str, at: Site) -> Stop {
    let detail = format!("The Btrfs file system is in the middle of something. {what} Then try again.");
    Decline::new(reason, detail).at(at).into()
}
