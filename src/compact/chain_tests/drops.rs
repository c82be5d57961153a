//! What may be dropped from a child, and what must stay: every cell of the rules, in both formats.
//!
//! ```text
//!   the child's block                      VHD                          VHDX
//!   all zero, and the parents read zero    not present                  zero
//!   all zero, and they do not, or unknown  stays                        zero
//!   equal to the parents (given)           not present                  not present
//!   no sector of its own                   not present                  not present
//!   free                                   stays, or not present where  zero
//!                                          the parents read zero
//! ```

use super::*;

/// What became of the child's block 1 over `parent`, of which `given` says whether it was given.
fn fate(format: Format, child: &Layer, parent: &Layer, given: bool, free: Extents) -> BlockState {
    let result = compact(format, &[child, parent], usize::from(given), free, Options::default()).unwrap();
    result.image.blocks.get(1)
}

/// A child of which all sectors of block 1 are its own, once by state and once by bitmap.
fn whole(format: Format, value: u8) -> [Layer; 2] {
    let sectors = empty(format).sectors();
    let part = empty(format).with(1, Held::Part(vec![Some(value); sectors]));
    [empty(format).full(1, value), part]
}

#[test]
fn a_zero_block_over_a_parent_that_reads_zero_goes() {
    for format in FORMATS {
        let expected = if format == Format::Vhd { BlockState::NotPresent } else { BlockState::Zero };
        for parent in [empty(format), empty(format).full(1, 0), empty(format).part(1, &[(3, 0)])] {
            for child in whole(format, 0) {
                assert_eq!(fate(format, &child, &parent, true, none()), expected);
            }
        }
    }
}

/// Other tools drop a zero block of a child, and what the parent once held comes back.
#[test]
fn a_zero_block_of_a_vhd_child_does_not_bring_back_the_parents_old_bytes() {
    let format = Format::Vhd;
    for child in whole(format, 0) {
        for value in [1, 9] {
            let parent = empty(format).full(1, value);
            for given in [false, true] {
                assert!(stays(fate(format, &child, &parent, given, none())));
            }
        }
        // One byte at the end of one sector of the parent is enough.
        let parent = empty(format).full(0, 9).part(1, &[(13, 1)]);
        assert!(stays(fate(format, &child, &parent, true, none())));
        // And so is not knowing.
        assert!(stays(fate(format, &child, &empty(format), false, none())));
    }
}

/// The same in a VHDX: the block goes, and its entry says zero, whatever the parent holds.
#[test]
fn a_zero_block_of_a_vhdx_child_does_not_bring_back_the_parents_old_bytes() {
    let format = Format::Vhdx;
    for child in whole(format, 0) {
        for value in [1, 9] {
            let parent = empty(format).full(1, value);
            for given in [false, true] {
                assert_eq!(fate(format, &child, &parent, given, none()), BlockState::Zero);
            }
        }
        assert_eq!(fate(format, &child, &empty(format), false, none()), BlockState::Zero);
    }
}

#[test]
fn sectors_of_the_parent_speak_for_a_zero_block_only_when_they_are_known() {
    let format = Format::Vhdx;
    let child = empty(format).part(1, &[(0, 0), (1, 0), (700, 0)]);
    let zero_elsewhere = empty(format).part(1, &[(700, 9)]);
    let not_zero = empty(format).part(1, &[(700, 9), (2047, 1)]);
    assert_eq!(fate(format, &child, &zero_elsewhere, true, none()), BlockState::Zero);
    assert!(stays(fate(format, &child, &zero_elsewhere, false, none())));
    assert!(stays(fate(format, &child, &not_zero, true, none())));
}

#[test]
fn a_block_that_equals_the_parent_goes_when_the_parent_was_given() {
    for format in FORMATS {
        let parent = empty(format).full(1, 9);
        for child in whole(format, 9) {
            assert_eq!(fate(format, &child, &parent, true, none()), BlockState::NotPresent);
            assert!(stays(fate(format, &child, &parent, false, none())));
        }
        // Only its own sectors need to be equal.
        let last = empty(format).sectors() - 1;
        let child = empty(format).part(1, &[(0, 9), (7, 9), (last, 9)]);
        assert_eq!(fate(format, &child, &parent, true, none()), BlockState::NotPresent);
        assert!(stays(fate(format, &child, &parent, false, none())));
    }
}

