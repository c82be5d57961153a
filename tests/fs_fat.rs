//! FAT, exFAT and swap as stock tools make them: the map equals what strangers count, and overwriting
//! everything it calls free changes no file.
#![cfg(not(target_family = "wasm"))]
// A test that goes wrong says so by failing.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

#[path = "common/fat_tools.rs"]
mod tools;

use std::fs;

use tools::{
    Folder, Mount, contents, corpus, declined, detect_whole, has, is_root, mapped, output, poison, skip,
    volumes, write_at, write_files,
};
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{DeclineReason, Mapping, Request};
use vhd_compactor::volume::Scheme;

const MIB: u64 = 1 << 20;

/// Fills a FAT volume through mtools, deletes half of it and adds a little.
fn populate_fat(folder: &Folder, image: &str, largest: u64) {
    let copy_in = |prefix: &str, count, seed| {
        let from = folder.folder(prefix);
        let names = write_files(&from, prefix, count, largest, seed);
        for entry in fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            output("mcopy", &["-i", image, "-s", "-Q", "-o", path.to_str().unwrap(), "::/"]);
        }
        names
    };
    let first = copy_in("first", 32, 7);
    for name in first.iter().skip(1).step_by(2) {
        output("mdel", &["-i", image, &format!("::/{name}")]);
    }
    copy_in("again", 4, 8);
}

/// All files of a FAT volume.
fn fat_contents(folder: &Folder, image: &str, name: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let to = folder.folder(name);
    output("mcopy", &["-i", image, "-s", "-n", "::/*", to.to_str().unwrap()]);
    contents(&to)
}

/// Free bytes as `fsck.fat` counts them in the FAT: it must find nothing wrong.
fn fsck_free(image: &str) -> u64 {
    let text = output("fsck.fat", &["-n", "-v", image]);
    let number = |line: &str| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let cluster = number(text.lines().find(|line| line.ends_with("bytes per cluster")).unwrap());
    let summary = text.lines().find(|line| line.ends_with(" clusters")).unwrap();
    let (used, total) =
        summary.rsplit_once(", ").unwrap().1.strip_suffix(" clusters").unwrap().split_once('/').unwrap();
    (total.parse::<u64>().unwrap() - used.parse::<u64>().unwrap()) * cluster
}

/// The sectors that sleuthkit calls free, as bytes. It also lists what follows the last cluster.
fn sleuthkit_free(image: &str, sector: u64) -> Extents {
    let text = output("blkls", &["-l", image]);
    let mut free = Extents::new();
    for line in text.lines().filter_map(|line| line.strip_suffix("|f")) {
        let at = line.parse::<u64>().unwrap() * sector;
        free.push(at..at + sector);
    }
    free
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
        let folder = Folder::new();
        // A few sectors more than MiB, so that the last cluster does not end the volume.
        let image = folder.image(size * MIB + 3 * 4096);
        output("mkfs.fat", &[options, &[&image]].concat());
        let sector = option(options, "-S").unwrap_or(512);
        let cluster = option(options, "-s").unwrap() * sector;
        populate_fat(&folder, &image, 10_000 + 2 * cluster);
        let found = detect_whole(&image);
        assert_eq!(found.name, name, "{options:?}");
        let map = mapped(found);
        assert_eq!(map.free_bytes, fsck_free(&image), "{options:?}");
        assert_eq!(map.free.total(), map.free_bytes);
        assert!(map.free.ranges().len() > 2, "the free space of {options:?} is not scattered");
        if has("blkls") {
            let theirs = sleuthkit_free(&image, sector);
            let rest = theirs.minus(&map.free);
            assert!(map.free.minus(&theirs).is_empty() && rest.total() < cluster, "{options:?}");
            assert!(rest.ranges().iter().all(|r| r.end > size * MIB - cluster), "{options:?}");
        }
        let before = fat_contents(&folder, &image, "before");
        assert!(before.len() >= 20 && before.values().any(|file| file.len() > 10_000));
        poison(&image, map.free.ranges());
        assert_eq!(fsck_free(&image), map.free_bytes);
        assert_eq!(fat_contents(&folder, &image, "after"), before, "{options:?}");
        assert_eq!(mapped(detect_whole(&image)), map);
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
        let folder = Folder::new();
        let image = folder.image(size * MIB);
        output("mkfs.fat", &["-F", "32", "-s", cluster, &image]);
        let found = detect_whole(&image);
        assert_eq!((found.name, mapped(found).free_bytes), ("FAT32", fsck_free(&image)));
    }
}

