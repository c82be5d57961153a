//! The superblock: where everything lies, and whether it may be believed.
//!
//! ```text
//!   sector 0     1     2     3                                        next allocation group
//!   │ superblock │ AGF │ AGI │ AGFL │ trees, inodes, files, log …     │ superblock copy │ AGF │ …
//! ```
//! Block numbers in files are "allocation group number, then block in the group" with a power of two of room
//! for the second part; on the disk the groups follow each other without gaps. The copies in the other groups
//! are never used: they are only as new as the last `xfs_growfs`.
//!
//! Source: XFS Algorithms & Data Structures, "Superblocks"; the kernel's `xfs_format.h`.

use std::ops::Range;

use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::features::{
    self, FINOBT, FTYPE, META_UUID, REFLINK, RMAPBT, SPARSE_INODES, V4_FTYPE, V4_LAZY_COUNT, V4_LOG_V2,
};
use super::{damaged, site};
use crate::checksum::{crc32c, crc32c_append};
use crate::error::{Error, Site};
use crate::fs::Stop;
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{Space, add, index, mul};

pub(super) const SUPERBLOCK: Site = Site { structure: "XFS superblock", space: Space::Volume, offset: 0 };

const MAGIC: [u8; 4] = *b"XFSB";
/// The fewest blocks that a group may have.
const MIN_GROUP_BLOCKS: u32 = 64;
/// Where the checksum of the superblock stands in it.
const CRC_AT: usize = 224;
/// What stands in place of an LSN that was never given.
const NO_LSN: u64 = u64::MAX;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawSuperblock {
    magic: [u8; 4],
    blocksize: U32<BE>,
    dblocks: U64<BE>,
    rblocks: U64<BE>,
    rextents: U64<BE>,
    uuid: [u8; 16],
    logstart: U64<BE>,
    _inodes: [u8; 24],
    _rextsize: U32<BE>,
    agblocks: U32<BE>,
    agcount: U32<BE>,
    _rbmblocks: U32<BE>,
    logblocks: U32<BE>,
    pub(super) versionnum: U16<BE>,
    sectsize: U16<BE>,
    inodesize: U16<BE>,
    inopblock: U16<BE>,
    fname: [u8; 12],
    blocklog: u8,
    _sectlog: u8,
    inodelog: u8,
    inopblog: u8,
    agblklog: u8,
    _rextslog: u8,
    inprogress: u8,
    _imax_pct: u8,
    icount: U64<BE>,
    _ifree: U64<BE>,
    fdblocks: U64<BE>,
    _frextents: U64<BE>,
    /// Of users, and of groups (version 4: or projects).
    quota_inodes: [U64<BE>; 2],
    _quotas_and_layout: [u8; 16],
    dirblklog: u8,
    _log_layout: [u8; 7],
    features2: U32<BE>,
    bad_features2: U32<BE>,
    _features_compat: U32<BE>,
    pub(super) features_ro_compat: U32<BE>,
    pub(super) features_incompat: U32<BE>,
    pub(super) features_log_incompat: U32<BE>,
    _crc: U32<LE>,
    _spino_align: U32<BE>,
    project_quota_inode: U64<BE>,
    lsn: U64<BE>,
    meta_uuid: [u8; 16],
}

impl RawSuperblock {
    /// The superblock, if it is one of XFS.
    pub(super) fn read(volume: &dyn ReadAt) -> Option<Self> {
        let raw: Self = read_struct(volume, 0).ok()?;
        (raw.magic == MAGIC).then_some(raw)
    }

