//! The one error of the crate: what went wrong, where, what was expected and what was found.
//!
//! Callers match on [`ErrorKind`]; formats add no variants. A [`Site`] names the structure in the
//! field's own words, the address space its offset counts in, and the byte offset, so that a person
//! with a hex editor can look at the very bytes.

use std::borrow::Cow;
use std::fmt;

use crate::units::Space;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. [`ErrorKind::code`] is the stable name that the API documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The host could not read the file that was given.
    ReadFailed,
    /// The file changed (or went away) while it was being read.
    SourceChanged,
    /// The host could not write the output.
    WriteFailed,
    /// Two images do not read the same where they must.
    Differs,
    /// The place of the output is full.
    OutOfSpace,
    /// The host refused access.
    PermissionDenied,
    /// Another program holds the file.
    InUse,
    /// None of the formats that are understood.
    NotRecognised,
    /// A known format whose structures contradict its specification.
    Corrupt,
    /// A known format with a feature that is not handled.
    Unsupported,
    /// A valid image of a type that this operation does not apply to.
    WrongImageType,
    /// A differencing disk whose parent was not given, or was the wrong one.
    NeedsParent,
    /// A parent has the right identifier, and another time than its child noted: it was changed since, or lost
    /// its time in a copy. A person may say that it is the right one.
    ParentChanged,
    /// A value above a limit that protects memory or time.
    LimitExceeded,
    /// The person cancelled.
    Cancelled,
    /// An option or argument that makes no sense.
    InvalidArgument,
    /// Memory ran out.
    OutOfMemory,
    /// A fault of this program.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of the API reference.
    pub const ALL: [Self; 18] = [
        Self::ReadFailed,
        Self::SourceChanged,
        Self::WriteFailed,
        Self::Differs,
        Self::OutOfSpace,
        Self::PermissionDenied,
        Self::InUse,
        Self::NotRecognised,
        Self::Corrupt,
        Self::Unsupported,
        Self::WrongImageType,
        Self::NeedsParent,
        Self::ParentChanged,
        Self::LimitExceeded,
        Self::Cancelled,
        Self::InvalidArgument,
        Self::OutOfMemory,
        Self::Internal,
    ];

    /// The stable code, as the JSON output and the npm package give it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ReadFailed => "read-failed",
            Self::SourceChanged => "source-changed",
            Self::WriteFailed => "write-failed",
            Self::Differs => "differs",
            Self::OutOfSpace => "out-of-space",
            Self::PermissionDenied => "permission-denied",
            Self::InUse => "in-use",
            Self::NotRecognised => "not-recognised",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::WrongImageType => "wrong-image-type",
            Self::NeedsParent => "needs-parent",
            Self::ParentChanged => "parent-changed",
            Self::LimitExceeded => "limit-exceeded",
            Self::Cancelled => "cancelled",
            Self::InvalidArgument => "invalid-argument",
            Self::OutOfMemory => "out-of-memory",
            Self::Internal => "internal",
        }
    }

    /// The kind of a stable code: the inverse of [`ErrorKind::code`].
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Where in a file an error was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The structure in the field's words: "VHD footer", "NTFS $Bitmap".
    pub structure: &'static str,
    /// What `offset` counts in.
    pub space: Space,
    /// Byte offset of the structure or of the field.
    pub offset: u64,
}

impl Site {
    /// The field that stands `by` bytes after the start of the structure that this is the site of.
    #[must_use]
    pub const fn field(self, by: u64) -> Self {
        // A structure that was read lies inside its file, and so does every field of it.
        Self { offset: self.offset.wrapping_add(by), ..self }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} offset {:#x}", self.structure, self.space, self.offset)
    }
}

/// A failure: kind, a plain sentence, the site, and what was expected and found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    detail: Box<Detail>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Detail {
    kind: ErrorKind,
    message: Cow<'static, str>,
    site: Option<Site>,
    expected: Option<String>,
    found: Option<String>,
}

impl Error {
    /// A failure of `kind` that `message` explains in a plain sentence without a final stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            detail: Box::new(Detail {
                kind,
                message: message.into(),
                site: None,
                expected: None,
                found: None,
            }),
        }
    }

    /// A structure that contradicts its specification.
    pub fn corrupt(site: Site, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message).at(site)
    }

    /// A feature that is known and not handled.
    pub fn unsupported(site: Site, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message).at(site)
    }

    /// A value above a protecting limit.
    pub fn limit(site: Site, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message).at(site)
    }

    /// A fault of this program.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds where it was seen, unless an inner layer already said so more precisely.
    #[must_use]
    pub fn at(mut self, site: Site) -> Self {
        self.detail.site.get_or_insert(site);
        self
    }

    /// Adds what the specification wants and what the file holds.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.detail.expected = Some(expected.to_string());
        self.detail.found = Some(found.to_string());
        self
    }

    /// Names the file that it is about, where there are several.
    #[must_use]
    pub fn about(mut self, name: &str) -> Self {
        self.detail.message = format!("{name}: {}", self.detail.message).into();
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.detail.kind
    }

    /// Where it was seen, if it has a place in a file.
    #[must_use]
    pub fn site(&self) -> Option<Site> {
        self.detail.site
    }

    /// The sentence alone, without site, expectation and finding.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.detail.message
    }

    /// What the specification wants and what the file holds, where both are known.
    #[must_use]
    pub fn expectation(&self) -> Option<(&str, &str)> {
        self.detail.expected.as_deref().zip(self.detail.found.as_deref())
    }

    /// The sentence with expectation and finding, without the site: for whoever tells the site apart.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.expectation() {
            Some((expected, found)) => format!("{} (expected {expected}, found {found})", self.summary()),
            None => self.summary().to_owned(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())?;
        if let Some(site) = self.detail.site {
            write!(f, " [{site}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Something a person should know that did not stop the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable code: "footer-damaged", "log-replayed".
    pub code: &'static str,
    /// A plain sentence.
    pub message: String,
}

impl Warning {
    /// A warning with a stable `code` and a plain sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_invert() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(ErrorKind::from_code("no such code"), None);
    }

    #[test]
    fn display_says_what_where_expected_and_found() {
        let site = Site { structure: "VHD footer", space: Space::File, offset: 512 };
        let error = Error::corrupt(site, "the footer's checksum is wrong").expected("0x1", "0x2");
        assert_eq!(
            error.to_string(),
            "the footer's checksum is wrong (expected 0x1, found 0x2) [VHD footer at file offset 0x200]"
        );
    }

    #[test]
    fn the_innermost_site_stays() {
        let site = |offset| Site { structure: "BAT", space: Space::File, offset };
        assert_eq!(Error::corrupt(site(1), "x").at(site(2)).site(), Some(site(1)));
    }
}
