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
mod comparison;
mod estimate;
pub mod findings;
mod layout;
mod options;
mod plan;
mod proof;
mod run;
mod scan;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace;

pub use analysis::{Analysis, Input, VolumeFindings};
pub use blockmap::{BlockMap, CellClass, Mixture, block_map};
pub use comparison::Verdict;
pub use estimate::{Estimate, Reason, estimate, free_by_volume};
pub use layout::{Layout, Outcome};
pub use options::{BlockSizeChoice, Mode, Options};
pub use plan::{Counts, Decision, Plan};
pub use proof::{Evidence, Verification};
pub use run::Run;
pub use scan::Tally;
pub use target::{Fresh, Target};

pub use crate::units::Progress;
