//! VHDX: Virtual Hard Disk v2 (MS-VHDX, v20240423). Little-endian.
//!
//! ```text
//!   0        1 MiB   2 MiB      3 MiB                                      all on 1 MiB
//!   headers │ log │ metadata │ BAT │ sector bitmap blocks, payload blocks …
//!      │        └─ replayed in memory before anything else is believed
//!      └─ current header, region table ─► metadata, BAT ─► block table
//! ```
//! The picture is the order that Windows writes; any other is read. What the specification leaves
//! open, or what programs do against it, is settled where it matters; each such place says so.

mod bat;
mod encode;
mod format;
mod headers;
mod locator;
mod log;
mod log_entry;
mod metadata;
mod open;
mod space;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

pub use format::SIGNATURE;
pub use locator::Locator;
pub use metadata::Item;
pub use open::{Metadata, open};
pub use writer::{Guids, Writer};

/// The largest disk: 64 TiB (2.6.2.2).
pub const MAX_DISK_SIZE: u64 = 64 << 40;
/// The largest block: 256 MiB (2.6.2.1).
pub const MAX_BLOCK_SIZE: u64 = 256 << 20;
