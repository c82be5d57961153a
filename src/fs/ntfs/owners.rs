//! The second witness of NTFS: everything that a file record says it owns.
//!
//! ```text
//!   $MFT          record 0 │ record 1 │ … │ record n            read in a row, once, a piece at a time
//!   its $BITMAP        1          1     …       0               whether the record is taken
//!                      │
//!                      └► every non-resident attribute, in base and extension records: its data runs
//! ```
//! Files, directories, streams, attribute lists and the system files ($MFT, $LogFile, $Bitmap, $Boot, what
//! $BadClus really holds) all own their clusters in the same way, so one rule finds them all. Attribute lists
//! are not followed: the records that they name are in the table, too.
//!
//! | $BITMAP of $MFT | the record | counts as |
//! |---|---|---|
//! | whatever it says | whole, in use | an owner |
//! | whatever it says | whole, not in use | nothing: what it tells of was deleted (system files never are: **decline**) |
//! | taken | torn, overwritten, another's | an owner of nobody knows what: **decline** |
//! | free | the same, and marked in use | the same: **decline** |
//! | free | the same, and not marked in use | nothing |
//! | taken | past the end of the table | an owner of nobody knows what: **decline** |
//!
//! Records 16 to 23 are kept for $MFT's own parts, whose list was followed when $MFT was opened; mkntfs leaves them
//! without a number. That they are called taken says nothing.
//!
//! Where a record is whole and what it says is impossible (runs outside the volume, attributes past its end),
//! its claims are not known either, and the volume is declined.
//!
//! Source: the linux-ntfs project's NTFS documentation, "$MFT".

use std::collections::HashSet;
use std::rc::Rc;

use super::boot::Geometry;
use super::mft::Mft;
use super::names::{harmless, path};
use super::record::{Attribute, Body, FileReference, Record, kind, looks_in_use};
use super::stream::{Mapped, Stream, for_each_run};
use super::{inconsistent, site};
use crate::error::{Error, ErrorKind, Result, Site};
use crate::fs::{Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Cached, ReadAt};
use crate::units::{Progress, add, index, len64, mul};

/// How much of $MFT is read at a time. A multiple of the largest record, 64 KiB.
const PIECE: u64 = 1 << 20;
/// How much of its $BITMAP is read at a time: half a million records.
const BITS_PIECE: u64 = 64 << 10;

/// $MFT to $UpCase: files that every volume has.
const SYSTEM_FILES: std::ops::RangeInclusive<u64> = 0..=10;

/// The directory of the system files that came later: $ObjId, $Quota, $Reparse, $UsnJrnl, $RmMetadata.
const EXTEND: u64 = 11;

/// How many of its files are remembered, with those in its directories.
const MAX_EXTENDED: usize = 1 << 10;

/// Records for parts of $MFT alone.
const RESERVED: std::ops::Range<u64> = 16..24;

/// The walk over the records of $MFT.
#[derive(Debug)]
pub(super) struct RecordWalk {
    geometry: Geometry,
    table: Rc<Mapped>,
    taken: Taken,
    /// How many records there are.
    records: u64,
    /// The next one to look at.
    next: u64,
    buf: Vec<u8>,
    systems: Systems,
}

impl OwnerWalk for RecordWalk {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let mut read = 0;
        let mut finished = false;
        while read < budget && !finished {
            let bytes = if self.next < self.records {
                self.piece(volume, witness)?
            } else {
                let bytes = self.taken.piece_past_the_table(volume)?;
                finished = bytes == 0;
                bytes
            };
            read = add(read, bytes, "what a step has read")?;
        }
        let record_size = len64(self.geometry.record_size);
        let bytes = |records: u64| mul(records, record_size, "the size of $MFT");
        Ok(Progress { done: bytes(self.next)?, total: bytes(self.records)?, finished })
    }

    fn remedy(&self) -> &'static str {
        "attach the volume to Windows and run `chkdsk X: /f` (X being its letter)"
    }
}

