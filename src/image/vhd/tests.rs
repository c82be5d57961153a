//! One image that is accepted, and every way to break one field of it.

use std::rc::Rc;

use proptest::prelude::*;
use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{DynamicHeader, Footer};
use super::{Writer, open};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    BitmapSource, BlockPlan, BlockSize, BlockState, ContainerWriter, DiskType, Image, Metadata, OutState,
    Piece, SectorBitmap,
};
use crate::io::ReadAt;

const BLOCK: u64 = 64 << 10;
const DISK: u64 = 10 * BLOCK;

struct NoBitmaps;
impl BitmapSource for NoBitmaps {
    fn bitmap(&self, _: u64) -> Result<Option<SectorBitmap>> {
        Ok(None)
    }
    fn stored_at(&self, _: u64) -> Option<std::ops::Range<u64>> {
        None
    }
}

/// A dynamic disk of ten blocks of 64 KiB, of which 1 and 4 are present and full of their number.
fn valid() -> Vec<u8> {
    dynamic(DISK, BLOCK, &[(1, vec![1; BLOCK as usize]), (4, vec![4; BLOCK as usize])])
}

/// A dynamic disk with these blocks present, in this order of the disk.
pub(crate) fn dynamic(disk_size: u64, block_size: u64, blocks: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let writer =
        Writer::new(disk_size, BlockSize::new(block_size).unwrap(), Uuid::from_u128(7), 1234).unwrap();
    let mut plan = BlockPlan::new(disk_size.div_ceil(block_size)).unwrap();
    for (block, _) in blocks {
        plan.set(*block, OutState::Present);
    }
    plan.seal();
    let mut image = Vec::new();
    let mut put = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => image.extend(bytes),
                Piece::Zeros(len) => image.extend(vec![0; len as usize]),
                Piece::Source { .. } => panic!("there is no source"),
            }
        }
    };
    let mut step = 0;
    while let Some(pieces) = writer.front(&plan, &NoBitmaps, step).unwrap() {
        put(pieces);
        step += 1;
    }
    for (block, payload) in blocks {
        put(writer.before_payload(*block, &NoBitmaps).unwrap());
        put(vec![Piece::Bytes(payload.clone())]);
    }
    put(writer.tail(&plan).unwrap());
    assert_eq!(image.len() as u64, writer.file_size(&plan).unwrap());
    image
}

/// Virtual PC's disk whose geometry is eight and a half blocks and whose Current Size is ten, with a BAT
/// of nine entries: enough for the one size, too few for the other.
pub(crate) fn with_a_table_between_two_sizes() -> Vec<u8> {
    let mut image = with_footer(|f| {
        f.creator_application = *b"vpc ";
        (f.cylinders, f.heads, f.sectors_per_track) = (16.into(), 4, 17);
    });
    let header = DynamicHeader { max_table_entries: 9.into(), ..header_of(&image) }.sealed();
    image[512..1536].copy_from_slice(header.as_bytes());
    image
}

/// Virtual PC's disk whose geometry is less than its Current Size of ten blocks.
pub(crate) fn sized_by_geometry() -> Vec<u8> {
    with_footer(|f| {
        f.creator_application = *b"vpc ";
        (f.cylinders, f.heads, f.sectors_per_track) = (16.into(), 4, 17);
    })
}

fn open_bytes(bytes: Vec<u8>) -> Result<Image> {
    open(Rc::new(bytes) as Rc<dyn ReadAt>)
}

fn footer_of(image: &[u8]) -> Footer {
    Footer::read_from_bytes(&image[image.len() - 512..]).unwrap()
}

fn header_of(image: &[u8]) -> DynamicHeader {
    DynamicHeader::read_from_bytes(&image[512..1536]).unwrap()
}

