//! $Bitmap: which clusters are free.
//!
//! ```text
//!   byte 0                byte 1
//!   bit 0 1 2 … 7         bit 0 …            least significant bit first; 1 = in use
//!       cluster 0 … 7         cluster 8 …
//!   … last cluster │ padding to 8 bytes, whatever it holds
//! ```
//! NTFS stores no count of free clusters anywhere, so there is nothing to compare the sum with but the
//! lengths: the bitmap's and the volume's, and the clusters that are certainly in use.
//!
//! Source: the linux-ntfs project's NTFS documentation, "$Bitmap".

use super::boot::Geometry;
use super::stream::Stream;
use super::{inconsistent, site};
use crate::error::{Error, Result};
use crate::extents::Extents;
use crate::fs::{Decline, Stop};
use crate::io::ReadAt;
use crate::units::{add, index, len64, mul};

/// How much of $Bitmap is read at a time.
const PIECE: u64 = 1 << 20;
const WORD_BYTES: usize = 8;
const WORD_BITS: u64 = 64;

/// What $Bitmap says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClusterMap {
    /// The bytes of the free clusters.
    pub(super) free: Extents,
    /// How many clusters are free.
    pub(super) free_clusters: u64,
    /// How many are in use.
    pub(super) used_clusters: u64,
}

/// Reads $Bitmap.
///
/// # Errors
/// Declines where its length is not the volume's, or a part of it is not on the disk.
pub(super) fn read(volume: &dyn ReadAt, geometry: Geometry, bitmap: &Stream) -> Result<ClusterMap, Stop> {
    let needed = geometry.clusters.div_ceil(8);
    // Windows pads to 8 bytes; nobody was seen to pad further than to a whole cluster.
    let most = needed.next_multiple_of(geometry.cluster_size);
    if bitmap.len() < needed || bitmap.len() > most {
        return Err(decline(format!(
            "The bitmap of used space has {} bytes, and {} clusters need {needed}.",
            bitmap.len(),
            geometry.clusters
        ))
        .into());
    }
    let mut scan = Scan::new(geometry);
    match bitmap {
        Stream::Resident(bits) => scan.add(bits)?,
        Stream::Mapped(mapped) => {
            if !mapped.is_plain() || mapped.initialised_size() < needed {
                return Err(decline("A part of the bitmap of used space is not on the disk.".into()).into());
            }
            let mut buf = vec![0; index(needed.min(PIECE), "a piece of $Bitmap")?];
            let mut at = 0;
            while let Some(left) = needed.checked_sub(at).filter(|&left| left > 0) {
                buf.truncate(index(left.min(PIECE), "a piece of $Bitmap")?);
                mapped.read_at(volume, at, &mut buf)?;
                scan.add(&buf)?;
                at = add(at, len64(buf.len()), "a place in $Bitmap")?;
            }
        }
    }
    scan.finish()
}

fn decline(detail: String) -> Decline {
    inconsistent(detail).at(site("NTFS $Bitmap", 0))
}

/// Turns bits into runs of free clusters, a word at a time.
struct Scan {
    geometry: Geometry,
    next: u64,
    free_since: Option<u64>,
    free: Extents,
    free_clusters: u64,
}

impl Scan {
    fn new(geometry: Geometry) -> Self {
        Self { geometry, next: 0, free_since: None, free: Extents::new(), free_clusters: 0 }
    }

    /// Adds the bits that follow; those past the last cluster are padding. Only the last piece may have a
    /// length that is no multiple of 8 bytes.
    fn add(&mut self, bits: &[u8]) -> Result<()> {
        let (words, tail) = bits.as_chunks::<WORD_BYTES>();
        for word in words {
            self.word(u64::from_le_bytes(*word))?;
        }
        if !tail.is_empty() {
            let mut word = [0xFF; WORD_BYTES];
            word.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
            self.word(u64::from_le_bytes(word))?;
        }
        Ok(())
    }

