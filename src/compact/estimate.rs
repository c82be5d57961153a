//! The estimate: what a compaction would reach, before anything is written or any payload read.

use super::analysis::{Analysis, VolumeFindings};
use super::options::Mode;
use super::plan::{Counts, Decision, Plan};
use crate::error::Result;
use crate::extents::Extents;
use crate::fs::{Mapping, Request};
use crate::image::{DiskType, Format};
use crate::units::{add, length};

/// What a compaction would reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The size of the new image: exact for quick, at most this for full and zero (which also drop
    /// what turns out zero).
    pub output_size: u64,
    /// Whether `output_size` is exact.
    pub exact: bool,
    /// Block and byte counts.
    pub counts: Counts,
    /// Bytes in candidates that file systems say are in use.
    pub in_use_bytes: u64,
    /// Bytes in candidates of which no file system tells (declined volumes, gaps): they may be zero.
    pub unknown_bytes: u64,
    /// Headers, tables and padding of the new image.
    pub table_bytes: u64,
    /// For each volume, in order: bytes of blocks that go because they are free there.
    pub free_by_volume: Vec<u64>,
    /// Why it will not shrink more.
    pub reasons: Vec<Reason>,
}

/// One reason why an image will not shrink more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A stable code.
    pub code: &'static str,
    /// A sentence for a person, with what to do about it where something can be done.
    pub message: String,
}

/// The estimate of `plan`.
///
/// # Errors
/// None in practice.
pub fn estimate(plan: &Plan) -> Result<Estimate> {
    let mut kept = Extents::new();
    let mut stored = 0u64;
    let mut block = plan.next_decided(0);
    while let Some(at) = block {
        if plan.decision(at) == Decision::Candidate {
            kept.push(plan.range(at));
            stored = add(stored, 1, "a number of blocks")?;
        }
        block = plan.next_decided(add(at, 1, "a block")?);
    }
    let mapped = plan.analysis().mapped();
    let mut known = 0u64;
    for range in kept.ranges() {
        known = add(known, mapped.total_within(range.clone()), "what file systems tell of")?;
    }
    let counts = plan.counts;
    // Of what is kept, the share that lies in mapped volumes and is not free is in use. Blocks that are stored
    // in part count whole in `kept`, so both are cut to what is stored.
    let in_use_bytes = length(&(counts.trapped_bytes..known)).min(counts.candidate_bytes);
    let unknown_bytes = length(&(known..kept.total())).min(counts.candidate_bytes);
    let payload = plan.target.block_size.start_of(stored);
    Ok(Estimate {
        output_size: plan.size,
        exact: plan.options.mode == Mode::Quick,
        counts,
        in_use_bytes,
        unknown_bytes,
        table_bytes: length(&(payload..plan.size)),
        free_by_volume: free_by_volume(plan)?,
        reasons: reasons(plan.analysis(), plan)?,
    })
}

/// For each volume, in order: how many bytes of the blocks that go for being free are free there.
///
/// # Errors
/// None in practice.
pub fn free_by_volume(plan: &Plan) -> Result<Vec<u64>> {
    let mut dropped = Extents::new();
    let mut block = plan.next_decided(0);
    while let Some(at) = block {
        if plan.decision(at) == Decision::Free {
            dropped.push(plan.range(at));
        }
        block = plan.next_decided(add(at, 1, "a block")?);
    }
    let free_in = |findings: &VolumeFindings| -> Result<u64> {
        let mut sum = 0u64;
        for segment in findings.volume.segments.ranges() {
            for range in dropped.within(segment.clone()) {
                sum = add(sum, plan.free.total_within(range), "the free bytes of a volume")?;
            }
        }
        Ok(sum)
    };
    plan.analysis().volumes().iter().map(free_in).collect()
}

fn reasons(analysis: &Analysis, plan: &Plan) -> Result<Vec<Reason>> {
    let mut reasons = Vec::new();
    let mut say = |code, message: String| reasons.push(Reason { code, message });
    if plan.options.mode == Mode::Zero {
        say("mode-zero", "Only what is zero is dropped: file systems are not asked what is free.".into());
    }
    if plan.target.disk_type == DiskType::Differencing {
        if plan.target.format == Format::Vhd {
            say(
                "differencing-vhd",
                "In a differencing VHD free space stays where its parent holds data: without it the parent's old \
                 bytes would show. Merging the chain into one image drops it."
                    .into(),
            );
        }
        if analysis.disk().missing_parent().is_some_and(|missing| missing.is_raw) {
            say(
                "parent-raw",
                "The parent is a raw disk (XenServer), which is not read here, so nothing is known of what this disk \
                 shares with it, nor of its file systems."
                    .into(),
            );
        } else if let Some(missing) = analysis.disk().missing_parent() {
            say(
                "parent-missing",
                format!(
                    "The parent {} was not given, so nothing is known of what this disk shares with it, nor of its \
                     file systems. Give it too to drop more.",
                    missing.describe()
                ),
            );
        }
    }
    for findings in plan.options.mode.ne(&Mode::Zero).then_some(analysis.volumes()).into_iter().flatten() {
        if let Mapping::Declined(decline) = &findings.detected.mapping {
            say("volume-declined", format!("{}: {}", title(findings), decline.detail));
        }
        let held = findings.requestable(Request::ShadowCopies);
        if held > 0 && !plan.options.ignore_shadow_copies {
            say(
                "shadow-copies",
                format!(
                    "{}: {held} free bytes stay because restore points (volume shadow copies) may need them.",
                    title(findings)
                ),
            );
        }
    }
    let counts = &plan.counts;
    if counts.fragmented > 0 && counts.trapped_bytes > 0 {
        let sizes = plan.target.format.description().block_sizes;
        let smaller = sizes.first().is_some_and(|smallest| plan.target.block_size > *smallest);
        let remedy = if smaller && plan.target.disk_type != DiskType::Differencing {
            "Smaller blocks would let go of much of it."
        } else {
            "Defragmenting inside the guest before compacting would let go of much of it."
        };
        say(
            "fragmented",
            format!(
                "{} of {} blocks are kept for less than a tenth of their bytes: files lie scattered. {remedy}",
                counts.fragmented, counts.candidate
            ),
        );
    }
    Ok(reasons)
}

fn title(findings: &VolumeFindings) -> String {
    let name = findings.detected.name;
    match &findings.detected.label {
        Some(label) => format!("Volume {} ({name}, {label:?})", findings.volume.index),
        None => format!("Volume {} ({name})", findings.volume.index),
    }
}
