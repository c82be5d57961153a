//! The block allocation table: the state and the place of every block (MS-VHDX 2.5).
//!
//! ```text
//!   ├─ chunk 0: `ratio` payload entries ─┤ sector bitmap ├─ chunk 1: … ─┤ sector bitmap │ …
//!   entry, 64 bits:  FileOffsetMB (44) │ reserved (17) │ state (3)
//! ```
//! The sector bitmap entries are there in every disk and mean something in differencing ones only,
//! whose table also ends on one.

use std::ops::Range;

use super::format::{
    BAT_OFFSET, BAT_RESERVED, BAT_STATE, FULLY_PRESENT, MIB, PAYLOAD_NOT_PRESENT, PAYLOAD_PARTIALLY_PRESENT,
    PAYLOAD_UNDEFINED, PAYLOAD_UNMAPPED, PAYLOAD_UNMAPPED_V095, PAYLOAD_ZERO, bat_entries, chunk_ratio,
};
use super::metadata::DiskMetadata;
use super::space::{Conflict, FileSpace, file_range};
use crate::error::{Error, Result, Site, Warning};
use crate::image::{Bitmaps, BlockState, BlockTable};
use crate::io::{ReadAt, read_vec};
use crate::units::{FileOffset, Space, add, index, len64, length, mul};

/// How much of the BAT is read at a time.
const RUN: u64 = 1 << 20;
/// Most blocks that are present: 2²⁵, which is 32 TiB in blocks of 1 MiB. Scattered all over the file they take
/// 128 MiB of memory.
const MAX_PRESENT: u64 = 1 << 25;

/// Reads the BAT at `region` and takes the space of every block that is present.
pub fn read_bat<R: ReadAt + ?Sized>(
    file: &R,
    region: &Range<u64>,
    disk: &DiskMetadata,
    space: &mut FileSpace,
    warnings: &mut Vec<Warning>,
) -> Result<(BlockTable, Bitmaps)> {
    let blocks = disk.block_size.count_for(disk.virtual_size);
    let ratio = chunk_ratio(disk.block_size, u64::from(disk.logical_sector_size));
    let entries = bat_entries(blocks, ratio, disk.has_parent)?;
    let room = length(region) / 8;
    let mut bat = Bat {
        at: region.start,
        disk,
        space,
        blocks,
        ratio,
        table: BlockTable::new(),
        bitmaps: Vec::new(),
        needs_bitmap: None,
        stray: 0,
        partial_without_parent: 0,
    };
    if room < entries {
        return Err(Error::corrupt(bat.site(0)?, "the BAT is too short for the disk")
            .expected(format_args!("{entries} entries or more"), room));
    }
    let mut entry = 0;
    while entry < entries {
        let count = length(&(entry..entries)).min(RUN / 8);
        let from = add(region.start, mul(entry, 8, "the BAT")?, "the BAT")?;
        let bytes = read_vec(file, from, index(mul(count, 8, "the BAT")?, "the BAT")?)?;
        bat.take_run(entry, count, &bytes)?;
        entry = add(entry, count, "the BAT")?;
    }
    bat.finish(warnings)
}

struct Bat<'a> {
    at: u64,
    disk: &'a DiskMetadata,
    space: &'a mut FileSpace,
    blocks: u64,
    ratio: u64,
    table: BlockTable,
    bitmaps: Vec<Option<FileOffset>>,
    /// The last block that is partially present, until its chunk's bitmap entry is met.
    needs_bitmap: Option<u64>,
    /// Sector bitmap entries of a disk without a parent that hold something.
    stray: u64,
    /// Blocks of a disk without a parent that are partially present: read as whole.
    partial_without_parent: u64,
}

