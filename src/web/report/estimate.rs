//! What a compaction would reach, with a name for every byte that stays.

use serde::Serialize;
use tsify::Tsify;

use crate::compact::{self, Counts, Plan};
use crate::units::length;

/// One part of the new image.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
#[tsify(missing_as_null)]
pub struct PartReport {
    /// "files", "structures" (the file system's own), "in-use" (both, where they are not told apart), "held" (free,
    /// and shares a block with data), "shadow-copies", "page-files", "volume-declined", "behind-file-system",
    /// "no-partition", "unknown" or "tables".
    pub kind: &'static str,
    /// What it is, for a list that a person reads.
    pub label: &'static str,
    /// Whether it goes where it turns out to be zero.
    pub may_be_zero: bool,
    /// Bytes of the new file.
    pub bytes: u64,
    /// The volume it lies in, by its position in `volumes`; null where it lies in none.
    pub volume: Option<usize>,
    /// Where that volume is, as people say it.
    pub place: Option<String>,
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
    /// The volume, by its position in `volumes`.
    pub volume: usize,
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
            free_by_volume: (0..)
                .zip(&estimate.free_by_volume)
                .map(|(volume, &bytes)| FreeByVolume { volume, bytes })
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
                        volume: part.volume,
                        place: findings.map(|findings| findings.volume.place()),
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
