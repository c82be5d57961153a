//! The NTFS reader against volumes that strangers made, and against what strangers say of them.

#![cfg(not(target_family = "wasm"))]
#![allow(missing_docs, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/ntfs_disk.rs"]
mod disk;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{
    Counting, Mounted, Random, assert_equals_strangers, declined, digests, look, mapped, poison, run, text,
};
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, DeclineReason, Mapping, Request, detect};
use vhd_compactor::io::NativeFile;

const MIB: u64 = 1 << 20;

/// Sector and cluster sizes that mkntfs makes, with a size that leaves an odd number of clusters.
const GEOMETRIES: [(u32, u32); 13] = [
    (512, 512),
    (512, 1024),
    (512, 2048),
    (512, 4096),
    (512, 8192),
    (512, 16384),
    (512, 32768),
    (512, 65536),
    (512, 131_072),
    (512, 262_144),
    (1024, 4096),
    (2048, 8192),
    (4096, 4096),
];

/// Writes over everything free; every file must read as before, and the checkers be content.
fn assert_free_is_free(image: &Path, free: &Extents) {
    let before = digests(Mounted::new(image).path());
    assert!(before.len() > 50, "the volume has files");
    poison(image, free.ranges());
    run("ntfsfix", &["-n", text(image)]);
    run("ntfsresize", &["-i", "-f", "-f", text(image)]);
    assert_eq!(digests(Mounted::new(image).path()), before);
}

#[test]
fn equals_strangers_on_every_geometry_and_nothing_reads_what_is_free() {
    need!(
        "equals_strangers_on_every_geometry_and_nothing_reads_what_is_free",
        mount,
        "mkntfs",
        "ntfs-3g",
        "ntfsinfo",
        "ntfscat",
        "ntfsfix",
        "ntfsresize"
    );
    for (n, (sector, cluster)) in GEOMETRIES.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let size = (48 * MIB).max(150 * u64::from(cluster)) + 5 * u64::from(cluster) + u64::from(sector);
        let image = disk::make(folder.path(), size, sector, cluster);
        disk::populate(&image, u64::try_from(n).unwrap() + 1);
        let map = mapped(&image);
        assert_equals_strangers(&image, &map);
        assert!(map.on_request.is_empty());
        assert!(map.free.ranges().len() > 5, "used and free clusters alternate");
        if disk::missing(&["partclone.ntfs"]).is_none() && (sector, cluster) == (512, 4096) {
            let used = disk::used_by_partclone(&image, folder.path());
            let clusters = (size - u64::from(sector)) / u64::from(cluster) * u64::from(cluster);
            assert_eq!(used.gaps(0..clusters), map.free.ranges(), "partclone");
        }
        assert_free_is_free(&image, &map.free);
    }
}

#[test]
fn the_last_clusters_are_right_whatever_their_number() {
    need!("the_last_clusters_are_right_whatever_their_number", "mkntfs", "ntfsinfo", "ntfscat");
    for clusters in 0..9 {
        let folder = tempfile::tempdir().unwrap();
        let image = disk::make(folder.path(), 8 * MIB + clusters * 4096, 512, 4096);
        let map = mapped(&image);
        assert_equals_strangers(&image, &map);
        // The backup boot sector and what precedes it after the last cluster belong to nobody's map.
        let end = map.free.ranges().last().unwrap().end;
        assert!(end <= fs::metadata(&image).unwrap().len() - 512);
    }
}

#[test]
fn sectors_of_256_bytes_are_understood() {
    need!("sectors_of_256_bytes_are_understood", "mkntfs", "ntfsinfo", "ntfscat");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 8 * MIB, 256, 512);
    assert_equals_strangers(&image, &mapped(&image));
}

#[test]
fn a_full_volume_has_what_ntfsinfo_leaves_it() {
    need!("a_full_volume_has_what_ntfsinfo_leaves_it", mount, "mkntfs", "ntfs-3g", "ntfsinfo", "ntfscat");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 16 * MIB, 512, 4096);
    {
        let mounted = Mounted::new(&image);
        let file = fs::File::create(mounted.path().join("all of it")).unwrap();
        let mut at = 0;
        while file.write_all_at(&[7; 65536], at).is_ok() {
            at += 65536;
        }
    }
    assert_equals_strangers(&image, &mapped(&image));
}

