//! Fuzzing: what is tried, and what must hold whatever an image says.
//!
//! ```text
//!   bytes ─► Case: a seed's number, options, a list of small patches
//!              │
//!   seeds ─────┴─► files in memory, patched where the engine reads ─► checksums repaired ─► a target ─► checks
//! ```
//! An input is short and means the same in every run on one machine, so it can be kept, made smaller and tried again.
//! Targets: [`image`](Target::Image), [`volume`](Target::Volume), [`journal`](Target::Journal), and
//! [`engine`](Target::Engine).
//!
//! The same targets run in two ways: by libFuzzer, guided by coverage (`fuzz/fuzz_targets`), and by the program
//! `campaign`, which needs nothing but stable Rust.

mod case;
mod checks;
mod pages;
mod repair;
mod seeds;

use std::cell::RefCell;

pub use case::{Case, random_input};
pub use seeds::{Seed, Seeds};

/// What is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Opening images and chains; findings, plan, estimate and picture.
    Image,
    /// Recognising and mapping one volume, and hearing its second witness.
    Volume,
    /// The same, of volumes and images whose journal or log is to be replayed.
    Journal,
    /// A whole compaction, proved, compared by other means, and repeated.
    Engine,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Image, Self::Volume, Self::Journal, Self::Engine];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Journal => "journal",
            Self::Engine => "engine",
        }
    }
}

thread_local! {
    static SEEDS: RefCell<Option<Seeds>> = const { RefCell::new(None) };
}

/// Runs one input. Whether it got to its end: a volume mapped, an image planned, a compaction proved and compared.
///
/// # Panics
/// Where something that must hold does not.
pub fn run(target: Target, input: &[u8]) -> bool {
    SEEDS.with_borrow_mut(|seeds| {
        let seeds = seeds.get_or_insert_with(|| Seeds::make().expect("the seeds can be made"));
        let Some(case) = Case::decode(seeds.of(target), input) else { return false };
        match target {
            Target::Image => checks::image(&case),
            Target::Volume => checks::volume(&case),
            Target::Journal if case.seed.is_raw => checks::volume(&case),
            Target::Journal => checks::image(&case),
            Target::Engine => checks::engine(&case),
        }
    })
}

/// The names of the seeds of a target, in the order in which inputs number them.
#[must_use]
pub fn seed_names(target: Target) -> Vec<String> {
    SEEDS.with_borrow_mut(|seeds| {
        let seeds = seeds.get_or_insert_with(|| Seeds::make().expect("the seeds can be made"));
        seeds.of(target).iter().map(|seed| seed.name.clone()).collect()
    })
}
