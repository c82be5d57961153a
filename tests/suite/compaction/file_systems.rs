//! Every file system, in every place of a disk, in every container, with every option: not each with each, but
//! each file system meets all options, and two of the four places, of the containers and of the block sizes.

use vhd_compactor::compact::{BlockSizeChoice, Mode, Options};
use vhd_compactor::image::Format;

use super::disks::{Container, Table, lay_out};
use super::judge::Case;
use super::volumes::FileSystem;
use crate::toolbox::{MIB, have};

fn mode(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

/// Compactions of one file system, each judged, and the sizes that were reached.
fn judge(fs: FileSystem) {
    if !have(&["qemu-img", "7zz", "sfdisk"]) || !fs.can() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let volume = fs.make(dir);
    let number = FileSystem::ALL.iter().position(|&other| other == fs).unwrap();
    let table = |n: usize| Table::ALL[(number + n) % 4];
    let [first, second] = [0, 1].map(|n| Case::new(lay_out(fs, &volume, table(n), dir), &volume, dir));
    let (vhd, vhdx) = (dir.join("out.vhd"), dir.join("out.vhdx"));
    let reach = |case: &Case, container: Container, size: u64| {
        let reference = case.size_to_reach(container, dir);
        let allowed =
            if container == Container::Vhd { reference + reference * 3 / 1000 + 4096 } else { reference };
        assert!(size <= allowed, "{fs:?} {container:?}: {size} bytes, and qemu-img needs {reference}");
    };

    let source = Container::Vhd.wrap(&first.disk.path, dir);
    let outcome = first.judge(&source, &vhd, mode(Mode::Full), dir);
    reach(&first, Container::Vhd, outcome.size);
    first.judge(&source, &vhd, mode(Mode::Zero), dir);
    let small = Options { scrub: true, block_size: BlockSizeChoice::Exactly(512 << 10), ..mode(Mode::Quick) };
    first.judge(&source, &vhd, small, dir);
    let recast =
        Options { format: Some(Format::Vhdx), block_size: BlockSizeChoice::Exactly(MIB), ..mode(Mode::Full) };
    let outcome = first.judge(&source, &vhdx, recast, dir);
    reach(&first, Container::Vhdx(1), outcome.size);

    let source = Container::Vhdx(32).wrap(&second.disk.path, dir);
    second.judge(&source, &vhdx, Options { scrub: true, ..mode(Mode::Full) }, dir);
    let finer = Options { block_size: BlockSizeChoice::Exactly(MIB), ..mode(Mode::Full) };
    let outcome = second.judge(&source, &vhdx, finer, dir);
    reach(&second, Container::Vhdx(1), outcome.size);
    let source = Container::Vhdx(1).wrap(&second.disk.path, dir);
    let outcome = second.judge(&source, &vhdx, mode(Mode::Quick), dir);
    assert!(outcome.tally.free > 0);
    let recast = Options { format: Some(Format::Vhd), ..mode(Mode::Full) };
    let outcome = second.judge(&source, &vhd, recast, dir);
    reach(&second, Container::Vhd, outcome.size);

    let fixed = [Container::FixedVhd, Container::FixedVhdx][number % 2];
    let source = fixed.wrap(&first.disk.path, dir);
    let output = dir.join(format!("dynamic.{}", fixed.extension()));
    let dynamic =
        Options { to_dynamic: true, block_size: BlockSizeChoice::Exactly(2 * MIB), ..mode(Mode::Full) };
    let outcome = first.judge(&source, &output, dynamic, dir);
    let plain = if fixed == Container::FixedVhd { Container::Vhd } else { Container::Vhdx(2) };
    reach(&first, plain, outcome.size);
}

macro_rules! judged {
    ($($test:ident: $fs:ident),+ $(,)?) => {
        $(#[test]
        fn $test() {
            judge(FileSystem::$fs);
        })+
    };
}

judged! {
    ntfs_is_whole_and_smaller: Ntfs,
    ext4_is_whole_and_smaller: Ext4,
    ext3_is_whole_and_smaller: Ext3,
    ext2_is_whole_and_smaller: Ext2,
    fat12_is_whole_and_smaller: Fat12,
    fat16_is_whole_and_smaller: Fat16,
    fat32_is_whole_and_smaller: Fat32,
    exfat_is_whole_and_smaller: ExFat,
    swap_is_whole_and_smaller: Swap,
}
