//! Volumes on which the second witness and the map disagree, built by hand, one disagreement at a time.

use super::checksum::{START, crc32c};
use super::sample::{BITMAPS, BLOCK, DESCRIPTORS, FREE, Log, Protection, SUPERBLOCK, Sample, sample_free};
use crate::fs::{Decline, DeclineReason, Hearing, Testimony};

/// Free blocks of group 0, and some of those that only the bitmap calls used.
const FREE_BLOCK: u32 = 1000;
const USED_BLOCK: u32 = 50;
const MODE_FILE: u16 = 0x81A4;
const MODE_DIRECTORY: u16 = 0x41ED;
const MODE_SYMLINK: u16 = 0xA1FF;
const MODE_DEVICE: u16 = 0x6180;

fn leaf(extents: &[(u32, u32, u32)]) -> Vec<u32> {
    let mut words = vec![0xF30A | u32::try_from(extents.len()).unwrap() << 16, 4, 0];
    extents.iter().for_each(|&(logical, len, start)| words.extend([logical, len, start]));
    words
}

/// The sample with inode 12 in use, named "a/name" in the root, and with this map.
fn with_file(mode: u16, size: u32, words: &[u32]) -> Sample {
    let mut sample = Sample::new();
    sample.put_inode(12, mode, 1, size, words);
    sample.use_inode(12);
    sample.put_names(&[(2, b"."), (2, b".."), (12, b"report.docx")]);
    sample.seal();
    sample
}

/// The same, after `change`.
fn changed(mut sample: Sample, change: impl FnOnce(&mut Sample)) -> Sample {
    change(&mut sample);
    sample.seal();
    sample
}

fn testimony(sample: &Sample) -> Testimony {
    match sample.detect().hearing {
        Hearing::Agrees(testimony) => testimony,
        other => panic!("{other:?}: {:?}", sample.detect().mapping),
    }
}

#[track_caller]
fn declined(sample: &Sample, what: &str) -> Decline {
    let decline = sample.declined();
    decline.is_for(DeclineReason::Inconsistent, what);
    decline
}

#[test]
fn a_healthy_volume_agrees_and_its_owners_are_counted() {
    // All that is used, with the boot block, but 99 of the 100 blocks of group 0, which nobody owns: they stay.
    let found = testimony(&Sample::new());
    let used = Sample::new().mapped().used_bytes;
    assert_eq!(used, (4597 - FREE.iter().sum::<u64>()) * 1024);
    assert_eq!(found, Testimony { records: 2, owned_bytes: used - 99 * 1024 });
    let found = testimony(&with_file(MODE_FILE, 5000, &leaf(&[(0, 5, USED_BLOCK)])));
    assert_eq!(found, Testimony { records: 3, owned_bytes: used - 94 * 1024 });
}

#[test]
fn a_file_in_free_space_declines_by_its_path() {
    let sample = with_file(MODE_FILE, 5000, &leaf(&[(0, 1, USED_BLOCK), (1, 3, FREE_BLOCK)]));
    let decline = declined(&sample, "“report.docx” lies in space");
    assert!(decline.detail.contains("e2fsck"));
    assert_eq!(decline.site.unwrap().offset, u64::try_from(Sample::inode_at(12)).unwrap());
}

#[test]
fn the_path_goes_through_directories() {
    let mut sample = with_file(MODE_DIRECTORY, 1024, &leaf(&[(0, 1, 30)]));
    let names = sample.names(&[(12, b"."), (2, b".."), (13, b"deep")]);
    sample.bytes[30 * BLOCK..31 * BLOCK].copy_from_slice(&names);
    sample.put_inode(13, MODE_FILE, 1, 1024, &leaf(&[(0, 1, FREE_BLOCK)]));
    sample.use_inode(13);
    sample.seal();
    declined(&sample, "“report.docx/deep”");
    // Without a name, the number must do.
    let names = sample.names(&[(12, b"."), (2, b"..")]);
    sample.bytes[30 * BLOCK..31 * BLOCK].copy_from_slice(&names);
    declined(&sample, "“inode 13”");
}

