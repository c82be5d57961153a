//! The directory tree: whether every file and directory lies in clusters that the FAT calls used.
//!
//! ```text
//!   root ─► │ name │ attributes │ … │ first cluster │ size │   32 bytes an entry; 0x00 ends,
//!             └── directory ─► │ . │ .. │ … │                0xE5 was deleted
//! ```
//! Drivers of cameras and the like set no dirty bit; when power fails between the directory and the
//! FAT, a file is left whose clusters the FAT calls free, and it can still be read. So each first
//! cluster is looked up: a free one, one outside the volume, and one that already belongs to another
//! chain decline the volume. As no two chains meet (the table's scan proved it), a walk from a first
//! cluster that nothing leads to ends.
//!
//! Source: fatgen103, section "FAT Directory Structure".

use zerocopy::byteorder::{LE, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::boot::{Geometry, Kind, Root};
use super::inconsistent;
use super::table::{Entry, entry};
use crate::error::{Error, Result, Site};
use crate::fs::Stop;
use crate::fs::cluster_set::ClusterSet;
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{Space, index};

/// No driver reads on in a larger directory.
const MAX_DIRECTORY: u64 = 2 << 20;
/// How many directory entries are read at most.
const MAX_ENTRIES: u64 = 1 << 25;
/// How many directories may wait to be read: 16 MiB of cluster numbers.
const MAX_PENDING: usize = 1 << 22;

const READ_ONLY_HIDDEN_SYSTEM_VOLUME: u8 = 0x0F;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    name: [u8; 11],
    attributes: u8,
    _times: [u8; 8],
    first_cluster_high: U16<LE>,
    _written: [u8; 4],
    first_cluster_low: U16<LE>,
    _size: U32<LE>,
}

impl RawEntry {
    fn is_end(&self) -> bool {
        self.name.starts_with(&[0])
    }

    fn is_label(&self) -> bool {
        !self.is_deleted()
            && !self.is_long_name()
            && self.attributes & (VOLUME_LABEL | DIRECTORY) == VOLUME_LABEL
    }

    fn is_deleted(&self) -> bool {
        self.name.starts_with(&[0xE5])
    }

    fn is_long_name(&self) -> bool {
        self.attributes & 0x3F == READ_ONLY_HIDDEN_SYSTEM_VOLUME
    }

    fn is_dot(&self) -> bool {
        matches!(&self.name, b".          " | b"..         ")
    }

    /// FAT12 and FAT16 keep other things in the upper half.
    fn first_cluster(&self, kind: Kind) -> u32 {
        let low = u32::from(self.first_cluster_low.get());
        match kind {
            Kind::Fat32 => (u32::from(self.first_cluster_high.get()) << 16 | low) & 0x0FFF_FFFF,
            Kind::Fat12 | Kind::Fat16 => low,
        }
    }
}

/// The label of the root directory, if one is near its start.
pub(super) fn label(volume: &dyn ReadAt, geometry: &Geometry) -> Option<[u8; 11]> {
    let (start, len) = match geometry.root {
        Root::Fixed { start, len } => (start, len),
        Root::Chain(cluster) => (geometry.cluster(cluster).start, geometry.cluster_size),
    };
    let bytes = read_vec(volume, start, usize::try_from(len).ok()?).ok()?;
    let entries = bytes.chunks_exact(size_of::<RawEntry>()).map_while(|b| RawEntry::ref_from_bytes(b).ok());
    entries.take_while(|raw| !raw.is_end()).find(|raw| raw.is_label()).map(|raw| raw.name)
}

