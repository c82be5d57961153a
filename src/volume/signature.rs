//! Signatures: who says that a range of bytes is theirs.
//!
//! ```text
//!   0       512     1 KiB     4 KiB     8 KiB    32 KiB    64 KiB    128 KiB  …           end
//!   │ boot sector │ ext, HFS+ │ md 1.2  │ UFS    │ ISO,    │ Btrfs,  │ ZFS     │  md 0.90, │
//!   │ XFS, LUKS…  │ F2FS …    │ bcachefs│        │ UDF,JFS │ Reiser  │ labels  │  1.0, DDF │
//! ```
//! Formats leave each other's places alone: a ZFS label starts at 8 KiB and a Btrfs superblock at
//! 64 KiB, so an old NTFS boot sector or ext4 superblock below them survives and still looks alive.
//! Therefore *every* signature is looked for, and whoever reads a volume's free-space map first asks
//! whether anybody else claims it. Weak magic numbers of two bytes are believed only with a second
//! field that fits, because a false claim costs a person the saving on a healthy volume.
//!
//! Sources: each format's own header; places checked against libblkid and `wipefs` with volumes of
//! each format's own `mkfs`.

use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::Result;
use crate::io::{ReadAt, check_range, read_struct, read_vec};
use crate::units::index;

/// What kind of claim a signature makes; the more a claim forbids, the earlier it sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A part of something larger: a RAID, a volume manager, a pool.
    Member,
    /// Encrypted: free and used space look alike.
    Encrypted,
    /// A file system that has no reader here.
    Foreign,
    /// A file system that has a reader here.
    Native(Native),
}

/// A file system that has a reader here, as its signature tells; the reader says which of its kinds it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Native {
    /// ext2, ext3 and ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// exFAT.
    ExFat,
    /// FAT12, FAT16 and FAT32.
    Fat,
    /// Linux swap.
    Swap,
}

impl Native {
    /// Whether its first sector is a boot sector, which ends like an MBR.
    #[must_use]
    pub const fn has_boot_sector(self) -> bool {
        matches!(self, Self::Ntfs | Self::ExFat | Self::Fat)
    }
}

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What kind of claim.
    pub class: Class,
    /// The format's name as people know it.
    pub name: &'static str,
    /// Where the signature stands.
    pub offset: u64,
}

/// Everybody who claims `area` (a volume or a whole disk), the strictest first, each name once.
///
/// # Errors
/// Where the area cannot be read.
pub fn claims(area: &dyn ReadAt) -> Result<Vec<Claim>> {
    let view = View::read(area)?;
    let mut found = Vec::new();
    let mut claim = |class, name, offset| {
        if !found.iter().any(|c: &Claim| c.name == name) {
            // Behind those of its class.
            let place = found.partition_point(|c| c.class <= class);
            found.insert(place, Claim { class, name, offset });
        }
    };
    for &(class, name, offset, magic) in FIXED {
        if view.has(offset, magic) {
            claim(class, name, offset);
        }
    }
    for (class, name, probe) in PROBES {
        if let Some(offset) = probe(&view) {
            claim(*class, *name, offset);
        }
    }
    Ok(found)
}

/// Whether a sector looks like the boot sector of a FAT volume: a jump, a plausible BIOS parameter
/// block and the boot signature. What it says in detail is the FAT reader's to judge.
#[must_use]
pub fn is_fat_boot_sector(sector: &[u8]) -> bool {
    let Ok((boot, _)) = FatBoot::ref_from_prefix(sector) else { return false };
    let bytes_per_sector = boot.bytes_per_sector.get();
    matches!(boot.jump, [0xEB, _, 0x90] | [0xE9, ..])
        && bytes_per_sector.is_power_of_two()
        && (512..=4096).contains(&bytes_per_sector)
        && boot.sectors_per_cluster.is_power_of_two()
        && boot.reserved_sectors.get() != 0
        && (1..=4).contains(&boot.fats)
        && (boot.media == 0xF0 || boot.media >= 0xF8)
        && (boot.total_sectors_16.get() != 0 || boot.total_sectors_32.get() != 0)
        && boot.signature == BOOT_SIGNATURE
}