#[test]
fn every_kind_of_claim_is_looked_up() {
    let file = |words: &[u32]| with_file(MODE_FILE, 1024, words);
    let pointers = |at: usize, pointer: u32| {
        let mut words = vec![0; at];
        words.push(pointer);
        changed(file(&words), |sample| sample.put32(Sample::inode_at(12) + 0x20, 0))
    };
    // Each level of indirection, first the block of pointers itself.
    for at in [0, 11, 12, 13, 14] {
        declined(&pointers(at, FREE_BLOCK), "report.docx");
        pointers(at, USED_BLOCK).mapped();
    }
    for (at, levels) in [(12, 1), (13, 2), (14, 3)] {
        let chain = changed(pointers(at, 60), |sample| {
            for level in 1..levels {
                sample.put32((59 + level) * BLOCK + level * 4, 60 + u32::try_from(level).unwrap());
            }
            sample.put32((59 + levels) * BLOCK + 1020, FREE_BLOCK);
        });
        declined(&chain, "report.docx");
    }
    // Unwritten extents, attributes, extents of a deleted file that is still open.
    declined(&file(&leaf(&[(0, 0x8003, FREE_BLOCK)])), "report.docx");
    file(&leaf(&[(0, 0x8003, USED_BLOCK)])).mapped();
    for mode in [MODE_FILE, MODE_DEVICE, MODE_SYMLINK] {
        let attributes = |block: u32| {
            changed(with_file(mode, 4, &[]), |sample| {
                let at = Sample::inode_at(12);
                sample.put32(at + 0x20, 0);
                sample.put32(at + 0x68, block);
            })
        };
        declined(&attributes(FREE_BLOCK), "report.docx");
        declined(&attributes(9000), "outside the file system");
        attributes(USED_BLOCK).mapped();
    }
    let open = changed(file(&leaf(&[(0, 1, FREE_BLOCK)])), |sample| {
        sample.put16(Sample::inode_at(12) + 0x1A, 0);
        sample.put_names(&[(2, b"."), (2, b"..")]);
    });
    declined(&open, "inode 12");
}

#[test]
fn a_tree_of_extents_and_its_own_blocks_are_looked_up() {
    let tree = |node: u32, data: u32| {
        let sample = with_file(MODE_FILE, 1024, &[0x0001_F30A, 0x0001_0004, 0, 0, node, 0]);
        changed(sample, |sample| {
            let at = node as usize * BLOCK;
            let words: Vec<u8> = leaf(&[(0, 2, data)]).into_iter().flat_map(u32::to_le_bytes).collect();
            sample.bytes[at..at + words.len()].copy_from_slice(&words);
            let seed = crc32c(crc32c(START, b"unique as a uuid"), &12u32.to_le_bytes());
            let crc = crc32c(crc32c(seed, &[0; 4]), &sample.bytes[at..at + 12 + 4 * 12]);
            sample.put32(at + 12 + 4 * 12, crc);
        })
    };
    tree(USED_BLOCK, 60).mapped();
    declined(&tree(USED_BLOCK, FREE_BLOCK), "report.docx");
    declined(&tree(FREE_BLOCK, 60), "report.docx");
    declined(
        &changed(tree(USED_BLOCK, 60), |sample| sample.bytes[50 * BLOCK + 20] ^= 1),
        "a checksum in its",
    );
}

#[test]
fn short_symlinks_and_devices_have_no_blocks() {
    let words = [u32::from_le_bytes(*b"some"), u32::from_le_bytes(*b"file")];
    for (mode, size) in [(MODE_SYMLINK, 8), (MODE_DEVICE, 0)] {
        let sample = with_file(mode, size, &words);
        changed(sample, |sample| sample.put32(Sample::inode_at(12) + 0x20, 0)).mapped();
    }
    let long = changed(with_file(MODE_SYMLINK, 60, &[FREE_BLOCK]), |sample| {
        sample.put32(Sample::inode_at(12) + 0x20, 0);
        sample.put32(Sample::inode_at(12) + 0x1C, 2);
    });
    declined(&long, "report.docx");
}

