//! An opened image: what it is, what can be saved, and the way to a compaction.

use std::rc::Rc;

use tsify::Ts;
use wasm_bindgen::prelude::*;

use super::compaction::Compaction;
use super::error::{give, take, to_js};
use super::report::{BlockMapReport, CompactOptions, EstimateReport, InspectReport};
use super::source::JsSource;
use crate::compact::{Analysis, Plan, block_map, estimate, mapped};
use crate::error::Result;

/// An image that was opened and analysed. Only its metadata was read.
#[wasm_bindgen]
pub struct OpenImage {
    analysis: Rc<Analysis>,
    name: String,
    file_size: u64,
}

#[wasm_bindgen]
impl OpenImage {
    /// Opens `image` with those of `parents` that are its parents, in any order.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = open)]
    pub fn open(image: &JsSource, parents: Vec<JsSource>) -> Result<OpenImage, JsValue> {
        let open = || -> Result<Self> {
            let input = image.input()?;
            let (name, file_size) = (input.name.clone(), input.file.size());
            let inputs = parents.iter().map(JsSource::input).collect::<Result<_>>()?;
            Ok(Self { analysis: Rc::new(Analysis::open(input, inputs)?), name, file_size })
        };
        open().map_err(|error| to_js(&error))
    }

    /// What the image is and holds, with the estimate for `options`.
    ///
    /// # Errors
    /// A `CompactorError`.
    pub fn report(&self, options: &Ts<CompactOptions>) -> Result<Ts<InspectReport>, JsValue> {
        give(
            take(options)
                .and_then(|options| InspectReport::new(&self.analysis, &self.name, self.file_size, &options)),
        )
    }

    /// What `options` would reach.
    ///
    /// # Errors
    /// A `CompactorError`, as for options that cannot be had.
    pub fn estimate(&self, options: &Ts<CompactOptions>) -> Result<Ts<EstimateReport>, JsValue> {
        let estimated = || -> Result<EstimateReport> {
            let plan = self.plan(options)?;
            Ok(EstimateReport::new(&self.analysis, &estimate(&self.analysis, &plan)?, self.file_size, &plan))
        };
        give(estimated())
    }

    /// The disk as a picture of at most `cells` cells, as `options` would treat it.
    ///
    /// # Errors
    /// A `CompactorError`.
    #[wasm_bindgen(js_name = blockMap)]
    pub fn block_map(&self, options: &Ts<CompactOptions>, cells: u32) -> Result<Ts<BlockMapReport>, JsValue> {
        let drawn = || -> Result<BlockMapReport> {
            let plan = self.plan(options)?;
            let map = block_map(&plan, &mapped(&self.analysis), None, u64::from(cells))?;
            Ok(BlockMapReport::from(map))
        };
        give(drawn())
    }

    /// The compaction that `options` ask for. Nothing is read or written before it is stepped.
    ///
    /// # Errors
    /// A `CompactorError`, as for options that cannot be had.
    pub fn compact(&self, options: &Ts<CompactOptions>) -> Result<Compaction, JsValue> {
        let planned = || Compaction::new(&self.analysis, self.plan(options)?, self.file_size);
        planned().map_err(|error| to_js(&error))
    }
}

impl OpenImage {
    fn plan(&self, options: &Ts<CompactOptions>) -> Result<Plan> {
        let options = take(options)?.parse()?;
        Plan::new(&self.analysis.disk, self.analysis.free(&options)?, options)
    }
}
