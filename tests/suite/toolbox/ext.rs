//! ext volumes: making, changing and judging them with e2fsprogs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vhd_compactor::extents::Extents;
use vhd_compactor::fs::Hearing;

use super::{digests as digests_below, look, mapped, run, skip, sparse, text, try_run, unmount};

/// The free bytes as dumpe2fs lists them.
pub fn dumpe2fs_free(path: &Path) -> Extents {
    let text = String::from_utf8_lossy(&try_run("dumpe2fs", &[text(path)]).stdout).into_owned();
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
    let text = run("dumpe2fs", &["-h", text(path)]);
    let field = |name: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    field("Free blocks:") * field("Block size:")
}

/// Asserts that our map is the one of dumpe2fs, to the byte, and that all that is in use has an owner.
#[track_caller]
pub fn equals_dumpe2fs(path: &Path, what: &str) {
    let map = mapped(path);
    let Hearing::Agrees(testimony) = look(path).hearing else { panic!("{what}: not heard") };
    assert_eq!(testimony.owned_bytes, map.used_bytes, "{what}");
    assert_eq!(map.free.ranges(), dumpe2fs_free(path).ranges(), "{what}");
    assert_eq!(map.free_bytes, dumpe2fs_count(path), "{what}");
    assert_eq!(map.free_bytes, map.free.total(), "{what}");
    assert!(map.on_request.is_empty());
}

/// A new volume, filled from `source` without a mount if given.
pub fn mke2fs(path: &Path, size: u64, args: &[&str], source: Option<&Path>) {
    sparse(path, size);
    let mut all = vec!["-q", "-F", "-E", "nodiscard"];
    all.extend_from_slice(args);
    if let Some(source) = source {
        all.extend_from_slice(&["-d", text(source)]);
    }
    all.push(text(path));
    run("mke2fs", &all);
}

/// Runs commands of debugfs that write.
pub fn debugfs(path: &Path, commands: &[String], dir: &Path) {
    let script = dir.join("debugfs.cmd");
    fs::write(&script, commands.join("\n") + "\n").unwrap();
    run("debugfs", &["-w", "-f", text(&script), text(path)]);
}

/// Whether e2fsck finds nothing to do.
#[track_caller]
pub fn assert_sound(path: &Path) {
    run("e2fsck", &["-fn", text(path)]);
}

/// Replays the journal for real.
pub fn replay(path: &Path) {
    let output = try_run("e2fsck", &["-y", "-E", "journal_only", text(path)]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Every file of a volume by its path and digest, as debugfs reads it.
pub fn digests(path: &Path, dir: &Path) -> BTreeMap<PathBuf, String> {
    let out = dir.join("rdump");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    run("debugfs", &["-R", &format!("rdump / {}", text(&out)), text(path)]);
    digests_below(&out)
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
    pub fn new(path: &Path, options: &str, dir: &Path) -> Option<Self> {
        let folder = dir.join("mnt");
        fs::create_dir_all(&folder).unwrap();
        let options = if options.is_empty() { "loop".to_owned() } else { format!("loop,{options}") };
        let output = try_run("mount", &["-o", &options, text(path), text(&folder)]);
        if output.status.success() {
            return Some(Self { folder });
        }
        skip(&format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim()));
        None
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}
