//! The master file table: file records by number, and the attributes of a file wherever they lie.
//!
//! ```text
//!   boot sector ─► record 0 ($MFT) ─► its data runs ─► record n
//!                                                        ├─ attribute
//!                                                        └─ $ATTRIBUTE_LIST ─► attributes in records m, …
//!
//!   list entry: type · length · name · lowest VCN · file reference · instance
//! ```
//! An attribute list names the parts of an attribute in the order of their VCNs, so that a part's record
//! can be reached by the runs of the parts before it: $MFT's own list is read in this way too.
//!
//! Source: the linux-ntfs project's NTFS documentation, "$MFT" and "$ATTRIBUTE_LIST".

use std::cell::Cell;
use std::rc::Rc;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::boot::Geometry;
use super::record::{Attribute, Body, FileReference, Record, kind, utf16_is};
use super::site;
use super::stream::{Mapped, Stream};
use crate::error::{Error, Result};
use crate::io::{ReadAt, read_vec};
use crate::units::{add, len64, mul};

/// Windows limits an attribute list to 256 KiB.
const MAX_LIST: u64 = 256 << 10;

/// How many records are read for attribute lists in all. Even $MFT in ten thousands of fragments needs a few
/// hundred; each costs a read somewhere on the disk.
const MAX_EXTENSIONS: u32 = 1 << 14;

/// How many of them are read to find the names of one file, which come early in its attribute list.
const MAX_EXTENSIONS_FOR_A_NAME: u32 = 64;

/// The master file table of a volume.
pub(super) struct Mft<'v> {
    volume: &'v dyn ReadAt,
    geometry: Geometry,
    data: Rc<Mapped>,
    extensions_left: Cell<u32>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ListEntry {
    kind: U32,
    length: U16,
    name_length: u8,
    name_offset: u8,
    lowest_vcn: U64,
    reference: U64,
    instance: U16,
}

/// Where one attribute, or one part of it, is.
struct Part {
    lowest_vcn: u64,
    record: FileReference,
    instance: u16,
}

impl<'v> Mft<'v> {
    /// Finds all of $MFT from the boot sector's geometry.
    ///
    /// # Errors
    /// `corrupt`, `read-failed`.
    pub(super) fn open(volume: &'v dyn ReadAt, geometry: Geometry) -> Result<Self> {
        let offset = mul(geometry.mft_lcn, geometry.cluster_size, "the place of $MFT")?;
        let own = read_record(volume, geometry, offset, 0)?;
        let data = own.find(kind::DATA, "")?;
        let data = data.ok_or_else(|| Error::corrupt(own.site(), "$MFT has no data"))?;
        let Body::NonResident(first) = &data.body else {
            return Err(Error::corrupt(own.site(), "$MFT lies in its own record"));
        };
        let data = Mapped::new(first, data.flags, geometry, own.site())?;
        if data.ranges().next().map(|first| first.start) != Some(offset) {
            return Err(Error::corrupt(
                own.site(),
                "$MFT and the boot sector disagree about where $MFT begins",
            ));
        }
        let extensions_left = Cell::new(MAX_EXTENSIONS);
        let mut mft = Self { volume, geometry, data: Rc::new(data), extensions_left };
        for part in mft.parts(&own, kind::DATA, "")?.unwrap_or_default() {
            if part.record.number == 0 {
                continue;
            }
            let record = mft.extension(&own, part.record)?;
            let attribute = find_part(&record, &part, kind::DATA, "")?;
            let Body::NonResident(next) = &attribute.body else {
                return Err(Error::corrupt(record.site(), "a part of $MFT's data lies in a record"));
            };
            Rc::make_mut(&mut mft.data).extend(next)?;
        }
        mft.data.check_complete()?;
        if !mft.data.is_plain_and_fits() {
            let message = "$MFT is sparse, compressed, encrypted, or larger than the volume";
            return Err(Error::corrupt(own.site(), message));
        }
        Ok(mft)
    }

