//! Unit tests over a hand-made physical volume: each refusal breaks one thing.

use super::*;
use crate::checksum::crc32_lvm;
use crate::volume::enumerate;

const EXTENT: usize = 4096;
const START: usize = 64 << 10;
const AREA: usize = 4096;
const AREA_SIZE: usize = 16 << 10;

/// A group of two volumes of linear segments: root has extents 0, 1 and 4, swap has 2 and 3.
const TEXT: &str = r#"
contents = "Text Format Volume Group"
version = 1
vg0 {
 id = "group" seqno = 7 format = "lvm2" status = ["RESIZEABLE", "READ", "WRITE"] flags = [] extent_size = 8
 physical_volumes { pv0 { id = "0123456789-abcdefghijklmnopqrstuv" status = ["ALLOCATABLE"] flags = []
  dev_size = 448 pe_start = 128 pe_count = 20 } }
 logical_volumes {
  root { id = "r" status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 2
   segment1 { start_extent = 0 extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 0 ] }
   segment2 { start_extent = 2 extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", 4 ] } }
  swap { id = "s" status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 1
   segment1 { start_extent = 0 extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ] } }
 }
}"#;

/// A physical volume; the second area, if there is one, lies behind the extents.
#[derive(Clone)]
struct Made {
    bytes: Vec<u8>,
}

impl Made {
    fn new(text: &str) -> Self {
        Self::with(&[(AREA, text)])
    }

    fn with(areas: &[(usize, &str)]) -> Self {
        let mut made = Self { bytes: vec![0; 448 * 512] };
        for &(at, text) in areas {
            made.put_area(at, 1024, text);
        }
        made.bytes[512..520].copy_from_slice(b"LABELONE");
        made.bytes[520] = 1;
        made.bytes[532] = 32;
        made.bytes[536..544].copy_from_slice(b"LVM2 001");
        made.bytes[544..576].copy_from_slice(b"0123456789abcdefghijklmnopqrstuv");
        let mut numbers = vec![448 * 512, START, 0, 0, 0];
        for &(at, _) in areas {
            numbers.extend([at, AREA_SIZE]);
        }
        for (i, number) in numbers.into_iter().enumerate() {
            made.bytes[576 + i * 8..][..8].copy_from_slice(&(number as u64).to_le_bytes());
        }
        made.seal();
        made
    }

    /// Makes the label's checksum right.
    fn seal(&mut self) {
        let crc = crc32_lvm([&self.bytes[532..1024]]);
        self.bytes[528..532].copy_from_slice(&crc.to_le_bytes());
    }

