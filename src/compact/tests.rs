//! The invariant over everything: every byte that is not free reads the same before and after.

use std::rc::Rc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::extents::Extents;
use crate::image::vhdx::testing::TestImage;
use crate::image::{self, Disk, OutState, Piece, vhd};
use crate::io::{ReadAt, read_vec};
use crate::{ErrorKind, Result};

const GRAIN: usize = 4096;

fn disk_of(file: &[u8]) -> Disk {
    let file: Rc<dyn ReadAt> = Rc::new(file.to_vec());
    Disk::new(vec![Rc::new(image::open(file).unwrap())]).unwrap()
}

/// Executes a layout into memory.
fn execute(layout: &mut Layout, disk: &Disk, plan: &Plan, files: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let pieces = layout.next_pieces(disk, plan, 3, 1 << 20).unwrap();
        if pieces.is_empty() {
            return out;
        }
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend(bytes),
                Piece::Zeros(len) => out.extend(vec![0; len as usize]),
                Piece::Source { layer, range } => {
                    out.extend(&files[layer][range.start as usize..range.end as usize]);
                }
            }
        }
    }
}

struct Compacted {
    file: Vec<u8>,
    outcome: Outcome,
    may_differ: Extents,
}

fn compact(source: &[u8], free: Extents, options: Options) -> Result<Compacted> {
    let disk = disk_of(source);
    let plan = Plan::new(&disk, free, options)?;
    let mut scan = Scan::new(&plan)?;
    while !scan.step(&disk, &plan, 1)?.finished {}
    let mut layout =
        Layout::new(&disk, &plan, scan, &Fresh { data_write: Uuid::from_u128(9), ..Fresh::default() })?;
    let (outcome, may_differ) = (layout.outcome(), layout.may_differ(&plan));
    let file = execute(&mut layout, &disk, &plan, &[source]);
    assert_eq!(file.len() as u64, outcome.size);
    let output = disk_of(&file);
    let mut verification = Verification::new(&disk, &output, may_differ.clone(), !plan.recomposes())?;
    while !verification.step(&disk, &output, 1)?.finished {}
    Ok(Compacted { file, outcome, may_differ })
}

/// What fills a grain: nothing, zeros that are stored, or data.
fn grains(count: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 1u8..=255], count)
}

fn options() -> impl Strategy<Value = Options> {
    (0usize..3, any::<bool>(), prop_oneof![Just(None), Just(Some(512 << 10)), Just(Some(2 << 20))]).prop_map(
        |(mode, scrub, block_size)| Options {
            mode: [Mode::Full, Mode::Quick, Mode::Zero][mode],
            scrub,
            block_size,
            ..Options::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A random free map and random payload never lose a used byte, whatever was asked.
    #[test]
    fn no_used_byte_is_ever_lost(
        block_size in prop_oneof![Just(512u64), Just(4 << 10), Just(64 << 10), Just(128 << 10)],
        blocks in proptest::collection::vec(proptest::option::of(grains(32)), 1..24),
        free in proptest::collection::vec((0u64..24 << 17, 1u64..400_000), 0..10),
        cut in 0u64..100,
        options in options(),
    ) {
        let (grain, per_block) = if block_size < 65_536 { (512, block_size as usize / 512) } else { (GRAIN, block_size as usize / GRAIN) };
        let present: Vec<(u64, Vec<u8>)> = blocks
            .iter()
            .enumerate()
            .filter_map(|(i, grains)| {
                let grains = grains.as_ref()?;
                let payload = grains.iter().take(per_block).flat_map(|&g| vec![g; grain]).collect();
                Some((i as u64, payload))
            })
            .collect();
        let size = blocks.len() as u64 * block_size - (cut * 512).min(block_size - 512);
        let source = vhd::tests::dynamic(size, block_size, &present);
        let free = Extents::from_ranges(
            free.into_iter().map(|(at, len)| at / 512 * 512..(at + len).min(size)).collect(),
        );
        let result = compact(&source, free.clone(), options).unwrap();
        let before = read_vec(&disk_of(&source), 0, size as usize).unwrap();
        let after = read_vec(&disk_of(&result.file), 0, size as usize).unwrap();
        for used in free.gaps(0..size) {
            let used = used.start as usize..used.end as usize;
            prop_assert!(before[used.clone()] == after[used], "a used byte was lost");
        }
        for (i, (x, y)) in before.iter().zip(&after).enumerate() {
            prop_assert!(x == y || result.may_differ.contains(i as u64..i as u64 + 1));
        }
        // Children of the source must not take a disk that reads differently for their parent.
        prop_assert!(before == after || result.outcome.reads_changed);
        if options.mode == Mode::Zero {
            prop_assert!(before == after && !result.outcome.reads_changed);
        }
        if options.scrub && options.mode != Mode::Zero {
            for part in free.ranges() {
                prop_assert!(after[part.start as usize..part.end as usize].iter().all(|&b| b == 0));
            }
        }
        // Doing it again gains nothing and changes nothing.
        let again = compact(&result.file, free, options).unwrap();
        prop_assert_eq!(again.outcome.size, result.outcome.size);
    }
}

#[test]
fn a_block_goes_when_every_byte_is_free_or_zero_and_stays_for_one_byte() {
    let block = 64usize << 10;
    let mut payload = vec![0u8; block];
    payload[5000] = 1;
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, payload)]);
    let at = 2 * 65_536 + 5000u64;
    for (free, kept) in [(at..at + 1, 0), (at + 1..at + 60_000, 1), (0..at, 1)] {
        let result = compact(&source, Extents::from_ranges(vec![free.clone()]), Options::default()).unwrap();
        assert_eq!(result.outcome.tally.kept, kept, "{free:?}");
        assert_eq!(result.outcome.reads_changed, kept == 0);
    }
}

