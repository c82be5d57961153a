//! What must hold whatever the image says.

use std::ops::Range;
use std::rc::Rc;

use uuid::Uuid;
use vhd_compactor::compact::{Analysis, Evidence, Fresh, Input, Mode, Options, Outcome, Run, estimate};
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, FreeMap, Mapping, detect};
use vhd_compactor::image::{Disk, Piece};
use vhd_compactor::io::ReadAt;
use vhd_compactor::volume::enumerate;
use vhd_compactor::{Error, ErrorKind};

use crate::case::Case;
use crate::pages::Pages;
use crate::seeds::input;

/// Larger disks are planned, and not run.
const LARGEST_RUN: u64 = 48 << 20;
/// Steps that no small image needs: more are an endless loop.
const MAX_STEPS: u32 = 200_000;

/// A refusal is fine, a fault of the program is not.
fn refused(error: &Error) {
    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
}

/// Free space is normalised, inside the volume, as large as it says, and not also held back.
fn check_map(map: &FreeMap, size: u64) {
    let normal = |extents: &Extents| {
        assert_eq!(Extents::from_ranges(extents.ranges().to_vec()), *extents, "not normalised");
        assert!(
            extents.ranges().last().is_none_or(|last| last.end <= size),
            "past the end of {size}: {extents:?}"
        );
    };
    normal(&map.free);
    for (request, extents) in &map.on_request {
        normal(extents);
        assert!(extents.ranges().iter().all(|r| !map.free.intersects(r.clone())), "{request:?} is free, too");
    }
    assert!(map.free.total() <= map.free_bytes, "more is free than the volume counts");
}

/// Recognises and maps a volume, and hears its second witness.
pub fn volume(case: &Case<'_>) -> bool {
    let volume: &dyn ReadAt = &*case.files[0];
    if let Err(error) = enumerate(&volume, 512) {
        refused(&error);
    }
    let mut found = detect(volume, Context { sector_size: 512 });
    if let Mapping::Mapped(map) = &found.mapping {
        check_map(map, volume.size());
    }
    steps(|| found.hear(volume, 64 << 10).finished);
    matches!(found.mapping, Mapping::Mapped(_))
}

/// Opens an image with its parents, and looks at everything that needs no scan.
pub fn image(case: &Case<'_>) -> bool {
    let Some(analysis) = analysed(case) else { return false };
    plan(&analysis, Options { mode: Mode::Zero, ..Options::default() });
    plan(&analysis, case.options).is_some()
}

fn analysed(case: &Case<'_>) -> Option<Rc<Analysis>> {
    match open(case, input(0, Rc::<Pages>::clone(&case.files[0]))) {
        Ok(analysis) => Some(Rc::new(analysis)),
        Err(error) => {
            refused(&error);
            None
        }
    }
}

/// Opens an image upon the parents of a case.
fn open(case: &Case<'_>, image: Input) -> Result<Analysis, Error> {
    let parents = (1..case.files.len()).map(|n| input(n, Rc::<Pages>::clone(&case.files[n]))).collect();
    let mut analysis = Analysis::open(image, parents)?;
    for findings in analysis.volumes() {
        if let Mapping::Mapped(map) = &findings.detected.mapping {
            check_map(map, findings.volume.segments.len());
        }
    }
    let mut failed = None;
    steps(|| match analysis.hear_step(64 << 10) {
        Ok(progress) => progress.finished,
        Err(error) => {
            failed = Some(error);
            true
        }
    });
    failed.map_or(Ok(analysis), Err)
}

fn plan(analysis: &Rc<Analysis>, options: Options) -> Option<(Run, u64)> {
    let tried = Run::new(analysis, options).and_then(|run| {
        let estimated = estimate(run.plan())?.output_size;
        let picture = run.block_map(64)?;
        assert!(picture.cells.len() <= 64);
        let free = analysis.free(&options)?;
        let size = analysis.disk().size();
        assert!(free.ranges().last().is_none_or(|last| last.end <= size), "free past the end of the disk");
        Ok((run, estimated))
    });
    tried.map_err(|error| refused(&error)).ok()
}

/// Compacts, proves in both ways, compares, and compacts again.
pub fn engine(case: &Case<'_>) -> bool {
    let Some(analysis) = analysed(case) else { return false };
    if analysis.disk().size() > LARGEST_RUN {
        plan(&analysis, case.options);
        return false;
    }
    let Some((run, estimated)) = plan(&analysis, case.options) else { return false };
    let Some((output, outcome)) = compacted(case, &analysis, run) else { return false };
    assert!(outcome.size <= estimated, "{} bytes, and {estimated} were estimated", outcome.size);

    let result = input(0, Rc::<Pages>::clone(&output));
    let after = if case.options.flatten { Analysis::open(result, Vec::new()) } else { open(case, result) };
    let after = after.unwrap_or_else(|error| panic!("the new image cannot be opened: {error}"));
    let free = analysis.free(&case.options).expect("it was known before");
    let changed = compare(&analysis, &after, &free);
    assert!(outcome.reads_changed || outcome.readings_differ || !changed, "the outcome hides a change");

    // The same again: whatever can go has gone.
    let again = Options { format: None, flatten: false, ..case.options };
    let after = Rc::new(after.hear().expect("hearing ends"));
    if let Ok(run) = Run::new(&after, again) {
        let case = Case {
            seed: case.seed,
            files: [vec![output], case.files[1..].to_vec()].concat(),
            options: again,
        };
        if let Some((_, second)) = compacted(&case, &after, run) {
            assert!(second.size <= outcome.size, "{} became {}", outcome.size, second.size);
        }
    }
    true
}

