//! Sets of directory entries: a primary entry, and the secondary ones that belong to it.
//!
//! ```text
//!   entry type   bit 7 in use · bit 6 secondary · bit 5 benign · bits 0–4 code
//!   85 file ── C0 stream extension ── C1 name, 15 units ── … ── E1 what a vendor allocates
//!   A0 and other benign primaries ── secondaries of their own
//! ```
//! Entries that are not understood come in two kinds. A *critical* one may change what all others mean, so
//! the volume is declined. A *benign* one may be ignored, except that it may own clusters, which the generic
//! templates tell.
//!
//! Source: Microsoft exFAT file system specification, sections 6 and 7.

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::heap::Allocation;
use super::{inconsistent, unknown};
use crate::error::{Result, Site};
use crate::fs::{Purpose, Stop};

const END: u8 = 0x00;
pub(super) const ALLOCATION_BITMAP: u8 = 0x81;
const UP_CASE_TABLE: u8 = 0x82;
pub(super) const VOLUME_LABEL: u8 = 0x83;
const FILE: u8 = 0x85;
/// All of its bytes are reserved: no template.
const TEXFAT_PADDING: u8 = 0xA1;
const STREAM_EXTENSION: u8 = 0xC0;
const FILE_NAME: u8 = 0xC1;

const IN_USE: u8 = 0x80;
const SECONDARY: u8 = 0x40;
const BENIGN: u8 = 0x20;
const ALLOCATION_POSSIBLE: u8 = 0x01;
const NO_FAT_CHAIN: u8 = 0x02;
const DIRECTORY: u16 = 0x0010;

pub(super) const ENTRY: usize = size_of::<RawEntry>();

/// The fields that entries share (section 6.2), under the name of those that matter here.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) entry_type: u8,
    /// SecondaryCount of a primary, GeneralSecondaryFlags of a secondary, BitmapFlags, CharacterCount.
    pub(super) second: u8,
    set_checksum: U16<LE>,
    /// GeneralPrimaryFlags of other primaries.
    file_attributes: U16<LE>,
    _custom: [u8; 14],
    first_cluster: U32<LE>,
    data_length: U64<LE>,
}

impl RawEntry {
    pub(super) const fn is_end(&self) -> bool {
        self.entry_type == END
    }

    /// The clusters of an entry with the fields of a secondary.
    fn stream(&self) -> Stream {
        self.stream_under(self.second)
    }

    fn stream_under(&self, flags: u8) -> Stream {
        let contiguous = flags & NO_FAT_CHAIN != 0;
        let allocation = if contiguous { Allocation::Contiguous } else { Allocation::Chain };
        Stream { first: self.first_cluster.get(), len: self.data_length.get(), allocation }
    }

    /// The clusters of a table of the root directory, which always has a chain.
    pub(super) fn table(&self) -> Stream {
        self.stream_under(ALLOCATION_POSSIBLE)
    }
}

/// The clusters of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) first: u32,
    pub(super) len: u64,
    pub(super) allocation: Allocation,
}

/// What an entry's clusters hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    File,
    Directory,
    /// A table of the root directory, or what an entry of a vendor has.
    Structure,
}

impl Content {
    pub(super) const fn purpose(self) -> Purpose {
        match self {
            Self::File => Purpose::File,
            Self::Directory | Self::Structure => Purpose::Structure,
        }
    }
}

/// What a set of entries says: an owner.
#[derive(Debug)]
pub(super) struct OwnerSet {
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) stream: Option<Stream>,
    /// What vendors' entries occupy.
    pub(super) extra: Vec<Stream>,
}

/// Puts entries together to sets, one entry at a time.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The set that is not complete yet.
    set: Option<Set>,
}

/// A set of entries, while it is read.
#[derive(Debug)]
struct Set {
    is_file: bool,
    content: Content,
    /// How many secondary entries are still to come.
    left: u8,
    checksum: u16,
    sum: u16,
    stream: Option<Stream>,
    extra: Vec<Stream>,
    /// How many units the name has, and those that came.
    name_len: usize,
    name: Vec<u16>,
}

impl Reader {
    /// Takes one entry; gives the owner that it completes, if it does.
    pub(super) fn entry(
        &mut self,
        raw: &RawEntry,
        is_root: bool,
        site: Site,
    ) -> Result<Option<OwnerSet>, Stop> {
        let is_secondary = raw.entry_type & (IN_USE | SECONDARY) == IN_USE | SECONDARY;
        match (self.set.take(), raw.entry_type) {
            (Some(set), _) if is_secondary => self.secondary(raw, set, site),
            (Some(_), _) => Err(inconsistent("A file's entries are not complete.", site)),
            (None, _) if is_secondary => Err(inconsistent("A file's entries have no beginning.", site)),
            (None, unused) if unused & IN_USE == 0 => Ok(None),
            (None, FILE) => {
                if !(2..=18).contains(&raw.second) {
                    return Err(inconsistent("A file has too few or too many entries.", site));
                }
                self.set = Some(Set::new(raw, true));
                Ok(None)
            }
            (None, ALLOCATION_BITMAP) if is_root => Ok(Some(table("the allocation bitmap", raw))),
            (None, UP_CASE_TABLE) if is_root => Ok(Some(table("the up-case table", raw))),
            (None, VOLUME_LABEL) if is_root => Ok(None),
            (None, TEXFAT_PADDING) => Ok(None),
            (None, benign) if benign & BENIGN != 0 => self.benign(raw, site),
            (None, other) => Err(unknown(&format!("A directory has an entry of type {other:#04x}."), site)),
        }
    }

