//! Feature bits: which are understood, and which make a volume one that is better left alone.
//!
//! ```text
//!   s_feature_compat      a kernel that does not know the bit may still write
//!   s_feature_incompat    … must not mount
//!   s_feature_ro_compat   … may read
//! ```
//! A bit is listed as understood only where it is known what it means for allocation: mostly
//! "nothing", else the code here handles it. **Unknown compat bits decline, too.** A kernel may ignore
//! them and allocate from the bitmaps, but `sparse_super2` is a compat bit and changes what a group
//! without a written bitmap holds; `e2fsck`, too, refuses volumes with compat bits it does not know.
//! Source: the kernel's `ext4/super.rst`, `ext4(5)`.

use crate::fs::{Decline, DeclineReason};

/// The three feature words of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Features {
    pub compat: u32,
    pub incompat: u32,
    pub ro_compat: u32,
}

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $word:ident $value:literal;)*) => {
        $($(#[$doc])* pub(super) const $name: Bit = Bit::$word($value);)*
    };
}

/// One feature bit and the word it is in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bit {
    Compat(u32),
    Incompat(u32),
    RoCompat(u32),
}

bits! {
    HAS_JOURNAL = Compat 0x4;
    SPARSE_SUPER2 = Compat 0x200;
    ORPHAN_FILE = Compat 0x1000;
    RECOVER = Incompat 0x4;
    JOURNAL_DEV = Incompat 0x8;
    META_BG = Incompat 0x10;
    EXTENTS = Incompat 0x40;
    BIT64 = Incompat 0x80;
    MMP = Incompat 0x100;
    FLEX_BG = Incompat 0x200;
    EA_INODE = Incompat 0x400;
    CSUM_SEED = Incompat 0x2000;
    LARGE_DIR = Incompat 0x4000;
    INLINE_DATA = Incompat 0x8000;
    SPARSE_SUPER = RoCompat 0x1;
    GDT_CSUM = RoCompat 0x10;
    EXTRA_ISIZE = RoCompat 0x40;
    QUOTA = RoCompat 0x100;
    BIGALLOC = RoCompat 0x200;
    METADATA_CSUM = RoCompat 0x400;
    PROJECT = RoCompat 0x2000;
}

/// dir_prealloc, imagic_inodes, has_journal, ext_attr, resize_inode, dir_index, sparse_super2,
/// fast_commit (told by the journal itself when it matters), stable_inodes, orphan_file (a file like
/// any other: orphans stay allocated until a kernel frees them).
const UNDERSTOOD_COMPAT: u32 = 0x1E3F;
/// filetype, needs_recovery, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, metadata_csum_seed,
/// large_dir, inline_data, encrypt, casefold. Of these only names and contents of files are affected
/// by filetype, extents and everything from ea_inode on save the checksum seed.
const UNDERSTOOD_INCOMPAT: u32 = 0x3_E7D6;
/// sparse_super, large_file, huge_file, uninit_bg, dir_nlink, extra_isize, quota, bigalloc,
/// metadata_csum, read-only, project, verity (its trees are blocks of the file), orphan_present.
const UNDERSTOOD_RO_COMPAT: u32 = 0x1_B77B;

/// What ext3's driver knew besides the journal: a volume with more is called ext4.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x8 | 0x10;
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

/// Names for bits that are known and not understood, for the message.
const NAMED: [(Bit, &str); 10] = [
    (Bit::Compat(0x40), "lazy_bg"),
    (Bit::Compat(0x80), "snapshot exclude inode"),
    (Bit::Compat(0x100), "snapshot exclude bitmap"),
    (Bit::Incompat(0x1), "compression"),
    (Bit::Incompat(0x8), "journal_dev"),
    (Bit::Incompat(0x1000), "dirdata"),
    (Bit::RoCompat(0x4), "btree_dir"),
    (Bit::RoCompat(0x80), "snapshots"),
    (Bit::RoCompat(0x800), "replica"),
    (Bit::RoCompat(0x4000), "shared_blocks"),
];

impl Features {
    /// Whether `bit` is set.
    pub(super) fn has(self, bit: Bit) -> bool {
        match bit {
            Bit::Compat(value) => self.compat & value != 0,
            Bit::Incompat(value) => self.incompat & value != 0,
            Bit::RoCompat(value) => self.ro_compat & value != 0,
        }
    }

