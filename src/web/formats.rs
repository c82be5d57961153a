//! The table of formats, as JavaScript has it: the core's own, so that what the command and the page say of a
//! format is what the engine does.

use serde::Serialize;
use tsify::{Ts, Tsify};
use wasm_bindgen::prelude::*;

use super::error::into_js;
use crate::image::{FORMATS, FormatDescription};

/// What is to be known of a format without opening a file.
#[derive(Debug, Clone, Serialize, Tsify)]
#[serde(rename_all = "camelCase")]
pub struct FormatReport {
    /// The name in JSON and options.
    #[tsify(type = "\"vhd\" | \"vhdx\"")]
    pub name: &'static str,
    /// The name in sentences.
    pub title: &'static str,
    /// The extensions of its files without the dot, the usual one first.
    pub extensions: Vec<&'static str>,
    /// The block sizes that a new image may have, ascending, in bytes.
    pub block_sizes: Vec<u64>,
    /// The smallest block size that every program takes, in bytes.
    pub smallest_usual_block: u64,
    /// The largest disk that a dynamic image holds, in bytes.
    pub max_disk_size: u64,
    /// The logical sector sizes that a disk may have, in bytes.
    pub logical_sector_sizes: Vec<u32>,
    /// Whether a block can be marked to read as zero whatever the parent holds.
    pub has_zero_marker: bool,
    /// What becomes of differencing children of an image once its free space reads differently: a sentence.
    pub children: &'static str,
}

/// The formats, in the core's order.
#[derive(Debug, Clone, Serialize, Tsify)]
pub struct FormatReports(pub Vec<FormatReport>);

impl From<&FormatDescription> for FormatReport {
    fn from(description: &FormatDescription) -> Self {
        // Each field by name: one that is added to the table is not forgotten here.
        let FormatDescription {
            format: _,
            name,
            title,
            extensions,
            block_sizes,
            smallest_usual_block,
            max_disk_size,
            logical_sector_sizes,
            has_zero_marker,
            children_of_changed,
        } = *description;
        Self {
            name,
            title,
            extensions: extensions.to_vec(),
            block_sizes: block_sizes.iter().map(|size| size.get()).collect(),
            smallest_usual_block: smallest_usual_block.get(),
            max_disk_size,
            logical_sector_sizes: logical_sector_sizes.to_vec(),
            has_zero_marker,
            children: children_of_changed,
        }
    }
}

/// What is to be known of each format without opening a file.
///
/// # Errors
/// None in practice.
#[wasm_bindgen]
pub fn formats() -> Result<Ts<FormatReports>, JsValue> {
    into_js(Ok(FormatReports(FORMATS.iter().map(FormatReport::from).collect())))
}
