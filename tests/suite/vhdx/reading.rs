//! Images that Windows, Hyper-V, Disk2vhd and QEMU made read as other programs read them.

use std::fs;
use std::path::Path;

use odd_images::{Absent, Format, Parent, Shape};
use vhd_compactor::image::{Bitmaps, BlockSize, DiskType};
use vhd_compactor::io::{NativeFile, read_vec};
use vhd_compactor::{ErrorKind, Warning};

use super::support::{change, digest, disk, open, raw_disk};
use crate::toolbox::{MIB, have, reads_as, run, text, unpack};

fn codes(warnings: &[Warning]) -> Vec<&'static str> {
    warnings.iter().map(|warning| warning.code).collect()
}

fn reads_as_others_do(names: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let Some(path) = unpack(name, dir.path()) else { continue };
        let disk = disk(&[&path]);
        assert_eq!(codes(&disk.top().warnings), [""; 0], "{name}");
        assert_eq!(digest(&disk), reads_as(name), "{name}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn images_of_many_makers_read_as_others_read_them() {
    let names = [
        "dfvfs-ext2.vhdx",
        "dfvfs-ntfs-fixed.vhdx",
        "dfvfs-ntfs-parent.vhdx",
        "test-disk2vhd.vhdx",
        "iotest-dynamic-1G.vhdx",
    ];
    reads_as_others_do(&names);
}

#[test]
#[ignore = "reads 11 GiB"]
fn large_images_read_as_others_read_them() {
    let names = ["discutils-btrfs.vhdx", "discutils-xfs5.vhdx"];
    reads_as_others_do(&names);
}

#[test]
fn large_images_open() {
    let dir = tempfile::tempdir().unwrap();
    for (name, present) in [("discutils-btrfs.vhdx", 2), ("discutils-xfs5.vhdx", 5)] {
        let Some(path) = unpack(name, dir.path()) else { continue };
        let image = open(&path);
        assert!(image.creator.starts_with("Microsoft Windows 10"), "{}", image.creator);
        assert_eq!((image.disk_type, image.geometry.block_size), (DiskType::Dynamic, BlockSize::MIB_32));
        assert_eq!((image.blocks.present(), image.blocks.partially_present()), (present, 0));
        assert_eq!((image.geometry.logical_sector_size, image.geometry.physical_sector_size), (512, 4096));
    }
}

#[test]
fn a_differencing_disk_reads_through_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let child = unpack("dfvfs-ntfs-differential.vhdx", dir.path());
    let parent = unpack("dfvfs-ntfs-parent.vhdx", dir.path());
    let (Some(child), Some(parent)) = (child, parent) else { return };
    let chain = disk(&[&child, &parent]);
    assert_eq!(digest(&chain), reads_as("dfvfs-ntfs-differential.vhdx"));
    let image = chain.top();
    assert_eq!(image.disk_type, DiskType::Differencing);
    assert!(matches!(&image.bitmaps, Bitmaps::Chunked { blocks: 2048, at } if at.len() == 1));
    let link = image.parent.as_ref().unwrap();
    assert_eq!(link.ids.len(), 1, "a second linkage of zero is none");
    assert_eq!(link.paths[0], ".\\ntfs-parent.vhdx");
    assert!(link.paths[1].starts_with("\\\\?\\Volume{") && link.paths[2].starts_with("C:\\"));
    // Alone it lacks what only the parent has.
    let error = read_vec(&disk(&[&child]), 0, 4 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
}

#[test]
fn the_log_of_a_windows_disk_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(dirty) = unpack("discutils-vhdx-log-replay.vhdx", dir.path()) else { return };
    let before = fs::read(&dirty).unwrap();
    let replayed = disk(&[&dirty]);
    assert_eq!(codes(&replayed.top().warnings), ["log-replayed"]);
    let found = digest(&replayed);
    assert!(found.starts_with("3ba3b309"), "{found}");
    assert_eq!(fs::read(&dirty).unwrap(), before, "the source is never written");
}

