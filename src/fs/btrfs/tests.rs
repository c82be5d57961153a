//! The first witness: one test for each thing that is refused, on a volume made by hand.

use super::sample::*;
use crate::fs::{Context, DeclineReason, Hearing, Mapping, Testimony};
use proptest::prelude::*;

const CONTEXT: Context = Context { sector_size: 512 };

/// The volume is declined for a contradiction, in these words.
#[track_caller]
pub(super) fn contradicts(sample: &Sample, what: &str) {
    sample.declined().is_for(DeclineReason::Inconsistent, what);
}

#[track_caller]
pub(super) fn unknown(sample: &Sample, what: &str) {
    declines(sample, DeclineReason::UnknownFeature, what);
}

#[track_caller]
fn declines(sample: &Sample, reason: DeclineReason, what: &str) {
    sample.declined().is_for(reason, what);
}

#[test]
fn what_is_free_is_mapped_and_every_used_byte_has_an_owner() {
    for sample in [Sample::new(), Sample::with_block_group_tree()] {
        let detected = sample.detect();
        assert_eq!((detected.name, detected.label.as_deref()), ("Btrfs", Some("sample")));
        let Mapping::Mapped(map) = detected.mapping else { panic!("{:?}", detected.mapping) };
        assert_eq!(map.free.ranges(), free_ranges(sample.blocks));
        assert_eq!(map.free_bytes, map.free.total());
        assert_eq!((map.used_bytes, map.spans), (TOTAL as u64 - map.free_bytes, TOTAL as u64));
        // Six extents of files; all trees but the root tree and that of chunks.
        let trees = sample.blocks as u64 - 8;
        let testimony = Testimony { records: 6 + trees, owned_bytes: map.used_bytes };
        assert!(matches!(detected.hearing, Hearing::Agrees(found) if found == testimony), "{testimony:?}");
    }
}

#[test]
fn the_walk_says_the_same_in_small_steps() {
    let sample = Sample::new();
    let mut detected = super::probe(&sample.bytes, CONTEXT).unwrap();
    let mut steps = 0;
    while !detected.hear(&sample.bytes, 1).finished {
        steps += 1;
    }
    assert!(steps > 8, "{steps}");
    let Hearing::Agrees(found) = detected.hearing else { panic!("{:?}", detected.mapping) };
    let Hearing::Agrees(whole) = sample.detect().hearing else { panic!() };
    assert_eq!(found, whole);
}

#[test]
fn each_feature_is_considered_by_its_bit() {
    let (incompat, read_only) = (SUPERBLOCK + 0xBC, SUPERBLOCK + 0xB4);
    let named = [
        (7, "RAID5"),
        (11, "three or four copies"),
        (12, "zones"),
        (13, "second kind of extent tree"),
        (14, "stripe tree"),
        (17, "chunks that were moved"),
    ];
    for bit in 0..64 {
        let sample = Sample::new();
        let with = sample.get64(incompat) | 1 << bit;
        let sample = sample.with64(incompat, with);
        match named.iter().find(|(number, _)| *number == bit) {
            Some((_, name)) => unknown(&sample, name),
            // The UUID of the metadata is none where it is not set.
            None if bit == 10 => contradicts(&sample, "belongs to somebody else"),
            None if bit < 10 || bit == 16 => drop(sample.mapped()),
            None => unknown(&sample, "unknown incompatible features"),
        }
        let sample = Sample::new().with64(read_only, 1 << bit);
        match bit {
            0..=2 => drop(sample.mapped()),
            3 => contradicts(&sample, "its tree 11 is missing"),
            _ => unknown(&sample, "unknown read-only compatible features"),
        }
    }
    unknown(&Sample::new().with64(incompat, 0x360), "before 2009");
    // Compatible features are by definition no matter of free space.
    Sample::new().with64(SUPERBLOCK + 0xAC, u64::MAX).mapped();
}

#[test]
fn metadata_may_have_a_uuid_of_its_own() {
    let mut sample = Sample::new();
    let uuid = sample.bytes[SUPERBLOCK + 0x20..][..16].to_vec();
    sample.put64(SUPERBLOCK + 0xBC, 0x761);
    sample.put(SUPERBLOCK + 0x23B, &uuid);
    sample.put(SUPERBLOCK + 0x20, b"one for a person");
    sample.seal();
    sample.mapped();
    contradicts(&sample.with(SUPERBLOCK + 0x23B, b"A"), "belongs to somebody else");
}

