//! What of a volume is files and what is the file system's own: drivers count the same for the files.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::Mapping;

use crate::toolbox::ext::{Mounted, make_files, mke2fs};
use crate::toolbox::fat::{ExFat, write_files};
use crate::toolbox::{MIB, blank, have, look, ntfs, run, sparse, text, xfs};

/// How many bytes of a volume are in use and no structure: the contents of its files.
#[track_caller]
fn of_files(volume: &Path) -> u64 {
    let found = look(volume);
    let Mapping::Mapped(map) = found.mapping else { panic!("{:?}", found.mapping) };
    let spanned = Extents::from_ranges(vec![0..map.spans]);
    let structures = found.structures.expect("few structures");
    assert!(structures.contains(0..512) && !structures.is_empty());
    spanned.minus(&map.free).minus(&structures).total()
}

/// What the files below a folder have, by `size` of each.
fn sum(folder: &Path, size: &dyn Fn(&fs::Metadata) -> u64) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: std::path::PathBuf| match fs::symlink_metadata(&path).unwrap() {
        found if found.is_dir() => sum(&path, size),
        found => size(&found),
    };
    entries.map(of).sum()
}

/// What a driver says that a file has on the disk.
fn on_disk(found: &fs::Metadata) -> u64 {
    found.blocks() * 512
}

/// Files that come and go, one with a hole, a symlink that does not fit its inode, and directories of many names.
fn fill(folder: &Path) {
    for (number, path) in make_files(folder, 300).iter().enumerate() {
        if number % 3 == 0 {
            fs::remove_file(folder.join(path)).unwrap();
        }
    }
    let holed = fs::File::create(folder.join("holed")).unwrap();
    holed.set_len(3 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holed, &[7; 70_000], MIB).unwrap();
    symlink("x/".repeat(500), folder.join("link")).unwrap();
    let names = folder.join("names");
    fs::create_dir(&names).unwrap();
    (0..900)
        .for_each(|number| drop(fs::File::create(names.join(format!("an empty file {number}"))).unwrap()));
}

#[test]
fn files_of_ext_have_what_the_kernel_says() {
    let dir = tempfile::tempdir().unwrap();
    let shapes = [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-O", "bigalloc"],
        &["-t", "ext4", "-I", "128"],
        &["-t", "ext2", "-b", "4096"],
    ];
    for args in shapes {
        let path = dir.path().join("volume");
        mke2fs(&path, 192 * MIB, args, None);
        let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
        fill(mounted.folder());
        run("sync", &["-f", text(mounted.folder())]);
        let says = sum(mounted.folder(), &on_disk);
        // Where pointers map a file, the driver counts the blocks of its map as well.
        let maps = if args.contains(&"ext2") { sum(mounted.folder(), &indirect) } else { 0 };
        drop(mounted);
        assert_eq!(of_files(&path), says - maps, "{args:?}");
    }
}

/// The block of pointers that a file has which goes on behind its first 12 blocks of 4 KiB.
fn indirect(found: &fs::Metadata) -> u64 {
    assert!(found.len() <= (12 + 1024) * 4096, "one such block");
    if found.is_file() && found.len() > 12 * 4096 { 4096 } else { 0 }
}

#[test]
fn files_of_xfs_have_what_the_kernel_says() {
    if !have(&xfs::TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for args in [&[][..], &["-m", "rmapbt=1"], &["-b", "size=1024"]] {
        let path = dir.path().join("volume");
        xfs::mkfs(&path, 320 * MIB, args, None);
        let Some(mounted) = Mounted::new(&path, "", dir.path()) else { return };
        fill(mounted.folder());
        run("sync", &["-f", text(mounted.folder())]);
        let says = sum(mounted.folder(), &on_disk);
        drop(mounted);
        assert_eq!(of_files(&path), says, "{args:?}");
    }
}

#[test]
fn files_of_ntfs_have_what_its_driver_says() {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for cluster in [4096, 65536] {
        let path = ntfs::make(dir.path(), 256 * MIB, 512, cluster);
        let mounted = ntfs::Mounted::new(&path);
        make_files(mounted.path(), 300);
        fs::remove_dir_all(mounted.path().join("d1")).unwrap();
        drop(mounted);
        let mounted = ntfs::Mounted::new(&path);
        // What fits its record has nothing of its own, whatever the driver says.
        let says = sum(mounted.path(), &|found| if found.len() < 600 { 0 } else { on_disk(found) });
        drop(mounted);
        assert_eq!(of_files(&path), says, "{cluster}");
    }
}

#[test]
fn files_of_exfat_have_whole_clusters() {
    if !have(&["mkfs.exfat", "mount.exfat-fuse"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = blank(dir.path(), 128 * MIB);
    run("mkfs.exfat", &["-c", "8K", text(&path)]);
    let Some(mounted) = ExFat::mount(&path, &dir.path().join("mnt")) else { return };
    write_files(mounted.path(), "a", 200, 100_000, 3);
    let says = sum(mounted.path(), &|found| found.len().next_multiple_of(8192));
    drop(mounted);
    assert_eq!(of_files(&path), says);
}

#[test]
fn files_of_fat_have_whole_clusters() {
    if !have(&["mkfs.fat", "mcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    make_files(&files, 60);
    for (kind, cluster) in [("12", 4096), ("16", 2048), ("32", 512)] {
        let path = dir.path().join("volume");
        let _ = fs::remove_file(&path);
        sparse(&path, if kind == "12" { 14 * MIB } else { 64 * MIB });
        run("mkfs.fat", &["-F", kind, "-s", &(cluster / 512).to_string(), text(&path)]);
        let from: Vec<String> =
            (0..5).map(|number| files.join(format!("d{number}")).display().to_string()).collect();
        let from: Vec<&str> = from.iter().map(String::as_str).collect();
        run("mcopy", &[&["-s", "-i", text(&path)], &from[..], &["::"]].concat());
        let says = sum(&files, &|found| found.len().next_multiple_of(cluster));
        assert_eq!(of_files(&path), says, "FAT{kind}");
    }
}
