//! The estimate: what a compaction would reach, before anything is written or any payload read.

use super::advice;
use super::analysis::VolumeFindings;
use super::options::Mode;
use super::parts::{Part, parts};
use super::plan::{Counts, Decision, Plan};
use crate::error::Result;
use crate::units::add;

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
    /// Every byte of the new image by what it is, the largest part first; they add up to `output_size`.
    pub parts: Vec<Part>,
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
    /// How many bytes stay for it; 0 where that says nothing.
    pub bytes: u64,
    /// Commands to run in the guest, one of which will do, or all in this order, as the message says.
    pub commands: Vec<&'static str>,
}

impl Reason {
    pub(super) const fn new(code: &'static str, message: String) -> Self {
        Self { code, message, bytes: 0, commands: Vec::new() }
    }
}

/// The estimate of `plan`.
///
/// # Errors
/// None in practice.
pub fn estimate(plan: &Plan) -> Result<Estimate> {
    let parts = parts(plan)?;
    let mut reasons = advice::general(plan);
    reasons.extend(plan.analysis().volumes().iter().filter_map(|findings| advice::of_leaked(plan, findings)));
    for part in &parts {
        reasons.extend(advice::of_part(plan, part)?);
    }
    Ok(Estimate {
        output_size: plan.size,
        exact: plan.options.mode == Mode::Quick,
        counts: plan.counts,
        parts,
        free_by_volume: free_by_volume(plan)?,
        reasons,
    })
}

/// For each volume, in order: how many bytes of the blocks that go for being free are free there.
///
/// # Errors
/// None in practice.
pub fn free_by_volume(plan: &Plan) -> Result<Vec<u64>> {
    let dropped = plan.decided(Decision::Free)?;
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
