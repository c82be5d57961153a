//! Damage to Btrfs.
//!
//! The volume has a history, kept as copies of it: some were made while the kernel had it mounted, as a power cut
//! would have left it. Only tree blocks that are in use are damaged, and mostly all copies of one, since a reader
//! takes the copy that is whole. "Sums right" means that the checksum, the block group's count and the superblock's
//! agree with the damage, as a driver with wrong memory would have written it.

use std::ops::Range;
use std::path::Path;

use super::damage::{Aged, bytes, container_block, flips, piece, put, stale, torn};
use super::history::{add_late_files, delete_every_third, grow_old, write_files};
use super::readers::{Files, linux};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::btrfs::{Block, Item, SUPERBLOCK, items, mkfs, put_checksum, put_items, tree_blocks};
use crate::toolbox::{MIB, Random, run, text};

const SECTOR: u64 = 512;
/// Trees by number: extents, checksums; those that tell of space in other ways: chunks, devices, free space.
const EXTENT_TREE: u64 = 2;
const CHECKSUMS: u64 = 7;
const OTHERS_OF_SPACE: [u64; 3] = [3, 4, 10];
/// Kinds of items: extents of files; extents, by their size or as a tree block; block groups.
const EXTENT_DATA: u8 = 108;
const EXTENT: u8 = 168;
const METADATA: u8 = 169;
const BLOCK_GROUP: u8 = 192;
/// In a superblock: how many bytes are in use.
const USED: usize = 0x78;

/// A clean volume and how it came about.
struct Btrfs {
    volume: Vec<u8>,
    history: Vec<Vec<u8>>,
    superblocks: Vec<Range<u64>>,
    extent_tree: Vec<Block>,
    space_trees: Vec<Block>,
    /// Roots and files.
    other_trees: Vec<Block>,
}

impl Aged for Btrfs {
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

impl Btrfs {
    /// A volume on which files came and went; none (said so) where it may not be mounted.
    fn new(size: u64, args: &[&str], seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        mkfs(&image, size, args, None);
        let mut random = Random::new(seed);
        let history = grow_old(&image, &mut random, fill, thin_out)?;
        let volume = add_late_files(&image, &mut random)?;
        let (mut extent_tree, mut space_trees, mut other_trees) = (Vec::new(), Vec::new(), Vec::new());
        for block in tree_blocks(&image) {
            match block.owner {
                EXTENT_TREE => extent_tree.push(block),
                owner if OTHERS_OF_SPACE.contains(&owner) => space_trees.push(block),
                CHECKSUMS => {}
                _ => other_trees.push(block),
            }
        }
        let superblocks = [SUPERBLOCK, 64 * MIB].into_iter().filter(|at| at + 4096 <= size);
        let superblocks = superblocks.map(|at| at..at + 4096).collect();
        Some(Self { superblocks, extent_tree, space_trees, other_trees, history, volume })
    }

    /// The places of these tree blocks.
    fn places(blocks: &[&[Block]]) -> Vec<Range<u64>> {
        blocks.iter().flat_map(|blocks| blocks.iter()).flat_map(|block| block.copies.clone()).collect()
    }

    fn metadata(&self) -> Vec<Range<u64>> {
        let trees = Self::places(&[&self.extent_tree, &self.space_trees, &self.other_trees]);
        [&self.superblocks[..], &trees].concat()
    }

    /// The leaf of the extent tree that holds the block group of an address, and its slot there.
    fn block_group(&self, address: u64) -> (&Block, usize) {
        let holds = |item: &Item| {
            item.kind() == BLOCK_GROUP && (item.object()..item.object() + item.offset()).contains(&address)
        };
        let leaves = self.extent_tree.iter().filter(|block| block.level == 0);
        let mut found = leaves.filter_map(|leaf| Some((leaf, self.items(leaf).iter().position(holds)?)));
        found.next().unwrap()
    }

