//! Unit tests over hand-made volumes: each refusal breaks one field.

use super::boot::Kind;
use super::fixture::{Fixture, Made, put16};
use super::*;
use crate::extents::Extents;
use crate::fs::{Hearing, Mapping, Testimony};
use crate::units::len64;
use proptest::prelude::*;

const CONTEXT: Context = Context { sector_size: 512 };
const KINDS: [Kind; 3] = [Kind::Fat12, Kind::Fat16, Kind::Fat32];

fn detect(made: &Made) -> Detected {
    probe(&made.bytes, CONTEXT).expect("recognised").heard(&made.bytes)
}

fn map_of(made: &Made) -> FreeMap {
    detect(made).into_map()
}

fn declined(made: &Made) -> (DeclineReason, String) {
    let decline = detect(made).into_decline();
    (decline.reason, decline.detail)
}

/// Breaks a fresh volume and expects it to be declined with a word of the reason.
fn refuses(kind: Kind, reason: DeclineReason, word: &str, change: impl Fn(&mut Made)) {
    let mut made = Fixture::new(kind).make();
    change(&mut made);
    let (found, detail) = declined(&made);
    assert!(found == reason && detail.contains(word), "{kind:?} {word}: {found:?} {detail}");
}

/// The clusters from 10 on are free, whatever the kind.
fn expected_free(made: &Made) -> Extents {
    let end = made.cluster(usize::try_from(made.fixture.clusters).unwrap() + 2);
    let mut free = Extents::new();
    free.push(len64(made.cluster(10))..len64(end));
    free
}

#[test]
fn exactly_the_clusters_with_entry_zero_are_free() {
    for kind in KINDS {
        for (sector, cluster_sectors, copies) in [(512, 1, 2), (512, 4, 1), (4096, 2, 3)] {
            let made = Fixture { sector, cluster_sectors, copies, ..Fixture::new(kind) }.make();
            let map = map_of(&made);
            assert_eq!(map.free, expected_free(&made), "{kind:?}");
            assert_eq!(map.free_bytes, map.free.total());
            let found = detect(&made);
            assert_eq!((found.name, found.label.as_deref()), (kind.name(), Some("REAL LABEL")));
        }
    }
}

#[test]
fn the_label_falls_back_to_the_boot_sector() {
    let mut made = Fixture::new(Kind::Fat16).make();
    let root = made.root_directory();
    made.bytes[root] = 0xE5;
    assert_eq!(detect(&made).label.as_deref(), Some("BOOT LABEL"));
    made.bytes[43..54].copy_from_slice(b"NO NAME    ");
    assert_eq!(detect(&made).label, None);
    made.bytes[43..54].copy_from_slice(b"\x80BC        ");
    assert_eq!(detect(&made).label.as_deref(), Some("\u{FFFD}BC"));
}

#[test]
fn a_declined_volume_keeps_its_name_and_label() {
    let mut made = Fixture::new(Kind::Fat12).make();
    made.bytes[37] = 1;
    let found = detect(&made);
    assert_eq!((found.name, found.label.as_deref()), ("FAT12", Some("REAL LABEL")));
}

#[test]
fn other_boot_sectors_are_not_fat() {
    let breaks: [fn(&mut [u8]); 8] = [
        |b| b[0] = 0,
        |b| put16(b, 11, 513),
        |b| put16(b, 11, 8192),
        |b| b[13] = 3,
        |b| put16(b, 14, 0),
        |b| b[16] = 0,
        |b| b[21] = 0x12,
        |b| b[510] = 0,
    ];
    for change in breaks {
        let mut made = Fixture::new(Kind::Fat16).make();
        change(&mut made.bytes);
        assert!(probe(&made.bytes, CONTEXT).is_none());
    }
    assert!(probe(&vec![0; 100], CONTEXT).is_none());
}

