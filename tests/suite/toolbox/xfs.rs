//! XFS volumes: making, changing and judging them with xfsprogs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use vhd_compactor::extents::Extents;

use super::{Random, equals_map, have, noise, run, sparse, stdout, text, try_run};

pub const TOOLS: [&str; 3] = ["mkfs.xfs", "xfs_db", "xfs_repair"];

/// A new volume, filled from `source` without a mount if given. Small ones are made all the same.
pub fn mkfs(path: &Path, size: u64, args: &[&str], source: Option<&Path>) {
    sparse(path, size);
    let proto = path.with_extension("proto");
    let mut all = vec!["--unsupported", "-q", "-f", "-K"];
    all.extend_from_slice(args);
    if let Some(source) = source {
        let mut lines = String::from("/\n0 0\nd--755 0 0\n");
        list(source, &mut lines);
        fs::write(&proto, lines).unwrap();
        all.extend_from_slice(&["-p", text(&proto)]);
    }
    all.push(text(path));
    run("mkfs.xfs", &all);
}

/// The contents of a folder in the words of a prototype file.
fn list(folder: &Path, lines: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(std::result::Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().unwrap();
        if path.is_dir() {
            lines.push_str(&format!("{name} d--755 0 0\n"));
            list(&path, lines);
        } else {
            lines.push_str(&format!("{name} ---644 0 0 {}\n", text(&path)));
        }
    }
    lines.push_str("$\n");
}

/// What xfs_db prints for some commands, one number a line.
pub fn numbers(path: &Path, commands: &[&str]) -> Vec<u64> {
    let mut args = vec!["-r"];
    for command in commands {
        args.extend_from_slice(&["-c", command]);
    }
    args.push(text(path));
    let printed = String::from_utf8(stdout("xfs_db", &args)).unwrap();
    printed.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

/// The free bytes as xfs_db lists them, without the blocks of the free lists, which it lists as well.
pub fn free_by_xfs_db(path: &Path) -> Extents {
    let geometry = numbers(path, &["sb 0", "p blocksize agblocks agcount"]);
    let [block, group_blocks, groups] = geometry[..] else { panic!("{geometry:?}") };
    let at = |group: u64, block_in: u64| (group * group_blocks + block_in) * block;
    let mut lists = Vec::new();
    for group in 0..groups {
        let ring = numbers(path, &[&format!("agf {group}"), "p flfirst fllast flcount"]);
        let printed = stdout("xfs_db", &["-r", "-c", &format!("agfl {group}"), "-c", "p bno", text(path)]);
        let printed = String::from_utf8(printed).unwrap();
        let slots: Vec<&str> = printed
            .split_whitespace()
            .filter_map(|slot| slot.split_once(':'))
            .map(|(_, value)| value)
            .collect();
        for slot in (ring[0]..).take(ring[2] as usize) {
            let block_in = slots[slot as usize % slots.len()].parse().unwrap();
            lists.push(at(group, block_in)..at(group, block_in + 1));
        }
    }
    let printed = String::from_utf8(stdout("xfs_db", &["-r", "-c", "freesp -d", text(path)])).unwrap();
    // The first line is the heading, and a histogram follows.
    let rows = printed.lines().skip(1).map(|line| line.split_whitespace().map(str::parse).collect());
    let rows: Vec<Vec<u64>> =
        rows.map_while(|row: Result<Vec<u64>, _>| row.ok().filter(|row| row.len() == 3)).collect();
    let free = rows.iter().map(|row| at(row[0], row[1])..at(row[0], row[1] + row[2])).collect();
    Extents::from_ranges(free).minus(&Extents::from_ranges(lists))
}

/// Asserts that our map is the one of xfs_db, to the byte, and that its owners agree.
#[track_caller]
pub fn equals_xfs_db(path: &Path, what: &str) {
    equals_map(path, &free_by_xfs_db(path), what);
}

/// Whether xfs_repair finds nothing to do.
#[track_caller]
pub fn assert_sound(path: &Path) {
    run("xfs_repair", &["-n", text(path)]);
}

/// Every file of a volume by its path and digest, as an independent reader in Python reads it.
pub fn digests_by_dissect(python: &str, path: &Path) -> BTreeMap<String, String> {
    const READER: &str = "
import hashlib, stat, sys
from dissect.xfs import XFS
fs = XFS(open(sys.argv[1], 'rb'))
def walk(node, path):
    for name, child in sorted(node.listdir().items()):
        if name in ('.', '..'): continue
        if child.filetype == stat.S_IFDIR: walk(child, path + '/' + name)
        elif child.filetype == stat.S_IFREG:
            print(hashlib.sha256(child.open().read()).hexdigest(), path + '/' + name)
walk(fs.get('/'), '')
";
    let printed = String::from_utf8(stdout(python, &["-c", READER, text(path)])).unwrap();
    printed.lines().filter_map(|line| line.split_once(' ')).map(|(d, p)| (p.into(), d.into())).collect()
}

/// Grows a volume old in a mounted folder: many files, half of them deleted; files in pieces; attributes; links;
/// shared extents where there can be any.
pub fn age(folder: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let mut paths = Vec::new();
    for number in 0..240u64 {
        let sub = folder.join(format!("d{}", number % 4));
        fs::create_dir_all(&sub).unwrap();
        let path = sub.join(format!("file {number} {}", "long ".repeat(number as usize % 30)));
        let len = [0, 10, 700, 5000, 40_000, 150_000][random.below(6) as usize];
        fs::write(&path, noise(len, seed + number)).unwrap();
        if number % 9 == 0 {
            symlink("somewhere/".repeat(1 + number as usize / 3), sub.join(format!("link {number}")))
                .unwrap();
        }
        paths.push(path);
    }
    let with_attributes = if have(&["setfattr"]) { &paths[..] } else { &[] };
    for (number, path) in with_attributes.iter().step_by(7).enumerate() {
        for name in 0..4 {
            let value = "v".repeat([30, 300, 3000, 9000][(name + number) % 4]);
            let _ = try_run("setfattr", &["-n", &format!("user.a{name}"), "-v", &value, text(path)]);
        }
    }
    // Holes between blocks: a tree of extents.
    for name in ["pieces", "more pieces"] {
        let file = File::create(folder.join(name)).unwrap();
        for piece in 0..300 {
            file.write_all_at(&noise(700, seed + piece), piece * 131_072).unwrap();
        }
    }
    run("sync", &["-f", text(folder)]);
    // Neighbours in a folder, so that holes come of it.
    for (_, path) in paths.iter().enumerate().filter(|(number, _)| number / 4 % 2 == 0) {
        fs::remove_file(path).unwrap();
    }
    for name in ["copy", "changed copy"] {
        let (from, to) = (folder.join("pieces"), folder.join(name));
        run("cp", &["--reflink=auto", text(&from), text(&to)]);
    }
    let changed = OpenOptions::new().write(true).open(folder.join("changed copy")).unwrap();
    changed.write_all_at(b"changed", 131_072 * 3).unwrap();
    run("fallocate", &["-l", "3M", text(&folder.join("reserved"))]);
}

/// Paths below a folder, with the digests of contents and attributes.
pub fn contents(folder: &Path) -> (BTreeMap<PathBuf, String>, String) {
    let attributes = try_run("getfattr", &["-R", "-d", "-m", "-", "-h", text(folder)]);
    (super::digests(folder), String::from_utf8_lossy(&attributes.stdout).into_owned())
}
