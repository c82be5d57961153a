//! The disks of Linux servers, laid out as installers do: what comes of them is as small as with its free space zeroed by
//! a stranger's map, and every file is as it was.
//!
//! ```text
//!   GPT │ EFI system (FAT) │ /boot (ext4, XFS) │ LVM: root, swap, free extents    Ubuntu, RHEL, Rocky, Alma
//!   GPT │ EFI system (FAT) │ /boot (ext4)      │ Btrfs: subvolumes, a snapshot       Fedora, openSUSE
//!   GPT │ boot loader      │ root (XFS)                                           cloud images
//!
//!   filled, half deleted ─┬► qemu-img ─► compaction ─► 7-Zip, qemu-img, checkers, digests of every file
//!                         └► zeros by fstrim, xfs_db ─► qemu-img, in blocks of the same size: the size to reach
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhd_compactor::compact::Options;

use super::disks::{Container, sfdisk};
use super::judge::{raw_of, structure};
use crate::toolbox::engine::compact;
use crate::toolbox::ext::Mounted;
use crate::toolbox::xfs::free_by_xfs_db;
use crate::toolbox::{Loop, MIB, Random, blank, digests, run, skip, stdout, text, try_run, write_at};

/// How much larger than the reference a new image may be, in hundredths.
const LEEWAY: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat,
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    fn make(self, device: &str) {
        match self {
            Self::Fat => run("mkfs.fat", &["-F", "32", "-s", "1", device]),
            Self::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", device]),
            Self::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", device]),
            Self::Btrfs => run("mkfs.btrfs", &["-q", "-f", "-K", device]),
        };
    }

    fn check(self, device: &str) {
        match self {
            Self::Fat => run("fsck.fat", &["-n", device]),
            Self::Ext4 => run("e2fsck", &["-fn", device]),
            Self::Xfs => run("xfs_repair", &["-n", device]),
            Self::Btrfs => run("btrfs", &["check", "--check-data-csum", device]),
        };
    }
}

/// Writes zeros, a piece at a time.
fn zero(disk: &Path, range: &Range<u64>) {
    let file = File::options().write(true).open(disk).unwrap();
    let zeros = vec![0; MIB as usize];
    for at in (range.start..range.end).step_by(zeros.len()) {
        let len = (range.end - at).min(MIB) as usize;
        file.write_all_at(&zeros[..len], at).unwrap();
    }
}

/// A file system on the disk.
#[derive(Debug, Clone)]
struct Place {
    kind: Kind,
    range: Range<u64>,
}

impl Place {
    const fn new(kind: Kind, at: u64, mib: u64) -> Self {
        Self { kind, range: at * MIB..(at + mib) * MIB }
    }

    /// The programs that make and check file systems see it as a device.
    fn device(&self, disk: &Path) -> Option<Loop> {
        let (at, len) = (self.range.start.to_string(), (self.range.end - self.range.start).to_string());
        Loop::new(disk, &["-o", &at, "--sizelimit", &len])
    }

    /// None (said so) where it may not be mounted. This kernel may know no FAT, whose files mtools write.
    fn mount(&self, disk: &Path, options: &str, dir: &Path) -> Option<Mounted> {
        let Range { start, end } = self.range;
        Mounted::new(disk, &format!("offset={start},sizelimit={}{options}", end - start), dir)
    }

    /// Fills it and deletes two thirds, so that stale bytes lie between files.
    fn age(&self, disk: &Path, seed: u64, dir: &Path) -> Option<()> {
        let mut random = Random::new(seed);
        if self.kind == Kind::Fat {
            let file = dir.join("grubx64.efi");
            fs::write(&file, random.bytes(2 * MIB)).unwrap();
            run("mcopy", &["-i", &format!("{}@@{}", text(disk), self.range.start), text(&file), "::"]);
            return Some(());
        }
        let mounted = self.mount(disk, "", dir)?;
        let room = (self.range.end - self.range.start) / 3;
        let mut folder = mounted.folder().to_owned();
        if self.kind == Kind::Btrfs {
            folder.push("root");
            run("btrfs", &["-q", "subvolume", "create", text(&folder)]);
        }
        let write = |random: &mut Random, name: String, len: u64| {
            fs::write(folder.join(name), random.bytes(len)).unwrap();
        };
        (0..60).for_each(|n| write(&mut random, format!("f{n}"), room / 60));
        run("sync", &["-f", text(mounted.folder())]);
        let remove = |n: u64| fs::remove_file(folder.join(format!("f{n}"))).unwrap();
        (0..60).filter(|n| n % 3 != 0).for_each(remove);
        run("sync", &["-f", text(mounted.folder())]);
        if self.kind == Kind::Btrfs {
            let snapshot = mounted.folder().join("snapshot");
            run("btrfs", &["-q", "subvolume", "snapshot", "-r", text(&folder), text(&snapshot)]);
            // From here on only the snapshot has them.
            (0..60).filter(|n| n % 12 == 0).for_each(remove);
        }
        (0..200).for_each(|n| write(&mut random, format!("small {n}"), 10 + n * 37));
        Some(())
    }