/// The valid image with one change to its footer (both copies, checksums right).
fn with_footer(change: impl FnOnce(&mut Footer)) -> Vec<u8> {
    let mut image = valid();
    let mut footer = footer_of(&image);
    change(&mut footer);
    let footer = footer.sealed();
    let end = image.len() - 512;
    image[..512].copy_from_slice(footer.as_bytes());
    image[end..].copy_from_slice(footer.as_bytes());
    image
}

/// The valid image with one change to its dynamic header (checksum right).
fn with_header(change: impl FnOnce(&mut DynamicHeader)) -> Vec<u8> {
    let mut image = valid();
    let mut header = header_of(&image);
    change(&mut header);
    image[512..1536].copy_from_slice(header.sealed().as_bytes());
    image
}

/// The valid image with one BAT entry set.
fn with_entry(entry: usize, sector: u32) -> Vec<u8> {
    let mut image = valid();
    image[1536 + 4 * entry..][..4].copy_from_slice(&sector.to_be_bytes());
    image
}

fn entry_of(image: &[u8], entry: usize) -> u32 {
    u32::from_be_bytes(image[1536 + 4 * entry..][..4].try_into().unwrap())
}

fn refusal(image: Vec<u8>) -> Error {
    match open_bytes(image) {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error,
    }
}

#[track_caller]
fn refused(image: Vec<u8>, kind: ErrorKind, structure: &str, offset: u64) {
    let error = refusal(image);
    let site = error.site().unwrap();
    assert_eq!((error.kind(), site.structure, site.offset), (kind, structure, offset), "{error}");
}

#[track_caller]
fn warned(image: Vec<u8>, code: &str) -> Image {
    let image = open_bytes(image).unwrap();
    assert!(image.warnings.iter().any(|w| w.code == code), "{:?}", image.warnings);
    image
}

#[test]
fn what_was_written_is_read() {
    let image = open_bytes(valid()).unwrap();
    assert_eq!(image.disk_type, DiskType::Dynamic);
    assert_eq!((image.geometry.virtual_size, image.geometry.block_size.get()), (DISK, BLOCK));
    assert_eq!(image.identity, Uuid::from_u128(7));
    assert!(image.warnings.is_empty(), "{:?}", image.warnings);
    let present: Vec<u64> =
        (0..10).filter(|&b| matches!(image.blocks.get(b), BlockState::Present(_))).collect();
    assert_eq!(present, [1, 4]);
    for block in present {
        let at = image.blocks.get(block).payload().unwrap();
        assert_eq!(at.get() % 4096, 0, "payload is aligned");
        let mut byte = [0];
        image.container.read_exact_at(at.get(), &mut byte).unwrap();
        assert_eq!(u64::from(byte[0]), block);
    }
}

#[test]
fn either_footer_may_be_damaged_and_not_both() {
    let end = valid().len() - 512;
    for (at, code) in [(end + 40, "footer-damaged"), (40, "footer-mirror-damaged"), (end, "footer-damaged")] {
        let mut image = valid();
        image[at] ^= 1;
        warned(image, code);
    }
    let mut image = valid();
    image[40] ^= 1;
    image[end + 40] ^= 1;
    refused(image, ErrorKind::Corrupt, "VHD footer", end as u64);
    warned(valid()[..end].to_vec(), "footer-damaged");
}

#[test]
fn copies_of_the_footer_that_differ_are_told() {
    let mut image = valid();
    let mut footer = footer_of(&image);
    footer.time_stamp = 99.into();
    image[..512].copy_from_slice(footer.sealed().as_bytes());
    warned(image, "footer-copies-differ");
}

#[test]
fn footers_of_511_bytes_are_read() {
    let mut image = valid();
    image.pop();
    assert!(open_bytes(image).unwrap().warnings.is_empty());
}

