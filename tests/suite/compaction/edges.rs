//! Damaged tables, crooked sizes, strange containers, chains.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use odd_images::{Absent, Creator, Parent, Shape};
use vhd_compactor::compact::{BlockSizeChoice, Mode, Options};
use vhd_compactor::image::Format;

use super::disks::{Container, RawDisk, Table, format_of, lay_out, qemu};
use super::judge::{Case, differences, extract, raw_of, stamps, structure};
use super::volumes::FileSystem;
use crate::toolbox::engine::compact;
use crate::toolbox::{MIB, ext, have, noise, read_at, run, sparse, stdout, text, write_at};

fn mode(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

fn can(fs: FileSystem) -> bool {
    have(&["qemu-img", "7zz", "sfdisk"]) && fs.can()
}

#[test]
fn the_backup_of_a_gpt_is_enough_and_neither_is_not() {
    if !can(FileSystem::Ext4) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = FileSystem::Ext4.make(dir);
    let disk = lay_out(FileSystem::Ext4, &volume, Table::Gpt, dir);
    write_at(&disk.path, 512, &[0; 33 * 512]);
    let case = Case::new(disk, &volume, dir);
    let source = Container::Vhdx(1).wrap(&case.disk.path, dir);
    let output = dir.join("out.vhdx");
    let outcome = case.judge(&source, &output, mode(Mode::Full), dir);
    assert!(outcome.reads_changed);

    let size = fs::metadata(&case.disk.path).unwrap().len();
    write_at(&case.disk.path, size - 512, &[0; 512]);
    let source = Container::Vhdx(1).wrap(&case.disk.path, dir);
    let (outcome, _) = compact(&source, &[], &output, Options { scrub: true, ..mode(Mode::Full) }).unwrap();
    assert!(!outcome.reads_changed);
    assert!(differences(&case.disk.path, &raw_of(&output, dir)).is_empty());
}

#[test]
fn what_follows_the_last_cluster_stays() {
    for fs in [FileSystem::Ntfs, FileSystem::Fat32, FileSystem::Ext4] {
        if !can(fs) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let volume = fs.make(dir);
        // Room at the end that no cluster covers; on NTFS the backup of the boot sector is the last but that.
        let len = fs::metadata(&volume).unwrap().len();
        File::options().write(true).open(&volume).unwrap().set_len(len + 8 * 512).unwrap();
        let tail = noise(8 * 512, 5);
        write_at(&volume, len, &tail);
        let disk = lay_out(fs, &volume, Table::Primary, dir);
        let end = disk.at + disk.len;
        let backup = read_at(&disk.path, end - 9 * 512, 512);
        let source = Container::Vhdx(1).wrap(&disk.path, dir);
        let output = dir.join("out.vhdx");
        compact(&source, &[], &output, Options { scrub: true, ..mode(Mode::Full) }).unwrap();
        assert_eq!(stamps(&output), 0);
        let raw = raw_of(&output, dir);
        assert_eq!(read_at(&raw, end - 8 * 512, tail.len()), tail);
        if fs == FileSystem::Ntfs {
            assert_eq!(&backup[3..7], b"NTFS");
            assert_eq!(read_at(&raw, end - 9 * 512, 512), backup);
        }
    }
}

#[test]
fn a_vhd_of_any_number_of_sectors_passes() {
    if !can(FileSystem::Ext2) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = FileSystem::Ext2.make(dir);
    for more in [1, 7, 4095] {
        let disk = lay_out(FileSystem::Ext2, &volume, Table::Primary, dir);
        let size = fs::metadata(&disk.path).unwrap().len() + more * 512;
        File::options().write(true).open(&disk.path).unwrap().set_len(size).unwrap();
        write_at(&disk.path, size - 512, &[0x77; 512]);
        let case = Case::new(disk, &volume, dir);
        let output = dir.join("out.vhd");
        for container in [Container::Vhd, Container::FixedVhd] {
            let source = container.wrap(&case.disk.path, dir);
            for block_size in [BlockSizeChoice::Smallest, BlockSizeChoice::Exactly(512 << 10)] {
                let options = Options { block_size, to_dynamic: true, ..mode(Mode::Full) };
                case.judge(&source, &output, options, dir);
            }
            case.judge(&source, &output, Options { to_dynamic: true, ..mode(Mode::Zero) }, dir);
        }
    }
}

/// Changes a VHD's footer and its copy, and sets their checksums right.
fn with_footer(path: &Path, change: impl Fn(&mut [u8])) {
    let len = fs::metadata(path).unwrap().len();
    let mut footer = read_at(path, len - 512, 512);
    change(&mut footer);
    footer[64..68].fill(0);
    let sum: u32 = footer.iter().map(|&byte| u32::from(byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    write_at(path, len - 512, &footer);
    write_at(path, 0, &footer);
}

/// QEMU believes the geometry of disks that old versions of it made, and Current Size of all others; here
/// the one is larger, or the other.
#[test]
fn a_geometry_that_disagrees_with_the_size_costs_nothing() {
    if !can(FileSystem::Ext4) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = FileSystem::Ext4.make(dir);
    let disk = lay_out(FileSystem::Ext4, &volume, Table::Gpt, dir);
    let size = fs::metadata(&disk.path).unwrap().len();
    let output = dir.join("out.vhd");
    // Creator, cylinders of 34 KiB (fewer or more than the disk has), and what Current Size is instead of its
    // size. The table serves the disk's size and no more.
    let cylinders = u16::try_from(size / 34_816).unwrap();
    let cases: [(&[u8; 4], u16, u64); 5] = [
        (b"qemu", cylinders, size),
        (b"qemu", cylinders, size + (40 << 20)),
        (b"vpc ", cylinders - 40, size),
        (b"vpc ", cylinders + 1, size - (2 << 20)),
        (b"win ", cylinders - 40, size - (1 << 20)),
    ];
    for (creator, cylinders, current) in cases {
        let source = Container::Vhd.wrap(&disk.path, dir);
        with_footer(&source, |footer| {
            footer[28..32].copy_from_slice(creator);
            footer[48..56].copy_from_slice(&current.to_be_bytes());
            footer[56..58].copy_from_slice(&cylinders.to_be_bytes());
            (footer[58], footer[59]) = (4, 17);
        });
        let by = i128::from(current) - i128::from(size);
        for options in [
            mode(Mode::Zero),
            Options { block_size: BlockSizeChoice::Exactly(512 << 10), ..mode(Mode::Zero) },
        ] {
            compact(&source, &[], &output, options).unwrap_or_else(|e| panic!("{creator:?} {by}: {e}"));
            run("qemu-img", &["compare", "-q", "-f", "vpc", "-F", "vpc", text(&source), text(&output)]);
        }
        compact(&source, &[], &output, Options { scrub: true, ..mode(Mode::Full) }).unwrap();
        let judged = dir.join("judged");
        extract(&raw_of(&output, dir), disk.at, disk.len, &judged);
        FileSystem::Ext4.check(&judged);
        assert_eq!(FileSystem::Ext4.digests(&judged, dir), FileSystem::Ext4.digests(&volume, dir));
    }
}

#[test]
fn the_largest_blocks_become_the_smallest() {
    if !can(FileSystem::Ntfs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = FileSystem::Ntfs.make(dir);
    let case = Case::new(lay_out(FileSystem::Ntfs, &volume, Table::Logical, dir), &volume, dir);
    let source = Container::Vhdx(256).wrap(&case.disk.path, dir);
    let output = dir.join("out.vhdx");
    let options = Options { block_size: BlockSizeChoice::Exactly(MIB), scrub: true, ..mode(Mode::Full) };
    let outcome = case.judge(&source, &output, options, dir);
    assert!(outcome.size <= case.size_to_reach(Container::Vhdx(1), dir));
    let source = Container::Vhdx(1).wrap(&case.disk.path, dir);
    let options =
        Options { block_size: BlockSizeChoice::Exactly(256 * MIB), scrub: true, ..mode(Mode::Quick) };
    case.judge(&source, &output, options, dir);
}

/// The disk as 7-Zip reads it, through parents that lie beside it.
fn raw_by_7zip(image: &Path, dir: &Path) -> PathBuf {
    let raw = dir.join("by-7zip.raw");
    let kind = image.extension().unwrap().to_str().unwrap();
    fs::write(&raw, stdout("7zz", &["x", "-so", &format!("-t{kind}"), text(image)])).unwrap();
    raw
}

fn bare(fs: FileSystem, dir: &Path) -> Option<(RawDisk, PathBuf)> {
    if !can(fs) {
        return None;
    }
    let volume = fs.make(dir);
    Some((lay_out(fs, &volume, Table::Bare, dir), volume))
}

#[test]
fn shapes_that_no_stock_tool_makes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some((disk, volume)) = bare(FileSystem::Ext4, dir) else { return };
    let before = FileSystem::Ext4.digests(&volume, dir);
    let (vhd, vhdx) = (Shape::vhd, || Shape::of(odd_images::Format::Vhdx));
    for shape in [
        vhd().block_size(512 << 10).shuffled(3),
        vhd().block_size(512 << 10).sparse_bitmaps(),
        vhd().storing_zeros().leaking(3),
        vhd().block_size(4 << 10).shuffled(9).gap(),
        vhd().block_size(16 * MIB).creator(Creator::XenServer),
        vhdx().shuffled(4).leaking(5).absent(Absent::Mixed),
        vhdx().block_size(2 * MIB).open_log().absent(Absent::Zero),
        vhdx().sector_size(4096).absent(Absent::Unmapped),
        vhdx().block_size(8 * MIB).fixed().shuffled(1),
    ] {
        let kind = shape.format().extension();
        let (source, output) = (dir.join(format!("in.{kind}")), dir.join(format!("out.{kind}")));
        shape.write(&disk.path, &source).unwrap();
        for options in [mode(Mode::Zero), mode(Mode::Quick), Options { scrub: true, ..mode(Mode::Full) }] {
            let options = Options { to_dynamic: true, ..options };
            compact(&source, &[], &output, options).unwrap_or_else(|e| panic!("{shape:?} {options:?}: {e}"));
            // 7-Zip reads no other blocks in a VHD.
            if kind == "vhdx" || matches!(shape.bytes_a_block() >> 19, 1 | 4) {
                structure_of(&output, &shape);
            }
            let raw = if kind == "vhdx" { raw_by_7zip(&output, dir) } else { raw_of(&output, dir) };
            let differ = differences(&disk.path, &raw);
            assert!(differ.ranges().iter().all(|r| disk.free.contains(r.clone())), "{shape:?} {options:?}");
            assert!(options.mode != Mode::Zero || differ.is_empty(), "{shape:?}");
            assert!(!options.scrub || stamps(&output) == 0, "{shape:?}");
            assert_eq!(FileSystem::Ext4.digests(&raw, dir), before, "{shape:?} {options:?}");
        }
    }
}

/// As [`structure`], but qemu-img is not asked of sectors it does not read.
fn structure_of(image: &Path, shape: &Shape) {
    if shape.bytes_a_sector() != 512 {
        let told = run("7zz", &["t", text(image)]);
        assert!(told.contains("Everything is Ok") && !told.contains("WARNING"), "{told}");
    } else {
        structure(image);
    }
}

/// base ← child: the child deletes half of what the base holds, and adds to it. Poison lies in the
/// sectors of the child that are not its own.
#[test]
fn chains_keep_their_files_link_by_link_and_merged() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some((base, volume)) = bare(FileSystem::Ext2, dir) else { return };
    let changed = dir.join("changed");
    fs::copy(&volume, &changed).unwrap();
    let added = dir.join("added");
    fs::write(&added, noise(700_000, 99)).unwrap();
    let commands = ["rm live2.dat", "rm live4.dat", "rm live9.dat"].map(str::to_owned);
    let add = [format!("write {} added.dat", text(&added))];
    ext::debugfs(&changed, &[&commands[..], &add].concat(), dir);
    let before = FileSystem::Ext2.digests(&changed, dir);
    let free = FileSystem::Ext2.free(&changed, dir);
    for kind in [odd_images::Format::Vhd, odd_images::Format::Vhdx] {
        let name = |stem: &str| dir.join(format!("{stem}.{}", kind.extension()));
        let (parent, child, output) = (name("base"), name("child"), name("out"));
        let shape = Shape::of(kind);
        shape.clone().shuffled(2).write(&base.path, &parent).unwrap();
        let shape = shape.shuffled(6).poisoned();
        shape.write_child(&changed, &child, &Parent { image: &parent, disk: &base.path }).unwrap();
        for mode_of in [Mode::Zero, Mode::Quick, Mode::Full] {
            let options = Options { scrub: true, drop_page_files: true, ..mode(mode_of) };
            compact(&child, &[&parent], &output, options).unwrap();
            let differ = differences(&changed, &raw_by_7zip(&output, dir));
            assert!(differ.ranges().iter().all(|r| free.contains(r.clone())), "{kind:?} {mode_of:?}");
            // A differencing VHD has no mark for what is free.
            assert!(
                differ.is_empty() || kind == odd_images::Format::Vhdx && mode_of != Mode::Zero,
                "{kind:?} {mode_of:?}"
            );
            if mode_of == Mode::Zero {
                compact(&child, &[], &output, options).unwrap();
                assert!(differences(&changed, &raw_by_7zip(&output, dir)).is_empty());
            }
        }
        for format in [Format::Vhd, Format::Vhdx] {
            let flat = dir.join(format!("flat.{}", format.name()));
            let options = Options { flatten: true, format: Some(format), ..mode(Mode::Full) };
            compact(&child, &[&parent], &flat, options).unwrap();
            structure(&flat);
            let raw = raw_of(&flat, dir);
            let differ = differences(&changed, &raw);
            assert!(differ.ranges().iter().all(|r| free.contains(r.clone())), "{kind:?} to {format:?}");
            FileSystem::Ext2.check(&raw);
            assert_eq!(FileSystem::Ext2.digests(&raw, dir), before);
            let again = dir.join(format!("again.{}", format.name()));
            compact(&flat, &[], &again, mode(Mode::Zero)).unwrap();
            let known = qemu(format_of(&flat));
            run("qemu-img", &["compare", "-q", "-f", known, "-F", known, text(&flat), text(&again)]);
        }
    }
}

/// Half a tebibyte, so that the table is written in several steps.
#[test]
fn a_long_table_is_written_to_its_end() {
    if !have(&["qemu-img", "qemu-io", "7zz"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    sparse(&raw, 700 << 30);
    let places = [5 << 20, 300 << 30, (700 << 30) - 4096];
    for place in places {
        write_at(&raw, place, &noise(4096, place));
    }
    for (container, options) in [
        (Container::Vhd, mode(Mode::Full)),
        (Container::Vhdx(1), mode(Mode::Full)),
        (Container::Vhdx(32), Options { format: Some(Format::Vhd), ..mode(Mode::Full) }),
        (Container::Vhd, Options { format: Some(Format::Vhdx), ..mode(Mode::Quick) }),
    ] {
        let source = container.wrap(&raw, dir.path());
        let format = options.format.unwrap_or(format_of(&source));
        let output = dir.path().join(format!("out.{}", format.name()));
        compact(&source, &[], &output, options).unwrap();
        // To compare all of it takes minutes.
        for place in places {
            let read = |path: &Path| {
                let command = format!("read -v {place} 4096");
                let told = run("qemu-io", &["-r", "-f", qemu(format_of(path)), "-c", &command, text(path)]);
                told.lines().take(256).collect::<Vec<_>>().join("\n")
            };
            assert_eq!(read(&output), read(&source));
            assert!(read(&output).contains(&hex(&noise(8, place))));
        }
        let told = run("7zz", &["l", text(&output)]);
        assert!(!told.contains("ERROR") && !told.contains("WARNING"), "{told}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
