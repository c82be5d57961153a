//! A small NTFS volume made by hand, for tests that break one thing of it.
//!
//! ```text
//!   cluster 0 $Boot │ 4 $MFT, 32 records │ 12 $MFTMirr │ 13 $Bitmap │ 14 root index │ 15 lists, parts
//!           20 $LogFile │ 70 files │ 80 … 99 free      (100 clusters of 4 KiB, then 7 sectors and a backup)
//! ```

use std::collections::BTreeMap;

use super::probe;
use super::record::kind;
use crate::fs::{Context, Decline, DeclineReason, Detected, FreeMap, Request};

pub(super) const CLUSTER: usize = 4096;
pub(super) const CLUSTERS: u64 = 100;
pub(super) const RECORD: usize = 1024;
pub(super) const FREE: std::ops::Range<u64> = 80 * 4096..100 * 4096;

/// The instance of $MFT's $BITMAP, as an attribute list names it.
pub(super) const RECORD_BITMAP_INSTANCE: u16 = 8;

/// A file record before it is written.
#[derive(Clone)]
pub(super) struct RecordSpec {
    pub(super) sequence: u16,
    pub(super) flags: u16,
    pub(super) base: u64,
    pub(super) attributes: Vec<Vec<u8>>,
}

/// A volume before it is written.
pub(super) struct Spec {
    pub(super) records: BTreeMap<u64, RecordSpec>,
    /// Names in the root directory, with their file references.
    pub(super) names: Vec<(&'static str, u64)>,
    pub(super) bitmap: Vec<u8>,
    pub(super) log: Vec<u8>,
    /// Contents of further clusters.
    pub(super) clusters: Vec<(usize, Vec<u8>)>,
}

/// Runs of a non-resident attribute, and its sizes in bytes.
pub(super) struct Runs<'a> {
    pub(super) runs: &'a [(Option<u64>, u64)],
    pub(super) first_vcn: u64,
    pub(super) sizes: [u64; 3],
    pub(super) flags: u16,
}