    fn word(&mut self, used: u64) -> Result<()> {
        // Clamped: past the last cluster all is padding.
        let valid = self.geometry.clusters.saturating_sub(self.next);
        let padding = u32::try_from(valid).ok().and_then(|valid| u64::MAX.checked_shl(valid)).unwrap_or(0);
        let used = used | padding;
        self.free_clusters = add(self.free_clusters, used.count_zeros().into(), "the free clusters")?;
        // Most words are all free or all used, and continue what came before.
        match (used, self.free_since) {
            (0, Some(_)) | (u64::MAX, None) => {}
            _ => self.changes(used)?,
        }
        self.next = add(self.next, WORD_BITS, "a cluster")?;
        Ok(())
    }

    /// Walks the alternating runs of a word.
    fn changes(&mut self, used: u64) -> Result<()> {
        let mut bit = 0u32;
        loop {
            let rest = used.checked_shr(bit).unwrap_or(0);
            let looking_for_used = self.free_since.is_some();
            let same = if looking_for_used { rest.trailing_zeros() } else { rest.trailing_ones() };
            // Shifting brought zeros in from above, which are no clusters.
            match bit.checked_add(same) {
                Some(next) if next < u64::BITS => bit = next,
                _ => return Ok(()),
            }
            let cluster = add(self.next, bit.into(), "a cluster")?;
            if looking_for_used { self.close(cluster)? } else { self.free_since = Some(cluster) }
        }
    }

    fn close(&mut self, end: u64) -> Result<()> {
        if let Some(start) = self.free_since.take() {
            let byte = |cluster: u64| mul(cluster, self.geometry.cluster_size, "a free cluster");
            let range = byte(start)?..byte(end)?;
            self.free.push(range);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ClusterMap, Stop> {
        // A free run that reaches the last cluster was closed by the padding, unless there is none.
        self.close(self.next)?;
        let used = self.geometry.clusters.checked_sub(self.free_clusters);
        let used_clusters = used.ok_or_else(|| Error::internal("more free clusters than there are"))?;
        Ok(ClusterMap { free: self.free, free_clusters: self.free_clusters, used_clusters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(clusters: u64) -> Geometry {
        Geometry { cluster_size: 512, clusters, record_size: 1024, mft_lcn: 4, mft_mirror_lcn: 8 }
    }

    fn map(bits: &[u8], clusters: u64) -> Result<ClusterMap, Stop> {
        read(&Vec::new(), geometry(clusters), &Stream::Resident(bits.to_vec()))
    }

    fn free_clusters(bits: &[u8], clusters: u64) -> Vec<u64> {
        let map = map(bits, clusters).unwrap();
        let free: Vec<u64> = map.free.ranges().iter().flat_map(|r| r.start / 512..r.end / 512).collect();
        assert_eq!(map.free_clusters, u64::try_from(free.len()).unwrap());
        free
    }

    #[test]
    fn the_last_clusters_are_right_when_their_number_is_no_multiple_of_8() {
        assert_eq!(free_clusters(&[0xFF, 0b1010_1110], 13), [8, 12]);
        assert_eq!(free_clusters(&[0xFF, 0b0000_1110, 0, 0, 0, 0, 0, 0], 13), [8, 12]);
        assert_eq!(free_clusters(&[0; 8], 64).len(), 64);
        assert_eq!(free_clusters(&[0; 16], 65).len(), 65);
        assert_eq!(free_clusters(&[0; 16], 127).last(), Some(&126));
    }

    #[test]
    fn a_bitmap_of_another_length_is_declined() {
        assert!(map(&[0; 2], 17).is_err(), "too short");
        assert!(map(&[0; 513], 17).is_err(), "too long");
        assert!(map(&[0; 8], 17).is_ok());
    }

    proptest! {
        #[test]
        fn equals_a_walk_bit_by_bit(
            words in proptest::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 1..6),
            cut in 0u64..64,
        ) {
            let bits: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let clusters = u64::try_from(words.len()).unwrap() * 64 - cut;
            let expected: Vec<u64> = (0..clusters)
                .filter(|&n| bits[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 0)
                .collect();
            prop_assert_eq!(free_clusters(&bits, clusters), expected.clone());
            let shortest = usize::try_from(clusters.div_ceil(8)).unwrap();
            prop_assert_eq!(free_clusters(&bits[..shortest], clusters), expected);
        }
    }
}
