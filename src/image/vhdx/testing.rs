//! A small valid VHDX made byte by byte from the specification's offsets, not with the structures of this
//! module, so that a mistake there does not cancel out. Tests break one field of it.
//!
//! ```text
//!   MiB  0        1     2          3     4         5         6
//!        headers  log   metadata   BAT   block 0   block 2   bitmap block (differencing)
//!   disk: block 0 present, 1 zero, 2 present, 3 not present; 1 MiB each, the last one cut to 512 KiB
//! ```

use std::rc::Rc;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Disk, Image};

pub const MIB: usize = 1 << 20;
pub const HEADER_1: usize = 64 << 10;
pub const HEADER_2: usize = 128 << 10;
pub const REGIONS_1: usize = 192 << 10;
pub const REGIONS_2: usize = 256 << 10;
pub const LOG: usize = MIB;
pub const METADATA: usize = 2 * MIB;
pub const BAT: usize = 3 * MIB;
pub const ITEMS: usize = METADATA + (64 << 10);
/// Places of the items.
pub const FILE_PARAMETERS: usize = ITEMS;
pub const DISK_SIZE: usize = ITEMS + 8;
pub const DISK_ID: usize = ITEMS + 16;
pub const LOGICAL: usize = ITEMS + 32;
pub const PHYSICAL: usize = ITEMS + 36;
pub const LOCATOR: usize = ITEMS + 64;
/// The BAT entry of the first sector bitmap block.
pub const BITMAP_ENTRY: usize = 4096;

pub const LOG_GUID: Uuid = Uuid::from_u128(0x10_6161);
pub const DATA_WRITE: Uuid = Uuid::from_u128(0x8FBC9DB8_2CFD_45B8_9688_1C6FEDBC7230);
pub const PARENT: Uuid = Uuid::from_u128(0x7584F8FB_36D3_4091_AFB5_B1AFE587BFA8);

const ITEM_IDS: [&str; 6] = [
    "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
    "2fa54224-cd1b-4876-b211-5dbed83bf4b8",
    "beca12ab-b2e6-4523-93ef-c309e000c746",
    "8141bf1d-a96f-4709-ba47-f233a8faab5f",
    "cda348c7-445d-4471-9cc9-e9885251c556",
    "a8d35f2d-b30b-454d-abf7-d3d84834ab0c",
];

/// An image in memory. Both headers and both region tables are kept equal and sealed.
#[derive(Clone)]
pub struct TestImage {
    pub bytes: Vec<u8>,
}

impl TestImage {
    /// The dynamic image of the picture above.
    pub fn dynamic() -> Self {
        let mut image = Self { bytes: vec![0; 6 * MIB] };
        image.put(0, b"vhdxfile");
        image.put(8, &utf16("test image"));
        for (at, sequence) in [(HEADER_1, 4), (HEADER_2, 5)] {
            image.put(at, b"head");
            image.put64(at + 8, sequence);
            image.put(at + 16, &[0xf1; 16]);
            image.put(at + 32, &DATA_WRITE.to_bytes_le());
            image.put16(at + 66, 1);
            image.put32(at + 68, 1 << 20);
            image.put64(at + 72, LOG as u64);
        }
        for at in [REGIONS_1, REGIONS_2] {
            image.put(at, b"regi");
            image.put32(at + 8, 2);
            image.region(at, 0, "2dc27766-f623-4200-9d64-115e9bfd4a08", BAT, MIB, 1);
            image.region(at, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA, MIB, 1);
        }
        image.put(METADATA, b"metadata");
        for (n, (place, length, flags)) in
            [(FILE_PARAMETERS, 8, 4), (DISK_SIZE, 8, 6), (DISK_ID, 16, 6), (LOGICAL, 4, 6), (PHYSICAL, 4, 6)]
                .into_iter()
                .enumerate()
        {
            image.item(n, ITEM_IDS[n], place, length, flags);
        }
        image.put32(FILE_PARAMETERS, 1 << 20);
        image.put64(DISK_SIZE, (3 << 20) + (512 << 10));
        image.put(DISK_ID, &[0x83; 16]);
        image.put32(LOGICAL, 512);
        image.put32(PHYSICAL, 4096);
        image.bat(0, 4 << 20 | 6);
        image.bat(1, 2);
        image.bat(2, 5 << 20 | 6);
        image.put(4 * MIB, &[0xa0; MIB]);
        image.put(5 * MIB, &[0xa2; MIB]);
        image.seal();
        image
    }

