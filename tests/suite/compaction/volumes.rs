//! File systems made by their own tools: filled, half of it deleted again, stale bytes left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhd_compactor::extents::Extents;

use crate::toolbox::fat::ExFat;
use crate::toolbox::{
    MIB, Random, digest_of, digests, ext, free_by_sleuthkit, have, may_mount, ntfs, run, sparse, text,
    used_by_partclone,
};

/// What deleted files are full of.
pub const STALE: &[u8; 8] = b"STALMAGC";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ntfs,
    Ext4,
    Ext3,
    Ext2,
    Fat12,
    Fat16,
    Fat32,
    ExFat,
    Swap,
}

impl FileSystem {
    pub const ALL: [Self; 9] = [
        Self::Ntfs,
        Self::Ext4,
        Self::Ext3,
        Self::Ext2,
        Self::Fat12,
        Self::Fat16,
        Self::Fat32,
        Self::ExFat,
        Self::Swap,
    ];

    /// The tools that make and judge it.
    const fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Ntfs => &["mkntfs", "ntfs-3g", "ntfsinfo", "ntfscat", "ntfsfix"],
            Self::Ext4 | Self::Ext3 | Self::Ext2 => &["mke2fs", "debugfs", "dumpe2fs", "e2fsck"],
            Self::Fat12 | Self::Fat16 | Self::Fat32 => &["mkfs.fat", "mcopy", "mdel", "fsck.fat", "blkls"],
            Self::ExFat => &["mkfs.exfat", "mount.exfat-fuse", "fsck.exfat", "partclone.exfat", "losetup"],
            Self::Swap => &["mkswap", "swaplabel"],
        }
    }

    /// Whether it can be made here; says so if not.
    pub fn can(self) -> bool {
        let mounts = matches!(self, Self::Ntfs | Self::ExFat);
        have(self.tools()) && (!mounts || may_mount())
    }

    /// The size that suits it: a little more than MiB, so that no block ends with it.
    const fn size(self) -> u64 {
        match self {
            Self::Fat12 => 12 * MIB + 3 * 32_768,
            Self::Fat16 | Self::Swap => 24 * MIB + 3 * 32_768,
            Self::Fat32 => 40 * MIB + 3 * 32_768,
            _ => 48 * MIB + 3 * 32_768,
        }
    }

    /// The partition type for an MBR.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Ntfs | Self::ExFat => "7",
            Self::Fat12 => "1",
            Self::Fat16 => "6",
            Self::Fat32 => "c",
            Self::Swap => "82",
            Self::Ext4 | Self::Ext3 | Self::Ext2 => "83",
        }
    }

    /// A new volume in a file: live files between deleted ones.
    pub fn make(self, dir: &Path) -> PathBuf {
        let volume = dir.join("volume");
        sparse(&volume, self.size());
        let files = dir.join("files");
        let (live, stale) = write_files(&files);
        let path = text(&volume);
        match self {
            Self::Ntfs => {
                run("mkntfs", &["-q", "-Q", "-F", "-p", "0", "-H", "16", "-S", "63", "-s", "512", path]);
                copy_and_delete(&files, &live, &stale, || {
                    let mounted = ntfs::Mounted::new(&volume);
                    (mounted.path().to_owned(), Box::new(mounted))
                });
            }
            Self::Ext4 | Self::Ext3 | Self::Ext2 => {
                let kind = match self {
                    Self::Ext4 => "ext4",
                    Self::Ext3 => "ext3",
                    _ => "ext2",
                };
                ext::mke2fs(&volume, self.size(), &["-t", kind, "-b", "1024"], Some(&files));
                let remove: Vec<String> = stale.iter().map(|name| format!("rm {name}")).collect();
                ext::debugfs(&volume, &remove, dir);
            }
            Self::Fat12 | Self::Fat16 | Self::Fat32 => {
                let (bits, cluster) = match self {
                    Self::Fat12 => ("12", "8"),
                    Self::Fat16 => ("16", "4"),
                    _ => ("32", "1"),
                };
                run("mkfs.fat", &["-F", bits, "-s", cluster, path]);
                let paths: Vec<String> =
                    live.iter().zip(&stale).flat_map(|(a, b)| [a, b]).map(|n| at(&files, n)).collect();
                let mut args = vec!["-i", path];
                args.extend(paths.iter().map(String::as_str));
                run("mcopy", &[args, vec!["::/"]].concat());
                let names: Vec<String> = stale.iter().map(|name| format!("::/{name}")).collect();
                let mut args = vec!["-i", path];
                args.extend(names.iter().map(String::as_str));
                run("mdel", &args);
            }
            Self::ExFat => {
                run("mkfs.exfat", &[path]);
                copy_and_delete(&files, &live, &stale, || {
                    let mounted = ExFat::mount(&volume, &dir.join("mount")).unwrap();
                    (mounted.path().to_owned(), Box::new(mounted))
                });
            }
            Self::Swap => {
                run("mkswap", &["-q", "-L", "swap", path]);
                let file = File::options().write(true).open(&volume).unwrap();
                for n in 1..16 {
                    file.write_all_at(&STALE.repeat(20_000), n * 1_400_000).unwrap();
                }
            }
        }
        fs::remove_dir_all(&files).unwrap();
        volume
    }

    /// The free bytes as a stranger sees them.
    pub fn free(self, volume: &Path, dir: &Path) -> Extents {
        match self {
            Self::Ntfs => {
                let (cluster, clusters, _) = ntfs::ntfsinfo(volume);
                ntfs::free_by_ntfscat(volume, cluster, clusters)
            }
            Self::Ext4 | Self::Ext3 | Self::Ext2 => ext::dumpe2fs_free(volume),
            // It also lists what follows the last cluster; nothing is there.
            Self::Fat12 | Self::Fat16 | Self::Fat32 => free_by_sleuthkit(volume, 512),
            Self::ExFat => {
                let used = used_by_partclone("partclone.exfat", volume, dir);
                Extents::from_ranges(used.gaps(0..fs::metadata(volume).unwrap().len()))
            }
            Self::Swap => {
                let mut free = Extents::new();
                free.push(4096..fs::metadata(volume).unwrap().len());
                free
            }
        }
    }

    /// Fails unless the file system's own checker has nothing to say.
    pub fn check(self, volume: &Path) {
        let path = text(volume);
        match self {
            Self::Ntfs => run("ntfsfix", &["-n", path]),
            Self::Ext4 | Self::Ext3 | Self::Ext2 => run("e2fsck", &["-fn", path]),
            Self::Fat12 | Self::Fat16 | Self::Fat32 => run("fsck.fat", &["-n", path]),
            Self::ExFat => run("fsck.exfat", &["-n", path]),
            Self::Swap => run("swaplabel", &[path]),
        };
    }

    /// The digest of every file.
    pub fn digests(self, volume: &Path, dir: &Path) -> BTreeMap<PathBuf, String> {
        match self {
            Self::Ntfs => digests(ntfs::Mounted::new(volume).path()),
            Self::Ext4 | Self::Ext3 | Self::Ext2 => ext::digests(volume, dir),
            Self::Fat12 | Self::Fat16 | Self::Fat32 => {
                let out = tempfile::tempdir_in(dir).unwrap();
                run("mcopy", &["-s", "-n", "-i", text(volume), "::/*", text(out.path())]);
                digests(out.path())
            }
            Self::ExFat => digests(ExFat::mount(volume, &dir.join("mount")).unwrap().path()),
            Self::Swap => {
                let mut page = [0; 4096];
                File::open(volume).unwrap().read_exact_at(&mut page, 0).unwrap();
                BTreeMap::from([("page 0".into(), digest_of(&page))])
            }
        }
    }
}

