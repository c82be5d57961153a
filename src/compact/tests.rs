//! The invariant over everything: every byte that is not free reads the same before and after.

use std::rc::Rc;

use proptest::prelude::*;
use uuid::Uuid;

use super::layout::{Layout, Pieces};
use super::scan::Scan;
use super::testing::{analysis, compare, disk_of, execute, lay_out, plan, prove};
use super::*;
use crate::extents::Extents;
use crate::image::vhdx::testing::{Desc, FILE, TestImage, dirty, log_entry};
use crate::image::{Disk, OutState, Piece, vhd};
use crate::io::tests::Counting;
use crate::io::{ReadAt, read_vec};
use crate::{ErrorKind, Result};

const GRAIN: usize = 4096;

struct Compacted {
    file: Vec<u8>,
    outcome: Outcome,
    may_differ: Extents,
}

fn compact(source: &[u8], free: Extents, options: Options) -> Result<Compacted> {
    let plan = plan(disk_of(source), free, options)?;
    let layout = lay_out(&plan, 1, &Fresh { data_write: Uuid::from_u128(9), ..Fresh::default() })?;
    let file = execute(&layout, &[source]);
    prove(&layout, &file)?;
    Ok(Compacted { file, outcome: layout.outcome(), may_differ: layout.may_differ() })
}

/// What fills a grain: nothing, zeros that are stored, or data.
fn grains(count: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 1u8..=255], count)
}

fn options() -> impl Strategy<Value = Options> {
    (
        0usize..3,
        any::<bool>(),
        prop_oneof![
            Just(BlockSizeChoice::Smallest),
            Just(BlockSizeChoice::Exactly(512 << 10)),
            Just(BlockSizeChoice::Exactly(2 << 20))
        ],
    )
        .prop_map(|(mode, scrub, block_size)| Options {
            mode: [Mode::Full, Mode::Quick, Mode::Zero][mode],
            scrub,
            block_size,
            ..Options::default()
        })
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

/// The layout of a source, and its new image.
fn made(source: &[u8], free: Extents) -> (Rc<Layout>, Vec<u8>) {
    let plan = plan(disk_of(source), free, Options::default()).unwrap();
    let layout = lay_out(&plan, u64::MAX, &Fresh::default()).unwrap();
    let file = execute(&layout, &[source]);
    (layout, file)
}

#[test]
fn a_comparison_names_the_first_byte_that_was_lost() {
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, vec![7; 1 << 16])]);
    let (layout, mut file) = made(&source, Extents::new());
    prove(&layout, &file).unwrap();
    let payload = disk_of(&file).top().blocks.get(2).payload().unwrap().get() as usize;
    file[payload + 100] = 8;
    let error = compare(&layout, &file, Evidence::Bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Differs);
    assert_eq!(error.site().unwrap().offset, 2 * 65_536 + 100);
    assert_eq!(error.expectation(), Some(("byte 0x07", "byte 0x08")));
}

/// What the tables of a new image say is followed to the source, whatever the pieces are taken for.
#[test]
fn tables_that_lead_to_the_wrong_place_are_no_proof() {
    let blocks: Vec<(u64, Vec<u8>)> = (1..4).map(|i| (i, vec![i as u8; 1 << 16])).collect();
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &blocks);
    let (layout, file) = made(&source, Extents::new());
    let traced = compare(&layout, &file, Evidence::Pieces).unwrap();
    assert_eq!((traced.traced, traced.compared), (3 << 16, 0));
    let entry = |block: usize| 1536 + 4 * block..1540 + 4 * block;
    // Two blocks exchanged; one left out; one that was never there.
    type Damage = fn(&mut Vec<u8>, &dyn Fn(usize) -> std::ops::Range<usize>);
    let damages: [Damage; 3] = [
        |file, entry| {
            let (a, b) = (file[entry(1)].to_vec(), file[entry(2)].to_vec());
            file[entry(1)].copy_from_slice(&b);
            file[entry(2)].copy_from_slice(&a);
        },
        |file, entry| file[entry(3)].fill(0xff),
        |file, entry| {
            let a = file[entry(1)].to_vec();
            file[entry(0)].copy_from_slice(&a);
            file[entry(1)].fill(0xff);
        },
    ];
    for damage in damages {
        let mut damaged = file.clone();
        damage(&mut damaged, &entry);
        for evidence in [Evidence::Bytes, Evidence::Pieces] {
            let error = compare(&layout, &damaged, evidence).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Differs, "{evidence:?}");
        }
    }
}

