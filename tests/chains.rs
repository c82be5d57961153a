//! Chains of differencing disks: what a child may drop, and what it must keep.
#![cfg(not(target_family = "wasm"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{compact, read_disk, refused, unpack};
use vhd_compactor::ErrorKind;
use vhd_compactor::compact::{Mode, Options};

fn zero() -> Options {
    Options { mode: Mode::Zero, ..Options::default() }
}

/// A Windows-made child and its parent.
fn windows_chain(test: &str, dir: &Path, ext: &str) -> Option<(PathBuf, PathBuf)> {
    let child = unpack(test, &format!("dfvfs-ntfs-differential.{ext}"), dir)?;
    let parent = unpack(test, &format!("dfvfs-ntfs-parent.{ext}"), dir)?;
    Some((child, parent))
}

#[test]
fn a_windows_made_vhd_chain_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let Some((child, parent)) = windows_chain("a_windows_made_vhd_chain_reads_the_same", dir.path(), "vhd")
    else {
        return;
    };
    let before = read_disk(&child, &[&parent]).unwrap();
    let output = dir.path().join("out.vhd");
    for parents in [vec![], vec![parent.as_path()]] {
        compact(&child, &parents, &output, zero()).unwrap();
        assert!(read_disk(&output, &[&parent]).unwrap() == before);
    }
    let flat = dir.path().join("flat.vhd");
    compact(&child, &[&parent], &flat, Options { flatten: true, ..zero() }).unwrap();
    assert!(read_disk(&flat, &[]).unwrap() == before);
    let error = refused(compact(&child, &[], &flat, Options { flatten: true, ..zero() }));
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
    let error = refused(compact(&child, &[&child], &flat, zero()));
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
}
