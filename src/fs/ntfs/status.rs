//! $Volume: the label, the NTFS version, and the flags that say whether the volume is in order.
//!
//! ```text
//!   $VOLUME_NAME          UTF-16LE, no terminator
//!   $VOLUME_INFORMATION   0x08 major version · 0x09 minor version · 0x0A flags
//! ```
//! Source: the linux-ntfs project's NTFS documentation, "$Volume" and "$VOLUME_INFORMATION"; flags as
//! ntfs-3g's `layout.h` names them.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::mft::Mft;
use super::record::{Body, Record, decode, kind};
use crate::error::{Error, Result};
use crate::fs::{Decline, DeclineReason, Stop};

/// The record of $Volume.
const VOLUME: u64 = 3;

const DIRTY: u16 = 0x0001;
const RESIZE_LOG_FILE: u16 = 0x0002;
const UPGRADE_ON_MOUNT: u16 = 0x0004;
const MOUNTED_ON_NT4: u16 = 0x0008;
const DELETE_USN_UNDERWAY: u16 = 0x0010;
const REPAIR_OBJECT_ID: u16 = 0x0020;
/// Without a public name; Windows 8 and later set it on volumes in perfect order.
const SET_BY_WINDOWS_8: u16 = 0x0080;
const CHKDSK_UNDERWAY: u16 = 0x4000;
const MODIFIED_BY_CHKDSK: u16 = 0x8000;

/// Flags under which Windows has something to repair or to finish first.
const UNFINISHED: u16 = RESIZE_LOG_FILE
    | UPGRADE_ON_MOUNT
    | DELETE_USN_UNDERWAY
    | REPAIR_OBJECT_ID
    | CHKDSK_UNDERWAY
    | MODIFIED_BY_CHKDSK;
const HARMLESS: u16 = MOUNTED_ON_NT4 | SET_BY_WINDOWS_8;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VolumeInformation {
    _reserved: [u8; 8],
    major: u8,
    minor: u8,
    flags: U16,
}

/// The label of the volume, if it has one that can be read.
pub(super) fn label(mft: &Mft<'_>) -> Option<String> {
    let record = mft.file(VOLUME).ok()?;
    let name = record.find(kind::VOLUME_NAME, "").ok()??;
    let Body::Resident(name) = name.body else { return None };
    let label = decode(name);
    (!label.is_empty()).then_some(label)
}

/// Declines unless the volume says of itself that it is in order, in a version that is known.
///
/// # Errors
/// The decline, or `corrupt`.
pub(super) fn check(mft: &Mft<'_>) -> Result<(), Stop> {
    let record = mft.file(VOLUME)?;
    let (major, minor, flags) = information(&record)?;
    let decline = |reason, detail: String| Stop::from(Decline::new(reason, detail).at(record.site()));
    // 1.2 is Windows NT 4, 3.0 is Windows 2000, 3.1 is everything since.
    if !matches!((major, minor), (1, 2) | (3, 0 | 1)) {
        return Err(decline(
            DeclineReason::UnknownFeature,
            format!(
                "This is NTFS version {major}.{minor}, which is not known here, so its free space is kept."
            ),
        ));
    }
    if flags & DIRTY != 0 {
        return Err(decline(
            DeclineReason::Dirty,
            "The volume is marked dirty: it was not detached cleanly, or Windows wants to check it. Attach it to \
             Windows, run `chkdsk X: /f` (X being its letter), detach it again or shut Windows down with \
             `shutdown /s /t 0`, and try again."
                .into(),
        ));
    }
    if flags & UNFINISHED != 0 {
        return Err(decline(
            DeclineReason::ErrorState,
            format!(
                "Windows has unfinished work on this volume (flags {flags:#06x}: a check, an upgrade or a repair). \
                 Attach it to Windows once, run `chkdsk X: /f` if it asks to, detach it again, and try again."
            ),
        ));
    }
    if flags & !HARMLESS != 0 {
        return Err(decline(
            DeclineReason::UnknownFeature,
            format!(
                "The volume has flags that are not known here ({flags:#06x}), so its free space is kept."
            ),
        ));
    }
    Ok(())
}

fn information(record: &Record) -> Result<(u8, u8, u16)> {
    if let Some(attribute) = record.find(kind::VOLUME_INFORMATION, "")?
        && let Body::Resident(value) = attribute.body
        && let Ok((information, _)) = VolumeInformation::ref_from_prefix(value)
    {
        return Ok((information.major, information.minor, information.flags.get()));
    }
    Err(Error::corrupt(record.site(), "$Volume says neither version nor flags"))
}
