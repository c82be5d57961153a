//! Strangers' tools for ext volumes: making, changing, judging.
#![allow(
    // Helpers of tests fail by panicking, and count small numbers.
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, Decline, Detected, FreeMap, Mapping, detect};
use vhd_compactor::io::{NativeFile, ReadAt, Segments, Window};

/// Says why a test does not run.
pub fn skip(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
}

/// Whether all `tools` are installed; says so if not.
pub fn have(test: &str, tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| {
        let found = Command::new("sh")
            .args(["-c", &format!("PATH=$PATH:/sbin:/usr/sbin command -v {tool}")])
            .output();
        !found.is_ok_and(|output| output.status.success())
    });
    if let Some(tool) = missing {
        skip(test, &format!("{tool} is not installed"));
    }
    missing.is_none()
}

/// Runs a tool, whatever it returns.
pub fn try_run(tool: &str, args: &[&str]) -> Output {
    let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(tool).args(args).env("PATH", path).env("LC_ALL", "C").output().unwrap()
}

/// Runs a tool that must succeed, and gives what it printed.
#[track_caller]
pub fn run(tool: &str, args: &[&str]) -> String {
    let output = try_run(tool, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{tool} {args:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What is detected on the volume at `path`.
pub fn probe(path: &Path) -> Detected {
    probe_at(path, 0, None)
}

/// What is detected on a part of a disk.
pub fn probe_at(path: &Path, offset: u64, len: Option<u64>) -> Detected {
    let file = NativeFile::open(path).unwrap();
    let len = len.unwrap_or(file.size() - offset);
    detect(&Window::new(file, Segments::single(offset..offset + len)).unwrap(), Context { sector_size: 512 })
}

/// The free map of the volume at `path`.
#[track_caller]
pub fn mapped(path: &Path) -> FreeMap {
    match probe(path).mapping {
        Mapping::Mapped(map) => map,
        Mapping::Declined(decline) => panic!("{} declined: {decline:?}", path.display()),
    }
}

/// Why the volume at `path` is declined.
#[track_caller]
pub fn declined(path: &Path) -> Decline {
    match probe(path).mapping {
        Mapping::Declined(decline) => decline,
        Mapping::Mapped(_) => panic!("{} was mapped", path.display()),
    }
}

/// The free bytes as dumpe2fs lists them.
pub fn dumpe2fs_free(path: &Path) -> Extents {
    let text = String::from_utf8_lossy(&try_run("dumpe2fs", &[arg(path)]).stdout).into_owned();
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().parse().unwrap())
    };
    let block = field("Block size:").unwrap_or_else(|| panic!("dumpe2fs did not read {}", path.display()));
    // With bigalloc, clusters are listed by their first blocks.
    let cluster = field("Cluster size:").unwrap_or(block);
    let mut ranges = Vec::new();
    for list in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            ranges.push(first * block..last * block + cluster);
        }
    }
    Extents::from_ranges(ranges)
}

/// The free bytes by the superblock's count, as dumpe2fs prints it.
pub fn dumpe2fs_count(path: &Path) -> u64 {
    let text = run("dumpe2fs", &["-h", arg(path)]);
    let field = |name: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    field("Free blocks:") * field("Block size:")
}

/// Asserts that our map is the one of dumpe2fs, to the byte.
#[track_caller]
pub fn equals_dumpe2fs(path: &Path, what: &str) {
    let map = mapped(path);
    assert_eq!(map.free.ranges(), dumpe2fs_free(path).ranges(), "{what}");
    assert_eq!(map.free_bytes, dumpe2fs_count(path), "{what}");
    assert_eq!(map.free_bytes, map.free.total(), "{what}");
    assert!(map.on_request.is_empty());
}

/// A sparse file of `size` bytes.
pub fn sparse(path: &Path, size: u64) {
    let _ = fs::remove_file(path);
    File::create(path).unwrap().set_len(size).unwrap();
}

