//! Disk images: containers that hold a virtual disk in blocks.
//!
//! ```text
//!   open ──► Image ── format, type, sizes, identity
//!              ├─ BlockTable   where each block's payload lies, or why it has none
//!              ├─ Bitmaps      which sectors of a block are its own (differencing)
//!              └─ Container    the file's bytes, with a log replayed in memory
//!   Disk  = one image, or a chain of them: resolves disk ranges to stored ranges
//!   ContainerWriter = how a format lays out a new image around payload that stays where it is
//! ```
//! Nothing here knows of file systems, and nothing is ever written to a source.

mod bitmap;
mod block_size;
mod chain;
mod disk;
mod formats;
mod layout;
mod reading;
mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod vhd;
pub mod vhdx;

use std::rc::Rc;

use uuid::Uuid;

pub use bitmap::{BitOrder, SectorBitmap};
pub use block_size::BlockSize;
pub use chain::{Candidate, Chain, ParentTrust, assemble};
pub use disk::{Disk, DiskReader, Origin, Segment};
pub use formats::{FORMATS, Format, FormatDescription};
pub use layout::{BitmapSource, BlockPlan, ContainerWriter, OutState, Pairs, Piece};
pub use reading::ClearBits;
pub use table::{BlockState, BlockTable};

use crate::error::{Error, ErrorKind, Result, Warning};
use crate::io::{Cached, Overlay, ReadAt, read_vec};
use crate::units::{FileOffset, add, length};

/// How an image stores its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskType {
    /// Every block is allocated.
    Fixed,
    /// Blocks are allocated when they are first written.
    Dynamic,
    /// Holds what differs from a parent image.
    Differencing,
}

impl DiskType {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

/// The sizes of an image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The size of the disk as a guest sees it.
    pub virtual_size: u64,
    /// How much of the disk the block table addresses: at least `virtual_size`. Greater where
    /// programs disagree on the size (VHD geometry against Current Size), so that no reader's bytes
    /// are lost.
    pub addressable_size: u64,
    /// The size of a block.
    pub block_size: BlockSize,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
}

/// What a differencing image says of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    /// The identifiers any of which the parent must have: VHD unique id; VHDX `parent_linkage` and
    /// `parent_linkage2` (data write GUIDs).
    pub ids: Vec<Uuid>,
    /// The parent's time stamp (VHD; seconds since 2000-01-01 UTC), none where it is 0 or not stored.
    pub time_stamp: Option<u32>,
    /// Names and paths as the locators give them: text of unknown origin.
    pub paths: Vec<String>,
    /// Whether the parent is a raw disk, which has no identifier and is not read here (XenServer).
    pub is_raw: bool,
}

/// Most of a path's characters that a sentence repeats.
const MAX_SHOWN_CHARS: usize = 260;

impl ParentLink {
    /// Whether `image` has one of the identifiers. A nil identifier never matches.
    #[must_use]
    pub fn matches(&self, image: &Image) -> bool {
        !image.identity.is_nil() && self.ids.contains(&image.identity)
    }

    /// The parent for a sentence: its file name, and where it was last known to be.
    #[must_use]
    pub fn describe(&self) -> String {
        let shown: Vec<String> = self
            .paths
            .iter()
            .map(|path| path.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect::<String>())
            .filter(|path| !path.trim().is_empty())
            .collect();
        let kind = if self.is_raw { ", a raw disk" } else { "" };
        let Some(name) = shown.iter().find_map(|path| base_name(path)) else {
            return format!("whose name is not known{kind}");
        };
        // The longest path says most of where it was, but nobody knows a volume by its GUID.
        let place = shown.iter().max_by_key(|path| (!path.starts_with("\\\\?\\"), path.len()));
        match place.filter(|path| path.as_str() != name) {
            Some(path) => format!("“{name}” (last known as “{path}”){kind}"),
            None => format!("“{name}”{kind}"),
        }
    }

    /// Whether a file of this name (or path) has the parent's name.
    #[must_use]
    pub fn has_file_name(&self, name: &str) -> bool {
        let Some(name) = base_name(name) else { return false };
        let mut names = self.paths.iter().filter_map(|path| base_name(path));
        names.any(|known| known.to_lowercase() == name.to_lowercase())
    }
}

/// The file name at the end of a path of any system.
fn base_name(path: &str) -> Option<&str> {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty())
}

/// Where sector bitmaps are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bitmaps {
    /// There are none (fixed; VHDX without a parent).
    None,
    /// VHD: `len` bytes right before each payload.
    BeforePayload {
        /// Bytes of one bitmap: a multiple of 512.
        len: u64,
    },
    /// VHDX: one 1 MiB bitmap block for each chunk of `blocks` payload blocks.
    Chunked {
        /// The chunk ratio.
        blocks: u64,
        /// The bitmap block of each chunk, where it is present.
        at: Vec<Option<FileOffset>>,
    },
}

/// What a writer carries over from the source unchanged.
#[derive(Debug, Clone)]
pub enum Metadata {
    /// Of a VHD.
    Vhd(Box<vhd::Metadata>),
    /// Of a VHDX.
    Vhdx(Box<vhdx::Metadata>),
}

/// The bytes of a container file, as they are after its log is replayed (in memory).
pub struct Container {
    bytes: Cached<Overlay<Rc<dyn ReadAt>>>,
    file_size: u64,
}

impl Container {
    /// A container whose file needs no replay.
    #[must_use]
    pub fn new(file: Rc<dyn ReadAt>) -> Self {
        Self::replayed(Overlay::new(file))
    }

    /// A container whose log is replayed by `overlay`.
    #[must_use]
    pub fn replayed(overlay: Overlay<Rc<dyn ReadAt>>) -> Self {
        let file_size = overlay.base().size();
        Self { bytes: Cached::new(overlay), file_size }
    }

