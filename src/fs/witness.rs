//! The second witness: whether anybody owns what the allocation map calls free.
//!
//! ```text
//!   allocation map ──► FreeMap ───────────────┐  "free"
//!   OwnerWalk ── every owner, its ranges ─────┴─► Witness ── owned, and called free ─► declined
//!     $MFT records, inodes, directory entries        │
//!                                                     └─► Testimony: owners walked, bytes owned
//! ```
//! An allocation map alone is one witness: a single lost bit in it is a lost file, and a comparison that
//! leaves out what the map calls free cannot notice. So every mapped volume is also walked the other way
//! round: from everything that can own space to the space that it owns. One byte that is owned and called
//! free declines the volume. Space in use that nobody owns (lost clusters) does no harm: it stays.
//!
//! A file system writes the walk; looking the ranges up, adding them up and declining is done here, once.
//! Nothing is remembered of a file, and of the file system's own structures only where they lie, up to a limit
//! ([`super::structures`]): memory does not grow with the number of files.

use std::fmt;
use std::ops::Range;

use super::{Decline, DeclineReason, Detected, FreeMap, Mapping, Purpose, Request, Stop, Structures};
use crate::error::{Error, Result, Site, Warning};
use crate::io::ReadAt;
use crate::units::{Progress, add, length};

/// A walk over everything that can own space on a volume, a few owners at a time.
///
/// The reader that a step is given is always the same volume; a walk that needs more (a replayed journal)
/// keeps what it needs to put that on top. It must end for every input: each owner is visited once, chains
/// and trees are guarded against cycles.
pub trait OwnerWalk: fmt::Debug {
    /// Goes on until about `budget` bytes were read, and tells `witness` of every range that an owner
    /// has. Overlapping or repeated ranges are welcome where the file system allows shared space.
    ///
    /// # Errors
    /// A decline for what casts doubt on the walk itself (a record that cannot be read hides its owner's
    /// space); what `witness` gives, unchanged.
    fn step(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>, budget: u64)
    -> Result<Progress, Stop>;

    /// What a person should run to repair this file system, as the end of a sentence: "run `chkdsk /f` in
    /// Windows".
    fn remedy(&self) -> &'static str;

    /// This walk as [`Detected::new`] takes it.
    fn boxed(self) -> Box<dyn OwnerWalk>
    where
        Self: Sized + 'static,
    {
        Box::new(self)
    }
}

/// What the walk over the owners said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Testimony {
    /// Owners that were looked at: file records, inodes, directory entries, b-tree items.
    pub records: u64,
    /// Bytes that they own, counted as often as they are owned.
    pub owned_bytes: u64,
}

/// An owner of space, for the message about the first that lies in free space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// A path or the name of a structure: text of unknown origin.
    pub name: String,
    /// Where its claim is written.
    pub site: Option<Site>,
}

/// Compares what owners say with the free map, one range at a time.
#[derive(Debug)]
pub struct Witness<'m> {
    map: &'m FreeMap,
    testimony: &'m mut Testimony,
    structures: &'m mut Structures,
    remedy: &'static str,
}

impl Witness<'_> {
    /// Notes that `count` more owners were looked at.
    ///
    /// # Errors
    /// `limit-exceeded` where the count does not fit 64 bits.
    pub fn looked_at(&mut self, count: u64) -> Result<(), Stop> {
        self.testimony.records = add(self.testimony.records, count, "a number of owners")?;
        Ok(())
    }

    /// Notes that an owner has the bytes `range` of the volume for a `purpose`; `owner` is asked only to name it
    /// in a decline.
    ///
    /// # Errors
    /// A decline as `inconsistent` where any of them is called free.
    pub fn owns(
        &mut self,
        purpose: Purpose,
        range: Range<u64>,
        owner: impl FnOnce() -> Owner,
    ) -> Result<(), Stop> {
        let Some(len) = range.end.checked_sub(range.start) else {
            return Err(Error::internal("an owner's range ends before it starts").into());
        };
        self.testimony.owned_bytes = add(self.testimony.owned_bytes, len, "the bytes that owners have")?;
        if !self.calls_free(range.clone()) {
            if purpose == Purpose::Structure {
                self.structures.add(range);
            }
            return Ok(());
        }
        let Owner { name, site } = owner();
        let detail = format!(
            "“{name}” lies in space that the volume's own map calls free, so the map is not believed and the \
             whole volume stays. To repair it, {}; then try again.",
            self.remedy
        );
        let decline = Decline::new(DeclineReason::Inconsistent, detail);
        Err(Decline { site, ..decline }.into())
    }

    /// The first byte of `range` that the map calls free, if it calls any free.
    #[must_use]
    pub fn first_free(&self, range: Range<u64>) -> Option<u64> {
        self.map.free.within(range).next().map(|free| free.start)
    }

    /// Whether the map calls any byte of `range` free: also what it holds back only for snapshots.
    #[must_use]
    pub fn calls_free(&self, range: Range<u64>) -> bool {
        let held = self.map.on_request.iter().filter(|(request, _)| *request == Request::ShadowCopies);
        self.map.free.intersects(range.clone())
            || held.into_iter().any(|(_, extents)| extents.intersects(range.clone()))
    }
}

