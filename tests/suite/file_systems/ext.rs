//! ext2, ext3 and ext4: the free map is the one of e2fsprogs, to the byte, and what it calls free is
//! needed by nobody.

use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::fs::{Context, DeclineReason, Mapping, detect};

use crate::toolbox::ext::{
    Mounted, assert_sound, debugfs, digests, dumpe2fs_free, equals_dumpe2fs, make_files, mke2fs, replay,
};
use crate::toolbox::{
    Counting, MIB, declined, have, look, look_at, mapped, poison, run, skip, text, try_run, unpack,
};

const TOOLS: [&str; 4] = ["mke2fs", "dumpe2fs", "debugfs", "e2fsck"];

/// Shapes of volumes: what they are called, their size in MiB, and how mke2fs is asked for them.
const SHAPES: &[(&str, u64, &[&str])] = &[
    ("ext2", 24, &["-t", "ext2", "-b", "1024"]),
    ("ext2", 300, &["-t", "ext2", "-b", "4096"]),
    ("ext2", 40, &["-t", "ext2", "-r", "0"]),
    ("ext3", 40, &["-t", "ext3"]),
    ("ext4", 300, &["-t", "ext4"]),
    ("ext4", 40, &["-t", "ext4", "-b", "1024", "-O", "^64bit"]),
    ("ext4", 300, &["-t", "ext4", "-O", "^has_journal,^metadata_csum,^uninit_bg"]),
    ("ext4", 100, &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"]),
    ("ext4", 300, &["-t", "ext4", "-O", "bigalloc", "-C", "16384"]),
    ("ext4", 100, &["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"]),
    ("ext4", 300, &["-t", "ext4", "-O", "^flex_bg,^metadata_csum,uninit_bg"]),
    ("ext4", 300, &["-t", "ext4", "-O", "^flex_bg"]),
    ("ext4", 300, &["-t", "ext4", "-O", "sparse_super2"]),
    ("ext4", 300, &["-t", "ext4", "-O", "sparse_super2", "-E", "packed_meta_blocks=1", "-G", "64"]),
    ("ext4", 60, &["-t", "ext4", "-O", "inline_data"]),
    ("ext4", 60, &["-t", "ext4", "-O", "metadata_csum_seed"]),
    ("ext4", 60, &["-t", "ext4", "-O", "encrypt,casefold,verity,orphan_file,ea_inode,large_dir"]),
    ("ext4", 2000, &["-t", "ext4", "-b", "65536"]),
    ("ext4", 60, &["-t", "ext4", "-b", "1024", "-g", "1024"]),
    ("ext4", 300, &["-t", "ext4", "-O", "^resize_inode", "-T", "largefile"]),
];

/// A volume of one shape with files in it, half of them deleted again, made without a mount.
fn populated(dir: &Path, size: u64, args: &[&str]) -> PathBuf {
    let files = dir.join("files");
    let names = make_files(&files, 40);
    let path = dir.join("volume");
    mke2fs(&path, size * MIB, args, Some(&files));
    let commands: Vec<String> = names.iter().step_by(2).map(|name| format!("rm {}", text(name))).collect();
    debugfs(&path, &commands, dir);
    path
}

#[test]
fn maps_equal_dumpe2fs_for_every_shape() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, size, args) in SHAPES {
        let empty = dir.path().join("empty");
        mke2fs(&empty, size * MIB, args, None);
        equals_dumpe2fs(&empty, &format!("empty {args:?}"));
        let path = populated(dir.path(), *size, args);
        assert_sound(&path);
        equals_dumpe2fs(&path, &format!("{args:?}"));
        assert_eq!(look(&path).name, *name, "{args:?}");
    }
    // debugfs keeps no quotas, and waits ten seconds before it changes a volume with mmp.
    let path = dir.path().join("volume");
    mke2fs(&path, 60 * MIB, &["-t", "ext4", "-O", "quota,project,mmp"], None);
    equals_dumpe2fs(&path, "quota,project,mmp");
}

