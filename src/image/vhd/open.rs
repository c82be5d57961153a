//! Reading a VHD: footer or mirror, dynamic header, BAT, parent locators.
//!
//! ```text
//!   EOF−512 ── footer ──┐ good: taken; the mirror is compared, and the larger of two sizes counts
//!   EOF−511 ── (old)  ──┤ bad:  the mirror is taken, with a warning
//!   0       ── mirror ──┘ both bad: corrupt
//!                └─ data offset ─► dynamic header ─ table offset ─► BAT ─► block table
//! ```

use std::collections::HashSet;
use std::rc::Rc;

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::bat::{Bat, BatContents};
use super::batmap::{self, Batmap};
use super::format::{
    DynamicHeader, FOOTER_COOKIE, FOOTER_LEN, Footer, HEADER_COOKIE, HEADER_LEN, TYPE_DIFFERENCING,
    TYPE_DYNAMIC, TYPE_FIXED, VERSION, XENSERVER_FIRST,
};
use super::geometry::{chs_size, disk_size};
use crate::error::{Error, Result, Site, Warning};
use crate::image::bitmap::vhd_bitmap_len;
use crate::image::{
    Bitmaps, BlockSize, BlockTable, Container, DiskType, Format, Geometry, Image, Metadata as AnyMetadata,
    ParentLink,
};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{FileOffset, Space, index, length};

/// The block size by which a fixed disk, which has none, is looked at.
const FIXED_BLOCK: BlockSize = BlockSize::MIB_2;
/// Largest block size that is read. Windows takes up to 2 MiB; other writers go further.
pub const MAX_BLOCK: BlockSize = BlockSize::GIB_1;
/// Most blocks of one disk: 2²³, which the largest disk needs in blocks of 256 KiB. They take at most 64 MiB
/// of memory, and as much for a moment while their places are compared.
pub const MAX_BLOCKS: u64 = 1 << 23;
/// The largest fixed disk, which has no table that would limit it: what a VHDX holds, since nothing larger can
/// be written.
const MAX_FIXED_SIZE: u64 = Format::Vhdx.description().max_disk_size;
/// Most bytes of one parent locator's data.
pub const MAX_LOCATOR: u64 = 64 << 10;

/// What a writer carries over from a VHD.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The footer as it was read.
    pub footer: Footer,
    /// The dynamic header as it was read; none for a fixed disk.
    pub header: Option<DynamicHeader>,
    /// The data of each parent locator.
    pub locators: Vec<Vec<u8>>,
    /// XenServer's batmap, where there is one.
    pub batmap: Option<Batmap>,
}