    /// The label, or none.
    pub(super) fn label(&self) -> Option<String> {
        let end = self.fname.iter().position(|&byte| byte == 0).unwrap_or(self.fname.len());
        let text = String::from_utf8_lossy(self.fname.get(..end)?).into_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The second feature flags of version 4: some old kernels wrote them four bytes too late.
    pub(super) fn features2(&self) -> u32 {
        self.features2.get() | self.bad_features2.get()
    }

    fn ro_compat(&self, bit: u32, v5: bool) -> bool {
        v5 && self.features_ro_compat.get() & bit != 0
    }
}

/// A file system that is understood: where its parts lie, all checked to lie inside the volume.
#[derive(Debug, Clone)]
pub(super) struct Fs {
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    group_blocks: u32,
    /// The last group may be shorter than the others.
    last_group_blocks: u64,
    pub(super) groups: u32,
    /// How many bits of a file system block number count the block in its group.
    group_log: u8,
    pub(super) sector: u64,
    pub(super) inode_size: u64,
    /// How many bits of an inode's number count the inode in its group: at most 32.
    inode_bits: u32,
    pub(super) v5: bool,
    /// Whether the log may be of version 2.
    pub(super) log_v2: bool,
    /// Whether the superblock's counters are brought up to date at unmount only.
    pub(super) lazy_count: bool,
    pub(super) sparse_inodes: bool,
    /// Whether names have the type of their file, and how long a directory block is.
    pub(super) file_types: bool,
    pub(super) directory_block: u64,
    pub(super) finobt: bool,
    pub(super) rmapbt: bool,
    pub(super) reflink: bool,
    /// The UUID that a person sees, which the log bears.
    pub(super) uuid: [u8; 16],
    /// The UUID that the metadata bears.
    pub(super) meta_uuid: [u8; 16],
    pub(super) log: LogPlace,
    /// What the superblock says is free, and how many inodes there are.
    pub(super) free_blocks: u64,
    pub(super) inodes: u64,
    /// The inodes of quotas; all ones or zero where there is none.
    pub(super) quota_inodes: [u64; 3],
    superblock_lsn: u64,
    /// Where the log ends: nothing on the disk can be newer.
    pub(super) head: u64,
}

/// Where the log lies: its group, its first block in it, and how many blocks it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogPlace {
    pub(super) group: u32,
    pub(super) start: u32,
    pub(super) count: u32,
}

