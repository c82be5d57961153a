//! Unit tests over a hand-made volume: each refusal breaks one field.

use super::fixture::{CHAIN, CONTIGUOUS, DIRECTORY, Fixture, Made};
use super::*;
use crate::extents::Extents;
use crate::fs::{Hearing, Mapping, Testimony};
use crate::units::len64;
use proptest::prelude::*;

const CONTEXT: Context = Context { sector_size: 512 };

fn detect(made: &Made) -> Detected {
    probe(&made.bytes, CONTEXT).expect("recognised").heard(&made.bytes)
}

fn declined(made: &Made) -> (DeclineReason, String) {
    let decline = detect(made).into_decline();
    assert!(decline.site.is_some());
    (decline.reason, decline.detail)
}

/// Breaks a fresh volume and expects it to be declined with a word of the reason.
fn refuses(reason: DeclineReason, word: &str, change: impl Fn(&mut Made)) {
    let mut made = Fixture::default().make();
    change(&mut made);
    let (found, detail) = declined(&made);
    assert!(found == reason && detail.contains(word), "{word}: {found:?} {detail}");
}

/// As [`refuses`], for a field of the boot sector under a right checksum.
fn refuses_boot(reason: DeclineReason, word: &str, at: usize, value: &[u8]) {
    refuses(reason, word, |m| {
        m.bytes[at..at + value.len()].copy_from_slice(value);
        m.seal();
    });
}

use DeclineReason::{Dirty, ErrorState, Inconsistent, UnknownFeature};

#[test]
fn exactly_the_clear_bits_are_free() {
    for (sector_shift, cluster_shift, clusters) in [(9, 1, 60), (9, 3, 61), (12, 0, 5000), (9, 1, 40_000)] {
        let made = Fixture { sector_shift, cluster_shift, clusters }.make();
        let made = if clusters > 2000 { large(made) } else { made };
        let found = detect(&made);
        assert_eq!(found.label.as_deref(), Some("Héj"));
        let Mapping::Mapped(map) = found.mapping else { panic!("{:?}", found.mapping) };
        let end = made.cluster(made.last_cluster() + 1);
        let mut expected = Extents::new();
        let bitmap_rest = if clusters == 40_000 { 20..24 } else { 14..14 };
        for cluster in (13..=made.last_cluster()).filter(|c| *c != 14 && !bitmap_rest.contains(c)) {
            expected.push(len64(made.cluster(cluster))..len64(made.cluster(cluster + 1)));
        }
        assert_eq!(expected.ranges().last().map(|r| r.end), Some(len64(end)));
        assert_eq!(map.free, expected);
        assert_eq!(map.free_bytes, expected.total());
    }
}

/// Gives a bitmap of several clusters its chain, out of order, at clusters 2, 20, 23, 22, 21.
fn large(mut made: Made) -> Made {
    let needed = made.last_cluster().div_ceil(8);
    let count = needed.div_ceil(made.cluster_size);
    if count == 1 {
        return made;
    }
    assert_eq!(count, 5);
    made.link(&[(2, 20), (20, 23), (23, 22), (22, 21), (21, 0xFFFF_FFFF)]);
    for cluster in 20..24 {
        made.set_used(cluster, true);
    }
    made
}

#[test]
fn the_rest_after_the_last_cluster_is_never_free() {
    let made = Fixture::default().make();
    let Mapping::Mapped(map) = detect(&made).mapping else { panic!("declined") };
    let end = len64(made.cluster(made.last_cluster() + 1));
    assert!(len64(made.bytes.len()) > end && !map.free.intersects(end..u64::MAX));
}

#[test]
fn a_wrong_percentage_is_only_a_warning() {
    let mut made = Fixture::default().make();
    assert!(detect(&made).warnings.is_empty());
    for right in [0xFF, 20, 21] {
        made.bytes[112] = right;
        assert!(detect(&made).warnings.is_empty());
    }
    made.bytes[112] = 22;
    let found = detect(&made);
    assert_eq!(found.warnings[0].code, "exfat-percent-in-use");
    assert!(matches!(found.mapping, Mapping::Mapped(_)));
}

#[test]
fn others_are_not_exfat() {
    assert!(probe(&vec![0; 4096], CONTEXT).is_none());
    assert!(probe(&vec![0; 10], CONTEXT).is_none());
}