#[test]
fn each_flag_of_the_superblock_is_considered() {
    for bit in 1..64 {
        let sample = Sample::new().with64(SUPERBLOCK + 0x38, 1 | 1 << bit);
        match bit {
            2 => declines(&sample, DeclineReason::ErrorState, "marked as damaged"),
            32 => unknown(&sample, "a seed"),
            _ => unknown(&sample, "a dump, or being converted"),
        }
    }
}

#[test]
fn each_field_of_the_superblock_is_checked() {
    let mut sample = Sample::new();
    sample.put(SUPERBLOCK + 0x12B, b"S");
    contradicts(&sample, "super-recover");
    for (at, value, what) in [
        (0x30, 0x2_0000, "super-recover"),
        (0x48, 10, "another time"),
        (0x50, address(NOBODYS), "belongs to somebody else"),
        (0x50, address(ROOTS[0]), "another time or level"),
        (0x50, 1 << 60, "lies in no chunk"),
        (0x58, METADATA_ADDRESS, "lies in no chunk"),
        (0x58, SYSTEM_ADDRESS + 4096, "does not match its checksum"),
        (0x70, TOTAL as u64 + 4096, "larger than its partition"),
        (0x70, TOTAL as u64 - 4096, "another size"),
        (0x70, 0, "another size"),
        (0x78, 0, "its superblock says"),
        (0x90, 4096 | 2048 << 32, "block sizes"),
        (0x90, 2048 | 4096 << 32, "block sizes"),
        (0x90, 8192 | 4096 << 32, "block sizes"),
        (0x90, 4096 | 12288 << 32, "block sizes"),
        (0x90, 4096 | (1 << 17) << 32, "block sizes"),
        (0x90, 4096 | 8192 << 32, "checksum"),
        (0xA4, 8, "another time"),
        (0xC9, 2, "device"),
        (0xD1, TOTAL as u64 - 4096, "another size"),
        (0xD9, 4096, "device"),
        (0x10B, 1, "device"),
    ] {
        contradicts(&Sample::new().with64(SUPERBLOCK + at, value), what);
    }
    for (at, value, what) in [(0xC6, 8, "too many levels"), (0xC7, 8, "too many levels"), (0xC6, 0, "level")]
    {
        contradicts(&Sample::new().with(SUPERBLOCK + at, &[value]), what);
    }
    declines(
        &Sample::new().with64(SUPERBLOCK + 0x60, 1 << 20),
        DeclineReason::JournalPending,
        "mount and unmount it once",
    );
    for devices in [0, 2] {
        unknown(&Sample::new().with64(SUPERBLOCK + 0x88, devices), &format!("It lies on {devices} devices"));
    }
    unknown(&Sample::new().with(SUPERBLOCK + 0xC4, &[4]), "of kind 4");
    // Without its magic number it is no Btrfs.
    let sample = Sample::new().with(SUPERBLOCK + 0x40, b"-");
    assert!(super::probe(&sample.bytes, CONTEXT).is_none());
    let sample = &Sample::new().bytes[..SUPERBLOCK + 4095].to_vec();
    assert!(super::probe(sample, CONTEXT).is_none());
}

#[test]
fn blocks_are_sealed_as_the_superblock_says() {
    let expected = Sample::new().mapped().free;
    for kind in 1..=3 {
        let mut sample = Sample::new();
        sample.put(SUPERBLOCK + 0xC4, &[kind]);
        // All of it still has checksums of another kind.
        contradicts(&sample, "superblock of the Btrfs file system is damaged");
        sample.seal_one(SUPERBLOCK);
        contradicts(&sample, "does not match its checksum");
        sample.seal();
        assert_eq!(sample.mapped().free, expected);
        sample.bytes[block(0) + NODE - 1] ^= 1;
        sample.bytes[Sample::second_copy(block(0)) + NODE - 1] ^= 1;
        contradicts(&sample, "does not match its checksum");
    }
}

#[test]
fn a_newer_copy_of_the_superblock_declines() {
    let mut sample = Sample::new();
    sample.bytes.resize(COPY + NODE, 0);
    let copy = sample.bytes[SUPERBLOCK..SUPERBLOCK + NODE].to_vec();
    sample.put(COPY, &copy);
    sample.put64(COPY + 0x30, COPY as u64);
    sample.put64(COPY + 0x48, 9);
    sample.seal_one(COPY);
    sample.mapped();
    sample.put64(COPY + 0x48, 10);
    // Damaged; then whole.
    sample.mapped();
    sample.seal_one(COPY);
    contradicts(&sample, "newer than the first one");
    // That of a file system that was here before.
    sample.put(COPY + 0x20, b"another");
    sample.seal_one(COPY);
    sample.mapped();
}

