//! What these tests share: opening chains, executing a writer's layout, asking the judges.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;
use vhd_compactor::Result;
use vhd_compactor::image::vhdx::{self, Guids, Writer};
use vhd_compactor::image::{
    self, BitmapSource, BlockPlan, BlockState, ContainerWriter, Disk, Image, Metadata, OutState, Piece,
    SectorBitmap,
};
use vhd_compactor::io::{NativeFile, ReadAt, read_vec};

use crate::toolbox::{noise, python, run, sha256, text};

/// New identifiers, the same in every run: each file must have its own, or 7-Zip sees a circle.
pub fn guids() -> Guids {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    Guids {
        file_write: Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_0000_0000 + count),
        data_write: Uuid::from_u128(0xaaaa_aaaa_bbbb_4ccc_8ddd_eeee_0000_0000 + count),
        virtual_disk: Uuid::from_u128(0x9999_9999_8888_4777_8666_5555_0000_0000 + count),
    }
}

pub fn open(path: &Path) -> Image {
    image::open(Rc::new(NativeFile::open(path).unwrap())).unwrap_or_else(|e| panic!("{}: {e}", text(path)))
}

/// The disk of a child and its parents, which must name each other.
pub fn disk(paths: &[&Path]) -> Disk {
    let layers: Vec<Rc<Image>> = paths.iter().map(|path| Rc::new(open(path))).collect();
    for pair in layers.windows(2) {
        assert!(pair[0].parent.as_ref().unwrap().ids.contains(&pair[1].identity));
    }
    Disk::of_layers(layers).unwrap()
}

pub fn vhdx_metadata(image: &Image) -> &vhdx::Metadata {
    match &image.metadata {
        Metadata::Vhdx(metadata) => metadata,
        Metadata::Vhd(_) => panic!("this is a VHD"),
    }
}

/// The first 16 digits of the SHA-256 of everything that `reader` holds.
pub fn digest(reader: &dyn ReadAt) -> String {
    sha256(reader)[..16].to_owned()
}

/// The sector bitmaps of an image's own blocks.
pub struct OwnBitmaps<'a>(pub &'a Image);

impl BitmapSource for OwnBitmaps<'_> {
    fn bitmap(&self, block: u64) -> Result<Option<SectorBitmap>> {
        self.0.sector_bitmap(block)
    }
    fn stored_at(&self, _block: u64) -> Option<Range<u64>> {
        None
    }
}

/// No sector bitmaps: every block is its own.
pub struct NoBitmaps;

impl BitmapSource for NoBitmaps {
    fn bitmap(&self, _block: u64) -> Result<Option<SectorBitmap>> {
        Ok(None)
    }
    fn stored_at(&self, _block: u64) -> Option<Range<u64>> {
        None
    }
}

/// Keeps every block that is present, and drops none into another state than it reads as.
pub fn keep_all(image: &Image) -> BlockPlan {
    let mut plan = BlockPlan::new(image.block_count()).unwrap();
    for block in 0..image.block_count() {
        plan.set(
            block,
            match image.blocks.get(block) {
                BlockState::NotPresent => OutState::NotPresent,
                BlockState::Zero | BlockState::Undefined | BlockState::Unmapped => OutState::Zero,
                BlockState::Present(_) => OutState::Present,
                BlockState::PartiallyPresent(_) => OutState::PartiallyPresent,
            },
        );
    }
    plan.seal();
    plan
}

/// Executes the layout of `writer`; `payload` gives the pieces of each stored block, which may name bytes
/// of `source`.
pub fn write(
    writer: &Writer,
    plan: &BlockPlan,
    bitmaps: &dyn BitmapSource,
    source: &dyn ReadAt,
    output: &Path,
    payload: &mut dyn FnMut(u64) -> Vec<Piece>,
) {
    let mut file = File::create(output).unwrap();
    let mut at = 0;
    let mut put = |pieces: Vec<Piece>| {
        for piece in pieces {
            file.seek(SeekFrom::Start(at)).unwrap();
            match &piece {
                Piece::Zeros(_) => {}
                Piece::Bytes(bytes) => file.write_all(bytes).unwrap(),
                Piece::Source { range, .. } => {
                    let mut from = range.start;
                    while from < range.end {
                        let len = (range.end - from).min(1 << 20);
                        let bytes = read_vec(source, from, len as usize).unwrap();
                        // Runs of zeros become holes, so that large test files stay small.
                        if bytes.iter().any(|&byte| byte != 0) {
                            file.seek(SeekFrom::Start(at + from - range.start)).unwrap();
                            file.write_all(&bytes).unwrap();
                        }
                        from += len;
                    }
                }
            }
            at += piece.len();
        }
        file.set_len(at).unwrap();
    };
    let mut step = 0;
    while let Some(pieces) = writer.front(plan, bitmaps, step).unwrap() {
        put(pieces);
        step += 1;
    }
    let mut from = 0;
    while let Some(block) = plan.next_stored(from) {
        put(writer.before_payload(block, bitmaps).unwrap());
        let pieces = payload(block);
        assert_eq!(pieces.iter().map(Piece::len).sum::<u64>(), writer.block_size().get());
        put(pieces);
        from = block + 1;
    }
    put(writer.tail(plan).unwrap());
    assert_eq!(at, writer.file_size(plan).unwrap(), "the promised size is the written size");
    assert_eq!(at % (1 << 20), 0);
}