impl Bat<'_> {
    fn site(&self, entry: u64) -> Result<Site> {
        let offset = add(self.at, mul(entry, 8, "the BAT")?, "the BAT")?;
        Ok(Site { structure: "VHDX BAT", space: Space::File, offset })
    }

    /// Takes the entries `entry .. entry + count`.
    fn take_run(&mut self, entry: u64, count: u64, bytes: &[u8]) -> Result<()> {
        // What was never written is long; one look at it is enough.
        if !self.disk.has_parent && bytes.iter().all(|&byte| byte == 0) {
            let before = length(&(self.bitmap_entries_before(entry)..entry));
            let end = add(entry, count, "the BAT")?;
            let after = length(&(self.bitmap_entries_before(end)..end)).min(self.blocks);
            return self.table.push_many(BlockState::NotPresent, length(&(before..after)));
        }
        let (words, _) = bytes.as_chunks::<8>();
        let mut rest = words;
        let mut number = entry;
        while let Some(&first) = rest.first() {
            let word = u64::from_le_bytes(first);
            if word & BAT_RESERVED != 0 {
                return Err(Error::corrupt(self.site(number)?, "a reserved bit of a BAT entry is in use")
                    .expected("bits 3 to 19 clear", format_args!("{word:#x}")));
            }
            let left_in_chunk = self.ratio.wrapping_sub(self.place_in_chunk(number));
            let mut taken = 1;
            if left_in_chunk == 0 {
                self.take_bitmap(number, word)?;
            } else {
                // Millions of blocks may be in one state: a stretch of equal words without a place is taken at
                // once.
                let left = usize::try_from(left_in_chunk).unwrap_or(usize::MAX);
                let same = rest.iter().take(left).take_while(|other| **other == first).count();
                match self.state_without_payload(word) {
                    Some(state) if same > 1 => {
                        let past_end = length(&(self.table.len()..self.blocks));
                        self.table.push_many(state, len64(same).min(past_end))?;
                        taken = same;
                    }
                    _ => self.take_payload(number, word)?,
                }
            }
            rest = rest.get(taken..).ok_or_else(|| Error::internal("a BAT run of the wrong length"))?;
            number = add(number, len64(taken), "the BAT")?;
        }
        Ok(())
    }

    /// Which entry of its chunk an entry is; the last one is the sector bitmap's.
    fn place_in_chunk(&self, entry: u64) -> u64 {
        // A chunk ratio is at most 2¹⁵.
        entry.checked_rem(self.ratio.wrapping_add(1)).unwrap_or(0)
    }

    /// The state of a block without payload. A place in these states is left from before and means nothing
    /// (2.5.1.1).
    fn state_without_payload(&self, word: u64) -> Option<BlockState> {
        match word & BAT_STATE {
            PAYLOAD_NOT_PRESENT => Some(BlockState::NotPresent),
            PAYLOAD_UNDEFINED => Some(BlockState::Undefined),
            PAYLOAD_ZERO => Some(BlockState::Zero),
            PAYLOAD_UNMAPPED | PAYLOAD_UNMAPPED_V095 => Some(BlockState::Unmapped),
            _ => None,
        }
    }

    fn bitmap_entries_before(&self, entry: u64) -> u64 {
        entry.checked_div(self.ratio.wrapping_add(1)).unwrap_or(0)
    }

    fn take_payload(&mut self, entry: u64, word: u64) -> Result<()> {
        let block = self.table.len();
        if block >= self.blocks {
            // A differencing BAT is filled up to its last sector bitmap entry.
            return Ok(());
        }
        if let Some(state) = self.state_without_payload(word) {
            return self.table.push(state);
        }
        let state = match word & BAT_STATE {
            FULLY_PRESENT => BlockState::Present(self.place_block(entry, block, word)?),
            PAYLOAD_PARTIALLY_PRESENT if self.disk.has_parent => {
                self.needs_bitmap = Some(block);
                BlockState::PartiallyPresent(self.place_block(entry, block, word)?)
            }
            // Without a parent there is nothing that the rest could be: openvmm reads such a block as whole.
            PAYLOAD_PARTIALLY_PRESENT => {
                self.partial_without_parent = add(self.partial_without_parent, 1, "a block count")?;
                BlockState::Present(self.place_block(entry, block, word)?)
            }
            other => {
                let message = format!("block {block} is in a state that is reserved");
                return Err(Error::corrupt(self.site(entry)?, message).expected("0 to 3, 6 or 7", other));
            }
        };
        self.table.push(state)
    }

    fn place_block(&mut self, entry: u64, block: u64, word: u64) -> Result<FileOffset> {
        if add(self.table.present(), self.table.partially_present(), "a block count")? >= MAX_PRESENT {
            return Err(Error::limit(
                self.site(entry)?,
                "more blocks are present than can be kept in memory",
            )
            .expected(format_args!("at most {MAX_PRESENT}"), "more"));
        }
        let offset = word & BAT_OFFSET;
        // The last block need only be as long as the disk.
        let span = self.disk.block_size.span(block, self.disk.virtual_size);
        let range = file_range(offset, length(&span));
        self.claim(entry, range, &format_args!("block {block}"))?;
        Ok(FileOffset::new(offset))
    }

    fn claim(&mut self, entry: u64, range: Range<u64>, what: &dyn std::fmt::Display) -> Result<()> {
        let conflict = match self.space.claim(range.clone()) {
            Ok(()) => return Ok(()),
            Err(conflict) => conflict,
        };
        let site = self.site(entry)?;
        let error = |message| Error::corrupt(site, message);
        let found = format!("{:#x}", range.start);
        Err(match conflict {
            Conflict::PastEnd => {
                error(format!("{what} lies past the end of the file (is the file cut off?)"))
                    .expected(format_args!("an end of at most {}", self.space.size()), range.end)
            }
            Conflict::Structure(name) => {
                error(format!("{what} overlaps {name}")).expected("an offset of its own", found)
            }
            Conflict::Block => match self.owner(&range) {
                Some(block) => error(format!("{what} overlaps block {block} in the file")),
                None => error(format!("{what} overlaps a sector bitmap block in the file")),
            }
            .expected("an offset of its own", found),
        })
    }

    /// The block that was placed in `range` before. Asked once, before giving up.
    fn owner(&self, range: &Range<u64>) -> Option<u64> {
        let mut at = 0;
        while let Some(block) = self.table.next_known(at) {
            let payload = self.table.get(block).payload().map(FileOffset::get);
            let size = self.disk.block_size.get();
            if payload.is_some_and(|p| p < range.end && range.start.checked_sub(p).is_none_or(|by| by < size))
            {
                return Some(block);
            }
            at = block.checked_add(1)?;
        }
        None
    }

    fn take_bitmap(&mut self, entry: u64, word: u64) -> Result<()> {
        let (state, offset) = (word & BAT_STATE, word & BAT_OFFSET);
        if !self.disk.has_parent {
            // QEMU before 8.0 leaves the state of a payload block here, and some programs a place: nothing reads
            // it, and VirtualBox and openvmm accept it.
            self.stray = add(self.stray, u64::from(word != 0), "a block count")?;
            return Ok(());
        }
        let needed = self.needs_bitmap.take();
        let place = match (state, needed) {
            (FULLY_PRESENT, _) => {
                let chunk = self.bitmap_entries_before(entry);
                let range = file_range(offset, MIB);
                self.claim(entry, range, &format_args!("the sector bitmap block of chunk {chunk}"))?;
                Some(FileOffset::new(offset))
            }
            (PAYLOAD_NOT_PRESENT, None) => None,
            (PAYLOAD_NOT_PRESENT, Some(block)) => {
                return Err(Error::corrupt(
                    self.site(entry)?,
                    format!("block {block} is partially present, and its sector bitmap block is not there"),
                )
                .expected(FULLY_PRESENT, state));
            }
            _ => {
                let message = "a sector bitmap block is in a state that is reserved";
                return Err(Error::corrupt(self.site(entry)?, message).expected("0 or 6", state));
            }
        };
        self.bitmaps.push(place);
        Ok(())
    }

    fn finish(self, warnings: &mut Vec<Warning>) -> Result<(BlockTable, Bitmaps)> {
        if self.table.len() != self.blocks {
            return Err(Error::internal("the block table has not one entry for each block"));
        }
        if self.stray > 0 {
            warnings.push(Warning::new(
                "bitmap-entries-in-use",
                format!(
                    "{} BAT entries for sector bitmaps are in use, in a disk without a parent (QEMU before 8.0 \
                     leaves them so). Nothing reads them; they are cleared.",
                    self.stray
                ),
            ));
        }
        if self.partial_without_parent > 0 {
            warnings.push(Warning::new(
                "partial-without-parent",
                format!(
                    "{} blocks are marked as partially present, in a disk without a parent. They are read as whole, \
                     as Microsoft's open-source reader does; QEMU and 7-Zip refuse such a disk. In the new image they \
                     are marked as whole.",
                    self.partial_without_parent
                ),
            ));
        }
        let bitmaps = if self.disk.has_parent {
            Bitmaps::Chunked { blocks: self.ratio, at: self.bitmaps }
        } else {
            Bitmaps::None
        };
        Ok((self.table, bitmaps))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BAT, BITMAP_ENTRY, DISK_SIZE, FILE_PARAMETERS, MIB as MB, REGIONS_1, REGIONS_2, TestImage, breaks,
    };
    use super::*;
    use crate::error::ErrorKind;

    fn present(mib: u64) -> BlockState {
        BlockState::Present(FileOffset::new(mib << 20))
    }

    #[test]
    fn every_state_is_read() {
        let mut image = TestImage::dynamic();
        image.put64(DISK_SIZE, 9 << 20);
        // A place in a state without payload means nothing, even if another block is there.
        for (entry, word) in [(3, 1), (4, 3), (5, 5), (6, 5 << 20 | 3), (7, 5 << 20 | 1), (8, 99 << 20)] {
            image.bat(entry, word);
        }
        let opened = image.open().unwrap();
        let states: Vec<BlockState> = (0..9).map(|block| opened.blocks.get(block)).collect();
        use BlockState::{NotPresent, Undefined, Unmapped, Zero};
        let expected =
            [present(4), Zero, present(5), Undefined, Unmapped, Unmapped, Unmapped, Undefined, NotPresent];
        assert_eq!(states, expected);
        assert_eq!((opened.block_count(), opened.bitmaps), (9, Bitmaps::None));
    }

    #[test]
    fn chunks_are_interleaved_with_bitmap_entries() {
        let mut image = TestImage::differencing();
        image.put64(DISK_SIZE, 4098 << 20);
        image.bytes.resize(10 * MB, 0);
        image.bat(4097, 7 << 20 | 7);
        image.bat(4098, 8 << 20 | 6);
        image.bat(4097 + 4096, 9 << 20 | 6);
        let opened = image.open().unwrap();
        assert_eq!(opened.block_count(), 4098);
        assert_eq!(opened.blocks.get(4096), BlockState::PartiallyPresent(FileOffset::new(7 << 20)));
        assert_eq!(opened.blocks.get(4097), present(8));
        let at = [6, 9].map(|mib| Some(FileOffset::new(mib << 20))).to_vec();
        assert_eq!(opened.bitmaps, Bitmaps::Chunked { blocks: 4096, at });
        let bitmap = opened.sector_bitmap(0).unwrap().unwrap();
        assert_eq!([0, 1, 2, 3].map(|sector| bitmap.is_set(sector)), [true, false, true, false]);
        assert_eq!(bitmap.as_bytes().len(), 256);
    }

    #[test]
    fn every_entry_is_checked() {
        let image = TestImage::dynamic();
        for bit in [3, 19] {
            breaks(&image, "reserved bit of a BAT entry", |i| i.bat(3, 1 << bit));
            breaks(&image, "reserved bit of a BAT entry", |i| i.bat(0, 4 << 20 | 6 | 1 << bit));
        }
        breaks(&image, "block 3 is in a state that is reserved", |i| i.bat(3, 4));
        breaks(&image, "block 0 overlaps the header section", |i| i.bat(0, 6));
        breaks(&image, "block 0 overlaps the log", |i| i.bat(0, 1 << 20 | 6));
        breaks(&image, "block 0 overlaps the metadata region", |i| i.bat(0, 2 << 20 | 6));
        breaks(&image, "block 0 overlaps the BAT", |i| i.bat(0, 3 << 20 | 6));
        breaks(&image, "block 2 overlaps block 0", |i| i.bat(2, 4 << 20 | 6));
        breaks(&image, "block 0 lies past the end", |i| i.bat(0, 6 << 20 | 6));
        breaks(&image, "block 0 lies past the end", |i| i.bat(0, u64::MAX << 20 | 6));
        breaks(&image, "block 0 overlaps the BAT", |i| {
            i.put32(FILE_PARAMETERS, 2 << 20);
            i.bat(0, 2 << 20 | 6);
            i.put32(REGIONS_1 + 48 + 24, 0);
            i.put32(REGIONS_2 + 48 + 24, 0);
            for table in [REGIONS_1, REGIONS_2] {
                i.region(table, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", 5 * MB, MB, 1);
            }
            let metadata = i.bytes[2 * MB..3 * MB].to_vec();
            i.put(5 * MB, &metadata);
        });
    }

    #[test]
    fn large_blocks_overlap_in_part() {
        let mut image = TestImage::dynamic();
        image.bytes.resize(16 * MB, 0);
        image.put32(FILE_PARAMETERS, 4 << 20);
        image.put64(DISK_SIZE, 12 << 20);
        image.bat(0, 4 << 20 | 6);
        image.bat(1, 12 << 20 | 6);
        image.bat(2, 8 << 20 | 6);
        image.open().unwrap();
        breaks(&image, "block 2 overlaps block 1", |i| i.bat(2, 9 << 20 | 6));
        breaks(&image, "block 2 overlaps block 0", |i| i.bat(2, 7 << 20 | 6));
        breaks(&image, "block 2 lies past the end", |i| i.bat(2, 13 << 20 | 6));
    }

    #[test]
    fn the_last_block_need_only_be_as_long_as_the_disk() {
        let mut image = TestImage::dynamic();
        image.bytes.truncate(6 * MB);
        image.bytes.resize(6 * MB + (512 << 10), 0xa3);
        image.bat(3, 6 << 20 | 6);
        let disk = image.disk();
        assert_eq!(read_vec(&disk, (3 << 20) + (512 << 10) - 1, 1).unwrap(), [0xa3]);
        image.bytes.pop();
        image.refused(ErrorKind::Corrupt, "block 3 lies past the end");
    }

    #[test]
    fn sector_bitmap_entries_are_checked() {
        let image = TestImage::differencing();
        breaks(&image, "block 0 is partially present, and its sector bitmap", |i| i.bat(BITMAP_ENTRY, 0));
        for state in [1, 2, 3, 4, 5, 7] {
            breaks(&image, "sector bitmap block is in a state", |i| i.bat(BITMAP_ENTRY, 6 << 20 | state));
        }
        breaks(&image, "chunk 0 overlaps block 2", |i| i.bat(BITMAP_ENTRY, 5 << 20 | 6));
        breaks(&image, "chunk 0 overlaps the header section", |i| i.bat(BITMAP_ENTRY, 6));
        breaks(&image, "chunk 0 lies past the end", |i| i.bat(BITMAP_ENTRY, 7 << 20 | 6));
        breaks(&image, "reserved bit of a BAT entry", |i| i.bat(BITMAP_ENTRY, 6 << 20 | 6 | 1 << 10));
        let mut next = image.clone();
        next.put64(DISK_SIZE, 4097 << 20);
        next.open().unwrap();
        breaks(&next, "block 4096 overlaps a sector bitmap block", |i| i.bat(4097, 6 << 20 | 6));
    }

    #[test]
    fn a_disk_without_a_parent_has_no_sector_bitmaps() {
        let mut image = TestImage::dynamic();
        image.put64(DISK_SIZE, 4097 << 20);
        // What QEMU before 8.0 leaves there.
        image.bat(BITMAP_ENTRY, 2);
        let codes: Vec<_> = image.open().unwrap().warnings.iter().map(|w| w.code).collect();
        assert_eq!(codes, ["bitmap-entries-in-use"]);
        // What others leave there, also where a block is, or outside the file: nothing reads it.
        for word in [5 << 20 | 6, 6, 5 << 20 | 2, 4 << 20 | 6, u64::MAX << 20 | 6, 7] {
            image.bat(BITMAP_ENTRY, word);
            let opened = image.open().unwrap();
            let codes: Vec<_> = opened.warnings.iter().map(|w| w.code).collect();
            assert_eq!((codes, opened.bitmaps), (vec!["bitmap-entries-in-use"], Bitmaps::None));
        }
    }

    #[test]
    fn a_block_that_is_partial_without_a_parent_is_whole() {
        let mut image = TestImage::dynamic();
        image.bat(0, 4 << 20 | 7);
        let opened = image.open().unwrap();
        assert_eq!(opened.blocks.get(0), present(4));
        assert_eq!((opened.blocks.present(), opened.blocks.partially_present()), (2, 0));
        assert_eq!(opened.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["partial-without-parent"]);
        // Its place is checked like any other.
        breaks(&image, "block 0 overlaps the BAT", |i| i.bat(0, 3 << 20 | 7));
        breaks(&image, "block 2 overlaps block 0", |i| i.bat(2, 4 << 20 | 7));
        breaks(&image, "block 0 lies past the end", |i| i.bat(0, 6 << 20 | 7));
    }

    /// A BAT whose every block is present, in the order of the disk.
    struct AllPresent;

    impl ReadAt for AllPresent {
        fn size(&self) -> u64 {
            u64::MAX
        }
        fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            for (entry, word) in (offset / 8..).zip(buf.chunks_exact_mut(8)) {
                let block = entry - entry / 4097;
                let value = if entry % 4097 == 4096 { 0 } else { ((block + 1) << 20) | 6 };
                word.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        }
    }

    #[test]
    fn so_many_blocks_are_present_and_no_more() {
        let with_blocks = |blocks: u64| {
            let disk = DiskMetadata {
                block_size: crate::image::BlockSize::MIB_1,
                leave_block_allocated: false,
                has_parent: false,
                virtual_size: blocks << 20,
                virtual_disk_id: uuid::Uuid::nil(),
                logical_sector_size: 512,
                physical_sector_size: 512,
                locator: None,
                others: Vec::new(),
            };
            let mut space = FileSpace::new((blocks + 1) << 20).unwrap();
            read_bat(&AllPresent, &(0..1 << 40), &disk, &mut space, &mut Vec::new())
                .map(|(table, _)| table.present())
        };
        assert_eq!(with_blocks(MAX_PRESENT).unwrap(), MAX_PRESENT);
        assert_eq!(with_blocks(MAX_PRESENT + 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn stretches_in_one_state_are_taken_at_once_and_to_the_block() {
        let mut image = TestImage::dynamic();
        image.put64(DISK_SIZE, 9000 << 20);
        for entry in 0..9002 {
            image.bat(entry, 2);
        }
        // Two chunks of 4096 and their sector bitmap entries; one block in the midst.
        image.bat(4096, 0);
        image.bat(8193, 0);
        image.bat(5000, 5 << 20 | 6);
        let opened = image.open().unwrap();
        assert_eq!((opened.block_count(), opened.blocks.present()), (9000, 1));
        assert!(
            (0..9000).all(|b| opened.blocks.get(b) == if b == 4999 { present(5) } else { BlockState::Zero })
        );
        assert!(opened.warnings.is_empty());
        breaks(&image, "reserved bit of a BAT entry", |i| i.bat(8999, 2 | 8));
        breaks(&image, "in a state that is reserved", |i| i.bat(8999, 4));
    }

    #[test]
    fn the_table_must_be_long_enough() {
        // 131072 entries are 1 MiB: as a dynamic disk 131041 blocks with 31 bitmap entries fit.
        let mut image = TestImage::dynamic();
        image.put64(DISK_SIZE, 131_041 << 20);
        assert_eq!(image.open().unwrap().block_count(), 131_041);
        breaks(&image, "BAT is too short", |i| i.put64(DISK_SIZE, 131_042 << 20));
        // A differencing one ends on a bitmap entry: 31 chunks of 4097 entries.
        let mut image = TestImage::differencing();
        image.put64(DISK_SIZE, (31 * 4096) << 20);
        assert_eq!(image.open().unwrap().block_count(), 31 * 4096);
        breaks(&image, "BAT is too short", |i| i.put64(DISK_SIZE, (31 * 4096 + 1) << 20));
    }

    #[test]
    fn what_lies_behind_the_table_is_not_read() {
        let mut image = TestImage::dynamic();
        image.bat(4, u64::MAX);
        image.put(BAT + MB - 8, &[0xff; 8]);
        assert_eq!(image.open().unwrap().block_count(), 4);
        let mut image = TestImage::differencing();
        image.bat(4, 2);
        assert_eq!(image.open().unwrap().block_count(), 4);
    }

    #[test]
    fn runs_of_zeros_count_as_their_blocks() {
        let mut image = TestImage::dynamic();
        // The BAT moves behind everything and grows to 4 MiB, all zero but one entry in its last MiB.
        image.bytes.resize(10 * MB, 0);
        for table in [REGIONS_1, REGIONS_2] {
            image.region(table, 0, "2dc27766-f623-4200-9d64-115e9bfd4a08", 6 * MB, 4 * MB, 1);
        }
        image.seal();
        let blocks = 524_288 - 127;
        image.put64(DISK_SIZE, blocks << 20);
        let entry = 6 * MB + 8 * (524_288 - 10);
        image.put64(entry, 4 << 20 | 6);
        let opened = image.open().unwrap();
        assert_eq!(opened.block_count(), blocks);
        let number = (524_288 - 10) - 127;
        assert_eq!(opened.blocks.next_known(0), Some(number));
        assert_eq!(opened.blocks.get(number), present(4));
        assert_eq!(opened.blocks.next_known(number + 1), None);
    }
}