impl Fs {
    /// Understands a superblock, or declines.
    pub(super) fn parse(raw: &RawSuperblock, volume: &dyn ReadAt) -> Result<Self, Stop> {
        let v5 = features::check(raw)?;
        let version = raw.versionnum.get();
        let sector = u64::from(raw.sectsize.get());
        let block_size = u64::from(raw.blocksize.get());
        if !(512..=1 << 15).contains(&sector) || !sector.is_power_of_two() {
            return Err(damaged("its sector size is impossible", SUPERBLOCK));
        }
        if !(512..=1 << 16).contains(&block_size)
            || !block_size.is_power_of_two()
            || block_size < sector
            || block_size.trailing_zeros() != u32::from(raw.blocklog)
        {
            return Err(damaged("its block size is impossible", SUPERBLOCK));
        }
        if v5 {
            check_crc(volume, sector)?;
        }
        if raw.inprogress != 0 {
            return Err(damaged("it was never finished being made", SUPERBLOCK));
        }
        if raw.rblocks.get() != 0 || raw.rextents.get() != 0 {
            return Err(features::unknown("It has a realtime section."));
        }
        if raw.logstart.get() == 0 {
            return Err(features::unknown(
                "Its log is on another device, so whether the file system is clean cannot be told.",
            ));
        }
        let inode_size = u64::from(raw.inodesize.get());
        let per_block = u64::from(raw.inopblock.get());
        if !(256..=2048).contains(&inode_size)
            || !inode_size.is_power_of_two()
            || inode_size.trailing_zeros() != u32::from(raw.inodelog)
            || per_block.checked_mul(inode_size) != Some(block_size)
            || !per_block.is_power_of_two()
            || per_block.trailing_zeros() != u32::from(raw.inopblog)
        {
            return Err(damaged("its inode size is impossible", SUPERBLOCK));
        }
        let group_blocks = raw.agblocks.get();
        let (groups, blocks) = (raw.agcount.get(), raw.dblocks.get());
        // All groups but the last one are full. There is no last one if there is none at all.
        let full = groups.checked_sub(1).and_then(|full| u64::from(full).checked_mul(group_blocks.into()));
        let last = full.and_then(|full| blocks.checked_sub(full));
        let last = last.filter(|last| (MIN_GROUP_BLOCKS.into()..=group_blocks.into()).contains(last));
        let inode_bits = raw.agblklog.checked_add(raw.inopblog).filter(|&bits| bits <= 32);
        let group_log = group_blocks.checked_next_power_of_two().map(u32::trailing_zeros);
        let (Some(last_group_blocks), Some(inode_bits), true) =
            (last, inode_bits, group_log == Some(raw.agblklog.into()))
        else {
            return Err(damaged("its allocation groups do not fit its size", SUPERBLOCK));
        };
        let size = mul(blocks, block_size, "the volume")?;
        if size > volume.size() {
            return Err(damaged("it is larger than its partition", SUPERBLOCK));
        }
        if raw.icount.get().checked_mul(inode_size).is_none_or(|inodes| inodes > size) {
            return Err(damaged("it has more inodes than fit it", SUPERBLOCK));
        }
        let directory_block = block_size.checked_shl(raw.dirblklog.into()).unwrap_or(0);
        if !(block_size..=1 << 16).contains(&directory_block) {
            return Err(damaged("its directory block size is impossible", SUPERBLOCK));
        }
        let mut fs = Self {
            block_size,
            blocks,
            group_blocks,
            last_group_blocks,
            groups,
            group_log: raw.agblklog,
            sector,
            inode_size,
            inode_bits: inode_bits.into(),
            v5,
            log_v2: v5 || version & V4_LOG_V2 != 0,
            lazy_count: v5 || raw.features2() & V4_LAZY_COUNT != 0,
            file_types: if v5 {
                raw.features_incompat.get() & FTYPE != 0
            } else {
                raw.features2() & V4_FTYPE != 0
            },
            directory_block,
            sparse_inodes: v5 && raw.features_incompat.get() & SPARSE_INODES != 0,
            finobt: raw.ro_compat(FINOBT, v5),
            rmapbt: raw.ro_compat(RMAPBT, v5),
            reflink: raw.ro_compat(REFLINK, v5),
            uuid: raw.uuid,
            meta_uuid: if v5 && raw.features_incompat.get() & META_UUID != 0 {
                raw.meta_uuid
            } else {
                raw.uuid
            },
            log: LogPlace { group: 0, start: 0, count: 0 },
            free_blocks: raw.fdblocks.get(),
            inodes: raw.icount.get(),
            quota_inodes: [
                raw.quota_inodes[0].get(),
                raw.quota_inodes[1].get(),
                raw.project_quota_inode.get(),
            ],
            superblock_lsn: if v5 { raw.lsn.get() } else { 0 },
            head: 0,
        };
        let (group, start) = fs.split(raw.logstart.get());
        fs.log = LogPlace { group, start, count: raw.logblocks.get() };
        fs.bytes(group, start, fs.log.count, &|| SUPERBLOCK)?;
        Ok(fs)
    }

    /// Remembers where the log ends, which the superblock must not be ahead of.
    pub(super) fn with_head(mut self, head: u64) -> Result<Self, Stop> {
        self.head = head;
        self.check_lsn(self.superblock_lsn, SUPERBLOCK)?;
        Ok(self)
    }

    /// Declines for metadata that is newer than the end of the log: then the log is not the one that goes
    /// with it, and being clean means nothing.
    pub(super) fn check_lsn(&self, lsn: u64, at: Site) -> Result<(), Stop> {
        if lsn <= self.head || lsn == NO_LSN {
            return Ok(());
        }
        Err(damaged("this structure is newer than the end of the log", at))
    }

    /// How many blocks a group has; none if there is no such group.
    pub(super) fn group_len(&self, group: u32) -> u64 {
        match self.groups.checked_sub(group) {
            None | Some(0) => 0,
            Some(1) => self.last_group_blocks,
            Some(_) => self.group_blocks.into(),
        }
    }