#[test]
fn a_volume_that_ntfsfix_marks_dirty_is_declined() {
    need!("a_volume_that_ntfsfix_marks_dirty_is_declined", "mkntfs", "ntfsfix");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 16 * MIB, 512, 4096);
    mapped(&image);
    run("ntfsfix", &[text(&image)]);
    let decline = declined(&image);
    assert_eq!(decline.reason, DeclineReason::Dirty);
    assert!(decline.detail.contains("chkdsk"), "{decline:?}");
    assert_eq!(look(&image).label.as_deref(), Some("Volume"));
    run("ntfsfix", &["-d", text(&image)]);
    mapped(&image);
}

#[test]
fn a_hibernated_volume_is_declined_where_ntfs_3g_declines_it() {
    need!("a_hibernated_volume_is_declined_where_ntfs_3g_declines_it", mount, "mkntfs", "ntfs-3g");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 16 * MIB, 512, 4096);
    {
        let mounted = Mounted::new(&image);
        let mut contents = Random(3).bytes(1 << 20);
        contents[..4].copy_from_slice(b"HIBR");
        fs::write(mounted.path().join("hiberfil.sys"), contents).unwrap();
    }
    assert_eq!(declined(&image).reason, DeclineReason::Hibernated);
    // ntfs-3g falls back to read-only, and says why.
    let point = tempfile::tempdir().unwrap();
    let output = Command::new("ntfs-3g").arg(&image).arg(point.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let _ = Command::new("umount").arg(point.path()).output();
    assert!(said.contains("hibernated"), "{said}");
}

#[test]
fn page_files_may_be_dropped_and_nothing_else_with_them() {
    need!("page_files_may_be_dropped_and_nothing_else_with_them", mount, "mkntfs", "ntfs-3g", "ntfsfix");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 64 * MIB, 512, 4096);
    disk::populate(&image, 77);
    let sizes = [("pagefile.sys", 3 * MIB), ("swapfile.sys", 5 << 12), ("hiberfil.sys", 2 * MIB)];
    {
        let mounted = Mounted::new(&image);
        for (name, size) in sizes {
            let mut contents = Random(size).bytes(size);
            contents[..4].copy_from_slice(b"WAKE");
            fs::write(mounted.path().join(name), contents).unwrap();
        }
        // Names that only resemble them.
        fs::write(mounted.path().join("pagefile.sys.bak"), vec![1; 9000]).unwrap();
        fs::write(mounted.path().join("inner/pagefile.sys"), vec![2; 9000]).unwrap();
    }
    let map = mapped(&image);
    let [(Request::PageFiles, pages)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(pages.total(), sizes.iter().map(|(_, size)| size).sum::<u64>());
    let mut before = digests(Mounted::new(&image).path());
    poison(&image, map.free.ranges());
    poison(&image, pages.ranges());
    run("ntfsfix", &["-n", text(&image)]);
    let mut after = digests(Mounted::new(&image).path());
    for (name, size) in sizes {
        let poisoned = blake3::hash(&vec![0xA7; usize::try_from(size).unwrap()]).to_string();
        assert_eq!(after.remove(Path::new(name)), Some(poisoned), "{name}");
        before.remove(Path::new(name));
    }
    assert_eq!(after, before);
}

