//! The second witness: what owns space, and what is refused of it.

use super::sample::*;
use super::tests::{contradicts, unknown};

/// Without an extent, in all sums: as the first witness would see it if the extent tree had lost it.
fn without(sample: &Sample, leaf: usize, number: usize) -> Sample {
    let at = block(leaf);
    let found = sample.items(at)[number].clone();
    let len = if found.key.1 == 169 { NODE as u64 } else { found.key.2 };
    let group =
        |item: &Item| item.key.1 == 192 && (item.key.0..item.key.0 + item.key.2).contains(&found.key.0);
    let mut sample = sample.clone();
    for leaf in EXTENT_LEAVES {
        if let Some(group) = sample.items(block(leaf)).into_iter().find(group) {
            let data = sample.data_of(block(leaf), group.key);
            let used = sample.get64(data);
            sample.put64(data, used - len);
        }
    }
    sample.with_items(at, |items| drop(items.remove(number))).with_used(|used| used - len)
}

#[test]
fn whatever_extent_the_extent_tree_has_lost_has_an_owner() {
    let sample = Sample::new();
    let mut seen = 0;
    for leaf in EXTENT_LEAVES {
        for (number, found) in sample.items(block(leaf)).into_iter().enumerate() {
            // The first one of a leaf is its parent's key, too.
            if number == 0 || ![168, 169].contains(&found.key.1) {
                continue;
            }
            seen += 1;
            let decline = without(&sample, leaf, number).declined();
            let owner = if found.key.0 >= DATA_ADDRESS { "“inode " } else { "“a tree block”" };
            assert!(
                decline.detail.contains(owner) && decline.detail.contains("own map calls free"),
                "{decline:?}"
            );
            assert!(decline.site.is_some());
        }
    }
    assert_eq!(seen, 16 + 4 - 2);
}

#[test]
fn each_field_of_the_extent_of_a_file_is_checked() {
    let at = block(NAMES);
    let with = |field: usize, value: u8| {
        let data = Sample::new().data_of(at, (258, 108, 4096));
        Sample::new().with(data + field, &[value])
    };
    for compression in [1, 2, 3] {
        with(16, compression).mapped();
    }
    contradicts(&with(16, 4), "compressed, encrypted or encoded");
    contradicts(&with(17, 1), "compressed, encrypted or encoded");
    contradicts(&with(18, 1), "compressed, encrypted or encoded");
    contradicts(&with(19, 1), "compressed, encrypted or encoded");
    contradicts(&with(20, 3), "of an unknown kind");
    contradicts(&with(21 + 6, 1), "lies in no chunk");
    contradicts(&with(29 + 6, 1), "lies in no chunk");
    // Where nothing is; longer than what is; in front of it.
    let data = Sample::new().data_of(at, (258, 108, 4096));
    for (start, len) in [
        (RESERVED.0 + RESERVED.1, 4096),
        (REGULAR.0, REGULAR.1 + 4096),
        (REGULAR.0, REGULAR.1 + 1),
        (RESERVED.0 - 1, 4096),
    ] {
        let sample = Sample::new().with64(data + 21, DATA_ADDRESS + start);
        contradicts(&sample.with64(data + 29, len), "“inode 258 of subvolume 256”");
    }
    let number = Sample::new().items(at).iter().position(|item| item.key == (258, 108, 4096)).unwrap();
    for (len, what) in [(52, "impossible length"), (54, "impossible length"), (20, "is cut off")] {
        let resized = Sample::new().with_items(at, |items| items[number].data.resize(len, 0));
        contradicts(&resized, what);
    }
}

#[test]
fn tree_blocks_lie_where_they_can() {
    // The tree of a subvolume: in a chunk of data, at an odd address, and where nothing is.
    let root = Sample::new().data_of(block(ROOTS[1]), (256, 132, 0)) + 176;
    for address in [DATA_ADDRESS, address(SUBVOLUME) + 512, 1 << 60, u64::MAX] {
        contradicts(&Sample::new().with64(root, address), "lies where none can be");
    }
    let child = block(SUBVOLUME) + 101 + 17;
    contradicts(&Sample::new().with64(child, DATA_ADDRESS), "lies where none can be");
    // Beside all others, with contents that are right.
    let mut sample = Sample::new();
    let names = sample.items(block(NAMES));
    sample.leaf(block(NOBODYS), 256, 9, &names);
    contradicts(&sample.with64(child, address(NOBODYS)), "“a tree block”");
}

