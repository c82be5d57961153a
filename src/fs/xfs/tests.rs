//! One test for each thing that is refused, on a volume made by hand.

use super::sample::*;
use crate::fs::{DeclineReason, Hearing, Mapping, Testimony};
use proptest::prelude::*;

/// The volume is declined for a contradiction, in these words.
#[track_caller]
fn contradicts(sample: &Sample, what: &str) {
    sample.declined().is_for(DeclineReason::Inconsistent, what);
}

#[track_caller]
fn declines(sample: &Sample, reason: DeclineReason, what: &str) {
    sample.declined().is_for(reason, what);
}

#[test]
fn both_versions_are_mapped_and_every_used_block_has_an_owner() {
    for sample in [Sample::new(), Sample::old()] {
        let detected = sample.detect();
        assert_eq!((detected.name, detected.label.as_deref()), ("XFS", Some("sample")));
        let Mapping::Mapped(map) = detected.mapping else { panic!("{:?}", detected.mapping) };
        assert_eq!(map.free.ranges(), free_ranges());
        assert_eq!(map.free_bytes, map.free.total());
        assert_eq!(map.used_bytes, 456 * 1024 - map.free_bytes);
        // The blocks of trees that version 4 does not have are owned by nobody here.
        let unowned = if sample.v5 { 0 } else { 2 * 3 * 1024 };
        let testimony = Testimony { records: 64, owned_bytes: map.used_bytes - unowned };
        assert!(matches!(detected.hearing, Hearing::Agrees(found) if found == testimony));
    }
}

#[test]
fn the_walk_says_the_same_in_small_steps() {
    let sample = Sample::new();
    let mut detected = super::probe(&sample.bytes, crate::fs::Context { sector_size: 512 }).unwrap();
    let mut steps = 0;
    while !detected.hear(&sample.bytes, 1).finished {
        steps += 1;
    }
    assert!(steps > 64, "{steps}");
    let Hearing::Agrees(found) = detected.hearing else { panic!("{:?}", detected.mapping) };
    let Hearing::Agrees(whole) = sample.detect().hearing else { panic!() };
    assert_eq!(found, whole);
}

#[test]
fn each_feature_is_considered_by_its_bit() {
    // Read-only compatible, incompatible, log.
    for (at, known) in [(212, 0xFu32), (216, 0xEF), (220, 1)] {
        for bit in (0..32).filter(|&bit| (at, bit) != (216, 4)) {
            let before = Sample::new().get32(at);
            let mut sample = Sample::new().with32(at, before | 1 << bit);
            sample.put(248, b"a file system id");
            sample.seal();
            if known >> bit & 1 == 0 {
                declines(&sample, DeclineReason::UnknownFeature, "a feature that is not understood");
            } else {
                sample.mapped();
            }
        }
    }
    declines(&Sample::new().with32(216, 0x3B), DeclineReason::ErrorState, "xfs_repair");
    for (bit, name) in [(8, "a metadata directory tree"), (9, "a zoned realtime"), (10, "with gaps")] {
        declines(&Sample::new().with32(216, 0x2B | 1 << bit), DeclineReason::UnknownFeature, name);
    }
    // Compatible features are by definition no matter of free space.
    Sample::new().with32(208, u32::MAX).mapped();
}

#[test]
fn metadata_may_have_a_uuid_of_its_own() {
    let mut sample = Sample::new();
    let metadata = sample.bytes[32..48].to_vec();
    sample.put32(216, 0x2F);
    sample.put(248, &metadata);
    sample.put(32, b"one for a person");
    sample.put(LOG + 304, b"one for a person");
    sample.seal();
    sample.mapped();
    let sample = sample.with8(248, b'A');
    contradicts(&sample, "belongs to another file system");
}

