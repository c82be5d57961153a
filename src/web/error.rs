//! Errors across the boundary: a JavaScript `Error` with `code`, `site` and what was expected and found, and
//! back.

use js_sys::{Object, Reflect};
use serde::{Serialize, de::DeserializeOwned};
use tsify::{Ts, Tsify};
use wasm_bindgen::{JsCast, JsValue};

use super::source::number;
use crate::error::{Error, ErrorKind, Result};

/// The error as JavaScript sees it: `{ message, code, site: { structure, space, offset } | null, expected, found }`,
/// where the last two are text or null. The message tells neither the place nor these.
pub fn to_js(error: &Error) -> JsValue {
    let js = js_sys::Error::new(error.summary());
    js.set_name("CompactorError");
    let site = error.site().map_or(JsValue::NULL, |site| {
        let object = Object::new();
        set(&object, "structure", &site.structure.into());
        set(&object, "space", &site.space.name().into());
        set(&object, "offset", &number(site.offset).into());
        object.into()
    });
    let (expected, found) = error.expectation().unzip();
    set(&js, "code", &error.kind().code().into());
    set(&js, "site", &site);
    set(&js, "expected", &expected.map_or(JsValue::NULL, JsValue::from));
    set(&js, "found", &found.map_or(JsValue::NULL, JsValue::from));
    js.into()
}

/// A result as a wasm-bindgen function returns it.
pub fn into_js<T: Tsify + Serialize>(result: Result<T>) -> Result<Ts<T>, JsValue> {
    let value = result.map_err(|error| to_js(&error))?;
    value.into_ts().map_err(|error| to_js(&Error::internal(error.to_string())))
}

/// An argument as the core takes it.
pub fn from_ts<T>(value: &Ts<T>) -> Result<T>
where
    T: Tsify + DeserializeOwned,
    T::JsType: Clone,
{
    value
        .to_rust()
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, format!("an option is wrong: {error}")))
}

/// What a host's `read` threw, as an error of ours.
pub fn from_js(thrown: &JsValue) -> Error {
    let text = |key: &str| Reflect::get(thrown, &key.into()).ok().and_then(|value| value.as_string());
    let message = text("message").unwrap_or_else(|| format!("{thrown:?}"));
    let kind = text("code").and_then(|code| ErrorKind::from_code(&code)).unwrap_or_else(|| {
        match text("name").as_deref() {
            // What browsers say when the file behind a File was changed, moved or deleted.
            Some("NotReadableError" | "NotFoundError") => ErrorKind::SourceChanged,
            Some("NotAllowedError" | "SecurityError") => ErrorKind::PermissionDenied,
            _ => ErrorKind::ReadFailed,
        }
    });
    Error::new(kind, message)
}

fn set(object: &JsValue, key: &str, value: &JsValue) {
    // Setting a property of an object that was just made cannot fail.
    let _ = Reflect::set(object.unchecked_ref(), &key.into(), value);
}
