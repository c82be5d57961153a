//! Stock tools for tests of volumes and of FAT, exFAT and swap: images made by `mkfs`, filled through
//! mtools, loop devices and FUSE, and damaged on purpose. A test that misses a tool or a privilege
//! skips by name.

// Each test binary uses its own part of this, and a helper that goes wrong fails its test.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vhd_compactor::fs::{Context, Decline, Detected, FreeMap, Mapping, detect};
use vhd_compactor::io::{NativeFile, Segments, Window};
use vhd_compactor::volume::{VolumeTable, enumerate};

/// Says why the running test does nothing, past the test runner's capture.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    std::io::stderr().write_all(format!("skipped: {name}: {why}\n").as_bytes()).unwrap();
}

/// Returns from the test if a tool is missing.
#[macro_export]
macro_rules! need {
    ($($tool:expr),+) => {
        for tool in [$($tool),+] {
            if !tools::has(tool) {
                return tools::skip(&format!("{tool} is not installed"));
            }
        }
    };
}

pub fn has(tool: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/sbin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&folders).chain(usual).any(|folder| folder.join(tool).is_file())
}

pub fn is_root() -> bool {
    run("id", &["-u"]).stdout.starts_with(b"0\n")
}

/// Runs a tool to its end, whatever comes of it.
pub fn run(tool: &str, args: &[&str]) -> Output {
    let mut command = Command::new(tool);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(args).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C.UTF-8");
    command.env("MTOOLS_SKIP_CHECK", "1").stdin(std::process::Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{tool}: {error}"))
}

/// Runs a tool that must succeed; returns what it prints.
pub fn output(tool: &str, args: &[&str]) -> String {
    let done = run(tool, args);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{tool} {args:?}: {text}{}", String::from_utf8_lossy(&done.stderr));
    text
}

/// A folder of its own, removed in the end.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A sparse file of `size` bytes.
    pub fn image(&self, size: u64) -> String {
        let path = self.path("image");
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

/// A file of the shared corpus, unpacked; none, with a word about it, if it is not there.
pub fn corpus(folder: &Folder, name: &str) -> Option<String> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../shared/corpus/real/{name}.xz"));
    if !packed.is_file() || !has("xz") {
        skip(&format!("the corpus has no {name}"));
        return None;
    }
    let path = folder.path(name);
    let out = File::create(&path).unwrap();
    let done = Command::new("xz").arg("-dc").arg(packed).stdout(out).status().unwrap();
    assert!(done.success());
    Some(path)
}

/// A loop device, detached in the end.
pub struct Loop(pub String);

impl Loop {
    /// None where loop devices may not be made.
    pub fn new(image: &str, options: &[&str]) -> Option<Self> {
        let done = run("losetup", &[&["-f", "--show"], options, &[image]].concat());
        done.status.success().then(|| Self(String::from_utf8(done.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

/// A mounted volume, unmounted in the end.
pub struct Mount {
    at: PathBuf,
    _device: Loop,
}

impl Mount {
    /// None where FUSE or loop devices are not to be had.
    pub fn exfat(image: &str, at: PathBuf) -> Option<Self> {
        let device = Loop::new(image, &[])?;
        let done = run("mount.exfat-fuse", &[&device.0, at.to_str().unwrap()]);
        done.status.success().then_some(Self { at, _device: device })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for _ in 0..50 {
            if run("umount", &[self.at.to_str().unwrap()]).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Numbers that look random and are the same every time.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Writes `count` files of up to `largest` bytes below `folder`; returns their names.
pub fn write_files(folder: &Path, prefix: &str, count: u64, largest: u64, seed: u64) -> Vec<String> {
    let mut numbers = Numbers::new(seed);
    let mut names = Vec::new();
    for i in 0..count {
        let name = match i % 4 {
            0 => format!("{prefix}{i}"),
            1 => format!("{prefix}dir{}/{prefix} with a long name {i}.txt", i % 3),
            2 => format!("{prefix}dir{}/deeper/{prefix}{i}.dat", i % 5),
            _ => format!("{prefix}dir{}/ünïcødé {i}", i % 3),
        };
        let path = folder.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let len = if i % 9 == 0 { 0 } else { numbers.next(largest) };
        let bytes: Vec<u8> = (0..len).map(|_| u8::try_from(numbers.next(256)).unwrap()).collect();
        fs::write(path, bytes).unwrap();
        names.push(name);
    }
    names
}

/// Every file below `folder` with its contents.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The volumes of an image.
pub fn volumes(image: &str, sector_size: u32) -> VolumeTable {
    enumerate(&NativeFile::open(image).unwrap(), sector_size).unwrap()
}

/// What is found on a part of an image.
pub fn detect_in(image: &str, range: Range<u64>) -> Detected {
    let file = NativeFile::open(image).unwrap();
    let window = Window::new(&file, Segments::single(range)).unwrap();
    detect(&window, Context { sector_size: 512 })
}

/// What is found on a whole image.
pub fn detect_whole(image: &str) -> Detected {
    detect_in(image, 0..fs::metadata(image).unwrap().len())
}

pub fn mapped(found: Detected) -> FreeMap {
    match found.mapping {
        Mapping::Mapped(map) => map,
        Mapping::Declined(decline) => panic!("{}: {decline:?}", found.name),
    }
}

pub fn declined(found: Detected) -> Decline {
    match found.mapping {
        Mapping::Mapped(_) => panic!("{} was mapped", found.name),
        Mapping::Declined(decline) => decline,
    }
}

/// Overwrites ranges of an image with bytes that no one would want to read.
pub fn poison(image: &str, ranges: &[Range<u64>]) {
    let file = OpenOptions::new().write(true).open(image).unwrap();
    let junk: Vec<u8> = (0..1 << 20).map(|i: u32| 0xA5 ^ u8::try_from(i % 251).unwrap()).collect();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(1 << 20);
            file.write_all_at(&junk[..usize::try_from(len).unwrap()], at).unwrap();
            at += len;
        }
    }
}

pub fn write_at(image: &str, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(image).unwrap().write_all_at(bytes, offset).unwrap();
}
