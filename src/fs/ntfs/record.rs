//! Records protected against torn writes, and the attributes of a file record.
//!
//! ```text
//!   0x00  magic · offset and length of the update sequence array
//!         FILE: 0x10 sequence · 0x14 first attribute · 0x16 flags · 0x18 bytes in use
//!               0x20 base record · 0x2C own number (NTFS 3.1)
//!         update sequence array: number, then the true last two bytes of each 512-byte stride
//!         attribute, attribute, … , FF FF FF FF
//!
//!   attribute: type · length · non-resident? · name · flags · instance
//!              resident:     the value
//!              non-resident: first and last VCN · mapping pairs · allocated, data, initialised size
//! ```
//! The stride is 512 bytes on volumes with 4096-byte sectors too.
//!
//! Source: the linux-ntfs project's NTFS documentation, "File record", "Fixup" and "Attributes".

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::{Error, Result, Site};

const STRIDE: usize = 512;
/// The bytes of a stride before the two that the update sequence protects.
const STRIDE_DATA: usize = 510;
const FLAG_IN_USE: u16 = 0x0001;
const END_OF_ATTRIBUTES: u32 = 0xFFFF_FFFF;
/// Where the record's own number stands; NTFS before 3.1 has the update sequence array there.
const OWN_NUMBER: u16 = 0x2C;