#[test]
fn a_fake_mbr_over_a_bare_fat_volume_is_no_table() {
    need!("mkfs.fat");
    let folder = Folder::new();
    let image = folder.image(64 * MIB);
    output("mkfs.fat", &["--mbr=y", "-n", "FAKE", &image]);
    let table = volumes(&image, 512);
    assert_eq!((table.distrust, table.volumes[0].scheme), (None, Scheme::Whole));
    assert_eq!(detect_whole(&image).label.as_deref(), Some("FAKE"));
}

#[test]
fn a_fat_volume_in_use_or_cut_short_is_declined() {
    need!("mkfs.fat");
    for (bits, state) in [("12", 37), ("16", 37), ("32", 65)] {
        let folder = Folder::new();
        let image = folder.image(10 * MIB);
        output("mkfs.fat", &["-F", bits, &image]);
        assert!(matches!(detect_whole(&image).mapping, Mapping::Mapped(_)));
        write_at(&image, state, &[1]);
        assert_eq!(declined(detect_whole(&image)).reason, DeclineReason::Dirty);
        write_at(&image, state, &[0]);
        fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(9 * MIB).unwrap();
        assert_eq!(declined(detect_whole(&image)).reason, DeclineReason::Inconsistent);
    }
}

/// Free bytes as `dump.exfat` counts them in the bitmap.
fn exfat_free(image: &str) -> u64 {
    let text = output("dump.exfat", &[image]);
    let number = |what: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(what)).unwrap();
        line.rsplit(':').next().unwrap().trim().parse().unwrap()
    };
    number("Free Clusters") * number("Cluster size")
}

#[test]
fn exfat_maps_equal_strangers_counts_and_survive_poison() {
    need!("mkfs.exfat", "fsck.exfat", "dump.exfat", "mount.exfat-fuse");
    if !is_root() {
        return skip("mounting needs root");
    }
    for (cluster, boundary, size) in
        [("512", "64K", 8), ("4K", "1M", 40), ("64K", "1M", 64), ("1M", "1M", 128)]
    {
        let folder = Folder::new();
        let image = folder.image(size * MIB + 4096);
        output("mkfs.exfat", &["-c", cluster, "-b", boundary, "-L", "étiquette", &image]);
        assert_eq!(mapped(detect_whole(&image)).free_bytes, exfat_free(&image), "{cluster}, empty");
        let mut first = Vec::new();
        for round in 0..3 {
            let Some(mount) = Mount::exfat(&image, folder.folder("mount")) else {
                return skip("FUSE does not mount here");
            };
            match round {
                0 => first = write_files(mount.path(), "first", 40, 90_000, 9),
                1 => {
                    first.iter().step_by(2).for_each(|name| fs::remove_file(mount.path().join(name)).unwrap())
                }
                _ => drop(write_files(mount.path(), "again", 20, 60_000, 10)),
            }
        }
        let found = detect_whole(&image);
        assert_eq!((found.name, found.label.as_deref()), ("exFAT", Some("étiquette")));
        assert_eq!(found.warnings, []);
        let map = mapped(found);
        assert_eq!(map.free_bytes, exfat_free(&image), "{cluster}");
        assert_eq!(map.free.total(), map.free_bytes);
        let look = |image: &str| contents(Mount::exfat(image, folder.folder("mount")).unwrap().path());
        let before = look(&image);
        assert_eq!(before.len(), 40);
        poison(&image, map.free.ranges());
        let checked = output("fsck.exfat", &["-n", &image]);
        assert!(checked.contains("clean"), "{checked}");
        assert_eq!(look(&image), before, "{cluster}");
    }
}

