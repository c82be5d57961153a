//! Partition tables as stock tools write them: what is found equals what `sfdisk` reads.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use vhd_compactor::volume::{Scheme, VolumeTable};

use crate::toolbox::{Loop, MIB, blank, command, have, is_root, run, skip, text, unpack, volumes, write_at};

/// Writes a table by a script of `sfdisk`.
fn partition(device: &Path, script: &str) {
    let mut child = command("sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel", text(device)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

/// A partition: number, first sector, sectors, name.
type Row = (u32, u64, u64, Option<String>);

/// The partitions as `sfdisk --dump` reads them, without extended ones.
fn theirs(device: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in run("sfdisk", &["--dump", text(device)]).lines() {
        let Some((left, fields)) = line.strip_prefix(text(device)).and_then(|line| line.split_once(" : "))
        else {
            continue;
        };
        let field = |name: &str| {
            fields
                .split(", ")
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('=').map(str::trim))
        };
        let number = |name| field(name).unwrap().parse::<u64>().unwrap();
        if !matches!(field("type"), Some("5" | "f" | "85")) {
            let index = left.trim_start_matches('p').parse().unwrap();
            let name = field("name").map(|name| name.trim_matches('"').to_owned());
            rows.push((index, number("start"), number("size"), name));
        }
    }
    rows.sort_by_key(|row| row.1);
    rows
}

fn ours(table: &VolumeTable, sector: u64) -> Vec<Row> {
    assert_eq!(table.distrust, None);
    let row = |v: &vhd_compactor::volume::Volume| {
        (v.index, v.segments.start() / sector, v.segments.len() / sector, v.name.clone())
    };
    table.volumes.iter().map(row).collect()
}

fn kinds(table: &VolumeTable) -> Vec<(&str, bool)> {
    table.volumes.iter().map(|v| (v.kind.as_str(), v.opaque.is_some())).collect()
}

#[test]
fn mbr_tables_equal_sfdisks() {
    need!("sfdisk");
    let scripts = [
        "label: dos\n2048,,7,*\n",
        "label: dos\n63,1000,e\n2000,3000,83\n8000,500,42\n9000,700,fd\n",
        "label: dos\nstart=2048,size=20000,type=83\nstart=30000,size=100000,type=f\nstart=32048,size=9000,type=83\n\
         start=50000,size=4000,type=82\nstart=60000,size=2000,type=7\nstart=130000,size=9000,type=b\n",
        // Primary slot 4 before slot 1, the extended partition first, a gap among the logical ones.
        "label: dos\n4 : start=100000,size=2000,type=83\n1 : start=2048,size=60000,type=5\n\
         5 : start=40000,size=100,type=83\n6 : start=4000,size=100,type=8e\n2 : start=80000,size=1,type=ef\n",
    ];
    for script in scripts {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 100 * MIB);
        partition(&image, script);
        let table = volumes(&image, 512);
        assert_eq!(ours(&table, 512), theirs(&image), "{script}");
        assert!(table.volumes.iter().all(|v| v.scheme == Scheme::Mbr) && table.warnings.is_empty());
    }
}

#[test]
fn gpt_tables_equal_sfdisks() {
    need!("sfdisk");
    let dir = tempfile::tempdir().unwrap();
    let image = blank(dir.path(), 100 * MIB);
    partition(
        &image,
        "label: gpt\n1 : start=2048,size=4096,type=U,name=\"EFI system partition\"\n\
         2 : start=6144,size=4096,type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n\
         5 : start=90000,size=10000,type=L,name=\"Dätä 💾\"\n\
         7 : start=20480,size=20480,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n\
         9 : start=50000,size=999,type=A19D880F-05FC-4D3B-A006-743F0F84911E\n\
         128 : start=60000,size=3,type=12345678-1234-1234-1234-123456789ABC\n",
    );
    let table = volumes(&image, 512);
    assert_eq!(ours(&table, 512), theirs(&image));
    assert!(table.warnings.is_empty());
    assert_eq!(
        kinds(&table),
        [
            ("EFI system", false),
            ("Microsoft reserved", true),
            ("Microsoft basic data", false),
            ("Linux RAID", true),
            ("12345678-1234-1234-1234-123456789abc", false),
            ("Linux filesystem", false),
        ]
    );
    let whole = ours(&table, 512);
    write_at(&image, 512 + 72, &[0xFF]);
    let table = volumes(&image, 512);
    assert_eq!((ours(&table, 512), table.warnings[0].code), (whole, "gpt-primary-damaged"));
    write_at(&image, 100 * MIB - 512, &[0; 8]);
    assert!(volumes(&image, 512).distrust.is_some());
}