#[test]
fn a_contradicting_boot_sector_is_declined() {
    use DeclineReason::{Inconsistent, UnknownFeature};
    refuses(Kind::Fat16, Inconsistent, "mixes", |m| put16(&mut m.bytes, 17, 0));
    refuses(Kind::Fat16, Inconsistent, "mixes", |m| put16(&mut m.bytes, 17, 250));
    refuses(Kind::Fat32, Inconsistent, "mixes", |m| put16(&mut m.bytes, 17, 512));
    refuses(Kind::Fat32, Inconsistent, "mixes", |m| put16(&mut m.bytes, 36, 0));
    refuses(Kind::Fat12, Inconsistent, "two sizes", |m| put16(&mut m.bytes, 19, 100));
    refuses(Kind::Fat32, Inconsistent, "two sizes", |m| put16(&mut m.bytes, 19, 100));
    refuses(Kind::Fat16, Inconsistent, "larger than its partition", |m| {
        m.bytes.truncate(m.bytes.len() - 512);
    });
    refuses(Kind::Fat12, Inconsistent, "no clusters", |m| put16(&mut m.bytes, 32, 10));
    refuses(Kind::Fat16, Inconsistent, "too small", |m| {
        put16(&mut m.bytes, 22, 2);
    });
    refuses(Kind::Fat32, Inconsistent, "root directory lies outside", |m| m.bytes[44] = 1);
    refuses(Kind::Fat32, Inconsistent, "root directory lies outside", |m| m.bytes[47] = 1);
    refuses(Kind::Fat32, UnknownFeature, "version", |m| m.bytes[43] = 1);
    refuses(Kind::Fat32, Inconsistent, "active FAT", |m| m.bytes[40] = 0x82);
}

#[test]
fn the_kind_follows_the_count_of_clusters() {
    let name = |clusters, kind| detect(&Fixture { clusters, ..Fixture::new(kind) }.make()).name;
    assert_eq!(name(4084, Kind::Fat12), "FAT12");
    assert_eq!(name(4087, Kind::Fat16), "FAT16");
    assert_eq!(name(65524, Kind::Fat16), "FAT16");
    assert_eq!(name(65525, Kind::Fat32), "FAT32");
    for clusters in [4085, 4086] {
        let made = Fixture { clusters, ..Fixture::new(Kind::Fat16) }.make();
        assert!(declined(&made).1.contains("Windows reads as FAT12"));
    }
    let made = Fixture { clusters: 65525, ..Fixture::new(Kind::Fat16) }.make();
    assert!(declined(&made).1.contains("more clusters"));
}

#[test]
fn a_small_volume_may_give_its_size_in_16_bits() {
    for kind in [Kind::Fat12, Kind::Fat32] {
        let mut made = Fixture::new(kind).make();
        let sectors = [made.bytes[32], made.bytes[33]];
        made.bytes[19..21].copy_from_slice(&sectors);
        assert_eq!(map_of(&made).free, expected_free(&made));
        made.bytes[32..36].fill(0);
        assert_eq!(map_of(&made).free, expected_free(&made));
    }
}

#[test]
fn a_volume_at_the_border_is_mapped_to_its_last_cluster() {
    for (kind, clusters) in [(Kind::Fat12, 4084), (Kind::Fat12, 4083), (Kind::Fat16, 65524)] {
        let mut made = Fixture { clusters, ..Fixture::new(kind) }.make();
        let last = usize::try_from(clusters).unwrap() + 1;
        assert_eq!(map_of(&made).free, expected_free(&made));
        // On the fullest volumes the last cluster's number is a value that smaller ones reserve.
        made.set(9, u32::try_from(last).unwrap());
        made.set(last, 0x0FFF_FFFF);
        assert!(!map_of(&made).free.contains(len64(made.cluster(last))..len64(made.cluster(last + 1))));
        made.set(last, 0);
        assert!(declined(&made).1.contains("runs into a free one"));
    }
}

#[test]
fn dirty_and_error_bits_are_declined() {
    use DeclineReason::{Dirty, ErrorState};
    for (kind, state) in [(Kind::Fat12, 37), (Kind::Fat16, 37), (Kind::Fat32, 65)] {
        refuses(kind, Dirty, "not cleanly unmounted", |m| m.bytes[state] = 0x01);
        refuses(kind, ErrorState, "error of its disk", |m| m.bytes[state] = 0x02);
    }
    refuses(Kind::Fat16, Dirty, "not cleanly unmounted", |m| m.set(1, 0x7FFF));
    refuses(Kind::Fat16, ErrorState, "error of its disk", |m| m.set(1, 0xBFFF));
    refuses(Kind::Fat32, Dirty, "not cleanly unmounted", |m| m.set(1, 0x07FF_FFFF));
    refuses(Kind::Fat32, ErrorState, "error of its disk", |m| m.set(1, 0x0BFF_FFFF));
}

