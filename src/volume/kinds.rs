//! Partition types: what people call them, and which of them must not be read as a file system.
//!
//! A type is only a label, and tools often set it carelessly; so it never tells which file system is
//! inside. But some types say that the bytes belong to something larger or other than one file
//! system (a RAID member, a dynamic disk, a boot loader's code), and then whatever looks like a file
//! system inside is a part of it, or left over. Those are *opaque*.
//!
//! Sources: UEFI 2.10 table 5.7 and Microsoft's `PARTITION_INFORMATION_GPT`; the Discoverable
//! Partitions Specification; `fdisk -l`'s tables of MBR types.

use std::borrow::Cow;

use uuid::{Uuid, uuid};

use super::Inside;

/// A partition type as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// The readable name, with the code where it is MBR's.
    pub(super) name: String,
    /// Why what is inside is no file system of its own.
    pub(super) opaque: Option<String>,
}

/// A plain partition type: what is inside speaks for itself.
const PLAIN: &str = "";

const DYNAMIC: &str = "it is part of a Windows dynamic disk (LDM), whose volumes may span several disks";
const SPACES: &str = "it is a member of a Windows Storage Spaces pool";
const RAID: &str = "it is a member of a RAID";
pub(super) const LVM: &str = "it is a physical volume of LVM";
const RESERVED: &str = "it is reserved for the operating system";
const BOOT_CODE: &str = "it holds the code of a boot loader";
const SLICE: &str = "it is divided further by a disk label that is not understood";
const CONTAINER: &str = "it is a hidden extended partition, with partitions of its own inside";
const ENCRYPTED: &str = "it is encrypted";
const POOL: &str = "it is a member of a storage pool";
const HIBERNATION: &str = "it may hold the memory of a hibernated machine";

/// Whose file systems may lie in a partition that is opaque for this reason.
pub(super) fn inside(opaque: &str) -> Inside {
    match opaque {
        RESERVED | BOOT_CODE | SLICE | CONTAINER | HIBERNATION => Inside::NoFileSystem,
        DYNAMIC | SPACES => Inside::Windows,
        _ => Inside::Any,
    }
}

/// What an MBR partition type means.
pub(super) fn mbr(code: u8) -> Kind {
    let (name, opaque) = MBR_TYPES
        .iter()
        .find(|(known, ..)| *known == code)
        .map_or(("unknown type", PLAIN), |&(_, name, opaque)| (name, opaque));
    kind(format!("{name} ({code:#04x})").into(), opaque)
}

/// Whether an MBR type is one that is in use somewhere.
pub(super) fn is_known(code: u8) -> bool {
    MBR_TYPES.iter().any(|&(known, ..)| known == code)
}

/// What a GPT partition type means.
pub(super) fn gpt(guid: Uuid) -> Kind {
    match GPT_TYPES.iter().find(|(known, ..)| *known == guid) {
        Some(&(_, name, opaque)) => kind(name.into(), opaque),
        None => kind(guid.to_string().into(), PLAIN),
    }
}

fn kind(name: Cow<'static, str>, opaque: &'static str) -> Kind {
    let opaque = (opaque != PLAIN).then(|| opaque.to_owned());
    Kind { name: name.into_owned(), opaque }
}

/// Whether an MBR type is an extended partition: the home of logical ones.
pub(super) fn is_extended(code: u8) -> bool {
    matches!(code, 0x05 | 0x0F | 0x85)
}

/// The type of the MBR entry that stands for a GPT.
pub(super) const PROTECTIVE: u8 = 0xEE;