/// The last two bytes of a boot sector and of an MBR.
pub(crate) const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xAA];

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FatBoot {
    jump: [u8; 3],
    oem: [u8; 8],
    bytes_per_sector: U16<LE>,
    sectors_per_cluster: u8,
    reserved_sectors: U16<LE>,
    fats: u8,
    root_entries: U16<LE>,
    total_sectors_16: U16<LE>,
    media: u8,
    _geometry: [u8; 10],
    total_sectors_32: U32<LE>,
    _rest: [u8; 474],
    signature: [u8; 2],
}

/// How much of the start is looked at: up to the end of the first ZFS label.
const HEAD: u64 = 256 << 10;
/// How much of the end is looked at: md 0.90 lies up to 128 KiB before it.
const TAIL: u64 = 132 << 10;

/// The places where signatures live.
struct View {
    head: Vec<u8>,
    tail: Vec<u8>,
    tail_at: u64,
    size: u64,
    /// What stands where VMware keeps its superblocks, far from either end.
    far: Vec<(u64, [u8; 4])>,
}

impl View {
    fn read(area: &dyn ReadAt) -> Result<Self> {
        let size = area.size();
        let head = read_vec(area, 0, index(size.min(HEAD), "a signature area")?)?;
        // The tail of a small area is all of it.
        let tail_at = size.saturating_sub(TAIL);
        let tail = read_vec(area, tail_at, index(size.min(TAIL), "a signature area")?)?;
        let mut far = Vec::new();
        for at in VMFS.map(|(at, _)| at) {
            if check_range(area, at, 4).is_ok() {
                far.push((at, read_struct(area, at)?));
            }
        }
        Ok(Self { head, tail, tail_at, size, far })
    }

    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let part = |bytes: &'_ [u8], at: u64| {
            let from = usize::try_from(offset.checked_sub(at)?).ok()?;
            Some(from..from.checked_add(len)?).filter(|r| r.end <= bytes.len())
        };
        match part(&self.head, 0) {
            Some(range) => self.head.get(range),
            None => self.tail.get(part(&self.tail, self.tail_at)?),
        }
    }

    fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.bytes(offset, magic.len()) == Some(magic)
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        U16::<LE>::read_from_bytes(self.bytes(offset, 2)?).ok().map(U16::get)
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        U32::<LE>::read_from_bytes(self.bytes(offset, 4)?).ok().map(U32::get)
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        U64::<LE>::read_from_bytes(self.bytes(offset, 8)?).ok().map(U64::get)
    }

    fn before_end(&self, bytes: u64) -> Option<u64> {
        self.size.checked_sub(bytes)
    }

    /// The first of `offsets` at which `magic` stands.
    fn first(&self, offsets: impl IntoIterator<Item = u64>, magic: &[u8]) -> Option<u64> {
        offsets.into_iter().find(|&offset| self.has(offset, magic))
    }
}

/// Microsoft's identifier of BitLocker metadata, and that of a volume encrypted as it is written.
const FVE: [u8; 16] = *b"\x3B\xD6\x67\x49\x29\x2E\xD8\x4A\x83\x99\xF6\xA3\x39\xE3\xD0\x01";
const FVE_ON_WRITE: [u8; 16] = *b"\x3B\x4D\xA8\x92\x80\xDD\x0E\x4D\x9E\x4E\xB1\xE3\x28\x4E\xAE\xD8";

const BCACHE: &[u8] = b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81";
const BCACHEFS: &[u8] = b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF";