/// Attribute types.
pub(super) mod kind {
    pub(in super::super) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(in super::super) const FILE_NAME: u32 = 0x30;
    pub(in super::super) const VOLUME_NAME: u32 = 0x60;
    pub(in super::super) const VOLUME_INFORMATION: u32 = 0x70;
    pub(in super::super) const DATA: u32 = 0x80;
    pub(in super::super) const INDEX_ROOT: u32 = 0x90;
    pub(in super::super) const INDEX_ALLOCATION: u32 = 0xA0;
    pub(in super::super) const BITMAP: u32 = 0xB0;
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ProtectedHeader {
    magic: [u8; 4],
    update_sequence_offset: U16,
    update_sequence_count: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileRecordHeader {
    protected: ProtectedHeader,
    _lsn: U64,
    sequence: U16,
    _links: U16,
    first_attribute: U16,
    flags: U16,
    bytes_in_use: U32,
    _bytes_allocated: U32,
    base_record: U64,
    _next_instance: U16,
    _reserved: U16,
    own_number: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AttributeHeader {
    kind: U32,
    length: U32,
    non_resident: u8,
    name_length: u8,
    name_offset: U16,
    flags: U16,
    instance: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ResidentHeader {
    common: AttributeHeader,
    value_length: U32,
    value_offset: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NonResidentHeader {
    common: AttributeHeader,
    first_vcn: U64,
    last_vcn: U64,
    mapping_pairs_offset: U16,
    _compression_unit: U16,
    _reserved: U32,
    allocated_size: U64,
    data_size: U64,
    initialised_size: U64,
}

/// A reference to a file record: its number, and how often that record was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileReference {
    pub(super) number: u64,
    pub(super) sequence: u16,
}

impl FileReference {
    /// The 48-bit number and 16-bit sequence of an on-disk reference.
    pub(super) fn new(raw: u64) -> Self {
        let [a, b, c, d, e, f, s0, s1] = raw.to_le_bytes();
        Self { number: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), sequence: u16::from_le_bytes([s0, s1]) }
    }
}

/// A file record whose fixups are undone, in a buffer of its own or in a part of a larger one.
pub(super) struct Record<B = Vec<u8>> {
    bytes: B,
    used: usize,
    number: u64,
    sequence: u16,
    first_attribute: usize,
    in_use: bool,
    base: Option<FileReference>,
    site: Site,
}

/// One attribute of a file record.
pub(super) struct Attribute<'r> {
    pub(super) kind: u32,
    pub(super) flags: u16,
    pub(super) instance: u16,
    pub(super) body: Body<'r>,
    /// UTF-16LE.
    pub(super) name: &'r [u8],
}

/// Where an attribute's value is.
pub(super) enum Body<'r> {
    Resident(&'r [u8]),
    NonResident(NonResident<'r>),
}

/// A non-resident attribute, or one part of it.
#[derive(Clone, Copy)]
pub(super) struct NonResident<'r> {
    pub(super) first_vcn: u64,
    pub(super) last_vcn: u64,
    pub(super) allocated_size: u64,
    pub(super) data_size: u64,
    pub(super) initialised_size: u64,
    pub(super) mapping_pairs: &'r [u8],
}

/// Checks `magic` and the update sequence, and puts the last two bytes of each stride back.
///
/// # Errors
/// `corrupt` where the record was torn, or is none.
pub(super) fn undo_fixups(bytes: &mut [u8], magic: [u8; 4], at: Site) -> Result<()> {
    let header = ProtectedHeader::ref_from_prefix(bytes).ok();
    let (header, _) = header.ok_or_else(|| Error::corrupt(at, "a record is too short for its header"))?;
    if header.magic != magic {
        return Err(Error::corrupt(at, "a record does not begin with its magic number")
            .expected(magic.escape_ascii(), header.magic.escape_ascii()));
    }
    let count = usize::from(header.update_sequence_count.get());
    let strides = bytes.len().checked_div(STRIDE).unwrap_or(0);
    let whole = bytes.len().is_multiple_of(STRIDE);
    if !whole || strides == 0 || count.checked_sub(1) != Some(strides) {
        return Err(Error::corrupt(at, "the update sequence array does not cover its record")
            .expected(format_args!("{strides} strides"), format_args!("{count} entries")));
    }
    let start = usize::from(header.update_sequence_offset.get());
    let end = count.checked_mul(2).and_then(|len| start.checked_add(len));
    // The array is in the first stride, before its last two bytes, so undoing a fixup never changes it.
    let end = end.filter(|&end| end <= STRIDE_DATA);
    let (Some(end), Some(number)) = (end, pair(bytes, start)) else {
        return Err(Error::corrupt(at, "the update sequence array reaches past the first stride"));
    };
    let originals = (start..end).step_by(2).skip(1);
    let tails = (STRIDE_DATA..).step_by(STRIDE);
    for (original, tail) in originals.zip(tails) {
        if pair(bytes, tail) != Some(number) {
            return Err(Error::corrupt(at, "a record was only partly written (its update sequence differs)"));
        }
        let original = pair(bytes, original);
        if let (Some(original), Some(place)) =
            (original, bytes.get_mut(tail..).and_then(|b| b.first_chunk_mut()))
        {
            *place = original;
        }
    }
    Ok(())
}

/// The two bytes at `at`.
fn pair(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Record<B> {
    /// Reads the file record `number` from its raw bytes.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn parse(mut bytes: B, number: u64, at: Site) -> Result<Self> {
        undo_fixups(bytes.as_mut(), *b"FILE", at)?;
        let len = bytes.as_ref().len();
        let header = FileRecordHeader::read_from_prefix(bytes.as_ref()).ok();
        let (header, _) = header.ok_or_else(|| Error::corrupt(at, "a file record is too short"))?;
        let own_number = u64::from(header.own_number.get());
        let knows_its_number = header.protected.update_sequence_offset.get() > OWN_NUMBER;
        // Only the lower 32 bits are stored.
        if knows_its_number && own_number != number & u64::from(u32::MAX) {
            return Err(
                Error::corrupt(at, "a file record carries another's number").expected(number, own_number)
            );
        }
        let base = FileReference::new(header.base_record.get());
        let sequence = header.sequence.get();
        let first_attribute = usize::from(header.first_attribute.get());
        let in_use = header.flags.get() & FLAG_IN_USE != 0;
        let used = usize::try_from(header.bytes_in_use.get()).unwrap_or(usize::MAX);
        if used > len || first_attribute > used {
            return Err(Error::corrupt(at, "a file record uses more bytes than it has")
                .expected(format_args!("at most {len}"), used));
        }
        let base = (base.number != 0 || base.sequence != 0).then_some(base);
        Ok(Self { bytes, used, number, sequence, first_attribute, in_use, base, site: at })
    }

    fn bytes_in_use(&self) -> &[u8] {
        self.bytes.as_ref().get(..self.used).unwrap_or_default()
    }

    /// Its number and sequence.
    pub(super) fn reference(&self) -> FileReference {
        FileReference { number: self.number, sequence: self.sequence }
    }

    /// Whether it describes a file now.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// The record that this one continues; none for a base record.
    pub(super) fn base(&self) -> Option<FileReference> {
        self.base
    }

    /// Where it lies on the volume.
    pub(super) fn site(&self) -> Site {
        self.site
    }

    /// The bytes in use without the update sequence array, for comparing two copies of one record.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut contents = self.bytes_in_use().to_vec();
        if let Ok((header, _)) = ProtectedHeader::read_from_prefix(&contents) {
            let start = usize::from(header.update_sequence_offset.get());
            let entries = usize::from(header.update_sequence_count.get());
            let array = contents.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>().0;
            array.iter_mut().take(entries).for_each(|entry| entry.fill(0));
        }
        contents
    }

    /// All attributes, in their order.
    ///
    /// # Errors
    /// `corrupt` where any of them is.
    pub(super) fn attributes(&self) -> Result<Vec<Attribute<'_>>> {
        let mut attributes = Vec::new();
        let mut rest = self.bytes_in_use().get(self.first_attribute..).unwrap_or_default();
        loop {
            let (kind, _) = U32::ref_from_prefix(rest)
                .map_err(|_| Error::corrupt(self.site, "a file record's attributes have no end"))?;
            if kind.get() == END_OF_ATTRIBUTES {
                return Ok(attributes);
            }
            let (attribute, len) = Attribute::parse(rest)
                .ok_or_else(|| Error::corrupt(self.site, "an attribute reaches past its file record"))?;
            attributes.push(attribute);
            rest = rest.get(len..).unwrap_or_default();
        }
    }