    /// The same as a differencing image: block 0 partially present (its first and third sectors).
    pub fn differencing() -> Self {
        let mut image = Self::dynamic();
        image.bytes.resize(7 * MIB, 0);
        image.put32(FILE_PARAMETERS + 4, 2);
        let linkage = PARENT.braced().to_string();
        image.set_locator(&[("parent_linkage", linkage.as_str()), ("relative_path", ".\\parent.vhdx")]);
        image.bat(0, 4 << 20 | 7);
        image.bat(BITMAP_ENTRY, 6 << 20 | 6);
        image.put(6 * MIB, &[0b101]);
        image
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn bat(&mut self, entry: usize, word: u64) {
        self.put64(BAT + entry * 8, word);
    }

    pub fn region(
        &mut self,
        table: usize,
        entry: usize,
        guid: &str,
        at: usize,
        length: usize,
        required: u32,
    ) {
        let place = table + 16 + entry * 32;
        self.put(place, &Uuid::parse_str(guid).unwrap().to_bytes_le());
        self.put64(place + 16, at as u64);
        self.put32(place + 24, length as u32);
        self.put32(place + 28, required);
    }

    /// Writes entry `entry` of the metadata table and makes the table at least that long.
    pub fn item(&mut self, entry: usize, id: &str, place: usize, length: usize, flags: u32) {
        let at = self.item_entry(entry);
        self.put(at, &Uuid::parse_str(id).unwrap().to_bytes_le());
        self.put32(at + 16, if length == 0 { 0 } else { (place - METADATA) as u32 });
        self.put32(at + 20, length as u32);
        self.put32(at + 24, flags);
        let count = u16::from_le_bytes(self.bytes[METADATA + 10..METADATA + 12].try_into().unwrap());
        self.put16(METADATA + 10, count.max(entry as u16 + 1));
    }

    pub fn item_entry(&self, entry: usize) -> usize {
        METADATA + 32 + entry * 32
    }

    /// Writes the parent locator, as entry 5 of the metadata table.
    pub fn set_locator(&mut self, pairs: &[(&str, &str)]) {
        let mut head =
            Uuid::parse_str("b04aefb7-d19e-4a81-b789-25b8e9445913").unwrap().to_bytes_le().to_vec();
        head.extend([0, 0]);
        head.extend((pairs.len() as u16).to_le_bytes());
        let mut texts: Vec<u8> = Vec::new();
        for (key, value) in pairs {
            let at = 20 + 12 * pairs.len() + texts.len();
            let (key, value) = (utf16(key), utf16(value));
            head.extend((at as u32).to_le_bytes());
            head.extend(((at + key.len()) as u32).to_le_bytes());
            head.extend((key.len() as u16).to_le_bytes());
            head.extend((value.len() as u16).to_le_bytes());
            texts.extend(key);
            texts.extend(value);
        }
        self.put(LOCATOR, &[head.as_slice(), &texts].concat());
        self.item(5, ITEM_IDS[5], LOCATOR, head.len() + texts.len(), 4);
    }

    /// Sets the log's identifier in both headers, so that it must be replayed.
    pub fn dirty(&mut self) {
        for at in [HEADER_1, HEADER_2] {
            self.put(at + 48, &LOG_GUID.to_bytes_le());
        }
        self.seal();
    }

    /// Writes a log entry at sector `sector` of the log, around its end if need be.
    pub fn log(&mut self, sector: usize, entry: &[u8]) {
        for (n, part) in entry.chunks(4096).enumerate() {
            self.put(LOG + (sector + n) % 256 * 4096, part);
        }
    }

    /// Sets all checksums of the header section right.
    pub fn seal(&mut self) {
        for (at, len) in [(HEADER_1, 4096), (HEADER_2, 4096), (REGIONS_1, 64 << 10), (REGIONS_2, 64 << 10)] {
            self.put32(at + 4, 0);
            let crc = crate::checksum::crc32c(&self.bytes[at..at + len]);
            self.put32(at + 4, crc);
        }
    }

    pub fn open(&self) -> Result<Image> {
        super::open(Rc::new(self.bytes.clone()))
    }

    /// The disk of this image alone.
    pub fn disk(&self) -> Disk {
        Disk::of_layers(vec![Rc::new(self.open().unwrap())]).unwrap()
    }

    /// The error of opening, which must be of `kind` and speak of `what`.
    pub fn refused(&self, kind: ErrorKind, what: &str) -> Error {
        let error = self.open().err().unwrap_or_else(|| panic!("opened, and should be refused: {what}"));
        assert!(error.kind() == kind && error.to_string().contains(what), "{kind:?} {what}: {error}");
        assert!(error.site().is_some(), "no site: {error}");
        error
    }
}

/// Breaks an image in one way, sets the checksums right, and expects it to be refused.
pub fn breaks(image: &TestImage, what: &str, breakage: impl FnOnce(&mut TestImage)) {
    breaks_as(image, ErrorKind::Corrupt, what, breakage);
}

/// As [`breaks`], with another kind of error.
pub fn breaks_as(image: &TestImage, kind: ErrorKind, what: &str, breakage: impl FnOnce(&mut TestImage)) {
    let mut image = image.clone();
    image.open().unwrap();
    breakage(&mut image);
    image.seal();
    image.refused(kind, what);
}

/// The two file sizes that an entry of the dynamic image gives.
pub const FILE: (u64, u64) = (6 << 20, 6 << 20);

/// One write of a log entry.
pub enum Desc {
    Data(u64, Box<[u8; 4096]>),
    Zero(u64, u64),
}

/// The bytes of a log entry.
pub fn log_entry(sequence: u64, tail_sector: u32, file_sizes: (u64, u64), writes: &[Desc]) -> Vec<u8> {
    let descriptor_sectors = (64 + 32 * writes.len()).div_ceil(4096);
    let data: Vec<&[u8]> = writes
        .iter()
        .filter_map(|w| match w {
            Desc::Data(_, bytes) => Some(&bytes[..]),
            Desc::Zero(..) => None,
        })
        .collect();
    let mut entry = vec![0; (descriptor_sectors + data.len()) * 4096];
    let length = entry.len() as u32;
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"loge");
    put(8, &length.to_le_bytes());
    put(12, &(tail_sector * 4096).to_le_bytes());
    put(16, &sequence.to_le_bytes());
    put(24, &(writes.len() as u32).to_le_bytes());
    put(32, &LOG_GUID.to_bytes_le());
    put(48, &file_sizes.0.to_le_bytes());
    put(56, &file_sizes.1.to_le_bytes());
    for (n, write) in writes.iter().enumerate() {
        let at = 64 + 32 * n;
        put(at + 24, &sequence.to_le_bytes());
        match write {
            Desc::Data(offset, bytes) => {
                put(at, b"desc");
                put(at + 4, &bytes[4092..]);
                put(at + 8, &bytes[..8]);
                put(at + 16, &offset.to_le_bytes());
            }
            Desc::Zero(offset, length) => {
                put(at, b"zero");
                put(at + 8, &length.to_le_bytes());
                put(at + 16, &offset.to_le_bytes());
            }
        }
    }
    for (n, bytes) in data.iter().enumerate() {
        let at = (descriptor_sectors + n) * 4096;
        put(at, b"data");
        put(at + 4, &((sequence >> 32) as u32).to_le_bytes());
        put(at + 8, &bytes[8..4092]);
        put(at + 4092, &(sequence as u32).to_le_bytes());
    }
    seal_entry(&mut entry);
    entry
}

/// Sets the checksum of a log entry right.
pub fn seal_entry(entry: &mut [u8]) {
    entry[4..8].fill(0);
    let crc = crate::checksum::crc32c(entry);
    entry[4..8].copy_from_slice(&crc.to_le_bytes());
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A sector of the BAT in which entry `entry` is `word`, and the others are as in the image.
pub fn bat_sector(entry: usize, word: u64) -> Desc {
    let mut bytes: Box<[u8; 4096]> = TestImage::dynamic().bytes[BAT..BAT + 4096].to_vec().try_into().unwrap();
    bytes[entry * 8..entry * 8 + 8].copy_from_slice(&word.to_le_bytes());
    Desc::Data(BAT as u64, bytes)
}

/// The dynamic image with these log entries, by sector, to be replayed.
pub fn dirty(entries: &[(usize, Vec<u8>)]) -> TestImage {
    let mut image = TestImage::dynamic();
    for (sector, entry) in entries {
        image.log(*sector, entry);
    }
    image.dirty();
    image
}

/// The state of a block of the opened image.
pub fn state(image: &TestImage, block: u64) -> crate::image::BlockState {
    image.open().unwrap().blocks.get(block)
}
