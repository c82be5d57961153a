//! The value of an attribute: bytes in the record, or clusters that data runs map.
//!
//! ```text
//!   mapping pairs:   21 18 34 56 │ 01 08 │ 00
//!                    │└ 1 byte of length: 0x18 clusters
//!                    └ 2 bytes of LCN delta, signed: 0x5634
//!                                  └ no LCN delta: 8 clusters of zeros (sparse)
//!                                          └ end
//!
//!   0 ─────────────► initialised size ─────► data size ─────► allocated size (whole clusters)
//!     what is stored                  zeros              slack
//! ```
//! Source: the linux-ntfs project's NTFS documentation, "Data runs" and "Attribute header".

use std::ops::Range;

use super::boot::Geometry;
use super::record::NonResident;
use crate::error::{Error, Result, Site};
use crate::io::ReadAt;
use crate::units::{add, index, len64};

/// How many runs of one attribute are followed: 8 MiB of memory.
const MAX_RUNS: usize = 1 << 18;

const FLAG_COMPRESSED: u16 = 0x00FF;
const FLAG_ENCRYPTED: u16 = 0x4000;
const FLAG_SPARSE: u16 = 0x8000;

/// The value of an attribute.
#[derive(Debug)]
pub(super) enum Stream {
    Resident(Vec<u8>),
    Mapped(Mapped),
}

/// A non-resident value.
#[derive(Debug, Clone)]
pub(super) struct Mapped {
    runs: Vec<Run>,
    flags: u16,
    cluster_size: u64,
    clusters: u64,
    allocated_size: u64,
    data_size: u64,
    initialised_size: u64,
    at: Site,
}

/// Consecutive clusters; without an LCN they are all zeros and take no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    vcn: u64,
    lcn: Option<u64>,
    len: u64,
    /// The VCN after the last; that it fits 64 bits was checked.
    end: u64,
}

impl Run {
    /// The volume bytes that it takes; none if it is sparse.
    pub(super) fn range(&self, cluster_size: u64) -> Option<Range<u64>> {
        let start = self.lcn?.checked_mul(cluster_size)?;
        Some(start..start.checked_add(self.len.checked_mul(cluster_size)?)?)
    }
}

/// Calls `visit` with every run of a part of an attribute, on a volume of `clusters` clusters.
///
/// # Errors
/// `corrupt` where a run lies outside the volume, or the runs end elsewhere than the part says; what `visit`
/// gives.
pub(super) fn for_each_run<E: From<Error>>(
    part: &NonResident<'_>,
    clusters: u64,
    at: Site,
    mut visit: impl FnMut(Run) -> Result<(), E>,
) -> Result<(), E> {
    let (mut vcn, mut lcn) = (part.first_vcn, 0);
    let mut pairs = part.mapping_pairs;
    while let Some(pair) = next_pair(&mut pairs, at)? {
        let run = pair.run(vcn, &mut lcn, clusters).ok_or_else(|| {
            Error::corrupt(at, "a data run lies outside the volume")
                .expected(format_args!("clusters below {clusters}"), format_args!("{pair:?}"))
        })?;
        vcn = run.end;
        visit(run)?;
    }
    // An attribute without clusters has 2⁶⁴−1 as its last VCN.
    if part.last_vcn.wrapping_add(1) != vcn {
        let message = "the data runs of an attribute end at another cluster than it says";
        return Err(Error::corrupt(at, message).expected(part.last_vcn, vcn.wrapping_sub(1)).into());
    }
    Ok(())
}

