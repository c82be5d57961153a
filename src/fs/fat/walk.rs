//! The owners of a FAT volume: its own structures, and every file and directory of the tree.
//!
//! ```text
//!   root ─► │ name │ attributes │ … │ first cluster │ size │   32 bytes an entry; 0x00 ends,
//!             │                        └─► cluster ─► cluster ─► end         0xE5 was deleted
//!             └── directory ─► │ . │ .. │ … │
//! ```
//! Drivers of cameras and the like set no dirty bit; when power fails between the directory and the FAT, a
//! file is left whose clusters the FAT calls free, and it can still be read. So every chain is followed from
//! the entry that owns it. A free cluster at its start is the witness's to find; one outside the volume, one
//! that already belongs to another chain, and a chain that ends before its file does decline the volume:
//! the rest of such a file lies in what is called free.
//!
//! The tree is walked depth first, so that memory holds only the directories on the way to where the walk
//! is, and a path can be told. As no two chains meet (the table's scan proved it), a chain that nothing leads
//! to has no circle in it.
//!
//! Source: fatgen103, section "FAT Directory Structure".

use zerocopy::FromBytes;

use super::boot::{BOOT, Geometry, Root};
use super::entry::{ENTRY, LongName, RawEntry};
use super::inconsistent;
use super::table::{Entry, Scan, entry};
use crate::error::{Error, Result, Site};
use crate::extents::Extents;
use crate::fs::cluster_set::ClusterSet;
use crate::fs::witness::advance_within;
use crate::fs::{Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{Progress, Space, add, index, len64, mul};

/// No driver reads on in a larger directory.
const MAX_DIRECTORY: u64 = 2 << 20;
/// How many directory entries are read at most: some minutes of work.
const MAX_ENTRIES: u64 = 1 << 25;
/// How deep directories may lie in each other: Windows' paths end at 130.
const MAX_DEPTH: usize = 1024;
/// How much of a directory is read at once: little, as it is read again after each file's chain.
const PIECE: u64 = 2 << 10;
/// How many links of a chain are followed before a look at the budget.
const LINKS: u64 = 1 << 12;
/// What one link counts in the budget: the bytes of its entry.
const LINK: u64 = 4;

/// The walk, wherever it is.
#[derive(Debug)]
pub(super) struct Walk {
    geometry: Geometry,
    /// Clusters that belong to a chain or a directory entry.
    linked: ClusterSet,
    /// Clusters that the FAT marks as bad.
    bad: Extents,
    /// What the FAT calls in use, and how much of it was found to have an owner.
    used_bytes: u64,
    owned_bytes: u64,
    /// Whether the volume's own structures were told.
    has_begun: bool,
    /// The directories that are open, the root first.
    open: Vec<Directory>,
    /// The chain that is being followed.
    chain: Option<Chain>,
    /// How many entries were read.
    read: u64,
}

/// A directory that is being read.
#[derive(Debug)]
struct Directory {
    name: String,
    place: Place,
    /// How much of it was read.
    len: u64,
    long_name: LongName,
}

/// The rest of the part of a directory that is being read.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    end: u64,
    /// The cluster that it lies in; none in a fixed root directory.
    cluster: Option<u32>,
}

/// A file's or directory's clusters while they are followed.
#[derive(Debug)]
struct Chain {
    name: String,
    site: Site,
    first: u32,
    next: u32,
    clusters: u64,
    /// How many clusters its size needs.
    needed: u64,
    is_directory: bool,
}

impl Chain {
    const fn purpose(&self) -> Purpose {
        if self.is_directory { Purpose::Structure } else { Purpose::File }
    }
}

impl Walk {
    pub(super) fn new(geometry: Geometry, scan: Scan, used_bytes: u64) -> (Extents, Self) {
        let walk = Self {
            geometry,
            linked: scan.linked,
            bad: scan.bad,
            used_bytes,
            owned_bytes: 0,
            has_begun: false,
            open: Vec::new(),
            chain: None,
            read: 0,
        };
        (scan.free, walk)
    }

