//! The host's files as readers: a browser's `File`, or any object with `read`.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use web_sys::{Blob, FileReaderSync};

use super::error::from_js;
use crate::compact::Input;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{ReadAt, check_range};
use crate::units::{add, len64};
use std::rc::Rc;

/// Seconds from 1970 to 2000: VHD counts from there.
const EPOCH_2000: f64 = 946_684_800.0;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** A file of the host, read synchronously. */
export interface JsSource {
  /** The file's name, for messages. */
  readonly name: string;
  /** Its size in bytes. */
  readonly size: number;
  /** When it was last modified, in milliseconds since 1970, if known. */
  readonly lastModified?: number;
  /** In a dedicated worker: read through FileReaderSync. */
  readonly blob?: Blob;
  /** Elsewhere: exactly `length` bytes from `offset`; throws what went wrong. */
  read?(offset: number, length: number): Uint8Array;
  /** The same straight into the engine's memory, as many bytes as `target` has; must not call the engine. */
  readInto?(target: Uint8Array, offset: number): void;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// A file of the host.
    #[wasm_bindgen(typescript_type = "JsSource")]
    #[derive(Clone)]
    pub type JsSource;

    #[wasm_bindgen(method, getter)]
    fn name(this: &JsSource) -> String;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsSource) -> f64;
    #[wasm_bindgen(method, getter, js_name = lastModified)]
    fn last_modified(this: &JsSource) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn blob(this: &JsSource) -> Option<Blob>;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsSource, offset: f64, length: u32) -> Result<Uint8Array, JsValue>;
    #[wasm_bindgen(method, getter, js_name = readInto)]
    fn read_into_method(this: &JsSource) -> JsValue;
    #[wasm_bindgen(method, catch, js_name = readInto)]
    fn read_into(this: &JsSource, target: &mut [u8], offset: f64) -> Result<(), JsValue>;
}

impl JsSource {
    /// This file as an input of the core.
    pub fn input(&self) -> Result<Input> {
        let size = from_number(self.size()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the size of the file is no whole number")
        })?;
        let file: Rc<dyn ReadAt> = match self.blob() {
            Some(blob) => Rc::new(HostFile { size, way: InBrowser::new(blob)? }),
            None if self.read_into_method().is_function() => {
                Rc::new(HostFile { size, way: Direct(self.clone()) })
            }
            None => Rc::new(HostFile { size, way: Copied(self.clone()) }),
        };
        Ok(Input { file, name: self.name(), modified: self.last_modified().and_then(since_2000) })
    }
}

/// Milliseconds since 1970, as seconds since 2000.
pub fn since_2000(ms: f64) -> Option<u32> {
    from_number((ms / 1000.0 - EPOCH_2000).round()).and_then(|seconds| u32::try_from(seconds).ok())
}

/// A file of the host, whichever way its bytes are got.
struct HostFile<W> {
    size: u64,
    way: W,
}

/// A way of getting bytes from the host.
trait Fetch {
    /// Fills `buf`, which is not empty and lies within the file.
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

impl<W: Fetch> ReadAt for HostFile<W> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        if buf.is_empty() { Ok(()) } else { self.way.fetch(offset, buf) }
    }
}

/// An object with `read`.
struct Copied(JsSource);

impl Fetch for Copied {
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let length = u32::try_from(buf.len()).map_err(|_| Error::internal("a read of more than 4 GiB"))?;
        let bytes = self.0.read(number(offset), length).map_err(|thrown| from_js(&thrown))?;
        copy(&bytes, buf)
    }
}

/// An object with `readInto`: nothing is copied on the way.
struct Direct(JsSource);

impl Fetch for Direct {
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_into(buf, number(offset)).map_err(|thrown| from_js(&thrown))
    }
}

/// A browser's `Blob`, read in a dedicated worker.
struct InBrowser {
    blob: Blob,
    reader: FileReaderSync,
}

impl InBrowser {
    fn new(blob: Blob) -> Result<Self> {
        let reader = FileReaderSync::new().map_err(|thrown| from_js(&thrown))?;
        Ok(Self { blob, reader })
    }
}

impl Fetch for InBrowser {
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = add(offset, len64(buf.len()), "a read")?;
        let slice = self.blob.slice_with_f64_and_f64(number(offset), number(end));
        let bytes = slice
            .and_then(|slice| self.reader.read_as_array_buffer(&slice))
            .map_err(|thrown| from_js(&thrown))?;
        copy(&Uint8Array::new(&bytes), buf)
    }
}

fn copy(bytes: &Uint8Array, buf: &mut [u8]) -> Result<()> {
    if usize::try_from(bytes.length()) != Ok(buf.len()) {
        return Err(Error::new(ErrorKind::SourceChanged, "the file became shorter while it was read"));
    }
    bytes.copy_to(buf);
    Ok(())
}

/// A byte count as a JavaScript number.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)]
pub fn number(value: u64) -> f64 {
    // Exact below 2⁵³ (9 PB), and file sizes come from JavaScript as numbers in the first place.
    value as f64
}

/// A JavaScript number as a byte count: a whole number from 0 to 2⁵³.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn from_number(value: f64) -> Option<u64> {
    // The range is checked first, so the conversion is exact.
    (value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
}
