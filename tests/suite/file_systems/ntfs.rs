//! The NTFS reader against volumes that strangers made, and against what strangers say of them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, DeclineReason, FreeMap, Hearing, Mapping, Request, detect};
use vhd_compactor::io::NativeFile;

use crate::toolbox::ntfs::{Mounted, Shadows, assert_equals_strangers, make, ntfsinfo, populate, runs_of};
use crate::toolbox::{
    Counting, MIB, POISON, Random, command, declined, digest_of, digests, is_installed, look, mapped, noise,
    poison, run, text, unmount, unpack, used_by_partclone, write_at,
};

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

/// The free map of a volume that both witnesses agree about to the cluster, as they do while nothing is wrong.
#[track_caller]
fn agreed(volume: &Path) -> FreeMap {
    let detected = look(volume);
    match (detected.mapping, detected.hearing) {
        (Mapping::Mapped(map), Hearing::Agrees(testimony)) => {
            assert_eq!(testimony.owned_bytes, map.used_bytes, "{}", volume.display());
            map
        }
        other => panic!("{}: {other:?}", volume.display()),
    }
}

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
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo", "ntfscat", "ntfsfix", "ntfsresize");
    for (n, (sector, cluster)) in GEOMETRIES.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let size = (48 * MIB).max(150 * u64::from(cluster)) + 5 * u64::from(cluster) + u64::from(sector);
        let image = make(folder.path(), size, sector, cluster);
        populate(&image, u64::try_from(n).unwrap() + 1);
        let map = agreed(&image);
        assert_equals_strangers(&image, &map);
        assert!(map.on_request.is_empty());
        assert!(map.free.ranges().len() > 5, "used and free clusters alternate");
        if is_installed("partclone.ntfs") && (sector, cluster) == (512, 4096) {
            let used = used_by_partclone("partclone.ntfs", &image, folder.path());
            let clusters = (size - u64::from(sector)) / u64::from(cluster) * u64::from(cluster);
            assert_eq!(used.gaps(0..clusters), map.free.ranges(), "partclone");
        }
        assert_free_is_free(&image, &map.free);
    }
}

/// A volume with a file of 3 MB, before and after another of 6 MB was written.
fn before_and_after(folder: &Path) -> (Vec<u8>, PathBuf) {
    let image = make(folder, 64 * MIB, 512, 4096);
    let write = |name: &str, len| {
        let mounted = Mounted::new(&image);
        fs::create_dir_all(mounted.path().join("Users/a")).unwrap();
        fs::write(mounted.path().join(name), noise(len, len)).unwrap();
    };
    write("Users/a/first.bin", 3 * MIB);
    let before = fs::read(&image).unwrap();
    write("Users/a/report.docx", 6 * MIB);
    (before, image)
}

#[test]
fn a_bitmap_that_is_older_than_the_files_is_declined_with_the_files_name() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let (before, image) = before_and_after(folder.path());
    agreed(&image);
    for run in runs_of(&image, 6, 0x80) {
        write_at(&image, run.start, &before[run.start as usize..run.end as usize]);
    }
    let decline = declined(&image);
    assert_eq!(decline.reason, DeclineReason::Inconsistent);
    assert!(decline.detail.contains("“Users/a/report.docx”"), "{decline:?}");
    assert!(decline.detail.contains("chkdsk"), "{decline:?}");
}

#[test]
fn a_sector_of_the_bitmap_that_reads_as_zeros_is_declined() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let (_, image) = before_and_after(folder.path());
    let bitmap = runs_of(&image, 6, 0x80);
    let whole = fs::read(&image).unwrap();
    let mut declines = 0;
    for sector in bitmap.into_iter().flat_map(|run| run.step_by(512)) {
        let bytes = &whole[sector as usize..][..512];
        // The last byte may hold padding only.
        if bytes[..511].iter().any(|&byte| byte != 0) {
            write_at(&image, sector, &[0; 512]);
            assert_eq!(declined(&image).reason, DeclineReason::Inconsistent, "{sector:#x}");
            write_at(&image, sector, bytes);
            declines += 1;
        }
    }
    assert!(declines > 0);
    agreed(&image);
}

