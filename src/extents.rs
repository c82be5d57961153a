//! Sets of bytes as sorted, disjoint, non-adjacent ranges: the currency of free-space maps.
//!
//! An [`Extents`] is only ever a *lower bound* of what it stands for ("proved free"), so it may
//! forget members to stay within its memory limit, and never gains one.

use std::ops::Range;

use crate::units::{length, sort_ranges};

/// How many ranges one set holds at most: 2²¹ ranges are 32 MiB.
const MAX_RANGES: usize = 1 << 21;

/// A set of `u64` byte offsets, kept as ascending ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents {
    ranges: Vec<Range<u64>>,
}

impl Extents {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The set of any ranges, in any order; empty and overlapping ones are welcome.
    #[must_use]
    pub fn from_ranges(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.retain(|r| r.start < r.end);
        sort_ranges(&mut ranges);
        let mut set = Self::new();
        for range in ranges {
            set.push(range);
        }
        set
    }

    /// Adds a range that begins at or after the start of the last one (the order in which
    /// allocation maps are read). An empty range adds nothing; a range out of order is put where it
    /// belongs, which is slow.
    pub fn push(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if range.start < last.start => {
                let mut all = std::mem::take(&mut self.ranges);
                all.push(range);
                *self = Self::from_ranges(all);
            }
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => {
                if self.ranges.len() >= MAX_RANGES {
                    self.forget_smallest();
                }
                self.ranges.push(range);
            }
        }
    }

    /// Drops about the smaller half of the ranges: what is not in the set is presumed used, which is safe.
    fn forget_smallest(&mut self) {
        let mut lengths: Vec<u64> = self.ranges.iter().map(length).collect();
        let middle = lengths.len() / 2;
        let (_, &mut median, _) = lengths.select_nth_unstable(middle);
        let mut kept_of_median = 0usize;
        self.ranges.retain(|r| {
            kept_of_median = kept_of_median.saturating_add(usize::from(length(r) == median));
            // Of those that are just as long, every other one: where all are, half of them stay.
            length(r) > median || length(r) == median && kept_of_median.is_multiple_of(2)
        });
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes are in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        // Disjoint ranges of 64-bit offsets never add up to more.
        self.ranges.iter().map(length).fold(0, u64::wrapping_add)
    }

    /// The part of the set inside `window`, ascending.
    pub fn within(&self, window: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.ranges.partition_point(|r| r.end <= window.start);
        self.ranges
            .get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |r| r.start < window.end)
            .map(move |r| r.start.max(window.start)..r.end.min(window.end))
            .filter(|r| r.start < r.end)
    }

    /// The part of `window` that is not in the set, ascending.
    #[must_use]
    pub fn gaps(&self, window: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = window.start;
        for r in self.within(window.clone()) {
            if from < r.start {
                gaps.push(from..r.start);
            }
            from = r.end;
        }
        if from < window.end {
            gaps.push(from..window.end);
        }
        gaps
    }

    /// How many bytes of `window` are in the set.
    #[must_use]
    pub fn total_within(&self, window: Range<u64>) -> u64 {
        self.within(window).map(|r| length(&r)).fold(0, u64::wrapping_add)
    }

    /// Whether every byte of `window` is in the set.
    #[must_use]
    pub fn contains(&self, window: Range<u64>) -> bool {
        window.start >= window.end || self.within(window.clone()).next() == Some(window)
    }

    /// Whether any byte of `window` is in the set.
    #[must_use]
    pub fn intersects(&self, window: Range<u64>) -> bool {
        self.within(window).next().is_some()
    }

    /// The union of both sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.ranges.clone();
        all.extend_from_slice(&other.ranges);
        Self::from_ranges(all)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::new();
        for r in &self.ranges {
            for gap in other.gaps(r.clone()) {
                rest.push(gap);
            }
        }
        rest
    }

    /// The set moved up by `by`; what would pass 2⁶⁴ is left out.
    #[must_use]
    pub fn shifted(&self, by: u64) -> Self {
        let mut moved = Self::new();
        for r in &self.ranges {
            if let (Some(start), Some(end)) = (r.start.checked_add(by), r.end.checked_add(by)) {
                moved.push(start..end);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ranges: &[(u64, u64)]) -> Extents {
        Extents::from_ranges(ranges.iter().map(|&(a, b)| a..b).collect())
    }

    #[test]
    fn overlapping_and_touching_ranges_become_one() {
        assert_eq!(set(&[(5, 9), (0, 3), (3, 6), (20, 20)]).ranges(), std::slice::from_ref(&(0..9)));
    }

    #[test]
    fn a_full_set_forgets_small_ranges_and_keeps_large_ones() {
        let mut all = Extents::new();
        let count = u64::try_from(MAX_RANGES).unwrap() + 10;
        for i in 0..count {
            let len = if i % 8 == 0 { 5 } else { 1 };
            all.push(i * 10..i * 10 + len);
        }
        assert!(all.ranges().len() <= MAX_RANGES);
        assert!(all.contains(0..5));
        assert!(!all.contains(10..11));
    }

    #[test]
    fn a_full_set_of_equal_ranges_keeps_half() {
        let mut all = Extents::new();
        for i in 0..u64::try_from(MAX_RANGES).unwrap() + 1 {
            all.push(i * 10..i * 10 + 1);
        }
        assert!((MAX_RANGES / 3..MAX_RANGES).contains(&all.ranges().len()));
    }

    fn members(e: &Extents) -> BTreeSet<u64> {
        e.ranges().iter().flat_map(Clone::clone).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            a in proptest::collection::vec((0u64..120, 0u64..20), 0..12),
            b in proptest::collection::vec((0u64..120, 0u64..20), 0..12),
            w in (0u64..150, 0u64..60),
        ) {
            let make = |v: &[(u64, u64)]| set(&v.iter().map(|&(s, l)| (s, s + l)).collect::<Vec<_>>());
            let (x, y) = (make(&a), make(&b));
            let (mx, my) = (members(&x), members(&y));
            let window = w.0..w.0 + w.1;
            prop_assert_eq!(members(&x.union(&y)), &mx | &my);
            prop_assert_eq!(members(&x.minus(&y)), &mx - &my);
            prop_assert_eq!(x.total(), u64::try_from(mx.len()).unwrap());
            let inside: BTreeSet<u64> = mx.iter().copied().filter(|v| window.contains(v)).collect();
            prop_assert_eq!(x.within(window.clone()).flatten().collect::<BTreeSet<_>>(), inside.clone());
            prop_assert_eq!(x.total_within(window.clone()), u64::try_from(inside.len()).unwrap());
            let outside: BTreeSet<u64> = window.clone().filter(|v| !mx.contains(v)).collect();
            prop_assert_eq!(x.gaps(window.clone()).into_iter().flatten().collect::<BTreeSet<_>>(), outside.clone());
            prop_assert_eq!(x.contains(window.clone()), outside.is_empty());
            prop_assert_eq!(x.intersects(window), !inside.is_empty());
            for pair in x.ranges().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }
    }
}