/// Whether this file is a VHD: a footer's cookie at one of its three places. `head` is the file's
/// beginning.
///
/// # Errors
/// Read errors.
pub fn recognise(file: &dyn ReadAt, head: &[u8]) -> Result<bool> {
    if head.starts_with(&FOOTER_COOKIE) {
        return Ok(true);
    }
    for at in footer_places(file.size()) {
        if read_vec(&file, at, 8)? == FOOTER_COOKIE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the footer may be at the file's end: 512 bytes, or 511 as before Virtual PC 2004.
fn footer_places(size: u64) -> impl Iterator<Item = u64> {
    let old = (size % 512 == 511).then(|| size.checked_sub(511)).flatten();
    size.checked_sub(FOOTER_LEN).into_iter().chain(old)
}

/// Opens a VHD.
///
/// # Errors
/// `corrupt`, `unsupported` or `limit-exceeded` with the site of what is wrong; read errors.
pub fn open(file: Rc<dyn ReadAt>) -> Result<Image> {
    let container = Container::new(file);
    let mut warnings = Vec::new();
    let Footers { footer, mirror, end } = find_footers(&container, &mut warnings)?;
    let site = Site { structure: "VHD footer", space: Space::File, offset: end.footer_at };
    let disk_type = check_footer(&footer, site)?;
    let parts = match disk_type {
        DiskType::Fixed => fixed_parts(footer, &end, site, &mut warnings)?,
        _ => dynamic_parts(&container, footer, mirror, disk_type, &end, &mut warnings)?,
    };
    let Parts { footer, size, .. } = parts;
    if footer.is_hidden() {
        warnings.push(Warning::new(
            "xen-hidden",
            "XenServer marked this disk as hidden (a base copy); the new image keeps the mark.",
        ));
    }
    Ok(Image {
        format: Format::Vhd,
        disk_type,
        geometry: Geometry {
            virtual_size: size.disk,
            // A table that is too short for the larger of two sizes addresses only what it has.
            addressable_size: parts.block_size.span(parts.blocks.len(), size.addressable).start,
            block_size: parts.block_size,
            logical_sector_size: 512,
            physical_sector_size: 512,
        },
        container,
        blocks: parts.blocks,
        bitmaps: parts.bitmaps,
        identity: Uuid::from_bytes(footer.unique_id),
        creator: creator_name(&footer),
        parent: parts.parent,
        metadata: AnyMetadata::Vhd(Box::new(Metadata {
            footer,
            header: parts.header,
            locators: parts.locators,
            batmap: parts.batmap,
        })),
        warnings,
    })
}

/// What depends on the disk type.
struct Parts {
    /// The footer that counts.
    footer: Footer,
    size: Sizes,
    block_size: BlockSize,
    blocks: BlockTable,
    bitmaps: Bitmaps,
    header: Option<DynamicHeader>,
    locators: Vec<Vec<u8>>,
    batmap: Option<Batmap>,
    parent: Option<ParentLink>,
}

#[derive(Clone, Copy)]
struct Sizes {
    disk: u64,
    addressable: u64,
}

/// Where the footer that is believed was found, and where payload must end.
pub struct End {
    pub footer_at: u64,
    pub payload_end: u64,
}

/// What was found of the two copies of the footer.
struct Footers {
    /// The one at the end, or its mirror where that one is damaged.
    footer: Footer,
    /// The mirror, where both are good and differ.
    mirror: Option<Footer>,
    end: End,
}

fn find_footers(container: &Container, warnings: &mut Vec<Warning>) -> Result<Footers> {
    let size = container.size();
    if size < FOOTER_LEN - 1 {
        return Err(Error::corrupt(
            Site { structure: "VHD footer", space: Space::File, offset: 0 },
            "the file is too short to hold a VHD footer",
        )
        .expected("511 bytes or more", size));
    }
    let mirror = if size >= FOOTER_LEN { read_footer(container, 0)? } else { Err(Flaw::Missing) };
    let mut flaw = Flaw::Missing;
    for at in footer_places(size) {
        match read_footer(container, at)? {
            Ok(footer) => {
                let mirror = check_mirror(&footer, at, mirror, warnings);
                return Ok(Footers { footer, mirror, end: End { footer_at: at, payload_end: at } });
            }
            Err(found) => flaw = flaw.max(found),
        }
    }
    // A fixed disk has no mirror: what its payload begins with is a guest's.
    let mirrored = |footer: &Footer| matches!(footer.disk_type.get(), TYPE_DYNAMIC | TYPE_DIFFERENCING);
    if let Some(footer) = mirror.ok().filter(mirrored) {
        warnings.push(Warning::new(
            "footer-damaged",
            format!("The footer at the end of the file {flaw}; its copy at the start is good and was used."),
        ));
        return Ok(Footers { footer, mirror: None, end: End { footer_at: 0, payload_end: size } });
    }
    // A file of 511 bytes is one byte shorter than a footer: the place is then its start.
    let offset = size.saturating_sub(FOOTER_LEN);
    let site = Site { structure: "VHD footer", space: Space::File, offset };
    Err(Error::corrupt(site, format!("the footer {flaw}, and so does its copy at the start of the file")))
}

/// What is wrong with one copy of the footer. The order is that of interest to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flaw {
    Missing,
    Checksum { stored: u32, computed: u32 },
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Checksum { stored, computed } => {
                write!(f, "has a wrong checksum (stored {stored:#010x}, computed {computed:#010x})")
            }
        }
    }
}