impl RecordWalk {
    /// The walk over the table of a volume.
    ///
    /// # Errors
    /// `corrupt` where $MFT has no $BITMAP that can be read.
    pub(super) fn new(mft: &Mft<'_>) -> Result<Self> {
        let record = mft.file(0)?;
        let bits = mft.stream(&record, kind::BITMAP, "")?;
        let bits = bits.ok_or_else(|| Error::corrupt(record.site(), "$MFT has no $BITMAP"))?;
        if let Stream::Mapped(mapped) = &bits
            && !mapped.is_plain_and_fits()
        {
            let message = "the $BITMAP of $MFT is sparse, compressed, encrypted, or larger than the volume";
            return Err(Error::corrupt(record.site(), message));
        }
        let (geometry, table) = (mft.geometry(), Rc::clone(mft.data()));
        // What follows the initialised size was never written, and a record that is cut short is none.
        let records = table
            .initialised_size()
            .checked_div(len64(geometry.record_size))
            .ok_or_else(|| Error::internal("file records without a size"))?;
        let at = record.site();
        let taken = Taken { bits, at, records, next_past: records / 8, start: 0, piece: Vec::new() };
        Ok(Self { geometry, table, taken, records, next: 0, buf: Vec::new(), systems: Systems::default() })
    }

    /// Looks at the records of the next piece of $MFT, and gives how many bytes that took.
    fn piece(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<u64, Stop> {
        let record_size = len64(self.geometry.record_size);
        let place_of = |number: u64| mul(number, record_size, "the place of a file record");
        let left = self.records.checked_sub(self.next).ok_or_else(|| Error::internal("past $MFT"))?;
        let len = place_of(left)?.min(PIECE);
        self.buf.resize(index(len, "a piece of $MFT")?, 0);
        self.table.read_at(volume, place_of(self.next)?, &mut self.buf)?;
        for bytes in self.buf.chunks_exact_mut(self.geometry.record_size) {
            let number = self.next;
            let at = site("NTFS file record", self.table.position(place_of(number)?)?);
            let look = Look { geometry: self.geometry, table: &self.table, volume, number, at };
            let taken = self.taken.contains(volume, number)?;
            look.at_record(bytes, taken, &mut self.systems, witness)?;
            self.next = add(number, 1, "the number of a file record")?;
        }
        Ok(len)
    }
}

/// A look at one record.
struct Look<'w> {
    geometry: Geometry,
    table: &'w Rc<Mapped>,
    volume: &'w dyn ReadAt,
    number: u64,
    at: Site,
}

impl Look<'_> {
    fn at_record(
        &self,
        bytes: &mut [u8],
        taken: bool,
        systems: &mut Systems,
        witness: &mut Witness<'_>,
    ) -> Result<(), Stop> {
        let may_own = taken && !RESERVED.contains(&self.number) || looks_in_use(bytes);
        let record = match Record::parse(bytes, self.number, self.at) {
            Ok(record) => record,
            Err(_) if !may_own => return Ok(()),
            Err(error) => return Err(self.doubt(&format!("file record {}", self.number), &error)),
        };
        if !record.is_in_use() {
            let is_needed = SYSTEM_FILES.contains(&self.number);
            let error = Error::corrupt(self.at, "the record of a system file is not in use");
            return if is_needed { Err(self.doubt(&self.name(&record, None), &error)) } else { Ok(()) };
        }
        witness.looked_at(1)?;
        let attributes =
            record.attributes().map_err(|error| self.doubt(&self.name(&record, None), &error))?;
        let is_systems = systems.contain(&record, self.number, &attributes);
        for attribute in &attributes {
            let Body::NonResident(part) = &attribute.body else { continue };
            let name = || self.name(&record, Some(attribute));
            let owner = || Owner { name: name(), site: Some(self.at) };
            let is_content = attribute.kind == kind::DATA && !is_systems;
            let purpose = if is_content { Purpose::File } else { Purpose::Structure };
            for_each_run(part, self.geometry.clusters, self.at, |run| {
                let range = run.range(self.geometry.cluster_size);
                range.map_or(Ok(()), |range| witness.owns(purpose, range, owner))
            })
            .map_err(|stop| match stop {
                Stop::Error(error) if error.kind() == ErrorKind::Corrupt => self.doubt(&name(), &error),
                other => other,
            })?;
        }
        Ok(())
    }

    /// A path for the owner that this record, or an attribute of it, stands for.
    fn name<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        record: &Record<B>,
        attribute: Option<&Attribute<'_>>,
    ) -> String {
        let base = record.base().map_or(self.number, |base| base.number);
        let volume = Cached::new(self.volume);
        let mut name = path(&Mft::for_names(&volume, self.geometry, Rc::clone(self.table)), base);
        if let Some(attribute) = attribute
            && attribute.kind == kind::DATA
            && !attribute.name.is_empty()
        {
            name.push(':');
            name.push_str(&harmless(attribute.name));
        }
        name
    }

    fn doubt(&self, name: &str, error: &Error) -> Stop {
        let detail = format!("What space “{name}” has cannot be told ({}).", error.summary());
        inconsistent(detail).at(error.site().unwrap_or(self.at)).into()
    }
}

