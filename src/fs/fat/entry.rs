//! Directory entries of FAT: what they say, and the names that they spell.
//!
//! ```text
//!   long names, last part first          short entry
//!   │ 43 … │ 02 … │ 01 … │  attributes 0F  │ NAME    EXT │ attributes │ … │ first cluster │ size │
//!                           13 UTF-16 units each, all with a checksum of the short name
//! ```
//! Source: fatgen103, sections "FAT Directory Structure" and "FAT Long Directory Entries".

use zerocopy::byteorder::{LE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::boot::{Geometry, Kind, Root};
use crate::io::{ReadAt, read_vec};

pub(super) const ENTRY: usize = size_of::<RawEntry>();

const READ_ONLY_HIDDEN_SYSTEM_VOLUME: u8 = 0x0F;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    name: [u8; 11],
    attributes: u8,
    _times: [u8; 8],
    first_cluster_high: U16<LE>,
    _written: [u8; 4],
    first_cluster_low: U16<LE>,
    size: U32<LE>,
}

impl RawEntry {
    pub(super) fn is_end(&self) -> bool {
        self.name.starts_with(&[0])
    }

    fn is_label(&self) -> bool {
        !self.is_deleted()
            && !self.is_long_name()
            && self.attributes & (VOLUME_LABEL | DIRECTORY) == VOLUME_LABEL
    }

    fn is_deleted(&self) -> bool {
        self.name.starts_with(&[0xE5])
    }

    pub(super) fn is_long_name(&self) -> bool {
        !self.is_deleted() && self.attributes & 0x3F == READ_ONLY_HIDDEN_SYSTEM_VOLUME
    }

    fn is_dot(&self) -> bool {
        matches!(&self.name, b".          " | b"..         ")
    }

    /// Whether this is a file or directory: the names of itself and its parent only exist below the root.
    pub(super) fn is_owner(&self, is_root: bool) -> bool {
        !(self.is_deleted() || self.is_long_name() || self.is_label() || (self.is_dot() && !is_root))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    pub(super) fn size(&self) -> u64 {
        self.size.get().into()
    }

    /// FAT12 and FAT16 keep other things in the upper half.
    pub(super) fn first_cluster(&self, kind: Kind) -> u32 {
        let low = u32::from(self.first_cluster_low.get());
        match kind {
            Kind::Fat32 => (u32::from(self.first_cluster_high.get()) << 16 | low) & 0x0FFF_FFFF,
            Kind::Fat12 | Kind::Fat16 => low,
        }
    }

    /// The short name as people write it; bytes of unknown code pages become replacement characters.
    fn short_name(&self) -> String {
        let text = |part: &[u8]| -> String {
            let chars = part.iter().map(|&byte| match byte {
                0x05 => char::REPLACEMENT_CHARACTER,
                byte if byte.is_ascii() => char::from(byte),
                _ => char::REPLACEMENT_CHARACTER,
            });
            chars.collect::<String>().trim_end().to_owned()
        };
        let (base, extension) = self.name.split_at(8);
        match text(extension) {
            extension if extension.is_empty() => text(base),
            extension => format!("{}.{extension}", text(base)),
        }
    }

    fn short_name_checksum(&self) -> u8 {
        self.name.iter().fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
    }
}

/// A long name while its parts come in; only for messages, so that a broken one is no fault.
#[derive(Debug, Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    checksum: u8,
    /// The number of the part that came last.
    part: u8,
}

/// The units of a part, by their places in its entry.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// At most 255 units: twenty parts.
const MAX_PARTS: u8 = 20;
const LAST_PART: u8 = 0x40;

impl LongName {
    /// Takes one part.
    pub(super) fn part(&mut self, raw: &RawEntry) {
        let bytes = raw.as_bytes();
        let (Some(&order), Some(&checksum)) = (bytes.first(), bytes.get(13)) else { return };
        let part = order & !LAST_PART;
        let goes_on = self.part.checked_sub(1) == Some(part) && self.checksum == checksum;
        if order & LAST_PART != 0 && part <= MAX_PARTS {
            self.units.clear();
        } else if !goes_on {
            return self.forget();
        }
        (self.part, self.checksum) = (part, checksum);
        let units = UNITS.iter().filter_map(|&at| bytes.get(at..)?.first_chunk::<2>());
        let units: Vec<u16> =
            units.map(|&unit| u16::from_le_bytes(unit)).take_while(|&unit| unit != 0).collect();
        // Parts come from the last to the first.
        self.units.splice(0..0, units);
    }

    pub(super) fn forget(&mut self) {
        self.units.clear();
        self.part = 0;
    }

    /// The name of the short entry that follows, which ends this long one.
    pub(super) fn finish(&mut self, raw: &RawEntry) -> String {
        let is_its = self.part == 1 && self.checksum == raw.short_name_checksum() && !self.units.is_empty();
        let name = if is_its { String::from_utf16_lossy(&self.units) } else { raw.short_name() };
        self.forget();
        name
    }
}

/// The label of the root directory, if one is near its start.
pub(super) fn label(volume: &dyn ReadAt, geometry: &Geometry) -> Option<[u8; 11]> {
    let (start, len) = match geometry.root {
        Root::Fixed { start, len } => (start, len),
        Root::Chain(cluster) => (geometry.cluster(cluster).ok()?.start, geometry.cluster_size),
    };
    let bytes = read_vec(volume, start, usize::try_from(len).ok()?).ok()?;
    let entries = bytes.chunks_exact(ENTRY).map_while(|b| RawEntry::ref_from_bytes(b).ok());
    entries.take_while(|raw| !raw.is_end()).find(|raw| raw.is_label()).map(|raw| raw.name)
}
