//! The wasm surface in a real browser, in a dedicated worker: a `Blob` read through `FileReaderSync`.
#![cfg(target_family = "wasm")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use js_sys::{Array, Object, Reflect, Uint8Array};
use uuid::Uuid;
use vhd_compactor::image::{
    BitmapSource, BlockPlan, BlockSize, ContainerWriter, OutState, Piece, SectorBitmap, vhd,
};
use vhd_compactor::web::{Comparison, JsSource, OpenImage};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};
use web_sys::Blob;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

struct NoBitmaps;
impl BitmapSource for NoBitmaps {
    fn bitmap(&self, _: u64) -> vhd_compactor::Result<Option<SectorBitmap>> {
        Ok(None)
    }
    fn stored_at(&self, _: u64) -> Option<std::ops::Range<u64>> {
        None
    }
}

const BLOCK: u64 = 2 << 20;

/// A disk of eight blocks: 1 holds data, 2 and 5 are stored and zero.
fn sample() -> Vec<u8> {
    let writer = vhd::Writer::new(8 * BLOCK, BlockSize::new(BLOCK).unwrap(), Uuid::from_u128(3), 0).unwrap();
    let mut plan = BlockPlan::new(8).unwrap();
    for block in [1, 2, 5] {
        plan.set(block, OutState::Present);
    }
    plan.seal();
    let mut image = Vec::new();
    let mut put = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => image.extend(bytes),
                Piece::Zeros(len) => image.extend(vec![0; len as usize]),
                Piece::Source { .. } => panic!("there is no source"),
            }
        }
    };
    let mut step = 0;
    while let Some(pieces) = writer.front(&plan, &NoBitmaps, step).unwrap() {
        put(pieces);
        step += 1;
    }
    for block in [1, 2, 5] {
        put(writer.before_payload(block, &NoBitmaps).unwrap());
        put(vec![Piece::Bytes(vec![u8::from(block == 1); BLOCK as usize])]);
    }
    put(writer.tail(&plan).unwrap());
    image
}

fn set(object: &Object, key: &str, value: JsValue) {
    Reflect::set(object, &key.into(), &value).unwrap();
}

fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap()
}

fn number(object: &JsValue, key: &str) -> f64 {
    get(object, key).as_f64().unwrap()
}

fn blob_of(bytes: &[u8]) -> Blob {
    let parts = Array::of1(&Uint8Array::from(bytes).into());
    Blob::new_with_u8_array_sequence(&parts).unwrap()
}

fn source(name: &str, blob: &Blob) -> JsSource {
    let object = Object::new();
    set(&object, "name", name.into());
    set(&object, "size", blob.size().into());
    set(&object, "blob", blob.into());
    object.unchecked_into()
}

fn options() -> JsValue {
    let object = Object::new();
    set(&object, "mode", "zero".into());
    object.into()
}

#[wasm_bindgen_test]
fn a_blob_is_compacted_and_verified() {
    let image = blob_of(&sample());
    let opened = OpenImage::open(&source("disk.vhd", &image), Vec::new(), None).unwrap();
    let report: JsValue = opened.report(&tsify::Ts::new_unchecked(options())).unwrap().into();
    assert_eq!(get(&report, "format").as_string().unwrap(), "vhd");
    assert_eq!(number(&report, "virtualSize"), (8 * BLOCK) as f64);
    assert_eq!(number(&get(&report, "blocks"), "present"), 3.0);
    assert!(get(&report, "parent").is_null());

    let mut compaction = opened.compact(&tsify::Ts::new_unchecked(options())).unwrap();
    loop {
        let progress: JsValue = compaction.scan_step(1e6).unwrap().into();
        if get(&progress, "finished").is_truthy() {
            break;
        }
    }
    let outcome: JsValue = compaction.lay_out().unwrap().into();
    let omitted = get(&get(&outcome, "blocks"), "omitted");
    assert_eq!(number(&omitted, "zero"), 2.0);

    let parts = Array::new();
    loop {
        let pieces = compaction.next_pieces().unwrap();
        if pieces.length() == 0 {
            break;
        }
        for piece in pieces {
            let part = match get(&piece, "kind").as_string().unwrap().as_str() {
                "bytes" => get(&piece, "bytes"),
                "zeros" => Uint8Array::new_with_length(number(&piece, "length") as u32).into(),
                _ => image
                    .slice_with_f64_and_f64(number(&piece, "start"), number(&piece, "end"))
                    .unwrap()
                    .into(),
            };
            parts.push(&part);
        }
    }
    let output = Blob::new_with_blob_sequence(&parts).unwrap();
    assert_eq!(output.size(), number(&outcome, "outputSize"));

    compaction.start_verification(&source("out.vhd", &output), false).unwrap();
    while !get(&compaction.verification_step(1e6).unwrap().into(), "finished").is_truthy() {}
    let verification: JsValue = compaction.verification().unwrap().unwrap().into();
    assert!(number(&verification, "comparedBytes") >= BLOCK as f64);

    let (a, b) = (source("disk.vhd", &image), source("out.vhd", &output));
    let mut comparison = Comparison::open(&a, &b, Vec::new(), &tsify::Ts::new_unchecked(options())).unwrap();
    while !get(&comparison.step(1e6).unwrap().into(), "finished").is_truthy() {}
    assert!(comparison.report().unwrap().is_some());
}

#[wasm_bindgen_test]
fn errors_have_a_code_and_a_site() {
    let mut bytes = sample();
    bytes[1536..1540].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
    let image = blob_of(&bytes);
    let error = OpenImage::open(&source("disk.vhd", &image), Vec::new(), None).err().unwrap();
    assert_eq!(get(&error, "code").as_string().unwrap(), "corrupt");
    assert_eq!(number(&get(&error, "site"), "offset"), 1536.0);

    let text = blob_of(b"this is a text file");
    let error = OpenImage::open(&source("disk.vhd", &text), Vec::new(), None).err().unwrap();
    assert_eq!(get(&error, "code").as_string().unwrap(), "not-recognised");
    assert!(get(&error, "site").is_null());
}

#[wasm_bindgen_test]
fn wrong_options_are_refused() {
    let image = blob_of(&sample());
    let opened = OpenImage::open(&source("disk.vhd", &image), Vec::new(), None).unwrap();
    for (key, value) in
        [("mode", JsValue::from("deep")), ("format", "vmdk".into()), ("blockSize", "big".into())]
    {
        let object = Object::new();
        set(&object, key, value);
        let error = opened.estimate(&tsify::Ts::new_unchecked(object.into())).err().unwrap();
        assert_eq!(get(&error, "code").as_string().unwrap(), "invalid-argument", "{key}");
    }
}
