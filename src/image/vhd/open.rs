//! Reading a VHD: footer or mirror, dynamic header, BAT, parent locators.
//!
//! ```text
//!   footer ─ data offset ─► dynamic header ─ table offset ─► BAT ─► block table
//!                                └─ parent locators ─► what is known of the parent
//! ```

use std::rc::Rc;

use uuid::Uuid;

use super::bat::{Bat, BatContents};
use super::batmap::{self, Batmap};
use super::footer::{
    End, Footers, Sizes, check_footer, choose_footer, creator_name, find_footers, footer_places, sizes,
};
use super::format::{
    DynamicHeader, FOOTER_COOKIE, FOOTER_LEN, Footer, HEADER_COOKIE, HEADER_LEN, VERSION, XENSERVER_FIRST,
};
use super::locators::{parent_link, read_locators};
use crate::error::{Error, Result, Site, Warning};
use crate::image::bitmap::vhd_bitmap_len;
use crate::image::{
    Bitmaps, BlockSize, BlockTable, Container, DiskType, Format, Geometry, Image, Metadata as AnyMetadata,
    ParentLink,
};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{FileOffset, Space};

/// The block size by which a fixed disk, which has none, is looked at.
const FIXED_BLOCK: BlockSize = BlockSize::MIB_2;
/// Largest block size that is read. Windows takes up to 2 MiB; other writers go further.
pub const MAX_BLOCK: BlockSize = BlockSize::GIB_1;
/// Most blocks of one disk: 2²³, which the largest disk needs in blocks of 256 KiB. They take at most 64 MiB
/// of memory, and as much for a moment while their places are compared.
pub const MAX_BLOCKS: u64 = 1 << 23;
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
