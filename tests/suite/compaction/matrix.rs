//! Who made an image × what kind it is × what is asked for: whatever comes of it, the maker's program takes it back.
//!
//! Judged by each program's rules (`odd_images::broken_rules`, `docs/compatibility.md`) and by QEMU, 7-Zip and libvhdi
//! where they are installed.

use std::fs;
use std::path::{Path, PathBuf};

use odd_images::{Creator, Format as Container, Parent, Shape, broken_rules};
use vhd_compactor::ErrorKind;
use vhd_compactor::compact::{BlockSizeChoice, Mode, Options};
use vhd_compactor::image::Format;

use crate::toolbox::engine::{compact, read_disk};
use crate::toolbox::{MIB, is_installed, noise, python, run, skip, sparse, text, try_run, write_at};

const DISK: u64 = 9 * MIB;

/// How an image stores its disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Request {
    Nothing,
    KeepBlocks,
    OtherBlocks,
    Zeros,
    Scrub,
    OtherFormat,
    ToDynamic,
    Flatten,
}

const KINDS: [Kind; 3] = [Kind::Fixed, Kind::Dynamic, Kind::Differencing];
const REQUESTS: [Request; 8] = [
    Request::Nothing,
    Request::KeepBlocks,
    Request::OtherBlocks,
    Request::Zeros,
    Request::Scrub,
    Request::OtherFormat,
    Request::ToDynamic,
    Request::Flatten,
];

impl Request {
    fn options(self, kind: Kind, format: Container) -> Options {
        let mut options = Options { block_size: BlockSizeChoice::Keep, ..Options::default() };
        match self {
            Self::KeepBlocks => {}
            Self::Nothing => options.block_size = BlockSizeChoice::default(),
            Self::OtherBlocks => {
                let size = if format == Container::Vhd { MIB / 2 } else { 4 * MIB };
                options.block_size = BlockSizeChoice::Exactly(size);
            }
            Self::Zeros => options.mode = Mode::Zero,
            Self::Scrub => options.scrub = true,
            Self::OtherFormat => {
                options.format = Some(if format == Container::Vhd { Format::Vhdx } else { Format::Vhd });
            }
            Self::ToDynamic => options.to_dynamic = true,
            Self::Flatten => options.flatten = true,
        }
        // A fixed image and a chain change nothing but their kind besides.
        options.to_dynamic |= kind == Kind::Fixed;
        options.flatten |= kind == Kind::Differencing && self == Self::OtherFormat;
        options
    }

    /// Whether it can be asked for at all, and otherwise the reason of the refusal.
    fn refusal(self, kind: Kind, maker: &str, sector_size: u64) -> Option<ErrorKind> {
        match (self, kind) {
            (Self::OtherFormat, _) if sector_size != 512 => Some(ErrorKind::Unsupported),
            (Self::OtherBlocks, _) if maker == "XenServer" => Some(ErrorKind::InvalidArgument),
            (Self::OtherBlocks, Kind::Differencing) => Some(ErrorKind::InvalidArgument),
            _ => None,
        }
    }
}

/// An image with its parent, if it has one, and the bytes of its disk.
struct Made {
    image: PathBuf,
    parents: Vec<PathBuf>,
    disk: Vec<u8>,
}

fn make(shape: &Shape, kind: Kind, dir: &Path) -> Made {
    let name = |what: &str| dir.join(format!("{what}.{}", shape.format().extension()));
    let (base, disk) = (dir.join("base.raw"), dir.join("disk.raw"));
    sparse(&base, DISK);
    for (n, block) in [0, 2, 5, 8].into_iter().enumerate() {
        write_at(&base, block * MIB + 512 * n as u64, &noise(MIB / 2, block + 1));
    }
    fs::copy(&base, &disk).unwrap();
    let (image, parents) = match kind {
        Kind::Fixed => {
            shape.clone().fixed().write(&disk, &name("image")).unwrap();
            (name("image"), Vec::new())
        }
        Kind::Dynamic => {
            shape.clone().storing_zeros().write(&disk, &name("image")).unwrap();
            (name("image"), Vec::new())
        }
        Kind::Differencing => {
            shape.write(&base, &name("base")).unwrap();
            write_at(&disk, 2 * MIB + 4096, &noise(8192, 77));
            write_at(&disk, 6 * MIB, &noise(MIB, 78));
            let parent = Parent { image: &name("base"), disk: &base };
            shape.write_child(&disk, &name("image"), &parent).unwrap();
            (name("image"), vec![name("base")])
        }
    };
    Made { image, parents, disk: fs::read(disk).unwrap() }
}

