//! LVM2: what lies on a physical volume.
//!
//! ```text
//!   partition        │ label, metadata │ root │ swap │ root │ free │ (metadata) │
//!   volumes            vg/root  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓      ▓▓▓▓▓▓
//!                      vg/swap                  ▓▓▓▓▓▓
//!                      the rest ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓                ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
//! ```
//! A physical volume becomes one volume for each logical one, and one for the rest, so that no byte belongs to
//! two. Of the rest, the extents that no logical volume has are free by LVM's own map. That holds only where
//! everything in the group is understood and all of it is here ([`group`]); otherwise the whole physical volume
//! stays, and the reason is told.
//!
//! Source: LVM2's own sources, named in each part; there is no other specification.

mod group;
mod label;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::ops::Range;

use self::group::Group;
use self::label::Label;
use super::signature::claims;
use super::{Scheme, Volume, label as tables};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::io::{ReadAt, Segments, Window};
use crate::units::{add, length};

/// What is known of the part of a physical volume that no logical volume has. All ranges are volume offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// The name of the volume group.
    pub group: String,
    /// The extents that nobody has.
    pub unallocated: Extents,
    /// LVM's own structures, before and behind the extents.
    pub structures: Vec<Range<u64>>,
    /// How many logical volumes were looked at.
    pub logical_volumes: u64,
}

/// Why a physical volume is kept as it is: the end of a sentence that begins "it is a physical volume of LVM".
#[derive(Debug)]
struct Refusal(Cow<'static, str>);

impl Refusal {
    fn broken(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }

    fn unknown(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }

    fn several(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error.to_string().into())
    }
}

/// The volumes that `volume` is, if it is a physical volume: its logical volumes and the rest, or itself with
/// the reason why nothing of it is read. None where it is something else.
///
/// # Errors
/// Where the disk cannot be read.
pub(super) fn divide(disk: &dyn ReadAt, volume: &Volume) -> Result<Option<Vec<Volume>>> {
    let window = Window::new(disk, volume.segments.clone())?;
    let claims = claims(&window)?;
    if claims.iter().all(|claim| claim.name != "LVM2") {
        return Ok(None);
    }
    let refusal = match claims.iter().find(|claim| claim.name != "LVM2") {
        // It is inside of something else, or has become it.
        Some(other) => Refusal::unknown(format!("it also bears the signature of {}", other.name)),
        None => match read(&window).and_then(|group| volumes_of(volume, &group)) {
            Ok(volumes) => return Ok(Some(volumes)),
            Err(refusal) => refusal,
        },
    };
    let opaque = Some(format!("it is a physical volume of LVM, and {}", refusal.0));
    Ok(Some(vec![Volume { opaque, ..volume.clone() }]))
}

/// The group on a physical volume.
fn read(window: &dyn ReadAt) -> Result<Group, Refusal> {
    if let Some(table) = tables::find(window, false)? {
        return Err(Refusal::unknown(format!("it holds a partition table ({})", table.name)));
    }
    let label = Label::read(window)?.ok_or_else(|| Refusal::broken("its label is gone"))?;
    let group = label.newest(window, |text| Group::parse(text).map(|group| (group.sequence, group)))?;
    if group.physical_uuid != label.uuid {
        return Err(Refusal::broken("its metadata is about another physical volume"));
    }
    if label.data[..] != [group.extents.start] {
        return Err(Refusal::broken("its label and its metadata disagree about where its extents begin"));
    }
    let end = label.size.min(group.size).min(window.size());
    if label.size > window.size() || group.extents.end > end {
        return Err(Refusal::broken("it is larger than its partition"));
    }
    let outside = |range: &Range<u64>| range.end <= group.extents.start || range.start >= group.extents.end;
    if !std::iter::once(&label.at).chain(&label.areas).all(outside) {
        return Err(Refusal::broken("its metadata lies among its extents"));
    }
    Ok(group)
}

/// The logical volumes and the rest.
fn volumes_of(volume: &Volume, group: &Group) -> Result<Vec<Volume>, Refusal> {
    let mut volumes = Vec::new();
    let mut taken = Vec::new();
    for (index, logical) in (1u32..).zip(&group.volumes) {
        let mut ranges = Vec::new();
        for range in &logical.ranges {
            volume.segments.resolve(range.clone(), &mut |part| {
                ranges.push(part);
                Ok(())
            })?;
        }
        taken.extend(logical.ranges.iter().cloned());
        volumes.push(Volume {
            scheme: Scheme::Lvm,
            index,
            segments: Segments::new(ranges)?,
            kind: "LVM logical volume".into(),
            name: Some(format!("{}/{}", group.name, logical.name)),
            opaque: (!logical.is_visible).then(|| "it is a hidden logical volume".to_owned()),
            rest_of_lvm: None,
        });
    }
    let taken = Extents::from_ranges(taken);
    let kept = taken.gaps(0..volume.segments.len());
    let unallocated = Extents::from_ranges(taken.gaps(group.extents.clone()));
    // What lies before the extents and behind them: label, metadata, and what alignment leaves.
    let structures = [0..group.extents.start, group.extents.end..volume.segments.len()];
    let rest = Rest {
        group: group.name.clone(),
        unallocated: moved_together(&kept, unallocated.ranges())?,
        structures: moved_together(&kept, &structures)?.ranges().to_vec(),
        logical_volumes: crate::units::len64(group.volumes.len()),
    };
    let segments = volume.segments.extents_on_disk(&Extents::from_ranges(kept))?;
    volumes.push(Volume {
        segments: Segments::new(segments.ranges().to_vec())?,
        opaque: None,
        rest_of_lvm: Some(rest),
        ..volume.clone()
    });
    Ok(volumes)
}

/// Where the bytes of `ranges` are once only the bytes of `kept` (ascending) are left of a volume.
fn moved_together(kept: &[Range<u64>], ranges: &[Range<u64>]) -> Result<Extents> {
    let wanted = Extents::from_ranges(ranges.to_vec());
    let mut moved = Vec::new();
    let mut before = 0;
    for part in kept {
        for range in wanted.within(part.clone()) {
            let into = range
                .start
                .checked_sub(part.start)
                .ok_or_else(|| Error::internal("a part past its range"))?;
            let start = add(before, into, "a place in the rest")?;
            moved.push(start..add(start, length(&range), "a place in the rest")?);
        }
        before = add(before, length(part), "the rest of a physical volume")?;
    }
    Ok(Extents::from_ranges(moved))
}
