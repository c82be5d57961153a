//! Disks inside partitions: a volume that was laid over by a partition table is never mapped as what it was.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use vhd_compactor::fs::{DeclineReason, Mapping};
use vhd_compactor::io::NativeFile;
use vhd_compactor::volume::{Scheme, enumerate};

use crate::toolbox::{
    Loop, MIB, blank, command, declined, is_root, look, mapped, run, skip, sparse, text, volumes, write_at,
};

/// File systems that are read, each as `mkfs` makes it.
const MAKERS: [(&str, &[&str]); 5] = [
    ("mkfs.ext4", &["-q", "-F", "-b", "4096"]),
    ("mkfs.ext4", &["-q", "-F", "-b", "1024"]),
    ("mkfs.ntfs", &["-q", "-Q", "-F"]),
    ("mkfs.fat", &["-F", "32"]),
    ("mkfs.exfat", &[]),
];

/// Writes a table over what is there, and leaves everything else alone, as installers and nested machines do.
fn lay_over(device: &str, script: &str) {
    let options =
        ["-q", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never", device];
    let mut child = command("sfdisk").args(options).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

/// Puts back what a large table wrote over of the older file system, where the two can both stand.
fn restore(image: &Path, before: &[u8]) {
    write_at(image, 1024, &before[1024..40 << 10]);
}

#[test]
fn a_volume_that_holds_a_partition_table_is_a_container() {
    need!("sfdisk", "mkfs.ext4", "mkfs.ntfs", "mkfs.fat", "mkfs.exfat");
    let tables = [
        "label: dos\n2048,,7,*\n",
        "label: dos\n2048,,83\n",
        "label: dos\n63,1000,e\n4096,,5\n8192,8192,83\n",
        "label: dos\n2048,,1f\n",
        "label: sun\n",
        "label: gpt\n2048,,L\n",
    ];
    for (maker, options) in MAKERS {
        let folder = tempfile::tempdir().unwrap();
        let image = blank(folder.path(), 100 * MIB);
        run(maker, &[options, &[text(&image)]].concat());
        mapped(&image);
        let before = fs::read(&image).unwrap();
        for script in tables {
            fs::write(&image, &before).unwrap();
            lay_over(text(&image), script);
            if maker == "mkfs.ext4" {
                restore(&image, &before);
            }
            let decline = declined(&image);
            let is_known = decline.detail.contains("partition table of its own");
            // A Sun label takes the whole first sector, and a GPT the FAT itself: then nothing is recognised. A
            // checksum over the first sectors is exFAT's own guard.
            let is_gone = decline.reason == DeclineReason::Unrecognised
                || script.contains("gpt")
                || decline.detail.contains("does not match its checksum");
            assert!(is_known || is_gone, "{maker} under {script}: {decline:?}");
            assert!(is_known || maker != "mkfs.ext4", "{script}: {decline:?}");
        }
    }
}

#[test]
fn a_nested_table_of_large_sectors_is_seen_too() {
    need!("sfdisk", "losetup", "mkfs.ext4", "mkfs.ntfs");
    if !is_root() {
        return skip("loop devices need root");
    }
    for (maker, options) in [MAKERS[0], MAKERS[2]] {
        for script in ["label: dos\n256,,83\n", "label: gpt\n256,,L\n"] {
            let folder = tempfile::tempdir().unwrap();
            let image = blank(folder.path(), 100 * MIB);
            run(maker, &[options, &[text(&image)]].concat());
            let before = fs::read(&image).unwrap();
            let Some(device) = Loop::new(&image, &["-b", "4096"]) else { return };
            lay_over(&device.0, script);
            drop(device);
            if maker == "mkfs.ext4" {
                restore(&image, &before);
            }
            assert!(matches!(look(&image).mapping, Mapping::Declined(_)), "{maker} under {script}");
        }
    }
}

#[test]
fn a_partition_inside_a_gpt_may_be_a_disk_of_its_own() {
    need!("sfdisk", "mkfs.ext4");
    let folder = tempfile::tempdir().unwrap();
    let inner = blank(folder.path(), 60 * MIB);
    run("mkfs.ext4", &["-q", "-F", text(&inner)]);
    let before = fs::read(&inner).unwrap();
    lay_over(text(&inner), "label: gpt\n2048,40000,L\n");
    restore(&inner, &before);
    let disk = folder.path().join("disk");
    sparse(&disk, 100 * MIB);
    lay_over(text(&disk), &format!("label: gpt\n2048,{},L\n", 60 * MIB / 512));
    write_at(&disk, MIB, &fs::read(&inner).unwrap());
    let table = volumes(&disk, 512);
    let [only] = &table.volumes[..] else { panic!("{table:?}") };
    assert_eq!(only.scheme, Scheme::Gpt);
    let range = only.segments.ranges()[0].clone();
    let found = crate::toolbox::look_at(&disk, range);
    let Mapping::Declined(decline) = found.mapping else { panic!("mapped") };
    assert!(decline.detail.contains("partition table of its own"), "{decline:?}");
}

#[test]
fn a_disk_that_was_formatted_whole_over_a_gpt_is_mapped() {
    need!("sfdisk", "mkfs.ext4", "mkfs.fat");
    for (maker, options) in [MAKERS[0], MAKERS[3]] {
        let folder = tempfile::tempdir().unwrap();
        let image = blank(folder.path(), 100 * MIB);
        lay_over(text(&image), "label: gpt\n2048,40000,L\n50000,,L\n");
        run(maker, &[options, &[text(&image)]].concat());
        // `mkfs` wipes the start and, but for ext4, leaves the backup table at the end.
        let free = mapped(&image).free;
        if maker == "mkfs.fat" {
            // What still stands where that table says is another matter.
            let at = 50_000 * 512;
            assert!(free.contains(at..at + 2048));
            write_at(&image, at + 3, b"NTFS    ");
            assert!(declined(&image).detail.contains("backup of a GUID partition table"));
        }
    }
}

#[test]
fn an_ext4_that_windows_initialised_is_kept_whole_and_told() {
    need!("sgdisk", "mkfs.ext4", "e2fsck");
    for (size, block, backup) in [(512, "4096", "32768"), (64, "1024", "8193")] {
        let folder = tempfile::tempdir().unwrap();
        let image = blank(folder.path(), size * MIB);
        run("mkfs.ext4", &["-q", "-F", "-b", block, "-L", "wsl", text(&image)]);
        run("sgdisk", &["-a", "1", "-n", "1:34:32767", "-t", "1:0c01", text(&image)]);
        let table = enumerate(&NativeFile::open(&image).unwrap(), 512).unwrap();
        assert!(table.volumes.iter().all(|volume| volume.opaque.is_some()) && table.distrust.is_none());
        let [finding] = &table.warnings[..] else { panic!("{table:?}") };
        assert_eq!(finding.code, "ext-under-partition-table");
        let command = format!("e2fsck -b {backup} -B {block}");
        assert!(
            finding.message.contains(&command) && finding.message.contains("“wsl”"),
            "{}",
            finding.message
        );
        // What the finding says to do does what it says.
        run("sgdisk", &["--zap-all", text(&image)]);
        let repaired = crate::toolbox::try_run("e2fsck", &["-fy", "-b", backup, "-B", block, text(&image)]);
        assert!(repaired.status.code().is_some_and(|code| code <= 1), "{repaired:?}");
        mapped(&image);
    }
}