fn at(folder: &Path, name: &str) -> String {
    text(&folder.join(name)).to_owned()
}

/// Files to keep, of noise, and files to delete, of stamps.
fn write_files(folder: &Path) -> (Vec<String>, Vec<String>) {
    fs::create_dir_all(folder).unwrap();
    let mut random = Random::new(0x5EED_1234_5678);
    let names = |prefix: &str| (0..14).map(|n| format!("{prefix}{n}.dat")).collect::<Vec<_>>();
    let (live, stale) = (names("live"), names("stale"));
    for (n, (keep, delete)) in live.iter().zip(&stale).enumerate() {
        let len = [700, 4096, 30_001, 90_000, 150_000][n % 5] + n as u64 * 13;
        fs::write(folder.join(keep), random.bytes(len)).unwrap();
        let len = if n == 5 { 5 << 17 } else { 2500 + n * 4000 };
        fs::write(folder.join(delete), STALE.repeat(len)).unwrap();
    }
    (live, stale)
}

type Mounted = (PathBuf, Box<dyn std::any::Any>);

/// Writes all files through a mount, and deletes some through another, so that they have reached the disk.
fn copy_and_delete(files: &Path, live: &[String], stale: &[String], mount: impl Fn() -> Mounted) {
    {
        let (folder, _mounted) = mount();
        for name in live.iter().zip(stale).flat_map(|(a, b)| [a, b]) {
            fs::copy(files.join(name), folder.join(name)).unwrap();
        }
    }
    let (folder, _mounted) = mount();
    for name in stale {
        fs::remove_file(folder.join(name)).unwrap();
    }
}
