//! FAT, exFAT and swap as stock tools make them: the map equals what strangers count, and overwriting
//! everything it calls free changes no file.
// A test that goes wrong says so by failing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::fs::{DeclineReason, Mapping, Request};
use vhd_compactor::volume::Scheme;

use crate::toolbox::fat::{ExFat, write_files};
use crate::toolbox::{
    MIB, blank, declined, digests, free_by_sleuthkit, have, is_installed, look, mapped, poison, run, text,
    unpack, volumes, write_at,
};

/// Fills a FAT volume through mtools, deletes half of it and adds a little.
fn populate_fat(dir: &Path, image: &Path, largest: u64) {
    let copy_in = |prefix: &str, count, seed| {
        let from = dir.join(prefix);
        let names = write_files(&from, prefix, count, largest, seed);
        for entry in fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            run("mcopy", &["-i", text(image), "-s", "-Q", "-o", text(&path), "::/"]);
        }
        names
    };
    let first = copy_in("first", 32, 7);
    for name in first.iter().skip(1).step_by(2) {
        run("mdel", &["-i", text(image), &format!("::/{name}")]);
    }
    copy_in("again", 4, 8);
}

/// All files of a FAT volume.
fn fat_files(dir: &Path, image: &Path) -> BTreeMap<PathBuf, String> {
    let to = tempfile::tempdir_in(dir).unwrap();
    run("mcopy", &["-i", text(image), "-s", "-n", "::/*", text(to.path())]);
    digests(to.path())
}

/// Free bytes as `fsck.fat` counts them in the FAT: it must find nothing wrong.
fn fsck_free(image: &Path) -> u64 {
    let told = run("fsck.fat", &["-n", "-v", text(image)]);
    let number = |line: &str| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let cluster = number(told.lines().find(|line| line.ends_with("bytes per cluster")).unwrap());
    let summary = told.lines().find(|line| line.ends_with(" clusters")).unwrap();
    let (used, total) =
        summary.rsplit_once(", ").unwrap().1.strip_suffix(" clusters").unwrap().split_once('/').unwrap();
    (total.parse::<u64>().unwrap() - used.parse::<u64>().unwrap()) * cluster
}

#[test]
fn fat_maps_equal_strangers_counts_and_survive_poison() {
    need!("mkfs.fat", "fsck.fat", "mcopy", "mdel");
    // Kind, options of mkfs.fat, MiB.
    let shapes: [(&str, &[&str], u64); 14] = [
        ("FAT12", &["-F", "12", "-s", "1"], 2),
        ("FAT12", &["-F", "12", "-s", "8", "-f", "1"], 10),
        ("FAT12", &["-F", "12", "-s", "2", "-S", "4096"], 16),
        ("FAT16", &["-F", "16", "-s", "1"], 4),
        ("FAT16", &["-F", "16", "-s", "4", "-f", "1"], 24),
        ("FAT16", &["-F", "16", "-s", "1", "-S", "2048"], 20),
        ("FAT16", &["-F", "16", "-s", "1", "-S", "4096", "-r", "1024"], 24),
        ("FAT16", &["-F", "16", "-s", "64", "-a", "-R", "7"], 160),
        ("FAT32", &["-F", "32", "-s", "1"], 40),
        ("FAT32", &["-F", "32", "-s", "2", "-f", "1"], 80),
        ("FAT32", &["-F", "32", "-s", "2", "-R", "99"], 80),
        ("FAT32", &["-F", "32", "-s", "1", "-S", "1024"], 80),
        ("FAT32", &["-F", "32", "-s", "1", "-S", "4096"], 300),
        ("FAT32", &["-F", "32", "-s", "1", "-n", "A LABEL", "--mbr=y"], 40),
    ];
    for (name, options, size) in shapes {
        let dir = tempfile::tempdir().unwrap();
        // A few sectors more than MiB, so that the last cluster does not end the volume.
        let image = blank(dir.path(), size * MIB + 3 * 4096);
        run("mkfs.fat", &[options, &[text(&image)]].concat());
        let sector = option(options, "-S").unwrap_or(512);
        let cluster = option(options, "-s").unwrap() * sector;
        populate_fat(dir.path(), &image, 10_000 + 2 * cluster);
        let found = look(&image);
        assert_eq!(found.name, name, "{options:?}");
        let map = mapped(&image);
        assert_eq!(map.free_bytes, fsck_free(&image), "{options:?}");
        assert_eq!(map.free.total(), map.free_bytes);
        assert!(map.free.ranges().len() > 2, "the free space of {options:?} is not scattered");
        if is_installed("blkls") {
            let theirs = free_by_sleuthkit(&image, sector);
            let rest = theirs.minus(&map.free);
            assert!(map.free.minus(&theirs).is_empty() && rest.total() < cluster, "{options:?}");
            assert!(rest.ranges().iter().all(|r| r.end > size * MIB - cluster), "{options:?}");
        }
        let before = fat_files(dir.path(), &image);
        assert!(before.len() >= 20);
        poison(&image, map.free.ranges());
        assert_eq!(fsck_free(&image), map.free_bytes);
        assert_eq!(fat_files(dir.path(), &image), before, "{options:?}");
        assert_eq!(mapped(&image), map);
    }
}