/// Signatures that are strong enough alone: class, name, offset, magic.
const FIXED: &[(Class, &str, u64, &[u8])] = &[
    (Class::Member, "Windows Storage Spaces", 0, b"SPACEDB"),
    (Class::Member, "Windows dynamic disk (LDM)", 0, b"PRIVHEAD"),
    (Class::Member, "Windows dynamic disk (LDM)", 0xC00, b"PRIVHEAD"),
    (Class::Member, "Stratis", 516, b"!Stra0tis\x86\xFF\x02^\x41rh"),
    (Class::Member, "VDO", 0, b"dmvdo001"),
    (Class::Member, "Ceph BlueStore", 0, b"bluestore block device"),
    (Class::Member, "Oracle ASM", 32, b"ORCLDISK"),
    (Class::Member, "bcache", 0x1018, BCACHE),
    (Class::Encrypted, "BitLocker", 3, b"-FVE-FS-"),
    (Class::Encrypted, "BitLocker", 0xA0, &FVE),
    (Class::Encrypted, "BitLocker", 0xA0, &FVE_ON_WRITE),
    (Class::Encrypted, "BitLocker To Go", 0x1A8, &FVE),
    (Class::Encrypted, "LUKS1", 0, b"LUKS\xBA\xBE\x00\x01"),
    (Class::Encrypted, "LUKS2", 0, b"LUKS\xBA\xBE\x00\x02"),
    (Class::Foreign, "ReFS", 3, b"ReFS\0\0\0\0"),
    (Class::Foreign, "bcachefs", 0x1018, BCACHEFS),
    (Class::Foreign, "APFS", 32, b"NXSB"),
    (Class::Foreign, "HFS+", 0x400, b"H+\0\x04"),
    (Class::Foreign, "HFS+", 0x400, b"HX\0\x05"),
    (Class::Foreign, "F2FS", 0x400, b"\x10\x20\xF5\xF2"),
    (Class::Foreign, "EROFS", 0x400, b"\xE2\xE1\xF5\xE0"),
    (Class::Foreign, "JFS", 0x8000, b"JFS1"),
    (Class::Foreign, "ReiserFS", 0x1_0034, b"ReIsEr"),
    (Class::Foreign, "ReiserFS", 0x2034, b"ReIsEr"),
    (Class::Foreign, "Reiser4", 0x1_0000, b"ReIsEr4"),
    (Class::Foreign, "SquashFS", 0, b"hsqs"),
    (Class::Foreign, "SquashFS", 0, b"sqsh"),
    (Class::Foreign, "cramfs", 0, b"\x45\x3D\xCD\x28"),
    (Class::Foreign, "romfs", 0, b"-rom1fs-"),
    (Class::Foreign, "ISO 9660", 0x8001, b"CD001"),
    (Class::Foreign, "GFS2", 0x1_0000, b"\x01\x16\x19\x70"),
    (Class::Foreign, "HPFS", 0x2000, b"\x49\xE8\x95\xF9"),
    (Class::Foreign, "BFS", 0, b"\xCE\xFA\xAD\x1B"),
    (Class::Foreign, "BeFS", 0x220, b"1SFB"),
    (Class::Foreign, "VxFS", 0x400, b"\xF5\xFC\x01\xA5"),
    (Class::Native(Native::Xfs), "XFS", 0, b"XFSB"),
    (Class::Native(Native::Btrfs), "Btrfs", 0x1_0040, b"_BHRfS_M"),
    (Class::Native(Native::Ntfs), "NTFS", 3, b"NTFS    "),
    (Class::Native(Native::ExFat), "exFAT", 3, b"EXFAT   "),
    (Class::Native(Native::Fat), "FAT", 0x36, b"FAT12   "),
    (Class::Native(Native::Fat), "FAT", 0x36, b"FAT16   "),
    (Class::Native(Native::Fat), "FAT", 0x52, b"FAT32   "),
];

/// A signature that moves, or that needs a second look: where it stands, if it does.
type Probe = fn(&View) -> Option<u64>;

