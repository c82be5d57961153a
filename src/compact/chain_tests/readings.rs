//! Images of programs that read a sector as zero whose bit is clear: copied, both readings stay; composed anew,
//! the bitmap's reading is the disk.

use super::*;
use crate::image::ClearBits;

/// Bytes of a block of [`empty`] VHDs.
const BLOCK: usize = 8 << 10;

/// A dynamic VHD of this creator whose blocks 1 and 2 hold data, and whose bitmaps call the first sector of
/// block 1 and all of block 2 unwritten.
fn contradictory(creator: &[u8; 4]) -> Vec<u8> {
    let mut file = testing::file(Format::Vhd, &empty(Format::Vhd).full(1, 9).full(2, 9), 2, None);
    for (block, bits) in [(1, [0x7f, 0xff]), (2, [0, 0])] {
        let payload = image(&file).blocks.get(block).payload().unwrap().get() as usize;
        file[payload - 512..payload - 510].copy_from_slice(&bits);
    }
    let end = file.len() - 512;
    for at in [0, end] {
        file[at + 28..at + 32].copy_from_slice(creator);
        // XenServer's version 1.1, which does without a batmap.
        file[at + 32..at + 36].copy_from_slice(&0x0001_0001u32.to_be_bytes());
        testing::seal(&mut file[at..at + 512], 64);
    }
    file
}

/// What is read by the payload, and by the bitmap.
fn both_readings(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let payload = contents(file, &[]);
    let mut bitmap = payload.clone();
    bitmap[BLOCK..BLOCK + 512].fill(0);
    bitmap[2 * BLOCK..3 * BLOCK].fill(0);
    (payload, bitmap)
}

const BY_BITMAP: [&[u8; 4]; 2] = [b"vbox", b"tap\0"];
const BY_PAYLOAD: [&[u8; 4]; 3] = [b"win ", b"qem2", b"d2v "];

#[test]
fn a_disk_reads_as_its_program_reads_it() {
    for creator in BY_BITMAP.into_iter().chain(BY_PAYLOAD) {
        let file = contradictory(creator);
        let (payload, bitmap) = both_readings(&file);
        let image = image(&file);
        let by_bitmap = BY_BITMAP.contains(&creator);
        assert_eq!(image.clear_bits() == ClearBits::Zero, by_bitmap);
        let disk = Disk::single(image).as_programs_read();
        let expected = if by_bitmap { &bitmap } else { &payload };
        assert!(&read_vec(&disk, 0, disk.size() as usize).unwrap() == expected);
        // Also in part, from the middle of a block.
        let part = BLOCK + 100..2 * BLOCK + 700;
        assert!(read_vec(&disk, part.start as u64, part.len()).unwrap() == expected[part]);
    }
}

#[test]
fn what_is_composed_anew_is_what_the_program_reads() {
    let asked = [
        Options { format: Some(Format::Vhdx), ..zero() },
        Options { format: Some(Format::Vhdx), mode: Mode::Quick, ..Options::default() },
        Options { scrub: true, ..zero() },
    ];
    for creator in BY_BITMAP.into_iter().chain(BY_PAYLOAD) {
        let file = contradictory(creator);
        let (payload, bitmap) = both_readings(&file);
        for options in asked {
            let result = compact_files(std::slice::from_ref(&file), none(), options).unwrap();
            let expected = if BY_BITMAP.contains(&creator) { &bitmap } else { &payload };
            assert!(&contents(&result.file, &[])[..expected.len()] == expected);
            assert!(result.outcome.readings_differ);
            // Every bit of the new bitmaps is set: all programs read the same now.
            if result.image.format == Format::Vhd {
                let again = result.image.sector_bitmap(1).unwrap().unwrap();
                assert!(again.all_set(BLOCK as u64));
            }
        }
    }
}

#[test]
fn what_is_copied_keeps_both_readings() {
    for creator in BY_BITMAP.into_iter().chain(BY_PAYLOAD) {
        let file = contradictory(creator);
        let (payload, _) = both_readings(&file);
        let result = compact_files(std::slice::from_ref(&file), none(), zero()).unwrap();
        assert!(contents(&result.file, &[]) == payload);
        for block in [1, 2] {
            let before = image(&file).sector_bitmap(block).unwrap();
            assert_eq!(result.image.sector_bitmap(block).unwrap(), before);
        }
        assert!(!result.outcome.readings_differ);
    }
}

#[test]
fn a_chain_is_merged_as_the_program_of_its_root_reads() {
    for creator in BY_BITMAP {
        let root = contradictory(creator);
        let (_, bitmap) = both_readings(&root);
        let mut files = files(Format::Vhd, &[&empty(Format::Vhd).full(0, 5), &empty(Format::Vhd)]);
        files[1] = root;
        let flat = compact_files(&files, none(), Options { flatten: true, ..zero() }).unwrap();
        let read = contents(&flat.file, &[]);
        assert!(read[BLOCK..] == bitmap[BLOCK..]);
        assert!(read[..BLOCK] == contents(&files[0], &files[1..])[..BLOCK]);
    }
}

#[test]
fn a_verification_by_the_payload_would_see_the_difference() {
    let file = contradictory(b"vbox");
    let plan =
        plan(open_chain(std::slice::from_ref(&file)).unwrap(), none(), Options { scrub: true, ..zero() })
            .unwrap();
    let layout = lay_out(&plan, 1 << 20, &Fresh::default()).unwrap();
    let output = execute(&layout, &[&file]);
    assert!(prove(&layout, &output).is_ok());
    // The proof is not blind: one byte of what its program reads, and it fails.
    let mut wrong = output.clone();
    let payload = image(&output).blocks.get(1).payload().unwrap().get() as usize;
    wrong[payload + 600] ^= 1;
    assert!(super::super::testing::compare(&layout, &wrong, Evidence::Bytes).is_err());
    // Nor to a bitmap that is not full: its program would read zeros.
    let mut wrong = output;
    wrong[payload - 512] = 0xbf;
    assert!(super::super::testing::compare(&layout, &wrong, Evidence::Bytes).is_err());
}