/// The number after an option of `mkfs.fat`.
fn option(options: &[&str], wanted: &str) -> Option<u64> {
    let at = options.iter().position(|option| *option == wanted)?;
    options[at + 1].parse().ok()
}

#[test]
fn a_fat32_of_few_clusters_is_fat32() {
    need!("mkfs.fat", "fsck.fat");
    for (cluster, size) in [("1", 4), ("1", 33), ("16", 64)] {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), size * MIB);
        run("mkfs.fat", &["-F", "32", "-s", cluster, text(&image)]);
        let found = look(&image);
        assert_eq!((found.name, mapped(&image).free_bytes), ("FAT32", fsck_free(&image)));
    }
}

#[test]
fn a_fake_mbr_over_a_bare_fat_volume_is_no_table() {
    need!("mkfs.fat");
    let dir = tempfile::tempdir().unwrap();
    let image = blank(dir.path(), 64 * MIB);
    run("mkfs.fat", &["--mbr=y", "-n", "FAKE", text(&image)]);
    let table = volumes(&image, 512);
    assert_eq!((table.distrust, table.volumes[0].scheme), (None, Scheme::Whole));
    assert_eq!(look(&image).label.as_deref(), Some("FAKE"));
}

#[test]
fn a_fat_volume_in_use_or_cut_short_is_declined() {
    need!("mkfs.fat");
    for (bits, state) in [("12", 37), ("16", 37), ("32", 65)] {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 10 * MIB);
        run("mkfs.fat", &["-F", bits, text(&image)]);
        assert!(matches!(look(&image).mapping, Mapping::Mapped(_)));
        write_at(&image, state, &[1]);
        assert_eq!(declined(&image).reason, DeclineReason::Dirty);
        write_at(&image, state, &[0]);
        fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(9 * MIB).unwrap();
        assert_eq!(declined(&image).reason, DeclineReason::Inconsistent);
    }
}

/// Free bytes as `dump.exfat` counts them in the bitmap.
fn exfat_free(image: &Path) -> u64 {
    let told = run("dump.exfat", &[text(image)]);
    let number = |what: &str| -> u64 {
        let line = told.lines().find(|line| line.starts_with(what)).unwrap();
        line.rsplit(':').next().unwrap().trim().parse().unwrap()
    };
    number("Free Clusters") * number("Cluster size")
}