    /// At the end of a directory no set may be open.
    pub(super) fn finish(&self, site: Site) -> Result<(), Stop> {
        match self.set {
            Some(_) => Err(inconsistent("A directory ends inside a file's entries.", site)),
            None => Ok(()),
        }
    }

    /// A primary entry that may be ignored but for what it occupies (section 6.3).
    fn benign(&mut self, raw: &RawEntry, site: Site) -> Result<Option<OwnerSet>, Stop> {
        let mut set = Set::new(raw, false);
        let [flags, _] = raw.file_attributes.get().to_le_bytes();
        if flags & ALLOCATION_POSSIBLE != 0 {
            set.stream = Some(raw.stream_under(flags));
        }
        if set.left > 0 {
            self.set = Some(set);
            return Ok(None);
        }
        set.complete(site).map(Some)
    }

    fn secondary(&mut self, raw: &RawEntry, mut set: Set, site: Site) -> Result<Option<OwnerSet>, Stop> {
        set.sum = set_checksum(set.sum, raw.as_bytes(), false);
        set.left =
            set.left.checked_sub(1).ok_or_else(|| inconsistent("A file has too many entries.", site))?;
        match raw.entry_type {
            STREAM_EXTENSION if set.is_file && set.stream.is_none() => {
                set.stream = Some(raw.stream());
                set.name_len = raw.as_bytes().get(3).map_or(0, |&len| len.into());
            }
            FILE_NAME if set.is_file => set.name.extend(units(raw)),
            other if set.is_file && other & BENIGN == 0 => {
                return Err(unknown(&format!("A file has an entry of type {other:#04x}."), site));
            }
            _ if raw.second & ALLOCATION_POSSIBLE != 0 => set.extra.push(raw.stream()),
            _ => {}
        }
        if set.left > 0 {
            self.set = Some(set);
            return Ok(None);
        }
        set.complete(site).map(Some)
    }
}

impl Set {
    fn new(raw: &RawEntry, is_file: bool) -> Self {
        Self {
            is_file,
            content: match raw.file_attributes.get() & DIRECTORY {
                _ if !is_file => Content::Structure,
                0 => Content::File,
                _ => Content::Directory,
            },
            left: raw.second,
            checksum: raw.set_checksum.get(),
            sum: set_checksum(0, raw.as_bytes(), true),
            stream: None,
            extra: Vec::new(),
            name_len: 0,
            name: Vec::new(),
        }
    }

    fn complete(mut self, site: Site) -> Result<OwnerSet, Stop> {
        // An entry that may be ignored and owns nothing is ignored, whatever its sum.
        let is_ignored = !self.is_file && self.stream.is_none() && self.extra.is_empty();
        if self.sum != self.checksum && !is_ignored {
            return Err(inconsistent("A file's entries do not match their checksum.", site));
        }
        if self.is_file && self.stream.is_none() {
            return Err(inconsistent("A file has no stream entry.", site));
        }
        self.name.truncate(self.name_len);
        let name =
            if self.is_file { String::from_utf16_lossy(&self.name) } else { "an entry of a vendor".into() };
        Ok(OwnerSet { name, content: self.content, stream: self.stream, extra: self.extra })
    }
}

/// A table of the root directory.
fn table(name: &str, raw: &RawEntry) -> OwnerSet {
    OwnerSet { name: name.into(), content: Content::Structure, stream: Some(raw.table()), extra: Vec::new() }
}

/// The UTF-16 units of a label or of a part of a name.
pub(super) fn units(raw: &RawEntry) -> impl Iterator<Item = u16> {
    let bytes = raw.as_bytes().chunks_exact(2).skip(1);
    bytes.filter_map(|unit| unit.first_chunk()).map(|&unit| u16::from_le_bytes(unit))
}

/// Section 6.3.3: the sum over a set, without its own field in the first entry.
pub(super) fn set_checksum(sum: u16, entry: &[u8], is_primary: bool) -> u16 {
    let counted = entry.iter().enumerate().filter(|(i, _)| !is_primary || !matches!(i, 2 | 3));
    counted.fold(sum, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()))
}
