//! Damage to containers: what other programs read of a damaged image is what is read here, or it is refused here.
//!
//! ```text
//!   image + damage ─┬─► opened here ──┬─► the same bytes of the disk, or LOST
//!                   └─► QEMU reads it ┘
//!                   └─► opened here ──► compacted ─► QEMU, 7-Zip and libvhdi read of the new image
//!                                                    what they read of the damaged one, or LOST
//! ```
//! QEMU replays a VHDX's log before it reads (`qemu-img check -r all`, on a copy). Being stricter than QEMU loses
//! nothing; so does reading what it refuses, as long as its own sums allow it.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use odd_images::{Absent, Creator, Shape};
use vhd_compactor::compact::{Mode, Options};

use super::Patch;
use super::damage::{bytes, piece, put};
use super::frame::wanted;
use crate::toolbox::engine::{analyse, compact_damaged, read_disk};
use crate::toolbox::ext_layout::crc32c;
use crate::toolbox::{MIB, Random, command, have, noise, python, sparse, text, try_run, write_at};

const SECTOR: u64 = 512;
const DISK: u64 = 6 * MIB;
/// The parts of a VHD that have a checksum: their start, length, cookie and the place of the sum.
const VHD_PARTS: [(u64, u64, &[u8], usize); 2] = [(0, 512, b"conectix", 64), (512, 1024, b"cxsparse", 36)];
/// The parts of a VHDX that have one, at byte 4: headers and region tables.
const VHDX_PARTS: [(u64, u64); 4] =
    [(64 << 10, 4 << 10), (128 << 10, 4 << 10), (192 << 10, 64 << 10), (256 << 10, 64 << 10)];

/// A sound image and where its structures lie.
struct Container {
    /// As QEMU calls its format.
    format: &'static str,
    image: Vec<u8>,
    structures: Vec<Range<u64>>,
}

impl Container {
    fn new(shape: &Shape, format: &'static str, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (disk, image) = (folder.path().join("disk"), folder.path().join("image"));
        sparse(&disk, DISK);
        // Some blocks hold something throughout, some a few sectors, some zeros.
        for block in (0..DISK / MIB).filter(|block| block % 3 != 2) {
            let len = if block % 3 == 0 { MIB } else { 8 * SECTOR };
            write_at(&disk, block * MIB + block * SECTOR, &noise(len - block * SECTOR % len, seed + block));
        }
        shape.write(&disk, &image).unwrap();
        let image = fs::read(image).unwrap();
        let structures = if format == "vpc" { vhd_structures(&image) } else { vhdx_structures(&image) };
        Self { format, image, structures }
    }

