//! Damage to ext2, ext3 and ext4.
//!
//! The volumes have a history that the kernel's driver wrote, kept as copies: some were made while it had them
//! mounted, as a power cut would have left them. Sums and counts are made right again where a damage is one that a
//! driver with wrong memory would have written.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::damage::{
    Aged, bytes, container_block, flips, lost_write, misplaced, piece, random_bytes, stale, torn, zeroed,
};
use super::history::{delete_every_third, grow_old};
use super::readers::{Files, debugfs, seven_zip};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::ext::{Mounted, mke2fs};
use crate::toolbox::ext_layout::{BLOCK_UNINIT, FLAGS, INODE_UNINIT, Layout, UNUSED_INODES, put16};
use crate::toolbox::{MIB, Random, command, run, text};

/// Where the superblock and its fields that are changed here lie.
const SUPERBLOCK: Range<u64> = 1024..2048;
/// When journals are replayed, in seconds since 1970.
const REPLAYED_AT: &str = "1700000000";

/// A clean volume, or one that was in use, and how it came about.
struct Ext {
    volume: Vec<u8>,
    /// Earlier states, oldest first.
    history: Vec<Vec<u8>>,
    layout: Layout,
    /// Whether its journal must be replayed.
    in_use: bool,
    /// Where its structures lie.
    superblock: Vec<Range<u64>>,
    descriptors: Vec<Range<u64>>,
    bitmaps: Vec<Range<u64>>,
    inode_bitmaps: Vec<Range<u64>>,
    tables: Vec<Range<u64>>,
    journal: Vec<Range<u64>>,
    /// Directories, and the blocks of maps.
    trees: Vec<Range<u64>>,
}

impl Aged for Ext {
    fn now(&self) -> &[u8] {
        &self.volume
    }
    fn history(&self) -> &[Vec<u8>] {
        &self.history
    }
}

impl Ext {
    /// A volume on which files came and went, some of them with long maps; with `in_use`, copied before it
    /// was unmounted. None where mounting is not allowed.
    fn new(size: u64, args: &[&str], in_use: bool, seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("volume");
        mke2fs(&image, size, &[&["-N", "1024"], args].concat(), None);
        let mut random = Random::new(seed);
        let mut history = grow_old(&image, &mut random, fill, |folder, session| {
            delete_every_third(&[folder, &folder.join("inner")], session);
        })?;
        if in_use {
            // What comes last waits in the journal; most structures are not in it, and may be damaged.
            let mounted = Mounted::new(&image, "", folder.path())?;
            let last = mounted.folder().join("inner/last");
            fs::write(&last, random.bytes(30_000)).unwrap();
            run("sync", &["-d", text(&last)]);
            history.push(fs::read(&image).unwrap());
        }
        let volume = history.pop().unwrap();
        fs::write(&image, &volume).unwrap();
        let layout = Layout::of(&volume);
        let each = |part: fn(&Layout, &[u8], usize) -> Range<u64>| -> Vec<Range<u64>> {
            (0..layout.groups).map(|group| part(&layout, &volume, group)).collect()
        };
        let has_journal = !args.contains(&"ext2");
        Some(Self {
            superblock: vec![SUPERBLOCK],
            descriptors: vec![layout.descriptors()],
            bitmaps: each(Layout::block_bitmap),
            inode_bitmaps: each(Layout::inode_bitmap),
            tables: each(Layout::inode_table),
            journal: if has_journal { blocks_of(&image, &layout, "<8>") } else { Vec::new() },
            trees: trees(&image, &layout),
            volume,
            history,
            layout,
            in_use,
        })
    }

    /// All structures but the journal.
    fn metadata(&self) -> Vec<Range<u64>> {
        let parts = [
            &self.superblock,
            &self.descriptors,
            &self.bitmaps,
            &self.inode_bitmaps,
            &self.tables,
            &self.trees,
        ];
        parts.into_iter().flatten().cloned().collect()
    }

