//! A volume group on one physical volume: which of its extents every logical volume has.
//!
//! ```text
//!   physical extents   │ 0 root │ 1 root │ 2 swap │ 3 │ 4 root │ 5 │ …
//!   logical volume "root"   segment 1: extents 0–1   segment 2: extent 4
//! ```
//! Only what is linear or striped is understood. Everything else that a group may have is named and keeps the
//! whole physical volume: what a snapshot, a pool or a mirror still needs, only LVM's kernel half can tell.
//!
//! Source: LVM2 `lib/format_text/export.c`, `flags.c` and `lib/metadata/segtype.h`; checked with `vgcfgbackup`.

use std::ops::Range;

use super::Refusal;
use super::text::{Section, Value};
use crate::units::{add, length, mul, overlap};

const SECTOR: u64 = 512;
/// How many ranges a striped volume may have on the disk: 16 MiB of them.
const MAX_RANGES: u64 = 1 << 20;

/// A volume group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) sequence: u64,
    pub(super) name: String,
    /// The physical volume's identifier without hyphens.
    pub(super) physical_uuid: String,
    /// The size of the physical volume that the group counts on.
    pub(super) size: u64,
    /// The bytes of the physical volume that are divided into extents.
    pub(super) extents: Range<u64>,
    pub(super) volumes: Vec<LogicalVolume>,
}

/// A logical volume.
#[derive(Debug)]
pub(super) struct LogicalVolume {
    pub(super) name: String,
    /// Its bytes on the physical volume, in its own order.
    pub(super) ranges: Vec<Range<u64>>,
    /// Whether a person can mount it: others are parts of something.
    pub(super) is_visible: bool,
}

impl Group {
    /// Reads the text of a group.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let top =
            Section::parse(text).map_err(|why| Refusal::broken(format!("its metadata is broken: {why}")))?;
        let mut groups = top.sections().iter();
        let (Some((name, group)), None) = (groups.next(), groups.next()) else {
            return Err(Refusal::broken("its metadata does not describe one volume group"));
        };
        if top.text("contents") != Some("Text Format Volume Group") || top.number("version") != Some(1) {
            return Err(Refusal::unknown("its metadata has an unknown version"));
        }
        for section in group.sections().keys() {
            if !["physical_volumes", "logical_volumes", "historical_logical_volumes"]
                .contains(&section.as_str())
            {
                return Err(Refusal::unknown(format!("its volume group has a section “{section}”")));
            }
        }
        require_words(group, "the volume group", &["RESIZEABLE", "READ", "WRITE"])?;
        if group.text("format").is_some_and(|format| format != "lvm2") {
            return Err(Refusal::unknown("its volume group has an unknown format"));
        }
        if group.text("lock_type").is_some_and(|lock| lock != "none") {
            return Err(Refusal::unknown("its volume group is shared between machines"));
        }
        let mut physical = group.section("physical_volumes").into_iter().flat_map(Section::sections);
        let (Some((physical_name, physical)), None) = (physical.next(), physical.next()) else {
            return Err(Refusal::several("its volume group has several physical volumes"));
        };
        require_words(physical, "the physical volume", &["ALLOCATABLE"])?;
        let extent_size = mul(number(group, "extent_size")?, SECTOR, "an extent")?;
        let start = mul(number(physical, "pe_start")?, SECTOR, "the extents")?;
        let count = number(physical, "pe_count")?;
        if extent_size == 0 {
            return Err(Refusal::broken("its extents have no size"));
        }
        let place = Place { name: physical_name, start, count, extent_size };
        let mut volumes = Vec::new();
        for (name, volume) in group.section("logical_volumes").into_iter().flat_map(Section::sections) {
            volumes.push(LogicalVolume::parse(name, volume, &place)?);
        }
        let found = Self {
            sequence: number(group, "seqno")?,
            name: name.clone(),
            physical_uuid: physical.text("id").unwrap_or_default().replace('-', ""),
            size: mul(number(physical, "dev_size")?, SECTOR, "the physical volume")?,
            extents: start..add(start, mul(count, extent_size, "the extents")?, "the extents")?,
            volumes,
        };
        found.require_disjoint()?;
        Ok(found)
    }

    /// No extent may belong to two volumes, or to one twice.
    fn require_disjoint(&self) -> Result<(), Refusal> {
        if overlap(self.volumes.iter().flat_map(|volume| volume.ranges.iter().cloned()).collect()) {
            return Err(Refusal::broken("two logical volumes have the same extent"));
        }
        Ok(())
    }
}

/// The extents of the physical volume.
struct Place<'t> {
    name: &'t str,
    start: u64,
    count: u64,
    extent_size: u64,
}

impl Place<'_> {
    /// The bytes of `count` extents from the `first` on.
    fn bytes(&self, first: u64, count: u64) -> Result<Range<u64>, Refusal> {
        let end = add(first, count, "the extents of a segment")?;
        if count == 0 || end > self.count {
            return Err(Refusal::broken("a logical volume lies outside the physical one"));
        }
        let start = add(self.start, mul(first, self.extent_size, "an extent")?, "an extent")?;
        Ok(start
            ..add(
                start,
                mul(count, self.extent_size, "the extents of a segment")?,
                "the extents of a segment",
            )?)
    }
}