fn read_footer(container: &Container, at: u64) -> Result<Result<Footer, Flaw>> {
    let mut bytes = [0; 512];
    let len = index(length(&(at..container.size())).min(FOOTER_LEN), "a footer")?;
    container.read_exact_at(at, bytes.get_mut(..len).unwrap_or_default())?;
    let footer =
        Footer::read_from_bytes(&bytes).map_err(|_| Error::internal("a footer of the wrong length"))?;
    if footer.cookie != FOOTER_COOKIE {
        return Ok(Err(Flaw::Missing));
    }
    if footer.checksum_matches() {
        return Ok(Ok(footer));
    }
    Ok(Err(Flaw::Checksum { stored: footer.checksum.get(), computed: footer.computed_checksum() }))
}

/// The copy at the start should be the same, for the disk types that have one; it is given where it is not.
fn check_mirror(
    footer: &Footer,
    at: u64,
    mirror: Result<Footer, Flaw>,
    warnings: &mut Vec<Warning>,
) -> Option<Footer> {
    if !matches!(footer.disk_type.get(), TYPE_DYNAMIC | TYPE_DIFFERENCING) || at == 0 {
        return None;
    }
    match mirror {
        // The last byte is missing in a footer of 511 bytes.
        Ok(mirror) if mirror.as_bytes().get(..511) == footer.as_bytes().get(..511) => None,
        Ok(mirror) => Some(mirror),
        Err(flaw) => {
            warnings.push(Warning::new(
                "footer-mirror-damaged",
                format!(
                    "The copy of the footer at the start of the file {flaw}; the footer at the end is good and was \
                     used."
                ),
            ));
            None
        }
    }
}

/// Which of two good footers that differ counts: the one that names the larger disk, as far as the BAT has
/// `room` (bytes of the disk). Some programs read by the first, some by the last, and what either shows must
/// not be lost.
fn choose_footer(
    last: Footer,
    first: Footer,
    end: &End,
    room: u64,
    warnings: &mut Vec<Warning>,
) -> Result<(Footer, Sizes)> {
    let site = |offset| Site { structure: "VHD footer", space: Space::File, offset };
    check_footer(&first, site(0))?;
    if (first.disk_type, first.data_offset) != (last.disk_type, last.data_offset) {
        return Err(Error::corrupt(
            site(0),
            "the footer at the end of the file and its copy at the start are both valid and describe different disks",
        )
        .expected(
            format_args!("type {}, header at {}", last.disk_type, last.data_offset),
            format_args!("type {}, header at {}", first.disk_type, first.data_offset),
        ));
    }
    let mut told = Vec::new();
    let at_end = sizes(&last, site(end.footer_at), &mut told)?;
    let at_start = sizes(&first, site(0), &mut Vec::new())?;
    let addressable = at_end.addressable.max(at_start.addressable);
    if (at_end.disk, at_end.addressable) == (at_start.disk, at_start.addressable) {
        warnings.push(Warning::new(
            "footer-copies-differ",
            "The footer at the end of the file and its copy at the start differ; the one at the end was used.",
        ));
        warnings.extend(told);
        return Ok((last, at_end));
    }
    let by_start = at_start.addressable > at_end.addressable && at_start.disk <= room;
    warnings.push(Warning::new(
        "footer-sizes-differ",
        format!(
            "The footer at the end of the file says that the disk has {} bytes, its copy at the start {}. Programs \
             differ in which they read. The larger counts here, so that no byte is lost, and both copies in the new \
             image say so.",
            at_end.disk, at_start.disk
        ),
    ));
    let (footer, size) = if by_start { (first, at_start) } else { (last, at_end) };
    Ok((footer, Sizes { addressable, ..size }))
}

