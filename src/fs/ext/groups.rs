//! Block groups: where their descriptors lie, what they say, and what of a group is never free.
//!
//! ```text
//!   group with a copy of the superblock          any other group
//!   │ superblock │ descriptors │ reserved │ …    │ data, or bitmaps and tables of any group │
//!
//!   descriptor   0x00 bg_block_bitmap   0x04 bg_inode_bitmap   0x08 bg_inode_table
//!                0x0C bg_free_blocks_count   0x12 bg_flags     0x18 bg_block_bitmap_csum
//!                0x1E bg_checksum       0x20… the upper halves, where descriptors have 64 bytes
//! ```
//! With meta_bg, one block of descriptors lies in the first, second and last of the groups that it
//! describes, instead of all of them after each superblock. Source: the kernel's
//! `ext4/group_descr.rst` and `ext4/blockgroup.rst`.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::features;
use super::superblock::Superblock;
use super::{checksum, site};
use crate::error::Error;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64, mul};

/// bg_flags: no inode bitmap written, no block bitmap written, inode table zeroed.
const INODE_UNINIT: u16 = 0x1;
const BLOCK_UNINIT: u16 = 0x2;
const ITABLE_ZEROED: u16 = 0x4;
/// Descriptors are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
const STRUCTURE: &str = "ext group descriptor";
/// Where bg_checksum stands in a descriptor.
const CHECKSUM_AT: usize = 0x1E;

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLow {
    bg_block_bitmap_lo: U32,
    bg_inode_bitmap_lo: U32,
    bg_inode_table_lo: U32,
    bg_free_blocks_count_lo: U16,
    bg_free_inodes_count_lo: U16,
    bg_used_dirs_count_lo: U16,
    bg_flags: U16,
    bg_exclude_bitmap_lo: U32,
    bg_block_bitmap_csum_lo: U16,
    bg_inode_bitmap_csum_lo: U16,
    bg_itable_unused_lo: U16,
    bg_checksum: U16,
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHigh {
    bg_block_bitmap_hi: U32,
    bg_inode_bitmap_hi: U32,
    bg_inode_table_hi: U32,
    bg_free_blocks_count_hi: U16,
    bg_free_inodes_count_hi: U16,
    bg_used_dirs_count_hi: U16,
    bg_itable_unused_hi: U16,
    bg_exclude_bitmap_hi: U32,
    bg_block_bitmap_csum_hi: U16,
    bg_inode_bitmap_csum_hi: U16,
    bg_reserved: U32,
}

/// What a descriptor says of its group, its checksum verified and its blocks inside the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub number: u32,
    /// The byte at which its descriptor lies, for messages.
    pub at: u64,
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: Range<u64>,
    /// How many inodes at the start of the table may have been used: none where the table was never
    /// initialised. What lies behind them may be anything.
    pub inodes: u32,
    /// Free clusters by the descriptor's own count.
    pub free_clusters: u64,
    /// Whether the block bitmap was never written: all is free save what holds metadata.
    pub bitmap_implied: bool,
    /// The stored checksum of the block bitmap.
    bitmap_checksum: u32,
    /// Which bits of the bitmap's checksum this descriptor has room for.
    bitmap_checksum_mask: u32,
}

impl Group {
    /// Whether `bitmap` (the bytes that stand for clusters) is the one that was checksummed.
    pub(super) fn accepts_bitmap(&self, superblock: &Superblock, bitmap: &[u8]) -> bool {
        !superblock.features.has(features::METADATA_CSUM)
            || (checksum::crc32c(superblock.checksum_seed, bitmap) ^ self.bitmap_checksum)
                & self.bitmap_checksum_mask
                == 0
    }

    /// The blocks of this group's own bitmaps and inode table.
    pub(super) fn tables(&self) -> Result<[Range<u64>; 3], Error> {
        let one = |block: u64| Ok::<_, Error>(block..add(block, 1, "the place of a bitmap")?);
        Ok([one(self.block_bitmap)?, one(self.inode_bitmap)?, self.inode_table.clone()])
    }
}

