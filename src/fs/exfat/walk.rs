//! The owners of an exFAT volume: its own structures, and every file and directory of the tree.
//!
//! ```text
//!   root ─► │ 81 bitmap │ 82 up-case │ 83 label │ 85 file, C0 stream, C1 name … │ 00   32 bytes each
//!                                                  │        └── first cluster, length, chain or not
//!                                                  └── directory ─► │ 85, C0, C1 … │ 00
//! ```
//! On exFAT nothing but the bitmap knows what is free, and a bit that is lost in it is a file that is lost. So
//! every cluster of every stream is told to the witness, and must belong to one stream only. Each cluster is
//! claimed once, so hostile trees cost no more than healthy ones. The tree is walked depth first, so that
//! memory holds only the directories on the way to where the walk is, and a path can be told.
//!
//! Source: Microsoft exFAT file system specification, sections 6 and 7.

use std::ops::Range;

use zerocopy::FromBytes;

use super::boot::{BOOT, Geometry};
use super::heap::{self, Allocation};
use super::root::Root;
use super::set::{Content, ENTRY, RawEntry, Reader, Stream};
use super::{inconsistent, site};
use crate::error::{Error, Result, Site};
use crate::fs::cluster_set::ClusterSet;
use crate::fs::witness::advance_within;
use crate::fs::{Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{Progress, add, index, len64, mul};

/// Section 7.4: a directory is at most 256 MiB.
pub(super) const MAX_DIRECTORY: u64 = 256 << 20;
/// How many directory entries are read at most: at least three a file, some minutes of work.
const MAX_ENTRIES: u64 = 1 << 25;
/// How deep directories may lie in each other: Windows' paths end at 130.
const MAX_DEPTH: usize = 1024;
/// How much of a directory is read at once: little, as it is read again after each file's clusters.
const PIECE: u64 = 2 << 10;
/// How many clusters of a stream are claimed before a look at the budget.
const CLUSTERS: u64 = 1 << 12;
/// What one cluster counts in the budget: the bytes of its entry in the FAT.
const LINK: u64 = 4;

/// The walk, wherever it is.
#[derive(Debug)]
pub(super) struct Walk {
    geometry: Geometry,
    root: Root,
    /// Clusters that the bitmap calls used and no stream has claimed yet.
    unclaimed: ClusterSet,
    /// What the bitmap calls in use, and how much of it was found to have an owner.
    used_bytes: u64,
    owned_bytes: u64,
    /// Whether the volume's own structures were told.
    has_begun: bool,
    /// The directories that are open, the root first.
    open: Vec<Directory>,
    /// What is to be claimed next, the last first: the streams of one file at most.
    claims: Vec<Claim>,
    /// How many entries were read.
    read: u64,
}

/// A directory that is being read.
#[derive(Debug)]
struct Directory {
    name: String,
    stream: Stream,
    /// The cluster that is being read, how much of it was read, and how many follow it.
    cluster: u32,
    into: u64,
    left: u64,
    entries: Reader,
}

/// The clusters of a stream while they are claimed.
#[derive(Debug)]
struct Claim {
    name: String,
    site: Site,
    stream: Stream,
    /// The next cluster, if the stream goes on.
    next: Option<u32>,
    /// How many are still to come.
    left: u64,
    content: Content,
}

impl Walk {
    pub(super) const fn new(geometry: Geometry, root: Root, used: ClusterSet, used_bytes: u64) -> Self {
        Self {
            geometry,
            root,
            unclaimed: used,
            used_bytes,
            owned_bytes: 0,
            has_begun: false,
            open: Vec::new(),
            claims: Vec::new(),
            read: 0,
        }
    }

    /// Goes a little further; gives how much that was, or none at the end.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<Option<u64>, Stop> {
        if !self.has_begun {
            self.has_begun = true;
            let name = "the boot region and the FAT";
            self.owns(witness, Purpose::Structure, 0..self.geometry.heap, name, BOOT)?;
            let site = site(super::root::ROOT, self.geometry.cluster(self.geometry.root)?.start);
            self.want(String::new(), site, self.root.stream, Content::Directory)?;
            return Ok(Some(0));
        }
        if let Some(claim) = self.claims.pop() {
            return self.claim(volume, witness, claim).map(Some);
        }
        match self.open.pop() {
            Some(directory) => self.read(volume, witness, directory).map(Some),
            None => Ok(None),
        }
    }

    fn owns(
        &mut self,
        witness: &mut Witness<'_>,
        purpose: Purpose,
        range: Range<u64>,
        name: &str,
        site: Site,
    ) -> Result<(), Stop> {
        let len = range.end.checked_sub(range.start).ok_or_else(|| Error::internal("an empty owner"))?;
        self.owned_bytes = add(self.owned_bytes, len, "the bytes that owners have")?;
        witness.owns(purpose, range, || Owner { name: self.path(name), site: Some(site) })
    }

    /// The path of `name` in the directory that is read.
    fn path(&self, name: &str) -> String {
        let names = self.open.iter().map(|directory| directory.name.as_str()).chain([name]);
        let path = names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join("/");
        if path.is_empty() { "the root directory".into() } else { path }
    }

    /// Notes a stream that is to be claimed.
    fn want(&mut self, name: String, site: Site, stream: Stream, content: Content) -> Result<(), Stop> {
        let left = stream.len.div_ceil(self.geometry.cluster_size);
        if (stream.first == 0) != (left == 0) || left > self.geometry.clusters() {
            let detail = format!("The length of “{}” does not fit its clusters.", self.path(&name));
            return Err(inconsistent(&detail, site));
        }
        let next = (left > 0).then_some(stream.first);
        self.claims.push(Claim { name, site, stream, next, left, content });
        Ok(())
    }

    /// Takes some clusters of a stream for it alone. A chain must end just where its length says; a circle
    /// therefore ends with it, and is refused.
    fn claim(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        mut claim: Claim,
    ) -> Result<u64, Stop> {
        let mut run: Option<Range<u64>> = None;
        let mut done = 0;
        while claim.left > 0 && done < CLUSTERS {
            let Some(cluster) = claim.next else {
                return Err(heap::wrong_length(&self.geometry, claim.stream.first));
            };
            if !self.geometry.is_cluster(cluster) {
                return Err(self.doubt("leaves the volume", &claim));
            }
            let bytes = self.geometry.cluster(cluster)?;
            // The set of used clusters holds none outside the volume.
            if !self.unclaimed.remove(cluster) {
                self.owns(witness, claim.content.purpose(), bytes, &claim.name, claim.site)?;
                return Err(self.doubt("lies in a cluster that another file has, too", &claim));
            }
            run = Some(match run {
                Some(run) if run.end == bytes.start => run.start..bytes.end,
                Some(run) => {
                    self.owns(witness, claim.content.purpose(), run, &claim.name, claim.site)?;
                    bytes
                }
                None => bytes,
            });
            claim.left =
                claim.left.checked_sub(1).ok_or_else(|| Error::internal("a stream without clusters"))?;
            claim.next = match claim.stream.allocation {
                Allocation::Contiguous => cluster.checked_add(1),
                Allocation::Chain => heap::next(volume, &self.geometry, cluster)?,
            };
            done = add(done, 1, "the clusters of a step")?;
        }
        if let Some(run) = run {
            self.owns(witness, claim.content.purpose(), run, &claim.name, claim.site)?;
        }
        match (claim.left, claim.stream.allocation, claim.next) {
            (0, Allocation::Chain, Some(_)) => {
                return Err(heap::wrong_length(&self.geometry, claim.stream.first));
            }
            (0, ..) if claim.content == Content::Directory => self.open(claim)?,
            (0, ..) => {}
            _ => self.claims.push(claim),
        }
        Ok(mul(done, LINK, "the clusters of a step")?)
    }

    fn open(&mut self, claim: Claim) -> Result<(), Stop> {
        let Claim { name, site, stream, .. } = claim;
        if stream.len == 0 {
            return Ok(());
        }
        if stream.len > MAX_DIRECTORY || !stream.len.is_multiple_of(self.geometry.cluster_size) {
            let detail = format!("The directory “{}” has an impossible length.", self.path(&name));
            return Err(inconsistent(&detail, site));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::limit(site, "Directories lie in each other deeper than is checked.").into());
        }
        let left = stream.len.div_ceil(self.geometry.cluster_size).checked_sub(1);
        let left = left.ok_or_else(|| Error::internal("an empty directory"))?;
        let cluster = stream.first;
        self.open.push(Directory { name, stream, cluster, into: 0, left, entries: Reader::default() });
        Ok(())
    }

    /// Reads a piece of the directory that was opened last, up to the first file whose set is complete.
    fn read(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        mut directory: Directory,
    ) -> Result<u64, Stop> {
        let is_root = self.open.is_empty();
        let bytes = self.geometry.cluster(directory.cluster)?;
        let at = add(bytes.start, directory.into, "a directory")?;
        let len = bytes.end.checked_sub(at).ok_or_else(|| Error::internal("a place past its cluster"))?;
        if len == 0 {
            let is_left = self.next_cluster(volume, &mut directory)?;
            if is_left {
                self.open.push(directory);
            } else {
                directory.entries.finish(at_entry(at))?;
            }
            return Ok(LINK);
        }
        let piece = read_vec(volume, at, index(len.min(PIECE), "a directory")?)?;
        let mut place = at;
        let mut found = None;
        for raw in piece.chunks_exact(ENTRY) {
            let Ok(raw) = RawEntry::ref_from_bytes(raw) else { break };
            let site = at_entry(place);
            if raw.is_end() {
                directory.entries.finish(site)?;
                return Ok(len64(piece.len()));
            }
            place = add(place, len64(ENTRY), "a directory")?;
            self.read = add(self.read, 1, "the entries of directories")?;
            if self.read > MAX_ENTRIES {
                return Err(Error::limit(site, "There are more files than are checked.").into());
            }
            found = directory.entries.entry(raw, is_root, site)?.map(|owner| (owner, site));
            if found.is_some() {
                break;
            }
        }
        let done = place.checked_sub(at).filter(|&done| done > 0);
        let done = done.ok_or_else(|| Error::internal("a directory that is not read on"))?;
        directory.into = add(directory.into, done, "a directory")?;
        // At its end it stays open as well, until what lies in it was walked.
        self.open.push(directory);
        if let Some((owner, site)) = found {
            witness.looked_at(1)?;
            for extra in owner.extra {
                self.want(owner.name.clone(), site, extra, Content::Structure)?;
            }
            if let Some(stream) = owner.stream {
                self.want(owner.name, site, stream, owner.content)?;
            }
        }
        Ok(done)
    }

    /// Goes on to the next cluster of a directory; false at its end.
    fn next_cluster(&self, volume: &dyn ReadAt, directory: &mut Directory) -> Result<bool, Stop> {
        let Some(left) = directory.left.checked_sub(1) else { return Ok(false) };
        let next = match directory.stream.allocation {
            Allocation::Contiguous => directory.cluster.checked_add(1),
            Allocation::Chain => heap::next(volume, &self.geometry, directory.cluster)?,
        };
        // All of them were claimed, but the volume may have changed since.
        let Some(next) = next else { return Err(heap::wrong_length(&self.geometry, directory.stream.first)) };
        (directory.cluster, directory.into, directory.left) = (next, 0, left);
        Ok(true)
    }

    /// Declines a volume of which it is unclear what this owner has.
    fn doubt(&self, what: &str, claim: &Claim) -> Stop {
        inconsistent(&format!("“{}” {what}.", self.path(&claim.name)), claim.site)
    }
}

impl OwnerWalk for Walk {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let volume = Cached::new(volume);
        let finished = advance_within(budget, || self.advance(&volume, witness))?;
        let done = self.owned_bytes.min(self.used_bytes);
        Ok(Progress { done, total: self.used_bytes, finished })
    }

    fn remedy(&self) -> &'static str {
        "run `chkdsk /f` in Windows or `fsck.exfat` in Linux"
    }
}

fn at_entry(offset: u64) -> Site {
    site("exFAT directory", offset)
}
