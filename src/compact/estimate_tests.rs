//! What the default gives, and what every byte that stays is called.

use std::rc::Rc;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, MapDeserializer};

use super::analysis::Analysis;
use super::options::{BlockSizeChoice, Mode, Options};
use super::parts::PartKind;
use super::plan::{Decision, Plan};
use super::testing::disk_of;
use super::{CellClass, Estimate, Run, block_map, estimate};
use crate::Result;
use crate::extents::Extents;
use crate::fs::{Decline, DeclineReason, FreeMap, Mapping, Request};
use crate::image::vhdx::testing::TestImage;
use crate::image::{Disk, Format, vhd};
use crate::volume::Scheme;

const MIB: u64 = 1 << 20;

fn extents(ranges: &[(u64, u64)]) -> Extents {
    Extents::from_ranges(ranges.iter().map(|&(start, end)| start..end).collect())
}

/// A VHD of blocks of 2 MiB, all stored and full of data.
fn full(blocks: u64) -> Disk {
    let stored: Vec<(u64, Vec<u8>)> = (0..blocks).map(|n| (n, vec![7; 2 << 20])).collect();
    disk_of(&vhd::tests::dynamic(blocks * 2 * MIB, 2 << 20, &stored))
}

/// A volume of a made-up disk: its place, the name of its file system, what is known of it.
type Made<'a> = (std::ops::Range<u64>, &'static str, Scheme, Mapping, &'a str);

fn estimate_of(disk: Disk, volumes: Vec<Made<'_>>, options: Options) -> Result<Estimate> {
    let analysis = Rc::new(Analysis::made_up(disk, vec![0], volumes));
    estimate(&Plan::new(&analysis, options)?)
}

fn mapped(free: &[(u64, u64)], spans: u64) -> Mapping {
    Mapping::Mapped(FreeMap { free: extents(free), spans, ..FreeMap::default() })
}

fn bytes(estimate: &Estimate, kind: PartKind) -> u64 {
    estimate.parts.iter().filter(|part| part.kind == kind).map(|part| part.bytes).sum()
}

fn advice(estimate: &Estimate, kind: PartKind) -> Option<&super::Reason> {
    estimate.reasons.iter().find(|reason| reason.code == kind.code())
}

#[test]
fn every_byte_that_stays_has_a_name_and_they_add_up() {
    let disk = 64 * MIB;
    let shadow = extents(&[(20 * MIB, 22 * MIB)]);
    let pages = extents(&[(24 * MIB, 27 * MIB)]);
    let map = FreeMap {
        // A block goes whole; two more are held by the byte beside them.
        free: extents(&[(2 * MIB, 6 * MIB - 1), (10 * MIB, 12 * MIB)]),
        spans: 30 * MIB,
        on_request: vec![(Request::ShadowCopies, shadow), (Request::PageFiles, pages)],
        ..FreeMap::default()
    };
    let declined = Mapping::Declined(Decline::new(DeclineReason::NotSupported, "Not understood."));
    let volumes = vec![
        (2 * MIB..42 * MIB, "ext4", Scheme::Gpt, Mapping::Mapped(map), "root"),
        (42 * MIB..50 * MIB, "Btrfs", Scheme::Gpt, declined, ""),
    ];
    let estimate = estimate_of(full(32), volumes, Options::default()).unwrap();
    assert_eq!(estimate.parts.iter().map(|part| part.bytes).sum::<u64>(), estimate.output_size);
    assert_eq!(bytes(&estimate, PartKind::Held), 2 * MIB - 1);
    assert_eq!(bytes(&estimate, PartKind::ShadowCopies), 2 * MIB);
    assert_eq!(bytes(&estimate, PartKind::PageFiles), 3 * MIB);
    assert_eq!(bytes(&estimate, PartKind::BehindEnd), 10 * MIB);
    assert_eq!(bytes(&estimate, PartKind::Declined), 8 * MIB);
    assert_eq!(bytes(&estimate, PartKind::NoPartition), disk - 48 * MIB);
    assert_eq!(
        bytes(&estimate, PartKind::InUse),
        40 * MIB - 4 * MIB - (2 * MIB - 1) - 2 * MIB - 3 * MIB - 10 * MIB
    );
    assert!(estimate.parts.is_sorted_by_key(|part| std::cmp::Reverse(part.bytes)), "the largest first");
}

