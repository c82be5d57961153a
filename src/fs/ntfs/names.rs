//! The names of files, and the path of one for a message.
//!
//! ```text
//!   record n ─ $FILE_NAME   0x00 parent directory · … · 0x40 length · 0x41 namespace · 0x42 name, UTF-16LE
//!                             └──► record p ─ $FILE_NAME ─ …  ──► record 5, the root
//! ```
//! A file has one name for each hard link, and besides a short one for DOS where its long one does not fit
//! DOS. Names are text of unknown origin: any 16-bit units but 0 and `/`.
//!
//! Source: the linux-ntfs project's NTFS documentation, "$FILE_NAME".

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::mft::Mft;
use super::record::{FileReference, decode, utf16_is_ignoring_case};

/// The record of the root directory.
pub(super) const ROOT: u64 = 5;

/// A path is told from its last directories on, as far as it fits: enough to find the file, and a bound for
/// directories that contain each other.
const MAX_PARTS: usize = 32;
const MAX_PATH_CHARS: usize = 400;
/// What stands for the part of a path that is left out, or that is not known.
const UNKNOWN: &str = "…";
const NAMESPACE_DOS: u8 = 2;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileNameHeader {
    parent: U64,
    _times_sizes_flags: [u8; 56],
    length: u8,
    namespace: u8,
}

/// A `$FILE_NAME` value.
#[derive(Clone, Copy)]
pub(super) struct FileName<'v> {
    pub(super) parent: FileReference,
    namespace: u8,
    text: &'v [u8],
}

impl<'v> FileName<'v> {
    /// Takes a value apart; none if it is cut short.
    pub(super) fn parse(value: &'v [u8]) -> Option<Self> {
        let (header, rest) = FileNameHeader::ref_from_prefix(value).ok()?;
        let text = rest.get(..usize::from(header.length).checked_mul(2)?)?;
        Some(Self { parent: FileReference::new(header.parent.get()), namespace: header.namespace, text })
    }

    /// Whether it spells the ASCII `name`, in whatever case.
    pub(super) fn is_ignoring_case(&self, name: &str) -> bool {
        utf16_is_ignoring_case(self.text, name)
    }
}

/// The path of the file of the base record `number`, as far as it can be told: `Users/a/report.docx`.
pub(super) fn path(mft: &Mft<'_>, number: u64) -> String {
    if number == ROOT {
        return "the root directory".into();
    }
    let mut parts = Vec::new();
    let (mut next, mut chars) = (number, 0usize);
    while next != ROOT {
        let known = if parts.len() < MAX_PARTS && chars < MAX_PATH_CHARS { name(mft, next) } else { None };
        let Some((parent, text)) = known else {
            parts.push(if parts.is_empty() { format!("file record {number}") } else { UNKNOWN.into() });
            break;
        };
        // A name has at most 255 units, and there are few parts.
        chars = chars.saturating_add(text.chars().count());
        parts.push(text);
        next = parent;
    }
    parts.reverse();
    parts.join("/")
}

/// A name of a file and the record of its directory, if both are what they should be.
fn name(mft: &Mft<'_>, number: u64) -> Option<(u64, String)> {
    let record = mft.file(number).ok()?;
    let mut found: Option<(FileReference, String)> = None;
    let names = mft.file_names(&record, |value| {
        if let Some(name) = FileName::parse(value)
            && (found.is_none() || name.namespace != NAMESPACE_DOS)
        {
            found = Some((name.parent, harmless(name.text)));
        }
    });
    // Whatever was found before something could not be read is a name of the file, too.
    let (parent, text) = names.ok().and(found.clone()).or(found)?;
    Some((parent.number, text))
}

/// UTF-16LE units as text that does nothing to a terminal or a page and never looks like two parts of a path.
pub(super) fn harmless(text: &[u8]) -> String {
    let is_harmless = |c: &char| !c.is_control() && *c != '/' && !is_invisible(*c);
    let shown = |c: char| if is_harmless(&c) { c } else { char::REPLACEMENT_CHARACTER };
    decode(text).chars().map(shown).collect()
}

/// Marks that turn the direction of text, and characters that show nothing.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}