    fn items(&self, leaf: &Block) -> Vec<Item> {
        items(&bytes(&self.volume, &leaf.copies[0]))
    }

    /// A leaf of these with an item that `wanted` wants, but for the first one, whose key is its parent's, too.
    fn item<'b>(
        &self,
        blocks: &'b [Block],
        wanted: impl Fn(&Item) -> bool,
        random: &mut Random,
    ) -> (&'b Block, Vec<Item>, usize) {
        loop {
            let leaf = pick(blocks, random);
            if leaf.level != 0 {
                continue;
            }
            let items = self.items(leaf);
            let number = random.below(items.len().max(1) as u64) as usize;
            if number > 0 && wanted(&items[number]) {
                return (leaf, items, number);
            }
        }
    }
}

fn pick<'b, T>(of: &'b [T], random: &mut Random) -> &'b T {
    &of[random.below(of.len() as u64) as usize]
}

/// Of three times two all copies of a block, else one of them.
fn copies(block: &Block, random: &mut Random) -> Vec<Range<u64>> {
    if random.below(3) == 0 { vec![pick(&block.copies, random).clone()] } else { block.copies.clone() }
}

fn put_all(places: &[Range<u64>], block: &[u8]) -> Vec<Patch> {
    places.iter().flat_map(|place| put(place.clone(), block.to_vec())).collect()
}

fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join("inner");
    if session == 0 {
        run("btrfs", &["subvolume", "create", text(&inner)]);
    }
    write_files(folder, &inner, session, 20, random);
    let snapshot = folder.join(format!("snapshot {session}"));
    run("btrfs", &["subvolume", "snapshot", text(&inner), text(&snapshot)]);
}

/// Deletes every third file, and a snapshot.
fn thin_out(folder: &Path, session: u64) {
    delete_every_third(&[folder, &folder.join("inner")], session);
    if session == 2 {
        run("btrfs", &["subvolume", "delete", text(&folder.join("snapshot 1"))]);
    }
}

/// A byte that changed in memory, before the checksum was made: in the header, in a key or in data.
fn sealed(btrfs: &Btrfs, blocks: &[Block], random: &mut Random) -> Vec<Patch> {
    let damaged = pick(blocks, random);
    let mut block = bytes(&btrfs.volume, &damaged.copies[0]);
    let used: Vec<usize> = match damaged.level {
        0 => {
            let items = items(&block);
            let data: usize = items.iter().map(|item| item.data.len()).sum();
            (32..101 + items.len() * 25).chain(block.len() - data..block.len()).collect()
        }
        _ => (32..101 + 33 * u32::from_le_bytes(*block[96..].first_chunk().unwrap()) as usize).collect(),
    };
    change_byte(&mut block, *pick(&used, random), random);
    put_all(&copies(damaged, random), &block)
}

fn sealed_superblock(btrfs: &Btrfs, random: &mut Random) -> Vec<Patch> {
    let place = btrfs.superblocks[random.below(btrfs.superblocks.len() as u64) as usize].clone();
    let mut block = bytes(&btrfs.volume, &place);
    // The fields, and the chunks of the chunk tree.
    let at = if random.below(3) == 0 { 0x32B + random.below(129) } else { 32 + random.below(0x10B) };
    change_byte(&mut block, at as usize, random);
    put(place, block)
}

fn change_byte(block: &mut [u8], at: usize, random: &mut Random) {
    block[at] = if random.below(2) == 0 { random.below(256) as u8 } else { block[at] ^ 1 << random.below(8) };
    put_checksum(block);
}

/// A tree block is as it was before, whatever that was.
fn lost_write(btrfs: &Btrfs, blocks: &[Block], random: &mut Random) -> Vec<Patch> {
    for _ in 0..100 {
        let block = pick(blocks, random);
        let before = bytes(btrfs.old(random), &block.copies[0]);
        if before != bytes(&btrfs.volume, &block.copies[0]) {
            return put_all(&copies(block, random), &before);
        }
    }
    zeros(blocks, random)
}

