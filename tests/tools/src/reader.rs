//! Reads images as plainly as can be, so that a compaction is judged by a reader that shares no line with the one that
//! made it. It trusts what it reads, holds whole tables in memory, and refuses what it does not know.
//!
//! ```text
//!   VHD    footer ─► dynamic header ─► BAT ─► bitmap │ payload
//!   VHDX   header ─► region table ─► metadata, BAT ─► payload (bitmap blocks)
//! ```

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::{Uuid, uuid};

const SECTOR: u64 = 512;
const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");

/// A virtual disk: an image over its parents.
pub struct PlainDisk {
    image: Image,
    parent: Option<Box<PlainDisk>>,
}

struct Image {
    file: File,
    /// Bytes of the disk, the larger where programs disagree.
    size: u64,
    block: u64,
    sector: u64,
    is_child: bool,
    blocks: Vec<Block>,
}

#[derive(Clone, Copy)]
enum Block {
    /// Zero, or the parent's.
    Absent,
    /// Zero, whatever the parent holds.
    Zero,
    /// Payload at this offset, with the place of its sector bitmap and whether its lowest bit comes first.
    Stored { payload: u64, bitmap: Option<(u64, bool)> },
}

impl PlainDisk {
    /// Opens an image; `parents` are its parents in order. None for what this reader does not know: a log to be
    /// replayed, a file that is no image.
    pub fn open(path: &Path, parents: &[&Path]) -> Result<Option<Self>> {
        let file = File::open(path)?;
        let mut head = [0; 8];
        let known = file.read_exact_at(&mut head, 0).is_ok();
        let image = if known && &head == b"vhdxfile" { vhdx(file)? } else { vhd(file)? };
        let Some(image) = image else { return Ok(None) };
        let parent = match parents.split_first() {
            Some((first, rest)) if image.is_child => match Self::open(first, rest)? {
                Some(parent) => Some(Box::new(parent)),
                None => return Ok(None),
            },
            _ if image.is_child => return Ok(None),
            _ => None,
        };
        Ok(Some(Self { image, parent }))
    }

    /// The first byte in which both disks differ, outside of `may_differ` (ascending, apart from each other).
    pub fn first_difference(&self, other: &Self, may_differ: &[Range<u64>]) -> Result<Option<u64>> {
        let step = self.smallest_block().min(other.smallest_block()).min(1 << 20);
        let end = self.image.size.min(other.image.size);
        let (mut x, mut y) = (vec![0; step as usize], vec![0; step as usize]);
        let mut at = 0;
        while at < end {
            let next = (at + step).min(end);
            if self.stores(at) || other.stores(at) {
                let len = (next - at) as usize;
                self.read(at, &mut x[..len])?;
                other.read(at, &mut y[..len])?;
                let first = may_differ.partition_point(|range| range.end <= at);
                for range in may_differ[first..].iter().take_while(|range| range.start < next) {
                    let cut = (range.start.max(at) - at) as usize..(range.end.min(next) - at) as usize;
                    x[cut.clone()].fill(0);
                    y[cut].fill(0);
                }
                if let Some(by) = (0..len).find(|&i| x[i] != y[i]) {
                    return Ok(Some(at + by as u64));
                }
            }
            at = next;
        }
        Ok(None)
    }

    fn smallest_block(&self) -> u64 {
        self.parent.as_ref().map_or(self.image.block, |parent| parent.smallest_block().min(self.image.block))
    }

    fn stores(&self, at: u64) -> bool {
        let own = matches!(self.image.block_at(at), Block::Stored { .. });
        own || self.parent.as_ref().is_some_and(|parent| parent.stores(at))
    }

