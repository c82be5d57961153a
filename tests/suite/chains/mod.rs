//! Chains of differencing disks, judged by strangers: what a child and its parents read before and after is
//! the same wherever no file system proves it free. 7-Zip finds the parents by the names that the locators
//! give, libvhdi by the identifiers, so both ways of finding them are tried.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use odd_images::{Absent, Creator, Format, Shape};
use vhd_compactor::ErrorKind;
use vhd_compactor::compact::BlockSizeChoice::{Exactly, Keep};
use vhd_compactor::compact::{Mode, Options};
use vhd_compactor::extents::Extents;

use crate::toolbox::engine::{analyse, compact, read_disk, refused};
use crate::toolbox::{MIB, have, noise, run, text, unpack};
use support::{Chain, Recipe, chain, fat_disks, fat_files, libvhdi, same_outside, seven_zip};

/// A chain of plain images, with children of another block size.
fn plain(format: Format, block_size: u64) -> Recipe<'static> {
    let shape = Shape::of(format);
    Recipe { extension: format.extension(), base: shape.clone(), child: shape.block_size(block_size) }
}

fn mode(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

fn flat(mode: Mode) -> Options {
    Options { mode, flatten: true, ..Options::default() }
}

/// Compacts the child with the first `given` parents and has every stranger read the result beside the
/// parents. Gives the size of the result.
fn judge(chain: &Chain, given: usize, options: Options) -> u64 {
    let parents = chain.parents();
    let free = match options.mode {
        Mode::Zero => Extents::new(),
        _ if given < parents.len() => Extents::new(),
        _ => chain.free(),
    };
    let output = chain.child().with_file_name(format!("out.{}", chain.kind()));
    // The parents in the wrong order.
    let some: Vec<&Path> = parents[..given].iter().rev().copied().collect();
    let (outcome, _) = compact(chain.child(), &some, &output, options).unwrap();
    let rest: &[&Path] = if options.flatten { &[] } else { &parents };
    let ours = read_disk(&output, rest).unwrap();
    same_outside(&free, &chain.disk, &ours);
    assert!(outcome.reads_changed || ours == chain.disk, "the person was not told");
    if have(&["7zz"]) {
        assert!(seven_zip(&output) == ours, "7zz reads it differently");
    }
    if let Some(read) = libvhdi(&[&[output.as_path()], rest].concat()) {
        assert!(read == ours, "libvhdi reads it differently");
    }
    let size = fs::metadata(&output).unwrap().len();
    fs::remove_file(output).unwrap();
    size
}

/// A Windows-made child and its parent, under the names by which they know each other.
fn windows_chain(dir: &Path, extension: &str) -> Option<Chain> {
    let child = unpack(&format!("dfvfs-ntfs-differential.{extension}"), dir)?;
    let parent = unpack(&format!("dfvfs-ntfs-parent.{extension}"), dir)?;
    let named = dir.join(format!("ntfs-parent.{extension}"));
    fs::rename(parent, &named).unwrap();
    let disk = read_disk(&child, &[&named]).unwrap();
    if have(&["7zz"]) {
        assert!(seven_zip(&child) == disk);
    }
    Some(Chain { files: vec![child, named], disk })
}

fn windows(extension: &str) {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = windows_chain(dir.path(), extension) else { return };
    let source = fs::metadata(chain.child()).unwrap().len();
    for asked in [Mode::Zero, Mode::Full, Mode::Quick] {
        let alone = judge(&chain, 0, mode(asked));
        let with_parent = judge(&chain, 1, mode(asked));
        assert!(with_parent <= alone && alone <= source, "{asked:?}: {with_parent} {alone} {source}");
        judge(&chain, 1, flat(asked));
    }
    let output = dir.path().join("refused");
    let error = refused(compact(chain.child(), &[], &output, flat(Mode::Zero)));
    let name = format!("“ntfs-parent.{extension}” (last known as “C:\\Projects\\dfvfs");
    assert!(error.kind() == ErrorKind::NeedsParent && error.to_string().contains(&name), "{error}");
    let error = refused(compact(chain.child(), &[chain.child()], &output, mode(Mode::Zero)));
    assert!(error.kind() == ErrorKind::NeedsParent && error.to_string().contains(&name), "{error}");
}

#[test]
fn a_windows_made_vhd_chain_reads_the_same() {
    windows("vhd");
}

#[test]
fn a_windows_made_vhdx_chain_reads_the_same() {
    windows("vhdx");
}

/// Chains of three in the shapes that their makers leave: a file system in which files were deleted and
/// written in every layer, looked at through the whole chain.
fn file_system_chain(recipe: &Recipe) {
    let dir = tempfile::tempdir().unwrap();
    let Some(disks) = fat_disks(dir.path()) else { return };
    let chain = chain(dir.path(), &disks, recipe);
    let files = fat_files(&disks[2], dir.path());
    assert_eq!(files.len(), 36);
    let free = chain.free();
    assert!(free.total() > 4 << 20, "the file system was not read through the chain");
    let source = fs::metadata(chain.child()).unwrap().len();
    let mut smallest = source;
    for given in 0..=2 {
        for asked in [Mode::Zero, Mode::Full] {
            let size = judge(&chain, given, mode(asked));
            // Payload moves to 4 KiB boundaries, which costs up to that much a block.
            assert!(size <= smallest + smallest / 100, "{given} {asked:?}: {size} after {smallest}");
            smallest = size.min(smallest);
        }
    }
    if chain.kind() == "vhdx" {
        assert!(smallest < source, "free space of a VHDX child goes");
    }
    let all = judge(&chain, 2, flat(Mode::Zero));
    let used = judge(&chain, 2, flat(Mode::Full));
    assert!(used < all, "merging drops what is free: {used} of {all}");
    // Every file of the merged disk, by way of 7-Zip and mtools.
    if have(&["7zz"]) {
        let output = dir.path().join("merged");
        compact(chain.child(), &chain.parents(), &output, Options { scrub: true, ..flat(Mode::Full) })
            .unwrap();
        let raw = dir.path().join("merged.raw");
        fs::write(&raw, seven_zip(&output)).unwrap();
        assert!(fat_files(&raw, dir.path()) == files);
        let bytes = fs::read(&raw).unwrap();
        let blank = |range: &std::ops::Range<u64>| {
            bytes[range.start as usize..range.end as usize].iter().all(|&b| b == 0)
        };
        assert!(free.ranges().iter().all(blank), "scrubbed");
    }
}

#[test]
fn a_chain_of_hyper_v_checkpoints_reads_the_same() {
    file_system_chain(&Recipe {
        extension: "avhdx",
        base: Shape::of(Format::Vhdx).block_size(2 * MIB).absent(Absent::Mixed),
        child: Shape::of(Format::Vhdx).poisoned(),
    });
}

#[test]
fn a_chain_on_a_fixed_vhdx_reads_the_same() {
    file_system_chain(&Recipe {
        extension: "vhdx",
        base: Shape::of(Format::Vhdx).fixed(),
        child: Shape::of(Format::Vhdx).block_size(2 * MIB).shuffled(5),
    });
}

#[test]
fn a_virtual_pc_chain_on_a_fixed_vhd_reads_the_same() {
    let made_by_virtual_pc = Shape::vhd().creator(Creator::VirtualPc);
    file_system_chain(&Recipe {
        extension: "vhd",
        base: made_by_virtual_pc.clone().fixed(),
        child: made_by_virtual_pc.block_size(512 << 10).poisoned(),
    });
}

#[test]
fn a_xenserver_chain_reads_the_same() {
    let made_by_xenserver = Shape::vhd().creator(Creator::XenServer);
    file_system_chain(&Recipe {
        extension: "avhd",
        base: made_by_xenserver.clone().leaking(3),
        child: made_by_xenserver.shuffled(3).gap(),
    });
}

/// Sectors of 4096 bytes, single ones at odd places, and a last block that is cut.
#[test]
fn a_chain_with_sectors_of_4096_bytes_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let disks: Vec<PathBuf> = (0..3).map(|n| dir.path().join(format!("disk{n}"))).collect();
    let mut disk = noise((6 << 20) + (8 << 12), 1);
    disk[2 << 20..3 << 20].fill(0);
    fs::write(&disks[0], &disk).unwrap();
    for (n, path) in disks.iter().enumerate().skip(1) {
        // A few sectors in the middle, a whole MiB of zeros over data, and one of data over zeros.
        for at in [1, 255, 256, 700, 1537, 1540].map(|sector| (sector + n) << 12) {
            disk[at..at + 4096].copy_from_slice(&noise(4096, (at + n) as u64));
        }
        disk[(2 + n) << 20..(3 + n) << 20].fill(0);
        disk[2 << 20..3 << 20].copy_from_slice(&noise(1 << 20, n as u64));
        fs::write(path, &disk).unwrap();
    }
    let shape = Shape::of(Format::Vhdx).sector_size(4096);
    let recipe = Recipe { extension: "vhdx", base: shape.clone(), child: shape.poisoned() };
    let chain = chain(dir.path(), &disks, &recipe);
    for given in 0..=2 {
        judge(&chain, given, mode(Mode::Full));
    }
    judge(&chain, 2, flat(Mode::Full));
}

