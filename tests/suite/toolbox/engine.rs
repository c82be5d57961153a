//! Running a compaction natively, as a host does.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use vhd_compactor::compact::{
    Analysis, Fresh, Input, Layout, Options, Outcome, Plan, Scan, Verdict, Verification,
};
use vhd_compactor::image::{self, Disk, DiskType, Piece};
use vhd_compactor::io::{NativeFile, ReadAt};
use vhd_compactor::{Error, Result};

/// A file as an input of the core.
pub fn input(path: &Path) -> Result<Input> {
    let file = Rc::new(NativeFile::open(path)?);
    Ok(Input { file, name: path.display().to_string(), modified: None })
}

/// Opens an image with its parents.
pub fn analyse(path: &Path, parents: &[&Path]) -> Result<Analysis> {
    Analysis::open(input(path)?, parents.iter().map(|p| input(p)).collect::<Result<_>>()?)
}

/// Executes a layout into a file, as a host does: source ranges are bytes of the files as they lie there
/// (`files`: the image, then its parents as given), whatever a log says of them.
pub fn write(
    layout: &mut Layout,
    analysis: &Analysis,
    plan: &Plan,
    files: &[&Path],
    output: &Path,
) -> Result<()> {
    let sources: Vec<NativeFile> = files.iter().map(NativeFile::open).collect::<Result<_>>()?;
    let mut file = File::create(output).unwrap();
    let mut at = 0;
    loop {
        let pieces = layout.next_pieces(&analysis.disk, plan, 64, 1 << 20)?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            file.seek(SeekFrom::Start(at)).unwrap();
            match &piece {
                Piece::Zeros(_) => {}
                Piece::Bytes(bytes) => file.write_all(bytes).unwrap(),
                Piece::Source { layer, range } => {
                    let source = &sources[analysis.files[*layer]];
                    let mut buf = vec![0; 4 << 20];
                    let mut from = range.start;
                    while from < range.end {
                        let n = (range.end - from).min(buf.len() as u64);
                        source.read_exact_at(from, &mut buf[..n as usize])?;
                        file.write_all(&buf[..n as usize]).unwrap();
                        from += n;
                    }
                }
            }
            at += piece.len();
        }
    }
    assert_eq!(at, layout.outcome().size, "the size that was promised is the size that was written");
    file.set_len(at).unwrap();
    Ok(())
}

/// Compacts `source` into `output` and verifies it.
pub fn compact(
    source: &Path,
    parents: &[&Path],
    output: &Path,
    options: Options,
) -> Result<(Outcome, Verdict)> {
    let analysis = analyse(source, parents)?;
    let plan = Plan::new(&analysis.disk, analysis.free(&options)?, options)?;
    let mut scan = Scan::new(&plan)?;
    while !scan.step(&analysis.disk, &plan, 1 << 20)?.finished {}
    let id = |n: u128| uuid::Uuid::from_u128(0x1234_5678_9abc_4def_8000_0000_0000_0000 + n);
    let fresh = Fresh { file_write: id(1), data_write: id(2), disk: id(3), time_stamp: 0 };
    let mut layout = Layout::new(&analysis.disk, &plan, scan, &fresh)?;
    let files: Vec<&Path> = std::iter::once(source).chain(parents.iter().copied()).collect();
    write(&mut layout, &analysis, &plan, &files, output)?;
    let mut layers = vec![Rc::new(image::open(input(output)?.file)?)];
    if plan.target.disk_type == DiskType::Differencing {
        layers.extend(analysis.disk.layers()[1..].iter().cloned());
    }
    let disk = Disk::new(layers)?;
    let may_differ = layout.may_differ(&plan);
    let mut verification = Verification::new(&analysis.disk, &disk, may_differ, !plan.recomposes())?;
    while !verification.step(&analysis.disk, &disk, 8 << 20)?.finished {}
    Ok((layout.outcome(), verification.verdict().clone()))
}

/// The whole virtual disk of an image, for small ones.
pub fn read_disk(path: &Path, parents: &[&Path]) -> Result<Vec<u8>> {
    let analysis = analyse(path, parents)?;
    vhd_compactor::io::read_vec(&analysis.disk, 0, analysis.disk.size() as usize)
}

/// The error that an expression gave.
pub fn refused<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error,
    }
}
