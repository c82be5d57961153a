//! Btrfs volumes: making, changing and judging them with btrfs-progs.

use std::fs;
use std::path::Path;

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::Hearing;

use super::ext::make_files;
use super::{MIB, Random, look, mapped, noise, read_at, run, sparse, stdout, text, try_run, write_at};

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

/// The free bytes by what btrfs-progs print of chunks and extents, without what is kept for superblocks.
pub fn free_by_dump_tree(path: &Path) -> Extents {
    let superblock =
        String::from_utf8(stdout("btrfs", &["inspect-internal", "dump-super", text(path)])).unwrap();
    let field = |name| superblock.lines().find_map(|line| after(line, name)).unwrap();
    let (total, node) = (field("total_bytes"), field("nodesize"));
    let chunk_tree = dump(path, "chunk");
    // Address, length, places.
    let mut chunks: Vec<(u64, u64, Vec<u64>)> = Vec::new();
    let mut address = 0;
    for line in chunk_tree.lines() {
        if let Some((_, "CHUNK_ITEM", offset)) = key(line) {
            address = offset.parse().unwrap();
        } else if line.trim().starts_with("length ") && line.contains("stripe_len") {
            chunks.push((address, after(line, "length").unwrap(), Vec::new()));
        } else if line.trim().starts_with("stripe ") {
            chunks.last_mut().unwrap().2.push(after(line, "offset").unwrap());
        }
    }
    let mut used = vec![0..MIB, 64 * MIB..64 * MIB + (64 << 10), 256 << 30..(256 << 30) + (64 << 10)];
    let extent_tree = dump(path, "extent");
    for (start, kind, offset) in extent_tree.lines().filter_map(key) {
        let len = match kind {
            "EXTENT_ITEM" => offset.parse().unwrap(),
            "METADATA_ITEM" => node,
            _ => continue,
        };
        let start: u64 = start.parse().unwrap();
        let (address, _, places) =
            chunks.iter().find(|chunk| (chunk.0..chunk.0 + chunk.1).contains(&start)).unwrap();
        used.extend(places.iter().map(|place| start - address + place..start - address + place + len));
    }
    Extents::from_ranges(vec![0..total]).minus(&Extents::from_ranges(used))
}

/// Asserts that our map is the one of btrfs-progs, to the byte, and that its owners agree.
#[track_caller]
pub fn equals_dump_tree(path: &Path, what: &str) {
    let map = mapped(path);
    assert_eq!(map.free.ranges(), free_by_dump_tree(path).ranges(), "{what}");
    assert_eq!(map.free_bytes, map.free.total(), "{what}");
    assert!(map.on_request.is_empty());
    let Hearing::Agrees(testimony) = look(path).hearing else { panic!("{what}: not heard") };
    // Shared extents are owned several times.
    assert!(testimony.owned_bytes >= map.used_bytes, "{what}: {testimony:?}, used {}", map.used_bytes);
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

/// Changes bytes of the superblock, at an offset in it, and puts its checksum right.
pub fn change_superblock(path: &Path, at: u64, bytes: &[u8]) {
    write_at(path, SUPERBLOCK + at, bytes);
    seal(path, SUPERBLOCK, 4096);
}

/// Puts the checksum of a superblock or tree block right.
pub fn seal(path: &Path, at: u64, len: usize) {
    let crc = crc32c(&read_at(path, at, len)[32..]);
    write_at(path, at, &crc.to_le_bytes());
}

/// CRC-32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82F6_3B78 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}
