//! Which footer counts, and what it says: type, size, creator.
//!
//! ```text
//!   EOF−512 ── footer ──┐ good: taken; the mirror is compared, and the larger of two sizes counts
//!   EOF−511 ── (old)  ──┤ bad:  the mirror is taken, with a warning
//!   0       ── mirror ──┘ both bad: corrupt
//! ```

use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    FOOTER_COOKIE, FOOTER_LEN, Footer, TYPE_DIFFERENCING, TYPE_DYNAMIC, TYPE_FIXED, VERSION,
};
use super::geometry::{chs_size, disk_size};
use crate::error::{Error, Result, Site, Warning};
use crate::image::{Container, DiskType, Format};
use crate::io::ReadAt;
use crate::units::{Space, index, length};

/// The largest fixed disk, which has no table that would limit it: what a VHDX holds, since nothing larger can
/// be written.
const MAX_FIXED_SIZE: u64 = Format::Vhdx.description().max_disk_size;
/// The sizes that a footer names, in bytes.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// The disk as its creator's programs read it.
    pub disk: u64,
    /// The larger of the two that the footer names: no byte below it may be lost.
    pub addressable: u64,
}

/// Where the footer that is believed was found, and where payload must end.
pub struct End {
    pub footer_at: u64,
    pub payload_end: u64,
}

/// What was found of the two copies of the footer.
pub struct Footers {
    /// The one at the end, or its mirror where that one is damaged.
    pub footer: Footer,
    /// The mirror, where both are good and differ.
    pub mirror: Option<Footer>,
    pub end: End,
}

pub fn find_footers(container: &Container, warnings: &mut Vec<Warning>) -> Result<Footers> {
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
pub fn choose_footer(
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

pub fn check_footer(footer: &Footer, site: Site) -> Result<DiskType> {
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

pub fn sizes(footer: &Footer, site: Site, warnings: &mut Vec<Warning>) -> Result<Sizes> {
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

/// Where the footer may be at the file's end: 512 bytes, or 511 as before Virtual PC 2004.
pub fn footer_places(size: u64) -> impl Iterator<Item = u64> {
    let old = (size % 512 == 511).then(|| size.checked_sub(511)).flatten();
    size.checked_sub(FOOTER_LEN).into_iter().chain(old)
}

pub fn creator_name(footer: &Footer) -> String {
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
