//! The on-disk structures of a VHDX, field by field as MS-VHDX lists them.

use uuid::Uuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, LittleEndian as LE, U16, U32, U64, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::error::Result;
use crate::image::BlockSize;
use crate::units::{add, mul};

/// The first bytes of every VHDX file.
pub const SIGNATURE: &[u8] = b"vhdxfile";
/// Everything in the file is aligned to this; also the size of the header section and of a sector
/// bitmap block.
pub const MIB: u64 = 1 << 20;
/// Where the two headers are.
pub const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Where the two copies of the region table are.
pub const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a region table, and of a metadata table.
pub const TABLE_LEN: u64 = 64 << 10;
/// Most entries of a region table, and of a metadata table.
pub const MAX_TABLE_ENTRIES: u16 = 2047;
/// Sectors that one sector bitmap block describes.
pub const SECTORS_PER_CHUNK: u64 = 1 << 23;
/// Bytes of a log sector.
pub const LOG_SECTOR: u64 = 4096;

/// Region: the BAT.
pub const REGION_BAT: Uuid = Uuid::from_u128(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
/// Region: the metadata.
pub const REGION_METADATA: Uuid = Uuid::from_u128(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);

/// Metadata item: file parameters.
pub const ITEM_FILE_PARAMETERS: Uuid = Uuid::from_u128(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
/// Metadata item: virtual disk size.
pub const ITEM_VIRTUAL_DISK_SIZE: Uuid = Uuid::from_u128(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
/// Metadata item: virtual disk id (SCSI page 83).
pub const ITEM_VIRTUAL_DISK_ID: Uuid = Uuid::from_u128(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
/// Metadata item: logical sector size.
pub const ITEM_LOGICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
/// Metadata item: physical sector size.
pub const ITEM_PHYSICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0xCDA348C7_445D_4471_9CC9_E9885251C556);
/// Metadata item: parent locator.
pub const ITEM_PARENT_LOCATOR: Uuid = Uuid::from_u128(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);
/// Metadata item of Windows beyond the specification: cylinders, heads, sectors. Says nothing of where
/// blocks lie.
pub const ITEM_CHS_PARAMETERS: Uuid = Uuid::from_u128(0xDA02D7BC_3D3A_423C_AC88_2A36AB21479B);
/// Metadata item of Windows beyond the specification: labels of a persistent memory device.
pub const ITEM_PMEM_LABELS: Uuid = Uuid::from_u128(0x10E1AE8A_4B7E_4169_A40F_CD70DE928393);
/// Metadata item of Windows beyond the specification: stands in a file whose making has not ended.
pub const ITEM_INCOMPLETE_FILE: Uuid = Uuid::from_u128(0x71CC85F0_1B69_4E28_9558_C3BF83AE75D3);
/// The one parent locator type that is specified.
pub const LOCATOR_TYPE_VHDX: Uuid = Uuid::from_u128(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

/// Metadata entry flag: user metadata.
pub const FLAG_USER: u32 = 1;
/// Metadata entry flag: belongs to the virtual disk, not to the file.
pub const FLAG_VIRTUAL_DISK: u32 = 2;
/// Metadata entry flag: who does not know the item must not open the file.
pub const FLAG_REQUIRED: u32 = 4;

/// File parameters flag: `LeaveBlockAllocated`, the mark of a fixed disk.
pub const LEAVE_BLOCK_ALLOCATED: u32 = 1;
/// File parameters flag: `HasParent`.
pub const HAS_PARENT: u32 = 2;

/// BAT state: payload not present.
pub const PAYLOAD_NOT_PRESENT: u64 = 0;
/// BAT state: contents undefined.
pub const PAYLOAD_UNDEFINED: u64 = 1;
/// BAT state: zero.
pub const PAYLOAD_ZERO: u64 = 2;
/// BAT state: unmapped.
pub const PAYLOAD_UNMAPPED: u64 = 3;
/// BAT state: unmapped, as version 0.95 of the specification numbered it.
pub const PAYLOAD_UNMAPPED_V095: u64 = 5;
/// BAT state: in the file (a payload block as a whole, or a sector bitmap block).
pub const FULLY_PRESENT: u64 = 6;
/// BAT state: in the file as far as the sector bitmap says.
pub const PAYLOAD_PARTIALLY_PRESENT: u64 = 7;
/// Bits of a BAT entry that hold the state.
pub const BAT_STATE: u64 = 7;
/// Bits of a BAT entry that hold the file offset, in whole MiB.
pub const BAT_OFFSET: u64 = !(MIB - 1);
/// Bits of a BAT entry that must be zero.
pub const BAT_RESERVED: u64 = !(BAT_STATE | BAT_OFFSET);

/// File type identifier (2.2.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileIdentifier {
    /// "vhdxfile".
    pub signature: [u8; 8],
    /// The program that made the file, UTF-16.
    pub creator: [u8; 512],
}

/// Header (2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// "head".
    pub signature: [u8; 4],
    /// CRC-32C of these 4 KiB, this field taken as zero.
    pub checksum: U32<LE>,
    /// The header with the greater one is current.
    pub sequence_number: U64<LE>,
    /// Changes with every opening that writes.
    pub file_write_guid: [u8; 16],
    /// Changes with the virtual disk's contents; a child names it.
    pub data_write_guid: [u8; 16],
    /// Zero if the log is empty.
    pub log_guid: [u8; 16],
    /// 0.
    pub log_version: U16<LE>,
    /// 1.
    pub version: U16<LE>,
    /// Bytes of the log.
    pub log_length: U32<LE>,
    /// Where the log is.
    pub log_offset: U64<LE>,
    /// Zero, and ignored.
    pub reserved: [u8; 4016],
}

/// Region table header (2.2.3.1); the entries follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableHeader {
    /// "regi".
    pub signature: [u8; 4],
    /// CRC-32C of the 64 KiB, this field taken as zero.
    pub checksum: U32<LE>,
    /// How many entries follow.
    pub entry_count: U32<LE>,
    /// Zero, and ignored.
    pub reserved: U32<LE>,
}

/// Region table entry (2.2.3.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableEntry {
    /// Which region.
    pub guid: [u8; 16],
    /// Where it is.
    pub file_offset: U64<LE>,
    /// Its bytes.
    pub length: U32<LE>,
    /// 1 if who does not know it must not open the file.
    pub required: U32<LE>,
}

