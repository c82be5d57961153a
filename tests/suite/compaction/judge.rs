//! The strangers' verdict on a new image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhd_compactor::compact::{Mode, Options, Outcome};
use vhd_compactor::extents::Extents;

use super::disks::{Container, RawDisk, convert, format_of, qemu};
use super::volumes::{FileSystem, STALE};
use crate::toolbox::engine::compact;
use crate::toolbox::{run, text};

/// A raw disk and what must stay of it.
pub struct Case {
    pub disk: RawDisk,
    pub digests: BTreeMap<PathBuf, String>,
    /// The disk with all free space zeroed by the stranger's map.
    zeroed: PathBuf,
}

impl Case {
    pub fn new(disk: RawDisk, volume: &Path, dir: &Path) -> Self {
        disk.fs.check(volume);
        let digests = disk.fs.digests(volume, dir);
        assert!(stamps(&disk.path) > 1000, "there is little to drop");
        let name = disk.path.file_stem().unwrap().to_str().unwrap();
        let zeroed = disk.path.with_file_name(format!("{name}-zeroed.raw"));
        run("cp", &["--sparse=always", text(&disk.path), text(&zeroed)]);
        let file = File::options().write(true).open(&zeroed).unwrap();
        for range in disk.free.ranges() {
            file.write_all_at(&vec![0; (range.end - range.start) as usize], range.start).unwrap();
        }
        Self { disk, digests, zeroed }
    }

    /// How small qemu-img makes the disk, once somebody has zeroed its free space.
    pub fn size_to_reach(&self, container: Container, dir: &Path) -> u64 {
        let path = container.wrap(&self.zeroed, dir);
        let size = fs::metadata(&path).unwrap().len();
        fs::remove_file(path).unwrap();
        size
    }

    /// Compacts `source`, which holds the disk, and judges what comes of it.
    pub fn judge(&self, source: &Path, output: &Path, options: Options, dir: &Path) -> Outcome {
        // Swap is given up only where this is asked for.
        let options = Options { drop_page_files: self.disk.fs == FileSystem::Swap, ..options };
        let what = format!("{:?} {} {options:?}", self.disk.fs, text(source));
        let (outcome, _) = compact(source, &[], output, options).unwrap_or_else(|e| panic!("{what}: {e}"));
        structure(output);
        let raw = raw_of(output, dir);
        let differ = differences(&self.disk.path, &raw);
        assert!(outcome.reads_changed || differ.is_empty(), "{what}: the outcome hides a change");
        for range in differ.ranges() {
            assert!(self.disk.free.contains(range.clone()), "{what}: {range:?} is in use");
        }
        if options.mode == Mode::Zero {
            assert!(differ.is_empty(), "{what}");
            let [a, b] = [source, output].map(|path| qemu(format_of(path)));
            run("qemu-img", &["compare", "-q", "-f", a, "-F", b, text(source), text(output)]);
        } else {
            assert!(stamps(output) < stamps(source), "{what}: nothing stale was dropped");
        }
        if options.scrub && options.mode != Mode::Zero {
            assert_eq!(stamps(output), 0, "{what}: stale bytes are left");
        }
        let volume = dir.join("judged");
        extract(&raw, self.disk.at, self.disk.len, &volume);
        self.disk.fs.check(&volume);
        assert_eq!(self.disk.fs.digests(&volume, dir), self.digests, "{what}");
        outcome
    }
}

/// Asks 7-Zip and qemu-img whether a file is a valid image.
pub fn structure(image: &Path) {
    let kind = image.extension().unwrap().to_str().unwrap();
    let told = run("7zz", &["t", &format!("-t{kind}"), text(image)]);
    assert!(told.contains("Everything is Ok") && !told.contains("WARNING"), "{told}");
    if kind == "vhdx" {
        run("qemu-img", &["check", "-q", "-f", "vhdx", text(image)]);
    }
}

/// The disk as qemu-img reads it.
pub fn raw_of(image: &Path, dir: &Path) -> PathBuf {
    let raw = dir.join("judged.raw");
    convert(&["-f", qemu(format_of(image)), "-O", "raw", text(image), text(&raw)]);
    raw
}

/// The sectors in which two files of the same length differ.
pub fn differences(a: &Path, b: &Path) -> Extents {
    let sizes = [a, b].map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(sizes[0], sizes[1], "{} and {}", a.display(), b.display());
    let (mut a, mut b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut differ = Extents::new();
    let mut at = 0;
    while at < sizes[0] {
        let n = (sizes[0] - at).min(1 << 20) as usize;
        a.read_exact(&mut x[..n]).unwrap();
        b.read_exact(&mut y[..n]).unwrap();
        if x[..n] != y[..n] {
            for (k, (x, y)) in x[..n].chunks(512).zip(y[..n].chunks(512)).enumerate() {
                if x != y {
                    let start = at + k as u64 * 512;
                    differ.push(start..start + 512);
                }
            }
        }
        at += n as u64;
    }
    differ
}

/// How many stamps of deleted files a file holds.
pub fn stamps(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.chunks_exact(8).filter(|word| word == STALE).count()
}

/// Copies a part of a file.
pub fn extract(from: &Path, at: u64, len: u64, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    to.set_len(len).unwrap();
    let mut done = 0;
    let mut buf = vec![0; 1 << 20];
    while done < len {
        let n = (len - done).min(1 << 20);
        let part = &mut buf[..n as usize];
        from.read_exact_at(part, at + done).unwrap();
        if part.iter().any(|&byte| byte != 0) {
            to.write_all_at(part, done).unwrap();
        }
        done += n;
    }
}