    /// A few changes of its structures, most often with sums that are right.
    fn damaged(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.image.clone();
        for _ in 0..1 + random.below(3) {
            for Patch { at, bytes } in self.change(random) {
                let at = at as usize;
                image[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if random.below(8) == 0 {
            image.truncate((image.len() as u64 - random.below(2 * MIB)) as usize);
        }
        if random.below(8) > 0 {
            if self.format == "vpc" { seal_vhd(&mut image) } else { seal_vhdx(&mut image) }
        }
        image
    }

    fn change(&self, random: &mut Random) -> Vec<Patch> {
        let width = [1, 2, 4, 8][random.below(4) as usize];
        let (to, from) = (piece(&self.structures, width, random), piece(&self.structures, width, random));
        match random.below(5) {
            0 => put(to.clone(), random.bytes(to.end - to.start)),
            1 => put(
                to.clone(),
                vec![[0, 0xFF, 1, 0x80][random.below(4) as usize]; (to.end - to.start) as usize],
            ),
            2 => put(to.clone(), vec![self.image[to.start as usize] ^ 1 << random.below(8)]),
            3 if from.end - from.start == to.end - to.start => put(to, bytes(&self.image, &from)),
            _ => {
                let part = piece(&self.structures, SECTOR, random);
                let len = part.end - part.start;
                put(part, vec![0; len as usize])
            }
        }
    }
}

fn be32(image: &[u8], at: usize) -> u64 {
    u32::from_be_bytes(image[at..at + 4].try_into().unwrap()).into()
}

fn le64(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

/// The footers, the dynamic header, the table, and the sector bitmaps of stored blocks.
fn vhd_structures(image: &[u8]) -> Vec<Range<u64>> {
    let end = image.len() as u64;
    let (table, entries) = (be32(image, 512 + 20), be32(image, 512 + 28));
    // The fields in use, several times: the rest says nothing.
    let mut structures = vec![0..88, 0..88, end - SECTOR..end - SECTOR + 88, 512..576, 512..576];
    structures.extend([table..table + 4 * entries, table..table + 4 * entries, table..table + 4 * entries]);
    for entry in 0..entries {
        let sector = be32(image, (table + 4 * entry) as usize);
        if sector != u64::from(u32::MAX) {
            structures.push(sector * SECTOR..sector * SECTOR + SECTOR);
        }
    }
    structures
}

/// The headers, region tables, metadata and block table, and the log.
fn vhdx_structures(image: &[u8]) -> Vec<Range<u64>> {
    const KIB: u64 = 1 << 10;
    let mut structures = vec![0..8];
    for at in [64 * KIB, 128 * KIB] {
        structures.extend([at..at + 80, at..at + 80]);
    }
    let log = (le64(image, (64 * KIB) as usize + 72), le64(image, (64 * KIB) as usize + 64) >> 32);
    structures.push(log.0..log.0 + log.1.min(16 * KIB));
    for at in [192 * KIB, 256 * KIB] {
        structures.push(at..at + 80);
        for entry in 0..2 {
            let place = le64(image, (at + 16 + 32 * entry + 16) as usize);
            // Table of the metadata and its values, or the first entries of the block table.
            structures.extend([place..place + 256, place + 64 * KIB..place + 64 * KIB + 64]);
            structures.extend([place..place + 8 * 16, place..place + 8 * 16]);
        }
    }
    structures.retain(|range| range.end <= image.len() as u64);
    structures
}

fn seal_vhd(image: &mut [u8]) {
    let last = (image.len() as u64).saturating_sub(SECTOR);
    for (at, len, cookie, sum) in VHD_PARTS.into_iter().chain([(last, 512, &b"conectix"[..], 64)]) {
        let Some(part) = image.get_mut(at as usize..(at + len) as usize) else { continue };
        if part.starts_with(cookie) {
            part[sum..sum + 4].fill(0);
            let total = part.iter().fold(0u32, |total, &byte| total.wrapping_add(byte.into()));
            part[sum..sum + 4].copy_from_slice(&(!total).to_be_bytes());
        }
    }
}

fn seal_vhdx(image: &mut [u8]) {
    for (at, len) in VHDX_PARTS {
        let Some(part) = image.get_mut(at as usize..(at + len) as usize) else { continue };
        part[4..8].fill(0);
        let sum = !crc32c(u32::MAX, part);
        part[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What QEMU reads of an image; none where it refuses it.
fn by_qemu(image: &Path, format: &str, folder: &Path) -> Option<Vec<u8>> {
    let (copy, raw) = (folder.join("copy"), folder.join("raw"));
    fs::copy(image, &copy).unwrap();
    if format == "vhdx" {
        try_run("timeout", &["20", "qemu-img", "check", "-q", "-r", "all", "-f", format, text(&copy)]);
    }
    // A damaged size must not fill the disk.
    let limit = "ulimit -f 131072; exec timeout 20 \"$@\"";
    let convert = ["qemu-img", "convert", "-f", format, "-O", "raw", text(&copy), text(&raw)];
    let done = command("sh").args(["-c", limit, "sh"]).args(convert).output().unwrap();
    done.status.success().then(|| fs::read(raw).unwrap())
}

/// What 7-Zip reads of an image; none where it refuses it.
fn by_seven_zip(image: &Path, format: &str) -> Option<Vec<u8>> {
    let kind = if format == "vpc" { "-tvhd" } else { "-tvhdx" };
    let output = try_run("timeout", &["20", "7zz", "x", "-so", kind, text(image)]);
    output.status.success().then_some(output.stdout)
}

/// What libvhdi reads of an image; none where it refuses it.
fn by_libvhdi(python: &str, image: &Path) -> Option<Vec<u8>> {
    const READ: &str = "
import sys, pyvhdi
disk = pyvhdi.file(); disk.open(sys.argv[1])
size = disk.get_media_size()
assert size < 1 << 26
while size:
    data = disk.read(min(size, 1 << 20)); sys.stdout.buffer.write(data); size -= len(data)
    assert data";
    let output = try_run("timeout", &["20", python, "-c", READ, text(image)]);
    output.status.success().then_some(output.stdout)
}

/// What each of the other programs reads of an image.
struct Readings([(&'static str, Option<Vec<u8>>); 3]);

impl Readings {
    fn of(image: &Path, format: &str, python: Option<&str>, folder: &Path) -> Self {
        Self([
            ("QEMU", by_qemu(image, format, folder)),
            ("7-Zip", by_seven_zip(image, format)),
            ("libvhdi", python.and_then(|python| by_libvhdi(python, image))),
        ])
    }

    fn by_qemu(&self) -> Option<&[u8]> {
        self.0[0].1.as_deref()
    }
}

/// How often what came to pass.
#[derive(Default, Debug)]
struct Tally {
    both_refuse: u64,
    only_qemu_reads: u64,
    only_read_here: u64,
    read_alike: u64,
    compacted: u64,
    /// Programs that read the image before and after it was compacted.
    judges: u64,
}

fn damaged(name: &str, containers: &[Container]) {
    let folder = tempfile::tempdir().unwrap();
    let (image, new) = (folder.path().join("image"), folder.path().join("new"));
    let python = python("pyvhdi");
    let (mut tally, mut losses) = (Tally::default(), Vec::new());
    for number in 0..wanted() {
        let container = &containers[number as usize % containers.len()];
        fs::write(&image, container.damaged(&mut Random::new(number + 1))).unwrap();
        let read = |image| Readings::of(image, container.format, python.as_deref(), folder.path());
        let Ok(ours) = read_disk(&image, &[]) else {
            let theirs = by_qemu(&image, container.format, folder.path());
            if theirs.is_some() {
                tally.only_qemu_reads += 1
            } else {
                tally.both_refuse += 1
            }
            continue;
        };
        let before = read(&image);
        match before.by_qemu() {
            None => tally.only_read_here += 1,
            // Programs disagree on the size of a VHD's disk, and on nothing before its end.
            Some(theirs) if theirs.iter().zip(&ours).all(|(a, b)| a == b) => tally.read_alike += 1,
            Some(theirs) => {
                let at = theirs.iter().zip(&ours).position(|(a, b)| a != b);
                losses.push(format!("damage {number}: QEMU reads another byte at {at:?}"));
            }
        }
        let zero = Options { mode: Mode::Zero, ..Options::default() };
        let analysis = Rc::new(analyse(&image, &[]).unwrap());
        if compact_damaged(&analysis, &image, &[], &new, zero).is_err() {
            continue;
        }
        tally.compacted += 1;
        // Programs disagree on sectors whose bit is clear, so each is asked what it made of them before.
        for ((program, old), (_, new)) in before.0.into_iter().zip(read(&new).0) {
            let Some(old) = old else { continue };
            // libvhdi replays no log, and reads another disk before than after.
            if container.format == "vhdx" && old != ours {
                continue;
            }
            tally.judges += 1;
            // QEMU goes by one of a VHD's two footers for the size, and the new image has one footer twice.
            let may_be_shorter = program == "QEMU" && container.format == "vpc";
            let same = |new: &Vec<u8>| {
                (new.len() == old.len() || may_be_shorter) && new.iter().zip(&old).all(|(a, b)| a == b)
            };
            if !new.as_ref().is_some_and(same) {
                let size = new.as_ref().map(Vec::len);
                let at = new.and_then(|new| old.iter().zip(&new).position(|(a, b)| a != b));
                losses.push(format!(
                    "damage {number}: {program} reads the new image differently at {at:?}, {size:?} of {} bytes",
                    old.len()
                ));
            }
        }
    }
    println!("\n{name}: {tally:?}\n");
    assert!(losses.is_empty(), "{name}: {} lost:\n{}", losses.len(), losses.join("\n"));
    assert!(tally.read_alike > 0 && tally.judges > tally.compacted, "no damage was harmless");
}

#[test]
fn damaged_vhds_read_as_elsewhere_or_not_at_all() {
    if !have(&["qemu-img", "7zz", "timeout"]) {
        return;
    }
    let shape = || Shape::vhd().block_size(MIB).storing_zeros().creator(Creator::Qemu);
    damaged(
        "VHD",
        &[
            Container::new(&shape(), "vpc", 1),
            Container::new(&shape().shuffled(3).leaking(3), "vpc", 2),
            Container::new(&Shape::vhd().gap(), "vpc", 3),
        ],
    );
}

#[test]
fn damaged_vhdxs_read_as_elsewhere_or_not_at_all() {
    if !have(&["qemu-img", "7zz", "timeout"]) {
        return;
    }
    let shape = || Shape::vhdx().block_size(MIB).storing_zeros();
    damaged(
        "VHDX",
        &[
            Container::new(&shape(), "vhdx", 1),
            Container::new(&shape().shuffled(3).leaking(3), "vhdx", 2),
            Container::new(&shape().open_log(), "vhdx", 3),
            Container::new(&Shape::vhdx().block_size(2 * MIB).absent(Absent::Mixed), "vhdx", 4),
        ],
    );
}
