//! Advice: why an image will not shrink more, and what a person can do about it.
//!
//! Every command that is named was tried, or is documented by those who make the system; the source stands
//! beside it. Nobody is told to defragment where that cannot help, nor to fill with zeros where trimming is to
//! be had ([`super::release`]).

use super::analysis::VolumeFindings;
use super::estimate::Reason;
use super::options::{BlockSizeChoice, Mode};
use super::parts::{Part, PartKind};
use super::plan::Plan;
use super::release::{Guest, release};
use crate::error::Result;
use crate::fs::{Decline, DeclineReason, Mapping};
use crate::image::{DiskType, Format};
use crate::volume::{Inside, LOST_FILE_SYSTEM, Scheme};

/// A part below this share of the new image is not worth a word.
const WORTH_A_WORD: u64 = 50;

/// Gaps around partitions and partitions without a file system are up to this size not worth a word: alignment to
/// 1 MiB at either end, in large blocks, and a boot loader's code.
const ORDINARY_GAPS: u64 = 16 << 20;

/// The reasons that belong to no part: what was asked, and what was not given.
pub(super) fn general(plan: &Plan) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut say = |code, message: String| reasons.push(Reason::new(code, message));
    if plan.options.mode == Mode::Zero {
        say("mode-zero", "Only what is zero is dropped: file systems are not asked what is free.".into());
    }
    if plan.target.disk_type != DiskType::Differencing {
        return reasons;
    }
    if plan.target.format == Format::Vhd {
        say(
            "differencing-vhd",
            "In a differencing VHD free space stays where its parent holds data: without it the parent's old bytes \
             would show. Merging the chain into one image drops it."
                .into(),
        );
    }
    match plan.disk().missing_parent() {
        Some(missing) if missing.is_raw => say(
            "parent-raw",
            "The parent is a raw disk (XenServer), which is not read here, so nothing is known of what this disk \
             shares with it, nor of its file systems."
                .into(),
        ),
        Some(missing) => say(
            "parent-missing",
            format!(
                "The parent {} was not given, so nothing is known of what this disk shares with it, nor of its file \
                 systems. Give it too to drop more.",
                missing.describe()
            ),
        ),
        None => {}
    }
    reasons
}

/// Why a part stays, with what can be done about it; none where there is nothing to say.
///
/// # Errors
/// None in practice.
pub(super) fn of_part(plan: &Plan, part: &Part) -> Result<Option<Reason>> {
    let findings = part.volume.and_then(|at| plan.analysis().volumes().get(at));
    // Every disk has gaps around its partitions, and a reserved partition is only looked through for zeros.
    let is_ordinary = match part.kind {
        PartKind::NoPartition => part.bytes <= ORDINARY_GAPS,
        PartKind::Declined => findings.is_some_and(|findings| {
            findings.volume.inside() == Inside::NoFileSystem && part.bytes <= ORDINARY_GAPS
        }),
        _ => part.bytes < plan.size / WORTH_A_WORD,
    };
    if is_ordinary {
        return Ok(None);
    }
    let (message, commands) = match (part.kind, findings) {
        (PartKind::Held, Some(findings)) => held(plan, findings, part.bytes),
        (PartKind::ShadowCopies, _) => (
            "It is free, and restore points (volume shadow copies) may still need it. To let it go, delete them in \
             Windows, or give them up for the new image."
                .to_owned(),
            // Microsoft Learn, "vssadmin delete shadows".
            vec!["vssadmin delete shadows /for=C: /oldest"],
        ),
        (PartKind::PageFiles, _) => (
            "Page files, hibernation files and swap are worthless while the machine is off. Their contents can be left \
             out if you ask for it."
                .to_owned(),
            Vec::new(),
        ),
        (PartKind::Declined, Some(findings)) => match &findings.detected.mapping {
            Mapping::Declined(decline) => declined(plan, findings, decline),
            Mapping::Mapped(_) => return Ok(None),
        },
        (PartKind::BehindEnd, Some(findings)) => behind_end(findings),
        (PartKind::NoPartition | PartKind::Unknown, _) if has_lost_file_system(plan) => (
            // The warning that was given says what happened and what restores it; nothing is to be let go here.
            "It is most likely a file system over which a partition table was written. All of it is kept: read the \
             warning before anything else is done with this disk."
                .to_owned(),
            Vec::new(),
        ),
        (PartKind::NoPartition, _) => (
            "It lies in no partition: left behind by a partition that was deleted or made smaller, or used by a boot \
             loader. What of it is zero goes. If you know that nothing is meant to be there, extend the partition before \
             it and its file system over it in the guest: then it counts as free, and goes next time."
                .to_owned(),
            Vec::new(),
        ),
        (PartKind::Unknown, _) if plan.options.mode != Mode::Zero && plan.disk().is_complete() => {
            let (how, commands) = release(Guest::Unsure, passes_trimming_on(plan));
            (format!("Nothing is known of what this disk holds, so only zeros were dropped. {how}"), commands)
        }
        _ => return Ok(None),
    };
    let message = match findings {
        Some(findings) => format!("{}: {message}", title(findings)),
        None => message,
    };
    Ok(Some(Reason { code: part.kind.code(), message, bytes: part.bytes, commands }))
}

