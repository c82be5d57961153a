//! Reading a VHD: footer or mirror, dynamic header, BAT, parent locators.
//!
//! ```text
//!   EOF−512 ── footer ──┐ good: taken; the mirror is compared
//!   EOF−511 ── (old)  ──┤ bad:  the mirror is taken, with a warning
//!   0       ── mirror ──┘ both bad: corrupt
//!                └─ data offset ─► dynamic header ─ table offset ─► BAT ─► block table
//! ```

use std::collections::HashSet;
use std::rc::Rc;

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::bat::Bat;
use super::format::{
    DynamicHeader, FOOTER_COOKIE, FOOTER_LEN, Footer, HEADER_COOKIE, HEADER_LEN, TYPE_DIFFERENCING,
    TYPE_DYNAMIC, TYPE_FIXED, VERSION,
};
use super::geometry::{chs_size, disk_size};
use crate::error::{Error, Result, Site, Warning};
use crate::image::bitmap::vhd_bitmap_len;
use crate::image::{
    Bitmaps, BlockSize, BlockState, BlockTable, Container, DiskType, Format, Geometry, Image,
    Metadata as AnyMetadata, ParentLink,
};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{FileOffset, Space, index, len64};

/// The block size by which a fixed disk, which has none, is looked at.
const FIXED_BLOCK: BlockSize = BlockSize::MIB_2;
/// Largest block size that is read. Windows takes up to 2 MiB; other writers go further.
pub const MAX_BLOCK: BlockSize = BlockSize::GIB_1;
/// Most blocks of one disk: 2²⁶ (a BAT of 256 MiB).
pub const MAX_BLOCKS: u64 = 1 << 26;
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
    let (footer, end) = find_footer(&container, &mut warnings)?;
    let site = Site { structure: "VHD footer", space: Space::File, offset: end.footer_at };
    let disk_type = check_footer(&footer, site)?;
    let size = sizes(&footer, site, &mut warnings)?;
    let parts = match disk_type {
        DiskType::Fixed => fixed_parts(size, &end, site)?,
        _ => dynamic_parts(&container, &footer, disk_type, size, &end, &mut warnings)?,
    };
    if footer.reserved.first() == Some(&1) {
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
            addressable_size: size.addressable.min(parts.block_size.start_of(parts.blocks.len())),
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
        })),
        warnings,
    })
}