/// A child over a parent that holds data where the child is zero: the bug of other tools, judged by others.
#[test]
fn zeros_over_data_stay_zeros() {
    for format in [Format::Vhd, Format::Vhdx] {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<PathBuf> = (0..2).map(|n| dir.path().join(format!("disk{n}"))).collect();
        let mut disk = noise(8 << 20, 3);
        fs::write(&disks[0], &disk).unwrap();
        disk[2 << 20..5 << 20].fill(0);
        fs::write(&disks[1], &disk).unwrap();
        let recipe = plain(format, MIB);
        let chain = chain(dir.path(), &disks, &recipe);
        let source = fs::metadata(chain.child()).unwrap().len();
        for given in 0..=1 {
            let size = judge(&chain, given, mode(Mode::Zero));
            match format {
                Format::Vhd => assert!(size >= source, "a VHD has no mark for zeros: {size} of {source}"),
                Format::Vhdx => assert!(size + (3 << 20) <= source, "{size} of {source}"),
            }
        }
    }
}

/// What a merge writes is one dynamic disk, which every program reads alone.
#[test]
fn a_merged_chain_is_read_by_qemu() {
    if !have(&["qemu-img"]) {
        return;
    }
    for (format, driver) in [(Format::Vhd, "vpc"), (Format::Vhdx, "vhdx")] {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<PathBuf> = (0..2).map(|n| dir.path().join(format!("disk{n}"))).collect();
        fs::write(&disks[0], noise(6 << 20, 3)).unwrap();
        let mut disk = noise(6 << 20, 3);
        disk[777 * 512..4 << 20].fill(0);
        disk[5 << 20..].copy_from_slice(&noise(1 << 20, 8));
        fs::write(&disks[1], &disk).unwrap();
        let recipe = plain(format, 2 * MIB);
        let chain = chain(dir.path(), &disks, &recipe);
        for (output_format, block_size) in
            [(None, Keep), (None, Exactly(2 << 20)), (Some("vhdx"), Exactly(1 << 20))]
        {
            let format = output_format.map(|_| vhd_compactor::image::Format::Vhdx);
            let output = dir.path().join("merged");
            let options = Options { format, block_size, ..flat(Mode::Zero) };
            compact(chain.child(), &chain.parents(), &output, options).unwrap();
            let driver = output_format.unwrap_or(driver);
            run("qemu-img", &["compare", "-f", "raw", "-F", driver, text(&disks[1]), text(&output)]);
        }
    }
}