#[test]
fn versions_and_flags_of_version_4_are_considered() {
    let unknown = |sample: &Sample| {
        declines(sample, DeclineReason::UnknownFeature, "a feature that is not understood");
    };
    for version in [0xB4A3u16, 0xB4A6, 0xB6A4, 0x94A4] {
        unknown(&Sample::old().with16(100, version));
    }
    for bit in [0, 2, 4, 5, 6, 8, 10, 31] {
        unknown(&Sample::old().with32(200, 0x8A | 1 << bit));
        unknown(&Sample::old().with32(204, 0x8A | 1 << bit));
    }
    // With file types, the names are read in another way.
    contradicts(&Sample::old().with32(200, 0x28A), "directory 64");
    // The second flags are not there without the bit that says so, and so counters are not lazy.
    let mut sample = Sample::old().with16(100, 0x34A4);
    sample.put32(200, 0);
    sample.put32(204, 0);
    sample.mapped();
}

#[test]
fn other_devices_decline() {
    let unknown = DeclineReason::UnknownFeature;
    declines(&Sample::new().with64(16, 1000), unknown, "a realtime section");
    declines(&Sample::new().with64(24, 1000), unknown, "a realtime section");
    declines(&Sample::new().with64(48, 0), unknown, "Its log is on another device");
}

#[test]
fn each_impossible_field_of_the_superblock_declines() {
    for (at, value, what) in [
        (4, 1000, "block size"),
        (4, 256, "block size"),
        (4, 1 << 17, "block size"),
        (4, 2048, "block size"),
        (84, 60, "allocation groups"),
        (84, 257, "allocation groups"),
        (84, 0, "allocation groups"),
        (88, 0, "allocation groups"),
        (88, 1, "allocation groups"),
        (88, 3, "allocation groups"),
        (96, 0, "do not exist"),
        (96, 1000, "do not exist"),
    ] {
        contradicts(&Sample::new().with32(at, value), what);
    }
    for (at, value, what) in [
        (102, 0, "sector size"),
        (102, 256, "sector size"),
        (102, 1000, "sector size"),
        (102, 2048, "block size"),
        (104, 128, "inode size"),
        (104, 1024, "inode size"),
        (104, 4096, "inode size"),
        (106, 4, "inode size"),
        (106, 0, "inode size"),
    ] {
        contradicts(&Sample::new().with16(at, value), what);
    }
    for (at, value, what) in [
        (120, 11, "block size"),
        (122, 8, "inode size"),
        (123, 2, "inode size"),
        (124, 9, "allocation groups"),
        (124, 7, "allocation groups"),
        (126, 1, "never finished"),
    ] {
        contradicts(&Sample::new().with8(at, value), what);
    }
    contradicts(&Sample::new().with64(8, 457), "larger than its partition");
    contradicts(&Sample::new().with64(8, 300), "allocation groups");
    contradicts(&Sample::new().with64(8, 1 << 60), "allocation groups");
    contradicts(&Sample::new().with64(48, 256 + 150), "do not exist");
    contradicts(&Sample::new().with64(48, 1 << 50), "do not exist");
    contradicts(&Sample::new().with64(128, 1 << 60), "more inodes than fit it");
    contradicts(&Sample::new().with64(128, 128), "its superblock says 128");
    contradicts(&Sample::new().with64(144, 300), "its superblock says 300");
    contradicts(&Sample::old().with64(144, 300), "its superblock says 300");
    contradicts(&Sample::new().with64(240, 9 << 32), "newer than the end of the log");
    let mut sample = Sample::new();
    sample.bytes[110] ^= 1;
    contradicts(&sample, "checksum of its superblock");
}

