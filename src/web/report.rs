//! The shapes that cross the boundary: what JSON output, the npm package and the page show.
//!
//! The TypeScript declarations are generated from these, so they cannot disagree.

use std::rc::Rc;

use serde::Serialize;
use tsify::Tsify;

use crate::compact::{
    self, Analysis, BlockMap, CellClass, Counts, Options, Outcome, Plan, Progress, Verdict, VolumeFindings,
};
use crate::error::{Result, Site, Warning};
use crate::fs::{FreeMap, Hearing, Mapping, Request, Testimony};
use crate::image::Format;
use crate::units::length;

/// Something a person should know.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct Notice {
    /// A stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl From<&Warning> for Notice {
    fn from(warning: &Warning) -> Self {
        Self { code: warning.code, message: warning.message.clone() }
    }
}

/// Where each block of an image is.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct BlockCounts {
    /// Blocks of the disk.
    pub total: u64,
    /// Stored whole.
    pub present: u64,
    /// Stored in part (differencing).
    pub partially_present: u64,
}

/// What a differencing image says of its parent.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct ParentReport {
    /// The identifier the parent must have.
    pub id: String,
    /// All identifiers it may have.
    pub ids: Vec<String>,
    /// Where the parent was last known to be.
    pub paths: Vec<String>,
    /// The parent's time stamp, in seconds since 2000-01-01 UTC.
    pub time_stamp: Option<u32>,
    /// Whether the parent, and its parents, were given.
    pub found: bool,
    /// Whether it is a raw disk, which cannot be given (XenServer).
    pub raw: bool,
}

/// A place in the file, on the disk or in a volume.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct SiteReport {
    /// The structure in the field's words.
    pub structure: &'static str,
    /// "file", "disk" or "volume": what `offset` counts in.
    #[tsify(type = "\"file\" | \"disk\" | \"volume\"")]
    pub space: &'static str,
    /// Byte offset.
    pub offset: u64,
}

impl From<Site> for SiteReport {
    fn from(site: Site) -> Self {
        Self { structure: site.structure, space: site.space.name(), offset: site.offset }
    }
}

/// Why the free space of a volume is not believed.
#[derive(Debug, Clone, Serialize, Tsify)]
#[tsify(missing_as_null)]
pub struct DeclineReport {
    /// A stable code.
    pub reason: &'static str,
    /// A sentence: what is the matter and what to do.
    pub detail: String,
    /// Where it was seen.
    pub site: Option<SiteReport>,
}

/// What the walk over everything that owns space on a volume said.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct WitnessReport {
    /// Whether the walk has ended, and nobody owns what the volume calls free. Until then nothing of the
    /// volume is dropped.
    pub agrees: bool,
    /// Owners that were looked at: file records, inodes, directory entries.
    pub records: u64,
    /// Bytes that they own.
    pub owned_bytes: u64,
    /// Bytes that the volume calls in use and that nobody owns: what a repair would give back. Null until the
    /// walk has ended.
    pub unowned_bytes: Option<u64>,
}

/// One volume.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct VolumeReport {
    /// "mbr", "gpt" or "whole".
    pub scheme: &'static str,
    /// Its number as Linux counts; 0 for the bare disk.
    pub index: u32,
    /// Where it starts on the disk, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The partition type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The GPT partition name.
    pub name: Option<String>,
    /// The file system.
    pub file_system: &'static str,
    /// The volume's label.
    pub label: Option<String>,
    /// What the file system counts as free; null where that is not known.
    pub free_bytes: Option<u64>,
    /// What page files would free, if asked.
    pub page_file_bytes: u64,
    /// What shadow copies hold back.
    pub shadow_copy_bytes: u64,
    /// Why its free space is not believed.
    pub declined: Option<DeclineReport>,
    /// The second witness of its free space; null where it is declined.
    pub witness: Option<WitnessReport>,
}

impl From<&VolumeFindings> for VolumeReport {
    fn from(findings: &VolumeFindings) -> Self {
        let (free_bytes, declined, witness) = match &findings.detected.mapping {
            Mapping::Mapped(map) => (Some(map.free_bytes), None, witness(map, &findings.detected.hearing)),
            Mapping::Declined(decline) => {
                let declined = DeclineReport {
                    reason: decline.reason.code(),
                    detail: decline.detail.clone(),
                    site: decline.site.map(SiteReport::from),
                };
                (None, Some(declined), None)
            }
        };
        Self {
            scheme: findings.volume.scheme.name(),
            index: findings.volume.index,
            start: findings.volume.segments.start(),
            length: findings.volume.segments.len(),
            kind: findings.volume.kind.clone(),
            name: findings.volume.name.clone(),
            file_system: findings.detected.name,
            label: findings.detected.label.clone(),
            free_bytes,
            page_file_bytes: findings.requestable(Request::PageFiles),
            shadow_copy_bytes: findings.requestable(Request::ShadowCopies),
            declined,
            witness,
        }
    }
}

