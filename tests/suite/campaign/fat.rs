//! Damage to FAT and exFAT.
//!
//! The volumes have a history, kept as copies of them, so that a damage can put back what an older state held:
//! a write that never reached the disk.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::readers::{Files, mounted, seven_zip};
use super::{Kind, Patch, Subject, campaign};
use crate::toolbox::fat::ExFat;
use crate::toolbox::{Loop, MIB, Random, blank, run, text, try_run};

const SECTOR: u64 = 512;

/// A clean volume of one of them, how it came about, and where its structures lie.
struct Fat {
    volume: Vec<u8>,
    /// Earlier states, oldest first.
    history: Vec<Vec<u8>>,
    /// What says which clusters are in use: the copies of the FAT, or exFAT's bitmap.
    maps: Vec<Range<u64>>,
    /// The FAT of exFAT, which says only how chains go on.
    links: Vec<Range<u64>>,
    directories: Vec<Range<u64>>,
    /// Bits of an entry of the map; exFAT's have one.
    bits: u64,
    entries: u64,
    read: fn(&Path) -> Files,
}

fn word(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl Fat {
    /// A FAT volume on which files came and went.
    fn made_by_mtools(options: &[&str], size: u64, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = blank(folder.path(), size);
        run("mkfs.fat", &[options, &[text(&image)]].concat());
        let mut history = Vec::new();
        let mut random = Random::new(seed);
        for session in 0..4 {
            let from = folder.path().join(format!("session {session}"));
            fill(&from, session, &mut random);
            for entry in fs::read_dir(&from).unwrap() {
                run("mcopy", &["-i", text(&image), "-s", "-Q", "-o", text(&entry.unwrap().path()), "::/"]);
            }
            history.push(fs::read(&image).unwrap());
            for n in (0..14).step_by(3) {
                try_run("mdel", &["-i", text(&image), &format!("::/{session} file {n}")]);
            }
            history.push(fs::read(&image).unwrap());
        }
        let volume = history.pop().unwrap();
        let (sector, cluster) = (word(&volume, 11, 2), word(&volume, 13, 1) * word(&volume, 11, 2));
        let fat = word(&volume, 14, 2) * sector;
        let is_fat32 = word(&volume, 22, 2) == 0;
        let fat_size = if is_fat32 { word(&volume, 36, 4) } else { word(&volume, 22, 2) } * sector;
        let root = fat + fat_size * word(&volume, 16, 1);
        let heap = root + word(&volume, 17, 2) * 32;
        let clusters = (size - heap) / cluster;
        let bits = if is_fat32 {
            32
        } else if clusters < 4085 {
            12
        } else {
            16
        };
        // A directory begins with the name of itself; the root of FAT32 is cluster 2.
        let first = if is_fat32 { heap..heap + cluster } else { root..heap };
        let own = (heap..size - cluster).step_by(cluster as usize);
        let own = own.filter(|&at| volume[at as usize..].starts_with(b".          "));
        let directories = std::iter::once(first).chain(own.map(|at| at..at + cluster)).collect();
        let maps = (0..word(&volume, 16, 1)).map(|copy| fat + copy * fat_size..fat + (copy + 1) * fat_size);
        let maps = maps.collect();
        let read = |image: &Path| {
            let mut files = seven_zip(image);
            files.extend(mtools(image));
            files
        };
        Self { history, maps, links: Vec::new(), directories, bits, entries: clusters + 2, read, volume }
    }

    /// An exFAT volume on which files came and went; none (said so) where it cannot be mounted.
    fn exfat(cluster: &str, size: u64, seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = blank(folder.path(), size);
        run("mkfs.exfat", &["-c", cluster, text(&image)]);
        let mut history = Vec::new();
        let mut random = Random::new(seed);
        for session in 0..4 {
            let mount = ExFat::mount(&image, &folder.path().join("mount"))?;
            fill(mount.path(), session, &mut random);
            drop(mount);
            history.push(fs::read(&image).unwrap());
            let mount = ExFat::mount(&image, &folder.path().join("mount"))?;
            (0..14)
                .step_by(3)
                .for_each(|n| drop(fs::remove_file(mount.path().join(format!("{session} file {n}")))));
            drop(mount);
            history.push(fs::read(&image).unwrap());
        }
        let volume = history.pop().unwrap();
        let (sector, shift) = (1u64 << volume[108], volume[109]);
        let (cluster, heap) = (sector << shift, word(&volume, 88, 4) * sector);
        let place = |number: u64| heap + (number - 2) * cluster;
        let clusters = word(&volume, 92, 4);
        let root = place(word(&volume, 96, 4));
        let entry = (root..).step_by(32).find(|&at| volume[at as usize] == 0x81).unwrap() as usize;
        let bitmap = place(word(&volume, entry + 20, 4));
        let own = (heap..heap + clusters * cluster).step_by(cluster as usize);
        let own = own.filter(|&at| volume[at as usize] == 0x85 && volume[at as usize + 32] == 0xC0);
        let fat = word(&volume, 80, 4) * sector;
        Some(Self {
            history,
            maps: vec![bitmap..bitmap + clusters.div_ceil(8)],
            links: vec![fat..fat + word(&volume, 84, 4) * sector],
            directories: std::iter::once(root..root + cluster)
                .chain(own.map(|at| at..at + cluster))
                .collect(),
            bits: 1,
            entries: clusters,
            read: exfat_fuse,
            volume,
        })
    }

    fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        self.volume[range.start as usize..range.end as usize].to_vec()
    }

    fn old(&self, random: &mut Random) -> &[u8] {
        &self.history[random.below(self.history.len() as u64) as usize]
    }

    /// The same change in every copy of the map: `change` gets a copy's bytes.
    fn in_all(&self, change: impl Fn(&mut [u8])) -> Vec<Patch> {
        let patch = |range: &Range<u64>| {
            let mut bytes = self.bytes(range.clone());
            change(&mut bytes);
            Patch { at: range.start, bytes }
        };
        self.maps.iter().map(patch).collect()
    }

    fn entry(&self, random: &mut Random) -> u64 {
        let first = if self.bits == 1 { 0 } else { 2 };
        loop {
            let entry = first + random.below(self.entries - first);
            let bits = entry * self.bits..(entry + 1) * self.bits;
            let map = self.bytes(self.maps[0].clone());
            if bits.into_iter().any(|bit| is_set(&map, bit)) {
                return entry;
            }
        }
    }

    /// A sector of the map that says that something is in use.
    fn sector(&self, random: &mut Random) -> Range<usize> {
        let len = self.maps[0].end - self.maps[0].start;
        let at = self.entry(random) * self.bits / 8 / SECTOR * SECTOR;
        at as usize..(at + SECTOR).min(len) as usize
    }

    fn directory(&self, random: &mut Random) -> Range<u64> {
        let directory = &self.directories[random.below(self.directories.len() as u64) as usize];
        let at = directory.start + random.below((directory.end - directory.start) / SECTOR) * SECTOR;
        at..at + SECTOR
    }

    /// All sectors of all structures.
    fn metadata(&self) -> Vec<Range<u64>> {
        let all = self.maps.iter().chain(&self.links).chain(&self.directories);
        let sectors =
            all.flat_map(|range| (range.start / SECTOR..range.end.div_ceil(SECTOR)).map(|n| n * SECTOR));
        std::iter::once(0).chain(sectors).map(|at| at..at + SECTOR).collect()
    }
}

