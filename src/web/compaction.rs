//! A compaction, step by step: scan, then pieces, then verification.

use std::rc::Rc;

use js_sys::{Array, Object, Reflect, Uint8Array};
use tsify::Ts;
use uuid::Uuid;
use wasm_bindgen::prelude::*;

use super::error::{give, to_js};
use super::report::{BlockMapReport, CompactOutcome, ProgressReport, VerificationReport};
use super::source::{JsSource, from_number, number, since_2000};
use crate::compact::findings::{self, fingerprint};
use crate::compact::{Analysis, Fresh, Layout, Plan, Scan, Verification, block_map, mapped};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::Extents;
use crate::image::{self, Disk, DiskType, Piece};

/// Pieces given at once, at most.
const MAX_PIECES: usize = 256;
/// Made bytes given at once, at most.
const MAX_MADE: u64 = 8 << 20;

/// A compaction under way. The order of calls is `scanStep` until finished, `layOut`, `nextPieces`
/// until empty, then perhaps `startVerification` and `verificationStep` until finished.
#[wasm_bindgen]
pub struct Compaction {
    analysis: Rc<Analysis>,
    plan: Plan,
    file_size: u64,
    mapped: Extents,
    phase: Phase,
    scan_read: u64,
    verification: Option<(Disk, Verification)>,
    verified: bool,
}

enum Phase {
    Scan(Box<Scan>),
    Layout(Box<Layout>),
    Between,
}

impl Compaction {
    pub(super) fn new(analysis: &Rc<Analysis>, plan: Plan, file_size: u64) -> Result<Self> {
        Ok(Self {
            mapped: mapped(analysis),
            analysis: Rc::clone(analysis),
            phase: Phase::Scan(Box::new(Scan::new(&plan)?)),
            plan,
            file_size,
            scan_read: 0,
            verification: None,
            verified: false,
        })
    }

    fn layout(&self) -> Result<&Layout> {
        match &self.phase {
            Phase::Layout(layout) => Ok(layout),
            _ => Err(out_of_order()),
        }
    }

    fn lay_out_now(&mut self) -> Result<CompactOutcome> {
        let Phase::Scan(scan) = std::mem::replace(&mut self.phase, Phase::Between) else {
            return Err(out_of_order());
        };
        let readings_differ = scan.readings_differ();
        let layout = Layout::new(&self.analysis.disk, &self.plan, *scan, &fresh())?;
        let outcome =
            CompactOutcome::new(&self.analysis, &self.plan, &layout, self.file_size, readings_differ)?;
        self.phase = Phase::Layout(Box::new(layout));
        Ok(outcome)
    }

    fn open_output(&self, output: &JsSource) -> Result<(Disk, Verification)> {
        let layout = self.layout()?;
        let opened = image::open(output.input()?.file)?;
        let mut layers = vec![Rc::new(opened)];
        if self.plan.target.disk_type == DiskType::Differencing {
            layers.extend(self.analysis.disk.layers().iter().skip(1).cloned());
        }
        let disk = Disk::new(layers)?;
        let may_differ = layout.may_differ(&self.plan);
        let verification =
            Verification::new(&self.analysis.disk, &disk, may_differ, !self.plan.recomposes())?;
        Ok((disk, verification))
    }
}

