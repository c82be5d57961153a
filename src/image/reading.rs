//! Whose reading of a sector bitmap: what programs make of a clear bit in a dynamic VHD.
//!
//! ```text
//!   block of a dynamic VHD    bit 1: payload, for every program
//!                             bit 0: zero     for the specification, XenServer, VirtualBox, libvhdi
//!                                    payload  for QEMU, 7-Zip
//! ```
//! (In a differencing VHD a clear bit means the parent, and everybody agrees.) Where a block is copied with its
//! bitmap, every program reads what it read before, and nothing need be decided. Where it is composed anew, one
//! reading becomes the disk. In an image of a program that reads by the bitmap it is that one: what stands under a
//! clear bit was never written to the disk, and may be what the file's space held before, perhaps another's
//! data. For any other image it is the payload's, since a program that ignores the bits may have written there.

use std::ops::Range;

use super::{Bitmaps, DiskType, Image, Metadata};
use crate::error::Result;
use crate::units::length;

/// What a sector reads whose bit is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearBits {
    /// Its payload: the bits say nothing.
    Payload,
    /// Zero.
    Zero,
}

/// Stretches of a block (bytes from its start), ascending, and whether each is read from the payload.
pub type Runs = Vec<(Range<u64>, bool)>;

impl Image {
    /// What the program that made this image reads where a bit of a sector bitmap is clear.
    #[must_use]
    pub fn clear_bits(&self) -> ClearBits {
        let has_bits =
            self.disk_type == DiskType::Dynamic && matches!(self.bitmaps, Bitmaps::BeforePayload { .. });
        match &self.metadata {
            Metadata::Vhd(metadata) if has_bits && metadata.footer.creator_reads_by_bitmap() => {
                ClearBits::Zero
            }
            _ => ClearBits::Payload,
        }
    }

    /// Which parts of a present block (bytes from its start) the program that made this image reads from the
    /// payload (`true`), and which as zero, ascending; nothing where it reads all of them from the payload.
    ///
    /// # Errors
    /// As [`Image::sector_bitmap`].
    pub fn runs_as_its_program_reads(&self, block: u64) -> Result<Option<Runs>> {
        if self.clear_bits() == ClearBits::Payload || self.is_full_by_batmap(block) {
            return Ok(None);
        }
        let len = length(&self.block_range(block));
        let bitmap = self.sector_bitmap(block)?;
        Ok(bitmap.filter(|bitmap| !bitmap.all_set(len)).map(|bitmap| bitmap.runs(0..len)))
    }

    /// Whether XenServer's batmap says that every bit of a block's bitmap is set.
    pub(super) fn is_full_by_batmap(&self, block: u64) -> bool {
        match &self.metadata {
            Metadata::Vhd(metadata) => metadata.batmap.as_ref().is_some_and(|batmap| batmap.is_full(block)),
            Metadata::Vhdx(_) => false,
        }
    }
}