#[test]
fn bad_blocks_and_reserved_descriptors_are_owned_under_plain_names() {
    for (number, name) in [(1, "list of bad blocks"), (7, "reserved group descriptors"), (8, "the journal")] {
        let sample = changed(Sample::new(), |sample| {
            sample.put_inode(number, if number == 1 { 0 } else { 0x8180 }, 1, 1024, &[FREE_BLOCK]);
            sample.put32(Sample::inode_at(number) + 0x20, 0);
        });
        // The journal of such an inode is none, so another is named.
        declined(
            &if number == 8 { sample.with32(0xE0, 0) } else { sample },
            if number == 8 { "inode 8" } else { name },
        );
    }
}

#[test]
fn an_inode_that_an_old_bitmap_calls_free_is_walked_all_the_same() {
    let nameless = |block: u32| {
        changed(Sample::new(), |sample| sample.put_inode(12, MODE_FILE, 1, 1024, &leaf(&[(0, 1, block)])))
    };
    declined(&nameless(FREE_BLOCK), "inode 12");
    nameless(USED_BLOCK).mapped();
    // With a name, the bitmap is an old one for certain, whatever the file leads to.
    let named = changed(nameless(USED_BLOCK), |sample| {
        sample.put_names(&[(2, b"."), (2, b".."), (12, b"new")]);
    });
    declined(&named, "the name “new” leads to inode 12, which the inode bitmap calls free");
}

#[test]
fn an_old_descriptor_that_hides_inodes_declines() {
    let in_group_1 = |change: fn(&mut Sample)| {
        changed(Sample::new(), |sample| {
            sample.put_inode(40, MODE_FILE, 1, 1024, &leaf(&[(0, 1, USED_BLOCK)]));
            sample.put_names(&[(2, b"."), (2, b".."), (40, b"new")]);
            change(sample);
        })
    };
    let descriptor = DESCRIPTORS + 64;
    in_group_1(|sample| sample.use_inode(40)).mapped();
    let uninit = in_group_1(|sample| sample.put16(DESCRIPTORS + 64 + 0x12, 1));
    declined(&uninit, "“new” leads to inode 40, which its group descriptor calls never used");
    let unused = in_group_1(|sample| sample.put16(DESCRIPTORS + 64 + 0x1C, 25));
    declined(&unused, "never used");
    let contradiction = changed(in_group_1(|sample| sample.use_inode(40)), |sample| {
        sample.put16(descriptor + 0x1C, 25);
        sample.put_names(&[(2, b"."), (2, b"..")]);
    });
    declined(&contradiction, "where it says that none was ever used");
    let outside = changed(Sample::new(), |sample| sample.put_names(&[(2, b"."), (2, b".."), (97, b"x")]));
    declined(&outside, "none of its inodes");
    for field in [0xE0, 0x280] {
        let sample = uninit.copy().with_bits(0x5C, 0x1000).with32(field, 40);
        assert!(matches!(sample.declined().reason, DeclineReason::Inconsistent), "named by the superblock");
    }
}

#[test]
fn what_lies_behind_the_used_part_of_a_table_is_nobodys() {
    let stale = changed(Sample::new(), |sample| {
        sample.put16(DESCRIPTORS + 64 + 0x1C, 25);
        sample.put_inode(40, MODE_FILE, 1, 1024, &leaf(&[(0, 1, FREE_BLOCK)]));
    });
    stale.mapped();
}

#[test]
fn each_inode_that_cannot_be_understood_declines_with_its_place() {
    let at = Sample::inode_at(12);
    for (what, sample) in [
        ("no type", with_file(0, 0, &[])),
        ("its type is unknown", with_file(0x3000, 0, &[])),
        ("damaged", with_file(MODE_FILE, 0, &[0xF30B])),
        ("damaged", with_file(MODE_FILE, 0, &[0x0001_F30A, 0x0006_0004])),
        ("an extent has no blocks", with_file(MODE_FILE, 0, &leaf(&[(0, 0, 50)]))),
        ("outside", with_file(MODE_FILE, 0, &leaf(&[(0, 1, 9000)]))),
        ("outside", with_file(MODE_FILE, 0, &leaf(&[(0, 0x8000, 50)]))),
        ("outside", with_file(MODE_FILE, 0, &leaf(&[(0, 1, 0)]))),
        ("inline data", changed(with_file(MODE_FILE, 0, &[]), |s| s.put32(at + 0x20, 0x1000_0000))),
        ("at once", changed(with_file(MODE_FILE, 0, &[]), |s| s.put32(at + 0x20, 0x1008_0000))),
        ("an entry of the directory", with_file(MODE_DIRECTORY, 1024, &leaf(&[(0, 1, 31)]))),
    ] {
        declined(&sample, what);
    }
    let mut sample = with_file(MODE_FILE, 5000, &leaf(&[(0, 5, USED_BLOCK)]));
    sample.bytes[at + 8] ^= 1;
    declined(&sample, "inode 12 cannot be followed: its checksum is wrong");
}