#[test]
fn each_tree_block_of_a_subvolume_is_checked() {
    for number in [TOP, SUBVOLUME, NAMES, SHARED, DYING, SUMS, RELOCATION] {
        let at = block(number);
        contradicts(&Sample::new().with(at + 32, &[7]), "belongs to somebody else");
        contradicts(&Sample::new().with(at + 64, &[7]), "belongs to somebody else");
        contradicts(&Sample::new().with64(at + 80, 8), "another time or level");
        contradicts(&Sample::new().with64(at + 88, 3), "of another tree");
        contradicts(&Sample::new().with(at + 100, &[2]), "another time or level");
    }
}

#[test]
fn how_far_a_deletion_has_come_is_checked() {
    let root = Sample::new().data_of(block(ROOTS[1]), (257, 132, 0));
    // At no level, or one that the tree does not have.
    for level in [0, 2, 255] {
        contradicts(&Sample::new().with(root + 237, &[level]), "the root of tree 257 is impossible");
    }
    // Not begun, or of a subvolume that is not deleted at all: then everything must be there.
    contradicts(&Sample::new().with(root + 220, &[0; 17]), "“a tree block” lies in space");
    contradicts(&Sample::new().with(root + 216, &[1]), "“a tree block” lies in space");
    // Not as far as the first child goes.
    contradicts(&Sample::new().with64(root + 220, 299), "“a tree block” lies in space");
    Sample::new().with64(root + 220, 1 << 40).mapped();
}

/// A block of a subvolume that is being deleted is a part of another one, too, and its first leaf is not recorded.
#[test]
fn what_a_deletion_leaves_out_is_walked_for_others() {
    let mut sample = Sample::new();
    let names = sample.items(block(NAMES));
    sample.leaf(block(NOBODYS), 257, 9, &names);
    sample.seal();
    sample.mapped();
    // The live one is walked before and after it.
    for tree in [256, 258] {
        let with_another = sample.clone().with_items(block(ROOTS[1]), |items| {
            items.retain(|item| item.key.0 != 256);
            items.push(root_item(tree, DYING, 1));
            items.sort();
        });
        let mut with_another = with_another;
        with_another.node(
            block(ROOT),
            1,
            1,
            &[((2, 132, 0), ROOTS[0]), (with_another.items(block(ROOTS[1]))[0].key, ROOTS[1])],
        );
        with_another.seal();
        contradicts(&with_another, "“a tree block”");
    }
}

/// A leaf that a tree without owners points to is no less a leaf of the subvolume that has it.
#[test]
fn extents_of_files_in_the_root_tree_are_owned() {
    let sample = Sample::new();
    let data = sample.data_of(block(ROOTS[1]), (260, 108, 0));
    contradicts(&sample.with64(data + 29, 8192), "“inode 260 of subvolume 1”");
    let cut = Sample::new().with_items(block(ROOTS[1]), |items| items[2].data.truncate(20));
    contradicts(&cut, "is cut off");
    let unknown_tree = Sample::new().with_items(block(ROOTS[1]), |items| {
        items.push(root_item(7u64.wrapping_neg(), TOP, 0));
    });
    unknown(&unknown_tree, "It has a tree of number -7.");
}

#[test]
fn a_block_that_two_trees_come_to_declines() {
    let sample = Sample::new();
    // The root of a subvolume in the tree of checksums: what the subvolume had there is lost.
    let root = sample.data_of(block(ROOTS[1]), (256, 132, 0)) + 176;
    contradicts(&sample.clone().with64(root, address(SUMS)), "belongs to two trees");
    // And a leaf that nobody reads in the top of the file system.
    let child = block(SUMS) + 101 + 17;
    contradicts(&sample.clone().with64(child, address(TOP)), "belongs to two trees");
    // Two trees of the file system's own.
    contradicts(&sample.clone().with64(child, address(DEVICES)), "belongs to two trees");
    sample.mapped();
}