fn witness(map: &FreeMap, hearing: &Hearing) -> Option<WitnessReport> {
    let (testimony, agrees) = match hearing {
        Hearing::NotNeeded => return None,
        Hearing::Pending { so_far, .. } => (*so_far, false),
        Hearing::Agrees(testimony) => (*testimony, true),
    };
    let Testimony { records, owned_bytes } = testimony;
    // Where files share space, more may be owned than is used.
    let unowned_bytes = agrees.then(|| length(&(owned_bytes..map.used_bytes)));
    Some(WitnessReport { agrees, records, owned_bytes, unowned_bytes })
}

/// One part of the new image.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct PartReport {
    /// "in-use", "held" (free, and shares a block with data), "shadow-copies", "page-files", "volume-declined",
    /// "behind-file-system", "no-partition", "unknown" or "tables".
    pub kind: &'static str,
    /// What it is, for a list that a person reads.
    pub label: &'static str,
    /// Whether it goes where it turns out to be zero.
    pub may_be_zero: bool,
    /// Bytes of the new file.
    pub bytes: u64,
    /// The volume it lies in, by its number; null where it lies in none.
    pub volume: Option<u32>,
    /// Its file system.
    pub file_system: Option<&'static str>,
}

/// One reason why an image will not shrink more.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct ReasonReport {
    /// A stable code.
    pub code: &'static str,
    /// A sentence for a person.
    pub message: String,
    /// How many bytes stay for it; 0 where that says nothing.
    pub bytes: u64,
    /// Commands to run in the guest, as the message says.
    pub commands: Vec<&'static str>,
}

/// Blocks as an estimate sees them.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct EstimateBlocks {
    /// Blocks of the new image.
    pub total: u64,
    /// Never stored.
    pub absent: u64,
    /// Dropped for being free.
    pub free: u64,
    /// Kept unless they turn out zero.
    pub candidate: u64,
}

/// How much of one volume goes for being free.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct FreeByVolume {
    /// The volume's number.
    pub index: u32,
    /// Bytes.
    pub bytes: u64,
}

/// Blocks that are kept for little.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct Fragmented {
    /// Blocks of which less than a tenth is in use.
    pub blocks: u64,
    /// Free bytes that stay because they share a block with bytes in use.
    pub bytes: u64,
}

/// What a compaction would reach.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct EstimateReport {
    /// The size of the new image; see `exact`.
    pub output_size: u64,
    /// Whether it is that size (quick), or at most that (full, zero).
    pub exact: bool,
    /// How many bytes that saves, at least.
    pub saves: u64,
    /// The format of the new image.
    pub format: &'static str,
    /// The disk type of the new image.
    pub disk_type: &'static str,
    /// The block size of the new image.
    pub block_size: u64,
    /// Bytes of the disk that are not stored already.
    pub absent_bytes: u64,
    /// Stored bytes that go for being free.
    pub free_bytes: u64,
    /// The same by volume.
    pub free_by_volume: Vec<FreeByVolume>,
    /// Every byte of the new image by what it is, the largest part first; together `outputSize`.
    pub parts: Vec<PartReport>,
    /// Blocks.
    pub blocks: EstimateBlocks,
    /// Blocks kept for less than a tenth of their bytes.
    pub fragmented: Fragmented,
    /// Why it will not shrink more, by the bytes that stay for it.
    pub reasons: Vec<ReasonReport>,
}

impl EstimateReport {
    /// The report of `estimate`, which is one of `plan`.
    pub fn new(plan: &Plan, estimate: &compact::Estimate) -> Self {
        let analysis = plan.analysis();
        let Counts { absent, free, candidate, absent_bytes, free_bytes, trapped_bytes, fragmented, .. } =
            estimate.counts;
        let volumes = analysis.volumes().iter().zip(&estimate.free_by_volume);
        Self {
            output_size: estimate.output_size,
            exact: estimate.exact,
            // It may come out larger.
            saves: length(&(estimate.output_size..analysis.file_size())),
            format: plan.target.format.name(),
            disk_type: plan.target.disk_type.name(),
            block_size: plan.target.block_size.get(),
            absent_bytes,
            free_bytes,
            free_by_volume: volumes
                .map(|(findings, &bytes)| FreeByVolume { index: findings.volume.index, bytes })
                .collect(),
            parts: estimate
                .parts
                .iter()
                .map(|part| {
                    let findings = part.volume.and_then(|at| analysis.volumes().get(at));
                    PartReport {
                        kind: part.kind.code(),
                        label: part.kind.label(),
                        may_be_zero: part.kind.may_be_zero(),
                        bytes: part.bytes,
                        volume: findings.map(|findings| findings.volume.index),
                        file_system: findings.map(|findings| findings.detected.name),
                    }
                })
                .collect(),
            blocks: EstimateBlocks { total: plan.target.blocks, absent, free, candidate },
            fragmented: Fragmented { blocks: fragmented, bytes: trapped_bytes },
            reasons: estimate
                .reasons
                .iter()
                .map(|reason| ReasonReport {
                    code: reason.code,
                    message: reason.message.clone(),
                    bytes: reason.bytes,
                    commands: reason.commands.clone(),
                })
                .collect(),
        }
    }
}