#[test]
fn maps_that_go_round_end() {
    // Without checksums, or they would end it. An extent tree cannot go round, since its depth falls; blocks
    // of pointers that lead to each other many times are cut off.
    let sample = changed(with_file(MODE_FILE, 1024, &[]).with32(0x64, 1), |sample| {
        sample.put16(DESCRIPTORS + 2 * 64 + 0x12, 0);
        sample.use_bits(2, 0..10);
        sample.put32(Sample::inode_at(12) + 0x20, 0);
        sample.put32(Sample::inode_at(12) + 0x28 + 14 * 4, USED_BLOCK);
        for at in (50 * BLOCK..51 * BLOCK).step_by(4) {
            sample.put32(at, USED_BLOCK);
        }
    });
    declined(&sample, "more than the volume has in use");
}

#[test]
fn values_in_inodes_are_looked_up() {
    let sample = |number: u32| {
        changed(with_file(MODE_FILE, 0, &leaf(&[])), |sample| {
            let at = Sample::inode_at(12) + 128 + 32;
            sample.put32(at, 0xEA02_0000);
            sample.bytes[at + 4..at + 6].copy_from_slice(&[3, 1]);
            sample.put32(at + 8, number);
            sample.bytes[at + 20..at + 23].copy_from_slice(b"big");
        })
        .with_bits(0x60, 0x400)
    };
    declined(&sample(11), "an attribute of inode 12 leads to inode 11");
    sample(2).mapped();
    let in_block = |number: u32| {
        changed(with_file(MODE_FILE, 0, &leaf(&[])), |sample| {
            sample.put32(Sample::inode_at(12) + 0x68, USED_BLOCK);
            let at = USED_BLOCK as usize * BLOCK;
            sample.put32(at, 0xEA02_0000);
            sample.bytes[at + 32..at + 34].copy_from_slice(&[3, 1]);
            sample.put32(at + 36, number);
        })
        .with_bits(0x60, 0x400)
    };
    in_block(2).mapped();
    declined(&in_block(20), "an attribute of inode 12 leads to inode 20");
}

#[test]
fn a_replayed_journal_is_walked_as_it_leaves_the_volume() {
    // The journal brings a file whose blocks the bitmap, which was not written with it, calls free.
    let after = with_file(MODE_FILE, 1024, &leaf(&[(0, 1, FREE_BLOCK)]));
    let mut log = Log::new(Protection::V3);
    log.change(&Sample::new(), &after);
    declined(&Sample::in_use(&log), "report.docx");
    let after = with_file(MODE_FILE, 1024, &leaf(&[(0, 1, USED_BLOCK)]));
    let mut log = Log::new(Protection::V3);
    log.change(&Sample::new(), &after);
    assert_eq!(Sample::in_use(&log).mapped().free.ranges(), sample_free());
    assert_eq!(testimony(&Sample::in_use(&log)).records, 3);
}

#[test]
fn a_used_bit_that_was_lost_declines_though_all_sums_and_counts_are_right() {
    let lost = changed(with_file(MODE_FILE, 5000, &leaf(&[(0, 5, USED_BLOCK)])), |sample| {
        sample.bytes[BITMAPS[0] + 49 / 8] &= !(1 << (49 % 8));
        let free = u16::try_from(FREE[0]).unwrap() + 1;
        sample.put16(DESCRIPTORS + 0xC, free);
        let total = u32::try_from(FREE.iter().sum::<u64>()).unwrap() + 1;
        sample.put32(SUPERBLOCK + 0xC, total);
    });
    declined(&lost, "“report.docx” lies in space that the volume's own map calls free");
}
