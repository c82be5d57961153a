//! Damage to Btrfs.
//!
//! The volume has a history, kept as copies of it: some were made while the kernel had it mounted, as a power cut
//! would have left it. Tree blocks are found by the UUID that they bear, old ones in free space with them.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::damage::{
    Aged, bytes, container_block, flips, lost_write, misplaced, piece, put, random_bytes, stale, torn, zeroed,
};
use super::readers::{Files, mounted};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::btrfs::{SUPERBLOCK, crc32c, mkfs};
use crate::toolbox::ext::Mounted;
use crate::toolbox::{MIB, Random, command, run, text};

const SECTOR: u64 = 512;
const EXTENT_TREE: u64 = 2;
/// Trees by number that tell of free space: chunks, devices, free space.
const OTHERS_OF_SPACE: [u64; 3] = [3, 4, 10];

/// A clean volume and how it came about.
struct Btrfs {
    volume: Vec<u8>,
    history: Vec<Vec<u8>>,
    superblocks: Vec<Range<u64>>,
    extent_tree: Vec<Range<u64>>,
    space_trees: Vec<Range<u64>>,
    /// Roots, files, checksums.
    other_trees: Vec<Range<u64>>,
}

impl Aged for Btrfs {
    fn now(&self) -> &[u8] {
        &self.volume
    }

    fn history(&self) -> &[Vec<u8>] {
        &self.history
    }

    fn old(&self, random: &mut Random) -> &[u8] {
        // The last ones differ least, and so they are the most dangerous.
        let len = self.history.len() as u64;
        &self.history[(len - 1 - random.below(len).min(random.below(len))) as usize]
    }
}

fn word(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(*bytes[at as usize..].first_chunk().unwrap())
}

impl Btrfs {
    /// A volume on which files came and went; none (said so) where it may not be mounted.
    fn new(size: u64, args: &[&str], seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        mkfs(&image, size, args, None);
        let mut history = vec![fs::read(&image).unwrap()];
        let mut random = Random::new(seed);
        for session in 0..4 {
            {
                let mounted = Mounted::new(&image, "", folder.path())?;
                fill(mounted.folder(), session, &mut random);
                run("sync", &["-f", text(mounted.folder())]);
                history.push(fs::read(&image).unwrap());
                thin_out(mounted.folder(), session);
            }
            history.push(fs::read(&image).unwrap());
        }
        // The last thing that happens is small: few structures change, and old copies of them fit each other.
        {
            let mounted = Mounted::new(&image, "", folder.path())?;
            for file in 0..80 {
                fs::write(mounted.folder().join(format!("late {file}")), random.bytes(3000)).unwrap();
            }
        }
        let volume = fs::read(&image).unwrap();
        let node = word(&volume, SUPERBLOCK + 0x94) & 0xFFFF_FFFF;
        let uuid = volume[SUPERBLOCK as usize + 32..][..16].to_vec();
        let blocks = |wanted: &dyn Fn(u64) -> bool| {
            let starts = (MIB..size).step_by(4096);
            let found = starts.filter(|&at| {
                let is_block = at + node <= size && volume[at as usize + 32..].starts_with(&uuid);
                is_block
                    && !volume[at as usize + 64..].starts_with(b"_BHRfS_M")
                    && wanted(word(&volume, at + 88))
            });
            found.map(|at| at..at + node).collect::<Vec<_>>()
        };
        Some(Self {
            superblocks: [SUPERBLOCK, 64 * MIB]
                .into_iter()
                .filter(|at| at + 4096 <= size)
                .map(|at| at..at + 4096)
                .collect(),
            extent_tree: blocks(&|owner| owner == EXTENT_TREE),
            space_trees: blocks(&|owner| OTHERS_OF_SPACE.contains(&owner)),
            other_trees: blocks(&|owner| owner != EXTENT_TREE && !OTHERS_OF_SPACE.contains(&owner)),
            history,
            volume,
        })
    }

    fn metadata(&self) -> Vec<Range<u64>> {
        let parts = [&self.superblocks, &self.extent_tree, &self.space_trees, &self.other_trees];
        parts.into_iter().flatten().cloned().collect()
    }
}

fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join("inner");
    if session == 0 {
        run("btrfs", &["subvolume", "create", text(&inner)]);
    }
    for n in 0..40 {
        let len = match random.below(10) {
            0..=1 => random.below(500),
            2..=7 => random.below(12_000),
            _ => random.below(120_000),
        };
        let name = format!("a name that takes some room in its directory, session {session}, file {n}");
        fs::write(if n % 2 == 0 { folder.join(name) } else { inner.join(name) }, random.bytes(len)).unwrap();
    }
    for part in 0..20u64 {
        for n in 0..2 {
            let file =
                fs::OpenOptions::new().create(true).append(true).open(inner.join(format!("turns {n}")));
            let mut file = file.unwrap();
            std::io::Write::write_all(&mut file, &random.bytes(4096 + part)).unwrap();
            file.sync_data().unwrap();
        }
    }
    let snapshot = folder.join(format!("snapshot {session}"));
    run("btrfs", &["subvolume", "snapshot", text(&inner), text(&snapshot)]);
}

/// Deletes every third file, and a snapshot.
fn thin_out(folder: &Path, session: u64) {
    for folder in [folder.to_owned(), folder.join("inner")] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        for path in files.iter().skip(session as usize).step_by(3) {
            fs::remove_file(path).unwrap();
        }
    }
    if session == 2 {
        run("btrfs", &["subvolume", "delete", text(&folder.join("snapshot 1"))]);
    }
}