#[test]
fn one_byte_of_one_sector_keeps_a_block() {
    for format in FORMATS {
        let sectors = empty(format).sectors();
        // Odd places: first, last, beside the borders of bytes of the bitmap.
        for at in [0, 1, 7, 8, 9, sectors - 9, sectors - 1] {
            let child = empty(format).part(1, &[(at, 1)]);
            for parent in [empty(format), empty(format).full(1, 0)] {
                assert!(stays(fate(format, &child, &parent, true, none())), "{format:?} sector {at}");
            }
            let child = empty(format).part(1, &[(at, 0)]);
            let parent = empty(format).part(1, &[(at, 1)]);
            let state = fate(format, &child, &parent, true, none());
            assert!(stays(state) || state == BlockState::Zero && format == Format::Vhdx, "{state:?}");
        }
    }
}

#[test]
fn a_block_without_sectors_of_its_own_goes_always() {
    for format in FORMATS {
        let child = empty(format).part(1, &[]);
        for parent in [empty(format), empty(format).full(1, 9)] {
            for given in [false, true] {
                for mode in [Mode::Full, Mode::Quick, Mode::Zero] {
                    let options = Options { mode, ..Options::default() };
                    let result =
                        compact(format, &[&child, &parent], usize::from(given), none(), options).unwrap();
                    assert_eq!(result.image.blocks.get(1), BlockState::NotPresent);
                    assert!(!result.outcome.reads_changed);
                }
            }
        }
    }
}

#[test]
fn a_free_block_goes_as_zero_in_a_vhdx() {
    let format = Format::Vhdx;
    for child in whole(format, 7).into_iter().chain([empty(format).part(1, &[(3, 7)])]) {
        for parent in [empty(format), empty(format).full(1, 9)] {
            let free = extent(1 << 20..2 << 20);
            assert_eq!(fate(format, &child, &parent, true, free), BlockState::Zero);
        }
    }
}

#[test]
fn a_free_block_of_a_vhd_child_goes_only_where_the_parent_has_nothing_to_show() {
    let format = Format::Vhd;
    let free = || extent(8 << 10..16 << 10);
    for child in whole(format, 7) {
        assert!(stays(fate(format, &child, &empty(format).full(1, 9), true, free())));
        assert!(stays(fate(format, &child, &empty(format).part(1, &[(15, 1)]), true, free())));
        assert_eq!(fate(format, &child, &empty(format), true, free()), BlockState::NotPresent);
        // Where both are the same nothing new is shown.
        assert_eq!(fate(format, &child, &empty(format).full(1, 7), true, free()), BlockState::NotPresent);
        // Without asking file systems, and without reading, it stays.
        for mode in [Mode::Zero, Mode::Quick] {
            let options = Options { mode, ..Options::default() };
            let result = compact(format, &[&child, &empty(format)], 1, free(), options).unwrap();
            assert!(stays(result.image.blocks.get(1)) && !result.outcome.reads_changed);
        }
    }
    // One byte of the block that is not free, and differs.
    let child = empty(format).full(1, 7);
    let most = extent(8 << 10..(16 << 10) - 1);
    assert!(stays(fate(format, &child, &empty(format), true, most)));
}

#[test]
fn a_block_that_is_partly_free_and_partly_equal_goes() {
    for format in FORMATS {
        let block = empty(format).block_size as u64;
        let child = empty(format).part(1, &[(0, 9), (1, 8), (9, 9)]);
        let parent = empty(format).part(1, &[(0, 9), (9, 9), (10, 3)]);
        let second = extent(block + 512..block + 1024);
        let result = compact(format, &[&child, &parent], 1, second, Options::default()).unwrap();
        assert_eq!(result.image.blocks.get(1), BlockState::NotPresent);
        assert!(result.outcome.reads_changed && result.outcome.tally.equal_to_parent == 1);
        let other = extent(block..block + 512);
        assert!(stays(fate(format, &child, &parent, true, other)));
    }
}

