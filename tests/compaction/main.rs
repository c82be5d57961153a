//! Whole compactions, from a stranger's image to a stranger's verdict.
//!
//! ```text
//!   stock mkfs, half of it deleted ─► partition table, junk in the gaps ─► qemu-img ─► compaction
//!                                                                                         │
//!     checker and digests of every file ◄─ qemu-img, raw again ◄─ 7-Zip, qemu-img check ◄─┘
//! ```
//! The judges know nothing of this project: what may differ is what a stranger's map calls free, and the
//! size to reach is that of qemu-img over a disk whose free space was zeroed by that map.
#![cfg(not(target_family = "wasm"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail loudly, and counts small numbers"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/ext_tools.rs"]
#[allow(dead_code, reason = "what several tests share is not all used by each")]
mod ext_tools;
#[path = "../common/ntfs_disk.rs"]
#[allow(dead_code, unused_macros, reason = "what several tests share is not all used by each")]
mod ntfs_disk;

mod corpus;
mod disks;
mod edges;
mod file_systems;
mod judge;
mod requests;
mod volumes;