/// A byte that changed in memory, before the checksum was made.
fn sealed(btrfs: &Btrfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let range = &ranges[random.below(ranges.len() as u64) as usize];
    let mut block = bytes(&btrfs.volume, range);
    // The first part is where a superblock and the keys of a tree block are.
    let part = if random.below(2) == 0 { 600 } else { block.len() as u64 };
    let at = 32 + random.below(part - 32) as usize;
    block[at] = if random.below(2) == 0 { random.below(256) as u8 } else { block[at] ^ 1 << random.below(8) };
    let sum = crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    put(range.clone(), block)
}

/// A whole tree block, or superblock, is as it was, or zeros where it was the same.
fn old_block(btrfs: &Btrfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    for _ in 0..100 {
        let range = ranges[random.below(ranges.len() as u64) as usize].clone();
        let before = bytes(btrfs.old(random), &range);
        if before != bytes(&btrfs.volume, &range) {
            return put(range, before);
        }
    }
    zeroed(ranges, random)
}

/// The power went: of everything that changed since, each piece reached the disk or did not.
fn power_cut(btrfs: &Btrfs, random: &mut Random) -> Vec<Patch> {
    let len = if random.below(2) == 0 { SECTOR } else { 4096 };
    torn(btrfs, &[0..btrfs.volume.len() as u64], len, random)
}

impl Subject for Btrfs {
    fn volume(&self) -> &[u8] {
        &self.volume
    }

    fn kinds() -> Vec<Kind<Self>> {
        let kind = |name, damage| Kind { name, damage };
        vec![
            kind("superblocks: a byte changed, checksum right", |b, random| {
                sealed(b, &b.superblocks, random)
            }),
            kind("superblocks of an earlier time", |b, random| stale(b, &b.superblocks, random)),
            kind("superblocks: one of an earlier time", |b, random| old_block(b, &b.superblocks, random)),
            kind("superblocks: flipped bits", |b, random| flips(b, &b.superblocks, random)),
            kind("extent tree: a byte changed, checksum right", |b, random| {
                sealed(b, &b.extent_tree, random)
            }),
            kind("extent tree: a lost write", |b, random| old_block(b, &b.extent_tree, random)),
            kind("extent tree of an earlier time", |b, random| stale(b, &b.extent_tree, random)),
            kind("extent tree: a misplaced write", |b, random| misplaced(b, &b.extent_tree, random)),
            kind("extent tree: flipped bits", |b, random| flips(b, &b.extent_tree, random)),
            kind("chunk, device and free space trees: a byte changed, checksum right", |b, random| {
                sealed(b, &b.space_trees, random)
            }),
            kind("chunk, device and free space trees: a lost write", |b, random| {
                old_block(b, &b.space_trees, random)
            }),
            kind("chunk, device and free space trees of an earlier time", |b, random| {
                stale(b, &b.space_trees, random)
            }),
            kind("all trees of space of an earlier time", |b, random| {
                stale(b, &[&b.extent_tree[..], &b.space_trees].concat(), random)
            }),
            kind("other trees: a byte changed, checksum right", |b, random| {
                sealed(b, &b.other_trees, random)
            }),
            kind("other trees: a lost write", |b, random| old_block(b, &b.other_trees, random)),
            kind("other trees of an earlier time", |b, random| stale(b, &b.other_trees, random)),
            kind("other trees: a misplaced write", |b, random| misplaced(b, &b.other_trees, random)),
            kind("other trees: zeros", |b, random| zeroed(&b.other_trees, random)),
            kind("metadata: a lost write", |b, random| lost_write(b, &b.metadata(), random)),
            kind("metadata: random bytes", |b, random| random_bytes(&b.metadata(), random)),
            kind("metadata: each sector old or new", |b, random| torn(b, &b.metadata(), SECTOR, random)),
            kind("metadata: each page old or new", |b, random| torn(b, &b.metadata(), 4096, random)),
            kind("all but the superblocks: each page old or new", |b, random| {
                let all = [MIB..64 * MIB, 64 * MIB + 4096..b.volume.len() as u64];
                torn(b, &all, 4096, random)
            }),
            kind("a page of anything of an earlier time", |b, random| {
                let page = piece(&[0..b.volume.len() as u64], 4096, random);
                put(page.clone(), bytes(b.old(random), &page))
            }),
            kind("a container block lost, stale or another", container_block),
            kind("power cut: each sector or page old or new", power_cut),
        ]
    }

    fn read(&self, image: &Path) -> Files {
        mounted("Linux", image, |image, folder| {
            let options = "loop,ro,rescue=nologreplay";
            let arguments = ["20", "mount", "-t", "btrfs", "-o", options, text(image), text(folder)];
            command("timeout").args(arguments).output().unwrap().status.success()
        })
    }
}

#[test]
fn damage_to_btrfs_loses_nothing() {
    need!(mount, "mkfs.btrfs", "btrfs", "timeout");
    let subjects = [
        Btrfs::new(112 * MIB, &["-m", "single"], 1),
        Btrfs::new(128 * MIB, &["-m", "dup"], 2),
        Btrfs::new(112 * MIB, &["--mixed", "-n", "4096"], 3),
    ];
    let subjects: Vec<_> = subjects.into_iter().flatten().collect();
    if subjects.len() == 3 {
        campaign("Btrfs", &subjects);
    }
}