/// How far the second witness of a volume is.
#[derive(Debug)]
pub enum Hearing {
    /// There is nothing to hear: the volume is declined.
    NotNeeded,
    /// The owners are still to be walked, or in the middle of it.
    Pending {
        /// The walk.
        walk: Box<dyn OwnerWalk>,
        /// What it said so far.
        so_far: Testimony,
        /// The structures that it came by so far.
        structures: Structures,
    },
    /// All owners were walked, and none lies in free space.
    Agrees(Testimony),
}

impl Detected {
    /// What one reader says of a volume that is its own: the map and the walk that must confirm it, or why
    /// there is none.
    pub fn new(
        name: &'static str,
        label: Option<String>,
        outcome: Result<(FreeMap, Box<dyn OwnerWalk>), Stop>,
        warnings: Vec<Warning>,
    ) -> Self {
        let (mapping, hearing) = match outcome {
            Ok((map, walk)) => {
                let (so_far, structures) = Default::default();
                (Mapping::Mapped(map), Hearing::Pending { walk, so_far, structures })
            }
            Err(stop) => (Mapping::Declined(stop.into_decline()), Hearing::NotNeeded),
        };
        Self { name, label, mapping, warnings, hearing, structures: None }
    }

    /// Hears the second witness for about `budget` bytes of reading on `volume`, which must be the volume
    /// that was detected. Where it contradicts the map, the volume is declined. Finished at once where
    /// nothing is to be heard (any more).
    pub fn hear(&mut self, volume: &dyn ReadAt, budget: u64) -> Progress {
        let (Mapping::Mapped(map), Hearing::Pending { walk, so_far, structures }) =
            (&self.mapping, &mut self.hearing)
        else {
            return Progress::FINISHED;
        };
        let remedy = walk.remedy();
        match walk.step(volume, &mut Witness { map, testimony: so_far, structures, remedy }, budget) {
            Ok(progress) if progress.finished => {
                self.structures = std::mem::take(structures).into_extents();
                self.hearing = Hearing::Agrees(*so_far);
                progress
            }
            Ok(progress) => progress,
            Err(stop) => {
                self.decline(stop.into_decline());
                Progress::FINISHED
            }
        }
    }

    /// Hears the second witness to the end.
    #[must_use]
    pub fn heard(mut self, volume: &dyn ReadAt) -> Self {
        while !self.hear(volume, u64::MAX).finished {}
        self
    }

    /// Gives up on the volume for a reason that was found later.
    pub fn decline(&mut self, decline: Decline) {
        self.mapping = Mapping::Declined(decline);
        self.hearing = Hearing::NotNeeded;
        self.structures = None;
    }

    /// How many bytes a mapped volume calls in use and no owner has, at the least: owners may share space. None
    /// before the second witness was heard to its end.
    #[must_use]
    pub fn unowned_bytes(&self) -> Option<u64> {
        match (&self.mapping, &self.hearing) {
            (Mapping::Mapped(map), Hearing::Agrees(testimony)) => {
                Some(length(&(testimony.owned_bytes..map.used_bytes)))
            }
            _ => None,
        }
    }

    /// Whether the second witness must still be heard before the map may be acted upon.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.hearing, Hearing::Pending { .. })
    }
}

