//! XenServer's batmap: for each block a bit that says "all of its sector bitmap is set", so that its programs
//! need not read the bitmap.
//!
//! ```text
//!   BAT, padded to a sector │ batmap header │ … │ map │
//!                              └ offset, sectors ──► a bit a block, most significant first
//! ```
//! No part of the specification. From creator version 1.2 on, blktap's `libvhd` takes a batmap for granted:
//! it opens a disk without one for reading only. A clear bit is always allowed: then the sector bitmap is read.

use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    BATMAP_COOKIE, BATMAP_HEADER_LEN, BATMAP_SIGNED_SUM, BATMAP_VERSION, BatmapHeader, Footer, KeyHash,
    XENSERVER_NEEDS_BATMAP, XENSERVER_SECOND,
};
use crate::error::{Error, Result, Site, Warning};
use crate::image::{BlockSize, Container};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{Space, add, index, len64, mul, round_up};

/// The one block size with which XenServer's programs reckon.
pub const XENSERVER_BLOCK: BlockSize = BlockSize::MIB_2;

/// What of a batmap is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batmap {
    /// The marker, as it is.
    pub marker: u8,
    /// The key hash, as it is; it names no key, since encrypted disks are refused.
    pub key_hash: KeyHash,
    /// The bits of the disk's blocks; empty where the map was damaged.
    pub full: Vec<u8>,
}

impl Batmap {
    /// Whether the batmap says that every bit of a block's sector bitmap is set.
    #[must_use]
    pub fn is_full(&self, block: u64) -> bool {
        let byte = index(block / 8, "a block").ok().and_then(|at| self.full.get(at));
        byte.is_some_and(|byte| byte & 0x80 >> (block % 8) != 0)
    }
}

/// Whether XenServer's programs look for a batmap in a disk of this footer, and in blocks of this size.
pub fn is_expected(footer: &Footer, block_size: BlockSize) -> bool {
    block_size == XENSERVER_BLOCK && footer.xenserver_version() >= Some(XENSERVER_NEEDS_BATMAP)
}

/// A batmap header that was found, with the file's ranges that it and its map take.
pub struct Found {
    at: u64,
    header: BatmapHeader,
}

/// Looks for a batmap header at `at`, the first sector after the BAT.
///
/// # Errors
/// `unsupported` for an encrypted disk; read errors.
pub fn find(container: &Container, footer: &Footer, block_size: BlockSize, at: u64) -> Result<Option<Found>> {
    let may_have = footer.xenserver_version() >= Some(XENSERVER_SECOND) && block_size == XENSERVER_BLOCK;
    let fits = at.checked_add(BATMAP_HEADER_LEN).is_some_and(|end| end <= container.size());
    if !may_have || !fits {
        return Ok(None);
    }
    let header: BatmapHeader = read_struct(container, at)?;
    Ok((header.cookie == BATMAP_COOKIE).then_some(Found { at, header }))
}

impl Found {
    fn site(&self, by: u64) -> Result<Site> {
        Ok(Site {
            structure: "XenServer batmap",
            space: Space::File,
            offset: add(self.at, by, "the batmap")?,
        })
    }

    /// The ranges (start, length) of header and map.
    pub fn places(&self) -> [(u64, u64); 2] {
        let sectors = u64::from(self.header.map_sectors.get());
        // A 32-bit number of sectors: 2 TiB at most.
        [(self.at, BATMAP_HEADER_LEN), (self.header.map_offset.get(), sectors.wrapping_mul(512))]
    }

    /// Reads the map for a disk of `blocks` blocks. A damaged one is left out, with a warning: it can be made
    /// anew.
    ///
    /// # Errors
    /// `unsupported` for an encrypted disk; read errors.
    pub fn read(
        &self,
        container: &Container,
        footer: &Footer,
        blocks: u64,
        warnings: &mut Vec<Warning>,
    ) -> Result<Batmap> {
        let Self { header, .. } = self;
        if header.key_hash.is_set != 0 {
            return Err(Error::unsupported(
                self.site(29)?,
                "XenServer encrypted this disk: without its key nothing is known of it, and what looks like zeros \
                 is none",
            ));
        }
        let full = match self.flaw(container, footer, blocks)? {
            Ok(full) => full,
            Err(flaw) => {
                warnings.push(Warning::new(
                    "xen-batmap-damaged",
                    format!("XenServer's batmap {flaw}. It is not believed; the new image has a good one."),
                ));
                Vec::new()
            }
        };
        Ok(Batmap { marker: header.marker, key_hash: header.key_hash, full })
    }