    fn digests(&self, disk: &Path, dir: &Path) -> Option<BTreeMap<PathBuf, String>> {
        if self.kind == Kind::Fat {
            let out = dir.join("fat");
            let _ = fs::remove_dir_all(&out);
            fs::create_dir(&out).unwrap();
            run("mcopy", &["-s", "-i", &format!("{}@@{}", text(disk), self.range.start), "::/", text(&out)]);
            return Some(digests(&out));
        }
        let mounted = self.mount(disk, ",ro", dir)?;
        Some(digests(mounted.folder()))
    }

    /// Zeros what is free: in ext4 and Btrfs as the kernel trims it, in XFS by the list of `xfs_db`, as the kernel's
    /// trimming leaves much of what was free for a moment only.
    fn zero_free(&self, disk: &Path, dir: &Path) -> Option<()> {
        match self.kind {
            Kind::Fat => {}
            Kind::Ext4 | Kind::Btrfs => {
                let mounted = self.mount(disk, "", dir)?;
                let done = try_run("fstrim", &[text(mounted.folder())]);
                if !done.status.success() {
                    skip(&format!("fstrim: {}", String::from_utf8_lossy(&done.stderr).trim()));
                    return None;
                }
            }
            Kind::Xfs => {
                let device = self.device(disk)?;
                let free = free_by_xfs_db(Path::new(&device.0)).shifted(self.range.start);
                free.ranges().iter().for_each(|range| zero(disk, range));
            }
        }
        Some(())
    }
}

/// A disk of one layout, before anything is on its file systems.
struct Server {
    disk: PathBuf,
    places: Vec<Place>,
    /// Extents of LVM that no logical volume has (disk offsets).
    spare: Vec<Range<u64>>,
}

/// EFI system, boot and LVM, in which root leaves most extents free and swap follows it.
fn with_lvm(dir: &Path, boot: Kind, root: Kind) -> Option<Server> {
    let disk = blank(dir, 3000 * MIB);
    let lvm = "E6D6D379-F507-44C2-A23C-238F2A3DF928";
    sfdisk(
        &disk,
        &format!(
            "label: gpt\nstart=2048, size={}, type=U\nsize={}, type=L\nsize={}, type={lvm}\n",
            99 * 2048,
            400 * 2048,
            2490 * 2048
        ),
    );
    let at = 500 * MIB;
    let device = Loop::new(&disk, &["-o", &at.to_string(), "--sizelimit", &(2490 * MIB).to_string()])?;
    let lvm = |program: &str, arguments: &[&str]| {
        let common = ["--devices", &device.0, "--driverloaded", "n"];
        String::from_utf8(stdout(program, &[&common, arguments].concat())).unwrap()
    };
    lvm("pvcreate", &["-y", &device.0]);
    lvm("vgcreate", &["server-vg", &device.0]);
    for (name, size) in [("root", "1400m"), ("swap", "200m"), ("gone", "300m")] {
        lvm("lvcreate", &["-an", "-Zn", "-Wn", "-y", "-n", name, "-L", size, "server-vg"]);
    }
    lvm("lvremove", &["-y", "server-vg/gone"]);
    let fields = "pe_start,vg_extent_size,pvseg_start,pvseg_size,lv_name";
    let options =
        ["--segments", "--noheadings", "--nosuffix", "--units", "b", "--separator", ":", "-o", fields];
    let mut spare = Vec::new();
    let mut places = vec![Place::new(Kind::Fat, 1, 99), Place::new(boot, 100, 400)];
    for line in lvm("pvs", &options).lines() {
        let row: Vec<&str> = line.trim().split(':').collect();
        let number = |field: usize| row[field].parse::<u64>().unwrap();
        let start = at + number(0) + number(2) * number(1);
        let range = start..start + number(3) * number(1);
        match row[4] {
            "root" => places.push(Place { kind: root, range }),
            "swap" => {
                let len = range.end - range.start;
                let swap = Loop::new(&disk, &["-o", &start.to_string(), "--sizelimit", &len.to_string()])?;
                run("mkswap", &[&swap.0]);
            }
            _ => spare.push(range),
        }
    }
    assert_eq!((places.len(), spare.len()), (3, 1));
    Some(Server { disk, places, spare })
}

/// A boot loader's partition and one of XFS, as images for clouds have them.
fn for_clouds(dir: &Path) -> Server {
    let disk = blank(dir, 1500 * MIB);
    let script = format!(
        "label: gpt\nstart=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649\nsize={}, type=L\n",
        1490 * 2048
    );
    sfdisk(&disk, &script);
    write_at(&disk, MIB, &Random::new(5).bytes(MIB));
    Server { disk, places: vec![Place::new(Kind::Xfs, 5, 1490)], spare: Vec::new() }
}

