//! The root directory, and in it the files whose contents die with the machine's power.
//!
//! ```text
//!   record 5 ─ $INDEX_ROOT "$I30"         entries
//!            ─ $INDEX_ALLOCATION "$I30"   "INDX" block │ "INDX" block │ …
//!            ─ $BITMAP "$I30"             which blocks are in use
//!
//!   entry: file reference · length · key length · flags · key ($FILE_NAME) │ … │ last
//! ```
//! All blocks in use are read in a row: that a name is *not* there must hold whatever the order of the
//! tree. `hiberfil.sys` decides whether the map may be believed; `pagefile.sys`, `swapfile.sys` and an
//! inactive `hiberfil.sys` may be dropped when a person says so.
//!
//! | `hiberfil.sys` begins with | taken as |
//! |---|---|
//! | `wake`, `WAKE`, `rstr`, `RSTR` | Windows began to resume: inactive |
//! | 4096 zeros | nothing saved: inactive |
//! | `hibr`, `HIBR`, `HORM`, anything else, or shorter than a page | hibernated: decline |
//!
//! Windows of old may try a second time to resume from a `wake` file. Such a volume's log is still open, and
//! $LogFile is judged before anything here: behind a clean log the resuming has succeeded, or was given up.
//!
//! Source: the linux-ntfs project's NTFS documentation, "Directory index"; ntfs-3g's
//! `ntfs_volume_check_hiberfile` for the rule about short files.

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::mft::Mft;
use super::names::{FileName, ROOT};
use super::record::{FileReference, Record, kind, undo_fixups};
use super::site;
use super::stream::{Mapped, Stream};
use crate::error::{Error, Result, Site};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::units::{add, index, len64};