/// Calls `advance` until about `budget` bytes' worth of work is done; it gives what each call cost, or none at
/// the end of the walk. True at the end.
pub(super) fn advance_within(
    budget: u64,
    mut advance: impl FnMut() -> Result<Option<u64>, Stop>,
) -> Result<bool, Stop> {
    let mut spent = 0;
    while spent < budget {
        match advance()? {
            Some(more) => spent = add(spent, more, "the work of a step")?,
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// The walk of a volume that nothing owns but its own header, from the volume's start to here (Linux swap).
#[derive(Debug)]
pub(super) struct HeaderAlone(pub u64);

impl OwnerWalk for HeaderAlone {
    fn step(&mut self, _: &dyn ReadAt, witness: &mut Witness<'_>, _: u64) -> Result<Progress, Stop> {
        witness.looked_at(1)?;
        witness.owns(Purpose::Structure, 0..self.0, || Owner { name: "the header".into(), site: None })?;
        Ok(Progress::FINISHED)
    }

    fn remedy(&self) -> &'static str {
        "make the volume anew"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::Extents;

    /// Owns the ranges of a list, one a step.
    #[derive(Debug)]
    struct List(Vec<Range<u64>>);

    impl OwnerWalk for List {
        fn step(&mut self, _: &dyn ReadAt, witness: &mut Witness<'_>, _: u64) -> Result<Progress, Stop> {
            let Some(range) = self.0.pop() else { return Ok(Progress::FINISHED) };
            witness.looked_at(1)?;
            let purpose = if range.start < 100 { Purpose::Structure } else { Purpose::File };
            witness.owns(purpose, range, || Owner { name: "a/b".into(), site: None })?;
            Ok(Progress { done: 0, total: 1, finished: false })
        }

        fn remedy(&self) -> &'static str {
            "mend it"
        }
    }

    fn hear(map: FreeMap, owned: &[Range<u64>]) -> Detected {
        let walk: Box<dyn OwnerWalk> = Box::new(List(owned.to_vec()));
        let mut detected = Detected::new("test", None, Ok((map, walk)), Vec::new());
        assert!(detected.is_pending());
        let volume: &[u8] = &[];
        while !detected.hear(&volume, 1).finished {}
        assert!(!detected.is_pending());
        detected
    }

    fn free(range: Range<u64>) -> Extents {
        Extents::from_ranges(vec![range])
    }

    #[test]
    fn owners_beside_the_free_space_agree_and_are_counted() {
        let map = FreeMap { free: free(100..200), ..FreeMap::default() };
        let detected = hear(map, &[0..100, 200..250, 210..220]);
        let Hearing::Agrees(testimony) = detected.hearing else { panic!("{:?}", detected.hearing) };
        assert_eq!(testimony, Testimony { records: 3, owned_bytes: 160 });
        assert_eq!(detected.structures.unwrap().ranges(), &[0..100]);
    }

    #[test]
    fn one_owned_byte_that_is_called_free_declines_the_volume_by_name() {
        let maps = [
            FreeMap { free: free(100..200), ..FreeMap::default() },
            FreeMap { on_request: vec![(Request::ShadowCopies, free(100..200))], ..FreeMap::default() },
        ];
        for map in maps {
            for owned in [99..101, 199..300, 120..130] {
                let detected = hear(map.clone(), &[owned]);
                assert!(detected.structures.is_none());
                let Mapping::Declined(decline) = detected.mapping else { panic!("mapped") };
                assert_eq!(decline.reason, DeclineReason::Inconsistent);
                assert!(decline.detail.contains("“a/b”") && decline.detail.contains("mend it"));
            }
        }
    }

    #[test]
    fn what_may_be_given_up_on_request_has_an_owner() {
        let map = FreeMap { on_request: vec![(Request::PageFiles, free(0..50))], ..FreeMap::default() };
        assert!(matches!(hear(map, &[0..50]).mapping, Mapping::Mapped(_)));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_a_fault_and_no_owner() {
        #[allow(clippy::reversed_empty_ranges)]
        let detected = hear(FreeMap::default(), &[5..4]);
        assert!(matches!(detected.mapping, Mapping::Declined(_)));
    }
}