impl<'a> Runs<'a> {
    /// A plain value that fills its clusters.
    pub(super) fn filled(runs: &'a [(Option<u64>, u64)]) -> Self {
        let bytes = runs.iter().map(|r| r.1).sum::<u64>() * 4096;
        Self { runs, first_vcn: 0, sizes: [bytes; 3], flags: 0 }
    }
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn attribute(kind: u32, name: &str, header: usize, flags: u16, instance: u16, rest: &[u8]) -> Vec<u8> {
    let name_bytes = utf16(name);
    let value_offset = (header + name_bytes.len()).next_multiple_of(8);
    let mut a = vec![0; (value_offset + rest.len()).next_multiple_of(8)];
    let len = u32::try_from(a.len()).unwrap();
    put(&mut a, 0, &kind.to_le_bytes());
    put(&mut a, 4, &len.to_le_bytes());
    a[9] = u8::try_from(name.len()).unwrap();
    put(&mut a, 10, &u16::try_from(header).unwrap().to_le_bytes());
    put(&mut a, 12, &flags.to_le_bytes());
    put(&mut a, 14, &instance.to_le_bytes());
    put(&mut a, header, &name_bytes);
    put(&mut a, value_offset, rest);
    a
}

/// A resident attribute.
pub(super) fn resident(kind: u32, name: &str, instance: u16, value: &[u8]) -> Vec<u8> {
    let mut a = attribute(kind, name, 24, 0, instance, value);
    let offset = u16::try_from((24 + name.len() * 2).next_multiple_of(8)).unwrap();
    put(&mut a, 16, &u32::try_from(value.len()).unwrap().to_le_bytes());
    put(&mut a, 20, &offset.to_le_bytes());
    a
}

/// A non-resident attribute.
pub(super) fn non_resident(kind: u32, name: &str, instance: u16, runs: &Runs<'_>) -> Vec<u8> {
    let mut pairs = Vec::new();
    let mut last = 0;
    for &(lcn, len) in runs.runs {
        let len = u16::try_from(len).unwrap().to_le_bytes();
        if let Some(lcn) = lcn {
            let lcn = i16::try_from(lcn).unwrap();
            pairs.push(0x22);
            pairs.extend(len);
            pairs.extend((lcn - last).to_le_bytes());
            last = lcn;
        } else {
            pairs.push(0x02);
            pairs.extend(len);
        }
    }
    pairs.push(0);
    let mut a = attribute(kind, name, 64, runs.flags, instance, &pairs);
    let clusters: u64 = runs.runs.iter().map(|r| r.1).sum();
    let offset = u16::try_from((64 + name.len() * 2).next_multiple_of(8)).unwrap();
    a[8] = 1;
    put(&mut a, 16, &runs.first_vcn.to_le_bytes());
    put(&mut a, 24, &(runs.first_vcn + clusters).wrapping_sub(1).to_le_bytes());
    put(&mut a, 32, &offset.to_le_bytes());
    for (i, size) in runs.sizes.iter().enumerate() {
        put(&mut a, 40 + i * 8, &size.to_le_bytes());
    }
    a
}

/// A `$FILE_NAME` value.
pub(super) fn file_name(parent: u64, name: &str) -> Vec<u8> {
    let mut v = vec![0; 66];
    put(&mut v, 0, &parent.to_le_bytes());
    v[64] = u8::try_from(utf16(name).len() / 2).unwrap();
    v.extend(utf16(name));
    v
}

/// $MFT's own $BITMAP.
pub(super) fn record_bitmap(bits: &[u8]) -> Vec<u8> {
    resident(kind::BITMAP, "", RECORD_BITMAP_INSTANCE, bits)
}

/// An `$INDEX_ROOT` value of a directory without entries.
pub(super) fn empty_index_root() -> Vec<u8> {
    index_root(&[])
}

fn index_root(names: &[(&str, u64)]) -> Vec<u8> {
    let mut root = vec![0; 16];
    put(&mut root, 0, &kind::FILE_NAME.to_le_bytes());
    put(&mut root, 8, &4096u32.to_le_bytes());
    root.extend(index_node(names, 16, 0));
    root
}

/// One entry of an attribute list.
pub(super) fn list_entry(kind: u32, name: &str, vcn: u64, reference: u64, instance: u16) -> Vec<u8> {
    let name_bytes = utf16(name);
    let mut e = vec![0; (26 + name_bytes.len()).next_multiple_of(8)];
    let len = u16::try_from(e.len()).unwrap();
    put(&mut e, 0, &kind.to_le_bytes());
    put(&mut e, 4, &len.to_le_bytes());
    e[6] = u8::try_from(name.len()).unwrap();
    e[7] = 26;
    put(&mut e, 8, &vcn.to_le_bytes());
    put(&mut e, 16, &reference.to_le_bytes());
    put(&mut e, 24, &instance.to_le_bytes());
    put(&mut e, 26, &name_bytes);
    e
}

/// Protects a record against torn writes, as on disk.
pub(super) fn protect(bytes: &mut [u8], array: usize) {
    let strides = bytes.len() / 512;
    put(bytes, 4, &u16::try_from(array).unwrap().to_le_bytes());
    put(bytes, 6, &u16::try_from(strides + 1).unwrap().to_le_bytes());
    put(bytes, array, &[0x5A, 0]);
    for i in 0..strides {
        let tail = i * 512 + 510;
        let original = [bytes[tail], bytes[tail + 1]];
        put(bytes, array + 2 + 2 * i, &original);
        put(bytes, tail, &[0x5A, 0]);
    }
}

impl RecordSpec {
    /// A file in use.
    pub(super) fn file(attributes: Vec<Vec<u8>>) -> Self {
        Self { sequence: 1, flags: 1, base: 0, attributes }
    }