const MBR_TYPES: &[(u8, &str, &str)] = &[
    (0x01, "FAT12", PLAIN),
    (0x04, "FAT16 below 32 MiB", PLAIN),
    (0x05, "extended", PLAIN),
    (0x06, "FAT16", PLAIN),
    (0x07, "NTFS/exFAT", PLAIN),
    (0x0B, "FAT32", PLAIN),
    (0x0C, "FAT32 (LBA)", PLAIN),
    (0x0E, "FAT16 (LBA)", PLAIN),
    (0x0F, "extended (LBA)", PLAIN),
    (0x11, "hidden FAT12", PLAIN),
    (0x12, "diagnostics", PLAIN),
    (0x14, "hidden FAT16 below 32 MiB", PLAIN),
    (0x15, "hidden extended", CONTAINER),
    (0x16, "hidden FAT16", PLAIN),
    (0x17, "hidden NTFS/exFAT", PLAIN),
    (0x1B, "hidden FAT32", PLAIN),
    (0x1C, "hidden FAT32 (LBA)", PLAIN),
    (0x1E, "hidden FAT16 (LBA)", PLAIN),
    (0x1F, "hidden extended (LBA)", CONTAINER),
    (0x27, "Windows recovery environment", PLAIN),
    (0x39, "Plan 9", SLICE),
    (0x41, "PReP boot", BOOT_CODE),
    (0x42, "Windows dynamic disk", DYNAMIC),
    (0x4D, "QNX4", PLAIN),
    (0x63, "UNIX System V", SLICE),
    (0x80, "old Minix", SLICE),
    (0x81, "Minix", SLICE),
    (0x82, "Linux swap", PLAIN),
    (0x83, "Linux", PLAIN),
    (0x84, "hibernation", HIBERNATION),
    (0x85, "Linux extended", PLAIN),
    (0x86, "NTFS volume set", RAID),
    (0x87, "NTFS volume set", RAID),
    (0x88, "Linux plain text", RESERVED),
    (0x8E, "Linux LVM", LVM),
    (0x91, "FreeDOS hidden extended", CONTAINER),
    (0x9B, "FreeDOS hidden extended (LBA)", CONTAINER),
    (0xA0, "laptop hibernation", HIBERNATION),
    (0xA5, "FreeBSD", SLICE),
    (0xA6, "OpenBSD", SLICE),
    (0xA8, "Apple UFS", PLAIN),
    (0xA9, "NetBSD", SLICE),
    (0xAB, "Apple boot", BOOT_CODE),
    (0xAF, "Apple HFS+", PLAIN),
    (0xB7, "BSDI", SLICE),
    (0xBE, "Solaris boot", SLICE),
    (0xBF, "Solaris", SLICE),
    (0xC5, "DR-DOS extended", CONTAINER),
    (0xCF, "DR-DOS extended (LBA)", CONTAINER),
    (0xD5, "DR-DOS hidden extended", CONTAINER),
    (0xDA, "raw data", PLAIN),
    (0xDE, "Dell diagnostics", PLAIN),
    (0xE8, "LUKS", ENCRYPTED),
    (0xEE, "GPT protective", RESERVED),
    (0xEF, "EFI system", PLAIN),
    (0xFB, "VMware VMFS", POOL),
    (0xFC, "VMware swap", RESERVED),
    (0xFD, "Linux RAID", RAID),
    (0xFE, "Windows NT hidden", RESERVED),
];

