//! Owners of every kind in free clusters, and records whose owners cannot be known, in a volume made by hand.

use super::super::fixture::*;
use super::super::probe;
use super::*;
use crate::fs::witness::{Hearing, Testimony};
use crate::fs::{DeclineReason, Mapping};

const ROOT_REFERENCE: u64 = 5 | 5 << 48;
const LOGGED_UTILITY_STREAM: u32 = 0x100;
const EXTENDED_ATTRIBUTES: u32 = 0xE0;

/// A file of the directory `parent` with one attribute more than its name.
fn child(parent: u64, name: &str, attribute: Vec<u8>) -> RecordSpec {
    RecordSpec::file(vec![resident(kind::FILE_NAME, "", 0, &file_name(parent, name)), attribute])
}

fn directory(parent: u64, name: &str) -> RecordSpec {
    RecordSpec { flags: 3, ..child(parent, name, resident(kind::INDEX_ROOT, "$I30", 1, &[])) }
}

fn testimony(volume: &[u8]) -> Testimony {
    match detect(volume).hearing {
        Hearing::Agrees(testimony) => testimony,
        other => panic!("{other:?}"),
    }
}

/// The detail of the decline that one change of the volume brings about.
#[track_caller]
fn refused(change: impl FnOnce(&mut Spec)) -> String {
    let decline = declined(&changed(change));
    assert_eq!(decline.reason, DeclineReason::Inconsistent, "{decline:?}");
    assert!(decline.site.is_some(), "{decline:?}");
    assert!(decline.detail.contains("chkdsk"), "{decline:?}");
    decline.detail
}

#[track_caller]
fn refused_by_name(name: &str, change: impl FnOnce(&mut Spec)) {
    let detail = refused(change);
    assert!(detail.contains(&format!("“{name}”")), "{detail}");
}

#[test]
fn every_owner_is_counted() {
    // 8 clusters of $MFT, 1 of $MFTMirr, 50 of $LogFile, 1 of $Bitmap, 2 of $Boot, 1 of the root directory.
    let expected = Testimony { records: 11, owned_bytes: 63 * 4096 };
    assert_eq!(testimony(&Spec::new().build()), expected);
    let map = mapped(&Spec::new().build());
    assert_eq!(map.used_bytes, 80 * 4096);
    let volume = changed(|spec| spec.add_file("a", 24, data(&[(Some(70), 3), (None, 9), (Some(75), 1)])));
    assert_eq!(testimony(&volume), Testimony { records: 12, owned_bytes: 67 * 4096 });
}

#[test]
fn a_walk_in_small_steps_says_the_same() {
    let volume = changed(|spec| spec.add_file("a", 24, data(&[(Some(70), 3)])));
    let mut detected = probe(&volume, CONTEXT).unwrap();
    let mut steps = 0;
    while !detected.hear(&volume, 1).finished {
        steps += 1;
        assert!(steps < 10);
    }
    assert!(steps > 0);
    let Hearing::Agrees(stepped) = detected.hearing else { panic!("{:?}", detected.hearing) };
    assert_eq!(stepped, testimony(&volume));
}

#[test]
fn the_first_owner_in_free_space_is_named_with_its_path() {
    refused_by_name("report.docx", |spec| {
        spec.add_file("report.docx", 24, data(&[(Some(70), 1), (Some(99), 1)]))
    });
    refused_by_name("Users/a/report.docx", |spec| {
        spec.records.insert(24, directory(ROOT_REFERENCE, "Users"));
        spec.records.insert(25, directory(24 | 1 << 48, "a"));
        spec.records.insert(26, child(25 | 1 << 48, "report.docx", data(&[(Some(80), 1)])));
    });
    refused_by_name("the root directory", |spec| {
        let blocks = non_resident(kind::INDEX_ALLOCATION, "$I30", 2, &Runs::filled(&[(Some(90), 1)]));
        let root = spec.records.get_mut(&5).unwrap();
        root.attributes = vec![
            resident(kind::INDEX_ROOT, "$I30", 1, &empty_index_root()),
            blocks,
            resident(kind::BITMAP, "$I30", 3, &[0; 8]),
        ];
    });
}

