//! Where a file system keeps its own structures, as the walk over the owners comes by them.
//!
//! ```text
//!   OwnerWalk ── owns(Structure, range) ──► Structures ──► Extents, or nothing where they are too many
//! ```
//! What is in use and no structure is the contents of files: a person compares that part with what Explorer,
//! `du` or `df` says. Nothing is freed by what is gathered here; it only gives a name to what stays.

use std::ops::Range;

use crate::extents::Extents;

/// What an owner has its bytes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The contents of a file.
    File,
    /// The file system's own: boot areas, tables, bitmaps, journals, inodes, directories, maps of files, and
    /// attributes that lie outside of their inode.
    Structure,
}

/// How many ranges are remembered: 4 MiB of them. A volume of more scattered structures is not told apart.
pub const MAX_STRUCTURES: usize = 1 << 18;

/// The ranges of one volume's structures, gathered in any order.
#[derive(Debug, Default)]
pub struct Structures {
    /// Neither sorted nor disjoint.
    ranges: Vec<Range<u64>>,
    /// How many there were after they were last put together.
    merged: usize,
    too_many: bool,
}

impl Structures {
    /// Remembers one, unless there are too many.
    pub fn add(&mut self, range: Range<u64>) {
        if self.too_many || range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
        // Put together whenever they have doubled, so that the work stays in proportion.
        let due = self.merged.saturating_mul(2).clamp(1 << 10, MAX_STRUCTURES.saturating_mul(2));
        if self.ranges.len() >= due {
            let merged = Extents::from_ranges(std::mem::take(&mut self.ranges));
            self.merged = merged.ranges().len();
            self.too_many = self.merged > MAX_STRUCTURES;
            if !self.too_many {
                self.ranges = merged.ranges().to_vec();
            }
        }
    }

    /// All of them, or none where they were too many.
    #[must_use]
    pub fn into_extents(self) -> Option<Extents> {
        let extents = (!self.too_many).then(|| Extents::from_ranges(self.ranges))?;
        (extents.ranges().len() <= MAX_STRUCTURES).then_some(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(ranges: impl IntoIterator<Item = Range<u64>>) -> Option<Extents> {
        let mut structures = Structures::default();
        ranges.into_iter().for_each(|range| structures.add(range));
        structures.into_extents()
    }

    #[test]
    fn overlapping_repeated_and_empty_ranges_are_put_together() {
        let found = gathered([10..20, 5..10, 12..15, 30..30, 10..20, 20..25]).unwrap();
        assert_eq!(found.ranges(), &[5..25]);
        assert_eq!(gathered([]), Some(Extents::default()));
    }

    #[test]
    fn as_many_as_are_remembered_are_told_and_one_more_is_too_many() {
        let limit = u64::try_from(MAX_STRUCTURES).unwrap();
        // From the back, so that none of them joins the one before it.
        let apart = |count: u64| (0..count).rev().map(|at| at * 2..at * 2 + 1);
        assert_eq!(gathered(apart(limit)).unwrap().total(), limit);
        assert_eq!(gathered(apart(limit + 1)), None);
        assert_eq!(gathered(apart(limit * 3)), None);
        // The same few ranges, however often they are told of, are few.
        let again = (0..limit * 3).map(|at| at % 7 * 2..at % 7 * 2 + 1);
        assert_eq!(gathered(again).unwrap().total(), 7);
    }
}