fn check_footer(footer: &Footer, site: Site) -> Result<DiskType> {
    let field = |by| site.field(by);
    let version = footer.version.get();
    if version >> 16 != 1 {
        return Err(Error::unsupported(field(12), "the file format version is not 1.x")
            .expected(format_args!("{VERSION:#010x}"), format_args!("{version:#010x}")));
    }
    if footer.saved_state != 0 {
        return Err(Error::unsupported(
            field(84),
            "the virtual machine of this disk is in saved state; start it and shut it down first",
        )
        .expected(0, footer.saved_state));
    }
    match footer.disk_type.get() {
        TYPE_FIXED => Ok(DiskType::Fixed),
        TYPE_DYNAMIC => Ok(DiskType::Dynamic),
        TYPE_DIFFERENCING => Ok(DiskType::Differencing),
        other => {
            Err(Error::unsupported(field(60), "the disk type is neither fixed, dynamic nor differencing")
                .expected("2, 3 or 4", other))
        }
    }
}

fn sizes(footer: &Footer, site: Site, warnings: &mut Vec<Warning>) -> Result<Sizes> {
    let current = footer.current_size.get();
    let field = site.field(48);
    if current == 0 {
        return Err(Error::corrupt(field, "the size of the disk is zero"));
    }
    if !current.is_multiple_of(512) {
        return Err(
            Error::corrupt(field, "the size of the disk is no multiple of 512").expected("n × 512", current)
        );
    }
    let (limit, message) = match footer.disk_type.get() {
        TYPE_FIXED => (MAX_FIXED_SIZE, "the disk is larger than the 64 TiB that any new image can hold"),
        _ => (
            Format::Vhd.description().max_disk_size,
            "the disk is larger than the 2040 GiB that a VHD can hold",
        ),
    };
    if current > limit {
        return Err(Error::limit(field, message).expected(format_args!("at most {limit}"), current));
    }
    let (disk, by_geometry) = (disk_size(footer), chs_size(footer));
    if disk != current {
        warnings.push(Warning::new(
            "sizes-disagree",
            format!(
                "The geometry gives a disk of {by_geometry} bytes, the size field {current}. Programs differ in which \
                 they believe; for this creator it is {disk}. Both are kept, and no byte of the larger is dropped."
            ),
        ));
    }
    Ok(Sizes { disk, addressable: current.max(disk) })
}

fn fixed_parts(footer: Footer, end: &End, site: Site, warnings: &mut Vec<Warning>) -> Result<Parts> {
    let size = sizes(&footer, site, warnings)?;
    if size.disk > end.payload_end {
        let field = site.field(48);
        return Err(Error::corrupt(
            field,
            "the file is shorter than the fixed disk it should hold (cut off, or the last part of a split set)",
        )
        .expected(format_args!("{} bytes of payload", size.disk), end.payload_end));
    }
    // Beyond the size that counts, a fixed disk is only as long as its file.
    let addressable = size.addressable.min(end.payload_end);
    let mut blocks = BlockTable::new();
    blocks.push_side_by_side(FileOffset::new(0), FIXED_BLOCK.get(), FIXED_BLOCK.count_for(addressable))?;
    Ok(Parts {
        footer,
        size,
        block_size: FIXED_BLOCK,
        blocks,
        bitmaps: Bitmaps::None,
        header: None,
        locators: Vec::new(),
        batmap: None,
        parent: None,
    })
}