fn is_set(map: &[u8], bit: u64) -> bool {
    map[(bit / 8) as usize] & 1 << (bit % 8) != 0
}

fn put_bit(map: &mut [u8], bit: u64, value: bool) {
    let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
    map[byte] = if value { map[byte] | mask } else { map[byte] & !mask };
}

/// Writes files of many sizes into a folder and one inside it.
fn fill(folder: &Path, session: u64, random: &mut Random) {
    let inner = folder.join(format!("inner {}", session % 2));
    fs::create_dir_all(&inner).unwrap();
    for n in 0..14 {
        let len = [random.below(600), random.below(9_000), random.below(9_000), random.below(90_000)];
        let name = format!("{session} file {n}");
        fs::write(if n % 2 == 0 { folder.join(name) } else { inner.join(name) }, random.bytes(len[n % 4]))
            .unwrap();
    }
}

/// The files that mtools unpacks.
fn mtools(image: &Path) -> Files {
    let folder = tempfile::tempdir().unwrap();
    try_run("timeout", &["20", "mcopy", "-i", text(image), "-s", "-n", "-Q", "::/*", text(folder.path())]);
    let digests = crate::toolbox::digests(folder.path());
    digests.into_iter().map(|(path, digest)| (format!("mtools: {}", path.display()), digest)).collect()
}

/// The files that exfat-fuse reads; it wants a device.
fn exfat_fuse(image: &Path) -> Files {
    let Some(device) = Loop::new(image, &["-r"]) else { return Files::new() };
    mounted("exfat-fuse", image, |_, folder| {
        let arguments = ["20", "mount.exfat-fuse", "-o", "ro", &device.0, text(folder)];
        try_run("timeout", &arguments).status.success()
    })
}

impl Subject for Fat {
    fn volume(&self) -> &[u8] {
        &self.volume
    }