    fn bytes(&self, number: u64) -> Vec<u8> {
        let mut r = vec![0; RECORD];
        put(&mut r, 0, b"FILE");
        put(&mut r, 0x10, &self.sequence.to_le_bytes());
        put(&mut r, 0x14, &56u16.to_le_bytes());
        put(&mut r, 0x16, &self.flags.to_le_bytes());
        put(&mut r, 0x20, &self.base.to_le_bytes());
        put(&mut r, 0x2C, &u32::try_from(number).unwrap().to_le_bytes());
        let mut at = 56;
        for attribute in &self.attributes {
            put(&mut r, at, attribute);
            at += attribute.len();
        }
        put(&mut r, at, &[0xFF; 4]);
        put(&mut r, 0x18, &u32::try_from(at + 8).unwrap().to_le_bytes());
        put(&mut r, 0x1C, &1024u32.to_le_bytes());
        protect(&mut r, 0x30);
        r
    }
}

/// An index node: header, one entry for each name, the last entry.
fn index_node(names: &[(&str, u64)], entries_offset: u32, room: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    for (name, reference) in names {
        let key = file_name(5 | 5 << 48, name);
        let mut e = vec![0; (16 + key.len()).next_multiple_of(8)];
        let len = u16::try_from(e.len()).unwrap();
        put(&mut e, 0, &reference.to_le_bytes());
        put(&mut e, 8, &len.to_le_bytes());
        put(&mut e, 10, &u16::try_from(key.len()).unwrap().to_le_bytes());
        put(&mut e, 16, &key);
        entries.extend(e);
    }
    let mut last = [0; 16];
    last[8] = 16;
    last[12] = 2;
    entries.extend(last);
    let length = entries_offset + u32::try_from(entries.len()).unwrap();
    let mut node = vec![0; usize::try_from(entries_offset).unwrap()];
    put(&mut node, 0, &entries_offset.to_le_bytes());
    put(&mut node, 4, &length.to_le_bytes());
    node.extend(entries);
    node.resize(node.len().max(room), 0);
    node
}

/// A restart page of $LogFile.
pub(super) fn restart_page(lsn: u64, version: (i16, i16), in_use: u16, flags: u16) -> Vec<u8> {
    let mut p = vec![0; 4096];
    put(&mut p, 0, b"RSTR");
    put(&mut p, 16, &4096u32.to_le_bytes());
    put(&mut p, 20, &4096u32.to_le_bytes());
    put(&mut p, 24, &0x30u16.to_le_bytes());
    put(&mut p, 26, &version.1.to_le_bytes());
    put(&mut p, 28, &version.0.to_le_bytes());
    put(&mut p, 0x30, &lsn.to_le_bytes());
    put(&mut p, 0x38, &1u16.to_le_bytes());
    put(&mut p, 0x3A, &0xFFFFu16.to_le_bytes());
    put(&mut p, 0x3C, &in_use.to_le_bytes());
    put(&mut p, 0x3E, &flags.to_le_bytes());
    protect(&mut p, 0x1E);
    p
}

/// `$VOLUME_INFORMATION`.
pub(super) fn volume_information(major: u8, minor: u8, flags: u16) -> Vec<u8> {
    let mut v = vec![0; 12];
    v[8] = major;
    v[9] = minor;
    put(&mut v, 10, &flags.to_le_bytes());
    resident(kind::VOLUME_INFORMATION, "", 2, &v)
}

impl Spec {
    /// A volume in perfect order, with a label and an empty log.
    pub(super) fn new() -> Self {
        let data = |runs: &[(Option<u64>, u64)]| {
            RecordSpec::file(vec![non_resident(kind::DATA, "", 1, &Runs::filled(runs))])
        };
        let mut bitmap = vec![0xFF; 16];
        bitmap[10..12].fill(0);
        bitmap[12] = 0xF0;
        let bitmap_runs = Runs { sizes: [4096, 16, 16], ..Runs::filled(&[(Some(13), 1)]) };
        let mut records = BTreeMap::from([
            (0, data(&[(Some(4), 8)])),
            (1, data(&[(Some(12), 1)])),
            (2, data(&[(Some(20), 50)])),
            (
                3,
                RecordSpec::file(vec![
                    resident(kind::VOLUME_NAME, "", 1, &utf16("Ünit")),
                    volume_information(3, 1, 0x0080),
                ]),
            ),
            (6, RecordSpec::file(vec![non_resident(kind::DATA, "", 1, &bitmap_runs)])),
            (7, data(&[(Some(0), 2)])),
        ]);
        for number in [4, 5, 8, 9, 10] {
            records.insert(number, RecordSpec::file(vec![]));
        }
        Self { records, names: vec![("notes.txt", 24)], bitmap, log: vec![0xFF; 50 * 4096], clusters: vec![] }
    }

    /// Adds a file of the root directory as record `number`.
    pub(super) fn add_file(&mut self, name: &'static str, number: u64, data: Vec<u8>) {
        let name_value = file_name(5 | 5 << 48, name);
        let record = RecordSpec::file(vec![resident(kind::FILE_NAME, "", 0, &name_value), data]);
        self.records.insert(number, record);
        self.names.push((name, number | 1 << 48));
    }

