//! The file allocation table itself: which clusters are free, proved as far as the table can.
//!
//! ```text
//!   entry   0          1               2      3      4
//!           │ media    │ end, clean    │ 3    │ end  │ 0 free │ …
//!             F8 FF…     bits 15,14      └──────►
//! ```
//! An entry of 0 is a free cluster; every other value is a used one. The table is read in pieces, all
//! copies side by side. Three things are declined because they show that an entry of 0 may be a lost
//! one: mirrored copies that differ, a chain that runs into a free cluster or out of the volume, and
//! two chains that meet.
//!
//! Source: fatgen103, section "FAT Data Structure"; Windows' clean-shutdown and hard-error bits there.

use super::boot::{Geometry, Kind};
use super::{dirty, error_state, inconsistent};
use crate::error::{Error, Result, Site};
use crate::extents::Extents;
use crate::fs::Stop;
use crate::fs::cluster_set::ClusterSet;
use crate::io::{ReadAt, read_vec};
use crate::units::{Space, add, index, len64};

/// How many entries are read at once: even, so that FAT12 pieces begin at a byte; 1 MiB of FAT32.
const PIECE: u64 = 1 << 18;

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// The chain goes on there.
    Next(u32),
    /// The end of a chain, a bad cluster, or a reserved value.
    Used,
    /// A number that is no cluster.
    Invalid,
}

impl Entry {
    pub(super) fn new(geometry: &Geometry, value: u32) -> Self {
        let reserved = match geometry.kind {
            Kind::Fat12 => 0xFF0,
            Kind::Fat16 => 0xFFF0,
            Kind::Fat32 => 0x0FFF_FFF0,
        };
        match value {
            0 => Self::Free,
            value if geometry.is_cluster(value) => Self::Next(value),
            value if value >= reserved => Self::Used,
            _ => Self::Invalid,
        }
    }
}

/// What the table tells.
pub(super) struct Scan {
    /// Clusters free in every copy, as volume bytes.
    pub(super) free: Extents,
    /// How many clusters the copy to believe calls free.
    pub(super) free_clusters: u64,
    /// Clusters that a chain leads to: nothing else may lead there.
    pub(super) linked: ClusterSet,
    /// Clusters that are marked as bad, as volume bytes.
    pub(super) bad: Extents,
}

/// Reads the whole table.
pub(super) fn scan(volume: &dyn ReadAt, geometry: &Geometry) -> Result<Scan, Stop> {
    let mut builder = Builder {
        geometry,
        scan: Scan {
            free: Extents::new(),
            free_clusters: 0,
            linked: ClusterSet::new(geometry.entries())?,
            bad: Extents::new(),
        },
    };
    let mut first = 0;
    while first < geometry.entries() {
        let count = PIECE.min(geometry.entries().wrapping_sub(first));
        let from = geometry.kind.table_bytes(first);
        let len = index(geometry.kind.table_bytes(count), "a piece of the FAT")?;
        let piece = |copy| read_vec(volume, add(copy, from, "the FAT")?, len);
        let others = geometry.other_copies().map(piece).collect::<Result<Vec<_>>>()?;
        builder.piece(first, count, &piece(geometry.believed_copy())?, &others)?;
        first = add(first, count, "the FAT")?;
    }
    Ok(builder.scan)
}

/// The entry of one cluster, for following a chain.
pub(super) fn entry(volume: &dyn ReadAt, geometry: &Geometry, cluster: u32) -> Result<Entry> {
    let pair = u64::from(cluster & !1);
    let odd = usize::from(cluster & 1 == 1);
    // The last pair may be cut short by the end of the table.
    let left = geometry.fat_size.checked_sub(geometry.kind.table_bytes(pair));
    let left = left.ok_or_else(|| Error::internal("a cluster without an entry"))?;
    let mut buf = [0; 8];
    let bytes = buf.get_mut(..index(geometry.kind.table_bytes(2).min(left), "a FAT entry")?);
    let bytes = bytes.ok_or_else(|| Error::internal("two entries of a FAT are longer than eight bytes"))?;
    volume
        .read_exact_at(add(geometry.believed_copy(), geometry.kind.table_bytes(pair), "the FAT")?, bytes)?;
    Ok(decode(geometry.kind, bytes, odd).map_or(Entry::Invalid, |value| Entry::new(geometry, value)))
}

struct Builder<'g> {
    geometry: &'g Geometry,
    scan: Scan,
}