impl Mapped {
    /// The value whose first part is `part`; [`Mapped::extend`] adds the others.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn new(part: &NonResident<'_>, flags: u16, geometry: Geometry, at: Site) -> Result<Self> {
        let cluster_size = geometry.cluster_size;
        let sizes_rise = part.initialised_size <= part.data_size && part.data_size <= part.allocated_size;
        if !sizes_rise || !part.allocated_size.is_multiple_of(cluster_size) {
            return Err(Error::corrupt(at, "the sizes of an attribute contradict each other"));
        }
        let mut mapped = Self {
            runs: Vec::new(),
            flags,
            cluster_size,
            clusters: geometry.clusters,
            allocated_size: part.allocated_size,
            data_size: part.data_size,
            initialised_size: part.initialised_size,
            at,
        };
        mapped.extend(part)?;
        Ok(mapped)
    }

    /// Adds the part that follows.
    ///
    /// # Errors
    /// `corrupt` where it does not follow; `limit-exceeded` for more runs than any real file has.
    pub(super) fn extend(&mut self, part: &NonResident<'_>) -> Result<()> {
        let vcn = self.next_vcn();
        if part.first_vcn != vcn {
            return Err(Error::corrupt(self.at, "a part of an attribute is missing")
                .expected(format_args!("clusters from VCN {vcn} on"), part.first_vcn));
        }
        let (at, runs) = (self.at, &mut self.runs);
        for_each_run(part, self.clusters, at, |run| {
            if runs.len() >= MAX_RUNS {
                return Err(Error::limit(at, "an attribute lies in more fragments than are followed"));
            }
            runs.push(run);
            Ok(())
        })
    }

    fn next_vcn(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Refuses a value of which a part has not been found.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn check_complete(&self) -> Result<()> {
        match self.next_vcn().checked_mul(self.cluster_size) {
            Some(mapped) if mapped == self.allocated_size => Ok(()),
            mapped => Err(Error::corrupt(self.at, "the data runs of an attribute do not cover it")
                .expected(format_args!("{} bytes", self.allocated_size), format_args!("{mapped:?}"))),
        }
    }

    /// The value, unless a part of it has not been found.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn complete(self) -> Result<Self> {
        self.check_complete()?;
        Ok(self)
    }

    /// Whether its clusters hold its bytes as they are: nothing compressed, encrypted or sparse.
    pub(super) fn is_plain(&self) -> bool {
        self.flags & (FLAG_COMPRESSED | FLAG_ENCRYPTED | FLAG_SPARSE) == 0
            && self.runs.iter().all(|run| run.lcn.is_some())
    }

    /// Whether it is plain and no longer than the volume, as a value is that has its clusters for itself. Reading
    /// through one that is may take long, but has an end.
    pub(super) fn is_plain_and_fits(&self) -> bool {
        let volume = self.clusters.checked_mul(self.cluster_size);
        self.is_plain() && volume.is_some_and(|volume| self.allocated_size <= volume)
    }

    pub(super) fn data_size(&self) -> u64 {
        self.data_size
    }

    pub(super) fn initialised_size(&self) -> u64 {
        self.initialised_size
    }

    /// Where byte `at` of the value lies on the volume.
    ///
    /// # Errors
    /// `corrupt` where it lies nowhere.
    pub(super) fn position(&self, at: u64) -> Result<u64> {
        let (place, _) = self.place(at)?;
        place.ok_or_else(|| Error::corrupt(self.at, "an attribute is sparse where it must not be"))
    }

    /// The file record that tells of it.
    pub(super) fn site(&self) -> Site {
        self.at
    }

    /// The volume bytes of its clusters, in file order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().filter_map(|run| run.range(self.cluster_size))
    }

    /// Fills `buf` from byte `offset` of the value on.
    ///
    /// # Errors
    /// `corrupt` for compressed and encrypted values and for bytes past the end; `read-failed`.
    pub(super) fn read_at(&self, volume: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(len64(buf.len())).filter(|&end| end <= self.data_size);
        let end = end.ok_or_else(|| Error::corrupt(self.at, "an attribute is shorter than its contents"))?;
        if self.flags & (FLAG_COMPRESSED | FLAG_ENCRYPTED) != 0 {
            return Err(Error::corrupt(self.at, "a compressed or encrypted attribute cannot be read here"));
        }
        // Clamped: a read that begins past the initialised size finds nothing stored.
        let stored = end.min(self.initialised_size).saturating_sub(offset);
        let stored = index(stored, "an attribute")?;
        let (mut rest, uninitialised) = buf.split_at_mut_checked(stored).unwrap_or_default();
        uninitialised.fill(0);
        let mut at = offset;
        while !rest.is_empty() {
            let (place, available) = self.place(at)?;
            let n = index(available.min(len64(rest.len())), "an attribute")?;
            let (now, later) = rest.split_at_mut_checked(n).unwrap_or_default();
            match place {
                Some(place) => volume.read_exact_at(place, now)?,
                None => now.fill(0),
            }
            at = add(at, len64(n), "a place in an attribute")?;
            rest = later;
        }
        Ok(())
    }

    /// Where byte `at` lies on the volume (nowhere if sparse), and how many bytes follow it there.
    fn place(&self, at: u64) -> Result<(Option<u64>, u64)> {
        let vcn = at.checked_div(self.cluster_size).unwrap_or(0);
        let run = self.runs.partition_point(|run| run.end <= vcn);
        let place = self.runs.get(run).and_then(|run| {
            let into = at.checked_sub(run.vcn.checked_mul(self.cluster_size)?)?;
            let available = run.len.checked_mul(self.cluster_size)?.checked_sub(into).filter(|&n| n > 0)?;
            match run.lcn {
                Some(lcn) => Some((Some(lcn.checked_mul(self.cluster_size)?.checked_add(into)?), available)),
                None => Some((None, available)),
            }
        });
        place.ok_or_else(|| Error::corrupt(self.at, "the data runs of an attribute do not cover it"))
    }
}