#[test]
fn free_space_that_was_dropped_may_differ_and_is_counted() {
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(1, vec![7; 1 << 16]), (2, vec![7; 1 << 16])]);
    let (layout, file) = made(&source, Extents::from_ranges(vec![1 << 16..2 << 16]));
    for evidence in [Evidence::Bytes, Evidence::Pieces] {
        let verdict = compare(&layout, &file, evidence).unwrap();
        assert_eq!((verdict.skipped, verdict.compared + verdict.traced), (1 << 16, 1 << 16));
    }
}

/// What a scan saw to be zero need not be read again; what it did not see is read.
#[test]
fn zeros_are_proved_by_what_the_scan_read() {
    let source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(1, vec![0; 1 << 16]), (2, vec![7; 1 << 16])]);
    let (layout, file) = made(&source, Extents::from_ranges(vec![1 << 16..(1 << 16) + 4096]));
    let verdict = compare(&layout, &file, Evidence::Pieces).unwrap();
    assert_eq!(verdict, Verdict { compared: 0, traced: 1 << 16, zero: 61_440, skipped: 4096 });
    let verdict = compare(&layout, &file, Evidence::Bytes).unwrap();
    assert_eq!(verdict, Verdict { compared: (1 << 16) + 61_440, traced: 0, zero: 0, skipped: 4096 });
}

#[test]
fn a_bitmap_that_is_not_full_is_kept_as_it_is() {
    let mut source = vhd::tests::dynamic(4 << 16, 1 << 16, &[(1, vec![7; 1 << 16])]);
    let payload = disk_of(&source).top().blocks.get(1).payload().unwrap().get() as usize;
    source[payload - 512] = 0x0f;
    let result = compact(&source, Extents::new(), Options::default()).unwrap();
    let bitmap = disk_of(&result.file).top().sector_bitmap(1).unwrap().unwrap();
    assert_eq!(bitmap.as_bytes()[0], 0x0f);
}

#[test]
fn a_scan_goes_on_where_it_stopped_and_only_there() {
    let blocks: Vec<(u64, Vec<u8>)> = (0..40).map(|i| (i, vec![u8::from(i % 3 == 0); 1 << 16])).collect();
    let source = vhd::tests::dynamic(40 << 16, 1 << 16, &blocks);
    let with = |options| plan(disk_of(&source), Extents::new(), options).unwrap();
    let plan = with(Options::default());
    let print = findings::fingerprint(&plan, "disk.vhd 1 2").unwrap();
    let mut whole = Scan::new(&plan).unwrap();
    while !whole.step(u64::MAX).unwrap().finished {}
    let mut begun = Scan::new(&plan).unwrap();
    for _ in 0..7 {
        assert!(!begun.step(1).unwrap().finished);
    }
    let kept = findings::save(&begun, &print);
    let mut resumed = findings::resume(&plan, &print, &kept).unwrap().unwrap();
    assert_eq!(resumed.settled_up_to(), 7);
    while !resumed.step(u64::MAX).unwrap().finished {}
    assert_eq!(resumed.tally(), whole.tally());
    let layout = Rc::new(Layout::new(resumed, &Fresh::default()).unwrap());
    assert_eq!(layout.out().words(), whole.out().words());
    // What the first scan saw to be zero is read again for the proof.
    prove(&layout, &execute(&layout, &[&source])).unwrap();
    // Another file, other options, damage: not used.
    let other = findings::fingerprint(&plan, "disk.vhd 1 3").unwrap();
    assert!(findings::resume(&plan, &other, &kept).unwrap().is_none());
    let quick = with(Options { mode: Mode::Quick, ..Options::default() });
    let other = findings::fingerprint(&quick, "disk.vhd 1 2").unwrap();
    assert_ne!(other, print);
    for at in 0..kept.len() {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        assert!(findings::resume(&plan, &print, &damaged).unwrap().is_none());
        assert!(findings::resume(&plan, &print, &kept[..at]).unwrap().is_none());
    }
}

