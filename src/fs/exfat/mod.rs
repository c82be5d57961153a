//! stub
use super::{Context, Detected};
use crate::io::ReadAt;
pub(super) fn probe(_volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    None
}
