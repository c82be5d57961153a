//! Writes VHD and VHDX images in shapes that no stock tool makes: blocks in any order, blocks that no table names,
//! sector bitmaps of children, unusual creators, an open log.
//!
//! It is written from the published specifications and knows nothing of the project that it tests: what this crate
//! and the project agree on was understood twice.
//!
//! ```no_run
//! # use odd_images::Shape;
//! # use std::path::Path;
//! // disk.raw holds the bytes of the virtual disk.
//! let shape = Shape::vhdx().block_size(1 << 20).shuffled(5).leaking(3);
//! shape.write(Path::new("disk.raw"), Path::new("disk.vhdx")).unwrap();
//! ```

mod reader;
mod rules;
mod vhd;
mod vhdx;

pub use reader::PlainDisk;
pub use rules::broken_rules;

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

use uuid::Uuid;

/// The container format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Virtual Hard Disk Image Format Specification, version 1.0.
    Vhd,
    /// \[MS-VHDX\].
    Vhdx,
}

impl Format {
    /// What the names of its files end in.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }
}

/// The program that a VHD says it was made by: readers take the disk's size from other fields for some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creator {
    /// Windows since version 7.
    Windows,
    /// Virtual PC, and old versions of QEMU.
    VirtualPc,
    /// QEMU, where it is told to keep the exact size.
    Qemu,
    /// VirtualBox.
    VirtualBox,
    /// XenServer's blktap.
    XenServer,
}

/// How the table of a VHDX marks blocks that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// `PAYLOAD_BLOCK_NOT_PRESENT`.
    NotPresent,
    /// `PAYLOAD_BLOCK_ZERO`.
    Zero,
    /// `PAYLOAD_BLOCK_UNMAPPED`.
    Unmapped,
    /// Not present, undefined, zero and unmapped by turns.
    Mixed,
}

/// The shape of an image. Every option is off at first, so that a shape is a plain dynamic image.
#[derive(Debug, Clone)]
pub struct Shape {
    format: Format,
    fixed: bool,
    block_size: u64,
    sector_size: u64,
    physical_sector_size: u32,
    order: Option<u64>,
    leak: Option<usize>,
    gap: bool,
    store_zeros: bool,
    sparse_bitmaps: bool,
    creator: Creator,
    open_log: bool,
    absent: Absent,
    poison: bool,
}

/// What lies in blocks that no table names.
const LEAKED: &[u8] = b"bytes of nobody ";
/// What lies in sectors of a child that are not its own.
const POISON: u8 = 0xEE;

/// A block to store: its number, its payload, and for a child which sectors are its own.
struct Block {
    number: u64,
    payload: Vec<u8>,
    own: Option<Vec<bool>>,
}

impl Shape {
    /// A dynamic VHD of 2 MiB blocks.
    #[must_use]
    pub const fn vhd() -> Self {
        Self::new(Format::Vhd, 2 << 20)
    }

    /// A dynamic VHDX of 32 MiB blocks.
    #[must_use]
    pub const fn vhdx() -> Self {
        Self::new(Format::Vhdx, 32 << 20)
    }

    /// A dynamic image of 1 MiB blocks.
    #[must_use]
    pub const fn of(format: Format) -> Self {
        Self::new(format, 1 << 20)
    }

    const fn new(format: Format, block_size: u64) -> Self {
        Self {
            format,
            fixed: false,
            block_size,
            sector_size: 512,
            physical_sector_size: 4096,
            order: None,
            leak: None,
            gap: false,
            store_zeros: false,
            sparse_bitmaps: false,
            creator: Creator::Windows,
            open_log: false,
            absent: Absent::NotPresent,
            poison: false,
        }
    }

    /// The format of this shape.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether it leaves a log to be replayed.
    #[must_use]
    pub const fn has_open_log(&self) -> bool {
        self.open_log
    }

    /// The size of its blocks.
    #[must_use]
    pub const fn bytes_a_block(&self) -> u64 {
        self.block_size
    }

