//! Comparing an original with its compacted image, both given by a person.

use tsify::Ts;
use wasm_bindgen::prelude::*;

use super::error::{give, take, to_js};
use super::report::{CompactOptions, ProgressReport, VerificationReport};
use super::source::{JsSource, from_number};
use crate::compact::{Analysis, Verification};
use crate::error::Result;
use crate::image::Disk;

/// A comparison under way: `step` until finished, then `report`.
#[wasm_bindgen]
pub struct Comparison {
    original: Analysis,
    compacted: Disk,
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
        options: &Ts<CompactOptions>,
    ) -> Result<Comparison, JsValue> {
        let open = || -> Result<Self> {
            let parents = || parents.iter().map(JsSource::input).collect::<Result<Vec<_>>>();
            let original = Analysis::open(original.input()?, parents()?)?;
            let opened = crate::image::open(compacted.input()?.file)?;
            let compacted = if opened.parent.is_some() {
                Analysis::open(compacted.input()?, parents()?)?.disk
            } else {
                Disk::new(vec![std::rc::Rc::new(opened)])?
            };
            let may_differ = original.free(&take(options)?.parse()?)?;
            let verification = Verification::new(&original.disk, &compacted, may_differ, false)?;
            Ok(Self { original, compacted, verification, finished: false })
        };
        open().map_err(|error| to_js(&error))
    }

    /// Compares until about `budget` bytes are read.
    ///
    /// # Errors
    /// A `CompactorError` at the first byte that differs and may not.
    pub fn step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        let budget = from_number(budget).unwrap_or(1);
        let progress = self.verification.step(&self.original.disk, &self.compacted, budget);
        self.finished = progress.as_ref().is_ok_and(|progress| progress.finished);
        give(progress.map(ProgressReport::from))
    }

    /// What was found; nothing before it is finished.
    ///
    /// # Errors
    /// None in practice.
    pub fn report(&self) -> Result<Option<Ts<VerificationReport>>, JsValue> {
        let report = || give(Ok(VerificationReport::from(self.verification.verdict())));
        self.finished.then(report).transpose()
    }
}