/// Scans, lays out, writes to memory, and proves. None where the engine refuses, which it may do until it writes.
fn compacted(case: &Case<'_>, analysis: &Rc<Analysis>, mut run: Run) -> Option<(Rc<Pages>, Outcome)> {
    let mut resumed = Run::new(analysis, case.options).expect("it was possible before");
    let mut scanned = 0;
    let tried = try_steps(|| {
        scanned += 1;
        if scanned == 2
            && let Some(kept) = run.save_findings("files")?
        {
            assert!(resumed.resume_findings("files", &kept)?, "findings are not believed");
        }
        Ok(run.scan_step(128 << 10)?.finished)
    });
    let ids = |n: u128| Uuid::from_u128(0x1234_5678_9abc_4def_8000_0000_0000_0000 + n);
    let fresh = Fresh { file_write: ids(1), data_write: ids(2), disk: ids(3), time_stamp: 7 };
    let outcome = tried.and_then(|()| run.lay_out(&fresh)).map_err(|error| refused(&error)).ok()?;

    try_steps(|| Ok(resumed.scan_step(1 << 20)?.finished)).expect("the first scan succeeded");
    let repeated = resumed.lay_out(&fresh).expect("the first layout succeeded");
    assert_eq!(repeated.size, outcome.size, "findings that were kept give another image");

    let mut output = Pages::zeros(outcome.size);
    let mut at = 0;
    let written = try_steps(|| {
        let pieces = run.next_pieces(64, 1 << 20)?;
        for piece in &pieces {
            assert!(at + piece.len() <= outcome.size, "more is written than was promised");
            match piece {
                Piece::Zeros(_) => {}
                Piece::Bytes(bytes) => output.put(at, bytes),
                Piece::Source { file, range } => {
                    for from in (range.start..range.end).step_by(1 << 16) {
                        let part = case.files[*file].bytes(from, (range.end - from).min(1 << 16) as usize);
                        output.put(at + from - range.start, &part);
                    }
                }
            }
            at += piece.len();
        }
        Ok(pieces.is_empty())
    });
    if let Err(error) = written {
        refused(&error);
        return None;
    }
    assert_eq!(at, outcome.size, "less is written than was promised");

    let output = Rc::new(output);
    for evidence in [Evidence::Pieces, Evidence::Bytes] {
        let proved = run.prove(input(0, Rc::<Pages>::clone(&output)), evidence);
        let proved = proved.and_then(|()| try_steps(|| Ok(run.proof_step(1 << 20)?.finished)));
        proved.unwrap_or_else(|error| panic!("not proved by {evidence:?}: {error}"));
        assert!(run.verdict().is_some());
    }
    Some((output, outcome))
}

/// Reads both disks from end to end; whether they differ, which they may only where `free` says so, and where the
/// program that made the image reads it otherwise.
fn compare(before: &Analysis, after: &Analysis, free: &Extents) -> bool {
    let size = before.disk().size().min(after.disk().size());
    let as_its_program = before.disk().as_programs_read();
    let mut differs = false;
    for start in (0..size).step_by(1 << 16) {
        let range = start..(start + (1 << 16)).min(size);
        let [old, new] = [before, after].map(|analysis| read(analysis.disk(), range.clone()));
        let (Some(old), Some(new)) = (old, new) else { continue };
        if old == new {
            continue;
        }
        differs = true;
        let other = read(&as_its_program, range).unwrap_or_default();
        for (n, (old, new)) in old.iter().zip(&new).enumerate() {
            let at = start + n as u64;
            let is_kept = old == new || other.get(n) == Some(new);
            assert!(is_kept || free.contains(at..at + 1), "byte {at} is in use and was lost");
        }
    }
    differs
}

/// None where the disk ends, or what is read there lies in a parent that was not given.
fn read(disk: &Disk, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    disk.read_exact_at(range.start, &mut bytes).map(|()| bytes).ok()
}

fn steps(mut step: impl FnMut() -> bool) {
    assert!((0..MAX_STEPS).any(|_| step()), "it does not end");
}

fn try_steps(mut step: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    for _ in 0..MAX_STEPS {
        if step()? {
            return Ok(());
        }
    }
    panic!("it does not end");
}