#[test]
fn nobody_needs_what_is_free() {
    if !have(&TOOLS) {
        return;
    }
    for args in [
        ["-t", "ext4"].as_slice(),
        &["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
        &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
        &["-t", "ext2", "-b", "1024"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = populated(dir.path(), 60, args);
        let before = digests(&path, dir.path());
        assert!(before.len() >= 20);
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        assert_eq!(digests(&path, dir.path()), before, "{args:?}");
        equals_dumpe2fs(&path, "poisoned");
    }
}

#[test]
fn a_volume_that_the_kernel_used_and_unmounted_is_mapped() {
    if !have(&TOOLS) {
        return;
    }
    for args in [
        ["-t", "ext4", "-E", "lazy_itable_init=1"].as_slice(),
        &["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
        &["-t", "ext3", "-b", "1024"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        mke2fs(&path, 64 * MIB, args, None);
        let names = {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            make_files(mounted.folder(), 80)
        };
        {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            for name in names.iter().step_by(2) {
                fs::remove_file(mounted.folder().join(name)).unwrap();
            }
        }
        equals_dumpe2fs(&path, &format!("{args:?}"));
        let before = digests(&path, dir.path());
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        assert_eq!(digests(&path, dir.path()), before, "{args:?}");
        // The kernel goes on as if nothing had happened: uninitialised tables are in use.
        {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            make_files(&mounted.folder().join("after"), 50);
        }
        assert_sound(&path);
        equals_dumpe2fs(&path, &format!("used after poison {args:?}"));
    }
}

/// Uses a volume and takes its power away: what is left has a journal to replay.
fn crashed(dir: &Path, args: &[&str], options: &str) -> Option<PathBuf> {
    let path = dir.join("volume");
    mke2fs(&path, 48 * MIB, args, None);
    let mounted = Mounted::new(&path, options, dir)?;
    let names = make_files(mounted.folder(), 40);
    run("sync", &["-f", text(mounted.folder())]);
    for name in names.iter().step_by(2) {
        fs::remove_file(mounted.folder().join(name)).unwrap();
    }
    fs::remove_dir_all(mounted.folder().join("d3")).unwrap();
    make_files(&mounted.folder().join("late"), 12);
    let output = try_run("xfs_io", &["-x", "-c", "shutdown -f", text(mounted.folder())]);
    if !output.status.success() {
        skip(&format!("xfs_io: {}", String::from_utf8_lossy(&output.stderr).trim()));
        return None;
    }
    drop(mounted);
    assert!(run("dumpe2fs", &["-h", text(&path)]).contains("needs_recovery"));
    Some(path)
}

#[test]
fn a_volume_that_lost_its_power_is_as_the_replay_leaves_it() {
    if !have(&TOOLS) || !have(&["xfs_io"]) {
        return;
    }
    for (args, options) in [
        (["-t", "ext4"].as_slice(), ""),
        (&["-t", "ext4", "-b", "1024", "-O", "^64bit"], "data=journal"),
        (&["-t", "ext3", "-b", "1024"], ""),
        (&["-t", "ext4", "-O", "^metadata_csum"], "journal_async_commit,data=writeback"),
        (&["-t", "ext4", "-O", "bigalloc", "-C", "16384"], ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(path) = crashed(dir.path(), args, options) else { return };
        let map = mapped(&path);
        assert_eq!(look(&path).warnings[0].code, "journal-replayed");

        let replayed = dir.path().join("replayed");
        fs::copy(&path, &replayed).unwrap();
        replay(&replayed);
        assert_eq!(map.free.ranges(), dumpe2fs_free(&replayed).ranges(), "{args:?}");
        assert_eq!(map.free_bytes, map.free.total());

        // Nobody needs what is free, neither for the replay nor after it.
        poison(&path, map.free.ranges());
        replay(&path);
        let sound = try_run("e2fsck", &["-fy", text(&path)]);
        assert!(matches!(sound.status.code(), Some(0 | 1)));
        try_run("e2fsck", &["-fy", text(&replayed)]);
        assert_eq!(digests(&path, dir.path()), digests(&replayed, dir.path()), "{args:?}");
    }
}

/// The blocks in which two volumes differ, in the words of debugfs, and their content in a file.
fn difference(before: &Path, after: &Path, block: usize, content: &Path) -> String {
    let (before, after) = (fs::read(before).unwrap(), fs::read(after).unwrap());
    let mut numbers = Vec::new();
    let mut blocks = Vec::new();
    for (number, (old, new)) in before.chunks(block).zip(after.chunks(block)).enumerate() {
        if old != new {
            numbers.push(number.to_string());
            blocks.extend_from_slice(new);
        }
    }
    fs::write(content, blocks).unwrap();
    numbers.join(",")
}

/// Volumes whose journals were written by debugfs: no mount, every kind of checksum.
#[test]
fn journals_written_by_debugfs_are_replayed() {
    if !have(&TOOLS) {
        return;
    }
    for (args, block, open) in [
        (["-t", "ext3", "-b", "1024"].as_slice(), 1024, "jo"),
        (&["-t", "ext4", "-b", "4096"], 4096, "jo -c"),
        (&["-t", "ext4", "-b", "1024"], 1024, "jo -c -v 2"),
        (&["-t", "ext4", "-b", "1024", "-O", "^64bit"], 1024, "jo -c -v 3"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let before = populated(dir.path(), 40, args);
        let after = at("after");
        fs::copy(&before, &after).unwrap();
        debugfs(
            &after,
            &(0..40).skip(1).step_by(4).map(|n| format!("rm d{}/f{n}", n % 5)).collect::<Vec<_>>(),
            dir.path(),
        );
        let blocks = difference(&before, &after, block, &at("content"));
        let garbage = at("garbage");
        fs::write(&garbage, vec![0xAA; 3 * block]).unwrap();
        let bitmap = run("dumpe2fs", &[text(&before)])
            .lines()
            .find_map(|line| Some(line.strip_prefix("  Block bitmap at ")?.split(' ').next()?.to_owned()))
            .unwrap();

        let pending = at("pending");
        let write = |commands: &[String]| {
            fs::copy(&before, &pending).unwrap();
            let script: Vec<String> = std::iter::once(open.to_owned())
                .chain(commands.iter().cloned())
                .chain(["jc".to_owned()])
                .collect();
            debugfs(&pending, &script, dir.path());
            let judged = at("judged");
            fs::copy(&pending, &judged).unwrap();
            replay(&judged);
            assert_eq!(
                mapped(&pending).free.ranges(),
                dumpe2fs_free(&judged).ranges(),
                "{open}: {commands:?}"
            );
        };
        let change = format!("jw -b {blocks} {}", text(&at("content")));
        write(std::slice::from_ref(&change));
        assert_eq!(mapped(&pending).free.ranges(), dumpe2fs_free(&after).ranges());
        // Garbage that is revoked later, garbage that was never committed.
        let revoked = format!("jw -b {bitmap} {}", text(&garbage));
        write(&[revoked.clone(), format!("jw -r {bitmap}"), change.clone()]);
        write(&[change, format!("jw -b {bitmap} -c {}", text(&garbage))]);
        assert_eq!(mapped(&pending).free.ranges(), dumpe2fs_free(&after).ranges());
    }
}

#[test]
fn strangers_marks_decline() {
    if !have(&[TOOLS.as_slice(), &["tune2fs"]].concat()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    let fresh = |args: &[&str]| mke2fs(&path, 40 * MIB, args, None);
    let reason = || declined(&path).reason;

    fresh(&["-t", "ext4"]);
    run("tune2fs", &["-E", "force_fsck", text(&path)]);
    assert_eq!(reason(), DeclineReason::ErrorState);
    fresh(&["-t", "ext2"]);
    debugfs(&path, &["dirty".into()], dir.path());
    assert_eq!(reason(), DeclineReason::Dirty);
    fresh(&["-t", "ext4"]);
    debugfs(&path, &["feature needs_recovery".into(), "feature -has_journal".into()], dir.path());
    assert_eq!(reason(), DeclineReason::Inconsistent);
    fresh(&["-t", "ext4"]);
    debugfs(&path, &["ssv journal_inum 0".into(), "feature needs_recovery".into()], dir.path());
    assert_eq!(reason(), DeclineReason::JournalPending);
    fresh(&["-t", "ext4"]);
    debugfs(&path, &["freeb 20".into()], dir.path());
    assert_eq!(reason(), DeclineReason::Inconsistent, "metadata is marked free");
    fresh(&["-t", "ext4"]);
    debugfs(&path, &["set_bg 1 free_blocks_count 7".into(), "set_bg 1 checksum calc".into()], dir.path());
    assert_eq!(reason(), DeclineReason::Inconsistent);
    fresh(&["-O", "journal_dev"]);
    assert_eq!((look(&path).name, reason()), ("ext4 journal", DeclineReason::NotSupported));
    fresh(&["-t", "ext4"]);
    debugfs(&path, &["feature shared_blocks".into()], dir.path());
    assert_eq!(reason(), DeclineReason::UnknownFeature);
    assert!(declined(&path).detail.contains("shared_blocks"));
    fresh(&["-t", "ext4"]);
    fs::File::options().write(true).open(&path).unwrap().set_len(39 * MIB).unwrap();
    assert_eq!(reason(), DeclineReason::Inconsistent, "cut off");
}

#[test]
fn a_terabyte_is_mapped_from_a_few_megabytes() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    mke2fs(&path, 1 << 40, &["-t", "ext4"], None);
    let counting = Counting::open(&path);
    let found = detect(&counting, Context { sector_size: 512 });
    let Mapping::Mapped(map) = found.mapping else { panic!("{found:?}") };
    assert!(counting.bytes.get() < 40 * MIB, "{} bytes", counting.bytes.get());
    assert!(counting.reads.get() < 700, "{} reads", counting.reads.get());
    assert_eq!(map.free.ranges(), dumpe2fs_free(&path).ranges());
}

/// What the images of others are: equal to dumpe2fs as they lie, equal to it after a replay, or
/// declined.
enum Expected {
    AsItLies,
    AfterReplay,
    Declined(DeclineReason),
}

#[test]
fn images_of_others() {
    use Expected::{AfterReplay, AsItLies, Declined};
    if !have(&TOOLS) || !have(&["xz", "qemu-img"]) {
        return;
    }
    for (image, name, expected) in [
        ("ext4view-test_disk1.bin", "ext4", AsItLies),
        ("ext4view-test_disk_4k_block_journal.bin", "ext4", AfterReplay),
        ("e2fs-f_8192_block.img", "ext2", AsItLies),
        ("e2fs-f_bigalloc_symlink_with_xattr.img", "ext4", AsItLies),
        ("e2fs-f_uninit_cat.img", "ext4", AsItLies),
        ("e2fs-j_recover_fast_commit.img", "ext4", Declined(DeclineReason::JournalPending)),
        ("dfvfs-ext2.vhd", "ext2", AsItLies),
        ("dfvfs-ext2.vhdx", "ext2", AsItLies),
        ("plaso-image.vhd", "ext2", AsItLies),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(mut path) = unpack(image, dir.path()) else { continue };
        if image.contains(".vhd") {
            let raw = dir.path().join("raw");
            run("qemu-img", &["convert", "-O", "raw", text(&path), text(&raw)]);
            path = raw;
        }
        assert_eq!(look(&path).name, name, "{image}");
        match expected {
            AsItLies => equals_dumpe2fs(&path, image),
            AfterReplay => {
                let map = mapped(&path);
                replay(&path);
                assert_eq!(map.free.ranges(), dumpe2fs_free(&path).ranges(), "{image}");
            }
            Declined(reason) => assert_eq!(declined(&path).reason, reason, "{image}"),
        }
    }
}

#[test]
fn a_volume_in_a_partition_is_mapped_from_its_own_start() {
    if !have(&["xz"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = unpack("dfvfs-mbr.raw", dir.path()) else { return };
    for sector in [1, 131] {
        let found = look_at(&path, sector * 512..(sector + 129) * 512);
        let Mapping::Mapped(map) = found.mapping else { panic!("{found:?}") };
        assert!(map.free.total() > 0 && map.free.ranges().last().unwrap().end <= 129 * 512);
    }
}
