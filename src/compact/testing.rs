//! Running compactions in memory, with free space that a test makes up.

use std::rc::Rc;

use super::analysis::Analysis;
use super::comparison::{Comparison, Verdict};
use super::layout::{Layout, Pieces};
use super::options::Options;
use super::plan::Plan;
use super::proof::{Evidence, terms};
use super::scan::Scan;
use super::target::Fresh;
use crate::Result;
use crate::extents::Extents;
use crate::image::{self, Disk, DiskType, Image, Piece};
use crate::io::ReadAt;

/// The image in the bytes of a file.
pub fn image_of(file: &[u8]) -> Image {
    let file: Rc<dyn ReadAt> = Rc::new(file.to_vec());
    image::open(file).unwrap()
}

/// The disk of a file without parents.
pub fn disk_of(file: &[u8]) -> Disk {
    Disk::single(image_of(file))
}

/// A disk of which `free` is free, as if a file system had said so.
pub fn analysis(disk: Disk, free: Extents) -> Rc<Analysis> {
    let files = (0..disk.layers().count()).collect();
    Rc::new(Analysis::with_free(disk, files, free))
}

/// The plan for such a disk.
pub fn plan(disk: Disk, free: Extents, options: Options) -> Result<Rc<Plan>> {
    Plan::new(&analysis(disk, free), options).map(Rc::new)
}

/// Scans to the end, with steps of `budget`, and lays out.
pub fn lay_out(plan: &Rc<Plan>, budget: u64, fresh: &Fresh) -> Result<Rc<Layout>> {
    let mut scan = Scan::new(plan)?;
    while !scan.step(budget)?.finished {}
    Layout::new(scan, fresh).map(Rc::new)
}

/// Executes a layout into memory; `files` are the image and its parents, as the analysis numbers them.
pub fn execute(layout: &Rc<Layout>, files: &[&[u8]]) -> Vec<u8> {
    let mut pieces = Pieces::of(layout);
    let mut out = Vec::new();
    loop {
        let next = pieces.next(3, 1 << 20).unwrap();
        if next.is_empty() {
            assert_eq!(
                out.len() as u64,
                layout.outcome().size,
                "the size that was promised is what is written"
            );
            return out;
        }
        for piece in next {
            match piece {
                Piece::Bytes(bytes) => out.extend(bytes),
                Piece::Zeros(len) => out.extend(vec![0; len as usize]),
                Piece::Source { file, range } => {
                    out.extend(&files[file][range.start as usize..range.end as usize]);
                }
            }
        }
    }
}

/// Compares a new image with the source of its layout, without its volumes.
pub fn compare(layout: &Rc<Layout>, output: &[u8], evidence: Evidence) -> Result<Verdict> {
    let source = layout.plan().analysis();
    let opened = image_of(output);
    let disk = if layout.plan().target.disk_type == DiskType::Differencing {
        Disk::new(opened, source.disk().parents().to_vec())?
    } else {
        Disk::single(opened)
    };
    let output = analysis(disk, Extents::new());
    let mut comparison = Comparison::new(Rc::clone(source), output, terms(layout, evidence))?;
    while !comparison.step(1)?.finished {}
    Ok(*comparison.verdict())
}

/// Compares on either kind of evidence; both must come to the same.
pub fn prove(layout: &Rc<Layout>, output: &[u8]) -> Result<()> {
    let read = compare(layout, output, Evidence::Bytes)?;
    let traced = compare(layout, output, Evidence::Pieces)?;
    assert_eq!(read.skipped, traced.skipped);
    assert_eq!(read.compared, traced.compared + traced.traced + traced.zero, "a byte was not proved");
    Ok(())
}
