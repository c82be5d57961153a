//! Allocation bitmaps: one bit for each cluster of a group, least significant bit first, 1 = used.
//!
//! ```text
//!   byte     0        1        2     …
//!   bit      76543210 76543210 …
//!   cluster        10       98         (of the group; a cluster is a block unless bigalloc is on)
//! ```

use std::ops::Range;

use crate::units::len64;

/// Calls `free` with every run of zero bits among the first `bits` bits, ascending. What a bitmap
/// shorter than that does not tell counts as used.
pub(super) fn free_runs(bitmap: &[u8], bits: u64, mut free: impl FnMut(Range<u64>)) {
    let bits = bits.min(len64(bitmap.len()) << 3);
    let mut open: Option<u64> = None;
    for (chunk, base) in bitmap.chunks(8).zip((0..bits).step_by(64)) {
        // `base` is below `bits`, a multiple of 64, and positions in a word are below 64.
        let word = word(chunk) | past_end(bits.abs_diff(base));
        let mut at = 0;
        while at < u64::BITS {
            let rest = word >> at;
            match open {
                Some(start) => {
                    at = at.checked_add(rest.trailing_zeros()).unwrap_or(u64::BITS).min(u64::BITS);
                    if at < u64::BITS {
                        free(start..base | u64::from(at));
                        open = None;
                    }
                }
                None => {
                    at = at.checked_add(rest.trailing_ones()).unwrap_or(u64::BITS).min(u64::BITS);
                    if at < u64::BITS {
                        open = Some(base | u64::from(at));
                    }
                }
            }
        }
    }
    if let Some(start) = open {
        free(start..bits);
    }
}

/// Up to eight bytes as a word; missing ones are full.
fn word(chunk: &[u8]) -> u64 {
    let mut bytes = [u8::MAX; 8];
    for (to, from) in bytes.iter_mut().zip(chunk) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

/// Ones for all bits of a word after the first `left`.
fn past_end(left: u64) -> u64 {
    u32::try_from(left).ok().and_then(|left| u64::MAX.checked_shl(left)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(bitmap: &[u8], bits: u64) -> Vec<Range<u64>> {
        let mut all = Vec::new();
        free_runs(bitmap, bits, |run| all.push(run));
        all
    }

    #[test]
    fn runs_cross_words_and_stop_at_the_end() {
        assert_eq!(runs(&[0; 24], 192), vec![0..192]);
        assert_eq!(runs(&[0; 24], 100), vec![0..100], "padding past the end is nobody's");
        assert_eq!(runs(&[0xFF; 24], 192), vec![]);
        assert_eq!(runs(&[0b0000_0101], 8), vec![1..2, 3..8]);
        assert_eq!(runs(&[0; 2], 100), vec![0..16], "a short bitmap tells nothing of the rest");
        assert_eq!(runs(&[], 100), vec![]);
        assert_eq!(runs(&[0; 8], 0), vec![]);
    }

    proptest! {
        #[test]
        fn equals_bit_by_bit(
            bitmap in proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..40),
            bits in 0u64..400,
        ) {
            let free = |bit: u64| {
                bitmap.get(usize::try_from(bit / 8).unwrap()).is_some_and(|b| b >> (bit % 8) & 1 == 0)
            };
            let expected: Vec<u64> = (0..bits).filter(|&bit| free(bit)).collect();
            let found = runs(&bitmap, bits);
            prop_assert_eq!(found.iter().flat_map(Clone::clone).collect::<Vec<_>>(), expected);
            for pair in found.windows(2) {
                prop_assert!(pair[0].end < pair[1].start, "runs are as long as they can be");
            }
        }
    }
}
