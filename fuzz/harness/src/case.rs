//! What an input means: a seed's number, options, and patches of the places that the engine reads.
//!
//! ```text
//!   0      seed       which of the target's seeds
//!   1..3   options    see `options`
//!   3      repair     checksums are repaired unless its lowest three bits are zero
//!   4..    patches    eight bytes each: place (u16), offset in it (u16), kind, value (3 bytes)
//! ```

use std::rc::Rc;

use vhd_compactor::compact::{BlockSizeChoice, Mode, Options};
use vhd_compactor::image::Format;
use vhd_compactor::io::ReadAt;

use crate::pages::Pages;
use crate::repair::repair;
use crate::seeds::Seed;

/// A seed with its patches applied.
pub struct Case<'a> {
    /// What it was made from.
    pub seed: &'a Seed,
    /// The image and its parents, or the volume.
    pub files: Vec<Rc<Pages>>,
    /// What is asked of a compaction.
    pub options: Options,
}

/// Values at which arithmetic goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
    0x0000_0010_0000_0000,
];

impl<'a> Case<'a> {
    /// None where the input is too short to name a seed, or there are none.
    #[must_use]
    pub fn decode(seeds: &'a [Seed], input: &[u8]) -> Option<Self> {
        let (head, patches) = input.split_at_checked(4)?;
        let seed = seeds.get(usize::from(head[0]) % seeds.len().max(1))?;
        let mut files = seed.files.clone();
        for patch in patches.chunks_exact(8) {
            apply(seed, &mut files, patch);
        }
        if head[3] & 7 != 0 {
            files.iter_mut().for_each(repair);
        }
        let files = files.into_iter().map(Rc::new).collect();
        Some(Self { seed, files, options: options(head[1], head[2]) })
    }
}

fn apply(seed: &Seed, files: &mut [Pages], patch: &[u8]) {
    let number = |bytes: &[u8]| usize::from(bytes[0]) | usize::from(bytes[1]) << 8;
    let Some((file, place)) = seed.places.get(number(patch) % seed.places.len().max(1)) else { return };
    let file = &mut files[*file];
    let at = place.start + number(&patch[2..]) as u64 % (place.end - place.start);
    let (kind, value) = (patch[4], &patch[5..8]);
    let small = u64::from(value[0]) | u64::from(value[1]) << 8;
    // Numbers are mostly aligned to their size.
    let width = 1u64 << (value[2] & 3);
    let at = if value[2] & 4 == 0 { at / width * width } else { at };
    let width = width as usize;
    let big_endian = value[2] & 8 != 0;
    let old = file.bytes(at, width);
    let as_number = |bytes: &[u8]| {
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    };
    let as_bytes = |number: u64| {
        let bytes = number.to_le_bytes()[..width].to_vec();
        if big_endian { bytes.into_iter().rev().collect() } else { bytes }
    };
    let new: Vec<u8> = match kind % 8 {
        0 => vec![value[0]],
        1 => vec![file.bytes(at, 1)[0] ^ 1 << (value[0] & 7)],
        2 => as_bytes(as_number(&old).wrapping_add(small & 0xFF)),
        3 => as_bytes(as_number(&old).wrapping_sub(small & 0xFF)),
        4 => as_bytes(EDGES[usize::from(value[0]) % EDGES.len()]),
        5 => as_bytes(small),
        6 => vec![if value[0] & 1 == 0 { 0 } else { 0xFF }; 1 << (value[1] & 7)],
        _ => {
            // A copy of another place.
            let (_, from) = &seed.places[small as usize % seed.places.len()];
            file.bytes(from.start, 16)
        }
    };
    let room = file.size().saturating_sub(at).min(new.len() as u64) as usize;
    file.put(at, &new[..room]);
}

fn options(a: u8, b: u8) -> Options {
    let block_size = match a >> 2 & 7 {
        0..=2 => BlockSizeChoice::Smallest,
        3 => BlockSizeChoice::Keep,
        4 => BlockSizeChoice::Exactly(512 << 10),
        5 => BlockSizeChoice::Exactly(1 << 20),
        6 => BlockSizeChoice::Exactly(2 << 20),
        _ => BlockSizeChoice::Exactly(1 << (b & 63)),
    };
    Options {
        mode: [Mode::Full, Mode::Full, Mode::Quick, Mode::Zero][usize::from(a & 3)],
        block_size,
        format: [None, None, Some(Format::Vhd), Some(Format::Vhdx)][usize::from(a >> 5 & 3)],
        to_dynamic: a & 128 == 0,
        scrub: b & 1 != 0,
        drop_page_files: b & 2 != 0,
        ignore_shadow_copies: b & 4 != 0,
        flatten: b & 8 != 0,
        trust_parent: b & 16 != 0,
    }
}

/// The input of a number, for fuzzing without guidance: a head, and mostly a few patches.
#[must_use]
pub fn random_input(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    };
    let patches = match next() % 16 {
        0 => 0,
        1..=8 => 1,
        9..=13 => 1 + next() % 4,
        _ => 1 + next() % 16,
    };
    (0..4 + 8 * patches).map(|_| next() as u8).collect()
}