/// A word on space that is marked as in use and that no file has, as a crash leaves it.
pub(super) fn of_leaked(plan: &Plan, findings: &VolumeFindings) -> Option<Reason> {
    let bytes = findings.detected.unowned_bytes().filter(|&bytes| bytes >= plan.size / WORTH_A_WORD)?;
    if bytes == 0 || plan.options.mode == Mode::Zero {
        return None;
    }
    let commands = match findings.detected.name {
        // Microsoft Learn, "chkdsk" (/f).
        "NTFS" | "exFAT" => vec!["chkdsk C: /f"],
        // e2fsprogs, e2fsck(8); the file system must not be mounted.
        "ext2" | "ext3" | "ext4" => vec!["sudo e2fsck -f /dev/sdX9"],
        // dosfstools, fsck.fat(8): without -f and -a, lost clusters are given back.
        "FAT12" | "FAT16" | "FAT32" => vec!["sudo fsck.fat -r /dev/sdX9"],
        // xfsprogs, xfs_repair(8); the file system must not be mounted.
        "XFS" => vec!["sudo xfs_repair /dev/sdX9"],
        _ => return None,
    };
    let what = "Space that is marked as in use and that no file has, as a crash may leave it. It stays. A check of the \
                file system gives it back; compact again after that.";
    Some(Reason { code: "leaked", message: format!("{}: {what}", title(findings)), bytes, commands })
}

/// On free space that shares blocks with data, `bytes` of it in all.
fn held(plan: &Plan, findings: &VolumeFindings, bytes: u64) -> (String, Vec<&'static str>) {
    if plan.options.mode == Mode::Zero {
        return ("It is free, and stays because only zeros are dropped.".into(), Vec::new());
    }
    if plan.target.disk_type == DiskType::Differencing {
        let message = "It is free, and shares blocks with data. A child keeps the block size of its parent; merged into \
                       one image, smaller blocks would let go of it.";
        return (message.into(), Vec::new());
    }
    // Left to choose, the plan has found already that smaller blocks save next to nothing.
    let chosen = plan.options.block_size == BlockSizeChoice::Smallest;
    if !chosen && plan.target.block_size > plan.target.format.description().smallest_usual_block {
        let message = "It is free, and shares blocks with data. Smaller blocks would let go of much of it.";
        return (message.into(), Vec::new());
    }
    // However files are laid out, the last of their blocks is part full: no less than a block can go.
    if bytes < plan.target.block_size.get() {
        return ("It is free, and shares blocks with data. It is less than one block.".into(), Vec::new());
    }
    let scattered = "It is free, and shares blocks with data: files lie scattered.";
    match findings.detected.name {
        // Microsoft Learn, "defrag" (/x: free space consolidation) and "Optimize-Volume" (-SlabConsolidate).
        "NTFS" => (
            format!("{scattered} To bring them together, run one of these in Windows, then compact again."),
            vec!["defrag C: /x", "Optimize-Volume -DriveLetter C -Defrag -SlabConsolidate"],
        ),
        // An ext4 on the bare disk is WSL's: Microsoft Learn, "Basic commands for WSL", export and import. Exporting
        // writes the files, and importing lays them out one after another.
        "ext4" if findings.volume.scheme == Scheme::Whole && plan.target.format == Format::Vhdx => (
            format!(
                "{scattered} For a WSL distribution, exporting it and importing it again lays them out anew."
            ),
            vec!["wsl --export NAME backup.tar", "wsl --import NEWNAME C:\\wsl\\NEWNAME backup.tar"],
        ),
        _ => (scattered.into(), Vec::new()),
    }
}