#[test]
fn a_page_file_in_many_fragments_is_followed_through_its_attribute_list() {
    need!(
        "a_page_file_in_many_fragments_is_followed_through_its_attribute_list",
        mount,
        "mkntfs",
        "ntfs-3g",
        "ntfsinfo",
        "ntfscat"
    );
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 48 * MIB, 512, 4096);
    let mut size = 0;
    {
        let mounted = Mounted::new(&image);
        let path = |n: u32| mounted.path().join(format!("one cluster {n}"));
        let written = (0..).take_while(|&n| fs::write(path(n), [1; 4096]).is_ok()).count();
        let written = u32::try_from(written).unwrap();
        (0..=written).step_by(2).for_each(|n| fs::remove_file(path(n)).unwrap_or_default());
        let file = fs::File::create(mounted.path().join("pagefile.sys")).unwrap();
        while file.write_all_at(&[5; 4096], size).is_ok() {
            size += 4096;
        }
        file.set_len(size).unwrap();
    }
    let map = mapped(&image);
    assert_equals_strangers(&image, &map);
    let [(Request::PageFiles, pages)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(pages.total(), size);
    assert!(pages.ranges().len() > 500, "{} fragments", pages.ranges().len());
    let info = run("ntfsinfo", &["-f", "-F", "pagefile.sys", text(&image)]).stdout;
    assert!(String::from_utf8_lossy(&info).contains("$ATTRIBUTE_LIST"));
    let mut before = digests(Mounted::new(&image).path());
    poison(&image, map.free.ranges());
    poison(&image, pages.ranges());
    let mut after = digests(Mounted::new(&image).path());
    let poisoned = blake3::hash(&vec![0xA7; usize::try_from(size).unwrap()]).to_string();
    assert_eq!(after.remove(Path::new("pagefile.sys")), Some(poisoned));
    before.remove(Path::new("pagefile.sys"));
    assert_eq!(after, before);
}

#[test]
fn a_large_volume_costs_little_more_than_its_bitmap() {
    need!("a_large_volume_costs_little_more_than_its_bitmap", "mkntfs", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let image = disk::make(folder.path(), 300 << 30, 512, 4096);
    let reader = Counting { file: NativeFile::open(&image).unwrap(), bytes: Cell::new(0) };
    let Mapping::Mapped(map) = detect(&reader, Context { sector_size: 512 }).mapping else {
        panic!("declined")
    };
    let (cluster_size, clusters, free) = disk::ntfsinfo(&image);
    assert_eq!(map.free_bytes, free * cluster_size);
    let read = reader.bytes.get();
    assert!(read < clusters / 8 + 3 * MIB, "{read} bytes read");
}

/// The corpus's NTFS volumes: image, and where the volume begins in it.
const CORPUS: [(&str, u64, Option<&str>); 11] = [
    ("colinfinck-testfs1.raw", 0, Some("mylabel")),
    ("dfir-ntfs3.raw", 0, None),
    ("utillinux-ntfs.img", 0, Some("Новый том")),
    ("dfvfs-windows_volume.raw", 0, None),
    ("dfvfs-vss.raw", 0, Some("TestVolume")),
    ("dfvfs-ntfs-dynamic.vhd", 65536, Some("TestVolume")),
    ("dfvfs-ntfs-fixed.vhd", 65536, Some("TestVolume")),
    ("dfvfs-ntfs-parent.vhd", 65536, Some("TestVolume")),
    ("dfvfs-ntfs-fixed.vhdx", 65536, Some("TestVolume")),
    ("dfvfs-ntfs-parent.vhdx", 65536, Some("TestVolume")),
    ("dissect-dynamic.vhd", 65536, Some("New Volume")),
];

/// One volume of the corpus as a file of its own.
fn corpus_volume(name: &str, start: u64, folder: &Path) -> Option<PathBuf> {
    let image = disk::corpus(name, folder)?;
    let format = match image.extension()?.to_str()? {
        "vhd" => "vpc",
        "vhdx" => "vhdx",
        _ => return Some(image),
    };
    let raw = folder.join(format!("{name}.raw"));
    run("qemu-img", &["convert", "-f", format, "-O", "raw", text(&image), text(&raw)]);
    let bytes = fs::read(&raw).unwrap();
    fs::write(&raw, &bytes[usize::try_from(start).unwrap()..]).unwrap();
    Some(raw)
}

#[test]
fn equals_strangers_on_the_corpus() {
    need!("equals_strangers_on_the_corpus", "xz", "qemu-img", "ntfsinfo", "ntfscat");
    for (name, start, label) in CORPUS {
        let folder = tempfile::tempdir().unwrap();
        let Some(volume) = corpus_volume(name, start, folder.path()) else {
            return disk::skip("equals_strangers_on_the_corpus", "the shared corpus is not here");
        };
        let detected = look(&volume);
        assert_eq!((detected.name, detected.label.as_deref()), ("NTFS", label), "{name}");
        let mut map = mapped(&volume);
        // What shadow copies need is free by $Bitmap all the same.
        for (_, held) in map.on_request.iter().filter(|(request, _)| *request == Request::ShadowCopies) {
            map.free = map.free.union(held);
        }
        assert_equals_strangers(&volume, &map);
    }
}

#[test]
fn bitlocker_to_go_is_not_ntfs() {
    need!("bitlocker_to_go_is_not_ntfs", "xz");
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = disk::corpus("dfvfs-bdetogo-trimmed.raw", folder.path()) else {
        return disk::skip("bitlocker_to_go_is_not_ntfs", "the shared corpus is not here");
    };
    assert_ne!(look(&volume).name, "NTFS");
}

/// A Python that has libvshadow and libfsntfs: `$PYTHON`, or the usual one.
fn python() -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import pyvshadow, pyfsntfs"]).output();
    has.is_ok_and(|output| output.status.success()).then_some(python)
}

