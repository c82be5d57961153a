//! $LogFile: whether the volume was detached cleanly.
//!
//! ```text
//!   0            page size                2 pages
//!   │ restart page │ restart page (copy) │ log record pages …
//!
//!   restart page: "RSTR" · update sequence array
//!                 0x10 system page size · 0x14 log page size · 0x18 restart area · 0x1A minor, major version
//!   restart area: 0x00 current LSN · 0x08 clients · 0x0A free list · 0x0C in-use list · 0x0E flags
//!                 0x16 client array · 0x18 file size
//! ```
//! The newer restart page (by its LSN) speaks. The log is clean when no client is in use or the flag
//! *clean* is set; Windows writes two equal pages when it detaches a volume. A log full of 0xFF is what
//! mkntfs, ntfs-3g and Linux leave after having found, or made, a clean one.
//!
//! Windows 8 and later use version 2.0 while a volume is mounted and go back to 1.1 when they detach it.
//! Fast Startup and power cuts leave 2.0 behind, with metadata that only Windows' memory or the log has.
//!
//! Source: the linux-ntfs project's NTFS documentation, "$LogFile"; the verdict is that of ntfs-3g's
//! `ntfs_check_logfile` and `ntfs_is_logfile_clean`, made stricter: both pages must be whole.

use zerocopy::little_endian::{I16, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::mft::Mft;
use super::record::{kind, undo_fixups};
use super::stream::{Mapped, Stream};
use crate::error::{Error, Result, Site};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::ReadAt;
use crate::units::{add, index, len64, mul};

/// The record of $LogFile.
const LOG_FILE: u64 = 2;
/// Two restart pages and the 48 log pages that NTFS wants at least.
const MIN_LOG: u64 = 50 * 4096;
/// How much of the log's start must be 0xFF for it to count as empty: the largest restart pages.
const EMPTY_HEAD: usize = 128 << 10;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=64 << 10;
const NO_CLIENT: u16 = 0xFFFF;
const FLAG_CLEAN: u16 = 0x0002;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RestartPageHeader {
    magic: [u8; 4],
    _update_sequence: [u8; 4],
    _chkdsk_lsn: U64,
    system_page_size: U32,
    _log_page_size: U32,
    restart_area_offset: U16,
    minor: I16,
    major: I16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RestartAreaHeader {
    current_lsn: U64,
    clients: U16,
    free_list: U16,
    in_use_list: U16,
    flags: U16,
}

/// What one restart page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Restart {
    lsn: u64,
    version: (i16, i16),
    clean: bool,
}

/// Declines unless the log says that the volume was detached cleanly.
///
/// # Errors
/// The decline, or `corrupt`, `read-failed`.
pub(super) fn check(mft: &Mft<'_>) -> Result<(), Stop> {
    let record = mft.file(LOG_FILE)?;
    let Some(Stream::Mapped(log)) = mft.stream(&record, kind::DATA, "")? else {
        return Err(Error::corrupt(record.site(), "$LogFile has no clusters").into());
    };
    let place = log.position(0)?;
    let at = super::site("NTFS $LogFile", place);
    if log.data_size() < MIN_LOG || log.initialised_size() < MIN_LOG {
        return Err(Error::corrupt(at, "$LogFile is shorter than NTFS allows")
            .expected(format_args!("at least {MIN_LOG} bytes"), log.initialised_size())
            .into());
    }
    let mut head = vec![0; EMPTY_HEAD.min(index(log.data_size(), "$LogFile")?)];
    log.read_at(mft.volume(), 0, &mut head)?;
    if head.starts_with(&[0xFF; 4]) {
        return if is_empty(mft.volume(), &log, &head)? { Ok(()) } else { Err(not_clean(at)) };
    }
    let first = Restart::parse(&head, 0, at)?;
    let second = Restart::parse(&head, page_size(&head, at)?, at)?;
    verdict(first, second, at)
}

fn verdict(first: Restart, second: Restart, at: Site) -> Result<(), Stop> {
    for restart in [first, second] {
        match restart.version {
            (1, 1) => {}
            (2, 0) => {
                return Err(Decline::new(
                    DeclineReason::Dirty,
                    "Windows was not shut down fully: Fast Startup, hibernation or a power cut left this volume's \
                     log open, and parts of the file system may not be on the disk yet. Start Windows, shut it down \
                     with `shutdown /s /t 0` (or detach the disk there), and try again.",
                )
                .at(at)
                .into());
            }
            (major, minor) => {
                return Err(Decline::new(
                    DeclineReason::UnknownFeature,
                    format!("The log of this volume has version {major}.{minor}, which is not known here."),
                )
                .at(at)
                .into());
            }
        }
    }
    let clean = match first.lsn.cmp(&second.lsn) {
        std::cmp::Ordering::Greater => first.clean,
        std::cmp::Ordering::Less => second.clean,
        std::cmp::Ordering::Equal => first.clean && second.clean,
    };
    if clean { Ok(()) } else { Err(not_clean(at)) }
}

fn not_clean(at: Site) -> Stop {
    Decline::new(
        DeclineReason::Dirty,
        "The volume was not detached cleanly: its log is still open, and parts of the file system may not be on the \
         disk yet. Start the Windows that uses it (or attach the disk to one), shut it down with `shutdown /s /t 0` \
         (or detach the disk), and try again.",
    )
    .at(at)
    .into()
}

/// Whether the log was reset: 0xFF wherever a restart page of any page size could begin.
fn is_empty(volume: &dyn ReadAt, log: &Mapped, head: &[u8]) -> Result<bool> {
    if head.iter().any(|&byte| byte != 0xFF) {
        return Ok(false);
    }
    let mut page = [0; 512];
    let mut at = len64(head.len());
    while add(at, len64(page.len()), "a place in $LogFile")? <= log.data_size() {
        log.read_at(volume, at, &mut page)?;
        if page.iter().any(|&byte| byte != 0xFF) {
            return Ok(false);
        }
        at = mul(at, 2, "a place in $LogFile")?;
    }
    Ok(true)
}

fn page_size(head: &[u8], at: Site) -> Result<usize> {
    let size =
        RestartPageHeader::ref_from_prefix(head).map_or(0, |(header, _)| header.system_page_size.get());
    if !size.is_power_of_two() || !PAGE_SIZES.contains(&size) {
        return Err(Error::corrupt(at, "the restart page of $LogFile has a size that no system has")
            .expected("a power of two from 512 to 65536", size));
    }
    index(size.into(), "a restart page")
}

impl Restart {
    /// The restart page that begins at `start` of the log's head.
    fn parse(head: &[u8], start: usize, at: Site) -> Result<Self, Stop> {
        let head = head.get(start..).unwrap_or_default();
        if head.starts_with(b"CHKD") {
            return Err(Decline::new(
                DeclineReason::ErrorState,
                "The log of this volume was last written by chkdsk. Attach the volume to Windows once, detach it \
                 again or shut Windows down with `shutdown /s /t 0`, and try again.",
            )
            .at(at)
            .into());
        }
        if !head.starts_with(b"RSTR") {
            return Err(not_clean(at));
        }
        let size = page_size(head, at)?;
        // The second page stands one page size after the first, so both must have the same.
        if start != 0 && start != size {
            return Err(Error::corrupt(at, "the restart pages of $LogFile differ in size").into());
        }
        let short = || Error::corrupt(at, "a restart page of $LogFile is cut short");
        let mut page = head.get(..size).ok_or_else(short)?.to_vec();
        undo_fixups(&mut page, *b"RSTR", at)?;
        let (header, _) = RestartPageHeader::ref_from_prefix(&page).map_err(|_| short())?;
        let area = page.get(usize::from(header.restart_area_offset.get())..).unwrap_or_default();
        let (area, _) = RestartAreaHeader::ref_from_prefix(area).map_err(|_| short())?;
        for list in [area.free_list.get(), area.in_use_list.get()] {
            if list != NO_CLIENT && list >= area.clients.get() {
                return Err(Error::corrupt(at, "$LogFile names a client that it does not have")
                    .expected(format_args!("below {}", area.clients), list)
                    .into());
            }
        }
        Ok(Self {
            lsn: area.current_lsn.get(),
            version: (header.major.get(), header.minor.get()),
            clean: area.in_use_list.get() == NO_CLIENT || area.flags.get() & FLAG_CLEAN != 0,
        })
    }
}
