//! Campaigns: clean volumes are damaged in the ways in which disks and drivers do it, thousands of times, and
//! nothing that could be read may be lost.
//!
//! ```text
//!   volume + damage ─► detect, both witnesses ─┬─► declined
//!                                              └─► mapped ─► files read by other programs
//!                                                            everything called free filled with zeros
//!                                                            files read again ── as before: harmless
//!                                                                             └─ else:      LOST
//! ```
//! The seed of a damage is its number, so every run makes the same ones, and a longer run more of them:
//! `VHD_COMPACTOR_CAMPAIGN=2000 cargo test --test suite campaign -- --nocapture` makes 2,000 of each file system
//! and prints the tables of `docs/campaign.md`. With `VHD_COMPACTOR_CAMPAIGN_PEERS=1` the same damages are put before
//! other programs that drop free space, too.
//!
//! A file system takes part with a [`Subject`].

mod btrfs;
mod containers;
mod damage;
mod ext;
mod fat;
mod frame;
mod history;
mod ntfs;
mod readers;
mod xfs;

pub use frame::{Kind, Patch, Peer, Subject, campaign};
