//! Unit tests over hand-made tables.

use super::gpt::tests::Builder;
use super::mbr::tests::put;
use super::*;
use proptest::prelude::*;

fn blank(sectors: usize) -> Vec<u8> {
    vec![0; sectors * 512]
}

fn table(disk: &dyn ReadAt) -> VolumeTable {
    enumerate(disk, 512).unwrap()
}

fn range(volume: &Volume) -> Range<u64> {
    let [range] = volume.segments.ranges() else { panic!("{volume:?}") };
    range.clone()
}

fn ranges(table: &VolumeTable) -> Vec<(u32, u64, u64)> {
    table.volumes.iter().map(|v| (v.index, range(v).start / 512, range(v).end / 512)).collect()
}

pub(super) fn codes(table: &VolumeTable) -> Vec<&str> {
    table.warnings.iter().map(|w| w.code).collect()
}

fn distrusted(disk: &dyn ReadAt, word: &str) {
    let found = table(disk);
    assert!(found.volumes.is_empty());
    assert!(found.distrust.as_deref().is_some_and(|why| why.contains(word)), "{word}: {found:?}");
}

/// The signature of an ext4 superblock.
fn put_ext(disk: &mut [u8]) {
    disk[0x420] = 1;
    disk[0x438..0x43A].copy_from_slice(&[0x53, 0xEF]);
}

/// A FAT boot sector without boot code.
fn put_fat(disk: &mut [u8]) {
    disk[..24].copy_from_slice(b"\xEB\x3C\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x08\xF8\x02\x00");
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
}

#[test]
fn a_bare_disk_is_one_volume() {
    for disk in [blank(64), vec![7; 700], {
        let mut d = blank(64);
        put_ext(&mut d);
        d
    }] {
        let found = table(&disk);
        assert_eq!(found.distrust, None);
        assert_eq!(range(&found.volumes[0]), 0..u64::try_from(disk.len()).unwrap());
        assert_eq!((found.volumes[0].scheme, found.volumes[0].index), (Scheme::Whole, 0));
    }
}

#[test]
fn primary_and_logical_partitions_ascend() {
    let mut disk = blank(1000);
    put(&mut disk, 0, &[(0, 0x05, 500, 400), (0x80, 0x07, 63, 100), (0, 0x42, 200, 50)]);
    put(&mut disk, 500, &[(0, 0x83, 1, 99), (0, 0x05, 200, 100)]);
    put(&mut disk, 700, &[(0, 0x82, 2, 98)]);
    let found = table(&disk);
    assert_eq!(ranges(&found), [(2, 63, 163), (3, 200, 250), (5, 501, 600), (6, 702, 800)]);
    assert_eq!(found.volumes[0].kind, "NTFS/exFAT (0x07)");
    assert!(found.volumes[1].opaque.as_deref().is_some_and(|why| why.contains("dynamic disk")));
    assert!(found.volumes[2].opaque.is_none() && found.warnings.is_empty());
    disk[700 * 512 + 511] = 0;
    let found = table(&disk);
    assert_eq!(codes(&found), ["ebr-damaged"]);
    assert!(found.volumes[2].opaque.as_deref().is_some_and(|why| why.contains("damaged")));
}

#[test]
fn two_extended_partitions_go_on_counting() {
    let mut disk = blank(1000);
    put(&mut disk, 0, &[(0, 0x05, 100, 100), (0, 0x0F, 500, 100)]);
    put(&mut disk, 100, &[(0, 0x83, 1, 9)]);
    put(&mut disk, 500, &[(0, 0x83, 1, 9)]);
    assert_eq!(ranges(&table(&disk)), [(5, 101, 110), (6, 501, 510)]);
}

#[test]
fn overlaps_are_distrusted() {
    let extended = (0, 0x0F, 500, 400);
    let tables: [&[(u8, u8, u32, u32)]; 6] = [
        &[extended, (0, 7, 700, 10)],
        &[extended, (0, 0x05, 890, 20)],
        &[(0, 7, 63, 100), (0, 7, 162, 10)],
        &[(0, 7, 0, 100), (0, 7, 200, 10)],
        &[extended, (0, 7, 450, 51)],
        &[extended, (0, 7, 520, 5)],
    ];
    for entries in tables {
        let mut disk = blank(1000);
        put(&mut disk, 500, &[(0, 0x83, 1, 99)]);
        put(&mut disk, 0, entries);
        distrusted(&disk, "overlap");
    }
}

#[test]
fn what_lies_past_the_end_is_cut_off() {
    let mut disk = blank(1000);
    put(&mut disk, 0, &[(0, 7, 63, 100), (0, 7, 900, 200), (0, 7, 1100, 5), (0, 7, u32::MAX, u32::MAX)]);
    let found = table(&disk);
    assert_eq!(ranges(&found), [(1, 63, 163), (2, 900, 1000)]);
    assert_eq!(codes(&found), ["partition-past-end"; 3]);
}