#[test]
fn every_kind_of_attribute_owns_its_clusters() {
    let free = Runs::filled(&[(Some(85), 2)]);
    for (kind, name) in [
        (kind::ATTRIBUTE_LIST, ""),
        (kind::INDEX_ALLOCATION, "$I30"),
        (kind::BITMAP, "$I30"),
        (EXTENDED_ATTRIBUTES, ""),
        (LOGGED_UTILITY_STREAM, "$EFS"),
        (0x0FFF_FFF0, "whatever comes"),
    ] {
        refused_by_name("x", |spec| spec.add_file("x", 24, non_resident(kind, name, 1, &free)));
    }
    for flags in [0x0001, 0x4000, 0x8000] {
        let free = Runs { flags, ..Runs::filled(&[(None, 3), (Some(85), 2), (None, 1)]) };
        refused_by_name("x", |spec| spec.add_file("x", 24, non_resident(kind::DATA, "", 1, &free)));
    }
    refused_by_name("x:stream", |spec| spec.add_file("x", 24, non_resident(kind::DATA, "stream", 1, &free)));
}

#[test]
fn extension_records_own_their_clusters_too() {
    let extension = |base: u64| {
        let part = Runs { first_vcn: 7, ..Runs::filled(&[(Some(85), 2)]) };
        RecordSpec { base, ..RecordSpec::file(vec![non_resident(kind::DATA, "", 1, &part)]) }
    };
    refused_by_name("x", |spec| {
        spec.add_file("x", 24, data(&[(Some(70), 1)]));
        spec.records.insert(25, extension(24 | 1 << 48));
    });
    // Without its base it is an owner all the same: free is what nobody claims.
    refused_by_name("file record 27", |spec| {
        spec.records.insert(25, extension(27 | 1 << 48));
    });
}

#[test]
fn bad_clusters_own_what_is_bad_and_nothing_else() {
    let bad = |runs: &[(Option<u64>, u64)]| {
        let whole = Runs { flags: 0x8000, ..Runs::filled(runs) };
        non_resident(kind::DATA, "$Bad", 2, &whole)
    };
    let volume = changed(|spec| {
        spec.records.insert(8, child(ROOT_REFERENCE, "$BadClus", bad(&[(None, 100)])));
    });
    assert_eq!(testimony(&volume).owned_bytes, 63 * 4096);
    refused_by_name("$BadClus:$Bad", |spec| {
        let runs = [(None, 90), (Some(90), 1), (None, 9)];
        spec.records.insert(8, child(ROOT_REFERENCE, "$BadClus", bad(&runs)));
    });
}

#[test]
fn what_was_deleted_owns_nothing() {
    let deleted = |spec: &mut Spec| {
        let record = child(ROOT_REFERENCE, "gone", data(&[(Some(85), 2)]));
        spec.records.insert(24, RecordSpec { flags: 0, ..record });
    };
    assert_eq!(testimony(&changed(deleted)).records, 11);
    // The table's own bitmap may call such a record taken.
    let taken = changed(|spec| {
        deleted(spec);
        spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&[0xEF, 7, 0, 1, 0, 0, 0, 0]));
    });
    assert_eq!(testimony(&taken).records, 11);
}

#[test]
fn a_record_in_use_is_an_owner_whatever_the_bitmap_of_the_table_says() {
    refused_by_name("x", |spec| {
        spec.add_file("x", 24, data(&[(Some(85), 2)]));
        spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&[0xEF, 7, 0, 0, 0, 0, 0, 0]));
    });
}

/// A volume whose record 24 has some bytes changed on the disk.
fn damaged(taken: bool, flags: u16, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut volume = changed(|spec| {
        let record = child(ROOT_REFERENCE, "x", data(&[(Some(70), 1)]));
        spec.records.insert(24, RecordSpec { flags, ..record });
        let bits = [0xEF, 7, 0, u8::from(taken), 0, 0, 0, 0];
        spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&bits));
    });
    let place = 4 * CLUSTER + 24 * RECORD + at;
    volume[place..place + bytes.len()].copy_from_slice(bytes);
    volume
}

