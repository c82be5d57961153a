//! Makes virtual hard disks smaller: reads VHD and VHDX images, finds what is free and what is zero,
//! and lays out a new, smaller image that reads the same.
//!
//! ```text
//!   web      the only wasm-bindgen surface (browser worker and Node)
//!    └─ compact   plan · scan · layout · verify
//!        ├─ fs ─► volume ─┐   what is free
//!        └─ image ────────┴─► io, checksum ─► extents ─► error, units
//! ```
//! Arrows point down only: `fs`/`volume` and `image` never know each other.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::as_conversions, missing_docs))]

mod checksum;
pub mod compact;
pub mod error;
pub mod extents;
pub mod fs;
pub mod image;
pub mod io;
pub mod units;
pub mod volume;
#[cfg(target_family = "wasm")]
pub mod web;

pub use error::{Error, ErrorKind, Result, Site, Warning};
