//! The directory tree: whether every file and directory lies in clusters that the bitmap calls used.
//!
//! ```text
//!   root ─► │ 81 bitmap │ 82 up-case │ 83 label │ 85 file, C0 stream, C1 name … │ 00   32 bytes each
//!                                                  │        └── first cluster, length, chain or not
//!                                                  └── directory ─► │ 85, C0, C1 … │ 00
//! ```
//! On exFAT nothing but the bitmap knows what is free, and a bit that is lost in it is a file that is
//! lost. So the tree is walked, and every cluster of every stream must be used and belong to one
//! stream only; then the volume is declined or its free space is as good as `fsck.exfat` could prove.
//! Each cluster is claimed once, so hostile trees cost no more than healthy ones.
//!
//! Source: Microsoft exFAT file system specification, sections 6 and 7.

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::boot::Geometry;
use super::heap::{self, Allocation, for_each_cluster};
use super::{inconsistent, site, unknown};
use crate::error::{Error, Result, Site};
use crate::extents::Extents;
use crate::fs::Stop;
use crate::fs::cluster_set::ClusterSet;
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{index, len64};

const END: u8 = 0x00;
const ALLOCATION_BITMAP: u8 = 0x81;
const UP_CASE_TABLE: u8 = 0x82;
const VOLUME_LABEL: u8 = 0x83;
const VOLUME_GUID: u8 = 0xA0;
const FILE: u8 = 0x85;
const STREAM_EXTENSION: u8 = 0xC0;
const FILE_NAME: u8 = 0xC1;

const IN_USE: u8 = 0x80;
const SECONDARY: u8 = 0x40;
const BENIGN: u8 = 0x20;
const ALLOCATION_POSSIBLE: u8 = 0x01;
const NO_FAT_CHAIN: u8 = 0x02;
const DIRECTORY: u16 = 0x0010;

/// Section 7.4: a directory is at most 256 MiB.
const MAX_DIRECTORY: u64 = 256 << 20;
/// How many directory entries are read at most: at least three a file.
const MAX_ENTRIES: u64 = 1 << 25;
/// How many directories may wait to be read: 24 MiB of streams.
const MAX_PENDING: usize = 1 << 20;
/// How much of a directory is read at once: most are short, and end long before their cluster does.
const PIECE: u64 = 16 << 10;

/// The fields that entries share (section 6.2), under the name of those that matter here.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    entry_type: u8,
    /// SecondaryCount of a file, GeneralSecondaryFlags of a secondary, BitmapFlags, CharacterCount.
    second: u8,
    set_checksum: U16<LE>,
    file_attributes: U16<LE>,
    _custom: [u8; 14],
    first_cluster: U32<LE>,
    data_length: U64<LE>,
}

impl RawEntry {
    /// The clusters of an entry with the fields of a secondary.
    fn stream(&self) -> Stream {
        let contiguous = self.second & NO_FAT_CHAIN != 0;
        let allocation = if contiguous { Allocation::Contiguous } else { Allocation::Chain };
        Stream { first: self.first_cluster.get(), len: self.data_length.get(), allocation }
    }

    /// The clusters of a table of the root directory, which always has a chain.
    fn table(&self) -> Stream {
        Stream { allocation: Allocation::Chain, ..self.stream() }
    }
}

/// The clusters of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    first: u32,
    len: u64,
    allocation: Allocation,
}

/// A believed volume.
pub(super) struct Checked {
    /// The free clusters, as volume bytes.
    pub(super) free: Extents,
    pub(super) free_clusters: u64,
}

/// Reads the bitmap and walks the tree.
pub(super) fn check(volume: &dyn ReadAt, geometry: &Geometry, root: &Root) -> Result<Checked, Stop> {
    let volume = Cached::new(volume);
    let heap = heap::read_bitmap(&volume, geometry, root.bitmap.first, root.bitmap.len)?;
    let mut walk = Walk { volume: &volume, geometry, unclaimed: heap.used, pending: Vec::new(), read: 0 };
    walk.claim(root.stream, site(ROOT, geometry.cluster(geometry.root).start))?;
    walk.directory(root.stream, true)?;
    while let Some(directory) = walk.pending.pop() {
        walk.directory(directory, false)?;
    }
    Ok(Checked { free: heap.free, free_clusters: heap.free_clusters })
}

const ROOT: &str = "exFAT root directory";

