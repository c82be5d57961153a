//! The boot sector of a FAT volume: which FAT it is, and where its parts lie.
//!
//! Source: Microsoft FAT32 File System Specification 1.03 (fatgen103), sections "Boot Sector and BPB"
//! and "FAT Type Determination"; where Windows and Linux decide differently, the volume is declined.

use std::ops::Range;

use zerocopy::byteorder::{LE, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::{Error, Result, Site};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::ReadAt;
use crate::units::{Space, add, mul};

pub(super) const BOOT: Site = Site { structure: "FAT boot sector", space: Space::Volume, offset: 0 };

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// The entry of a cluster that must not be used.
    pub(super) const fn bad(self) -> u32 {
        match self {
            Self::Fat12 => 0xFF7,
            Self::Fat16 => 0xFFF7,
            Self::Fat32 => 0x0FFF_FFF7,
        }
    }

    /// The bytes that a table of `entries` entries takes: at most 2³² entries, whose bytes fit by far.
    pub(super) const fn table_bytes(self, entries: u64) -> u64 {
        match self {
            Self::Fat12 => entries.wrapping_mul(3).div_ceil(2),
            Self::Fat16 => entries.wrapping_mul(2),
            Self::Fat32 => entries.wrapping_mul(4),
        }
    }
}

/// Where the root directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// A fixed area of bytes before the clusters.
    Fixed { start: u64, len: u64 },
    /// A chain that begins at this cluster.
    Chain(u32),
}

/// Where everything lies, in volume bytes, checked to lie inside the volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) kind: Kind,
    pub(super) media: u8,
    pub(super) cluster_size: u64,
    /// The clusters are numbered `2 ..= last_cluster`.
    pub(super) last_cluster: u32,
    pub(super) heap: u64,
    pub(super) fat: u64,
    /// The size of one copy of the FAT.
    pub(super) fat_size: u64,
    pub(super) fat_copies: u8,
    /// The copy to believe, where the copies are not mirrored.
    pub(super) only_copy: Option<u8>,
    pub(super) root: Root,
}

impl Geometry {
    /// How many entries the FAT has, with the two that are no clusters.
    pub(super) fn entries(&self) -> u64 {
        // A 32-bit number and one.
        u64::from(self.last_cluster).wrapping_add(1)
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

    /// The start of the copy of the FAT to believe.
    pub(super) fn believed_copy(&self) -> u64 {
        self.copy(self.only_copy.unwrap_or(0))
    }

    /// The starts of the other copies.
    pub(super) fn other_copies(&self) -> impl Iterator<Item = u64> {
        let believed = self.only_copy.unwrap_or(0);
        (0..self.fat_copies).filter(move |&copy| copy != believed).map(|copy| self.copy(copy))
    }

    /// `geometry` has checked that all copies lie inside the volume.
    fn copy(&self, copy: u8) -> u64 {
        self.fat.wrapping_add(u64::from(copy).wrapping_mul(self.fat_size))
    }
}

/// The BIOS parameter block, common to all three, with both of its endings.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawBoot {
    _jump: [u8; 3],
    _oem: [u8; 8],
    bytes_per_sector: U16<LE>,
    sectors_per_cluster: u8,
    reserved_sectors: U16<LE>,
    fats: u8,
    root_entries: U16<LE>,
    total_sectors_16: U16<LE>,
    media: u8,
    fat_size_16: U16<LE>,
    _geometry: [u8; 4],
    _hidden_sectors: U32<LE>,
    total_sectors_32: U32<LE>,
    tail: [u8; 54],
}

/// What follows the parameter block on FAT12 and FAT16.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Tail16 {
    _drive: u8,
    state: u8,
    signature: u8,
    _serial: U32<LE>,
    label: [u8; 11],
}

/// What follows it on FAT32.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Tail32 {
    fat_size: U32<LE>,
    ext_flags: U16<LE>,
    version: U16<LE>,
    root_cluster: U32<LE>,
    _fs_info: U16<LE>,
    _backup_boot: U16<LE>,
    _reserved: [u8; 12],
    tail: Tail16,
}

/// Bits of the state byte that Windows NT and Linux keep beside the drive number.
const STATE_DIRTY: u8 = 0x01;
const STATE_ERROR: u8 = 0x02;
/// `BPB_ExtFlags`: the copies of the FAT are not mirrored, and this is the active one.
const NOT_MIRRORED: u16 = 0x0080;
const ACTIVE_COPY: u16 = 0x000F;

/// The most clusters that Linux calls FAT12; Windows goes on to [`MAX_FAT12_WINDOWS`].
const MAX_FAT12: u64 = 4084;
const MAX_FAT12_WINDOWS: u64 = 4086;
const MAX_FAT16: u64 = 65524;
const MAX_FAT32: u64 = 0x0FFF_FFF5;

impl RawBoot {
    /// FAT32 has no 16-bit FAT size; Windows, Linux and all others go by that.
    pub(super) fn is_fat32(&self) -> bool {
        self.fat_size_16.get() == 0
    }

    fn tail32(&self) -> Option<&Tail32> {
        if self.is_fat32() { Some(Tail32::ref_from_prefix(&self.tail).ok()?.0) } else { None }
    }

    fn tail16(&self) -> Option<&Tail16> {
        match self.tail32() {
            Some(tail) => Some(&tail.tail),
            None => Some(Tail16::ref_from_prefix(&self.tail).ok()?.0),
        }
    }