#[test]
fn what_a_scan_takes_and_leaves_is_foreseen_from_its_beginning() {
    // In use, then zero: what was would mislead about what is to come.
    let blocks: Vec<(u64, Vec<u8>)> = (0..600).map(|i| (i, vec![u8::from(i < 300); 1 << 17])).collect();
    let source = vhd::tests::dynamic(600 << 17, 1 << 17, &blocks);
    let analysis = Analysis::with_free(disk_of(&source), vec![0], Extents::new());
    let mut run = Run::new(&Rc::new(analysis), Options::default()).unwrap();
    let mut seen = Vec::new();
    loop {
        let progress = run.scan_step(4 << 20).unwrap();
        seen.push((progress, run.foreseen_size()));
        if progress.finished {
            break;
        }
    }
    let (last, size) = *seen.last().unwrap();
    assert_eq!(last.done, last.total);
    assert!(seen.len() > 20);
    for (progress, foreseen) in &seen {
        assert!(progress.total.abs_diff(last.total) < last.total / 20, "{progress:?}, in the end {last:?}");
        assert!(foreseen.abs_diff(size) < size / 20, "{foreseen} bytes, in the end {size}");
    }
    assert!(seen.is_sorted_by_key(|(progress, _)| progress.done));
    let outcome = run.lay_out(&Fresh::default()).unwrap();
    assert_eq!(run.foreseen_size(), outcome.size);
    assert!(size.abs_diff(outcome.size) < size / 20);
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
    assert_eq!(new.top().geometry.virtual_size, old.top().geometry.virtual_size);
    assert_eq!(read_vec(&new, 0, 9 << 16).unwrap(), read_vec(&old, 0, 9 << 16).unwrap());
}

#[test]
fn the_size_that_is_told_is_the_size_that_is_written() {
    use crate::image::Format;
    // Virtual PC's: the geometry gives less than the size field, and a VHDX has one size only.
    let source = vhd::tests::sized_by_geometry();
    for (format, size) in
        [(None, disk_of(&source).top().geometry.virtual_size), (Some(Format::Vhdx), 10 << 16)]
    {
        let options = Options { format, ..Options::default() };
        let plan = plan(disk_of(&source), Extents::new(), options).unwrap();
        assert_eq!(plan.target.virtual_size, size);
        let result = compact(&source, Extents::new(), options).unwrap();
        assert_eq!(disk_of(&result.file).top().geometry.virtual_size, size);
    }
}

#[test]
fn a_comparison_refuses_another_size_and_blocks_past_the_end() {
    let payload = vec![7; 1 << 16];
    let (layout, _) = made(&vhd::tests::dynamic(4 << 16, 1 << 16, &[(2, payload.clone())]), Extents::new());
    for other in [
        vhd::tests::dynamic(3 << 16, 1 << 16, &[(2, payload.clone())]),
        vhd::tests::dynamic(5 << 16, 1 << 16, &[(2, payload.clone())]),
    ] {
        let refused = compare(&layout, &other, Evidence::Bytes);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Differs);
    }
    let (layout, mut more) = made(&vhd::tests::with_a_table_between_two_sizes(), Extents::new());
    // The last entry, past what the source addresses, takes the place of block 4.
    let entry = more[1536 + 16..1536 + 20].to_vec();
    more[1536 + 36..1536 + 40].copy_from_slice(&entry);
    more[1536 + 16..1536 + 20].fill(0xff);
    let refused = compare(&layout, &more, Evidence::Bytes);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Differs);
}

#[test]
fn pieces_come_until_all_have_been_given_however_few_are_asked_for() {
    let source = vhd::tests::dynamic(40 << 16, 1 << 16, &[(2, vec![7; 1 << 16]), (30, vec![8; 1 << 16])]);
    let plan = plan(disk_of(&source), Extents::new(), Options::default()).unwrap();
    for (max_pieces, max_bytes) in [(0, 0), (1, 1), (usize::MAX, 1), (1, u64::MAX), (usize::MAX, u64::MAX)] {
        let layout = lay_out(&plan, u64::MAX, &Fresh::default()).unwrap();
        let mut pieces = Pieces::of(&layout);
        let mut size = 0;
        loop {
            let next = pieces.next(max_pieces, max_bytes).unwrap();
            if next.is_empty() {
                break;
            }
            size += next.iter().map(Piece::len).sum::<u64>();
        }
        assert_eq!(size, layout.outcome().size, "{max_pieces} pieces, {max_bytes} bytes");
    }
}

