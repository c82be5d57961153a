//! The main boot region of an exFAT volume: where its parts lie.
//!
//! ```text
//!   sector 0      1 … 8           9     10         11
//!   │ boot sector │ extended boot │ OEM │ reserved │ checksum of 0 … 10, repeated │  backup: 12 …
//! ```
//! The backup is never used: a volume whose main region is damaged wants a repair first.
//!
//! Source: Microsoft exFAT file system specification, sections 3.1 and 3.4.

use std::ops::Range;

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{inconsistent, unknown};
use crate::error::{Error, Result, Site};
use crate::fs::cluster_set::MAX_CLUSTERS;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{Space, add, index, mul};
use crate::volume::signature::BOOT_SIGNATURE;

pub(super) const BOOT: Site = Site { structure: "exFAT boot sector", space: Space::Volume, offset: 0 };

const ACTIVE_FAT: u16 = 0x0001;
const VOLUME_DIRTY: u16 = 0x0002;
const MEDIA_FAILURE: u16 = 0x0004;
/// Set by some implementations and without a meaning for others.
const CLEAR_TO_ZERO: u16 = 0x0008;
/// The bytes of VolumeFlags and PercentInUse, which change without a new checksum.
const VOLATILE: [usize; 3] = [106, 107, 112];
/// Section 3.1.15: sector and cluster shift make 25 at most.
const MAX_CLUSTER_SIZE: u64 = 1 << 25;
/// How many sectors the checksum covers.
const CHECKED_SECTORS: u64 = 11;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawBoot {
    jump_boot: [u8; 3],
    file_system_name: [u8; 8],
    must_be_zero: [u8; 53],
    _partition_offset: U64<LE>,
    volume_length: U64<LE>,
    fat_offset: U32<LE>,
    fat_length: U32<LE>,
    cluster_heap_offset: U32<LE>,
    cluster_count: U32<LE>,
    first_cluster_of_root_directory: U32<LE>,
    _volume_serial_number: U32<LE>,
    file_system_revision: U16<LE>,
    volume_flags: U16<LE>,
    bytes_per_sector_shift: u8,
    sectors_per_cluster_shift: u8,
    number_of_fats: u8,
    _drive_select: u8,
    percent_in_use: u8,
    _reserved: [u8; 7],
    _boot_code: [u8; 390],
    boot_signature: [u8; 2],
}

/// Where everything lies, in volume bytes, checked to lie inside the volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) cluster_size: u64,
    /// The clusters are numbered `2 ..= last_cluster`.
    pub(super) last_cluster: u32,
    pub(super) heap: u64,
    pub(super) fat: u64,
    pub(super) root: u32,
}

impl Geometry {
    /// The boot sector's own 32-bit count, one less than the last number.
    pub(super) fn clusters(&self) -> u64 {
        u64::from(self.last_cluster).wrapping_sub(1)
    }

    pub(super) fn is_cluster(&self, cluster: u32) -> bool {
        (2..=self.last_cluster).contains(&cluster)
    }

    /// The bytes of a cluster that [`Self::is_cluster`].
    ///
    /// # Errors
    /// `internal` for any other number.
    pub(super) fn cluster(&self, cluster: u32) -> Result<Range<u64>> {
        let before = cluster.checked_sub(2).filter(|_| self.is_cluster(cluster));
        let before = before.ok_or_else(|| Error::internal("a number that is no cluster"))?;
        let start = add(self.heap, mul(before.into(), self.cluster_size, "a cluster")?, "a cluster")?;
        Ok(start..add(start, self.cluster_size, "a cluster")?)
    }

    /// The byte after the last cluster.
    pub(super) fn end(&self) -> Result<u64> {
        Ok(self.cluster(self.last_cluster)?.end)
    }
}

impl RawBoot {
    /// The boot sector, if it is one of exFAT.
    pub(super) fn read(volume: &dyn ReadAt) -> Option<Self> {
        let boot: Self = read_struct(volume, 0).ok()?;
        (boot.file_system_name == *b"EXFAT   ").then_some(boot)
    }

    /// What the volume says of itself: a percentage, rounded down, or nothing.
    pub(super) fn percent_in_use(&self) -> Option<u64> {
        (self.percent_in_use != 0xFF).then_some(self.percent_in_use.into())
    }