/// Calls `visit` with every group, ascending. Descriptors are read in pieces, never all at once.
pub(super) fn for_each(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    mut visit: impl FnMut(Group) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let per_block = superblock.descriptors_per_block();
    let total = superblock.descriptor_blocks();
    let mut first = 0u64;
    while first < total {
        let at = descriptor_block(superblock, first)?;
        let mut count = 1u64;
        loop {
            let next = add(first, count, "group descriptors")?;
            let follows = next < total
                && superblock.byte_of(count)? < PIECE
                && descriptor_block(superblock, next)? == add(at, count, "group descriptors")?;
            if !follows {
                break;
            }
            count = add(count, 1, "group descriptors")?;
        }
        let start = superblock.byte_of(at)?;
        let piece = read_vec(volume, start, index(superblock.byte_of(count)?, "group descriptors")?)?;
        let numbers = mul(first, per_block, "group descriptors")?..u64::from(superblock.groups);
        let descriptors = piece.chunks_exact(superblock.descriptor_size);
        for ((number, bytes), at) in
            numbers.zip(descriptors).zip((start..).step_by(superblock.descriptor_size))
        {
            // There are at most as many groups as fit, see above.
            let number = u32::try_from(number).map_err(|_| Error::internal("a group past the last"))?;
            visit(parse(superblock, number, bytes, at)?)?;
        }
        first = add(first, count, "group descriptors")?;
    }
    Ok(())
}

/// Reads the descriptor of one group.
pub(super) fn read_one(volume: &dyn ReadAt, superblock: &Superblock, number: u32) -> Result<Group, Stop> {
    let (block, inside) = place_in_blocks(superblock, number)?;
    let block = descriptor_block(superblock, block)?;
    let size = superblock.descriptor_size;
    let inside = mul(inside, len64(size), "a group descriptor")?;
    let at = add(superblock.byte_of(block)?, inside, "a group descriptor")?;
    parse(superblock, number, &read_vec(volume, at, size)?, at)
}

/// Which block of descriptors describes group `number`, and at which place in it.
fn place_in_blocks(superblock: &Superblock, number: u32) -> Result<(u64, u64), Error> {
    let (number, per_block) = (u64::from(number), superblock.descriptors_per_block());
    let place = number.checked_div(per_block).zip(number.checked_rem(per_block));
    place.ok_or_else(|| Error::internal("a block without descriptors"))
}

/// The blocks of group `number`, the last of which may be short.
pub(super) fn blocks_of(superblock: &Superblock, number: u32) -> Result<Range<u64>, Error> {
    const WHAT: &str = "the place of a block group";
    let inside = mul(number.into(), superblock.blocks_per_group, WHAT)?;
    let first = add(superblock.first_data_block, inside, WHAT)?.min(superblock.blocks);
    Ok(first..add(first, superblock.blocks_per_group, WHAT)?.min(superblock.blocks))
}

/// What group `number` holds at its start: a copy of the superblock, descriptors, and the blocks kept
/// for more descriptors.
pub(super) fn base_of(superblock: &Superblock, number: u32) -> Result<Range<u64>, Error> {
    const WHAT: &str = "the start of a block group";
    let start = blocks_of(superblock, number)?.start;
    let copy = has_superblock(superblock, number);
    // The block of the boot code and that of the copy.
    let mut len = add(boot_blocks(superblock, number), u64::from(copy), WHAT)?;
    let (meta_group, in_meta_group) = place_in_blocks(superblock, number)?;
    let meta_bg = superblock.features.has(features::META_BG);
    if !meta_bg || meta_group < superblock.first_meta_group {
        if copy {
            let all = if meta_bg { superblock.first_meta_group } else { superblock.descriptor_blocks() };
            len = add(add(len, all, WHAT)?, superblock.reserved_gdt_blocks, WHAT)?;
        }
    } else if in_meta_group <= 1 || add(in_meta_group, 1, WHAT)? == superblock.descriptors_per_block() {
        len = add(len, 1, WHAT)?;
    }
    Ok(start..add(start, len, WHAT)?)
}

