//! A small ext4 volume built by hand, for tests that break one field at a time.
//!
//! ```text
//!   group 0 (2048 blocks of 1 KiB from block 1)   copy, descriptors, 4 reserved, tables, 100 used: of these
//!                                                 block 20 is the root directory, the rest is nobody's
//!   group 1 (2048)                                the same, and a journal of 1100 blocks
//!   group 2 (500)                                 tables; its bitmap is implied
//! ```

use crate::fs::ext::checksum::{START, crc16, crc32_be, crc32c};
use crate::fs::ext::probe;
use crate::fs::{Context, Decline, Detected, FreeMap};

pub(super) const BLOCK: usize = 1024;
pub(super) const BLOCKS: u64 = 1 + 2 * 2048 + 500;
pub(super) const JOURNAL: u64 = 2065;
pub(super) const JOURNAL_BLOCKS: u32 = 1100;
/// The first free block of group 0, and the free blocks of all groups.
pub(super) const FIRST_FREE: u64 = 117;
pub(super) const FREE: [u64; 3] = [2048 - 116, 2048 - 16 - 1100, 500 - 10];
/// Where structures lie, in bytes.
pub(super) const SUPERBLOCK: usize = 1024;
pub(super) const DESCRIPTORS: usize = 2 * BLOCK;
pub(super) const BITMAPS: [usize; 3] = [7 * BLOCK, 2055 * BLOCK, 4097 * BLOCK];
pub(super) const INODE_BITMAPS: [usize; 2] = [8 * BLOCK, 2056 * BLOCK];
pub(super) const JOURNAL_INODE: usize = 9 * BLOCK + 7 * 256;
pub(super) const ROOT_DIRECTORY: usize = 20 * BLOCK;

pub(super) struct Sample {
    pub bytes: Vec<u8>,
}

impl Sample {
    /// A clean volume with metadata_csum, 64bit and an empty journal.
    pub(super) fn new() -> Self {
        let mut sample = Self { bytes: vec![0; usize::try_from(BLOCKS).unwrap() * BLOCK] };
        let free: u64 = FREE.iter().sum();
        for (at, value) in [
            (0x00, 96),
            (0x04, u32::try_from(BLOCKS).unwrap()),
            (0x0C, u32::try_from(free).unwrap()),
            (0x14, 1),
            (0x20, 2048),
            (0x24, 2048),
            (0x28, 32),
            (0x4C, 1),
            (0x54, 11),
            (0x5C, 0x4 | 0x10),
            (0x60, 0x2 | 0x40 | 0x80),
            (0x64, 0x1 | 0x400),
            (0xE0, 8),
        ] {
            sample.put32(SUPERBLOCK + at, value);
        }
        sample.put16(SUPERBLOCK + 0x38, 0xEF53);
        sample.put16(SUPERBLOCK + 0x3A, 1);
        sample.put16(SUPERBLOCK + 0x58, 256);
        sample.put16(SUPERBLOCK + 0xCE, 4);
        sample.put16(SUPERBLOCK + 0xFE, 64);
        sample.bytes[SUPERBLOCK + 0x68..][..16].copy_from_slice(b"unique as a uuid");
        sample.bytes[SUPERBLOCK + 0x78..][..6].copy_from_slice(b"sample");
        sample.bytes[SUPERBLOCK + 0x175] = 1;
        for (group, (tables, flags)) in [(7, 4), (2055, 4), (4097, 2 | 1)].into_iter().enumerate() {
            let at = DESCRIPTORS + group * 64;
            sample.put32(at, tables);
            sample.put32(at + 4, tables + 1);
            sample.put32(at + 8, tables + 2);
            sample.put16(at + 0xC, u16::try_from(FREE[group]).unwrap());
            sample.put16(at + 0x12, flags);
        }
        sample.use_bits(0, 0..116);
        sample.use_bits(1, 0..16 + 1100);
        sample.bytes[INODE_BITMAPS[0]..][..2].copy_from_slice(&[0xFF, 0x03]);
        sample.put_journal_inode();
        sample.put_inode(2, 0x41ED, 2, 1024, &[0x0001_F30A, 4, 0, 0, 1, 20]);
        sample.put_names(&[(2, b"."), (2, b"..")]);
        sample.put_log(&Log::new(Protection::V3));
        sample.seal();
        sample
    }