#[test]
fn exfat_maps_equal_strangers_counts_and_survive_poison() {
    need!(mount, "mkfs.exfat", "fsck.exfat", "dump.exfat", "mount.exfat-fuse", "losetup");
    for (cluster, boundary, size) in
        [("512", "64K", 8), ("4K", "1M", 40), ("64K", "1M", 64), ("1M", "1M", 128)]
    {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), size * MIB + 4096);
        run("mkfs.exfat", &["-c", cluster, "-b", boundary, "-L", "étiquette", text(&image)]);
        assert_eq!(mapped(&image).free_bytes, exfat_free(&image), "{cluster}, empty");
        let mut first = Vec::new();
        for round in 0..3 {
            let Some(mount) = ExFat::mount(&image, &dir.path().join("mount")) else { return };
            match round {
                0 => first = write_files(mount.path(), "first", 40, 90_000, 9),
                1 => {
                    first.iter().step_by(2).for_each(|name| fs::remove_file(mount.path().join(name)).unwrap())
                }
                _ => drop(write_files(mount.path(), "again", 20, 60_000, 10)),
            }
        }
        let found = look(&image);
        assert_eq!((found.name, found.label.as_deref()), ("exFAT", Some("étiquette")));
        assert_eq!(found.warnings, []);
        let map = mapped(&image);
        assert_eq!(map.free_bytes, exfat_free(&image), "{cluster}");
        assert_eq!(map.free.total(), map.free_bytes);
        let files = || digests(ExFat::mount(&image, &dir.path().join("mount")).unwrap().path());
        let before = files();
        assert_eq!(before.len(), 40);
        poison(&image, map.free.ranges());
        let checked = run("fsck.exfat", &["-n", text(&image)]);
        assert!(checked.contains("clean"), "{checked}");
        assert_eq!(files(), before, "{cluster}");
    }
}

#[test]
fn an_exfat_volume_in_use_is_declined() {
    need!(mount, "mkfs.exfat", "mount.exfat-fuse", "losetup");
    let dir = tempfile::tempdir().unwrap();
    let image = blank(dir.path(), 8 * MIB);
    run("mkfs.exfat", &[text(&image)]);
    let Some(mount) = ExFat::mount(&image, &dir.path().join("mount")) else { return };
    fs::write(mount.path().join("file"), [1; 1000]).unwrap();
    assert_eq!(declined(&image).reason, DeclineReason::Dirty);
    drop(mount);
    assert!(matches!(look(&image).mapping, Mapping::Mapped(_)));
    write_at(&image, 512 + 77, &[1]);
    assert_eq!(declined(&image).reason, DeclineReason::Inconsistent);
}

#[test]
fn swap_is_dispensable_but_for_its_header() {
    need!("mkswap", "swaplabel");
    for page in [4096u64, 8192, 16384, 65536] {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 20 * MIB + 12_345);
        run("mkswap", &["-p", &page.to_string(), "-L", "tauschen", text(&image)]);
        let found = look(&image);
        assert_eq!((found.name, found.label.as_deref()), ("Linux swap", Some("tauschen")));
        let map = mapped(&image);
        let [(Request::PageFiles, pages)] = &map.on_request[..] else { panic!("{map:?}") };
        let end = (20 * MIB + 12_345) / page * page;
        assert!(pages.contains(page..end) && pages.total() == end - page);
        assert!(map.free.is_empty() && map.free_bytes == 0);
        let before = run("swaplabel", &[text(&image)]);
        poison(&image, pages.ranges());
        assert_eq!(run("swaplabel", &[text(&image)]), before);
        write_at(&image, page - 10, b"S1SUSPEND\0");
        assert_eq!(declined(&image).reason, DeclineReason::Hibernated);
    }
}

