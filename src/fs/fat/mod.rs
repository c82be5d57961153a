//! FAT12, FAT16 and FAT32.
//!
//! ```text
//!   │ boot sector … │ FAT │ FAT copy │ root directory    │ cluster 2 │ cluster 3 │ … │ rest │
//!     reserved area                    (FAT12, FAT16 only)                             < 1 cluster
//! ```
//! The FAT alone says what is free: never the FSInfo sector, which is a hint that drivers leave stale.
//! Free are whole clusters whose entry is 0; the reserved area, the FATs, a fixed root directory and
//! whatever follows the last cluster never are.
//!
//! A clean volume is believed after its FAT was read whole ([`table`]) and its directory tree was
//! walked ([`walk`]).
//!
//! Source: Microsoft FAT32 File System Specification 1.03 (fatgen103).

mod boot;
mod entry;
#[cfg(test)]
mod fixture;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use self::boot::RawBoot;
use self::walk::Walk;
use super::witness::OwnerWalk;
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Stop};
use crate::error::{Error, Result, Site};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::mul;
use crate::volume::signature::is_fat_boot_sector;

/// Recognises a FAT volume and maps its free clusters.
pub(super) fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let sector = read_vec(volume, 0, 512).ok()?;
    if !is_fat_boot_sector(&sector) {
        return None;
    }
    let boot: RawBoot = read_struct(volume, 0).ok()?;
    let mut found = Found { name: if boot.is_fat32() { "FAT32" } else { "FAT" }, label: boot.label() };
    let outcome = map(volume, &boot, &mut found).map(|(map, walk)| (map, walk.boxed()));
    Some(Detected::new(found.name, found.label.and_then(text), outcome, Vec::new()))
}

/// What is known of the volume, even if it is declined in the end.
struct Found {
    name: &'static str,
    label: Option<[u8; 11]>,
}

fn map(volume: &dyn ReadAt, boot: &RawBoot, found: &mut Found) -> Result<(FreeMap, Walk), Stop> {
    let geometry = boot.geometry(volume)?;
    found.name = geometry.kind.name();
    found.label = entry::label(volume, &geometry).or(found.label);
    boot.check_state()?;
    let scan = table::scan(volume, &geometry)?;
    let free_bytes = mul(scan.free_clusters, geometry.cluster_size, "the free space")?;
    let spans = geometry.end()?;
    let used_bytes =
        spans.checked_sub(free_bytes).ok_or_else(|| Error::internal("more free clusters than there are"))?;
    let (free, walk) = Walk::new(geometry, scan, used_bytes);
    Ok((FreeMap { free, free_bytes, used_bytes, spans, on_request: Vec::new() }, walk))
}

/// A label without its padding; bytes of unknown code pages become replacement characters.
fn text(label: [u8; 11]) -> Option<String> {
    let text: String = label
        .iter()
        .map(|&b| if b.is_ascii() { char::from(b) } else { char::REPLACEMENT_CHARACTER })
        .collect();
    let text = text.trim_end_matches([' ', '\0']);
    (!text.is_empty() && text != "NO NAME").then(|| text.to_owned())
}

fn dirty(site: Site) -> Stop {
    let detail = "The volume was not cleanly unmounted. Start the machine, let it check the volume (chkdsk, \
                  fsck.fat), shut it down completely, and try again.";
    Decline::new(DeclineReason::Dirty, detail).at(site).into()
}

fn error_state(site: Site) -> Stop {
    let detail = "The volume remembers an error of its disk. Let the machine check it (chkdsk /r, fsck.fat) \
                  and try again.";
    Decline::new(DeclineReason::ErrorState, detail).at(site).into()
}

fn inconsistent(what: &str, site: Site) -> Stop {
    let detail = format!("The FAT volume contradicts itself. {what} Repair it first (chkdsk /f, fsck.fat).");
    Decline::new(DeclineReason::Inconsistent, detail).at(site).into()
}