/// Log entry header (2.3.1.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntryHeader {
    /// "loge".
    pub signature: [u8; 4],
    /// CRC-32C of the whole entry, this field taken as zero.
    pub checksum: U32<LE>,
    /// Bytes of the entry: a multiple of 4 KiB.
    pub entry_length: U32<LE>,
    /// Offset in the log of the oldest entry that is still needed.
    pub tail: U32<LE>,
    /// One more than the entry before.
    pub sequence_number: U64<LE>,
    /// How many descriptors follow.
    pub descriptor_count: U32<LE>,
    /// Zero.
    pub reserved: U32<LE>,
    /// The header's `log_guid` at the time.
    pub log_guid: [u8; 16],
    /// A sound file is at least this long.
    pub flushed_file_offset: U64<LE>,
    /// The file is to be made this long.
    pub last_file_offset: U64<LE>,
}

/// Zero descriptor or data descriptor (2.3.1.2, 2.3.1.3).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogDescriptor {
    /// "zero" or "desc".
    pub signature: [u8; 4],
    /// Data: the last 4 bytes of the sector. Zero: reserved.
    pub trailing_bytes: [u8; 4],
    /// Data: the first 8 bytes of the sector. Zero: how many bytes become zero.
    pub leading_bytes: [u8; 8],
    /// Where in the file.
    pub file_offset: U64<LE>,
    /// The entry's.
    pub sequence_number: U64<LE>,
}

/// Data sector (2.3.1.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogDataSector {
    /// "data".
    pub signature: [u8; 4],
    /// Upper half of the entry's sequence number.
    pub sequence_high: U32<LE>,
    /// The sector without its first 8 and last 4 bytes.
    pub data: [u8; 4084],
    /// Lower half of the entry's sequence number.
    pub sequence_low: U32<LE>,
}

/// Metadata table header (2.6.1.1); the entries follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableHeader {
    /// "metadata".
    pub signature: [u8; 8],
    /// Zero.
    pub reserved: U16<LE>,
    /// How many entries follow.
    pub entry_count: U16<LE>,
    /// Zero.
    pub reserved2: [u8; 20],
}

