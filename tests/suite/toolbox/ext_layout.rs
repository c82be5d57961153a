//! Where the structures of an ext volume lie, and how its checksums and counts are made right after a change: for
//! tests that damage a volume as if its own driver had done it. Reads plain volumes only, without meta_bg.

use std::collections::BTreeSet;
use std::ops::Range;

const SUPERBLOCK: usize = 1024;
/// bg_flags, and where it and its neighbours lie in a descriptor.
pub const INODE_UNINIT: u16 = 1;
pub const BLOCK_UNINIT: u16 = 2;
const FREE_BLOCKS: usize = 0x0C;
const FREE_INODES: usize = 0x0E;
pub const FLAGS: usize = 0x12;
pub const UNUSED_INODES: usize = 0x1C;
const CHECKSUM: usize = 0x1E;

pub fn get16(volume: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(volume[at..at + 2].try_into().unwrap())
}

pub fn get32(volume: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(volume[at..at + 4].try_into().unwrap())
}

pub fn put16(volume: &mut [u8], at: usize, value: u16) {
    volume[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub fn put32(volume: &mut [u8], at: usize, value: u32) {
    volume[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// What the superblock of a volume says.
#[derive(Debug, Clone)]
pub struct Layout {
    pub block: u64,
    pub groups: usize,
    pub clusters_per_group: u64,
    pub inodes_per_group: u64,
    pub inode_size: u64,
    pub blocks_per_cluster: u64,
    pub blocks: u64,
    first_data_block: u64,
    descriptor: usize,
    reserved_descriptors: u64,
    metadata_csum: bool,
    pub uninit_bg: bool,
}

impl Layout {
    pub fn of(volume: &[u8]) -> Self {
        let field = |at: usize| u64::from(get32(volume, SUPERBLOCK + at));
        let (incompat, ro_compat) = (field(0x60), field(0x64));
        assert!(incompat & 0x10 == 0 && ro_compat & 1 != 0, "sparse_super, and no meta_bg");
        let (blocks, first_data_block) = (field(0x04), field(0x14));
        Self {
            block: 1024 << field(0x18),
            groups: (blocks - first_data_block).div_ceil(field(0x20)) as usize,
            clusters_per_group: field(0x24),
            inodes_per_group: field(0x28),
            inode_size: u64::from(get16(volume, SUPERBLOCK + 0x58)),
            blocks_per_cluster: 1 << (field(0x1C) - field(0x18)),
            blocks,
            first_data_block,
            descriptor: if incompat & 0x80 != 0 { get16(volume, SUPERBLOCK + 0xFE).into() } else { 32 },
            reserved_descriptors: get16(volume, SUPERBLOCK + 0xCE).into(),
            metadata_csum: ro_compat & 0x400 != 0,
            uninit_bg: ro_compat & 0x410 != 0,
        }
    }

    /// Where the descriptor of a group lies.
    pub fn descriptor(&self, group: usize) -> usize {
        let first = if self.block == 1024 { 2 } else { 1 };
        first * self.block as usize + group * self.descriptor
    }

    pub fn descriptors(&self) -> Range<u64> {
        self.descriptor(0) as u64..(self.descriptor(self.groups) as u64).next_multiple_of(self.block)
    }

    fn table(&self, volume: &[u8], group: usize, which: usize) -> u64 {
        u64::from(get32(volume, self.descriptor(group) + which * 4))
    }

    fn bytes(&self, blocks: Range<u64>) -> Range<u64> {
        blocks.start * self.block..blocks.end * self.block
    }

    /// The block bitmap of a group.
    pub fn block_bitmap(&self, volume: &[u8], group: usize) -> Range<u64> {
        let at = self.table(volume, group, 0);
        self.bytes(at..at + 1)
    }

    pub fn inode_bitmap(&self, volume: &[u8], group: usize) -> Range<u64> {
        let at = self.table(volume, group, 1);
        self.bytes(at..at + 1)
    }

    pub fn inode_table(&self, volume: &[u8], group: usize) -> Range<u64> {
        let at = self.table(volume, group, 2);
        self.bytes(at..at + (self.inodes_per_group * self.inode_size).div_ceil(self.block))
    }

    /// The flags of a group.
    pub fn flags(&self, volume: &[u8], group: usize) -> u16 {
        get16(volume, self.descriptor(group) + FLAGS)
    }

    /// How many clusters a group has.
    pub fn clusters_of(&self, group: usize) -> u64 {
        let all = (self.blocks - self.first_data_block).div_ceil(self.blocks_per_cluster);
        (all - group as u64 * self.clusters_per_group).min(self.clusters_per_group)
    }

    fn has_copy(group: usize) -> bool {
        let power =
            |base: usize| (1..20).map(|n| base.pow(n)).take_while(|&p| p <= group).any(|p| p == group);
        group < 2 || [3, 5, 7].into_iter().any(power)
    }

    /// The clusters of all groups' own structures.
    fn structures(&self, volume: &[u8]) -> BTreeSet<u64> {
        let mut blocks = Vec::new();
        for group in 0..self.groups {
            if Self::has_copy(group) {
                let descriptors = self.descriptors();
                let len = 1 + (descriptors.end - descriptors.start) / self.block + self.reserved_descriptors;
                let first = group as u64 * self.clusters_per_group * self.blocks_per_cluster;
                blocks.extend(self.first_data_block + first..self.first_data_block + first + len);
            }
            for range in [
                self.block_bitmap(volume, group),
                self.inode_bitmap(volume, group),
                self.inode_table(volume, group),
            ] {
                blocks.extend(range.start / self.block..range.end / self.block);
            }
        }
        let blocks = blocks.into_iter().filter_map(|block| block.checked_sub(self.first_data_block));
        blocks.map(|block| block / self.blocks_per_cluster).collect()
    }

    /// Makes every count and checksum of bitmaps, descriptors and the superblock agree with the bitmaps. A bitmap
    /// whose descriptor leads out of the volume keeps what was said of it.
    pub fn seal(&self, volume: &mut [u8]) {
        let structures = self.structures(volume);
        let uuid = volume[SUPERBLOCK + 0x68..][..16].to_vec();
        let seed = crc32c(u32::MAX, &uuid);
        let mut total = 0;
        for group in 0..self.groups {
            let at = self.descriptor(group);
            let first = group as u64 * self.clusters_per_group;
            let clusters = first..first + self.clusters_of(group);
            let flags = self.flags(volume, group);
            let (block_bitmap, inode_bitmap) =
                (self.block_bitmap(volume, group).start, self.inode_bitmap(volume, group).start);
            let free = if flags & BLOCK_UNINIT != 0 {
                Some(clusters.filter(|cluster| !structures.contains(cluster)).count())
            } else {
                zeros_in(volume, block_bitmap, self.clusters_of(group))
            };
            if let Some(free) = free {
                put16(volume, at + FREE_BLOCKS, free as u16);
            }
            total += u64::from(get16(volume, at + FREE_BLOCKS));
            let free = if flags & INODE_UNINIT != 0 {
                Some(self.inodes_per_group as usize)
            } else {
                zeros_in(volume, inode_bitmap, self.inodes_per_group)
            };
            if let Some(free) = free {
                put16(volume, at + FREE_INODES, free as u16);
            }
            if self.metadata_csum {
                for (from, bits, low, high) in [
                    (block_bitmap, self.clusters_per_group, 0x18, 0x38),
                    (inode_bitmap, self.inodes_per_group, 0x1A, 0x3A),
                ] {
                    let Some(bytes) = volume.get(from as usize..(from + bits / 8) as usize) else { continue };
                    let crc = crc32c(seed, bytes);
                    put16(volume, at + low, crc as u16);
                    if self.descriptor >= 64 {
                        put16(volume, at + high, (crc >> 16) as u16);
                    }
                }
            }
            put16(volume, at + CHECKSUM, 0);
            let number = (group as u32).to_le_bytes();
            let descriptor = volume[at..at + self.descriptor].to_vec();
            if self.metadata_csum {
                put16(volume, at + CHECKSUM, crc32c(crc32c(seed, &number), &descriptor) as u16);
            } else if self.uninit_bg {
                let parts = [&uuid[..], &number, &descriptor[..CHECKSUM], &descriptor[CHECKSUM + 2..]];
                put16(volume, at + CHECKSUM, parts.into_iter().fold(u16::MAX, crc16));
            }
        }
        put32(volume, SUPERBLOCK + 0x0C, (total * self.blocks_per_cluster) as u32);
        self.seal_superblock(volume);
    }

    pub fn seal_superblock(&self, volume: &mut [u8]) {
        if self.metadata_csum {
            let crc = crc32c(u32::MAX, &volume[SUPERBLOCK..SUPERBLOCK + 0x3FC]);
            put32(volume, SUPERBLOCK + 0x3FC, crc);
        }
    }

    /// Makes the checksum of the inode at this byte right.
    pub fn seal_inode(&self, volume: &mut [u8], group: usize, at: u64) {
        if !self.metadata_csum {
            return;
        }
        let place = (at - self.inode_table(volume, group).start) / self.inode_size;
        let number = (group as u64 * self.inodes_per_group + place + 1) as u32;
        let at = at as usize;
        let seed = crc32c(u32::MAX, &volume[SUPERBLOCK + 0x68..][..16]);
        put16(volume, at + 0x7C, 0);
        let has_high = self.inode_size > 128 && get16(volume, at + 0x80) >= 4;
        if has_high {
            put16(volume, at + 0x82, 0);
        }
        let inode = &volume[at..at + self.inode_size as usize];
        let crc = crc32c(crc32c(crc32c(seed, &number.to_le_bytes()), &inode[0x64..0x68]), inode);
        put16(volume, at + 0x7C, crc as u16);
        if has_high {
            put16(volume, at + 0x82, (crc >> 16) as u16);
        }
    }
}

/// How many of the first `bits` bits of a bitmap at this byte are zero; none where it is not in the volume.
fn zeros_in(volume: &[u8], at: u64, bits: u64) -> Option<usize> {
    let bitmap = volume.get(at as usize..at.checked_add(bits.div_ceil(8))? as usize)?;
    Some((0..bits as usize).filter(|bit| bitmap[bit / 8] >> (bit % 8) & 1 == 0).count())
}

/// CRC-32C without the inversions at both ends, as Linux carries it.
pub fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 0 { 0 } else { 0x82F6_3B78 })
    })
}

fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 0 { 0 } else { 0xA001 })
    })
}