impl Builder<'_> {
    /// Takes the `count` entries from `first` on; `others` are the same piece of the other copies.
    fn piece(&mut self, first: u64, count: u64, believed: &[u8], others: &[Vec<u8>]) -> Result<(), Stop> {
        let geometry = self.geometry;
        let identical = others.iter().all(|other| other == believed);
        for i in 0..index(count, "a piece of the FAT")? {
            let number = u32::try_from(add(first, len64(i), "the FAT")?);
            let number = number.map_err(|_| Error::internal("more entries than FAT32 has"))?;
            // No entry is short of the table: a piece is read as long as its entries.
            let value = decode(geometry.kind, believed, i).ok_or_else(|| Error::internal("a short FAT"))?;
            let elsewhere = || others.iter().map(|other| decode(geometry.kind, other, i));
            if !identical && geometry.only_copy.is_none() && elsewhere().any(|other| other != Some(value)) {
                return Err(inconsistent("The copies of its FAT differ.", self.site(number)));
            }
            match number {
                0 => self.check_media(value)?,
                1 => self.check_state(value)?,
                cluster => {
                    let free_elsewhere = identical || elsewhere().all(|other| other == Some(0));
                    self.cluster(cluster, Entry::new(geometry, value), free_elsewhere)?;
                    if value == geometry.kind.bad() && !geometry.is_cluster(value) {
                        self.scan.bad.push(geometry.cluster(cluster)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn cluster(&mut self, cluster: u32, entry: Entry, free_elsewhere: bool) -> Result<(), Stop> {
        match entry {
            Entry::Free if self.scan.linked.contains(cluster) => Err(self.runs_into_free(cluster)),
            Entry::Free => {
                self.scan.free_clusters = add(self.scan.free_clusters, 1, "the free clusters")?;
                if free_elsewhere {
                    self.scan.free.push(self.geometry.cluster(cluster)?);
                }
                Ok(())
            }
            // A free cluster behind this one was passed already; one ahead is caught when it comes.
            Entry::Next(next)
                if next < cluster && self.scan.free.intersects(self.geometry.cluster(next)?) =>
            {
                Err(self.runs_into_free(next))
            }
            Entry::Next(next) if next == cluster || !self.scan.linked.insert(next) => {
                Err(inconsistent("Two chains of clusters meet, or one bites its tail.", self.site(cluster)))
            }
            Entry::Next(_) | Entry::Used => Ok(()),
            Entry::Invalid => {
                Err(inconsistent("A chain of clusters leads out of the volume.", self.site(cluster)))
            }
        }
    }

    fn runs_into_free(&self, cluster: u32) -> Stop {
        inconsistent("A chain of clusters runs into a free one.", self.site(cluster))
    }

    /// Entry 0 repeats the media byte under ones.
    fn check_media(&self, value: u32) -> Result<(), Stop> {
        let expected = self.ones() & !0xFF | u32::from(self.geometry.media);
        if value == expected {
            return Ok(());
        }
        Err(inconsistent("The first entry of its FAT does not repeat the media byte.", self.site(0)))
    }

    /// Entry 1 is an end of chain whose two upper bits say: shut down cleanly, and no hard errors.
    fn check_state(&self, value: u32) -> Result<(), Stop> {
        let (clean, no_error) = match self.geometry.kind {
            Kind::Fat12 => (0, 0),
            Kind::Fat16 => (0x8000, 0x4000),
            Kind::Fat32 => (0x0800_0000, 0x0400_0000),
        };
        if value & clean != clean {
            return Err(dirty(self.site(1)));
        }
        if value & no_error != no_error {
            return Err(error_state(self.site(1)));
        }
        if value | 7 != self.ones() {
            return Err(inconsistent("The second entry of its FAT is no end of a chain.", self.site(1)));
        }
        Ok(())
    }

    fn ones(&self) -> u32 {
        match self.geometry.kind {
            Kind::Fat12 => 0xFFF,
            Kind::Fat16 => 0xFFFF,
            Kind::Fat32 => 0x0FFF_FFFF,
        }
    }

    fn site(&self, cluster: u32) -> Site {
        // Rounded down to a whole byte where a FAT12 entry begins inside one; it lies in the FAT.
        let before = match self.geometry.kind {
            Kind::Fat12 => u64::from(cluster).wrapping_mul(3) / 2,
            kind => kind.table_bytes(cluster.into()),
        };
        let offset = self.geometry.believed_copy().wrapping_add(before);
        Site { structure: "FAT", space: Space::Volume, offset }
    }
}

/// Entry `i` of a piece.
fn decode(kind: Kind, piece: &[u8], i: usize) -> Option<u32> {
    let bytes = |at: usize, len: usize| piece.get(at..at.checked_add(len)?);
    match kind {
        Kind::Fat12 => {
            let pair = bytes(i.checked_add(i / 2)?, 2)?;
            let value = u16::from_le_bytes(pair.try_into().ok()?);
            Some(u32::from(if i.is_multiple_of(2) { value & 0xFFF } else { value >> 4 }))
        }
        Kind::Fat16 => Some(u16::from_le_bytes(bytes(i.checked_mul(2)?, 2)?.try_into().ok()?).into()),
        // The upper four bits are reserved and mean nothing.
        Kind::Fat32 => Some(u32::from_le_bytes(bytes(i.checked_mul(4)?, 4)?.try_into().ok()?) & 0x0FFF_FFFF),
    }
}
