//! FAT and exFAT volumes: filling them, and mounting exFAT through FUSE.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Loop, Random, skip, text, try_run, unmount};

/// An exFAT volume mounted through FUSE, until it is dropped.
pub struct ExFat {
    folder: PathBuf,
    _device: Loop,
}

impl ExFat {
    /// None (said so) where FUSE or loop devices are not to be had.
    pub fn mount(image: &Path, folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let device = Loop::new(image, &[])?;
        let done = try_run("mount.exfat-fuse", &[&device.0, text(folder)]);
        if !done.status.success() {
            skip(&format!("mount.exfat-fuse: {}", String::from_utf8_lossy(&done.stderr).trim()));
            return None;
        }
        Some(Self { folder: folder.to_owned(), _device: device })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for ExFat {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Writes `count` files of up to `largest` bytes below `folder`; returns their names.
pub fn write_files(folder: &Path, prefix: &str, count: u64, largest: u64, seed: u64) -> Vec<String> {
    let mut random = Random::new(seed);
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
        let len = if i % 9 == 0 { 0 } else { random.below(largest) };
        fs::write(path, random.bytes(len)).unwrap();
        names.push(name);
    }
    names
}
