//! Parts of a reader as a reader of its own: one volume of a disk.
//!
//! ```text
//!   disk     ──────▓▓▓▓▓▓────────▒▒▒────     a partition is one segment of the disk,
//!   volume         ▓▓▓▓▓▓▒▒▒                 a logical volume of LVM may be several
//! ```

use std::ops::Range;

use super::{ReadAt, check_range};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::units::{add, index, len64, length, overlap};

/// Where the bytes of a volume lie on its disk: one or more ranges of the disk, in the volume's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Never empty ranges, and no two that follow each other on the disk, too.
    ranges: Vec<Range<u64>>,
    /// The volume offset at which each of them begins.
    starts: Vec<u64>,
    len: u64,
}

impl Segments {
    /// One range of the disk.
    #[must_use]
    pub fn single(range: Range<u64>) -> Self {
        let len = length(&range);
        Self { ranges: vec![range], starts: vec![0], len }
    }

    /// Ranges of the disk (disk offsets), in the order of the volume.
    ///
    /// # Errors
    /// `corrupt` without any, for an empty range, and where they overlap each other; `limit-exceeded` where
    /// their length does not fit 64 bits.
    pub fn new(parts: Vec<Range<u64>>) -> Result<Self> {
        if parts.is_empty() || overlap(parts.clone()) || parts.iter().any(|range| range.start >= range.end) {
            return Err(Error::new(
                crate::error::ErrorKind::Corrupt,
                "the parts of a volume are empty or overlap each other",
            ));
        }
        let mut segments = Self { ranges: Vec::new(), starts: Vec::new(), len: 0 };
        for range in parts {
            let start = segments.len;
            let len = range.end.checked_sub(range.start).ok_or_else(|| Error::internal("an empty part"))?;
            segments.len = add(segments.len, len, "the size of a volume")?;
            match segments.ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => {
                    segments.ranges.push(range);
                    segments.starts.push(start);
                }
            }
        }
        Ok(segments)
    }

    /// The size of the volume in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the volume has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges of the disk, in the order of the volume.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The disk offset of the volume's first byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.start)
    }

    /// The disk bytes that belong to the volume, as a set.
    #[must_use]
    pub fn on_disk(&self) -> Extents {
        Extents::from_ranges(self.ranges.clone())
    }

    /// Calls `visit` with the disk ranges that hold the bytes `range` of the volume, in the volume's
    /// order. What lies past the volume's end is left out.
    ///
    /// # Errors
    /// What `visit` gives.
    pub fn resolve(&self, range: Range<u64>, visit: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        let end = range.end.min(self.len);
        let mut at = range.start;
        let first = self.starts.partition_point(|&start| start <= at);
        // The first one starts at 0, so there is always one before.
        let first = first.saturating_sub(1);
        let parts = self.starts.iter().zip(&self.ranges).skip(first);
        for (&start, part) in parts {
            if at >= end {
                break;
            }
            let from = add(part.start, length(&(start..at)), "a disk offset")?;
            let left = length(&(at..end));
            let to = part.end.min(add(from, left, "a disk offset")?);
            if from >= to {
                break;
            }
            visit(from..to)?;
            at = add(at, length(&(from..to)), "a volume offset")?;
        }
        Ok(())
    }

    /// A set of volume bytes as a set of disk bytes.
    ///
    /// # Errors
    /// `limit-exceeded` where an offset does not fit 64 bits.
    pub fn extents_on_disk(&self, extents: &Extents) -> Result<Extents> {
        let mut ranges = Vec::new();
        for range in extents.ranges() {
            self.resolve(range.clone(), &mut |part| {
                ranges.push(part);
                Ok(())
            })?;
        }
        Ok(Extents::from_ranges(ranges))
    }
}

/// The bytes of `inner` that `segments` name, as a reader that begins at 0.
pub struct Window<R> {
    inner: R,
    segments: Segments,
}

impl<R: ReadAt> Window<R> {
    /// The window onto `segments` of `inner`.
    ///
    /// # Errors
    /// `read-failed` if one of them reaches past the end of `inner`.
    pub fn new(inner: R, segments: Segments) -> Result<Self> {
        for range in segments.ranges() {
            check_range(&inner, range.start, length(range))?;
        }
        Ok(Self { inner, segments })
    }

    /// The reader that the window looks onto.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn size(&self) -> u64 {
        self.segments.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = len64(buf.len());
        check_range(self, offset, len)?;
        let mut rest = buf;
        self.segments.resolve(offset..add(offset, len, "a volume offset")?, &mut |part| {
            let len = index(length(&part), "a read")?;
            let (head, tail) = std::mem::take(&mut rest)
                .split_at_mut_checked(len)
                .ok_or_else(|| Error::internal("segments longer than their range"))?;
            rest = tail;
            self.inner.read_exact_at(part.start, head)
        })?;
        if rest.is_empty() { Ok(()) } else { Err(Error::internal("segments shorter than their range")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tests::{conforms, pattern};
    use proptest::prelude::*;

    #[test]
    fn window_conforms() {
        let whole = pattern(9000);
        let window = |range| Window::new(&whole, Segments::single(range));
        conforms(&window(1000..6000).unwrap(), &whole[1000..6000]);
        assert!(window(8999..9001).is_err());
        assert!(window(u64::MAX - 1..u64::MAX).is_err());
    }

    #[test]
    fn a_window_of_several_segments_conforms() {
        let whole = pattern(9000);
        let segments = Segments::new(vec![5000..6000, 100..600, 600..700, 8000..9000]).unwrap();
        assert_eq!(segments.ranges().len(), 3);
        let expected = [&whole[5000..6000], &whole[100..700], &whole[8000..9000]].concat();
        conforms(&Window::new(&whole, segments).unwrap(), &expected[..]);
    }

    #[test]
    fn parts_that_overlap_or_are_empty_are_refused() {
        for parts in [vec![], vec![0..0], vec![0..10, 9..12], vec![10..20, 0..5, 4..8]] {
            assert!(Segments::new(parts).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_byte_of_a_set_lands_where_the_window_reads_it(
            cuts in proptest::collection::vec((1u64..40, 0u64..30), 1..8),
            rotate in 0usize..8,
            sets in proptest::collection::vec((0u64..200, 1u64..50), 0..6),
        ) {
            let mut at = 0;
            let mut parts = Vec::new();
            for (len, gap) in cuts {
                parts.push(at..at + len);
                at += len + gap;
            }
            let by = rotate % parts.len();
            parts.rotate_left(by);
            let bytes: Vec<u64> = parts.iter().flat_map(Clone::clone).collect();
            let segments = Segments::new(parts).unwrap();
            let set = Extents::from_ranges(sets.into_iter().map(|(at, len)| at..at + len).collect());
            let on_disk = segments.extents_on_disk(&set).unwrap();
            for (volume, &disk) in bytes.iter().enumerate() {
                let volume = volume as u64;
                prop_assert_eq!(on_disk.contains(disk..disk + 1), set.contains(volume..volume + 1));
            }
            prop_assert_eq!(on_disk.total(), set.total_within(0..segments.len()));
        }
    }
}
