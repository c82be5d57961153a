//! The feature bits of XFS, each by its name, and what is done about it.
//!
//! What matters is one question: can a feature let somebody own space that the walk does not visit, or let
//! the trees of an allocation group mean something else? A bit that nobody here has thought about declines.
//! Only the compatible bits (none exists yet) are passed over: by definition a kernel that does not know them
//! may write into the free space.
//!
//! Source: XFS Algorithms & Data Structures, "Superblocks"; the kernel's `xfs_format.h`.

use super::superblock::{RawSuperblock, SUPERBLOCK};
use crate::fs::{Decline, DeclineReason, Stop};

/// Read-only compatible: free inode B+tree, reverse mappings, shared extents, block counts in the AGI.
pub(super) const FINOBT: u32 = 1;
pub(super) const RMAPBT: u32 = 1 << 1;
pub(super) const REFLINK: u32 = 1 << 2;
const INOBTCNT: u32 = 1 << 3;

/// Incompatible: names with file types, inode chunks with holes, a UUID of the metadata's own.
pub(super) const FTYPE: u32 = 1;
pub(super) const SPARSE_INODES: u32 = 1 << 1;
pub(super) const META_UUID: u32 = 1 << 2;
/// Timestamps after 2038.
const BIGTIME: u32 = 1 << 3;
/// `xfs_repair` must run before anybody mounts.
const NEEDSREPAIR: u32 = 1 << 4;
/// 64-bit extent counts, told inode by inode.
const NREXT64: u32 = 1 << 5;
/// Swapping of file ranges: new entries in the log, and nothing new outside of it.
const EXCHRANGE: u32 = 1 << 6;
/// Parent pointers: ordinary extended attributes.
const PARENT: u32 = 1 << 7;
/// A directory tree of metadata files, which may keep extents in new kinds of trees.
const METADIR: u32 = 1 << 8;
/// Realtime sections of zones, perhaps on the same device.
const ZONED: u32 = 1 << 9;
const ZONE_GAPS: u32 = 1 << 10;

/// In the log only: extended attributes are changed by intents. A clean log holds none.
const LOG_XATTRS: u32 = 1;

/// Version 4, `sb_versionnum`: the version, and one bit that nobody ever used ("shared").
const VERSION: u16 = 0x000F;
const V4_SHARED: u16 = 0x0200;
pub(super) const V4_LOG_V2: u16 = 0x0400;
const V4_DIR_V2: u16 = 0x2000;
const V4_MORE_BITS: u16 = 0x8000;
/// Version 4, `sb_features2`: lazy counters, attr2, 32-bit project ids, file types.
pub(super) const V4_LAZY_COUNT: u32 = 0x0002;
pub(super) const V4_FTYPE: u32 = 0x0200;
const V4_FEATURES2: u32 = V4_LAZY_COUNT | 0x0008 | 0x0080 | V4_FTYPE;

/// What a feature that is declined is called.
const DECLINED: [(u32, &str); 3] = [
    (METADIR, "a metadata directory tree"),
    (ZONED, "a zoned realtime section"),
    (ZONE_GAPS, "a zoned realtime section with gaps"),
];

/// Declines what is not understood. Gives whether it is version 5.
pub(super) fn check(raw: &RawSuperblock) -> Result<bool, Stop> {
    let version = raw.versionnum.get();
    match version & VERSION {
        4 => check_v4(raw).map(|()| false),
        5 => check_v5(raw).map(|()| true),
        old => Err(unknown(&format!("Its version is {old}; versions 4 and 5 are understood."))),
    }
}

fn check_v4(raw: &RawSuperblock) -> Result<(), Stop> {
    let version = raw.versionnum.get();
    if version & V4_SHARED != 0 || version & V4_DIR_V2 == 0 {
        return Err(unknown(&format!("Its version flags are {version:#06x}.")));
    }
    let features2 = if version & V4_MORE_BITS == 0 { 0 } else { raw.features2() };
    if features2 & !V4_FEATURES2 != 0 {
        return Err(unknown(&format!("Its second feature flags are {features2:#x}.")));
    }
    Ok(())
}

fn check_v5(raw: &RawSuperblock) -> Result<(), Stop> {
    let incompat = raw.features_incompat.get();
    if incompat & NEEDSREPAIR != 0 {
        let detail =
            "The XFS file system is marked as needing a repair. Run xfs_repair on it, then try again.";
        return Err(Decline::new(DeclineReason::ErrorState, detail).at(SUPERBLOCK).into());
    }
    if let Some((_, name)) = DECLINED.iter().find(|(bit, _)| incompat & bit != 0) {
        return Err(unknown(&format!("It has {name}.")));
    }
    let known = FTYPE | SPARSE_INODES | META_UUID | BIGTIME | NREXT64 | EXCHRANGE | PARENT;
    let ro_compat = raw.features_ro_compat.get();
    let log = raw.features_log_incompat.get();
    for (kind, bits) in [
        ("incompatible", incompat & !known),
        ("read-only compatible", ro_compat & !(FINOBT | RMAPBT | REFLINK | INOBTCNT)),
        ("log", log & !LOG_XATTRS),
    ] {
        if bits != 0 {
            return Err(unknown(&format!("It has unknown {kind} features ({bits:#x}).")));
        }
    }
    Ok(())
}

/// Declines for a feature.
pub(super) fn unknown(what: &str) -> Stop {
    let detail = format!("The XFS file system has a feature that is not understood here. {what}");
    Decline::new(DeclineReason::UnknownFeature, detail).at(SUPERBLOCK).into()
}