#[test]
fn the_system_chunks_of_the_superblock_are_checked() {
    let (len, array) = (SUPERBLOCK + 0xA0, SUPERBLOCK + 0x32B);
    let with_len = |value: u32| Sample::new().with(len, &value.to_le_bytes());
    contradicts(&with_len(2049), "too long");
    contradicts(&with_len(16), "cut off");
    contradicts(&with_len(17 + 47), "cut off");
    contradicts(&with_len(17 + 79), "cut off");
    contradicts(&with_len(0), "lies in no chunk");
    contradicts(&Sample::new().with64(array + 17, 32 << 10), "its superblock differ");
}

#[test]
fn each_field_of_a_chunk_is_checked() {
    let chunk = Sample::new().data_of(CHUNKS, (256, 228, DATA_ADDRESS));
    let metadata = Sample::new().data_of(CHUNKS, (256, 228, METADATA_ADDRESS));
    let with = |at: usize, bytes: &[u8]| Sample::new().with(at, bytes);
    let with64 = |at: usize, value: u64| Sample::new().with64(at, value);
    // RAID0, 1, 10, 5, 6, 1 with three and four copies, remapped, and whatever there will be.
    for bit in (3..64).filter(|&bit| bit != 5) {
        unknown(&with64(chunk + 24, 1 | 1 << bit), "single and dup");
    }
    contradicts(&with64(chunk + 24, 0), "impossible kind");
    contradicts(&with64(chunk + 24, 1 | 32), "number of copies");
    contradicts(&with64(metadata + 24, 4), "number of copies");
    for copies in [0, 2] {
        contradicts(&with(chunk + 44, &[copies]), "number of copies");
    }
    contradicts(&with64(chunk + 48, 2), "another device");
    contradicts(&with(chunk + 64, b"A"), "another device");
    for start in [DATA as u64 + 512, TOTAL as u64 - 4096, u64::MAX - 4095] {
        contradicts(&with64(chunk + 56, start), "does not lie on its device");
    }
    contradicts(&with64(chunk, 0), "does not lie on its device");
    contradicts(&with64(chunk, 4097), "overlaps another one, or is out of order");
    // Over the one before it; unaligned; at the end of all addresses.
    let moved = |address: u64| Sample::new().with_items(CHUNKS, |items| items[3].key.2 = address);
    contradicts(&moved(METADATA_ADDRESS + 4096), "overlaps");
    contradicts(&moved(DATA_ADDRESS + 1), "overlaps");
    contradicts(&moved(u64::MAX - 4095), "overlaps");
    // Of another object; longer and shorter than it says.
    contradicts(&Sample::new().with_items(CHUNKS, |items| items[3].key.0 = 257), "is none");
    contradicts(&Sample::new().with_items(CHUNKS, |items| items[3].data.push(0)), "longer than it says");
    for len in [79, 47] {
        contradicts(&Sample::new().with_items(CHUNKS, |items| items[3].data.truncate(len)), "is cut off");
    }
    let more = item((257, 230, 0), &[]);
    unknown(&Sample::new().with_items(CHUNKS, |items| items.push(more)), "an item of kind 230");
}

#[test]
fn the_device_is_the_one_of_the_chunk_tree() {
    let device = Sample::new().data_of(CHUNKS, (1, 216, 1));
    for at in [0, 8, 16, 66] {
        contradicts(&Sample::new().with(device + at, b"A"), "not the one of its chunk tree");
    }
    contradicts(&Sample::new().with_items(CHUNKS, |items| items[0].data.truncate(97)), "not the one");
    contradicts(&Sample::new().with_items(CHUNKS, |items| drop(items.remove(0))), "differ");
    let again = |items: &mut Vec<Item>| {
        let mut again = items[0].clone();
        again.key.2 = 2;
        items.insert(1, again);
    };
    contradicts(&Sample::new().with_items(CHUNKS, again), "not the one of its chunk tree");
}

