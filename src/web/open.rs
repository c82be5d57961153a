//! An opened image: what it is, what can be saved, and the way to a compaction.

use std::rc::Rc;

use tsify::Ts;
use wasm_bindgen::prelude::*;

use super::compaction::Compaction;
use super::error::{from_ts, into_js, to_js};
use super::report::{BlockMapReport, EstimateReport, InspectReport, ProgressReport};
use super::source::{JsSource, from_number};
use crate::compact::{Analysis, Options, Plan, Progress, Run, block_map, estimate};
use crate::error::{Error, Result};
use crate::image::ParentTrust;

/// An image that was opened and analysed. Only its metadata was read.
#[wasm_bindgen]
pub struct OpenImage {
    analysis: Rc<Analysis>,
    name: String,
}

#[wasm_bindgen]
impl OpenImage {
    /// Opens `image` with those of `parents` that are its parents, in any order. What its file systems call
    /// free is good for an estimate at once; `checkStep` must confirm it before a compaction. With `trust_parent`
    /// a VHD's parent is believed by its identifier alone (after `parent-changed`, on a person's word).
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = open)]
    pub fn open(
        image: &JsSource,
        parents: Vec<JsSource>,
        trust_parent: Option<bool>,
    ) -> Result<OpenImage, JsValue> {
        let open = || -> Result<Self> {
            let trust = ParentTrust::by_word(trust_parent == Some(true));
            let input = image.input()?;
            let name = input.name.clone();
            let inputs = parents.iter().map(JsSource::input).collect::<Result<_>>()?;
            Ok(Self { analysis: Rc::new(Analysis::open_trusting(input, inputs, trust)?), name })
        };
        open().map_err(|error| to_js(&error))
    }

    /// Walks the owners of what the volumes hold until about `budget` bytes are read: the second witness of
    /// what is free. Finished at once where that has been done.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = checkStep)]
    pub fn check_step(&mut self, budget: f64) -> Result<Ts<ProgressReport>, JsValue> {
        let budget = from_number(budget).unwrap_or(1);
        // While the check goes on nobody else holds the analysis: a compaction can only begin after it.
        let progress = if self.analysis.is_pending() {
            Rc::get_mut(&mut self.analysis)
                .ok_or_else(|| Error::internal("a check during a compaction"))
                .and_then(|analysis| analysis.hear_step(budget))
        } else {
            Ok(Progress::FINISHED)
        };
        into_js(progress.map(ProgressReport::from))
    }

    /// What the image is and holds, with the estimate for `options`.
    ///
    /// # Errors
    /// A `CompactorError`.
    pub fn report(&self, options: &Ts<Options>) -> Result<Ts<InspectReport>, JsValue> {
        into_js(from_ts(options).and_then(|options| InspectReport::new(&self.analysis, &self.name, options)))
    }

    /// What `options` would reach.
    ///
    /// # Errors
    /// A `CompactorError`, as for options that cannot be had.
    pub fn estimate(&self, options: &Ts<Options>) -> Result<Ts<EstimateReport>, JsValue> {
        let estimated = || -> Result<EstimateReport> {
            let plan = Plan::new(&self.analysis, from_ts(options)?)?;
            Ok(EstimateReport::new(&plan, &estimate(&plan)?))
        };
        into_js(estimated())
    }

    /// The disk as a picture of at most `cells` cells, as `options` would treat it.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = blockMap)]
    pub fn block_map(&self, options: &Ts<Options>, cells: u32) -> Result<Ts<BlockMapReport>, JsValue> {
        let drawn = || -> Result<BlockMapReport> {
            let plan = Plan::new(&self.analysis, from_ts(options)?)?;
            Ok(BlockMapReport::from(&block_map(&plan, None, u64::from(cells))?))
        };
        into_js(drawn())
    }

    /// The compaction that `options` ask for, once `checkStep` has finished. Nothing is read or written
    /// before it is stepped.
    ///
    /// # Errors
    /// A `CompactorError`, as for options that cannot be had.
    pub fn compact(&self, options: &Ts<Options>) -> Result<Compaction, JsValue> {
        let run = from_ts(options).and_then(|options| Run::new(&self.analysis, options));
        run.map(Compaction::new).map_err(|error| to_js(&error))
    }
}
