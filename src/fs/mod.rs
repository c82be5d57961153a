//! File systems: what of a volume is free, told only by what the file system itself proves.
//!
//! ```text
//!   volume ──► detect ──► one reader a file system ──► Mapped(FreeMap) + OwnerWalk ──► hear ──► both agree
//!                                                  ├─► Declined(why, where)        ◄─────┘ or they do not
//!                                                  └─► (nobody's: declined as unrecognised)
//! ```
//! **Free is proved, used is presumed.** A map starts as "all used"; a reader clears only what the
//! on-disk structures prove free, compares its count with the file system's own counters, and
//! declines the whole volume on any mismatch, unreadable structure, unknown feature, dirty log,
//! pending journal that cannot be replayed, hibernation or encryption. And a map is only one witness: a
//! second one walks everything that can own space ([`witness`]). Declining is not an error: a declined
//! volume is only looked at for zeros.

mod btrfs;
mod cluster_set;
mod exfat;
mod ext;
mod fat;
mod known;
mod lvm;
mod nested;
mod ntfs;
mod structures;
mod swap;
#[cfg(test)]
mod testing;
pub mod witness;
mod xfs;

use crate::error::{Error, Site, Warning};
use crate::extents::Extents;
use crate::io::ReadAt;
use crate::volume::Volume;
use crate::volume::signature::Native;
use known::Claimed;

pub use structures::{Purpose, Structures};
pub use witness::{Hearing, Owner, OwnerWalk, Testimony, Witness};

/// What was found on one volume.
#[derive(Debug)]
pub struct Detected {
    /// The name people know: "NTFS", "ext4", "FAT32", "exFAT", "Linux swap", "BitLocker".
    pub name: &'static str,
    /// The volume's label, as text that may hold anything; none if empty.
    pub label: Option<String>,
    /// What is free, or why that is not believed.
    pub mapping: Mapping,
    /// What a person should know about this volume.
    pub warnings: Vec<Warning>,
    /// What the second witness says of a mapped volume.
    pub hearing: Hearing,
    /// Where a mapped volume's own structures lie, as the second witness came by them (volume byte offsets); none
    /// before it was heard, and where they are too many to tell.
    pub structures: Option<Extents>,
}

impl Detected {
    /// A volume recognised by name and not mapped.
    pub fn declined(name: &'static str, label: Option<String>, decline: Decline) -> Self {
        Self {
            name,
            label,
            mapping: Mapping::Declined(decline),
            warnings: Vec::new(),
            hearing: Hearing::NotNeeded,
            structures: None,
        }
    }
}

/// Whether the free space of a volume is known.
#[derive(Debug, Clone)]
pub enum Mapping {
    /// The file system proves what is free.
    Mapped(FreeMap),
    /// It does not, for a reason.
    Declined(Decline),
}

/// What is free on a volume; all ranges are volume byte offsets inside the volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeMap {
    /// Proved free: nothing reads these bytes, whatever a person asked.
    pub free: Extents,
    /// How many bytes the file system's own structures count as free (before anything is held back
    /// in `on_request`), equal to its own counters. For reports, and for the tests that compare
    /// with strangers' counts.
    pub free_bytes: u64,
    /// How many bytes the file system's own structures call in use: what owners are expected to have.
    pub used_bytes: u64,
    /// How many bytes from the volume's start the file system spans, to the end of its last cluster. What lies
    /// behind that is not the file system's, and stays.
    pub spans: u64,
    /// Bytes that only a person's word makes dispensable. Disjoint from `free`.
    pub on_request: Vec<(Request, Extents)>,
}

/// What a person may declare dispensable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Free by the file system's own map, and perhaps still needed by a volume shadow copy.
    ShadowCopies,
    /// The contents of page files, swap files, an inactive hibernation file, Linux swap.
    PageFiles,
}

/// Why the free-space map of a volume is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// The stable reason.
    pub reason: DeclineReason,
    /// A sentence for a person: what is the matter and what to do about it.
    pub detail: String,
    /// Where it was seen.
    pub site: Option<Site>,
}

impl Decline {
    /// A decline for `reason` that `detail` explains to a person.
    pub fn new(reason: DeclineReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), site: None }
    }

    /// Adds where it was seen.
    #[must_use]
    pub fn at(mut self, site: Site) -> Self {
        self.site = Some(site);
        self
    }
}

