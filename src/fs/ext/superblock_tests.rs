use super::*;
use crate::fs::ext::raw_superblock::read;
use crate::fs::DeclineReason::{Dirty, ErrorState, Inconsistent, NotSupported, UnknownFeature};
use crate::fs::ext::sample::{SUPERBLOCK, Sample};

#[test]
fn the_structure_has_its_size_and_its_fields_their_places() {
    use std::mem::offset_of;
    assert_eq!(size_of::<RawSuperblock>(), 1024);
    for (field, at) in [
        (offset_of!(RawSuperblock, s_magic), 0x38),
        (offset_of!(RawSuperblock, s_rev_level), 0x4C),
        (offset_of!(RawSuperblock, s_feature_compat), 0x5C),
        (offset_of!(RawSuperblock, s_volume_name), 0x78),
        (offset_of!(RawSuperblock, s_reserved_gdt_blocks), 0xCE),
        (offset_of!(RawSuperblock, s_journal_inum), 0xE0),
        (offset_of!(RawSuperblock, s_desc_size), 0xFE),
        (offset_of!(RawSuperblock, s_first_meta_bg), 0x104),
        (offset_of!(RawSuperblock, s_blocks_count_hi), 0x150),
        (offset_of!(RawSuperblock, s_mmp_block), 0x168),
        (offset_of!(RawSuperblock, s_log_groups_per_flex), 0x174),
        (offset_of!(RawSuperblock, s_backup_bgs), 0x24C),
        (offset_of!(RawSuperblock, s_want_extra_isize), 0x15E),
        (offset_of!(RawSuperblock, s_quota_inums), 0x240),
        (offset_of!(RawSuperblock, s_prj_quota_inum), 0x26C),
        (offset_of!(RawSuperblock, s_checksum_seed), 0x270),
        (offset_of!(RawSuperblock, s_orphan_file_inum), 0x280),
        (offset_of!(RawSuperblock, s_checksum), 0x3FC),
    ] {
        assert_eq!(field, at);
    }
}

#[test]
fn what_is_not_ext_is_left_to_others() {
    assert!(read(&Vec::new()).is_none());
    assert!(read(&vec![0; 4096]).is_none());
    for (field, value) in [(0x38, 0), (0x18, 7), (0x4C, 2), (0x20, 0), (0x28, 0)] {
        let mut sample = Sample::new();
        sample.put16(SUPERBLOCK + field, value);
        assert!(read(&sample.bytes).is_none(), "{field:#x}");
    }
}

#[test]
fn a_label_ends_at_its_first_zero_and_may_hold_anything() {
    assert_eq!(Sample::new().detect().label.as_deref(), Some("sample"));
    let mut sample = Sample::new();
    sample.bytes[SUPERBLOCK + 0x78..][..16].copy_from_slice(b"sixteen\xFFletters!");
    assert_eq!(sample.detect().label.as_deref(), Some("sixteen\u{FFFD}letters!"));
    sample.bytes[SUPERBLOCK + 0x78..][..16].fill(0);
    assert_eq!(sample.detect().label, None);
}