#[test]
fn files_are_told_from_the_structures_of_their_file_system() {
    let parts = |structures: Option<Extents>| {
        // Of 15 MiB the file system spans all but half a MiB, and the last 4 MiB are free.
        let volumes =
            vec![(0..15 * MIB, "ext4", Scheme::Gpt, mapped(&[(10 * MIB, 14 * MIB)], 15 * MIB - MIB / 2), "")];
        let mut analysis = Analysis::made_up(full(8), vec![0], volumes);
        analysis.volumes_mut()[0].detected.structures = structures;
        let estimate = estimate(&Plan::new(&Rc::new(analysis), Options::default()).unwrap()).unwrap();
        assert_eq!(estimate.parts.iter().map(|part| part.bytes).sum::<u64>(), estimate.output_size);
        [PartKind::Files, PartKind::Structures, PartKind::InUse, PartKind::BehindEnd]
            .map(|kind| bytes(&estimate, kind))
    };
    assert_eq!(parts(None), [0, 0, 11 * MIB, 0]);
    // The little that rounding leaves behind the end is the file system's own; a structure may well lie in free space.
    let structures = extents(&[(0, MIB), (3 * MIB, 4 * MIB), (9 * MIB, 11 * MIB)]);
    assert_eq!(parts(Some(structures)), [11 * MIB - 3 * MIB - MIB / 2, 3 * MIB + MIB / 2, 0, 0]);
    assert_eq!(parts(Some(Extents::default())), [11 * MIB - MIB / 2, MIB / 2, 0, 0]);
}

#[test]
fn space_that_no_file_has_is_told_of_with_what_gives_it_back() {
    let advice = |name, used_bytes, options: Options| {
        let map = FreeMap { used_bytes, spans: 16 * MIB, ..FreeMap::default() };
        let volumes = vec![(0..16 * MIB, name, Scheme::Gpt, Mapping::Mapped(map), "data")];
        let estimate = estimate_of(full(8), volumes, options).unwrap();
        estimate.reasons.into_iter().find(|reason| reason.code == "leaked")
    };
    for (name, command) in
        [("NTFS", "chkdsk"), ("ext4", "e2fsck -f"), ("FAT32", "fsck.fat"), ("XFS", "xfs_repair")]
    {
        let reason = advice(name, 2 * MIB, Options::default()).unwrap();
        assert_eq!(reason.bytes, 2 * MIB);
        assert!(reason.commands.concat().contains(command) && reason.message.contains("data"), "{reason:?}");
        assert_eq!(advice(name, 0, Options::default()), None);
        assert_eq!(advice(name, MIB / 8, Options::default()), None, "less than a fiftieth of the image");
        assert_eq!(advice(name, 2 * MIB, Options { mode: Mode::Zero, ..Options::default() }), None);
    }
    // Nothing of LVM is ever lost to its logical volumes.
    assert_eq!(advice("LVM2", 2 * MIB, Options::default()), None);
}

#[test]
fn a_partition_without_a_file_system_is_not_to_be_trimmed() {
    let reason = |size: u64, opaque: &str| {
        let declined = Mapping::Declined(Decline::new(DeclineReason::NotSupported, "Nothing is read here."));
        let volumes = vec![(0..size, "unknown", Scheme::Gpt, declined, "")];
        let mut analysis = Analysis::made_up(full(16), vec![0], volumes);
        analysis.volumes_mut()[0].volume.opaque = Some(opaque.to_owned());
        let estimate = estimate(&Plan::new(&Rc::new(analysis), Options::default()).unwrap()).unwrap();
        advice(&estimate, PartKind::Declined).cloned()
    };
    for opaque in ["it is reserved for the operating system", "it holds the code of a boot loader"] {
        assert_eq!(reason(4 * MIB, opaque), None);
        assert!(reason(32 * MIB, opaque).unwrap().commands.is_empty());
    }
    let spaces = reason(32 * MIB, "it is a member of a Windows Storage Spaces pool").unwrap();
    assert_eq!(spaces.commands, ["sdelete -z D:"]);
    assert!(reason(32 * MIB, "it is a member of a RAID").unwrap().commands.concat().contains("/dev/zero"));
}

