//! The on-disk structures of a VHD, field by field as the specification lists them.

use zerocopy::{BigEndian as BE, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, U64, Unaligned};

/// First eight bytes of a footer.
pub const FOOTER_COOKIE: [u8; 8] = *b"conectix";
/// First eight bytes of a dynamic disk header.
pub const HEADER_COOKIE: [u8; 8] = *b"cxsparse";
/// "Version 1.0", of the file format and of the dynamic disk header.
pub const VERSION: u32 = 0x0001_0000;
/// An offset that points nowhere.
pub const NO_OFFSET: u64 = u64::MAX;
/// A BAT entry of a block that is not present.
pub const NOT_PRESENT: u32 = u32::MAX;
/// The creator that XenServer notes.
pub const XENSERVER: [u8; 4] = *b"tap\0";
/// The creator that VirtualBox notes.
pub const VIRTUALBOX: [u8; 4] = *b"vbox";
/// The creator version from which on XenServer's programs take a batmap for granted.
pub const XENSERVER_NEEDS_BATMAP: u32 = 0x0001_0002;
/// XenServer's first creator version: its sector bitmaps count from the other end of a byte.
pub const XENSERVER_FIRST: u32 = 0x0000_0001;
/// XenServer's second creator version: with a batmap, mostly.
pub const XENSERVER_SECOND: u32 = 0x0001_0001;
/// First eight bytes of a batmap header.
pub const BATMAP_COOKIE: [u8; 8] = *b"tdbatmap";
/// The batmap version that is written.
pub const BATMAP_VERSION: u32 = 0x0001_0002;
/// The batmap version whose checksum sums signed bytes.
pub const BATMAP_SIGNED_SUM: u32 = 0x0001_0001;
/// Bytes of a batmap header.
pub const BATMAP_HEADER_LEN: u64 = 512;
/// Bytes of a footer; before Virtual PC 2004 the last one was missing.
pub const FOOTER_LEN: u64 = 512;
/// Bytes of a dynamic disk header.
pub const HEADER_LEN: u64 = 1024;

/// Disk type: fixed.
pub const TYPE_FIXED: u32 = 2;
/// Disk type: dynamic.
pub const TYPE_DYNAMIC: u32 = 3;
/// Disk type: differencing.
pub const TYPE_DIFFERENCING: u32 = 4;

/// The hard disk footer, at the end of the file and (dynamic, differencing) copied to its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Footer {
    /// "conectix".
    pub cookie: [u8; 8],
    /// Bit 0 temporary, bit 1 reserved and always set.
    pub features: U32<BE>,
    /// File format version.
    pub version: U32<BE>,
    /// Where the dynamic disk header is; all ones for a fixed disk.
    pub data_offset: U64<BE>,
    /// Seconds since 2000-01-01 00:00 UTC.
    pub time_stamp: U32<BE>,
    /// Who made it: "win ", "vpc ", "vbox", "qemu", "tap\0", …
    pub creator_application: [u8; 4],
    /// Version of the creator.
    pub creator_version: U32<BE>,
    /// "Wi2k", "Mac ".
    pub creator_host_os: [u8; 4],
    /// Size of the disk at creation, in bytes.
    pub original_size: U64<BE>,
    /// Size of the disk, in bytes.
    pub current_size: U64<BE>,
    /// Disk geometry: cylinders.
    pub cylinders: U16<BE>,
    /// Disk geometry: heads.
    pub heads: u8,
    /// Disk geometry: sectors per track.
    pub sectors_per_track: u8,
    /// Disk type.
    pub disk_type: U32<BE>,
    /// One's complement of the byte sum, this field taken as zero.
    pub checksum: U32<BE>,
    /// Identifies the disk; a child names it.
    pub unique_id: [u8; 16],
    /// 1 while the machine is in saved state.
    pub saved_state: u8,
    /// Reserved; XenServer keeps its "hidden" flag in the first byte.
    pub reserved: [u8; 427],
}

/// The dynamic disk header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DynamicHeader {
    /// "cxsparse".
    pub cookie: [u8; 8],
    /// All ones.
    pub data_offset: U64<BE>,
    /// Where the BAT is.
    pub table_offset: U64<BE>,
    /// Header version.
    pub header_version: U32<BE>,
    /// Entries of the BAT; at least the disk's blocks.
    pub max_table_entries: U32<BE>,
    /// Bytes of payload in a block.
    pub block_size: U32<BE>,
    /// As the footer's.
    pub checksum: U32<BE>,
    /// The parent's unique id.
    pub parent_unique_id: [u8; 16],
    /// The parent file's modification time.
    pub parent_time_stamp: U32<BE>,
    /// Reserved.
    pub reserved: U32<BE>,
    /// The parent's file name, UTF-16 big-endian.
    pub parent_unicode_name: [u8; 512],
    /// Where the parent may be found.
    pub parent_locators: [ParentLocator; 8],
    /// Reserved; XenServer's tap writers leave it zero.
    pub reserved2: [u8; 256],
}