#[test]
fn footer_fields_are_checked() {
    let end = valid().len() as u64 - 512;
    let check =
        |change: fn(&mut Footer), kind, by| refused(with_footer(change), kind, "VHD footer", end + by);
    check(|f| f.version = 0x0002_0000.into(), ErrorKind::Unsupported, 12);
    check(|f| f.saved_state = 1, ErrorKind::Unsupported, 84);
    for kind in [0u32, 1, 5, 6, 77] {
        let image = with_footer(|f| f.disk_type = kind.into());
        refused(image, ErrorKind::Unsupported, "VHD footer", end + 60);
    }
    check(|f| f.current_size = 0.into(), ErrorKind::Corrupt, 48);
    check(|f| f.current_size = 513.into(), ErrorKind::Corrupt, 48);
    check(|f| f.current_size = ((2040 << 30) + 512).into(), ErrorKind::LimitExceeded, 48);
    check(|f| f.current_size = (u64::MAX - 511).into(), ErrorKind::LimitExceeded, 48);
    for at in [0, 511, 513, u64::MAX, u64::MAX - 511, end + 512] {
        let image = with_footer(|f| f.data_offset = at.into());
        refused(image, ErrorKind::Corrupt, "VHD footer", end + 16);
    }
}

#[test]
fn a_header_offset_in_a_loop_is_no_header() {
    let image = with_footer(|f| f.data_offset = (valid().len() as u64 - 1024).into());
    assert_eq!(refusal(image).kind(), ErrorKind::Corrupt);
}

#[test]
fn header_fields_are_checked() {
    let check = |change: fn(&mut DynamicHeader), kind, by: u64| {
        refused(with_header(change), kind, "VHD dynamic header", 512 + by);
    };
    check(|h| h.cookie = *b"cxsparsf", ErrorKind::Corrupt, 0);
    check(|h| h.header_version = 0.into(), ErrorKind::Unsupported, 24);
    for size in [0u32, 256, 513, 65_535, 3 << 20] {
        refused(with_header(|h| h.block_size = size.into()), ErrorKind::Corrupt, "VHD dynamic header", 544);
    }
    check(|h| h.block_size = (1u32 << 31).into(), ErrorKind::LimitExceeded, 32);
    check(|h| h.max_table_entries = 9.into(), ErrorKind::Corrupt, 28);
    check(|h| h.max_table_entries = u32::MAX.into(), ErrorKind::Corrupt, 16);
    for at in [0u64, 512, 1024, u64::MAX, u64::MAX - 39, 1 << 40] {
        refused(with_header(|h| h.table_offset = at.into()), ErrorKind::Corrupt, "VHD dynamic header", 528);
    }
    let mut image = valid();
    image[600] ^= 1;
    refused(image, ErrorKind::Corrupt, "VHD dynamic header", 548);
}

#[test]
fn bat_entries_are_checked() {
    let (first, second) = (entry_of(&valid(), 1), entry_of(&valid(), 4));
    let past = u32::try_from(valid().len() / 512).unwrap();
    // In a header, in the BAT, past the end: the entry itself is named.
    for sector in [0, 1, 2, 3, past, past - 1, u32::MAX - 1] {
        refused(with_entry(2, sector), ErrorKind::Corrupt, "VHD BAT", 1536 + 8);
    }
    // On another block: the one that lies later in the file is named.
    for sector in [first, first - 1, first + 1, second, second - 1] {
        let error = refusal(with_entry(2, sector));
        let site = error.site().unwrap();
        assert_eq!((error.kind(), site.structure), (ErrorKind::Corrupt, "VHD BAT"), "{sector}: {error}");
        assert!([4, 8, 16].contains(&(site.offset - 1536)), "{sector}: {error}");
    }
}

#[test]
fn a_table_longer_than_the_disk_is_fine_and_what_is_beyond_is_told() {
    let image = with_header(|h| h.max_table_entries = 12.into());
    assert_eq!(open_bytes(image.clone()).unwrap().block_count(), 10);
    let mut beyond = image;
    beyond[1536 + 44..][..4].copy_from_slice(&5u32.to_be_bytes());
    warned(beyond, "blocks-past-end");
}