impl Stream {
    /// Refuses a value of which a part has not been found.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn complete(self) -> Result<Self> {
        match self {
            Self::Resident(value) => Ok(Self::Resident(value)),
            Self::Mapped(mapped) => mapped.complete().map(Self::Mapped),
        }
    }

    /// The length of the value in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Resident(value) => value.size(),
            Self::Mapped(mapped) => mapped.data_size,
        }
    }

    /// Fills `buf` from byte `offset` of the value on.
    ///
    /// # Errors
    /// As [`Mapped::read_at`], and `read-failed` past the end of a resident value.
    pub(super) fn read_at(&self, volume: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::Resident(value) => value.read_exact_at(offset, buf),
            Self::Mapped(mapped) => mapped.read_at(volume, offset, buf),
        }
    }

    /// The whole value, unless it is longer than `limit`.
    ///
    /// # Errors
    /// `limit-exceeded`, and as [`Mapped::read_at`].
    pub(super) fn read_all(self, volume: &dyn ReadAt, limit: u64) -> Result<Vec<u8>> {
        match self {
            Self::Resident(value) => Ok(value),
            Self::Mapped(mapped) if mapped.data_size > limit => {
                Err(Error::limit(mapped.at, "an attribute is longer than any real one")
                    .expected(format_args!("at most {limit} bytes"), mapped.data_size))
            }
            Self::Mapped(mapped) => {
                let mut value = vec![0; index(mapped.data_size, "an attribute")?];
                mapped.read_at(volume, 0, &mut value)?;
                Ok(value)
            }
        }
    }
}

/// One mapping pair: a length and, unless sparse, how far its LCN is from the last one's.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    len: i64,
    lcn_delta: Option<i64>,
}

impl Pair {
    fn run(&self, vcn: u64, lcn: &mut u64, clusters: u64) -> Option<Run> {
        let len = u64::try_from(self.len).ok().filter(|&len| len > 0)?;
        let end = vcn.checked_add(len)?;
        let Some(delta) = self.lcn_delta else {
            return Some(Run { vcn, lcn: None, len, end });
        };
        *lcn = lcn.checked_add_signed(delta)?;
        lcn.checked_add(len).filter(|&end| end <= clusters)?;
        Some(Run { vcn, lcn: Some(*lcn), len, end })
    }
}

/// Takes the next pair off `bytes`; none at the end mark.
fn next_pair(bytes: &mut &[u8], at: Site) -> Result<Option<Pair>> {
    let missing = || Error::corrupt(at, "the data runs of an attribute have no end");
    let (&header, rest) = bytes.split_first().ok_or_else(missing)?;
    if header == 0 {
        return Ok(None);
    }
    let (len, rest) = rest.split_at_checked(usize::from(header & 0x0F)).ok_or_else(missing)?;
    let (delta, rest) = rest.split_at_checked(usize::from(header >> 4)).ok_or_else(missing)?;
    let (Some(length), Some(lcn_delta)) = (signed(len), signed(delta)) else {
        return Err(Error::corrupt(at, "a data run has more than 8 bytes of length or LCN"));
    };
    *bytes = rest;
    Ok(Some(Pair { len: length, lcn_delta: (!delta.is_empty()).then_some(lcn_delta) }))
}

