//! Disks with LVM2: what is found equals what `pvs` says, and what is free is nobody's.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, Detected, Mapping, detect_in};
use vhd_compactor::io::{NativeFile, ReadAt, Window, read_vec};
use vhd_compactor::volume::{Scheme, Volume, VolumeTable, enumerate};

use crate::toolbox::{
    Loop, MIB, Random, blank, digests, is_root, poison, read_at, run, skip, sparse, text, unpack, write_at,
};

/// Where the physical volume begins on the disk.
const AT: u64 = 4 * MIB;

/// Parts of logical volumes on the disk, by name; free extents have none.
type Parts = Vec<(String, Range<u64>)>;

/// The programs of LVM on a loop device over the physical volume, without the kernel's half.
struct Lvm {
    device: Loop,
}

impl Lvm {
    fn on(disk: &Path) -> Option<Self> {
        let device = Loop::new(disk, &["-o", &AT.to_string()])?;
        Some(Self { device })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let common = ["--devices", &self.device.0, "--driverloaded", "n"];
        String::from_utf8(crate::toolbox::stdout(program, &[&common, arguments].concat())).unwrap()
    }

    /// The extents of the physical volume as `pvs` lists them: of which logical volume, and its bytes there.
    fn segments(&self) -> Parts {
        let fields = "lv_name,pvseg_start,pvseg_size,pe_start,vg_extent_size,seg_start";
        let options =
            ["--segments", "--noheadings", "--nosuffix", "--units", "b", "--separator", ":", "-o", fields];
        let listed = self.run("pvs", &options);
        let mut rows: Vec<(String, u64, Range<u64>)> = Vec::new();
        for line in listed.lines() {
            let row: Vec<&str> = line.trim().split(':').collect();
            let number = |i: usize| row[i].parse::<u64>().unwrap();
            let start = AT + number(3) + number(1) * number(4);
            rows.push((row[0].to_owned(), number(5), start..start + number(2) * number(4)));
        }
        rows.sort_by_key(|(name, start, _)| (name.clone(), *start));
        rows.into_iter().map(|(name, _, range)| (name, range)).collect()
    }
}

/// A disk with a GPT and a physical volume, on which `root` has two segments around `swap`.
fn server(folder: &Path) -> Option<(PathBuf, Parts)> {
    let disk = blank(folder, 200 * MIB);
    let sectors =
        format!("start={},size={},type=E6D6D379-F507-44C2-A23C-238F2A3DF928", AT / 512, 190 * MIB / 512);
    fs::write(folder.join("table"), format!("label: gpt\n{sectors}\n")).unwrap();
    run("sh", &["-c", &format!("sfdisk -q {} < {}", text(&disk), text(&folder.join("table")))]);
    let device = Loop::new(&disk, &["-o", &AT.to_string(), "--sizelimit", &(190 * MIB).to_string()])?;
    let lvm = Lvm { device };
    let device = lvm.device.0.clone();
    lvm.run("pvcreate", &["-y", &device]);
    lvm.run("vgcreate", &["vg0", &device]);
    let create = |name: &str, extents: &str| {
        lvm.run("lvcreate", &["-an", "-Zn", "-Wn", "-y", "-n", name, "-l", extents, "vg0"]);
    };
    create("root", "10");
    create("swap", "5");
    create("gone", "3");
    lvm.run("lvextend", &["-l", "+12", "vg0/root"]);
    lvm.run("lvremove", &["-y", "vg0/gone"]);
    let segments = lvm.segments();
    drop(lvm);
    Some((disk, segments))
}

fn of<'s>(segments: &'s [(String, Range<u64>)], name: &'s str) -> impl Iterator<Item = Range<u64>> + 's {
    segments.iter().filter(move |(lv, _)| lv == name).map(|(_, range)| range.clone())
}

/// Takes a logical volume out of the disk, by what `pvs` said.
fn extract(disk: &Path, segments: &[(String, Range<u64>)], name: &str, to: &Path) {
    let parts =
        of(segments, name).map(|range| read_at(disk, range.start, (range.end - range.start) as usize));
    fs::write(to, parts.collect::<Vec<_>>().concat()).unwrap();
}

/// Puts an image into a logical volume.
fn insert(disk: &Path, segments: &[(String, Range<u64>)], name: &str, from: &Path) {
    let bytes = fs::read(from).unwrap();
    let mut at = 0;
    for range in of(segments, name) {
        let len = (range.end - range.start) as usize;
        write_at(disk, range.start, &bytes[at..at + len]);
        at += len;
    }
    assert_eq!(at, bytes.len());
}

fn table(disk: &Path) -> VolumeTable {
    let table = enumerate(&NativeFile::open(disk).unwrap(), 512).unwrap();
    assert_eq!((table.distrust.as_deref(), table.warnings.len()), (None, 0));
    table
}

fn named<'t>(table: &'t VolumeTable, name: &str) -> &'t Volume {
    table.volumes.iter().find(|volume| volume.name.as_deref() == Some(name)).unwrap()
}

fn look_in(disk: &Path, volume: &Volume) -> Detected {
    let window = Window::new(NativeFile::open(disk).unwrap(), volume.segments.clone()).unwrap();
    detect_in(volume, &window, Context { sector_size: 512 }).heard(&window)
}

fn free_on_disk(disk: &Path, volume: &Volume) -> Extents {
    let Mapping::Mapped(map) = look_in(disk, volume).mapping else { panic!("{volume:?}") };
    volume.segments.extents_on_disk(&map.free).unwrap()
}

