//! Running a compaction natively, as a host does.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use odd_images::PlainDisk;
use vhd_compactor::compact::{Analysis, Evidence, Fresh, Input, Options, Outcome, Run, Verdict, estimate};
use vhd_compactor::image::Piece;
use vhd_compactor::io::{NativeFile, ReadAt};
use vhd_compactor::{Error, Result};

/// A file as an input of the core.
pub fn input(path: &Path) -> Result<Input> {
    let file = Rc::new(NativeFile::open(path)?);
    Ok(Input { file, name: path.display().to_string(), modified: None })
}

/// Opens an image with its parents, and hears the second witnesses of its volumes.
pub fn analyse(path: &Path, parents: &[&Path]) -> Result<Analysis> {
    Analysis::open(input(path)?, parents.iter().map(|p| input(p)).collect::<Result<_>>()?)?.hear()
}

/// Executes a laid-out run into a file, as a host does: source ranges are bytes of the files as they lie
/// there (`files`: the image, then its parents as given), whatever a log says of them.
pub fn write(run: &mut Run, files: &[&Path], output: &Path) -> Result<()> {
    let sources: Vec<NativeFile> = files.iter().map(NativeFile::open).collect::<Result<_>>()?;
    let mut written = File::create(output).unwrap();
    let mut at = 0;
    loop {
        let pieces = run.next_pieces(64, 1 << 20)?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            written.seek(SeekFrom::Start(at)).unwrap();
            match &piece {
                Piece::Zeros(_) => {}
                Piece::Bytes(bytes) => written.write_all(bytes).unwrap(),
                Piece::Source { file, range } => {
                    let mut buf = vec![0; 4 << 20];
                    let mut from = range.start;
                    while from < range.end {
                        let n = (range.end - from).min(buf.len() as u64);
                        sources[*file].read_exact_at(from, &mut buf[..n as usize])?;
                        written.write_all(&buf[..n as usize]).unwrap();
                        from += n;
                    }
                }
            }
            at += piece.len();
        }
    }
    let promised = run.layout().unwrap().outcome().size;
    assert_eq!(at, promised, "the size that was promised is the size that was written");
    written.set_len(at).unwrap();
    Ok(())
}

/// Compacts `source` into `output` and proves it, on either kind of evidence; then by a reader of the tests' own.
pub fn compact(
    source: &Path,
    parents: &[&Path],
    output: &Path,
    options: Options,
) -> Result<(Outcome, Verdict)> {
    let analysis = Rc::new(analyse(source, parents)?);
    let (outcome, verdict) = compact_damaged(&analysis, source, parents, output, options)?;
    if !outcome.readings_differ {
        judge_plainly(&analysis, source, parents, output, options)?;
    }
    Ok((outcome, verdict))
}

/// The same for images that may be damaged, which the tests' own reader does not expect.
pub fn compact_damaged(
    analysis: &Rc<Analysis>,
    source: &Path,
    parents: &[&Path],
    output: &Path,
    options: Options,
) -> Result<(Outcome, Verdict)> {
    let mut run = Run::new(analysis, options)?;
    let estimated = estimate(run.plan())?;
    let named: u64 = estimated.parts.iter().map(|part| part.bytes).sum();
    assert_eq!(named, estimated.output_size, "every byte that stays has a name");
    while !run.scan_step(1 << 20)?.finished {}
    let id = |n: u128| uuid::Uuid::from_u128(0x1234_5678_9abc_4def_8000_0000_0000_0000 + n);
    let fresh = Fresh { file_write: id(1), data_write: id(2), disk: id(3), time_stamp: 0 };
    let outcome = run.lay_out(&fresh)?;
    assert!(outcome.size <= estimated.output_size, "the estimate is a promise");
    assert!(!estimated.exact || outcome.size == estimated.output_size, "an exact estimate is exact");
    let files: Vec<&Path> = std::iter::once(source).chain(parents.iter().copied()).collect();
    write(&mut run, &files, output)?;
    run.prove(input(output)?, Evidence::Pieces)?;
    while !run.proof_step(8 << 20)?.finished {}
    let traced = *run.verdict().unwrap();
    run.prove(input(output)?, Evidence::Bytes)?;
    while !run.proof_step(8 << 20)?.finished {}
    let read = *run.verdict().unwrap();
    assert_eq!(read.compared, traced.compared + traced.traced + traced.zero, "a byte was not proved");
    Ok((outcome, read))
}

/// Compares both disks by a reader that shares no line with the one that is tested. An image that it does not know
/// (a log to be replayed) is judged by its new image alone being readable.
fn judge_plainly(
    analysis: &Analysis,
    source: &Path,
    parents: &[&Path],
    output: &Path,
    options: Options,
) -> Result<()> {
    let layers: Vec<&Path> = (1..=parents.len())
        .filter_map(|layer| analysis.file_of(layer).ok())
        .map(|file| parents[file - 1])
        .collect();
    let after = PlainDisk::open(output, &layers).unwrap();
    if let (Some(before), Some(after)) = (PlainDisk::open(source, &layers).unwrap(), &after) {
        let free = analysis.free(&options)?;
        let differs = before.first_difference(after, free.ranges()).unwrap();
        assert_eq!(differs, None, "{}: a used byte was lost", source.display());
    }
    Ok(())
}

/// The whole virtual disk of an image, for small ones.
pub fn read_disk(path: &Path, parents: &[&Path]) -> Result<Vec<u8>> {
    let analysis = analyse(path, parents)?;
    vhd_compactor::io::read_vec(analysis.disk(), 0, analysis.disk().size() as usize)
}

/// The error that an expression gave.
pub fn refused<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error,
    }
}
