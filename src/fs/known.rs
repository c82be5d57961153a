//! Volumes known by their signature and declined: encrypted, members of something larger, file
//! systems without a reader, and volumes that two file systems claim.
//!
//! **The rule.** A reader is asked only if exactly one file system that has a reader claims the
//! volume, and nobody else does:
//! 1. a member of a RAID, volume manager or pool is declined by that name, whatever else is there: a
//!    mirror's member with its metadata at the end looks just like the file system inside;
//! 2. then an encrypted volume: BitLocker To Go shows a FAT32 boot sector;
//! 3. then a file system without a reader: ZFS, ReFS, HFS+, JFS and others start behind an old boot
//!    sector or ext4 superblock and leave it alone, so that it still looks alive;
//! 4. two file systems that have readers: one is a leftover, and its map would show the other's data as
//!    free. Nearly all `mkfs` tools wipe what others left, so a healthy volume bears only one signature
//!    (a quick `mkntfs` over Btrfs was seen to leave two).
//!
//! A leftover costs a person the saving on that volume, and `wipefs` removes it; believing the wrong
//! one would cost the data. Which signatures there are, and where: [`crate::volume::signature`], which is
//! also what a bare disk is judged by.

use super::{Decline, DeclineReason, Detected, Stop};
use crate::error::Site;
use crate::io::ReadAt;
use crate::units::Space;
use crate::volume::signature::{Claim, Class, Native, claims};

/// Who is to be asked for the free space of a volume.
#[derive(Debug)]
pub(super) enum Claimed {
    /// This reader and no other.
    By(Native),
    /// Nobody: no signature is known.
    ByNobody,
    /// Nobody may be: declined.
    Declined(Box<Detected>),
}

/// Says who claims `volume`.
pub(super) fn claimed(volume: &dyn ReadAt) -> Claimed {
    let claims = match claims(volume) {
        Ok(claims) => claims,
        Err(error) => {
            return Claimed::Declined(Box::new(Detected::declined(
                "unknown",
                None,
                Stop::from(error).into_decline(),
            )));
        }
    };
    let (first, others) = match claims.split_first() {
        None => return Claimed::ByNobody,
        Some((Claim { class: Class::Native(only), .. }, [])) => return Claimed::By(*only),
        Some(several) => several,
    };
    let site = Site { structure: "signature", space: Space::Volume, offset: first.offset };
    Claimed::Declined(Box::new(Detected::declined(first.name, None, decline(first, others).at(site))))
}

