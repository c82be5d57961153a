//! Damage to NTFS.
//!
//! The volume has a history, kept as copies of it: some were made while ntfs-3g had it mounted, as a power cut
//! would have left it. ntfs-3g fills $LogFile with 0xFF and sets no dirty flag, so all of them look clean.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::damage::{Aged, container_block, flips, lost_write, misplaced, random_bytes, stale, torn, zeroed};
use super::readers::{Files, ntfs_3g, seven_zip};
use super::{Kind, Patch, Peer, Subject, campaign};
use crate::toolbox::ntfs::{Mounted, make, runs_of};
use crate::toolbox::{MIB, Random, is_installed, text, try_run, used_in_domain_map};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;
const RECORD: u64 = 1024;
/// Types of attributes.
const DATA: u32 = 0x80;
const INDEX_ALLOCATION: u32 = 0xA0;
const BITMAP: u32 = 0xB0;

/// A clean volume and how it came about.
struct Ntfs {
    volume: Vec<u8>,
    /// Earlier states, oldest first.
    history: Vec<Vec<u8>>,
    cluster: u64,
    clusters: u64,
    /// Where its structures lie.
    table: Vec<Range<u64>>,
    table_bitmap: Vec<Range<u64>>,
    mirror: Vec<Range<u64>>,
    log: Vec<Range<u64>>,
    bitmap: Vec<Range<u64>>,
    boot: Vec<Range<u64>>,
    indexes: Vec<Range<u64>>,
    /// The bytes in use of each file record in use.
    records: Vec<Range<u64>>,
}

impl Ntfs {
    /// A volume on which files came and went, some of them in many fragments.
    fn new(size: u64, cluster: u32, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), size, 512, cluster);
        let mut history = vec![fs::read(&image).unwrap()];
        let mut random = Random::new(seed);
        // Each session writes, deletes and ends; in its middle the volume is copied as it is on the disk.
        for session in 0..4 {
            {
                let mounted = Mounted::new(&image);
                fill(mounted.path(), session, &mut random, u64::from(cluster));
                try_run("sync", &["-f", text(mounted.path())]);
                history.push(fs::read(&image).unwrap());
                thin_out(mounted.path(), session);
            }
            history.push(fs::read(&image).unwrap());
        }
        let volume = history.pop().unwrap();
        let runs = |inode, kind| runs_of(&image, inode, kind);
        let mut indexes = runs(5, INDEX_ALLOCATION);
        let inner = (24..64).flat_map(|inode| runs(inode, INDEX_ALLOCATION));
        indexes.extend(inner);
        let clusters = size / u64::from(cluster);
        let table = runs(0, DATA);
        let places = table.iter().flat_map(|run| (run.start..run.end).step_by(RECORD as usize));
        let records = places.filter_map(|at| record_in_use(&volume, at)).collect();
        Self {
            history,
            cluster: u64::from(cluster),
            clusters,
            table,
            records,
            table_bitmap: runs(0, BITMAP),
            mirror: runs(1, DATA),
            log: runs(2, DATA),
            bitmap: runs(6, DATA),
            boot: vec![0..8192, size - SECTOR..size],
            indexes,
            volume,
        }
    }

    /// All structures but the log, which is long and says nothing.
    fn metadata(&self) -> Vec<Range<u64>> {
        let parts = [&self.table, &self.table_bitmap, &self.mirror, &self.bitmap, &self.boot, &self.indexes];
        parts.into_iter().flatten().cloned().collect()
    }

    /// The place of a cluster's bit, as the byte and the number of the bit.
    fn bit(&self, cluster: u64) -> (u64, u8) {
        let mut byte = cluster / 8;
        for run in &self.bitmap {
            if byte < run.end - run.start {
                return (run.start + byte, 1 << (cluster % 8));
            }
            byte -= run.end - run.start;
        }
        panic!("cluster {cluster} has no bit");
    }

    /// A cluster that is used, or free.
    fn cluster(&self, used: bool, random: &mut Random) -> u64 {
        loop {
            let cluster = random.below(self.clusters - 1);
            let (at, mask) = self.bit(cluster);
            if (self.volume[at as usize] & mask != 0) == used {
                return cluster;
            }
        }
    }
}

impl Aged for Ntfs {
    fn now(&self) -> &[u8] {
        &self.volume
    }
    fn history(&self) -> &[Vec<u8>] {
        &self.history
    }
}