/// The root directory's stream: as long as its chain.
fn root_directory(volume: &dyn ReadAt, geometry: &Geometry) -> Result<Stream, Stop> {
    let mut cluster = geometry.root;
    let mut len = geometry.cluster_size;
    while let Some(next) = heap::next(volume, geometry, cluster)? {
        cluster = next;
        len = len.saturating_add(geometry.cluster_size);
        if len > MAX_DIRECTORY {
            let site = site(ROOT, geometry.cluster(geometry.root).start);
            return Err(inconsistent("Its root directory has no end.", site));
        }
    }
    Ok(Stream { first: geometry.root, len, allocation: Allocation::Chain })
}

/// What the root directory tells of the whole volume.
pub(super) struct Root {
    stream: Stream,
    bitmap: Stream,
    pub(super) label: Option<String>,
}

/// Finds the bitmap and the label.
pub(super) fn read_root(volume: &dyn ReadAt, geometry: &Geometry) -> Result<Root, Stop> {
    let stream = root_directory(volume, geometry)?;
    let mut bitmaps = Vec::new();
    let mut label = None;
    for_each_entry(volume, geometry, stream, |raw, offset| {
        match raw.entry_type {
            ALLOCATION_BITMAP if bitmaps.len() < 2 => bitmaps.push((raw.table(), raw.second, offset)),
            VOLUME_LABEL => label = label_of(raw),
            _ => {}
        }
        Ok(())
    })?;
    match bitmaps[..] {
        [(bitmap, 0, _)] => Ok(Root { stream, bitmap, label }),
        [] | [_] => {
            let site = site(ROOT, geometry.cluster(geometry.root).start);
            Err(inconsistent("Its root directory has no allocation bitmap.", site))
        }
        [_, (.., offset), ..] => {
            Err(inconsistent("Its root directory has two allocation bitmaps.", site(ROOT, offset)))
        }
    }
}

/// CharacterCount, then that many UTF-16 units.
fn label_of(raw: &RawEntry) -> Option<String> {
    let count = usize::from(raw.second).min(11);
    let units: Vec<u16> = raw.as_bytes().get(2..)?.chunks_exact(2).take(count).map(unit).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}

fn unit(bytes: &[u8]) -> u16 {
    U16::<LE>::read_from_bytes(bytes).map_or(0, U16::get)
}

/// Calls `visit` with each entry of a directory and its offset, up to the end of the directory.
fn for_each_entry(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    directory: Stream,
    mut visit: impl FnMut(&RawEntry, u64) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut ended = false;
    let count = directory.len.div_ceil(geometry.cluster_size);
    for_each_cluster(volume, geometry, (directory.first, count, directory.allocation), |cluster| {
        let mut range = geometry.cluster(cluster);
        while range.start < range.end && !ended {
            let len = PIECE.min(range.end.saturating_sub(range.start));
            for bytes in read_vec(volume, range.start, index(len, "a directory")?)?.chunks_exact(ENTRY) {
                let Ok(raw) = RawEntry::ref_from_bytes(bytes) else { break };
                if raw.entry_type == END {
                    ended = true;
                    break;
                }
                visit(raw, range.start)?;
                range.start = range.start.saturating_add(len64(ENTRY));
            }
        }
        Ok(())
    })
}

const ENTRY: usize = size_of::<RawEntry>();

struct Walk<'v> {
    volume: &'v dyn ReadAt,
    geometry: &'v Geometry,
    /// Clusters that the bitmap calls used and no stream has claimed yet.
    unclaimed: ClusterSet,
    /// Directories still to read; their clusters are claimed.
    pending: Vec<Stream>,
    /// How many entries were read.
    read: u64,
}