#[test]
fn the_last_clusters_are_right_whatever_their_number() {
    need!("mkntfs", "ntfsinfo", "ntfscat");
    for clusters in 0..9 {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), 8 * MIB + clusters * 4096, 512, 4096);
        let map = mapped(&image);
        assert_equals_strangers(&image, &map);
        // The backup boot sector and what precedes it after the last cluster belong to nobody's map.
        let end = map.free.ranges().last().unwrap().end;
        assert!(end <= fs::metadata(&image).unwrap().len() - 512);
    }
}

#[test]
fn sectors_of_256_bytes_are_understood() {
    need!("mkntfs", "ntfsinfo", "ntfscat");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 8 * MIB, 256, 512);
    assert_equals_strangers(&image, &agreed(&image));
}

#[test]
fn a_full_volume_has_what_ntfsinfo_leaves_it() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo", "ntfscat");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 16 * MIB, 512, 4096);
    {
        let mounted = Mounted::new(&image);
        let file = fs::File::create(mounted.path().join("all of it")).unwrap();
        let mut at = 0;
        while file.write_all_at(&[7; 65536], at).is_ok() {
            at += 65536;
        }
    }
    assert_equals_strangers(&image, &agreed(&image));
}

#[test]
fn a_volume_that_ntfsfix_marks_dirty_is_declined() {
    need!("mkntfs", "ntfsfix");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 16 * MIB, 512, 4096);
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
    need!(mount, "mkntfs", "ntfs-3g");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 16 * MIB, 512, 4096);
    {
        let mounted = Mounted::new(&image);
        let mut contents = Random::new(3).bytes(1 << 20);
        contents[..4].copy_from_slice(b"HIBR");
        fs::write(mounted.path().join("hiberfil.sys"), contents).unwrap();
    }
    assert_eq!(declined(&image).reason, DeclineReason::Hibernated);
    // ntfs-3g falls back to read-only, and says why.
    let point = tempfile::tempdir().unwrap();
    let output = command("ntfs-3g").arg(&image).arg(point.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    unmount(point.path());
    assert!(said.contains("hibernated"), "{said}");
}

#[test]
fn page_files_may_be_dropped_and_nothing_else_with_them() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsfix");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 64 * MIB, 512, 4096);
    populate(&image, 77);
    let sizes = [("pagefile.sys", 3 * MIB), ("swapfile.sys", 5 << 12), ("hiberfil.sys", 2 * MIB)];
    {
        let mounted = Mounted::new(&image);
        for (name, size) in sizes {
            let mut contents = Random::new(size).bytes(size);
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
        let poisoned = digest_of(&vec![POISON; size as usize]);
        assert_eq!(after.remove(Path::new(name)), Some(poisoned), "{name}");
        before.remove(Path::new(name));
    }
    assert_eq!(after, before);
}

#[test]
fn a_page_file_in_many_fragments_is_followed_through_its_attribute_list() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo", "ntfscat");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 48 * MIB, 512, 4096);
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
    let map = agreed(&image);
    assert_equals_strangers(&image, &map);
    let [(Request::PageFiles, pages)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(pages.total(), size);
    assert!(pages.ranges().len() > 500, "{} fragments", pages.ranges().len());
    let info = run("ntfsinfo", &["-f", "-F", "pagefile.sys", text(&image)]);
    assert!(info.contains("$ATTRIBUTE_LIST"));
    let mut before = digests(Mounted::new(&image).path());
    poison(&image, map.free.ranges());
    poison(&image, pages.ranges());
    let mut after = digests(Mounted::new(&image).path());
    let poisoned = digest_of(&vec![POISON; size as usize]);
    assert_eq!(after.remove(Path::new("pagefile.sys")), Some(poisoned));
    before.remove(Path::new("pagefile.sys"));
    assert_eq!(after, before);
}

