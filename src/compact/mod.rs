//! Compaction: what to omit, what to keep, and the new image as a list of pieces.
//!
//! ```text
//!   Analysis ── disk, volumes, free maps, then their second witnesses     (metadata reads only)
//!      │  + Options ─► Plan ── what is absent, free, or must be looked at
//!      │                 │  └─► Estimate ── every byte that stays, by name: parts, advice
//!      │                 ▼
//!      └─────────────► Run ── owns what follows, step by step
//!                        ├─ Scan ── looks for zeros, or for what equals the parent
//!                        ├─ Layout ─► Pieces ── source ranges, zeros, bytes      (a sink writes them)
//!                        └─ Proof ── opens the output: the same volumes, the same bytes
//! ```
//! Nothing here writes: a layout is data, and the host that executes it may be a browser, Node, or
//! a test. Every step returns after a bounded amount of work, so that a host can cancel in between.

mod advice;
mod analysis;
mod blockmap;
#[cfg(test)]
mod chain_tests;
mod comparison;
mod estimate;
#[cfg(test)]
mod estimate_tests;
pub mod findings;
mod layout;
mod options;
mod outlook;
mod parts;
mod plan;
mod proof;
mod release;
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
pub use parts::{Part, PartKind};
pub use plan::{Counts, Decision, Plan};
pub use proof::{Evidence, Verification};
pub use run::Run;
pub use scan::Tally;
pub use target::{Fresh, Target};

pub use crate::units::Progress;