#[test]
fn a_boot_sector_is_no_partition_table() {
    let fake = (0x80, 0x0C, 0, 1000);
    let code = (0, 0x6F, 0x7369_6420, 0x2E6B_7369);
    for entries in [&[][..], &[fake], &[code], &[code, code]] {
        let mut disk = blank(1000);
        put_fat(&mut disk);
        put(&mut disk, 0, entries);
        assert_eq!(table(&disk).volumes[0].scheme, Scheme::Whole, "{entries:?}");
    }
    let mut disk = blank(1000);
    put_fat(&mut disk);
    put(&mut disk, 0, &[(0, 0x83, 63, 100)]);
    distrusted(&disk, "FAT");
    let mut disk = blank(1000);
    put(&mut disk, 0, &[fake]);
    distrusted(&disk, "overlap");
}

#[test]
fn a_table_whose_entries_only_begin_inside_is_still_a_table() {
    type Stale = fn(&mut [u8]);
    let ntfs: Stale = |disk| disk[..11].copy_from_slice(b"\xEB\x52\x90NTFS    ");
    let exfat: Stale = |disk| disk[..11].copy_from_slice(b"\xEB\x76\x90EXFAT   ");
    for stale in [ntfs, exfat, put_fat, put_ext] {
        let tables: [&[(u8, u8, u32, u32)]; 6] = [
            &[(0x80, 0x83, 63, 945)],
            &[(0, 7, 999, u32::MAX)],
            &[(0, 7, 63, 2000), (0, 7, 2063, 10)],
            &[(0, 0x0F, 63, 2000)],
            &[(0, 0x1F, 63, 2000)],
            // The one good entry of a table with another behind the end.
            &[(0, 7, u32::MAX, 8), (0, 0x83, 63, 945)],
        ];
        for entries in tables {
            let mut disk = blank(1000);
            stale(&mut disk);
            put(&mut disk, 0, entries);
            let found = table(&disk);
            assert!(found.volumes.is_empty() && found.distrust.is_some(), "{entries:?}: {found:?}");
        }
        let mut disk = blank(1000);
        stale(&mut disk);
        put(&mut disk, 0, &[(0x01, 0x83, 63, 100)]);
        distrusted(&disk, "boot flag");
    }
    // Sectors of 4096 bytes: the entry begins inside by either count.
    let mut disk = blank(8000);
    ntfs(&mut disk);
    put(&mut disk, 0, &[(0, 0x83, 256, 1000)]);
    assert!(enumerate(&disk, 4096).unwrap().distrust.is_some());
}

#[test]
fn hidden_extended_partitions_are_containers() {
    for kind in [0x15, 0x1F, 0x91, 0x9B, 0xC5, 0xCF, 0xD5] {
        let mut disk = blank(1000);
        put(&mut disk, 0, &[(0, kind, 63, 500)]);
        let found = table(&disk);
        let [only] = &found.volumes[..] else { panic!("{found:?}") };
        assert!(only.opaque.as_deref().is_some_and(|why| why.contains("extended")), "{only:?}");
    }
}

#[test]
fn another_claim_to_the_bare_disk_is_distrusted() {
    let mut disk = blank(1000);
    put(&mut disk, 0, &[(0, 0x83, 63, 100)]);
    assert_eq!(table(&disk).distrust, None);
    let mut claimed = disk.clone();
    put_ext(&mut claimed);
    distrusted(&claimed, "ext2/3/4");
    let mut raid = disk.clone();
    let at = raid.len() - 512;
    raid[at..at + 4].copy_from_slice(b"\xDE\x11\xDE\x11");
    distrusted(&raid, "DDF");
    let mut inside = disk;
    inside[63 * 512 + 0x201..][..5].copy_from_slice(b"CD001");
    assert_eq!(table(&inside).distrust, None, "a signature at 0x8001 belongs to the partition there");
}

#[test]
fn gpt_partitions_are_found_at_the_disks_sector_size() {
    let disk = Builder::new(512, 256).build();
    let found = table(&disk);
    assert_eq!(ranges(&found), [(1, 40, 100)]);
    assert_eq!((found.volumes[0].scheme, found.warnings.len()), (Scheme::Gpt, 0));
    let large = Builder::new(4096, 256).build();
    assert_eq!(range(&enumerate(&large, 4096).unwrap().volumes[0]), 40 * 4096..100 * 4096);
    let converted = enumerate(&large, 512).unwrap();
    assert_eq!(range(&converted.volumes[0]), 40 * 4096..100 * 4096);
    assert_eq!(codes(&converted), ["gpt-sector-size"]);
    assert_eq!(codes(&enumerate(&disk, 4096).unwrap()), ["gpt-sector-size"]);
}

