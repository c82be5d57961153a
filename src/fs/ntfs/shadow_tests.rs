//! Shadow copies made by hand: which blocks they need, and what makes that unknown.

use std::collections::BTreeMap;

use super::*;
use crate::io::{check_range, past_end};
use crate::units::len64;

/// 1 TiB of zeros with a few structures in it.
pub(in super::super) struct Sparse {
    size: u64,
    structures: BTreeMap<u64, Vec<u8>>,
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        buf.fill(0);
        if let Some(bytes) = self.structures.get(&offset) {
            let n = bytes.len().min(buf.len());
            buf[..n].copy_from_slice(&bytes[..n]);
        }
        Ok(())
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn version_and_record(version: u32, record: u32) -> u64 {
    u64::from(version) | u64::from(record) << 32
}

/// The volume header.
pub(in super::super) fn volume_header(catalogue: u64) -> Vec<u8> {
    let mut header = IDENTIFIER.to_vec();
    header.extend(words(&[version_and_record(2, 1), VOLUME_HEADER, VOLUME_HEADER, 0, catalogue]));
    header
}

/// A structure of 16 KiB.
pub(in super::super) fn structure(record: u32, own: u64, next: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = IDENTIFIER.to_vec();
    bytes.extend(words(&[version_and_record(1, record), 0, own, next]));
    bytes.resize(128, 0);
    bytes.extend(payload);
    bytes.resize(16384, 0);
    bytes
}

/// The two catalogue entries of a snapshot.
pub(in super::super) fn entries(id: u8, age: u64, store: Option<[u64; 4]>) -> Vec<u8> {
    let mut entry = words(&[2, 0]);
    entry.extend([id; 16]);
    entry.extend(words(&[age, 0, age]));
    entry.resize(128, 0);
    if let Some([header, list, bitmap, previous]) = store {
        entry.extend(words(&[3, list]));
        entry.extend([id; 16]);
        entry.extend(words(&[header, 0, bitmap, 0, 0, previous]));
        entry.resize(256, 0);
    }
    entry
}

/// A block descriptor; `stored` and `relative` are block numbers.
fn descriptor(original: u64, relative: u64, stored: u64, flags: u64) -> Vec<u8> {
    words(&[original * BLOCK, relative * BLOCK, stored * BLOCK, flags])
}

/// A bitmap in which only these blocks are needed.
pub(in super::super) fn bitmap(needed: &[usize]) -> Vec<u8> {
    let mut bits = vec![0xFF; 16256];
    for block in needed {
        bits[block / 8] &= !(1 << (block % 8));
    }
    bits
}

struct Store<'a> {
    descriptors: Vec<Vec<u8>>,
    needed: &'a [usize],
    previous: Option<&'a [usize]>,
}

const CATALOGUE: u64 = 1000;