#[test]
fn what_is_granted_on_request_is_free_like_any_other() {
    let map = || FreeMap {
        spans: 8 * MIB,
        on_request: vec![(Request::PageFiles, extents(&[(0, 2 * MIB), (4 * MIB, 5 * MIB)]))],
        ..FreeMap::default()
    };
    let volumes = || vec![(0..8 * MIB, "NTFS", Scheme::Whole, Mapping::Mapped(map()), "")];
    let kept = estimate_of(full(4), volumes(), Options::default()).unwrap();
    assert_eq!((bytes(&kept, PartKind::PageFiles), bytes(&kept, PartKind::Held)), (3 * MIB, 0));
    let asked = Options { drop_page_files: true, ..Options::default() };
    let dropped = estimate_of(full(4), volumes(), asked).unwrap();
    assert_eq!((bytes(&dropped, PartKind::PageFiles), bytes(&dropped, PartKind::Held)), (0, MIB));
}

#[test]
fn nobody_is_told_to_defragment_where_that_cannot_help() {
    let free = [(0, MIB - 1), (2 * MIB, 3 * MIB - 1), (4 * MIB, 5 * MIB - 1)];
    let holding = |blocks, name, scheme, options: Options| {
        let volumes = vec![(0..8 * MIB, name, scheme, mapped(&free[..blocks], 8 * MIB), "")];
        estimate_of(full(4), volumes, options).unwrap()
    };
    let held = |name, scheme, options| holding(3, name, scheme, options);
    let commands = |estimate: &Estimate| advice(estimate, PartKind::Held).unwrap().commands.concat();
    assert!(commands(&held("NTFS", Scheme::Gpt, Options::default())).contains("defrag C: /x"));
    // Less than a block of 2 MiB in all: no order of the files lets a block go.
    let two = holding(2, "NTFS", Scheme::Gpt, Options::default());
    let reason = advice(&two, PartKind::Held).unwrap();
    assert!(reason.commands.is_empty() && reason.message.contains("less than one block"), "{reason:?}");
    // The guest's own tools do not lay out an ext4 anew; a VHD is no WSL disk.
    assert!(commands(&held("ext4", Scheme::Whole, Options::default())).is_empty());
    let to_vhdx = Options { format: Some(Format::Vhdx), ..Options::default() };
    assert!(commands(&held("ext4", Scheme::Whole, to_vhdx)).contains("wsl --export"));
    let zero = Options { mode: Mode::Zero, ..Options::default() };
    let reason = held("NTFS", Scheme::Gpt, zero);
    let reason = advice(&reason, PartKind::Held).unwrap();
    assert!(reason.commands.is_empty() && reason.message.contains("only zeros"), "{reason:?}");
}

#[test]
fn trimming_comes_before_filling_with_zeros() {
    let declined = |name, disk| {
        // Most of Btrfs is read, and what is not is a feature of it.
        let reason =
            if name == "Btrfs" { DeclineReason::UnknownFeature } else { DeclineReason::NotSupported };
        let mapping = Mapping::Declined(Decline::new(reason, "Not understood."));
        let options = Options { block_size: BlockSizeChoice::Keep, ..Options::default() };
        let estimate =
            estimate_of(disk, vec![(0..2 * MIB, name, Scheme::Whole, mapping, "")], options).unwrap();
        advice(&estimate, PartKind::Declined).unwrap().clone()
    };
    let vhdx = || {
        let mut image = TestImage::dynamic();
        image.bat(0, 4 << 20 | 6);
        image.put(4 << 20, &[7; 1 << 20]);
        image.disk()
    };
    assert!(declined("Btrfs", vhdx()).commands.concat().contains("fstrim"));
    assert!(declined("ReFS", vhdx()).commands.concat().contains("ReTrim"));
    assert!(declined("JFS", full(1)).commands.concat().contains("/dev/zero"));
    // Tried: zeros are compressed away.
    let compressing = declined("Btrfs", full(1));
    assert!(compressing.commands.is_empty() && compressing.message.contains("cannot be filled"));
    assert!(declined("ZFS", vhdx()).commands.concat().contains("zpool trim"));
    // Where nobody knows what is there, it may be either system's.
    let unsure = declined("unknown", vhdx());
    assert!(unsure.commands.len() == 2 && unsure.message.contains("If a file system is there"), "{unsure:?}");
    // Nothing is ever free in an image of a disc.
    assert!(declined("SquashFS", vhdx()).commands.is_empty());
}

