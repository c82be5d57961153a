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

use std::rc::Rc;

use super::boot::Geometry;
use super::mft::Mft;
use super::names::{harmless, path};
use super::record::{Attribute, Body, Record, kind, looks_in_use};
use super::stream::{Mapped, Stream, for_each_run};
use super::{inconsistent, site};
use crate::error::{Error, ErrorKind, Result, Site};
use crate::fs::Stop;
use crate::fs::witness::{Owner, OwnerWalk, Witness};
use crate::io::{Cached, ReadAt};
use crate::units::{Progress, add, index, len64, mul};

/// How much of $MFT is read at a time. A multiple of the largest record, 64 KiB.
const PIECE: u64 = 1 << 20;
/// How much of its $BITMAP is read at a time: half a million records.
const BITS_PIECE: u64 = 64 << 10;

/// $MFT to $UpCase: files that every volume has.
const SYSTEM_FILES: std::ops::RangeInclusive<u64> = 0..=10;

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
        Ok(Self { geometry, table, taken, records, next: 0, buf: Vec::new() })
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
            look.at_record(bytes, self.taken.contains(volume, number)?, witness)?;
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
    fn at_record(&self, bytes: &mut [u8], taken: bool, witness: &mut Witness<'_>) -> Result<(), Stop> {
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
        for attribute in &attributes {
            let Body::NonResident(part) = &attribute.body else { continue };
            let name = || self.name(&record, Some(attribute));
            let owner = || Owner { name: name(), site: Some(self.at) };
            for_each_run(part, self.geometry.clusters, self.at, |run| {
                run.range(self.geometry.cluster_size).map_or(Ok(()), |range| witness.owns(range, owner))
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