#[test]
fn a_large_block_is_composed_a_little_at_a_time() {
    let block = 32u64 << 20;
    let source = vhd::tests::dynamic(2 * block, block, &[(1, vec![7; block as usize])]);
    let free = (0..block / 8192).map(|n| block + n * 8192..block + n * 8192 + 4096);
    let options = Options { scrub: true, block_size: BlockSizeChoice::Keep, ..Options::default() };
    let plan = plan(disk_of(&source), Extents::from_ranges(free.collect()), options).unwrap();
    let layout = lay_out(&plan, u64::MAX, &Fresh::default()).unwrap();
    let mut all = Pieces::of(&layout);
    let mut size = 0;
    loop {
        let pieces = all.next(64, 1 << 20).unwrap();
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
        let chain = [&child, &parent].map(|image| Rc::new(image.open().unwrap()));
        let disk = Disk::of_layers(chain.to_vec()).unwrap();
        let plan = plan(disk, Extents::new(), Options::default()).unwrap();
        let layout = lay_out(&plan, u64::MAX, &Fresh::default()).unwrap();
        assert_eq!(layout.out().get(0), OutState::Zero, "over state {state}");
        assert!(!layout.outcome().reads_changed);
    }
}

#[test]
fn following_the_tables_reads_nothing_of_the_source() {
    let block_size = 128u64 << 10;
    let present: Vec<_> = (0..32).map(|block| (block, vec![7; 128 << 10])).collect();
    let source = vhd::tests::dynamic(32 * block_size, block_size, &present);
    let every_second = (0..16).map(|i| 2 * i * block_size..(2 * i + 1) * block_size);
    let file = Rc::new(Counting::new(source.clone()));
    let disk = Disk::single(crate::image::open(Rc::clone(&file) as Rc<dyn ReadAt>).unwrap());
    let plan = plan(disk, Extents::from_ranges(every_second.collect()), Options::default()).unwrap();
    let layout = lay_out(&plan, 1, &Fresh::default()).unwrap();
    let output = execute(&layout, &[&source]);
    let before = file.reads();
    let verdict = compare(&layout, &output, Evidence::Pieces).unwrap();
    assert_eq!((verdict.traced, verdict.skipped), (16 * block_size, 16 * block_size));
    assert_eq!(file.reads(), before, "the sector bitmaps of blocks that were left out were read");
}

#[test]
fn no_step_comes_before_the_one_that_it_needs() {
    let present: Vec<_> = (0..4).map(|block| (block, vec![0; 128 << 10])).collect();
    let source = vhd::tests::dynamic(8 << 17, 128 << 10, &present);
    let mut run = Run::new(&analysis(disk_of(&source), Extents::default()), Options::default()).unwrap();
    fn refused<T>(tried: Result<T>) {
        assert_eq!(tried.err().map(|error| error.kind()), Some(ErrorKind::Internal));
    }
    let fresh = Fresh::default();
    refused(run.next_pieces(1, 1));
    loop {
        refused(run.lay_out(&fresh));
        if run.scan_step(1).unwrap().finished {
            break;
        }
    }
    // What was looked at to the end is zero, and goes.
    assert_eq!(run.lay_out(&fresh).unwrap().tally.zero, 4);
    refused(run.scan_step(1));
    refused(run.lay_out(&fresh));
}

#[test]
fn what_a_person_asked_for_is_done_even_where_nothing_is_saved() {
    let source = vhd::tests::dynamic(8 << 20, 2 << 20, &[(1, vec![7; 2 << 20])]);
    let asked = |options| plan(disk_of(&source), Extents::default(), options).unwrap().is_asked_for();
    let none = Options { block_size: BlockSizeChoice::Keep, ..Options::default() };
    assert!(!asked(none));
    // There is nothing to be made dynamic, nor to be flattened, and the blocks have that size.
    assert!(!asked(Options { to_dynamic: true, ..none }));
    assert!(!asked(Options { flatten: true, ..none }));
    assert!(!asked(Options { block_size: BlockSizeChoice::Exactly(2 << 20), ..none }));
    assert!(asked(Options { scrub: true, ..none }));
    assert!(asked(Options { block_size: BlockSizeChoice::Exactly(512 << 10), ..none }));
    assert!(asked(Options { format: Some(crate::image::Format::Vhdx), ..none }));
}

#[test]
fn payload_that_the_log_replaces_is_taken_from_the_log() {
    // The first block lies at 4 MiB of the file.
    let written = Desc::Data((4 << 20) + 8192, Box::new([0x77; 4096]));
    let source = dirty(&[(0, log_entry(1, 0, FILE, &[written]))]).bytes;
    let disk = disk_of(&source);
    let expected = read_vec(&disk, 0, 3 << 20).unwrap();
    assert_eq!(expected[8192..12288], [0x77; 4096]);
    assert_ne!(source[(4 << 20) + 8192], 0x77);
    let made = compact(&source, Extents::default(), Options::default()).unwrap();
    assert_eq!(read_vec(&disk_of(&made.file), 0, 3 << 20).unwrap(), expected);
}