#[test]
fn sizes_that_disagree_keep_the_larger() {
    let image = with_footer(|f| {
        f.creator_application = *b"vpc ";
        (f.cylinders, f.heads, f.sectors_per_track) = (10.into(), 4, 17);
    });
    let image = warned(image, "sizes-disagree");
    assert_eq!(image.geometry.virtual_size, 10 * 4 * 17 * 512);
    assert_eq!(image.geometry.addressable_size, DISK);
}

#[test]
fn xenserver_marks_are_told() {
    warned(with_footer(|f| f.reserved[0] = 1), "xen-hidden");
}

#[test]
fn early_xenserver_programs_hid_a_disk_without_a_new_checksum() {
    let hidden = |creator: [u8; 4], version: u32| {
        let mut image = with_footer(|f| {
            f.creator_application = creator;
            f.creator_version = version.into();
        });
        let end = image.len() - 512;
        (image[85], image[end + 85]) = (1, 1);
        image
    };
    for version in [1, 0x0001_0001] {
        warned(hidden(*b"tap\0", version), "xen-hidden");
    }
    for image in [hidden(*b"tap\0", 0x0001_0003), hidden(*b"win ", 1)] {
        refused(image, ErrorKind::Corrupt, "VHD footer", valid().len() as u64 - 512);
    }
}

#[test]
fn two_footers_of_different_sizes_keep_the_larger() {
    let footers = |first: u64, last: u64| {
        let mut image = valid();
        let end = image.len() - 512;
        for (at, size) in [(0, first), (end, last)] {
            let mut footer = footer_of(&valid());
            footer.current_size = size.into();
            image[at..at + 512].copy_from_slice(footer.sealed().as_bytes());
        }
        image
    };
    for (first, last) in [(DISK, DISK / 2), (DISK / 2, DISK)] {
        let image = warned(footers(first, last), "footer-sizes-differ");
        assert_eq!((image.geometry.virtual_size, image.geometry.addressable_size), (DISK, DISK));
        let Metadata::Vhd(metadata) = &image.metadata else { panic!("a VHD") };
        assert_eq!(metadata.footer.current_size.get(), DISK, "both copies of a new image name the larger");
    }
    // The BAT has no room for the larger: then no program can read it.
    let image = warned(footers(DISK * 2, DISK), "footer-sizes-differ");
    assert_eq!((image.geometry.virtual_size, image.geometry.addressable_size), (DISK, DISK));
}

#[test]
fn two_footers_of_different_disks_are_refused() {
    for change in [
        (|f| f.disk_type = 4.into()) as fn(&mut Footer),
        |f| f.data_offset = 1024.into(),
        |f| f.saved_state = 1,
        |f| f.current_size = 0.into(),
    ] {
        let mut image = valid();
        let mut footer = footer_of(&image);
        change(&mut footer);
        image[..512].copy_from_slice(footer.sealed().as_bytes());
        assert_eq!(refusal(image).site().unwrap().structure, "VHD footer");
    }
    // A fixed disk has no mirror: what stands at its start is a guest's.
    let mut image = valid();
    let mut footer = footer_of(&image);
    footer.disk_type = 2.into();
    footer.current_size = 4096.into();
    let end = image.len() - 512;
    image[end..].copy_from_slice(footer.sealed().as_bytes());
    let opened = open_bytes(image).unwrap();
    assert_eq!((opened.disk_type, opened.geometry.addressable_size), (DiskType::Fixed, 4096));
}