fn decline(first: &Claim, others: &[Claim]) -> Decline {
    let name = first.name;
    let also = match others {
        [] => String::new(),
        others => {
            let names: Vec<&str> = others.iter().map(|claim| claim.name).collect();
            format!(" It also bears the signature of {}.", names.join(", "))
        }
    };
    match first.class {
        Class::Member => Decline::new(
            DeclineReason::NotSupported,
            format!(
                "This is a part of {name}. Which of its bytes are free, only the whole can tell, so all of \
                 them count as in use.{also}"
            ),
        ),
        Class::Encrypted => Decline::new(
            DeclineReason::Encrypted,
            format!(
                "This volume is encrypted with {name}: free and used space look alike. To make it smaller, \
                 decrypt it first.{also}"
            ),
        ),
        Class::Foreign => Decline::new(
            DeclineReason::NotSupported,
            format!("The free space of {name} is not understood here; only zeros are dropped.{also}"),
        ),
        Class::Native(_) => Decline::new(
            DeclineReason::Inconsistent,
            format!(
                "Two file systems claim this volume, and it is unclear which of them is a leftover (wipefs \
                 shows and removes it). The first is {name}.{also}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Context, Mapping, detect};
    use proptest::prelude::*;

    const CONTEXT: Context = Context { sector_size: 512 };
    const SIZE: usize = 20 << 20;

    type Part<'a> = (usize, &'a [u8]);

    fn volume(parts: &[Part<'_>]) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    fn declined(parts: &[Part<'_>]) -> Option<(&'static str, DeclineReason)> {
        let Claimed::Declined(found) = claimed(&volume(parts)) else { return None };
        let Mapping::Declined(decline) = found.mapping else { panic!("mapped") };
        assert!(decline.site.is_some() && !decline.detail.is_empty());
        Some((found.name, decline.reason))
    }

    const FVE: &[u8] = b"\x3B\xD6\x67\x49\x29\x2E\xD8\x4A\x83\x99\xF6\xA3\x39\xE3\xD0\x01";
    const FAT: &[u8] = b"\xEB\x58\x90MSWIN4.1\x00\x02\x08\x20\x00\x02\x00\x00\x00\x80\xF8";
    const BOOT: Part<'_> = (510, &[0x55, 0xAA]);
    const EXT: [Part<'_>; 2] = [(0x420, &[0, 0x80]), (0x438, &[0x53, 0xEF])];

    #[test]
    fn each_format_is_named() {
        use DeclineReason::{Encrypted, NotSupported};
        let end = SIZE;
        let cases: &[(&str, DeclineReason, &[Part<'_>])] = &[
            ("BitLocker", Encrypted, &[(3, b"-FVE-FS-")]),
            ("BitLocker", Encrypted, &[(0xA0, FVE)]),
            ("BitLocker To Go", Encrypted, &[(0, FAT), BOOT, (0x1A8, FVE)]),
            ("LUKS1", Encrypted, &[(0, b"LUKS\xBA\xBE\0\x01")]),
            ("LUKS2", Encrypted, &[(0, b"LUKS\xBA\xBE\0\x02"), (0x4000, b"SKUL\xBA\xBE\0\x02")]),
            ("LUKS2", Encrypted, &[(0x8000, b"SKUL\xBA\xBE\0\x02")]),
            ("LUKS", Encrypted, &[(0, b"LUKS\xBA\xBE\0\x09")]),
            ("Windows Storage Spaces", NotSupported, &[(0, b"SPACEDB ")]),
            ("Windows dynamic disk (LDM)", NotSupported, &[(0xC00, b"PRIVHEAD")]),
            ("LVM2", NotSupported, &[(512, b"LABELONE"), (536, b"LVM2 001")]),
            ("LVM2", NotSupported, &[(1536, b"LABELONE"), (1560, b"LVM2 001")]),
            ("LVM2", NotSupported, &[(0, b"LABELONE")]),
            ("Linux RAID", NotSupported, &[(0, b"\xFC\x4E\x2B\xA9\x01\0\0\0")]),
            ("Linux RAID", NotSupported, &[(4096, b"\xFC\x4E\x2B\xA9\x01\0\0\0")]),
            ("Linux RAID", NotSupported, &[(4096, b"\xFC\x4E\x2B\xA9\x07\0\0\0")]),
            ("Linux RAID", NotSupported, &[(end - 8192, b"\xFC\x4E\x2B\xA9\x01\0\0\0")]),
            ("Linux RAID", NotSupported, &[(end - 65536, b"\xFC\x4E\x2B\xA9\0\0\0\0")]),
            ("Linux RAID", NotSupported, &[(end - 65536, b"\xA9\x2B\x4E\xFC\0\0\0\0")]),
            ("Intel RAID", NotSupported, &[(end - 1024, b"Intel Raid ISM Cfg Sig. ")]),
            ("DDF RAID", NotSupported, &[(end - 512, b"\xDE\x11\xDE\x11")]),
            ("ZFS", NotSupported, &[(0x2_0C00, b"\x0C\xB1\xBA\0\0\0\0\0")]),
            ("ZFS", NotSupported, &[(0x2_0000, b"\0\0\0\0\0\xBA\xB1\x0C")]),
            ("VMware VMFS", NotSupported, &[(1 << 20, b"\x0D\xD0\x01\xC0")]),
            ("VMware VMFS", NotSupported, &[(2 << 20, b"\x5E\xF1\xAB\x2F")]),
            ("VMware VMFS", NotSupported, &[(18 << 20, b"\x5E\xF1\xAB\x2F")]),
            (
                "bcache",
                NotSupported,
                &[(0x1018, b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81")],
            ),
            (
                "bcachefs",
                NotSupported,
                &[(0x1018, b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF")],
            ),
            ("ReFS", NotSupported, &[(3, b"ReFS\0\0\0\0")]),
            ("APFS", NotSupported, &[(32, b"NXSB")]),
            ("HFS+", NotSupported, &[(1024, b"H+\0\x04")]),
            ("HFS+", NotSupported, &[(1024, b"HX\0\x05")]),
            ("HFS", NotSupported, &[(1024, b"BD"), (1044, &[0, 0, 0x10, 0])]),
            ("F2FS", NotSupported, &[(1024, b"\x10\x20\xF5\xF2")]),
            ("NILFS2", NotSupported, &[(1024, &[2, 0, 0, 0, 0, 0, 0x34, 0x34])]),
            ("JFS", NotSupported, &[(0x8000, b"JFS1")]),
            ("ReiserFS", NotSupported, &[(0x1_0034, b"ReIsEr2Fs")]),
            ("SquashFS", NotSupported, &[(0, b"hsqs")]),
            ("EROFS", NotSupported, &[(1024, b"\xE2\xE1\xF5\xE0")]),
            ("ISO 9660", NotSupported, &[(0x8001, b"CD001")]),
            ("UDF", NotSupported, &[(0x8801, b"NSR02")]),
            ("UDF", NotSupported, &[(0x9001, b"NSR03")]),
            ("HPFS", NotSupported, &[(0, FAT), BOOT, (0x2000, b"\x49\xE8\x95\xF9")]),
            ("GFS2", NotSupported, &[(0x1_0000, b"\x01\x16\x19\x70\0\0\0\x01")]),
            ("OCFS2", NotSupported, &[(0x2000, b"OCFSV2")]),
            ("UFS", NotSupported, &[(0x1_055C, b"\x19\x01\x54\x19")]),
            ("Minix", NotSupported, &[(0x404, &[1, 0, 2, 0, 9]), (0x410, b"\x8F\x13")]),
        ];
        for &(name, reason, parts) in cases {
            assert_eq!(declined(parts), Some((name, reason)), "{parts:?}");
        }
    }

    #[test]
    fn one_native_file_system_goes_to_its_reader() {
        for parts in [
            &EXT[..],
            &[(0, FAT), BOOT],
            &[(3, b"NTFS    ")],
            &[(3, b"EXFAT   ")],
            &[(0, b"XFSB")],
            &[(0x1_0040, b"_BHRfS_M")],
            &[],
        ] {
            assert_eq!(declined(parts), None, "{parts:?}");
        }
        assert_eq!(declined(&[(4086, b"SWAPSPACE2"), (1024, &[1, 0, 0, 0])]), None);
    }

    #[test]
    fn leftovers_are_declined() {
        let [a, b] = EXT;
        let ambiguous = |parts: &[Part<'_>]| declined(parts).map(|(_, reason)| reason);
        assert_eq!(ambiguous(&[a, b, (3, b"NTFS    ")]), Some(DeclineReason::Inconsistent));
        assert_eq!(ambiguous(&[(0, FAT), BOOT, a, b]), Some(DeclineReason::Inconsistent));
        assert_eq!(
            declined(&[a, b, (0x2_0000, b"\x0C\xB1\xBA\0\0\0\0\0")]),
            Some(("ZFS", DeclineReason::NotSupported))
        );
        assert_eq!(
            declined(&[a, b, (SIZE - 8192, b"\xFC\x4E\x2B\xA9\x01\0\0\0")]).map(|d| d.0),
            Some("Linux RAID")
        );
    }

    #[test]
    fn an_ext4_that_carries_an_old_swap_signature_is_no_swap() {
        let [a, b] = EXT;
        let inodes = (1024, &[0, 0x20, 0, 0][..]);
        for at in [4086, 8182, 65526] {
            for signature in [&b"SWAPSPACE2"[..], b"SWAP-SPACE", b"S1SUSPEND\0"] {
                let bytes = volume(&[a, b, inodes, (at, signature)]);
                assert!(matches!(claimed(&bytes), Claimed::By(Native::Ext)), "{signature:?}");
            }
        }
        // Where the word says swap as well, nobody can tell.
        let swap = [a, b, (1024, &[1, 0, 0, 0]), (4086, b"SWAPSPACE2")];
        assert_eq!(declined(&swap).map(|(_, reason)| reason), Some(DeclineReason::Inconsistent));
    }

    #[test]
    fn what_two_claim_is_nobodys() {
        let [a, b] = EXT;
        let rivals: [&[Part<'_>]; 9] = [
            &[(3, b"NTFS    ")],
            &[(3, b"EXFAT   ")],
            &[(3, b"-FVE-FS-")],
            &[(0x36, b"FAT12   ")],
            &[(0x36, b"FAT16   ")],
            &[(0x52, b"FAT32   ")],
            &[(0, b"LUKS\xBA\xBE\0\x07")],
            &[(512, b"LABELONE")],
            &[(0x1_0000, b"\x01\x16\x19\x70\0\0\0\x02")],
        ];
        assert_eq!(declined(&[a, b]), None);
        for rival in rivals {
            assert!(declined(&[&[a, b], rival].concat()).is_some(), "{rival:?}");
        }
    }

    #[test]
    fn a_boot_loader_in_the_first_kilobyte_is_no_rival() {
        let [a, b] = EXT;
        let code = [0x90; 512];
        assert_eq!(declined(&[(0, &code), (3, b"SYSLINUX"), BOOT, a, b]), None);
    }

    #[test]
    fn weak_magic_numbers_need_a_second_field() {
        let [a, b] = EXT;
        for parts in [
            &[(1024, &b"H+"[..])][..],
            &[(1024, b"BD")],
            &[(1030, b"\x34\x34")],
            &[(0x410, b"\x7F\x13")],
            &[a, b, (0x404, &[1, 0, 2, 0, 9]), (0x410, b"\x8F\x13")],
        ] {
            assert_eq!(declined(parts), None, "{parts:?}");
        }
    }

    #[test]
    fn a_volume_that_cannot_be_read_is_declined() {
        struct Broken;
        impl ReadAt for Broken {
            fn size(&self) -> u64 {
                1 << 20
            }
            fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> crate::Result<()> {
                Err(crate::io::past_end(offset, crate::units::len64(buf.len()), 0))
            }
        }
        let found = detect(&Broken, CONTEXT);
        let Mapping::Declined(decline) = found.mapping else { panic!("mapped") };
        assert_eq!(decline.reason, DeclineReason::Unreadable);
    }

    proptest! {
        #[test]
        fn any_small_volume_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = detect(&bytes, CONTEXT);
        }
    }
}