    /// Fills `buf` with the disk's bytes from `at` on, which lie in one block of every image.
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let Image { file, block, sector, is_child, .. } = &self.image;
        let below = |at: u64, buf: &mut [u8]| match &self.parent {
            Some(parent) if at < parent.image.size => parent.read(at, buf),
            _ => {
                buf.fill(0);
                Ok(())
            }
        };
        match self.image.block_at(at) {
            Block::Absent => below(at, buf),
            Block::Zero => {
                buf.fill(0);
                Ok(())
            }
            Block::Stored { payload, bitmap } => {
                // A fixed or foreign file may end inside the last sector of the disk.
                let have = file.metadata()?.len().saturating_sub(payload + at % block).min(buf.len() as u64)
                    as usize;
                buf[have..].fill(0);
                file.read_exact_at(&mut buf[..have], payload + at % block)?;
                let Some((bitmap, lowest_first)) = bitmap.filter(|_| *is_child) else { return Ok(()) };
                for (i, part) in buf.chunks_mut(*sector as usize).enumerate() {
                    let number = at % block / sector + i as u64;
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, bitmap + number / 8)?;
                    let bit = if lowest_first { 1 << (number % 8) } else { 0x80 >> (number % 8) };
                    if byte[0] & bit == 0 {
                        below(at + i as u64 * sector, part)?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Image {
    fn block_at(&self, at: u64) -> Block {
        self.blocks.get((at / self.block) as usize).copied().unwrap_or(Block::Absent)
    }
}

fn bytes(file: &File, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0; usize::try_from(len).map_err(|_| Error::from(ErrorKind::InvalidData))?];
    file.read_exact_at(&mut buf, at)?;
    Ok(buf)
}

fn be32(bytes: &[u8], at: usize) -> u64 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Virtual Hard Disk Image Format Specification, version 1.0.
fn vhd(file: File) -> Result<Option<Image>> {
    let len = file.metadata()?.len();
    let places = [len.checked_sub(512), len.checked_sub(511), Some(0)];
    let footers = places.into_iter().flatten().filter(|&at| at + 512 <= len || at + 511 == len);
    let mut found = None;
    for at in footers {
        let mut footer = bytes(&file, at, 512.min(len - at))?;
        footer.resize(512, 0);
        if footer.starts_with(b"conectix") {
            found = Some(footer);
            break;
        }
    }
    let Some(footer) = found else { return Ok(None) };
    // Current Size and geometry: cylinders, heads, sectors.
    let cylinders = u64::from(u16::from_be_bytes([footer[56], footer[57]]));
    let by_geometry = cylinders * u64::from(footer[58]) * u64::from(footer[59]) * SECTOR;
    let size = be64(&footer, 48).max(by_geometry);
    let kind = be32(&footer, 60);
    if kind == 2 {
        // The larger of two sizes may reach into the footer, which is no part of the disk.
        let size = size.min(be64(&footer, 48).max(len.saturating_sub(512)));
        let blocks = (0..size.div_ceil(1 << 20)).map(|n| Block::Stored { payload: n << 20, bitmap: None });
        let blocks = blocks.collect();
        return Ok(Some(Image { file, size, block: 1 << 20, sector: SECTOR, is_child: false, blocks }));
    }
    let header = bytes(&file, be64(&footer, 16), 1024)?;
    let (entries, block) = (be32(&header, 28), be32(&header, 32));
    let bitmap = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    let table = bytes(&file, be64(&header, 16), entries * 4)?;
    let blocks = table.chunks_exact(4).map(|entry| match be32(entry, 0) {
        0xffff_ffff => Block::Absent,
        at => Block::Stored { payload: at * SECTOR + bitmap, bitmap: Some((at * SECTOR, false)) },
    });
    let blocks = blocks.collect();
    Ok(Some(Image {
        file,
        size: size.min(entries * block),
        block,
        sector: SECTOR,
        is_child: kind == 4,
        blocks,
    }))
}

/// \[MS-VHDX\].
fn vhdx(file: File) -> Result<Option<Image>> {
    let headers = [bytes(&file, 64 << 10, 4096)?, bytes(&file, 128 << 10, 4096)?];
    let current = headers.iter().filter(|h| h.starts_with(b"head")).max_by_key(|h| le64(h, 8));
    // Log GUID: something is to be replayed first.
    if current.is_none_or(|header| header[48..64].iter().any(|&byte| byte != 0)) {
        return Ok(None);
    }
    let guid = |bytes: &[u8], at: usize| Uuid::from_slice_le(&bytes[at..at + 16]).unwrap();
    let regions = bytes(&file, 192 << 10, 64 << 10)?;
    let region = |wanted: Uuid| {
        let entries = (0..le32(&regions, 8) as usize).map(|i| 16 + 32 * i);
        entries.into_iter().find(|&at| guid(&regions, at) == wanted).map(|at| le64(&regions, at + 16))
    };
    let (Some(bat), Some(metadata)) = (region(BAT_REGION), region(METADATA_REGION)) else { return Ok(None) };
    let items = bytes(&file, metadata, 64 << 10)?;
    let item = |wanted: Uuid| -> Result<Vec<u8>> {
        let entries = (0..usize::from(u16::from_le_bytes([items[10], items[11]]))).map(|i| 32 + 32 * i);
        let at = entries.into_iter().find(|&at| guid(&items, at) == wanted).ok_or(ErrorKind::InvalidData)?;
        bytes(&file, metadata + le32(&items, at + 16), le32(&items, at + 20))
    };
    let parameters = item(FILE_PARAMETERS)?;
    let (block, is_child) = (le32(&parameters, 0), parameters[4] & 2 != 0);
    let (size, sector) = (le64(&item(DISK_SIZE)?, 0), le32(&item(SECTOR_SIZE)?, 0));
    let ratio = (sector << 23) / block;
    let count = size.div_ceil(block);
    let chunks = count.div_ceil(ratio);
    let entries = if is_child { chunks * (ratio + 1) } else { count + count.saturating_sub(1) / ratio };
    let table = bytes(&file, bat, entries * 8)?;
    let entry = |index: u64| le64(&table, index as usize * 8);
    let place = |entry: u64| entry >> 20 << 20;
    let blocks = (0..count).map(|n| {
        let (chunk, own) = (n / ratio, entry(n + n / ratio));
        match own & 7 {
            6 => Block::Stored { payload: place(own), bitmap: None },
            7 => {
                let bits = place(entry(chunk * (ratio + 1) + ratio));
                let bitmap = bits + n % ratio * (block / sector / 8);
                Block::Stored { payload: place(own), bitmap: Some((bitmap, true)) }
            }
            0 => Block::Absent,
            _ => Block::Zero,
        }
    });
    let blocks = blocks.collect();
    Ok(Some(Image { file, size, block, sector, is_child, blocks }))
}