#[test]
fn large_fixed_disks_are_read_and_larger_dynamic_ones_are_not_written() {
    let size = (2040u64 << 30) + 512;
    let Metadata::Vhd(metadata) = open_bytes(valid()).unwrap().metadata else { panic!("a VHD") };
    let writer = |size| Writer::like(&metadata, size, BlockSize::MIB_2, DiskType::Dynamic);
    assert!(writer(size - 512).is_ok());
    assert_eq!(writer(size).err().unwrap().kind(), ErrorKind::LimitExceeded);
    for (size, fits) in [(size, true), (64 << 40, true), ((64 << 40) + 512, false)] {
        let mut footer = footer_of(&valid());
        (footer.disk_type, footer.current_size) = (2.into(), size.into());
        let file = Sparse { size: size + 512, footer: footer.sealed() };
        let opened = open(Rc::new(file) as Rc<dyn ReadAt>);
        assert_eq!(opened.is_ok(), fits, "{size}");
        if let Ok(opened) = opened {
            assert_eq!((opened.disk_type, opened.geometry.addressable_size), (DiskType::Fixed, size));
            assert_eq!(
                opened.blocks.get(opened.block_count() - 1).payload().unwrap().get(),
                (size - 1) >> 21 << 21
            );
        } else {
            assert_eq!(opened.err().unwrap().kind(), ErrorKind::LimitExceeded);
        }
    }
}

/// A dynamic disk of the smallest blocks, with all of them present, in the file from the last to the first.
struct Backwards {
    head: Vec<u8>,
    footer: Footer,
    blocks: u64,
    entries: u64,
}

impl Backwards {
    const TABLE: u64 = 1536;

    fn new(blocks: u64) -> Self {
        Self::with_entries(blocks, blocks)
    }

    /// The entries past those of the blocks are zero: sector 0, and not "not present".
    fn with_entries(blocks: u64, entries: u64) -> Self {
        let mut footer = footer_of(&valid());
        footer.current_size = (blocks * 512).into();
        let mut header = header_of(&valid());
        header.max_table_entries = u32::try_from(entries).unwrap().into();
        header.block_size = 512.into();
        let footer = footer.sealed();
        Self { head: [footer.as_bytes(), header.sealed().as_bytes()].concat(), footer, blocks, entries }
    }

    fn first_block(&self) -> u64 {
        (Self::TABLE + 4 * self.entries).next_multiple_of(512)
    }
}

impl ReadAt for Backwards {
    fn size(&self) -> u64 {
        self.first_block() + self.blocks * 1024 + 512
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        if offset >= self.size() - 512 {
            buf.copy_from_slice(&self.footer.as_bytes()[..buf.len()]);
        } else if offset < Self::TABLE {
            let part = &self.head[offset as usize..];
            let len = part.len().min(buf.len());
            buf[..len].copy_from_slice(&part[..len]);
        } else {
            let first = (offset - Self::TABLE) / 4;
            for (entry, word) in (first..self.blocks).zip(buf.chunks_exact_mut(4)) {
                let sector = (self.first_block() + (self.blocks - 1 - entry) * 1024) / 512;
                word.copy_from_slice(&u32::try_from(sector).unwrap().to_be_bytes());
            }
        }
        Ok(())
    }
}

#[test]
fn a_disk_has_so_many_blocks_and_no_more() {
    let limit = 1 << 23;
    let opened = open(Rc::new(Backwards::new(limit)) as Rc<dyn ReadAt>).unwrap();
    assert_eq!((opened.block_count(), opened.blocks.present()), (limit, limit));
    let error = open(Rc::new(Backwards::new(limit + 1)) as Rc<dyn ReadAt>).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // The largest disk that a VHD holds is within the limit in blocks of 256 KiB.
    assert!((2040u64 << 30).div_ceil(256 << 10) <= limit);
}

#[test]
fn a_disk_is_so_large_and_no_larger() {
    let with_size = |size: u64| refusal(with_footer(|f| f.current_size = size.into()));
    // The table of this image is too short for either.
    assert_eq!(with_size(2040 << 30).site().unwrap().structure, "VHD dynamic header");
    assert_eq!(with_size((2040 << 30) + 512).kind(), ErrorKind::LimitExceeded);
}