/// A new volume, filled from `source` without a mount if given.
pub fn mke2fs(path: &Path, size: u64, args: &[&str], source: Option<&Path>) {
    sparse(path, size);
    let mut all = vec!["-q", "-F", "-E", "nodiscard"];
    all.extend_from_slice(args);
    if let Some(source) = source {
        all.extend_from_slice(&["-d", arg(source)]);
    }
    all.push(arg(path));
    run("mke2fs", &all);
}

/// Runs commands of debugfs that write.
pub fn debugfs(path: &Path, commands: &[String], dir: &Path) {
    let script = dir.join("debugfs.cmd");
    fs::write(&script, commands.join("\n") + "\n").unwrap();
    run("debugfs", &["-w", "-f", arg(&script), arg(path)]);
}

/// Whether e2fsck finds nothing to do.
#[track_caller]
pub fn assert_sound(path: &Path) {
    run("e2fsck", &["-fn", arg(path)]);
}

/// Replays the journal for real.
pub fn replay(path: &Path) {
    let output = try_run("e2fsck", &["-y", "-E", "journal_only", arg(path)]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Overwrites every byte of `free` with something that no file holds.
pub fn poison(path: &Path, free: &Extents) {
    let file = File::options().write(true).open(path).unwrap();
    let junk = vec![0xD7; 1 << 20];
    for range in free.ranges() {
        let mut at = range.start;
        while at < range.end {
            let n = (range.end - at).min(junk.len() as u64);
            file.write_all_at(&junk[..n as usize], at).unwrap();
            at += n;
        }
    }
}

/// Every file of a volume by its path and digest, as debugfs reads it.
pub fn digests(path: &Path, dir: &Path) -> BTreeMap<PathBuf, String> {
    let out = dir.join("rdump");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    run("debugfs", &["-R", &format!("rdump / {}", arg(&out)), arg(path)]);
    let mut found = BTreeMap::new();
    let mut open = vec![out.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(&out).unwrap().to_owned();
                let content = if kind.is_symlink() {
                    fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
                } else {
                    fs::read(entry.path()).unwrap()
                };
                found.insert(name, blake3::hash(&content).to_string());
            }
        }
    }
    found
}

/// A folder of files of many sizes, the same in every run: paths by number.
pub fn make_files(folder: &Path, count: u64) -> Vec<PathBuf> {
    (0..count)
        .map(|number| {
            let sub = folder.join(format!("d{}", number % 5));
            fs::create_dir_all(&sub).unwrap();
            let path = sub.join(format!("f{number}"));
            let len = [3, 900, 4096, 20_000, 300_000, 70_001][number as usize % 6] + number * 37;
            let content: Vec<u8> = (0..len).map(|at| (at * 31 + at / 256 + number * 7) as u8).collect();
            fs::write(&path, content).unwrap();
            path.strip_prefix(folder).unwrap().to_owned()
        })
        .collect()
}

/// A volume that the kernel has mounted; unmounted and detached when dropped.
pub struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    /// Mounts the volume at `path`; none (said so) where this is not allowed.
    pub fn new(test: &str, path: &Path, options: &str, dir: &Path) -> Option<Self> {
        let folder = dir.join("mnt");
        fs::create_dir_all(&folder).unwrap();
        let options = if options.is_empty() { "loop".to_owned() } else { format!("loop,{options}") };
        let output = try_run("mount", &["-o", &options, arg(path), arg(&folder)]);
        if output.status.success() {
            return Some(Self { folder });
        }
        skip(test, &format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim()));
        None
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..20 {
            if try_run("umount", &[arg(&self.folder)]).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// An image of the corpus, unpacked; none (said so) where the corpus is not.
pub fn corpus(test: &str, name: &str, dir: &Path) -> Option<PathBuf> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../shared/corpus/real/{name}.xz"));
    if !packed.exists() {
        skip(test, &format!("{name} is not here"));
        return None;
    }
    let path = dir.join(name);
    let status = Command::new("xz").arg("-dc").arg(&packed).stdout(File::create(&path).unwrap()).status();
    assert!(status.is_ok_and(|status| status.success()), "xz could not unpack {name}");
    Some(path)
}