#[test]
fn each_field_of_the_headers_is_checked() {
    for (at, what) in [
        (AGF, "is damaged"),
        (AGF + 4, "another version"),
        (AGF + 8, "is damaged"),
        (AGF + 12, "length"),
        (AGF + 40, "free list"),
        (AGF + 44, "free list"),
        (AGF + 52, "free blocks"),
        (AGF + 56, "free blocks"),
        (AGF + 60, "tree blocks"),
        (AGI, "is damaged"),
        (AGI + 4, "another version"),
        (AGI + 8, "is damaged"),
        (AGI + 12, "length"),
        (AGI + 16, "inodes"),
        (AGI + 28, "inodes"),
    ] {
        for sample in [Sample::new(), Sample::old()] {
            let before = sample.get32(at);
            contradicts(&sample.with32(at, before + 1), what);
        }
    }
    contradicts(&Sample::new().with32(AGF + 80, 2), "tree blocks");
    contradicts(&Sample::new().with32(AGF + 48, 5), "its superblock says");
    contradicts(&Sample::new().with32(AGF + 48, 1000), "its superblock says");
    contradicts(&Sample::new().with32(AGFL, 0), "is damaged");
    contradicts(&Sample::new().with32(AGFL + 4, 1), "is damaged");
    for (at, uuid, lsn, crc) in [(AGF, 64, 208, 216), (AGI, 296, 320, 312), (AGFL, 8, 24, 32)] {
        let mut sample = Sample::new();
        sample.bytes[at + uuid] ^= 1;
        contradicts(&sample, "checksum of a header");
        sample.seal_one(at, 512, crc);
        contradicts(&sample, "belongs to another file system");
        contradicts(&Sample::new().with64(at + lsn, 1 << 32 | 3), "newer than the end of the log");
        Sample::new().with64(at + lsn, 1 << 32 | 2).mapped();
        Sample::new().with64(at + lsn, u64::MAX).mapped();
    }
}

#[test]
fn each_field_of_a_tree_block_is_checked() {
    let blocks = [BNO, BNO_LEAVES[0], BNO_LEAVES[1], CNT, INO, FINO, RMAP, REFC];
    for at in blocks {
        contradicts(&Sample::new().with8(at, 0), "another kind or level");
        contradicts(&Sample::new().with16(at + 4, 3), "another kind or level");
        contradicts(&Sample::new().with16(at + 6, 500), "impossible number of records");
        contradicts(&Sample::new().with32(at + 8, 77), "out of the order of its level");
        contradicts(&Sample::new().with64(at + 24, 2 << 32), "newer than the end of the log");
        for (field, sealed) in [(16, "belongs to somebody else"), (32, "belongs"), (48, "belongs")] {
            let mut sample = Sample::new();
            sample.bytes[at + field] ^= 1;
            contradicts(&sample, "does not match its checksum");
            sample.seal_one(at, BLOCK, 52);
            contradicts(&sample, sealed);
        }
    }
    for at in [BNO, BNO_LEAVES[1], CNT, INO, REFC] {
        contradicts(&Sample::new().with32(at + 12, 77), "are missing");
    }
    contradicts(&Sample::new().with32(BNO_LEAVES[0] + 12, 77), "out of the order of its level");
    for root in [16, 20, 24, 88] {
        contradicts(&Sample::new().with32(AGF + root, 300), "do not exist");
    }
    for levels in [28, 32, 36, 92] {
        contradicts(&Sample::new().with32(AGF + levels, 0), "no levels");
        contradicts(&Sample::new().with32(AGF + levels, 100), "100 levels");
    }
    for (root, levels) in [(20, 24), (328, 332)] {
        contradicts(&Sample::new().with32(AGI + root, 300), "do not exist");
        contradicts(&Sample::new().with32(AGI + levels, 0), "no levels");
    }
}

#[test]
fn a_tree_that_leads_back_to_itself_ends() {
    // Both children of the root are one leaf; in version 4 nothing says where a block belongs.
    let mut sample = Sample::old();
    let room = (BLOCK - 16) / 12;
    sample.put32(BNO + 16 + room * 8 + 4, 12);
    contradicts(&sample, "out of the order of its level");
    sample.put32(BNO_LEAVES[0] + 8, 12);
    sample.put32(BNO_LEAVES[0] + 12, 12);
    contradicts(&sample, "out of the order of its level");
}

#[test]
fn free_extents_must_be_in_order_and_the_same_in_both_trees() {
    for (sample, header) in [(Sample::new(), 56), (Sample::old(), 16)] {
        let leaf = BNO_LEAVES[0] + header;
        let changed = |changes: &[(usize, u32)]| {
            let mut sample = sample.clone();
            for &(at, value) in changes {
                sample.put32(at, value);
            }
            sample.seal();
            sample
        };
        contradicts(&changed(&[(leaf, 1)]), "overlap");
        contradicts(&changed(&[(leaf + 8, 20)]), "overlap");
        contradicts(&changed(&[(leaf + 4, 0)]), "do not exist");
        contradicts(&changed(&[(leaf, 15)]), "differ");
        // A block of a file becomes free, and another one does not: only one tree says so.
        contradicts(&changed(&[(leaf + 12, 37), (leaf + 4, 17)]), "differ");
        contradicts(&changed(&[(CNT + header, 150)]), "out of order");
    }
}