fn dynamic_parts(
    container: &Container,
    footer: Footer,
    mirror: Option<Footer>,
    disk_type: DiskType,
    end: &End,
    warnings: &mut Vec<Warning>,
) -> Result<Parts> {
    let (header, at) = read_header(container, &footer, end)?;
    let site = |by| Site { structure: "VHD dynamic header", space: Space::File, offset: at }.field(by);
    let stored = u64::from(header.block_size.get());
    let block_size = BlockSize::new(stored).filter(|&size| size >= BlockSize::SECTOR).ok_or_else(|| {
        Error::corrupt(site(32), "the block size is no power of two of at least one sector")
            .expected("a power of two, 512 or more", stored)
    })?;
    if block_size > MAX_BLOCK {
        return Err(Error::limit(site(32), "the block size is too large")
            .expected(format_args!("at most {MAX_BLOCK}"), block_size));
    }
    let entries = u64::from(header.max_table_entries.get());
    let (footer, size) = match mirror {
        Some(mirror) => choose_footer(footer, mirror, end, block_size.start_of(entries), warnings)?,
        None => {
            let footer_site = Site { structure: "VHD footer", space: Space::File, offset: end.footer_at };
            (footer, sizes(&footer, footer_site, warnings)?)
        }
    };
    if disk_type == DiskType::Differencing && footer.xenserver_version() == Some(XENSERVER_FIRST) {
        return Err(Error::unsupported(
            site(0),
            "the first version of XenServer's programs made this disk, and counted the bits of sector bitmaps in \
             another order; let XenServer convert it first",
        ));
    }
    let needed = block_size.count_for(size.addressable);
    if entries < block_size.count_for(size.disk) {
        return Err(Error::corrupt(site(28), "the BAT is too short for the disk")
            .expected(format_args!("{needed} entries or more"), entries));
    }
    if needed > MAX_BLOCKS {
        return Err(Error::limit(site(28), "the disk has too many blocks")
            .expected(format_args!("at most {MAX_BLOCKS}"), needed));
    }
    let table_offset = header.table_offset.get();
    let mut bat = Bat {
        container,
        at: table_offset,
        entries,
        used: needed.min(entries),
        block_size,
        bitmap_len: vhd_bitmap_len(block_size)?,
        disk_type,
        header_at: at,
        end,
        batmap: Vec::new(),
    };
    bat.check_place(site(16))?;
    let found_batmap =
        batmap::find(container, &footer, block_size, batmap::place_after(table_offset, entries)?)?;
    if let Some(found) = &found_batmap {
        bat.batmap.extend(found.places());
    }
    let BatContents { blocks, over_batmap } = bat.read(size.addressable, warnings)?;
    let batmap = match found_batmap {
        Some(found) if !over_batmap => Some(found.read(container, &footer, blocks.len(), warnings)?),
        Some(_) => {
            warnings.push(Warning::new(
                "xen-batmap-damaged",
                "A block lies over XenServer's batmap. It is not believed; the new image has a good one.",
            ));
            None
        }
        None if batmap::is_expected(&footer, block_size) => {
            warnings.push(Warning::new(
                "xen-batmap-missing",
                "XenServer's batmap is missing: XenServer reads this disk, and cannot write to it. The new image has \
                 one.",
            ));
            None
        }
        None => None,
    };
    let locators = read_locators(container, &header, at)?;
    let parent = (disk_type == DiskType::Differencing).then(|| parent_link(&footer, &header, &locators));
    let bitmaps = Bitmaps::BeforePayload { len: bat.bitmap_len };
    Ok(Parts { footer, size, block_size, blocks, bitmaps, header: Some(header), locators, batmap, parent })
}

fn read_header(container: &Container, footer: &Footer, end: &End) -> Result<(DynamicHeader, u64)> {
    let at = footer.data_offset.get();
    let field = Site { structure: "VHD footer", space: Space::File, offset: end.footer_at }.field(16);
    let fits = at.checked_add(HEADER_LEN).is_some_and(|header_end| header_end <= container.size());
    if at < FOOTER_LEN || !fits || !at.is_multiple_of(512) {
        return Err(Error::corrupt(
            field,
            "the data offset does not point to a dynamic header inside the file",
        )
        .expected(format_args!("a multiple of 512 from 512 to {}", container.size()), at));
    }
    let header: DynamicHeader = read_struct(container, at)?;
    let site = |by| Site { structure: "VHD dynamic header", space: Space::File, offset: at }.field(by);
    if header.cookie != HEADER_COOKIE {
        return Err(Error::corrupt(site(0), "the dynamic header has no signature")
            .expected("cxsparse", String::from_utf8_lossy(&header.cookie).escape_debug()));
    }
    let (stored, computed) = (header.checksum.get(), header.computed_checksum());
    if stored != computed {
        return Err(Error::corrupt(site(36), "the dynamic header has a wrong checksum")
            .expected(format_args!("{computed:#010x}"), format_args!("{stored:#010x}")));
    }
    let version = header.header_version.get();
    if version >> 16 != 1 {
        return Err(Error::unsupported(site(24), "the dynamic header's version is not 1.x")
            .expected(format_args!("{VERSION:#010x}"), format_args!("{version:#010x}")));
    }
    Ok((header, at))
}