#[test]
fn a_file_system_that_is_shorter_than_its_partition_is_to_be_grown() {
    for (name, command) in
        [("ext4", "resize2fs"), ("NTFS", "extend filesystem"), ("XFS", "xfs_growfs"), ("Btrfs", "resize max")]
    {
        let volumes = || vec![(0..64 * MIB, name, Scheme::Gpt, mapped(&[], 4 * MIB), "")];
        let estimate = estimate_of(full(32), volumes(), Options::default()).unwrap();
        assert_eq!(bytes(&estimate, PartKind::BehindEnd), 60 * MIB);
        assert!(advice(&estimate, PartKind::BehindEnd).unwrap().commands.concat().contains(command));
        // Nor does the picture call it in use.
        let analysis = Rc::new(Analysis::made_up(full(32), vec![0], volumes()));
        let plan = Plan::new(&analysis, Options::default()).unwrap();
        let picture = block_map(&plan, None, 4).unwrap();
        let total = |class: CellClass| picture.cells.iter().map(|cell| cell[class.number()]).sum::<u64>();
        assert_eq!([CellClass::InUse, CellClass::Unknown].map(total), [4 * MIB, 60 * MIB]);
        // Rounding to clusters is no tail.
        let volumes = vec![(0..64 * MIB, name, Scheme::Gpt, mapped(&[], 64 * MIB - 70_000), "")];
        let estimate = estimate_of(full(32), volumes, Options::default()).unwrap();
        assert_eq!(bytes(&estimate, PartKind::BehindEnd), 0);
    }
}

/// A VHDX of two blocks of 32 MiB, both stored, of which `used` bytes of each are not free.
fn large_blocks(used: u64, options: Options) -> Estimate {
    let block = 32 << 20;
    let stored: Vec<(u64, Vec<u8>)> = (0..2).map(|n| (n, vec![7; block])).collect();
    let source = disk_of(&vhd::tests::dynamic(2 * block as u64, block as u64, &stored));
    let free = [(used, 32 * MIB), (32 * MIB + used, 64 * MIB)];
    let volumes = vec![(0..64 * MIB, "NTFS", Scheme::Whole, mapped(&free, 64 * MIB), "")];
    estimate_of(source, volumes, options).unwrap()
}

#[test]
fn the_default_takes_smaller_blocks_where_they_save_something() {
    let default = large_blocks(3 * MIB, Options::default());
    // Two blocks of 2 MiB each: what a VHD goes down to by itself.
    assert!((8 * MIB..9 * MIB).contains(&default.output_size), "{}", default.output_size);
    let keep = Options { block_size: BlockSizeChoice::Keep, ..Options::default() };
    assert!(large_blocks(3 * MIB, keep).output_size > 64 * MIB);
    // A hundredth is not worth a larger table.
    let little = large_blocks(32 * MIB - MIB / 4, Options::default());
    assert_eq!(little.output_size, large_blocks(32 * MIB - MIB / 4, keep).output_size);
    // Zero mode is chosen so that children stay valid.
    let zero = Options { mode: Mode::Zero, ..Options::default() };
    assert!(large_blocks(3 * MIB, zero).output_size > 64 * MIB);
    let exact = Options { block_size: BlockSizeChoice::Exactly(512 << 10), ..Options::default() };
    assert!(large_blocks(3 * MIB, exact).output_size < 7 * MIB);
    let quick = Options { mode: Mode::Quick, ..Options::default() };
    assert!(large_blocks(3 * MIB, quick).exact && !default.exact);
}