#[test]
fn a_verification_names_the_first_byte_that_was_lost() {
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, vec![7; 1 << 16])]);
    let mut damaged = source.clone();
    let payload = disk_of(&source).top().unwrap().blocks.get(2).payload().unwrap().get() as usize;
    damaged[payload + 100] = 8;
    let (a, b) = (disk_of(&source), disk_of(&damaged));
    let mut verification = Verification::new(&a, &b, Extents::new(), true).unwrap();
    let error = verification.step(&a, &b, u64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteFailed);
    assert_eq!(error.site().unwrap().offset, 2 * 65_536 + 100);
    // The same difference in free space is counted, and nothing else.
    let mut free = Extents::new();
    free.push(2 * 65_536 + 100..2 * 65_536 + 101);
    let mut verification = Verification::new(&a, &b, free, true).unwrap();
    while !verification.step(&a, &b, 1 << 20).unwrap().finished {}
    assert_eq!(verification.verdict().differing, 1);
    assert_eq!(verification.verdict().skipped, 1);
}

#[test]
fn a_bitmap_that_is_not_full_is_kept_as_it_is() {
    let mut source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(1, vec![7; 1 << 16])]);
    let payload = disk_of(&source).top().unwrap().blocks.get(1).payload().unwrap().get() as usize;
    source[payload - 512] = 0x0f;
    let result = compact(&source, Extents::new(), Options::default()).unwrap();
    let bitmap = disk_of(&result.file).top().unwrap().sector_bitmap(1).unwrap().unwrap();
    assert_eq!(bitmap.as_bytes()[0], 0x0f);
}

#[test]
fn a_scan_goes_on_where_it_stopped_and_only_there() {
    let blocks: Vec<(u64, Vec<u8>)> = (0..40).map(|i| (i, vec![u8::from(i % 3 == 0); 1 << 16])).collect();
    let source = vhd::tests::dynamic(40 << 16, 1 << 16, &blocks);
    let disk = disk_of(&source);
    let plan = Plan::new(&disk, Extents::new(), Options::default()).unwrap();
    let print = findings::fingerprint(&disk, &plan, "disk.vhd 1 2").unwrap();
    let mut whole = Scan::new(&plan).unwrap();
    while !whole.step(&disk, &plan, u64::MAX).unwrap().finished {}
    let mut begun = Scan::new(&plan).unwrap();
    for _ in 0..7 {
        assert!(!begun.step(&disk, &plan, 1).unwrap().finished);
    }
    let kept = findings::save(&begun, &print);
    let mut resumed = findings::resume(&plan, &print, &kept).unwrap().unwrap();
    assert_eq!(resumed.settled_up_to(), 7);
    while !resumed.step(&disk, &plan, u64::MAX).unwrap().finished {}
    assert_eq!(resumed.tally(), whole.tally());
    assert_eq!(resumed.into_out().words(), whole.into_out().words());
    // Another file, other options, damage: not used.
    let other = findings::fingerprint(&disk, &plan, "disk.vhd 1 3").unwrap();
    assert!(findings::resume(&plan, &other, &kept).unwrap().is_none());
    let quick = Options { mode: Mode::Quick, ..Options::default() };
    let quick = Plan::new(&disk, Extents::new(), quick).unwrap();
    let other = findings::fingerprint(&disk, &quick, "disk.vhd 1 2").unwrap();
    assert_ne!(other, print);
    for at in 0..kept.len() {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        assert!(findings::resume(&plan, &print, &damaged).unwrap().is_none());
        assert!(findings::resume(&plan, &print, &kept[..at]).unwrap().is_none());
    }
}

#[test]
fn scrubbing_a_kept_block_changes_what_is_read() {
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, vec![7; 1 << 16])]);
    let mut free = Extents::new();
    free.push(2 * 65_536 + 4096..2 * 65_536 + 8192);
    let keep = compact(&source, free.clone(), Options::default()).unwrap();
    assert!(!keep.outcome.reads_changed);
    let scrub = compact(&source, free, Options { scrub: true, ..Options::default() }).unwrap();
    assert_eq!(scrub.outcome.tally.kept, 1);
    assert!(scrub.outcome.reads_changed);
}