    /// Whether group descriptors carry a checksum, and with it the "uninitialised" flags.
    pub(super) fn has_descriptor_checksums(self) -> bool {
        self.has(GDT_CSUM) || self.has(METADATA_CSUM)
    }

    /// What the volume is called.
    pub(super) fn name(self) -> &'static str {
        if self.has(JOURNAL_DEV) {
            "ext4 journal"
        } else if self.incompat & !EXT3_INCOMPAT != 0 || self.ro_compat & !EXT3_RO_COMPAT != 0 {
            "ext4"
        } else if self.has(HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// Declines a volume with a bit that is not understood.
    pub(super) fn require_understood(self) -> Result<(), Decline> {
        if self.has(JOURNAL_DEV) {
            return Err(Decline::new(
                DeclineReason::NotSupported,
                "This volume is the journal of an ext file system that lies elsewhere; nothing in it is \
                 free space.",
            ));
        }
        let words = [
            ("compat", self.compat & !UNDERSTOOD_COMPAT),
            ("incompat", self.incompat & !UNDERSTOOD_INCOMPAT),
            ("ro_compat", self.ro_compat & !UNDERSTOOD_RO_COMPAT),
        ];
        let mut parts: Vec<String> = words
            .iter()
            .filter(|(_, bits)| *bits != 0)
            .map(|(word, bits)| format!("{word} {bits:#x}"))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        parts.extend(NAMED.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| (*name).to_owned()));
        Err(Decline::new(
            DeclineReason::UnknownFeature,
            format!(
                "This file system uses features that are not understood here ({}), so its free space is \
                 not believed. Zero blocks are still removed.",
                parts.join(", ")
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(compat: u32, incompat: u32, ro_compat: u32) -> Features {
        Features { compat, incompat, ro_compat }
    }

    #[test]
    fn names_follow_the_features() {
        assert_eq!(features(0x38, 0x2, 0x3).name(), "ext2");
        assert_eq!(features(0x3C, 0x6, 0x3).name(), "ext3");
        assert_eq!(features(0x3C, 0x42, 0x3).name(), "ext4");
        assert_eq!(features(0x38, 0x2, 0x10).name(), "ext4", "without a journal, too");
        assert_eq!(features(0, 0x8, 0).name(), "ext4 journal");
    }

    #[test]
    fn only_listed_bits_are_understood() {
        let listed = |word: u32| (0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| 1u32 << bit).collect();
        let compat: Vec<u32> = listed(UNDERSTOOD_COMPAT);
        let incompat: Vec<u32> = listed(UNDERSTOOD_INCOMPAT);
        let ro_compat: Vec<u32> = listed(UNDERSTOOD_RO_COMPAT);
        assert_eq!(compat, [0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x200, 0x400, 0x800, 0x1000]);
        assert_eq!(
            incompat,
            [0x2, 0x4, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400, 0x2000, 0x4000, 0x8000, 0x1_0000, 0x2_0000]
        );
        assert_eq!(
            ro_compat,
            [0x1, 0x2, 0x8, 0x10, 0x20, 0x40, 0x100, 0x200, 0x400, 0x1000, 0x2000, 0x8000, 0x1_0000]
        );
    }

    #[test]
    fn every_other_bit_declines_and_is_named() {
        for bit in (0..32).map(|bit| 1u32 << bit) {
            for (word, understood, one) in [
                ("compat", UNDERSTOOD_COMPAT, features(bit, 0, 0)),
                ("incompat", UNDERSTOOD_INCOMPAT, features(0, bit, 0)),
                ("ro_compat", UNDERSTOOD_RO_COMPAT, features(0, 0, bit)),
            ] {
                match one.require_understood() {
                    Ok(()) => assert!(understood & bit != 0, "{word} {bit:#x}"),
                    Err(decline) if one.has(JOURNAL_DEV) => {
                        assert_eq!(decline.reason, DeclineReason::NotSupported);
                    }
                    Err(decline) => {
                        assert!(understood & bit == 0, "{word} {bit:#x}");
                        assert_eq!(decline.reason, DeclineReason::UnknownFeature);
                        assert!(decline.detail.contains(&format!("{word} {bit:#x}")), "{}", decline.detail);
                    }
                }
            }
        }
        let lustre = features(0, 0x1042, 0x80).require_understood().unwrap_err();
        assert!(lustre.detail.contains("incompat 0x1000, ro_compat 0x80, dirdata, snapshots"));
    }
}