/// Where the payload of a block of `image` lies; what the log patches is carried as bytes, and what
/// the file does not reach as zeros.
pub fn own_payload(image: &Image, block: u64) -> Vec<Piece> {
    let at = image.blocks.get(block).payload().unwrap();
    let size = image.geometry.block_size.get();
    let have = size.min(image.container.size() - at.get());
    let piece = if image.container.is_verbatim(at, have) {
        Piece::Source { file: 0, range: at.get()..at.get() + have }
    } else {
        Piece::Bytes(read_vec(&image.container, at.get(), have as usize).unwrap())
    };
    vec![piece, Piece::Zeros(size - have)]
}

/// Writes `source` anew with all that it stores.
pub fn rewrite(source: &Path, output: &Path) {
    let image = open(source);
    let disk_type = match image.disk_type {
        image::DiskType::Fixed => image::DiskType::Dynamic,
        other => other,
    };
    let writer = Writer::like(
        vhdx_metadata(&image),
        &image.geometry,
        disk_type,
        image.geometry.block_size,
        &guids(),
        false,
    )
    .unwrap();
    write(&writer, &keep_all(&image), &OwnBitmaps(&image), &image.container, output, &mut |block| {
        own_payload(&image, block)
    });
}

/// Asks 7-Zip: structure, and every byte of the disk. A parent must lie beside under its own name.
pub fn judge_7zip(image: &Path, expected: &str) {
    let args = ["t", "-tvhdx", text(image)];
    let told = run("7zz", &args);
    assert!(told.contains("Everything is Ok"), "{told}");
    let script = format!("7zz x -so -tvhdx '{}' | sha256sum", text(image));
    let found = run("sh", &["-c", &script]);
    assert_eq!(&found[..16], expected, "7zz reads {} differently", text(image));
}

/// Asks libvhdi or dissect for every byte of the disk, through the parents, where Python has them.
pub fn judge_python(library: &str, paths: &[&Path], expected: &str) {
    const LIBVHDI: &str = "
import sys, hashlib, pyvhdi
files = []
for path in sys.argv[1:]:
    file = pyvhdi.file(); file.open(path); files.append(file)
for child, parent in zip(files, files[1:]):
    assert child.get_parent_identifier() == parent.get_identifier(), 'parent identifiers differ'
    child.set_parent(parent)
disk, size = files[0], files[0].get_media_size()
digest, at = hashlib.sha256(), 0
while at < size:
    data = disk.read(min(4 << 20, size - at)); digest.update(data); at += len(data)
    assert data
print(digest.hexdigest()[:16])";
    const DISSECT: &str = "
import sys, hashlib
from pathlib import Path
from dissect.hypervisor.disk import vhdx
disk = vhdx.VHDX(Path(sys.argv[1]))
stream = disk.open() if hasattr(disk, 'open') else disk
size = disk.size
digest, at = hashlib.sha256(), 0
while at < size:
    data = stream.read(min(4 << 20, size - at)); digest.update(data); at += len(data)
    assert data
print(digest.hexdigest()[:16])";
    let script = if library == "pyvhdi" { LIBVHDI } else { DISSECT };
    let Some(python) = python(library) else { return };
    let args = [vec!["-c", script], paths.iter().map(|path| text(path)).collect()].concat();
    assert_eq!(run(&python, &args).trim(), expected, "{library} reads {} differently", text(paths[0]));
}

/// A raw disk of `blocks` MiB that holds text, patterns, zeros and sparse sectors, told apart by `seed`.
pub fn raw_disk(path: &Path, blocks: u64, seed: u64) {
    let mut file = File::create(path).unwrap();
    for block in 0..blocks {
        let mut bytes = vec![0u8; 1 << 20];
        match (block * 7 + seed) % 5 {
            0 => {}
            1 => bytes.fill(block as u8 | 1),
            2 => bytes[700_000..700_512].fill(seed as u8 | 1),
            _ => bytes = noise(1 << 20, block * 1000 + seed),
        }
        if bytes.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(block << 20)).unwrap();
            file.write_all(&bytes).unwrap();
        }
    }
    file.set_len(blocks << 20).unwrap();
}

/// Changes single sectors and whole MiB of a raw disk: what a child differs in.
pub fn change(path: &Path, seed: u64) {
    let mut file = File::options().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    for n in 0..40u64 {
        let at = (n * 7_919 + seed * 104_729) % (size / 4096) * 4096;
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[(n + seed) as u8 | 0x80; 4096]).unwrap();
    }
    let whole = (seed * 3 % (size >> 20)) << 20;
    file.seek(SeekFrom::Start(whole)).unwrap();
    file.write_all(&vec![0x5a; 1 << 20]).unwrap();
}
