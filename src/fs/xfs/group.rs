//! The headers of an allocation group: which trees it has, and its own counts.
//!
//! ```text
//!   AGF   roots of the free space trees, of reverse mappings and of shared extents; free blocks
//!   AGFL  a ring of blocks that are kept ready for those trees: neither free nor in a tree
//!   AGI   roots of the inode trees; inodes, and how many of them are free
//! ```
//! Source: XFS Algorithms & Data Structures, "Allocation Groups".

use zerocopy::byteorder::{BE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::superblock::{Fs, crc_fits};
use super::{damaged, site};
use crate::error::{Error, Site};
use crate::fs::{Owner, Stop};
use crate::io::{ReadAt, read_vec};
use crate::units::index;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Agf {
    magic: [u8; 4],
    version: U32<BE>,
    number: U32<BE>,
    length: U32<BE>,
    pub(super) bno_root: U32<BE>,
    pub(super) cnt_root: U32<BE>,
    pub(super) rmap_root: U32<BE>,
    pub(super) bno_levels: U32<BE>,
    pub(super) cnt_levels: U32<BE>,
    pub(super) rmap_levels: U32<BE>,
    list_first: U32<BE>,
    list_last: U32<BE>,
    pub(super) list_count: U32<BE>,
    pub(super) free_blocks: U32<BE>,
    pub(super) longest: U32<BE>,
    pub(super) tree_blocks: U32<BE>,
    uuid: [u8; 16],
    pub(super) rmap_blocks: U32<BE>,
    _refcount_blocks: U32<BE>,
    pub(super) refcount_root: U32<BE>,
    pub(super) refcount_levels: U32<BE>,
    _spare: [u8; 112],
    lsn: U64<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Agi {
    magic: [u8; 4],
    version: U32<BE>,
    number: U32<BE>,
    length: U32<BE>,
    pub(super) inodes: U32<BE>,
    pub(super) root: U32<BE>,
    pub(super) levels: U32<BE>,
    pub(super) free_inodes: U32<BE>,
    _newest: [u8; 8],
    _unlinked: [u8; 256],
    uuid: [u8; 16],
    _crc: [u8; 8],
    lsn: U64<BE>,
    pub(super) free_root: U32<BE>,
    pub(super) free_levels: U32<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AgflHeader {
    magic: [u8; 4],
    number: U32<BE>,
    uuid: [u8; 16],
    lsn: U64<BE>,
    _crc: [u8; 4],
}

/// What all four header sectors of a group have in common.
struct Identity {
    magic: [u8; 4],
    number: u32,
    uuid: [u8; 16],
    lsn: u64,
    crc_at: usize,
}

impl Agf {
    pub(super) fn read(fs: &Fs, volume: &dyn ReadAt, group: u32) -> Result<Self, Stop> {
        let (bytes, at) = sector(fs, volume, group, 1)?;
        let agf = Self::read_from_prefix(&bytes).map_err(|_| short())?.0;
        let identity = Identity {
            magic: agf.magic,
            number: agf.number.get(),
            uuid: agf.uuid,
            lsn: agf.lsn.get(),
            crc_at: 216,
        };
        check(fs, group, &identity, *b"XAGF", &bytes, "XFS AGF", at)?;
        check_length(fs, group, agf.version.get(), agf.length.get(), "XFS AGF", at)?;
        Ok(agf)
    }

    /// The blocks of the free list (AGFL).
    pub(super) fn free_list(&self, fs: &Fs, volume: &dyn ReadAt, group: u32) -> Result<Vec<u32>, Stop> {
        let (bytes, at) = sector(fs, volume, group, 3)?;
        let mut slots = bytes.as_slice();
        if fs.v5 {
            let (header, rest) = AgflHeader::read_from_prefix(slots).map_err(|_| short())?;
            let (number, lsn) = (header.number.get(), header.lsn.get());
            let identity = Identity { magic: header.magic, number, uuid: header.uuid, lsn, crc_at: 32 };
            check(fs, group, &identity, *b"XAFL", &bytes, "XFS AGFL", at)?;
            slots = rest;
        }
        let slots: Vec<u32> = slots
            .chunks_exact(4)
            .filter_map(|slot| slot.first_chunk().map(|word| u32::from_be_bytes(*word)))
            .collect();
        let count = index(self.list_count.get().into(), "the free list")?;
        let first = index(self.list_first.get().into(), "the free list")?;
        let last = index(self.list_last.get().into(), "the free list")?;
        let wrong = || damaged("the free list of an allocation group is damaged", site("XFS AGF", at));
        if first >= slots.len() || last >= slots.len() || count > slots.len() {
            return Err(wrong());
        }
        let blocks: Vec<u32> = slots.iter().cycle().skip(first).take(count).copied().collect();
        // An empty list may begin anywhere.
        let ends = first.checked_add(count).and_then(|end| end.checked_sub(1)?.checked_rem(slots.len()));
        if count > 0 && ends != Some(last) {
            return Err(wrong());
        }
        Ok(blocks)
    }
}

impl Agi {
    pub(super) fn read(fs: &Fs, volume: &dyn ReadAt, group: u32) -> Result<Self, Stop> {
        let (bytes, at) = sector(fs, volume, group, 2)?;
        let agi = Self::read_from_prefix(&bytes).map_err(|_| short())?.0;
        let identity = Identity {
            magic: agi.magic,
            number: agi.number.get(),
            uuid: agi.uuid,
            lsn: agi.lsn.get(),
            crc_at: 312,
        };
        check(fs, group, &identity, *b"XAGI", &bytes, "XFS AGI", at)?;
        check_length(fs, group, agi.version.get(), agi.length.get(), "XFS AGI", at)?;
        Ok(agi)
    }
}

/// A part of a group as an owner.
pub(super) fn part_of_group(what: &str, group: u32, at: Site) -> Owner {
    Owner { name: format!("{what} of allocation group {group}"), site: Some(at) }
}

fn sector(fs: &Fs, volume: &dyn ReadAt, group: u32, number: u64) -> Result<(Vec<u8>, u64), Stop> {
    let at = fs.header_at(group, number)?;
    Ok((read_vec(volume, at, index(fs.sector, "a sector")?)?, at))
}

fn check(
    fs: &Fs,
    group: u32,
    found: &Identity,
    magic: [u8; 4],
    bytes: &[u8],
    structure: &'static str,
    at: u64,
) -> Result<(), Stop> {
    let site = site(structure, at);
    if found.magic != magic || found.number != group {
        return Err(damaged(&format!("a header of allocation group {group} is damaged"), site));
    }
    if !fs.v5 {
        return Ok(());
    }
    if !crc_fits(bytes, found.crc_at) {
        let what = format!("the checksum of a header of allocation group {group} is wrong");
        return Err(damaged(&what, site));
    }
    if found.uuid != fs.meta_uuid {
        let what = format!("a header of allocation group {group} belongs to another file system");
        return Err(damaged(&what, site));
    }
    fs.check_lsn(found.lsn, site)
}

fn check_length(
    fs: &Fs,
    group: u32,
    version: u32,
    length: u32,
    structure: &'static str,
    at: u64,
) -> Result<(), Stop> {
    if version == 1 && u64::from(length) == fs.group_len(group) {
        return Ok(());
    }
    let what = format!("a header of allocation group {group} has another version or length");
    Err(damaged(&what, site(structure, at)))
}

fn short() -> Error {
    Error::internal("a sector is shorter than its header")
}