#[test]
fn an_exfat_volume_in_use_is_declined() {
    need!("mkfs.exfat", "mount.exfat-fuse");
    if !is_root() {
        return skip("mounting needs root");
    }
    let folder = Folder::new();
    let image = folder.image(8 * MIB);
    output("mkfs.exfat", &[&image]);
    let Some(mount) = Mount::exfat(&image, folder.folder("mount")) else {
        return skip("FUSE does not mount here");
    };
    fs::write(mount.path().join("file"), [1; 1000]).unwrap();
    assert_eq!(declined(detect_whole(&image)).reason, DeclineReason::Dirty);
    drop(mount);
    assert!(matches!(detect_whole(&image).mapping, Mapping::Mapped(_)));
    write_at(&image, 512 + 77, &[1]);
    assert_eq!(declined(detect_whole(&image)).reason, DeclineReason::Inconsistent);
}

#[test]
fn swap_is_dispensable_but_for_its_header() {
    need!("mkswap", "swaplabel");
    for page in [4096u64, 8192, 16384, 65536] {
        let folder = Folder::new();
        let image = folder.image(20 * MIB + 12_345);
        output("mkswap", &["-p", &page.to_string(), "-L", "tauschen", &image]);
        let found = detect_whole(&image);
        assert_eq!((found.name, found.label.as_deref()), ("Linux swap", Some("tauschen")));
        let map = mapped(found);
        let [(Request::PageFiles, pages)] = &map.on_request[..] else { panic!("{map:?}") };
        let end = (20 * MIB + 12_345) / page * page;
        assert!(pages.contains(page..end) && pages.total() == end - page);
        assert!(map.free.is_empty() && map.free_bytes == 0);
        let before = output("swaplabel", &[&image]);
        poison(&image, pages.ranges());
        assert_eq!(output("swaplabel", &[&image]), before);
        write_at(&image, page - 10, b"S1SUSPEND\0");
        assert_eq!(declined(detect_whole(&image)).reason, DeclineReason::Hibernated);
    }
}

#[test]
fn foreign_file_systems_are_declined_by_name() {
    let makers: [(&str, &str, &[&str]); 12] = [
        ("XFS", "mkfs.xfs", &["-q", "-f"]),
        ("Btrfs", "mkfs.btrfs", &["-q", "-f"]),
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
        if !has(tool) {
            skip(&format!("{tool} is not installed"));
            continue;
        }
        let folder = Folder::new();
        let image = folder.image(320 * MIB);
        let key = folder.path("key");
        fs::write(&key, "secret").unwrap();
        let last: &[&str] = if tool == "cryptsetup" { &[&image, &key] } else { &[&image] };
        output(tool, &[options, last].concat());
        let found = detect_whole(&image);
        assert_eq!(found.name, name);
        let reason = declined(found).reason;
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
            let folder = Folder::new();
            let image = folder.image(320 * MIB);
            output(first, &[options, &[&image]].concat());
            output(second, &[again, &[&image]].concat());
            let found = detect_whole(&image);
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
        ("btrfsprogs-025-zstd-compression.raw", "Btrfs", Err(DeclineReason::NotSupported)),
        ("dissect-xfs.bin", "XFS", Err(DeclineReason::NotSupported)),
    ];
    for (file, name, outcome) in cases {
        let folder = Folder::new();
        let Some(image) = corpus(&folder, file) else { continue };
        let found = detect_whole(&image);
        assert_eq!(found.name, name, "{file}");
        let found = match found.mapping {
            Mapping::Mapped(map) => Ok(map.free_bytes),
            Mapping::Declined(decline) => Err(decline.reason),
        };
        assert_eq!(found, outcome, "{file}");
    }
}
