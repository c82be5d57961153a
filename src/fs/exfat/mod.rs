//! exFAT.
//!
//! ```text
//!   │ boot region │ backup of it │ … │ FAT │ … │ cluster heap: bitmap, up-case table, root, files │ rest │
//!     12 sectors    12 sectors
//! ```
//! The allocation bitmap alone says what is free. It is believed after the boot region's checksum and
//! flags ([`boot`]), the bitmap's own chain ([`heap`]) and every file of the directory tree ([`walk`])
//! were found to agree with it: a used cluster whose bit was lost is a file that would be lost, and
//! nothing else on the volume would tell.
//!
//! PercentInUse proves nothing, because Linux never updates it: a difference is only a warning.
//!
//! Source: Microsoft exFAT file system specification (revision 1.00).

mod boot;
#[cfg(test)]
mod fixture;
mod heap;
mod root;
mod set;
#[cfg(test)]
mod tests;
mod walk;

use self::boot::{Geometry, RawBoot};
use self::walk::Walk;
use super::witness::OwnerWalk;
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Stop};
use crate::error::{Error, Result, Site, Warning};
use crate::io::ReadAt;
use crate::units::{Space, mul};

/// Recognises an exFAT volume and maps its free clusters.
pub(super) fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let boot = RawBoot::read(volume)?;
    let mut found = Found::default();
    let outcome = map(volume, &boot, &mut found).map(|(map, walk)| (map, walk.boxed()));
    Some(Detected::new("exFAT", found.label, outcome, found.warnings))
}

/// What is worth telling even of a volume that is declined later.
#[derive(Default)]
struct Found {
    label: Option<String>,
    warnings: Vec<Warning>,
}

fn map(volume: &dyn ReadAt, boot: &RawBoot, found: &mut Found) -> Result<(FreeMap, Walk), Stop> {
    let geometry = boot.geometry(volume)?;
    let root = root::read(volume, &geometry, &mut found.label);
    boot.check_flags()?;
    let root = root?;
    let heap = heap::read_bitmap(volume, &geometry, root.bitmap.first, root.bitmap.len)?;
    let percent = percent(&geometry, heap.free_clusters)?;
    if let Some(stated) = boot.percent_in_use().filter(|stated| stated.abs_diff(percent) > 1) {
        found.warnings.push(Warning::new(
            "exfat-percent-in-use",
            format!(
                "The boot sector says that {stated}% are in use, and it is {percent}%: it is out of date, as \
                 after use with Linux. The allocation bitmap counts."
            ),
        ));
    }
    let free_bytes = mul(heap.free_clusters, geometry.cluster_size, "the free space")?;
    let spans = geometry.end()?;
    let used_bytes =
        spans.checked_sub(free_bytes).ok_or_else(|| Error::internal("more free clusters than there are"))?;
    let walk = Walk::new(geometry, root, heap.used, used_bytes);
    Ok((FreeMap { free: heap.free, free_bytes, used_bytes, spans, on_request: Vec::new() }, walk))
}

/// The used part in per cent, rounded down as the specification wants; exfat-fuse rounds up.
fn percent(geometry: &Geometry, free_clusters: u64) -> Result<u64> {
    let used = geometry.clusters().checked_sub(free_clusters).and_then(|used| used.checked_mul(100));
    let percent = used.and_then(|used| used.checked_div(geometry.clusters()));
    percent.ok_or_else(|| Error::internal("more free clusters than there are"))
}

fn site(structure: &'static str, offset: u64) -> Site {
    Site { structure, space: Space::Volume, offset }
}

fn inconsistent(what: &str, site: Site) -> Stop {
    let detail =
        format!("The exFAT volume contradicts itself. {what} Repair it first (chkdsk /f, fsck.exfat).");
    Decline::new(DeclineReason::Inconsistent, detail).at(site).into()
}

fn unknown(what: &str, site: Site) -> Stop {
    let detail = format!("The exFAT volume has a feature that is not understood. {what}");
    Decline::new(DeclineReason::UnknownFeature, detail).at(site).into()
}
