//! Comparing an original with its compacted image, both given by a person.

use tsify::Ts;
use wasm_bindgen::prelude::*;

use super::error::{from_ts, into_js, to_js};
use super::report::{ProgressReport, VerificationReport};
use super::source::{JsSource, from_number};
use crate::compact::{Options, Verification};
use crate::error::Result;

/// A comparison under way: `step` until finished, then `report`.
#[wasm_bindgen]
pub struct Comparison {
    verification: Verification,
    finished: bool,
}

#[wasm_bindgen]
impl Comparison {
    /// Opens both images. They may differ in what the original's file systems prove free, and in what
    /// `options` give up.
    ///
    /// # Errors
    /// A `CompactorError`.
    pub fn open(
        original: &JsSource,
        compacted: &JsSource,
        parents: Vec<JsSource>,
        options: &Ts<Options>,
    ) -> Result<Comparison, JsValue> {
        let open = || -> Result<Self> {
            let parents = parents.iter().map(JsSource::input).collect::<Result<_>>()?;
            let options = from_ts(options)?;
            let verification = Verification::open(original.input()?, compacted.input()?, parents, options)?;
            Ok(Self { verification, finished: false })
        };
        open().map_err(|error| to_js(&error))
    }

    /// Compares until about `budget` bytes are read.
    ///
    /// # Errors
    /// A `CompactorError` at the first thing that differs and may not.
    pub fn step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        let progress = self.verification.step(from_number(budget).unwrap_or(1));
        self.finished = progress.as_ref().is_ok_and(|progress| progress.finished);
        into_js(progress.map(ProgressReport::from))
    }

    /// What was found; nothing before it is finished.
    ///
    /// # Errors
    /// None in practice.
    pub fn report(&self) -> Result<Option<Ts<VerificationReport>>, JsValue> {
        let verdict = self.verification.verdict().filter(|_| self.finished);
        verdict.map(|verdict| into_js(Ok(VerificationReport::from(verdict)))).transpose()
    }
}
