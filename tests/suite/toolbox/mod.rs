//! What the tests share: finding tools and images, running programs, bytes to write and digests to compare.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};
use vhd_compactor::Result;
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, Decline, Detected, FreeMap, Hearing, Mapping, detect};
use vhd_compactor::io::{NativeFile, ReadAt, Segments, Window};
use vhd_compactor::volume::{VolumeTable, enumerate};

pub mod btrfs;
pub mod engine;
pub mod ext;
pub mod ext_layout;
pub mod fat;
mod images;
pub mod ntfs;
pub mod xfs;

pub use images::{reads_as, unpack};

pub const MIB: u64 = 1 << 20;

/// Returns from the test, visibly, where one of these programs is missing, or (`mount`) the right to mount.
macro_rules! need {
    (mount, $($tool:expr),+ $(,)?) => {
        need!($($tool),+);
        if !$crate::toolbox::may_mount() {
            return;
        }
    };
    ($($tool:expr),+ $(,)?) => {
        if !$crate::toolbox::have(&[$($tool),+]) {
            return;
        }
    };
}

/// Says why the running test does less or nothing; the test runner counts it as skipped. The harness calls a
/// test's thread by the test's name.
pub fn skip(why: &str) {
    println!("skipped: {}: {why}", std::thread::current().name().unwrap_or("a test"));
}

/// Whether all of these programs are installed; says so if not.
pub fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !is_installed(program));
    if let Some(program) = missing {
        skip(&format!("{program} is not installed"));
    }
    missing.is_none()
}

pub fn is_installed(program: &str) -> bool {
    std::env::split_paths(&search_path()).any(|folder| folder.join(program).is_file())
}

/// The usual PATH, and the folders of mkfs and fsck, which that of a plain user on Debian lacks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

pub fn is_root() -> bool {
    run("id", &["-u"]).trim() == "0"
}

/// Whether a test may mount through FUSE; says so if not.
pub fn may_mount() -> bool {
    let may = is_root() && Path::new("/dev/fuse").exists();
    if !may {
        skip("mounting with FUSE needs root and /dev/fuse");
    }
    may
}

/// A Python that has these modules: `$PYTHON`, or the usual one; says so if there is none.
pub fn python(modules: &str) -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let found = command(&python).args(["-c", &format!("import {modules}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("Python has no {modules} (see tests/requirements.txt and $PYTHON)"));
    }
    found.then_some(python)
}

/// CRC-32C.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !ext_layout::crc32c(u32::MAX, bytes)
}

/// A program in the environment that all tests use.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "1");
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end, whatever comes of it.
pub fn try_run(program: &str, args: &[&str]) -> Output {
    command(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that must succeed, and gives what it writes on its standard output.
#[track_caller]
pub fn stdout(program: &str, args: &[&str]) -> Vec<u8> {
    let output = try_run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}\n{}", output.status, printed(&output));
    output.stdout
}

/// Runs a program that must succeed, and gives all that it prints.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = try_run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}\n{}", output.status, printed(&output));
    printed(&output)
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A path as an argument of a program.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A new sparse file of `size` bytes.
pub fn sparse(path: &Path, size: u64) {
    let _ = fs::remove_file(path);
    File::create(path).unwrap().set_len(size).unwrap();
}

/// A new sparse image of `size` bytes in `dir`.
pub fn blank(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("image");
    sparse(&path, size);
    path
}

pub fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

pub fn read_at(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// What is written over bytes that nobody should need.
pub const POISON: u8 = 0xA7;

/// Overwrites these bytes of a file.
pub fn poison(path: &Path, ranges: &[Range<u64>]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let poison = vec![POISON; 1 << 20];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(poison.len() as u64);
            file.write_all_at(&poison[..len as usize], at).unwrap();
            at += len;
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

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
        words.take(len as usize).collect()
    }
}

/// Bytes that repeat nowhere, told apart by `seed`.
pub fn noise(len: u64, seed: u64) -> Vec<u8> {
    Random::new(seed).bytes(len)
}

/// Every file below a folder by its path and the digest of its contents.
pub fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(std::result::Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let contents = if kind.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            digests.insert(path.strip_prefix(folder).unwrap().to_owned(), digest_of(&contents));
        }
    }
    digests
}

pub fn digest_of(bytes: &[u8]) -> String {
    in_hex(&Sha256::digest(bytes))
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of everything that `reader` holds.
pub fn sha256(reader: &dyn ReadAt) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 4 << 20];
    let mut at = 0;
    while at < reader.size() {
        let len = (reader.size() - at).min(buf.len() as u64) as usize;
        reader.read_exact_at(at, &mut buf[..len]).unwrap();
        hash.update(&buf[..len]);
        at += len as u64;
    }
    in_hex(&hash.finalize())
}