#[test]
fn a_damaged_boot_region_is_declined() {
    refuses(Inconsistent, "checksum", |m| m.bytes[200] ^= 1);
    refuses(Inconsistent, "checksum", |m| m.bytes[10 * 512 + 3] ^= 1);
    refuses(Inconsistent, "checksum", |m| m.bytes[12 * 512 - 1] ^= 1);
    refuses(Inconsistent, "damaged", |m| m.bytes[0] = 0);
    refuses(Inconsistent, "damaged", |m| m.bytes[63] = 1);
    refuses(Inconsistent, "damaged", |m| m.bytes[510] = 0);
    refuses_boot(UnknownFeature, "revision", 104, &[1]);
    refuses_boot(UnknownFeature, "revision", 105, &[2]);
    refuses_boot(UnknownFeature, "TexFAT", 110, &[2]);
    refuses_boot(UnknownFeature, "clusters", 92, &[0; 4]);
    refuses_boot(Inconsistent, "cluster size", 109, &[17]);
    refuses_boot(Inconsistent, "cluster size", 109, &[255]);
    refuses_boot(Inconsistent, "larger than its partition", 72, &u64::from(u32::MAX).to_le_bytes());
    refuses_boot(Inconsistent, "overlap", 80, &23u32.to_le_bytes());
    refuses_boot(Inconsistent, "overlap", 84, &0u32.to_le_bytes());
    refuses_boot(Inconsistent, "overlap", 84, &9u32.to_le_bytes());
    refuses_boot(Inconsistent, "overlap", 88, &24u32.to_le_bytes());
    refuses_boot(Inconsistent, "overlap", 92, &61u32.to_le_bytes());
    refuses_boot(Inconsistent, "root directory lies outside", 96, &62u32.to_le_bytes());
    refuses_boot(Inconsistent, "root directory lies outside", 96, &1u32.to_le_bytes());
    for shift in [8, 13] {
        refuses(Inconsistent, "sector size", |m| m.bytes[108] = shift);
    }
    let huge = |m: &mut Made| {
        m.bytes[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        m.seal();
    };
    let mut made = Fixture::default().make();
    huge(&mut made);
    assert!(matches!(detect(&made).mapping, Mapping::Declined(_)));
}

#[test]
fn flags_are_declined() {
    refuses(Dirty, "not cleanly unmounted", |m| {
        m.bytes[106] = 2;
        assert_eq!(detect(m).label.as_deref(), Some("Héj"));
    });
    refuses(ErrorState, "error of its disk", |m| m.bytes[106] = 4);
    refuses(Inconsistent, "active FAT", |m| m.bytes[106] = 1);
    refuses(UnknownFeature, "unknown flags", |m| m.bytes[106] = 0x10);
    let mut made = Fixture::default().make();
    made.bytes[106] = 8;
    assert!(matches!(detect(&made).mapping, Mapping::Mapped(_)));
}

#[test]
fn the_bitmap_must_be_found_and_whole() {
    let entry = |m: &Made| m.cluster(4) + 32;
    refuses(Inconsistent, "no allocation bitmap", |m| {
        let at = entry(m);
        m.bytes[at] = 0x01
    });
    refuses(Inconsistent, "no allocation bitmap", |m| {
        let at = entry(m);
        m.bytes[at + 1] = 1
    });
    refuses(Inconsistent, "two allocation bitmaps", |m| {
        let at = entry(m);
        m.put_table(at + 32, 0x81, 2, 8)
    });
    refuses(Inconsistent, "wrong size", |m| {
        let at = entry(m);
        m.put_table(at, 0x81, 2, 7)
    });
    refuses(Inconsistent, "wrong size", |m| {
        let at = entry(m);
        m.put_table(at, 0x81, 2, 1025)
    });
    refuses(Inconsistent, "wrong size", |m| {
        let at = entry(m);
        m.put_table(at, 0x81, 1, 8)
    });
    refuses(Inconsistent, "wrong size", |m| {
        let at = entry(m);
        m.put_table(at, 0x81, 62, 8)
    });
    refuses(Inconsistent, "longer or shorter", |m| m.link(&[(2, 13)]));
    refuses(Inconsistent, "longer or shorter", |m| m.link(&[(2, 2)]));
    refuses(Inconsistent, "leads out", |m| m.link(&[(2, 62)]));
    refuses(Inconsistent, "leads out", |m| m.link(&[(2, 0)]));
}

#[test]
fn a_root_directory_without_end_is_declined() {
    refuses(Inconsistent, "no end", |m| m.link(&[(5, 4)]));
}

#[test]
fn every_used_cluster_must_be_marked() {
    for cluster in 2..=12 {
        refuses(Inconsistent, "calls free", |m| m.set_used(cluster, false));
    }
}

/// The file sets of the root directory.
fn sets(m: &Made) -> [usize; 4] {
    [128, 224, 320, 416].map(|at| m.cluster(4) + at)
}

#[test]
fn files_that_share_or_leave_clusters_are_declined() {
    let size = 1024;
    let put = |m: &mut Made, i: usize, flags, first, len| {
        let at = sets(m)[i];
        m.put_set(at, if i == 2 { DIRECTORY } else { 0 }, flags, first, len);
    };
    refuses(Inconsistent, "another file has, too", |m| put(m, 0, CONTIGUOUS, 6, size * 4));
    refuses(Inconsistent, "another file has, too", |m| put(m, 3, CHAIN, 11, 1));
    refuses(Inconsistent, "calls free", |m| put(m, 0, CONTIGUOUS, 61, size));
    refuses(Inconsistent, "leaves the volume", |m| put(m, 0, CONTIGUOUS, 62, size));
    refuses(Inconsistent, "leaves the volume", |m| put(m, 0, CONTIGUOUS, u32::MAX, size * 2));
    refuses(Inconsistent, "does not fit", |m| put(m, 0, CONTIGUOUS, 6, u64::MAX));
    refuses(Inconsistent, "does not fit", |m| put(m, 0, CONTIGUOUS, 6, 0));
    refuses(Inconsistent, "does not fit", |m| put(m, 0, CONTIGUOUS, 0, 1));
    refuses(Inconsistent, "longer or shorter", |m| put(m, 1, CHAIN, 9, size));
    refuses(Inconsistent, "longer or shorter", |m| put(m, 1, CHAIN, 9, size * 2 + 1));
    refuses(Inconsistent, "leads out", |m| m.link(&[(11, 1)]));
    refuses(Inconsistent, "longer or shorter", |m| m.link(&[(11, 9)]));
    refuses(Inconsistent, "another file has, too", |m| put(m, 2, CONTIGUOUS, 4, size));
    refuses(Inconsistent, "impossible length", |m| put(m, 2, CONTIGUOUS, 10, size - 1));
}

#[test]
fn broken_sets_are_declined() {
    let edit = |i: usize, at: usize, value: u8, reseal: bool| {
        move |m: &mut Made| {
            let set = sets(m)[i];
            m.bytes[set + at] = value;
            if reseal {
                m.seal_set(set);
            }
        }
    };
    refuses(Inconsistent, "checksum", edit(0, 40, 9, false));
    refuses(Inconsistent, "checksum", edit(0, 3, 99, false));
    refuses(Inconsistent, "too few", edit(0, 1, 1, false));
    refuses(Inconsistent, "too few", edit(0, 1, 19, false));
    refuses(Inconsistent, "not complete", edit(0, 1, 3, false));
    refuses(Inconsistent, "not complete", edit(0, 64, 0x41, false));
    refuses(Inconsistent, "no beginning", edit(0, 0, 0x05, false));
    refuses(Inconsistent, "no stream", edit(0, 32, 0xC1, true));
    refuses(UnknownFeature, "0xc0", edit(0, 64, 0xC0, true));
    refuses(UnknownFeature, "0xc5", edit(0, 64, 0xC5, true));
    refuses(UnknownFeature, "0x86", edit(0, 0, 0x86, false));
    refuses(Inconsistent, "checksum", edit(0, 0, 0xA2, false));
    refuses(UnknownFeature, "0x81", |m| {
        let at = m.cluster(10) + 96;
        m.put_table(at, 0x81, 2, 8);
    });
    refuses(Inconsistent, "ends inside", |m| {
        let at = m.cluster(10) + 64;
        m.bytes[at] = 0;
    });
}

#[test]
fn what_a_vendor_allocates_is_in_use_too() {
    let with_vendor = |flags, first| {
        let mut made = Fixture::default().make();
        let at = made.cluster(10);
        made.bytes[at + 1] = 3;
        made.put_table(at + 96, 0xE1, first, 1000);
        made.bytes[at + 97] = flags;
        made.seal_set(at);
        made
    };
    assert!(matches!(detect(&with_vendor(CONTIGUOUS, 14)).mapping, Mapping::Mapped(_)));
    assert!(matches!(detect(&with_vendor(0, 999)).mapping, Mapping::Mapped(_)));
    assert!(declined(&with_vendor(CONTIGUOUS, 13)).1.contains("calls free"));
}

#[test]
fn an_entry_that_may_be_ignored_owns_what_its_template_says() {
    // Of the file "run" a set of an unknown benign kind: its secondary says what it occupies.
    let mut made = Fixture::default().make();
    let at = sets(&made)[0];
    made.bytes[at] = 0xA7;
    made.seal_set(at);
    assert!(matches!(detect(&made).mapping, Mapping::Mapped(_)));
    made.set_used(7, false);
    assert!(declined(&made).1.contains("“an entry of a vendor” lies in space"));
    // One without secondaries, in a directory, that occupies the lost cluster, or a free one, or none.
    for (flags, first, is_mapped) in [(3, 14, true), (3, 15, false), (0, 15, true)] {
        let mut made = Fixture::default().make();
        let at = made.cluster(10) + 96;
        made.put_table(at, 0xA7, first, 100);
        made.bytes[at + 4] = flags;
        made.seal_set(at);
        assert_eq!(matches!(detect(&made).mapping, Mapping::Mapped(_)), is_mapped, "{flags} {first}");
    }
    // What TexFAT pads with has no template at all.
    let mut made = Fixture::default().make();
    let at = made.cluster(10) + 96;
    made.bytes[at..at + 32].fill(0xFF);
    made.bytes[at] = 0xA1;
    assert!(matches!(detect(&made).mapping, Mapping::Mapped(_)));
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
    let mut made = Fixture::default().make();
    let (said, used, steps) = testimony(&made, 1);
    // Cluster 14 is lost. Bitmap, up-case table, three files and a directory were looked at, and one inside it.
    assert_eq!((said.owned_bytes + 1024, said.records), (used, 7));
    assert!(steps > 8);
    assert_eq!(testimony(&made, u64::MAX), (said, used, 1));
    made.set_used(14, false);
    assert_eq!(testimony(&made, 1).1, said.owned_bytes);
}

#[test]
fn an_owner_is_told_by_its_path() {
    let mut made = Fixture::default().make();
    for (set, name) in [(sets(&made)[2], "dir"), (made.cluster(10), "inner.txt")] {
        let units: Vec<u16> = name.encode_utf16().collect();
        made.bytes[set + 35] = u8::try_from(units.len()).unwrap();
        for (i, unit) in units.iter().enumerate() {
            made.bytes[set + 66 + i * 2..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        made.seal_set(set);
    }
    made.set_used(12, false);
    assert!(declined(&made).1.contains("“dir/inner.txt” lies in space"));
    let mut made = Fixture::default().make();
    made.set_used(5, false);
    assert!(declined(&made).1.contains("“the root directory” lies in space"));
}

#[test]
fn directories_go_on_beyond_their_first_cluster() {
    for flags in [CHAIN, CONTIGUOUS] {
        let mut made = Fixture::default().make();
        // "dir" gets a second cluster, 15 by its chain or 11, which "chain" gives up, behind it.
        let second = if flags == CHAIN { 15 } else { 11 };
        let chain = sets(&made)[1];
        made.put_set(chain, 0, CHAIN, 9, 10);
        made.link(&[(9, 0xFFFF_FFFF), (10, u32::try_from(second).unwrap()), (second, 0xFFFF_FFFF)]);
        made.set_used(11, flags == CONTIGUOUS);
        made.set_used(second, true);
        let (directory, at) = (sets(&made)[2], made.cluster(10));
        made.put_set(directory, DIRECTORY, flags, 10, 2048);
        for entry in (at + 96..at + 1024).step_by(32) {
            made.bytes[entry] = 0x41;
        }
        let at = made.cluster(second);
        made.put_set(at, 0, CONTIGUOUS, 20, 5);
        assert!(declined(&made).1.contains("calls free"), "{flags}");
        made.set_used(20, true);
        assert!(matches!(detect(&made).mapping, Mapping::Mapped(_)), "{:?}", detect(&made).mapping);
    }
}

#[test]
fn a_volume_identifier_is_welcome() {
    let mut made = Fixture::default().make();
    let at = made.cluster(4) + 96;
    made.bytes[at] = 0xA0;
    assert!(matches!(detect(&made).mapping, Mapping::Mapped(_)));
}

proptest! {
    #[test]
    fn corruptions_never_panic_and_never_free_what_is_no_cluster(
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        boot in proptest::collection::vec((64usize..128, any::<u8>()), 0..3),
        seal in any::<bool>(),
    ) {
        let mut made = Fixture::default().make();
        let system = made.cluster(13);
        for (at, byte) in noise {
            let at = at.index(system - made.fat) + made.fat;
            made.bytes[at] = byte;
        }
        for (at, byte) in boot {
            made.bytes[at] = byte;
        }
        if seal {
            made.seal();
        }
        if let Some(Detected { mapping: Mapping::Mapped(map), .. }) = probe(&made.bytes, CONTEXT).map(|found| found.heard(&made.bytes))
        {
            prop_assert!(!map.free.intersects(0..len64(made.heap)));
            prop_assert!(!map.free.intersects(len64(made.bytes.len())..u64::MAX));
        }
    }

    #[test]
    fn a_lost_bit_is_never_free_space(lost in 2usize..62, shape in 0usize..3) {
        let mut made = Fixture::default().make();
        if shape == 1 { made.link(&[(11, 15), (15, 0xFFFF_FFFF)]); made.set_used(15, true);
            let at = sets(&made)[1]; made.put_set(at, 0, CHAIN, 9, 3000); }
        made.set_used(lost, false);
        if let Mapping::Mapped(map) = detect(&made).mapping {
            let used = (2..=12).contains(&lost) || (shape == 1 && lost == 15);
            prop_assert!(!used, "cluster {} is {:?}", lost, map.free);
        }
    }
}
