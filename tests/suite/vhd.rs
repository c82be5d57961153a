//! Dynamic VHDs in and out: made by strangers, judged by strangers.

use std::path::Path;

use vhd_compactor::ErrorKind;
use vhd_compactor::compact::{Mode, Options};

use crate::toolbox::engine::{compact, refused};
use crate::toolbox::{have, run, text, unpack};

fn zero() -> Options {
    Options { mode: Mode::Zero, ..Options::default() }
}

fn same_by_qemu(a: &Path, b: &Path) {
    run("qemu-img", &["compare", "-f", "vpc", "-F", "vpc", text(a), text(b)]);
}

#[test]
fn allocated_zero_blocks_go() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = unpack("d2v-zerofilled.vhd", dir.path()) else { return };
    let output = dir.path().join("out.vhd");
    let (outcome, _) = compact(&source, &[], &output, zero()).unwrap();
    assert!(std::fs::metadata(&output).unwrap().len() < 3 << 20, "{outcome:?}");
    if have(&["qemu-img"]) {
        same_by_qemu(&source, &output);
    }
}

#[test]
fn images_of_many_makers_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "virtualpc-dynamic.vhd",
        "dfvfs-ext2.vhd",
        "dfvfs-ntfs-dynamic.vhd",
        "plaso-image.vhd",
        "dissect-dynamic.vhd",
    ] {
        let Some(source) = unpack(name, dir.path()) else { continue };
        let output = dir.path().join("out.vhd");
        match compact(&source, &[], &output, zero()) {
            Ok(_) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        if have(&["qemu-img"]) {
            same_by_qemu(&source, &output);
        }
    }
}

#[test]
fn a_fixed_disk_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = unpack("dfvfs-ntfs-fixed.vhd", dir.path()) else {
        return;
    };
    let error = refused(compact(&source, &[], &dir.path().join("out.vhd"), zero()));
    assert_eq!(error.kind(), ErrorKind::WrongImageType);
}