/// One parent locator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ParentLocator {
    /// "W2ru", "W2ku", "MacX", … ; zero for none.
    pub platform_code: [u8; 4],
    /// Space reserved for the data: sectors by the specification, bytes by Windows.
    pub data_space: U32<BE>,
    /// Bytes of the data.
    pub data_length: U32<BE>,
    /// Reserved.
    pub reserved: U32<BE>,
    /// Absolute file offset of the data.
    pub data_offset: U64<BE>,
}

/// XenServer's batmap header, in the sector after the padded BAT (no part of the specification; as
/// blktap's programs lay it out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatmapHeader {
    /// "tdbatmap".
    pub cookie: [u8; 8],
    /// Where the map is.
    pub map_offset: U64<BE>,
    /// Sectors of the map.
    pub map_sectors: U32<BE>,
    /// Version of the batmap.
    pub version: U32<BE>,
    /// One's complement of the sum over the part of the map that the disk's size needs.
    pub checksum: U32<BE>,
    /// What XenServer's storage manager likes to keep there.
    pub marker: u8,
    /// Of the key by which the payload is encrypted.
    pub key_hash: KeyHash,
    /// Reserved.
    pub reserved: [u8; 418],
}

/// By which XenServer tells whether it was given the right key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyHash {
    /// 1 where the payload is encrypted.
    pub is_set: u8,
    /// Random bytes.
    pub nonce: [u8; 32],
    /// SHA-256 of nonce and key.
    pub hash: [u8; 32],
}

/// One's complement of the byte sum.
fn ones_complement_sum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(0u32, |sum, &byte| sum.wrapping_add(u32::from(byte)))
}

impl Footer {
    /// The checksum that this footer should carry.
    #[must_use]
    pub fn computed_checksum(&self) -> u32 {
        ones_complement_sum(Self { checksum: U32::ZERO, ..*self }.as_bytes())
    }

    /// The footer with its checksum set right.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = self.computed_checksum().into();
        self
    }

    /// Whether the checksum is right, or is one of XenServer's early programs, which did not compute it
    /// anew when they marked a disk as hidden.
    #[must_use]
    pub fn checksum_matches(&self) -> bool {
        let stored = self.checksum.get();
        let early = matches!(self.xenserver_version(), Some(XENSERVER_FIRST | XENSERVER_SECOND));
        let shown = || Self { reserved: hidden_cleared(self.reserved), ..*self }.computed_checksum();
        stored == self.computed_checksum() || early && self.is_hidden() && stored == shown()
    }

    /// XenServer's mark of a base copy that is not to be attached.
    #[must_use]
    pub const fn is_hidden(&self) -> bool {
        let [hidden, ..] = self.reserved;
        hidden != 0
    }

    /// Whether the creator's programs read a sector of a dynamic disk as zero whose bit is clear: XenServer's and
    /// VirtualBox. (XenServer's first version counted the bits in another order.)
    #[must_use]
    pub fn creator_reads_by_bitmap(&self) -> bool {
        self.creator_application == VIRTUALBOX
            || self.xenserver_version().is_some_and(|version| version != XENSERVER_FIRST)
    }

    /// The creator's version, for a disk that XenServer made.
    #[must_use]
    pub fn xenserver_version(&self) -> Option<u32> {
        // Its programs look at three bytes only.
        let [a, b, c, _] = self.creator_application;
        (XENSERVER.starts_with(&[a, b, c])).then(|| self.creator_version.get())
    }
}

const fn hidden_cleared(mut reserved: [u8; 427]) -> [u8; 427] {
    let [hidden, ..] = &mut reserved;
    *hidden = 0;
    reserved
}

impl DynamicHeader {
    /// The checksum that this header should carry.
    #[must_use]
    pub fn computed_checksum(&self) -> u32 {
        ones_complement_sum(Self { checksum: U32::ZERO, ..*self }.as_bytes())
    }

    /// The header with its checksum set right.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = self.computed_checksum().into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn structures_have_their_sizes() {
        assert_eq!(size_of::<Footer>() as u64, FOOTER_LEN);
        assert_eq!(size_of::<DynamicHeader>() as u64, HEADER_LEN);
        assert_eq!(size_of::<ParentLocator>(), 24);
        assert_eq!(size_of::<BatmapHeader>() as u64, BATMAP_HEADER_LEN);
    }

    #[test]
    fn the_checksum_leaves_itself_out() {
        let footer = Footer::new_zeroed().sealed();
        assert_eq!(footer.checksum.get(), u32::MAX);
        assert_eq!(footer.sealed(), footer);
    }
}
