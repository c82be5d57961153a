//! What ties images together after a compaction: a child to its parent, its own children to it, and a merged
//! chain to what it was.

use super::*;

#[test]
fn a_child_stays_the_child_of_its_parent() {
    for format in FORMATS {
        let (child, parent) = (empty(format).full(0, 9).full(1, 0), empty(format).full(1, 4));
        let source = files(format, &[&child, &parent]).remove(0);
        let result = compact(format, &[&child, &parent], 0, none(), zero()).unwrap();
        let before = image(&source);
        assert_eq!(result.image.disk_type, DiskType::Differencing);
        assert_eq!(result.image.parent, before.parent);
        assert_eq!(result.image.identity, before.identity);
        match (&result.image.metadata, &before.metadata) {
            (Metadata::Vhd(now), Metadata::Vhd(then)) => {
                assert_eq!(now.footer, then.footer);
                assert_eq!(now.locators, then.locators);
                let (now, then) = (now.header.unwrap(), then.header.unwrap());
                assert_eq!(now.parent_time_stamp, then.parent_time_stamp);
                assert_eq!(now.parent_unicode_name, then.parent_unicode_name);
                let fields = |header: &image::vhd::DynamicHeader| {
                    header.parent_locators.map(|l| (l.platform_code, l.data_space.get(), l.data_length.get()))
                };
                assert_eq!(fields(&now), fields(&then));
                assert_eq!(fields(&now)[..2], [(*b"W2ru", 512, 26), (*b"W2ku", 1, 34)]);
            }
            (Metadata::Vhdx(now), Metadata::Vhdx(then)) => {
                assert_eq!(now.virtual_disk_id, then.virtual_disk_id);
                assert_ne!(now.file_write_guid, then.file_write_guid);
                assert_eq!(now.locator.as_ref().unwrap().link(), then.locator.as_ref().unwrap().link());
            }
            _ => panic!("the format changed"),
        }
        let parents = vec![Candidate {
            image: image(&files(format, &[&child, &parent])[1]),
            name: "parent".into(),
            modified: None,
        }];
        assert_eq!(assemble(result.image, parents, ParentTrust::default()).unwrap().layers.len(), 2);
    }
}

