//! A reader with some of its bytes replaced in memory: how a log (VHDX) or a journal (ext4) is
//! replayed without writing a byte of the source.
//!
//! ```text
//!   overlay  ░░░▓▓▓░░░░░▒▒▒▒░░░░░     ▓ bytes made here, zeros, or a redirection to
//!   base     ────────────────────       another place of the base (where the log keeps them)
//! ```
//! Later patches win over earlier ones, as in the order of replay.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{ReadAt, check_range};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{add, index, len64, length};

/// How many patches one overlay holds at most.
const MAX_PATCHES: usize = 1 << 20;

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Zeros,
    Redirect(u64),
}

#[derive(Debug, Clone)]
struct Patch {
    len: u64,
    content: Content,
}

impl Patch {
    /// The patch without its first `by` bytes.
    fn skip(&self, by: u64) -> Result<Self> {
        let content = match &self.content {
            Content::Bytes(bytes) => {
                Content::Bytes(bytes.get(index(by, "a patch")?..).unwrap_or_default().to_vec())
            }
            Content::Zeros => Content::Zeros,
            Content::Redirect(at) => Content::Redirect(add(*at, by, "a patch")?),
        };
        Ok(Self { len: length(&(by..self.len)), content })
    }

    /// Where the patch ends that begins at `start`: both lie inside the reader, whose size fits 64 bits.
    const fn end(&self, start: u64) -> u64 {
        start.wrapping_add(self.len)
    }

    fn read<R: ReadAt>(&self, base: &R, from: u64, buf: &mut [u8]) -> Result<()> {
        match &self.content {
            Content::Bytes(bytes) => bytes.read_exact_at(from, buf),
            Content::Zeros => {
                buf.fill(0);
                Ok(())
            }
            Content::Redirect(at) => base.read_exact_at(add(*at, from, "a patch")?, buf),
        }
    }
}

/// A base reader under patches. Reads see the patched bytes; the base is only ever read.
pub struct Overlay<R> {
    base: R,
    size: u64,
    /// Keyed by start; never overlapping.
    patches: BTreeMap<u64, Patch>,
}

/// What an overlay replaces, taken off its base: to be put on another reader of the same bytes.
#[derive(Debug, Default)]
pub struct Patches {
    by_start: BTreeMap<u64, Patch>,
}

impl<R: ReadAt> Overlay<R> {
    /// An overlay without patches.
    pub fn new(base: R) -> Self {
        let size = base.size();
        Self { base, size, patches: BTreeMap::new() }
    }

    /// An overlay with patches that were made over a reader of the same bytes. One that was extended past its
    /// base's end must be extended anew.
    pub fn with(base: R, patches: Patches) -> Self {
        let size = base.size();
        Self { base, size, patches: patches.by_start }
    }

    /// The patches, without what lies under them.
    pub fn into_patches(self) -> Patches {
        Patches { by_start: self.patches }
    }

    /// Makes the reader at least `size` bytes long; what the base does not have reads as zero.
    pub fn extend_to(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// Replaces the bytes at `offset`.
    ///
    /// # Errors
    /// `read-failed` past the end, `limit-exceeded` at 2²⁰ patches.
    pub fn patch_bytes(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let len = len64(bytes.len());
        self.insert(offset, Patch { len, content: Content::Bytes(bytes) })
    }

    /// Replaces `len` bytes at `offset` by zeros.
    ///
    /// # Errors
    /// As [`Overlay::patch_bytes`].
    pub fn patch_zeros(&mut self, offset: u64, len: u64) -> Result<()> {
        self.insert(offset, Patch { len, content: Content::Zeros })
    }

    /// Replaces `len` bytes at `offset` by those that the base holds at `from`.
    ///
    /// # Errors
    /// As [`Overlay::patch_bytes`]; also if `from` reaches past the base's end.
    pub fn patch_redirect(&mut self, offset: u64, len: u64, from: u64) -> Result<()> {
        check_range(&self.base, from, len)?;
        self.insert(offset, Patch { len, content: Content::Redirect(from) })
    }

    /// Takes back whatever patches say of `len` bytes at `offset` (a journal's revoked blocks).
    ///
    /// # Errors
    /// `limit-exceeded` if the range does not fit 64 bits.
    pub fn unpatch(&mut self, offset: u64, len: u64) -> Result<()> {
        let end = add(offset, len, "a patch")?;
        while let Some((start, patch)) = self.last_overlapping(offset..end) {
            self.patches.remove(&start);
            let patch_end = patch.end(start);
            if patch_end > end {
                self.patches.insert(end, patch.skip(length(&(start..end)))?);
            }
            if start < offset {
                let mut head = patch;
                head.len = length(&(start..offset));
                if let Content::Bytes(bytes) = &mut head.content {
                    bytes.truncate(index(head.len, "a patch")?);
                }
                self.patches.insert(start, head);
            }
        }
        Ok(())
    }

    /// Whether any byte of `range` differs (or may differ) from the base.
    #[must_use]
    pub fn is_patched(&self, range: Range<u64>) -> bool {
        range.end > self.base.size() || self.last_overlapping(range).is_some()
    }

    /// What lies under the patches.
    pub const fn base(&self) -> &R {
        &self.base
    }

    /// Whether there are no patches at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    fn insert(&mut self, offset: u64, patch: Patch) -> Result<()> {
        if patch.len == 0 {
            return Ok(());
        }
        check_range(self, offset, patch.len)?;
        self.unpatch(offset, patch.len)?;
        if self.patches.len() >= MAX_PATCHES {
            return Err(Error::new(ErrorKind::LimitExceeded, "the log or journal has too many entries"));
        }
        self.patches.insert(offset, patch);
        Ok(())
    }

