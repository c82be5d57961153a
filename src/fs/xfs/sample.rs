//! A small XFS volume made by hand, for tests that break one thing of it.
//!
//! ```text
//!   blocks of 1 KiB   0 headers │ 2 … 7 roots │ 8 free list │ 12 │ 32 inodes │ 100 …
//!   group 0 (256)     AGF …       bno, cnt, ino, fino, rmap,  leaves of     file: 100, attributes: 120
//!                                 refc                        bno           tree: 130, 131 → 140, 150, 160
//!                                                           directory: 161
//!   group 1 (200)     AGF …       the same                    16 … 79 log   file: 100 … 104
//! ```

use std::ops::Range;

use super::probe;
use crate::checksum::{crc32c, crc32c_append};
use crate::fs::{Context, Decline, Detected, FreeMap};

pub(super) const BLOCK: usize = 1024;
pub(super) const GROUP: usize = 256 * BLOCK;
pub(super) const AGF: usize = 512;
pub(super) const AGI: usize = 1024;
pub(super) const AGFL: usize = 1536;
/// Blocks of group 0.
pub(super) const BNO: usize = 2 * BLOCK;
pub(super) const CNT: usize = 3 * BLOCK;
pub(super) const INO: usize = 4 * BLOCK;
pub(super) const FINO: usize = 5 * BLOCK;
pub(super) const RMAP: usize = 6 * BLOCK;
pub(super) const REFC: usize = 7 * BLOCK;
pub(super) const BNO_LEAVES: [usize; 2] = [12 * BLOCK, 13 * BLOCK];
pub(super) const BMAP_LEAVES: [usize; 2] = [130 * BLOCK, 131 * BLOCK];
pub(super) const LOG: usize = GROUP + 16 * BLOCK;
pub(super) const LOG_SECTORS: usize = 128;
/// The numbers of the inodes that are in use.
pub(super) const LIST: usize = 65;
pub(super) const TREE: usize = 66;
pub(super) const DIRECTORY: usize = 68;
/// The block of that directory.
pub(super) const NAMES: usize = 161 * BLOCK;
const FIRST_INODE: usize = 64;
const UUID: [u8; 16] = *b"a file system id";

/// What the volume's free blocks are, in its group.
pub(super) const FREE: [&[Range<u32>]; 2] = [
    &[14..32, 64..100, 110..120, 121..130, 132..140, 142..150, 151..160, 162..256],
    &[12..16, 80..100, 105..200],
];

/// The free bytes.
pub(super) fn free_ranges() -> Vec<Range<u64>> {
    let bytes = |group: usize, range: &Range<u32>| {
        let at = |block: u32| (group * GROUP) as u64 + u64::from(block) * BLOCK as u64;
        at(range.start)..at(range.end)
    };
    (0..2).flat_map(|group| FREE[group].iter().map(move |range| bytes(group, range))).collect()
}

/// A volume in memory, with a list of what has a checksum.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    pub(super) v5: bool,
}

impl Sample {
    /// Version 5 with everything.
    pub(super) fn new() -> Self {
        Self::make(true)
    }

    /// Version 4.
    pub(super) fn old() -> Self {
        Self::make(false)
    }

