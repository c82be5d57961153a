//! The invariant over everything: every byte that is not free reads the same before and after.

use std::rc::Rc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::extents::Extents;
use crate::image::{self, Disk, Piece, vhd};
use crate::io::{ReadAt, read_vec};
use crate::{ErrorKind, Result};

const GRAIN: usize = 4096;

fn disk_of(file: &[u8]) -> Disk {
    let file: Rc<dyn ReadAt> = Rc::new(file.to_vec());
    Disk::new(vec![Rc::new(image::open(file).unwrap())]).unwrap()
}

/// Executes a layout into memory.
pub(super) fn execute(layout: &mut Layout, disk: &Disk, plan: &Plan, files: &[&[u8]]) -> Vec<u8> {
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
        block_size in prop_oneof![Just(64u64 << 10), Just(128 << 10)],
        blocks in proptest::collection::vec(proptest::option::of(grains(32)), 1..24),
        free in proptest::collection::vec((0u64..24 << 17, 1u64..400_000), 0..10),
        cut in 0u64..100,
        options in options(),
    ) {
        let per_block = block_size as usize / GRAIN;
        let present: Vec<(u64, Vec<u8>)> = blocks
            .iter()
            .enumerate()
            .filter_map(|(i, grains)| {
                let grains = grains.as_ref()?;
                let payload = grains.iter().take(per_block).flat_map(|&g| vec![g; GRAIN]).collect();
                Some((i as u64, payload))
            })
            .collect();
        let size = blocks.len() as u64 * block_size - cut * 512;
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
