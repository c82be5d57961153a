//! Everything that is known of an image before any payload is read.

use std::rc::Rc;

use serde::Serialize;
use tsify::Tsify;

use super::estimate::EstimateReport;
use super::volume::VolumeReport;
use super::{Notice, warnings};
use crate::compact::{self, Analysis, Options, Plan};
use crate::error::Result;

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
