//! A small Btrfs volume made by hand, for tests that break one thing of it.
//!
//! ```text
//!   device   0   64 KiB       1 MiB           2 MiB            2.5 MiB        3 MiB            6 MiB
//!            │ … │ superblock │ system, 64 KiB │ metadata, 128 K │ data, 256 K │ metadata, again │ …
//!   trees    root ─┬ 2 extents, in two leaves          (chunk tree: in "system")
//!                  ├ 4 devices, 5 top, 7 checksums
//!                  ├ 256 subvolume ──► NAMES, SHARED
//!                  ├ 257 being deleted ──► (gone), SHARED
//!                  └ a file of the old space cache, -9 relocation of data
//! ```

use std::ops::Range;

use super::checksum::Checksum;
use super::probe;
use crate::fs::{Context, Decline, Detected, FreeMap};

pub(super) const NODE: usize = 4096;
const MIB: usize = 1 << 20;
pub(super) const TOTAL: usize = 6 * MIB;
pub(super) const SUPERBLOCK: usize = 64 << 10;
/// Where a copy of it would lie, behind the end of this file system.
pub(super) const COPY: usize = 64 * MIB;
/// Where the chunk tree lies on the device.
pub(super) const CHUNKS: usize = MIB;
const METADATA: [usize; 2] = [2 * MIB, 3 * MIB];
pub(super) const DATA: usize = 5 * MIB / 2;
/// The addresses of the three chunks, which are no places.
pub(super) const SYSTEM_ADDRESS: u64 = 0x0100_0000;
pub(super) const METADATA_ADDRESS: u64 = 0x0800_0000;
pub(super) const DATA_ADDRESS: u64 = 0x1000_0000;
const SYSTEM_LEN: u64 = 64 << 10;
const METADATA_LEN: u64 = 128 << 10;
const DATA_LEN: u64 = 256 << 10;
/// Tree blocks, by number.
pub(super) const ROOT: usize = 0;
pub(super) const EXTENTS: usize = 1;
pub(super) const EXTENT_LEAVES: [usize; 2] = [2, 3];
pub(super) const DEVICES: usize = 4;
pub(super) const TOP: usize = 5;
pub(super) const SUBVOLUME: usize = 6;
pub(super) const NAMES: usize = 7;
pub(super) const SHARED: usize = 8;
pub(super) const DYING: usize = 9;
pub(super) const SUMS: usize = 10;
pub(super) const SUMS_LEAF: usize = 11;
pub(super) const RELOCATION: usize = 12;
/// Leaves of the root tree: trees of the file system's own, then subvolumes and what else there is.
pub(super) const ROOTS: [usize; 2] = [13, 14];
pub(super) const GROUPS: usize = 15;
/// A block that nobody has.
pub(super) const NOBODYS: usize = 20;
const GENERATION: u64 = 9;
/// When the blocks were written that are shared.
const EARLIER: u64 = 7;
/// The extents of data: offset in their chunk, length.
pub(super) const REGULAR: (u64, u64) = (0, 16 << 10);
pub(super) const RESERVED: (u64, u64) = (32 << 10, 8 << 10);
pub(super) const COMPRESSED: (u64, u64) = (64 << 10, 4 << 10);
pub(super) const CACHE: (u64, u64) = (128 << 10, 4 << 10);

const FSID: &[u8; 16] = b"a file system id";
const CHUNK_UUID: &[u8; 16] = b"a chunk tree id.";
const DEVICE_UUID: &[u8; 16] = b"the id of device";

/// Where the first copy of a tree block of the metadata lies.
pub(super) const fn block(number: usize) -> usize {
    METADATA[0] + number * NODE
}

pub(super) const fn address(number: usize) -> u64 {
    METADATA_ADDRESS + (number * NODE) as u64
}

