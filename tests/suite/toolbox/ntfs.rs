//! NTFS volumes: making, filling and judging them with the programs of ntfs-3g.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::FreeMap;

use super::{Random, command, python, run, sparse, stdout, text, try_run, unmount};

/// A new NTFS volume in a file.
pub fn make(folder: &Path, size: u64, sector: u32, cluster: u32) -> PathBuf {
    let image = folder.join("ntfs.img");
    sparse(&image, size);
    let (sector, cluster) = (sector.to_string(), cluster.to_string());
    let geometry = ["-p", "0", "-H", "16", "-S", "63", "-s", &sector, "-c", &cluster];
    run("mkntfs", &[&["-q", "-Q", "-F", "-L", "Volume"], &geometry[..], &[text(&image)]].concat());
    image
}

/// A volume mounted by ntfs-3g, until it is dropped.
pub struct Mounted {
    folder: TempDir,
    driver: Child,
}

impl Mounted {
    pub fn new(image: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ["-o", "no_detach,streams_interface=windows"];
        let mut command = command("ntfs-3g");
        command.args(options).arg(image).arg(folder.path());
        let mut driver = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..500 {
            assert!(driver.try_wait().unwrap().is_none(), "ntfs-3g does not mount {}", image.display());
            if is_mount_point(folder.path()) {
                return Self { folder, driver };
            }
            sleep(Duration::from_millis(10));
        }
        let _ = driver.kill();
        panic!("ntfs-3g does not come up");
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.folder.path());
        // The volume is whole only when the driver has gone.
        let _ = self.driver.wait();
    }
}

fn is_mount_point(folder: &Path) -> bool {
    try_run("mountpoint", &["-q", text(folder)]).status.success()
}

/// Writes files of many sizes, deletes half of them and writes others into the gaps, so that used and
/// free clusters alternate and old contents lie in free ones.
pub fn populate(image: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let mut write = |folder: &Path, name: String| {
        let len = match random.below(10) {
            0..=5 => random.below(12_000),
            6..=8 => random.below(120_000),
            _ => random.below(900_000),
        };
        fs::write(folder.join(name), random.bytes(len)).unwrap();
    };
    {
        let mounted = Mounted::new(image);
        let inner = mounted.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for n in 0..60 {
            write(&inner, format!("file {n}"));
            write(mounted.path(), format!("a name that takes some room in the index {n}"));
        }
    }
    let mounted = Mounted::new(image);
    let inner = mounted.path().join("inner");
    for n in (0..60).step_by(2) {
        fs::remove_file(inner.join(format!("file {n}"))).unwrap();
        fs::remove_file(mounted.path().join(format!("a name that takes some room in the index {n}")))
            .unwrap();
    }
    for n in 0..10 {
        write(&inner, format!("late {n}"));
    }
}

/// What ntfsinfo says: cluster size, clusters, free clusters.
pub fn ntfsinfo(volume: &Path) -> (u64, u64, u64) {
    let output = run("ntfsinfo", &["-f", "-m", text(volume)]);
    let number = |field: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(field));
        let line = line.unwrap_or_else(|| panic!("ntfsinfo does not say {field}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("Cluster Size:"), number("Volume Size in Clusters:"), number("Free Clusters:"))
}

/// The free bytes by $Bitmap as ntfscat reads it, bit by bit.
pub fn free_by_ntfscat(volume: &Path, cluster_size: u64, clusters: u64) -> Extents {
    let bits = stdout("ntfscat", &["-f", "-i", "6", text(volume)]);
    let is_free = |n: &u64| bits[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 0;
    let free = (0..clusters).filter(is_free).map(|n| n * cluster_size..(n + 1) * cluster_size);
    Extents::from_ranges(free.collect())
}

/// Fails unless the map equals what strangers say, to the cluster.
pub fn assert_equals_strangers(volume: &Path, map: &FreeMap) {
    let (cluster_size, clusters, free) = ntfsinfo(volume);
    assert_eq!(map.free_bytes, free * cluster_size, "{}: ntfsinfo", volume.display());
    assert_eq!(map.free, free_by_ntfscat(volume, cluster_size, clusters), "{}: ntfscat", volume.display());
}

/// Independent readers of NTFS and of its shadow copies: libfsntfs and libvshadow.
pub struct Shadows {
    python: String,
}

impl Shadows {
    /// None (said so) where they are not installed.
    pub fn new() -> Option<Self> {
        Some(Self { python: python("pyvshadow, pyfsntfs")? })
    }

    /// The snapshots of a volume, a line for each: digests of its files and of its used clusters.
    pub fn snapshots(&self, volume: &Path) -> String {
        self.ask("snapshots", volume)
    }

    /// Offset and length of the data of every file below `$Extend`.
    pub fn extend(&self, volume: &Path) -> Vec<(u64, u64, u64)> {
        let told = self.ask("extend", volume);
        let numbers = |line: &str| line.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<u64>>();
        told.lines().map(|line| <[u64; 3]>::try_from(numbers(line)).unwrap().into()).collect()
    }

    fn ask(&self, what: &str, volume: &Path) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/toolbox/ntfs_shadow.py");
        String::from_utf8(stdout(&self.python, &[text(&script), what, text(volume)])).unwrap()
    }
}

/// The volume bytes of the attributes of this type of a file, as ntfsinfo reads its runs; none if the file is
/// not there or has no such attribute outside its record.
pub fn runs_of(volume: &Path, inode: u64, kind: u32) -> Vec<Range<u64>> {
    let (cluster_size, ..) = ntfsinfo(volume);
    let listed = try_run("ntfsinfo", &["-f", "-v", "-i", &inode.to_string(), text(volume)]).stdout;
    let hex = |field: &str| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok();
    let (mut runs, mut wanted) = (Vec::new(), false);
    for line in String::from_utf8_lossy(&listed).lines() {
        if line.starts_with("Dumping attribute") {
            wanted = line.contains(&format!("({kind:#x})"));
        }
        let fields: Vec<_> = line.split_whitespace().map(hex).collect();
        if let ([Some(_), Some(lcn), Some(len)], true) = (fields.as_slice(), wanted) {
            runs.push(lcn * cluster_size..(lcn + len) * cluster_size);
        }
    }
    runs
}
