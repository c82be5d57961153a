//! The outlook: what the rest of a scan will read, and how much of it will go, foreseen from a sample.
//!
//! ```text
//!   candidates   ▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯     a block in use costs one short read, a block of zeros all of it
//!                 ▲     ▲     ▲     ▲     ▲            looked at once, before the scan, evenly spread
//!   settled ──────────┤ left: what those samples say that lie in it
//! ```
//! It serves the time left and the bar alone: nothing is decided by it.

use crate::error::Result;

/// How many blocks are looked at. A browser takes a millisecond for each.
pub const SAMPLES: u64 = 64;

/// What one block of the sample says of its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The block.
    pub block: u64,
    /// What looking at it takes, in bytes of reading.
    pub work: u64,
    /// Whether it seems to be zero.
    pub is_zero: bool,
}

/// Samples, by block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    samples: Vec<Sample>,
}

/// What is foreseen of the candidates that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreseen {
    /// What looking at them takes, in bytes of reading.
    pub work: u64,
    /// How many of them go for being zero.
    pub zero: u64,
}

impl Outlook {
    /// Samples some of `candidates` blocks, which `next` gives one after another, by `look`. Few are not worth it.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn sample(
        candidates: u64,
        mut blocks: impl Iterator<Item = u64>,
        mut look: impl FnMut(u64) -> Result<Sample>,
    ) -> Result<Self> {
        let stride = candidates.checked_div(SAMPLES).and_then(|stride| usize::try_from(stride).ok());
        let Some(stride) = stride.filter(|&stride| stride >= 2) else { return Ok(Self::default()) };
        let mut samples = Vec::new();
        // The first one from the middle of its stretch, the others a stretch on.
        let mut block = blocks.nth(stride / 2);
        while let Some(at) = block {
            samples.push(look(at)?);
            block = blocks.nth(stride.saturating_sub(1));
        }
        Ok(Self { samples })
    }

    /// Whether nothing was sampled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What is foreseen of `left` candidates from block `next` on; none where no block was sampled.
    #[must_use]
    pub fn foresee(&self, next: u64, left: u64) -> Option<Foreseen> {
        let first = self.samples.partition_point(|sample| sample.block < next);
        // The last one stands for what follows it.
        let rest = self.samples.get(first..).filter(|rest| !rest.is_empty());
        let rest = rest.or_else(|| self.samples.last().map(std::slice::from_ref))?;
        let count = u128::try_from(rest.len()).ok()?;
        let share = |sum: u128| sum.saturating_mul(left.into()).checked_div(count);
        let work = share(rest.iter().map(|sample| u128::from(sample.work)).sum())?;
        let zero = share(rest.iter().map(|sample| u128::from(sample.is_zero)).sum())?;
        Some(Foreseen { work: u64::try_from(work).ok()?, zero: u64::try_from(zero).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks in use up to 4000, then zeros that take ten times as long; of every third block something is stored.
    fn look(block: u64) -> Result<Sample> {
        let is_zero = block >= 4000;
        Ok(Sample { block, work: if is_zero { 1000 } else { 100 }, is_zero })
    }

    #[test]
    fn what_is_left_is_foreseen_from_the_samples_in_it() {
        let blocks = || (0..8000).step_by(3);
        let candidates = 2667;
        let outlook = Outlook::sample(candidates, blocks(), look).unwrap();
        assert!((60..=70).contains(&outlook.samples.len()), "{}", outlook.samples.len());
        for next in [0, 1500, 3900, 4100, 7000] {
            let left: Vec<u64> = blocks().filter(|&block| block >= next).collect();
            let truth: u64 = left.iter().map(|&block| look(block).unwrap().work).sum();
            let zero = left.iter().filter(|&&block| block >= 4000).count() as u64;
            let foreseen = outlook.foresee(next, left.len() as u64).unwrap();
            assert!(foreseen.work.abs_diff(truth) < truth / 10, "{next}: {} for {truth}", foreseen.work);
            assert!(foreseen.zero.abs_diff(zero) < zero / 10 + 1, "{next}: {} for {zero}", foreseen.zero);
        }
        // Behind the last sample.
        assert_eq!(outlook.foresee(7999, 1), Some(Foreseen { work: 1000, zero: 1 }));
        assert_eq!(outlook.foresee(8000, 0), Some(Foreseen { work: 0, zero: 0 }));
    }

    #[test]
    fn few_blocks_are_not_sampled() {
        let none = Outlook::sample(127, 0..127, |_| panic!("looked")).unwrap();
        assert_eq!((none.foresee(0, 127), none.samples.len()), (None, 0));
        assert!(!Outlook::sample(128, 0..128, look).unwrap().samples.is_empty());
    }

    #[test]
    fn a_sample_that_cannot_be_read_is_an_error() {
        let fail = |_| Err(crate::error::Error::internal("gone"));
        assert!(Outlook::sample(1000, 0..1000, fail).is_err());
    }
}