/// A little-endian two's complement number of at most 8 bytes.
fn signed(bytes: &[u8]) -> Option<i64> {
    let sign = bytes.last().map_or(0, |&top| if top & 0x80 == 0 { 0 } else { 0xFF });
    let mut whole = [sign; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fs::ntfs::site;
    use proptest::prelude::*;

    const CLUSTER: u64 = 512;
    const CLUSTERS: u64 = 100;
    const GEOMETRY: Geometry = Geometry {
        cluster_size: CLUSTER,
        clusters: CLUSTERS,
        record_size: 1024,
        mft_lcn: 4,
        mft_mirror_lcn: 8,
    };

    fn somewhere() -> Site {
        site("NTFS file record", 0)
    }

    fn part(pairs: &[u8], first_vcn: u64, last_vcn: u64, clusters: u64) -> NonResident<'_> {
        let size = clusters * CLUSTER;
        NonResident {
            first_vcn,
            last_vcn,
            allocated_size: size,
            data_size: size,
            initialised_size: size,
            mapping_pairs: pairs,
        }
    }

    fn mapped(part: &NonResident<'_>) -> Result<Mapped> {
        Mapped::new(part, 0, GEOMETRY, somewhere())?.complete()
    }

    #[test]
    fn runs_go_forward_backward_and_sparse() {
        let pairs = [0x11, 3, 50, 0x11, 2, 0xF6, 0x01, 4, 0x11, 1, 20, 0];
        let value = mapped(&part(&pairs, 0, 9, 10)).unwrap();
        let ranges: Vec<_> = value.ranges().map(|r| (r.start / CLUSTER, r.end / CLUSTER)).collect();
        assert_eq!(ranges, [(50, 53), (40, 42), (60, 61)]);
        assert!(!value.is_plain());

        let volume: Vec<u8> = (0..CLUSTERS).flat_map(|n| [u8::try_from(n).unwrap(); 512]).collect();
        let mut all = vec![0xEE; 5120];
        value.read_at(&volume, 0, &mut all).unwrap();
        let by_cluster: Vec<u8> = all.chunks(512).map(|c| c[0]).collect();
        assert_eq!(by_cluster, [50, 51, 52, 40, 41, 0, 0, 0, 0, 60]);
        let mut across = [0; 4];
        value.read_at(&volume, 3 * CLUSTER - 2, &mut across).unwrap();
        assert_eq!(across, [52, 52, 40, 40]);
        assert_eq!(value.read_at(&volume, 5119, &mut across).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn bytes_past_the_initialised_size_are_zeros() {
        let pairs = [0x11, 2, 1, 0];
        let mut uninitialised = part(&pairs, 0, 1, 2);
        uninitialised.initialised_size = 3;
        let mut buf = [9; 6];
        mapped(&uninitialised).unwrap().read_at(&vec![7u8; 51200], 1, &mut buf).unwrap();
        assert_eq!(buf, [7, 7, 0, 0, 0, 0]);
    }

    #[test]
    fn parts_join_and_gaps_are_refused() {
        let (a, b) = ([0x11, 2, 10, 0], [0x11, 3, 20, 0]);
        let mut value = Mapped::new(&part(&a, 0, 1, 5), 0, GEOMETRY, somewhere()).unwrap();
        value.extend(&part(&b, 2, 4, 0)).unwrap();
        assert_eq!(value.complete().unwrap().ranges().count(), 2);

        let mut value = Mapped::new(&part(&a, 0, 1, 5), 0, GEOMETRY, somewhere()).unwrap();
        assert!(value.extend(&part(&b, 3, 5, 0)).is_err(), "VCN 2 is missing");
        assert!(value.complete().is_err(), "only 2 of 5 clusters are mapped");
    }

    #[test]
    fn an_attribute_without_clusters_is_empty() {
        let value = mapped(&part(&[0], 0, u64::MAX, 0)).unwrap();
        assert_eq!((value.data_size(), value.ranges().count()), (0, 0));
    }

    #[test]
    fn each_fault_of_a_run_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("length 0", &[0x11, 0, 5, 0]),
            ("negative length", &[0x11, 0xFF, 5, 0]),
            ("no length", &[0x10, 5, 0]),
            ("past the volume", &[0x11, 2, 99, 0]),
            ("before the volume", &[0x11, 2, 0xFF, 0]),
            ("9 bytes of LCN", &[0x91, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("no end mark", &[0x11, 2, 5]),
            ("cut short", &[0x41, 2, 5]),
            ("empty", &[]),
            ("ends early", &[0x11, 1, 5, 0]),
        ];
        for (what, pairs) in cases {
            assert!(mapped(&part(pairs, 0, 1, 2)).is_err(), "{what}");
        }
        let good = [0x11, 2, 5, 0];
        assert!(mapped(&part(&good, 0, 2, 2)).is_err(), "another last VCN");
        let sizes = part(&good, 0, 1, 2);
        for (what, bad) in [
            ("initialised past data", NonResident { data_size: 5, ..sizes }),
            ("data past allocated", NonResident { data_size: 1025, ..sizes }),
            ("allocated not whole clusters", NonResident { allocated_size: 1025, ..sizes }),
            ("allocated more than mapped", NonResident { allocated_size: 1536, ..sizes }),
        ] {
            assert!(mapped(&bad).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_runs_inside_the_volume_or_refused(
            pairs in proptest::collection::vec(any::<u8>(), 0..40),
            last in any::<u64>(),
        ) {
            if let Ok(value) = Mapped::new(&part(&pairs, 0, last, 4), 0, GEOMETRY, somewhere()) {
                for range in value.ranges() {
                    prop_assert!(range.start < range.end && range.end <= CLUSTERS * CLUSTER);
                }
            }
        }
    }
}
