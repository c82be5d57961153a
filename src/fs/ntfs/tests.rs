//! Each thing that makes a volume unsafe, broken alone in a volume made by hand.

use proptest::prelude::*;

use super::fixture::*;
use super::*;
use crate::fs::Mapping;

#[test]
fn a_volume_in_order_is_mapped() {
    let detected = detect(&Spec::new().build());
    assert_eq!((detected.name, detected.label.as_deref()), ("NTFS", Some("Ünit")));
    assert!(detected.warnings.is_empty());
    let map = mapped(&Spec::new().build());
    assert_eq!(map.free.ranges(), std::slice::from_ref(&FREE));
    assert_eq!(map.free_bytes, 20 * 4096);
    assert!(map.on_request.is_empty());
}

#[test]
fn the_flags_of_the_volume_decide() {
    let volume = |major, minor, flags| {
        move |spec: &mut Spec| {
            spec.records.insert(3, RecordSpec::file(vec![volume_information(major, minor, flags)]));
        }
    };
    for flags in [0, 0x0008, 0x0080] {
        mapped(&changed(volume(3, 0, flags)));
        mapped(&changed(volume(1, 2, flags)));
    }
    assert_declined("dirty", DeclineReason::Dirty, volume(3, 1, 0x0081));
    for flag in [0x0002, 0x0004, 0x0010, 0x0020, 0x4000, 0x8000] {
        assert_declined("unfinished", DeclineReason::ErrorState, volume(3, 1, flag));
    }
    for flag in [0x0040, 0x0100, 0x2000] {
        assert_declined("unknown flag", DeclineReason::UnknownFeature, volume(3, 1, flag));
    }
    for (major, minor) in [(0, 0), (1, 1), (2, 0), (3, 2), (4, 0)] {
        assert_declined("version", DeclineReason::UnknownFeature, volume(major, minor, 0));
    }
    assert_declined("no information", DeclineReason::Inconsistent, |spec| {
        spec.records.insert(3, RecordSpec::file(vec![]));
    });
    let label = detect(&changed(volume(3, 1, 1))).label;
    assert_eq!(label, None);
}

#[test]
fn a_declined_volume_keeps_its_label() {
    let dirty = changed(|spec| {
        let volume = spec.records.get_mut(&3).unwrap();
        volume.attributes[1] = volume_information(3, 1, 1);
    });
    assert_eq!(detect(&dirty).label.as_deref(), Some("Ünit"));
}

/// A log whose restart pages are these.
fn log(first: Vec<u8>, second: Vec<u8>) -> impl FnOnce(&mut Spec) {
    move |spec| {
        spec.log[..4096].copy_from_slice(&first);
        spec.log[4096..8192].copy_from_slice(&second);
    }
}

#[test]
fn the_newer_restart_page_decides() {
    let page = |lsn, in_use, flags| restart_page(lsn, (1, 1), in_use, flags);
    let (clean, closed, open) = (page(5, 0, 2), page(5, 0xFFFF, 0), page(5, 0, 0));
    mapped(&changed(log(clean.clone(), clean.clone())));
    mapped(&changed(log(closed.clone(), closed.clone())));
    mapped(&changed(log(page(4, 0, 0), clean.clone())));
    mapped(&changed(log(clean.clone(), page(4, 0, 0))));
    assert_declined("open", DeclineReason::Dirty, log(open.clone(), open.clone()));
    assert_declined("newer one open", DeclineReason::Dirty, log(clean.clone(), page(6, 0, 0)));
    assert_declined("newer one open", DeclineReason::Dirty, log(page(6, 0, 0), clean.clone()));
    assert_declined("equally new, one open", DeclineReason::Dirty, log(clean, open));
}