/// Makes both free space trees of group 0 say that `blocks` more are free before or after the extent at
/// `slot`, and all counts fit: only an owner can tell.
fn freed(mut sample: Sample, slot: usize, start: u32, end: u32) -> Sample {
    let header = if sample.v5 { 56 } else { 16 };
    let mut free = FREE[0].to_vec();
    let more = (free[slot].start - start) + (end - free[slot].end);
    free[slot] = start..end;
    for (number, range) in free.iter().enumerate() {
        let at = BNO_LEAVES[number / 4] + header + number % 4 * 8;
        sample.put32(at, range.start);
        sample.put32(at + 4, range.end - range.start);
    }
    free.sort_by_key(|range| (range.end - range.start, range.start));
    sample.put32(AGF + 56, free.last().map(|range| range.end - range.start).unwrap());
    for (number, range) in free.iter().enumerate() {
        sample.put32(CNT + header + number * 8, range.start);
        sample.put32(CNT + header + number * 8 + 4, range.end - range.start);
    }
    let free = sample.get32(AGF + 52) + more;
    sample.put32(AGF + 52, free);
    sample.put32(148, sample.get32(148) + more);
    sample.seal();
    sample
}

#[test]
fn what_is_owned_and_called_free_declines_by_its_owner() {
    for (slot, start, end, owner) in [
        (0, 13, 32, "free space tree (by block)"),
        (0, 11, 32, "the free list of allocation group 0"),
        (0, 14, 33, "inodes of allocation group 0"),
        (1, 64, 101, "inode 65"),
        (2, 109, 120, "inode 65"),
        (2, 110, 121, "inode 65"),
        (3, 121, 131, "inode 66"),
        (4, 131, 140, "inode 66"),
        (5, 141, 150, "inode 66"),
        (6, 151, 161, "inode 66"),
        (7, 161, 256, "inode 68"),
    ] {
        let mut sample = freed(Sample::new(), slot, start, end);
        // Reverse mappings would tell before the inodes do.
        sample.put32(AGF + 80, 0);
        sample.put32(212, sample.get32(212) & !2);
        sample.seal();
        contradicts(&sample, owner);
    }
    for (slot, start, end) in [(1, 64, 101), (5, 141, 150), (0, 14, 33)] {
        contradicts(&freed(Sample::new(), slot, start, end), "map calls free");
        contradicts(&freed(Sample::old(), slot, start, end), "map calls free");
    }
}

#[test]
fn reverse_mappings_alone_are_an_owner() {
    // Nobody has block 100 any more but the reverse mappings.
    let mut sample = freed(Sample::new(), 1, 64, 101);
    let (at, fork) = sample.inode(LIST);
    sample.list(fork, &[(0, 101, 9)]);
    sample.put64(at + 64, 15);
    sample.seal();
    contradicts(&sample, "inode 65");
    let mut sample = Sample::new();
    sample.put32(RMAP + 56 + 24, 0);
    sample.seal();
    contradicts(&sample, "out of order");
    contradicts(&Sample::new().with32(RMAP + 56 + 4, 1000), "do not exist");
}

#[test]
fn shared_extents_and_copies_in_the_making_are_owners() {
    let at = GROUP + REFC + 56;
    contradicts(&Sample::new().with32(at, 99), "a shared extent");
    contradicts(&Sample::new().with32(at + 12, 1 << 31 | 99), "a copy that was being made");
    contradicts(&Sample::new().with32(at + 12, 100), "out of order");
    contradicts(&Sample::new().with32(at + 4, 1000), "do not exist");
}

