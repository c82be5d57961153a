//! Images to begin with: small volumes of many file systems, in odd containers, alone and in chains. Volumes are made
//! by stock tools; what a machine lacks is left out, and its seeds with it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Result, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use odd_images::{Absent, Creator, Format, Parent, Shape};
use vhd_compactor::compact::{Analysis, Input};
use vhd_compactor::fs::{Context, detect};
use vhd_compactor::io::ReadAt;
use vhd_compactor::volume::enumerate;

use crate::Target;
use crate::pages::{Pages, Watched};

const MIB: u64 = 1 << 20;

/// An image with its parents, or a bare volume.
pub struct Seed {
    /// What it is.
    pub name: String,
    /// A volume without a container.
    pub is_raw: bool,
    pub(crate) files: Vec<Pages>,
    /// What the engine reads of it, by file: where patches go.
    pub(crate) places: Vec<(usize, Range<u64>)>,
}

/// The seeds of all targets.
pub struct Seeds {
    images: Vec<Seed>,
    volumes: Vec<Seed>,
    journals: Vec<Seed>,
    compactable: Vec<Seed>,
}

impl Seeds {
    /// Makes all seeds that this machine has the tools for.
    ///
    /// # Errors
    /// Where a file cannot be written, or a tool that is there fails.
    pub fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let dir = dir.path();
        let volumes = volumes(dir)?;
        let mut seeds =
            Self { images: Vec::new(), volumes: Vec::new(), journals: Vec::new(), compactable: Vec::new() };
        for Raw { name, path, pends } in &volumes {
            let seed = || Seed::of(name.clone(), true, vec![Pages::load(path)?]);
            seeds.volumes.push(seed()?);
            if *pends {
                seeds.journals.push(seed()?);
            }
        }
        for (n, Raw { name, path, .. }) in volumes.iter().enumerate() {
            let file = dir.join("image");
            let shape = &shapes()[n % shapes().len()];
            if fs::metadata(path)?.len() > 16 * MIB || shape.write(path, &file).is_err() {
                continue;
            }
            let seed =
                || Seed::of(format!("{name} in {:?}", shape.format()), false, vec![Pages::load(&file)?]);
            seeds.images.push(seed()?);
            seeds.compactable.push(seed()?);
        }
        // Every shape around the first volume, and chains of two on it.
        let first = &volumes[0].path;
        let changed = dir.join("changed");
        fs::copy(first, &changed)?;
        let mut file = File::options().write(true).open(&changed)?;
        for at in [3 * 4096, MIB / 2 + 512, MIB] {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&[0x5A; 1536])?;
        }
        for shape in shapes() {
            let (parent, child) = (dir.join("parent"), dir.join("child"));
            shape.write(first, &parent)?;
            let alone = || Seed::of(format!("{shape:?}"), false, vec![Pages::load(&parent)?]);
            seeds.images.push(alone()?);
            if shape.has_open_log() {
                seeds.journals.push(alone()?);
            }
            seeds.compactable.push(alone()?);
            if shape.write_child(&changed, &child, &Parent { image: &parent, disk: first }).is_ok() {
                let both = || {
                    Seed::of(
                        "a child and its parent".into(),
                        false,
                        vec![Pages::load(&child)?, Pages::load(&parent)?],
                    )
                };
                seeds.images.push(both()?);
                seeds.compactable.push(both()?);
            }
        }
        Ok(seeds)
    }

    /// The seeds of a target.
    #[must_use]
    pub fn of(&self, target: Target) -> &[Seed] {
        match target {
            Target::Image => &self.images,
            Target::Volume => &self.volumes,
            Target::Journal => &self.journals,
            Target::Engine => &self.compactable,
        }
    }
}

fn shapes() -> Vec<Shape> {
    let (vhd, vhdx) = (Shape::vhd, || Shape::of(Format::Vhdx));
    vec![
        vhdx().shuffled(4).leaking(3).absent(Absent::Mixed),
        vhd().block_size(512 << 10).shuffled(3).sparse_bitmaps(),
        vhdx().open_log(),
        vhd().storing_zeros().leaking(2),
        vhdx().sector_size(4096).block_size(2 * MIB).poisoned(),
        vhd().block_size(64 << 10).gap().creator(Creator::XenServer).poisoned(),
        vhdx().fixed().block_size(2 * MIB),
        vhd().fixed().creator(Creator::VirtualPc),
    ]
}

impl Seed {
    fn of(name: String, is_raw: bool, files: Vec<Pages>) -> Result<Self> {
        let watched: Vec<Rc<Watched>> = files
            .iter()
            .map(|file| Rc::new(Watched { file: file.clone(), reads: RefCell::default() }))
            .collect();
        if is_raw {
            let volume: &dyn ReadAt = &*watched[0];
            let _ = enumerate(&volume, 512);
            let _ = detect(volume, Context { sector_size: 512 }).heard(volume);
        } else {
            let mut inputs = watched.iter().enumerate().map(|(n, file)| input(n, Rc::<Watched>::clone(file)));
            let image = inputs.next().expect("a seed has a file");
            if let Ok(analysis) = Analysis::open(image, inputs.collect()) {
                let _ = analysis.hear();
            }
        }
        // Long reads are patched at their beginnings, where structures are; each place once.
        let mut places = Vec::new();
        for (n, file) in watched.iter().enumerate() {
            let mut starts: Vec<u64> = Vec::new();
            for read in &*file.reads.borrow() {
                starts.extend((read.start..read.end.min(read.start + (64 << 10))).step_by(512));
            }
            starts.sort_unstable();
            starts.dedup();
            places.extend(starts.into_iter().map(|start| (n, start..(start + 512).min(file.size()))));
        }
        places.retain(|(_, range)| range.start < range.end);
        Ok(Self { name, is_raw, files, places })
    }
}