    /// The size of its logical sectors.
    #[must_use]
    pub const fn bytes_a_sector(&self) -> u64 {
        self.sector_size
    }

    /// A fixed image instead of a dynamic one.
    #[must_use]
    pub const fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Blocks of so many bytes: any power of two that the table can hold.
    #[must_use]
    pub const fn block_size(mut self, bytes: u64) -> Self {
        self.block_size = bytes;
        self
    }

    /// Logical sectors of so many bytes (VHDX).
    #[must_use]
    pub const fn sector_size(mut self, bytes: u64) -> Self {
        self.sector_size = bytes;
        self
    }

    /// Physical sectors of so many bytes (VHDX).
    #[must_use]
    pub const fn physical_sector_size(mut self, bytes: u32) -> Self {
        self.physical_sector_size = bytes;
        self
    }

    /// Payload in another order than that of the disk.
    #[must_use]
    pub const fn shuffled(mut self, seed: u64) -> Self {
        self.order = Some(seed);
        self
    }

    /// Before each `every`th stored block a block that the table does not name.
    #[must_use]
    pub const fn leaking(mut self, every: usize) -> Self {
        self.leak = Some(every);
        self
    }

    /// Unused bytes between table and payload, so that no payload is aligned to 4 KiB (VHD).
    #[must_use]
    pub const fn gap(mut self) -> Self {
        self.gap = true;
        self
    }

    /// Stores blocks of zeros, too.
    #[must_use]
    pub const fn storing_zeros(mut self) -> Self {
        self.store_zeros = true;
        self
    }

    /// Sector bitmaps that name only sectors that hold something (VHD).
    #[must_use]
    pub const fn sparse_bitmaps(mut self) -> Self {
        self.sparse_bitmaps = true;
        self
    }

    /// The program that the file says it was made by (VHD).
    #[must_use]
    pub const fn creator(mut self, creator: Creator) -> Self {
        self.creator = creator;
        self
    }

    /// The start of the table stands in the log only (VHDX).
    #[must_use]
    pub const fn open_log(mut self) -> Self {
        self.open_log = true;
        self
    }

    /// The state of blocks that are not stored (VHDX).
    #[must_use]
    pub const fn absent(mut self, state: Absent) -> Self {
        self.absent = state;
        self
    }

    /// Fills the sectors of a child that are not its own with bytes that nobody must read.
    #[must_use]
    pub const fn poisoned(mut self) -> Self {
        self.poison = true;
        self
    }

    /// Writes `image`, whose virtual disk holds the bytes of the file `disk`.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the disk does not fit the shape.
    pub fn write(&self, disk: &Path, image: &Path) -> Result<()> {
        self.write_image(Disk::open(disk)?, None, image)
    }

    /// Writes `image` as a child: it stores what of `disk` differs from `parent.disk`.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the disk does not fit the shape.
    pub fn write_child(&self, disk: &Path, image: &Path, parent: &Parent) -> Result<()> {
        self.write_image(Disk::open(disk)?, Some(parent), image)
    }

    fn write_image(&self, disk: Disk, parent: Option<&Parent>, image: &Path) -> Result<()> {
        require(self.block_size.is_power_of_two(), "the block size is no power of two")?;
        require(disk.size.is_multiple_of(self.sector_size), "the disk is no whole number of sectors")?;
        match self.format {
            Format::Vhd => vhd::write(self, disk, parent, image),
            Format::Vhdx => vhdx::write(self, disk, parent, image),
        }
    }

    /// The numbers of the blocks to store, in the order in which they lie in the file.
    fn stored_blocks(&self, disk: &mut Disk, parent: &mut Option<Disk>) -> Result<Vec<u64>> {
        let mut stored = Vec::new();
        for number in 0..disk.size.div_ceil(self.block_size) {
            let payload = disk.block(number, self.block_size)?;
            let is_stored = match parent {
                Some(parent) => payload != parent.block(number, self.block_size)?,
                None => self.fixed || self.store_zeros || payload.iter().any(|&byte| byte != 0),
            };
            if is_stored {
                stored.push(number);
            }
        }
        if let Some(seed) = self.order {
            shuffle(&mut stored, seed);
        }
        Ok(stored)
    }