#[test]
fn a_record_that_cannot_be_read_casts_doubt_where_it_may_be_in_use() {
    let faults: [(&str, usize, &[u8]); 6] = [
        ("torn", 510, &[1, 2]),
        ("torn in its second half", 1022, &[1, 2]),
        ("another's", 0x2C, &[25]),
        ("found bad before", 0, b"BAAD"),
        ("overwritten with zeros", 0, &[0; RECORD]),
        ("overwritten with data", 0, &[0xAB; RECORD]),
    ];
    for (what, at, bytes) in faults {
        for (taken, flags) in [(true, 1), (true, 0), (false, 1), (false, 0)] {
            let overwritten = bytes.len() == RECORD;
            let doubt = taken || flags == 1 && !overwritten;
            let mapping = detect(&damaged(taken, flags, at, bytes)).mapping;
            match mapping {
                Mapping::Declined(decline) => {
                    assert!(doubt, "{what}, {taken}, {flags}: {decline:?}");
                    assert_eq!(decline.site.unwrap().offset, 4 * 4096 + 24 * 1024, "{what}");
                    assert!(decline.detail.contains("file record 24"), "{decline:?}");
                }
                Mapping::Mapped(_) => assert!(!doubt, "{what}, {taken}, {flags}"),
            }
        }
    }
}

#[test]
fn what_a_whole_record_cannot_mean_casts_doubt() {
    // The data attribute begins behind the file's name.
    let data_at = 56 + resident(kind::FILE_NAME, "", 0, &file_name(ROOT_REFERENCE, "x")).len();
    for (what, at, bytes) in [
        ("attributes outside", 0x14, &[0xFF, 3][..]),
        ("more bytes than it has", 0x18, &[1, 4]),
        ("an attribute without length", data_at + 4, &[0; 4]),
        ("an attribute without end", data_at + 4, &[0xFF; 4]),
        ("runs that start outside", data_at + 32, &[0xFF, 0xFF]),
        ("a run past the volume", data_at + 64 + 3, &[100, 0]),
        ("a run before the volume", data_at + 64 + 3, &[0xFF, 0xFF]),
        ("a run without length", data_at + 64 + 1, &[0, 0]),
        ("a run longer than the volume", data_at + 64 + 1, &[0xFF, 0x7F]),
        ("runs that end early", data_at + 24, &[2]),
        ("runs that do not end", data_at + 64 + 5, &[0x44]),
        ("another last cluster", data_at + 24, &[0xFF; 8]),
    ] {
        let decline = declined(&damaged(true, 1, at, bytes));
        assert_eq!(decline.reason, DeclineReason::Inconsistent, "{what}");
        assert!(
            decline.detail.contains("“x”") || decline.detail.contains("“file record 24”"),
            "{what}: {decline:?}"
        );
        assert!(
            matches!(detect(&damaged(true, 0, at, bytes)).mapping, Mapping::Mapped(_)) || at < 0x20,
            "{what}"
        );
    }
}

#[test]
fn a_system_file_that_is_not_in_use_casts_doubt() {
    for number in 0..=10 {
        let mut volume = Spec::new().build();
        volume[4 * CLUSTER + number * RECORD + 0x16] &= !1;
        assert_eq!(declined(&volume).reason, DeclineReason::Inconsistent, "{number}");
    }
}

#[test]
fn bits_past_the_end_of_the_table_cast_doubt() {
    let bits = |bits: Vec<u8>| {
        move |spec: &mut Spec| spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&bits))
    };
    mapped(&changed(bits(vec![0xEF, 7, 0, 0])));
    let detail = refused(bits(vec![0xEF, 7, 0, 0, 0, 2]));
    assert!(detail.contains("File record 41"), "{detail}");
    // The table's last records were never written; one of them is called taken.
    let shorter = |taken| {
        changed(move |spec| {
            let table = Runs { sizes: [8 * 4096, 8 * 4096, 28 * 1024], ..Runs::filled(&[(Some(4), 8)]) };
            let attributes =
                vec![non_resident(kind::DATA, "", 1, &table), record_bitmap(&[0xEF, 7, 0, taken])];
            spec.records.insert(0, RecordSpec::file(attributes));
        })
    };
    mapped(&shorter(0));
    assert!(declined(&shorter(0x10)).detail.contains("File record 28"));
    assert_declined("sparse", DeclineReason::Inconsistent, |spec| {
        let gap = Runs { flags: 0x8000, ..Runs::filled(&[(None, 1)]) };
        let bitmap = non_resident(kind::BITMAP, "", 8, &gap);
        spec.records.get_mut(&0).unwrap().attributes.push(bitmap);
    });
}

