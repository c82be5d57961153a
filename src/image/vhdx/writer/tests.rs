//! What the writer lays out, read back.

use std::ops::Range;
use std::rc::Rc;

use super::*;
use crate::image::testing::assemble;
use crate::image::vhdx::metadata::Item;
use crate::image::vhdx::testing::{DATA_WRITE, ITEMS, PARENT, TestImage};
use crate::image::{BitOrder, BlockState, Disk, Image, Metadata as AnyMetadata, SectorBitmap, vhdx};
use crate::io::read_vec;
use crate::units::FileOffset;
use proptest::prelude::*;

const GUIDS: Guids = Guids {
    file_write: Uuid::from_u128(0xf11e),
    data_write: Uuid::from_u128(0xda7a),
    virtual_disk: Uuid::from_u128(0xd15c),
};

/// Bits that tell blocks apart; every seventh block has none, which stands for "all its own".
struct Bits(usize, u64);

impl BitmapSource for Bits {
    fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
        let bits = vec![block as u8; self.0];
        let bitmap = SectorBitmap::new(bits, BitOrder::LeastSignificantFirst, self.1);
        Ok((!block.is_multiple_of(7)).then_some(bitmap))
    }
    fn stored_at(&self, _block: u64) -> Option<Range<u64>> {
        None
    }
}

fn plan(states: &[OutState]) -> BlockPlan {
    let mut plan = BlockPlan::new(states.len() as u64).unwrap();
    for (block, &state) in states.iter().enumerate() {
        plan.set(block as u64, state);
    }
    plan.seal();
    plan
}

fn metadata(image: &Image) -> &Metadata {
    let AnyMetadata::Vhdx(metadata) = &image.metadata else { panic!() };
    metadata
}

#[test]
fn a_new_disk_is_read_back() {
    let plan = plan(&[OutState::NotPresent, OutState::Present, OutState::Zero, OutState::Present]);
    let writer = Writer::new((3 << 20) + 4096, 4096, 4096, BlockSize::MIB_1, &GUIDS).unwrap();
    let file = assemble(&writer, &plan, &Bits(0, 4096));
    assert_eq!(file.len(), 6 << 20);
    let image = vhdx::open(Rc::new(file.clone())).unwrap();
    assert!(image.warnings.is_empty());
    assert_eq!(image.disk_type, DiskType::Dynamic);
    assert_eq!(image.creator, "vhd-compactor 0.1");
    assert_eq!(image.geometry.virtual_size, (3 << 20) + 4096);
    assert_eq!((image.geometry.logical_sector_size, image.geometry.physical_sector_size), (4096, 4096));
    assert_eq!(image.identity, GUIDS.data_write);
    assert_eq!(metadata(&image).file_write_guid, GUIDS.file_write);
    assert_eq!(metadata(&image).virtual_disk_id, GUIDS.virtual_disk);
    let states: Vec<_> = (0..4).map(|block| image.blocks.get(block)).collect();
    let at = |mib: u64| BlockState::Present(FileOffset::new(mib << 20));
    assert_eq!(states, [BlockState::NotPresent, at(4), BlockState::Zero, at(5)]);
    // Byte for byte where the specification puts it; Windows' order of regions.
    assert_eq!(&file[..8], b"vhdxfile");
    assert_eq!(&file[64 << 10..(64 << 10) + 4], b"head");
    assert_eq!(file[192 << 10..256 << 10], file[256 << 10..320 << 10]);
    assert!(file[1 << 20..2 << 20].iter().all(|&byte| byte == 0));
    assert_eq!(&file[2 << 20..(2 << 20) + 8], b"metadata");
    assert_eq!(
        file[(3 << 20)..(3 << 20) + 32],
        [[0u64, 4 << 20 | 6, 2, 5 << 20 | 6].map(u64::to_le_bytes)].concat().concat()
    );
}

#[test]
fn what_the_source_is_stays() {
    let mut source = TestImage::dynamic();
    source.item(5, "00000000-0000-0000-0000-00000000abcd", ITEMS + 100, 5, 2);
    source.put(ITEMS + 100, b"hello");
    source.item(6, "00000000-0000-0000-0000-00000000abcd", 0, 0, 3);
    source.put32(ITEMS + 4, 1);
    let source = source.open().unwrap();
    assert_eq!(source.disk_type, DiskType::Fixed);
    for (changed, identity) in [(false, DATA_WRITE), (true, GUIDS.data_write)] {
        let writer = Writer::like(
            metadata(&source),
            &source.geometry,
            DiskType::Dynamic,
            source.geometry.block_size,
            &GUIDS,
            changed,
        )
        .unwrap();
        let file = assemble(&writer, &plan(&[OutState::NotPresent; 4]), &Bits(0, 512));
        let image = vhdx::open(Rc::new(file)).unwrap();
        assert_eq!(image.identity, identity);
        assert_eq!(image.disk_type, DiskType::Dynamic);
        assert_eq!(image.geometry, source.geometry);
        let (old, new) = (metadata(&source), metadata(&image));
        assert_eq!((new.virtual_disk_id, &new.items), (old.virtual_disk_id, &old.items));
        assert_eq!(new.file_write_guid, GUIDS.file_write);
    }
}

