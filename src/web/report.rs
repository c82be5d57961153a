//! The shapes that cross the boundary: what JSON output, the npm package and the page show.
//!
//! The TypeScript declarations are generated from these, so they cannot disagree.

use serde::{Deserialize, Serialize};
use tsify::Tsify;

use crate::compact::{
    self, Analysis, BlockMap, Counts, Layout, Mode, Options, Plan, Progress, Verdict, VolumeFindings,
};
use crate::error::{Error, ErrorKind, Result, Warning};
use crate::fs::{Mapping, Request};
use crate::image::{DiskType, Format};

/// What a person may ask for.
#[derive(Debug, Clone, Default, Deserialize, Tsify)]
#[serde(rename_all = "camelCase", default)]
pub struct CompactOptions {
    /// How thorough: "full", "quick" or "zero".
    #[tsify(type = "\"full\" | \"quick\" | \"zero\"")]
    pub mode: Option<String>,
    /// Block size of the new image, in bytes.
    pub block_size: Option<u64>,
    /// Format of the new image.
    #[tsify(type = "\"vhd\" | \"vhdx\"")]
    pub format: Option<String>,
    /// Whether a fixed image may become a dynamic one.
    pub to_dynamic: Option<bool>,
    /// Whether free sectors of kept blocks are written as zeros.
    pub scrub: Option<bool>,
    /// Whether the contents of page files count as free.
    pub drop_page_files: Option<bool>,
    /// Whether what only volume shadow copies need counts as free.
    pub ignore_shadow_copies: Option<bool>,
    /// Whether a chain becomes one dynamic image.
    pub flatten: Option<bool>,
}

impl CompactOptions {
    /// These options as the core takes them.
    pub fn parse(&self) -> Result<Options> {
        let mode = match &self.mode {
            None => Mode::default(),
            Some(name) => {
                Mode::from_name(name).ok_or_else(|| unknown("mode", "full, quick or zero", name))?
            }
        };
        let format = match self.format.as_deref() {
            None => None,
            Some(name) => {
                Some(Format::from_name(name).ok_or_else(|| unknown("format", "vhd or vhdx", name))?)
            }
        };
        Ok(Options {
            mode,
            format,
            block_size: self.block_size,
            to_dynamic: self.to_dynamic.unwrap_or_default(),
            scrub: self.scrub.unwrap_or_default(),
            drop_page_files: self.drop_page_files.unwrap_or_default(),
            ignore_shadow_copies: self.ignore_shadow_copies.unwrap_or_default(),
            flatten: self.flatten.unwrap_or_default(),
        })
    }
}

fn unknown(option: &str, expected: &str, found: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("there is no such {option}"))
        .expected(expected, format!("{found:?}"))
}

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

/// Why the free space of a volume is not believed.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct DeclineReport {
    /// A stable code.
    pub reason: &'static str,
    /// A sentence: what is the matter and what to do.
    pub detail: String,
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
}

