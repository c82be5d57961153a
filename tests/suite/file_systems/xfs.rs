//! XFS: the free map is the one of xfs_db, to the byte, and what it calls free is needed by nobody.

use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::fs::DeclineReason;

use crate::toolbox::ext::{Mounted, make_files};
use crate::toolbox::xfs::{
    TOOLS, age, assert_sound, contents, digests_by_dissect, equals_xfs_db, free_by_xfs_db, mkfs, numbers,
};
use crate::toolbox::{MIB, declined, have, look, mapped, poison, python, run, sparse, stdout, text, unpack};

/// Shapes of volumes: size in MiB, and how mkfs.xfs is asked for them. The kernels of today mount version 5 only.
const OLD_SHAPES: &[(u64, &[&str])] = &[
    (64, &["-m", "crc=0"]),
    (64, &["-m", "crc=0", "-b", "size=512"]),
    (64, &["-m", "crc=0", "-b", "size=1024", "-l", "version=1"]),
    (64, &["-m", "crc=0", "-l", "lazy-count=0", "-i", "size=2048"]),
    (64, &["-m", "crc=0", "-i", "attr=1,projid32bit=0", "-n", "ftype=0"]),
    (320, &["-m", "crc=0", "-b", "size=65536", "-d", "agcount=2"]),
];
const SHAPES: &[(u64, &[&str])] = &[
    (320, &[]),
    (128, &["-b", "size=1024"]),
    (128, &["-b", "size=4096", "-i", "size=2048"]),
    (200, &["-b", "size=16384"]),
    (400, &["-b", "size=65536"]),
    (100, &["-s", "size=4096"]),
    (320, &["-m", "rmapbt=1"]),
    (128, &["-m", "rmapbt=1,reflink=0", "-b", "size=1024", "-l", "size=8m"]),
    (128, &["-m", "finobt=0,reflink=0,inobtcount=0,bigtime=0", "-i", "sparse=0"]),
    (128, &["-m", "bigtime=0,inobtcount=0", "-i", "nrext64=1"]),
    (320, &["-d", "agcount=9", "-i", "nrext64=1"]),
    (320, &["-l", "su=256k"]),
    (320, &["-l", "su=32k,agnum=2", "-d", "su=64k,sw=2"]),
];

/// A volume of one shape with files in it, made without a mount.
fn filled(dir: &Path, size: u64, args: &[&str]) -> PathBuf {
    let files = dir.join("files");
    if !files.exists() {
        make_files(&files, 60);
    }
    let path = dir.join("volume");
    mkfs(&path, size * MIB, args, Some(&files));
    path
}

#[test]
fn maps_equal_xfs_db_for_every_shape() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (size, args) in OLD_SHAPES.iter().chain(SHAPES) {
        let path = filled(dir.path(), *size, args);
        equals_xfs_db(&path, &format!("{args:?}"));
        assert_eq!(look(&path).name, "XFS");
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
    }
}

#[test]
fn nobody_needs_what_is_free_of_an_old_version() {
    if !have(&TOOLS) {
        return;
    }
    let Some(python) = python("dissect.xfs") else { return };
    let dir = tempfile::tempdir().unwrap();
    for (size, args) in OLD_SHAPES {
        let path = filled(dir.path(), *size, args);
        let before = digests_by_dissect(&python, &path);
        assert_eq!(before.len(), 60, "{args:?}");
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        assert_eq!(digests_by_dissect(&python, &path), before, "{args:?}");
    }
}

