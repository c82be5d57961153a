//! Disks around a volume: a partition table, junk where nobody has a map, and the container of a stranger.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use vhd_compactor::extents::Extents;
use vhd_compactor::image::Format;

use super::volumes::FileSystem;
use crate::toolbox::{MIB, Random, command, run, text};

const SECTOR: u64 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Bare,
    Primary,
    Logical,
    Gpt,
}

impl Table {
    pub const ALL: [Self; 4] = [Self::Bare, Self::Primary, Self::Logical, Self::Gpt];
}

/// A raw disk with one volume on it.
pub struct RawDisk {
    pub path: PathBuf,
    pub fs: FileSystem,
    /// The volume's first byte and its length.
    pub at: u64,
    pub len: u64,
    /// What a stranger calls free (disk offsets).
    pub free: Extents,
}

/// Writes the bytes of `from` into `to` from `at` on, holes and all.
fn paste(from: &Path, to: &File, at: u64) {
    let bytes = fs::read(from).unwrap();
    for (n, chunk) in bytes.chunks(64 << 10).enumerate() {
        if chunk.iter().any(|&byte| byte != 0) {
            to.write_all_at(chunk, at + n as u64 * (64 << 10)).unwrap();
        }
    }
}

pub fn sfdisk(disk: &Path, script: &str) {
    let mut child = command("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", text(disk)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "sfdisk: {script}");
}

/// A disk of no whole number of blocks with `volume` in it, neither aligned to anything, and junk in
/// the gaps.
pub fn lay_out(fs: FileSystem, volume: &Path, table: Table, dir: &Path) -> RawDisk {
    let len = fs::metadata(volume).unwrap().len();
    let path = dir.join(format!("{table:?}.raw"));
    let first = match table {
        Table::Bare => 0,
        Table::Primary => 2111,
        Table::Logical => 6147,
        Table::Gpt => 4099,
    };
    let (at, sectors) = (first * SECTOR, len / SECTOR);
    // 7-Zip takes no VHDX of another size than a multiple of eight sectors.
    let size = if table == Table::Bare { len } else { (at + len + 5 * MIB).next_multiple_of(4096) };
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    let kind = fs.kind();
    match table {
        Table::Bare => {}
        Table::Primary => {
            sfdisk(&path, &format!("label: dos\nstart={first}, size={sectors}, type={kind}\n"));
        }
        Table::Logical => sfdisk(
            &path,
            &format!(
                "label: dos\nstart=4096, size={}, type=5\nstart={first}, size={sectors}, type={kind}\n",
                sectors + 4000
            ),
        ),
        Table::Gpt => sfdisk(&path, &format!("label: gpt\nstart={first}, size={sectors}\n")),
    }
    paste(volume, &file, at);
    if table != Table::Bare {
        let mut random = Random::new(77);
        for place in [1000 * SECTOR, at - SECTOR, at + len, at + len + 3 * MIB + 512] {
            file.write_all_at(&random.bytes(SECTOR), place).unwrap();
        }
    }
    let free = fs.free(volume, dir).shifted(at);
    RawDisk { path, fs, at, len, free }
}

/// How a stranger wraps a raw disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    Vhd,
    FixedVhd,
    /// With blocks of so many MiB.
    Vhdx(u64),
    FixedVhdx,
}

impl Container {
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Vhd | Self::FixedVhd => "vhd",
            Self::Vhdx(_) | Self::FixedVhdx => "vhdx",
        }
    }

    /// Wraps `raw` in a file in `dir`.
    pub fn wrap(self, raw: &Path, dir: &Path) -> PathBuf {
        let name = format!("{}-{self:?}.{}", raw.file_stem().unwrap().to_str().unwrap(), self.extension());
        let path = dir.join(name.replace(['(', ')'], ""));
        let (format, options) = match self {
            Self::Vhd => ("vpc", "force_size=on".to_owned()),
            Self::FixedVhd => ("vpc", "subformat=fixed,force_size=on".to_owned()),
            Self::Vhdx(block) => ("vhdx", format!("block_size={}", block * MIB)),
            Self::FixedVhdx => ("vhdx", format!("subformat=fixed,block_size={}", 8 * MIB)),
        };
        convert(&["-f", "raw", "-O", format, "-o", &options, text(raw), text(&path)]);
        path
    }
}

/// Converts an image with qemu-img, which need not wait for the disk of this machine.
pub fn convert(args: &[&str]) {
    run("qemu-img", &[&["convert", "-t", "unsafe"], args].concat());
}

/// The name by which qemu-img knows a format.
pub const fn qemu(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        Format::Vhdx => "vhdx",
    }
}

pub fn format_of(path: &Path) -> Format {
    if path.extension().unwrap() == "vhd" { Format::Vhd } else { Format::Vhdx }
}
