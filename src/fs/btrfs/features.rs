//! The feature bits and flags of Btrfs, each by its name, and what is done about it.
//!
//! What matters is one question: can a feature let somebody own space that the walk does not visit, or let the
//! extent tree or the chunk tree mean something else? A bit that nobody here has thought about declines.
//!
//! Source: btrfs-progs documentation, "On-disk Format" (superblock); the kernel's `btrfs.h` and `btrfs_tree.h`.

use super::checksum::Checksum;
use super::site;
use super::superblock::{PRIMARY, RawSuperblock};
use crate::fs::{Decline, DeclineReason, Stop};

/// Incompatible: back references as they are since 2009. Without them, extents are recorded in another way.
const MIXED_BACKREF: u64 = 1;
/// A default subvolume; data and metadata in the same groups (told by the chunks); lzo and zstd (extents are
/// looked at by their place only); nodes larger than a page; many links in a directory; records of tree blocks
/// without their size; files without records for holes; simple quotas (who made an extent is noted with it).
const HARMLESS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 16;
/// A UUID of the metadata's own.
pub(super) const METADATA_UUID: u64 = 1 << 10;
/// What a feature that is declined is called.
const DECLINED: [(u64, &str); 6] = [
    (1 << 7, "RAID5 or RAID6"),
    (1 << 11, "RAID1 with three or four copies"),
    (1 << 12, "zones"),
    (1 << 13, "the second kind of extent tree"),
    (1 << 14, "a RAID stripe tree"),
    (1 << 17, "a tree of chunks that were moved"),
];
/// Read-only compatible: free space tree, and that it may be believed; verity (its data are items of trees).
const RO_COMPAT: u64 = 0b111;
/// Block groups in a tree of their own.
pub(super) const BLOCK_GROUP_TREE: u64 = 1 << 3;

/// Flags of the superblock: it was written; an error was seen; other devices build upon it.
const WRITTEN: u64 = 1;
const ERROR: u64 = 1 << 2;
const SEEDING: u64 = 1 << 32;

/// The kind of checksums, unless there is something that is not understood.
pub(super) fn check(raw: &RawSuperblock) -> Result<Checksum, Stop> {
    let flags = raw.flags.get();
    if flags & ERROR != 0 {
        let detail =
            "The Btrfs file system is marked as damaged. Run btrfs check on it, unmounted, then try again.";
        return Err(Decline::new(DeclineReason::ErrorState, detail).at(site(PRIMARY, 0x1_0038)).into());
    }
    if flags & SEEDING != 0 {
        return Err(unknown("It is a seed, which other file systems build upon."));
    }
    if flags & !WRITTEN != 0 {
        return Err(unknown(&format!(
            "The flags of its superblock are {flags:#x}: it is a dump, or being converted."
        )));
    }
    if raw.num_devices.get() != 1 {
        return Err(unknown(&format!("It lies on {} devices.", raw.num_devices.get())));
    }
    let (incompat, ro_compat) = (raw.incompat.get(), raw.compat_ro.get());
    if let Some((_, name)) = DECLINED.iter().find(|(bit, _)| incompat & bit != 0) {
        return Err(unknown(&format!("It has {name}.")));
    }
    if incompat & MIXED_BACKREF == 0 {
        return Err(unknown("It has the back references of before 2009."));
    }
    for (kind, bits) in [
        ("incompatible", incompat & !(MIXED_BACKREF | HARMLESS | METADATA_UUID)),
        ("read-only compatible", ro_compat & !(RO_COMPAT | BLOCK_GROUP_TREE)),
    ] {
        if bits != 0 {
            return Err(unknown(&format!("It has unknown {kind} features ({bits:#x}).")));
        }
    }
    let kind = raw.csum_type.get();
    Checksum::of(kind).ok_or_else(|| unknown(&format!("Its checksums are of kind {kind}.")))
}

/// Declines for a feature.
pub(super) fn unknown(what: &str) -> Stop {
    let detail = format!("The Btrfs file system has a feature that is not understood here. {what}");
    Decline::new(DeclineReason::UnknownFeature, detail).at(site(PRIMARY, 0x1_0000)).into()
}