#[test]
fn a_log_that_is_not_understood_is_not_clean() {
    let clean = || restart_page(5, (1, 1), 0, 2);
    let with = |offset: usize, bytes: &'static [u8]| {
        move |spec: &mut Spec| {
            log(clean(), clean())(spec);
            spec.log[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    };
    assert_declined("version 2.0", DeclineReason::Dirty, log(restart_page(5, (2, 0), 0, 2), clean()));
    assert_declined("version 2.0", DeclineReason::Dirty, log(clean(), restart_page(4, (2, 0), 0, 2)));
    assert_declined(
        "version 1.0",
        DeclineReason::UnknownFeature,
        log(restart_page(5, (1, 0), 0, 2), clean()),
    );
    assert_declined("chkdsk", DeclineReason::ErrorState, with(0, b"CHKD"));
    assert_declined("chkdsk", DeclineReason::ErrorState, with(4096, b"CHKD"));
    assert_declined("no restart page", DeclineReason::Dirty, with(0, b"RCRD"));
    assert_declined("no second page", DeclineReason::Dirty, with(4096, &[0xFF; 4]));
    assert_declined("zeros", DeclineReason::Dirty, |spec| spec.log.fill(0));
    assert_declined("torn", DeclineReason::Inconsistent, with(1022, &[1, 2]));
    assert_declined("torn copy", DeclineReason::Inconsistent, with(4096 + 1022, &[1, 2]));
    assert_declined("page size 0", DeclineReason::Inconsistent, with(16, &[0, 0, 0, 0]));
    assert_declined("page size odd", DeclineReason::Inconsistent, with(16, &[0, 0x11]));
    assert_declined("page sizes differ", DeclineReason::Inconsistent, with(4096 + 16, &[0, 0x20]));
    assert_declined("restart area outside", DeclineReason::Inconsistent, with(24, &[0xFC, 0x0F]));
    assert_declined("client that is not there", DeclineReason::Inconsistent, with(0x3C, &[1, 0]));
    assert_declined("almost empty", DeclineReason::Dirty, |spec| spec.log[70_000] = 0);
    assert_declined("almost empty", DeclineReason::Dirty, |spec| spec.log[128 << 10] = 0);
    assert_declined("too short", DeclineReason::Inconsistent, |spec| {
        spec.records.insert(2, RecordSpec::file(vec![data(&[(Some(20), 49)])]));
    });
    assert_declined("resident", DeclineReason::Inconsistent, |spec| {
        spec.records.insert(2, RecordSpec::file(vec![resident(kind::DATA, "", 1, &[])]));
    });
}

#[test]
fn the_bitmap_must_be_whole_and_plain() {
    let bitmap = |runs: Runs<'static>| {
        move |spec: &mut Spec| {
            spec.records.insert(6, RecordSpec::file(vec![non_resident(kind::DATA, "", 1, &runs)]));
        }
    };
    let whole = || Runs { sizes: [4096, 16, 16], ..Runs::filled(&[(Some(13), 1)]) };
    mapped(&changed(bitmap(Runs { sizes: [4096, 13, 13], ..whole() })));
    mapped(&changed(bitmap(Runs { sizes: [4096; 3], ..whole() })));
    let cases = [
        ("too short", Runs { sizes: [4096, 12, 12], ..whole() }),
        ("too long", Runs { sizes: [8192, 4097, 4097], ..Runs::filled(&[(Some(13), 2)]) }),
        ("not initialised", Runs { sizes: [4096, 16, 12], ..whole() }),
        ("compressed", Runs { flags: 0x0001, ..whole() }),
        ("encrypted", Runs { flags: 0x4000, ..whole() }),
        ("sparse", Runs { flags: 0x8000, ..whole() }),
        ("sparse run", Runs::filled(&[(None, 1)])),
        ("incomplete", Runs { sizes: [8192, 16, 16], ..whole() }),
    ];
    for (what, runs) in cases {
        assert_declined(what, DeclineReason::Inconsistent, bitmap(runs));
    }
    assert_declined("no data", DeclineReason::Inconsistent, |spec| {
        spec.records.insert(6, RecordSpec::file(vec![]));
    });
}

#[test]
fn a_resident_bitmap_is_read_too() {
    let map = mapped(&changed(|spec| {
        let value = resident(kind::DATA, "", 1, &spec.bitmap);
        spec.records.insert(6, RecordSpec::file(vec![value]));
    }));
    assert_eq!(map.free.ranges(), std::slice::from_ref(&FREE));
}

#[test]
fn clusters_of_system_files_are_never_free() {
    for cluster in [0, 4, 11, 12, 13, 14, 20, 69] {
        assert_declined("used by a system file", DeclineReason::Inconsistent, |spec| {
            spec.bitmap[cluster / 8] &= !(1 << (cluster % 8));
        });
    }
    mapped(&changed(|spec| spec.bitmap[71 / 8] &= !(1 << (71 % 8))));
    assert_declined("used by the second part of $Bitmap", DeclineReason::Inconsistent, |spec| {
        in_parts(spec, resident(kind::ATTRIBUTE_LIST, "", 9, &bitmap_list()));
        spec.bitmap[71 / 8] &= !(1 << (71 % 8));
    });
    assert_declined("used by a $Bitmap that lies elsewhere", DeclineReason::Inconsistent, |spec| {
        let list = resident(kind::ATTRIBUTE_LIST, "", 9, &list_entry(kind::DATA, "", 0, 20 | 1 << 48, 7));
        let elsewhere = non_resident(kind::DATA, "", 7, &Runs::filled(&[(Some(13), 1)]));
        spec.records.insert(6, RecordSpec::file(vec![list]));
        spec.records.insert(20, RecordSpec { base: 6 | 1 << 48, ..RecordSpec::file(vec![elsewhere]) });
        spec.bitmap[13 / 8] &= !(1 << (13 % 8));
    });
}

