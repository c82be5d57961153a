//! What is known of a volume: its place, its file system, and whether its free space is believed.

use serde::Serialize;
use tsify::Tsify;

use super::SiteReport;
use crate::compact::VolumeFindings;
use crate::fs::{Detected, Hearing, Mapping, Request, Testimony};

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
    /// Bytes that the volume calls in use and that nobody owns, at the least: what a repair would give back. Null
    /// until the walk has ended.
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
    /// Where it is, as people say it: "partition 2".
    pub place: String,
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
            Mapping::Mapped(map) => (Some(map.free_bytes), None, witness(&findings.detected)),
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
            place: findings.volume.place(),
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

fn witness(detected: &Detected) -> Option<WitnessReport> {
    let (testimony, agrees) = match &detected.hearing {
        Hearing::NotNeeded => return None,
        Hearing::Pending { so_far, .. } => (*so_far, false),
        Hearing::Agrees(testimony) => (*testimony, true),
    };
    let Testimony { records, owned_bytes } = testimony;
    Some(WitnessReport { agrees, records, owned_bytes, unowned_bytes: detected.unowned_bytes() })
}