/// What is free.
pub(super) fn free_ranges(blocks: usize) -> Vec<Range<u64>> {
    let data =
        |after: (u64, u64), before: (u64, u64)| DATA as u64 + after.0 + after.1..DATA as u64 + before.0;
    let used = (blocks * NODE) as u64;
    vec![
        (CHUNKS + NODE) as u64..METADATA[0] as u64,
        METADATA[0] as u64 + used..DATA as u64,
        data(REGULAR, RESERVED),
        data(RESERVED, COMPRESSED),
        data(COMPRESSED, CACHE),
        DATA as u64 + CACHE.0 + CACHE.1..METADATA[1] as u64,
        METADATA[1] as u64 + used..TOTAL as u64,
    ]
}

/// An item of a leaf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) key: (u64, u8, u64),
    pub(super) data: Vec<u8>,
}

pub(super) fn item(key: (u64, u8, u64), words: &[u64]) -> Item {
    Item { key, data: words.iter().flat_map(|word| word.to_le_bytes()).collect() }
}

/// The record of an extent of a file that is not inline.
pub(super) fn file_extent(inode: u64, at: u64, kind: u8, (start, len): (u64, u64)) -> Item {
    let mut data = vec![0; 53];
    data[20] = kind;
    data[21..29].copy_from_slice(&(DATA_ADDRESS + start).to_le_bytes());
    data[29..37].copy_from_slice(&len.to_le_bytes());
    Item { key: (inode, 108, at), data }
}

/// The root of a tree.
pub(super) fn root_item(tree: u64, number: usize, level: u8) -> Item {
    let mut data = vec![0; 439];
    data[160..168].copy_from_slice(&GENERATION.to_le_bytes());
    data[176..184].copy_from_slice(&address(number).to_le_bytes());
    data[216] = 1;
    data[238] = level;
    Item { key: (tree, 132, 0), data }
}

