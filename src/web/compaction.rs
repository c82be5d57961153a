//! A compaction, step by step: scan, then pieces, then proof.

use js_sys::{Array, Object, Reflect, Uint8Array};
use tsify::Ts;
use uuid::Uuid;
use wasm_bindgen::prelude::*;

use super::error::{into_js, to_js};
use super::report::{BlockMapReport, CompactOutcome, ProgressReport, VerificationReport};
use super::source::{JsSource, from_number, number, since_2000};
use crate::compact::{Evidence, Fresh, Run};
use crate::error::Result;
use crate::image::Piece;
use crate::units::len64;

/// Pieces given at once, at most.
const MAX_PIECES: usize = 256;
/// Made bytes given at once, at most.
const MAX_MADE: u64 = 8 << 20;

/// A compaction under way. The order of calls is `scanStep` until finished, `layOut`, `nextPieces`
/// until empty, then perhaps `startVerification` and `verificationStep` until finished.
#[wasm_bindgen]
pub struct Compaction {
    run: Run,
}

impl Compaction {
    pub(super) const fn new(run: Run) -> Self {
        Self { run }
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
        into_js(self.run.scan_step(from_number(budget).unwrap_or(1)).map(ProgressReport::from))
    }

    /// About how large the new image gets, as far as the scan can foresee it.
    #[wasm_bindgen(getter, js_name = foreseenSize)]
    #[must_use]
    pub fn foreseen_size(&self) -> f64 {
        number(self.run.foreseen_size())
    }

    /// What the scan has found so far, as bytes that may be kept for a repeat; nothing once it is over.
    /// `files` is what is known of the files besides their contents: names, sizes, times.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = saveFindings)]
    pub fn save_findings(&self, files: &str) -> Result<Option<Vec<u8>>, JsValue> {
        self.run.save_findings(files).map_err(|error| to_js(&error))
    }

    /// Goes on where an earlier scan of the same files with the same options stopped. False where the
    /// findings are another's or damaged: then nothing of them is used.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = resumeFindings)]
    pub fn resume_findings(&mut self, files: &str, bytes: &[u8]) -> Result<bool, JsValue> {
        self.run.resume_findings(files, bytes).map_err(|error| to_js(&error))
    }

    /// After the scan: what was decided and how large the new image is, exactly.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = layOut)]
    pub fn lay_out(&mut self) -> Result<Ts<CompactOutcome>, JsValue> {
        let outcome = self.run.lay_out(&fresh());
        into_js(outcome.and_then(|outcome| CompactOutcome::new(self.run.plan(), &outcome)))
    }

    /// The next pieces of the new image, in order; an empty list after the last.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = nextPieces, unchecked_return_type = "Piece[]")]
    pub fn next_pieces(&mut self) -> Result<Array, JsValue> {
        let pieces = self.run.next_pieces(MAX_PIECES, MAX_MADE).map_err(|error| to_js(&error))?;
        pieces.iter().map(piece_to_js).collect()
    }

    /// Payload bytes that the scan has read.
    #[wasm_bindgen(getter, js_name = bytesRead)]
    #[must_use]
    pub fn bytes_read(&self) -> f64 {
        number(self.run.scan_read())
    }

    /// The disk as a picture of at most `cells` cells, as far as is known by now.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = blockMap)]
    pub fn block_map(&self, cells: u32) -> Result<Ts<BlockMapReport>, JsValue> {
        into_js(self.run.block_map(u64::from(cells)).map(|map| BlockMapReport::from(&map)))
    }

    /// Opens what was written, to prove it against the source. `composed` is true where the file surely
    /// consists of the pieces that were given, in their order: a `Blob` of slices of the sources, or a file
    /// of which each piece was read back and compared after it was written. Then only what was made is
    /// read again.
    ///
    /// # Errors
    /// A `CompactorError`: the output must be a valid image.
    #[wasm_bindgen(js_name = startVerification)]
    pub fn start_verification(&mut self, output: &JsSource, composed: bool) -> Result<(), JsValue> {
        let evidence = if composed { Evidence::Pieces } else { Evidence::Bytes };
        let started = output.input().and_then(|input| self.run.prove(input, evidence));
        started.map_err(|error| to_js(&error))
    }

    /// Goes on with the proof until about `budget` bytes are read.
    ///
    /// # Errors
    /// A `CompactorError` at the first thing that differs and may not.
    #[wasm_bindgen(js_name = verificationStep)]
    pub fn verification_step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        into_js(self.run.proof_step(from_number(budget).unwrap_or(1)).map(ProgressReport::from))
    }

    /// What the proof found; nothing before it is finished.
    ///
    /// # Errors
    /// None in practice.
    pub fn verification(&self) -> Result<Option<Ts<VerificationReport>>, JsValue> {
        self.run.verdict().map(|verdict| into_js(Ok(VerificationReport::from(verdict)))).transpose()
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

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** One piece of a new image: bytes of a file (0 is the image, 1 the first parent as given, …), zeros, or bytes. */
export type Piece =
  | { kind: "source"; file: number; start: number; end: number }
  | { kind: "zeros"; length: number }
  | { kind: "bytes"; bytes: Uint8Array };
"#;

fn piece_to_js(piece: &Piece) -> Result<JsValue, JsValue> {
    let object = Object::new();
    let set = |key: &str, value: JsValue| Reflect::set(&object, &key.into(), &value);
    match piece {
        Piece::Source { file, range } => {
            set("kind", "source".into())?;
            set("file", number(len64(*file)).into())?;
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
