//! The label of a physical volume, and the metadata areas that it points at.
//!
//! ```text
//!   sector 0–3       4 KiB                                     1 MiB                    end
//!   │ LABELONE, PV header │ metadata area: header │ text, in a ring │ physical extents …  │ (second area) │
//! ```
//! Each change of a volume group writes a new text further on in the ring, and then the area's header, which
//! names the text in its first slot; the second slot is for one that is being written. Everything has a
//! checksum. Of several areas the text with the highest sequence number is right.
//!
//! Source: LVM2 `lib/format_text/layout.h` and `lib/label/label.h` (structures); checked with `pvcreate`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Refusal;
use crate::checksum::crc32_lvm;
use crate::io::{ReadAt, check_range, read_struct, read_vec};
use crate::units::{add, index};

const SECTOR: u64 = 512;
const AREA_HEADER: u64 = 512;
/// A text is dozens of kilobytes; LVM's own areas are a megabyte unless a person wants more.
const MAX_TEXT: u64 = 16 << 20;
/// How many places a label may list: two areas are usual.
const MAX_PLACES: usize = 16;
/// An area whose text is not to be used, because others are.
const IGNORED: u32 = 1;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLabel {
    id: [u8; 8],
    sector: U64<LE>,
    crc: U32<LE>,
    offset: U32<LE>,
    kind: [u8; 8],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPlace {
    offset: U64<LE>,
    size: U64<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawArea {
    crc: U32<LE>,
    magic: [u8; 16],
    version: U32<LE>,
    start: U64<LE>,
    size: U64<LE>,
    text: RawText,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawText {
    offset: U64<LE>,
    size: U64<LE>,
    crc: U32<LE>,
    flags: U32<LE>,
}

/// A physical volume by its label.
#[derive(Debug)]
pub(super) struct Label {
    /// The sector of the label, in bytes of the volume.
    pub(super) at: Range<u64>,
    /// Its identifier without hyphens.
    pub(super) uuid: String,
    /// The size that it was made with.
    pub(super) size: u64,
    /// Where its data begins.
    pub(super) data: Vec<u64>,
    /// Its metadata areas.
    pub(super) areas: Vec<Range<u64>>,
}

impl Label {
    /// The label in one of the first four sectors; none where there is none.
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Option<Self>, Refusal> {
        for at in [0, SECTOR, 2 * SECTOR, 3 * SECTOR] {
            if check_range(volume, at, SECTOR).is_err() {
                break;
            }
            let sector = read_vec(volume, at, index(SECTOR, "a sector")?)?;
            if sector.starts_with(b"LABELONE") {
                return Self::parse(at, &sector).map(Some);
            }
        }
        Ok(None)
    }

    fn parse(at: u64, sector: &[u8]) -> Result<Self, Refusal> {
        let (raw, _) =
            RawLabel::ref_from_prefix(sector).map_err(|_| Refusal::broken("its label is short"))?;
        // The checksum covers all that follows it.
        let checked = sector.get(20..).ok_or_else(|| Refusal::broken("its label is short"))?;
        if raw.id != *b"LABELONE" || raw.kind != *b"LVM2 001" || raw.sector.get() != at / SECTOR {
            return Err(Refusal::unknown("its label is not one of LVM2"));
        }
        if crc32_lvm([checked]) != raw.crc.get() {
            return Err(Refusal::broken("its label does not match its checksum"));
        }
        let header = usize::try_from(raw.offset.get()).ok().and_then(|offset| sector.get(offset..));
        let short = || Refusal::broken("its header is cut short");
        let (uuid, rest) = header.and_then(<[u8]>::split_first_chunk::<32>).ok_or_else(short)?;
        let (size, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (data, rest) = places(rest)?;
        let (areas, _) = places(rest)?;
        let end = |(offset, size): &(u64, u64)| Ok(*offset..add(*offset, *size, "a metadata area")?);
        Ok(Self {
            at: at..add(at, SECTOR, "the label")?,
            uuid: String::from_utf8_lossy(uuid).into_owned(),
            size: u64::from_le_bytes(*size),
            data: data.iter().map(|&(offset, _)| offset).collect(),
            areas: areas.iter().map(end).collect::<Result<_, Refusal>>()?,
        })
    }

    /// The text with the highest sequence number, which `parse` finds in it. An area that is not whole might
    /// have held a newer one, and two texts of the same number must be the same: both are refused.
    pub(super) fn newest<T>(
        &self,
        volume: &dyn ReadAt,
        parse: impl Fn(&str) -> Result<(u64, T), Refusal>,
    ) -> Result<T, Refusal> {
        let mut newest: Option<(u64, Vec<u8>, T)> = None;
        for area in &self.areas {
            let Some(text) = read_text(volume, area)? else { continue };
            let readable =
                std::str::from_utf8(&text).map_err(|_| Refusal::broken("its metadata is no text"))?;
            let (sequence, parsed) = parse(readable)?;
            match &newest {
                Some((best, same, _)) if *best == sequence && *same != text => {
                    return Err(Refusal::broken("its copies of the metadata differ"));
                }
                Some((best, ..)) if *best >= sequence => {}
                _ => newest = Some((sequence, text, parsed)),
            }
        }
        newest
            .map(|(.., parsed)| parsed)
            .ok_or_else(|| Refusal::broken("none of its metadata areas names a volume group"))
    }
}

/// Offsets and sizes.
type Places = Vec<(u64, u64)>;

/// A list of places, which one of zeros ends, and what follows it.
fn places(mut bytes: &[u8]) -> Result<(Places, &[u8]), Refusal> {
    let mut found = Vec::new();
    loop {
        let (raw, rest) =
            RawPlace::ref_from_prefix(bytes).map_err(|_| Refusal::broken("its header is cut short"))?;
        bytes = rest;
        if raw.offset.get() == 0 {
            return Ok((found, bytes));
        }
        if found.len() >= MAX_PLACES {
            return Err(Refusal::unknown("it has more areas than are read"));
        }
        found.push((raw.offset.get(), raw.size.get()));
    }
}

/// The text that an area's header names; none where the area is ignored or empty.
fn read_text(volume: &dyn ReadAt, area: &Range<u64>) -> Result<Option<Vec<u8>>, Refusal> {
    let size = area.end.checked_sub(area.start).filter(|&size| size > AREA_HEADER);
    let Some(size) = size.filter(|&size| check_range(volume, area.start, size).is_ok()) else {
        return Err(Refusal::broken("a metadata area lies outside the volume"));
    };
    let raw: RawArea = read_struct(volume, area.start)?;
    let header = read_vec(volume, area.start, index(AREA_HEADER, "a metadata area")?)?;
    let is_header = raw.magic == *b" LVM2 x[5A%r0N*>"
        && raw.version.get() == 1
        && raw.start.get() == area.start
        && raw.size.get() == size
        && header.get(4..).is_some_and(|checked| crc32_lvm([checked]) == raw.crc.get());
    let (offset, len) = (raw.text.offset.get(), raw.text.size.get());
    let fits = (AREA_HEADER..size).contains(&offset)
        && size.checked_sub(AREA_HEADER).is_some_and(|ring| len <= ring.min(MAX_TEXT));
    if !is_header {
        return Err(Refusal::broken("a metadata area has no valid header"));
    }
    if offset == 0 || raw.text.flags.get() & IGNORED != 0 {
        return Ok(None);
    }
    if !fits {
        return Err(Refusal::broken("a text lies outside its metadata area"));
    }
    // What does not fit before the end of the ring goes on at its beginning.
    let first =
        len.min(size.checked_sub(offset).ok_or_else(|| Refusal::broken("a text lies outside its area"))?);
    let rest = len.checked_sub(first).ok_or_else(|| Refusal::broken("a text lies outside its area"))?;
    let mut text = read_vec(volume, add(area.start, offset, "a text")?, index(first, "a text")?)?;
    text.extend(read_vec(volume, add(area.start, AREA_HEADER, "a text")?, index(rest, "a text")?)?);
    if crc32_lvm([text.as_slice()]) != raw.text.crc.get() {
        return Err(Refusal::broken("a copy of its metadata does not match its checksum"));
    }
    while text.last() == Some(&0) {
        text.pop();
    }
    Ok(Some(text))
}