/// A file in memory as an input of the core.
pub(crate) fn input(number: usize, file: Rc<dyn ReadAt>) -> Input {
    Input { file, name: format!("file {number}"), modified: None }
}

/// A volume in a file; whether its journal is to be replayed.
struct Raw {
    name: String,
    path: PathBuf,
    pends: bool,
}

/// How a volume is made: its name, its size in MiB, the program and its arguments (`@` is the image).
type Recipe = (&'static str, u64, &'static str, &'static [&'static str]);

const RECIPES: [Recipe; 15] = [
    ("ext2", 2, "mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024", "-d", "%", "@"]),
    ("ext3", 8, "mke2fs", &["-q", "-F", "-t", "ext3", "-b", "1024", "-J", "size=1", "-d", "%", "@"]),
    ("ext4", 8, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-d", "%", "@"]),
    ("ext4 with checksums", 8, "mke2fs", &["-q", "-F", "-t", "ext4", "-d", "%", "@"]),
    ("ext4 with clusters", 16, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "bigalloc", "-d", "%", "@"]),
    (
        "ext4 of meta groups",
        8,
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "1024",
            "-g",
            "1024",
            "-O",
            "meta_bg,^resize_inode,mmp",
            "-d",
            "%",
            "@",
        ],
    ),
    ("FAT12", 2, "mkfs.fat", &["-F", "12", "-s", "2", "@"]),
    ("FAT16", 8, "mkfs.fat", &["-F", "16", "-s", "1", "@"]),
    ("FAT32", 34, "mkfs.fat", &["-F", "32", "-s", "1", "@"]),
    ("exFAT", 8, "mkfs.exfat", &["@"]),
    (
        "NTFS",
        4,
        "mkntfs",
        &["-q", "-Q", "-F", "-p", "0", "-H", "16", "-S", "63", "-s", "512", "-c", "1024", "@"],
    ),
    ("swap", 2, "mkswap", &["-q", "@"]),
    ("XFS", 300, "mkfs.xfs", &["-q", "-f", "@"]),
    ("Btrfs", 120, "mkfs.btrfs", &["-q", "-f", "--rootdir", "%", "@"]),
    ("LVM2", 8, "pvcreate", &["-q", "-ff", "-y", "--metadatasize", "64k", "@"]),
];

fn volumes(dir: &Path) -> Result<Vec<Raw>> {
    let files = dir.join("files");
    fs::create_dir_all(files.join("folder"))?;
    for n in 0..24usize {
        let contents: Vec<u8> = (0..n * n * 60).map(|at| (at * 31 + at / 251 + n) as u8).collect();
        fs::write(files.join(if n % 3 == 0 { format!("folder/f{n}") } else { format!("f{n}") }), contents)?;
    }
    let mut made = Vec::new();
    for (name, size, program, args) in RECIPES {
        let path = dir.join(format!("{name}.raw"));
        File::create(&path)?.set_len(size * MIB)?;
        let args: Vec<&str> = args
            .iter()
            .map(|&arg| match arg {
                "@" => text(&path),
                "%" => text(&files),
                other => other,
            })
            .collect();
        if !succeeds(program, &args) {
            continue;
        }
        match program {
            "mke2fs" => drop(succeeds("debugfs", &["-w", "-R", "rm f20", text(&path)])),
            "mkfs.fat" => {
                for n in [1, 4, 7, 10, 13] {
                    succeeds("mcopy", &["-i", text(&path), text(&files.join(format!("f{n}"))), "::/"]);
                }
                succeeds("mdel", &["-i", text(&path), "::/f7"]);
            }
            "mkntfs" => {
                for n in [1, 13, 22] {
                    succeeds(
                        "ntfscp",
                        &["-q", text(&path), text(&files.join(format!("f{n}"))), &format!("f{n}")],
                    );
                }
            }
            _ => {}
        }
        if matches!(name, "ext3" | "ext4" | "ext4 with checksums") && has_replay(&path, dir) {
            made.push(Raw {
                name: format!("{name} to replay"),
                path: dir.join(format!("{name}.raw.open")),
                pends: true,
            });
        }
        made.push(Raw { name: name.to_owned(), path, pends: false });
    }
    if made.is_empty() {
        // Nothing is installed: a disk of patterns does for the containers.
        let path = dir.join("pattern");
        fs::write(&path, (0..4 * MIB).map(|at| (at >> 12) as u8).collect::<Vec<u8>>())?;
        made.push(Raw { name: "a pattern".into(), path, pends: false });
    }
    Ok(made)
}

/// Writes transactions into the journal of a copy: a change, one that is revoked, one without a commit.
fn has_replay(volume: &Path, dir: &Path) -> bool {
    let open = PathBuf::from(format!("{}.open", text(volume)));
    let (block, script) = (dir.join("block"), dir.join("script"));
    let commands =
        format!("jo -c\njw -b 1 {0}\njw -b 30,31 {0}\njw -r 30\njw -b 31 -c {0}\njc\n", text(&block));
    let written = fs::copy(volume, &open).and_then(|_| {
        let mut group = vec![0; 8192];
        File::open(volume).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut group))?;
        fs::write(&block, group)?;
        fs::write(&script, commands)
    });
    written.is_ok() && succeeds("debugfs", &["-w", "-f", text(&script), text(&open)])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("MTOOLS_SKIP_CHECK", "1");
    command.env("E2FSPROGS_FAKE_TIME", "1700000000").env("SOURCE_DATE_EPOCH", "1700000000");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