/// Whether group `number` begins with a copy of the superblock.
fn has_superblock(superblock: &Superblock, number: u32) -> bool {
    if number == 0 {
        true
    } else if superblock.features.has(features::SPARSE_SUPER2) {
        superblock.backup_groups.contains(&number)
    } else if number == 1 || !superblock.features.has(features::SPARSE_SUPER) {
        true
    } else {
        [3, 5, 7].into_iter().any(|base| is_power(number, base))
    }
}

fn is_power(number: u32, base: u32) -> bool {
    let mut power = Some(base);
    while power.is_some_and(|power| power < number) {
        power = power.and_then(|power| power.checked_mul(base));
    }
    power == Some(number)
}

/// Where the `which`-th block of descriptors lies.
fn descriptor_block(superblock: &Superblock, which: u64) -> Result<u64, Error> {
    const WHAT: &str = "the place of group descriptors";
    if !superblock.features.has(features::META_BG) || which < superblock.first_meta_group {
        // The superblock is in block 1 where blocks have 1 KiB, even if groups begin at block 0.
        let after_superblock = if superblock.block_size == 1024 { 2 } else { 1 };
        return add(after_superblock, which, WHAT);
    }
    let number = mul(which, superblock.descriptors_per_block(), WHAT)?;
    let number = u32::try_from(number).map_err(|_| Error::internal("a group past the last"))?;
    let before = add(boot_blocks(superblock, number), u64::from(has_superblock(superblock, number)), WHAT)?;
    add(blocks_of(superblock, number)?.start, before, WHAT)
}

/// How many blocks precede the superblock in group `number`: one where blocks have 1 KiB and clusters
/// more, since then the block of the boot code is in group 0.
fn boot_blocks(superblock: &Superblock, number: u32) -> u64 {
    u64::from(number == 0 && superblock.block_size == 1024 && superblock.first_data_block == 0)
}

fn parse(superblock: &Superblock, number: u32, bytes: &[u8], at: u64) -> Result<Group, Stop> {
    let refuse = |what: String| Stop::from(damaged(number, &what, at));
    let Ok((low, rest)) = RawLow::read_from_prefix(bytes) else {
        return Err(Error::internal("a group descriptor was read with the wrong length").into());
    };
    let high = RawHigh::read_from_prefix(rest).ok().map(|(high, _)| high);
    let join = |low: U32, high: Option<U32>| {
        u64::from(low.get()) | high.map_or(0, |high| u64::from(high.get()) << 32)
    };
    let join16 = |low: U16, high: Option<U16>| {
        u32::from(low.get()) | high.map_or(0, |high| u32::from(high.get()) << 16)
    };

    let found = low.bg_checksum.get();
    if let Some(expected) = descriptor_checksum(superblock, number, bytes)
        && expected != found
    {
        return Err(refuse(format!("its checksum is {found:#x} and should be {expected:#x}")));
    }
    let flags = low.bg_flags.get();
    if flags & !(INODE_UNINIT | BLOCK_UNINIT | ITABLE_ZEROED) != 0 {
        return Err(Stop::from(
            Decline::new(
                DeclineReason::UnknownFeature,
                format!("Block group {number} has flags that are not understood ({flags:#x})."),
            )
            .at(site(STRUCTURE, at)),
        ));
    }
    let bitmap_implied = flags & BLOCK_UNINIT != 0;
    if bitmap_implied && !superblock.features.has_descriptor_checksums() {
        return Err(refuse("it has no bitmap, and the file system has no such groups".to_owned()));
    }

    let unused = join16(low.bg_itable_unused_lo, high.as_ref().map(|h| h.bg_itable_unused_hi));
    let inodes = match superblock.features.has_descriptor_checksums() {
        // Without checksums nobody heeds the field and the flag, and every table was initialised.
        false => superblock.inodes_per_group,
        true if flags & INODE_UNINIT != 0 => 0,
        true => superblock.inodes_per_group.checked_sub(unused).ok_or_else(|| {
            refuse(format!("{unused} of its {} inodes are unused", superblock.inodes_per_group))
        })?,
    };
    let table = join(low.bg_inode_table_lo, high.as_ref().map(|h| h.bg_inode_table_hi));
    let group = Group {
        number,
        at,
        block_bitmap: join(low.bg_block_bitmap_lo, high.as_ref().map(|h| h.bg_block_bitmap_hi)),
        inode_bitmap: join(low.bg_inode_bitmap_lo, high.as_ref().map(|h| h.bg_inode_bitmap_hi)),
        inode_table: table..add(table, superblock.inode_table_blocks, "the end of an inode table")?,
        inodes,
        free_clusters: join16(low.bg_free_blocks_count_lo, high.as_ref().map(|h| h.bg_free_blocks_count_hi))
            .into(),
        bitmap_implied,
        bitmap_checksum: join16(
            low.bg_block_bitmap_csum_lo,
            high.as_ref().map(|h| h.bg_block_bitmap_csum_hi),
        ),
        bitmap_checksum_mask: if high.is_some() { u32::MAX } else { u32::from(u16::MAX) },
    };
    // Without flex_bg, a kernel refuses the volume where they are not in the group itself.
    let (place, home) = if superblock.features.has(features::FLEX_BG) {
        ("outside the file system", superblock.first_data_block..superblock.blocks)
    } else {
        ("outside the group", blocks_of(superblock, number)?)
    };
    for table in group.tables()? {
        if table.start < home.start || table.end > home.end {
            return Err(refuse(format!(
                "its bitmaps and tables should lie at block {}, {place}",
                table.start
            )));
        }
    }
    Ok(group)
}