fn ntfs_shadow(python: &str, what: &str, volume: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/ntfs_shadow.py");
    String::from_utf8(run(python, &[text(&script), what, text(volume)]).stdout).unwrap()
}

/// The corpus's volume with two snapshots, and a Python to judge it with.
fn shadowed(test: &str, folder: &Path) -> Option<(PathBuf, String)> {
    let Some(python) = python() else {
        disk::skip(
            test,
            "Python has no pyvshadow and pyfsntfs (libvshadow-python, libfsntfs-python; see $PYTHON)",
        );
        return None;
    };
    let volume = disk::corpus("dfvfs-vss.raw", folder);
    if volume.is_none() {
        disk::skip(test, "the shared corpus is not here");
    }
    Some((volume?, python))
}

#[test]
fn snapshots_read_the_same_when_all_free_space_is_overwritten() {
    const TEST: &str = "snapshots_read_the_same_when_all_free_space_is_overwritten";
    need!("snapshots_read_the_same_when_all_free_space_is_overwritten", "xz");
    let folder = tempfile::tempdir().unwrap();
    let Some((volume, python)) = shadowed(TEST, folder.path()) else { return };
    let before = ntfs_shadow(&python, "snapshots", &volume);
    assert_eq!(before.lines().count(), 2);
    let map = mapped(&volume);
    assert!(map.free.total() > 30 * MIB);
    poison(&volume, map.free.ranges());
    assert_eq!(ntfs_shadow(&python, "snapshots", &volume), before);
}

#[test]
fn snapshots_keep_the_files_that_were_deleted_since() {
    const TEST: &str = "snapshots_keep_the_files_that_were_deleted_since";
    need!("snapshots_keep_the_files_that_were_deleted_since", "xz", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let Some((volume, python)) = shadowed(TEST, folder.path()) else { return };
    let before = ntfs_shadow(&python, "snapshots", &volume);

    // The few files of this volume lie in their records; those below $Extend stand for files that were deleted
    // since the snapshots, and whose contents were not copied, as nothing has overwritten them.
    let bitmap = 53847 * 512;
    let mut bits = vec![0; 20480];
    let file = fs::OpenOptions::new().read(true).write(true).open(&volume).unwrap();
    file.read_exact_at(&mut bits, bitmap).unwrap();
    for line in ntfs_shadow(&python, "extend", &volume).lines() {
        let (offset, len) = line.split_once(' ').unwrap();
        let (offset, len): (usize, usize) = (offset.parse().unwrap(), len.parse().unwrap());
        for cluster in offset / 512..(offset + len) / 512 {
            bits[cluster / 8] &= !(1 << (cluster % 8));
        }
    }
    file.write_all_at(&bits, bitmap).unwrap();

    let map = mapped(&volume);
    let (cluster_size, _, free) = disk::ntfsinfo(&volume);
    assert_eq!(map.free_bytes, free * cluster_size);
    let [(Request::ShadowCopies, held)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(map.free.total() + held.total(), map.free_bytes);
    poison(&volume, map.free.ranges());
    assert_eq!(ntfs_shadow(&python, "snapshots", &volume), before);
    poison(&volume, held.ranges());
    assert_ne!(ntfs_shadow(&python, "snapshots", &volume), before, "what is held back was needed");
}
