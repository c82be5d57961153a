//! Parts: a name for every byte of the new image, by volume.
//!
//! ```text
//!   new file = tables │ payload of the blocks that stay
//!                       ├─ of a volume that is mapped: files · structures of the file system · free but held
//!                       │                              · shadow copies · page files · behind its end
//!                       ├─ of a volume that is declined
//!                       └─ of no volume: in no partition, or nothing is known of the disk at all
//! ```
//! The parts add up to the size of the file, so that a person who compares it with what the guest calls used
//! finds every byte of the difference. What is in use and, by the second witness, no structure is files; space that
//! was lost to no owner at all is among them, and told of by itself ([`super::advice`]).

use super::analysis::VolumeFindings;
use super::options::Mode;
use super::plan::{Decision, Plan};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::fs::{Mapping, Request};
use crate::units::length;

/// What a part of the new image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartKind {
    /// The contents of files.
    Files,
    /// The file system's own: tables, bitmaps, journals, directories, maps of files.
    Structures,
    /// Both, of a volume whose structures are too scattered to be told from its files.
    InUse,
    /// Free, and stays: it shares a block with bytes that stay, or only zeros were to go.
    Held,
    /// Free, and perhaps needed by a volume shadow copy.
    ShadowCopies,
    /// The contents of page files, hibernation files and swap.
    PageFiles,
    /// A volume whose free space is not believed or not understood.
    Declined,
    /// In a partition behind the end of its file system.
    BehindEnd,
    /// Outside of every partition.
    NoPartition,
    /// Nothing is known of the disk.
    Unknown,
    /// The container's own: headers, tables, bitmaps, padding.
    Tables,
}

impl PartKind {
    /// The stable code, as JSON gives it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Structures => "structures",
            Self::InUse => "in-use",
            Self::Held => "held",
            Self::ShadowCopies => "shadow-copies",
            Self::PageFiles => "page-files",
            Self::Declined => "volume-declined",
            Self::BehindEnd => "behind-file-system",
            Self::NoPartition => "no-partition",
            Self::Unknown => "unknown",
            Self::Tables => "tables",
        }
    }

    /// What it is, for a list that a person reads.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Files => "Files",
            Self::Structures => "Structures of the file system",
            Self::InUse => "Files and the structures of their file system",
            Self::Held => "Free, but in a block with data",
            Self::ShadowCopies => "Free, but kept for restore points",
            Self::PageFiles => "Page files, hibernation files and swap",
            Self::Declined => "A volume whose free space is not known",
            Self::BehindEnd => "Behind the end of the file system",
            Self::NoPartition => "In no partition",
            Self::Unknown => "Nothing is known of it",
            Self::Tables => "Tables of the new image",
        }
    }

    /// Whether blocks of it go where they turn out to be zero; of what is in use only by a rare chance.
    #[must_use]
    pub const fn may_be_zero(self) -> bool {
        matches!(self, Self::Declined | Self::BehindEnd | Self::NoPartition | Self::Unknown)
    }
}

/// One part of the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Which of the analysis' volumes it lies in, by position.
    pub volume: Option<usize>,
    /// Bytes of the new file.
    pub bytes: u64,
}

/// The parts of the new image if every candidate of `plan` stays, the largest first. Together they are
/// [`Plan::size`].
///
/// # Errors
/// None in practice.
pub fn parts(plan: &Plan) -> Result<Vec<Part>> {
    let kept = plan.decided(Decision::Candidate)?;
    let payload = kept.total();
    let mut parts = Parts { plan, rest: kept, found: Vec::new() };
    // A volume may lie inside of another (logical volumes): the inner one comes first, and has its bytes.
    let volumes = plan.analysis().volumes();
    let mut order: Vec<usize> = (0..volumes.len()).collect();
    order.sort_unstable_by_key(|&at| {
        (volumes.get(at).map_or(0, |findings| findings.volume.segments.len()), at)
    });
    for at in order {
        let findings = volumes.get(at).ok_or_else(|| Error::internal("a volume went missing"))?;
        parts.volume(at, findings)?;
    }
    let outside = parts.rest.total();
    let kind = if volumes.is_empty() { PartKind::Unknown } else { PartKind::NoPartition };
    parts.push(kind, None, outside);
    let tables =
        plan.size.checked_sub(payload).ok_or_else(|| Error::internal("a file smaller than its payload"))?;
    parts.push(PartKind::Tables, None, tables);
    let mut found = parts.found;
    found.sort_unstable_by_key(|part| (std::cmp::Reverse(part.bytes), part.kind, part.volume));
    Ok(found)
}

struct Parts<'p> {
    plan: &'p Plan,
    /// What stays and has no name yet (disk offsets).
    rest: Extents,
    found: Vec<Part>,
}

impl Parts<'_> {
    fn push(&mut self, kind: PartKind, volume: Option<usize>, bytes: u64) {
        if bytes > 0 {
            self.found.push(Part { kind, volume, bytes });
        }
    }

    fn volume(&mut self, at: usize, findings: &VolumeFindings) -> Result<()> {
        let all = findings.volume.segments.on_disk();
        let Mapping::Mapped(map) = &findings.detected.mapping else {
            let bytes = self.take(&all);
            self.push(PartKind::Declined, Some(at), bytes);
            return Ok(());
        };
        let on_disk = |extents: &Extents| findings.volume.segments.extents_on_disk(extents);
        for (request, extents) in &map.on_request {
            let kind = match request {
                // What was granted is free like any other.
                _ if self.plan.options.mode != Mode::Zero && self.plan.options.grants(*request) => {
                    PartKind::Held
                }
                Request::ShadowCopies => PartKind::ShadowCopies,
                Request::PageFiles => PartKind::PageFiles,
            };
            let bytes = self.take(&on_disk(extents)?);
            self.push(kind, Some(at), bytes);
        }
        let held = self.take(&on_disk(&map.free)?);
        self.push(PartKind::Held, Some(at), held);
        if let Some(tail) = findings.behind_end() {
            let behind = self.take(&on_disk(&Extents::from_ranges(vec![tail]))?);
            self.push(PartKind::BehindEnd, Some(at), behind);
        }
        let rest = match &findings.detected.structures {
            Some(structures) => {
                // What rounding leaves behind the end, where some file systems have a copy of their first sector.
                let tail = Extents::from_ranges(vec![map.spans..all.total()]);
                let bytes = self.take(&on_disk(&structures.union(&tail))?);
                self.push(PartKind::Structures, Some(at), bytes);
                PartKind::Files
            }
            None => PartKind::InUse,
        };
        let bytes = self.take(&all);
        self.push(rest, Some(at), bytes);
        Ok(())
    }

    /// Gives what of `extents` stays and has no name yet its name: how many bytes that is.
    fn take(&mut self, extents: &Extents) -> u64 {
        let before = self.rest.total();
        self.rest = self.rest.minus(extents);
        length(&(self.rest.total()..before))
    }
}