fn zeros(blocks: &[Block], random: &mut Random) -> Vec<Patch> {
    let block = pick(blocks, random);
    let len = block.copies[0].end - block.copies[0].start;
    put_all(&copies(block, random), &vec![0; len as usize])
}

/// A tree block went to the place of another.
fn misplaced(btrfs: &Btrfs, blocks: &[Block], random: &mut Random) -> Vec<Patch> {
    let (from, to) = (pick(blocks, random), pick(blocks, random));
    put_all(&copies(to, random), &bytes(&btrfs.volume, &from.copies[0]))
}

/// An item of an extent tree's leaf that is an extent, changed by `change`, which gives how many bytes are in use
/// less than before; all sums right.
fn changed_extent(
    btrfs: &Btrfs,
    kinds: &[u8],
    random: &mut Random,
    change: fn(&mut Vec<Item>, usize, u64) -> u64,
) -> Vec<Patch> {
    let (leaf, mut items, number) =
        btrfs.item(&btrfs.extent_tree, |item| kinds.contains(&item.kind()), random);
    let node = leaf.copies[0].end - leaf.copies[0].start;
    let (group_leaf, slot) = btrfs.block_group(items[number].object());
    let less = |used: &mut [u8], freed: u64| {
        let now = u64::from_le_bytes(*used.first_chunk().unwrap()) - freed;
        used[..8].copy_from_slice(&now.to_le_bytes());
    };
    let write = |leaf: &Block, items: &[Item]| {
        let mut block = bytes(&btrfs.volume, &leaf.copies[0]);
        put_items(&mut block, items);
        put_all(&leaf.copies, &block)
    };
    let mut patches = Vec::new();
    let freed = if std::ptr::eq(group_leaf, leaf) {
        // The slot may move: its group is found again by its key.
        let key = items[slot].key;
        let freed = change(&mut items, number, node);
        less(&mut items.iter_mut().find(|item| item.key == key).unwrap().data, freed);
        freed
    } else {
        let freed = change(&mut items, number, node);
        let mut groups = btrfs.items(group_leaf);
        less(&mut groups[slot].data, freed);
        patches.extend(write(group_leaf, &groups));
        freed
    };
    patches.extend(write(leaf, &items));
    for place in &btrfs.superblocks {
        let mut superblock = bytes(&btrfs.volume, place);
        less(&mut superblock[USED..], freed);
        put_checksum(&mut superblock);
        patches.extend(put(place.clone(), superblock));
    }
    patches
}

fn forgotten_extent(btrfs: &Btrfs, kinds: &[u8], random: &mut Random) -> Vec<Patch> {
    changed_extent(btrfs, kinds, random, |items, number, node| {
        let gone = items.remove(number);
        if gone.kind() == METADATA { node } else { gone.offset() }
    })
}

fn shorter_extent(btrfs: &Btrfs, random: &mut Random) -> Vec<Patch> {
    changed_extent(btrfs, &[EXTENT], random, |items, number, _| {
        let len = items[number].offset();
        // A tree block keeps its size.
        let less = if items[number].data[16] & 2 != 0 || len <= 4096 { 0 } else { 4096 };
        items[number].key[9..].copy_from_slice(&(len - less).to_le_bytes());
        less
    })
}

/// An extent is said to lie somewhat further on or back.
fn moved_extent(btrfs: &Btrfs, random: &mut Random) -> Vec<Patch> {
    let kinds = [EXTENT, METADATA];
    let (leaf, mut items, number) =
        btrfs.item(&btrfs.extent_tree, |item| kinds.contains(&item.kind()), random);
    let by = 4096 * (1 + random.below(8));
    let at = items[number].object();
    let moved = if random.below(2) == 0 { at + by } else { at - by };
    items[number].key[..8].copy_from_slice(&moved.to_le_bytes());
    let mut block = bytes(&btrfs.volume, &leaf.copies[0]);
    put_items(&mut block, &items);
    put_all(&leaf.copies, &block)
}