fn behind_end(findings: &VolumeFindings) -> (String, Vec<&'static str>) {
    let what = "It lies behind the end of the file system, which is shorter than the place it is in: left from before it \
                was made or became smaller. No file of it is there, and what is zero goes.";
    let (how, command) = match findings.detected.name {
        // e2fsprogs, resize2fs(8): without a size the file system grows to its partition.
        "ext2" | "ext3" | "ext4" => ("in the guest", "sudo resize2fs /dev/sdX9"),
        // xfsprogs, xfs_growfs(8).
        "XFS" => ("in the guest", "sudo xfs_growfs /"),
        // btrfs-progs, btrfs-filesystem(8).
        "Btrfs" => ("in the guest", "sudo btrfs filesystem resize max /"),
        // Microsoft Learn, diskpart "extend filesystem".
        "NTFS" => ("in Windows (diskpart: select the volume, then this)", "extend filesystem"),
        _ => return (what.into(), Vec::new()),
    };
    let message =
        format!("{what} If the file system grows over it {how}, it counts as free, and goes next time.");
    (message, vec![command])
}

fn declined(plan: &Plan, findings: &VolumeFindings, decline: &Decline) -> (String, Vec<&'static str>) {
    // A Btrfs with a feature that is not read here can still let go of its free space in its guest.
    let is_foreign = match decline.reason {
        DeclineReason::NotSupported | DeclineReason::Unrecognised => true,
        DeclineReason::UnknownFeature => findings.detected.name == "Btrfs",
        _ => false,
    };
    match decline.reason {
        _ if findings.volume.inside() == Inside::NoFileSystem => {
            (format!("{} Only what of it is zero goes.", decline.detail), Vec::new())
        }
        _ if is_foreign => {
            let guest = match findings.volume.inside() {
                Inside::Windows => Guest::Windows,
                _ => Guest::of(findings.detected.name),
            };
            let (how, commands) = release(guest, passes_trimming_on(plan));
            (format!("{} {how}", decline.detail), commands)
        }
        // Microsoft Learn, "manage-bde off".
        DeclineReason::Encrypted if findings.detected.name.starts_with("BitLocker") => {
            (decline.detail.clone(), vec!["manage-bde -off C:"])
        }
        _ => (decline.detail.clone(), Vec::new()),
    }
}

/// Whether the programs that run this image pass a guest's discards on to it: Hyper-V and WSL do for VHDX
/// (MS-VHDX 2.5.1.1, UNMAPPED blocks); a VHD has no state for it, and XCP-ng's guests get none.
fn passes_trimming_on(plan: &Plan) -> bool {
    plan.analysis().top().format == Format::Vhdx
}

fn has_lost_file_system(plan: &Plan) -> bool {
    plan.analysis().warnings().iter().any(|warning| warning.code == LOST_FILE_SYSTEM)
}

/// The volume at the beginning of a sentence.
fn title(findings: &VolumeFindings) -> String {
    let name = findings.detected.name;
    let mut place = findings.volume.place();
    if let Some(first) = place.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    match &findings.detected.label {
        Some(label) => format!("{place} ({name}, “{}”)", label.escape_debug()),
        None => format!("{place} ({name})"),
    }
}