#[test]
fn foreign_file_systems_are_declined_by_name() {
    let makers: [(&str, &str, &[&str]); 10] = [
        ("F2FS", "mkfs.f2fs", &["-q"]),
        ("NILFS2", "mkfs.nilfs2", &["-q"]),
        ("JFS", "mkfs.jfs", &["-q"]),
        ("ReiserFS", "mkreiserfs", &["-q", "-f", "-f"]),
        ("UDF", "mkudffs", &[]),
        ("Minix", "mkfs.minix", &[]),
        ("OCFS2", "mkfs.ocfs2", &["-q", "-F", "-M", "local", "--fs-features=local"]),
        ("GFS2", "mkfs.gfs2", &["-q", "-O", "-p", "lock_nolock"]),
        ("BFS", "mkfs.bfs", &[]),
        (
            "LUKS2",
            "cryptsetup",
            &["-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"],
        ),
    ];
    for (name, tool, options) in makers {
        if !have(&[tool]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 320 * MIB);
        let key = dir.path().join("key");
        fs::write(&key, "secret").unwrap();
        let last: &[&str] = if tool == "cryptsetup" { &[text(&image), text(&key)] } else { &[text(&image)] };
        run(tool, &[options, last].concat());
        let found = look(&image);
        assert_eq!(found.name, name);
        let reason = declined(&image).reason;
        assert!(matches!(reason, DeclineReason::NotSupported | DeclineReason::Encrypted));
    }
}

#[test]
fn a_volume_that_was_formatted_anew_is_never_mapped_as_what_it_was() {
    need!("mkfs.fat", "mkfs.exfat", "mkswap", "mkfs.ext4", "mkfs.ntfs", "mkfs.btrfs", "mkfs.xfs");
    let makers: [(&str, &str, &[&str]); 7] = [
        ("FAT16", "mkfs.fat", &[]),
        ("exFAT", "mkfs.exfat", &[]),
        ("Linux swap", "mkswap", &[]),
        ("ext4", "mkfs.ext4", &["-q", "-F"]),
        ("NTFS", "mkfs.ntfs", &["-q", "-Q", "-F"]),
        ("Btrfs", "mkfs.btrfs", &["-q", "-f"]),
        ("XFS", "mkfs.xfs", &["-q", "-f"]),
    ];
    for (_, first, options) in makers {
        for (name, second, again) in makers {
            let dir = tempfile::tempdir().unwrap();
            let image = blank(dir.path(), 320 * MIB);
            run(first, &[options, &[text(&image)]].concat());
            run(second, &[again, &[text(&image)]].concat());
            let found = look(&image);
            assert!(
                found.name == name || matches!(found.mapping, Mapping::Declined(_)),
                "{second} over {first}"
            );
        }
    }
}

#[test]
fn corpus_volumes_are_mapped_or_declined() {
    type Outcome = Result<u64, DeclineReason>;
    let cases: [(&str, &str, Outcome); 10] = [
        ("dfir-fat_unusual_cluster.raw", "FAT12", Ok(15_728_640)),
        ("utillinux-fat32_xp_none.img", "FAT32", Ok(34_053_632)),
        // Its directories form a loop behind an end mark; its FAT is sound, as sleuthkit counts it.
        ("dfir-fat32_loop.raw", "FAT32", Ok(128_921 * 512)),
        ("dissect-exfat.bin", "exFAT", Ok(710 * 512)),
        ("dfir-exfat_win.raw", "exFAT", Ok(5518 * 512)),
        ("exfatprogs-bad_bitmap.img", "exFAT", Err(DeclineReason::Inconsistent)),
        ("dfvfs-bdetogo-trimmed.raw", "BitLocker To Go", Err(DeclineReason::Encrypted)),
        ("dfvfs-lvm.raw", "LVM2", Err(DeclineReason::NotSupported)),
        ("btrfsprogs-025-zstd-compression.raw", "Btrfs", Ok(103_456_768)),
        ("dissect-xfs.bin", "XFS", Ok(11_091_968)),
    ];
    for (file, name, outcome) in cases {
        let dir = tempfile::tempdir().unwrap();
        let Some(image) = unpack(file, dir.path()) else { continue };
        let found = look(&image);
        assert_eq!(found.name, name, "{file}");
        let found = match found.mapping {
            Mapping::Mapped(map) => Ok(map.free_bytes),
            Mapping::Declined(decline) => Err(decline.reason),
        };
        assert_eq!(found, outcome, "{file}");
    }
}
