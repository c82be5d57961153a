//! Btrfs volumes: making, changing and judging them with btrfs-progs.

use std::fs;
use std::ops::Range;
use std::path::Path;

use vhd_compactor::extents::Extents;

use super::ext::make_files;
use super::{MIB, Random, crc32c, equals_map, noise, read_at, run, sparse, stdout, text, try_run, write_at};

pub const TOOLS: [&str; 2] = ["mkfs.btrfs", "btrfs"];
pub const SUPERBLOCK: u64 = 64 << 10;

/// A new volume, filled from `source` without a mount if given.
pub fn mkfs(path: &Path, size: u64, args: &[&str], source: Option<&Path>) {
    sparse(path, size);
    let mut all = vec!["-q", "-f"];
    all.extend_from_slice(args);
    if let Some(source) = source {
        all.extend_from_slice(&["--rootdir", text(source)]);
    }
    all.push(text(path));
    run("mkfs.btrfs", &all);
}

/// What btrfs-progs print of a tree.
fn dump(path: &Path, tree: &str) -> String {
    String::from_utf8_lossy(&stdout("btrfs", &["inspect-internal", "dump-tree", "-t", tree, text(path)]))
        .into()
}

/// The key of an item's line: object, kind, offset.
fn key(line: &str) -> Option<(&str, &str, &str)> {
    let (_, key) = line.trim().strip_prefix("item ")?.split_once("key (")?;
    let mut words = key.split_once(')')?.0.split(' ');
    Some((words.next()?, words.next()?, words.next()?))
}

/// The number after a word.
fn after(line: &str, word: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find(|found| *found == word)?;
    words.next()?.parse().ok()
}

/// A range of addresses, and where its copies begin on the device.
struct Chunk {
    addresses: Range<u64>,
    copies: Vec<u64>,
}

/// The chunks by what btrfs-progs print.
fn chunks(path: &Path) -> Vec<Chunk> {
    let mut chunks = Vec::<Chunk>::new();
    let mut address = 0;
    for line in dump(path, "chunk").lines() {
        if let Some((_, "CHUNK_ITEM", offset)) = key(line) {
            address = offset.parse().unwrap();
        } else if line.trim().starts_with("length ") && line.contains("stripe_len") {
            let end = address + after(line, "length").unwrap();
            chunks.push(Chunk { addresses: address..end, copies: Vec::new() });
        } else if line.trim().starts_with("stripe ") {
            chunks.last_mut().unwrap().copies.push(after(line, "offset").unwrap());
        }
    }
    chunks
}

/// Where the copies of these addresses lie on the device.
fn places(chunks: &[Chunk], start: u64, len: u64) -> Vec<Range<u64>> {
    let chunk = chunks.iter().find(|chunk| chunk.addresses.contains(&start)).unwrap();
    let place = |copy: &u64| start - chunk.addresses.start + copy;
    chunk.copies.iter().map(|copy| place(copy)..place(copy) + len).collect()
}

fn of_superblock(path: &Path, field: &str) -> u64 {
    let superblock = stdout("btrfs", &["inspect-internal", "dump-super", text(path)]);
    String::from_utf8(superblock).unwrap().lines().find_map(|line| after(line, field)).unwrap()
}

/// The free bytes by what btrfs-progs print of chunks and extents, without what is kept for superblocks.
pub fn free_by_dump_tree(path: &Path) -> Extents {
    let (total, node) = (of_superblock(path, "total_bytes"), of_superblock(path, "nodesize"));
    let chunks = chunks(path);
    let mut used = vec![0..MIB, 64 * MIB..64 * MIB + (64 << 10), 256 << 30..(256 << 30) + (64 << 10)];
    let extent_tree = dump(path, "extent");
    for (start, kind, offset) in extent_tree.lines().filter_map(key) {
        let len = match kind {
            "EXTENT_ITEM" => offset.parse().unwrap(),
            "METADATA_ITEM" => node,
            _ => continue,
        };
        used.extend(places(&chunks, start.parse().unwrap(), len));
    }
    Extents::from_ranges(vec![0..total]).minus(&Extents::from_ranges(used))
}

/// A tree block that is in use.
pub struct Block {
    pub owner: u64,
    pub level: u8,
    /// Where it lies on the device: in one place or two.
    pub copies: Vec<Range<u64>>,
}

/// All tree blocks that btrfs-progs come to, shared ones once.
pub fn tree_blocks(path: &Path) -> Vec<Block> {
    let (node, chunks) = (of_superblock(path, "nodesize"), chunks(path));
    let dump = stdout("btrfs", &["inspect-internal", "dump-tree", text(path)]);
    let mut addresses: Vec<u64> = String::from_utf8_lossy(&dump)
        .lines()
        .filter(|line| line.contains(" free space "))
        .filter_map(|line| after(line, "leaf").or_else(|| after(line, "node")))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let block = |at| {
        let copies = places(&chunks, at, node);
        let header = read_at(path, copies[0].start, 101);
        let owner = u64::from_le_bytes(*header[88..].first_chunk().unwrap());
        Block { owner, level: header[100], copies }
    };
    addresses.into_iter().map(block).collect()
}