#[test]
fn blocks_are_so_large_and_no_larger() {
    let disk = 4 << 30;
    assert_eq!(open_bytes(dynamic(disk, 1 << 30, &[])).unwrap().block_count(), 4);
    let larger = with_header(|h| h.block_size = (2u32 << 30).into());
    refused(larger, ErrorKind::LimitExceeded, "VHD dynamic header", 512 + 32);
    assert_eq!(open_bytes(dynamic(4096, 512, &[])).unwrap().block_count(), 8);
    let smaller = with_header(|h| h.block_size = 256.into());
    refused(smaller, ErrorKind::Corrupt, "VHD dynamic header", 512 + 32);
}

#[test]
fn entries_past_the_disk_are_counted_so_far_and_no_further() {
    let limit = 1 << 23;
    for (beyond, counted) in [(limit, limit), (limit + 1, limit)] {
        let file = Backwards::with_entries(4, 4 + beyond);
        let opened = open(Rc::new(file) as Rc<dyn ReadAt>).unwrap();
        let warning = opened.warnings.iter().find(|warning| warning.code == "blocks-past-end").unwrap();
        assert!(warning.message.starts_with(&format!("{counted} blocks")), "{}", warning.message);
    }
}

#[test]
fn a_parent_locator_is_so_long_and_no_longer() {
    let with_locator = |len: u32| {
        let mut image = with_footer(|f| f.disk_type = 4.into());
        let mut header = header_of(&image);
        header.parent_locators[0].platform_code = *b"W2ru";
        header.parent_locators[0].data_length = len.into();
        header.parent_locators[0].data_offset = 4096.into();
        image[512..1536].copy_from_slice(header.sealed().as_bytes());
        open_bytes(image)
    };
    assert!(with_locator(64 << 10).is_ok());
    let error = with_locator((64 << 10) + 1).err().unwrap();
    assert_eq!(
        (error.kind(), error.site().unwrap().structure),
        (ErrorKind::LimitExceeded, "VHD parent locator")
    );
}

/// A file of zeros that ends with a footer.
struct Sparse {
    size: u64,
    footer: Footer,
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            let in_footer = (at + 512).checked_sub(self.size);
            *byte = in_footer.map_or(0, |by| self.footer.as_bytes()[by as usize]);
        }
        Ok(())
    }
}

#[test]
fn fixed_disks_are_measured() {
    let mut image = with_footer(|f| f.disk_type = 2.into());
    let footer = footer_of(&image).sealed();
    image.truncate(512);
    image.extend(footer.as_bytes());
    assert_eq!(refusal(image).kind(), ErrorKind::Corrupt);
    let mut image = vec![0; DISK as usize];
    image.extend(footer.as_bytes());
    assert_eq!(open_bytes(image).unwrap().disk_type, DiskType::Fixed);
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_read_by_its_mirror() {
    let whole = valid();
    for len in [0, 1, 510, 511, 512, 1000, 1535, 1536, 1570, 4096, 5000, 70_000, whole.len() - 600] {
        let error = refusal(whole[..len].to_vec());
        assert!(matches!(error.kind(), ErrorKind::Corrupt), "{len}: {error}");
    }
}

proptest! {
    /// Whatever single bytes are changed: an image or an error, never a panic; and what opens can be
    /// read from its first byte to its last.
    #[test]
    fn damage_never_panics(changes in proptest::collection::vec((0usize..2200, any::<u8>()), 1..8), tail in any::<bool>()) {
        let mut image = valid();
        let base = if tail { image.len() - 512 } else { 0 };
        for (at, value) in changes {
            let at = (base + at).min(image.len() - 1);
            image[at] = value;
        }
        if let Ok(opened) = open_bytes(image) {
            prop_assume!(opened.geometry.addressable_size <= 64 << 20 && opened.parent.is_none());
            let disk = crate::image::Disk::of_layers(vec![Rc::new(opened)]).unwrap();
            crate::io::read_vec(&disk, 0, disk.size() as usize).unwrap();
        }
    }
}