    /// The bits of the disk's blocks, or what is wrong with the map.
    fn flaw(&self, container: &Container, footer: &Footer, blocks: u64) -> Result<Result<Vec<u8>, String>> {
        let Self { header, .. } = self;
        let version = header.version.get();
        if !matches!(version, BATMAP_SIGNED_SUM | BATMAP_VERSION) {
            return Ok(Err(format!("has an unknown version ({version:#010x})")));
        }
        let [_, (at, len)] = self.places();
        let summed = summed_len(footer)?;
        let wanted = summed.max(blocks.div_ceil(8));
        if at % 512 != 0 || at.checked_add(len).is_none_or(|end| end > container.size()) || len < wanted {
            return Ok(Err(format!("does not lie where it can ({len} bytes at offset {at})")));
        }
        let map = read_vec(container, at, index(wanted, "the batmap")?)?;
        let summed =
            map.get(..index(summed, "the batmap")?).ok_or_else(|| Error::internal("a short batmap"))?;
        let (stored, computed) = (header.checksum.get(), checksum(summed, version));
        if stored != computed {
            return Ok(Err(format!(
                "has a wrong checksum (stored {stored:#010x}, computed {computed:#010x})"
            )));
        }
        let mut map = map;
        map.truncate(index(blocks.div_ceil(8), "the batmap")?);
        Ok(Ok(map))
    }
}

/// The part of the map that the checksum covers: what the disk's size needs, in whole sectors.
fn summed_len(footer: &Footer) -> Result<u64> {
    round_up((XENSERVER_BLOCK.block_of(footer.current_size.get()) / 8).max(1), 512, "the batmap")
}

fn checksum(map: &[u8], version: u32) -> u32 {
    let signed = version == BATMAP_SIGNED_SUM;
    !map.iter().fold(0u32, |sum, &byte| {
        // An early program summed `char`, which is signed there: 0xff counts as -1.
        let value = if signed {
            u32::from_ne_bytes(i32::from(byte.cast_signed()).to_ne_bytes())
        } else {
            byte.into()
        };
        sum.wrapping_add(value)
    })
}

/// How many bytes header and map take in a file with a BAT of `entries` entries.
///
/// # Errors
/// `limit-exceeded` on overflow, which no BAT reaches.
pub fn len_for(entries: u64) -> Result<u64> {
    add(BATMAP_HEADER_LEN, map_len(entries)?, "the batmap")
}

fn map_len(entries: u64) -> Result<u64> {
    round_up(entries.div_ceil(8).max(1), 512, "the batmap")
}

