//! What these tests share: chains that strangers' tools make, and strangers that read them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use odd_images::{Parent, Shape};
use vhd_compactor::compact::Options;
use vhd_compactor::extents::Extents;
use vhd_compactor::image::{BlockState, DiskType, Format, open};
use vhd_compactor::io::NativeFile;

use crate::toolbox::engine::analyse;
use crate::toolbox::{digests, have, noise, python, run, sparse, stdout, text};

/// A child and its parents, in one folder and under the names by which they know each other.
pub struct Chain {
    /// The child first.
    pub files: Vec<PathBuf>,
    /// What the child's disk holds.
    pub disk: Vec<u8>,
}

impl Chain {
    pub fn child(&self) -> &Path {
        &self.files[0]
    }

    pub fn parents(&self) -> Vec<&Path> {
        self.files[1..].iter().map(PathBuf::as_path).collect()
    }

    /// `vhd` or `vhdx`, as the content is, whatever the name.
    pub fn kind(&self) -> &'static str {
        kind(self.child())
    }

    /// What file systems prove free of the child's disk.
    pub fn free(&self) -> Extents {
        analyse(self.child(), &self.parents()).unwrap().free(&Options::default()).unwrap()
    }
}

pub fn kind(image: &Path) -> &'static str {
    if fs::read(image).unwrap().starts_with(b"vhdxfile") { "vhdx" } else { "vhd" }
}

/// Whether `found` is `expected` outside of `free`.
#[track_caller]
pub fn same_outside(free: &Extents, expected: &[u8], found: &[u8]) {
    assert_eq!(expected.len(), found.len());
    for used in free.gaps(0..expected.len() as u64) {
        let range = used.start as usize..used.end as usize;
        if expected[range.clone()] != found[range.clone()] {
            let at = range.into_iter().find(|&at| expected[at] != found[at]).unwrap();
            panic!("byte {at} differs: {:#x} was {:#x}", found[at], expected[at]);
        }
    }
}

/// Reads an image by 7-Zip, which finds the parents by the names in the image's folder, and has it checked.
pub fn seven_zip(image: &Path) -> Vec<u8> {
    let kind = format!("-t{}", kind(image));
    let told = run("7zz", &["t", &kind, text(image)]);
    assert!(told.contains("Everything is Ok") && !told.contains("WARNING"), "{told}");
    stdout("7zz", &["x", "-so", &kind, text(image)])
}

/// Why libvhdi reads an image wrong, whoever made it: it takes what a VHDX calls zero for the parent's, reads
/// wrong where a chunk has no sector bitmap block, and VHD bitmaps that are not of whole bytes.
fn misread(path: &Path) -> Option<&'static str> {
    let image = open(Rc::new(NativeFile::open(path).unwrap())).unwrap();
    if image.disk_type != DiskType::Differencing {
        return None;
    }
    if image.format == Format::Vhdx && image.blocks.partially_present() == 0 {
        return Some("no sector bitmap block");
    }
    (0..image.block_count()).find_map(|block| match image.blocks.get(block) {
        BlockState::Zero | BlockState::Undefined | BlockState::Unmapped => {
            Some("a block that is marked zero")
        }
        BlockState::PartiallyPresent(_) if image.format == Format::Vhd => {
            let bitmap = image.sector_bitmap(block).unwrap().unwrap();
            let whole = bitmap.as_bytes().iter().all(|byte| matches!(byte, 0 | 0xff));
            (!whole).then_some("a bitmap that is not of whole bytes")
        }
        _ => None,
    })
}

/// Reads a chain by libvhdi; none, and a visible line, where `$PYTHON` (or python3) has it not, and where it is
/// known to read wrong.
pub fn libvhdi(chain: &[&Path]) -> Option<Vec<u8>> {
    const SCRIPT: &str = "
import sys, pyvhdi
files = []
for path in sys.argv[1:]:
    file = pyvhdi.file(); file.open(path); files.append(file)
for child, parent in zip(files, files[1:]):
    assert child.get_parent_identifier() == parent.get_identifier(), 'parent identifiers differ'
    child.set_parent(parent)
disk, left = files[0], files[0].get_media_size()
while left > 0:
    data = disk.read(min(4 << 20, left)); left -= len(data)
    assert data
    sys.stdout.buffer.write(data)";
    if let Some(why) = chain.iter().find_map(|path| misread(path)) {
        println!("libvhdi is not asked: it misreads {why}");
        return None;
    }
    let python = python("pyvhdi")?;
    let args = [vec!["-c", SCRIPT], chain.iter().map(|path| text(path)).collect()].concat();
    Some(stdout(&python, &args))
}

/// Sectors of a FAT disk: no multiple of any block, and what its geometry gives.
const SECTORS: u64 = 963 * 4 * 17;

/// Three states of one FAT16 disk, each after files were deleted and others written: base, then two more.
pub fn fat_disks(dir: &Path) -> Option<[PathBuf; 3]> {
    if !have(&["mkfs.fat", "mcopy", "mdel", "fsck.fat"]) {
        return None;
    }
    let disks = [0, 1, 2].map(|n| dir.join(format!("disk{n}.raw")));
    sparse(&disks[0], SECTORS * 512);
    run("mkfs.fat", &["-F", "16", "-s", "4", "-n", "CHAIN", text(&disks[0])]);
    for (state, disk) in disks.iter().enumerate() {
        if let Some(before) = state.checked_sub(1) {
            fs::copy(&disks[before], disk).unwrap();
        }
        for n in 0..24 {
            let file = dir.join(format!("F{state}_{n}"));
            fs::write(&file, noise(320_000 + n * 7_777, state as u64 * 100 + n)).unwrap();
            run("mcopy", &["-i", text(disk), text(&file), "::/"]);
            fs::remove_file(file).unwrap();
        }
        // Half of them go at once: their bytes stay behind, and the next state's files take their place.
        for n in 0..12 {
            run("mdel", &["-i", text(disk), &format!("::/F{state}_{n}")]);
        }
    }
    Some(disks)
}

/// The digests of all files of a FAT disk.
pub fn fat_files(disk: &Path, dir: &Path) -> BTreeMap<PathBuf, String> {
    run("fsck.fat", &["-n", text(disk)]);
    let into = tempfile::tempdir_in(dir).unwrap();
    run("mcopy", &["-s", "-i", text(disk), "::/*", text(into.path())]);
    digests(into.path())
}

/// How a chain is to be made.
pub struct Recipe<'a> {
    /// What the names of the children end in.
    pub extension: &'a str,
    pub base: Shape,
    pub child: Shape,
}

/// The chain of `disks`, the base first.
pub fn chain(dir: &Path, disks: &[PathBuf], recipe: &Recipe) -> Chain {
    let mut files = vec![dir.join(format!("c0.{}", recipe.base.format().extension()))];
    recipe.base.write(&disks[0], &files[0]).unwrap();
    for (n, pair) in disks.windows(2).enumerate() {
        let file = dir.join(format!("c{}.{}", n + 1, recipe.extension));
        recipe.child.write_child(&pair[1], &file, &Parent { image: &files[0], disk: &pair[0] }).unwrap();
        files.insert(0, file);
    }
    let disk = fs::read(disks.last().unwrap()).unwrap();
    Chain { files, disk }
}