    /// These patches, and those that make all sums and counts right after them.
    fn sealed(&self, patches: Vec<Patch>) -> Vec<Patch> {
        let mut damaged = self.volume.clone();
        for Patch { at, bytes } in &patches {
            damaged[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        self.seal(damaged)
    }

    fn seal(&self, mut damaged: Vec<u8>) -> Vec<Patch> {
        self.layout.seal(&mut damaged);
        self.difference(&damaged)
    }

    /// What makes the volume into `other`.
    fn difference(&self, other: &[u8]) -> Vec<Patch> {
        let piece = 512;
        let pieces = self.volume.chunks(piece).zip(other.chunks(piece)).enumerate();
        let changed = pieces.filter(|(_, (now, other))| now != other);
        changed.map(|(n, (_, other))| Patch { at: (n * piece) as u64, bytes: other.to_vec() }).collect()
    }

    /// A group whose block bitmap is written, and a place in it that is used, or free.
    fn cluster(&self, used: bool, random: &mut Random) -> (u64, u8) {
        loop {
            let group = random.below(self.layout.groups as u64) as usize;
            if self.layout.flags(&self.volume, group) & BLOCK_UNINIT != 0 && self.layout.uninit_bg {
                continue;
            }
            let bit = random.below(self.layout.clusters_of(group));
            let at = self.layout.block_bitmap(&self.volume, group).start + bit / 8;
            let mask = 1 << (bit % 8);
            if (self.volume[at as usize] & mask != 0) == used {
                return (at, mask);
            }
        }
    }
}

/// Writes files of many sizes, and links.
fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join("inner");
    let _ = fs::create_dir(&inner);
    let _ = fs::create_dir(inner.join(format!("session {session}")));
    for n in 0..30 {
        let len = match random.below(10) {
            0..=1 => random.below(500),
            2..=6 => random.below(12_000),
            7..=8 => random.below(120_000),
            _ => random.below(400_000),
        };
        let name = format!("session {session}, file {n}");
        let folder = [folder.to_path_buf(), inner.clone(), inner.join(format!("session {session}"))];
        fs::write(folder[n % 3].join(name), random.bytes(len)).unwrap();
    }
    // Files with holes, so that their maps are long.
    for n in 0..2 {
        let sparse = fs::File::create(inner.join(format!("sparse {n}"))).unwrap();
        for n in 0..30 {
            std::os::unix::fs::FileExt::write_all_at(&sparse, &random.bytes(3000), n * 50_000).unwrap();
        }
    }
    let target = "a target that is far too long to have room in an inode, ".repeat(4);
    std::os::unix::fs::symlink(target, folder.join(format!("link {session}"))).unwrap();
    fs::write(inner.join("last"), random.bytes(9000)).unwrap();
}

/// The blocks of a file by debugfs, those of its map among them.
fn blocks_of(image: &Path, layout: &Layout, file: &str) -> Vec<Range<u64>> {
    let listed = run("debugfs", &["-R", &format!("blocks {file}"), text(image)]);
    let numbers = listed.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).filter(|&n| n > 0);
    numbers.map(|block| block * layout.block..(block + 1) * layout.block).collect()
}

/// The blocks of directories, and of the maps of two files with holes.
fn trees(image: &Path, layout: &Layout) -> Vec<Range<u64>> {
    let folders = ["/", "/inner"].map(str::to_owned).into_iter();
    let folders = folders.chain((0..4).map(|session| format!("\"/inner/session {session}\"")));
    let mut trees: Vec<Range<u64>> = folders.flat_map(|folder| blocks_of(image, layout, &folder)).collect();
    for file in ["/inner/sparse 0", "/inner/sparse 1"] {
        let listed = run("debugfs", &["-R", &format!("stat \"{file}\""), text(image)]);
        for mark in ["(ETB0):", "(IND):", "(DIND):"] {
            for after in listed.split(mark).skip(1) {
                let number: String = after.chars().take_while(char::is_ascii_digit).collect();
                let block: u64 = number.parse().unwrap();
                trees.push(block * layout.block..(block + 1) * layout.block);
            }
        }
    }
    trees
}

fn clear_bit(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let (at, mask) = ext.cluster(true, random);
    ext.sealed(vec![Patch { at, bytes: vec![ext.volume[at as usize] & !mask] }])
}

fn change_byte(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let (at, _) = ext.cluster(true, random);
    ext.sealed(vec![Patch { at, bytes: vec![random.below(256) as u8] }])
}

fn exchange_bits(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let (free, mask_of_free) = ext.cluster(false, random);
    let (used, mask_of_used) = ext.cluster(true, random);
    let set = ext.volume[free as usize] | mask_of_free;
    let before = if free == used { set } else { ext.volume[used as usize] };
    vec![Patch { at: free, bytes: vec![set] }, Patch { at: used, bytes: vec![before & !mask_of_used] }]
}

/// Sets a flag of a group, sums and counts right.
fn set_flag(ext: &Ext, flag: u16, random: &mut Random) -> Vec<Patch> {
    let mut damaged = ext.volume.clone();
    let group = random.below(ext.layout.groups as u64) as usize;
    let flags = ext.layout.flags(&damaged, group) | flag;
    let at = ext.layout.descriptor(group);
    put16(&mut damaged, at + FLAGS, flags);
    if flag == INODE_UNINIT {
        put16(&mut damaged, at + UNUSED_INODES, ext.layout.inodes_per_group as u16);
    }
    ext.seal(damaged)
}