#[test]
fn a_contradicting_fat_is_declined() {
    use DeclineReason::Inconsistent;
    for kind in KINDS {
        refuses(kind, Inconsistent, "media byte", |m| m.set(0, 0x0FFF_FFF0));
        refuses(kind, Inconsistent, "media byte", |m| m.set(0, 0x0FFF_FCF8));
        refuses(kind, Inconsistent, "no end of a chain", |m| m.set(1, 0x0FFF_FF07));
        refuses(kind, Inconsistent, "copies of its FAT differ", |m| m.set_in(1, 9, 0));
        refuses(kind, Inconsistent, "leads out", |m| m.set(9, 1));
        let beyond = Fixture::new(kind).clusters + 2;
        refuses(kind, Inconsistent, "leads out", |m| m.set(9, beyond));
        refuses(kind, Inconsistent, "runs into a free one", |m| m.set(9, 20));
        refuses(kind, Inconsistent, "runs into a free one", |m| {
            m.set(3, 0);
            m.set(9, 3);
        });
        refuses(kind, Inconsistent, "chains of clusters meet", |m| m.set(9, 4));
        refuses(kind, Inconsistent, "bites its tail", |m| m.set(9, 9));
    }
}

#[test]
fn reserved_values_and_bad_clusters_are_in_use() {
    for kind in KINDS {
        for value in 0x0FFF_FFF0..=0x0FFF_FFFF {
            let mut made = Fixture::new(kind).make();
            made.set(50, value);
            let map = map_of(&made);
            assert!(!map.free.intersects(len64(made.cluster(50))..len64(made.cluster(51))));
            assert_eq!(map.free_bytes, expected_free(&made).total() - len64(made.cluster_size()));
        }
    }
}

#[test]
fn the_upper_four_bits_of_fat32_mean_nothing() {
    let mut made = Fixture::new(Kind::Fat32).make();
    made.set(50, 0xF000_0000);
    made.set_in(1, 51, 0x9000_0000);
    assert_eq!(map_of(&made).free, expected_free(&made));
}

#[test]
fn without_mirroring_the_active_copy_counts_and_every_copy_keeps() {
    let mut made = Fixture::new(Kind::Fat32).make();
    made.bytes[40] = 0x81;
    made.set_in(0, 60, 0x0FFF_FFFF);
    made.set_in(1, 61, 0x0FFF_FFFF);
    let map = map_of(&made);
    let free = |cluster| map.free.intersects(len64(made.cluster(cluster))..len64(made.cluster(cluster + 1)));
    assert!(!free(60) && !free(61) && free(62));
    assert_eq!(map.free_bytes, expected_free(&made).total() - 512);
    assert_eq!(map.free.total(), map.free_bytes - 512);
}

#[test]
fn files_outside_the_used_clusters_are_declined() {
    use DeclineReason::Inconsistent;
    for kind in KINDS {
        let last = u32::from(u16::MAX);
        for at in [32, 128] {
            let entry = |m: &mut Made, cluster| {
                let at = m.root_directory() + at;
                let attributes = m.bytes[at + 11];
                m.put_entry(at, b"BROKEN     ", attributes, cluster);
            };
            refuses(kind, Inconsistent, "calls free", |m| entry(m, 70));
            refuses(kind, Inconsistent, "outside the volume", |m| entry(m, last));
            refuses(kind, Inconsistent, "outside the volume", |m| entry(m, 1));
            refuses(kind, Inconsistent, "shares a cluster", |m| entry(m, if at == 32 { 5 } else { 3 }));
            refuses(kind, Inconsistent, "shares a cluster", |m| entry(m, 4));
        }
        refuses(kind, Inconsistent, "has no clusters", |m| {
            let at = m.root_directory() + 128;
            m.put_entry(at, b"DIR        ", 0x10, 0);
        });
        refuses(kind, Inconsistent, "calls free", |m| {
            let at = m.cluster(6);
            m.put_entry(at, b"INNER      ", 0x20, 99);
        });
    }
    refuses(Kind::Fat32, Inconsistent, "calls free", |m| m.set(2, 0));
}

/// What the second witness says of a volume, heard in steps of `budget` bytes.
fn testimony(made: &Made, budget: u64) -> (Testimony, u64, usize) {
    let mut found = probe(&made.bytes, CONTEXT).unwrap();
    let mut steps = 1;
    while !found.hear(&made.bytes, budget).finished {
        steps += 1;
    }
    let (Mapping::Mapped(map), Hearing::Agrees(said)) = (found.mapping, found.hearing) else {
        panic!("declined")
    };
    (said, map.used_bytes, steps)
}