/// A volume with these snapshots, oldest first. Snapshot `n` lies in blocks `1010 + 10 n` and after.
fn volume(stores: &[Store<'_>]) -> Sparse {
    let mut structures = BTreeMap::from([(VOLUME_HEADER, volume_header(CATALOGUE * BLOCK))]);
    let mut catalogue = Vec::new();
    for (n, store) in stores.iter().enumerate() {
        let id = u8::try_from(n + 1).unwrap();
        let at = |i: u64| (1000 + u64::from(id) * 10 + i) * BLOCK;
        let mut put =
            |i, record, payload: &[u8]| structures.insert(at(i), structure(record, at(i), 0, payload));
        put(0, RECORD_STORE, &[]);
        put(1, RECORD_BLOCK_LIST, &store.descriptors.concat());
        put(2, RECORD_BITMAP, &bitmap(store.needed));
        let previous = store.previous.map_or(0, |previous| {
            put(3, RECORD_BITMAP, &bitmap(previous));
            at(3)
        });
        catalogue.extend(entries(id, u64::from(id), Some([at(0), at(1), at(2), previous])));
    }
    structures.insert(CATALOGUE * BLOCK, structure(RECORD_CATALOGUE, CATALOGUE * BLOCK, 0, &catalogue));
    Sparse { size: 130_048 * BLOCK, structures }
}

/// What the snapshots need below block 1000, where the structures begin.
fn needed(volume: &Sparse) -> Vec<u64> {
    match read(volume).unwrap() {
        Shadows::Need(blocks) => (0..1000).filter(|&block| blocks.contains(block)).collect(),
        Shadows::None => panic!("no snapshots"),
        Shadows::Unknown(why) => panic!("unknown: {why}"),
    }
}

fn one(descriptors: Vec<Vec<u8>>, needed: &[usize]) -> Sparse {
    volume(&[Store { descriptors, needed, previous: None }])
}

#[test]
fn structures_have_their_sizes() {
    assert_eq!(size_of::<BlockHeader>(), 128);
    assert_eq!(size_of::<SnapshotEntry>(), 128);
    assert_eq!(size_of::<StoreEntry>(), 128);
    assert_eq!(size_of::<Descriptor>(), 32);
    assert_eq!(size_of::<VolumeHeader>(), 56);
}

#[test]
fn a_volume_without_snapshots_needs_nothing() {
    assert!(matches!(read(&vec![0u8; 8192]).unwrap(), Shadows::None));
    let mut none = one(vec![], &[]);
    none.structures.insert(VOLUME_HEADER, volume_header(0));
    assert!(matches!(read(&none).unwrap(), Shadows::None));
    assert!(matches!(read(&volume(&[])).unwrap(), Shadows::None));
    assert!(read(&vec![0u8; 7000]).is_err());
}

#[test]
fn blocks_in_use_at_the_time_are_needed_until_they_are_copied() {
    assert_eq!(needed(&one(vec![], &[5, 6, 7])), [5, 6, 7]);
    assert_eq!(needed(&one(vec![descriptor(6, 0, 500, 0)], &[5, 6, 7])), [5, 7, 500]);
}

#[test]
fn what_is_no_whole_copy_leaves_its_block_needed() {
    for flags in [1, 2, 3, 4, 8, 0x10, 0x88] {
        let descriptor = words(&[6 * BLOCK, 0, 500 * BLOCK, flags]);
        assert!(needed(&one(vec![descriptor], &[6])).contains(&6), "{flags:#x}");
    }
    assert_eq!(needed(&one(vec![descriptor(6, 7, 0, 0)], &[6])), [6], "nothing is stored");
}

#[test]
fn overlays_need_what_they_lie_over() {
    assert_eq!(needed(&one(vec![descriptor(8, 0, 500, 2)], &[])), [8, 500]);
    let over_a_copy = vec![descriptor(8, 0, 500, 0), descriptor(8, 0, 501, 2)];
    assert_eq!(needed(&one(over_a_copy, &[8])), [500, 501]);
}

#[test]
fn the_targets_of_forwarders_are_needed_for_good() {
    let moved = vec![descriptor(5, 9, 0, 1), descriptor(9, 0, 500, 0)];
    assert_eq!(needed(&one(moved, &[5])), [5, 9, 500]);
}

#[test]
fn newer_stores_serve_older_snapshots_and_not_the_reverse() {
    let copy = |block| vec![descriptor(block, 0, 500, 0)];
    let both = |older: Vec<Vec<u8>>, newer: Vec<Vec<u8>>| {
        needed(&volume(&[
            Store { descriptors: older, needed: &[10], previous: None },
            Store { descriptors: newer, needed: &[20], previous: None },
        ]))
    };
    assert_eq!(both(vec![], vec![]), [10, 20]);
    assert_eq!(both(vec![], copy(10)), [20, 500], "copied into the newer store");
    assert_eq!(both(copy(10), vec![]), [20, 500], "copied into its own store");
    assert_eq!(both(copy(20), vec![]), [10, 20, 500], "the older store is not read for the newer snapshot");
}

#[test]
fn the_previous_bitmap_needs_blocks_too() {
    let previous =
        |descriptors| needed(&volume(&[Store { descriptors, needed: &[10], previous: Some(&[11]) }]));
    assert_eq!(previous(vec![]), [10, 11]);
    assert_eq!(previous(vec![descriptor(11, 0, 500, 0)]), [10, 500]);
}

#[test]
fn blocks_past_the_end_of_a_bitmap_are_needed() {
    let mut larger = one(vec![], &[]);
    larger.size = 130_060 * BLOCK;
    let Shadows::Need(blocks) = read(&larger).unwrap() else { panic!("unknown") };
    assert!(!blocks.contains(130_047));
    assert!((130_048..130_060).all(|block| blocks.contains(block)));
}

#[test]
fn the_structures_themselves_are_kept() {
    let Shadows::Need(blocks) = read(&one(vec![], &[])).unwrap() else { panic!("unknown") };
    let kept: Vec<u64> = (0..130_048).filter(|&block| blocks.contains(block)).collect();
    assert_eq!(kept, [1000, 1010, 1011, 1012]);
}

/// A volume whose one store has a list of these ranges (first byte, length).
fn with_ranges(ranges: &[(u64, u64)]) -> Sparse {
    let mut volume = one(vec![], &[]);
    let (catalogue, list) = (CATALOGUE * BLOCK, 1015 * BLOCK);
    let bytes = volume.structures.get_mut(&catalogue).unwrap();
    // The range list's place in the second entry of the catalogue.
    bytes[128 + 128 + 40..][..8].copy_from_slice(&list.to_le_bytes());
    let payload: Vec<u8> = ranges.iter().flat_map(|&(start, len)| words(&[start, 0, len])).collect();
    volume.structures.insert(list, structure(RECORD_RANGE_LIST, list, 0, &payload));
    volume
}

#[test]
fn the_ranges_of_a_store_are_needed() {
    assert_eq!(needed(&with_ranges(&[])), []);
    assert_eq!(needed(&with_ranges(&[(5 * BLOCK, 2 * BLOCK), (70 * BLOCK - 1, 2)])), [5, 6, 69, 70]);
}

#[test]
fn impossible_ranges_make_it_unknown() {
    let end = 130_048 * BLOCK;
    assert_unknown("past the end", &with_ranges(&[(end - BLOCK, 2 * BLOCK)]));
    assert_unknown("overflow", &with_ranges(&[(u64::MAX, 2)]));
    assert_unknown("longer than the volume", &with_ranges(&[(0, end), (0, 1)]));
    let mut damaged = with_ranges(&[]);
    damaged.structures.get_mut(&(1015 * BLOCK)).unwrap()[20] = 4;
    assert_unknown("another structure", &damaged);
}

#[test]
fn chains_run_over_several_structures() {
    let mut volume = one(vec![descriptor(6, 0, 500, 0)], &[5, 6, 7]);
    let (list, more) = (1011 * BLOCK, 1019 * BLOCK);
    volume.structures.insert(list, structure(RECORD_BLOCK_LIST, list, more, &descriptor(5, 0, 501, 0)));
    volume.structures.insert(more, structure(RECORD_BLOCK_LIST, more, 0, &descriptor(7, 0, 502, 0)));
    assert_eq!(needed(&volume), [6, 501, 502]);
}

fn assert_unknown(what: &str, volume: &dyn ReadAt) {
    assert!(matches!(read(volume).unwrap(), Shadows::Unknown(_)), "{what}");
}

#[test]
fn damaged_structures_make_it_unknown() {
    let header = |offset: usize, value: u8| {
        let mut volume = one(vec![], &[]);
        volume.structures.get_mut(&VOLUME_HEADER).unwrap()[offset] = value;
        volume
    };
    assert_unknown("version", &header(16, 3));
    assert_unknown("record type", &header(20, 2));
    assert_unknown("own offset", &header(24, 1));
    assert_unknown("catalogue outside", &header(54, 1));
    for block in [CATALOGUE, 1010, 1011, 1012, 1013] {
        for (what, offset) in [("identifier", 0), ("version", 16), ("record type", 20), ("own offset", 32)] {
            let mut volume = volume(&[Store { descriptors: vec![], needed: &[], previous: Some(&[]) }]);
            volume.structures.get_mut(&(block * BLOCK)).unwrap()[offset] ^= 0x40;
            assert_unknown(what, &volume);
        }
        let mut circle = volume(&[Store { descriptors: vec![], needed: &[], previous: Some(&[]) }]);
        let bytes = circle.structures.get_mut(&(block * BLOCK)).unwrap();
        bytes[40..48].copy_from_slice(&(block * BLOCK).to_le_bytes());
        assert_unknown("circle", &circle);
        bytes_next(&mut circle, block, u64::MAX);
        assert_unknown("next outside", &circle);
    }
}

fn bytes_next(volume: &mut Sparse, block: u64, next: u64) {
    volume.structures.get_mut(&(block * BLOCK)).unwrap()[40..48].copy_from_slice(&next.to_le_bytes());
}

#[test]
fn impossible_descriptors_make_it_unknown() {
    assert_unknown("not a block", &one(vec![words(&[5 * BLOCK + 512, 0, 500 * BLOCK, 0])], &[]));
    assert_unknown("block outside", &one(vec![descriptor(130_048, 0, 500, 0)], &[]));
    assert_unknown("copy outside", &one(vec![descriptor(5, 0, 130_048, 0)], &[]));
    assert_unknown("forwarded outside", &one(vec![words(&[0, u64::MAX, 0, 1])], &[]));
}

#[test]
fn a_contradictory_catalogue_makes_it_unknown() {
    let catalogue = |payload: Vec<u8>| {
        let mut volume = one(vec![], &[]);
        let offset = CATALOGUE * BLOCK;
        volume.structures.insert(offset, structure(RECORD_CATALOGUE, offset, 0, &payload));
        volume
    };
    let store = |n: u64| Some([n * BLOCK, (n + 1) * BLOCK, (n + 2) * BLOCK, 0]);
    assert_unknown("store elsewhere", &catalogue(entries(1, 1, None)));
    assert_unknown("store without snapshot", &catalogue(entries(1, 1, store(1010))[128..].to_vec()));
    assert_unknown("unknown entry", &catalogue(words(&[4])));
    let mut stranger = entries(1, 1, store(1010));
    stranger[128 + 16] ^= 1;
    assert_unknown("store of another snapshot", &catalogue(stranger));
    let two = |first: Vec<u8>, second: Vec<u8>| catalogue([first, second].concat());
    assert_unknown("same store twice", &two(entries(1, 1, store(1010)), entries(1, 2, store(1020))));
    assert_unknown("same age", &two(entries(1, 1, store(1010)), entries(2, 1, store(1020))));
    let mut younger = entries(2, 2, store(1020));
    younger[32] = 0;
    assert_unknown("sequence against age", &two(entries(1, 1, store(1010)), younger));
}

#[test]
fn a_volume_that_is_too_large_is_unknown() {
    let mut volume = one(vec![], &[]);
    volume.size = (1 << 27) * BLOCK + 1;
    assert_unknown("too large", &volume);
}

#[test]
fn an_unreadable_store_is_unknown() {
    let mut bytes = vec![0u8; 65536];
    let header = volume_header(60_000);
    bytes[0x1E00..0x1E00 + header.len()].copy_from_slice(&header);
    assert_eq!(read_vec(&bytes, 60_000, 16384).unwrap_err(), past_end(60_000, 16384, 65536));
    assert_unknown("past the end", &bytes);
}
