//! Images that strangers made: they pass in every mode, and what is declined stays as it was.

use std::fs;
use std::path::Path;

use vhd_compactor::compact::{Mode, Options};

use super::disks::{Container, format_of, qemu};
use super::judge::{differences, raw_of, structure};
use super::volumes::FileSystem;
use crate::toolbox::engine::compact;
use crate::toolbox::{have, run, text, unpack};

/// The modes that the `n`th image is tried in: all of them would take minutes.
const fn modes(n: usize) -> [Mode; 2] {
    [Mode::Full, if n.is_multiple_of(2) { Mode::Zero } else { Mode::Quick }]
}

fn same_by_qemu(a: &Path, b: &Path) {
    let [x, y] = [a, b].map(|path| qemu(format_of(path)));
    run("qemu-img", &["compare", "-q", "-f", x, "-F", y, text(a), text(b)]);
}

#[test]
fn images_of_strangers_pass_in_every_mode() {
    if !have(&["xz", "qemu-img", "7zz"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (n, name) in [
        "virtualpc-dynamic.vhd",
        "d2v-zerofilled.vhd",
        "dfvfs-ext2.vhd",
        "dfvfs-ntfs-dynamic.vhd",
        "dfvfs-ntfs-fixed.vhd",
        "dfvfs-ntfs-parent.vhd",
        "plaso-image.vhd",
        "dissect-dynamic.vhd",
        "test-disk2vhd.vhdx",
        "iotest-dynamic-1G.vhdx",
        "dfvfs-ext2.vhdx",
        "dfvfs-ntfs-fixed.vhdx",
        "dfvfs-ntfs-parent.vhdx",
        "discutils-vhdx-log-replay.vhdx",
        "discutils-btrfs.vhdx",
        "discutils-xfs5.vhdx",
    ]
    .into_iter()
    .enumerate()
    {
        let Some(source) = unpack(name, dir.path()) else { continue };
        let judged = dir.path().join(format!("judged-{name}"));
        fs::copy(&source, &judged).unwrap();
        if name.contains("log-replay") {
            run("qemu-img", &["check", "-q", "-f", "vhdx", "-r", "all", text(&judged)]);
        }
        let output = dir.path().join(format!("out-{name}"));
        for mode in modes(n) {
            let options = Options { mode, to_dynamic: true, ..Options::default() };
            let (outcome, _) =
                compact(&source, &[], &output, options).unwrap_or_else(|e| panic!("{name} {mode:?}: {e}"));
            if name.starts_with("virtualpc") || name.contains("xfs5") {
                // Too large to be read from end to end.
                let told = run("7zz", &["l", text(&output)]);
                assert!(!told.contains("ERROR") && !told.contains("WARNING"), "{told}");
            } else {
                structure(&output);
            }
            if !outcome.reads_changed && !name.starts_with("virtualpc") {
                same_by_qemu(&judged, &output);
            }
            assert!(outcome.reads_changed <= (mode != Mode::Zero), "{name}");
        }
        for path in [source, judged, output] {
            fs::remove_file(path).unwrap();
        }
    }
}

/// The file systems of others. `true`: free space is dropped, and no file changes. `false`: nothing changes.
const VOLUMES: &[(&str, Option<FileSystem>, bool)] = &[
    ("dfvfs-mbr.raw", None, true),
    ("dfvfs-gpt_non_sequential.raw", None, false),
    ("dfvfs-windows_volume.raw", Some(FileSystem::Ntfs), true),
    ("colinfinck-testfs1.raw", Some(FileSystem::Ntfs), true),
    ("dfir-ntfs3.raw", Some(FileSystem::Ntfs), true),
    ("utillinux-ntfs.img", Some(FileSystem::Ntfs), true),
    ("ext4view-test_disk1.bin", Some(FileSystem::Ext4), true),
    ("e2fs-f_8192_block.img", Some(FileSystem::Ext4), true),
    ("e2fs-f_bigalloc_symlink_with_xattr.img", Some(FileSystem::Ext4), true),
    ("e2fs-f_uninit_cat.img", Some(FileSystem::Ext4), true),
    ("utillinux-fat32_xp_none.img", None, true),
    ("dfir-exfat_win.raw", Some(FileSystem::ExFat), true),
    ("dissect-exfat.bin", Some(FileSystem::ExFat), true),
    ("dfir-fat_unusual_cluster.raw", None, true),
    ("ext4view-test_disk_4k_block_journal.bin", None, true),
    ("e2fs-j_recover_fast_commit.img", None, false),
    ("dfir-fat32_loop.raw", None, true),
    ("exfatprogs-bad_bitmap.img", None, false),
    ("dfvfs-bdetogo-trimmed.raw", None, false),
    ("dfvfs-lvm.raw", None, true),
    ("btrfsprogs-025-zstd-compression.raw", None, true),
    ("dissect-xfs.bin", None, true),
    ("dissect-vol-gpt_4k.bin", None, false),
];

#[test]
fn volumes_of_strangers_keep_their_files_or_everything() {
    if !have(&["xz", "qemu-img", "7zz"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (n, (name, fs, mapped)) in VOLUMES.iter().enumerate() {
        let Some(raw) = unpack(name, dir) else { continue };
        let container = [Container::Vhd, Container::Vhdx(1)][n / 2 % 2];
        let source = container.wrap(&raw, dir);
        let output = dir.join(format!("out.{}", container.extension()));
        // A mount may write, so it gets a copy.
        let copy = dir.join("copy");
        fs::copy(&raw, &copy).unwrap();
        let digests = fs.filter(|fs| fs.can()).map(|fs| (fs, fs.digests(&copy, dir)));
        for mode in modes(n) {
            let options = Options { mode, scrub: mode == Mode::Full, ..Options::default() };
            let (outcome, _) = compact(&source, &[], &output, options).unwrap();
            structure(&output);
            let after = raw_of(&output, dir);
            let same = differences(&raw, &after).is_empty();
            assert!(same || *mapped && outcome.reads_changed && mode != Mode::Zero, "{name} {mode:?}");
            assert!(*mapped || !outcome.reads_changed, "{name} {mode:?} is to be declined");
            if mode == Mode::Full {
                assert_eq!(outcome.reads_changed, *mapped, "{name}");
            }
            if let Some((fs, before)) = &digests {
                assert_eq!(fs.digests(&after, dir), *before, "{name} {mode:?}");
            }
        }
        for path in [raw, source, output] {
            fs::remove_file(path).unwrap();
        }
    }
}