    pub(super) fn put16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn get32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    /// Sets a superblock field and makes its checksum right again.
    pub(super) fn with32(mut self, field: usize, value: u32) -> Self {
        self.put32(SUPERBLOCK + field, value);
        self.seal();
        self
    }

    /// As [`Sample::with32`], for 16 bits.
    pub(super) fn with16(mut self, field: usize, value: u16) -> Self {
        self.put16(SUPERBLOCK + field, value);
        self.seal();
        self
    }

    /// Adds bits to a superblock field.
    pub(super) fn with_bits(self, field: usize, bits: u32) -> Self {
        let value = self.get32(SUPERBLOCK + field) | bits;
        self.with32(field, value)
    }

    pub(super) fn use_bits(&mut self, group: usize, bits: std::ops::Range<usize>) {
        for bit in bits {
            self.bytes[BITMAPS[group] + bit / 8] |= 1 << (bit % 8);
        }
    }

    fn put_journal_inode(&mut self) {
        let words = [0x0001_F30A, 4, 0, 0, JOURNAL_BLOCKS, JOURNAL as u32];
        self.put_inode(8, 0x8180, 1, JOURNAL_BLOCKS * 1024, &words);
    }

    /// The byte at which inode `number` of the first two groups lies.
    pub(super) fn inode_at(number: u32) -> usize {
        let place = number as usize - 1;
        [9, 2057][place / 32] * BLOCK + place % 32 * 256
    }

    /// An inode with an extent tree, whose root has these words.
    pub(super) fn put_inode(&mut self, number: u32, mode: u16, links: u16, size: u32, words: &[u32]) {
        let at = Self::inode_at(number);
        self.bytes[at..at + 256].fill(0);
        self.put16(at, mode);
        self.put32(at + 4, size);
        self.put16(at + 0x1A, links);
        self.put32(at + 0x20, 0x8_0000);
        self.put16(at + 0x80, 32);
        for (word, &value) in words.iter().enumerate() {
            self.put32(at + 0x28 + word * 4, value);
        }
    }

    /// Says in the inode bitmap that inode `number` of the first two groups is in use.
    pub(super) fn use_inode(&mut self, number: u32) {
        let place = number as usize - 1;
        self.bytes[INODE_BITMAPS[place / 32] + place % 32 / 8] |= 1 << (place % 8);
    }

    /// Makes the root directory hold these names.
    pub(super) fn put_names(&mut self, names: &[(u32, &[u8])]) {
        let block = self.names(names);
        self.bytes[ROOT_DIRECTORY..][..BLOCK].copy_from_slice(&block);
    }

    /// A block of a directory with these names.
    pub(super) fn names(&self, names: &[(u32, &[u8])]) -> Vec<u8> {
        let mut block = Vec::new();
        for (position, (inode, name)) in names.iter().enumerate() {
            let end = (block.len() + 8 + name.len()).next_multiple_of(4);
            let end = if position + 1 == names.len() { BLOCK } else { end };
            block.extend(inode.to_le_bytes());
            block.extend(u16::try_from(end + 4 - block.len()).unwrap().to_le_bytes());
            block.extend([u8::try_from(name.len()).unwrap(), 0]);
            block.extend(*name);
            block.resize(end, 0);
        }
        block
    }

    /// Writes a log into the journal.
    pub(super) fn put_log(&mut self, log: &Log) {
        let at = usize::try_from(JOURNAL).unwrap() * BLOCK;
        let superblock = log.superblock();
        self.bytes[at..at + BLOCK].copy_from_slice(&superblock);
        for (position, block) in log.blocks.iter().enumerate() {
            let place = (log.start - 1 + position) % (JOURNAL_BLOCKS as usize - 1) + 1;
            self.bytes[at + place * BLOCK..][..BLOCK].copy_from_slice(block);
        }
    }

    /// A volume that was in use, with this log to replay.
    pub(super) fn in_use(log: &Log) -> Self {
        let mut sample = Self::new().with_bits(0x60, 0x4);
        sample.put_log(log);
        sample
    }