/// Writes files of many sizes, one of them in many fragments.
fn fill(folder: &Path, session: u64, random: &mut Random, cluster: u64) {
    let inner = folder.join("inner");
    let _ = fs::create_dir(&inner);
    for n in 0..30 {
        let len = match random.below(10) {
            0..=1 => random.below(500),
            2..=6 => random.below(12_000),
            7..=8 => random.below(120_000),
            _ => random.below(400_000),
        };
        let name = format!("a name that takes some room in the index, session {session}, file {n}");
        fs::write(if n % 2 == 0 { folder.join(name) } else { inner.join(name) }, random.bytes(len)).unwrap();
    }
    // Two files that grow in turns.
    let mut parts = [Vec::new(), Vec::new()];
    for _ in 0..40 {
        for (n, part) in parts.iter_mut().enumerate() {
            part.extend(random.bytes(cluster));
            fs::write(inner.join(format!("grows in turns {n}")), &part).unwrap();
        }
    }
}

/// Deletes every third file.
fn thin_out(folder: &Path, session: u64) {
    for folder in [folder.to_path_buf(), folder.join("inner")] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        for path in files.iter().skip(session as usize).step_by(3) {
            fs::remove_file(path).unwrap();
        }
    }
}

fn clear_bit(ntfs: &Ntfs, random: &mut Random) -> Vec<Patch> {
    let (at, mask) = ntfs.bit(ntfs.cluster(true, random));
    vec![Patch { at, bytes: vec![ntfs.volume[at as usize] & !mask] }]
}

fn change_byte(ntfs: &Ntfs, random: &mut Random) -> Vec<Patch> {
    let (at, _) = ntfs.bit(ntfs.cluster(true, random));
    vec![Patch { at, bytes: vec![random.below(256) as u8] }]
}

fn exchange_bits(ntfs: &Ntfs, random: &mut Random) -> Vec<Patch> {
    let (free, mask_of_free) = ntfs.bit(ntfs.cluster(false, random));
    let (used, mask_of_used) = ntfs.bit(ntfs.cluster(true, random));
    let set = ntfs.volume[free as usize] | mask_of_free;
    let before = if free == used { set } else { ntfs.volume[used as usize] };
    vec![Patch { at: free, bytes: vec![set] }, Patch { at: used, bytes: vec![before & !mask_of_used] }]
}

/// The bytes in use of the file record at `at`, if it is in use.
fn record_in_use(volume: &[u8], at: u64) -> Option<Range<u64>> {
    let record = &volume[at as usize..][..RECORD as usize];
    let used = u64::from(record[24]) | u64::from(record[25]) << 8;
    (record.starts_with(b"FILE") && record[22] & 1 != 0).then_some(at..at + used)
}

/// A byte of a file record in use, among its last `within` ones: the end of its last attribute, most often of
/// the runs of its data.
fn change_record(ntfs: &Ntfs, within: u64, random: &mut Random) -> Vec<Patch> {
    let record = &ntfs.records[random.below(ntfs.records.len() as u64) as usize];
    let at = record.end - 1 - random.below(within.min(record.end - record.start));
    vec![Patch { at, bytes: vec![random.below(256) as u8] }]
}

/// The power went: of everything that changed since, each sector or page reached the disk or did not.
fn power_cut(ntfs: &Ntfs, random: &mut Random) -> Vec<Patch> {
    let len = if random.below(2) == 0 { SECTOR } else { PAGE.max(ntfs.cluster) };
    torn(ntfs, &[0..ntfs.volume.len() as u64], len, random)
}

impl Subject for Ntfs {
    fn volume(&self) -> &[u8] {
        &self.volume
    }