/// What depends on the disk type.
struct Parts {
    block_size: BlockSize,
    blocks: BlockTable,
    bitmaps: Bitmaps,
    header: Option<DynamicHeader>,
    locators: Vec<Vec<u8>>,
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

fn find_footer(container: &Container, warnings: &mut Vec<Warning>) -> Result<(Footer, End)> {
    let size = container.size();
    if size < FOOTER_LEN.saturating_sub(1) {
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
                check_mirror(&footer, at, mirror, warnings);
                return Ok((footer, End { footer_at: at, payload_end: at }));
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
        return Ok((footer, End { footer_at: 0, payload_end: size }));
    }
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
    let len = index(container.size().saturating_sub(at).min(FOOTER_LEN), "a footer")?;
    container.read_exact_at(at, bytes.get_mut(..len).unwrap_or_default())?;
    let footer =
        Footer::read_from_bytes(&bytes).map_err(|_| Error::internal("a footer of the wrong length"))?;
    if footer.cookie != FOOTER_COOKIE {
        return Ok(Err(Flaw::Missing));
    }
    let (stored, computed) = (footer.checksum.get(), footer.computed_checksum());
    Ok(if stored == computed { Ok(footer) } else { Err(Flaw::Checksum { stored, computed }) })
}

/// The copy at the start must be the same, for the disk types that have one.
fn check_mirror(footer: &Footer, at: u64, mirror: Result<Footer, Flaw>, warnings: &mut Vec<Warning>) {
    if !matches!(footer.disk_type.get(), TYPE_DYNAMIC | TYPE_DIFFERENCING) || at == 0 {
        return;
    }
    match mirror {
        Ok(mirror) if mirror.as_bytes().get(..511) == footer.as_bytes().get(..511) => {}
        Ok(_) => warnings.push(Warning::new(
            "footer-copies-differ",
            "The footer at the end of the file and its copy at the start differ; the one at the end was used.",
        )),
        Err(flaw) => warnings.push(Warning::new(
            "footer-mirror-damaged",
            format!("The copy of the footer at the start of the file {flaw}; the footer at the end is good and was used."),
        )),
    }
}

fn check_footer(footer: &Footer, site: Site) -> Result<DiskType> {
    let field = |by: u64| Site { offset: site.offset.saturating_add(by), ..site };
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
    let field = Site { offset: site.offset.saturating_add(48), ..site };
    if current == 0 {
        return Err(Error::corrupt(field, "the size of the disk is zero"));
    }
    if !current.is_multiple_of(512) {
        return Err(
            Error::corrupt(field, "the size of the disk is no multiple of 512").expected("n × 512", current)
        );
    }
    let limit = Format::Vhd.description().max_disk_size;
    if current > limit {
        return Err(Error::limit(field, "the disk is larger than the 2040 GiB that a VHD can hold")
            .expected(format_args!("at most {limit}"), current));
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

fn fixed_parts(size: Sizes, end: &End, site: Site) -> Result<Parts> {
    if size.disk > end.payload_end {
        let field = Site { offset: site.offset.saturating_add(48), ..site };
        return Err(Error::corrupt(
            field,
            "the file is shorter than the fixed disk it should hold (cut off, or the last part of a split set)",
        )
        .expected(format_args!("{} bytes of payload", size.disk), end.payload_end));
    }
    // Beyond the size that counts, a fixed disk is only as long as its file.
    let addressable = size.addressable.min(end.payload_end);
    let mut blocks = BlockTable::new();
    for block in 0..FIXED_BLOCK.count_for(addressable) {
        blocks.push(BlockState::Present(FileOffset::new(FIXED_BLOCK.start_of(block))))?;
    }
    Ok(Parts {
        block_size: FIXED_BLOCK,
        blocks,
        bitmaps: Bitmaps::None,
        header: None,
        locators: Vec::new(),
        parent: None,
    })
}

fn dynamic_parts(
    container: &Container,
    footer: &Footer,
    disk_type: DiskType,
    size: Sizes,
    end: &End,
    warnings: &mut Vec<Warning>,
) -> Result<Parts> {
    let (header, at) = read_header(container, footer, end)?;
    let site =
        |by: u64| Site { structure: "VHD dynamic header", space: Space::File, offset: at.saturating_add(by) };
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
    let needed = block_size.count_for(size.addressable);
    if entries < block_size.count_for(size.disk) {
        return Err(Error::corrupt(site(28), "the BAT is too short for the disk")
            .expected(format_args!("{needed} entries or more"), entries));
    }
    if needed > MAX_BLOCKS {
        return Err(Error::limit(site(28), "the disk has too many blocks")
            .expected(format_args!("at most {MAX_BLOCKS}"), needed));
    }
    let bat = Bat {
        container,
        at: header.table_offset.get(),
        entries,
        used: needed.min(entries),
        block_size,
        bitmap_len: vhd_bitmap_len(block_size)?,
        disk_type,
        header_at: at,
        end,
    };
    bat.check_place(site(16))?;
    let blocks = bat.read(size.addressable, warnings)?;
    if bat.has_batmap()? {
        warnings.push(Warning::new(
            "xen-batmap-dropped",
            "The XenServer batmap (which blocks are full) is not carried over; XenServer makes it anew.",
        ));
    }
    let locators = read_locators(container, &header, at)?;
    let parent = (disk_type == DiskType::Differencing).then(|| parent_link(&header, &locators));
    let bitmaps = Bitmaps::BeforePayload { len: bat.bitmap_len };
    Ok(Parts { block_size, blocks, bitmaps, header: Some(header), locators, parent })
}

fn read_header(container: &Container, footer: &Footer, end: &End) -> Result<(DynamicHeader, u64)> {
    let at = footer.data_offset.get();
    let field =
        Site { structure: "VHD footer", space: Space::File, offset: end.footer_at.saturating_add(16) };
    let fits = at.checked_add(HEADER_LEN).is_some_and(|header_end| header_end <= container.size());
    if at < FOOTER_LEN || !fits || !at.is_multiple_of(512) {
        return Err(Error::corrupt(
            field,
            "the data offset does not point to a dynamic header inside the file",
        )
        .expected(format_args!("a multiple of 512 from 512 to {}", container.size()), at));
    }
    let header: DynamicHeader = read_struct(container, at)?;
    let site =
        |by: u64| Site { structure: "VHD dynamic header", space: Space::File, offset: at.saturating_add(by) };
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
    for (i, locator) in header.parent_locators.iter().enumerate() {
        let len = u64::from(locator.data_length.get());
        if locator.platform_code == [0; 4] || len == 0 {
            all.push(Vec::new());
            continue;
        }
        let offset = header_at.saturating_add(576).saturating_add(len64(i).saturating_mul(24));
        let site = Site { structure: "VHD parent locator", space: Space::File, offset };
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

fn parent_link(header: &DynamicHeader, locators: &[Vec<u8>]) -> ParentLink {
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
    ParentLink { ids: vec![Uuid::from_bytes(header.parent_unique_id)], time_stamp, paths }
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