fn unused_inodes(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let mut damaged = ext.volume.clone();
    let group = random.below(ext.layout.groups as u64) as usize;
    let unused = random.below(ext.layout.inodes_per_group + 1) as u16;
    let at = ext.layout.descriptor(group);
    put16(&mut damaged, at + UNUSED_INODES, unused);
    // And the bitmap agrees: nothing there is in use.
    let bitmap = ext.layout.inode_bitmap(&damaged, group).start as usize;
    for place in
        (ext.layout.inodes_per_group - u64::from(unused)) as usize..ext.layout.inodes_per_group as usize
    {
        damaged[bitmap + place / 8] &= !(1 << (place % 8));
    }
    ext.seal(damaged)
}

/// A byte within an inode, its sum right.
fn change_in_inode(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let mut damaged = ext.volume.clone();
    let (group, inode) = loop {
        let group = random.below(ext.layout.groups as u64) as usize;
        let inode = piece(&[ext.layout.inode_table(&damaged, group)], ext.layout.inode_size, random);
        if bytes(&damaged, &inode)[0x1A] != 0 || random.below(1000) == 0 {
            break (group, inode.start);
        }
    };
    damaged[(inode + random.below(0x70)) as usize] = random.below(256) as u8;
    ext.layout.seal_inode(&mut damaged, group, inode);
    ext.difference(&damaged)
}

fn change_superblock(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let mut damaged = ext.volume.clone();
    damaged[1024 + random.below(0x180) as usize] = random.below(256) as u8;
    ext.layout.seal_superblock(&mut damaged);
    ext.difference(&damaged)
}

/// What allocation is told from, as it once was: all of it from the same time.
fn old_allocation(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let parts = [&ext.descriptors, &ext.bitmaps, &ext.inode_bitmaps].map(Clone::clone).concat();
    ext.sealed(stale(ext, &parts, random))
}

/// Every structure but the superblock, each block of it old or new.
fn mixed(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let parts = [&ext.descriptors, &ext.bitmaps, &ext.inode_bitmaps, &ext.tables, &ext.trees];
    torn(ext, &parts.map(Clone::clone).concat(), ext.layout.block, random)
}

/// The superblock's own sum, and the clean state, after a power cut that lost the rest.
fn power_cut(ext: &Ext, random: &mut Random) -> Vec<Patch> {
    let all = [0..SUPERBLOCK.start, SUPERBLOCK.end..ext.volume.len() as u64];
    torn(ext, &all, if random.below(2) == 0 { 512 } else { ext.layout.block }, random)
}

impl Subject for Ext {
    fn volume(&self) -> &[u8] {
        &self.volume
    }

    fn kinds() -> Vec<Kind<Self>> {
        let kind = |name, damage| Kind { name, damage };
        vec![
            kind("a used bit cleared, sums and counts right", clear_bit),
            kind("a byte of a block bitmap changed, sums and counts right", change_byte),
            kind("two bits exchanged", exchange_bits),
            kind("two bits exchanged, sums right", |ext, random| ext.sealed(exchange_bits(ext, random))),
            kind("BLOCK_UNINIT set, sums and counts right", |ext, random| {
                set_flag(ext, BLOCK_UNINIT, random)
            }),
            kind("INODE_UNINIT set, sums and counts right", |ext, random| {
                set_flag(ext, INODE_UNINIT, random)
            }),
            kind("both set, sums and counts right", |ext, random| {
                set_flag(ext, INODE_UNINIT | BLOCK_UNINIT, random)
            }),
            kind("more inodes unused, sums and counts right", unused_inodes),
            kind("block bitmaps of an earlier time", |ext, random| stale(ext, &ext.bitmaps, random)),
            kind("block bitmaps of an earlier time, sums and counts right", |ext, random| {
                ext.sealed(stale(ext, &ext.bitmaps, random))
            }),
            kind("block bitmaps torn, sums and counts right", |ext, random| {
                ext.sealed(torn(ext, &ext.bitmaps, 512, random))
            }),
            kind("a block bitmap: a misplaced write", |ext, random| misplaced(ext, &ext.bitmaps, random)),
            kind("inode bitmaps of an earlier time, sums right", |ext, random| {
                ext.sealed(stale(ext, &ext.inode_bitmaps, random))
            }),
            kind("an inode bitmap: zeros", |ext, random| zeroed(&ext.inode_bitmaps, random)),
            kind("an inode bitmap: flipped bits", |ext, random| flips(ext, &ext.inode_bitmaps, random)),
            kind("bitmaps and descriptors of an earlier time, sums right", old_allocation),
            kind("descriptors of an earlier time", |ext, random| stale(ext, &ext.descriptors, random)),
            kind("descriptors: a lost write", |ext, random| lost_write(ext, &ext.descriptors, random)),
            kind("descriptors: a misplaced write", |ext, random| misplaced(ext, &ext.descriptors, random)),
            kind("descriptors: flipped bits, sums right", |ext, random| {
                ext.sealed(flips(ext, &ext.descriptors, random))
            }),
            kind("inode tables: a lost write", |ext, random| lost_write(ext, &ext.tables, random)),
            kind("inode tables torn", |ext, random| torn(ext, &ext.tables, 512, random)),
            kind("inode tables: zeros", |ext, random| zeroed(&ext.tables, random)),
            kind("inode tables: a misplaced write", |ext, random| misplaced(ext, &ext.tables, random)),
            kind("a byte of an inode changed, its sum right", change_in_inode),
            kind("a byte of the superblock changed, its sum right", change_superblock),
            kind("the superblock of an earlier time", |ext, random| stale(ext, &ext.superblock, random)),
            kind("the journal: a lost write", |ext, random| journal(ext, random, lost_write)),
            kind("the journal: a misplaced write", |ext, random| journal(ext, random, misplaced)),
            kind("the journal: flipped bits", |ext, random| journal(ext, random, flips)),
            kind("directories and maps: a lost write", |ext, random| lost_write(ext, &ext.trees, random)),
            kind("directories and maps: a misplaced write", |ext, random| misplaced(ext, &ext.trees, random)),
            kind("metadata: flipped bits", |ext, random| flips(ext, &ext.metadata(), random)),
            kind("metadata: other data written over", |ext, random| random_bytes(&ext.metadata(), random)),
            kind("metadata: each block old or new", mixed),
            kind("metadata: each block old or new, sums and counts right", |ext, random| {
                ext.sealed(mixed(ext, random))
            }),
            kind("a container block lost, stale or another", container_block),
            kind("power cut: each sector or block old or new", power_cut),
        ]
    }

