//! Which MiB of the file are taken, so that no two structures share a byte.
//!
//! ```text
//!   MiB   0        1     2          3     4         …
//!         header   log   metadata   BAT   payload and sector bitmap blocks, in any order
//! ```
//! Everything in a VHDX is aligned to 1 MiB (MS-VHDX 2.1), so one bit a MiB tells overlaps apart: 16 MiB of
//! memory for the largest file that is read, whatever its BAT says.

use std::ops::Range;

use super::format::MIB;
use crate::error::{Error, Result, Site};
use crate::units::{Space, index, length};

/// Largest file that is read: twice what the largest disk holds.
pub const MAX_FILE_SIZE: u64 = 128 << 40;

/// The taken MiB of one file.
pub struct FileSpace {
    size: u64,
    taken: Vec<u64>,
    structures: Vec<(Range<u64>, &'static str)>,
}

/// The `length` bytes from `offset` on, for [`FileSpace`] to judge: an end that does not fit 64 bits becomes
/// the largest number that does, which is past the end of every file that is read.
pub const fn file_range(offset: u64, length: u64) -> Range<u64> {
    offset..offset.saturating_add(length)
}

/// Why a range could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// It reaches past the end of the file.
    PastEnd,
    /// It overlaps this structure.
    Structure(&'static str),
    /// It overlaps a block.
    Block,
}

impl FileSpace {
    /// The space of a file of `size` bytes, with the header section taken.
    ///
    /// # Errors
    /// `limit-exceeded` for a file of more than 128 TiB.
    pub fn new(size: u64) -> Result<Self> {
        if size > MAX_FILE_SIZE {
            let site = Site { structure: "VHDX file", space: Space::File, offset: 0 };
            return Err(Error::limit(site, "the file is larger than any VHDX can usefully be")
                .expected(format_args!("at most {MAX_FILE_SIZE} bytes"), size));
        }
        let words = index(size.div_ceil(MIB).div_ceil(64), "a file")?;
        let mut space = Self { size, taken: vec![0; words], structures: Vec::new() };
        // A file that ends within its header section is refused by whoever reads the headers.
        let _ = space.claim_structure("the header section", 0..MIB);
        Ok(space)
    }

    /// The size of the file in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Takes `range`, which begins on a MiB, for a structure that `name` names in messages.
    pub fn claim_structure(&mut self, name: &'static str, range: Range<u64>) -> Result<(), Conflict> {
        self.claim(range.clone())?;
        self.structures.push((range, name));
        Ok(())
    }

    /// Takes `range`, which begins on a MiB, for a block.
    pub fn claim(&mut self, range: Range<u64>) -> Result<(), Conflict> {
        if range.end > self.size {
            return Err(Conflict::PastEnd);
        }
        if self.take(range.start / MIB, range.end.div_ceil(MIB)) {
            return Ok(());
        }
        let overlapped = self.structures.iter().find(|(r, _)| r.start < range.end && range.start < r.end);
        Err(overlapped.map_or(Conflict::Block, |(_, name)| Conflict::Structure(name)))
    }

    /// Takes the MiB `from..to`; tells whether all were free.
    fn take(&mut self, from: u64, to: u64) -> bool {
        let mut free = true;
        let mut at = from;
        while at < to {
            // `bit` is less than 64, `count` from 1 to 64, and `at` plus `count` at most `to`.
            let bit = at % 64;
            let count = length(&(at..to)).min(64u64.wrapping_sub(bit));
            let mask = (u64::MAX >> 64u64.wrapping_sub(count)) << bit;
            let word = index(at / 64, "a file").ok().and_then(|i| self.taken.get_mut(i));
            let Some(word) = word else { return false };
            free &= *word & mask == 0;
            *word |= mask;
            at = at.wrapping_add(count);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn a_conflict_is_told_by_name() {
        let mut space = FileSpace::new(300 * MIB + 5).unwrap();
        assert_eq!(space.claim_structure("the log", MIB..2 * MIB), Ok(()));
        assert_eq!(space.claim(2 * MIB..258 * MIB), Ok(()));
        assert_eq!(space.claim(300 * MIB..300 * MIB + 5), Ok(()));
        assert_eq!(space.claim(300 * MIB..300 * MIB + 6), Err(Conflict::PastEnd));
        assert_eq!(space.claim(0..MIB), Err(Conflict::Structure("the header section")));
        assert_eq!(space.claim(MIB..2 * MIB), Err(Conflict::Structure("the log")));
        assert_eq!(space.claim(257 * MIB..259 * MIB), Err(Conflict::Block));
    }

    #[test]
    fn absurd_files_are_refused_before_memory_is_taken() {
        assert_eq!(FileSpace::new(u64::MAX).err().unwrap().kind(), ErrorKind::LimitExceeded);
        assert_eq!(FileSpace::new(MAX_FILE_SIZE + 1).err().unwrap().kind(), ErrorKind::LimitExceeded);
        assert!(FileSpace::new(MAX_FILE_SIZE).is_ok());
    }

    proptest! {
        #[test]
        fn ranges_are_free_exactly_once(claims in proptest::collection::vec((1u64..290, 1u64..80), 1..40)) {
            let mut space = FileSpace::new(300 * MIB).unwrap();
            let mut model = [false; 300];
            model[0] = true;
            for (from, len) in claims {
                let to = (from + len).min(300);
                let cells = &mut model[from as usize..to as usize];
                let free = cells.iter().all(|taken| !taken);
                prop_assert_eq!(space.claim(from * MIB..to * MIB).is_ok(), free);
                cells.fill(true);
            }
        }
    }
}