#[test]
fn every_used_byte_has_an_owner_but_lost_clusters() {
    for kind in KINDS {
        let mut made = Fixture::new(kind).make();
        let (said, used, steps) = testimony(&made, 1);
        assert_eq!(said.owned_bytes, used, "{kind:?}: a bad cluster has an owner, too");
        // FILE, DIR, EMPTY, INNER, and SECOND where cluster 2 is no root directory.
        assert_eq!(said.records, if kind == Kind::Fat32 { 4 } else { 5 });
        assert!(steps > 5);
        assert_eq!(testimony(&made, u64::MAX), (said, used, 1));
        made.set(60, 61);
        made.set(61, 0x0FFF_FFFF);
        let (lost, used, _) = testimony(&made, 100);
        assert_eq!((lost, used), (said, said.owned_bytes + 2 * 512));
    }
}

#[test]
fn a_long_chain_is_told_once_in_any_steps() {
    let mut made = Fixture { clusters: 20_000, ..Fixture::new(Kind::Fat16) }.make();
    for cluster in 9..18_000u32 {
        made.set(usize::try_from(cluster).unwrap(), cluster + 1);
    }
    // 9 … 4104 is one step's worth of links: a new run begins right there, and once more.
    made.set(4104, 4110);
    made.set(18_000, 4105);
    made.set(4109, 19_000);
    made.set(19_000, 0x0FFF_FFFF);
    let (said, used, steps) = testimony(&made, 1);
    assert!(steps > 8 && said.owned_bytes == used, "{said:?} {used}");
    assert_eq!(testimony(&made, u64::MAX).0, said);
    made.set(19_000, 19_001);
    assert!(declined(&made).1.contains("runs into a free one"));
}

#[test]
fn an_owner_is_told_by_its_path() {
    for kind in KINDS {
        refuses(kind, DeclineReason::Inconsistent, "“DIR/INNER” lies in space", |m| m.set(7, 0));
        refuses(kind, DeclineReason::Inconsistent, "“DIR/A.B” lies in space", |m| {
            let at = m.cluster(6) + 32;
            m.put_entry(at, b"A       B  ", 0x20, 99);
        });
    }
    refuses(Kind::Fat32, DeclineReason::Inconsistent, "“the root directory” lies in space", |m| {
        m.set(2, 0)
    });
}