/// A byte of the place or the length of a file's extent.
fn file_extent(btrfs: &Btrfs, random: &mut Random) -> Vec<Patch> {
    let wanted = |item: &Item| item.kind() == EXTENT_DATA && item.data[20] != 0;
    let (leaf, mut items, number) = btrfs.item(&btrfs.other_trees, wanted, random);
    let at = 21 + random.below(16) as usize;
    items[number].data[at] ^= 1 << random.below(8);
    let mut block = bytes(&btrfs.volume, &leaf.copies[0]);
    put_items(&mut block, &items);
    put_all(&leaf.copies, &block)
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
            kind("an extent of data forgotten, sums right", |b, random| {
                forgotten_extent(b, &[EXTENT], random)
            }),
            kind("a tree block forgotten, sums right", |b, random| forgotten_extent(b, &[METADATA], random)),
            kind("an extent of data shorter, sums right", shorter_extent),
            kind("an extent moved, sums right", moved_extent),
            kind("an extent of a file changed, checksum right", file_extent),
            kind("superblocks: a byte changed, checksum right", sealed_superblock),
            kind("superblocks of an earlier time", |b, random| stale(b, &b.superblocks, random)),
            kind("superblocks: one of an earlier time", |b, random| {
                stale(b, &[pick(&b.superblocks, random).clone()], random)
            }),
            kind("superblocks: flipped bits", |b, random| flips(b, &b.superblocks, random)),
            kind("extent tree: a byte changed, checksum right", |b, random| {
                sealed(b, &b.extent_tree, random)
            }),
            kind("extent tree: a lost write", |b, random| lost_write(b, &b.extent_tree, random)),
            kind("extent tree of an earlier time", |b, random| {
                stale(b, &Btrfs::places(&[&b.extent_tree]), random)
            }),
            kind("extent tree: a misplaced write", |b, random| misplaced(b, &b.extent_tree, random)),
            kind("chunks, devices, free space: a byte changed, checksum right", |b, random| {
                sealed(b, &b.space_trees, random)
            }),
            kind("chunks, devices, free space: a lost write", |b, random| {
                lost_write(b, &b.space_trees, random)
            }),
            kind("all trees of space of an earlier time", |b, random| {
                stale(b, &Btrfs::places(&[&b.extent_tree, &b.space_trees]), random)
            }),
            kind("roots and files: a byte changed, checksum right", |b, random| {
                sealed(b, &b.other_trees, random)
            }),
            kind("roots and files: a lost write", |b, random| lost_write(b, &b.other_trees, random)),
            kind("roots and files of an earlier time", |b, random| {
                stale(b, &Btrfs::places(&[&b.other_trees]), random)
            }),
            kind("roots and files: a misplaced write", |b, random| misplaced(b, &b.other_trees, random)),
            kind("roots and files: zeros", |b, random| zeros(&b.other_trees, random)),
            kind("metadata: flipped bits", |b, random| flips(b, &b.metadata(), random)),
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
        linux(image, "btrfs", "loop,ro,rescue=nologreplay")
    }
}

#[test]
fn damage_to_btrfs_loses_nothing() {
    need!(mount, "mkfs.btrfs", "btrfs", "timeout");
    let subjects = [
        Btrfs::new(112 * MIB, &["-m", "single"], 1),
        Btrfs::new(128 * MIB, &["-m", "dup", "-n", "4096"], 2),
        Btrfs::new(112 * MIB, &["--mixed", "-n", "4096"], 3),
    ];
    let subjects: Vec<_> = subjects.into_iter().flatten().collect();
    if subjects.len() == 3 {
        campaign("Btrfs", &subjects);
    }
}
