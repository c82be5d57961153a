//! What a person may ask for: the one place where an option of the engine is told.
//!
//! Deserialised straight from what the command, the page and the npm package pass on, so that a new option
//! is a field here.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::fs::Request;
use crate::image::Format;

/// How thorough a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Drops what file systems prove free, then looks at the rest for zeros.
    #[default]
    Full,
    /// Drops what file systems prove free, and reads no payload.
    Quick,
    /// Drops what is zero, and believes no file system.
    Zero,
}

/// The block size of the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockSizeChoice {
    /// The one that gives the smallest file; the source's where that saves next to nothing, in a
    /// differencing disk and in zero mode.
    #[default]
    Smallest,
    /// The source's, or the nearest that the new format has.
    Keep,
    /// This many bytes.
    Exactly(u64),
}

/// What a person may ask for; the default asks for nothing but a smaller image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(target_family = "wasm", derive(tsify::Tsify))]
pub struct Options {
    /// How thorough: "full", "quick" or "zero".
    #[cfg_attr(target_family = "wasm", tsify(optional, type = "\"full\" | \"quick\" | \"zero\""))]
    pub mode: Mode,
    /// Block size of the new image: bytes, "smallest" or "keep".
    #[cfg_attr(target_family = "wasm", tsify(optional, type = "number | \"smallest\" | \"keep\""))]
    pub block_size: BlockSizeChoice,
    /// Format of the new image; the source's where none is given.
    #[cfg_attr(target_family = "wasm", tsify(optional, type = "\"vhd\" | \"vhdx\" | null"))]
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
    /// Whether a VHD's parent is believed that fits by its identifier and not by its time. It counts when a
    /// chain is opened.
    pub trust_parent: bool,
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

impl<'de> Deserialize<'de> for BlockSizeChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;
        impl Visitor<'_> for Choice {
            type Value = BlockSizeChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes, \"smallest\" or \"keep\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "smallest" => Ok(BlockSizeChoice::Smallest),
                    "keep" => Ok(BlockSizeChoice::Keep),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
                Ok(BlockSizeChoice::Exactly(bytes))
            }

            // Numbers of JavaScript come as either.
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Self::Value, E> {
                let bytes = u64::try_from(bytes);
                bytes.map(BlockSizeChoice::Exactly).map_err(|_| E::custom("a block size is not negative"))
            }

            #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn visit_f64<E: de::Error>(self, bytes: f64) -> Result<Self::Value, E> {
                // The range is checked first, so the conversion is exact.
                if bytes.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&bytes) {
                    Ok(BlockSizeChoice::Exactly(bytes as u64))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(bytes), &self))
                }
            }
        }
        deserializer.deserialize_any(Choice)
    }
}
