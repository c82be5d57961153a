//! The only wasm-bindgen surface: the browser's worker and Node call the core through this module.
//!
//! ```text
//!   JsSource (File, or an object with read()) ──► OpenImage ── report · estimate · blockMap
//!                                          checkStep │
//!                                                    └─ compact(options) ─► Compaction ── step by step
//!   two JsSources ──► Comparison                                             scan · pieces · proof
//!   formats()     what is to be known of each format without opening a file
//! ```
//! Everything is synchronous and returns after a bounded amount of work: the JavaScript above steps it
//! and returns to its event loop in between. Sizes cross as numbers, so they must stay below 2⁵³.

mod compaction;
mod comparison;
mod error;
mod formats;
mod open;
mod report;
mod source;

pub use compaction::Compaction;
pub use comparison::Comparison;
pub use formats::formats;
pub use open::OpenImage;
pub use source::JsSource;
use wasm_bindgen::prelude::*;

/// Called once when the module is loaded: panics, which are faults of this program, say where.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// The version of the engine.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}
