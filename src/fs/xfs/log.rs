//! The log: whether its last record says that the file system was unmounted.
//!
//! ```text
//!   cycle 8 8 8 8 8 8 8 8 8 8 8 │ 7 7 7 7 7 7 7 7 7      sectors of 512 bytes, each begins with its cycle
//!         … records … │header│op│ ◄ head                 the last record before the head
//! ```
//! The log is written round and round, and each sector's first word is the number of the round ("cycle"). So
//! the head is where the cycle drops. The last record before it must end just there and hold one operation, the
//! unmount record. Anything else means that newer metadata may be in the log only, and what is free on the
//! disk is then out of date. Nothing is replayed here.
//!
//! Source: XFS Algorithms & Data Structures, "Journaling Log"; the kernel's `xfs_log_format.h`.

use zerocopy::byteorder::{BE, LE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::superblock::Fs;
use super::{damaged, site};
use crate::checksum::{crc32c, crc32c_append};
use crate::error::Error;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_struct, read_vec};
use crate::units::{add, index, length, mul};

/// A sector of the log, whatever the disk's sectors are.
const SECTOR: u64 = 512;
const MAGIC: u32 = 0xFEED_BABE;
/// How far before the head a sector of the round before may still stand: eight buffers of 256 KiB are written
/// at a time, in any order.
const IN_FLIGHT: u64 = (8 * 256) << 10;
/// How far before the head the header of an unmount record stands at most: its data fill one stripe unit (256
/// KiB), after a header sector for every 32 KiB.
const MAX_RECORD: u64 = 256 * 1024 / SECTOR + 8;
/// Bytes of data whose cycles one header sector holds.
const CYCLES_PER_HEADER: u32 = 32 << 10;
/// The part of a record's header that its checksum covers, where the checksum stands in it, and as much of it
/// as machines of 32 bits cover.
const HEADER: usize = 328;
const HEADER_32: usize = 324;
const CRC_AT: usize = 32;
/// The part of a further header sector that the checksum covers.
const MORE_HEADER: usize = 260;
const UNMOUNT: u8 = 0x20;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U32<BE>,
    cycle: U32<BE>,
    version: U32<BE>,
    len: U32<BE>,
    lsn: U64<BE>,
    _tail_lsn: U64<BE>,
    crc: U32<LE>,
    _prev_block: U32<BE>,
    operations: U32<BE>,
    _cycles: [u8; 256],
    _format: U32<BE>,
    uuid: [u8; 16],
    size: U32<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawOperation {
    _transaction: U32<BE>,
    _len: U32<BE>,
    _client: u8,
    flags: u8,
    _reserved: [u8; 2],
}

/// Declines unless the log is clean by its own records. Gives the LSN of its end.
pub(super) fn require_clean(fs: &Fs, volume: &dyn ReadAt) -> Result<u64, Stop> {
    let place = &fs.log;
    let bytes = fs.bytes(place.group, place.start, place.count, &|| site("XFS log", 0))?;
    let log = Log { volume, start: bytes.start, sectors: length(&bytes) / SECTOR };
    let head = log.head()?;
    let (at, header) = log.last_record(head)?;
    log.check(fs, at, &header, head)
}

struct Log<'a> {
    volume: &'a dyn ReadAt,
    start: u64,
    sectors: u64,
}