/// EFI system, boot and Btrfs, as Fedora and openSUSE have them.
fn with_btrfs(dir: &Path) -> Server {
    let disk = blank(dir, 2200 * MIB);
    let script = format!(
        "label: gpt\nstart=2048, size={}, type=U\nsize={}, type=L\nsize={}, type=L\n",
        99 * 2048,
        300 * 2048,
        1790 * 2048
    );
    sfdisk(&disk, &script);
    let places = [(Kind::Fat, 1, 99), (Kind::Ext4, 100, 300), (Kind::Btrfs, 400, 1790)];
    let places = places.map(|(kind, at, mib)| Place::new(kind, at, mib)).to_vec();
    Server { disk, places, spare: Vec::new() }
}

impl Server {
    /// Ages it, compacts it in each container, and judges what comes of it.
    fn judge(&self, dir: &Path) -> Option<()> {
        let mut random = Random::new(11);
        for (place, seed) in self.places.iter().zip(1..) {
            place.kind.make(&place.device(&self.disk)?.0);
            place.age(&self.disk, seed, dir)?;
        }
        // What a volume that was removed has left.
        for range in &self.spare {
            write_at(&self.disk, range.start + MIB, &random.bytes(60 * MIB));
        }
        let before: Vec<_> =
            self.places.iter().map(|place| place.digests(&self.disk, dir)).collect::<Option<_>>()?;
        assert!(before.iter().flatten().count() >= 220);

        let reference = dir.join("reference.raw");
        run("cp", &["--sparse=always", text(&self.disk), text(&reference)]);
        self.places.iter().try_for_each(|place| place.zero_free(&reference, dir))?;
        self.spare.iter().for_each(|range| zero(&reference, range));

        for (source, goal) in [
            (Container::Vhdx(1), Container::Vhdx(1)),
            (Container::Vhdx(32), Container::Vhdx(1)),
            (Container::Vhd, Container::Vhd),
        ] {
            let image = source.wrap(&self.disk, dir);
            let goal = fs::metadata(goal.wrap(&reference, dir)).unwrap().len();
            let output = dir.join(format!("out.{}", source.extension()));
            let (outcome, _) = compact(&image, &[], &output, Options::default()).unwrap();
            let size = fs::metadata(&output).unwrap().len();
            println!("{source:?}: {size} bytes, {goal} were to be reached");
            assert!(outcome.reads_changed);
            assert!(
                size <= goal + goal * LEEWAY / 100,
                "{source:?}: {size} bytes, and {goal} were to be reached"
            );
            structure(&output);
            let raw = raw_of(&output, dir);
            for (place, before) in self.places.iter().zip(&before) {
                place.kind.check(&place.device(&raw)?.0);
                assert_eq!(&place.digests(&raw, dir)?, before, "{source:?} {place:?}");
            }
            for path in [image, output, raw] {
                fs::remove_file(path).unwrap();
            }
        }
        Some(())
    }
}

#[test]
fn an_ubuntu_server_is_as_small_as_its_files() {
    need!(
        mount,
        "sfdisk",
        "losetup",
        "pvcreate",
        "lvcreate",
        "pvs",
        "mkfs.ext4",
        "mkfs.fat",
        "mcopy",
        "fstrim",
        "7zz"
    );
    let dir = tempfile::tempdir().unwrap();
    let _: Option<()> =
        with_lvm(dir.path(), Kind::Ext4, Kind::Ext4).and_then(|server| server.judge(dir.path()));
}

#[test]
fn a_red_hat_server_is_as_small_as_its_files() {
    need!(
        mount, "sfdisk", "losetup", "pvcreate", "lvcreate", "pvs", "mkfs.xfs", "mkfs.fat", "mcopy", "fstrim",
        "7zz"
    );
    let dir = tempfile::tempdir().unwrap();
    let _: Option<()> =
        with_lvm(dir.path(), Kind::Xfs, Kind::Xfs).and_then(|server| server.judge(dir.path()));
}

#[test]
fn an_image_for_clouds_is_as_small_as_its_files() {
    need!(mount, "sfdisk", "losetup", "mkfs.xfs", "7zz");
    let dir = tempfile::tempdir().unwrap();
    let _: Option<()> = for_clouds(dir.path()).judge(dir.path());
}

#[test]
fn a_server_on_btrfs_is_as_small_as_its_files() {
    need!(
        mount,
        "sfdisk",
        "losetup",
        "mkfs.btrfs",
        "btrfs",
        "mkfs.ext4",
        "mkfs.fat",
        "mcopy",
        "fstrim",
        "7zz"
    );
    let dir = tempfile::tempdir().unwrap();
    let _: Option<()> = with_btrfs(dir.path()).judge(dir.path());
}
