//! A run: one compaction from plan to proof, in one object.
//!
//! ```text
//!   Analysis (heard) + Options ─► Run ── scan_step … ─► lay_out ─► next_pieces … ─► prove ─► proof_step …
//!                                             │            │            │                         │
//!                                         findings      Outcome   pieces to write              Verdict
//! ```
//! A run owns what it works on, so no step can be given another disk or another plan than the one before it.
//! Calls out of this order are refused.

use std::io::Write;
use std::rc::Rc;

use super::analysis::{Analysis, Input};
use super::blockmap::{BlockMap, block_map};
use super::comparison::Verdict;
use super::findings;
use super::layout::{Layout, Outcome, Pieces};
use super::options::Options;
use super::plan::Plan;
use super::proof::{Evidence, Proof};
use super::scan::{Scan, window_of};
use super::target::Fresh;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Piece;
use crate::io::ReadAt;
use crate::units::{Progress, add, length};

/// How many pieces [`Run::write`] takes at a time.
const MAX_PIECES: usize = 256;
/// How many bytes it copies at a time.
const COPY: u64 = 4 << 20;

/// One compaction under way. See the [module](self).
pub struct Run {
    plan: Rc<Plan>,
    stage: Stage,
    scan_read: u64,
}

enum Stage {
    Scan(Box<Scan>),
    Write {
        layout: Rc<Layout>,
        pieces: Box<Pieces>,
        finished: bool,
    },
    Prove {
        layout: Rc<Layout>,
        proof: Box<Proof>,
        finished: bool,
    },
    /// A step failed.
    Failed,
}

impl Run {
    /// Plans the compaction of what `analysis` tells of.
    ///
    /// # Errors
    /// `internal` while a second witness is still to be heard: nothing free is dropped before. What
    /// [`Plan::new`] refuses.
    pub fn new(analysis: &Rc<Analysis>, options: Options) -> Result<Self> {
        if analysis.is_pending() {
            return Err(Error::internal("a compaction was begun before the free space was confirmed"));
        }
        let plan = Rc::new(Plan::new(analysis, options)?);
        let stage = Stage::Scan(Box::new(Scan::new(&plan)?));
        Ok(Self { plan, stage, scan_read: 0 })
    }

    /// What is to be done.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Looks at blocks for about `budget` bytes of reading.
    ///
    /// # Errors
    /// Read errors.
    pub fn scan_step(&mut self, budget: u64) -> Result<Progress> {
        let Stage::Scan(scan) = &mut self.stage else { return Err(out_of_order()) };
        let progress = scan.step(budget);
        self.scan_read = scan.bytes_read();
        progress
    }

    /// About how large the new image gets, as far as a scan under way can foresee it; exact after the scan.
    #[must_use]
    pub fn foreseen_size(&self) -> u64 {
        match &self.stage {
            Stage::Scan(scan) => scan.foreseen_size(),
            _ => self.layout().map_or(self.plan.size, |layout| layout.outcome().size),
        }
    }

    /// Payload bytes that the scan has read.
    #[must_use]
    pub const fn scan_read(&self) -> u64 {
        self.scan_read
    }

    /// What the scan has found so far, as bytes that may be kept for a repeat; none once it is over. `files`
    /// is what the host knows of the files besides their contents: names, sizes, times.
    ///
    /// # Errors
    /// None in practice.
    pub fn save_findings(&self, files: &str) -> Result<Option<Vec<u8>>> {
        let Stage::Scan(scan) = &self.stage else { return Ok(None) };
        Ok(Some(findings::save(scan, &findings::fingerprint(&self.plan, files)?)))
    }

    /// Goes on where an earlier scan of the same files with the same options stopped. False where the
    /// findings are another's or damaged: then nothing of them is used.
    ///
    /// # Errors
    /// As [`Scan::new`]; `internal` after the scan.
    pub fn resume_findings(&mut self, files: &str, bytes: &[u8]) -> Result<bool> {
        let Stage::Scan(scan) = &mut self.stage else { return Err(out_of_order()) };
        let print = findings::fingerprint(&self.plan, files)?;
        let Some(resumed) = findings::resume(&self.plan, &print, bytes)? else { return Ok(false) };
        **scan = resumed;
        Ok(true)
    }