    /// The table whose clusters are known already, to look up the names of files.
    pub(super) fn for_names(volume: &'v dyn ReadAt, geometry: Geometry, data: Rc<Mapped>) -> Self {
        Self { volume, geometry, data, extensions_left: Cell::new(MAX_EXTENSIONS_FOR_A_NAME) }
    }

    pub(super) fn volume(&self) -> &'v dyn ReadAt {
        self.volume
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// $MFT's own clusters.
    pub(super) fn data(&self) -> &Rc<Mapped> {
        &self.data
    }

    /// The file record `number`, in use or not.
    ///
    /// # Errors
    /// `corrupt`, `read-failed`.
    pub(super) fn record(&self, number: u64) -> Result<Record> {
        let len = len64(self.geometry.record_size);
        let offset = mul(number, len, "the place of a file record")?;
        let at = self.data.site();
        if add(offset, len, "the place of a file record")? > self.data.initialised_size() {
            return Err(Error::corrupt(at, format!("$MFT ends before file record {number}")));
        }
        let place = self.data.position(offset)?;
        let mut bytes = vec![0; self.geometry.record_size];
        self.data.read_at(self.volume, offset, &mut bytes)?;
        Record::parse(bytes, number, site("NTFS file record", place))
    }

    /// The base record of a file that is in use.
    ///
    /// # Errors
    /// `corrupt`, `read-failed`.
    pub(super) fn file(&self, number: u64) -> Result<Record> {
        let record = self.record(number)?;
        if !record.is_in_use() || record.base().is_some() {
            return Err(Error::corrupt(
                record.site(),
                format!("file record {number} is no file's base record"),
            ));
        }
        Ok(record)
    }

    /// The record that `reference` means as a continuation of `base`.
    fn extension(&self, base: &Record, reference: FileReference) -> Result<Record> {
        let left = self.extensions_left.get().checked_sub(1);
        self.extensions_left.set(left.ok_or_else(|| {
            Error::limit(base.site(), "attribute lists name more file records than are followed")
        })?);
        let record = self.record(reference.number)?;
        let belongs = record.base() == Some(base.reference()) && record.reference() == reference;
        if !record.is_in_use() || !belongs {
            return Err(Error::corrupt(record.site(), "an attribute list names a record of another file")
                .expected(
                    format_args!("a part of {:?}", base.reference()),
                    format_args!("{:?}", record.base()),
                ));
        }
        Ok(record)
    }

