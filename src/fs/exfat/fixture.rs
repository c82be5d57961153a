//! A tiny exFAT volume for tests, made by hand.

use super::boot::boot_checksum;
use super::set::set_checksum;

/// What to make.
#[derive(Clone, Copy)]
pub(super) struct Fixture {
    pub(super) sector_shift: u8,
    pub(super) cluster_shift: u8,
    pub(super) clusters: u32,
}

impl Default for Fixture {
    fn default() -> Self {
        Self { sector_shift: 9, cluster_shift: 1, clusters: 60 }
    }
}

/// A made volume:
///
/// ```text
///   2 bitmap   3 up-case table   4 → 5 root   6 7 8 "run", contiguous   9 → 11 "chain"
///   10 directory "dir", with 12 "inner"   13 … free   14 used and lost
/// ```
#[derive(Clone)]
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) fat: usize,
    pub(super) heap: usize,
    pub(super) cluster_size: usize,
    fixture: Fixture,
}

pub(super) const CHAIN: u8 = 0x01;
pub(super) const CONTIGUOUS: u8 = 0x03;
pub(super) const DIRECTORY: u16 = 0x10;
const END: u32 = 0xFFFF_FFFF;

impl Fixture {
    pub(super) fn make(self) -> Made {
        let sector = 1usize << self.sector_shift;
        let cluster_size = sector << self.cluster_shift;
        let clusters = usize::try_from(self.clusters).unwrap();
        let fat_sectors = ((clusters + 2) * 4).div_ceil(sector);
        let heap = 24 + fat_sectors + 1;
        // One sector more than the clusters fill.
        let total = heap + (clusters << self.cluster_shift) + 1;
        let mut made = Made {
            bytes: vec![0; total * sector],
            fat: 24 * sector,
            heap: heap * sector,
            cluster_size,
            fixture: self,
        };
        let b = &mut made.bytes;
        b[..11].copy_from_slice(b"\xEB\x76\x90EXFAT   ");
        b[72..80].copy_from_slice(&u64::try_from(total).unwrap().to_le_bytes());
        for (at, value) in [(80, 24), (84, fat_sectors), (88, heap), (92, clusters), (96, 4)] {
            b[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
        }
        b[105] = 1;
        b[108] = self.sector_shift;
        b[109] = self.cluster_shift;
        b[110] = 1;
        b[112] = u8::try_from(12 * 100 / clusters).unwrap();
        b[510..512].copy_from_slice(&[0x55, 0xAA]);
        made.link(&[(0, 0xFFFF_FFF8), (1, END), (2, END), (3, END), (4, 5), (5, END), (9, 11), (11, END)]);
        for cluster in (2..=12).chain([14]) {
            made.set_used(cluster, true);
        }
        let size = u64::try_from(cluster_size).unwrap();
        let root = made.cluster(4);
        let mut label = [0; 32];
        label[..8].copy_from_slice(b"\x83\x03H\0\xE9\0j\0");
        made.bytes[root..root + 32].copy_from_slice(&label);
        made.put_table(root + 32, 0x81, 2, self.clusters.div_ceil(8).into());
        made.put_table(root + 64, 0x82, 3, 100);
        made.bytes[root + 96] = 0x05;
        made.put_set(root + 128, 0, CONTIGUOUS, 6, size * 3 - 1);
        made.put_set(root + 224, 0, CHAIN, 9, size + 1);
        made.put_set(root + 320, DIRECTORY, CONTIGUOUS, 10, size);
        made.put_set(root + 416, 0, CHAIN, 0, 0);
        // The rest of the first cluster was deleted, the second is empty.
        for at in (root + 512..root + cluster_size).step_by(32) {
            made.bytes[at] = 0x41;
        }
        let directory = made.cluster(10);
        made.put_set(directory, 0, CONTIGUOUS, 12, 7);
        made.seal();
        made
    }
}

impl Made {
    pub(super) fn cluster(&self, cluster: usize) -> usize {
        self.heap + (cluster - 2) * self.cluster_size
    }

    pub(super) fn last_cluster(&self) -> usize {
        usize::try_from(self.fixture.clusters).unwrap() + 1
    }

    pub(super) fn link(&mut self, links: &[(usize, u32)]) {
        for &(cluster, value) in links {
            let at = self.fat + cluster * 4;
            self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn set_used(&mut self, cluster: usize, used: bool) {
        let byte = self.cluster(2) + (cluster - 2) / 8;
        let bit = 1 << ((cluster - 2) % 8);
        self.bytes[byte] = if used { self.bytes[byte] | bit } else { self.bytes[byte] & !bit };
    }

    pub(super) fn put_table(&mut self, at: usize, entry_type: u8, first: u32, len: u64) {
        let entry = &mut self.bytes[at..at + 32];
        entry[0] = entry_type;
        entry[20..24].copy_from_slice(&first.to_le_bytes());
        entry[24..32].copy_from_slice(&len.to_le_bytes());
    }

    /// A file of three entries.
    pub(super) fn put_set(&mut self, at: usize, attributes: u16, flags: u8, first: u32, len: u64) {
        self.bytes[at] = 0x85;
        self.bytes[at + 1] = 2;
        self.bytes[at + 4..at + 6].copy_from_slice(&attributes.to_le_bytes());
        self.put_table(at + 32, 0xC0, first, len);
        self.bytes[at + 33] = flags;
        self.bytes[at + 64] = 0xC1;
        self.seal_set(at);
    }

    /// Makes the checksum of the set at `at` right.
    pub(super) fn seal_set(&mut self, at: usize) {
        let entries = usize::from(self.bytes[at + 1]) + 1;
        let sum = (0..entries).fold(0, |sum, i| set_checksum(sum, &self.bytes[at + i * 32..][..32], i == 0));
        self.bytes[at + 2..at + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Makes the checksum of the boot region right.
    pub(super) fn seal(&mut self) {
        let sector = 1 << self.fixture.sector_shift;
        let sum = boot_checksum(&self.bytes[..11 * sector]).to_le_bytes();
        for word in self.bytes[11 * sector..12 * sector].chunks_exact_mut(4) {
            word.copy_from_slice(&sum);
        }
    }
}