    /// After the scan: lays the new image out. `fresh` is what is new in it.
    ///
    /// # Errors
    /// What the format's writer refuses.
    pub fn lay_out(&mut self, fresh: &Fresh) -> Result<Outcome> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Scan(scan) if scan.is_finished() => {
                let layout = Rc::new(Layout::new(*scan, fresh)?);
                let outcome = layout.outcome();
                let pieces = Box::new(Pieces::of(&layout));
                self.stage = Stage::Write { layout, pieces, finished: false };
                Ok(outcome)
            }
            stage => {
                self.stage = stage;
                Err(out_of_order())
            }
        }
    }

    /// The layout, once there is one.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        match &self.stage {
            Stage::Write { layout, .. } | Stage::Prove { layout, .. } => Some(layout),
            Stage::Scan(_) | Stage::Failed => None,
        }
    }

    /// The next pieces of the new image, in order: about `max_pieces`, and at most about `max_bytes` of made
    /// bytes. Empty after the last.
    ///
    /// # Errors
    /// Read errors, where bytes must be composed.
    pub fn next_pieces(&mut self, max_pieces: usize, max_bytes: u64) -> Result<Vec<Piece>> {
        let Stage::Write { pieces, finished, .. } = &mut self.stage else { return Err(out_of_order()) };
        let next = pieces.next(max_pieces, max_bytes)?;
        *finished = next.is_empty();
        Ok(next)
    }

    /// Writes all pieces to `out`, one after another. `files` are the image and its parents, in the order in
    /// which they were given to [`Analysis::open`](super::Analysis::open). For hosts that have no better way.
    ///
    /// # Errors
    /// Read errors; `write-failed` where `out` fails.
    pub fn write(&mut self, files: &[Rc<dyn ReadAt>], out: &mut dyn Write) -> Result<()> {
        let failed = |error: std::io::Error| Error::new(ErrorKind::WriteFailed, error.to_string());
        let mut buffer = Vec::new();
        loop {
            let pieces = self.next_pieces(MAX_PIECES, COPY)?;
            if pieces.is_empty() {
                return out.flush().map_err(failed);
            }
            for piece in pieces {
                let len = piece.len();
                let mut done = 0;
                while done < len {
                    let n = COPY.min(length(&(done..len)));
                    let end = add(done, n, "a place in a piece")?;
                    let part = window_of(&mut buffer, n)?;
                    match &piece {
                        Piece::Zeros(_) => part.fill(0),
                        Piece::Bytes(bytes) => bytes.read_exact_at(done, part)?,
                        Piece::Source { file, range } => {
                            let file =
                                files.get(*file).ok_or_else(|| Error::internal("a file was not given"))?;
                            file.read_exact_at(add(range.start, done, "a place in a file")?, part)?;
                        }
                    }
                    out.write_all(part).map_err(failed)?;
                    done = end;
                }
            }
        }
    }

    /// Opens what was written, to prove it. May be called again, for the same file at another place.
    ///
    /// # Errors
    /// `internal` before all pieces were given; what opening the output gives.
    pub fn prove(&mut self, output: Input, evidence: Evidence) -> Result<()> {
        let layout = match &self.stage {
            Stage::Write { layout, finished: true, .. } | Stage::Prove { layout, .. } => Rc::clone(layout),
            _ => return Err(out_of_order()),
        };
        let proof = Box::new(Proof::of_layout(&layout, output, evidence)?);
        self.stage = Stage::Prove { layout, proof, finished: false };
        Ok(())
    }

    /// Goes on with the proof for about `budget` bytes of reading.
    ///
    /// # Errors
    /// `differs` at the first thing that is not as it was; read errors.
    pub fn proof_step(&mut self, budget: u64) -> Result<Progress> {
        let Stage::Prove { proof, finished, .. } = &mut self.stage else { return Err(out_of_order()) };
        let progress = proof.step(budget)?;
        *finished = progress.finished;
        Ok(progress)
    }

    /// What a finished proof found.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.stage {
            Stage::Prove { proof, finished: true, .. } => proof.verdict(),
            _ => None,
        }
    }

    /// The disk as a picture of at most `cells` cells, as far as is known by now.
    ///
    /// # Errors
    /// None in practice.
    pub fn block_map(&self, cells: u64) -> Result<BlockMap> {
        let found = match &self.stage {
            Stage::Scan(scan) => Some((scan.out(), scan.settled_up_to())),
            Stage::Write { layout, .. } | Stage::Prove { layout, .. } => Some((layout.out(), u64::MAX)),
            Stage::Failed => None,
        };
        block_map(&self.plan, found, cells)
    }
}

fn out_of_order() -> Error {
    Error::internal("the steps of a compaction were called out of order")
}