    fn last_overlapping(&self, range: Range<u64>) -> Option<(u64, Patch)> {
        let (&start, patch) = self.patches.range(..range.end).next_back()?;
        (patch.end(start) > range.start && range.start < range.end).then(|| (start, patch.clone()))
    }

    fn read_base(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let have = length(&(offset..self.base.size())).min(len64(buf.len()));
        let (head, tail) = buf.split_at_mut(index(have, "a read")?);
        tail.fill(0);
        if head.is_empty() { Ok(()) } else { self.base.read_exact_at(offset, head) }
    }
}

impl<R: ReadAt> ReadAt for Overlay<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        self.read_base(offset, buf)?;
        let end = add(offset, len64(buf.len()), "a read")?;
        let first = self.patches.range(..=offset).next_back().map_or(offset, |(&start, _)| start);
        for (&start, patch) in self.patches.range(first..end.max(first)) {
            let from = start.max(offset);
            let to = patch.end(start).min(end);
            if from >= to {
                continue;
            }
            let window = index(length(&(offset..from)), "a read")?..index(length(&(offset..to)), "a read")?;
            let Some(part) = buf.get_mut(window) else {
                return Err(Error::internal("a patch outside its read"));
            };
            patch.read(&self.base, length(&(start..from)), part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::read_vec;
    use crate::io::tests::{conforms, pattern};
    use proptest::prelude::*;

    #[test]
    fn overlay_conforms() {
        let mut expected = pattern(4000);
        let mut overlay = Overlay::new(pattern(4000));
        conforms(&overlay, &expected);
        overlay.patch_zeros(100, 1000).unwrap();
        overlay.extend_to(5000);
        overlay.patch_bytes(4500, vec![9; 10]).unwrap();
        expected[100..1100].fill(0);
        expected.resize(5000, 0);
        expected[4500..4510].fill(9);
        conforms(&overlay, &expected);
        assert!(overlay.is_patched(0..101) && !overlay.is_patched(0..100) && overlay.is_patched(4000..4001));
    }

    #[test]
    fn patches_go_from_one_reader_of_the_same_bytes_to_another() {
        let mut overlay = Overlay::new(pattern(300));
        overlay.patch_bytes(100, vec![9; 10]).unwrap();
        overlay.patch_redirect(200, 20, 0).unwrap();
        let expected = read_vec(&overlay, 0, 300).unwrap();
        conforms(&Overlay::with(pattern(300), overlay.into_patches()), &expected);
    }

    #[test]
    fn the_most_patches_are_taken_and_one_more_is_refused() {
        let most = len64(MAX_PATCHES);
        let mut overlay = Overlay::new(vec![0u8; 4]);
        overlay.extend_to(2 * most + 2);
        for number in 0..most {
            overlay.patch_zeros(2 * number, 1).unwrap();
        }
        let refused = overlay.patch_zeros(2 * most, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        // One in the place of another is no further one.
        overlay.patch_bytes(0, vec![7]).unwrap();
        assert_eq!(read_vec(&overlay, 0, 1).unwrap(), [7]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Bytes(u64, Vec<u8>),
        Zeros(u64, u64),
        Redirect(u64, u64, u64),
        Unpatch(u64, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = 0u64..100;
        prop_oneof![
            (at.clone(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(o, b)| Op::Bytes(o, b)),
            (at.clone(), 0u64..40).prop_map(|(o, l)| Op::Zeros(o, l)),
            (at.clone(), 0u64..40, 0u64..80).prop_map(|(o, l, f)| Op::Redirect(o, l, f)),
            (at, 0u64..40).prop_map(|(o, l)| Op::Unpatch(o, l)),
        ]
    }

    proptest! {
        #[test]
        fn later_patches_win(ops in proptest::collection::vec(op(), 0..12)) {
            let base = pattern(140);
            let mut expected = base.clone();
            let mut overlay = Overlay::new(base.clone());
            let r = |a: u64, l: u64| usize::try_from(a).unwrap()..usize::try_from(a + l).unwrap();
            for op in ops {
                match op {
                    Op::Bytes(o, b) => {
                        expected[r(o, len64(b.len()))].copy_from_slice(&b);
                        overlay.patch_bytes(o, b).unwrap();
                    }
                    Op::Zeros(o, l) => {
                        expected[r(o, l)].fill(0);
                        overlay.patch_zeros(o, l).unwrap();
                    }
                    Op::Redirect(o, l, f) => {
                        expected[r(o, l)].copy_from_slice(&base[r(f, l)]);
                        overlay.patch_redirect(o, l, f).unwrap();
                    }
                    Op::Unpatch(o, l) => {
                        expected[r(o, l)].copy_from_slice(&base[r(o, l)]);
                        overlay.unpatch(o, l).unwrap();
                    }
                }
                prop_assert_eq!(read_vec(&overlay, 0, 140).unwrap(), expected.clone());
                prop_assert_eq!(read_vec(&overlay, 33, 50).unwrap(), expected[33..83].to_vec());
            }
        }
    }
}
