//! Random chains of three, with any of the parents given, anything free, and anything asked: what is not free
//! reads the same, what is free never shows what the parents hold, and nothing that may go stays.

use proptest::prelude::*;

use super::*;

/// Runs of sectors with one value each; whatever they do not cover is the parent's.
fn held(format: Format, child: bool, sectors: usize) -> impl Strategy<Value = Held> {
    let value = prop_oneof![2 => Just(0u8), 1 => Just(1u8), 2 => 7u8..9];
    let run = (0..sectors, 1..=sectors, proptest::option::weighted(0.8, value.clone()));
    let part = proptest::collection::vec(run, 0..5).prop_map(move |runs| {
        let mut own = vec![None; sectors];
        for (start, len, value) in runs {
            own[start..(start + len).min(sectors)].fill(value);
        }
        own
    });
    let zero = if format == Format::Vhdx { Held::Zero } else { Held::Absent };
    let full = value.prop_map(move |value| Held::Full(vec![value; sectors]));
    let part = part.prop_map(move |own| match child {
        true => Held::Part(own),
        false => Held::Full(own.into_iter().map(Option::unwrap_or_default).collect()),
    });
    prop_oneof![2 => Just(Held::Absent), 1 => Just(zero), 2 => full, 4 => part]
}

fn layer(format: Format, child: bool) -> impl Strategy<Value = Layer> {
    let unit = if format == Format::Vhd { 4 << 10 } else { 1 << 20 };
    let factors = if format == Format::Vhd { 0..3u32 } else { 0..2u32 };
    (factors, 1..4usize, 0..8usize).prop_flat_map(move |(factor, blocks, cut)| {
        let block_size = unit << factor;
        let sectors = block_size / 512;
        proptest::collection::vec(held(format, child, sectors), blocks).prop_map(move |held| {
            let size = blocks * block_size - cut * 512;
            Layer { blocks: held, ..Layer::new(size, block_size, 512) }
        })
    })
}

#[derive(Debug, Clone)]
struct Case {
    layers: [Layer; 3],
    free: Vec<(u64, u64)>,
    mode: usize,
    scrub: bool,
}

fn case(format: Format) -> impl Strategy<Value = Case> {
    let far = if format == Format::Vhd { 48u64 << 10 } else { 6 << 20 };
    let free = proptest::collection::vec((0..far, 1..far / 2), 0..5);
    (layer(format, true), layer(format, true), layer(format, false), free, 0..3usize, any::<bool>()).prop_map(
        |(child, middle, base, free, mode, scrub)| Case { layers: [child, middle, base], free, mode, scrub },
    )
}

fn check(format: Format, case: &Case) -> Result<(), TestCaseError> {
    let layers: Vec<&Layer> = case.layers.iter().collect();
    let child = layers[0];
    let size = child.size as u64;
    // Whole sectors, as every file system frees them.
    let free = Extents::from_ranges(
        case.free.iter().map(|(at, len)| at / 512 * 512..((at + len) / 512 * 512).min(size)).collect(),
    );
    let before = testing::read(&layers);
    let files = files(format, &layers);
    let mode = [Mode::Full, Mode::Quick, Mode::Zero][case.mode];
    let options = Options { mode, scrub: case.scrub, ..Options::default() };
    for given in 0..3 {
        let result = compact_files(&files[..=given], free.clone(), options).unwrap();
        let after = contents(&result.file, &files[1..]);
        for used in free.gaps(0..size) {
            let used = used.start as usize..used.end as usize;
            prop_assert!(before[used.clone()] == after[used], "a used byte was lost");
        }
        prop_assert!(before == after || result.outcome.reads_changed, "nobody was told");
        prop_assert!(before == after || given == 2 && mode != Mode::Zero);
        // Free space may become zero, and never shows what the parent holds.
        prop_assert!(before.iter().zip(&after).all(|(x, y)| x == y || *y == 0), "old bytes came back");
        let expected = if format == Format::Vhdx && result.outcome.reads_changed { NEW } else { identity(1) };
        prop_assert_eq!(result.image.identity, expected);
        if mode == Mode::Zero {
            prop_assert_eq!(result.outcome.tally.kept, must_stay(format, &layers, given));
        }
        let again: Vec<Vec<u8>> = [&[result.file], &files[1..=given]].concat();
        let again = compact_files(&again, free.clone(), options).unwrap();
        prop_assert_eq!(again.outcome.size, result.outcome.size);
        prop_assert_eq!(again.outcome.tally.kept, result.outcome.tally.kept);
    }
    let flat = compact_files(&files, free.clone(), Options { flatten: true, ..options }).unwrap();
    let after = contents(&flat.file, &[]);
    for used in free.gaps(0..size) {
        let used = used.start as usize..used.end as usize;
        prop_assert!(before[used.clone()] == after[used], "a used byte was lost in the merge");
    }
    prop_assert!(before.iter().zip(&after).all(|(x, y)| x == y || *y == 0));
    prop_assert!(before == after || flat.outcome.reads_changed);
    prop_assert_eq!(flat.image.disk_type, DiskType::Dynamic);
    Ok(())
}

/// How many blocks of the child the rules keep when no file system is asked.
fn must_stay(format: Format, layers: &[&Layer], given: usize) -> u64 {
    let child = layers[0];
    let per_block = child.sectors();
    let total = child.size / child.sector;
    // The value of a sector as the given parents tell it; none where a missing one would have to.
    let below = |number: usize| {
        let known = layers[1..=given].iter().find_map(|layer| layer.own(number));
        known.or((given == 2).then_some(0))
    };
    let blocks = (0..child.blocks.len()).filter(|&block| {
        let sectors = block * per_block..((block + 1) * per_block).min(total);
        let own: Vec<usize> = sectors.clone().filter(|&n| child.own(n).is_some()).collect();
        let stored = matches!(child.blocks[block], Held::Full(_) | Held::Part(_)) && !own.is_empty();
        let equal = own.iter().all(|&n| child.own(n) == below(n));
        let zero = sectors.clone().all(|n| child.own(n).or_else(|| below(n)) == Some(0));
        stored && !equal && !(zero && format == Format::Vhdx)
    });
    blocks.count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Three VHDs with random bitmaps, any of the parents given, anything free, anything asked.
    #[test]
    fn chains_of_vhds_read_the_same(case in case(Format::Vhd)) {
        check(Format::Vhd, &case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn chains_of_vhdxs_read_the_same(case in case(Format::Vhdx)) {
        check(Format::Vhdx, &case)?;
    }
}