/// What an image is and holds.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct InspectReport {
    /// The file's name.
    pub file: String,
    /// The file's size.
    pub file_size: u64,
    /// "vhd" or "vhdx".
    pub format: &'static str,
    /// "fixed", "dynamic" or "differencing".
    pub disk_type: &'static str,
    /// The size of the disk as a guest sees it.
    pub virtual_size: u64,
    /// The size of a block.
    pub block_size: u64,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// The program that made it.
    pub creator: String,
    /// What a differencing child names as its parent.
    pub identity: String,
    /// Blocks.
    pub blocks: BlockCounts,
    /// The parent of a differencing image.
    pub parent: Option<ParentReport>,
    /// The volumes.
    pub volumes: Vec<VolumeReport>,
    /// What becomes of differencing children of this image once free space is dropped: a sentence.
    pub children: &'static str,
    /// Whether the second witness of every volume has been heard.
    pub checked: bool,
    /// What a compaction would reach; null where `unavailable` says why there is none.
    pub estimate: Option<EstimateReport>,
    /// Why this image cannot be compacted with these options.
    pub unavailable: Option<Notice>,
    /// What is odd.
    pub warnings: Vec<Notice>,
}

impl InspectReport {
    /// The report of an opened image.
    pub fn new(analysis: &Rc<Analysis>, name: &str, options: Options) -> Result<Self> {
        let top = analysis.top();
        let planned = Plan::new(analysis, options)
            .and_then(|plan| Ok(EstimateReport::new(&plan, &compact::estimate(&plan)?)));
        let (estimate, unavailable) = match planned {
            Ok(estimate) => (Some(estimate), None),
            Err(error) => (None, Some(Notice { code: error.kind().code(), message: error.summary().into() })),
        };
        Ok(Self {
            file: name.into(),
            file_size: analysis.file_size(),
            format: top.format.name(),
            disk_type: top.disk_type.name(),
            virtual_size: top.geometry.virtual_size,
            block_size: top.geometry.block_size.get(),
            logical_sector_size: top.geometry.logical_sector_size,
            creator: top.creator.clone(),
            identity: top.identity.to_string(),
            blocks: BlockCounts {
                total: top.block_count(),
                present: top.blocks.present(),
                partially_present: top.blocks.partially_present(),
            },
            parent: top.parent.as_ref().map(|link| ParentReport {
                id: link.ids.first().map(ToString::to_string).unwrap_or_default(),
                ids: link.ids.iter().map(ToString::to_string).collect(),
                paths: link.paths.clone(),
                time_stamp: link.time_stamp,
                found: analysis.disk().is_complete(),
                raw: link.is_raw,
            }),
            volumes: analysis.volumes().iter().map(VolumeReport::from).collect(),
            children: top.format.description().children_of_changed,
            checked: !analysis.is_pending(),
            estimate,
            unavailable,
            warnings: warnings(analysis),
        })
    }
}

fn warnings(analysis: &Analysis) -> Vec<Notice> {
    let images = analysis.disk().layers().flat_map(|image| &image.warnings);
    let volumes = analysis.volumes().iter().flat_map(|findings| &findings.detected.warnings);
    images.chain(analysis.warnings()).chain(volumes).map(Notice::from).collect()
}

/// A picture of the disk.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct BlockMapReport {
    /// For each cell its bytes by class, one cell after another: absent, in use, free, zero, held (free, and
    /// stays), unknown, dropped.
    pub cells: Vec<u64>,
    /// How many numbers a cell has.
    pub classes: u32,
    /// Blocks a cell stands for.
    pub blocks_per_cell: u64,
}

impl From<&BlockMap> for BlockMapReport {
    fn from(map: &BlockMap) -> Self {
        Self {
            cells: map.cells.as_flattened().to_vec(),
            classes: CLASSES,
            blocks_per_cell: map.blocks_per_cell,
        }
    }
}

/// The number of classes of a picture.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation)]
const CLASSES: u32 = CellClass::ALL.len() as u32;

/// How far a step came.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct ProgressReport {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether it is finished.
    pub finished: bool,
}

impl From<Progress> for ProgressReport {
    fn from(progress: Progress) -> Self {
        Self { done: progress.done, total: progress.total, finished: progress.finished }
    }
}

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
    /// The volume's number.
    pub volume: u32,
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
            .map(|(findings, bytes)| Dropped {
                volume: findings.volume.index,
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