    /// The size of the file as it is on disk.
    #[must_use]
    pub const fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Whether the file itself holds the bytes of this range, so that they can be copied from it.
    #[must_use]
    pub fn is_verbatim(&self, offset: FileOffset, len: u64) -> bool {
        // A range without an end in 64 bits is looked at as far as offsets go.
        !self.bytes.inner().is_patched(offset.get()..offset.get().saturating_add(len))
    }
}

impl Container {
    /// Reads payload, which is read once and must not push metadata out of the cache.
    ///
    /// # Errors
    /// Read errors.
    pub fn read_payload(&self, offset: FileOffset, buf: &mut [u8]) -> Result<()> {
        self.bytes.inner().read_exact_at(offset.get(), buf)
    }
}

impl ReadAt for Container {
    fn size(&self) -> u64 {
        self.bytes.size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.bytes.read_exact_at(offset, buf)
    }
}

/// One opened image. Everything in it has been checked against its specification and the file.
pub struct Image {
    /// The container format.
    pub format: Format,
    /// How it stores its disk.
    pub disk_type: DiskType,
    /// Its sizes.
    pub geometry: Geometry,
    /// The file's bytes.
    pub container: Container,
    /// Where each block lies.
    pub blocks: BlockTable,
    /// Where sector bitmaps lie.
    pub bitmaps: Bitmaps,
    /// What a differencing child must name as its parent: VHD unique id, VHDX data write GUID.
    pub identity: Uuid,
    /// The program that made it: text of unknown origin.
    pub creator: String,
    /// The parent, for a differencing image.
    pub parent: Option<ParentLink>,
    /// What a writer carries over.
    pub metadata: Metadata,
    /// What is odd and did not stop the opening.
    pub warnings: Vec<Warning>,
}

/// Opens an image by its content, whatever its name.
///
/// # Errors
/// `not-recognised` with the name of what it is, where that can be told; else what the format's own
/// reader finds wrong.
pub fn open(file: Rc<dyn ReadAt>) -> Result<Image> {
    let head = read_vec(&file, 0, usize::try_from(file.size()).map_or(HEAD, |size| size.min(HEAD)))?;
    if head.starts_with(vhdx::SIGNATURE) {
        return vhdx::open(file);
    }
    if vhd::recognise(&file, &head)? {
        return vhd::open(file);
    }
    Err(Error::new(ErrorKind::NotRecognised, foreign(&head)))
}

/// What of a file is read to tell its format: an ext superblock's signature lies at 1080.
const HEAD: usize = 2048;

/// A sentence that names a format of other programs, so that a person knows what they have.
fn foreign(head: &[u8]) -> String {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let name = if head.is_empty() {
        return "this file is empty".into();
    } else if at(0, b"QFI\xfb") {
        "a QCOW image (QEMU)"
    } else if at(0, b"KDMV") || at(0, b"COWD") || at(0, b"# Disk DescriptorFile") {
        "a VMDK image (VMware)"
    } else if at(64, &[0x7f, 0x10, 0xda, 0xbe]) {
        "a VDI image (VirtualBox)"
    } else if at(0, b"PK\x03\x04") {
        "a ZIP archive: unpack it first"
    } else if at(0, &[0x1f, 0x8b]) || at(0, b"\xfd7zXZ\0") || at(0, b"7z\xbc\xaf") || at(0, b"Rar!") {
        "a compressed archive: unpack it first"
    } else if at(510, &[0x55, 0xaa]) || at(512, b"EFI PART") || at(1080, &[0x53, 0xef]) || at(0, b"XFSB") {
        "a raw disk image, or a fixed VHD whose footer is gone. Its own program reads it as it is. To make it smaller here, \
         make a dynamic image of it first: qemu-img convert -f raw -O vhdx DISK disk.vhdx"
    } else {
        return "this is no VHD or VHDX image: neither signature was found".into();
    };
    format!("this is no VHD or VHDX image, but looks like {name}")
}

impl Image {
    /// Whether XenServer or XCP-ng made it, which accept less than others.
    #[must_use]
    pub fn is_xenserver(&self) -> bool {
        matches!(&self.metadata, Metadata::Vhd(m) if m.footer.xenserver_version().is_some())
    }

    /// How many blocks the disk has.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.blocks.len()
    }

    /// The part of the disk that block `block` covers, cut at the disk's end.
    #[must_use]
    pub fn block_range(&self, block: u64) -> std::ops::Range<u64> {
        self.geometry.block_size.span(block, self.geometry.addressable_size)
    }

    /// The disk bytes of a differencing image's block in stretches that are all its own (`true`) or all the
    /// parent's, ascending. Of a block that is not partially present all bytes are its own.
    ///
    /// # Errors
    /// As [`Image::sector_bitmap`].
    pub fn own_runs(&self, block: u64) -> Result<Vec<(std::ops::Range<u64>, bool)>> {
        let range = self.block_range(block);
        let BlockState::PartiallyPresent(_) = self.blocks.get(block) else { return Ok(vec![(range, true)]) };
        let bitmap = self
            .sector_bitmap(block)?
            .ok_or_else(|| Error::internal("a partially present block without sector bitmap"))?;
        let on_disk = |at: u64| add(range.start, at, "a disk offset");
        let runs = bitmap.runs(0..length(&range)).into_iter();
        runs.map(|(run, own)| Ok((on_disk(run.start)?..on_disk(run.end)?, own))).collect()
    }

    /// The sector bitmap of a block that has one.
    ///
    /// # Errors
    /// `corrupt` where the block's bitmap is not present; read errors.
    pub fn sector_bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
        bitmap::load(self, block)
    }
}