/// A volume in memory.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    /// How many tree blocks of the metadata are in use.
    pub(super) blocks: usize,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self::make(false)
    }

    /// With block groups in a tree of their own.
    pub(super) fn with_block_group_tree() -> Self {
        Self::make(true)
    }

    fn make(group_tree: bool) -> Self {
        let mut sample = Self { bytes: vec![0; TOTAL], blocks: if group_tree { 16 } else { 15 } };
        sample.trees(group_tree);
        sample.superblock(group_tree);
        sample.seal();
        sample
    }

    fn trees(&mut self, group_tree: bool) {
        let minus = |number: u64| number.wrapping_neg();
        let mut system = vec![
            root_item(2, EXTENTS, 1),
            root_item(4, DEVICES, 0),
            root_item(5, TOP, 0),
            root_item(7, SUMS, 1),
        ];
        if group_tree {
            system.push(root_item(11, GROUPS, 0));
        }
        self.leaf(block(ROOTS[0]), 1, GENERATION, &system);
        let shared = (300, 108, 0);
        let mut dying = root_item(257, DYING, 1);
        dying.data[216] = 0;
        dying.data[220..237].copy_from_slice(&raw_key(shared));
        dying.data[237] = 1;
        let cache = file_extent(260, 0, 2, CACHE);
        self.leaf(
            block(ROOTS[1]),
            1,
            GENERATION,
            &[root_item(256, SUBVOLUME, 1), dying, cache, root_item(minus(9), RELOCATION, 0)],
        );
        self.node(block(ROOT), 1, 1, &[((2, 132, 0), ROOTS[0]), ((256, 132, 0), ROOTS[1])]);
        self.leaf(block(DEVICES), 4, GENERATION, &device_items());
        self.leaf(block(TOP), 5, GENERATION, &[item((256, 1, 0), &[0; 20])]);
        let mut inline = file_extent(257, 0, 0, (0, 0));
        inline.data.truncate(21 + 7);
        let mut hole = file_extent(258, 0, 1, (0, 0));
        hole.data[21..29].fill(0);
        let names = [
            item((256, 1, 0), &[0; 20]),
            inline,
            hole,
            file_extent(258, 4096, 1, REGULAR),
            file_extent(259, 0, 2, RESERVED),
        ];
        self.leaf(block(NAMES), 256, GENERATION, &names);
        let mut compressed = file_extent(300, 0, 1, COMPRESSED);
        compressed.data[16] = 3;
        self.leaf(block(SHARED), 256, EARLIER, &[compressed]);
        self.node(block(SUBVOLUME), 256, 1, &[((256, 1, 0), NAMES), (shared, SHARED)]);
        self.node(block(DYING), 257, 1, &[((256, 1, 0), NOBODYS), (shared, SHARED)]);
        self.leaf(block(SUMS_LEAF), 7, GENERATION, &[item((minus(10), 128, DATA_ADDRESS), &[0; 4])]);
        self.node(block(SUMS), 7, 1, &[((minus(10), 128, DATA_ADDRESS), SUMS_LEAF)]);
        self.leaf(block(RELOCATION), minus(9), GENERATION, &[]);
        self.leaf(CHUNKS, 3, GENERATION, &chunk_items());
        self.extents(group_tree);
    }

    fn extents(&mut self, group_tree: bool) {
        let data = [REGULAR, RESERVED, COMPRESSED, CACHE];
        let mut items: Vec<Item> =
            (0..self.blocks).map(|number| item((address(number), 169, 0), &[1, GENERATION, 2])).collect();
        items.push(item((SYSTEM_ADDRESS, 169, 0), &[1, GENERATION, 2]));
        // One with a reference of its own, and one that has its size in its key.
        items.push(item((address(SHARED), 176, 257), &[]));
        items[TOP].key = (address(TOP), 168, NODE as u64);
        items.extend(data.map(|(start, len)| item((DATA_ADDRESS + start, 168, len), &[1, GENERATION, 1])));
        let used = (self.blocks * NODE) as u64;
        let groups = [
            item((SYSTEM_ADDRESS, 192, SYSTEM_LEN), &[NODE as u64, 256, 2]),
            item((METADATA_ADDRESS, 192, METADATA_LEN), &[used, 256, 4 | 32]),
            item((DATA_ADDRESS, 192, DATA_LEN), &[data.iter().map(|(_, len)| len).sum(), 256, 1]),
        ];
        if group_tree {
            self.leaf(block(GROUPS), 11, GENERATION, &groups);
        } else {
            items.extend(groups);
        }
        items.sort();
        let (first, second) = items.split_at(9);
        self.leaf(block(EXTENT_LEAVES[0]), 2, GENERATION, first);
        self.leaf(block(EXTENT_LEAVES[1]), 2, GENERATION, second);
        let children = [(first[0].key, EXTENT_LEAVES[0]), (second[0].key, EXTENT_LEAVES[1])];
        self.node(block(EXTENTS), 2, 1, &children);
    }

    fn superblock(&mut self, group_tree: bool) {
        let used = (self.blocks + 1) * NODE + (32 << 10);
        let at = SUPERBLOCK;
        self.put(at + 0x20, FSID);
        let words =
            [0x1_0000, 1, u64::from_le_bytes(*b"_BHRfS_M"), GENERATION, address(ROOT), SYSTEM_ADDRESS];
        for (number, word) in words.into_iter().chain([0, 0, TOTAL as u64, used as u64, 6, 1]).enumerate() {
            self.put64(at + 0x30 + number * 8, word);
        }
        let array = [raw_key((256, 228, SYSTEM_ADDRESS)), chunk_items()[1].data.clone()].concat();
        for (number, word) in [NODE, NODE, NODE, NODE, array.len()].into_iter().enumerate() {
            self.put32(at + 0x90 + number * 4, word as u32);
        }
        self.put64(at + 0xA4, GENERATION);
        self.put64(at + 0xB4, if group_tree { 0b1011 } else { 0 });
        self.put64(at + 0xBC, 0x361);
        self.put(at + 0xC6, &[1, 0, 0]);
        self.put(at + 0xC9, &device_item());
        self.put(at + 0x12B, b"sample");
        self.put(at + 0x32B, &array);
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(super) fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub(super) fn get64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.bytes[at..].first_chunk().unwrap())
    }

    /// With these bytes at one place, the second copy the same, and all checksums put right.
    pub(super) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.seal();
        self
    }

    pub(super) fn with64(self, at: usize, value: u64) -> Self {
        self.with(at, &value.to_le_bytes())
    }

    /// With the items of a leaf changed.
    pub(super) fn with_items(mut self, at: usize, change: impl FnOnce(&mut Vec<Item>)) -> Self {
        let mut items = self.items(at);
        change(&mut items);
        let (owner, generation) = (self.get64(at + 88), self.get64(at + 80));
        self.leaf(at, owner, generation, &items);
        self.seal();
        self
    }

    /// With one byte more or less in an extent or a block group's count, as the superblock sees it.
    pub(super) fn with_used(self, change: impl FnOnce(u64) -> u64) -> Self {
        let used = self.get64(SUPERBLOCK + 0x78);
        self.with64(SUPERBLOCK + 0x78, change(used))
    }

    /// Where the data of the first item of a leaf lie that has this key.
    pub(super) fn data_of(&self, at: usize, key: (u64, u8, u64)) -> usize {
        let slot = self.items(at).iter().position(|item| item.key == key).unwrap();
        let header = at + 101 + slot * 25;
        at + 101 + u32::from_le_bytes(*self.bytes[header + 17..].first_chunk().unwrap()) as usize
    }

    /// The items of a leaf.
    pub(super) fn items(&self, at: usize) -> Vec<Item> {
        let word = |at: usize| u32::from_le_bytes(*self.bytes[at..].first_chunk().unwrap()) as usize;
        let item = |slot: usize| {
            let header = at + 101 + slot * 25;
            let key = (self.get64(header), self.bytes[header + 8], self.get64(header + 9));
            let data = at + 101 + word(header + 17);
            Item { key, data: self.bytes[data..data + word(header + 21)].to_vec() }
        };
        (0..word(at + 96)).map(item).collect()
    }

    fn header(&mut self, at: usize, owner: u64, generation: u64, count: usize, level: u8) {
        self.bytes[at..at + NODE].fill(0);
        let address =
            if at == CHUNKS { SYSTEM_ADDRESS } else { METADATA_ADDRESS + (at - METADATA[0]) as u64 };
        self.put(at + 32, FSID);
        self.put64(at + 48, address);
        self.put(at + 64, CHUNK_UUID);
        self.put64(at + 80, generation);
        self.put64(at + 88, owner);
        self.put32(at + 96, count as u32);
        self.bytes[at + 100] = level;
    }

    pub(super) fn leaf(&mut self, at: usize, owner: u64, generation: u64, items: &[Item]) {
        self.header(at, owner, generation, items.len(), 0);
        let mut end = NODE - 101;
        for (slot, Item { key, data }) in items.iter().enumerate() {
            end -= data.len();
            let header = at + 101 + slot * 25;
            self.put(header, &raw_key(*key));
            self.put32(header + 17, end as u32);
            self.put32(header + 21, data.len() as u32);
            self.put(at + 101 + end, data);
        }
    }

    pub(super) fn node(&mut self, at: usize, owner: u64, level: u8, children: &[((u64, u8, u64), usize)]) {
        self.header(at, owner, GENERATION, children.len(), level);
        for (slot, (key, child)) in children.iter().enumerate() {
            let pointer = at + 101 + slot * 33;
            self.put(pointer, &raw_key(*key));
            self.put64(pointer + 17, address(*child));
            self.put64(pointer + 25, if *child == SHARED { EARLIER } else { GENERATION });
        }
    }

    /// Puts all checksums right, and makes the second copies like the first ones.
    pub(super) fn seal(&mut self) {
        let blocks = (0..METADATA_LEN as usize / NODE).map(block);
        for at in blocks.chain([SUPERBLOCK, CHUNKS]) {
            self.seal_one(at);
        }
        let [first, second] = METADATA;
        self.bytes.copy_within(first..first + METADATA_LEN as usize, second);
    }

    /// As the superblock says; where it says nonsense, that is all the same.
    fn checksum(&self) -> Checksum {
        Checksum::of(self.bytes[SUPERBLOCK + 0xC4].into()).unwrap_or(Checksum::Crc32c)
    }

    pub(super) fn seal_one(&mut self, at: usize) {
        let bytes = &self.bytes[at + 32..at + NODE];
        let mut field = self.checksum().digest(bytes);
        field.resize(32, 0);
        self.put(at, &field);
    }

    /// Where the second copy of a block of the metadata lies.
    pub(super) const fn second_copy(at: usize) -> usize {
        at - METADATA[0] + METADATA[1]
    }

    /// What the reader says, both witnesses heard.
    pub(super) fn detect(&self) -> Detected {
        probe(&self.bytes, Context { sector_size: 512 }).unwrap().heard(&self.bytes)
    }

    pub(super) fn mapped(&self) -> FreeMap {
        self.detect().into_map()
    }

    pub(super) fn declined(&self) -> Decline {
        self.detect().into_decline()
    }
}