const INDEX_NAME: &str = "$I30";
/// Some 400 000 names: no root directory has as many.
const MAX_INDEX: u64 = 64 << 20;
/// A case-sensitive directory may hold a name twice; more only a damaged or hostile one does.
const MAX_FOUND: usize = 6;
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 512..=64 << 10;
const ENTRY_IS_LAST: u16 = 0x0002;
const HIBERFIL_HEADER: usize = 4096;
const RESUMED: [&[u8; 4]; 4] = [b"wake", b"WAKE", b"rstr", b"RSTR"];

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexRoot {
    attribute_kind: U32,
    _collation: U32,
    block_size: U32,
    _clusters_per_block: u8,
    _reserved: [u8; 3],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexBlock {
    _protected: [u8; 16],
    vcn: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexHeader {
    entries_offset: U32,
    index_length: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexEntry {
    reference: U64,
    length: U16,
    key_length: U16,
    flags: U16,
    _reserved: U16,
}

/// The files that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Hibernation,
    Pages,
}

const SPECIAL: [(&str, Special); 3] = [
    ("hiberfil.sys", Special::Hibernation),
    ("pagefile.sys", Special::Pages),
    ("swapfile.sys", Special::Pages),
];

/// Finds the page files of the root directory, and declines if Windows hibernated on this volume. The
/// ranges are volume bytes of whole clusters.
///
/// # Errors
/// The decline, or `corrupt`, `read-failed`, `limit-exceeded`.
pub(super) fn page_files(mft: &Mft<'_>) -> Result<Vec<Range<u64>>, Stop> {
    let mut found = Vec::new();
    for_each_entry(mft, |reference, key| {
        if let Some(own) = FileName::parse(key) {
            let special = SPECIAL.into_iter().find(|(name, _)| own.is_ignoring_case(name));
            found.extend(special.map(|(name, special)| (name, special, reference)));
        }
    })?;
    if found.len() > MAX_FOUND {
        let at = mft.file(ROOT)?.site();
        return Err(Error::corrupt(at, "the root directory names a file several times").into());
    }
    let mut ranges = Vec::new();
    for (name, special, reference) in found {
        let file = mft.file(reference.number)?;
        confirm(mft, &file, reference, name)?;
        let data = mft.stream(&file, kind::DATA, "")?;
        if special == Special::Hibernation {
            refuse_hibernation(mft, data.as_ref(), file.site())?;
        }
        if let Some(Stream::Mapped(data)) = data
            && data.is_plain()
            && !(special == Special::Pages && holds_crash_dump(mft, &data)?)
        {
            ranges.extend(data.ranges());
        }
    }
    Ok(ranges)
}

/// Refuses an index entry that its file does not confirm: the index would be stale.
fn confirm(mft: &Mft<'_>, file: &Record, reference: FileReference, name: &str) -> Result<()> {
    let mut confirmed = false;
    mft.file_names(file, |value| {
        if let Some(own) = FileName::parse(value) {
            confirmed |= own.parent.number == ROOT && own.is_ignoring_case(name);
        }
    })?;
    if confirmed && file.reference() == reference {
        return Ok(());
    }
    Err(Error::corrupt(file.site(), format!("the root directory names {name}, and its file record does not")))
}

fn refuse_hibernation(mft: &Mft<'_>, data: Option<&Stream>, at: Site) -> Result<(), Stop> {
    let mut header = vec![0; HIBERFIL_HEADER];
    let inactive = match data {
        Some(Stream::Mapped(data)) if data.data_size() >= len64(HIBERFIL_HEADER) && data.is_plain() => {
            data.read_at(mft.volume(), 0, &mut header)?;
            RESUMED.iter().any(|signature| header.starts_with(*signature))
                || header.iter().all(|&byte| byte == 0)
        }
        _ => false,
    };
    if inactive {
        return Ok(());
    }
    Err(Decline::new(
        DeclineReason::Hibernated,
        "Windows is hibernated on this volume, or was shut down by Fast Startup: what hiberfil.sys holds belongs to \
         the file system. Start Windows, shut it down with `shutdown /s /t 0`, and try again. If that does not \
         help, `powercfg /h off` in Windows removes hiberfil.sys.",
    )
    .at(at)
    .into())
}

/// After a crash the page file holds the memory dump until Windows starts again.
fn holds_crash_dump(mft: &Mft<'_>, data: &Mapped) -> Result<bool> {
    let mut signature = [0; 6];
    if data.data_size() < len64(signature.len()) {
        return Ok(false);
    }
    data.read_at(mft.volume(), 0, &mut signature)?;
    Ok(signature == *b"PAGEDU")
}

/// Calls `visit` with the file reference and key of every entry of the root directory.
fn for_each_entry(mft: &Mft<'_>, mut visit: impl FnMut(FileReference, &[u8])) -> Result<()> {
    let directory = mft.file(ROOT)?;
    let at = directory.site();
    let Some(Stream::Resident(root)) = mft.stream(&directory, kind::INDEX_ROOT, INDEX_NAME)? else {
        return Err(Error::corrupt(at, "the root directory has no index"));
    };
    let (header, entries) = IndexRoot::ref_from_prefix(&root)
        .map_err(|_| Error::corrupt(at, "the root directory's index is cut short"))?;
    if header.attribute_kind.get() != kind::FILE_NAME {
        return Err(Error::corrupt(at, "the root directory's index is not one of names"));
    }
    walk_entries(entries, at, &mut visit)?;

    let Some(allocation) = mft.stream(&directory, kind::INDEX_ALLOCATION, INDEX_NAME)? else { return Ok(()) };
    let Stream::Mapped(blocks) = allocation else {
        return Err(Error::corrupt(at, "the root directory's index blocks lie in its record"));
    };
    let block_size = u64::from(header.block_size.get());
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        let message = "the root directory's index blocks have a size that NTFS does not know";
        return Err(Error::corrupt(at, message).expected("a power of two from 512 to 65536", block_size));
    }
    if blocks.data_size() > MAX_INDEX {
        return Err(Error::limit(at, "the root directory has more names than are looked through"));
    }
    let bitmap = mft.stream(&directory, kind::BITMAP, INDEX_NAME)?;
    let bitmap = bitmap.ok_or_else(|| Error::corrupt(at, "the root directory's index has no bitmap"))?;
    let mut start = 0u64;
    for byte in bitmap.read_all(mft.volume(), MAX_INDEX)? {
        for bit in 0..8 {
            if byte.checked_shr(bit).unwrap_or(0) & 1 != 0 {
                walk_block(mft, &blocks, start, block_size, &mut visit)?;
            }
            start = add(start, block_size, "a place in an index")?;
        }
    }
    Ok(())
}

/// Walks the entries of the index block at byte `start` of the index.
fn walk_block(
    mft: &Mft<'_>,
    blocks: &Mapped,
    start: u64,
    size: u64,
    visit: &mut impl FnMut(FileReference, &[u8]),
) -> Result<()> {
    let mut block = vec![0; index(size, "an index block")?];
    blocks.read_at(mft.volume(), start, &mut block)?;
    let at = site("NTFS index block", blocks.position(start)?);
    undo_fixups(&mut block, *b"INDX", at)?;
    let (header, entries) =
        IndexBlock::ref_from_prefix(&block).map_err(|_| Error::corrupt(at, "an index block is cut short"))?;
    // Where a block is smaller than a cluster its number counts in 512 bytes.
    let cluster_size = mft.geometry().cluster_size;
    let vcn_size = if size < cluster_size { 512 } else { cluster_size };
    let vcn = start.checked_div(vcn_size).unwrap_or(0);
    if header.vcn.get() != vcn {
        return Err(Error::corrupt(at, "an index block carries another's number").expected(vcn, header.vcn));
    }
    walk_entries(entries, at, visit)
}

/// Walks the entries behind an index header; offsets count from the header.
fn walk_entries(node: &[u8], at: Site, visit: &mut impl FnMut(FileReference, &[u8])) -> Result<()> {
    let short = || Error::corrupt(at, "an index entry reaches past its block");
    let (header, _) = IndexHeader::ref_from_prefix(node).map_err(|_| short())?;
    let start = usize::try_from(header.entries_offset.get()).map_err(|_| short())?;
    let end = usize::try_from(header.index_length.get()).map_err(|_| short())?;
    let mut rest = node.get(start..end).ok_or_else(short)?;
    loop {
        let (entry, after) = IndexEntry::ref_from_prefix(rest).map_err(|_| short())?;
        if entry.flags.get() & ENTRY_IS_LAST != 0 {
            return Ok(());
        }
        let key = after.get(..usize::from(entry.key_length.get())).ok_or_else(short)?;
        visit(FileReference::new(entry.reference.get()), key);
        let len = usize::from(entry.length.get());
        if len < size_of::<IndexEntry>() {
            return Err(short());
        }
        rest = rest.get(len..).ok_or_else(short)?;
    }
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
