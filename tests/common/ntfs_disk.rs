//! NTFS volumes made, filled and judged by stock tools: ntfs-3g's and partclone.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use vhd_compactor::error::Result;
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, Decline, Detected, FreeMap, Mapping, detect};
use vhd_compactor::io::{NativeFile, ReadAt};

/// Says past the test harness, which keeps what tests print, that a test did not run.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// The first of these tools that is missing.
pub fn missing<'a>(tools: &[&'a str]) -> Option<&'a str> {
    let found = |tool: &&str| {
        let status =
            Command::new("sh").args(["-c", "command -v \"$0\"", tool]).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    tools.iter().copied().find(|tool| !found(tool))
}

/// Returns from the test, visibly, where a tool or the right to mount is missing.
#[macro_export]
macro_rules! need {
    ($test:literal, $($tool:literal),+) => {
        if let Some(tool) = disk::missing(&[$($tool),+]) {
            return disk::skip($test, &format!("{tool} is not installed"));
        }
    };
    ($test:literal, mount, $($tool:literal),+) => {
        need!($test, $($tool),+);
        if !disk::may_mount() {
            return disk::skip($test, "mounting with FUSE needs root and /dev/fuse");
        }
    };
}

/// Whether ntfs-3g may mount.
pub fn may_mount() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.starts_with(b"0\n"));
    root && Path::new("/dev/fuse").exists()
}

/// Runs a tool and gives what it printed; the test fails if the tool does.
pub fn run(tool: &str, args: &[&str]) -> Output {
    let output = Command::new(tool).args(args).output().unwrap_or_else(|e| panic!("{tool}: {e}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {text}{}", String::from_utf8_lossy(&output.stdout));
    output
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A new NTFS volume in a file.
pub fn make(folder: &Path, size: u64, sector: u32, cluster: u32) -> PathBuf {
    let image = folder.join("ntfs.img");
    fs::File::create(&image).unwrap().set_len(size).unwrap();
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
        let mut command = Command::new("ntfs-3g");
        command.args(options).arg(image).arg(folder.path()).stdin(Stdio::null());
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
        for _ in 0..50 {
            let unmounted = Command::new("umount").arg(self.folder.path()).stderr(Stdio::null()).status();
            if unmounted.is_ok_and(|status| status.success()) {
                break;
            }
            sleep(Duration::from_millis(50));
        }
        // The volume is whole only when the driver has gone.
        let _ = self.driver.wait();
    }
}

fn is_mount_point(folder: &Path) -> bool {
    let quiet = Command::new("mountpoint").arg("-q").arg(folder).status();
    quiet.is_ok_and(|status| status.success())
}

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(usize::try_from(len).unwrap()).collect()
    }
}

/// Writes files of many sizes, deletes half of them and writes others into the gaps, so that used and
/// free clusters alternate and old contents lie in free ones.
pub fn populate(image: &Path, seed: u64) {
    let mut random = Random(seed);
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

/// The digest of every file below a folder.
pub fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let digest = blake3::hash(&fs::read(&path).unwrap()).to_string();
                digests.insert(path.strip_prefix(folder).unwrap().to_path_buf(), digest);
            }
        }
    }
    digests
}

/// What the project says of a volume.
pub fn look(volume: &Path) -> Detected {
    detect(&NativeFile::open(volume).unwrap(), Context { sector_size: 512 })
}

pub fn mapped(volume: &Path) -> FreeMap {
    match look(volume).mapping {
        Mapping::Mapped(map) => map,
        Mapping::Declined(decline) => panic!("{}: {decline:?}", volume.display()),
    }
}

pub fn declined(volume: &Path) -> Decline {
    match look(volume).mapping {
        Mapping::Mapped(_) => panic!("{} is mapped", volume.display()),
        Mapping::Declined(decline) => decline,
    }
}

/// What ntfsinfo says: cluster size, clusters, free clusters.
pub fn ntfsinfo(volume: &Path) -> (u64, u64, u64) {
    let output = run("ntfsinfo", &["-f", "-m", text(volume)]);
    let output = String::from_utf8_lossy(&output.stdout);
    let number = |field: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(field));
        let line = line.unwrap_or_else(|| panic!("ntfsinfo does not say {field}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("Cluster Size:"), number("Volume Size in Clusters:"), number("Free Clusters:"))
}

/// The free bytes by $Bitmap as ntfscat reads it, bit by bit.
pub fn free_by_ntfscat(volume: &Path, cluster_size: u64, clusters: u64) -> Extents {
    let bits = run("ntfscat", &["-f", "-i", "6", text(volume)]).stdout;
    let is_free = |n: &u64| bits[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 0;
    let free = (0..clusters).filter(is_free).map(|n| n * cluster_size..(n + 1) * cluster_size);
    Extents::from_ranges(free.collect())
}

/// The used bytes by partclone, which reads the file system through ntfs-3g's library.
pub fn used_by_partclone(volume: &Path, folder: &Path) -> Extents {
    let (map, log) = (folder.join("domain"), folder.join("partclone.log"));
    run("partclone.ntfs", &["-D", "-F", "-q", "-s", text(volume), "-O", text(&map), "-L", text(&log)]);
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    let domain = fs::read_to_string(&map).unwrap();
    let lines = domain.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let used = lines.filter(|fields| fields.len() >= 3 && fields[2] == "+");
    let used = used.map(|fields| hex(fields[0])..hex(fields[0]) + hex(fields[1])).collect();
    fs::remove_file(&map).unwrap();
    Extents::from_ranges(used)
}

/// Fails unless the map equals what strangers say, to the cluster.
pub fn assert_equals_strangers(volume: &Path, map: &FreeMap) {
    let (cluster_size, clusters, free) = ntfsinfo(volume);
    assert_eq!(map.free_bytes, free * cluster_size, "{}: ntfsinfo", volume.display());
    assert_eq!(map.free, free_by_ntfscat(volume, cluster_size, clusters), "{}: ntfscat", volume.display());
}

/// Writes a pattern over these bytes.
pub fn poison(volume: &Path, ranges: &[Range<u64>]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(volume).unwrap();
    let pattern = vec![0xA7; 1 << 20];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let n = usize::try_from((range.end - at).min(1 << 20)).unwrap();
            file.write_all_at(&pattern[..n], at).unwrap();
            at += u64::try_from(n).unwrap();
        }
    }
}

/// A file of the shared corpus, unpacked, if the corpus is there.
pub fn corpus(name: &str, folder: &Path) -> Option<PathBuf> {
    let packed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/real").join(format!("{name}.xz"));
    let unpacked = folder.join(name);
    let out = packed.exists().then(|| fs::File::create(&unpacked).unwrap())?;
    let status = Command::new("xz").arg("-dc").arg(packed).stdout(out).status().unwrap();
    assert!(status.success(), "xz -dc {name}");
    Some(unpacked)
}

/// A reader that counts what is read through it.
pub struct Counting {
    pub file: NativeFile,
    pub bytes: std::cell::Cell<u64>,
}

impl ReadAt for Counting {
    fn size(&self) -> u64 {
        self.file.size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.bytes.set(self.bytes.get() + u64::try_from(buf.len()).unwrap());
        self.file.read_exact_at(offset, buf)
    }
}