/// Locators of every kind, one of them without data at a place that payload now takes.
#[test]
fn locators_of_a_vhd_move_and_are_patched() {
    let child = empty(Format::Vhd).full(0, 9).full(1, 8).full(2, 7);
    let mut source = testing::file(Format::Vhd, &child, 1, Some(2));
    let locator = |i: usize| 512 + 576 + 24 * i;
    for (i, (code, space, offset)) in
        [(b"MacX", 3u32, 5000u64), (b"Wi2k", 0, 6000), (&[0; 4], 7, 7000)].into_iter().enumerate()
    {
        let at = locator(2 + i);
        source[at..at + 4].copy_from_slice(code);
        source[at + 4..at + 8].copy_from_slice(&space.to_be_bytes());
        source[at + 16..at + 24].copy_from_slice(&offset.to_be_bytes());
    }
    // More space than any locator needs.
    source[locator(1) + 4..locator(1) + 8].copy_from_slice(&0x7fff_fe00u32.to_be_bytes());
    testing::seal(&mut source[512..1536], 36);
    let result = compact_files(&[source.clone()], none(), zero()).unwrap();
    let table = u64::from_be_bytes(result.file[512 + 16..512 + 24].try_into().unwrap());
    let mut end = 1536;
    for i in 0..4 {
        let field = |at: usize, len: usize| {
            let bytes = &result.file[locator(i) + at..locator(i) + at + len];
            bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (space, offset) = (field(4, 4), field(16, 8));
        let bytes = if space < 512 { space * 512 } else { space };
        assert_eq!(offset, if bytes == 0 { 0 } else { end }, "locator {i}");
        end += bytes;
    }
    assert!(end <= table && table < 8192, "{end} {table}");
    assert_eq!(result.image.parent, image(&source).parent);
    // What names no platform is nothing to anybody, and stays as it is.
    assert_eq!(result.file[locator(4)..locator(5)], source[locator(4)..locator(5)]);
}

#[test]
fn a_time_stamp_of_zero_stays_zero() {
    let mut source = testing::file(Format::Vhd, &empty(Format::Vhd).full(0, 9), 1, Some(2));
    source[512 + 56..512 + 60].fill(0);
    testing::seal(&mut source[512..1536], 36);
    let result = compact_files(&[source], none(), zero()).unwrap();
    let Metadata::Vhd(metadata) = &result.image.metadata else { panic!() };
    assert_eq!(metadata.header.unwrap().parent_time_stamp.get(), 0);
    assert_eq!(result.image.parent.unwrap().time_stamp, None);
}

#[test]
fn linkage_is_written_in_lower_case() {
    let source = testing::file(Format::Vhdx, &empty(Format::Vhdx).full(0, 9), 1, Some(2));
    let text = |text: String| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let lower = text(identity(2).braced().to_string());
    let has = |bytes: &[u8]| bytes[2 << 20..3 << 20].windows(lower.len()).any(|window| window == lower);
    assert!(!has(&source));
    assert!(has(&compact_files(&[source], none(), zero()).unwrap().file));
}

/// A child of the child: it goes on reading what it read, unless free space was given up.
#[test]
fn children_of_a_compacted_child_stay_valid_when_nothing_they_read_changed() {
    for format in FORMATS {
        let (child, parent) = (empty(format).full(0, 9).full(1, 8), empty(format).full(1, 8));
        let grandchild = testing::file(format, &empty(format).part(2, &[(3, 3)]), 9, Some(1));
        let all = files(format, &[&child, &parent]);
        let adopt = |file: &[u8], parents: &[Vec<u8>]| {
            let given: Vec<Vec<u8>> = [vec![grandchild.clone(), file.to_vec()], parents.to_vec()].concat();
            let read = |disk: Disk| read_vec(&disk, 0, disk.size() as usize).unwrap();
            open_chain(&given).map(read)
        };
        let before = adopt(&all[0], &all[1..]).unwrap();
        let plain = compact(format, &[&child, &parent], 1, none(), zero()).unwrap();
        assert_eq!(plain.outcome.tally.equal_to_parent, 1);
        assert!(adopt(&plain.file, &all[1..]).unwrap() == before);
        let flat = Options { flatten: true, ..zero() };
        let flat = compact(format, &[&child, &parent], 1, none(), flat).unwrap();
        assert!(adopt(&flat.file, &[]).unwrap() == before);
        // Free space was given up: a VHDX says so itself; of a VHD the outcome says it.
        let free = extent(0..child.block_size as u64);
        for flatten in [false, true] {
            let options = Options { flatten, ..Options::default() };
            let changed = compact(format, &[&child, &parent], 1, free.clone(), options).unwrap();
            assert!(changed.outcome.reads_changed);
            let parents = if flatten { &[] } else { &all[1..] };
            match format {
                Format::Vhd => assert_eq!(changed.image.identity, identity(1)),
                Format::Vhdx => {
                    assert_eq!(changed.image.identity, NEW);
                    let error = adopt(&changed.file, parents).err().unwrap();
                    assert_eq!(error.kind(), ErrorKind::NeedsParent);
                }
            }
        }
    }
}

#[test]
fn a_merged_chain_is_the_childs_disk_without_a_parent() {
    for format in FORMATS {
        let block = empty(format).block_size;
        let child = empty(format).part(0, &[(3, 9)]).full(1, 0).part(2, &[(1, 1)]);
        // Layers of other block sizes and other disk sizes: the smaller one reads zero past its end.
        let middle = Layer::new(block + 512 * 3, block * 2, 512).part(0, &[(4, 8)]);
        let base = Layer::new(block * 6, block * 2, 512).full(0, 7).full(2, 6).full(1, 5);
        let layers = [&child, &middle, &base];
        let flat = Options { flatten: true, ..zero() };
        for given in [0, 1] {
            let error = compact(format, &layers, given, none(), flat).err().unwrap();
            let name = format!("parent{}.{} (last known", given + 2, format.name()).replace(" (", "” (");
            assert!(error.kind() == ErrorKind::NeedsParent && error.to_string().contains(&name), "{error}");
        }
        let result = compact(format, &layers, 2, none(), flat).unwrap();
        let before = testing::read(&layers);
        assert!(contents(&result.file, &[]) == before);
        assert_eq!(result.image.disk_type, DiskType::Dynamic);
        assert!(result.image.parent.is_none());
        assert_eq!((result.image.identity, result.outcome.reads_changed), (identity(1), false));
        // Block 1 is zero over a parent that is not.
        assert!(!stays(result.image.blocks.get(1)));
        match &result.image.metadata {
            Metadata::Vhd(metadata) => {
                let header = metadata.header.unwrap();
                assert_eq!(metadata.footer.time_stamp.get(), testing::time(1));
                assert_eq!((header.parent_unique_id, header.parent_time_stamp.get()), ([0; 16], 0));
                assert!(header.parent_unicode_name.iter().all(|&byte| byte == 0));
                assert!(header.parent_locators.iter().all(|locator| locator.platform_code == [0; 4]));
            }
            Metadata::Vhdx(metadata) => assert!(metadata.locator.is_none()),
        }
    }
}

#[test]
fn a_merge_drops_what_is_free_and_shows_nothing() {
    for format in FORMATS {
        let block = empty(format).block_size as u64;
        let (child, parent) = (empty(format).full(1, 9), empty(format).full(1, 4).full(2, 4));
        let free = extent(block..3 * block);
        let flat = Options { flatten: true, ..Options::default() };
        let result = compact(format, &[&child, &parent], 1, free, flat).unwrap();
        assert_eq!(result.outcome.tally.free, 2);
        assert!(contents(&result.file, &[]).iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_child_keeps_its_format_and_block_size() {
    let child = empty(Format::Vhd).full(1, 9);
    for options in [
        Options { format: Some(Format::Vhdx), ..zero() },
        Options { block_size: BlockSizeChoice::Exactly(512 << 10), ..zero() },
    ] {
        let error = compact(Format::Vhd, &[&child, &empty(Format::Vhd)], 1, none(), options).err().unwrap();
        assert!(
            error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("flatten"),
            "{error}"
        );
        let merged = Options { flatten: true, ..options };
        let result = compact(Format::Vhd, &[&child, &empty(Format::Vhd)], 1, none(), merged).unwrap();
        let (before, after) = (testing::read(&[&child, &empty(Format::Vhd)]), contents(&result.file, &[]));
        assert!(before == after[..before.len()]);
    }
}