#[test]
fn each_field_of_an_inode_chunk_is_checked() {
    let at = INO + 56;
    contradicts(&Sample::new().with32(at, 440), "inodes of allocation group 0");
    contradicts(&Sample::new().with32(at, 600), "does not lie in its group");
    contradicts(&Sample::new().with32(at, u32::MAX), "does not lie in its group");
    contradicts(&Sample::new().with8(at + 6, 63), "another number");
    contradicts(&Sample::new().with8(at + 7, 58), "another number");
    contradicts(&Sample::new().with64(at + 8, !0x7), "another number");
    contradicts(&Sample::new().with16(at + 4, 0x8000), "another number");
    contradicts(&Sample::new().with16(INO + 6, 0), "hold 0 inodes");
    contradicts(&Sample::new().with16(INO + 6, 2), "out of order");
}

#[test]
fn a_chunk_may_have_holes() {
    let mut sample = Sample::new();
    // The last four inodes are not there.
    sample.put16(INO + 56 + 4, 0x8000);
    sample.put(INO + 56 + 6, &[60, 55]);
    sample.put32(AGI + 16, 60);
    sample.put32(AGI + 28, 55);
    sample.put64(128, 60);
    sample.seal();
    let Hearing::Agrees(found) = sample.detect().hearing else { panic!("{:?}", sample.declined()) };
    assert_eq!(found.records, 60);
    // Without the feature, there are no holes.
    contradicts(&sample.with32(216, 0x29), "another number of (free) inodes");
}

#[test]
fn each_field_of_an_inode_is_checked() {
    for sample in [Sample::new(), Sample::old()] {
        let (list, list_fork) = sample.inode(LIST);
        let (tree, tree_fork) = sample.inode(TREE);
        let with = |at: usize, bytes: &[u8]| {
            let mut sample = sample.clone();
            sample.put(at, bytes);
            sample.seal();
            sample
        };
        contradicts(&with(list, b"XX"), "inode 65 is damaged");
        contradicts(&with(list + 4, &[if sample.v5 { 2 } else { 3 }]), "inode 65 is damaged");
        for format in [0, 1, 4, 5, 9] {
            contradicts(&with(list + 5, &[format]), "a fork of an unknown kind");
            contradicts(&with(list + 83, &[format]), "a fork of an unknown kind");
        }
        contradicts(&with(list + 5, &[3]), "inode 65");
        contradicts(&with(list + 64, &[0, 0, 0, 0, 0, 0, 0, 17]), "says that it has 17");
        contradicts(&with(list + 76, &[0, 0, 0, 3]), "inode 65");
        contradicts(&with(list + 76, &[0, 0, 0, 1]), "says that it has 16");
        contradicts(&with(list + 76, &[0, 1, 0, 0]), "more extents than fit it");
        contradicts(&with(list + 80, &[0, 2]), "inode 65");
        contradicts(&with(list + 82, &[0]), "attributes and no place");
        contradicts(&with(list + 82, &[255]), "outside of itself");
        contradicts(&with(list + 90, &[0, 1]), "a realtime section");
        contradicts(&with(list_fork + 16, &[0; 8]), "out of order");
        contradicts(&with(list_fork + 13, &[0, 0, 0]), "do not exist");
        contradicts(&with(list_fork, &[0x7F]), "out of order");
        contradicts(&with(list_fork + 8, &[0xFF]), "do not exist");
        contradicts(&with(tree_fork, &[0, 0]), "0 levels");
        contradicts(&with(tree_fork, &[0, 2]), "another kind or level");
        contradicts(&with(tree_fork, &[1, 0]), "256 levels");
        contradicts(&with(tree_fork + 2, &[0, 0]), "impossible tree");
        contradicts(&with(tree_fork + 2, &[0, 100]), "impossible tree");
        contradicts(&with(tree_fork + 2, &[0, 1]), "are missing");
        let count = if sample.v5 { tree + 31 } else { tree + 79 };
        contradicts(&with(count, &[4]), "has 3 extents and says that it has 4");
    }
    let sample = Sample::new();
    let (list, _) = sample.inode(LIST);
    contradicts(&sample.clone().with64(list + 152, 66), "says that it is another one");
    contradicts(&sample.clone().with64(list + 112, 2 << 32), "newer than the end of the log");
    let mut sample = Sample::new();
    sample.bytes[list + 160] ^= 1;
    contradicts(&sample, "inode 65 does not match its checksum");
    sample.seal_one(list, 512, 100);
    contradicts(&sample, "says that it is another one");
    for leaf in BMAP_LEAVES {
        contradicts(&Sample::new().with64(leaf + 32, 2 << 32), "newer than the end of the log");
        contradicts(&Sample::new().with16(leaf + 6, 0), "impossible number of records");
        let mut sample = Sample::new();
        sample.bytes[leaf + 56] ^= 1;
        contradicts(&sample, "does not match its checksum");
        sample.seal_one(leaf, BLOCK, 64);
        contradicts(&sample, "belongs to somebody else");
    }
}

