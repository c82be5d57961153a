//! VHDX (MS-VHDX).

use std::rc::Rc;

use super::Image;
use crate::error::{Error, ErrorKind, Result, Site};
use crate::io::ReadAt;
use crate::units::Space;

/// The first bytes of every VHDX file.
pub const SIGNATURE: &[u8] = b"vhdxfile";

/// What a writer carries over from a VHDX.
#[derive(Debug, Clone)]
pub struct Metadata {}

/// Opens a VHDX.
///
/// # Errors
/// `unsupported`.
pub fn open(_file: Rc<dyn ReadAt>) -> Result<Image> {
    let site = Site { structure: "VHDX file identifier", space: Space::File, offset: 0 };
    Err(Error::new(ErrorKind::Unsupported, "this is a VHDX image, which is not handled yet").at(site))
}