#[test]
fn a_differencing_disk_keeps_its_parent_or_loses_it() {
    let source = TestImage::differencing().open().unwrap();
    let like = |disk_type| {
        Writer::like(metadata(&source), &source.geometry, disk_type, BlockSize::MIB_1, &GUIDS, false)
    };
    let states =
        [OutState::PartiallyPresent, OutState::NotPresent, OutState::Present, OutState::PartiallyPresent];
    let writer = like(DiskType::Differencing).unwrap();
    let file = assemble(&writer, &plan(&states), &Bits(256, 512));
    let image = vhdx::open(Rc::new(file.clone())).unwrap();
    assert_eq!(image.disk_type, DiskType::Differencing);
    assert_eq!(image.parent, source.parent);
    assert_eq!(image.parent.as_ref().unwrap().ids, [PARENT]);
    assert_eq!(image.blocks.get(0), BlockState::PartiallyPresent(FileOffset::new(5 << 20)));
    // Block 0 has no bitmap, so it is all its own; block 2 is present as a whole.
    let bits = &file[4 << 20..5 << 20];
    assert_eq!(bits[..256], [0xff; 256]);
    assert_eq!(bits[256..512], [0; 256]);
    assert_eq!(bits[512..768], [0xff; 256]);
    assert_eq!(bits[768..1024], [3; 256]);
    assert!(bits[1024..].iter().all(|&byte| byte == 0));
    // Without a partially present block there is no sector bitmap block.
    let full = plan(&[OutState::Present, OutState::Zero, OutState::NotPresent, OutState::NotPresent]);
    assert_eq!(writer.file_size(&full).unwrap(), 5 << 20);
    let merged = vhdx::open(Rc::new(assemble(&like(DiskType::Dynamic).unwrap(), &full, &Bits(256, 512))));
    let merged = merged.unwrap();
    assert_eq!((merged.disk_type, &merged.parent), (DiskType::Dynamic, &None));
    assert!(like(DiskType::Dynamic).unwrap().file_size(&plan(&states)).is_err());
    assert_eq!(like(DiskType::Fixed).err().unwrap().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn sector_bitmaps_of_the_wrong_length_are_noticed() {
    let source = TestImage::differencing().open().unwrap();
    let writer = Writer::like(
        metadata(&source),
        &source.geometry,
        DiskType::Differencing,
        BlockSize::MIB_2,
        &GUIDS,
        false,
    );
    let plan = plan(&[OutState::NotPresent, OutState::PartiallyPresent]);
    let error = writer.unwrap().front(&plan, &Bits(256, 512), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn senseless_arguments_are_refused() {
    let new = |size, logical, physical, block| {
        Writer::new(size, logical, physical, block, &GUIDS).err().map(|error| error.kind())
    };
    assert_eq!(new(1 << 30, 512, 4096, BlockSize::MIB_1), None);
    for block in [512 << 10, 512 << 20, 1 << 63] {
        let block = BlockSize::new(block).unwrap();
        assert_eq!(new(1 << 30, 512, 512, block), Some(ErrorKind::InvalidArgument));
    }
    assert_eq!(new(1 << 30, 1024, 512, BlockSize::MIB_1), Some(ErrorKind::InvalidArgument));
    assert_eq!(new(1 << 30, 512, 0, BlockSize::MIB_1), Some(ErrorKind::InvalidArgument));
    assert_eq!(new(0, 512, 512, BlockSize::MIB_1), Some(ErrorKind::InvalidArgument));
    assert_eq!(new(512, 4096, 512, BlockSize::MIB_1), Some(ErrorKind::InvalidArgument));
    assert_eq!(new((64 << 40) + 512, 512, 512, BlockSize::MIB_1), Some(ErrorKind::LimitExceeded));
}

#[test]
fn much_metadata_moves_the_bat() {
    let mut source = metadata(&TestImage::dynamic().open().unwrap()).clone();
    source.items = (0..3u8)
        .map(|n| Item { id: Uuid::from_u128(n.into()), flags: 1, data: vec![n + 1; 700_000] })
        .collect();
    let geometry = TestImage::dynamic().open().unwrap().geometry;
    let writer =
        Writer::like(&source, &geometry, DiskType::Dynamic, BlockSize::MIB_1, &GUIDS, false).unwrap();
    let states = [OutState::NotPresent, OutState::NotPresent, OutState::NotPresent, OutState::Present];
    let file = assemble(&writer, &plan(&states), &Bits(0, 512));
    let image = vhdx::open(Rc::new(file)).unwrap();
    assert_eq!(metadata(&image).items, source.items);
    assert_eq!(image.blocks.get(3), BlockState::Present(FileOffset::new(6 << 20)));
}

/// The BAT of the largest disk in the smallest blocks is 513 MiB; it is made and read in pieces.
#[test]
fn the_largest_disk_is_made_in_small_steps() {
    let writer = Writer::new(64 << 40, 512, 4096, BlockSize::MIB_1, &GUIDS).unwrap();
    let mut plan = BlockPlan::new(64 << 20).unwrap();
    let last = (64 << 20) - 1;
    plan.set(last, OutState::Present);
    plan.seal();
    let (mut size, mut step) = (0, 0);
    while let Some(pieces) = writer.front(&plan, &Bits(0, 512), step).unwrap() {
        let len: u64 = pieces.iter().map(Piece::len).sum();
        assert!(
            len <= 4 << 20
                && pieces.iter().all(|piece| !matches!(piece, Piece::Bytes(b) if b.len() > 1 << 20))
        );
        size += len;
        step += 1;
    }
    assert_eq!(step, 514);
    assert_eq!(size + (1 << 20), writer.file_size(&plan).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_plan_is_read_back(
        pattern in proptest::collection::vec((0u8..4, 1usize..90), 1..24),
        large in proptest::bool::ANY,
    ) {
        // 32 768 blocks of 1 MiB make a chunk of 4 KiB sectors; 16 of 256 MiB one of 512 B sectors. The file
        // is not assembled: only its front is made and read, with a source that is as long as it should be.
        let states: Vec<OutState> = pattern.iter().flat_map(|&(state, count)| {
            let state = match state {
                0 => OutState::NotPresent,
                1 => OutState::Zero,
                2 => OutState::Present,
                _ => OutState::PartiallyPresent,
            };
            std::iter::repeat_n(state, if large { count } else { count * 700 })
        }).collect();
        let (block_size, sector) = if large { (BlockSize::MIB_256, 512u32) } else { (BlockSize::MIB_1, 4096) };
        let mut geometry = TestImage::differencing().open().unwrap().geometry;
        geometry.virtual_size = states.len() as u64 * block_size.get();
        geometry.logical_sector_size = sector;
        let source = TestImage::differencing().open().unwrap();
        let of = metadata(&source);
        let writer = Writer::like(of, &geometry, DiskType::Differencing, block_size, &GUIDS, false).unwrap();
        let plan = plan(&states);
        let bitmaps = Bits((block_size.get() / 8 / u64::from(sector)) as usize, sector.into());
        let (mut file, mut step) = (Vec::new(), 0);
        while let Some(pieces) = writer.front(&plan, &bitmaps, step).unwrap() {
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) => file.extend(bytes),
                    other => file.resize(file.len() + other.len() as usize, 0),
                }
            }
            step += 1;
        }
        let front = file.len() as u64;
        let mut whole = crate::io::Overlay::new(file);
        whole.extend_to(writer.file_size(&plan).unwrap());
        let image = vhdx::open(Rc::new(whole)).unwrap();
        let mut next = front;
        for (block, &state) in states.iter().enumerate() {
            let block = block as u64;
            let at = FileOffset::new(next);
            let expected = match state {
                OutState::NotPresent => BlockState::NotPresent,
                OutState::Zero => BlockState::Zero,
                OutState::Present => BlockState::Present(at),
                OutState::PartiallyPresent => BlockState::PartiallyPresent(at),
            };
            prop_assert_eq!(image.blocks.get(block), expected);
            if expected.payload().is_some() {
                next += block_size.get();
            }
            if state == OutState::PartiallyPresent && block.is_multiple_of(5) {
                let stored = image.sector_bitmap(block).unwrap().unwrap();
                let ones = vec![0xff; bitmaps.0];
                let own = bitmaps.bitmap(block).unwrap();
                prop_assert_eq!(stored.as_bytes(), own.as_ref().map_or(ones.as_slice(), SectorBitmap::as_bytes));
            }
        }
        prop_assert_eq!(next, writer.file_size(&plan).unwrap());
    }
}

#[test]
fn payload_is_read_where_it_was_put() {
    let states = [OutState::Present, OutState::Zero, OutState::Present, OutState::NotPresent];
    let writer = Writer::new(8 << 20, 512, 512, BlockSize::MIB_2, &GUIDS).unwrap();
    let file = assemble(&writer, &plan(&states), &Bits(0, 512));
    let disk = Disk::of_layers(vec![Rc::new(vhdx::open(Rc::new(file)).unwrap())]).unwrap();
    let bytes = read_vec(&disk, 0, 8 << 20).unwrap();
    assert!(bytes[4 << 20..6 << 20].iter().all(|&byte| byte == 2));
    assert!(bytes[..4 << 20].iter().chain(&bytes[6 << 20..]).all(|&byte| byte == 0));
}