#[test]
fn the_extents_of_the_device_are_the_copies_of_the_chunks() {
    let at = block(DEVICES);
    let extents = Sample::new().items(at);
    for number in 2..extents.len() {
        let data = Sample::new().data_of(at, extents[number].key);
        for (offset, value) in [(8, 257), (16, 4096), (24, 4096), (24, u64::MAX), (24, 0)] {
            contradicts(&Sample::new().with64(data + offset, value), "is not a copy of a chunk");
        }
        let change = |change: fn(&mut Item)| Sample::new().with_items(at, |items| change(&mut items[number]));
        contradicts(&change(|item| item.key.2 += 4096), "is not a copy of a chunk");
        contradicts(&change(|item| item.data.truncate(31)), "is not a copy of a chunk");
        let without = Sample::new().with_items(at, |items| drop(items.remove(number)));
        let last = number == extents.len() - 1;
        contradicts(&without, if last { "copies of all chunks" } else { "is not a copy of a chunk" });
    }
    let of_another = |items: &mut Vec<Item>| items.last_mut().unwrap().key.0 = 2;
    contradicts(&Sample::new().with_items(at, of_another), "is not a copy of a chunk");
    let more = item((1, 204, 5 << 20), &[3, 256, DATA_ADDRESS, 4096]);
    contradicts(&Sample::new().with_items(at, |items| items.push(more)), "is not a copy of a chunk");
    let more = item((2, 205, 0), &[]);
    unknown(&Sample::new().with_items(at, |items| items.push(more)), "an item of kind 205");
    // What the device says that chunks take, in both places.
    let device = Sample::new().data_of(CHUNKS, (1, 216, 1));
    let mut sample = Sample::new();
    sample.put64(SUPERBLOCK + 0xD9, 4096);
    contradicts(&sample.with64(device + 16, 4096), "another sum");
}

#[test]
fn a_replacement_of_the_device_that_has_not_ended_declines() {
    let at = block(DEVICES);
    let state = Sample::new().data_of(at, (0, 250, 0)) + 32;
    for ended in [0, 2, 3] {
        Sample::new().with64(state, ended).mapped();
    }
    for under_way in [1, 4, 5] {
        declines(&Sample::new().with64(state, under_way), DeclineReason::Dirty, "being replaced");
    }
    let cut = Sample::new().with_items(at, |items| items[1].data.truncate(39));
    declines(&cut, DeclineReason::Dirty, "being replaced");
}

#[test]
fn a_balance_that_has_not_ended_declines() {
    let minus = |number: u64| number.wrapping_neg();
    let paused = item((minus(4), 248, 0), &[0; 56]);
    let with = |more: Item| Sample::new().with_items(block(ROOTS[1]), |items| items.push(more));
    declines(&with(paused), DeclineReason::Dirty, "A balance is under way");
    declines(&with(root_item(minus(8), NOBODYS, 0)), DeclineReason::Dirty, "A balance is under way");
}

#[test]
fn the_trees_of_the_root_tree_are_checked() {
    let at = block(ROOTS[0]);
    for number in [0, 1] {
        let tree = [2, 4][number];
        let mut without = Sample::new().with_items(at, |items| items[number].key.1 = 133);
        if number == 0 {
            without = without.with(block(ROOT) + 101 + 8, &[133]);
        }
        contradicts(&without, &format!("its tree {tree} is missing"));
        let again = Sample::new().with_items(at, |items| {
            let mut again = items[number].clone();
            again.key.2 = 1;
            items.insert(number + 1, again);
        });
        contradicts(&again, &format!("its tree {tree} is missing"));
        let cut = Sample::new().with_items(at, |items| items[number].data.truncate(238));
        contradicts(&cut, &format!("the root of tree {tree} is impossible"));
        let data = Sample::new().data_of(at, (tree, 132, 0));
        contradicts(&Sample::new().with(data + 238, &[8]), "is impossible");
        contradicts(&Sample::new().with64(data + 160, 10), "is impossible");
        contradicts(&Sample::new().with64(data + 160, 8), "another time or level");
        contradicts(&Sample::new().with64(data + 176, 1 << 60), "lies in no chunk");
    }
    let minus = 6u64.wrapping_neg();
    for (leaf, tree, name) in [(0, 6, "6"), (0, 12, "12"), (0, 13, "13"), (1, minus, "-6")] {
        let with = Sample::new().with_items(block(ROOTS[leaf]), |items| {
            items.push(root_item(tree, NOBODYS, 0));
            items.sort();
        });
        unknown(&with, &format!("It has a tree of number {name}."));
    }
}