/// Walks the tree; `linked` says which clusters chains lead to.
pub(super) fn check(volume: &dyn ReadAt, geometry: &Geometry, linked: ClusterSet) -> Result<(), Stop> {
    let volume = Cached::new(volume);
    let mut walk = Walk { volume: &volume, geometry, linked, pending: Vec::new(), read: 0 };
    match geometry.root {
        Root::Fixed { start, len } => {
            walk.part(start, len, true)?;
        }
        Root::Chain(cluster) => {
            walk.claim(cluster, Site { offset: 44, ..super::boot::BOOT })?;
            walk.directory(cluster, true)?;
        }
    }
    while let Some(cluster) = walk.pending.pop() {
        walk.directory(cluster, false)?;
    }
    Ok(())
}

struct Walk<'v> {
    volume: &'v dyn ReadAt,
    geometry: &'v Geometry,
    /// Clusters that belong to a chain or a directory entry.
    linked: ClusterSet,
    /// First clusters of directories still to read.
    pending: Vec<u32>,
    /// How many entries were read.
    read: u64,
}

impl Walk<'_> {
    /// Reads a directory, cluster by cluster.
    fn directory(&mut self, first: u32, is_root: bool) -> Result<(), Stop> {
        let mut cluster = first;
        let mut len = 0u64;
        loop {
            let range = self.geometry.cluster(cluster);
            if !self.part(range.start, self.geometry.cluster_size, is_root)? {
                return Ok(());
            }
            len = len.saturating_add(self.geometry.cluster_size);
            match entry(self.volume, self.geometry, cluster)? {
                Entry::Next(_) if len > MAX_DIRECTORY => {
                    return Err(inconsistent(
                        "A directory is larger than any driver reads.",
                        site(range.start),
                    ));
                }
                Entry::Next(next) => cluster = next,
                Entry::Used => return Ok(()),
                // The scan refused both, but the volume may have changed since.
                Entry::Free | Entry::Invalid => {
                    return Err(inconsistent("A directory's chain is broken.", site(range.start)));
                }
            }
        }
    }

    /// Reads `len` bytes of a directory; false if it ends there.
    fn part(&mut self, start: u64, len: u64, is_root: bool) -> Result<bool, Stop> {
        let bytes = read_vec(self.volume, start, index(len, "a directory")?)?;
        let mut offset = start;
        for bytes in bytes.chunks_exact(size_of::<RawEntry>()) {
            let Ok(raw) = RawEntry::ref_from_bytes(bytes) else { break };
            if raw.is_end() {
                return Ok(false);
            }
            self.read = self.read.saturating_add(1);
            if self.read > MAX_ENTRIES || self.pending.len() > MAX_PENDING {
                return Err(Error::limit(site(offset), "There are more files than are checked.").into());
            }
            self.entry(raw, site(offset), is_root)?;
            offset = offset.saturating_add(crate::units::len64(bytes.len()));
        }
        Ok(true)
    }

    fn entry(&mut self, raw: &RawEntry, site: Site, is_root: bool) -> Result<(), Stop> {
        if raw.is_deleted() || raw.is_long_name() || raw.is_label() || (raw.is_dot() && !is_root) {
            return Ok(());
        }
        let is_directory = raw.attributes & DIRECTORY != 0;
        let cluster = raw.first_cluster(self.geometry.kind);
        match cluster {
            0 if is_directory => Err(inconsistent("A directory has no clusters.", site)),
            0 => Ok(()),
            cluster => {
                self.claim(cluster, site)?;
                if is_directory {
                    self.pending.push(cluster);
                }
                Ok(())
            }
        }
    }

    /// Takes a first cluster for one file.
    fn claim(&mut self, cluster: u32, site: Site) -> Result<(), Stop> {
        if !self.geometry.is_cluster(cluster) {
            return Err(inconsistent("A file begins outside the volume.", site));
        }
        if entry(self.volume, self.geometry, cluster)? == Entry::Free {
            return Err(inconsistent("A file lies in a cluster that the FAT calls free.", site));
        }
        if !self.linked.insert(cluster) {
            return Err(inconsistent("Two files share a cluster.", site));
        }
        Ok(())
    }
}

fn site(offset: u64) -> Site {
    Site { structure: "FAT directory", space: Space::Volume, offset }
}