    /// Goes a little further; gives how much that was, or none at the end.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<Option<u64>, Stop> {
        if !self.has_begun {
            self.has_begun = true;
            self.begin(volume, witness)?;
            return Ok(Some(0));
        }
        if let Some(chain) = self.chain.take() {
            return self.follow(volume, witness, chain).map(Some);
        }
        match self.open.pop() {
            Some(directory) => self.read(volume, witness, directory).map(Some),
            None => Ok(None),
        }
    }

    fn begin(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<(), Stop> {
        let own = Purpose::Structure;
        let name = "the boot sector, the FATs and the root directory";
        self.owns(witness, own, 0..self.geometry.heap, name, BOOT)?;
        for range in std::mem::take(&mut self.bad).ranges() {
            let name = "clusters that are marked as bad";
            self.owns(witness, own, range.clone(), name, site(range.start))?;
        }
        match self.geometry.root {
            Root::Fixed { start, len } => {
                let place = Place { at: start, end: add(start, len, "the root directory")?, cluster: None };
                self.open(String::new(), place, BOOT)
            }
            Root::Chain(first) => {
                let root = Chain {
                    name: String::new(),
                    site: Site { offset: 44, ..BOOT },
                    first,
                    next: first,
                    clusters: 0,
                    needed: 1,
                    is_directory: true,
                };
                self.claim(volume, witness, root)
            }
        }
    }

    fn owns(
        &mut self,
        witness: &mut Witness<'_>,
        purpose: Purpose,
        range: std::ops::Range<u64>,
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

    /// Takes the first cluster of a chain for one owner, and the rest in the next steps.
    fn claim(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>, chain: Chain) -> Result<(), Stop> {
        let Chain { first, site, .. } = chain;
        if !self.geometry.is_cluster(first) {
            return Err(self.doubt("begins outside the volume", &chain));
        }
        if entry(volume, &self.geometry, first)? == Entry::Free {
            self.owns(witness, chain.purpose(), self.geometry.cluster(first)?, &chain.name, site)?;
            return Err(self.doubt("begins in a cluster that the FAT calls free", &chain));
        }
        if !self.linked.insert(first) {
            return Err(self.doubt("shares a cluster with another file", &chain));
        }
        self.chain = Some(chain);
        Ok(())
    }

    /// Follows a chain for some links.
    fn follow(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        mut chain: Chain,
    ) -> Result<u64, Stop> {
        let mut run = self.geometry.cluster(chain.next)?;
        for done in 1..=LINKS {
            chain.clusters = add(chain.clusters, 1, "the clusters of a file")?;
            // The scan refused all of these, but the volume may have changed since.
            if chain.clusters > self.geometry.entries() {
                return Err(self.doubt("has a chain of clusters without end", &chain));
            }
            let next = match entry(volume, &self.geometry, chain.next)? {
                Entry::Next(next) => next,
                Entry::Used => {
                    self.owns(witness, chain.purpose(), run, &chain.name, chain.site)?;
                    self.finish(chain)?;
                    return Ok(mul(done, LINK, "the links of a chain")?);
                }
                Entry::Free | Entry::Invalid => {
                    return Err(self.doubt("has a broken chain of clusters", &chain));
                }
            };
            let bytes = self.geometry.cluster(next)?;
            if run.end == bytes.start {
                run.end = bytes.end;
            } else {
                let run = std::mem::replace(&mut run, bytes);
                self.owns(witness, chain.purpose(), run, &chain.name, chain.site)?;
            }
            chain.next = next;
        }
        // The cluster that the chain has come to is told in the next step.
        let told = self.geometry.cluster(chain.next)?.start;
        if run.start < told {
            self.owns(witness, chain.purpose(), run.start..told, &chain.name, chain.site)?;
        }
        self.chain = Some(chain);
        Ok(mul(LINKS, LINK, "the links of a chain")?)
    }

    /// At the end of a chain: a file must have had all its clusters, a directory is read.
    fn finish(&mut self, chain: Chain) -> Result<(), Stop> {
        if chain.clusters < chain.needed {
            return Err(self.doubt("is longer than its chain of clusters", &chain));
        }
        if !chain.is_directory {
            return Ok(());
        }
        let cluster = self.geometry.cluster(chain.first)?;
        let place = Place { at: cluster.start, end: cluster.end, cluster: Some(chain.first) };
        self.open(chain.name, place, chain.site)
    }

    fn open(&mut self, name: String, place: Place, site: Site) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::limit(site, "Directories lie in each other deeper than is checked.").into());
        }
        self.open.push(Directory { name, place, len: 0, long_name: LongName::default() });
        Ok(())
    }

    /// Reads a piece of the directory that was opened last, up to the first entry that owns space.
    fn read(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        mut directory: Directory,
    ) -> Result<u64, Stop> {
        let is_root = self.open.is_empty();
        let Place { at, end, .. } = directory.place;
        if at == end {
            if self.next_part(volume, &mut directory)? {
                self.open.push(directory);
            }
            return Ok(LINK);
        }
        let len = end.checked_sub(at).ok_or_else(|| Error::internal("a directory ends before it starts"))?;
        let bytes = read_vec(volume, at, index(len.min(PIECE), "a directory")?)?;
        let mut found = None;
        for raw in bytes.chunks_exact(ENTRY) {
            let Ok(raw) = RawEntry::ref_from_bytes(raw) else { break };
            if raw.is_end() {
                return Ok(len64(bytes.len()));
            }
            let site = site(directory.place.at);
            directory.place.at = add(directory.place.at, len64(ENTRY), "a directory")?;
            self.read = add(self.read, 1, "the entries of directories")?;
            if self.read > MAX_ENTRIES {
                return Err(Error::limit(site, "There are more files than are checked.").into());
            }
            if raw.is_long_name() {
                directory.long_name.part(raw);
            } else if raw.is_owner(is_root) {
                found = Some((raw, directory.long_name.finish(raw), site));
                break;
            } else {
                directory.long_name.forget();
            }
        }
        let done = directory.place.at.checked_sub(at).filter(|&done| done > 0);
        let done = done.ok_or_else(|| Error::internal("a directory that is not read on"))?;
        directory.len = add(directory.len, done, "a directory")?;
        // At its end it stays open as well, until what lies in it was walked.
        self.open.push(directory);
        if let Some((raw, name, site)) = found {
            self.owner(volume, witness, raw, name, site)?;
        }
        Ok(done)
    }

    /// Goes on to the next cluster of a directory; false at its end.
    fn next_part(&self, volume: &dyn ReadAt, directory: &mut Directory) -> Result<bool, Stop> {
        let Some(cluster) = directory.place.cluster else { return Ok(false) };
        let site = site(directory.place.at);
        match entry(volume, &self.geometry, cluster)? {
            Entry::Next(_) if directory.len > MAX_DIRECTORY => {
                Err(inconsistent("A directory is larger than any driver reads.", site))
            }
            Entry::Next(next) => {
                let bytes = self.geometry.cluster(next)?;
                directory.place = Place { at: bytes.start, end: bytes.end, cluster: Some(next) };
                Ok(true)
            }
            Entry::Used => Ok(false),
            Entry::Free | Entry::Invalid => Err(inconsistent("A directory's chain is broken.", site)),
        }
    }

    fn owner(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        raw: &RawEntry,
        name: String,
        site: Site,
    ) -> Result<(), Stop> {
        witness.looked_at(1)?;
        let first = raw.first_cluster(self.geometry.kind);
        let is_directory = raw.is_directory();
        let size = if is_directory { self.geometry.cluster_size } else { raw.size() };
        let needed = size.div_ceil(self.geometry.cluster_size);
        let chain = Chain { name, site, first, next: first, clusters: 0, needed, is_directory };
        match first {
            0 if needed > 0 => Err(self.doubt("has no clusters", &chain)),
            0 => Ok(()),
            _ => self.claim(volume, witness, chain),
        }
    }

    /// Declines a volume of which it is unclear what this owner has.
    fn doubt(&self, what: &str, chain: &Chain) -> Stop {
        inconsistent(&format!("“{}” {what}.", self.path(&chain.name)), chain.site)
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
        "run `chkdsk /f` in Windows or `fsck.fat` in Linux"
    }
}

fn site(offset: u64) -> Site {
    Site { structure: "FAT directory", space: Space::Volume, offset }
}