/// What QEMU, 7-Zip and libvhdi say of an image without a parent.
fn judge(image: &Path, disk: &[u8], sector_size: u64) {
    let is_vhdx = fs::read(image).unwrap().starts_with(b"vhdxfile");
    let [qemu, zip] = if is_vhdx { ["vhdx", "-tvhdx"] } else { ["vpc", "-tvhd"] };
    let same = |program: &str, found: &[u8]| {
        // QEMU and Virtual PC round a VHD's disk to its geometry.
        let len = found.len().min(disk.len());
        assert!(len > disk.len() - MIB as usize, "{program}: {} of {} bytes", found.len(), disk.len());
        assert!(found[..len] == disk[..len], "{program} reads {} differently", text(image));
    };
    // QEMU knows no other logical sectors in a VHDX.
    if is_installed("qemu-img") && sector_size == 512 {
        run("qemu-img", &["info", "-f", qemu, text(image)]);
        if is_vhdx {
            run("qemu-img", &["check", "-f", qemu, text(image)]);
        }
        let raw = image.with_extension("qemu");
        run("qemu-img", &["convert", "-f", qemu, "-O", "raw", text(image), text(&raw)]);
        same("QEMU", &fs::read(raw).unwrap());
    }
    if is_installed("7zz") {
        let told = run("7zz", &["t", zip, text(image)]);
        assert!(told.contains("Everything is Ok") && !told.contains("WARNING"), "{told}");
        same("7-Zip", &try_run("7zz", &["x", "-so", zip, text(image)]).stdout);
    }
}

/// What libvhdi reads of an image without a parent.
fn judge_by_libvhdi(python: &str, image: &Path, disk: &[u8]) {
    const READ: &str = "
import sys, pyvhdi
disk = pyvhdi.file(); disk.open(sys.argv[1])
left = disk.get_media_size()
while left > 0:
    data = disk.read(min(4 << 20, left)); left -= len(data); sys.stdout.buffer.write(data)
    assert data";
    let found = try_run(python, &["-c", READ, text(image)]);
    assert!(found.status.success(), "libvhdi refuses {}", text(image));
    let len = found.stdout.len().min(disk.len());
    assert!(found.stdout[..len] == disk[..len], "libvhdi reads {} differently", text(image));
}

/// Every kind and request for images of one maker.
fn every_cell(maker: &str, shape: &Shape) {
    let python = python("pyvhdi");
    for program in ["qemu-img", "7zz"] {
        if !is_installed(program) {
            skip(&format!("{program} is not installed"));
        }
    }
    let mut written = 0;
    for (kind, request) in KINDS.into_iter().flat_map(|kind| REQUESTS.map(|request| (kind, request))) {
        let dir = tempfile::tempdir().unwrap();
        let made = make(shape, kind, dir.path());
        let parents: Vec<&Path> = made.parents.iter().map(PathBuf::as_path).collect();
        let what = format!("{maker}, {kind:?}, {request:?}");
        // What the test makes for XenServer lacks the batmap.
        let broken = broken_rules(&made.image).unwrap();
        assert!(broken.iter().all(|rule| rule.starts_with("XenServer")), "{what}, as made: {broken:?}");
        let output = dir.path().join("new");
        let result = compact(&made.image, &parents, &output, request.options(kind, shape.format()));
        let flat = match (result, request.refusal(kind, maker, shape.bytes_a_sector())) {
            (Ok(_), None) => kind != Kind::Differencing || request.options(kind, shape.format()).flatten,
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), expected, "{what}: {error}");
                continue;
            }
            (Ok(_), Some(_)) => panic!("{what}: this was to be refused"),
            (Err(error), None) => panic!("{what}: {error}"),
        };
        written += 1;
        assert_eq!(broken_rules(&output).unwrap(), [""; 0], "{what}");
        let below: &[&Path] = if flat { &[] } else { &parents };
        assert!(read_disk(&output, below).unwrap() == made.disk, "{what}: the disk changed");
        if flat {
            judge(&output, &made.disk, shape.bytes_a_sector());
            if let Some(python) = &python {
                judge_by_libvhdi(python, &output, &made.disk);
            }
        }
    }
    assert!(written >= 18, "{maker}: {written} images were written");
}

fn vhd(creator: Creator) -> Shape {
    Shape::vhd().creator(creator)
}

#[test]
fn windows_takes_every_vhd_back() {
    every_cell("Windows", &vhd(Creator::Windows));
}

#[test]
fn virtual_pc_takes_every_vhd_back() {
    every_cell("Virtual PC", &vhd(Creator::VirtualPc));
}

#[test]
fn qemu_takes_every_vhd_back() {
    every_cell("QEMU", &vhd(Creator::Qemu));
}

#[test]
fn virtualbox_takes_every_vhd_back() {
    every_cell("VirtualBox", &vhd(Creator::VirtualBox));
}

#[test]
fn xenserver_takes_every_vhd_back() {
    every_cell("XenServer", &vhd(Creator::XenServer));
}

#[test]
fn hyper_v_takes_every_vhdx_back() {
    every_cell("Hyper-V", &Shape::vhdx().block_size(2 * MIB));
    every_cell("Hyper-V, sectors of 4 KiB", &Shape::vhdx().block_size(MIB).sector_size(4096));
}