#[test]
fn nothing_is_believed_free_without_all_parents() {
    for format in FORMATS {
        let (child, parent) = (empty(format).full(1, 7), empty(format).part(2, &[(2, 2)]));
        let all = extent(0..child.size as u64);
        for given in [0, 1] {
            let layers = [&child, &parent, &empty(format)];
            let result = compact(format, &layers, given, all.clone(), Options::default()).unwrap();
            assert!(stays(result.image.blocks.get(1)) && !result.outcome.reads_changed);
        }
    }
}

#[test]
fn an_incomplete_chain_is_used_as_far_as_it_goes() {
    for format in FORMATS {
        let last = empty(format).sectors() - 1;
        let child =
            empty(format).part(0, &[(4, 9)]).full(1, 9).part(2, &[(0, 9), (last, 8)]).part(3, &[(2, 6)]);
        let middle = empty(format).part(0, &[(4, 9)]).full(1, 9).part(2, &[(0, 9)]);
        let base = empty(format).full(2, 8).full(3, 6);
        let states = |given| {
            let result = compact(format, &[&child, &middle, &base], given, none(), zero()).unwrap();
            [0, 1, 2, 3].map(|block| stays(result.image.blocks.get(block)))
        };
        assert_eq!(states(0), [true, true, true, true]);
        // What the middle one holds itself is known; what only the base holds is not.
        assert_eq!(states(1), [false, false, true, true]);
        assert_eq!(states(2), [false, false, false, false]);
    }
}

#[test]
fn a_grandparent_alone_is_not_a_parent() {
    for format in FORMATS {
        let layers = [empty(format), empty(format), empty(format)];
        let files = files(format, &layers.iter().collect::<Vec<_>>());
        let error = compact_files(&[files[0].clone(), files[2].clone()], none(), zero()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NeedsParent);
    }
}

#[test]
fn bits_keep_their_places_and_their_order() {
    let own = [1, 2, 8, 14];
    for (format, expected) in
        [(Format::Vhd, [0b0110_0000, 0b1000_0010]), (Format::Vhdx, [0b0000_0110, 0b0100_0001])]
    {
        // Another block goes before it and after it.
        let child = empty(format).part(0, &[]).part(1, &own.map(|at| (at, 5))).full(2, 9);
        let parent = empty(format).full(1, 9).full(2, 9);
        let result = compact(format, &[&child, &parent], 1, none(), zero()).unwrap();
        assert_eq!(result.outcome.tally.kept, 1);
        let bitmap = result.image.sector_bitmap(1).unwrap().unwrap();
        assert_eq!(bitmap.as_bytes()[..2], expected);
        let set: Vec<usize> = (0..16).filter(|&at| bitmap.is_set(at as u64)).collect();
        assert_eq!(set, own);
    }
}

#[test]
fn the_last_block_is_judged_by_what_the_disk_has_of_it() {
    for format in FORMATS {
        let sectors = empty(format).sectors();
        let child = empty(format).full(3, 9);
        // The parent's copy ends with the disk, too; what fills the block up is nobody's.
        let mut held = vec![9; sectors];
        held[sectors - 5..].fill(0);
        let parent = empty(format).with(3, Held::Full(held));
        let result = compact(format, &[&child, &parent], 1, none(), zero()).unwrap();
        assert_eq!(result.image.blocks.get(3), BlockState::NotPresent);
        let child = empty(format).part(3, &[(sectors - 6, 1)]);
        let result = compact(format, &[&child, &parent], 1, none(), zero()).unwrap();
        assert!(stays(result.image.blocks.get(3)));
    }
}