    /// The label that the boot sector repeats, padded with spaces.
    pub(super) fn label(&self) -> Option<[u8; 11]> {
        self.tail16().filter(|tail| tail.signature == 0x29).map(|tail| tail.label)
    }

    /// Where everything lies.
    pub(super) fn geometry(&self, volume: &dyn ReadAt) -> Result<Geometry, Stop> {
        let sector = u64::from(self.bytes_per_sector.get());
        let cluster_sectors = u64::from(self.sectors_per_cluster);
        let tail32 = self.tail32();
        let fat_sectors = match tail32 {
            Some(tail) => u64::from(tail.fat_size.get()),
            None => u64::from(self.fat_size_16.get()),
        };
        let root_bytes = mul(self.root_entries.get().into(), 32, "the root directory")?;
        if (root_bytes == 0) != self.is_fat32() || !root_bytes.is_multiple_of(sector) || fat_sectors == 0 {
            return Err(inconsistent(
                "Its boot sector mixes FAT32 with FAT16, or its root directory has part of \
                                     a sector.",
            ));
        }
        let total = self.total_sectors()?;
        let size = mul(total, sector, "the volume")?;
        if size > volume.size() {
            return Err(inconsistent("It is larger than its partition."));
        }
        let fat = mul(self.reserved_sectors.get().into(), sector, "the reserved area")?;
        let fat_size = mul(fat_sectors, sector, "the FAT")?;
        let root_start = add(fat, mul(fat_size, self.fats.into(), "the FATs")?, "the FATs")?;
        let heap = add(root_start, root_bytes, "the root directory")?;
        let cluster_size = mul(cluster_sectors, sector, "a cluster")?;
        let clusters = size.checked_sub(heap).and_then(|left| left.checked_div(cluster_size));
        let Some(clusters) = clusters else { return Err(inconsistent("It has no clusters.")) };
        let kind = self.kind(clusters)?;
        let entries = add(clusters, 2, "the FAT")?;
        if kind.table_bytes(entries) > fat_size {
            return Err(inconsistent("Its FAT is too small for its clusters."));
        }
        let last_cluster = u32::try_from(add(clusters, 1, "the clusters")?);
        let last_cluster = last_cluster.map_err(|_| Error::internal("more clusters than FAT32 has"))?;
        let geometry = Geometry {
            kind,
            media: self.media,
            cluster_size,
            last_cluster,
            heap,
            fat,
            fat_size,
            fat_copies: self.fats,
            only_copy: self.only_copy()?,
            root: match tail32 {
                Some(tail) => Root::Chain(tail.root_cluster.get()),
                None => Root::Fixed { start: root_start, len: root_bytes },
            },
        };
        match geometry.root {
            Root::Chain(cluster) if !geometry.is_cluster(cluster) => {
                Err(inconsistent("Its root directory lies outside the volume."))
            }
            _ => Ok(geometry),
        }
    }

    fn total_sectors(&self) -> Result<u64, Stop> {
        let (short, long) = (u64::from(self.total_sectors_16.get()), u64::from(self.total_sectors_32.get()));
        match (short, long) {
            (0, total) | (total, 0) => Ok(total),
            _ if short == long => Ok(short),
            _ => Err(inconsistent("Its boot sector gives two sizes.")),
        }
    }

    /// By the count of clusters and nothing else; but the borders are drawn differently, and a FAT12
    /// read as FAT16 would be nonsense.
    fn kind(&self, clusters: u64) -> Result<Kind, Stop> {
        match (self.is_fat32(), clusters) {
            (_, 0) => Err(inconsistent("It has no clusters.")),
            (true, 1..=MAX_FAT32) => Ok(Kind::Fat32),
            (false, 1..=MAX_FAT12) => Ok(Kind::Fat12),
            (false, ..=MAX_FAT12_WINDOWS) => Err(inconsistent(
                "Its number of clusters is one that Windows reads as FAT12 and others as FAT16.",
            )),
            (false, ..=MAX_FAT16) => Ok(Kind::Fat16),
            _ => Err(inconsistent("It has more clusters than its kind of FAT can have.")),
        }
    }

    fn only_copy(&self) -> Result<Option<u8>, Stop> {
        let Some(tail) = self.tail32() else { return Ok(None) };
        if tail.version.get() != 0 {
            let detail =
                format!("The FAT32 volume has version {:#06x}, and only 0 is known.", tail.version.get());
            return Err(Decline::new(DeclineReason::UnknownFeature, detail).at(BOOT).into());
        }
        let flags = tail.ext_flags.get();
        if flags & NOT_MIRRORED == 0 {
            return Ok(None);
        }
        match u8::try_from(flags & ACTIVE_COPY) {
            Ok(copy) if copy < self.fats => Ok(Some(copy)),
            _ => Err(inconsistent("Its active FAT does not exist.")),
        }
    }

    /// Declines a volume whose boot sector says that it was not unmounted, or has errors.
    pub(super) fn check_state(&self) -> Result<(), Stop> {
        let state = self.tail16().map_or(0, |tail| tail.state);
        if state & STATE_DIRTY != 0 {
            return Err(super::dirty(BOOT));
        }
        if state & STATE_ERROR != 0 {
            return Err(super::error_state(BOOT));
        }
        Ok(())
    }
}

fn inconsistent(what: &str) -> Stop {
    super::inconsistent(what, BOOT)
}