    /// The payload of a block, padded to the block size.
    fn block(&self, disk: &mut Disk, parent: &mut Option<Disk>, number: u64) -> Result<Block> {
        let mut payload = disk.block(number, self.block_size)?;
        let Some(parent) = parent else { return Ok(Block { number, payload, own: None }) };
        let below = parent.block(number, self.block_size)?;
        let sector = self.sector_size as usize;
        let inside = (disk.size - number * self.block_size).min(self.block_size) as usize;
        let mut own = vec![false; payload.len() / sector];
        for (n, (mine, theirs)) in payload[..inside].chunks_mut(sector).zip(below.chunks(sector)).enumerate()
        {
            own[n] = mine != theirs;
            if !own[n] {
                mine.fill(if self.poison { POISON } else { 0 });
            }
        }
        Ok(Block { number, payload, own: Some(own) })
    }

    /// Whether an unnamed block lies before the `n`th stored one.
    fn leaks_before(&self, n: usize) -> bool {
        self.leak.is_some_and(|every| n % every == every - 1)
    }

    fn leaked_block(&self) -> Vec<u8> {
        LEAKED.repeat(self.block_size as usize / LEAKED.len())
    }
}

/// The parent of a child: its image, and the bytes of its virtual disk.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// The image, which the child names by its file name.
    pub image: &'a Path,
    /// The file with the bytes of its virtual disk.
    pub disk: &'a Path,
}

impl Parent<'_> {
    fn file_name(&self) -> Result<&str> {
        let name = self.image.file_name().and_then(|name| name.to_str());
        name.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the parent has no file name"))
    }

    /// The place at which the child saw its parent last.
    fn windows_path(&self) -> Result<String> {
        Ok(format!("C:\\vm\\{}", self.file_name()?))
    }
}

/// A file with the bytes of a virtual disk.
struct Disk {
    file: File,
    size: u64,
}

impl Disk {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// A block of the disk; what lies beyond the disk's end is zero.
    fn block(&mut self, number: u64, block_size: u64) -> Result<Vec<u8>> {
        let mut block = vec![0; block_size as usize];
        let inside = self.size.saturating_sub(number * block_size).min(block_size) as usize;
        self.file.seek(SeekFrom::Start(number * block_size))?;
        self.file.read_exact(&mut block[..inside])?;
        Ok(block)
    }
}

/// The new file, written at any place; what is not written is a hole.
struct Output(File);

impl Output {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(File::create(path)?))
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.0.seek(SeekFrom::Start(at))?;
        self.0.write_all(bytes)
    }

    /// Writes a payload, of which zeros may be a hole; the file is as long as if they were written.
    fn put_payload(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        const GRAIN: usize = 64 << 10;
        for (n, part) in bytes.chunks(GRAIN).enumerate() {
            if part.iter().any(|&byte| byte != 0) {
                self.put(at + (n * GRAIN) as u64, part)?;
            }
        }
        self.extend_to(at + bytes.len() as u64)
    }

    fn extend_to(&mut self, size: u64) -> Result<()> {
        if self.0.metadata()?.len() < size { self.0.set_len(size) } else { Ok(()) }
    }
}

/// An identifier of the file at `path`, the same in every run; `what` tells several of one file apart.
fn identifier(path: &Path, what: &str) -> Uuid {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (path, what, salt).hash(&mut hasher);
        hasher.finish()
    };
    uuid::Builder::from_random_bytes(((u128::from(half(1)) << 64) | u128::from(half(2))).to_be_bytes())
        .into_uuid()
}

/// Fisher and Yates, with numbers that are the same in every run.
fn shuffle(numbers: &mut [u64], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for end in (1..numbers.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(end, (state % (end as u64 + 1)) as usize);
    }
}

fn require(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(ErrorKind::InvalidInput, otherwise)) }
}