/// Header and map for a file with a BAT of `entries` entries, the header at `at`; `full` names the blocks that
/// are full, `carried` is the source's batmap.
///
/// # Errors
/// What `full` gives.
pub fn encode(
    carried: Option<&Batmap>,
    footer: &Footer,
    at: u64,
    entries: u64,
    full: impl Iterator<Item = u64>,
) -> Result<Vec<u8>> {
    let mut map = vec![0u8; index(map_len(entries)?, "the batmap")?];
    for block in full {
        if let Some(byte) = map.get_mut(index(block / 8, "a block")?) {
            *byte |= 0x80 >> (block % 8);
        }
    }
    let summed = map.get(..index(summed_len(footer)?, "the batmap")?);
    let summed = summed.ok_or_else(|| Error::internal("a batmap shorter than its disk"))?;
    let header = BatmapHeader {
        cookie: BATMAP_COOKIE,
        map_offset: add(at, BATMAP_HEADER_LEN, "the batmap")?.into(),
        map_sectors: u32::try_from(len64(map.len()) / 512)
            .map_err(|_| Error::internal("a batmap is too long"))?
            .into(),
        version: BATMAP_VERSION.into(),
        checksum: checksum(summed, BATMAP_VERSION).into(),
        marker: carried.map_or(0, |carried| carried.marker),
        key_hash: carried.map_or_else(KeyHash::new_zeroed, |carried| carried.key_hash),
        ..BatmapHeader::new_zeroed()
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.append(&mut map);
    Ok(bytes)
}

/// Where the batmap header is: the first sector after a BAT of `entries` entries at `table_offset`.
///
/// # Errors
/// `limit-exceeded` on overflow.
pub fn place_after(table_offset: u64, entries: u64) -> Result<u64> {
    add(table_offset, round_up(mul(entries, 4, "the BAT")?, 512, "the BAT")?, "the BAT")
}

/// The rules of blktap's programs (`libvhd`, `vhd-util check`) for a disk of creator `tap`, version 1.2 or
/// later, each with a test that our output meets it.
#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::rc::Rc;

    use super::super::format::{DynamicHeader, XENSERVER};
    use super::super::{Metadata, Writer, open};
    use super::*;
    use crate::error::ErrorKind;
    use crate::image::testing::assemble;
    use crate::image::{
        BitmapSource, BlockPlan, DiskType, Image, Metadata as AnyMetadata, OutState, SectorBitmap, vhd,
    };
    use zerocopy::FromBytes;

    const BLOCK: u64 = 2 << 20;
    /// Blocks of the disk, of which 1 and 4 are stored.
    const BLOCKS: u64 = 6;
    /// Entries of a BAT with room for growth.
    const ROOM: u32 = 5000;

    /// Where the bitmaps of the new image come from: all copied, or all made anew.
    struct Bitmaps {
        copied: bool,
    }

    impl BitmapSource for Bitmaps {
        fn bitmap(&self, _: u64) -> Result<Option<SectorBitmap>> {
            Ok(None)
        }
        fn stored_at(&self, _: u64) -> Option<Range<u64>> {
            self.copied.then_some(0..512)
        }
    }

    fn metadata(change: impl FnOnce(&mut Footer), room: u32, batmap: Option<Batmap>) -> Metadata {
        let image = vhd::tests::dynamic(BLOCKS * BLOCK, BLOCK, &[]);
        let mut footer = Footer::read_from_bytes(&image[..512]).unwrap();
        footer.creator_application = XENSERVER;
        footer.creator_version = 0x0001_0003.into();
        change(&mut footer);
        let mut header = DynamicHeader::read_from_bytes(&image[512..1536]).unwrap();
        header.max_table_entries = room.into();
        Metadata { footer: footer.sealed(), header: Some(header), locators: Vec::new(), batmap }
    }

    fn written(metadata: &Metadata, copied: bool) -> Vec<u8> {
        let writer = Writer::like(metadata, BLOCKS * BLOCK, BlockSize::MIB_2, DiskType::Dynamic).unwrap();
        let mut plan = BlockPlan::new(BLOCKS).unwrap();
        for block in [1, 4] {
            plan.set(block, OutState::Present);
        }
        plan.seal();
        assemble(&writer, &plan, &Bitmaps { copied })
    }

    fn header_at(file: &[u8]) -> usize {
        let header = DynamicHeader::read_from_bytes(&file[512..1536]).unwrap();
        let entries = header.max_table_entries.get().into();
        place_after(header.table_offset.get(), entries).unwrap() as usize
    }

    fn header_of(file: &[u8]) -> BatmapHeader {
        BatmapHeader::read_from_bytes(&file[header_at(file)..][..512]).unwrap()
    }

    fn map_of(file: &[u8]) -> &[u8] {
        let header = header_of(file);
        &file[header.map_offset.get() as usize..][..header.map_sectors.get() as usize * 512]
    }

    fn opened(file: Vec<u8>) -> Result<Image> {
        open(Rc::new(file) as Rc<dyn ReadAt>)
    }

    fn batmap_of(image: &Image) -> Option<&Batmap> {
        let AnyMetadata::Vhd(metadata) = &image.metadata else { panic!("a VHD") };
        metadata.batmap.as_ref()
    }

    #[test]
    fn the_header_stands_in_the_sector_after_the_padded_table() {
        for room in [BLOCKS as u32, 127, 128, 129, ROOM] {
            let file = written(&metadata(|_| {}, room, None), false);
            let header = header_of(&file);
            assert_eq!(header.cookie, *b"tdbatmap");
            assert_eq!(header.version.get(), 0x0001_0002);
            assert_eq!(header.reserved, [0; 418]);
            // The map is on a sector, right behind, and has a bit for each entry of the table.
            assert_eq!(header.map_offset.get() as usize, header_at(&file) + 512);
            assert!(map_of(&file).len() * 8 >= room as usize && header.map_sectors.get() > 0);
            // Neither reaches into a block, nor into the footer.
            let image = opened(file).unwrap();
            let first = image.blocks.get(1).payload().unwrap().get();
            assert!(header.map_offset.get() + u64::from(header.map_sectors.get()) * 512 <= first - 512);
            assert_eq!(first % 4096, 0);
            assert!(image.warnings.is_empty(), "{:?}", image.warnings);
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_part_that_the_size_needs() {
        let file = written(&metadata(|_| {}, ROOM, None), false);
        // 6 blocks need one sector of the two that the table's 5000 entries have.
        assert_eq!(map_of(&file).len(), 1024);
        let sum: u32 = map_of(&file)[..512].iter().map(|&byte| u32::from(byte)).sum();
        assert_eq!(header_of(&file).checksum.get(), !sum);
    }

    #[test]
    fn a_bit_is_set_for_blocks_that_are_known_to_be_full_and_for_no_absent_one() {
        let file = written(&metadata(|_| {}, ROOM, None), false);
        assert_eq!(map_of(&file)[..2], [0b0100_1000, 0]);
        // Bitmaps that are copied are full where the source's batmap says so.
        let carried = |bits| Batmap { marker: 0, key_hash: KeyHash::new_zeroed(), full: vec![bits] };
        for (bits, expected) in [(0, 0), (0b0100_0000, 0b0100_0000), (0b1110_0000, 0b0100_0000)] {
            let file = written(&metadata(|_| {}, ROOM, Some(carried(bits))), true);
            assert_eq!(map_of(&file)[0], expected, "{bits:#b}");
        }
    }

    #[test]
    fn room_for_growth_stays_and_absurd_room_does_not() {
        for (room, expected) in
            [(1, 6), (6, 6), (7, 7), (ROOM, ROOM), (1 << 20, 1 << 20), (u32::MAX, 1 << 20)]
        {
            let file = written(&metadata(|_| {}, room, None), false);
            let header = DynamicHeader::read_from_bytes(&file[512..1536]).unwrap();
            assert_eq!(header.max_table_entries.get(), expected);
            // What no block uses reads as "not present", to the end of the padded table.
            let table = &file[header.table_offset.get() as usize..header_at(&file)];
            assert_eq!(table.len() as u32, (expected * 4).next_multiple_of(512));
            assert!(table[24..].iter().all(|&byte| byte == 0xff));
        }
        // Other programs make no use of it.
        let file = written(&metadata(|f| f.creator_application = *b"win ", ROOM, None), false);
        assert_eq!(DynamicHeader::read_from_bytes(&file[512..1536]).unwrap().max_table_entries.get(), 6);
        assert_ne!(header_of(&file).cookie, *b"tdbatmap");
    }

    #[test]
    fn only_those_versions_that_take_it_for_granted_get_one() {
        for (version, batmap, expected) in [
            (0x0000_0001, None, false),
            (0x0001_0001, None, false),
            (0x0001_0001, Some(Batmap { marker: 1, key_hash: KeyHash::new_zeroed(), full: vec![] }), true),
            (0x0001_0002, None, true),
            (0x0001_0003, None, true),
        ] {
            let metadata = metadata(|f| f.creator_version = version.into(), ROOM, batmap);
            let file = written(&metadata, false);
            assert_eq!(header_of(&file).cookie == *b"tdbatmap", expected, "{version:#x}");
        }
    }

    #[test]
    fn marker_and_key_hash_are_carried_over() {
        let key_hash = KeyHash { is_set: 0, nonce: [5; 32], hash: [6; 32] };
        let carried = Batmap { marker: 77, key_hash, full: vec![0b0100_0000] };
        let file = written(&metadata(|_| {}, ROOM, Some(carried.clone())), true);
        let header = header_of(&file);
        assert_eq!((header.marker, header.key_hash), (77, key_hash));
        assert_eq!(batmap_of(&opened(file).unwrap()), Some(&carried));
    }

    #[test]
    fn an_encrypted_disk_is_refused() {
        for is_set in [1, 2, 255] {
            let mut file = written(&metadata(|_| {}, ROOM, None), false);
            let at = header_at(&file);
            file[at + 29] = is_set;
            let error = opened(file).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.site().unwrap().offset, at as u64 + 29);
        }
    }

    #[test]
    fn blocks_of_another_size_are_not_made() {
        let source = metadata(|_| {}, ROOM, None);
        let error =
            Writer::like(&source, BLOCKS * BLOCK, BlockSize::KIB_512, DiskType::Dynamic).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let mut source = source;
        source.header.as_mut().unwrap().block_size = (512 << 10).into();
        assert!(Writer::like(&source, BLOCKS * BLOCK, BlockSize::KIB_512, DiskType::Dynamic).is_ok());
    }

    #[track_caller]
    fn damaged(change: impl FnOnce(&mut Vec<u8>, usize)) {
        let mut file = written(&metadata(|_| {}, ROOM, None), false);
        let at = header_at(&file);
        change(&mut file, at);
        let image = opened(file).unwrap();
        assert!(
            image.warnings.iter().any(|warning| warning.code == "xen-batmap-damaged"),
            "{:?}",
            image.warnings
        );
        assert!(batmap_of(&image).is_none_or(|batmap| batmap.full.is_empty()));
    }

    #[test]
    fn a_damaged_batmap_is_told_and_not_believed() {
        damaged(|file, at| file[at + 24] ^= 1);
        damaged(|file, at| file[at + 512] ^= 1);
        for version in [0u32, 0x0001_0000, 0x0001_0003] {
            damaged(|file, at| file[at + 20..at + 24].copy_from_slice(&version.to_be_bytes()));
        }
        for offset in [1u64, u64::MAX, u64::MAX - 511, 1 << 40] {
            damaged(|file, at| file[at + 8..at + 16].copy_from_slice(&offset.to_be_bytes()));
        }
        for sectors in [0u32, u32::MAX] {
            damaged(|file, at| file[at + 16..at + 20].copy_from_slice(&sectors.to_be_bytes()));
        }
        // A map that lies over a block.
        damaged(|file, at| {
            let block = file.len() as u64 - 4096;
            file[at + 8..at + 16].copy_from_slice(&(block & !511).to_be_bytes());
        });
    }

    #[test]
    fn a_block_over_the_header_means_that_there_is_no_batmap() {
        let mut file = written(&metadata(|_| {}, ROOM, None), false);
        let at = header_at(&file);
        // Block 1 moves down over the batmap header.
        file[1540..1544].copy_from_slice(&u32::try_from(at / 512).unwrap().to_be_bytes());
        let end = file.len() - 512;
        file.extend_from_within(end..);
        damaged_is_told(file);
    }

    fn damaged_is_told(file: Vec<u8>) {
        let image = opened(file).unwrap();
        assert_eq!(image.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["xen-batmap-damaged"]);
        assert_eq!(batmap_of(&image), None);
    }

    #[test]
    fn a_missing_batmap_is_told_where_one_is_expected() {
        let codes = |version: u32| {
            let mut file = written(&metadata(|f| f.creator_version = version.into(), ROOM, None), false);
            let at = header_at(&file);
            file[at..at + 8].fill(0);
            opened(file).unwrap().warnings.iter().map(|w| w.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(0x0001_0002), ["xen-batmap-missing"]);
        assert_eq!(codes(0x0001_0001), [""; 0]);
    }

    #[test]
    fn a_child_whose_maps_contradict_each_other_is_refused_where_it_is_read() {
        let mut source = metadata(|f| f.disk_type = 4.into(), ROOM, None);
        let header = source.header.as_mut().unwrap();
        header.parent_unique_id = [3; 16];
        let writer = Writer::like(&source, BLOCKS * BLOCK, BlockSize::MIB_2, DiskType::Differencing).unwrap();
        let mut plan = BlockPlan::new(BLOCKS).unwrap();
        plan.set(1, OutState::PartiallyPresent);
        plan.seal();
        let mut file = assemble(&writer, &plan, &Bitmaps { copied: false });
        let image = opened(file.clone()).unwrap();
        let payload = image.blocks.get(1).payload().unwrap().get() as usize;
        assert!(batmap_of(&image).unwrap().is_full(1));
        assert!(image.sector_bitmap(1).unwrap().unwrap().all_set(BLOCK));
        file[payload - 512] = 0x7f;
        let error = opened(file).unwrap().sector_bitmap(1).unwrap_err();
        assert_eq!((error.kind(), error.site().unwrap().offset), (ErrorKind::Corrupt, payload as u64 - 512));
    }

    #[test]
    fn the_old_checksum_sums_signed_bytes() {
        assert_eq!(checksum(&[0xff, 1, 0x80], BATMAP_VERSION), !(255 + 1 + 128));
        assert_eq!(checksum(&[0xff, 1, 0x80], BATMAP_SIGNED_SUM), !(-128i32 as u32));
        let mut file = written(&metadata(|_| {}, ROOM, None), false);
        let at = header_at(&file);
        file[at + 20..at + 24].copy_from_slice(&BATMAP_SIGNED_SUM.to_be_bytes());
        file[at + 512] |= 0x80;
        let sum = checksum(&file[at + 512..at + 1024], BATMAP_SIGNED_SUM);
        file[at + 24..at + 28].copy_from_slice(&sum.to_be_bytes());
        let image = opened(file).unwrap();
        assert!(batmap_of(&image).unwrap().is_full(0) && image.warnings.is_empty());
    }
}