/// The volumes of a raw disk.
pub fn volumes(disk: &Path, sector_size: u32) -> VolumeTable {
    enumerate(&NativeFile::open(disk).unwrap(), sector_size).unwrap()
}

/// What the project finds on a volume, once both witnesses were heard.
pub fn look(volume: &Path) -> Detected {
    look_at(volume, 0..fs::metadata(volume).unwrap().len())
}

/// What the project finds on a part of a disk, once both witnesses were heard.
pub fn look_at(disk: &Path, range: Range<u64>) -> Detected {
    let file = NativeFile::open(disk).unwrap();
    let window = Window::new(file, Segments::single(range)).unwrap();
    detect(&window, Context { sector_size: 512 }).heard(&window)
}

/// The free map of a volume.
#[track_caller]
pub fn mapped(volume: &Path) -> FreeMap {
    match look(volume).mapping {
        Mapping::Mapped(map) => map,
        Mapping::Declined(decline) => panic!("{}: {decline:?}", volume.display()),
    }
}

/// Asserts that our map of a volume whose files may share space is a stranger's, to the byte, and that its owners agree.
#[track_caller]
pub fn equals_map(volume: &Path, free: &Extents, what: &str) {
    let map = mapped(volume);
    assert_eq!(map.free.ranges(), free.ranges(), "{what}");
    assert_eq!(map.free_bytes, map.free.total(), "{what}");
    assert!(map.on_request.is_empty());
    let Hearing::Agrees(testimony) = look(volume).hearing else { panic!("{what}: not heard") };
    // Shared extents are owned several times.
    assert!(testimony.owned_bytes >= map.used_bytes, "{what}: {testimony:?}, used {}", map.used_bytes);
}

/// Why a volume is declined.
#[track_caller]
pub fn declined(volume: &Path) -> Decline {
    match look(volume).mapping {
        Mapping::Mapped(_) => panic!("{} is mapped", volume.display()),
        Mapping::Declined(decline) => decline,
    }
}

/// The used bytes of a volume as partclone (`partclone.ntfs`, `partclone.exfat` …) finds them.
pub fn used_by_partclone(program: &str, volume: &Path, folder: &Path) -> Extents {
    let (map, log) = (folder.join("domain"), folder.join("partclone.log"));
    run(program, &["-D", "-F", "-q", "-s", text(volume), "-O", text(&map), "-L", text(&log)]);
    used_in_domain_map(&map)
}

/// The used bytes by a domain map, which goes.
pub fn used_in_domain_map(map: &Path) -> Extents {
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    let domain = fs::read_to_string(map).unwrap();
    let lines = domain.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let used = lines.filter(|fields| fields.len() >= 3 && fields[2] == "+");
    let used = used.map(|fields| hex(fields[0])..hex(fields[0]) + hex(fields[1])).collect();
    fs::remove_file(map).unwrap();
    Extents::from_ranges(used)
}

/// The sectors that sleuthkit calls free, as bytes. It also lists what follows the last cluster.
pub fn free_by_sleuthkit(volume: &Path, sector: u64) -> Extents {
    let listed = run("blkls", &["-l", text(volume)]);
    let free = listed.lines().filter_map(|line| line.strip_suffix("|f"));
    let free = free.map(|line| line.parse::<u64>().unwrap() * sector);
    Extents::from_ranges(free.map(|at| at..at + sector).collect())
}

/// A loop device over a file, detached in the end.
pub struct Loop(pub String);

impl Loop {
    /// None (said so) where loop devices may not be made.
    pub fn new(image: &Path, options: &[&str]) -> Option<Self> {
        let done = try_run("losetup", &[&["-f", "--show"], options, &[text(image)]].concat());
        if !done.status.success() {
            skip(&format!("losetup: {}", String::from_utf8_lossy(&done.stderr).trim()));
            return None;
        }
        Some(Self(String::from_utf8(done.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        try_run("losetup", &["-d", &self.0]);
    }
}

/// Unmounts a folder, which may be busy for a moment.
pub fn unmount(folder: &Path) {
    for _ in 0..50 {
        if try_run("umount", &[text(folder)]).status.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// A reader that counts what is asked of it.
pub struct Counting {
    file: NativeFile,
    pub reads: Cell<u64>,
    pub bytes: Cell<u64>,
}

impl Counting {
    pub fn open(path: &Path) -> Self {
        Self { file: NativeFile::open(path).unwrap(), reads: Cell::new(0), bytes: Cell::new(0) }
    }
}

impl ReadAt for Counting {
    fn size(&self) -> u64 {
        self.file.size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.set(self.bytes.get() + buf.len() as u64);
        self.file.read_exact_at(offset, buf)
    }
}
