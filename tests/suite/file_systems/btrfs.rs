//! Btrfs: the free map is what btrfs-progs print, to the byte, and what it calls free is needed by nobody.

use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::fs::DeclineReason;

use crate::toolbox::btrfs::{TOOLS, age, assert_sound, equals_dump_tree, mkfs, seal};
use crate::toolbox::ext::{Mounted, make_files};
use crate::toolbox::{
    MIB, declined, digests, have, look, mapped, poison, read_at, run, skip, sparse, stdout, text, try_run,
    unpack, write_at,
};

/// Shapes of volumes: how mkfs.btrfs is asked for them.
const SHAPES: &[&[&str]] = &[
    &[],
    &["-n", "4096"],
    &["-n", "65536", "-m", "single"],
    &["-d", "dup"],
    &["-m", "single", "-O", "^skinny-metadata"],
    &["-O", "^no-holes,^extref", "-R", "^free-space-tree"],
    &["--mixed"],
    &["-L", "named", "-R", "quota"],
    &["--csum", "xxhash", "-n", "4096"],
    &["--csum", "sha256"],
    &["--csum", "blake2"],
];

fn volume(dir: &Path, args: &[&str]) -> PathBuf {
    let files = dir.join("files");
    if !files.exists() {
        make_files(&files, 60);
    }
    let path = dir.join("volume");
    mkfs(&path, 320 * MIB, args, Some(&files));
    path
}

#[test]
fn maps_equal_dump_tree_for_every_shape() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for args in SHAPES {
        let path = volume(dir.path(), args);
        assert_eq!(look(&path).name, "Btrfs");
        equals_dump_tree(&path, &format!("{args:?}"));
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        let out = dir.path().join("restored");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        run("btrfs", &["restore", text(&path), text(&out)]);
        assert_eq!(digests(&out), digests(&dir.path().join("files")), "{args:?}");
    }
}

#[test]
fn nobody_needs_what_is_free_of_a_volume_grown_old() {
    if !have(&TOOLS) {
        return;
    }
    for (number, args) in SHAPES.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        mkfs(&path, 512 * MIB, args, None);
        let before = {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            age(mounted.folder(), number as u64);
            digests(mounted.folder())
        };
        assert!(before.len() > 150, "{args:?}: {}", before.len());
        equals_dump_tree(&path, &format!("{args:?}"));
        assert!(mapped(&path).free.ranges().len() > 10, "{args:?}");
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            assert!(digests(mounted.folder()) == before, "{args:?}");
            // The kernel goes on as if nothing had happened.
            make_files(&mounted.folder().join("after poison"), 50);
        }
        assert_sound(&path);
        equals_dump_tree(&path, &format!("used after poison {args:?}"));
    }
}

#[test]
fn the_copy_of_the_superblock_at_256_gib_is_kept() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    mkfs(&path, 300 << 30, &[], None);
    assert_eq!(read_at(&path, (256 << 30) + 64, 8), b"_BHRfS_M");
    equals_dump_tree(&path, "300 GiB");
}

#[test]
fn block_groups_may_have_a_tree_of_their_own() {
    if !have(&TOOLS) {
        return;
    }
    // By default since btrfs-progs 6.19.
    let listed = try_run("mkfs.btrfs", &["-O", "list-all"]);
    if !String::from_utf8_lossy(&listed.stderr).contains("block-group-tree") {
        return skip("mkfs.btrfs makes no block group trees");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &["-O", "block-group-tree"]);
    equals_dump_tree(&path, "mkfs");
    let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
    make_files(&mounted.folder().join("more"), 100);
    let before = digests(mounted.folder());
    drop(mounted);
    equals_dump_tree(&path, "used");
    poison(&path, mapped(&path).free.ranges());
    assert_sound(&path);
    let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
    assert!(digests(mounted.folder()) == before);
}

