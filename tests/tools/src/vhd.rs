//! VHD, after the Virtual Hard Disk Image Format Specification 1.0. All numbers are big-endian.
//!
//! ```text
//!   fixed     payload ─────────────────────────────────────────────► │ footer
//!   dynamic   footer │ header │ table │ locators │ bitmap, payload … │ footer
//!             0        512      1536
//! ```

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

use uuid::Uuid;

use crate::{Creator, Disk, Output, Parent, Shape, identifier, require};

const SECTOR: u64 = 512;
const TABLE_AT: u64 = 1536;
/// 15 November 2023, in seconds since the year 2000.
const TIME_STAMP: u32 = 753_315_200;

#[derive(Clone, Copy)]
enum DiskType {
    Fixed = 2,
    Dynamic = 3,
    Differencing = 4,
}

pub fn write(shape: &Shape, mut disk: Disk, parent: Option<&Parent>, image: &Path) -> Result<()> {
    let mut output = Output::create(image)?;
    let id = identifier(image, "disk");
    if shape.fixed {
        require(parent.is_none(), "a child is not fixed")?;
        for number in 0..disk.size.div_ceil(shape.block_size) {
            let at = number * shape.block_size;
            let inside = (disk.size - at).min(shape.block_size) as usize;
            output.put_payload(at, &disk.block(number, shape.block_size)?[..inside])?;
        }
        return output.put(disk.size, &footer(shape, DiskType::Fixed, disk.size, id));
    }
    let disk_type = if parent.is_some() { DiskType::Differencing } else { DiskType::Dynamic };
    let footer = footer(shape, disk_type, disk.size, id);
    let entries = disk.size.div_ceil(shape.block_size);
    let mut header = Header::new(entries, shape.block_size);
    let mut table = vec![u32::MAX; entries as usize];
    let table_len = (entries * 4).next_multiple_of(SECTOR);
    let mut at = TABLE_AT + table_len;
    if let Some(parent) = parent {
        at = header.link(parent, disk.size, &mut output, at)?;
    }
    if shape.gap {
        at += 3 * 4096 + SECTOR;
    }

    let bitmap_len = (shape.block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    let mut below = parent.map(|parent| Disk::open(parent.disk)).transpose()?;
    for (n, number) in shape.stored_blocks(&mut disk, &mut below)?.into_iter().enumerate() {
        if shape.leaks_before(n) {
            output.put(at, &vec![0xFF; bitmap_len as usize])?;
            output.put(at + bitmap_len, &shape.leaked_block())?;
            at += bitmap_len + shape.block_size;
        }
        let block = shape.block(&mut disk, &mut below, number)?;
        table[number as usize] = u32::try_from(at / SECTOR).expect("the image is below 2 TiB");
        output.put(at, &bitmap(shape, &block, bitmap_len))?;
        output.put_payload(at + bitmap_len, &block.payload)?;
        at += bitmap_len + shape.block_size;
    }
    let mut table: Vec<u8> = table.into_iter().flat_map(u32::to_be_bytes).collect();
    table.resize(table_len as usize, 0xFF);
    output.put(0, &footer)?;
    output.put(SECTOR, &header.bytes())?;
    output.put(TABLE_AT, &table)?;
    output.put(at, &footer)
}

/// A bit for each sector, the highest of a byte first: set where the block holds the sector.
fn bitmap(shape: &Shape, block: &crate::Block, len: u64) -> Vec<u8> {
    let mut bitmap = vec![0; len as usize];
    for (n, sector) in block.payload.chunks(SECTOR as usize).enumerate() {
        let is_set = match &block.own {
            Some(own) => own[n],
            None => !shape.sparse_bitmaps || sector.iter().any(|&byte| byte != 0),
        };
        if is_set {
            bitmap[n / 8] |= 0x80 >> (n % 8);
        }
    }
    bitmap
}

fn footer(shape: &Shape, disk_type: DiskType, size: u64, id: Uuid) -> [u8; 512] {
    let (application, version, system): (&[u8; 4], u32, &[u8; 4]) = match shape.creator {
        Creator::Windows => (b"win ", 0x000A_0000, b"Wi2k"),
        Creator::VirtualPc => (b"vpc ", 0x0005_0003, b"Wi2k"),
        Creator::Qemu => (b"qemu", 0x0005_0003, b"Wi2k"),
        Creator::VirtualBox => (b"vbox", 0x0007_0000, b"Wi2k"),
        Creator::XenServer => (b"tap\0", 0x0001_0003, &[0; 4]),
    };
    let data_offset = match disk_type {
        DiskType::Fixed => u64::MAX,
        DiskType::Dynamic | DiskType::Differencing => SECTOR,
    };
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[8..12].copy_from_slice(&2u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
    footer[16..24].copy_from_slice(&data_offset.to_be_bytes());
    footer[24..28].copy_from_slice(&TIME_STAMP.to_be_bytes());
    footer[28..32].copy_from_slice(application);
    footer[32..36].copy_from_slice(&version.to_be_bytes());
    footer[36..40].copy_from_slice(system);
    footer[40..48].copy_from_slice(&size.to_be_bytes());
    footer[48..56].copy_from_slice(&size.to_be_bytes());
    footer[56..58].copy_from_slice(&cylinders.to_be_bytes());
    footer[58] = heads;
    footer[59] = sectors;
    footer[60..64].copy_from_slice(&(disk_type as u32).to_be_bytes());
    footer[68..84].copy_from_slice(id.as_bytes());
    let sum = checksum(&footer);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    footer
}

/// The complement of the sum of all bytes, those of the checksum itself being zero.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>()
}

/// Cylinders, heads and sectors for so many sectors: the specification's appendix.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255);
    let (heads, per_track) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let heads = (total / 17).div_ceil(1024).max(4);
        if heads <= 16 && total / 17 < heads * 1024 {
            (heads, 17)
        } else if total / 31 < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    let cylinders = total / per_track / heads;
    (cylinders as u16, heads as u8, per_track as u8)
}