#[test]
fn sectors_of_4096_bytes_count_as_such() {
    let empty = || Layer::new((3 << 20) - (5 << 12), 1 << 20, 4096);
    let parent = empty().full(0, 9).part(1, &[(33, 8)]);
    let child = empty().part(0, &[(0, 9), (255, 9)]).part(1, &[(33, 8), (31, 1)]).part(2, &[(250, 0)]);
    let result = compact(Format::Vhdx, &[&child, &parent], 1, none(), zero()).unwrap();
    assert_eq!(result.image.blocks.get(0), BlockState::NotPresent);
    assert_eq!(result.image.blocks.get(2), BlockState::Zero);
    let bitmap = result.image.sector_bitmap(1).unwrap().unwrap();
    assert_eq!(bitmap.as_bytes()[..5], [0, 0, 0, 0x80, 2]);
    assert_eq!(bitmap.as_bytes().len(), 32);
    let flat = Options { flatten: true, ..zero() };
    let flat = compact(Format::Vhdx, &[&child, &parent], 1, none(), flat).unwrap();
    assert_eq!(flat.image.geometry.logical_sector_size, 4096);
    assert!(contents(&flat.file, &[]) == testing::read(&[&child, &parent]));
}

/// A dynamic VHD whose bitmap says "never written" where its payload holds data: programs read it
/// differently, so a child's block that equals one reading must not go.
#[test]
fn a_parent_that_programs_read_differently_equals_nothing() {
    let format = Format::Vhd;
    let child = empty(format).full(1, 9);
    let mut files = files(format, &[&child, &empty(format).full(1, 9)]);
    let payload = image(&files[1]).blocks.get(1).payload().unwrap().get() as usize;
    files[1][payload - 512] = 0xf7;
    let result = compact_files(&files, none(), zero()).unwrap();
    assert!(stays(result.image.blocks.get(1)));
    // Merged, the payload is what is kept, and the person is told.
    let disk = open_chain(&files).unwrap();
    let child = image(&testing::file(format, &empty(format), 1, Some(2)));
    let through = Disk::new(child, disk.parents().to_vec()).unwrap();
    let plan = plan(through, none(), Options { flatten: true, ..zero() }).unwrap();
    assert!(lay_out(&plan, 1 << 20, &Fresh::default()).unwrap().outcome().readings_differ);
}

#[test]
fn a_child_is_scrubbed_without_showing_its_parent() {
    for format in FORMATS {
        let block = empty(format).block_size as u64;
        let child = empty(format).part(1, &[(0, 9), (1, 8), (2, 7)]);
        let parent = empty(format).full(1, 3);
        let free = extent(block + 512..block + 1024);
        let scrub = Options { scrub: true, ..Options::default() };
        let result = compact(format, &[&child, &parent], 1, free.clone(), scrub).unwrap();
        let after = contents(&result.file, &files(format, &[&child, &parent])[1..]);
        let before = testing::read(&[&child, &parent]);
        let cut = block as usize + 512..block as usize + 1024;
        assert!(after[cut.clone()].iter().all(|&byte| byte == 0));
        assert!(after[..cut.start] == before[..cut.start] && after[cut.end..] == before[cut.end..]);
        assert!(result.outcome.reads_changed);
        if format == Format::Vhdx {
            assert_eq!(result.image.identity, NEW);
        }
        let zero = Options { scrub: true, ..zero() };
        let result = compact(format, &[&child, &parent], 1, free, zero).unwrap();
        assert!(!result.outcome.reads_changed);
    }
}

/// A dynamic image, too: what is scrubbed in a block that stays makes another disk for its children.
#[test]
fn scrubbing_gives_a_new_data_write_guid() {
    let layer = Layer::new(2 << 20, 1 << 20, 512).full(0, 9);
    let free = extent(512..1024);
    let scrub = Options { scrub: true, ..Options::default() };
    let result = compact(Format::Vhdx, &[&layer], 0, free.clone(), scrub).unwrap();
    assert_eq!((result.outcome.reads_changed, result.image.identity), (true, NEW));
    let result = compact(Format::Vhdx, &[&layer], 0, free, Options::default()).unwrap();
    assert_eq!((result.outcome.reads_changed, result.image.identity), (false, identity(1)));
}
