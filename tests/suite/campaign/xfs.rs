//! Damage to XFS.
//!
//! The volume has a history, kept as copies of it: some were made while the kernel had it mounted, as a power cut
//! would have left it. Structures are found by their magic numbers, old ones in free space with them.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::damage::{
    Aged, bytes, container_block, flips, lost_write, misplaced, piece, put, stale, torn, zeroed,
};
use super::history::{add_late_files, delete_every_third, grow_old, write_files};
use super::readers::{Files, linux};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::xfs::mkfs;
use crate::toolbox::{MIB, Random, crc32c};

const SECTOR: u64 = 512;

/// A clean volume and how it came about.
struct Xfs {
    volume: Vec<u8>,
    /// Earlier states, oldest first.
    history: Vec<Vec<u8>>,
    block: u64,
    headers: Vec<Range<u64>>,
    free_trees: Vec<Range<u64>>,
    other_trees: Vec<Range<u64>>,
    inodes: Vec<Range<u64>>,
    directories: Vec<Range<u64>>,
    log: Vec<Range<u64>>,
}

/// Trees of free space; all other trees; blocks of directories.
const FREE_TREES: [&[u8; 4]; 2] = [b"AB3B", b"AB3C"];
const OTHER_TREES: [&[u8; 4]; 5] = [b"IAB3", b"FIB3", b"RMB3", b"R3FC", b"BMA3"];
const DIRECTORIES: [&[u8; 4]; 2] = [b"XDB3", b"XDD3"];

impl Xfs {
    /// A volume on which files came and went; none (said so) where it may not be mounted.
    fn new(size: u64, args: &[&str], seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        mkfs(&image, size, args, None);
        let mut random = Random::new(seed);
        let history = grow_old(&image, &mut random, fill, |folder, session| {
            delete_every_third(&[folder], session);
        })?;
        let volume = add_late_files(&image, &mut random)?;
        let block = word(&volume, 4);
        let groups = word(&volume, 88);
        let group = word(&volume, 84) * block;
        let blocks = |magics: &[&[u8; 4]]| {
            let starts = (0..volume.len() as u64).step_by(block as usize);
            let found =
                starts.filter(|&at| magics.iter().any(|magic| volume[at as usize..].starts_with(*magic)));
            found.map(|at| at..at + block).collect::<Vec<_>>()
        };
        let inodes = (0..volume.len() as u64).step_by(512);
        let inodes = inodes.filter(|&at| {
            volume[at as usize..].starts_with(b"IN\x81") || volume[at as usize..].starts_with(b"IN\x41")
        });
        let start = u64::from_be_bytes(*volume[48..].first_chunk().unwrap());
        let bits = u32::from(volume[124]);
        let log = (start >> bits) * group + (start & ((1 << bits) - 1)) * block;
        Some(Self {
            headers: (0..groups).map(|n| n * group..n * group + 4 * SECTOR).collect(),
            free_trees: blocks(&FREE_TREES),
            other_trees: blocks(&OTHER_TREES),
            directories: blocks(&DIRECTORIES),
            inodes: inodes.map(|at| at..at + SECTOR).collect(),
            log: vec![log..log + word(&volume, 96) * block],
            block,
            history,
            volume,
        })
    }

    fn metadata(&self) -> Vec<Range<u64>> {
        let parts = [&self.headers, &self.free_trees, &self.other_trees, &self.directories, &self.inodes];
        parts.into_iter().flatten().cloned().collect()
    }
}

impl Aged for Xfs {
    fn now(&self) -> &[u8] {
        &self.volume
    }

    fn history(&self) -> &[Vec<u8>] {
        &self.history
    }

    fn old(&self, random: &mut Random) -> &[u8] {
        self.recent(random)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_be_bytes(*bytes[at..].first_chunk().unwrap()).into()
}

fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join(format!("inner {}", session % 2));
    let _ = fs::create_dir(&inner);
    write_files(folder, &inner, session, 40, random);
}

