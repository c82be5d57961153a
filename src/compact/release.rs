//! How a guest lets go of what is free in a file system that is not understood here.
//!
//! | the image | the file system | what helps |
//! |---|---|---|
//! | passes discards on (VHDX) | of Linux, of Windows, ZFS | trimming, each by its own command |
//! | does not (VHD) | stores zeros as they are | filling with zeros, which grows a dynamic disk to its full size first |
//! | does not | compresses | neither: zeros are not stored |
//!
//! Tried on a Btrfs with zstd of which 43 MB were needed: zeros of 29.7 GB left 1063 of 1082 MB, trimming 43 MB.

/// Who keeps a file system or what it lies in, and so how its free space is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// Linux, with a file system that stores zeros as they are.
    Linux,
    /// Linux, with one that compresses.
    LinuxCompressing,
    /// `OpenZFS`, wherever it runs.
    Zfs,
    /// Windows.
    Windows,
    /// Nobody knows what is there.
    Unsure,
    /// One without means that are known here, or one that is never written to.
    Other,
}

impl Guest {
    /// By the name of a file system, or of the kind of pool that holds it.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "F2FS" | "JFS" | "NILFS2" | "OCFS2" | "GFS2" | "LVM2" | "Linux RAID" => Self::Linux,
            "Btrfs" | "bcachefs" | "VDO" => Self::LinuxCompressing,
            "ZFS" => Self::Zfs,
            "ReFS" | "Windows Storage Spaces" | "Windows dynamic disk (LDM)" => Self::Windows,
            "unknown" => Self::Unsure,
            _ => Self::Other,
        }
    }
}

/// util-linux, fstrim(8).
const FSTRIM: &str = "sudo fstrim -av";
/// Microsoft Learn, "Optimize-Volume" (-ReTrim).
const RETRIM: &str = "Optimize-Volume -DriveLetter D -ReTrim";
/// `OpenZFS`, zpool-trim(8).
const ZPOOL_TRIM: &str = "sudo zpool trim -w POOL";
/// Zeros in Linux.
const FILL: &str = "sudo dd if=/dev/zero of=/zeros bs=1M; sudo rm /zeros; sync";
/// Sysinternals, `SDelete` (-z).
const SDELETE: &str = "sdelete -z D:";

/// What a person can do, and the commands for it. `trims` says whether the image passes a guest's discards on.
pub(super) fn release(guest: Guest, trims: bool) -> (String, Vec<&'static str>) {
    let again = "shut the machine down after that, and compact again.";
    match (guest, trims) {
        (Guest::Linux | Guest::LinuxCompressing, true) => {
            (format!("Its free space can be trimmed in the guest; {again}"), vec![FSTRIM])
        }
        (Guest::Zfs, true) => (format!("Its free space can be trimmed in the guest; {again}"), vec![ZPOOL_TRIM]),
        (Guest::Windows, true) => (format!("Its free space can be trimmed in Windows; {again}"), vec![RETRIM]),
        (Guest::Unsure, true) => (
            format!(
                "If a file system is there, the guest can trim its free space, Linux by the first and Windows by the \
                 second of these; {again}"
            ),
            vec![FSTRIM, RETRIM],
        ),
        (Guest::LinuxCompressing | Guest::Zfs, false) => (
            "A file system that compresses cannot be filled with zeros, and this kind of image passes no trimming on; \
             move its files to a new disk."
                .into(),
            Vec::new(),
        ),
        (Guest::Windows, false) => (
            format!("Its free space can be filled with zeros in Windows (the image grows meanwhile); {again}"),
            vec![SDELETE],
        ),
        (Guest::Linux, false) => (
            format!(
                "This kind of image passes no trimming on. Its free space can be filled with zeros in the guest (the \
                 image grows meanwhile); {again}"
            ),
            vec![FILL],
        ),
        (Guest::Unsure, false) => (
            format!(
                "This kind of image passes no trimming on. If a file system is there, its free space can be filled with \
                 zeros in the guest (the image grows meanwhile), in Linux by the first and in Windows by the second of \
                 these; {again}"
            ),
            vec![FILL, SDELETE],
        ),
        (Guest::Other, _) => ("Only what of it is zero goes.".into(), Vec::new()),
    }
}