/// The dynamic disk header.
struct Header([u8; 1024]);

impl Header {
    fn new(entries: u64, block_size: u64) -> Self {
        let mut header = [0; 1024];
        header[..8].copy_from_slice(b"cxsparse");
        header[8..16].fill(0xFF);
        header[16..24].copy_from_slice(&TABLE_AT.to_be_bytes());
        header[24..28].copy_from_slice(&0x0001_0000u32.to_be_bytes());
        header[28..32].copy_from_slice(&(entries as u32).to_be_bytes());
        header[32..36].copy_from_slice(&(block_size as u32).to_be_bytes());
        Self(header)
    }

    /// Names a parent: by its identifier and time stamp, and by two locators, which are written from `at` on.
    /// Gives where they end.
    fn link(&mut self, parent: &Parent, size: u64, output: &mut Output, mut at: u64) -> Result<u64> {
        let mut file = File::open(parent.image)?;
        let mut footer = [0; 512];
        file.seek(SeekFrom::End(-512))?;
        file.read_exact(&mut footer)?;
        require(footer[48..56] == size.to_be_bytes(), "the parent has another size")?;
        self.0[40..56].copy_from_slice(&footer[68..84]);
        self.0[56..60].copy_from_slice(&footer[24..28]);
        let absolute = parent.windows_path()?;
        let name: Vec<u8> = absolute.encode_utf16().flat_map(u16::to_be_bytes).collect();
        self.0[64..64 + name.len()].copy_from_slice(&name);
        let relative = format!(".\\{}", parent.file_name()?);
        for (n, (code, path)) in [(b"W2ru", relative), (b"W2ku", absolute)].into_iter().enumerate() {
            let path: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let space = (path.len() as u64).next_multiple_of(SECTOR);
            let locator = &mut self.0[576 + 24 * n..];
            locator[..4].copy_from_slice(code);
            locator[4..8].copy_from_slice(&(space as u32).to_be_bytes());
            locator[8..12].copy_from_slice(&(path.len() as u32).to_be_bytes());
            locator[16..24].copy_from_slice(&at.to_be_bytes());
            output.put(at, &path)?;
            at += space;
        }
        Ok(at)
    }

    fn bytes(mut self) -> [u8; 1024] {
        let sum = checksum(&self.0);
        self.0[36..40].copy_from_slice(&sum.to_be_bytes());
        self.0
    }
}
