//! What a person may ask for.

use crate::fs::Request;
use crate::image::Format;

/// How thorough a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Drops what file systems prove free, then looks at the rest for zeros.
    #[default]
    Full,
    /// Drops what file systems prove free, and reads no payload.
    Quick,
    /// Drops what is zero, and believes no file system.
    Zero,
}

impl Mode {
    /// The name in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Quick => "quick",
            Self::Zero => "zero",
        }
    }

    /// The mode of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Full, Self::Quick, Self::Zero].into_iter().find(|mode| mode.name() == name)
    }
}

/// What a person may ask for; the default asks for nothing but a smaller image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How thorough.
    pub mode: Mode,
    /// Block size of the new image, in bytes; the source's where none is given.
    pub block_size: Option<u64>,
    /// Format of the new image; the source's where none is given.
    pub format: Option<Format>,
    /// Whether a fixed image may become a dynamic one.
    pub to_dynamic: bool,
    /// Whether free sectors of kept blocks are written as zeros.
    pub scrub: bool,
    /// Whether the contents of page files count as free.
    pub drop_page_files: bool,
    /// Whether what only volume shadow copies need counts as free.
    pub ignore_shadow_copies: bool,
    /// Whether a chain becomes one dynamic image.
    pub flatten: bool,
}

impl Options {
    /// Whether `request` was asked for.
    #[must_use]
    pub const fn grants(&self, request: Request) -> bool {
        match request {
            Request::PageFiles => self.drop_page_files,
            Request::ShadowCopies => self.ignore_shadow_copies,
        }
    }
}