#[wasm_bindgen]
impl Compaction {
    /// Looks for zeros until about `budget` bytes are read.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = scanStep)]
    pub fn scan_step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        let Phase::Scan(scan) = &mut self.phase else { return Err(to_js(&out_of_order())) };
        let progress = scan.step(&self.analysis.disk, &self.plan, from_number(budget).unwrap_or(1));
        self.scan_read = scan.bytes_read();
        give(progress.map(ProgressReport::from))
    }

    /// What the scan has found so far, as bytes that may be kept for a repeat; nothing once it is over.
    /// `files` is what is known of the files besides their contents: names, sizes, times.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = saveFindings)]
    pub fn save_findings(&self, files: &str) -> Result<Option<Vec<u8>>, JsValue> {
        let Phase::Scan(scan) = &self.phase else { return Ok(None) };
        let print = fingerprint(&self.analysis.disk, &self.plan, files).map_err(|error| to_js(&error))?;
        Ok(Some(findings::save(scan, &print)))
    }

    /// Goes on where an earlier scan of the same files with the same options stopped. False where the
    /// findings are another's or damaged: then nothing of them is used.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = resumeFindings)]
    pub fn resume_findings(&mut self, files: &str, bytes: &[u8]) -> Result<bool, JsValue> {
        let resumed = fingerprint(&self.analysis.disk, &self.plan, files)
            .and_then(|print| findings::resume(&self.plan, &print, bytes));
        match resumed.map_err(|error| to_js(&error))? {
            Some(scan) if matches!(self.phase, Phase::Scan(_)) => {
                self.phase = Phase::Scan(Box::new(scan));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// After the scan: what was decided and how large the new image is, exactly.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = layOut)]
    pub fn lay_out(&mut self) -> Result<Ts<CompactOutcome>, JsValue> {
        give(self.lay_out_now())
    }

    /// The next pieces of the new image, in order; an empty list after the last.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = nextPieces, unchecked_return_type = "Piece[]")]
    pub fn next_pieces(&mut self) -> Result<Array, JsValue> {
        let Phase::Layout(layout) = &mut self.phase else { return Err(to_js(&out_of_order())) };
        let pieces = layout
            .next_pieces(&self.analysis.disk, &self.plan, MAX_PIECES, MAX_MADE)
            .map_err(|error| to_js(&error))?;
        let files = &self.analysis.files;
        pieces.iter().map(|piece| piece_to_js(piece, files)).collect()
    }

    /// Payload bytes that the scan has read.
    #[wasm_bindgen(getter, js_name = bytesRead)]
    #[must_use]
    pub fn bytes_read(&self) -> f64 {
        number(self.scan_read)
    }

    /// The disk as a picture of at most `cells` cells, as far as is known by now.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = blockMap)]
    pub fn block_map(&self, cells: u32) -> Result<Ts<BlockMapReport>, JsValue> {
        let found = match &self.phase {
            Phase::Scan(scan) => Some((scan.out(), scan.settled_up_to())),
            Phase::Layout(layout) => Some((layout.out(), u64::MAX)),
            Phase::Between => None,
        };
        let map = block_map(&self.plan, &self.mapped, found, u64::from(cells));
        give(map.map(BlockMapReport::from))
    }

    /// Opens what was written, to compare it with the source.
    ///
    /// # Errors
    /// A `CompactorError`: the output must be a valid image.
    #[wasm_bindgen(js_name = startVerification)]
    pub fn start_verification(&mut self, output: &JsSource) -> Result<(), JsValue> {
        self.verification = Some(self.open_output(output).map_err(|error| to_js(&error))?);
        Ok(())
    }

    /// Compares until about `budget` bytes are read.
    ///
    /// # Errors
    /// A `CompactorError` at the first byte that differs and may not.
    #[wasm_bindgen(js_name = verificationStep)]
    pub fn verification_step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        let Some((output, verification)) = &mut self.verification else { return Err(to_js(&out_of_order())) };
        let progress = verification.step(&self.analysis.disk, output, from_number(budget).unwrap_or(1));
        self.verified = progress.as_ref().is_ok_and(|progress| progress.finished);
        give(progress.map(ProgressReport::from))
    }

    /// What the verification found; nothing before it is finished.
    ///
    /// # Errors
    /// None in practice.
    pub fn verification(&self) -> Result<Option<Ts<VerificationReport>>, JsValue> {
        let finished = self.verification.as_ref().filter(|_| self.verified);
        finished
            .map(|(_, verification)| give(Ok(VerificationReport::from(verification.verdict()))))
            .transpose()
    }
}

/// New identifiers, and the time.
fn fresh() -> Fresh {
    Fresh {
        file_write: Uuid::new_v4(),
        data_write: Uuid::new_v4(),
        disk: Uuid::new_v4(),
        time_stamp: since_2000(js_sys::Date::now()).unwrap_or_default(),
    }
}

fn out_of_order() -> Error {
    Error::new(ErrorKind::Internal, "the steps of a compaction were called out of order")
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** One piece of a new image: bytes of a file (0 is the image, 1 the first parent as given, …), zeros, or bytes. */
export type Piece =
  | { kind: "source"; file: number; start: number; end: number }
  | { kind: "zeros"; length: number }
  | { kind: "bytes"; bytes: Uint8Array };
"#;

fn piece_to_js(piece: &Piece, files: &[usize]) -> Result<JsValue, JsValue> {
    let object = Object::new();
    let set = |key: &str, value: JsValue| Reflect::set(&object, &key.into(), &value);
    match piece {
        Piece::Source { layer, range } => {
            set("kind", "source".into())?;
            let file = files.get(*layer).ok_or_else(|| to_js(&Error::internal("a layer went missing")))?;
            set("file", number(crate::units::len64(*file)).into())?;
            set("start", number(range.start).into())?;
            set("end", number(range.end).into())?;
        }
        Piece::Zeros(len) => {
            set("kind", "zeros".into())?;
            set("length", number(*len).into())?;
        }
        Piece::Bytes(bytes) => {
            set("kind", "bytes".into())?;
            set("bytes", Uint8Array::from(bytes.as_slice()).into())?;
        }
    }
    Ok(object.into())
}
