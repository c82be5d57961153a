//! What a person must ask for, and what must not happen whatever is asked.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhd_compactor::compact::{Mode, Options};

use super::disks::Container;
use super::judge::{differences, raw_of, stamps, structure};
use super::volumes::{FileSystem, STALE};
use crate::toolbox::engine::compact;
use crate::toolbox::ntfs::{Mounted, Shadows};
use crate::toolbox::{digest_of, ext, have, noise, run, text, unpack, write_at};

/// Everything that drops something.
fn greedy() -> Options {
    Options { scrub: true, drop_page_files: true, ignore_shadow_copies: true, ..Options::default() }
}

fn with_tools(fs: FileSystem) -> bool {
    have(&["qemu-img", "7zz"]) && fs.can()
}

#[test]
fn page_files_stay_unless_they_are_given_up() {
    if !with_tools(FileSystem::Ntfs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = FileSystem::Ntfs.make(dir);
    fs::write(Mounted::new(&volume).path().join("pagefile.sys"), STALE.repeat(1 << 19)).unwrap();
    let before = FileSystem::Ntfs.digests(&volume, dir);
    let source = Container::Vhdx(1).wrap(&volume, dir);
    let output = dir.join("out.vhdx");
    let judge = |options| {
        compact(&source, &[], &output, options).unwrap();
        structure(&output);
        let raw = raw_of(&output, dir);
        FileSystem::Ntfs.check(&raw);
        (FileSystem::Ntfs.digests(&raw, dir), stamps(&output))
    };
    let (kept, left) = judge(Options { scrub: true, ..Options::default() });
    assert_eq!(kept, before);
    assert_eq!(left, 1 << 19, "of the page file alone");
    let (mut dropped, left) = judge(greedy());
    let name = Path::new("pagefile.sys");
    assert_eq!(dropped.remove(name), Some(digest_of(&vec![0; 8 << 19])));
    assert!(before.iter().filter(|(path, _)| *path != name).eq(&dropped));
    assert_eq!(left, 0);
    let (kept, _) = judge(Options { mode: Mode::Zero, ..greedy() });
    assert_eq!(kept, before, "zero mode believes no file system");
    assert!(differences(&volume, &raw_of(&output, dir)).is_empty());
}

#[test]
fn swap_stays_unless_it_is_given_up() {
    if !with_tools(FileSystem::Swap) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let volume = FileSystem::Swap.make(dir.path());
    let source = Container::Vhd.wrap(&volume, dir.path());
    let output = dir.path().join("out.vhd");
    let options = Options { scrub: true, ..Options::default() };
    let (outcome, _) = compact(&source, &[], &output, options).unwrap();
    assert!(!outcome.reads_changed);
    assert!(differences(&volume, &raw_of(&output, dir.path())).is_empty());
}

#[test]
fn shadow_copies_read_the_same_unless_they_are_given_up() {
    if !have(&["xz", "qemu-img", "7zz"]) {
        return;
    }
    let Some(shadows) = Shadows::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(volume) = unpack("dfvfs-vss.raw", dir) else { return };

    // The few files of this volume lie in their records; those below $Extend stand for files that were
    // deleted since the snapshots, and whose contents nothing has overwritten.
    let file = File::options().read(true).write(true).open(&volume).unwrap();
    let (place, mut bits) = (53847 * 512, vec![0; 20480]);
    file.read_exact_at(&mut bits, place).unwrap();
    // The boot sector tells the first cluster of $MFT; it lies there in one piece, in records of 1 KiB.
    let mut mft = [0; 8];
    file.read_exact_at(&mut mft, 0x30).unwrap();
    let mft = u64::from_le_bytes(mft) * 512;
    for (offset, len, record) in shadows.extend(&volume) {
        let flags = mft + record * 1024 + 0x16;
        let mut in_use = [0];
        file.read_exact_at(&mut in_use, flags).unwrap();
        file.write_all_at(&[in_use[0] & !1], flags).unwrap();
        file.write_all_at(&noise(len, 7), offset).unwrap();
        for cluster in (offset / 512) as usize..((offset + len) / 512) as usize {
            bits[cluster / 8] &= !(1 << (cluster % 8));
        }
    }
    file.write_all_at(&bits, place).unwrap();
    let before = shadows.snapshots(&volume);

    let source = Container::Vhdx(1).wrap(&volume, dir);
    let output = dir.join("out.vhdx");
    for (ignored, options) in [
        (false, Options { scrub: true, drop_page_files: true, ..Options::default() }),
        (false, Options { mode: Mode::Quick, ..Options::default() }),
        (false, Options { mode: Mode::Zero, ..greedy() }),
        (true, greedy()),
    ] {
        let (outcome, _) = compact(&source, &[], &output, options).unwrap();
        // What the stores list is kept, so there may be nothing left to scrub unless they are given up.
        let may_change = options.scrub && options.mode != Mode::Zero;
        assert!(may_change || !outcome.reads_changed, "{options:?}");
        assert!(outcome.reads_changed || !ignored, "{options:?}");
        structure(&output);
        let after = shadows.snapshots(&raw_of(&output, dir));
        assert_eq!(after == before, !ignored, "{options:?}");
    }
}

/// A volume of `fs`, spoilt by `spoil`.
fn spoilt(fs: FileSystem, dir: &Path, spoil: impl FnOnce(&Path)) -> PathBuf {
    let volume = fs.make(dir);
    spoil(&volume);
    volume
}

/// Whatever is asked: only zeros go.
fn only_zeros_go(fs: FileSystem, spoil: impl FnOnce(&Path)) {
    if !with_tools(fs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = spoilt(fs, dir, spoil);
    let source = Container::Vhdx(1).wrap(&volume, dir);
    for (name, options) in [
        ("out.vhdx", greedy()),
        ("out.vhdx", Options { mode: Mode::Quick, ..greedy() }),
        ("out.vhd", Options { format: Some(vhd_compactor::image::Format::Vhd), ..greedy() }),
    ] {
        let output = dir.join(name);
        let (outcome, _) = compact(&source, &[], &output, options).unwrap();
        assert!(!outcome.reads_changed && outcome.tally.free == 0, "{options:?}");
        structure(&output);
        assert!(differences(&volume, &raw_of(&output, dir)).is_empty(), "{options:?}");
    }
}

fn set(volume: &Path, at: u64, change: impl FnOnce(u8) -> u8) {
    let file = File::options().read(true).write(true).open(volume).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[change(byte[0])], at).unwrap();
}

#[test]
fn a_dirty_ntfs_is_left_alone() {
    only_zeros_go(FileSystem::Ntfs, |volume| {
        run("ntfsfix", &[text(volume)]);
    });
}

#[test]
fn a_hibernated_ntfs_is_left_alone() {
    only_zeros_go(FileSystem::Ntfs, |volume| {
        let mut image = vec![0x55; 1 << 20];
        image[..4].copy_from_slice(b"HIBR");
        fs::write(Mounted::new(volume).path().join("hiberfil.sys"), image).unwrap();
    });
}

#[test]
fn an_ext4_with_errors_is_left_alone() {
    only_zeros_go(FileSystem::Ext4, |volume| {
        run("tune2fs", &["-E", "force_fsck", text(volume)]);
    });
}

#[test]
fn a_dirty_ext2_is_left_alone() {
    only_zeros_go(FileSystem::Ext2, |volume| {
        ext::debugfs(volume, &["dirty".into()], volume.parent().unwrap());
    });
}

#[test]
fn a_dirty_fat_is_left_alone() {
    only_zeros_go(FileSystem::Fat16, |volume| {
        let mut boot = [0; 512];
        File::open(volume).unwrap().read_exact_at(&mut boot, 0).unwrap();
        let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
        set(volume, reserved * 512 + 3, |byte| byte & 0x7f);
    });
}

#[test]
fn a_dirty_exfat_is_left_alone() {
    only_zeros_go(FileSystem::ExFat, |volume| {
        set(volume, 106, |byte| byte | 2);
    });
}

#[test]
fn a_hibernated_swap_is_left_alone() {
    only_zeros_go(FileSystem::Swap, |volume| {
        write_at(volume, 4086, b"S1SUSPEND\0");
    });
}