    /// Where everything lies.
    pub(super) fn geometry(&self, volume: &dyn ReadAt) -> Result<Geometry, Stop> {
        if self.jump_boot != [0xEB, 0x76, 0x90]
            || self.boot_signature != BOOT_SIGNATURE
            || self.must_be_zero.iter().any(|&byte| byte != 0)
        {
            return Err(inconsistent("Its boot sector is damaged.", BOOT));
        }
        if self.file_system_revision.get() != 0x0100 {
            let revision = self.file_system_revision.get();
            return Err(unknown(&format!("It has revision {revision:#06x}, and only 1.00 is known."), BOOT));
        }
        let sector = match self.bytes_per_sector_shift {
            shift @ 9..=12 => 1u64 << shift,
            _ => return Err(inconsistent("Its sector size is impossible.", BOOT)),
        };
        verify_checksum(volume, sector)?;
        if self.number_of_fats != 1 {
            return Err(unknown("It has more than one FAT (TexFAT).", BOOT));
        }
        let cluster_size = match self.sectors_per_cluster_shift {
            shift @ 0..=16 => sector.checked_shl(shift.into()).filter(|&size| size <= MAX_CLUSTER_SIZE),
            _ => None,
        };
        let Some(cluster_size) = cluster_size else {
            return Err(inconsistent("Its cluster size is impossible.", BOOT));
        };
        let size = mul(self.volume_length.get(), sector, "the volume")?;
        if size > volume.size() {
            return Err(inconsistent("It is larger than its partition.", BOOT));
        }
        let fat = mul(self.fat_offset.get().into(), sector, "the FAT")?;
        let fat_size = mul(self.fat_length.get().into(), sector, "the FAT")?;
        let heap = mul(self.cluster_heap_offset.get().into(), sector, "the cluster heap")?;
        let clusters = u64::from(self.cluster_count.get());
        let entries = mul(add(clusters, 2, "the FAT")?, 4, "the FAT")?;
        let heap_end = add(heap, mul(clusters, cluster_size, "the cluster heap")?, "the cluster heap")?;
        let regions = mul(24, sector, "the boot regions")?;
        if fat < regions || entries > fat_size || add(fat, fat_size, "the FAT")? > heap || heap_end > size {
            return Err(inconsistent("Its regions overlap or do not fit.", BOOT));
        }
        if clusters == 0 || clusters > MAX_CLUSTERS {
            let detail = format!("It has {clusters} clusters; up to {MAX_CLUSTERS} are checked.");
            return Err(unknown(&detail, BOOT));
        }
        let last_cluster = self.cluster_count.get().checked_add(1);
        let last_cluster = last_cluster.ok_or_else(|| Error::internal("more clusters than are checked"))?;
        let geometry = Geometry {
            cluster_size,
            last_cluster,
            heap,
            fat,
            root: self.first_cluster_of_root_directory.get(),
        };
        if geometry.is_cluster(geometry.root) {
            Ok(geometry)
        } else {
            Err(inconsistent("Its root directory lies outside the volume.", BOOT))
        }
    }

    /// Declines a volume that says it was not unmounted, or has errors.
    pub(super) fn check_flags(&self) -> Result<(), Stop> {
        let flags = self.volume_flags.get();
        if flags & VOLUME_DIRTY != 0 {
            let detail = "The volume was not cleanly unmounted. Start the machine, let it check the volume \
                          (chkdsk, fsck.exfat), shut it down completely, and try again.";
            return Err(Decline::new(DeclineReason::Dirty, detail).at(BOOT).into());
        }
        if flags & MEDIA_FAILURE != 0 {
            let detail = "The volume remembers an error of its disk. Let the machine check it (chkdsk /r, \
                          fsck.exfat) and try again.";
            return Err(Decline::new(DeclineReason::ErrorState, detail).at(BOOT).into());
        }
        if flags & ACTIVE_FAT != 0 {
            return Err(inconsistent("Its active FAT is a second one, which it does not have.", BOOT));
        }
        if flags & !(VOLUME_DIRTY | MEDIA_FAILURE | ACTIVE_FAT | CLEAR_TO_ZERO) != 0 {
            return Err(unknown(&format!("It has unknown flags ({flags:#06x})."), BOOT));
        }
        Ok(())
    }
}

/// The checksum sector repeats one sum over the sectors before it.
fn verify_checksum(volume: &dyn ReadAt, sector: u64) -> Result<(), Stop> {
    let checked = mul(CHECKED_SECTORS, sector, "the boot region")?;
    let bytes = read_vec(volume, 0, index(checked, "the boot region")?)?;
    let sum = boot_checksum(&bytes);
    let stored = read_vec(volume, checked, index(sector, "a sector")?)?;
    if stored.chunks_exact(4).all(|word| word == sum.to_le_bytes()) {
        return Ok(());
    }
    let site = Site { structure: "exFAT boot checksum", space: Space::Volume, offset: checked };
    Err(inconsistent("Its boot region does not match its checksum.", site))
}

/// Section 3.4: rotate right by one, add the next byte.
pub(super) fn boot_checksum(bytes: &[u8]) -> u32 {
    let stable = bytes.iter().enumerate().filter(|(i, _)| !VOLATILE.contains(i));
    stable.fold(0u32, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()))
}