/// A file's set of entries, while it is read.
struct FileSet {
    is_directory: bool,
    /// How many secondary entries are still to come.
    left: u8,
    checksum: u16,
    sum: u16,
    stream: Option<Stream>,
    /// What vendors' entries occupy.
    extra: Vec<Stream>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: Stream, is_root: bool) -> Result<(), Stop> {
        let mut set = None;
        let mut last = 0;
        for_each_entry(self.volume, self.geometry, directory, |raw, offset| {
            self.read = self.read.saturating_add(1);
            if self.read > MAX_ENTRIES || self.pending.len() > MAX_PENDING {
                return Err(Error::limit(at(offset), "There are more files than are checked.").into());
            }
            last = offset;
            set = self.entry(raw, set.take(), is_root, at(offset))?;
            Ok(())
        })?;
        match set {
            Some(_) => Err(inconsistent("A directory ends inside a file's entries.", at(last))),
            None => Ok(()),
        }
    }

    /// Takes one entry; returns the set that goes on after it.
    fn entry(
        &mut self,
        raw: &RawEntry,
        set: Option<FileSet>,
        is_root: bool,
        site: Site,
    ) -> Result<Option<FileSet>, Stop> {
        let is_secondary = raw.entry_type & (IN_USE | SECONDARY) == IN_USE | SECONDARY;
        match (set, raw.entry_type) {
            (Some(set), _) if is_secondary => self.secondary(raw, set, site),
            (Some(_), _) => Err(inconsistent("A file's entries are not complete.", site)),
            (None, _) if is_secondary => Err(inconsistent("A file's entries have no beginning.", site)),
            (None, unused) if unused & IN_USE == 0 => Ok(None),
            (None, FILE) => Ok(Some(FileSet {
                is_directory: raw.file_attributes.get() & DIRECTORY != 0,
                left: match raw.second {
                    count @ 2..=18 => count,
                    _ => return Err(inconsistent("A file has too few or too many entries.", site)),
                },
                checksum: raw.set_checksum.get(),
                sum: set_checksum(0, raw.as_bytes(), true),
                stream: None,
                extra: Vec::new(),
            })),
            (None, ALLOCATION_BITMAP | UP_CASE_TABLE) if is_root => {
                self.claim(raw.table(), site)?;
                Ok(None)
            }
            (None, VOLUME_LABEL | VOLUME_GUID) if is_root => Ok(None),
            (None, other) => Err(unknown(&format!("A directory has an entry of type {other:#04x}."), site)),
        }
    }

    fn secondary(&mut self, raw: &RawEntry, mut set: FileSet, site: Site) -> Result<Option<FileSet>, Stop> {
        set.sum = set_checksum(set.sum, raw.as_bytes(), false);
        set.left = set.left.saturating_sub(1);
        match raw.entry_type {
            STREAM_EXTENSION if set.stream.is_none() => set.stream = Some(raw.stream()),
            FILE_NAME => {}
            benign if benign & BENIGN != 0 => {
                if raw.second & ALLOCATION_POSSIBLE != 0 {
                    set.extra.push(raw.stream());
                }
            }
            other => return Err(unknown(&format!("A file has an entry of type {other:#04x}."), site)),
        }
        if set.left > 0 {
            return Ok(Some(set));
        }
        if set.sum != set.checksum {
            return Err(inconsistent("A file's entries do not match their checksum.", site));
        }
        let Some(stream) = set.stream else {
            return Err(inconsistent("A file has no stream entry.", site));
        };
        for extra in set.extra {
            self.claim(extra, site)?;
        }
        self.claim(stream, site)?;
        if set.is_directory && stream.len > 0 {
            if stream.len > MAX_DIRECTORY || !stream.len.is_multiple_of(self.geometry.cluster_size) {
                return Err(inconsistent("A directory has an impossible length.", site));
            }
            self.pending.push(stream);
        }
        Ok(None)
    }

    /// Takes all clusters of a stream for it alone.
    fn claim(&mut self, stream: Stream, site: Site) -> Result<(), Stop> {
        let count = stream.len.div_ceil(self.geometry.cluster_size);
        if (stream.first == 0) != (count == 0) || count > self.geometry.clusters() {
            return Err(inconsistent("A file's length does not fit its clusters.", site));
        }
        let Self { volume, geometry, unclaimed, .. } = self;
        for_each_cluster(*volume, geometry, (stream.first, count, stream.allocation), |cluster| {
            // The set of used clusters holds none outside the volume.
            if unclaimed.remove(cluster) {
                return Ok(());
            }
            Err(inconsistent(
                "A file lies in a cluster that the allocation bitmap calls free, or that another file has \
                 too.",
                site,
            ))
        })
    }
}

/// Section 6.3.3: the sum over a set, without its own field in the first entry.
pub(super) fn set_checksum(sum: u16, entry: &[u8], is_primary: bool) -> u16 {
    let counted = entry.iter().enumerate().filter(|(i, _)| !is_primary || !matches!(i, 2 | 3));
    counted.fold(sum, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()))
}

fn at(offset: u64) -> Site {
    site("exFAT directory", offset)
}