#[test]
fn a_table_that_is_too_short_for_one_of_two_sizes_is_no_hindrance() {
    let source = vhd::tests::with_a_table_between_two_sizes();
    let (old, result) = (disk_of(&source), compact(&source, Extents::new(), Options::default()).unwrap());
    let new = disk_of(&result.file);
    assert_eq!(old.size(), 9 << 16);
    // The new table serves either size; what the old one could not address was never written.
    assert_eq!(new.size(), 10 << 16);
    assert_eq!(new.top().unwrap().geometry.virtual_size, old.top().unwrap().geometry.virtual_size);
    assert_eq!(read_vec(&new, 0, 9 << 16).unwrap(), read_vec(&old, 0, 9 << 16).unwrap());
}

#[test]
fn a_verification_refuses_another_size_and_blocks_past_the_end() {
    let payload = vec![7; 1 << 16];
    let source = disk_of(&vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, payload.clone())]));
    for other in [
        vhd::tests::dynamic(3 << 16, 1 << 16, &[(2, payload.clone())]),
        vhd::tests::dynamic(5 << 16, 1 << 16, &[(2, payload.clone())]),
    ] {
        let refused = Verification::new(&source, &disk_of(&other), Extents::new(), true);
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::WriteFailed);
    }
    let short = disk_of(&vhd::tests::with_a_table_between_two_sizes());
    let mut more = vhd::tests::with_a_table_between_two_sizes();
    let layout = compact(&more, Extents::new(), Options::default()).unwrap();
    more = layout.file;
    // The last entry, past what the source addresses, takes the place of block 4.
    let entry = more[1536 + 16..1536 + 20].to_vec();
    more[1536 + 36..1536 + 40].copy_from_slice(&entry);
    more[1536 + 16..1536 + 20].fill(0xff);
    let refused = Verification::new(&short, &disk_of(&more), Extents::new(), true);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::WriteFailed);
}

fn layout_of(disk: &Disk, plan: &Plan) -> Layout {
    let mut scan = Scan::new(plan).unwrap();
    while !scan.step(disk, plan, u64::MAX).unwrap().finished {}
    Layout::new(disk, plan, scan, &Fresh::default()).unwrap()
}

#[test]
fn pieces_come_until_all_have_been_given_however_few_are_asked_for() {
    let source = vhd::tests::dynamic(40 << 16, 1 << 16, &[(2, vec![7; 1 << 16]), (30, vec![8; 1 << 16])]);
    let disk = disk_of(&source);
    let plan = Plan::new(&disk, Extents::new(), Options::default()).unwrap();
    for (max_pieces, max_bytes) in [(0, 0), (1, 1), (usize::MAX, 1), (1, u64::MAX), (usize::MAX, u64::MAX)] {
        let mut layout = layout_of(&disk, &plan);
        let mut size = 0;
        loop {
            let pieces = layout.next_pieces(&disk, &plan, max_pieces, max_bytes).unwrap();
            if pieces.is_empty() {
                break;
            }
            size += pieces.iter().map(Piece::len).sum::<u64>();
        }
        assert_eq!(size, layout.outcome().size, "{max_pieces} pieces, {max_bytes} bytes");
    }
}

#[test]
fn a_large_block_is_composed_a_little_at_a_time() {
    let block = 32u64 << 20;
    let source = vhd::tests::dynamic(2 * block, block, &[(1, vec![7; block as usize])]);
    let disk = disk_of(&source);
    let free = (0..block / 8192).map(|n| block + n * 8192..block + n * 8192 + 4096);
    let options = Options { scrub: true, ..Options::default() };
    let plan = Plan::new(&disk, Extents::from_ranges(free.collect()), options).unwrap();
    let mut layout = layout_of(&disk, &plan);
    let mut size = 0;
    loop {
        let pieces = layout.next_pieces(&disk, &plan, 64, 1 << 20).unwrap();
        if pieces.is_empty() {
            break;
        }
        let made: usize = pieces.iter().map(|p| if let Piece::Bytes(b) = p { b.len() } else { 0 }).sum();
        assert!(made <= 8 << 20, "{made} bytes at once");
        size += pieces.iter().map(Piece::len).sum::<u64>();
    }
    assert_eq!(size, layout.outcome().size);
}

/// What an UNDEFINED block of a parent reads is up to the program that reads it, so a child's zeros may
/// not be left to it.
#[test]
fn zeros_of_a_child_are_not_left_to_its_parent() {
    let mut child = TestImage::differencing();
    child.bat(0, 4 << 20 | 6);
    child.put(4 << 20, &[0; 1 << 20]);
    for state in [0, 1, 2, 3] {
        let mut parent = TestImage::dynamic();
        parent.bat(0, state);
        let disk = || {
            let chain = [&child, &parent].map(|image| Rc::new(image.open().unwrap()));
            Disk::new(chain.to_vec()).unwrap()
        };
        let plan = Plan::new(&disk(), Extents::new(), Options::default()).unwrap();
        let layout = layout_of(&disk(), &plan);
        assert_eq!(layout.out().get(0), OutState::Zero, "over state {state}");
        assert!(!layout.outcome().reads_changed);
    }
}