    /// The group and the block in it of a file system block number.
    pub(super) fn split(&self, block: u64) -> (u32, u32) {
        let group = block.checked_shr(self.group_log.into()).unwrap_or(0);
        let mask = 1u64.checked_shl(self.group_log.into()).unwrap_or(0).wrapping_sub(1);
        // A group number that does not fit 32 bits is no group, which `bytes` refuses.
        let group = u32::try_from(group).unwrap_or(u32::MAX);
        (group, u32::try_from(block & mask).unwrap_or(u32::MAX))
    }

    /// The number of an inode of a group.
    pub(super) fn inode_number(&self, group: u32, inode: u64) -> u64 {
        u64::from(group) << self.inode_bits | inode
    }

    /// The bytes of an inode; none if its number is that of no place.
    pub(super) fn inode_bytes(&self, number: u64) -> Option<Range<u64>> {
        let group = u32::try_from(number >> self.inode_bits).ok().filter(|&group| group < self.groups)?;
        let in_group = number & (1u64 << self.inode_bits).checked_sub(1)?;
        let start = in_group.checked_mul(self.inode_size)?;
        let end = start.checked_add(self.inode_size)?;
        let len = self.group_len(group).checked_mul(self.block_size)?;
        let base = u64::from(group).checked_mul(self.group_blocks.into())?.checked_mul(self.block_size)?;
        (end <= len).then_some(base.checked_add(start)?..base.checked_add(end)?)
    }

    /// The bytes of `count` blocks of a group, which must all lie in it; `at` says who claims them.
    pub(super) fn bytes(
        &self,
        group: u32,
        start: u32,
        count: u32,
        at: &dyn Fn() -> Site,
    ) -> Result<Range<u64>, Stop> {
        let end = add(start.into(), count.into(), "an extent")?;
        if count == 0 || group >= self.groups || end > self.group_len(group) {
            let what = format!("blocks {start} to {end} of allocation group {group} do not exist");
            return Err(damaged(&what, at()));
        }
        let first = mul(group.into(), self.group_blocks.into(), "a block")?;
        let byte = |block| mul(add(first, block, "a block")?, self.block_size, "a block");
        Ok(byte(start.into())?..byte(end)?)
    }

    /// Where one of the four header sectors of a group stands.
    pub(super) fn header_at(&self, group: u32, sector: u64) -> Result<u64, Stop> {
        let first = self.bytes(group, 0, 1, &|| SUPERBLOCK)?.start;
        Ok(add(first, mul(sector, self.sector, "a header")?, "a header")?)
    }

    /// How many blocks the four header sectors of a group take.
    pub(super) fn header_blocks(&self) -> Result<u32, Stop> {
        let bytes = mul(self.sector, 4, "the headers of a group")?;
        let blocks = u32::try_from(bytes.div_ceil(self.block_size));
        Ok(blocks.map_err(|_| Error::internal("the headers of a group are longer than a group"))?)
    }
}

/// Whether the checksum that stands at `at` in a structure is that of all its other bytes.
pub(super) fn crc_fits(bytes: &[u8], at: usize) -> bool {
    let Some((head, tail)) = bytes.split_at_checked(at) else { return false };
    let Some((stored, tail)) = tail.split_first_chunk::<4>() else { return false };
    let crc = crc32c_append(crc32c_append(crc32c(head), &[0; 4]), tail);
    u32::from_le_bytes(*stored) == crc
}

fn check_crc(volume: &dyn ReadAt, sector: u64) -> Result<(), Stop> {
    let bytes = read_vec(volume, 0, index(sector, "a sector")?)?;
    if crc_fits(&bytes, CRC_AT) {
        return Ok(());
    }
    let offset = u64::try_from(CRC_AT).unwrap_or(0);
    Err(damaged("the checksum of its superblock is wrong", site("XFS superblock", offset)))
}
