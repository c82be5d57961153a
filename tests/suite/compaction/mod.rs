//! Whole compactions, from a stranger's image to a stranger's verdict.
//!
//! ```text
//!   stock mkfs, half of it deleted ─► partition table, junk in the gaps ─► qemu-img ─► compaction
//!                                                                                         │
//!     checker and digests of every file ◄─ qemu-img, raw again ◄─ 7-Zip, qemu-img check ◄─┘
//! ```
//! The judges know nothing of this project: what may differ is what a stranger's map calls free, and the
//! size to reach is that of qemu-img over a disk whose free space was zeroed by that map.

mod corpus;
mod disks;
mod edges;
mod file_systems;
mod judge;
mod matrix;
mod requests;
mod servers;
mod volumes;
