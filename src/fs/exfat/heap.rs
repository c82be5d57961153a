//! The cluster heap: the FAT that chains clusters, and the bitmap that says which are free.
//!
//! ```text
//!   bitmap   byte 0: cluster 9 8 7 6 5 4 3 2     1 is in use
//!            byte 1: cluster 17 …
//!   FAT      entry 2, 3, …: the next cluster of a chain, or FFFFFFFFh at its end
//! ```
//! Other than on FAT volumes the FAT does not say what is free, and files may do without its chains.
//!
//! Source: Microsoft exFAT file system specification, sections 4.1 and 7.1.

use zerocopy::byteorder::{LE, U32};

use super::boot::Geometry;
use super::{inconsistent, site};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::fs::Stop;
use crate::fs::cluster_set::ClusterSet;
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{add, index, mul};

const END_OF_CHAIN: u32 = 0xFFFF_FFFF;
/// How much of the bitmap is read at once.
const PIECE: u64 = 1 << 20;

/// Where the clusters of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocation {
    /// Follow the FAT.
    Chain,
    /// One after another.
    Contiguous,
}

/// The cluster after `cluster`, or none at the end of a chain.
pub(super) fn next(volume: &dyn ReadAt, geometry: &Geometry, cluster: u32) -> Result<Option<u32>, Stop> {
    let offset = add(geometry.fat, mul(cluster.into(), 4, "the FAT")?, "the FAT")?;
    match read_struct::<U32<LE>, _>(volume, offset)?.get() {
        END_OF_CHAIN => Ok(None),
        next if geometry.is_cluster(next) => Ok(Some(next)),
        _ => Err(inconsistent("A chain of clusters leads out of the volume.", site("exFAT FAT", offset))),
    }
}

/// Calls `visit` with each cluster of a stream that begins at `first` and has `count` clusters. A
/// chain must end just there; a circle therefore ends with the count, and is refused.
fn for_each_cluster(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    stream: (u32, u64, Allocation),
    mut visit: impl FnMut(u32) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (first, count, allocation) = stream;
    let mut next_cluster = (count > 0).then_some(first);
    for _ in 0..count {
        let Some(cluster) = next_cluster else { return Err(wrong_length(geometry, first)) };
        visit(cluster)?;
        next_cluster = match allocation {
            Allocation::Contiguous => cluster.checked_add(1),
            Allocation::Chain => next(volume, geometry, cluster)?,
        };
    }
    match (allocation, next_cluster) {
        (Allocation::Chain, Some(_)) => Err(wrong_length(geometry, first)),
        _ => Ok(()),
    }
}

/// The decline for a chain that does not end where its length says.
pub(super) fn wrong_length(geometry: &Geometry, first: u32) -> Stop {
    // A 32-bit number times four, inside a FAT that lies inside the volume.
    let site = site("exFAT FAT", geometry.fat.wrapping_add(u64::from(first).wrapping_mul(4)));
    inconsistent("A chain of clusters is longer or shorter than what it holds.", site)
}

/// What the allocation bitmap says.
pub(super) struct Heap {
    /// The clusters in use.
    pub(super) used: ClusterSet,
    /// The free ones, as volume bytes.
    pub(super) free: Extents,
    /// How many are free.
    pub(super) free_clusters: u64,
}

/// Reads the bitmap of `len` bytes that begins at cluster `first`.
pub(super) fn read_bitmap(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    first: u32,
    len: u64,
) -> Result<Heap, Stop> {
    let needed = geometry.clusters().div_ceil(8);
    let count = len.div_ceil(geometry.cluster_size);
    if len < needed || count > needed.div_ceil(geometry.cluster_size) || !geometry.is_cluster(first) {
        let site = site(super::root::ROOT, geometry.cluster(geometry.root)?.start);
        return Err(inconsistent("Its allocation bitmap has the wrong size or place.", site));
    }
    let mut heap = Heap {
        used: ClusterSet::new(add(geometry.last_cluster.into(), 1, "the clusters")?)?,
        free: Extents::new(),
        free_clusters: 0,
    };
    let mut number = 2u32;
    let mut left = needed;
    for_each_cluster(volume, geometry, (first, count, Allocation::Chain), |cluster| {
        let mut at = geometry.cluster(cluster)?.start;
        let mut here = left.min(geometry.cluster_size);
        left = less(left, here)?;
        while here > 0 {
            let len = PIECE.min(here);
            for byte in read_vec(volume, at, index(len, "the allocation bitmap")?)? {
                number = heap.byte(geometry, number, byte)?;
            }
            at = add(at, len, "the allocation bitmap")?;
            here = less(here, len)?;
        }
        Ok(())
    })?;
    Ok(heap)
}

/// `a - b`, where `b` is at most `a`.
fn less(a: u64, b: u64) -> Result<u64> {
    a.checked_sub(b).ok_or_else(|| Error::internal("more of the allocation bitmap than there is"))
}

impl Heap {
    /// Takes the byte of the bitmap that begins with cluster `number`; returns that of the next byte.
    fn byte(&mut self, geometry: &Geometry, number: u32, byte: u8) -> Result<u32> {
        for (bit, cluster) in (0..8u32).zip(number..) {
            if !geometry.is_cluster(cluster) {
                break;
            }
            if byte & (1 << bit) == 0 {
                self.free_clusters = add(self.free_clusters, 1, "the free clusters")?;
                self.free.push(geometry.cluster(cluster)?);
            } else {
                self.used.insert(cluster);
            }
        }
        // A volume has at most `MAX_CLUSTERS`, and the bitmap that is read no more than a byte of padding.
        number.checked_add(8).ok_or_else(|| Error::internal("more clusters than are checked"))
    }
}
