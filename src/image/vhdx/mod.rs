//! VHDX: Virtual Hard Disk v2 (MS-VHDX, v20240423). Little-endian.
//!
//! ```text
//!   0        1 MiB   2 MiB      3 MiB                                      all on 1 MiB
//!   headers │ log │ metadata │ BAT │ sector bitmap blocks, payload blocks …
//!      │        └─ replayed in memory before anything else is believed
//!      └─ current header, region table ─► metadata, BAT ─► block table
//! ```
//! The picture is the order that Windows writes; any other is read. The specification is taken at its word
//! but for what real programs write against it, where nothing can be read wrongly:
//! - Disk2vhd writes the same header twice, with one sequence number;
//! - QEMU marks no region as required, and before 8.0 leaves states in sector bitmap entries that mean nothing;
//!   others leave whole sector bitmap entries in a disk without a parent, or mark blocks there as partial;
//! - version 0.95 numbered UNMAPPED as 5;
//! - fixed disks end with the disk, not with the last block;
//! - Windows writes `parent_linkage2`; a locator without any path still tells which parent it means.

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