/// A byte that changed in memory, before the checksum was made.
fn sealed(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    // Headers of groups are four, of a sector each.
    let range = &ranges[random.below(ranges.len() as u64) as usize];
    let len = range.end - range.start;
    let range = piece(std::slice::from_ref(range), if len == 4 * SECTOR { SECTOR } else { len }, random);
    let mut block = bytes(&xfs.volume, &range);
    let crc = match block.first_chunk::<4>().unwrap() {
        b"XFSB" => 224,
        b"XAGF" => 216,
        b"XAGI" => 312,
        b"XAFL" => 32,
        b"BMA3" => 64,
        b"XDB3" | b"XDD3" => 4,
        [b'I', b'N', ..] => 100,
        _ => 52,
    };
    // The first part is where most structures have what matters.
    let part = if random.below(2) == 0 { 240 } else { block.len() as u64 };
    let at = random.below(part) as usize;
    block[at] = if random.below(2) == 0 { random.below(256) as u8 } else { block[at] ^ 1 << random.below(8) };
    block[crc..crc + 4].fill(0);
    let sum = crc32c(&block);
    block[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
    put(range, block)
}

/// The power went: of everything that changed since, each piece reached the disk or did not.
fn power_cut(xfs: &Xfs, random: &mut Random) -> Vec<Patch> {
    let len = if random.below(2) == 0 { SECTOR } else { xfs.block };
    torn(xfs, &[0..xfs.volume.len() as u64], len, random)
}

/// The whole disk is that of an earlier time, but for its log.
fn older_but_for_the_log(xfs: &Xfs, random: &mut Random) -> Vec<Patch> {
    let (log, end) = (&xfs.log[0], xfs.volume.len() as u64);
    stale(xfs, &[0..log.start, log.end..end], random)
}

impl Subject for Xfs {
    fn volume(&self) -> &[u8] {
        &self.volume
    }

    fn kinds() -> Vec<Kind<Self>> {
        let kind = |name, damage| Kind { name, damage };
        vec![
            kind("headers of groups: a lost write", |xfs: &Self, random| {
                lost_write(xfs, &xfs.headers, random)
            }),
            kind("headers of groups of an earlier time", |xfs, random| stale(xfs, &xfs.headers, random)),
            kind("headers of groups: a byte changed, checksum right", |xfs, random| {
                sealed(xfs, &xfs.headers, random)
            }),
            kind("headers of groups: flipped bits", |xfs, random| flips(xfs, &xfs.headers, random)),
            kind("free space trees: a lost write", |xfs, random| lost_write(xfs, &xfs.free_trees, random)),
            kind("free space trees of an earlier time", |xfs, random| stale(xfs, &xfs.free_trees, random)),
            kind("free space trees: a byte changed, checksum right", |xfs, random| {
                sealed(xfs, &xfs.free_trees, random)
            }),
            kind("free space trees: a misplaced write", |xfs, random| {
                misplaced(xfs, &xfs.free_trees, random)
            }),
            kind("headers and free space trees of an earlier time", |xfs, random| {
                stale(xfs, &[&xfs.headers[..], &xfs.free_trees].concat(), random)
            }),
            kind("headers and all trees of an earlier time", |xfs, random| {
                stale(xfs, &[&xfs.headers[..], &xfs.free_trees, &xfs.other_trees].concat(), random)
            }),
            kind("other trees: a lost write", |xfs, random| lost_write(xfs, &xfs.other_trees, random)),
            kind("other trees: a byte changed, checksum right", |xfs, random| {
                sealed(xfs, &xfs.other_trees, random)
            }),
            kind("inodes: a lost write", |xfs, random| lost_write(xfs, &xfs.inodes, random)),
            kind("inodes: a byte changed, checksum right", |xfs, random| sealed(xfs, &xfs.inodes, random)),
            kind("inodes: a misplaced write", |xfs, random| misplaced(xfs, &xfs.inodes, random)),
            kind("inodes: zeros", |xfs, random| zeroed(&xfs.inodes, random)),
            kind("directories: a lost write", |xfs, random| lost_write(xfs, &xfs.directories, random)),
            kind("log: zeros", |xfs, random| zeroed(&xfs.log, random)),
            kind("log: a lost write", |xfs, random| lost_write(xfs, &xfs.log, random)),
            kind("log of an earlier time", |xfs, random| stale(xfs, &xfs.log, random)),
            kind("all but the log of an earlier time", older_but_for_the_log),
            kind("metadata: flipped bits", |xfs, random| flips(xfs, &xfs.metadata(), random)),
            kind("metadata: each sector old or new", |xfs, random| {
                torn(xfs, &xfs.metadata(), SECTOR, random)
            }),
            kind("metadata: each block old or new", |xfs, random| {
                torn(xfs, &xfs.metadata(), xfs.block, random)
            }),
            kind("a container block lost, stale or another", container_block),
            kind("power cut: each sector or block old or new", power_cut),
        ]
    }

    fn read(&self, image: &Path) -> Files {
        linux(image, "xfs", "loop,ro,norecovery,nouuid")
    }
}

#[test]
fn damage_to_xfs_loses_nothing() {
    need!(mount, "mkfs.xfs", "timeout");
    let subjects = [
        Xfs::new(40 * MIB, &["-d", "agcount=2", "-m", "rmapbt=0"], 1),
        Xfs::new(40 * MIB, &["-d", "agcount=1", "-b", "size=1024", "-m", "rmapbt=1"], 2),
    ];
    let [Some(plain), Some(mapped)] = subjects else { return };
    campaign("XFS", &[plain, mapped]);
}