/// The person is asked for what is missing by name, and every wrong set of files is refused with a reason.
#[test]
fn a_person_is_told_what_is_missing_and_what_is_wrong() {
    for format in [Format::Vhd, Format::Vhdx] {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<PathBuf> = (0..3).map(|n| dir.path().join(format!("disk{n}"))).collect();
        for (n, disk) in disks.iter().enumerate() {
            fs::write(disk, noise(3 << 20, n as u64)).unwrap();
        }
        let recipe = plain(format, MIB);
        let chain = chain(dir.path(), &disks, &recipe);
        let [child, middle, base] = [0, 1, 2].map(|n| chain.files[n].as_path());
        let incomplete = analyse(child, &[middle]).unwrap();
        assert!(!incomplete.disk().is_complete());
        let missing = incomplete.disk().missing_parent().unwrap().describe();
        assert_eq!(missing, expected_link("c0", format.extension()));
        for (given, kind, part) in [
            (vec![base], ErrorKind::NeedsParent, expected_link("c1", format.extension())),
            (vec![child], ErrorKind::NeedsParent, expected_link("c1", format.extension())),
            (vec![middle, base, child], ErrorKind::InvalidArgument, "is no parent of this image".into()),
            (vec![middle, middle, base], ErrorKind::InvalidArgument, "both have the identifier".into()),
        ] {
            let error = refused(analyse(child, &given));
            assert!(error.kind() == kind && error.to_string().contains(&part), "{error}");
        }
        let error = refused(analyse(child, &[middle, &disks[0]]));
        assert_eq!(error.kind(), ErrorKind::NotRecognised);
        assert!(error.to_string().contains("disk0: this is no VHD"), "{error}");
        let error = refused(analyse(base, &[middle]));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

/// As the writer of odd images notes a parent.
fn expected_link(name: &str, format: &str) -> String {
    format!("“{name}.{format}” (last known as “C:\\vm\\{name}.{format}”)")
}