    /// Makes every checksum right that its features ask for.
    pub(super) fn seal(&mut self) {
        let ro_compat = self.get32(SUPERBLOCK + 0x64);
        let uuid = self.bytes[SUPERBLOCK + 0x68..][..16].to_vec();
        let seed = crc32c(START, &uuid);
        let metadata_csum = ro_compat & 0x400 != 0;
        for group in 0..3 {
            let at = DESCRIPTORS + group * 64;
            if metadata_csum {
                let bitmap = usize::try_from(self.get32(at)).unwrap() * BLOCK;
                let crc = crc32c(seed, self.bytes.get(bitmap..bitmap + 256).unwrap_or_default());
                self.put16(at + 0x18, crc as u16);
                self.put16(at + 0x38, (crc >> 16) as u16);
            }
            self.put16(at + 0x1E, 0);
            let number = u32::try_from(group).unwrap().to_le_bytes();
            let descriptor = self.bytes[at..at + 64].to_vec();
            let crc = if metadata_csum {
                crc32c(crc32c(seed, &number), &descriptor) as u16
            } else {
                [&uuid[..], &number, &descriptor[..0x1E], &descriptor[0x20..]]
                    .into_iter()
                    .fold(u16::MAX, crc16)
            };
            self.put16(at + 0x1E, crc);
        }
        if metadata_csum {
            for number in 1..=64u32 {
                let at = Self::inode_at(number);
                if self.bytes[at..at + 256].iter().all(|&byte| byte == 0) {
                    continue;
                }
                self.put16(at + 0x7C, 0);
                self.put16(at + 0x82, 0);
                let inode = &self.bytes[at..][..256];
                let crc = crc32c(crc32c(crc32c(seed, &number.to_le_bytes()), &inode[0x64..0x68]), inode);
                self.put16(at + 0x7C, crc as u16);
                self.put16(at + 0x82, (crc >> 16) as u16);
            }
            let crc = crc32c(START, &self.bytes[SUPERBLOCK..][..0x3FC]);
            self.put32(SUPERBLOCK + 0x3FC, crc);
        }
    }

    pub(super) fn detect(&self) -> Detected {
        probe(&self.bytes, Context { sector_size: 512 }).expect("the sample is ext").heard(&self.bytes)
    }

    #[track_caller]
    pub(super) fn mapped(&self) -> FreeMap {
        self.detect().into_map()
    }

    pub(super) fn copy(&self) -> Self {
        Self { bytes: self.bytes.clone() }
    }

    #[track_caller]
    pub(super) fn declined(&self) -> Decline {
        self.detect().into_decline()
    }
}