    /// Where the parts of an attribute are, if the file has an attribute list.
    fn parts(&self, base: &Record, kind: u32, name: &str) -> Result<Option<Vec<Part>>> {
        let Some(list) = base.find(kind::ATTRIBUTE_LIST, "")? else { return Ok(None) };
        let list = match list.body {
            Body::Resident(value) => Stream::Resident(value.to_vec()),
            Body::NonResident(part) => {
                let mapped = Mapped::new(&part, list.flags, self.geometry, base.site())?;
                Stream::Mapped(mapped.complete()?)
            }
        };
        let list = list.read_all(self.volume, MAX_LIST)?;
        let mut parts = Vec::new();
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let (part, len) = Part::parse(rest, kind, name)
                .ok_or_else(|| Error::corrupt(base.site(), "an entry of an attribute list is cut short"))?;
            parts.extend(part);
            rest = rest.get(len..).unwrap_or_default();
        }
        Ok(Some(parts))
    }

    /// The value of an attribute, put together from all its parts; none if the file has none such.
    ///
    /// # Errors
    /// `corrupt`, `read-failed`, `limit-exceeded`.
    pub(super) fn stream(&self, base: &Record, kind: u32, name: &str) -> Result<Option<Stream>> {
        let Some(parts) = self.parts(base, kind, name)? else {
            let attribute = base.find(kind, name)?;
            return attribute.map(|attribute| self.single(base, &attribute)?.complete()).transpose();
        };
        let mut whole: Option<Stream> = None;
        for part in parts {
            let elsewhere;
            let record = if part.record == base.reference() {
                base
            } else {
                elsewhere = self.extension(base, part.record)?;
                &elsewhere
            };
            let attribute = find_part(record, &part, kind, name)?;
            match (&mut whole, &attribute.body) {
                (None, _) => whole = Some(self.single(record, &attribute)?),
                (Some(Stream::Mapped(mapped)), Body::NonResident(next)) => {
                    mapped.extend(next)?;
                }
                _ => return Err(Error::corrupt(record.site(), "an attribute is partly resident")),
            }
        }
        whole.map(Stream::complete).transpose()
    }

    fn single(&self, record: &Record, attribute: &Attribute<'_>) -> Result<Stream> {
        match &attribute.body {
            Body::Resident(value) => Ok(Stream::Resident(value.to_vec())),
            Body::NonResident(part) => {
                let mapped = Mapped::new(part, attribute.flags, self.geometry, record.site())?;
                Ok(Stream::Mapped(mapped))
            }
        }
    }

    /// Calls `visit` with the value of every `$FILE_NAME` of the file.
    ///
    /// # Errors
    /// `corrupt`, `read-failed`.
    pub(super) fn file_names(&self, base: &Record, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let mut all = |record: &Record| -> Result<()> {
            for attribute in record.attributes()?.iter().filter(|a| a.kind == kind::FILE_NAME) {
                if let Body::Resident(value) = attribute.body {
                    visit(value);
                }
            }
            Ok(())
        };
        all(base)?;
        let mut last = base.reference();
        for part in self.parts(base, kind::FILE_NAME, "")?.unwrap_or_default() {
            if part.record != base.reference() && part.record != last {
                last = part.record;
                all(&self.extension(base, part.record)?)?;
            }
        }
        Ok(())
    }
}

/// Reads the file record that lies at a volume offset.
///
/// # Errors
/// `corrupt`, `read-failed`.
pub(super) fn read_record(
    volume: &dyn ReadAt,
    geometry: Geometry,
    offset: u64,
    number: u64,
) -> Result<Record> {
    let bytes = read_vec(volume, offset, geometry.record_size)?;
    Record::parse(bytes, number, site("NTFS file record", offset))
}

fn find_part<'r>(record: &'r Record, part: &Part, kind: u32, name: &str) -> Result<Attribute<'r>> {
    let is_it = |a: &Attribute<'_>| a.kind == kind && a.instance == part.instance && a.is_named(name);
    let attribute = record.attributes()?.into_iter().find(is_it);
    let attribute = attribute.filter(|attribute| match attribute.body {
        Body::Resident(_) => part.lowest_vcn == 0,
        Body::NonResident(found) => found.first_vcn == part.lowest_vcn,
    });
    attribute.ok_or_else(|| {
        Error::corrupt(record.site(), "an attribute list names an attribute that is not there")
            .expected(format_args!("type {kind:#x} from VCN {}", part.lowest_vcn), "none")
    })
}

impl Part {
    /// The entry at the start of `bytes` if it is of this type and name, and the entry's length.
    fn parse(bytes: &[u8], kind: u32, name: &str) -> Option<(Option<Self>, usize)> {
        let (entry, _) = ListEntry::ref_from_prefix(bytes).ok()?;
        let len = usize::from(entry.length.get());
        let bytes = bytes.get(..len).filter(|bytes| bytes.len() >= size_of::<ListEntry>())?;
        let start = usize::from(entry.name_offset);
        let own_name =
            bytes.get(start..start.checked_add(usize::from(entry.name_length).checked_mul(2)?)?)?;
        let part = (entry.kind.get() == kind && utf16_is(own_name, name)).then(|| Self {
            lowest_vcn: entry.lowest_vcn.get(),
            record: FileReference::new(entry.reference.get()),
            instance: entry.instance.get(),
        });
        Some((part, len))
    }
}