#[test]
fn damaged_copies_of_a_gpt_are_told() {
    let good = Builder::new(512, 256).build();
    let mut disk = good.clone();
    disk[512] = 0;
    assert_eq!(
        (codes(&table(&disk)), ranges(&table(&disk))),
        (vec!["gpt-primary-damaged"], vec![(1, 40, 100)])
    );
    disk[255 * 512] = 0;
    distrusted(&disk, "neither");
    let mut disk = good.clone();
    disk[255 * 512] = 0;
    assert_eq!(codes(&table(&disk)), ["gpt-backup-damaged"]);
    let mut disk = good.clone();
    disk[510] = 0;
    distrusted(&disk, "without its protective MBR");
    let mut disk = good;
    put(&mut disk, 0, &[(0, 7, 120, 20)]);
    assert_eq!((codes(&table(&disk)), ranges(&table(&disk))), (vec!["gpt-ignored"], vec![(1, 120, 140)]));
}

#[test]
fn contradictions_in_a_gpt_are_distrusted() {
    let with = |partitions| Builder { partitions, ..Builder::new(512, 256) }.build();
    distrusted(&with(vec![(1, 40, 99, ""), (1, 99, 120, "")]), "overlap");
    distrusted(&with(vec![(1, 3, 3, "")]), "overlap");
    distrusted(&with(vec![(1, 250, 255, "")]), "overlap");
    distrusted(&with(vec![(1, 99, 40, "")]), "ends before");
    let found = table(&with(vec![(1, 35, 36, ""), (1, 20, 30, "")]));
    assert_eq!(codes(&found), ["gpt-outside-usable"]);
}

#[test]
fn a_hybrid_mbr_must_agree_with_the_gpt() {
    let good = Builder::new(512, 256).build();
    let hybrid = |entry| {
        let mut disk = good.clone();
        put(&mut disk, 0, &[(0, 0xEE, 1, 33), entry]);
        disk
    };
    for entry in [(0x80, 7, 40, 60), (0, 7, 150, 20)] {
        assert_eq!(codes(&table(&hybrid(entry))), ["gpt-hybrid"]);
        assert_eq!(ranges(&table(&hybrid(entry))), [(1, 40, 100)]);
    }
    for entry in [(0, 7, 40, 61), (0, 7, 90, 60)] {
        distrusted(&hybrid(entry), "contradicts");
    }
}

#[test]
fn an_odd_sector_size_is_distrusted() {
    for size in [0, 1, 520, 1024, u32::MAX] {
        assert!(enumerate(&blank(64), size).unwrap().distrust.is_some());
    }
}

fn invariants(disk: &dyn ReadAt) {
    for sector_size in [512, 4096] {
        let found = enumerate(disk, sector_size).unwrap();
        let mut end = 0;
        for volume in &found.volumes {
            let range = range(volume);
            assert!(range.start >= end && range.start <= range.end);
            end = range.end;
        }
        assert!(end <= disk.size() && (found.distrust.is_none() || found.volumes.is_empty()));
    }
}

proptest! {
    #[test]
    fn nonsense_never_panics_and_volumes_never_overlap(
        entries in proptest::collection::vec((prop_oneof![Just(0u8), Just(0x80), any::<u8>()], prop_oneof![
            Just(0x05u8), Just(0x0F), Just(0xEE), Just(0x83), any::<u8>()], 0u32..300, 0u32..300), 4),
        logical in proptest::collection::vec((0usize..256, 0u32..300, 0u32..300, 0u32..300), 0..6),
        noise in proptest::collection::vec((0usize..256 * 512, any::<u8>()), 0..20),
        gpt in any::<bool>(),
    ) {
        let mut disk = if gpt { Builder::new(512, 256).build() } else { blank(256) };
        for (sector, first, sectors, link) in logical {
            put(&mut disk, sector, &[(0, 0x83, first, sectors), (0, 0x05, link, 1)]);
        }
        if !gpt {
            put(&mut disk, 0, &entries);
        }
        for (at, byte) in noise {
            disk[at] = byte;
        }
        invariants(&disk);
    }
}

#[test]
fn places_tell_partitions_from_logical_volumes_of_the_same_number() {
    let at = |scheme, index, name: Option<&str>| Volume {
        scheme,
        index,
        segments: crate::io::Segments::single(0..1),
        kind: String::new(),
        name: name.map(str::to_owned),
        opaque: None,
        rest_of_lvm: None,
    };
    let places = [
        at(Scheme::Whole, 0, None),
        at(Scheme::Gpt, 1, Some("EFI")),
        at(Scheme::Lvm, 1, Some("group/ro\u{202e}ot")),
        at(Scheme::Lvm, 2, None),
    ];
    let places = places.map(|volume| volume.place());
    assert_eq!(
        places,
        ["the whole disk", "partition 1", "logical volume group/ro\\u{202e}ot", "logical volume 2"]
    );
}