#[test]
fn a_volume_in_use_is_mapped_unless_its_log_tree_is_pending() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("volume"), dir.path().join("copy"));
    mkfs(&path, 320 * MIB, &[], None);
    let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
    make_files(&mounted.folder().join("a"), 60);
    run("sync", &["-f", text(mounted.folder())]);
    // What a power cut leaves, right after a commit, and after an fsync.
    fs::copy(&path, &copy).unwrap();
    equals_dump_tree(&copy, "after a commit");
    poison(&copy, mapped(&copy).free.ranges());
    assert_sound(&copy);
    let file = fs::File::create(mounted.folder().join("late")).unwrap();
    std::io::Write::write_all(&mut &file, &[7; 9000]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::copy(&path, &copy).unwrap();
    let decline = declined(&copy);
    assert_eq!(decline.reason, DeclineReason::JournalPending);
    assert!(decline.detail.contains("mount and unmount it once"));
    drop(mounted);
    equals_dump_tree(&path, "unmounted");
}

#[test]
fn metadata_may_have_a_uuid_of_its_own() {
    if !have(&TOOLS) || !have(&["btrfstune"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &[]);
    run("btrfstune", &["-f", "-m", text(&path)]);
    equals_dump_tree(&path, "a new UUID for a person");
    let path = volume(dir.path(), &[]);
    run("btrfstune", &["-f", "-S", "1", text(&path)]);
    assert!(declined(&path).detail.contains("a seed"));
}

#[test]
fn a_balance_that_is_paused_declines() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &[]);
    {
        let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
        make_files(&mounted.folder().join("more"), 200);
        run("sync", &["-f", text(mounted.folder())]);
        run("btrfs", &["balance", "start", "--full-balance", "--bg", text(mounted.folder())]);
        let paused = try_run("btrfs", &["balance", "pause", text(mounted.folder())]);
        if !paused.status.success() {
            return skip("the balance ended before it was paused");
        }
    }
    assert_eq!(declined(&path).reason, DeclineReason::Dirty);
}

#[test]
fn several_devices_and_unfinished_work_decline() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &[]);
    let other = dir.path().join("other");
    for profile in ["raid0", "raid1", "single"] {
        let _ = fs::remove_file(&path);
        sparse(&path, 320 * MIB);
        sparse(&other, 320 * MIB);
        run("mkfs.btrfs", &["-q", "-f", "-d", profile, "-m", profile, text(&path), text(&other)]);
        assert_eq!(declined(&path).reason, DeclineReason::UnknownFeature, "{profile}");
        assert_eq!(declined(&other).reason, DeclineReason::UnknownFeature, "{profile}");
    }
}

/// Where a tree's root lies on the device, of a volume whose chunks all lie where their addresses are.
fn root_of(path: &Path, tree: &str) -> u64 {
    let dump = stdout("btrfs", &["inspect-internal", "dump-tree", "-t", tree, text(path)]);
    let dump = String::from_utf8_lossy(&dump).into_owned();
    let leaf = dump.lines().find_map(|line| line.strip_prefix("leaf ")).unwrap();
    leaf.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_damaged_copy_of_a_tree_block_is_passed_over() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &[]);
    let before = mapped(&path);
    let at = root_of(&path, "extent");
    write_at(&path, at + 200, b"damage");
    assert_eq!(mapped(&path), before);
    // Where there is one copy only, nothing is to be had.
    let path = volume(dir.path(), &["-m", "single"]);
    for tree in ["root", "extent", "dev", "chunk"] {
        let at = root_of(&path, tree);
        let good = read_at(&path, at, 16384);
        write_at(&path, at + 200, b"damage");
        assert!(declined(&path).detail.contains("does not match its checksum"), "{tree}");
        write_at(&path, at, &good);
        // An older block with a checksum that is right.
        write_at(&path, at + 80, &1u64.to_le_bytes());
        seal(&path, at, 16384);
        assert!(declined(&path).detail.contains("another time"), "{tree}");
        write_at(&path, at, &good);
    }
    mapped(&path);
}

#[test]
fn volumes_of_others_are_mapped_as_btrfs_progs_map_them() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = unpack("btrfsprogs-025-zstd-compression.raw", dir.path()) else { return };
    equals_dump_tree(&path, "zstd");
    poison(&path, mapped(&path).free.ranges());
    assert_sound(&path);
}