#[test]
fn what_nobody_knows_may_turn_out_zero_in_smaller_blocks() {
    // All of what the volume holds is in use.
    let chosen = |known: u64| {
        let stored: Vec<(u64, Vec<u8>)> = (0..2).map(|n| (n, vec![7; 32 << 20])).collect();
        let volumes = vec![(0..known, "NTFS", Scheme::Gpt, mapped(&[], known), "")];
        let source = disk_of(&vhd::tests::dynamic(64 * MIB, 32 * MIB, &stored));
        let analysis = Rc::new(Analysis::made_up(source, vec![0], volumes));
        Plan::new(&analysis, Options::default()).unwrap().target.block_size.get()
    };
    assert_eq!([64, 62, 1].map(|mib| chosen(mib * MIB)), [32 * MIB, 2 * MIB, 2 * MIB]);
    // A hundredth is not worth a larger table.
    assert_eq!(chosen(64 * MIB - MIB / 2), 32 * MIB);
}

#[test]
fn options_are_read_as_they_are_written() {
    fn size<'de, T: IntoDeserializer<'de, ValueError>>(value: T) -> Option<BlockSizeChoice> {
        BlockSizeChoice::deserialize(value.into_deserializer()).ok()
    }
    assert_eq!(size("keep"), Some(BlockSizeChoice::Keep));
    assert_eq!(size("smallest"), Some(BlockSizeChoice::Smallest));
    assert_eq!(size(MIB), Some(BlockSizeChoice::Exactly(MIB)));
    assert_eq!(size(1_048_576_i64), Some(BlockSizeChoice::Exactly(MIB)));
    // Numbers of JavaScript.
    assert_eq!(size(1_048_576.0), Some(BlockSizeChoice::Exactly(MIB)));
    assert_eq!([size(-1_i64), size("large"), size(true)], [None; 3]);
    assert_eq!([size(1.5), size(-1.0), size(1e300), size(f64::NAN)], [None; 4]);

    let read = |key: &'static str, value: &'static str| {
        Options::deserialize(MapDeserializer::<_, ValueError>::new([(key, value)].into_iter()))
    };
    assert_eq!(read("mode", "zero").unwrap(), Options { mode: Mode::Zero, ..Options::default() });
    assert!(read("mode", "deep").is_err());
    let format =
        |name: &'static str| Format::deserialize(IntoDeserializer::<ValueError>::into_deserializer(name));
    assert!(format("vhdx").is_ok_and(|format| format == Format::Vhdx) && format("vmdk").is_err());
}

/// Blocks that are marked as zero are settled before the scan begins, and kept findings say so.
#[test]
fn findings_of_an_image_with_zero_blocks_are_believed() {
    let mut image = TestImage::dynamic();
    image.bat(0, 4 << 20 | 6);
    image.put(4 << 20, &[7; 1 << 20]);
    image.bat(1, 2);
    let analysis = || Rc::new(Analysis::made_up(image.disk(), vec![0], Vec::new()));
    let begun = Run::new(&analysis(), Options::default()).unwrap();
    let kept = begun.save_findings("disk").unwrap().unwrap();
    let mut resumed = Run::new(&analysis(), Options::default()).unwrap();
    assert!(resumed.resume_findings("disk", &kept).unwrap());
    assert!(!resumed.resume_findings("another disk", &kept).unwrap());
}

/// Stretches that are marked as zero are decided at once whatever the blocks of the new image, and nothing else is.
#[test]
fn blocks_that_are_zero_are_void_in_blocks_of_any_size() {
    let mut image = TestImage::dynamic();
    image.bat(0, 4 << 20 | 6);
    image.put(4 << 20, &[7; 1 << 20]);
    let blocks = image.open().unwrap().block_count();
    (1..blocks).for_each(|block| image.bat(usize::try_from(block).unwrap(), 2));
    let analysis = Rc::new(Analysis::made_up(image.disk(), vec![0], Vec::new()));
    for (format, block_size) in [(Format::Vhdx, MIB), (Format::Vhdx, 2 * MIB), (Format::Vhd, MIB / 2)] {
        let options = Options {
            format: Some(format),
            block_size: BlockSizeChoice::Exactly(block_size),
            ..Options::default()
        };
        let plan = Plan::new(&analysis, options).unwrap();
        let stored = MIB.div_ceil(block_size);
        for block in 0..plan.target.blocks {
            let expected = if block < stored { Decision::Candidate } else { Decision::Void };
            assert_eq!(plan.decision(block), expected, "block {block} of {block_size} bytes");
        }
    }
}
