//! A set of cluster numbers as one bit each.

use crate::error::{Error, ErrorKind, Result};
use crate::units::index;

/// The largest volume whose clusters are checked one by one: 2²⁸ clusters are 32 MiB of bits, and 1 TiB
/// even at 4 KiB a cluster.
pub(super) const MAX_CLUSTERS: u64 = 1 << 28;

/// Which of the clusters `0 .. len` are in.
#[derive(Debug)]
pub(super) struct ClusterSet {
    words: Vec<u64>,
    len: u64,
}

impl ClusterSet {
    /// The empty set for clusters below `len`.
    pub(super) fn new(len: u64) -> Result<Self> {
        if len > MAX_CLUSTERS {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the volume has {len} clusters, more than the {MAX_CLUSTERS} that are checked"),
            ));
        }
        let count = index(len.div_ceil(64), "a cluster set")?;
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| Error::new(ErrorKind::OutOfMemory, "there is no memory for the cluster map"))?;
        words.resize(count, 0);
        Ok(Self { words, len })
    }

    /// Whether `cluster` is in; one beyond the set never is.
    pub(super) fn contains(&self, cluster: u32) -> bool {
        let (word, bit) = place(cluster);
        u64::from(cluster) < self.len && self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Puts `cluster` in: false if it was in already, or is beyond the set.
    pub(super) fn insert(&mut self, cluster: u32) -> bool {
        let (word, bit) = place(cluster);
        match self.words.get_mut(word) {
            Some(w) if u64::from(cluster) < self.len && *w & bit == 0 => {
                *w |= bit;
                true
            }
            _ => false,
        }
    }

    /// Takes `cluster` out: false if it was not in.
    pub(super) fn remove(&mut self, cluster: u32) -> bool {
        let (word, bit) = place(cluster);
        match self.words.get_mut(word) {
            Some(w) if *w & bit != 0 => {
                *w &= !bit;
                true
            }
            _ => false,
        }
    }
}

fn place(cluster: u32) -> (usize, u64) {
    // A place that memory cannot have is no word of any set.
    let word = usize::try_from(cluster / 64).unwrap_or(usize::MAX);
    (word, 1u64 << (cluster % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_goes_in_once_and_out_once() {
        let mut set = ClusterSet::new(70).unwrap();
        assert!(set.insert(0) && set.insert(69) && !set.insert(69));
        assert!(set.contains(69) && !set.contains(68));
        assert!(set.remove(69) && !set.remove(69) && !set.contains(69));
        assert!(!set.insert(70) && !set.insert(u32::MAX) && !set.contains(70) && !set.remove(70));
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(ClusterSet::new(MAX_CLUSTERS + 1).err().unwrap().kind(), ErrorKind::LimitExceeded);
    }
}
