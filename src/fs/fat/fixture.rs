//! Tiny FAT volumes for tests, made by hand.

use super::boot::Kind;

/// What to make; sectors of 512 bytes and one sector a cluster unless changed.
#[derive(Clone)]
pub(super) struct Fixture {
    pub(super) kind: Kind,
    pub(super) clusters: u32,
    pub(super) sector: usize,
    pub(super) cluster_sectors: u8,
    pub(super) copies: u8,
}

/// A made volume and where its parts lie.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) fixture: Fixture,
    pub(super) fat: usize,
    pub(super) fat_size: usize,
    pub(super) root: usize,
    pub(super) heap: usize,
}

impl Fixture {
    pub(super) fn new(kind: Kind) -> Self {
        let clusters = match kind {
            Kind::Fat12 => 100,
            Kind::Fat16 => 5000,
            Kind::Fat32 => 300,
        };
        Self { kind, clusters, sector: 512, cluster_sectors: 1, copies: 2 }
    }

    /// A volume with the files of the module's tests:
    ///
    /// ```text
    ///   cluster 2 the root directory on FAT32, else a file
    ///   3 → 4 → 9  FILE      5 → 6  DIR: ., .., INNER (7)      8 bad      all others free
    /// ```
    pub(super) fn make(&self) -> Made {
        let fat32 = self.kind == Kind::Fat32;
        let table = usize::try_from(self.kind.table_bytes(u64::from(self.clusters) + 2)).unwrap();
        let fat_sectors = table.div_ceil(self.sector);
        let reserved = if fat32 { 32 } else { 1 };
        let root_sectors = if fat32 { 0 } else { 16 * 512 / self.sector };
        let heap = reserved + fat_sectors * usize::from(self.copies) + root_sectors;
        // Some sectors more than whole clusters, if a cluster has more than one.
        let rest = usize::from(self.cluster_sectors) - 1;
        let total = heap + usize::try_from(self.clusters).unwrap() * usize::from(self.cluster_sectors) + rest;
        let mut bytes = vec![0; total * self.sector];
        bytes[..11].copy_from_slice(b"\xEB\x3C\x90by hand ");
        put16(&mut bytes, 11, self.sector);
        bytes[13] = self.cluster_sectors;
        put16(&mut bytes, 14, reserved);
        bytes[16] = self.copies;
        put16(&mut bytes, 17, root_sectors * self.sector / 32);
        bytes[21] = 0xF8;
        bytes[32..36].copy_from_slice(&u32::try_from(total).unwrap().to_le_bytes());
        let tail = if fat32 {
            bytes[36..40].copy_from_slice(&u32::try_from(fat_sectors).unwrap().to_le_bytes());
            bytes[44] = 2;
            64
        } else {
            put16(&mut bytes, 22, fat_sectors);
            36
        };
        bytes[tail + 2] = 0x29;
        bytes[tail + 7..tail + 18].copy_from_slice(b"BOOT LABEL ");
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        let mut made = Made {
            bytes,
            fixture: self.clone(),
            fat: reserved * self.sector,
            fat_size: fat_sectors * self.sector,
            root: (heap - root_sectors) * self.sector,
            heap: heap * self.sector,
        };
        let end = 0x0FFF_FFFF;
        for (cluster, value) in
            [(0, 0x0FFF_FFF8), (1, end), (2, end), (3, 4), (4, 9), (9, end), (5, 6), (6, end), (7, end)]
        {
            made.set(cluster, value);
        }
        made.set(8, 0x0FFF_FFF7);
        let root = made.root_directory();
        made.put_entry(root, b"REAL LABEL ", 0x08, 0);
        made.put_entry(root + 32, b"FILE       ", 0x20, 3);
        made.put_entry(root + 64, b"\xE5ONE       ", 0x20, 50);
        made.put_entry(root + 96, b"long name f", 0x0F, 0);
        made.put_entry(root + 128, b"DIR        ", 0x10, 5);
        made.put_entry(root + 160, b"EMPTY      ", 0x20, 0);
        if !fat32 {
            made.put_entry(root + 192, b"SECOND     ", 0x20, 2);
        }
        let directory = made.cluster(5);
        made.put_entry(directory, b".          ", 0x10, 5);
        made.put_entry(directory + 32, b"..         ", 0x10, 0);
        let inner = made.cluster(6);
        for at in (directory + 64..directory + made.cluster_size()).step_by(32) {
            made.put_entry(at, b"\xE5          ", 0x20, 77);
        }
        made.put_entry(inner, b"INNER      ", 0x20, 7);
        made
    }
}

impl Made {
    pub(super) fn cluster_size(&self) -> usize {
        self.fixture.sector * usize::from(self.fixture.cluster_sectors)
    }

    pub(super) fn cluster(&self, cluster: usize) -> usize {
        self.heap + (cluster - 2) * self.cluster_size()
    }

    pub(super) fn root_directory(&self) -> usize {
        if self.fixture.kind == Kind::Fat32 { self.cluster(2) } else { self.root }
    }

    /// Sets an entry in every copy of the FAT.
    pub(super) fn set(&mut self, cluster: usize, value: u32) {
        for copy in 0..usize::from(self.fixture.copies) {
            self.set_in(copy, cluster, value);
        }
    }

    pub(super) fn set_in(&mut self, copy: usize, cluster: usize, value: u32) {
        let fat = self.fat + copy * self.fat_size;
        match self.fixture.kind {
            Kind::Fat12 => {
                let at = fat + cluster + cluster / 2;
                let old = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
                let value = u16::try_from(value & 0xFFF).unwrap();
                let new =
                    if cluster.is_multiple_of(2) { old & 0xF000 | value } else { old & 0xF | value << 4 };
                self.bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
            }
            Kind::Fat16 => {
                put16(&mut self.bytes, fat + cluster * 2, usize::try_from(value & 0xFFFF).unwrap())
            }
            Kind::Fat32 => self.bytes[fat + cluster * 4..][..4].copy_from_slice(&value.to_le_bytes()),
        }
    }

    pub(super) fn put_entry(&mut self, at: usize, name: &[u8; 11], attributes: u8, cluster: u32) {
        let entry = &mut self.bytes[at..at + 32];
        entry[..11].copy_from_slice(name);
        entry[11] = attributes;
        put16(entry, 20, usize::try_from(cluster >> 16).unwrap());
        put16(entry, 26, usize::try_from(cluster & 0xFFFF).unwrap());
    }
}

pub(super) fn put16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_le_bytes());
}
