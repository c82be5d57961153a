//! Page files, hibernation and damaged directories, in a volume made by hand.

use super::super::fixture::*;
use super::*;

#[test]
fn page_files_are_given_on_request() {
    let map = mapped(&changed(|spec| {
        spec.add_file("pagefile.sys", 24, data(&[(Some(73), 2), (Some(70), 1)]));
        spec.add_file("SwapFile.SYS", 25, data(&[(Some(76), 1)]));
        spec.add_file("hiberfil.sys", 26, data(&[(Some(78), 1)]));
    }));
    assert_eq!(page_file_clusters(&map), [70, 73, 74, 76, 78]);
    assert_eq!(map.free.ranges(), std::slice::from_ref(&FREE));
}

#[test]
fn page_files_that_are_not_plain_stay() {
    for flags in [0x0001, 0x4000, 0x8000] {
        let map = mapped(&changed(|spec| {
            let runs = Runs { flags, ..Runs::filled(&[(Some(70), 1)]) };
            spec.add_file("pagefile.sys", 24, non_resident(kind::DATA, "", 1, &runs));
        }));
        assert!(map.on_request.is_empty(), "{flags:#x}");
    }
    let resident_data =
        changed(|spec| spec.add_file("pagefile.sys", 24, resident(kind::DATA, "", 1, &[1; 8])));
    assert!(mapped(&resident_data).on_request.is_empty());
    let crash_dump = changed(|spec| {
        spec.add_file("pagefile.sys", 24, data(&[(Some(70), 1)]));
        spec.clusters.push((70, b"PAGEDU64".to_vec()));
    });
    assert!(mapped(&crash_dump).on_request.is_empty());
}

#[test]
fn a_page_file_in_free_clusters_declines() {
    assert_declined("page file is free", DeclineReason::Inconsistent, |spec| {
        spec.add_file("pagefile.sys", 24, data(&[(Some(79), 2)]));
    });
}

#[test]
fn the_index_and_the_file_must_agree() {
    let page_file = |spec: &mut Spec| spec.add_file("pagefile.sys", 24, data(&[(Some(70), 1)]));
    assert_declined("another name", DeclineReason::Inconsistent, |spec| {
        page_file(spec);
        let name = file_name(5 | 5 << 48, "important.doc");
        spec.records.get_mut(&24).unwrap().attributes[0] = resident(kind::FILE_NAME, "", 0, &name);
    });
    assert_declined("another directory", DeclineReason::Inconsistent, |spec| {
        page_file(spec);
        let name = file_name(30 | 1 << 48, "pagefile.sys");
        spec.records.get_mut(&24).unwrap().attributes[0] = resident(kind::FILE_NAME, "", 0, &name);
    });
    assert_declined("another sequence", DeclineReason::Inconsistent, |spec| {
        page_file(spec);
        spec.records.get_mut(&24).unwrap().sequence = 2;
    });
    assert_declined("deleted", DeclineReason::Inconsistent, |spec| {
        page_file(spec);
        spec.records.get_mut(&24).unwrap().flags = 0;
    });
}

/// A hibernation file that begins so.
fn hibernation(header: &[u8]) -> Vec<u8> {
    changed(|spec| {
        spec.add_file("HiberFil.sys", 24, data(&[(Some(70), 2)]));
        spec.clusters.push((70, header.to_vec()));
    })
}

#[test]
fn an_active_hibernation_file_declines() {
    for header in [b"hibr", b"HIBR", b"HORM", b"link", b"\0\0\0\x01", b"\xFF\xFF\xFF\xFF"] {
        let decline = declined(&hibernation(header));
        assert_eq!(decline.reason, DeclineReason::Hibernated, "{header:?}");
        assert!(decline.detail.contains("shutdown /s /t 0"));
    }
    let mut late = vec![0; 4096];
    late[4095] = 1;
    assert_eq!(declined(&hibernation(&late)).reason, DeclineReason::Hibernated);
    for header in [b"wake", b"WAKE", b"rstr", b"RSTR", b"\0\0\0\0"] {
        assert_eq!(page_file_clusters(&mapped(&hibernation(header))), [70, 71], "{header:?}");
    }
}

#[test]
fn a_hibernation_file_that_cannot_be_judged_declines() {
    let short = Runs { sizes: [4096, 4095, 4095], ..Runs::filled(&[(Some(70), 1)]) };
    let compressed = Runs { flags: 1, ..Runs::filled(&[(Some(70), 1)]) };
    for attribute in [
        non_resident(kind::DATA, "", 1, &short),
        non_resident(kind::DATA, "", 1, &compressed),
        resident(kind::DATA, "", 1, &[0; 100]),
        resident(kind::DATA, "other stream", 1, &[]),
    ] {
        let volume = changed(|spec| spec.add_file("hiberfil.sys", 24, attribute));
        assert_eq!(declined(&volume).reason, DeclineReason::Hibernated);
    }
}

#[test]
fn a_root_directory_that_cannot_be_searched_declines() {
    let block = 14 * CLUSTER;
    for (what, offset, value) in [
        ("magic", block, 0),
        ("torn", block + 510, 0),
        ("block number", block + 16, 1),
        ("entries outside", block + 25, 0x7F),
        ("no last entry", block + 24 + 4, 0x28),
    ] {
        let mut volume = Spec::new().build();
        volume[offset] = value;
        assert_eq!(declined(&volume).reason, DeclineReason::Inconsistent, "{what}");
    }
    let blocks = |count| non_resident(kind::INDEX_ALLOCATION, "$I30", 2, &Runs::filled(&[(Some(14), count)]));
    let root = |offset: usize, value: u8| {
        let mut root = vec![0; 48];
        root[0] = 0x30;
        root[9] = 0x10;
        root[16] = 16;
        root[20] = 32;
        root[32 + 8] = 16;
        root[32 + 12] = 2;
        root[offset] = value;
        resident(kind::INDEX_ROOT, "$I30", 1, &root)
    };
    let bits = |bits| resident(kind::BITMAP, "$I30", 3, &[bits]);
    mapped(&changed(|spec| {
        spec.records.get_mut(&5).unwrap().attributes = vec![root(0, 0x30), blocks(1), bits(1)]
    }));
    // A block that the index does not use may hold anything.
    mapped(&changed(|spec| {
        spec.records.get_mut(&5).unwrap().attributes = vec![root(0, 0x30), blocks(2), bits(1)]
    }));
    for (what, attributes) in [
        ("no root", vec![blocks(1), bits(1)]),
        ("index of something else", vec![root(0, 0x90), blocks(1), bits(1)]),
        ("block size", vec![root(9, 0x11), blocks(1), bits(1)]),
        ("no bitmap", vec![root(0, 0x30), blocks(1)]),
        ("block past the end", vec![root(0, 0x30), blocks(1), bits(3)]),
    ] {
        assert_declined(what, DeclineReason::Inconsistent, |spec| {
            spec.records.get_mut(&5).unwrap().attributes = attributes;
        });
    }
}
