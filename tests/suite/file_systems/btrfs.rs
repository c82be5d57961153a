//! Btrfs: the free map is what btrfs-progs print, to the byte, and what it calls free is needed by nobody.

use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::fs::{DeclineReason, Mapping};
use vhd_compactor::io::NativeFile;

use crate::toolbox::btrfs::{
    SUPERBLOCK, TOOLS, age, assert_sound, change_superblock, equals_dump_tree, mkfs, seal,
};
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
fn each_field_of_the_superblock_is_checked() {
    if !have(&TOOLS) {
        return;
    }
    use DeclineReason::{ErrorState, Inconsistent, JournalPending, UnknownFeature};
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &[]);
    let before = read_at(&path, SUPERBLOCK, 4096);
    let old = |at: usize| u64::from_le_bytes(*before[at..].first_chunk().unwrap());
    let mut cases = vec![
        (0x38, old(0x38) | 4, ErrorState, "marked as damaged"),
        (0x38, old(0x38) | 1 << 32, UnknownFeature, "a seed"),
        (0x38, old(0x38) | 1 << 36, UnknownFeature, "being converted"),
        (0x48, old(0x48) + 1, Inconsistent, "another time"),
        (0x50, old(0x50) + 4096, Inconsistent, "tree block"),
        (0x50, 1 << 60, Inconsistent, "lies in no chunk"),
        (0x58, old(0x50), Inconsistent, "lies in no chunk"),
        (0x60, 1 << 20, JournalPending, "mount and unmount it once"),
        (0x70, 1 << 40, Inconsistent, "larger than its partition"),
        (0x70, old(0x70) - 4096, Inconsistent, "another size"),
        (0x78, old(0x78) + 4096, Inconsistent, "its superblock says"),
        (0x88, 2, UnknownFeature, "2 devices"),
        (0x90, 0, Inconsistent, "block sizes"),
        (0x90, 512 | 16384 << 32, Inconsistent, "block sizes"),
        (0x90, 65536 | 4096 << 32, Inconsistent, "block sizes"),
        (0x90, 4096 | (1 << 17) << 32, Inconsistent, "block sizes"),
        (0xA0, 4096 | old(0xA0) >> 32 << 32, Inconsistent, "system chunks"),
        (0xA0, 90 | old(0xA0) >> 32 << 32, Inconsistent, "cut off"),
        (0xA4, old(0xA4) - 1, Inconsistent, "another time"),
        (0xC4, 1 | old(0xC4) >> 16 << 16, UnknownFeature, "xxhash64"),
        (0xC4, 2 | old(0xC4) >> 16 << 16, UnknownFeature, "SHA-256"),
        (0xC4, 3 | old(0xC4) >> 16 << 16, UnknownFeature, "BLAKE2b"),
        (0xC4, 4 | old(0xC4) >> 16 << 16, UnknownFeature, "of kind 4"),
        (0xC6, 8 | old(0xC6) >> 8 << 8, Inconsistent, "levels"),
        (0xC9, 2, Inconsistent, "device"),
        (0xD9, old(0xD9) + 4096, Inconsistent, "device"),
        (0xBC, old(0xBC) & !1, UnknownFeature, "before 2009"),
    ];
    for (bit, name) in [(7, "RAID5"), (11, "RAID1"), (12, "zones"), (13, "extent tree"), (14, "stripe tree")]
    {
        cases.push((0xBC, old(0xBC) | 1 << bit, UnknownFeature, name));
    }
    cases.extend(
        [15, 17, 40, 63].map(|bit| (0xBC, old(0xBC) | 1 << bit, UnknownFeature, "unknown incompatible")),
    );
    cases.push((0xB4, old(0xB4) | 8, UnknownFeature, "block group tree"));
    cases.extend([4, 31, 63].map(|bit| (0xB4, old(0xB4) | 1 << bit, UnknownFeature, "unknown read-only")));
    for (at, value, reason, what) in cases {
        write_at(&path, SUPERBLOCK, &before);
        change_superblock(&path, at, &value.to_le_bytes());
        let found = declined(&path);
        assert_eq!(found.reason, reason, "{at:#x} {value:#x}: {found:?}");
        assert!(found.detail.contains(what) && found.site.is_some(), "{at:#x} {value:#x}: {found:?}");
    }
    // A checksum that is wrong, and a newer copy.
    write_at(&path, SUPERBLOCK, &before);
    mapped(&path);
    write_at(&path, SUPERBLOCK + 0x12B, b"changed");
    assert!(declined(&path).detail.contains("super-recover"));
    write_at(&path, SUPERBLOCK, &before);
    write_at(&path, (64 << 20) + 0x48, &(old(0x48) + 1).to_le_bytes());
    mapped(&path);
    seal(&path, 64 << 20, 4096);
    assert!(declined(&path).detail.contains("newer than the first"));
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
fn an_extent_that_the_extent_tree_lost_declines_by_its_owner() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = volume(dir.path(), &["-n", "65536", "-m", "single"]);
    let at = root_of(&path, "extent");
    let before = read_at(&path, at, 65536);
    let word = |at: usize| u64::from_le_bytes(*before[at..].first_chunk().unwrap());
    // The last extent of data is recorded one sector shorter, in all counts.
    let count = u32::from_le_bytes(*before[96..].first_chunk().unwrap()) as usize;
    let slots = (0..count).map(|slot| 101 + slot * 25);
    let slot = slots.rev().find(|&slot| before[slot + 8] == 168).unwrap();
    write_at(&path, at + slot as u64 + 9, &(word(slot + 9) - 4096).to_le_bytes());
    let group = (0..).map(|slot| 101 + slot * 25).take_while(|&other| other < slot);
    let group = group.filter(|&slot| before[slot + 8] == 192).last().unwrap();
    let data = 101 + u32::from_le_bytes(*before[group + 17..].first_chunk().unwrap()) as usize;
    write_at(&path, at + data as u64, &(word(data) - 4096).to_le_bytes());
    seal(&path, at, 65536);
    let used = u64::from_le_bytes(*read_at(&path, SUPERBLOCK + 0x78, 8).first_chunk().unwrap());
    change_superblock(&path, 0x78, &(used - 4096).to_le_bytes());
    let heard = look(&path).heard(&NativeFile::open(&path).unwrap());
    let Mapping::Declined(decline) = heard.mapping else { panic!("mapped") };
    assert_eq!(decline.reason, DeclineReason::Inconsistent);
    assert!(decline.detail.contains("“inode") && decline.detail.contains("map calls free"), "{decline:?}");
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