/// The free ranges of an untouched sample, in bytes.
pub(super) fn sample_free() -> Vec<std::ops::Range<u64>> {
    [FIRST_FREE..2049, JOURNAL + u64::from(JOURNAL_BLOCKS)..4097, 4107..BLOCKS]
        .map(|blocks| blocks.start * 1024..blocks.end * 1024)
        .to_vec()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protection {
    None,
    V1,
    V2,
    V3,
}

/// A jbd2 log in the making: block numbers of 64 bits, sequence numbers from 7.
#[derive(Clone)]
pub(super) struct Log {
    pub blocks: Vec<Vec<u8>>,
    pub protection: Protection,
    pub incompat: u32,
    pub errno: u32,
    /// The block of the journal where the log begins; 0 in the superblock while it has no blocks.
    pub start: usize,
    pub sequence: u32,
    running: u32,
}

impl Log {
    pub(super) fn new(protection: Protection) -> Self {
        let incompat = match protection {
            Protection::None | Protection::V1 => 0x3,
            Protection::V2 => 0xB,
            Protection::V3 => 0x13,
        };
        Self { blocks: Vec::new(), protection, incompat, errno: 0, start: 1, sequence: 7, running: START }
    }

    fn seed() -> u32 {
        crc32c(START, b"journal has uuid")
    }

    fn control(&self, kind: u32) -> Vec<u8> {
        let mut block = [0xC03B_3998, kind, self.sequence].map(u32::to_be_bytes).concat();
        block.reserve(BLOCK);
        block
    }

    fn seal_tail(&self, mut block: Vec<u8>) -> Vec<u8> {
        block.resize(BLOCK, 0);
        if matches!(self.protection, Protection::V2 | Protection::V3) {
            let crc = crc32c(Self::seed(), &block);
            block[BLOCK - 4..].copy_from_slice(&crc.to_be_bytes());
        }
        block
    }

    /// A transaction that makes `before` into `after`.
    pub(super) fn change(&mut self, before: &Sample, after: &Sample) -> &mut Self {
        let blocks = before.bytes.chunks(BLOCK).zip(after.bytes.chunks(BLOCK)).enumerate();
        let writes: Vec<(u64, Vec<u8>)> = blocks
            .filter(|(_, (before, after))| before != after)
            .map(|(number, (_, after))| (number as u64, after.to_vec()))
            .collect();
        self.write(&writes).commit()
    }

    /// A descriptor and its data: what the blocks `writes` will hold.
    pub(super) fn write(&mut self, writes: &[(u64, Vec<u8>)]) -> &mut Self {
        let mut descriptor = self.control(1);
        let mut blocks = Vec::new();
        for (position, (target, content)) in writes.iter().enumerate() {
            let mut content = content.clone();
            content.resize(BLOCK, 0);
            let escaped = content.starts_with(&0xC03B_3998u32.to_be_bytes());
            if escaped {
                content[..4].fill(0);
            }
            let flags = u32::from(escaped) | if position > 0 { 2 } else { 0 } | last(position, writes.len());
            let crc = crc32c(crc32c(Self::seed(), &self.sequence.to_be_bytes()), &content);
            let (low, high) = ((*target as u32).to_be_bytes(), ((target >> 32) as u32).to_be_bytes());
            let tag = match self.protection {
                Protection::V3 => [low, flags.to_be_bytes(), high, crc.to_be_bytes()].concat(),
                Protection::V2 => [low, (crc << 16 | flags).to_be_bytes(), high]
                    .concat()
                    .into_iter()
                    .chain([0; 2])
                    .collect(),
                _ => [low, flags.to_be_bytes(), high].concat(),
            };
            descriptor.extend(tag);
            if position == 0 {
                descriptor.extend([0xEE; 16]);
            }
            blocks.push(content);
        }
        blocks.insert(0, self.seal_tail(descriptor));
        self.running = blocks.iter().fold(self.running, |crc, block| crc32_be(crc, block));
        self.blocks.extend(blocks);
        self
    }

    pub(super) fn revoke(&mut self, blocks: &[u64]) -> &mut Self {
        let mut block = self.control(5);
        block.extend(u32::try_from(16 + blocks.len() * 8).unwrap().to_be_bytes());
        blocks.iter().for_each(|revoked| block.extend(revoked.to_be_bytes()));
        let block = self.seal_tail(block);
        self.blocks.push(block);
        self
    }

    pub(super) fn commit(&mut self) -> &mut Self {
        let mut block = self.control(2);
        if self.protection == Protection::V1 {
            block.extend([1, 4, 0, 0]);
            block.extend(self.running.to_be_bytes());
        }
        block.resize(BLOCK, 0);
        block[0x30..0x38].copy_from_slice(&1_700_000_000u64.to_be_bytes());
        if matches!(self.protection, Protection::V2 | Protection::V3) {
            let crc = crc32c(Self::seed(), &block);
            block[0x10..0x14].copy_from_slice(&crc.to_be_bytes());
        }
        self.running = START;
        self.blocks.push(block);
        self.sequence = self.sequence.wrapping_add(1);
        self
    }

    pub(super) fn superblock(&self) -> Vec<u8> {
        let start = if self.blocks.is_empty() { 0 } else { u32::try_from(self.start).unwrap() };
        let first = self
            .blocks
            .first()
            .map_or(self.sequence, |block| u32::from_be_bytes(block[8..12].try_into().unwrap()));
        let compat = u32::from(self.protection == Protection::V1);
        let words =
            [0xC03B_3998, 4, 0, 1024, JOURNAL_BLOCKS, 1, first, start, self.errno, compat, self.incompat, 0];
        let mut block = words.map(u32::to_be_bytes).concat();
        block.extend(b"journal has uuid");
        block.resize(BLOCK, 0);
        block[0x50] = 4;
        let crc = crc32c(START, &block);
        block[0xFC..0x100].copy_from_slice(&crc.to_be_bytes());
        block
    }
}

fn last(position: usize, len: usize) -> u32 {
    if position + 1 == len { 8 } else { 0 }
}