    /// Writes an area whose text begins at `offset` of it.
    fn put_area(&mut self, at: usize, offset: usize, text: &str) {
        for (i, byte) in text.bytes().chain([0]).enumerate() {
            let place = offset + i;
            let place = if place < AREA_SIZE { place } else { place - AREA_SIZE + 512 };
            self.bytes[at + place] = byte;
        }
        let text = [text.as_bytes(), &[0]].concat();
        let header = &mut self.bytes[at..at + 512];
        header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
        header[20] = 1;
        for (place, value) in [(24, at), (32, AREA_SIZE), (40, offset), (48, text.len())] {
            header[place..place + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        header[56..60].copy_from_slice(&crc32_lvm([&text[..]]).to_le_bytes());
        let crc = crc32_lvm([&header[4..]]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn volumes(&self) -> Vec<Volume> {
        let table = enumerate(&self.bytes, 512).unwrap();
        assert_eq!(table.distrust, None);
        table.volumes
    }

    fn refused(&self, word: &str) {
        let volumes = self.volumes();
        let [only] = &volumes[..] else { panic!("{word}: {volumes:?}") };
        assert_eq!(only.segments.ranges(), [0..448 * 512]);
        assert!(only.opaque.as_deref().is_some_and(|why| why.contains(word)), "{word}: {:?}", only.opaque);
    }
}

fn extents(first: usize, end: usize) -> Range<u64> {
    (START + first * EXTENT) as u64..(START + end * EXTENT) as u64
}

#[test]
fn logical_volumes_and_the_rest_add_up() {
    let volumes = Made::new(TEXT).volumes();
    let [rest, root, swap] = &volumes[..] else { panic!("{volumes:?}") };
    assert_eq!((root.scheme, root.index, root.name.as_deref()), (Scheme::Lvm, 1, Some("vg0/root")));
    assert_eq!(root.segments.ranges(), [extents(0, 2), extents(4, 5)]);
    assert_eq!((swap.name.as_deref(), swap.segments.ranges()), (Some("vg0/swap"), &[extents(2, 4)][..]));
    assert_eq!(rest.segments.ranges(), [0..START as u64, extents(5, 20).start..448 * 512]);
    assert_eq!((rest.scheme, volumes.iter().map(|v| v.segments.len()).sum()), (Scheme::Whole, 448 * 512));
    let known = rest.rest_of_lvm.as_ref().unwrap();
    // The fifteen free extents come right behind the metadata once the taken ones are left out.
    let free = extents(0, 15);
    assert_eq!(known.unallocated.ranges(), std::slice::from_ref(&free));
    assert_eq!(known.structures, [0..free.start, free.end..rest.segments.len()]);
    assert_eq!((known.group.as_str(), known.logical_volumes), ("vg0", 2));
    assert!(volumes.iter().all(|volume| volume.opaque.is_none()));
}

#[test]
fn an_empty_group_is_all_rest() {
    let text = TEXT.split_once(" logical_volumes").unwrap().0.to_owned() + "}";
    let volumes = Made::new(&text).volumes();
    let [rest] = &volumes[..] else { panic!("{volumes:?}") };
    assert_eq!(rest.rest_of_lvm.as_ref().unwrap().unallocated.ranges(), [extents(0, 20)]);
}

#[test]
fn stripes_on_one_physical_volume_come_in_turns() {
    let striped = r#"stripe_count = 2 stripe_size = 4 stripes = [ "pv0", 2, "pv0", 10 ]"#;
    let text = TEXT.replace(r#"stripe_count = 1 stripes = [ "pv0", 2 ]"#, striped);
    let volumes = Made::new(&text).volumes();
    let swap = volumes.iter().find(|volume| volume.name.as_deref() == Some("vg0/swap")).unwrap();
    let (a, b) = (extents(2, 3).start, extents(10, 11).start);
    assert_eq!(swap.segments.ranges(), [a..a + 2048, b..b + 2048, a + 2048..a + 4096, b + 2048..b + 4096]);
    let broken = text.replace("stripe_size = 4", "stripe_size = 3");
    Made::new(&broken).refused("does not divide");
    Made::new(&text.replace("stripe_size = 4", "stripe_size = 0")).refused("does not divide");
}

#[test]
fn a_text_may_go_around_the_ring() {
    let mut made = Made::new(TEXT);
    made.put_area(AREA, AREA_SIZE - 700, TEXT);
    assert_eq!(made.volumes().len(), 3);
}

#[test]
fn the_newest_of_several_texts_counts() {
    let second = START + 20 * EXTENT;
    let newer = TEXT.replace("seqno = 7", "seqno = 8").replace("swap {", "new {");
    for areas in [[(AREA, TEXT), (second, newer.as_str())], [(AREA, &newer), (second, TEXT)]] {
        let volumes = Made::with(&areas).volumes();
        assert!(volumes.iter().any(|volume| volume.name.as_deref() == Some("vg0/new")));
    }
    assert_eq!(Made::with(&[(AREA, TEXT), (second, TEXT)]).volumes().len(), 3);
    let other = TEXT.replace("swap {", "new {");
    Made::with(&[(AREA, TEXT), (second, &other)]).refused("copies of the metadata differ");
    // One that is damaged may have been the newest.
    let mut made = Made::with(&[(AREA, TEXT), (second, &newer)]);
    made.bytes[second + 1100] ^= 1;
    made.refused("does not match its checksum");
    let mut made = Made::with(&[(AREA, TEXT), (second, &newer)]);
    made.bytes[second + 30] ^= 1;
    made.refused("no valid header");
    // One that is not in use says so.
    let mut made = Made::with(&[(AREA, TEXT), (second, &newer)]);
    made.bytes[second + 60] = 1;
    let crc = crc32_lvm([&made.bytes[second + 4..second + 512]]);
    made.bytes[second..second + 4].copy_from_slice(&crc.to_le_bytes());
    assert!(made.volumes().iter().any(|volume| volume.name.as_deref() == Some("vg0/swap")));
}

#[test]
fn a_broken_label_is_refused() {
    let edit = |at: usize, byte: u8, word: &str| {
        let mut made = Made::new(TEXT);
        made.bytes[at] = byte;
        made.seal();
        made.refused(word);
    };
    edit(520, 2, "not one of LVM2");
    edit(543, b'2', "not one of LVM2");
    edit(533, 9, "cut short");
    edit(544, b'9', "another physical volume");
    edit(585, 1, "disagree");
    edit(578, 9, "larger than its partition");
    edit(616, 0xFF, "no valid header");
    edit(618, 9, "outside the volume");
    let mut made = Made::new(TEXT);
    made.bytes[560] ^= 1;
    made.refused("does not match its checksum");
}

#[test]
fn what_is_not_understood_is_named() {
    let segment = r#"extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#;
    let edits = [
        (
            r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#,
            r#"type = "thin-pool""#,
            "“swap” is, or needs, a thin pool",
        ),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "thin""#, "a thin volume"),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "snapshot""#, "a snapshot"),
        (
            r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#,
            r#"type = "cache+CACHE_USES_CACHEVOL""#,
            "a cache",
        ),
        (
            r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#,
            r#"type = "writecache""#,
            "a write cache",
        ),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "raid1""#, "a RAID"),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "mirror""#, "a mirror"),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "vdo""#, "a VDO volume"),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "integrity""#, "integrity"),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, r#"type = "error""#, "errors"),
        (
            r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#,
            r#"type = "of tomorrow""#,
            "of tomorrow",
        ),
        (r#"type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#, "", "has no type"),
        (
            segment,
            r#"extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pvmove0", 2 ]"#,
            "something else",
        ),
        (
            segment,
            r#"extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0" ]"#,
            "something else",
        ),
        (segment, r#"extent_count = 2 type = "striped" stripe_count = 1"#, "no stripes"),
        (
            segment,
            r#"extent_count = 2 type = "striped" stripe_count = 2 stripes = [ "pv0", 2 ]"#,
            "number of stripes",
        ),
        (segment, r#"extent_count = 2 type = "striped" stripe_count = 0 stripes = [ ]"#, "number of stripes"),
        (
            segment,
            r#"extent_count = 0 type = "striped" stripe_count = 1 stripes = [ "pv0", 2 ]"#,
            "leave gaps",
        ),
        (r#"stripes = [ "pv0", 2 ]"#, r#"stripes = [ "pv0", 3 ]"#, "same extent"),
        (r#"stripes = [ "pv0", 2 ]"#, r#"stripes = [ "pv0", 19 ]"#, "outside the physical one"),
        (r#"stripes = [ "pv0", 2 ]"#, r#"stripes = [ "pv0", 18446744073709551615 ]"#, "too large"),
        ("start_extent = 2", "start_extent = 3", "leave gaps"),
        ("segment_count = 2", "segment_count = 3", "number of segments"),
        ("segment2 {", "segment3 {", "lacks a segment"),
        (
            r#"root { id = "r" status = ["READ", "WRITE", "VISIBLE"] flags = []"#,
            r#"root { id = "r" status = ["PVMOVE", "LOCKED"] flags = []"#,
            "PVMOVE",
        ),
        (
            r#"swap { id = "s" status = ["READ", "WRITE", "VISIBLE"] flags = []"#,
            r#"swap { id = "s" status = ["READ", "WRITE", "VISIBLE"] flags = ["NEW"]"#,
            "NEW",
        ),
        (
            r#"status = ["RESIZEABLE", "READ", "WRITE"]"#,
            r#"status = ["RESIZEABLE", "READ", "EXPORTED"]"#,
            "EXPORTED",
        ),
        (
            r#"status = ["RESIZEABLE", "READ", "WRITE"]"#,
            r#"status = ["RESIZEABLE", "CLUSTERED"]"#,
            "CLUSTERED",
        ),
        (r#"status = ["RESIZEABLE", "READ", "WRITE"]"#, "status = 3", "no list of words"),
        (
            r#"status = ["ALLOCATABLE"] flags = []"#,
            r#"status = ["ALLOCATABLE"] flags = ["MISSING"]"#,
            "MISSING",
        ),
        ("physical_volumes {", "physical_volumes { pv1 { } ", "several physical volumes"),
        ("logical_volumes {", "outdated_pvs { } logical_volumes {", "outdated_pvs"),
        (r#"format = "lvm2""#, r#"format = "lvm3""#, "unknown format"),
        (r#"format = "lvm2""#, r#"lock_type = "sanlock""#, "shared between machines"),
        ("version = 1", "version = 2", "unknown version"),
        ("vg0 {", "vg1 { } vg0 {", "one volume group"),
        ("extent_size = 8", "extent_size = 0", "no size"),
        ("extent_size = 8", "", "lacks “extent_size”"),
        ("pe_count = 20", "pe_count = 99", "larger than its partition"),
        ("pe_start = 128", "pe_start = 136", "disagree"),
        ("dev_size = 448", "dev_size = 100", "larger than its partition"),
        ("seqno = 7", "seqno = -7", "lacks “seqno”"),
        ("vg0 {", "vg0 ", "broken"),
    ];
    for (from, to, word) in edits {
        assert!(TEXT.contains(from), "{from}");
        Made::new(&TEXT.replacen(from, to, 1)).refused(word);
    }
}

#[test]
fn a_hidden_volume_is_kept_whole() {
    let text = TEXT.replacen(
        r#"swap { id = "s" status = ["READ", "WRITE", "VISIBLE"]"#,
        r#"swap { id = "s" status = ["READ", "WRITE"]"#,
        1,
    );
    let volumes = Made::new(&text).volumes();
    let swap = volumes.iter().find(|volume| volume.name.as_deref() == Some("vg0/swap")).unwrap();
    assert!(swap.opaque.as_deref().is_some_and(|why| why.contains("hidden")));
}

#[test]
fn a_physical_volume_that_is_something_else_as_well_is_kept() {
    let mut made = Made::new(TEXT);
    made.bytes[0x8001..0x8006].copy_from_slice(b"CD001");
    made.refused("ISO 9660");
    let mut made = Made::new(TEXT);
    made.bytes[64..68].copy_from_slice(b"\x57\x45\x56\x82");
    made.bytes[64 + 132..64 + 136].copy_from_slice(b"\x57\x45\x56\x82");
    made.refused("partition table");
    // The metadata area over the extents.
    let at = START + 8 * EXTENT;
    Made::with(&[(at, TEXT)]).refused("among its extents");
}
