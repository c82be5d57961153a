//! Damages that every file system can have: pieces of its structures that are lost, stale, torn, misplaced,
//! zeroed or flipped.

use std::ops::Range;

use super::Patch;
use crate::toolbox::{MIB, Random};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// A clean volume, and how it came about.
pub trait Aged {
    /// The volume without damage.
    fn now(&self) -> &[u8];

    /// Earlier states of it, oldest first.
    fn history(&self) -> &[Vec<u8>];

    /// One of the earlier states.
    fn old(&self, random: &mut Random) -> &[u8] {
        &self.history()[random.below(self.history().len() as u64) as usize]
    }

    /// One of the earlier states, mostly of the last ones: they differ least, and so they are the most dangerous.
    fn recent(&self, random: &mut Random) -> &[u8] {
        let len = self.history().len() as u64;
        &self.history()[(len - 1 - random.below(len).min(random.below(len))) as usize]
    }
}

/// A piece of one of these ranges, `len` bytes long and aligned to that.
pub fn piece(ranges: &[Range<u64>], len: u64, random: &mut Random) -> Range<u64> {
    let range = &ranges[random.below(ranges.len() as u64) as usize];
    let pieces = (range.end - range.start).div_ceil(len);
    let at = range.start + random.below(pieces) * len;
    at..(at + len).min(range.end)
}

/// A sector, two, or a page.
fn unit(random: &mut Random) -> u64 {
    [SECTOR, 2 * SECTOR, PAGE][random.below(3) as usize]
}

pub fn bytes(volume: &[u8], range: &Range<u64>) -> Vec<u8> {
    volume[range.start as usize..range.end as usize].to_vec()
}

pub fn put(range: Range<u64>, bytes: Vec<u8>) -> Vec<Patch> {
    vec![Patch { at: range.start, bytes }]
}

/// These bytes as they once were.
pub fn stale(volume: &impl Aged, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let old = volume.old(random);
    ranges.iter().flat_map(|range| put(range.clone(), bytes(old, range))).collect()
}

/// Each `len` bytes of these ranges that once were different: as they were, or as they are.
pub fn torn(volume: &impl Aged, ranges: &[Range<u64>], len: u64, random: &mut Random) -> Vec<Patch> {
    let (old, share) = (volume.old(random), 1 + random.below(9));
    let mut patches = Vec::new();
    for range in ranges {
        for at in (range.start..range.end).step_by(len as usize) {
            let part = at..(at + len).min(range.end);
            let before = bytes(old, &part);
            if before != bytes(volume.now(), &part) && random.below(10) < share {
                patches.extend(put(part, before));
            }
        }
    }
    patches
}

/// A write that was lost, so that a piece is as it was, or zeros where nothing older is known to be different.
pub fn lost_write(volume: &impl Aged, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    for _ in 0..50 {
        let part = piece(ranges, unit(random), random);
        let before = bytes(volume.old(random), &part);
        if before != bytes(volume.now(), &part) {
            return put(part, before);
        }
    }
    zeroed(ranges, random)
}

pub fn zeroed(ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let part = piece(ranges, unit(random), random);
    let len = part.end - part.start;
    put(part, vec![0; len as usize])
}

/// A write that went to the place of another.
pub fn misplaced(volume: &impl Aged, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let len = unit(random);
    let (from, to) = (piece(ranges, len, random), piece(ranges, len, random));
    let mut moved = bytes(volume.now(), &from);
    moved.truncate((to.end - to.start) as usize);
    put(to, moved)
}

/// A few bits that flipped.
pub fn flips(volume: &impl Aged, ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let flip = |random: &mut Random| {
        let part = piece(ranges, 1, random);
        put(part.clone(), vec![volume.now()[part.start as usize] ^ 1 << random.below(8)])
    };
    (0..1 + random.below(4)).flat_map(|_| flip(random)).collect()
}

pub fn random_bytes(ranges: &[Range<u64>], random: &mut Random) -> Vec<Patch> {
    let part = piece(ranges, unit(random), random);
    let len = part.end - part.start;
    put(part, random.bytes(len))
}

/// What a container can do to its blocks: a whole one is lost, stale, or another.
pub fn container_block(volume: &impl Aged, random: &mut Random) -> Vec<Patch> {
    let len = [64 << 10, 512 << 10, MIB, 2 * MIB][random.below(4) as usize];
    let all = [0..volume.now().len() as u64];
    let part = piece(&all, len, random);
    match random.below(3) {
        0 => put(part.clone(), vec![0; (part.end - part.start) as usize]),
        1 => put(part.clone(), bytes(volume.old(random), &part)),
        _ => {
            let mut other = bytes(volume.now(), &piece(&all, len, random));
            other.resize((part.end - part.start) as usize, 0);
            put(part, other)
        }
    }
}