/// An item of a leaf: its key as it is stored, and its data.
#[derive(Clone)]
pub struct Item {
    pub key: [u8; 17],
    pub data: Vec<u8>,
}

impl Item {
    pub fn object(&self) -> u64 {
        u64::from_le_bytes(*self.key.first_chunk().unwrap())
    }

    pub const fn kind(&self) -> u8 {
        self.key[8]
    }

    pub fn offset(&self) -> u64 {
        u64::from_le_bytes(*self.key[9..].first_chunk().unwrap())
    }
}

/// The items of a leaf.
pub fn items(leaf: &[u8]) -> Vec<Item> {
    let word = |at: usize| u32::from_le_bytes(*leaf[at..].first_chunk().unwrap()) as usize;
    let item = |slot: usize| {
        let header = 101 + slot * 25;
        let data = 101 + word(header + 17);
        Item {
            key: *leaf[header..].first_chunk().unwrap(),
            data: leaf[data..data + word(header + 21)].to_vec(),
        }
    };
    (0..word(96)).map(item).collect()
}

/// Puts these items into a leaf instead of its own, and its checksum right.
pub fn put_items(leaf: &mut [u8], items: &[Item]) {
    leaf[96..100].copy_from_slice(&(items.len() as u32).to_le_bytes());
    leaf[101..].fill(0);
    let mut end = leaf.len() - 101;
    for (slot, Item { key, data }) in items.iter().enumerate() {
        end -= data.len();
        let header = 101 + slot * 25;
        leaf[header..header + 17].copy_from_slice(key);
        leaf[header + 17..header + 21].copy_from_slice(&(end as u32).to_le_bytes());
        leaf[header + 21..header + 25].copy_from_slice(&(data.len() as u32).to_le_bytes());
        leaf[101 + end..101 + end + data.len()].copy_from_slice(data);
    }
    put_checksum(leaf);
}

/// Puts the checksum at the beginning of a superblock or tree block right.
pub fn put_checksum(block: &mut [u8]) {
    let sum = crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Asserts that our map is the one of btrfs-progs, to the byte, and that its owners agree.
#[track_caller]
pub fn equals_dump_tree(path: &Path, what: &str) {
    equals_map(path, &free_by_dump_tree(path), what);
}

/// Whether btrfs check finds nothing to do, checksums of all data included.
#[track_caller]
pub fn assert_sound(path: &Path) {
    run("btrfs", &["check", "--check-data-csum", text(path)]);
}

/// Grows a mounted volume old: files deleted, in pieces and rewritten; snapshots, of which one is deleted; shared
/// extents; compression; reserved space; a balance to the end.
pub fn age(folder: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let at = |name: &str| folder.join(name);
    run("btrfs", &["subvolume", "create", text(&at("home"))]);
    for round in 0..4 {
        make_files(&at("home").join(format!("round {round}")), 50);
        for number in 0..60 {
            let path = at(&format!("file {number}"));
            let len = [100, 3000, 40_000, 200_000][random.below(4) as usize];
            fs::write(&path, noise(len, seed + number + round * 100)).unwrap();
            write_at(&path, len / 2, &noise(9000, number));
        }
        run("sync", &["-f", text(folder)]);
        run("btrfs", &["subvolume", "snapshot", text(&at("home")), text(&at(&format!("snapshot {round}")))]);
        for number in (0..60).filter(|number| number % 4 == round) {
            fs::remove_file(at(&format!("file {number}"))).unwrap();
        }
        let _ = fs::remove_dir_all(at("home").join(format!("round {}", round / 2)));
    }
    run("btrfs", &["subvolume", "delete", "-c", text(&at("snapshot 1"))]);
    run("btrfs", &["subvolume", "sync", text(folder)]);
    fs::write(at("large"), noise(3 * MIB, seed)).unwrap();
    run("cp", &["--reflink=always", text(&at("large")), text(&at("shared"))]);
    write_at(&at("shared"), MIB, b"changed");
    fs::write(at("packed"), vec![b'a'; 4 * MIB as usize]).unwrap();
    let _ = try_run("btrfs", &["filesystem", "defragment", "-czstd", text(&at("packed"))]);
    run("fallocate", &["-l", "3M", text(&at("reserved"))]);
    run("sync", &["-f", text(folder)]);
    fs::remove_file(at("large")).unwrap();
    let _ = try_run("btrfs", &["balance", "start", "-dusage=50", text(folder)]);
}

/// Puts the checksum of a superblock or tree block right.
pub fn seal(path: &Path, at: u64, len: usize) {
    let mut block = read_at(path, at, len);
    put_checksum(&mut block);
    write_at(path, at, &block);
}