    /// The first attribute of a type and name.
    ///
    /// # Errors
    /// `corrupt`.
    pub(super) fn find(&self, kind: u32, name: &str) -> Result<Option<Attribute<'_>>> {
        Ok(self.attributes()?.into_iter().find(|a| a.kind == kind && a.is_named(name)))
    }
}

/// Whether bytes, sound or not, are a file record that is marked as in use.
pub(super) fn looks_in_use(bytes: &[u8]) -> bool {
    FileRecordHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| {
        matches!(&header.protected.magic, b"FILE" | b"BAAD") && header.flags.get() & FLAG_IN_USE != 0
    })
}

impl<'r> Attribute<'r> {
    fn parse(bytes: &'r [u8]) -> Option<(Self, usize)> {
        let (header, _) = AttributeHeader::ref_from_prefix(bytes).ok()?;
        let len = usize::try_from(header.length.get()).ok()?;
        let bytes = bytes.get(..len).filter(|bytes| bytes.len() >= size_of::<ResidentHeader>())?;
        let name = usize::from(header.name_offset.get());
        let name = bytes.get(name..name.checked_add(usize::from(header.name_length).checked_mul(2)?)?)?;
        let body = if header.non_resident == 0 {
            let (resident, _) = ResidentHeader::ref_from_prefix(bytes).ok()?;
            let start = usize::from(resident.value_offset.get());
            let length = usize::try_from(resident.value_length.get()).ok()?;
            Body::Resident(bytes.get(start..start.checked_add(length)?)?)
        } else {
            let (part, _) = NonResidentHeader::ref_from_prefix(bytes).ok()?;
            Body::NonResident(NonResident {
                first_vcn: part.first_vcn.get(),
                last_vcn: part.last_vcn.get(),
                allocated_size: part.allocated_size.get(),
                data_size: part.data_size.get(),
                initialised_size: part.initialised_size.get(),
                mapping_pairs: bytes.get(usize::from(part.mapping_pairs_offset.get())..)?,
            })
        };
        let (kind, flags, instance) = (header.kind.get(), header.flags.get(), header.instance.get());
        Some((Self { kind, flags, instance, body, name }, len))
    }

    /// Whether it has this name, letter by letter.
    pub(super) fn is_named(&self, name: &str) -> bool {
        utf16_is(self.name, name)
    }
}

/// Whether UTF-16LE bytes spell `text`.
pub(super) fn utf16_is(bytes: &[u8], text: &str) -> bool {
    bytes.len().is_multiple_of(2) && text.encode_utf16().eq(units(bytes))
}

/// Whether UTF-16LE bytes spell the ASCII `text`, in whatever case.
pub(super) fn utf16_is_ignoring_case(bytes: &[u8], text: &str) -> bool {
    let lower = |unit: u16| u8::try_from(unit).map_or(unit, |byte| byte.to_ascii_lowercase().into());
    bytes.len().is_multiple_of(2) && text.encode_utf16().map(lower).eq(units(bytes).map(lower))
}

/// The text of UTF-16LE bytes; what is no text becomes U+FFFD.
pub(super) fn decode(bytes: &[u8]) -> String {
    char::decode_utf16(units(bytes)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// The UTF-16 code units of UTF-16LE bytes.
fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair))
}
