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
//!
//! # A compaction in a dozen lines
//!
//! ```
//! use std::rc::Rc;
//! use vhd_compactor::compact::{Analysis, Evidence, Fresh, Input, Options, Run};
//! use vhd_compactor::io::ReadAt;
//!
//! # fn main() -> vhd_compactor::Result<()> {
//! # // A dynamic VHD of four blocks, of which two are stored and hold nothing but zeros.
//! # use vhd_compactor::image::{BitmapSource, BlockPlan, BlockSize, ContainerWriter, OutState, Piece, SectorBitmap};
//! # struct Full;
//! # impl BitmapSource for Full {
//! #     fn bitmap(&self, _: u64) -> vhd_compactor::Result<Option<SectorBitmap>> { Ok(None) }
//! #     fn stored_at(&self, _: u64) -> Option<std::ops::Range<u64>> { None }
//! # }
//! # let writer = vhd_compactor::image::vhd::Writer::new(8 << 20, BlockSize::MIB_2, uuid::Uuid::from_u128(1), 0)?;
//! # let mut plan = BlockPlan::new(4)?;
//! # plan.set(1, OutState::Present);
//! # plan.set(3, OutState::Present);
//! # plan.seal();
//! # let mut image = Vec::new();
//! # let mut put = |pieces: Vec<Piece>| for piece in pieces {
//! #     match piece {
//! #         Piece::Bytes(bytes) => image.extend(bytes),
//! #         Piece::Zeros(len) => image.resize(image.len() + len as usize, 0),
//! #         Piece::Source { .. } => unreachable!(),
//! #     }
//! # };
//! # let mut step = 0;
//! # while let Some(pieces) = writer.front(&plan, &Full, step)? { put(pieces); step += 1; }
//! # for block in [1, 3] { put(writer.before_payload(block, &Full)?); put(vec![Piece::Zeros(2 << 20)]); }
//! # put(writer.tail(&plan)?);
//! # let before = image.len();
//! let file: Rc<dyn ReadAt> = Rc::new(image); // or io::NativeFile::open(path)?
//! let input = |file: &Rc<dyn ReadAt>| Input { file: Rc::clone(file), name: "disk.vhd".into(), modified: None };
//!
//! // What is in it, and what is free: by the file systems' own maps, and by a walk over all owners.
//! let analysis = Rc::new(Analysis::open(input(&file), vec![])?.hear()?);
//! let mut run = Run::new(&analysis, Options::default())?;
//! while !run.scan_step(8 << 20)?.finished {}
//! run.lay_out(&Fresh::default())?; // new identifiers and the time, where they matter
//! let mut smaller = Vec::new();
//! run.write(&[file], &mut smaller)?;
//!
//! // Open what was written, and prove it.
//! let written: Rc<dyn ReadAt> = Rc::new(smaller.clone());
//! run.prove(input(&written), Evidence::Bytes)?;
//! while !run.proof_step(8 << 20)?.finished {}
//! assert!(run.verdict().is_some());
//! # assert!(smaller.len() < before / 2);
//! # Ok(())
//! # }
//! ```
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
