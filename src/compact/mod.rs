//! Compaction: what to omit, what to keep, and the new image as a list of pieces.
//!
//! ```text
//!   Analysis ── disk, volumes, free maps         (metadata reads only)
//!      │  + Options ─► Target ─► Plan            what is absent, free, or must be looked at
//!      │                 │        └─► Estimate   before any payload is read
//!      │                 ▼
//!      │               Scan ── looks for zeros, or for what equals the parent
//!      │                 ▼
//!      └────────────► Layout ── pieces: source ranges, zeros, bytes      (a sink writes them)
//!                        ▼
//!                     Verification ── reopens the output, compares every byte not proved free
//! ```
//! Nothing here writes: a [`Layout`] is data, and the host that executes it may be a browser, Node, or
//! a test. Every step returns after a bounded amount of work, so that a host can cancel in between.

mod analysis;
mod blockmap;
#[cfg(test)]
mod chain_tests;
mod estimate;
pub mod findings;
mod layout;
mod options;
mod plan;
mod scan;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use analysis::{Analysis, Input, VolumeFindings};
pub use blockmap::{BlockMap, CellClass, block_map};
pub use estimate::{Estimate, Reason, estimate, free_by_volume, mapped};
pub use layout::{Layout, Outcome};
pub use options::{Mode, Options};
pub use plan::{Counts, Decision, Plan};
pub use scan::{Scan, Tally};
pub use target::{Fresh, Target};
pub use verify::{Verdict, Verification};

pub use crate::units::Progress;