#[test]
fn the_mirror_must_equal_the_table() {
    for record in 0..4 {
        let mut volume = Spec::new().build();
        volume[12 * CLUSTER + record * RECORD + 0x12] ^= 1;
        assert_eq!(declined(&volume).reason, DeclineReason::Inconsistent);
    }
    // The boot sector may name another place only if $MFTMirr does too.
    let mut volume = Spec::new().build();
    volume[0x38] = 70;
    assert_eq!(declined(&volume).reason, DeclineReason::Inconsistent);
    volume[0x38] = 12;
    volume[0x30] = 12;
    assert_eq!(declined(&volume).reason, DeclineReason::Inconsistent);
}

#[test]
fn damaged_records_decline() {
    let record = |number: usize| 4 * CLUSTER + number * RECORD;
    for number in [0, 1, 2, 3, 5, 6, 7, 10] {
        for (what, offset, value) in [
            ("magic", 0, 0),
            ("update sequence", 510, 0),
            ("update sequence of the second stride", 1022, 0),
            ("update sequence count", 6, 2),
            ("own number", 0x2C, 99),
            ("not in use", 0x16, 0),
            ("bytes in use", 0x19, 0x7F),
            ("attributes outside", 0x15, 0x7F),
            ("attribute without length", 60, 0),
        ] {
            let mut volume = Spec::new().build();
            volume[record(number) + offset] = value;
            let unchanged = volume == Spec::new().build();
            assert!(unchanged || declined(&volume).reason == DeclineReason::Inconsistent, "{number}: {what}");
        }
    }
}

/// $Bitmap in two parts, the second in record 20, named by a list.
fn in_parts(spec: &mut Spec, list: Vec<u8>) {
    let first = Runs { runs: &[(Some(13), 1)], first_vcn: 0, sizes: [8192, 4096, 4096], flags: 0 };
    let second = Runs { runs: &[(Some(71), 1)], first_vcn: 1, sizes: [0; 3], flags: 0 };
    spec.records.insert(6, RecordSpec::file(vec![list, non_resident(kind::DATA, "", 1, &first)]));
    let part =
        RecordSpec { base: 6 | 1 << 48, ..RecordSpec::file(vec![non_resident(kind::DATA, "", 7, &second)]) };
    spec.records.insert(20, part);
}

fn bitmap_list() -> Vec<u8> {
    let mut list = list_entry(kind::DATA, "", 0, 6 | 1 << 48, 1);
    list.extend(list_entry(kind::DATA, "", 1, 20 | 1 << 48, 7));
    list
}

#[test]
fn attribute_lists_are_followed() {
    let map = mapped(&changed(|spec| in_parts(spec, resident(kind::ATTRIBUTE_LIST, "", 9, &bitmap_list()))));
    assert_eq!(map.free.ranges(), std::slice::from_ref(&FREE));

    let list = bitmap_list();
    let len = u64::try_from(list.len()).unwrap();
    let map = mapped(&changed(|spec| {
        let runs = Runs { sizes: [4096, len, len], ..Runs::filled(&[(Some(15), 1)]) };
        in_parts(spec, non_resident(kind::ATTRIBUTE_LIST, "", 9, &runs));
        spec.clusters.push((15, list));
    }));
    assert_eq!(map.free.ranges(), std::slice::from_ref(&FREE));
}