#[test]
fn nobody_needs_what_is_free_of_a_volume_grown_old() {
    if !have(&TOOLS) {
        return;
    }
    for (number, (size, args)) in SHAPES.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        // Room to grow, and the old parts of a larger file are full of something.
        mkfs(&path, size * MIB, args, None);
        let larger = size * 3 / 2 * MIB;
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(larger).unwrap();
        let before = {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { continue };
            age(mounted.folder(), number as u64);
            if have(&["xfs_growfs"]) {
                run("xfs_growfs", &[text(mounted.folder())]);
            }
            make_files(&mounted.folder().join("after growing"), 40);
            contents(mounted.folder())
        };
        assert!(before.0.len() > 150, "{args:?}: {}", before.0.len());
        equals_xfs_db(&path, &format!("{args:?}"));
        assert!(mapped(&path).free.ranges().len() > 20, "{args:?}");
        poison(&path, mapped(&path).free.ranges());
        assert_sound(&path);
        {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { continue };
            assert!(contents(mounted.folder()) == before, "{args:?}");
            // The kernel goes on as if nothing had happened.
            make_files(&mounted.folder().join("after poison"), 50);
        }
        assert_sound(&path);
        equals_xfs_db(&path, &format!("used after poison {args:?}"));
    }
}

#[test]
fn a_log_that_is_open_declines_until_the_volume_was_mounted_and_unmounted() {
    if !have(&TOOLS) {
        return;
    }
    for args in [&[][..], &["-m", "rmapbt=1"], &["-l", "su=256k"]] {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("volume"), dir.path().join("copy"));
        mkfs(&path, 320 * MIB, args, None);
        // Several rounds of mounts: old unmount records stay in the log.
        for round in 0..3 {
            {
                let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
                let folder = mounted.folder().join(format!("round {round}"));
                make_files(&folder, 30);
                run("sync", &["-f", text(mounted.folder())]);
                // What an image of a running machine is.
                fs::copy(&path, &copy).unwrap();
                assert_eq!(declined(&copy).reason, DeclineReason::JournalPending, "{args:?}");
                fs::remove_dir_all(&folder).unwrap();
                if round == 1 {
                    run("xfs_io", &["-x", "-c", "shutdown -f", text(mounted.folder())]);
                }
            }
            if round == 1 {
                assert_eq!(declined(&path).reason, DeclineReason::JournalPending, "{args:?}");
                let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
                drop(mounted);
            }
            equals_xfs_db(&path, &format!("{args:?} round {round}"));
        }
        drop(Mounted::new(&copy, "", dir.path()));
        equals_xfs_db(&copy, &format!("{args:?} recovered"));
    }
}

#[test]
fn the_log_is_followed_round_its_end() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    mkfs(&path, 64 * MIB, &["-b", "size=4096", "-l", "size=6m"], None);
    for round in 0..12u64 {
        {
            let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
            for part in 0..=round {
                make_files(&mounted.folder().join("a"), 40 + part);
                run("sync", &["-f", text(mounted.folder())]);
                fs::remove_dir_all(mounted.folder().join("a")).unwrap();
                run("sync", &["-f", text(mounted.folder())]);
            }
        }
        equals_xfs_db(&path, &format!("round {round}"));
    }
}

#[test]
fn tools_leave_volumes_that_are_mapped() {
    if !have(&TOOLS) || !have(&["xfs_admin"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for args in [&["-m", "rmapbt=1"][..], &["-m", "crc=0"]] {
        let path = filled(dir.path(), 320, args);
        run("xfs_admin", &["-U", "generate", "-L", "renamed", text(&path)]);
        equals_xfs_db(&path, "a new UUID");
        assert_eq!(look(&path).label.as_deref(), Some("renamed"));
        run("xfs_repair", &["-L", text(&path)]);
        equals_xfs_db(&path, "repaired");
        if args.contains(&"crc=0") {
            continue;
        }
        drop(Mounted::new(&path, "", dir.path()));
        equals_xfs_db(&path, "mounted after a repair");
        assert_sound(&path);
    }
}

#[test]
fn what_needs_a_repair_or_other_devices_declines() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("volume"), dir.path().join("other"));
    let reason = |args: &[&str]| {
        mkfs(&path, 320 * MIB, args, None);
        declined(&path).reason
    };
    sparse(&other, 320 * MIB);
    let log = format!("logdev={},size=64m", text(&other));
    assert_eq!(reason(&["-l", &log]), DeclineReason::UnknownFeature);
    let realtime = format!("rtdev={}", text(&other));
    assert_eq!(reason(&["-r", &realtime]), DeclineReason::UnknownFeature);
    mkfs(&path, 320 * MIB, &[], None);
    let printed =
        String::from_utf8(stdout("xfs_db", &["-c", "sb 0", "-c", "p features_incompat", text(&path)]));
    let before = u64::from_str_radix(printed.unwrap().trim().rsplit("0x").next().unwrap(), 16).unwrap();
    run(
        "xfs_db",
        &["-x", "-c", "sb 0", "-c", &format!("write features_incompat {}", before | 16), text(&path)],
    );
    assert_eq!(declined(&path).reason, DeclineReason::ErrorState);
}

