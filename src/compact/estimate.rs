//! The estimate: what a compaction would reach, before anything is written or any payload read.

use super::analysis::Analysis;
use super::options::Mode;
use super::plan::{Counts, Decision, Plan};
use super::target::Fresh;
use crate::error::Result;
use crate::extents::Extents;
use crate::fs::{Mapping, Request};
use crate::image::{BlockPlan, DiskType, Format};

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

/// The estimate of `plan`, which is one of `analysis`.
///
/// # Errors
/// What the target's writer refuses.
pub fn estimate(analysis: &Analysis, plan: &Plan) -> Result<Estimate> {
    let top = analysis.top()?;
    let mut out = BlockPlan::new(plan.target.blocks)?;
    let mut dropped = Extents::new();
    let mut kept = Extents::new();
    let mut block = plan.next_decided(0);
    while let Some(at) = block {
        match plan.decision(at) {
            Decision::Candidate => {
                out.set(at, plan.kept_state(top, at));
                kept.push(plan.range(at));
            }
            Decision::Free => {
                out.set(at, plan.omitted_state());
                dropped.push(plan.range(at));
            }
            Decision::Void => out.set(at, plan.omitted_state()),
            Decision::Absent => {}
        }
        block = plan.next_decided(at.saturating_add(1));
    }
    out.seal();
    let writer = plan.target.writer(top, plan.counts.free > 0, &Fresh::default())?;
    let output_size = writer.file_size(&out)?;
    let payload = plan.target.block_size.start_of(out.stored());
    let mapped = mapped(analysis);
    let known: u64 =
        kept.ranges().iter().map(|r| mapped.total_within(r.clone())).fold(0, u64::saturating_add);
    let touched: u64 = kept.total();
    // Of what is kept, the share that lies in mapped volumes and is not free is in use.
    let in_use_bytes = known.saturating_sub(plan.counts.trapped_bytes).min(plan.counts.candidate_bytes);
    let unknown_bytes = touched.saturating_sub(known).min(plan.counts.candidate_bytes);
    let free_by_volume = by_volume(analysis, plan, &dropped);
    Ok(Estimate {
        output_size,
        exact: plan.options.mode == Mode::Quick,
        counts: plan.counts,
        in_use_bytes,
        unknown_bytes,
        table_bytes: output_size.saturating_sub(payload),
        free_by_volume,
        reasons: reasons(analysis, plan)?,
    })
}

/// For each volume, in order: how many bytes of the blocks that go for being free are free there.
#[must_use]
pub fn free_by_volume(analysis: &Analysis, plan: &Plan) -> Vec<u64> {
    let mut dropped = Extents::new();
    let mut block = plan.next_decided(0);
    while let Some(at) = block {
        if plan.decision(at) == Decision::Free {
            dropped.push(plan.range(at));
        }
        block = plan.next_decided(at.saturating_add(1));
    }
    by_volume(analysis, plan, &dropped)
}

fn by_volume(analysis: &Analysis, plan: &Plan, dropped: &Extents) -> Vec<u64> {
    let volumes = analysis.volumes.iter();
    let free_in = |v: &super::analysis::VolumeFindings| {
        let inside = v.volume.segments.ranges().iter().flat_map(|range| dropped.within(range.clone()));
        inside.map(|r| plan.free.total_within(r)).fold(0, u64::saturating_add)
    };
    volumes.map(free_in).collect()
}

/// The disk bytes of volumes whose free space is known.
#[must_use]
pub fn mapped(analysis: &Analysis) -> Extents {
    let volumes = analysis.volumes.iter();
    let mapped = volumes.filter(|v| matches!(v.detected.mapping, Mapping::Mapped(_)));
    Extents::from_ranges(mapped.flat_map(|v| v.volume.segments.ranges().to_vec()).collect())
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
        if analysis.disk.missing_parent().is_some_and(|missing| missing.is_raw) {
            say(
                "parent-raw",
                "The parent is a raw disk (XenServer), which is not read here, so nothing is known of what this disk \
                 shares with it, nor of its file systems."
                    .into(),
            );
        } else if let Some(missing) = analysis.disk.missing_parent() {
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
    for findings in plan.options.mode.ne(&Mode::Zero).then_some(&analysis.volumes).into_iter().flatten() {
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

fn title(findings: &super::analysis::VolumeFindings) -> String {
    let name = findings.detected.name;
    match &findings.detected.label {
        Some(label) => format!("Volume {} ({name}, {label:?})", findings.volume.index),
        None => format!("Volume {} ({name})", findings.volume.index),
    }
}