#[test]
fn a_large_volume_costs_little_more_than_its_bitmap() {
    need!("mkntfs", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 300 << 30, 512, 4096);
    let reader = Counting::open(&image);
    let Mapping::Mapped(map) = detect(&reader, Context { sector_size: 512 }).mapping else {
        panic!("declined")
    };
    let (cluster_size, clusters, free) = ntfsinfo(&image);
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
    let image = unpack(name, folder)?;
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
    need!("xz", "qemu-img", "ntfsinfo", "ntfscat");
    for (name, start, label) in CORPUS {
        let folder = tempfile::tempdir().unwrap();
        let Some(volume) = corpus_volume(name, start, folder.path()) else { return };
        let detected = look(&volume);
        assert_eq!((detected.name, detected.label.as_deref()), ("NTFS", label), "{name}");
        let mut map = agreed(&volume);
        // What shadow copies need is free by $Bitmap all the same.
        for (_, held) in map.on_request.iter().filter(|(request, _)| *request == Request::ShadowCopies) {
            map.free = map.free.union(held);
        }
        assert_equals_strangers(&volume, &map);
    }
}

#[test]
fn bitlocker_to_go_is_not_ntfs() {
    need!("xz");
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = unpack("dfvfs-bdetogo-trimmed.raw", folder.path()) else { return };
    assert_ne!(look(&volume).name, "NTFS");
}

/// The corpus's volume with two snapshots, and who can read them.
fn shadowed(folder: &Path) -> Option<(PathBuf, Shadows)> {
    let shadows = Shadows::new()?;
    Some((unpack("dfvfs-vss.raw", folder)?, shadows))
}

#[test]
fn snapshots_read_the_same_when_all_free_space_is_overwritten() {
    need!("xz");
    let folder = tempfile::tempdir().unwrap();
    let Some((volume, shadows)) = shadowed(folder.path()) else { return };
    let before = shadows.snapshots(&volume);
    assert_eq!(before.lines().count(), 2);
    let map = agreed(&volume);
    // The list of the older store still has 32 MB that its file gave back: they stay.
    let [(Request::ShadowCopies, held)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(map.free.total() + held.total(), map.free_bytes);
    assert!(map.free.total() > 4 * MIB && held.total() < 34 * MIB);
    poison(&volume, map.free.ranges());
    assert_eq!(shadows.snapshots(&volume), before);
}

#[test]
fn snapshots_keep_the_files_that_were_deleted_since() {
    need!("xz", "ntfsinfo");
    let folder = tempfile::tempdir().unwrap();
    let Some((volume, shadows)) = shadowed(folder.path()) else { return };
    let before = shadows.snapshots(&volume);

    // The few files of this volume lie in their records; those below $Extend stand for files that were deleted
    // since the snapshots, and whose contents were not copied, as nothing has overwritten them.
    let bitmap = 53847 * 512;
    let mut bits = vec![0; 20480];
    let file = fs::OpenOptions::new().read(true).write(true).open(&volume).unwrap();
    file.read_exact_at(&mut bits, bitmap).unwrap();
    for (offset, len, _) in shadows.extend(&volume) {
        for cluster in (offset / 512) as usize..((offset + len) / 512) as usize {
            bits[cluster / 8] &= !(1 << (cluster % 8));
        }
    }
    file.write_all_at(&bits, bitmap).unwrap();

    // The second witness is not heard: to it, these files are still there.
    let detected = detect(&NativeFile::open(&volume).unwrap(), Context { sector_size: 512 });
    let Mapping::Mapped(map) = detected.mapping else { panic!("declined") };
    let (cluster_size, _, free) = ntfsinfo(&volume);
    assert_eq!(map.free_bytes, free * cluster_size);
    let [(Request::ShadowCopies, held)] = map.on_request.as_slice() else { panic!("{:?}", map.on_request) };
    assert_eq!(map.free.total() + held.total(), map.free_bytes);
    poison(&volume, map.free.ranges());
    assert_eq!(shadows.snapshots(&volume), before);
    poison(&volume, held.ranges());
    assert_ne!(shadows.snapshots(&volume), before, "what is held back was needed");
}