/// Every file of an ext4 image.
fn files(image: &Path, to: &Path) -> std::collections::BTreeMap<PathBuf, String> {
    fs::create_dir_all(to).unwrap();
    run("debugfs", &["-R", &format!("rdump / {}", text(to)), text(image)]);
    digests(to)
}

#[test]
fn a_servers_disk_is_read_through_its_logical_volumes() {
    need!("sfdisk", "losetup", "pvcreate", "lvcreate", "pvs", "mke2fs", "debugfs", "e2fsck", "mkswap");
    if !is_root() {
        return skip("loop devices need root");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some((disk, segments)) = server(folder.path()) else { return };
    assert_eq!(of(&segments, "root").count(), 2);
    // Garbage where a removed volume was, and in what was never used.
    let mut random = Random::new(11);
    for range in of(&segments, "") {
        write_at(&disk, range.start, &random.bytes(2 * MIB));
    }
    let (image, contents) = (folder.path().join("root"), folder.path().join("contents"));
    crate::toolbox::fat::write_files(&contents, "f", 60, 300_000, 5);
    sparse(&image, of(&segments, "root").map(|range| range.end - range.start).sum());
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(&contents), text(&image)]);
    insert(&disk, &segments, "root", &image);
    let swap = folder.path().join("swap");
    sparse(&swap, 20 * MIB);
    run("mkswap", &[text(&swap)]);
    insert(&disk, &segments, "swap", &swap);
    let before = files(&image, &folder.path().join("before"));
    assert_eq!(before.len(), 60);

    let table = table(&disk);
    assert_eq!(table.volumes.len(), 3);
    let (root, swap) = (named(&table, "vg0/root"), named(&table, "vg0/swap"));
    assert_eq!((root.scheme, root.kind.as_str()), (Scheme::Lvm, "LVM logical volume"));
    assert_eq!(root.segments.ranges(), of(&segments, "root").collect::<Vec<_>>());
    assert_eq!(swap.segments.ranges(), of(&segments, "swap").collect::<Vec<_>>());
    let window = Window::new(NativeFile::open(&disk).unwrap(), root.segments.clone()).unwrap();
    assert_eq!(read_vec(&window, 0, window.size() as usize).unwrap(), fs::read(&image).unwrap());
    assert_eq!((look_in(&disk, root).name, look_in(&disk, swap).name), ("ext4", "Linux swap"));

    // The rest: what pvs calls free is free, and no more.
    let rest = table.volumes.iter().find(|volume| volume.rest_of_lvm.is_some()).unwrap();
    assert_eq!(rest.scheme, Scheme::Gpt);
    let found = look_in(&disk, rest);
    assert_eq!((found.name, found.label.as_deref()), ("LVM2", Some("vg0")));
    let unallocated = Extents::from_ranges(of(&segments, "").collect());
    assert_eq!(free_on_disk(&disk, rest), unallocated);
    assert_eq!(table.volumes.iter().map(|volume| volume.segments.len()).sum::<u64>(), 190 * MIB);

    // All of it overwritten, nothing is missing.
    let free = free_on_disk(&disk, root).union(&unallocated);
    assert!(free.total() > 100 * MIB, "{free:?}");
    let backup = |name: &str| {
        let to = folder.path().join(name);
        Lvm::on(&disk).unwrap().run("vgcfgbackup", &["-f", text(&to), "vg0"]);
        let backup = fs::read_to_string(to).unwrap();
        backup.split_once("vg0 {").unwrap().1.to_owned()
    };
    let metadata = backup("metadata before");
    poison(&disk, free.ranges());
    assert_eq!(backup("metadata after"), metadata);
    let after = folder.path().join("root after");
    extract(&disk, &segments, "root", &after);
    run("e2fsck", &["-fn", text(&after)]);
    assert_eq!(files(&after, &folder.path().join("after")), before);
}

#[test]
fn what_is_not_linear_is_named_and_kept() {
    need!("sfdisk", "losetup", "pvcreate", "lvcreate", "vgcfgrestore", "pvs");
    if !is_root() {
        return skip("loop devices need root");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some((disk, _)) = server(folder.path()) else { return };
    let backup = folder.path().join("backup");
    let lvm = Lvm::on(&disk).unwrap();
    lvm.run("vgcfgbackup", &["-f", text(&backup), "vg0"]);
    let plain = fs::read_to_string(&backup).unwrap();
    let exported = plain.replace(
        r#"status = ["RESIZEABLE", "READ", "WRITE"]"#,
        r#"status = ["RESIZEABLE", "EXPORTED", "READ", "WRITE"]"#,
    );
    fs::write(&backup, exported).unwrap();
    lvm.run("vgcfgrestore", &["-f", text(&backup), "vg0"]);
    drop(lvm);
    let table = table(&disk);
    let [only] = &table.volumes[..] else { panic!("{table:?}") };
    assert!(only.opaque.as_deref().is_some_and(|why| why.contains("EXPORTED")), "{only:?}");
    assert!(matches!(look_in(&disk, only).mapping, Mapping::Declined(_)));
}

#[test]
fn a_strangers_lvm_disk_is_divided() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = unpack("dfvfs-lvm.raw", folder.path()) else { return };
    let table = table(&disk);
    let names: Vec<_> = table.volumes.iter().filter_map(|volume| volume.name.as_deref()).collect();
    assert!(table.volumes.iter().all(|volume| volume.opaque.is_none()), "{table:?}");
    assert_eq!(names, ["test_volume_group/test_logical_volume1", "test_volume_group/test_logical_volume2"]);
    assert_eq!(look_in(&disk, named(&table, names[0])).name, "ext2");
}
