//! The shapes that cross the boundary: what JSON output, the npm package and the page show.
//!
//! The TypeScript declarations are generated from these, so they cannot disagree.

mod estimate;
mod inspect;
mod outcome;
mod volume;

use serde::Serialize;
use tsify::Tsify;

use crate::compact::{Analysis, BlockMap, CellClass, Progress};
use crate::error::{Site, Warning};

pub use estimate::EstimateReport;
pub use inspect::InspectReport;
pub use outcome::{CompactOutcome, VerificationReport};

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

/// All that is odd about the images of a disk and its volumes.
fn warnings(analysis: &Analysis) -> Vec<Notice> {
    let images = analysis.disk().layers().flat_map(|image| &image.warnings);
    let volumes = analysis.volumes().iter().flat_map(|findings| &findings.detected.warnings);
    images.chain(analysis.warnings()).chain(volumes).map(Notice::from).collect()
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