#[test]
fn a_long_name_is_told_where_it_is_whole() {
    /// Writes the entries of "Urlaub in Römö 2019.jpg", which take two parts, before a short entry.
    fn put_long(m: &mut Made, at: usize, checksum: u8) {
        let units: Vec<u16> = "Urlaub in Römö 2019.jpg\0".encode_utf16().chain([0xFFFF, 0xFFFF]).collect();
        for (i, part) in
            units.chunks(13).enumerate().map(|(i, part)| (1 - i, part)).collect::<Vec<_>>().iter().rev()
        {
            let entry = at + i * 32;
            m.bytes[entry..entry + 32].fill(0);
            m.bytes[entry] = if *i == 0 { 0x42 } else { 1 };
            (m.bytes[entry + 11], m.bytes[entry + 13]) = (0x0F, checksum);
            for (unit, place) in part.iter().zip([1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
                m.bytes[entry + place..entry + place + 2].copy_from_slice(&unit.to_le_bytes());
            }
        }
    }
    let short = b"URLAUB~1JPG";
    let sum = short.iter().fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    for (checksum, name) in [(sum, "DIR/Urlaub in Römö 2019.jpg"), (sum ^ 1, "DIR/URLAUB~1.JPG")] {
        refuses(Kind::Fat16, DeclineReason::Inconsistent, &format!("“{name}” lies in space"), |m| {
            let at = m.cluster(6) + 32;
            put_long(m, at, checksum);
            m.put_entry(at + 64, short, 0x20, 99);
        });
    }
}

#[test]
fn a_file_that_is_longer_than_its_chain_is_declined() {
    let size = |m: &mut Made, at: usize, size: u32| {
        let at = m.root_directory() + at + 28;
        m.bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
    };
    for kind in KINDS {
        let mut made = Fixture::new(kind).make();
        size(&mut made, 32, 3 * 512);
        assert_eq!(map_of(&made).free, expected_free(&made));
        refuses(kind, DeclineReason::Inconsistent, "“FILE” is longer than its chain", |m| {
            size(m, 32, 3 * 512 + 1)
        });
        refuses(kind, DeclineReason::Inconsistent, "“EMPTY” has no clusters", |m| size(m, 160, 1));
        // Space that was set aside for a file to grow is its own.
        size(&mut made, 32, 1);
        assert_eq!(map_of(&made).free, expected_free(&made));
    }
}

#[test]
fn a_directory_that_fills_its_last_cluster_is_left_with_its_children_walked() {
    for kind in KINDS {
        let mut made = Fixture::new(kind).make();
        let (start, inner) = (made.cluster(6), made.cluster(7));
        for at in (start..start + 512).step_by(32) {
            made.put_entry(at, b"\xE5          ", 0x20, 77);
        }
        made.put_entry(start + 480, b"LAST       ", 0x10, 7);
        made.put_entry(inner, b".          ", 0x10, 7);
        made.put_entry(inner + 32, b"..         ", 0x10, 5);
        made.put_entry(inner + 64, b"DEEP       ", 0x20, 40);
        made.set(40, 0x0FFF_FFFF);
        let (said, used, _) = testimony(&made, 1);
        assert_eq!(said.owned_bytes, used);
    }
}

#[test]
fn fat16_ignores_the_upper_half_of_a_first_cluster() {
    let mut made = Fixture::new(Kind::Fat16).make();
    let at = made.root_directory() + 32;
    made.put_entry(at, b"FILE       ", 0x20, 0x7777_0003);
    assert_eq!(map_of(&made).free, expected_free(&made));
}

#[test]
fn a_directory_without_end_is_left() {
    let mut made = Fixture { clusters: 5200, ..Fixture::new(Kind::Fat16) }.make();
    for cluster in 10..5190u32 {
        made.set(usize::try_from(cluster).unwrap(), cluster + 1);
    }
    made.set(5190, 0x0FFF_FFFF);
    made.set(6, 10);
    let (start, end) = (made.cluster(6), made.cluster(5191));
    made.bytes[start..end].fill(0xE5);
    assert!(declined(&made).1.contains("larger than any driver reads"));
}

#[test]
fn a_table_of_several_pieces_is_read_whole() {
    let mut made = Fixture { clusters: 600_000, ..Fixture::new(Kind::Fat32) }.make();
    made.set(9, 262_144);
    made.set(262_144, 599_999);
    made.set(599_999, 0x0FFF_FFFF);
    let map = map_of(&made);
    assert_eq!(map.free_bytes, expected_free(&made).total() - 2 * 512);
    assert_eq!(map.free.ranges().len(), 3);
    made.set_in(1, 262_145, 7);
    assert!(declined(&made).1.contains("copies of its FAT differ"));
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(&KINDS[..])
}

proptest! {
    #[test]
    fn corruptions_never_panic_and_never_free_what_is_no_cluster(
        kind in kind(),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        boot in proptest::collection::vec((0usize..512, any::<u8>()), 0..4),
    ) {
        let mut made = Fixture { clusters: if kind == Kind::Fat16 { 4100 } else { 60 }, ..Fixture::new(kind) }.make();
        let system = made.cluster(8);
        for (at, byte) in noise {
            let at = at.index(system);
            made.bytes[at] = byte;
        }
        for (at, byte) in boot {
            made.bytes[at] = byte;
        }
        if let Some(Detected { mapping: Mapping::Mapped(map), .. }) = probe(&made.bytes, CONTEXT).map(|found| found.heard(&made.bytes))
        {
            prop_assert!(!map.free.intersects(0..512));
            prop_assert!(!map.free.intersects(len64(made.bytes.len())..u64::MAX));
        }
    }

    #[test]
    fn whatever_the_fat_holds_only_zeros_are_free(
        kind in kind(),
        entries in proptest::collection::vec((10usize..90, 0u32..0x1000_0000), 0..40),
    ) {
        let mut made = Fixture { clusters: if kind == Kind::Fat16 { 4100 } else { 88 }, ..Fixture::new(kind) }.make();
        let mut used = std::collections::BTreeSet::new();
        for (cluster, value) in entries {
            // Mostly ends of chains, so that some volumes are believed.
            let value = if value % 16 == 0 { value % 90 } else { 0x0FFF_FFF8 | value & 7 };
            made.set(cluster, value);
            if value == 0 { used.remove(&cluster); } else { used.insert(cluster); }
        }
        if let Mapping::Mapped(map) = detect(&made).mapping {
            for cluster in 2..90 {
                let bytes = len64(made.cluster(cluster))..len64(made.cluster(cluster + 1));
                prop_assert_eq!(map.free.contains(bytes), cluster >= 10 && !used.contains(&cluster));
            }
        }
    }
}
