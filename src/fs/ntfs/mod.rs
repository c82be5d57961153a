//! NTFS: what $Bitmap calls free, once everything that could make it untrue has been ruled out.
//!
//! ```text
//!   boot sector ─► $MFT ─► $MFTMirr    the two agree
//!                   ├────► $Volume     version known, not dirty, nothing unfinished
//!                   ├────► $LogFile    detached cleanly
//!                   ├────► $Bitmap     free clusters ◄── the first witness
//!                   ├────► root dir    not hibernated; page files
//!                   └────► all records no owner's cluster is free ◄── the second witness
//!   0x1E00 ─► shadow copies            free blocks that a snapshot still reads
//! ```
//! Bytes outside clusters (the backup boot sector after the last one, and what is left of a partition) are
//! never free.
//!
//! The `ntfs` crate is not used. It gives a file's contents through `Read` and hides what must be judged
//! here (the runs themselves, initialised sizes, whether a part is sparse), slices by offsets that it reads
//! from the record, and knows neither $LogFile nor shadow copies. What is needed of NTFS is little.
//!
//! Source: the linux-ntfs project's NTFS documentation; ntfs-3g for what makes a volume unsafe to use.

mod bitmap;
mod blocks;
mod boot;
#[cfg(test)]
mod fixture;
mod logfile;
mod mft;
mod names;
mod owners;
mod record;
mod root;
mod shadow;
mod status;
mod stream;
#[cfg(test)]
mod tests;

use boot::BootSector;
use mft::{Mft, read_record};
use owners::RecordWalk;
use record::kind;
use shadow::Shadows;
use stream::Stream;

use super::witness::OwnerWalk;
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Request, Stop};
use crate::error::{Error, Result, Site, Warning};
use crate::extents::Extents;
use crate::io::{Cached, ReadAt};
use crate::units::{add, len64, mul};

/// The record of $MFTMirr.
const MFT_MIRROR: u64 = 1;
/// The record of $Bitmap.
const BITMAP: u64 = 6;
/// The records that $MFTMirr repeats, as everyone reads it.
const MIRRORED: u64 = 4;

/// Reads the free-space map of an NTFS volume; none if the volume is not NTFS.
pub fn probe(volume: &dyn ReadAt, _: Context) -> Option<Detected> {
    let volume = Cached::new(volume);
    let boot = boot::recognise(&volume)?;
    let mut detected = Findings::default();
    let outcome = detected.map(&volume, &boot).map(|(map, walk)| (map, walk.boxed()));
    Some(Detected::new("NTFS", detected.label, outcome, detected.warnings))
}

/// What is worth telling even of a volume that is declined later.
#[derive(Default)]
struct Findings {
    label: Option<String>,
    warnings: Vec<Warning>,
}

impl Findings {
    fn map(&mut self, volume: &dyn ReadAt, boot: &BootSector) -> Result<(FreeMap, RecordWalk), Stop> {
        let geometry = boot.geometry(volume.size())?;
        let mft = Mft::open(volume, geometry)?;
        self.label = status::label(&mft);
        compare_mirror(&mft)?;
        status::check(&mft)?;
        logfile::check(&mft)?;
        let page_files = Extents::from_ranges(root::page_files(&mft)?);

        let record = mft.file(BITMAP)?;
        let bitmap = mft.stream(&record, kind::DATA, "")?;
        let bitmap = bitmap.ok_or_else(|| Error::corrupt(record.site(), "$Bitmap has no data"))?;
        let clusters = bitmap::read(volume, geometry, &bitmap)?;
        if let Some(range) =
            page_files.ranges().iter().find(|range| clusters.free.intersects((*range).clone()))
        {
            let detail = "The bitmap of used space calls a part of a page file free.";
            return Err(inconsistent(detail.into()).at(site("NTFS clusters", range.start)).into());
        }
        let bytes = |clusters: u64| mul(clusters, geometry.cluster_size, "the size of the volume");
        let map = FreeMap {
            free: clusters.free,
            free_bytes: bytes(clusters.free_clusters)?,
            used_bytes: bytes(clusters.used_clusters)?,
            spans: bytes(geometry.clusters)?,
            on_request: Vec::new(),
        };
        Ok((self.hold_back(map, page_files, shadow::read(volume)?), RecordWalk::new(&mft)?))
    }

    /// Moves what shadow copies may need out of the free space, and adds what a person may give up.
    fn hold_back(&mut self, mut map: FreeMap, mut page_files: Extents, shadows: Shadows) -> FreeMap {
        let held = match shadows {
            Shadows::None => Extents::new(),
            Shadows::Need(blocks) => {
                let (free, held) = blocks.divide(&map.free);
                map.free = free;
                (page_files, _) = blocks.divide(&page_files);
                if !held.is_empty() {
                    self.warnings.push(Warning::new(
                        "shadow-copies",
                        "Shadow copies (restore points, previous versions) on this volume may still need a part of its \
                         free space, which is kept.",
                    ));
                }
                held
            }
            Shadows::Unknown(why) => {
                self.warnings.push(Warning::new(
                    "shadow-copies",
                    format!(
                        "This volume has shadow copies (restore points, previous versions), and which of its free \
                         space they still need cannot be told: {why}. All of it is kept."
                    ),
                ));
                page_files = Extents::new();
                std::mem::take(&mut map.free)
            }
        };
        let requests = [(Request::ShadowCopies, held), (Request::PageFiles, page_files)];
        map.on_request.extend(requests.into_iter().filter(|(_, extents)| !extents.is_empty()));
        map
    }
}

/// Refuses a volume whose first file records differ from their copies: one of them is stale.
fn compare_mirror(mft: &Mft<'_>) -> Result<(), Stop> {
    let geometry = mft.geometry();
    let start = mul(geometry.mft_mirror_lcn, geometry.cluster_size, "the place of $MFTMirr")?;
    let record = mft.file(MFT_MIRROR)?;
    let mirror = mft.stream(&record, kind::DATA, "")?;
    let first = match &mirror {
        Some(Stream::Mapped(mirror)) => mirror.position(0)?,
        _ => return Err(Error::corrupt(record.site(), "$MFTMirr has no clusters").into()),
    };
    if first != start {
        return Err(Error::corrupt(
            record.site(),
            "$MFTMirr and the boot sector disagree about where it begins",
        )
        .expected(start, first)
        .into());
    }
    for number in 0..MIRRORED {
        let into = mul(number, len64(geometry.record_size), "a place in $MFTMirr")?;
        let place = add(start, into, "a place in $MFTMirr")?;
        let copy = read_record(mft.volume(), geometry, place, number)?;
        if copy.contents() != mft.record(number)?.contents() {
            let detail = format!("File record {number} and its copy in $MFTMirr differ.");
            return Err(inconsistent(detail).at(copy.site()).into());
        }
    }
    Ok(())
}

/// A decline because structures contradict each other.
fn inconsistent(detail: String) -> Decline {
    let advice = "Attach the volume to Windows, run `chkdsk X: /f` (X being its letter), and try again.";
    Decline::new(DeclineReason::Inconsistent, format!("{detail} {advice}"))
}

fn site(structure: &'static str, offset: u64) -> Site {
    Site { structure, space: crate::units::Space::Volume, offset }
}
