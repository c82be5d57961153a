//! VHD: Virtual Hard Disk Image Format, version 1.0 (Microsoft, 2006). Big-endian.
//!
//! ```text
//!   fixed          payload … │ footer
//!   dynamic        footer copy │ dynamic header │ BAT │ [bitmap │ payload]… │ footer
//!   differencing   the same, with parent locators between
//! ```
//! What the specification leaves open, implementations settled differently; each such place says so.

mod bat;
mod batmap;
mod footer;
mod format;
mod geometry;
mod locators;
mod open;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use format::{DynamicHeader, Footer, ParentLocator, XENSERVER};
pub use open::{Metadata, open, recognise};
pub use writer::Writer;