#[test]
fn a_table_that_names_its_clusters_again_and_again_is_not_walked_for_ever() {
    for times in [1, 12, 13] {
        let volume = changed(|spec| {
            let runs = vec![(Some(4), 8); times];
            let table = non_resident(kind::DATA, "", 1, &Runs::filled(&runs));
            spec.records.insert(0, RecordSpec::file(vec![table]));
        });
        // 104 clusters are more than the volume has; before that, the records are at the wrong places.
        let mapping = detect(&volume).mapping;
        assert_eq!(matches!(mapping, Mapping::Mapped(_)), times == 1, "{times}: {mapping:?}");
    }
    assert_declined("a long $BITMAP", DeclineReason::Inconsistent, |spec| {
        let runs = vec![(Some(70), 8); 13];
        let bitmap = non_resident(kind::BITMAP, "", 8, &Runs::filled(&runs));
        spec.records.get_mut(&0).unwrap().attributes.push(bitmap);
    });
}

#[test]
fn reserved_records_may_be_called_taken() {
    let mut volume = changed(|spec| {
        spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&[0xEF, 7, 0xFF, 0]));
        spec.records.insert(16, RecordSpec { flags: 0, ..RecordSpec::file(vec![]) });
    });
    volume[4 * CLUSTER + 16 * RECORD + 0x2C] = 0;
    mapped(&volume);
    volume[4 * CLUSTER + 16 * RECORD + 0x16] = 1;
    declined(&volume);
}

#[test]
fn records_whose_bits_are_missing_are_presumed_taken() {
    let mut volume = changed(|spec| {
        spec.records.get_mut(&0).unwrap().attributes.push(record_bitmap(&[0xEF, 7, 0]));
        for number in 24..32 {
            spec.records.insert(number, RecordSpec { flags: 0, ..RecordSpec::file(vec![]) });
        }
    });
    mapped(&volume);
    volume[4 * CLUSTER + 24 * RECORD..][..RECORD].fill(0);
    declined(&volume);
}

#[test]
fn a_path_is_told_as_far_as_it_is_known() {
    let owner = |parent| child(parent, "x", data(&[(Some(85), 1)]));
    refused_by_name("…/x", |spec| {
        spec.records.insert(24, owner(99 | 1 << 48));
    });
    refused_by_name("file record 24", |spec| {
        spec.records.insert(24, RecordSpec::file(vec![data(&[(Some(85), 1)])]));
    });
    // The long name speaks, whichever comes first.
    refused_by_name("A Long Name", |spec| {
        let mut dos = file_name(ROOT_REFERENCE, "ALONGN~1");
        dos[65] = 2;
        let long = file_name(ROOT_REFERENCE, "A Long Name");
        let names = [resident(kind::FILE_NAME, "", 0, &dos), resident(kind::FILE_NAME, "", 2, &long)];
        spec.records.insert(24, RecordSpec::file([&names[..], &[data(&[(Some(85), 1)])]].concat()));
    });
}

#[test]
fn directories_in_a_circle_and_endless_paths_have_an_end() {
    let detail = refused(|spec| {
        spec.records.insert(24, directory(25 | 1 << 48, "a"));
        spec.records.insert(25, directory(24 | 1 << 48, "b"));
        spec.records.insert(26, child(25 | 1 << 48, "x", data(&[(Some(80), 1)])));
    });
    assert!(detail.contains("“…/") && detail.contains("/a/b/x”"), "{detail}");
    assert!(detail.len() < 2000);
}

#[test]
fn names_that_are_no_text_are_harmless() {
    let mut name = file_name(ROOT_REFERENCE, "a/b\u{1B}\n\u{202E}??z");
    let surrogate = name.len() - 6;
    name[surrogate..surrogate + 4].copy_from_slice(&[0x00, 0xD8, 0x00, 0xD8]);
    let record = RecordSpec::file(vec![resident(kind::FILE_NAME, "", 0, &name), data(&[(Some(85), 1)])]);
    refused_by_name("a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}z", |spec| {
        spec.records.insert(24, record);
    });
}

#[test]
fn clusters_of_two_owners_are_no_doubt_while_none_is_free() {
    let volume = changed(|spec| {
        spec.add_file("a", 24, data(&[(Some(70), 5)]));
        spec.add_file("b", 25, data(&[(Some(72), 5)]));
    });
    assert_eq!(testimony(&volume).owned_bytes, 73 * 4096);
}