impl LogicalVolume {
    fn parse(name: &str, volume: &Section, place: &Place<'_>) -> Result<Self, Refusal> {
        let status = require_words(volume, name, &["READ", "WRITE", "VISIBLE", "FIXED_MINOR"])?;
        let count = number(volume, "segment_count")?;
        if count != crate::units::len64(volume.sections().len()) {
            return Err(Refusal::broken(format!("“{name}” has another number of segments than it says")));
        }
        let mut ranges = Vec::new();
        let mut next = 0;
        for i in 1..=count {
            let segment = volume.section(&format!("segment{i}"));
            let segment = segment.ok_or_else(|| Refusal::broken(format!("“{name}” lacks a segment")))?;
            let extents = number(segment, "extent_count")?;
            if number(segment, "start_extent")? != next || extents == 0 {
                return Err(Refusal::broken(format!("the segments of “{name}” leave gaps")));
            }
            next = add(next, extents, "the extents of a volume")?;
            add_segment(&mut ranges, name, segment, extents, place)?;
        }
        if ranges.is_empty() {
            return Err(Refusal::broken(format!("“{name}” has no segments")));
        }
        Ok(Self { name: name.to_owned(), ranges, is_visible: status.contains(&"VISIBLE") })
    }
}

/// Adds the ranges of one segment in the volume's order.
fn add_segment(
    ranges: &mut Vec<Range<u64>>,
    name: &str,
    segment: &Section,
    extents: u64,
    place: &Place<'_>,
) -> Result<(), Refusal> {
    match segment.text("type") {
        Some("striped" | "linear") => {}
        Some(kind) => {
            let known =
                KINDS.iter().find(|(prefix, _)| kind.starts_with(prefix)).map_or(kind, |(_, what)| what);
            return Err(Refusal::unknown(format!("“{name}” is, or needs, {known}")));
        }
        None => return Err(Refusal::broken(format!("a segment of “{name}” has no type"))),
    }
    let areas = areas(name, segment, place)?;
    let stripes = crate::units::len64(areas.len());
    if number(segment, "stripe_count")? != stripes || stripes == 0 {
        return Err(Refusal::broken(format!(
            "a segment of “{name}” has another number of stripes than it says"
        )));
    }
    let (Some(each), Some(0)) = (extents.checked_div(stripes), extents.checked_rem(stripes)) else {
        return Err(Refusal::broken(format!("a segment of “{name}” does not divide into its stripes")));
    };
    let areas = areas.iter().map(|&first| place.bytes(first, each)).collect::<Result<Vec<_>, _>>()?;
    if let [only] = &areas[..] {
        ranges.push(only.clone());
        return Ok(());
    }
    let stripe = mul(number(segment, "stripe_size")?, SECTOR, "a stripe")?;
    let len = areas.first().map_or(0, length);
    let turns = len.checked_div(stripe).filter(|_| len.is_multiple_of(stripe));
    let turns =
        turns.ok_or_else(|| Refusal::broken(format!("a stripe of “{name}” does not divide its extents")))?;
    if mul(turns, stripes, "the stripes of a volume")? > MAX_RANGES {
        return Err(Refusal::unknown(format!("“{name}” has more stripes than are followed")));
    }
    for turn in 0..turns {
        for area in &areas {
            let start = add(area.start, mul(turn, stripe, "a stripe")?, "a stripe")?;
            ranges.push(start..add(start, stripe, "a stripe")?);
        }
    }
    Ok(())
}

/// What types of segments are not understood, by how their names begin.
const KINDS: [(&str, &str); 14] = [
    ("thin-pool", "a thin pool"),
    ("thin", "a thin volume"),
    ("snapshot", "a snapshot"),
    ("cache-pool", "a cache pool"),
    ("cache", "a cache"),
    ("writecache", "a write cache"),
    ("raid", "a RAID"),
    ("mirror", "a mirror"),
    ("vdo-pool", "a VDO pool"),
    ("vdo", "a VDO volume"),
    ("integrity", "integrity data"),
    ("zero", "a device of zeros"),
    ("error", "a device of errors, where a physical volume is missing"),
    ("era", "an era device"),
];

/// The first extents of a segment's stripes, all on the one physical volume.
fn areas(name: &str, segment: &Section, place: &Place<'_>) -> Result<Vec<u64>, Refusal> {
    let Some(Value::List(stripes)) = segment.value("stripes") else {
        return Err(Refusal::broken(format!("a segment of “{name}” has no stripes")));
    };
    let area = |pair: &[Value]| match pair {
        [Value::Text(physical), Value::Number(first)] if physical == place.name => Ok(*first),
        _ => Err(Refusal::unknown(format!("“{name}” lies on something else than this physical volume"))),
    };
    stripes.chunks(2).map(area).collect()
}

fn number(section: &Section, name: &str) -> Result<u64, Refusal> {
    section.number(name).ok_or_else(|| Refusal::broken(format!("its metadata lacks “{name}”")))
}

/// The status of something, which must be of known words; and no flags, which later versions add for what
/// earlier ones must not touch.
fn require_words<'t>(section: &'t Section, what: &str, known: &[&str]) -> Result<Vec<&'t str>, Refusal> {
    let status = section.words("status");
    let flags = section.words("flags");
    let (Some(status), Some(flags)) = (status, flags) else {
        return Err(Refusal::broken(format!("the status of {what} is no list of words")));
    };
    match status.iter().find(|word| !known.contains(word)).or(flags.first()) {
        None => Ok(status),
        Some(word) => Err(Refusal::unknown(format!("{what} has the status {word}"))),
    }
}