#[test]
fn each_impossible_field_declines() {
    for (what, sample) in [
        ("more blocks than the volume", Sample::new().with32(0x04, 4598)),
        ("blocks in the high word", Sample::new().with32(0x150, 1)),
        ("no first data block", Sample::new().with32(0x14, 0)),
        ("a first data block past the end", Sample::new().with32(0x14, 5000)),
        ("no whole bytes of bitmap", Sample::new().with32(0x20, 2047)),
        ("more clusters than bits", Sample::new().with32(0x20, 8200)),
        ("clusters smaller than blocks", Sample::new().with32(0x18, 1).with_bits(0x64, 0x200)),
        ("huge clusters", Sample::new().with32(0x1C, 17).with_bits(0x64, 0x200)),
        ("clusters without bigalloc", Sample::new().with32(0x1C, 1)),
        ("another count of clusters", Sample::new().with32(0x24, 1024)),
        ("bigalloc without extents", Sample::new().with32(0x60, 0x82).with_bits(0x64, 0x200)),
        ("more inodes than the groups have", Sample::new().with32(0x00, 97)),
        ("fewer inodes than the groups have", Sample::new().with32(0x00, 64)),
        ("less than a block of inodes", Sample::new().with32(0x28, 2).with32(0x00, 6)),
        ("more than half of it reserved", Sample::new().with32(0x08, 2299)),
        ("no reserved inodes", Sample::new().with32(0x54, 10)),
        ("too many reserved descriptors", Sample::new().with16(0xCE, 257)),
        ("fields longer than an inode", Sample::new().with_bits(0x64, 0x40).with16(0x15E, 129)),
        ("fields longer than an inode, at least", Sample::new().with_bits(0x64, 0x40).with16(0x15C, 129)),
        ("GNU/Hurd with 64 bits", Sample::new().with32(0x48, 1)),
        ("GNU/Hurd with values in inodes", Sample::new().with32(0x48, 1).with32(0x60, 0x442)),
        ("revision 0 with features", Sample::new().with32(0x4C, 0)),
        ("revision 0 with a journal", Sample::new().with32(0x4C, 0).with32(0x60, 0).with32(0x64, 0)),
        ("no clusters in a group", Sample::new().with32(0x1C, 16).with_bits(0x64, 0x200)),
        ("an inode table as large as a group", Sample::new().with32(0x28, 8192)),
        ("more inodes than bits", Sample::new().with32(0x28, 8193)),
        ("a crooked inode size", Sample::new().with16(0x58, 200)),
        ("a tiny inode", Sample::new().with16(0x58, 64)),
        ("an inode larger than a block", Sample::new().with16(0x58, 2048)),
        ("a crooked descriptor size", Sample::new().with16(0xFE, 96)),
        ("a short descriptor", Sample::new().with16(0xFE, 32)),
        ("a descriptor larger than a block", Sample::new().with16(0xFE, 2048)),
        ("meta groups past the last", Sample::new().with_bits(0x60, 0x10).with32(0x104, 2)),
        ("two journals", Sample::new().with32(0xE4, 7)),
        ("a journal, and the UUID of another", Sample::new().with32(0xDC, 0x0B00)),
    ] {
        let decline = sample.declined();
        assert_eq!(decline.reason, Inconsistent, "{what}: {decline:?}");
    }
    let mut sample = Sample::new();
    sample.put32(SUPERBLOCK + 0x30, 1);
    let decline = sample.declined();
    assert!(decline.reason == Inconsistent && decline.detail.contains("checksum"), "{decline:?}");
    assert_eq!(decline.site.unwrap().offset, 1024 + 0x3FC);
    assert_eq!(
        Sample::new().with32(0x174, 0x0200).declined().reason,
        UnknownFeature,
        "another kind of checksum"
    );
}

#[test]
fn too_many_groups_are_not_read() {
    let sample = Sample::new().with32(0x20, 8).with32(0x24, 8).with32(0x28, 4).with32(0x04, 4_194_400);
    let raw = read(&sample.bytes).unwrap();
    let Err(Stop::Decline(decline)) = Superblock::parse(&raw, 1 << 40) else { panic!() };
    assert_eq!(decline.reason, NotSupported);
}

#[test]
fn each_state_but_clean_declines() {
    for (state, reason) in [(0, Dirty), (3, ErrorState), (2, ErrorState), (5, Dirty), (0x21, Dirty)] {
        let decline = Sample::new().with16(0x3A, state).declined();
        assert_eq!(decline.reason, reason, "{state:#x}");
    }
}

#[test]
fn unknown_features_and_a_journal_device_decline() {
    assert_eq!(Sample::new().with_bits(0x60, 0x1000).declined().reason, UnknownFeature);
    assert_eq!(Sample::new().with_bits(0x64, 0x800).declined().reason, UnknownFeature);
    assert_eq!(Sample::new().with_bits(0x5C, 0x100).declined().reason, UnknownFeature);
    let device = Sample::new().with32(0x60, 0x8).with32(0x20, 0).detect();
    assert_eq!(device.name, "ext4 journal");
}
