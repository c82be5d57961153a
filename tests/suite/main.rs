//! Integration tests: images made by stock tools and by other programs go in, and independent tools judge what
//! comes out. `toolbox` holds what the tests share; a test that lacks a tool or an image says so with
//! `toolbox::skip` and is counted as skipped.
//!
//! The tools are those of Linux and other Unixes. `tests/web.rs` is a crate of its own, since it runs in a browser.
#![cfg(unix)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail loudly, and counts small numbers"
)]

#[macro_use]
mod toolbox;

mod campaign;
mod chains;
mod compaction;
mod file_systems;
mod layers;
mod vhd;
mod vhdx;
mod volumes;
