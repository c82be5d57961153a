//! What was written, and what the comparison found.

use serde::Serialize;
use tsify::Tsify;

use super::{Notice, warnings};
use crate::compact::{self, Outcome, Plan, Verdict};
use crate::error::Result;
use crate::image::Format;

/// Blocks that were omitted, and why.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct Omitted {
    /// Never stored in the source.
    pub absent: u64,
    /// Zero.
    pub zero: u64,
    /// Free.
    pub free: u64,
    /// Equal to the parent.
    pub equal_to_parent: u64,
}

/// Blocks of the new image.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct OutcomeBlocks {
    /// Stored.
    pub kept: u64,
    /// Not stored.
    pub omitted: Omitted,
}

/// What went from one volume.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct Dropped {
    /// The volume, by its position in what `inspect` gives as `volumes`.
    pub volume: usize,
    /// Where it is, as people say it.
    pub place: String,
    /// Its file system.
    #[serde(rename = "fileSystem")]
    pub file_system: &'static str,
    /// Bytes of omitted blocks that are free there.
    pub bytes: u64,
}

/// What the scan decided.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct CompactOutcome {
    /// The exact size of the new image.
    pub output_size: u64,
    /// Whether there is nothing to be gained, so that nothing should be written.
    pub nothing_to_gain: bool,
    /// The size of the disk.
    pub virtual_size: u64,
    /// The format of the new image.
    pub format: &'static str,
    /// The disk type of the new image.
    pub disk_type: &'static str,
    /// The block size of the new image.
    pub block_size: u64,
    /// Blocks.
    pub blocks: OutcomeBlocks,
    /// What went for being free, by volume.
    pub dropped: Vec<Dropped>,
    /// Whether free space reads differently, so that differencing children of this image end.
    pub reads_changed: bool,
    /// What a person should know.
    pub warnings: Vec<Notice>,
}

impl CompactOutcome {
    /// The outcome of a laid-out compaction.
    pub fn new(plan: &Plan, outcome: &Outcome) -> Result<Self> {
        let analysis = plan.analysis();
        let tally = outcome.tally;
        let mut warnings = warnings(analysis);
        if outcome.reads_changed {
            warnings.push(Notice { code: "children-invalid", message: children_warning(plan.target.format) });
        }
        if outcome.readings_differ {
            warnings.push(Notice {
                code: "bitmap-readings-differ",
                message: format!(
                    "Some sectors hold data although the image's sector bitmaps call them unwritten. Programs read such \
                     sectors differently; the new image {}.",
                    if plan.reads_by_bitmap() {
                        "reads as zero there, as for the program that made this one"
                    } else {
                        "keeps the data"
                    }
                ),
            });
        }
        let dropped = analysis
            .volumes()
            .iter()
            .zip(compact::free_by_volume(plan)?)
            .enumerate()
            .map(|(volume, (findings, bytes))| Dropped {
                volume,
                place: findings.volume.place(),
                file_system: findings.detected.name,
                bytes,
            })
            .filter(|dropped| dropped.bytes > 0)
            .collect();
        Ok(Self {
            output_size: outcome.size,
            nothing_to_gain: outcome.size >= analysis.file_size() && !plan.is_asked_for(),
            virtual_size: plan.target.virtual_size,
            format: plan.target.format.name(),
            disk_type: plan.target.disk_type.name(),
            block_size: plan.target.block_size.get(),
            blocks: OutcomeBlocks {
                kept: tally.kept,
                omitted: Omitted {
                    absent: tally.absent,
                    zero: tally.zero,
                    free: tally.free,
                    equal_to_parent: tally.equal_to_parent,
                },
            },
            dropped,
            reads_changed: outcome.reads_changed,
            warnings,
        })
    }
}

/// What a person must know of children of the source once free space reads differently.
fn children_warning(format: Format) -> String {
    let told = format.description().children_of_changed;
    format!(
        "Free space was dropped, so this is no longer byte for byte the same disk. Differencing disks (checkpoints, \
         snapshots) made from the original do not fit the new image: merge them first. {told}"
    )
}

/// What a comparison found.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct VerificationReport {
    /// Stored bytes that were read from both images and are equal.
    pub compared_bytes: u64,
    /// Stored bytes that the new image's own tables lead back to the very same bytes of a source file.
    pub traced_bytes: u64,
    /// Stored bytes that were left out because they were read and are zero.
    pub zero_bytes: u64,
    /// Stored bytes in dropped free space, which may differ.
    pub skipped_free_bytes: u64,
}

impl From<&Verdict> for VerificationReport {
    fn from(verdict: &Verdict) -> Self {
        Self {
            compared_bytes: verdict.compared,
            traced_bytes: verdict.traced,
            zero_bytes: verdict.zero,
            skipped_free_bytes: verdict.skipped,
        }
    }
}