/// The stable reasons for declining a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeclineReason {
    /// No file system that is known.
    Unrecognised,
    /// Known by name, and its free space is not understood (`ReFS`, APFS, LVM2, …).
    NotSupported,
    /// A feature flag that is not understood.
    UnknownFeature,
    /// Not cleanly unmounted: dirty flag, open log.
    Dirty,
    /// A journal that must be replayed first and cannot be here.
    JournalPending,
    /// Windows hibernated or was shut down by Fast Startup.
    Hibernated,
    /// The file system marked itself as damaged.
    ErrorState,
    /// Encrypted (`BitLocker`, LUKS).
    Encrypted,
    /// Shadow copies whose needs cannot be told.
    ShadowCopies,
    /// Structures contradict each other.
    Inconsistent,
    /// Programs read the image differently where this file system lies.
    Ambiguous,
    /// A structure could not be read.
    Unreadable,
}

impl DeclineReason {
    /// The stable code, as JSON gives it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unrecognised => "unrecognised",
            Self::NotSupported => "not-supported",
            Self::UnknownFeature => "unknown-feature",
            Self::Dirty => "dirty",
            Self::JournalPending => "journal-pending",
            Self::Hibernated => "hibernated",
            Self::ErrorState => "error-state",
            Self::Encrypted => "encrypted",
            Self::ShadowCopies => "shadow-copies",
            Self::Inconsistent => "inconsistent",
            Self::Ambiguous => "ambiguous",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How a reader gives up on a volume: either the volume is declined for a reason, or reading itself
/// failed. Readers use `?` on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Declined. Boxed, as errors are: every `?` carries it.
    Decline(Box<Decline>),
    /// A read failed or a structure was corrupt.
    Error(Error),
}

impl Stop {
    /// As a decline. An error of the image below becomes one too, so that one file system's failure never
    /// touches another's map.
    #[must_use]
    pub fn into_decline(self) -> Decline {
        use crate::error::ErrorKind as Kind;
        let error = match self {
            Self::Decline(decline) => return *decline,
            Self::Error(error) => error,
        };
        let reason = match error.kind() {
            Kind::ReadFailed | Kind::SourceChanged | Kind::PermissionDenied | Kind::NeedsParent => {
                DeclineReason::Unreadable
            }
            Kind::Unsupported => DeclineReason::UnknownFeature,
            _ => DeclineReason::Inconsistent,
        };
        let decline = Decline::new(reason, error.sentence());
        Decline { site: error.site(), ..decline }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Decline> for Stop {
    fn from(decline: Decline) -> Self {
        Self::Decline(Box::new(decline))
    }
}

/// Facts about the disk that a file system on it may need.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Logical sector size of the disk: 512 or 4096.
    pub sector_size: u32,
}

/// What one reader makes of a volume.
type Probe = fn(&dyn ReadAt, Context) -> Option<Detected>;

/// The reader of each file system that is read.
const fn reader(native: Native) -> Probe {
    match native {
        Native::Ext => ext::probe,
        Native::Ntfs => ntfs::probe,
        Native::ExFat => exfat::probe,
        Native::Fat => fat::probe,
        Native::Swap => swap::probe,
        Native::Xfs => xfs::probe,
        Native::Btrfs => btrfs::probe,
    }
}

/// As [`detect`], for a volume of which the partition tables tell more: `window` shows its bytes.
#[must_use]
pub fn detect_in(volume: &Volume, window: &dyn ReadAt, context: Context) -> Detected {
    match &volume.rest_of_lvm {
        Some(rest) => lvm::detected(rest, window.size()),
        None => detect(window, context),
    }
}

/// Finds which file system a volume holds and what of it is free. Never fails: what cannot be read
/// or recognised is declined.
#[must_use]
pub fn detect(volume: &dyn ReadAt, context: Context) -> Detected {
    let unrecognised = || {
        let detail = "No known file system was found here, so all of it counts as in use.";
        Detected::declined("unknown", None, Decline::new(DeclineReason::Unrecognised, detail))
    };
    let native = match known::claimed(volume) {
        Claimed::By(native) => native,
        Claimed::ByNobody => return unrecognised(),
        Claimed::Declined(declined) => return *declined,
    };
    let Some(mut found) = reader(native)(volume, context) else { return unrecognised() };
    if let Mapping::Mapped(map) = &found.mapping
        && let Err(stop) = nested::require_none(volume, native.has_boot_sector(), map)
    {
        found.decline(stop.into_decline());
    }
    found
}