#[test]
fn eight_unused_bytes_at_the_end_of_a_directory_block_are_unused() {
    for sample in [Sample::new(), Sample::old()] {
        let get = |at: usize, len: usize| &sample.bytes[at..at + len];
        let names = u32::from_be_bytes(get(NAMES + BLOCK - 8, 4).try_into().unwrap()) as usize;
        let end = NAMES + BLOCK - 8 - names * 8;
        let is_last = |at: &usize| {
            let len = usize::from(u16::from_be_bytes(get(at + 2, 2).try_into().unwrap()));
            get(*at, 2) == [0xFF, 0xFF] && at + len == end
        };
        let last = (NAMES..end).step_by(8).find(is_last).unwrap();
        let shorter = sample.clone().with16(last + 2, (end - 8 - last) as u16);
        contradicts(&shorter, "is damaged");
        shorter.with16(end - 8, 0xFFFF).with16(end - 6, 8).mapped();
    }
}

#[test]
fn a_name_for_an_inode_in_free_space_declines() {
    for sample in [Sample::new(), Sample::old()] {
        // The inode number of an entry, in the directory of blocks and in the one in its inode.
        let entry = NAMES + if sample.v5 { 64 + 16 + 16 + 24 } else { 16 + 16 + 16 + 24 };
        let (root, fork) = sample.inode(64);
        let inline = fork + 6 + 3 + 4 + usize::from(sample.v5);
        contradicts(&sample.clone().with64(entry, 400), "a link to the list (inode 400, in directory 68)");
        contradicts(&sample.clone().with32(inline, 400), "list (inode 400, in directory 64)");
        for inode in [512, 1 << 40] {
            contradicts(
                &sample.clone().with64(entry, if inode == 512 { 912 } else { inode }),
                "does not exist",
            );
        }
        contradicts(&sample.clone().with32(inline, 912), "does not exist");
        contradicts(&sample.clone().with32(fork + 2, 912), "does not exist");
        contradicts(&sample.clone().with8(fork, 9), "directory 64");
        contradicts(&sample.clone().with8(fork + 6, 255), "is damaged");
        contradicts(&sample.clone().with64(root + 56, 1), "is damaged");
        contradicts(&sample.clone().with64(root + 56, 1 << 40), "longer than itself");
        contradicts(&sample.clone().with8(NAMES + 3, 0), "is damaged");
        contradicts(&sample.clone().with32(NAMES + BLOCK - 8, 9000), "is damaged");
        contradicts(&sample.clone().with16(entry - 22, 0), "is damaged");
        contradicts(&sample.clone().with16(entry - 22, 7), "is damaged");
        contradicts(&sample.clone().with16(entry - 22, 0x7FF8), "is damaged");
        contradicts(&sample.clone().with8(192, 9), "directory block size");
        // Two blocks make one of the directory, and there is only one.
        contradicts(&sample.clone().with8(192, 1), "is incomplete");
    }
    for (at, what) in [(24, "belongs to somebody else"), (40, "belongs to somebody else")] {
        let mut sample = Sample::new();
        sample.bytes[NAMES + at] ^= 1;
        contradicts(&sample, "does not match its checksum");
        sample.seal_one(NAMES, BLOCK, 4);
        contradicts(&sample, what);
    }
    contradicts(&Sample::new().with64(NAMES + 16, 2 << 32), "newer than the end of the log");
}