#[test]
fn each_fault_of_an_attribute_list_declines() {
    type Change = Box<dyn FnOnce(&mut Spec)>;
    let with_list = |entries: Vec<Vec<u8>>| -> Change {
        Box::new(move |spec| in_parts(spec, resident(kind::ATTRIBUTE_LIST, "", 9, &entries.concat())))
    };
    let first = || list_entry(kind::DATA, "", 0, 6 | 1 << 48, 1);
    let second = || list_entry(kind::DATA, "", 1, 20 | 1 << 48, 7);
    let part = |change: fn(&mut RecordSpec)| -> Change {
        Box::new(move |spec| {
            in_parts(spec, resident(kind::ATTRIBUTE_LIST, "", 9, &bitmap_list()));
            change(spec.records.get_mut(&20).unwrap());
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        ("second part missing", with_list(vec![first()])),
        ("first part missing", with_list(vec![second()])),
        ("parts out of order", with_list(vec![second(), first()])),
        ("part named twice", with_list(vec![first(), second(), second()])),
        ("record not there", with_list(vec![first(), list_entry(kind::DATA, "", 1, 31 | 1 << 48, 7)])),
        ("record past the end", with_list(vec![first(), list_entry(kind::DATA, "", 1, 1 << 47, 7)])),
        ("wrong sequence", with_list(vec![first(), list_entry(kind::DATA, "", 1, 20 | 2 << 48, 7)])),
        ("wrong instance", with_list(vec![first(), list_entry(kind::DATA, "", 1, 20 | 1 << 48, 8)])),
        ("wrong VCN", with_list(vec![first(), list_entry(kind::DATA, "", 2, 20 | 1 << 48, 7)])),
        ("cut short", with_list(vec![first(), second()[..20].to_vec()])),
        ("entry without length", with_list(vec![first(), vec![0; 32]])),
        ("empty", with_list(vec![])),
        ("part of another file", part(|part| part.base = 7 | 1 << 48)),
        ("part not in use", part(|part| part.flags = 0)),
        ("part is a base record", part(|part| part.base = 0)),
        ("part is resident", part(|part| part.attributes = vec![resident(kind::DATA, "", 7, &[0; 8])])),
    ];
    for (what, change) in cases {
        assert_declined(what, DeclineReason::Inconsistent, change);
    }
}

#[test]
fn a_fragmented_table_is_found_through_its_own_list() {
    // The first four clusters hold records 0 to 15, among them the part that tells of the rest.
    let volume = changed(|spec| {
        let first = Runs { runs: &[(Some(4), 4)], first_vcn: 0, sizes: [8 * 4096; 3], flags: 0 };
        let second = Runs { runs: &[(Some(72), 4)], first_vcn: 4, sizes: [0; 3], flags: 0 };
        let mut list = list_entry(kind::DATA, "", 0, 1 << 48, 1);
        list.extend(list_entry(kind::DATA, "", 4, 15 | 1 << 48, 3));
        list.extend(list_entry(kind::BITMAP, "", 0, 1 << 48, RECORD_BITMAP_INSTANCE));
        spec.records.insert(
            0,
            RecordSpec::file(vec![
                resident(kind::ATTRIBUTE_LIST, "", 9, &list),
                non_resident(kind::DATA, "", 1, &first),
            ]),
        );
        let part = RecordSpec::file(vec![non_resident(kind::DATA, "", 3, &second)]);
        spec.records.insert(15, RecordSpec { base: 1 << 48, ..part });
        spec.add_file("pagefile.sys", 24, data(&[(Some(70), 1)]));
    });
    let mut moved = volume.clone();
    moved.copy_within(8 * CLUSTER..12 * CLUSTER, 72 * CLUSTER);
    moved[8 * CLUSTER..12 * CLUSTER].fill(0xEE);
    assert_eq!(page_file_clusters(&mapped(&moved)), [70]);
    assert!(
        matches!(declined(&volume).reason, DeclineReason::Inconsistent),
        "record 24 is not at cluster 74"
    );
}

/// Shadow copies whose bitmap needs one block of the free space, 23, and one of the page file, 18. The
/// structures lie in clusters 84 to 99, blocks 21 to 24, of a volume with 25 blocks.
fn with_shadow_copies(next_of_bitmap: u64) -> Vec<u8> {
    use super::shadow::tests::{bitmap, entries, structure, volume_header};
    let at = |n: usize| u64::try_from((84 + 4 * n) * CLUSTER).unwrap();
    changed(|spec| {
        let mut boot = vec![0; 0x1E00 - CLUSTER];
        boot.extend(volume_header(at(0)));
        spec.clusters.push((1, boot));
        spec.clusters.push((84, structure(2, at(0), 0, &entries(1, 1, Some([at(1), at(2), at(3), 0])))));
        spec.clusters.push((88, structure(4, at(1), 0, &[])));
        spec.clusters.push((92, structure(3, at(2), 0, &[])));
        spec.clusters.push((96, structure(6, at(3), next_of_bitmap, &bitmap(&[18, 23]))));
        spec.add_file("pagefile.sys", 24, data(&[(Some(70), 8)]));
    })
}

#[test]
fn free_space_that_shadow_copies_need_is_held_back() {
    let volume = with_shadow_copies(0);
    let map = mapped(&volume);
    assert_eq!(map.free.ranges(), std::slice::from_ref(&(80 * 4096..84 * 4096)));
    assert_eq!(map.free_bytes, 20 * 4096);
    let [(Request::ShadowCopies, held), (Request::PageFiles, pages)] = map.on_request.as_slice() else {
        panic!("{map:?}")
    };
    assert_eq!(held.ranges(), std::slice::from_ref(&(84 * 4096..100 * 4096)));
    // Of clusters 70 to 77 the snapshot needs block 18, clusters 72 to 75.
    assert_eq!(pages.ranges(), [70 * 4096..72 * 4096, 76 * 4096..78 * 4096]);
    assert_eq!(detect(&volume).warnings[0].code, "shadow-copies");
}

#[test]
fn all_free_space_is_held_back_where_shadow_copies_cannot_be_read() {
    let volume = with_shadow_copies(u64::MAX);
    let map = mapped(&volume);
    assert!(map.free.is_empty());
    assert_eq!(map.free_bytes, 20 * 4096);
    assert_eq!(map.on_request, [(Request::ShadowCopies, Extents::from_ranges(vec![FREE]))]);
    let warnings = detect(&volume).warnings;
    assert!(warnings[0].message.contains("cannot be told"), "{warnings:?}");
}

#[test]
fn a_volume_cut_short_declines() {
    let whole = Spec::new().build();
    let cut = whole[..whole.len() - 4097].to_vec();
    assert_eq!(declined(&cut).reason, DeclineReason::Inconsistent);
}

/// A reader that fails where it is told to.
struct Failing<'a>(&'a Vec<u8>, u64);

impl ReadAt for Failing<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset <= self.1 && self.1 < offset + len64(buf.len()) {
            return Err(Error::new(crate::error::ErrorKind::ReadFailed, "bad sector"));
        }
        self.0.read_exact_at(offset, buf)
    }
}