/// The files of the file system's own, told from those of people by where they are: the first records, and what lies
/// in $Extend. A file whose record comes before that of its directory is not known to be one, and a part of a file
/// that comes before the file's first record neither: both are called files then, which harms nothing.
#[derive(Debug, Default)]
struct Systems(HashSet<u64>);

impl Systems {
    /// Whether the record `number` belongs to one. It is remembered, so that what lies in it is known as well.
    fn contain<B: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        record: &Record<B>,
        number: u64,
        attributes: &[Attribute<'_>],
    ) -> bool {
        let base = record.base().map_or(number, |base| base.number);
        if base < RESERVED.end || self.0.contains(&base) {
            return true;
        }
        let names = attributes.iter().filter(|attribute| attribute.kind == kind::FILE_NAME);
        let is_inside = names.filter_map(parent).any(|parent| parent == EXTEND || self.0.contains(&parent));
        if is_inside && self.0.len() < MAX_EXTENDED {
            self.0.insert(base);
        }
        is_inside
    }
}

/// The directory that a name is in.
fn parent(name: &Attribute<'_>) -> Option<u64> {
    let Body::Resident(value) = &name.body else { return None };
    value.first_chunk().map(|raw| FileReference::new(u64::from_le_bytes(*raw)).number)
}

/// $MFT's own $BITMAP: a bit for each record, least significant first, 1 = taken.
#[derive(Debug)]
struct Taken {
    bits: Stream,
    /// The record that tells of them.
    at: Site,
    records: u64,
    /// The byte from which on bits past the table are to be looked for.
    next_past: u64,
    /// The piece that was read last, and the byte at which it starts.
    start: u64,
    piece: Vec<u8>,
}

impl Taken {
    /// Whether a record is taken; where the bits have ended it is presumed to be.
    fn contains(&mut self, volume: &dyn ReadAt, number: u64) -> Result<bool> {
        let bit = u32::try_from(number % 8).unwrap_or(0);
        let byte = self.byte(volume, number / 8)?;
        Ok(byte.is_none_or(|byte| byte.checked_shr(bit).unwrap_or(0) & 1 != 0))
    }

    fn byte(&mut self, volume: &dyn ReadAt, at: u64) -> Result<Option<u8>> {
        let within = at.checked_sub(self.start).and_then(|into| usize::try_from(into).ok());
        if let Some(&byte) = within.and_then(|into| self.piece.get(into)) {
            return Ok(Some(byte));
        }
        let Some(left) = self.bits.len().checked_sub(at).filter(|&left| left > 0) else { return Ok(None) };
        self.piece.resize(index(left.min(BITS_PIECE), "a piece of $MFT's $BITMAP")?, 0);
        self.bits.read_at(volume, at, &mut self.piece)?;
        self.start = at;
        Ok(self.piece.first().copied())
    }

    /// Refuses bits that are set past the end of the table, where there is no record that could tell what it
    /// owns. Looks at a piece of them, and gives how many bytes that were.
    fn piece_past_the_table(&mut self, volume: &dyn ReadAt) -> Result<u64, Stop> {
        let start = self.next_past;
        let end = add(start, BITS_PIECE, "a place in $MFT's $BITMAP")?.min(self.bits.len());
        while self.next_past < end {
            let at = self.next_past;
            let bits = if self.byte(volume, at)?.is_some_and(|byte| byte != 0) { 0..8 } else { 0..0 };
            for bit in bits {
                let number = add(mul(at, 8, "a record's number")?, bit, "a record's number")?;
                if number >= self.records && self.contains(volume, number)? {
                    let detail = format!("File record {number} is called taken, and $MFT ends before it.");
                    return Err(inconsistent(detail).at(self.at).into());
                }
            }
            self.next_past = add(at, 1, "a place in $MFT's $BITMAP")?;
        }
        Ok(self.next_past.checked_sub(start).ok_or_else(|| Error::internal("$BITMAP went backwards"))?)
    }
}

#[cfg(test)]
#[path = "owners_tests.rs"]
mod tests;