#[test]
fn block_groups_are_those_of_the_chunks() {
    // Each in the leaf of the extent tree, or of their own, where it is.
    for sample in [Sample::new(), Sample::with_block_group_tree()] {
        let leaves = if sample.blocks == 16 { vec![GROUPS] } else { EXTENT_LEAVES.to_vec() };
        let mut seen = 0;
        for leaf in leaves {
            let at = block(leaf);
            for (number, found) in
                sample.items(at).into_iter().enumerate().filter(|(_, item)| item.key.1 == 192)
            {
                seen += 1;
                let data = sample.data_of(at, found.key);
                let used = sample.get64(data);
                for value in [used + 4096, used - 4096, 0] {
                    contradicts(&sample.clone().with64(data, value), "and it says");
                }
                contradicts(&sample.clone().with(data + 16, &[7]), "is not that of a chunk");
                let change =
                    |change: fn(&mut Item)| sample.clone().with_items(at, |items| change(&mut items[number]));
                contradicts(&change(|item| item.data.truncate(23)), "is not that of a chunk");
                contradicts(&change(|item| item.key.2 -= 4096), "is not that of a chunk");
                contradicts(&change(|item| item.key.2 = 0), "is not that of a chunk");
                if number != 0 {
                    let without = sample.clone().with_items(at, |items| drop(items.remove(number)));
                    contradicts(&without, "says nothing");
                    let again = sample.clone().with_items(at, |items| {
                        let mut again = items[number].clone();
                        again.key.2 += 1;
                        items.insert(number + 1, again);
                    });
                    contradicts(&again, "is not that of a chunk");
                }
            }
        }
        assert_eq!(seen, 3);
    }
    let sample = Sample::with_block_group_tree();
    let more = item((u64::MAX, 193, 0), &[]);
    unknown(&sample.clone().with_items(block(GROUPS), |items| items.push(more)), "an item of kind 193");
    let group = sample.items(block(GROUPS))[2].clone();
    unknown(
        &sample.clone().with_items(block(EXTENT_LEAVES[1]), |items| {
            items.push(group);
            items.sort();
        }),
        "an item of kind 192",
    );
    let without = sample.with_items(block(ROOTS[0]), |items| drop(items.pop()));
    contradicts(&without, "its tree 11 is missing");
}

#[test]
fn each_extent_is_checked() {
    let last = block(EXTENT_LEAVES[1]);
    let place = |kind| Sample::new().items(last).iter().rposition(|item| item.key.1 == kind).unwrap();
    let (data, meta) = (place(168), place(169));
    let change = |number: usize, change: fn(&mut Item)| {
        Sample::new().with_items(last, |items| change(&mut items[number]))
    };
    contradicts(&change(data, |item| item.key.0 = DATA_ADDRESS * 2), "lies in no chunk");
    contradicts(&change(data, |item| item.key.2 = 132 << 10), "lies in no chunk");
    contradicts(&change(data, |item| item.key.2 = 0), "lies in no chunk");
    contradicts(&change(data, |item| item.key.2 = u64::MAX - 4095), "lies in no chunk");
    contradicts(&change(data, |item| item.key.2 = 4097), "an impossible size");
    contradicts(&change(data, |item| item.key.0 += 512), "an impossible size");
    contradicts(&change(data, |item| item.key.2 = 8192), "and it says");
    contradicts(&change(data, |item| item.data.truncate(23)), "as before 2009");
    // A block that is called data, and data that are called a block.
    contradicts(&change(meta, |item| item.data[16] = 1), "an impossible size");
    let first = Sample::new().items(last).iter().position(|item| item.key == (DATA_ADDRESS, 168, REGULAR.1));
    contradicts(&change(first.unwrap(), |item| item.data[16] = 2), "an impossible size");
    contradicts(&change(first.unwrap(), |item| item.key.2 = RESERVED.0 + 4096), "overlaps another one");
    let again = Sample::new().with_items(last, |items| {
        let mut again = items[meta].clone();
        again.key.2 = 1;
        items.insert(meta + 1, again);
    });
    contradicts(&again, "overlaps another one");
    for kind in [180, 191, 255] {
        let more = item((u64::MAX, kind, 0), &[]);
        let more = Sample::new().with_items(last, |items| items.push(more));
        unknown(&more, &format!("an item of kind {kind}"));
    }
    contradicts(&Sample::new().with_used(|used| used + 4096), "its superblock says");
    contradicts(&Sample::new().with_used(|used| used - 4096), "its superblock says");
}