#[test]
fn sectors_of_4096_bytes_are_understood() {
    need!("sfdisk", "losetup");
    if !is_root() {
        return skip("loop devices need root");
    }
    for script in ["label: gpt\n256,1000,L\n2000,,U\n", "label: dos\n256,1000,83\n2000,,5\n3000,500,83\n"] {
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 100 * MIB);
        let Some(device) = Loop::new(&image, &["-b", "4096"]) else { return };
        let device = Path::new(&device.0);
        partition(device, script);
        run("sync", &[]);
        let rows = theirs(device);
        assert_eq!(ours(&volumes(&image, 4096), 4096), rows, "{script}");
        assert_eq!(rows.len(), 2);
        if script.contains("gpt") {
            let table = volumes(&image, 512);
            assert_eq!((ours(&table, 4096), table.warnings[0].code), (rows, "gpt-sector-size"));
        }
    }
}

#[test]
fn a_hybrid_mbr_of_sgdisk_follows_the_gpt() {
    need!("sfdisk", "sgdisk");
    let dir = tempfile::tempdir().unwrap();
    let image = blank(dir.path(), 100 * MIB);
    run("sgdisk", &["-n", "1:2048:+20M", "-n", "2:0:+30M", "-t", "2:0700", "-h", "2", text(&image)]);
    let table = volumes(&image, 512);
    assert_eq!(table.warnings[0].code, "gpt-hybrid");
    assert_eq!(ours(&table, 512).len(), 2);
    assert!(table.volumes.iter().all(|v| v.scheme == Scheme::Gpt));
}

#[test]
fn bare_file_systems_are_one_volume() {
    let makers: [(&str, &[&str]); 6] = [
        ("mkfs.fat", &["-F", "16"]),
        ("mkfs.exfat", &[]),
        ("mkfs.ntfs", &["-q", "-Q", "-F"]),
        ("mkfs.ext4", &["-q", "-F"]),
        ("mkfs.btrfs", &["-q", "-f"]),
        ("mkswap", &[]),
    ];
    for (tool, options) in makers {
        if !have(&[tool]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = blank(dir.path(), 120 * MIB);
        run(tool, &[options, &[text(&image)]].concat());
        let table = volumes(&image, 512);
        let [only] = &table.volumes[..] else { panic!("{tool}: {table:?}") };
        assert_eq!(
            (only.scheme, only.segments.ranges(), table.warnings.len()),
            (Scheme::Whole, &[0..120 * MIB][..], 0)
        );
    }
}

#[test]
fn a_bare_file_system_that_was_partitioned_over_is_distrusted() {
    need!("sfdisk", "mkfs.ext4");
    let dir = tempfile::tempdir().unwrap();
    let image = blank(dir.path(), 100 * MIB);
    run("mkfs.ext4", &["-q", "-F", text(&image)]);
    let before = std::fs::read(&image).unwrap();
    partition(&image, "label: dos\n2048,,83\n");
    // sfdisk wipes the old signature only where it is asked to or a terminal is there.
    write_at(&image, 1024, &before[1024..2048]);
    let table = volumes(&image, 512);
    assert!(table.distrust.is_some_and(|why| why.contains("ext2/3/4")) && table.volumes.is_empty());
}

#[test]
fn corpus_tables_equal_sfdisks() {
    need!("sfdisk");
    for name in ["dfvfs-mbr.raw", "dfvfs-gpt_non_sequential.raw"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(image) = unpack(name, dir.path()) else { return };
        let table = volumes(&image, 512);
        assert_eq!(ours(&table, 512), theirs(&image), "{name}");
        assert!(table.volumes.len() == 2 && table.warnings.is_empty());
    }
    // The first 32 KiB of a disk: its table is read, and all its partitions lie past the end.
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = unpack("dissect-vol-gpt_4k.bin", dir.path()) else { return };
    let table = volumes(&image, 4096);
    let codes: Vec<&str> = table.warnings.iter().map(|warning| warning.code).collect();
    assert!(table.distrust.is_none() && table.volumes.is_empty());
    assert_eq!(
        codes,
        ["gpt-backup-damaged", "partition-past-end", "partition-past-end", "partition-past-end"]
    );
}