/// QEMU writes its replay into a copy; that copy, clean, must read the same.
fn replayed_as_qemu(dirty: &Path, copy: &Path, expected: &str) {
    fs::copy(dirty, copy).unwrap();
    run("qemu-img", &["check", "-q", "-f", "vhdx", "-r", "all", text(copy)]);
    let clean = disk(&[copy]);
    assert_eq!(codes(&clean.top().warnings), [""; 0]);
    assert_eq!(digest(&clean), expected);
    let raw = copy.with_extension("raw");
    run("qemu-img", &["convert", "-f", "vhdx", "-O", "raw", text(copy), text(&raw)]);
    assert_eq!(digest(&NativeFile::open(raw).unwrap()), expected);
}

#[test]
fn every_shape_that_qemu_makes_is_read() {
    if !have(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image.vhdx"));
    raw_disk(&raw, 37, 1);
    let expected = digest(&NativeFile::open(&raw).unwrap());
    for options in [
        "subformat=dynamic,block_size=1M",
        "subformat=dynamic,block_size=32M",
        "subformat=dynamic,block_size=256M",
        "subformat=dynamic,block_size=2M,block_state_zero=off",
        "subformat=dynamic,block_size=1M,log_size=8M",
        "subformat=fixed,block_size=8M",
    ] {
        run("qemu-img", &["convert", "-f", "raw", "-O", "vhdx", "-o", options, text(&raw), text(&image)]);
        let disk = disk(&[&image]);
        assert_eq!(digest(&disk), expected, "{options}");
        assert!(disk.top().creator.starts_with("QEMU"), "{options}");
        assert!(disk.top().warnings.is_empty(), "{options}");
    }
}

#[test]
fn shapes_that_no_stock_tool_makes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image.vhdx"));
    raw_disk(&raw, 21, 2);
    let expected = digest(&NativeFile::open(&raw).unwrap());
    let shape = || Shape::of(Format::Vhdx);
    for shape in [
        shape().shuffled(7).leaking(3).absent(Absent::Mixed),
        shape().block_size(2 * MIB).sector_size(4096).absent(Absent::Zero),
        shape().absent(Absent::Unmapped).physical_sector_size(512),
        shape().block_size(2 * MIB).storing_zeros(),
        shape().block_size(4 * MIB).fixed(),
    ] {
        shape.write(&raw, &image).unwrap();
        let disk = disk(&[&image]);
        assert_eq!(digest(&disk), expected, "{shape:?}");
        assert_eq!(codes(&disk.top().warnings), [""; 0], "{shape:?}");
    }
}

#[test]
fn an_open_log_is_replayed_as_qemu_replays_it() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image.vhdx"));
    raw_disk(&raw, 21, 2);
    let expected = digest(&NativeFile::open(&raw).unwrap());
    Shape::of(Format::Vhdx).block_size(2 * MIB).open_log().write(&raw, &image).unwrap();
    let disk = disk(&[&image]);
    assert_eq!(digest(&disk), expected);
    assert_eq!(codes(&disk.top().warnings), ["log-replayed"]);
    if have(&["qemu-img"]) {
        replayed_as_qemu(&image, &dir.path().join("repaired.vhdx"), &expected);
    }
}

#[test]
fn chains_with_rubbish_in_absent_sectors_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for sector in [512, 4096] {
        let shape = Shape::of(Format::Vhdx).block_size(2 * MIB).sector_size(sector).poisoned();
        raw_disk(&at("base.raw"), 12, 3);
        shape.write(&at("base.raw"), &at("base.vhdx")).unwrap();
        let mut paths = vec![at("base.vhdx")];
        for n in 1..=2u64 {
            let (older, raw) = (at(if n == 1 { "base.raw" } else { "c1.raw" }), at(&format!("c{n}.raw")));
            fs::copy(&older, &raw).unwrap();
            change(&raw, n);
            let child = at(&format!("c{n}.vhdx"));
            shape.write_child(&raw, &child, &Parent { image: &paths[0], disk: &older }).unwrap();
            paths.insert(0, child);
            let chain: Vec<&Path> = paths.iter().map(|p| p.as_path()).collect();
            assert_eq!(digest(&disk(&chain)), digest(&NativeFile::open(&raw).unwrap()), "c{n}, {sector}");
        }
    }
}