#[test]
fn each_field_of_a_tree_block_is_checked() {
    let trees =
        [block(ROOT), block(ROOTS[0]), block(EXTENTS), block(EXTENT_LEAVES[1]), block(DEVICES), CHUNKS];
    for at in trees {
        let mut sample = Sample::new();
        sample.put(at + 90, b"A");
        sample.bytes.copy_within(block(0)..block(20), Sample::second_copy(block(0)));
        contradicts(&sample, "does not match its checksum");
        for (offset, value, what) in [
            (32, 7, "belongs to somebody else"),
            (48, 4096, "belongs to somebody else"),
            (64, 7, "belongs to somebody else"),
            (80, 8, "another time or level"),
            (80, 10, "another time or level"),
            (88, 256, "of another tree"),
        ] {
            contradicts(&Sample::new().with64(at + offset, value), what);
        }
        for level in [1 - sample.bytes[at + 100], 7, 255] {
            contradicts(&Sample::new().with(at + 100, &[level]), "another time or level");
        }
        for count in [u32::MAX, 1 << 20, 160] {
            contradicts(&Sample::new().with(at + 96, &count.to_le_bytes()), "too many");
        }
        // The first key is another one, and keys out of order.
        if sample.bytes[at + 100] == 0 {
            contradicts(&Sample::new().with(at + 101 + 25, &[0; 17]), "out of order");
            for (field, value) in [(17, NODE as u32), (17, 0), (21, NODE as u32), (21, u32::MAX)] {
                let bytes = value.to_le_bytes();
                contradicts(&Sample::new().with(at + 101 + field, &bytes), "an item outside of itself");
            }
        } else {
            contradicts(&Sample::new().with(at + 101 + 33, &[0; 17]), "out of order");
            contradicts(&Sample::new().with(at + 101, &[0; 17]), "does not begin with the key");
            contradicts(&Sample::new().with(at + 96, &[0]), "does not begin with the key");
            contradicts(&Sample::new().with64(at + 101 + 17, 1 << 60), "lies in no chunk");
            contradicts(&Sample::new().with64(at + 101 + 25, 8), "another time or level");
        }
    }
    contradicts(&Sample::new().with(block(ROOTS[0]) + 101, &[1]), "does not begin with the key");
    contradicts(&Sample::new().with(block(ROOTS[0]) + 96, &[0]), "does not begin with the key");
    // A leaf that goes on behind where the next one begins.
    let end = item((u64::MAX, 176, 0), &[]);
    let overlapping = Sample::new().with_items(block(EXTENT_LEAVES[0]), |items| items.push(end));
    contradicts(&overlapping, "leaves of a tree are out of order");
    // A tree of a system that is a subvolume's, and the other way round.
    contradicts(&Sample::new().with64(block(NAMES) + 88, 2), "of another tree");
    contradicts(&Sample::new().with64(block(NAMES) + 88, 1 << 63), "of another tree");
    Sample::new().with64(block(NAMES) + 88, 5).mapped();
}

#[test]
fn of_two_copies_the_second_is_read_where_the_first_is_not_what_it_must_be() {
    for number in 0..15 {
        let at = block(number);
        let mut damaged = Sample::new();
        damaged.put(at + 90, b"A");
        damaged.mapped();
        // Older, and right in itself: a write that was lost.
        let mut older = Sample::new();
        older.put64(at + 80, 6);
        older.seal_one(at);
        older.mapped();
        // Only the second one.
        let mut second = Sample::new();
        second.put(Sample::second_copy(at) + 90, b"A");
        second.mapped();
        if number != SUMS_LEAF {
            contradicts(&Sample::new().with64(at + 80, 6), "another time or level");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever a single byte becomes, checksums right: what is in use is not called free.
    #[test]
    fn no_byte_makes_anything_free_that_is_in_use(
        structure in 0..18usize, offset in 32..NODE, near in any::<bool>(), value in any::<u8>(), tree in any::<bool>(),
    ) {
        let sample = if tree { Sample::with_block_group_tree() } else { Sample::new() };
        let free = sample.mapped().free;
        let at = match structure { 16 => SUPERBLOCK, 17 => CHUNKS, number => block(number) };
        // Most of what matters is near the beginning, or the end.
        let offset = if near { 32 + offset % 500 } else { offset };
        let sample = sample.with(at + offset, &[value]);
        // Without its magic number it is no Btrfs.
        let Some(found) = super::probe(&sample.bytes, CONTEXT) else { return Ok(()) };
        if let Mapping::Mapped(map) = found.heard(&sample.bytes).mapping {
            prop_assert!(map.free.minus(&free).ranges().is_empty());
        }
    }
}
