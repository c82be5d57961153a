//! Dynamic VHDs in and out: made by strangers, judged by strangers.
#![cfg(not(target_family = "wasm"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::Path;

use common::{compact, have, refused, run, unpack};
use vhd_compactor::ErrorKind;
use vhd_compactor::compact::{Mode, Options};

fn zero() -> Options {
    Options { mode: Mode::Zero, ..Options::default() }
}

fn same_by_qemu(a: &Path, b: &Path) {
    run("qemu-img", &["compare", "-f", "vpc", "-F", "vpc", a.to_str().unwrap(), b.to_str().unwrap()]);
}

#[test]
fn allocated_zero_blocks_go() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = unpack("allocated_zero_blocks_go", "d2v-zerofilled.vhd", dir.path()) else { return };
    let output = dir.path().join("out.vhd");
    let (outcome, _) = compact(&source, &[], &output, zero()).unwrap();
    assert!(std::fs::metadata(&output).unwrap().len() < 3 << 20, "{outcome:?}");
    if have("allocated_zero_blocks_go", "qemu-img") {
        same_by_qemu(&source, &output);
    }
}

#[test]
fn images_of_many_makers_read_the_same() {
    let test = "images_of_many_makers_read_the_same";
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "virtualpc-dynamic.vhd",
        "dfvfs-ext2.vhd",
        "dfvfs-ntfs-dynamic.vhd",
        "plaso-image.vhd",
        "dissect-dynamic.vhd",
    ] {
        let Some(source) = unpack(test, name, dir.path()) else { continue };
        let output = dir.path().join("out.vhd");
        match compact(&source, &[], &output, zero()) {
            Ok(_) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        if have(test, "qemu-img") {
            same_by_qemu(&source, &output);
        }
    }
}

#[test]
fn a_fixed_disk_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = unpack("a_fixed_disk_is_refused_by_name", "dfvfs-ntfs-fixed.vhd", dir.path()) else {
        return;
    };
    let error = refused(compact(&source, &[], &dir.path().join("out.vhd"), zero()));
    assert_eq!(error.kind(), ErrorKind::WrongImageType);
}