#[test]
fn a_free_extent_that_a_file_has_declines_by_its_inode() {
    if !have(&TOOLS) {
        return;
    }
    for args in [&["-m", "crc=0"][..], &["-m", "rmapbt=0"], &["-m", "rmapbt=1"]] {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), 64, args);
        // The last free extent begins one block earlier, in both trees and in all counts.
        let last = numbers(&path, &["agf 0", "addr bnoroot", "p numrecs"])[0];
        let record = format!("p recs[{last}].startblock recs[{last}].blockcount");
        let [start, count] = numbers(&path, &["agf 0", "addr bnoroot", &record])[..] else {
            panic!("{args:?}")
        };
        let slot = numbers(&path, &["agf 0", "addr cntroot", "p numrecs"])[0];
        let [free, longest] = numbers(&path, &["agf 0", "p freeblks longest"])[..] else {
            panic!("{args:?}")
        };
        assert_eq!(longest, count, "{args:?}");
        let total = numbers(&path, &["sb 0", "p fdblocks"])[0];
        let mut script = Vec::new();
        for command in [
            "agf 0".to_owned(),
            format!("write freeblks {}", free + 1),
            format!("write longest {}", longest + 1),
            "addr bnoroot".to_owned(),
            format!("write recs[{last}].startblock {}", start - 1),
            format!("write recs[{last}].blockcount {}", count + 1),
            "agf 0".to_owned(),
            "addr cntroot".to_owned(),
            format!("write recs[{slot}].startblock {}", start - 1),
            format!("write recs[{slot}].blockcount {}", count + 1),
            "sb 0".to_owned(),
            format!("write fdblocks {}", total + 1),
        ] {
            script.extend(["-c".to_owned(), command]);
        }
        let script: Vec<&str> = script.iter().map(String::as_str).chain([text(&path)]).collect();
        run("xfs_db", &[&["-x"][..], &script].concat());
        assert!(!free_by_xfs_db(&path).is_empty());
        let volume = vhd_compactor::io::NativeFile::open(&path).unwrap();
        let heard = look(&path).heard(&volume);
        let vhd_compactor::fs::Mapping::Declined(decline) = heard.mapping else { panic!("{args:?}: mapped") };
        assert_eq!(decline.reason, DeclineReason::Inconsistent);
        assert!(
            decline.detail.contains("“inode") && decline.detail.contains("map calls free"),
            "{args:?}: {decline:?}"
        );
    }
}

#[test]
fn volumes_of_others_are_mapped_as_xfs_db_maps_them() {
    if !have(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = unpack("dissect-xfs.bin", dir.path()) else { return };
    equals_xfs_db(&path, "dissect-xfs");
    assert_eq!(mapped(&path).free_bytes, 11_091_968);
    if let Some(python) = python("dissect.xfs") {
        let before = digests_by_dissect(&python, &path);
        poison(&path, mapped(&path).free.ranges());
        assert_eq!(digests_by_dissect(&python, &path), before);
    }
}