#[test]
fn a_volume_that_cannot_be_read_is_declined_as_unreadable() {
    // The page of the cache that holds $LogFile's end, not the one that holds the boot sector.
    let volume = Spec::new().build();
    let detected = probe(&Failing(&volume, 200_000), CONTEXT).unwrap();
    let Mapping::Declined(decline) = detected.mapping else { panic!("mapped") };
    assert_eq!(decline.reason, DeclineReason::Unreadable);
    assert!(probe(&Failing(&volume, 0), CONTEXT).is_none());
}

/// A volume with everything that is read: a log of Windows', lists, page files.
fn rich() -> Vec<u8> {
    changed(|spec| {
        let page = restart_page(5, (1, 1), 0, 2);
        log(page.clone(), page)(spec);
        in_parts(spec, resident(kind::ATTRIBUTE_LIST, "", 9, &bitmap_list()));
        spec.add_file("pagefile.sys", 24, data(&[(Some(70), 1)]));
        spec.add_file("hiberfil.sys", 25, data(&[(Some(73), 3)]));
    })
}

proptest! {
    #[test]
    fn damage_never_panics_and_never_frees_system_files(
        hits in proptest::collection::vec((0usize..20 * CLUSTER, any::<u8>()), 1..6),
        records in proptest::collection::vec((0usize..28, 0usize..RECORD, any::<u8>()), 0..4),
    ) {
        let mut volume = rich();
        for (offset, value) in hits {
            volume[offset] = value;
        }
        for (record, offset, value) in records {
            volume[4 * CLUSTER + record * RECORD + offset] = value;
        }
        if let Some(Detected { mapping: Mapping::Mapped(map), .. }) = probe(&volume, CONTEXT) {
            for range in map.free.ranges() {
                prop_assert!(range.end <= volume.size());
            }
            prop_assert!(!map.free.intersects(4 * 4096..12 * 4096), "$MFT");
        }
    }

    #[test]
    fn any_bytes_behind_a_boot_sector_never_panic(bytes in proptest::collection::vec(any::<u8>(), 512..20_000)) {
        let mut volume = rich();
        volume.truncate(512);
        volume.extend(bytes);
        let len = u64::try_from(volume.len()).unwrap() / 512;
        volume[0x28..0x30].copy_from_slice(&len.to_le_bytes());
        let _ = probe(&volume, CONTEXT);
    }
}