const GPT_TYPES: &[(Uuid, &str, &str)] = &[
    (uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), "EFI system", PLAIN),
    (uuid!("21686148-6449-6e6f-744e-656564454649"), "BIOS boot", BOOT_CODE),
    (uuid!("024dee41-33e7-11d3-9d69-0008c781f39f"), "MBR partition scheme", SLICE),
    (uuid!("d3bfe2de-3daf-11df-ba40-e3a556d89593"), "Intel Fast Flash", HIBERNATION),
    (uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"), "Microsoft reserved", RESERVED),
    (uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), "Microsoft basic data", PLAIN),
    (uuid!("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"), "Windows LDM metadata", DYNAMIC),
    (uuid!("af9b60a0-1431-4f62-bc68-3311714a69ad"), "Windows LDM data", DYNAMIC),
    (uuid!("de94bba4-06d1-4d40-a16a-bfd50179d6ac"), "Windows recovery environment", PLAIN),
    (uuid!("e75caf8f-f680-4cee-afa3-b001e56efc2d"), "Windows Storage Spaces", SPACES),
    (uuid!("558d43c5-a1ac-43c0-aac8-d1472b2923d1"), "Windows Storage Replica", POOL),
    (uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), "Linux filesystem", PLAIN),
    (uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"), "Linux swap", PLAIN),
    (uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"), "Linux RAID", RAID),
    (uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"), "Linux LVM", LVM),
    (uuid!("8da63339-0007-60c0-c436-083ac8230908"), "Linux reserved", RESERVED),
    (uuid!("7ffec5c9-2d00-49b7-8941-3ea10a5586b7"), "Linux dm-crypt", ENCRYPTED),
    (uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc"), "LUKS", ENCRYPTED),
    (uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"), "Linux extended boot", PLAIN),
    (uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"), "Linux home", PLAIN),
    (uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"), "Linux server data", PLAIN),
    (uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"), "Linux variable data", PLAIN),
    (uuid!("7ec6f557-3bc5-4aca-b293-16ef5df639d1"), "Linux temporary data", PLAIN),
    (uuid!("773f91ef-66d4-49b5-bd83-d683bf40ad16"), "Linux user home", PLAIN),
    (uuid!("44479540-f297-41b2-9af7-d131d5f0458a"), "Linux root (x86)", PLAIN),
    (uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), "Linux root (x86-64)", PLAIN),
    (uuid!("69dad710-2ce4-4e3c-b16c-21a1d49abed3"), "Linux root (ARM)", PLAIN),
    (uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"), "Linux root (ARM64)", PLAIN),
    (uuid!("72ec70a6-cf74-40e6-bd49-4bda08e8f224"), "Linux root (RISC-V 64)", PLAIN),
    (uuid!("75250d76-8cc6-458e-bd66-bd47cc81a812"), "Linux usr (x86)", PLAIN),
    (uuid!("8484680c-9521-48c6-9c11-b0720656f69e"), "Linux usr (x86-64)", PLAIN),
    (uuid!("b0e01050-ee5f-4390-949a-9101b17104e9"), "Linux usr (ARM64)", PLAIN),
    (uuid!("d13c5d3b-b5d1-422a-b29f-9454fdc89d76"), "Linux root verity (x86)", RESERVED),
    (uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"), "Linux root verity (x86-64)", RESERVED),
    (uuid!("df3300ce-d69f-4c92-978c-9bfb0f38d820"), "Linux root verity (ARM64)", RESERVED),
    (uuid!("77ff5f63-e7b6-4633-acf4-1565b864c0e6"), "Linux usr verity (x86-64)", RESERVED),
    (uuid!("9e1a2d38-c612-4316-aa26-8b49521e5a8b"), "PReP boot", BOOT_CODE),
    (uuid!("48465300-0000-11aa-aa11-00306543ecac"), "Apple HFS+", PLAIN),
    (uuid!("7c3457ef-0000-11aa-aa11-00306543ecac"), "Apple APFS", PLAIN),
    (uuid!("53746f72-6167-11aa-aa11-00306543ecac"), "Apple Core Storage", POOL),
    (uuid!("52414944-0000-11aa-aa11-00306543ecac"), "Apple RAID", RAID),
    (uuid!("52414944-5f4f-11aa-aa11-00306543ecac"), "Apple RAID (offline)", RAID),
    (uuid!("426f6f74-0000-11aa-aa11-00306543ecac"), "Apple boot", PLAIN),
    (uuid!("55465300-0000-11aa-aa11-00306543ecac"), "Apple UFS", PLAIN),
    (uuid!("6a898cc3-1dd2-11b2-99a6-080020736631"), "Apple ZFS / Solaris usr", POOL),
    (uuid!("6a82cb45-1dd2-11b2-99a6-080020736631"), "Solaris boot", PLAIN),
    (uuid!("6a85cf4d-1dd2-11b2-99a6-080020736631"), "Solaris root", POOL),
    (uuid!("6a945a3b-1dd2-11b2-99a6-080020736631"), "Solaris reserved", RESERVED),
    (uuid!("83bd6b9d-7f41-11dc-be0b-001560b84f0f"), "FreeBSD boot", BOOT_CODE),
    (uuid!("516e7cb4-6ecf-11d6-8ff8-00022d09712b"), "FreeBSD slice", SLICE),
    (uuid!("516e7cb5-6ecf-11d6-8ff8-00022d09712b"), "FreeBSD swap", PLAIN),
    (uuid!("516e7cb6-6ecf-11d6-8ff8-00022d09712b"), "FreeBSD UFS", PLAIN),
    (uuid!("516e7cb8-6ecf-11d6-8ff8-00022d09712b"), "FreeBSD Vinum", RAID),
    (uuid!("516e7cba-6ecf-11d6-8ff8-00022d09712b"), "FreeBSD ZFS", POOL),
    (uuid!("824cc7a0-36a8-11e3-890a-952519ad3f61"), "OpenBSD", SLICE),
    (uuid!("aa31e02a-400f-11db-9590-000c2911d1b8"), "VMware VMFS", POOL),
    (uuid!("9d275380-40ad-11db-bf97-000c2911d1b8"), "VMware core dump", RESERVED),
    (uuid!("9198effc-31c0-11db-8f78-000c2911d1b8"), "VMware reserved", RESERVED),
    (uuid!("381cfccc-7288-11e0-92ee-000c2911d0b2"), "VMware vSAN", POOL),
    (uuid!("49f48daa-b10e-11dc-b99b-0019d1879648"), "NetBSD RAID", RAID),
    (uuid!("2db519c4-b10f-11dc-b99b-0019d1879648"), "NetBSD concatenated", RAID),
    (uuid!("2db519ec-b10f-11dc-b99b-0019d1879648"), "NetBSD encrypted", ENCRYPTED),
    (uuid!("4fbd7e29-9d25-41b8-afd0-062c0ceff05d"), "Ceph OSD", POOL),
    (uuid!("45b0969e-9b03-4f30-b4c6-b4b80ceff106"), "Ceph journal", POOL),
    (uuid!("fe3a2a5d-4f32-41a7-b725-accc3285a309"), "ChromeOS kernel", BOOT_CODE),
    (uuid!("3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec"), "ChromeOS root", PLAIN),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_type_is_listed_once() {
        let codes: HashSet<u8> = MBR_TYPES.iter().map(|t| t.0).collect();
        assert_eq!(codes.len(), MBR_TYPES.len());
        let guids: HashSet<Uuid> = GPT_TYPES.iter().map(|t| t.0).collect();
        assert_eq!(guids.len(), GPT_TYPES.len());
    }

    #[test]
    fn types_are_named_and_the_rest_show_their_code() {
        assert_eq!(mbr(0x07).name, "NTFS/exFAT (0x07)");
        assert_eq!(mbr(0x77).name, "unknown type (0x77)");
        assert_eq!(mbr(0x83).opaque, None);
        assert_eq!(gpt(uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")).name, "EFI system");
        let unknown = uuid!("12345678-9abc-def0-1234-56789abcdef0");
        assert_eq!(gpt(unknown), Kind { name: unknown.to_string(), opaque: None });
    }

    #[test]
    fn parts_of_something_larger_are_opaque() {
        for code in [0x42, 0x8E, 0xFD, 0xA5, 0x81, 0x15, 0x1F, 0x91, 0x9B, 0xC5, 0xCF, 0xD5] {
            assert!(mbr(code).opaque.is_some(), "{code:#x}");
        }
        for name in ["Microsoft reserved", "Windows LDM data", "Windows Storage Spaces", "Linux RAID"] {
            let &(guid, ..) = GPT_TYPES.iter().find(|t| t.1 == name).unwrap();
            assert!(gpt(guid).opaque.is_some(), "{name}");
        }
    }
}