    fn make(v5: bool) -> Self {
        let mut sample = Self { bytes: vec![0; GROUP + 200 * BLOCK], v5 };
        sample.superblock();
        for group in 0..2 {
            sample.headers(group);
            sample.trees(group);
        }
        sample.inodes();
        sample.unmount(1, 0);
        sample.seal();
        sample
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_be_bytes());
    }

    pub(super) fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_be_bytes());
    }

    pub(super) fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    pub(super) fn get32(&self, at: usize) -> u32 {
        u32::from_be_bytes(*self.bytes[at..].first_chunk().unwrap())
    }

    /// With one field changed and all checksums put right.
    pub(super) fn with32(mut self, at: usize, value: u32) -> Self {
        self.put32(at, value);
        self.seal();
        self
    }

    pub(super) fn with64(mut self, at: usize, value: u64) -> Self {
        self.put64(at, value);
        self.seal();
        self
    }

    pub(super) fn with16(mut self, at: usize, value: u16) -> Self {
        self.put16(at, value);
        self.seal();
        self
    }

    pub(super) fn with8(mut self, at: usize, value: u8) -> Self {
        self.bytes[at] = value;
        self.seal();
        self
    }

    fn superblock(&mut self) {
        self.put(0, b"XFSB");
        self.put32(4, BLOCK as u32);
        self.put64(8, 456);
        self.put(32, &UUID);
        self.put64(48, 256 + 16);
        self.put32(84, 256);
        self.put32(88, 2);
        self.put32(96, 64);
        self.put16(100, if self.v5 { 0xB4A5 } else { 0xB4A4 });
        self.put16(102, 512);
        self.put16(104, 512);
        self.put16(106, 2);
        self.put(108, b"sample");
        self.put(120, &[10, 9, 9, 1, 8]);
        self.put64(128, 64);
        self.put64(136, 59);
        let free: u64 =
            FREE.iter().flat_map(|ranges| ranges.iter()).map(|r| u64::from(r.end - r.start)).sum();
        self.put64(144, free + 2 * 4 + 2);
        self.put32(200, 0x8A);
        self.put32(204, 0x8A);
        if self.v5 {
            self.put32(212, 0xF);
            self.put32(216, 0x2B);
        }
    }

    fn headers(&mut self, group: usize) {
        let (start, length) = (group * GROUP, [256, 200][group]);
        let free = FREE[group];
        let agf = start + AGF;
        self.put(agf, b"XAGF");
        let levels = if group == 0 { 2 } else { 1 };
        let total: u32 = free.iter().map(|r| r.end - r.start).sum();
        let longest = free.iter().map(|r| r.end - r.start).max().unwrap();
        let words =
            [1, group as u32, length, 2, 3, 6, levels, 1, 1, 117, 1, 4, total, longest, levels * 2 - 2];
        for (word, value) in words.into_iter().enumerate() {
            self.put32(agf + 4 + word * 4, value);
        }
        if !self.v5 {
            self.put32(agf + 40, 125);
            self.put32(agf + 44, 0);
            self.put32(agf + 24, 0);
            self.put32(agf + 36, 0);
        }
        let agi = start + AGI;
        self.put(agi, b"XAGI");
        let inodes = if group == 0 { [64, 4, 1, 59] } else { [0, 4, 1, 0] };
        for (word, value) in [1, group as u32, length].into_iter().chain(inodes).enumerate() {
            self.put32(agi + 4 + word * 4, value);
        }
        let list = start + AGFL;
        if self.v5 {
            for (word, value) in [1, 1, 7, 1].into_iter().enumerate() {
                self.put32(agf + 80 + word * 4, value);
            }
            self.put32(agi + 328, 5);
            self.put32(agi + 332, 1);
            self.put(list, b"XAFL");
            self.put32(list + 4, group as u32);
        }
        // The ring goes round its end.
        let slots: [usize; 4] = if self.v5 { [117, 118, 0, 1] } else { [125, 126, 127, 0] };
        for (block, slot) in slots.into_iter().enumerate() {
            self.put32(list + if self.v5 { 36 } else { 0 } + slot * 4, 8 + block as u32);
        }
    }

    fn tree_head(
        &mut self,
        at: usize,
        magic: &[u8; 4],
        level: u16,
        records: usize,
        siblings: [u32; 2],
    ) -> usize {
        self.put(at, magic);
        self.put16(at + 4, level);
        self.put16(at + 6, records as u16);
        self.put32(at + 8, siblings[0]);
        self.put32(at + 12, siblings[1]);
        at + if self.v5 { 56 } else { 16 }
    }

    fn trees(&mut self, group: usize) {
        const NO: [u32; 2] = [u32::MAX; 2];
        let start = group * GROUP;
        let free = FREE[group];
        let magic = |old, new| if self.v5 { new } else { old };
        let (bno, cnt) = (magic(b"ABTB", b"AB3B"), magic(b"ABTC", b"AB3C"));
        let (ino, fino) = (magic(b"IABT", b"IAB3"), b"FIB3");
        if group == 0 {
            let (left, right) = free.split_at(4);
            let keys = self.tree_head(BNO, bno, 1, 2, NO);
            let room = (BLOCK - (keys - BNO)) / 12;
            for (slot, (block, half)) in [(12, left), (13, right)].into_iter().enumerate() {
                self.extents(keys + slot * 8, &half[..1]);
                self.put32(keys + room * 8 + slot * 4, block);
                let siblings = if slot == 0 { [u32::MAX, 13] } else { [12, u32::MAX] };
                let at = self.tree_head(block as usize * BLOCK, bno, 0, half.len(), siblings);
                self.extents(at, half);
            }
        } else {
            let at = self.tree_head(start + BNO, bno, 0, free.len(), NO);
            self.extents(at, free);
        }
        let mut by_size = free.to_vec();
        by_size.sort_by_key(|range| (range.end - range.start, range.start));
        let at = self.tree_head(start + CNT, cnt, 0, free.len(), NO);
        self.extents(at, &by_size);

        let chunks = usize::from(group == 0);
        for (root, magic) in [(INO, ino), (FINO, fino)] {
            if root == FINO && !self.v5 {
                continue;
            }
            let at = self.tree_head(start + root, magic, 0, chunks, NO);
            if group == 0 {
                self.put32(at, FIRST_INODE as u32);
                self.put(at + 4, if self.v5 { &[0, 0, 64, 59] } else { &[0, 0, 0, 59] });
                self.put64(at + 8, !0x1F);
            }
        }
        if !self.v5 {
            return;
        }
        let mut used = 0;
        let mut owned = Vec::new();
        for range in free.iter().cloned().chain([[256, 200][group]..0]) {
            if used < range.start {
                owned.push(used..range.start);
            }
            used = range.end;
        }
        let at = self.tree_head(start + RMAP, b"RMB3", 0, owned.len(), NO);
        for (slot, range) in owned.iter().enumerate() {
            self.extents(at + slot * 24, std::slice::from_ref(range));
            let owner = if range.start < 100 { u64::MAX - 2 } else { LIST as u64 };
            self.put64(at + slot * 24 + 8, owner);
        }
        let shared = usize::from(group == 1);
        let at = self.tree_head(start + REFC, b"R3FC", 0, shared * 2, NO);
        if group == 1 {
            // Two owners of a part of the file, and a copy that was being made.
            for (slot, words) in [[100, 2, 2], [1 << 31 | 103, 1, 1]].into_iter().enumerate() {
                for (word, value) in words.into_iter().enumerate() {
                    self.put32(at + slot * 12 + word * 4, value);
                }
            }
        }
    }

    fn extents(&mut self, at: usize, extents: &[Range<u32>]) {
        for (slot, range) in extents.iter().enumerate() {
            self.put32(at + slot * 8, range.start);
            self.put32(at + slot * 8 + 4, range.end - range.start);
        }
    }

    /// Where an inode of the chunk stands, and where its data fork begins.
    pub(super) fn inode(&self, number: usize) -> (usize, usize) {
        let at = number * 512;
        (at, at + if self.v5 { 176 } else { 100 })
    }

    /// A list of extents: first block of the file, block, blocks.
    pub(super) fn list(&mut self, at: usize, extents: &[(u64, u64, u64)]) {
        for (slot, &(offset, block, count)) in extents.iter().enumerate() {
            self.put64(at + slot * 16, offset << 9 | block >> 43);
            self.put64(at + slot * 16 + 8, block << 21 | count);
        }
    }

    fn inodes(&mut self) {
        for number in FIRST_INODE..FIRST_INODE + 64 {
            let (at, _) = self.inode(number);
            self.put(at, b"IN");
            self.bytes[at + 4] = if self.v5 { 3 } else { 2 };
            self.bytes[at + 5] = 2;
            if self.v5 {
                self.put64(at + 152, number as u64);
            }
        }
        let (root, _) = self.inode(FIRST_INODE);
        self.put16(root + 2, 0o40755);
        self.bytes[root + 5] = 1;
        let inline = self.inline_names(&[(b"list", LIST), (b"tree", TREE), (b"sub", DIRECTORY)]);
        self.put64(root + 56, inline.len() as u64);
        let (_, fork) = self.inode(FIRST_INODE);
        self.put(fork, &inline);

        let (at, fork) = self.inode(LIST);
        self.put16(at + 2, 0o100_644);
        self.put64(at + 64, 16);
        self.put32(at + 76, 2);
        self.put16(at + 80, 1);
        self.bytes[at + 82] = 20;
        self.bytes[at + 83] = 2;
        self.list(fork, &[(0, 100, 10), (1 << 40, 256 + 100, 5)]);
        self.list(fork + 160, &[(0, 120, 1)]);

        let (at, fork) = self.inode(TREE);
        self.put16(at + 2, 0o100_644);
        self.bytes[at + 5] = 3;
        self.put64(at + 64, 6);
        if self.v5 {
            // Wide counts.
            self.put64(at + 24, 3);
            self.put64(at + 120, 1 << 4);
        } else {
            self.put32(at + 76, 3);
        }
        self.put16(fork, 1);
        self.put16(fork + 2, 2);
        let room = (at + 512 - fork - 4) / 16;
        for (slot, block) in [130, 131].into_iter().enumerate() {
            self.put64(fork + 4 + slot * 8, slot as u64 * 10);
            self.put64(fork + 4 + room * 8 + slot * 8, block);
        }
        let magic = if self.v5 { b"BMA3" } else { b"BMAP" };
        let extents: [&[(u64, u64, u64)]; 2] = [&[(0, 140, 2), (5, 150, 1)], &[(10, 160, 1)]];
        for (slot, leaf) in BMAP_LEAVES.into_iter().enumerate() {
            self.put(leaf, magic);
            self.put16(leaf + 6, extents[slot].len() as u16);
            self.put64(leaf + 8, [u64::MAX, 130][slot]);
            self.put64(leaf + 16, [131, u64::MAX][slot]);
            self.list(leaf + if self.v5 { 72 } else { 24 }, extents[slot]);
        }
        let (at, fork) = self.inode(DIRECTORY);
        self.put16(at + 2, 0o40_755);
        self.put64(at + 64, 1);
        self.put32(at + 76, 1);
        self.list(fork, &[(0, 161, 1)]);
        self.names(&[(b".", DIRECTORY), (b"..", FIRST_INODE), (b"a link to the list", LIST)]);
        let (at, _) = self.inode(FIRST_INODE + 3);
        self.put16(at + 2, 0o20_600);
        self.bytes[at + 5] = 0;
    }

    /// The root directory, as it lies in its inode.
    fn inline_names(&self, names: &[(&[u8], usize)]) -> Vec<u8> {
        let mut bytes = vec![names.len() as u8, 0, 0, 0, 0, FIRST_INODE as u8];
        for (name, inode) in names {
            bytes.extend([name.len() as u8, 0, 0]);
            bytes.extend(*name);
            bytes.extend(self.v5.then_some(1));
            bytes.extend([0, 0, 0, *inode as u8]);
        }
        bytes
    }

    /// The block of the directory, with one unused entry before the last name.
    fn names(&mut self, names: &[(&[u8], usize)]) {
        self.put(NAMES, if self.v5 { b"XDB3" } else { b"XD2B" });
        let mut at = NAMES + if self.v5 { 64 } else { 16 };
        for (number, (name, inode)) in names.iter().enumerate() {
            if number == 2 {
                self.put(at, &[0xFF, 0xFF, 0, 24]);
                at += 24;
            }
            self.put64(at, *inode as u64);
            self.bytes[at + 8] = name.len() as u8;
            self.put(at + 9, name);
            at += (name.len() + 11 + usize::from(self.v5)).next_multiple_of(8);
        }
        let end = NAMES + BLOCK - 8 - names.len() * 8;
        self.put(at, &[0xFF, 0xFF]);
        self.put16(at + 2, (end - at) as u16);
        self.put32(NAMES + BLOCK - 8, names.len() as u32);
    }

    /// Writes an unmount record at a sector of the log, in a round of it; gives where it ends.
    pub(super) fn unmount(&mut self, cycle: u32, sector: usize) -> usize {
        for at in 0..LOG_SECTORS {
            let written = if at < sector { cycle } else { cycle - 1 };
            self.put32(LOG + at * 512, written);
        }
        let at = LOG + sector * 512;
        self.bytes[at..at + 512].fill(0);
        self.put32(at, 0xFEED_BABE);
        self.put32(at + 4, cycle);
        self.put32(at + 8, 2);
        self.put32(at + 12, 512);
        self.put64(at + 16, u64::from(cycle) << 32 | sector as u64);
        self.put32(at + 40, 1);
        self.put32(at + 300, 1);
        self.put(at + 304, &UUID);
        self.put32(at + 320, 32 << 10);
        let data = (sector + 1) % LOG_SECTORS;
        let round = if data == 0 { cycle + 1 } else { cycle };
        let at = LOG + data * 512;
        self.bytes[at..at + 512].fill(0);
        self.put32(at, round);
        self.put32(at + 4, 8);
        self.bytes[at + 8] = 0xAA;
        self.bytes[at + 9] = 0x20;
        (data + 1) % LOG_SECTORS
    }

    /// Puts the checksum of the unmount record at a sector right.
    pub(super) fn seal_log(&mut self, sector: usize) {
        let at = LOG + sector * 512;
        self.put(at + 32, &[0; 4]);
        let data = LOG + (sector + 1) % LOG_SECTORS * 512;
        let crc = crc32c_append(crc32c(&self.bytes[at..at + 328]), &self.bytes[data..data + 512]);
        self.put(at + 32, &crc.to_le_bytes());
    }

    /// Puts identities and checksums right, wherever a structure is.
    pub(super) fn seal(&mut self) {
        if !self.v5 {
            return;
        }
        self.seal_one(0, 512, 224);
        for group in 0..2 {
            let start = group * GROUP;
            for (at, uuid, crc) in [(AGF, 64, 216), (AGI, 296, 312), (AGFL, 8, 32)] {
                self.put(start + at + uuid, &UUID);
                self.seal_one(start + at, 512, crc);
            }
            let leaves = if group == 0 { &BNO_LEAVES[..] } else { &[] };
            for block in [BNO, CNT, INO, FINO, RMAP, REFC].iter().chain(leaves) {
                let at = start + block;
                self.put64(at + 16, at as u64 / 512);
                self.put(at + 32, &UUID);
                self.put32(at + 48, group as u32);
                self.seal_one(at, BLOCK, 52);
            }
        }
        for at in BMAP_LEAVES {
            self.put64(at + 24, at as u64 / 512);
            self.put(at + 40, &UUID);
            self.put64(at + 56, TREE as u64);
            self.seal_one(at, BLOCK, 64);
        }
        self.put64(NAMES + 8, NAMES as u64 / 512);
        self.put(NAMES + 24, &UUID);
        self.put64(NAMES + 40, DIRECTORY as u64);
        self.seal_one(NAMES, BLOCK, 4);
        for number in FIRST_INODE..FIRST_INODE + 64 {
            let (at, _) = self.inode(number);
            self.put(at + 160, &UUID);
            self.seal_one(at, 512, 100);
        }
    }

    pub(super) fn seal_one(&mut self, at: usize, len: usize, crc_at: usize) {
        self.put(at + crc_at, &[0; 4]);
        let crc = crc32c(&self.bytes[at..at + len]);
        self.put(at + crc_at, &crc.to_le_bytes());
    }

    pub(super) fn detect(&self) -> Detected {
        probe(&self.bytes, Context { sector_size: 512 }).unwrap().heard(&self.bytes)
    }

    #[track_caller]
    pub(super) fn mapped(&self) -> FreeMap {
        self.detect().into_map()
    }

    #[track_caller]
    pub(super) fn declined(&self) -> Decline {
        self.detect().into_decline()
    }
}