const PROBES: &[(Class, &str, Probe)] = &[
    (Class::Member, "LVM2", lvm2),
    (Class::Member, "Linux RAID", md),
    (Class::Member, "Intel RAID", |v| {
        v.first([1024, 8192].into_iter().filter_map(|n| v.before_end(n)), b"Intel Raid ISM Cfg Sig. ")
    }),
    (Class::Member, "DDF RAID", |v| {
        v.first([512, 257 * 512, 4096].into_iter().filter_map(|n| v.before_end(n)), b"\xDE\x11\xDE\x11")
    }),
    (Class::Member, "ZFS", zfs),
    (Class::Member, "VMware VMFS", |v| v.far.iter().find(|found| VMFS.contains(found)).map(|&(at, _)| at)),
    (Class::Encrypted, "LUKS", |v| {
        let known = matches!(v.bytes(6, 2), Some([0, 1 | 2]));
        (v.has(0, b"LUKS\xBA\xBE") && !known).then_some(0)
    }),
    (Class::Encrypted, "LUKS2", |v| v.first([0x4000, 0x8000, 0x1_0000, 0x2_0000], b"SKUL\xBA\xBE\x00\x02")),
    (Class::Foreign, "HFS", |v| {
        let block = U32::<BE>::read_from_bytes(v.bytes(0x414, 4)?).ok()?.get();
        (v.has(0x400, b"BD") && block != 0 && block.is_multiple_of(512)).then_some(0x400)
    }),
    (Class::Foreign, "NILFS2", |v| (v.u16(0x406)? == 0x3434 && v.u32(0x400)? == 2).then_some(0x400)),
    (Class::Foreign, "UDF", |v| {
        let descriptors = (0x8001..0x1_8001).step_by(2048);
        v.first(descriptors.clone(), b"NSR02").or_else(|| v.first(descriptors, b"NSR03"))
    }),
    (Class::Foreign, "OCFS2", |v| v.first([0x400, 0x800, 0x1000, 0x2000], b"OCFSV2")),
    (Class::Foreign, "UFS", |v| {
        const MAGICS: [u32; 4] = [0x0001_1954, 0x1954_0119, 0x5419_0100, 0x1901_5419];
        [0x255C, 0x1_055C].into_iter().find(|&at| v.u32(at).is_some_and(|magic| MAGICS.contains(&magic)))
    }),
    (Class::Foreign, "Minix", minix),
    (Class::Native(Native::Ext), "ext2/3/4", ext),
    (Class::Native(Native::Fat), "FAT", |v| is_fat_boot_sector(v.bytes(0, 512)?).then_some(0)),
    (Class::Native(Native::Swap), "Linux swap", |v| swap(v)?.page().checked_sub(SWAP_SIGNATURE)),
];

/// The volume header, and the file system behind it, whose offset depends on who counts.
const VMFS: [(u64, [u8; 4]); 3] =
    [(1 << 20, *b"\x0D\xD0\x01\xC0"), (2 << 20, *b"\x5E\xF1\xAB\x2F"), (18 << 20, *b"\x5E\xF1\xAB\x2F")];

/// The label may stand in any of the first four sectors.
fn lvm2(v: &View) -> Option<u64> {
    v.first([0, 512, 1024, 1536], b"LABELONE")
}

/// Linux software RAID: 0.90 and 1.0 stand near the end, so that a mirror's member looks like the
/// file system inside; 1.1 at the start; 1.2 at 4 KiB.
fn md(v: &View) -> Option<u64> {
    const MAGIC: u32 = 0xA92B_4EFC;
    let old = v.before_end(64 << 10).map(|at| at & !0xFFFF);
    let at_end = v.before_end(8 << 10).map(|at| at & !0xFFF);
    let new = [at_end, Some(0), Some(0x1000)].into_iter().flatten();
    let is_old = |at: u64| v.u32(at).is_some_and(|magic| magic == MAGIC || magic.swap_bytes() == MAGIC);
    let is_new = |&at: &u64| v.u32(at) == Some(MAGIC);
    new.into_iter().find(is_new).or_else(|| old.filter(|&at| is_old(at)))
}