    fn kinds() -> Vec<Kind<Self>> {
        fn kind(name: &'static str, damage: fn(&Fat, &mut Random) -> Vec<Patch>) -> Kind<Fat> {
            Kind { name, damage }
        }
        vec![
            kind("a used entry of the map cleared", |s, random| {
                let entry = s.entry(random);
                s.in_all(|map| {
                    (entry * s.bits..(entry + 1) * s.bits).for_each(|bit| put_bit(map, bit, false))
                })
            }),
            kind("a used entry cleared in one copy", |s, random| {
                let entry = s.entry(random);
                let mut all = s.in_all(|map| {
                    (entry * s.bits..(entry + 1) * s.bits).for_each(|bit| put_bit(map, bit, false))
                });
                vec![all.swap_remove(random.below(all.len() as u64) as usize)]
            }),
            kind("a bit of the map flipped", |s, random| {
                let bit = s.entry(random) * s.bits + random.below(s.bits);
                s.in_all(|map| put_bit(map, bit, !is_set(map, bit)))
            }),
            kind("two entries of the map exchanged", |s, random| {
                let (a, b) = (s.entry(random) * s.bits, (2 + random.below(s.entries - 2)) * s.bits);
                s.in_all(|map: &mut [u8]| {
                    for bit in 0..s.bits {
                        let (x, y) = (is_set(map, a + bit), is_set(map, b + bit));
                        put_bit(map, a + bit, y);
                        put_bit(map, b + bit, x);
                    }
                })
            }),
            kind("a byte of the map cleared", |s, random| {
                let at = (s.entry(random) * s.bits / 8) as usize;
                s.in_all(|map| map[at] = 0)
            }),
            kind("a sector of the map zeroed", |s, random| {
                let sector = s.sector(random);
                s.in_all(|map| map[sector.clone()].fill(0))
            }),
            kind("a sector of the map not written", |s, random| {
                let (sector, old) = (s.sector(random), s.old(random));
                let at = s.maps[0].start as usize;
                s.in_all(|map| map[sector.clone()].copy_from_slice(&old[at + sector.start..at + sector.end]))
            }),
            kind("an older map", |s, random| {
                let old = s.old(random);
                let at = s.maps[0].start as usize;
                s.in_all(|map| map.copy_from_slice(&old[at..at + map.len()]))
            }),
            kind("a sector of the map in another's place", |s, random| {
                let (from, to) = (s.sector(random), s.sector(random));
                s.in_all(|map| {
                    let len = from.len().min(to.len());
                    map.copy_within(from.start..from.start + len, to.start);
                })
            }),
            kind("a sector of a directory zeroed", |s, random| {
                vec![Patch { at: s.directory(random).start, bytes: vec![0; SECTOR as usize] }]
            }),
            kind("a sector of a directory not written", |s, random| {
                let at = s.directory(random).start;
                vec![Patch { at, bytes: s.old(random)[at as usize..][..SECTOR as usize].to_vec() }]
            }),
            kind("a bit of a directory flipped", |s, random| {
                let sector = s.directory(random);
                let mut bytes = s.bytes(sector.clone());
                bytes[random.below(SECTOR) as usize] ^= 1 << random.below(8);
                vec![Patch { at: sector.start, bytes }]
            }),
            kind("a byte of the boot sector changed", |_, random| {
                vec![Patch { at: random.below(SECTOR), bytes: random.bytes(1) }]
            }),
            kind("a power cut: each sector of all structures old or new", |s, random| {
                let old = s.old(random);
                let sectors = s.metadata().into_iter().filter(|_| random.below(2) == 0);
                let patch = |range: Range<u64>| {
                    let bytes = old[range.start as usize..range.end as usize].to_vec();
                    Patch { at: range.start, bytes }
                };
                sectors.map(patch).collect()
            }),
            kind("a sector of any structure overwritten with noise", |s, random| {
                let sectors = s.metadata();
                let at = sectors[random.below(sectors.len() as u64) as usize].start;
                vec![Patch { at, bytes: random.bytes(SECTOR) }]
            }),
        ]
    }

    fn read(&self, image: &Path) -> Files {
        (self.read)(image)
    }
}

#[test]
fn fat_loses_nothing() {
    need!("mkfs.fat", "mcopy", "mdel", "7zz", "timeout");
    campaign(
        "FAT",
        &[
            Fat::made_by_mtools(&["-F", "12", "-s", "4"], 4 * MIB, 1),
            Fat::made_by_mtools(&["-F", "16", "-s", "1"], 8 * MIB, 2),
            Fat::made_by_mtools(&["-F", "32", "-s", "1"], 40 * MIB, 3),
        ],
    );
}

#[test]
fn exfat_loses_nothing() {
    need!(mount, "mkfs.exfat", "mount.exfat-fuse", "timeout");
    let volumes = [Fat::exfat("512", 8 * MIB, 4), Fat::exfat("4K", 8 * MIB, 5)];
    let [Some(small), Some(large)] = volumes else { return };
    campaign("exFAT", &[small, large]);
}