impl Log<'_> {
    fn offset(&self, sector: u64) -> Result<u64, Stop> {
        Ok(add(self.start, mul(sector, SECTOR, "the log")?, "the log")?)
    }

    /// The sector that is `by` sectors before `sector`, round the end.
    fn before(&self, sector: u64, by: u64) -> Result<u64, Stop> {
        // A round further on, it is the same sector, and the log's start is not in the way.
        let sector = if sector < by { add(sector, self.sectors, "the log")? } else { sector };
        let before = sector.checked_sub(by);
        Ok(before.ok_or_else(|| Error::internal("went back by more than the length of the log"))?)
    }

    fn after(&self, sector: u64, by: u64) -> Result<u64, Stop> {
        let sum = add(sector, by, "the log")?;
        Ok(sum.checked_rem(self.sectors).unwrap_or(0))
    }

    fn cycle(&self, sector: u64) -> Result<u32, Stop> {
        let [first, second]: [U32<BE>; 2] = read_struct(self.volume, self.offset(sector)?)?;
        Ok(if first.get() == MAGIC { second.get() } else { first.get() })
    }

    /// The first sector after the newest record, found by halving as the kernel finds it.
    fn head(&self) -> Result<u64, Stop> {
        let Some(last) = self.sectors.checked_sub(1) else { return Err(self.pending(0, "it is empty")) };
        let (newest, oldest) = (self.cycle(0)?, self.cycle(last)?);
        if newest == 0 {
            return Err(self.pending(0, "it holds no record"));
        }
        // Sectors that were never written have cycle 0, and there are some in the first round only.
        let expected = if oldest == 0 { 1 } else { newest };
        if newest != expected || oldest != 0 && oldest != newest && oldest.checked_add(1) != Some(newest) {
            return Err(self.pending(0, "its cycles do not follow each other"));
        }
        let mut head = self.sectors;
        if oldest != newest {
            let mut before = 0u64;
            head = last;
            while length(&(before..head)) > 1 {
                let middle = before.midpoint(head);
                if self.cycle(middle)? == newest { before = middle } else { head = middle }
            }
        }
        self.without_gaps(head, newest)
    }

    /// Moves the head back to the first sector before it that the newest round has not written yet.
    fn without_gaps(&self, head: u64, newest: u32) -> Result<u64, Stop> {
        // Clamped: there are no sectors before the start of the log.
        let from = head.saturating_sub(IN_FLIGHT / SECTOR);
        let len = mul(length(&(from..head)), SECTOR, "the log")?;
        let bytes = read_vec(self.volume, self.offset(from)?, index(len, "the log")?)?;
        let stale = bytes.chunks_exact(512).position(|sector| {
            let word = |at: usize| sector.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word));
            let cycle = if word(0) == Some(MAGIC) { word(4) } else { word(0) };
            cycle != Some(newest)
        });
        match stale {
            Some(at) => Ok(add(from, crate::units::len64(at), "the log")?),
            None => Ok(if head == self.sectors { 0 } else { head }),
        }
    }

    /// The header of the last record before the head, and where it stands.
    fn last_record(&self, head: u64) -> Result<(u64, RawHeader), Stop> {
        for by in 1..=MAX_RECORD.min(self.sectors) {
            let at = self.before(head, by)?;
            let header: RawHeader = read_struct(self.volume, self.offset(at)?)?;
            if header.magic.get() == MAGIC {
                return Ok((at, header));
            }
        }
        Err(self.pending(head, "its last record is not an unmount record"))
    }

    /// Declines unless the record at `at` is an unmount record that ends at `head`.
    fn check(&self, fs: &Fs, at: u64, header: &RawHeader, head: u64) -> Result<u64, Stop> {
        let version = header.version.get();
        let cycle = header.cycle.get();
        if !matches!(version, 1 | 2) || version == 2 && !fs.log_v2 {
            return Err(self.pending(at, "the version of its last record is unknown"));
        }
        if header.uuid != fs.uuid && header.uuid != [0; 16] {
            return Err(self.pending(at, "its last record belongs to another file system"));
        }
        if header.lsn.get() != lsn(cycle, at)? {
            return Err(self.pending(at, "its last record stands where it does not belong"));
        }
        let size = header.size.get();
        let headers = if version == 2 { size.div_ceil(CYCLES_PER_HEADER).max(1) } else { 1 };
        let data_sectors = u64::from(header.len.get()).div_ceil(SECTOR);
        let total = add(headers.into(), data_sectors, "a log record")?;
        if total > MAX_RECORD || total >= self.sectors || self.after(at, total)? != head {
            return Err(self.pending(at, "its last record is not an unmount record"));
        }
        let first = self.after(at, headers.into())?;
        let operation: RawOperation = read_struct(self.volume, self.offset(first)?)?;
        if header.operations.get() != 1 || data_sectors == 0 || operation.flags & UNMOUNT == 0 {
            return Err(self.pending(at, "its last record is not an unmount record"));
        }
        // mkfs writes none.
        if fs.v5 && header.crc.get() != 0 {
            self.check_crc(at, header, headers)?;
        }
        // After the end of the log, the next round begins.
        lsn(if at >= head { cycle.wrapping_add(1) } else { cycle }, head)
    }

    fn check_crc(&self, at: u64, header: &RawHeader, headers: u32) -> Result<(), Stop> {
        let sector = |number| read_vec(self.volume, self.offset(number)?, 512).map_err(Stop::from);
        let mut first = sector(at)?;
        if let Some(crc) = first.get_mut(CRC_AT..).and_then(|crc| crc.first_chunk_mut::<4>()) {
            *crc = [0; 4];
        }
        let (mut crc, mut crc_32) = (covered(0, &first, HEADER)?, covered(0, &first, HEADER_32)?);
        let both = |crcs: (&mut u32, &mut u32), bytes: &[u8], len| -> Result<(), Stop> {
            *crcs.0 = covered(*crcs.0, bytes, len)?;
            *crcs.1 = covered(*crcs.1, bytes, len)?;
            Ok(())
        };
        for by in 1..u64::from(headers) {
            both((&mut crc, &mut crc_32), &sector(self.after(at, by)?)?, MORE_HEADER)?;
        }
        let end = u64::from(header.len.get());
        for (by, start) in (u64::from(headers)..).zip((0..end).step_by(512)) {
            let len = index(length(&(start..end)).min(SECTOR), "a log record")?;
            both((&mut crc, &mut crc_32), &sector(self.after(at, by)?)?, len)?;
        }
        if header.crc.get() == crc || header.crc.get() == crc_32 {
            return Ok(());
        }
        Err(damaged("the checksum of the last record of its log is wrong", site("XFS log", self.offset(at)?)))
    }

    fn pending(&self, sector: u64, why: &str) -> Stop {
        let detail = format!(
            "The log of the XFS file system may hold changes that are not written to their places yet: {why}. \
             What is free is told only by a file system that was unmounted: mount and unmount it once (shut \
             the machine down completely), then try again."
        );
        let offset = self.offset(sector).unwrap_or(self.start);
        Decline::new(DeclineReason::JournalPending, detail).at(site("XFS log", offset)).into()
    }
}

/// The log sequence number of a sector of the log in one of its rounds.
fn lsn(cycle: u32, sector: u64) -> Result<u64, Stop> {
    Ok(add(u64::from(cycle) << 32, sector, "a log sequence number")?)
}

fn covered(crc: u32, sector: &[u8], len: usize) -> Result<u32, Stop> {
    let bytes = sector.get(..len).ok_or_else(|| Error::internal("a log sector is too short"))?;
    Ok(if crc == 0 { crc32c(bytes) } else { crc32c_append(crc, bytes) })
}