impl From<&VolumeFindings> for VolumeReport {
    fn from(findings: &VolumeFindings) -> Self {
        let (free_bytes, declined) = match &findings.detected.mapping {
            Mapping::Mapped(map) => (Some(map.free_bytes), None),
            Mapping::Declined(decline) => {
                let detail = match decline.site {
                    Some(site) => format!("{} [{site}]", decline.detail),
                    None => decline.detail.clone(),
                };
                (None, Some(DeclineReport { reason: decline.reason.code(), detail }))
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
        }
    }
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
    /// Stored bytes of which no file system tells: they go if they are zero.
    pub may_be_zero_bytes: u64,
    /// Stored bytes that file systems say are in use (they go too, if a whole block is zero).
    pub must_stay_bytes: u64,
    /// Headers, tables and padding of the new image.
    pub table_bytes: u64,
    /// Blocks.
    pub blocks: EstimateBlocks,
    /// Blocks kept for less than a tenth of their bytes.
    pub fragmented: Fragmented,
    /// Why it will not shrink more.
    pub reasons: Vec<Notice>,
}

impl EstimateReport {
    /// The report of `estimate`, which is one of `plan`.
    pub fn new(analysis: &Analysis, estimate: &compact::Estimate, file_size: u64, plan: &Plan) -> Self {
        let Counts { absent, free, candidate, absent_bytes, free_bytes, trapped_bytes, fragmented, .. } =
            estimate.counts;
        let volumes = analysis.volumes.iter().zip(&estimate.free_by_volume);
        Self {
            output_size: estimate.output_size,
            exact: estimate.exact,
            saves: file_size.saturating_sub(estimate.output_size),
            format: plan.target.format.name(),
            disk_type: plan.target.disk_type.name(),
            block_size: plan.target.block_size.get(),
            absent_bytes,
            free_bytes,
            free_by_volume: volumes
                .map(|(findings, &bytes)| FreeByVolume { index: findings.volume.index, bytes })
                .collect(),
            may_be_zero_bytes: estimate.unknown_bytes,
            must_stay_bytes: estimate.in_use_bytes,
            table_bytes: estimate.table_bytes,
            blocks: EstimateBlocks { total: plan.target.blocks, absent, free, candidate },
            fragmented: Fragmented { blocks: fragmented, bytes: trapped_bytes },
            reasons: estimate
                .reasons
                .iter()
                .map(|reason| Notice { code: reason.code, message: reason.message.clone() })
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
    /// What a compaction would reach; null where `unavailable` says why there is none.
    pub estimate: Option<EstimateReport>,
    /// Why this image cannot be compacted with these options.
    pub unavailable: Option<Notice>,
    /// What is odd.
    pub warnings: Vec<Notice>,
}

impl InspectReport {
    /// The report of an opened image.
    pub fn new(analysis: &Analysis, name: &str, file_size: u64, options: &CompactOptions) -> Result<Self> {
        let top = analysis.top()?;
        let parsed = options.parse()?;
        let free = analysis.free(&parsed)?;
        let planned = Plan::new(&analysis.disk, free, parsed).and_then(|plan| {
            Ok(EstimateReport::new(analysis, &compact::estimate(analysis, &plan)?, file_size, &plan))
        });
        let (estimate, unavailable) = match planned {
            Ok(estimate) => (Some(estimate), None),
            Err(error) => (None, Some(Notice { code: error.kind().code(), message: error.summary().into() })),
        };
        Ok(Self {
            file: name.into(),
            file_size,
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
                found: analysis.disk.is_complete(),
                raw: link.is_raw,
            }),
            volumes: analysis.volumes.iter().map(VolumeReport::from).collect(),
            estimate,
            unavailable,
            warnings: warnings(analysis),
        })
    }
}

fn warnings(analysis: &Analysis) -> Vec<Notice> {
    let images = analysis.disk.layers().iter().flat_map(|image| &image.warnings);
    let volumes = analysis.volumes.iter().flat_map(|findings| &findings.detected.warnings);
    images.chain(&analysis.warnings).chain(volumes).map(Notice::from).collect()
}

/// A picture of the disk.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct BlockMapReport {
    /// The class of each cell: 0 absent, 1 in use, 2 free, 3 zero, 4 partly free, 5 unknown, 6 kept,
    /// 7 dropped.
    pub cells: Vec<u8>,
    /// Blocks a cell stands for.
    pub blocks_per_cell: u64,
}

impl From<BlockMap> for BlockMapReport {
    fn from(map: BlockMap) -> Self {
        Self { cells: map.cells, blocks_per_cell: map.blocks_per_cell }
    }
}

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
    /// Why they could go.
    pub why: &'static str,
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
    pub fn new(
        analysis: &Analysis,
        plan: &Plan,
        layout: &Layout,
        file_size: u64,
        readings_differ: bool,
    ) -> Result<Self> {
        let outcome = layout.outcome();
        let tally = outcome.tally;
        let top = analysis.top()?;
        let asked = plan.options.scrub
            || plan.options.flatten && top.disk_type == DiskType::Differencing
            || plan.target.format != top.format;
        let mut warnings = warnings(analysis);
        if outcome.reads_changed {
            warnings.push(Notice { code: "children-invalid", message: children_warning(plan.target.format) });
        }
        if readings_differ {
            warnings.push(Notice {
                code: "bitmap-readings-differ",
                message: "Some sectors hold data although the image's sector bitmaps call them unwritten. Programs read \
                          such sectors differently; the new image keeps the data."
                    .into(),
            });
        }
        let dropped = analysis
            .volumes
            .iter()
            .zip(compact::free_by_volume(analysis, plan))
            .map(|(findings, bytes)| Dropped {
                volume: findings.volume.index,
                file_system: findings.detected.name,
                bytes,
                why: "free",
            })
            .filter(|dropped| dropped.bytes > 0)
            .collect();
        Ok(Self {
            output_size: outcome.size,
            nothing_to_gain: outcome.size >= file_size && !asked,
            virtual_size: top.geometry.virtual_size,
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
    /// Stored bytes that were compared and are equal.
    pub compared_bytes: u64,
    /// Stored bytes in dropped free space, which may differ.
    pub skipped_free_bytes: u64,
    /// Of those, bytes that do differ.
    pub differing_free_bytes: u64,
    /// Over the compared bytes, in disk order.
    pub digest: String,
    /// The digest's name.
    pub algorithm: &'static str,
}

impl From<&Verdict> for VerificationReport {
    fn from(verdict: &Verdict) -> Self {
        Self {
            compared_bytes: verdict.compared,
            skipped_free_bytes: verdict.skipped,
            differing_free_bytes: verdict.differing,
            digest: verdict.digest.clone(),
            algorithm: "BLAKE3",
        }
    }
}