    fn kinds() -> Vec<Kind<Self>> {
        let kind = |name, damage| Kind { name, damage };
        vec![
            kind("a bit of `$Bitmap` cleared", clear_bit),
            kind("a byte of `$Bitmap` changed", change_byte),
            kind("two bits of `$Bitmap` exchanged", exchange_bits),
            kind("`$Bitmap` of an earlier time", |ntfs, random| stale(ntfs, &ntfs.bitmap, random)),
            kind("`$Bitmap` torn by 4 KiB", |ntfs, random| torn(ntfs, &ntfs.bitmap, PAGE, random)),
            kind("`$Bitmap` torn by sectors", |ntfs, random| torn(ntfs, &ntfs.bitmap, SECTOR, random)),
            kind("`$Bitmap`: zeros", |ntfs, random| zeroed(&ntfs.bitmap, random)),
            kind("`$Bitmap`: a misplaced write", |ntfs, random| misplaced(ntfs, &ntfs.bitmap, random)),
            kind("`$MFT`: a lost write", |ntfs, random| lost_write(ntfs, &ntfs.table, random)),
            kind("`$MFT` torn by sectors", |ntfs, random| torn(ntfs, &ntfs.table, SECTOR, random)),
            kind("`$MFT`: zeros", |ntfs, random| zeroed(&ntfs.table, random)),
            kind("`$MFT`: a misplaced write", |ntfs, random| misplaced(ntfs, &ntfs.table, random)),
            kind("`$MFT`: a byte of a record changed", |ntfs, random| change_record(ntfs, RECORD, random)),
            kind("`$MFT`: a byte near a record's runs changed", |ntfs, random| {
                change_record(ntfs, 80, random)
            }),
            kind("`$BITMAP` of `$MFT`: a lost write", |ntfs, random| {
                lost_write(ntfs, &ntfs.table_bitmap, random)
            }),
            kind("`$BITMAP` of `$MFT`: flipped bits", |ntfs, random| flips(ntfs, &ntfs.table_bitmap, random)),
            kind("`$MFTMirr`: a lost write", |ntfs, random| lost_write(ntfs, &ntfs.mirror, random)),
            kind("`$LogFile`: zeros", |ntfs, random| zeroed(&ntfs.log, random)),
            kind("`$LogFile`: a lost write", |ntfs, random| lost_write(ntfs, &ntfs.log, random)),
            kind("`$LogFile`: flipped bits", |ntfs, random| flips(ntfs, &ntfs.log, random)),
            kind("boot sectors: flipped bits", |ntfs, random| flips(ntfs, &ntfs.boot, random)),
            kind("boot sectors: zeros", |ntfs, random| zeroed(&ntfs.boot, random)),
            kind("boot sector: a byte changed", |_, random| {
                vec![Patch { at: random.below(90), bytes: vec![random.below(256) as u8] }]
            }),
            kind("index blocks: a lost write", |ntfs, random| lost_write(ntfs, &ntfs.indexes, random)),
            kind("index blocks: a misplaced write", |ntfs, random| misplaced(ntfs, &ntfs.indexes, random)),
            kind("metadata: flipped bits", |ntfs, random| flips(ntfs, &ntfs.metadata(), random)),
            kind("metadata: other data written over", |ntfs, random| random_bytes(&ntfs.metadata(), random)),
            kind("metadata: each page old or new", |ntfs, random| torn(ntfs, &ntfs.metadata(), PAGE, random)),
            kind("a container block lost, stale or another", container_block),
            kind("power cut: each sector or page old or new", power_cut),
        ]
    }

    fn read(&self, image: &Path) -> Files {
        let mut files = seven_zip(image);
        files.extend(ntfs_3g(image));
        files
    }

    fn peers() -> Vec<Peer> {
        vec![Peer { name: "partclone", shrink: partclone }, Peer { name: "ntfsclone", shrink: ntfsclone }]
    }
}

/// What partclone calls used, with zeros for the rest.
fn partclone(image: &Path, out: &Path) -> bool {
    let (map, log) = (out.with_extension("map"), out.with_extension("log"));
    let arguments = ["-D", "-F", "-q", "-s", text(image), "-O", text(&map), "-L", text(&log)];
    if !is_installed("partclone.ntfs") || !try_run("partclone.ntfs", &arguments).status.success() {
        return false;
    }
    let (volume, used) = (fs::read(image).unwrap(), used_in_domain_map(&map));
    let mut kept = vec![0; volume.len()];
    for range in used.within(0..volume.len() as u64) {
        let range = range.start as usize..range.end as usize;
        kept[range.clone()].copy_from_slice(&volume[range]);
    }
    fs::write(out, kept).unwrap();
    true
}

fn ntfsclone(image: &Path, out: &Path) -> bool {
    let done = try_run("ntfsclone", &["-q", "-O", text(out), text(image)]).status.success();
    if !done {
        let _ = fs::remove_file(out);
    }
    done
}

#[test]
fn damage_to_ntfs_loses_nothing() {
    need!(mount, "mkntfs", "ntfs-3g", "ntfsinfo", "7zz", "timeout");
    let subjects = [Ntfs::new(40 * MIB, 4096, 1), Ntfs::new(24 * MIB + 3 * SECTOR, 512, 2)];
    campaign("NTFS", &subjects);
}