#[test]
fn an_inode_that_is_marked_free_and_looks_used_counts_as_used() {
    let sample = Sample::new();
    let (at, fork) = sample.inode(80);
    let mut sample = sample;
    sample.put16(at + 2, 0o100_644);
    sample.put64(at + 64, 1);
    sample.put32(at + 76, 1);
    sample.list(fork, &[(0, 200, 1)]);
    sample.seal();
    contradicts(&sample, "inode 80");
    // One whose checksum is wrong is rubbish, and free.
    sample.bytes[at + 10] ^= 1;
    sample.mapped();
}

#[test]
fn an_unmount_record_is_found_wherever_the_log_ended() {
    for sample in [Sample::new(), Sample::old()] {
        for cycle in [1, 2, 77] {
            for sector in [0, 1, 63, 64, 125, 126] {
                let mut sample = sample.clone();
                sample.unmount(cycle, sector);
                sample.mapped();
                sample.seal_log(sector);
                sample.mapped();
                // A record after it: the file system was mounted again.
                let next = LOG + (sector + 2) % LOG_SECTORS * 512;
                sample.put32(next, if sector == 126 { cycle + 1 } else { cycle });
                declines(&sample, DeclineReason::JournalPending, "mount and unmount it once");
            }
            // A record that goes round the end; in the first round, nothing is after it.
            let mut sample = sample.clone();
            assert_eq!(sample.unmount(cycle, 127), 1);
            sample.mapped();
        }
    }
}

#[test]
fn each_field_of_the_last_record_is_checked() {
    let pending = |sample: &Sample| {
        declines(sample, DeclineReason::JournalPending, "mount and unmount it once");
    };
    for (at, value) in [
        (0, 0),
        (0, 1),
        (4, 2),
        (8, 3),
        (8, 0),
        (12, 1024),
        (12, 0),
        (12, 1 << 20),
        (16, 3),
        (20, 1),
        (40, 2),
        (304, 7),
        (320, 1 << 20),
        (512, 2),
        (520, 0xAA00_0000),
    ] {
        pending(&Sample::new().with32(LOG + at, value));
    }
    // A log of another age, of nothing, or of version 2 where only version 1 may be.
    pending(&Sample::new().with32(LOG + 127 * 512, 7));
    pending(&Sample::old().with16(100, 0xB0A4));
    let mut sample = Sample::old().with16(100, 0xB0A4);
    sample.put32(LOG + 8, 1);
    sample.mapped();
    let mut sample = Sample::new();
    sample.bytes[LOG..LOG + LOG_SECTORS * 512].fill(0);
    pending(&sample);
    // Some systems write no UUID.
    let mut sample = Sample::new();
    sample.put(LOG + 304, &[0; 16]);
    sample.mapped();
    // A checksum that is there must fit.
    let mut sample = Sample::new();
    sample.seal_log(0);
    sample.mapped();
    sample.bytes[LOG + 512 + 100] ^= 1;
    contradicts(&sample, "the last record of its log");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damage_never_frees_what_is_owned(
        old: bool,
        sealed: bool,
        damage in proptest::collection::vec((0usize..300, 0usize..1024, any::<u8>()), 1..6),
    ) {
        let mut sample = if old { Sample::old() } else { Sample::new() };
        // Blocks that matter, more often than the others.
        const HOT: [usize; 20] = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 12, 13, 32, 33, 33, 161, 130, 256, 257, 272];
        for (block, at, value) in damage {
            let block = HOT.get(block % 40).copied().unwrap_or(block);
            sample.bytes[block * BLOCK + at] = value;
        }
        if sealed {
            sample.seal();
        }
        if let Some(detected) = super::probe(&sample.bytes, crate::fs::Context { sector_size: 512 })
            && let Mapping::Mapped(map) = detected.heard(&sample.bytes).mapping
        {
            prop_assert!(map.free.ranges().iter().all(|range| range.end <= 456 * 1024));
        }
    }
}