/// What bg_checksum should be, if descriptors have checksums.
fn descriptor_checksum(superblock: &Superblock, number: u32, bytes: &[u8]) -> Option<u16> {
    let before = bytes.get(..CHECKSUM_AT)?;
    let after = bytes.get(CHECKSUM_AT.checked_add(2)?..)?;
    let number = number.to_le_bytes();
    if superblock.features.has(features::METADATA_CSUM) {
        let crc = [number.as_slice(), before, &[0; 2], after]
            .into_iter()
            .fold(superblock.checksum_seed, checksum::crc32c);
        let [a, b, _, _] = crc.to_le_bytes();
        Some(u16::from_le_bytes([a, b]))
    } else if superblock.features.has(features::GDT_CSUM) {
        let parts = [superblock.uuid.as_slice(), &number, before, after];
        Some(parts.into_iter().fold(u16::MAX, checksum::crc16))
    } else {
        None
    }
}

fn damaged(number: u32, what: &str, at: u64) -> Decline {
    Decline::new(
        DeclineReason::Inconsistent,
        format!(
            "The descriptor of block group {number} makes no sense ({what}). Run e2fsck on the file \
             system, then try again."
        ),
    )
    .at(site(STRUCTURE, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::DeclineReason::{Inconsistent, UnknownFeature};
    use crate::fs::ext::sample::{DESCRIPTORS, FREE, Sample};

    fn parsed(sample: &Sample) -> Superblock {
        Superblock::parse(
            &crate::fs::ext::raw_superblock::read(&sample.bytes).unwrap(),
            crate::units::len64(sample.bytes.len()),
        )
        .unwrap()
    }

    #[test]
    fn the_structures_have_their_sizes() {
        assert_eq!((size_of::<RawLow>(), size_of::<RawHigh>()), (32, 32));
    }

    #[test]
    fn descriptors_are_the_same_in_pieces_and_one_by_one() {
        let sample = Sample::new();
        let superblock = parsed(&sample);
        let mut seen = Vec::new();
        for_each(&sample.bytes, &superblock, |group| {
            assert_eq!(read_one(&sample.bytes, &superblock, group.number).unwrap(), group);
            seen.push((group.free_clusters, group.bitmap_implied));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(FREE[0], false), (FREE[1], false), (FREE[2], true)]);
    }

    #[test]
    fn copies_of_the_superblock_lie_where_the_features_say() {
        let mut superblock = parsed(&Sample::new());
        let groups = |superblock: &Superblock| -> Vec<u32> {
            (0..130).filter(|&number| has_superblock(superblock, number)).collect()
        };
        assert_eq!(groups(&superblock), [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        superblock.features.ro_compat &= !1;
        assert_eq!(groups(&superblock).len(), 130, "without sparse_super, everywhere");
        superblock.features.compat |= 0x200;
        superblock.backup_groups = [1, 77];
        assert_eq!(groups(&superblock), [0, 1, 77]);
    }

    #[test]
    fn meta_groups_keep_their_descriptors_in_three_of_their_groups() {
        let mut superblock = parsed(&Sample::new());
        superblock.features.incompat |= 0x10;
        superblock.first_meta_group = 1;
        superblock.reserved_gdt_blocks = 0;
        superblock.groups = 64;
        superblock.blocks = 1 + 64 * 2048;
        let first = |number: u32| 1 + u64::from(number) * 2048;
        assert_eq!(descriptor_block(&superblock, 0).unwrap(), 2);
        assert_eq!(descriptor_block(&superblock, 1).unwrap(), first(16));
        assert_eq!(descriptor_block(&superblock, 3).unwrap(), first(48));
        let held: Vec<(u32, u64)> = (0..64)
            .map(|number| (number, base_of(&superblock, number).unwrap()))
            .filter(|(_, base)| !base.is_empty())
            .map(|(number, base)| {
                assert_eq!(base.start, first(number));
                (number, base.end - base.start)
            })
            .collect();
        let expected = [
            [(0, 2), (1, 2), (3, 2), (5, 2), (7, 2), (9, 2)].as_slice(),
            &[(16, 1), (17, 1), (25, 1), (27, 1), (31, 1)],
            &[(32, 1), (33, 1), (47, 1), (48, 1), (49, 2), (63, 1)],
        ];
        assert_eq!(held, expected.concat());
    }

    #[test]
    fn the_block_of_the_boot_code_is_in_group_0_where_clusters_are_larger() {
        let mut superblock = parsed(&Sample::new());
        superblock.first_data_block = 0;
        assert_eq!(descriptor_block(&superblock, 0).unwrap(), 2);
        assert_eq!(base_of(&superblock, 0).unwrap(), 0..7);
        assert_eq!(base_of(&superblock, 1).unwrap(), 2048..2054);
    }

    #[test]
    fn each_wrong_field_of_a_descriptor_declines() {
        for (what, field, value, reason) in [
            ("an unknown flag", 0x12, 0x8, UnknownFeature),
            ("a bitmap in the boot block", 0x00, 0, Inconsistent),
            ("a bitmap past the end", 0x00, 4597, Inconsistent),
            ("an inode bitmap past the end", 0x04, 4597, Inconsistent),
            ("a table that ends past the end", 0x08, 4590, Inconsistent),
            ("more unused inodes than inodes", 0x1C, 33, Inconsistent),
            ("a bitmap in another group, without flex_bg", 0x00, 3000, Inconsistent),
            ("an inode bitmap in another group", 0x04, 3000, Inconsistent),
            ("a table in another group", 0x08, 3000, Inconsistent),
        ] {
            let mut sample = Sample::new();
            sample.put16(DESCRIPTORS + field, value);
            sample.seal();
            let decline = sample.declined();
            assert_eq!(decline.reason, reason, "{what}: {decline:?}");
            assert_eq!(decline.site.unwrap().offset, crate::units::len64(DESCRIPTORS), "{what}");
        }
    }

    #[test]
    fn both_kinds_of_checksums_are_verified() {
        let uninit_bg = Sample::new().with32(0x64, 0x1 | 0x10);
        uninit_bg.mapped();
        for mut sample in [Sample::new(), uninit_bg] {
            sample.put16(DESCRIPTORS + 64 + 0x0E, 9);
            let decline = sample.declined();
            assert_eq!(decline.reason, Inconsistent);
            assert!(decline.detail.contains("block group 1 makes no sense (its checksum"), "{decline:?}");
        }
    }

    #[test]
    fn an_implied_bitmap_needs_the_feature_that_implies_it() {
        let decline = Sample::new().with32(0x64, 0x1).declined();
        assert!(decline.detail.contains("has no bitmap"), "{decline:?}");
    }
}
