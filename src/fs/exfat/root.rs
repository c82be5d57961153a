//! What the root directory tells of the whole volume: where its allocation bitmap is, and its label.
//!
//! Source: Microsoft exFAT file system specification, sections 7.1 and 7.3.

use zerocopy::FromBytes;

use super::boot::Geometry;
use super::heap::{self, Allocation};
use super::set::{ALLOCATION_BITMAP, ENTRY, RawEntry, Stream, VOLUME_LABEL, units};
use super::walk::MAX_DIRECTORY;
use super::{inconsistent, site};
use crate::error::{Result, Site};
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64};

pub(super) const ROOT: &str = "exFAT root directory";

/// How much of a directory is read at once: most are short, and end long before their cluster does.
const PIECE: u64 = 16 << 10;

/// The root directory and the bitmap.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) stream: Stream,
    pub(super) bitmap: Stream,
}

/// Finds the root directory's clusters, the bitmap, and the label (which a declined volume has, too).
pub(super) fn read(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    label: &mut Option<String>,
) -> Result<Root, Stop> {
    let begins = site(ROOT, geometry.cluster(geometry.root)?.start);
    let mut bitmaps = Vec::new();
    let mut len = 0;
    let mut has_ended = false;
    let mut next = Some(geometry.root);
    while let Some(cluster) = next {
        if !has_ended {
            has_ended = !read_cluster(volume, geometry, cluster, label, &mut bitmaps)?;
        }
        len = add(len, geometry.cluster_size, "the root directory")?;
        if len > MAX_DIRECTORY {
            return Err(inconsistent("Its root directory has no end.", begins));
        }
        next = heap::next(volume, geometry, cluster)?;
    }
    let stream = Stream { first: geometry.root, len, allocation: Allocation::Chain };
    match bitmaps[..] {
        [(bitmap, 0, _)] => Ok(Root { stream, bitmap }),
        [] | [_] => Err(inconsistent("Its root directory has no allocation bitmap.", begins)),
        [_, (.., site), ..] => Err(inconsistent("Its root directory has two allocation bitmaps.", site)),
    }
}

/// Reads the entries of one cluster; false if the directory ends there.
fn read_cluster(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    cluster: u32,
    label: &mut Option<String>,
    bitmaps: &mut Vec<(Stream, u8, Site)>,
) -> Result<bool, Stop> {
    let range = geometry.cluster(cluster)?;
    let mut at = range.start;
    while at < range.end {
        let piece = PIECE.min(geometry.cluster_size);
        for raw in read_vec(volume, at, index(piece, "a directory")?)?.chunks_exact(ENTRY) {
            let Ok(raw) = RawEntry::ref_from_bytes(raw) else { break };
            if raw.is_end() {
                return Ok(false);
            }
            match raw.entry_type {
                ALLOCATION_BITMAP if bitmaps.len() < 2 => {
                    bitmaps.push((raw.table(), raw.second, site(ROOT, at)))
                }
                VOLUME_LABEL => *label = label_of(raw),
                _ => {}
            }
            at = add(at, len64(ENTRY), "the root directory")?;
        }
    }
    Ok(true)
}

/// CharacterCount, then that many UTF-16 units.
fn label_of(raw: &RawEntry) -> Option<String> {
    let units: Vec<u16> = units(raw).take(usize::from(raw.second).min(11)).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}
