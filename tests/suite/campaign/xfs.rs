//! Damage to XFS.
//!
//! The volume has a history, kept as copies of it: some were made while the kernel had it mounted, as a power cut
//! would have left it. Structures are found by their magic numbers, old ones in free space with them.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::readers::{Files, mounted};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::ext::Mounted;
use crate::toolbox::xfs::mkfs;
use crate::toolbox::{MIB, Random, command, run, text};

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

    fn old(&self, random: &mut Random) -> &[u8] {
        // The last ones differ least, and so they are the most dangerous.
        let age = random.below(self.history.len() as u64).min(random.below(self.history.len() as u64));
        &self.history[self.history.len() - 1 - age as usize]
    }

    fn bytes(&self, range: &Range<u64>) -> Vec<u8> {
        self.volume[range.start as usize..range.end as usize].to_vec()
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_be_bytes(*bytes[at..].first_chunk().unwrap()).into()
}

fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join(format!("inner {}", session % 2));
    let _ = fs::create_dir(&inner);
    for n in 0..40 {
        let len = match random.below(10) {
            0..=1 => random.below(500),
            2..=7 => random.below(12_000),
            _ => random.below(120_000),
        };
        let name = format!("a name that takes some room in its directory, session {session}, file {n}");
        fs::write(if n % 2 == 0 { folder.join(name) } else { inner.join(name) }, random.bytes(len)).unwrap();
    }
    // Two files that grow in turns, each time onto the disk.
    for part in 0..40u64 {
        for n in 0..2 {
            let file =
                fs::OpenOptions::new().create(true).append(true).open(inner.join(format!("turns {n}")));
            let mut file = file.unwrap();
            std::io::Write::write_all(&mut file, &random.bytes(4096 + part)).unwrap();
            file.sync_data().unwrap();
        }
    }
}

/// Deletes every third file.
fn thin_out(folder: &Path, session: u64) {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    for path in files.iter().skip(session as usize).step_by(3) {
        fs::remove_file(path).unwrap();
    }
}

fn pick<'a>(ranges: &'a [Range<u64>], random: &mut Random) -> &'a Range<u64> {
    &ranges[random.below(ranges.len() as u64) as usize]
}

/// A sector of these ranges, or a whole range.
fn piece(ranges: &[Range<u64>], random: &mut Random) -> Range<u64> {
    let range = pick(ranges, random);
    if random.below(2) == 0 && range.end - range.start <= 1 << 16 {
        return range.clone();
    }
    let at = range.start + random.below((range.end - range.start) / SECTOR) * SECTOR;
    at..at + SECTOR
}

fn put(range: &Range<u64>, bytes: Vec<u8>) -> Vec<Patch> {
    vec![Patch { at: range.start, bytes }]
}

/// A write that was lost, so that a piece is as it was.
fn lost_write(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    for _ in 0..200 {
        let (part, old) = (piece(ranges, random), xfs.old(random));
        let before = &old[part.start as usize..part.end as usize];
        if before != xfs.bytes(&part) {
            return put(&part, before.to_vec());
        }
    }
    zeroed(ranges, random)
}

/// All of these ranges as they once were.
fn stale(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let old = xfs.old(random);
    ranges.iter().flat_map(|part| put(part, old[part.start as usize..part.end as usize].to_vec())).collect()
}

/// Each piece of `len` bytes that once was different: as it was, or as it is.
fn torn(xfs: &Xfs, ranges: &[Range<u64>], len: u64, random: &mut Random) -> Vec<Patch> {
    let (old, share) = (xfs.old(random), 1 + random.below(9));
    let mut patches = Vec::new();
    for range in ranges {
        for at in (range.start..range.end).step_by(len as usize) {
            let part = at..(at + len).min(range.end);
            let before = &old[part.start as usize..part.end as usize];
            if before != xfs.bytes(&part) && random.below(10) < share {
                patches.extend(put(&part, before.to_vec()));
            }
        }
    }
    patches
}

fn zeroed(ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let part = piece(ranges, random);
    let len = part.end - part.start;
    put(&part, vec![0; len as usize])
}

fn misplaced(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let (from, to) = (piece(ranges, random), piece(ranges, random));
    let mut moved = xfs.bytes(&from);
    moved.truncate((to.end - to.start) as usize);
    put(&to, moved)
}

/// A few bits that flipped on their way; the checksum is that of what was sent.
fn flips(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let flip = |random: &mut Random| {
        let range = pick(ranges, random);
        let at = range.start + random.below(range.end - range.start);
        vec![Patch { at, bytes: vec![xfs.volume[at as usize] ^ 1 << random.below(8)] }]
    };
    (0..1 + random.below(4)).flat_map(|_| flip(random)).collect()
}

/// A byte that changed in memory, before the checksum was made.
fn sealed(xfs: &Xfs, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let range = pick(ranges, random).clone();
    let mut range = range;
    if range.end - range.start == 4 * SECTOR {
        let sector = random.below(4) * SECTOR;
        range = range.start + sector..range.start + sector + SECTOR;
    }
    let mut bytes = xfs.bytes(&range);
    let crc = match bytes.first_chunk::<4>().unwrap() {
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
    let part = if random.below(2) == 0 { 240 } else { bytes.len() as u64 };
    let at = random.below(part) as usize;
    bytes[at] = if random.below(2) == 0 { random.below(256) as u8 } else { bytes[at] ^ 1 << random.below(8) };
    bytes[crc..crc + 4].fill(0);
    let sum = crc32c(&bytes);
    bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
    put(&range, bytes)
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, &byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82F6_3B78 },
        )
    };
    !bytes.iter().fold(u32::MAX, byte)
}

/// What a container can do to its blocks: a whole one is lost, stale, or another. The first one holds the most.
fn container_block(xfs: &Xfs, random: &mut Random) -> Vec<Patch> {
    let len = [64 << 10, 512 << 10, MIB, 2 * MIB][random.below(4) as usize];
    let count = xfs.volume.len() as u64 / len;
    let block = |random: &mut Random| {
        let number = if random.below(3) == 0 { 0 } else { random.below(count) };
        number * len..(number + 1) * len
    };
    let part = block(random);
    match random.below(4) {
        0 => put(&part, vec![0; len as usize]),
        1 => put(&part, xfs.bytes(&block(random))),
        _ => stale(xfs, &[part], random),
    }
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
            kind("headers of groups: a lost write", |xfs, random| lost_write(xfs, &xfs.headers, random)),
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
        mounted("Linux", image, |image, folder| {
            let options = "loop,ro,norecovery,nouuid";
            let arguments = ["20", "mount", "-t", "xfs", "-o", options, text(image), text(folder)];
            command("timeout").args(arguments).output().unwrap().status.success()
        })
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