fn read_locators(container: &Container, header: &DynamicHeader, header_at: u64) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let header_site = Site { structure: "VHD parent locator", space: Space::File, offset: header_at };
    for (by, locator) in (576..).step_by(24).zip(&header.parent_locators) {
        let len = u64::from(locator.data_length.get());
        if locator.platform_code == [0; 4] || len == 0 {
            all.push(Vec::new());
            continue;
        }
        let site = header_site.field(by);
        if len > MAX_LOCATOR {
            return Err(Error::limit(site, "a parent locator is too long")
                .expected(format_args!("at most {MAX_LOCATOR} bytes"), len));
        }
        let at = locator.data_offset.get();
        if at.checked_add(len).is_none_or(|data_end| data_end > container.size()) || at < FOOTER_LEN {
            return Err(Error::corrupt(site, "a parent locator's data does not lie inside the file")
                .expected(format_args!("before {}", container.size()), at));
        }
        all.push(read_vec(container, at, index(len, "a parent locator")?)?);
    }
    Ok(all)
}

fn parent_link(footer: &Footer, header: &DynamicHeader, locators: &[Vec<u8>]) -> ParentLink {
    let mut paths = Vec::new();
    for (locator, data) in header.parent_locators.iter().zip(locators) {
        let path = match &locator.platform_code {
            b"W2ru" | b"W2ku" => utf16(data, u16::from_le_bytes),
            b"MacX" => file_url(data),
            _ => continue,
        };
        paths.push(path);
    }
    paths.push(utf16(&header.parent_unicode_name, u16::from_be_bytes));
    let mut seen = HashSet::new();
    paths.retain(|path| !path.is_empty() && seen.insert(path.clone()));
    let time_stamp = Some(header.parent_time_stamp.get()).filter(|&stamp| stamp != 0);
    let id = Uuid::from_bytes(header.parent_unique_id);
    // XenServer makes children of raw disks, which have no identifier.
    let is_raw = id.is_nil() && footer.xenserver_version().is_some();
    ParentLink { ids: vec![id], time_stamp, paths, is_raw }
}

/// Text up to the first NUL; what is no text becomes a replacement character.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).map(unit);
    char::decode_utf16(units.take_while(|&u| u != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The path of a file URL, as MacX locators hold it: UTF-8, with %xx for what a URL cannot hold.
fn file_url(data: &[u8]) -> String {
    let url = data.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut rest = url.strip_prefix(b"file://").unwrap_or(url);
    rest = rest.strip_prefix(b"localhost").unwrap_or(rest);
    let mut path = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(meant) => {
                path.push(meant);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&path).into_owned()
}

fn creator_name(footer: &Footer) -> String {
    let code = &footer.creator_application;
    let program = match code {
        b"win " => "Windows",
        b"vpc " => "Virtual PC",
        b"vs  " => "Virtual Server",
        b"vbox" => "VirtualBox",
        b"qemu" | b"qem2" => "QEMU",
        b"d2v " => "Disk2vhd",
        b"tap\0" => "XenServer",
        b"CTXS" => "Citrix",
        _ => "",
    };
    let version = footer.creator_version.get();
    let text: String = String::from_utf8_lossy(code).trim_end_matches(['\0', ' ']).escape_debug().collect();
    let numbers = format!("{}.{}", version >> 16, version & 0xffff);
    if program.is_empty() { format!("{text} {numbers}") } else { format!("{program} ({text} {numbers})") }
}