/// The ring of uberblocks of the first label: any slot will do, in either byte order.
fn zfs(v: &View) -> Option<u64> {
    const MAGIC: u64 = 0x00BA_B10C;
    (0x2_0000..0x4_0000)
        .step_by(1024)
        .find(|&at| v.u64(at).is_some_and(|m| m == MAGIC || m.swap_bytes() == MAGIC))
}

/// Two bytes that an ext4 superblock may hold by chance, in its count of free inodes; `mkfs.minix`
/// writes the whole superblock anew, so that both cannot be alive.
fn minix(v: &View) -> Option<u64> {
    if ext(v).is_some() {
        return None;
    }
    let maps_fit = v.u16(0x404)? != 0 && v.u16(0x406)? != 0 && v.u16(0x40A)? == 0;
    let magic = matches!(v.u16(0x410)?, 0x137F | 0x138F | 0x2468 | 0x2478);
    let third = v.u16(0x418)? == 0x4D5A && matches!(v.u16(0x41C)?, 1024 | 2048 | 4096);
    ((magic && maps_fit) || third).then_some(0x410)
}

fn ext(v: &View) -> Option<u64> {
    let blocks_per_group = v.u32(0x420)?;
    let log_block_size = v.u32(0x418)?;
    (v.u16(0x438)? == 0xEF53 && log_block_size <= 6 && blocks_per_group != 0).then_some(0x438)
}

/// What stands at the end of the first page of a swap area, and how large that page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// A swap area of today.
    Current {
        /// Bytes of a page of the machine that made it.
        page: u64,
    },
    /// The kind of Linux before 2.2.
    Old {
        /// As above.
        page: u64,
    },
    /// A swap area that holds the memory of a hibernated machine.
    Hibernated {
        /// As above.
        page: u64,
    },
}

impl Swap {
    /// Bytes of a page of the machine that made it.
    #[must_use]
    pub const fn page(self) -> u64 {
        match self {
            Self::Current { page } | Self::Old { page } | Self::Hibernated { page } => page,
        }
    }
}

/// The swap area that `area` is, if it is one; of several page sizes one that says hibernated wins.
///
/// # Errors
/// Where the area cannot be read.
pub fn swap_area(area: &dyn ReadAt) -> Result<Option<Swap>> {
    Ok(swap(&View::read(area)?))
}

/// `mkswap` writes the first page anew, and its header says version 1 just where an ext superblock counts
/// its inodes. So where an ext superblock stands and that word is another, the signature in the last bytes
/// of a page is what an old swap left there.
fn swap(v: &View) -> Option<Swap> {
    let version = v.u32(0x400);
    let is_current = [1, 1u32.swap_bytes()].map(Some).contains(&version);
    if !is_current && ext(v).is_some() {
        return None;
    }
    let at = |page: u64| v.bytes(page.checked_sub(SWAP_SIGNATURE)?, 10);
    let hibernated = |bytes: &[u8]| HIBERNATION_SIGNATURES.iter().any(|s| bytes.starts_with(s));
    let pages = || SWAP_PAGE_SIZES.into_iter();
    if let Some(page) = pages().find(|&page| at(page).is_some_and(hibernated)) {
        return Some(Swap::Hibernated { page });
    }
    pages().find_map(|page| match at(page)? {
        b"SWAPSPACE2" => Some(Swap::Current { page }),
        b"SWAP-SPACE" => Some(Swap::Old { page }),
        _ => None,
    })
}

/// How far before the end of its first page the signature of a swap area stands.
const SWAP_SIGNATURE: u64 = 10;

/// The page sizes of the machines that Linux swaps on.
const SWAP_PAGE_SIZES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// What stands in place of the swap signature while a hibernated machine's memory is inside.
const HIBERNATION_SIGNATURES: [&[u8]; 5] =
    [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xED\xC3\x02\xE9\x98\x56\xE5\x0C"];