    /// Adds $MFT's own $BITMAP, of the records in use, if there is none.
    fn add_record_bitmap(&mut self) {
        let mut bits = vec![0; 8];
        for (&number, _) in self.records.iter().filter(|(_, record)| record.flags & 1 != 0) {
            let number = usize::try_from(number).unwrap();
            bits[number / 8] |= 1 << (number % 8);
        }
        let bitmap = record_bitmap(&bits);
        let attributes = &mut self.records.get_mut(&0).unwrap().attributes;
        if !attributes.iter().any(|attribute| attribute.starts_with(&kind::BITMAP.to_le_bytes())) {
            attributes.push(bitmap);
        }
    }

    /// The volume's bytes.
    pub(super) fn build(mut self) -> Vec<u8> {
        let mut v = vec![0; usize::try_from(CLUSTERS).unwrap() * CLUSTER + 8 * 512];
        put(&mut v, 3, b"NTFS    ");
        put(&mut v, 0x0B, &512u16.to_le_bytes());
        v[0x0D] = 8;
        put(&mut v, 0x28, &(CLUSTERS * 8 + 7).to_le_bytes());
        v[0x30] = 4;
        v[0x38] = 12;
        v[0x40] = 0xF6;
        put(&mut v, 0x1FE, &[0x55, 0xAA]);

        // Half of the names stand in the root of the index, half in its one block.
        let (in_root, in_block) = self.names.split_at(self.names.len() / 2);
        let root = index_root(in_root);
        let mut block = vec![0; 24];
        put(&mut block, 0, b"INDX");
        block.extend(index_node(in_block, 0x28, 4096 - 24));
        protect(&mut block, 0x28);
        put(&mut v, 14 * CLUSTER, &block);
        if let Some(directory) = self.records.get_mut(&5) {
            directory.flags |= 2;
            directory.sequence = 5;
            if directory.attributes.is_empty() {
                directory.attributes = vec![
                    resident(kind::INDEX_ROOT, "$I30", 1, &root),
                    non_resident(kind::INDEX_ALLOCATION, "$I30", 2, &Runs::filled(&[(Some(14), 1)])),
                    resident(kind::BITMAP, "$I30", 3, &[1, 0, 0, 0, 0, 0, 0, 0]),
                ];
            }
        }
        self.add_record_bitmap();
        for (&number, record) in &self.records {
            let at = 4 * CLUSTER + usize::try_from(number).unwrap() * RECORD;
            put(&mut v, at, &record.bytes(number));
            if number < 4 {
                put(&mut v, 12 * CLUSTER + usize::try_from(number).unwrap() * RECORD, &record.bytes(number));
            }
        }
        put(&mut v, 13 * CLUSTER, &self.bitmap);
        put(&mut v, 20 * CLUSTER, &self.log);
        for (cluster, bytes) in &self.clusters {
            put(&mut v, cluster * CLUSTER, bytes);
        }
        v
    }
}

pub(super) const CONTEXT: Context = Context { sector_size: 512 };

/// What is said of a volume once both witnesses were heard.
pub(super) fn detect(volume: &[u8]) -> Detected {
    probe(&volume, CONTEXT).unwrap().heard(&volume)
}

pub(super) fn mapped(volume: &[u8]) -> FreeMap {
    detect(volume).into_map()
}

pub(super) fn declined(volume: &[u8]) -> Decline {
    detect(volume).into_decline()
}

/// The volume with one change.
pub(super) fn changed(change: impl FnOnce(&mut Spec)) -> Vec<u8> {
    let mut spec = Spec::new();
    change(&mut spec);
    spec.build()
}

pub(super) fn assert_declined(what: &str, reason: DeclineReason, change: impl FnOnce(&mut Spec)) {
    let decline = declined(&changed(change));
    assert_eq!(decline.reason, reason, "{what}: {decline:?}");
    assert!(decline.site.is_some(), "{what}: {decline:?}");
}

pub(super) fn data(runs: &[(Option<u64>, u64)]) -> Vec<u8> {
    non_resident(kind::DATA, "", 1, &Runs::filled(runs))
}

pub(super) fn page_file_clusters(map: &FreeMap) -> Vec<u64> {
    let requests = map.on_request.iter().filter(|(request, _)| *request == Request::PageFiles);
    let ranges = requests.flat_map(|(_, extents)| extents.ranges().to_vec());
    ranges.flat_map(|range| range.start / 4096..range.end / 4096).collect()
}