fn raw_key((object, kind, offset): (u64, u8, u64)) -> Vec<u8> {
    [&object.to_le_bytes()[..], &[kind], &offset.to_le_bytes()].concat()
}

fn device_item() -> Vec<u8> {
    let mut device = vec![0; 98];
    device[0] = 1;
    device[8..16].copy_from_slice(&(TOTAL as u64).to_le_bytes());
    device[16..24].copy_from_slice(&(SYSTEM_LEN + 2 * METADATA_LEN + DATA_LEN).to_le_bytes());
    device[66..82].copy_from_slice(DEVICE_UUID);
    device[82..98].copy_from_slice(FSID);
    device
}

fn chunk(address: u64, len: u64, kind: u64, copies: &[usize]) -> Item {
    let mut found = item((256, 228, address), &[len, 2, 64 << 10, kind, 0]);
    found.data.extend([0x1000u32.to_le_bytes(), (copies.len() as u32).to_le_bytes()].concat());
    for &copy in copies {
        found.data.extend([1u64.to_le_bytes(), (copy as u64).to_le_bytes()].concat());
        found.data.extend(DEVICE_UUID);
    }
    found
}

/// The device, and its three chunks.
fn chunk_items() -> Vec<Item> {
    vec![
        Item { key: (1, 216, 1), data: device_item() },
        chunk(SYSTEM_ADDRESS, SYSTEM_LEN, 2, &[CHUNKS]),
        chunk(METADATA_ADDRESS, METADATA_LEN, 4 | 32, &METADATA),
        chunk(DATA_ADDRESS, DATA_LEN, 1, &[DATA]),
    ]
}

/// What was seen of errors, a replacement that is long past, and the extents.
fn device_items() -> Vec<Item> {
    let extent = |at: usize, address, len| item((1, 204, at as u64), &[3, 256, address, len, 0, 0]);
    vec![
        item((0, 249, 1), &[0; 5]),
        item((0, 250, 0), &[1, 1, 1, 1, 2, 1, 1, 0, 0]),
        extent(CHUNKS, SYSTEM_ADDRESS, SYSTEM_LEN),
        extent(METADATA[0], METADATA_ADDRESS, METADATA_LEN),
        extent(DATA, DATA_ADDRESS, DATA_LEN),
        extent(METADATA[1], METADATA_ADDRESS, METADATA_LEN),
    ]
}