/// Metadata table entry (2.6.1.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableEntry {
    /// Which item.
    pub item_id: [u8; 16],
    /// Where it is, from the start of the region.
    pub offset: U32<LE>,
    /// Its bytes.
    pub length: U32<LE>,
    /// User, virtual disk, required.
    pub flags: U32<LE>,
    /// Zero.
    pub reserved2: U32<LE>,
}

/// Parent locator header (2.6.2.6.1); the entries follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ParentLocatorHeader {
    /// What kind of parent.
    pub locator_type: [u8; 16],
    /// Zero.
    pub reserved: U16<LE>,
    /// How many entries follow.
    pub key_value_count: U16<LE>,
}

/// Parent locator entry (2.6.2.6.2). Offsets count from the start of the item.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ParentLocatorEntry {
    /// Where the key is.
    pub key_offset: U32<LE>,
    /// Where the value is.
    pub value_offset: U32<LE>,
    /// Bytes of the key.
    pub key_length: U16<LE>,
    /// Bytes of the value.
    pub value_length: U16<LE>,
}

/// CRC-32C of a structure that is given in parts and whose checksum stands at bytes 4 to 8 of the
/// first one.
pub fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_default();
    let (head, tail) = (first.get(..4).unwrap_or(first), first.get(8..).unwrap_or_default());
    let crc = crc32c_append(crc32c_append(crc32c(head), &[0; 4]), tail);
    parts.fold(crc, crc32c_append)
}

impl Header {
    /// The header with its checksum set right.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = checksum([self.as_bytes()]).into();
        self
    }
}

/// How many payload blocks one sector bitmap block describes.
#[must_use]
pub fn chunk_ratio(block_size: BlockSize, sector_size: u64) -> u64 {
    // 2²³ sectors of at most 4 KiB.
    block_size.block_of(SECTORS_PER_CHUNK.wrapping_mul(sector_size)).max(1)
}

/// How many entries the BAT of a disk of `blocks` blocks has (2.5): one for each payload block, and one
/// for a sector bitmap block after every `ratio` of them; only a differencing BAT ends on such a one.
///
/// # Errors
/// `limit-exceeded` on overflow.
pub fn bat_entries(blocks: u64, ratio: u64, differencing: bool) -> Result<u64> {
    let chunks = blocks.div_ceil(ratio.max(1)).max(1);
    let bitmaps = if differencing { chunks } else { chunks.wrapping_sub(1) };
    let payload = if differencing { mul(chunks, ratio.max(1), "the BAT")? } else { blocks };
    add(payload, bitmaps, "the BAT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn structures_have_their_sizes() {
        assert_eq!(size_of::<FileIdentifier>(), 520);
        assert_eq!(size_of::<Header>(), 4096);
        assert_eq!(size_of::<RegionTableHeader>(), 16);
        assert_eq!(size_of::<RegionTableEntry>(), 32);
        assert_eq!(size_of::<LogEntryHeader>(), 64);
        assert_eq!(size_of::<LogDescriptor>(), 32);
        assert_eq!(size_of::<LogDataSector>(), 4096);
        assert_eq!(size_of::<MetadataTableHeader>(), 32);
        assert_eq!(size_of::<MetadataTableEntry>(), 32);
        assert_eq!(size_of::<ParentLocatorHeader>(), 20);
        assert_eq!(size_of::<ParentLocatorEntry>(), 12);
    }

    #[test]
    fn the_checksum_leaves_itself_out_and_takes_parts() {
        let header = Header { sequence_number: 7.into(), ..Header::new_zeroed() }.sealed();
        assert_ne!(header.checksum.get(), 0);
        assert_eq!(header.sealed(), header);
        let bytes = header.as_bytes();
        assert_eq!(checksum([&bytes[..1000], &bytes[1000..]]), checksum([bytes]));
    }

    #[test]
    fn chunk_ratios_and_entry_counts_follow_the_specification() {
        assert_eq!(chunk_ratio(BlockSize::MIB_32, 512), 128);
        assert_eq!(chunk_ratio(BlockSize::MIB_1, 4096), 32_768);
        assert_eq!(chunk_ratio(BlockSize::MIB_256, 512), 16);
        for (blocks, dynamic, differencing) in [(1, 1, 5), (4, 4, 5), (5, 6, 10), (8, 9, 10), (9, 11, 15)] {
            assert_eq!(bat_entries(blocks, 4, false).unwrap(), dynamic);
            assert_eq!(bat_entries(blocks, 4, true).unwrap(), differencing);
        }
    }
}