    fn read(&self, image: &Path) -> Files {
        if !self.in_use {
            let mut files = debugfs(image);
            files.extend(seven_zip(image));
            return files;
        }
        // As the next mount would see it.
        let folder = tempfile::tempdir().unwrap();
        let replayed = folder.path().join("replayed");
        fs::copy(image, &replayed).unwrap();
        // At the same time whenever it is done: a damaged file may have got the superblock, which notes it, as its own.
        let mut replay = command("timeout");
        replay.args(["100", "e2fsck", "-y", "-E", "journal_only", text(&replayed)]);
        replay.env("E2FSCK_TIME", REPLAYED_AT).env("E2FSPROGS_FAKE_TIME", REPLAYED_AT);
        let done = replay.output().unwrap();
        assert_ne!(done.status.code(), Some(124), "e2fsck had no time to replay the journal");
        let mut files = debugfs(&replayed);
        files.extend(seven_zip(&replayed));
        files
    }
}

/// A damage of the journal; of the descriptors where there is none.
fn journal(
    ext: &Ext,
    random: &mut Random,
    damage: fn(&Ext, &[Range<u64>], &mut Random) -> Vec<Patch>,
) -> Vec<Patch> {
    damage(ext, if ext.journal.is_empty() { &ext.descriptors } else { &ext.journal }, random)
}

fn damaged(name: &str, shapes: &[(u64, &[&str], bool)]) {
    need!("mke2fs", "debugfs", "e2fsck", "7zz", "timeout");
    let made = (1..).zip(shapes).map(|(seed, (size, args, in_use))| Ext::new(*size, args, *in_use, seed));
    let Some(subjects) = made.collect::<Option<Vec<_>>>() else { return };
    campaign(name, &subjects);
}

#[test]
fn damage_to_ext2_and_ext3_loses_nothing() {
    damaged(
        "ext2 and ext3",
        &[
            (12 * MIB, &["-t", "ext2", "-b", "1024", "-g", "2048"], false),
            (16 * MIB, &["-t", "ext3", "-b", "4096", "-g", "1024"], false),
            (12 * MIB, &["-t", "ext3", "-b", "1024", "-I", "128"], true),
        ],
    );
}

#[test]
fn damage_to_ext4_loses_nothing() {
    damaged(
        "ext4",
        &[
            (16 * MIB, &["-t", "ext4", "-b", "4096", "-g", "1024"], false),
            (12 * MIB, &["-t", "ext4", "-b", "1024", "-g", "2048", "-O", "^metadata_csum,uninit_bg"], false),
            (24 * MIB, &["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "8192", "-g", "8192"], false),
            (12 * MIB, &["-t", "ext4", "-b", "1024", "-O", "inline_data,^64bit"], false),
        ],
    );
}

#[test]
fn damage_to_ext4_in_use_loses_nothing() {
    damaged(
        "ext4 in use",
        &[
            (16 * MIB, &["-t", "ext4", "-b", "4096", "-g", "1024"], true),
            (12 * MIB, &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg,^64bit"], true),
        ],
    );
}
