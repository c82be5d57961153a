//! Chains: which of the files that were given is whose parent.
//!
//! Matched by identifier, never by name: a VHD's unique id, a VHDX's data write GUID. A locator's
//! path only serves to ask a person for what is missing.

use std::rc::Rc;

use uuid::Uuid;

use super::{Format, Image, Metadata};
use crate::error::{Error, ErrorKind, Result};

/// Most images of one chain; Hyper-V and XenServer stay far below.
const MAX_CHAIN: usize = 64;

/// An opened image that may be a parent.
pub struct Candidate {
    /// The image.
    pub image: Image,
    /// The file's name, for messages.
    pub name: String,
    /// When the file was last modified, in seconds since 2000-01-01 UTC, where the host knows.
    pub modified: Option<u32>,
}

/// A child and its parents in order.
pub struct Chain {
    /// The images: the child first.
    pub layers: Vec<Rc<Image>>,
    /// For each layer, which of the files that were given it is: 0 the child, 1 the first candidate, …
    pub files: Vec<usize>,
}

/// Puts `child` and its parents in order, as far as they were given. With no candidates a
/// differencing child stays alone, which is no error here.
///
/// # Errors
/// `needs-parent` where candidates were given and none fits, or one fits and has changed since;
/// `corrupt` for a cycle; `invalid-argument` for a candidate that is nobody's parent.
pub fn assemble(child: Image, candidates: Vec<Candidate>) -> Result<Chain> {
    let mut left: Vec<(usize, Candidate)> = (1..).zip(candidates).collect();
    let mut layers = vec![Rc::new(child)];
    let mut files = vec![0];
    while let Some(link) = layers.last().and_then(|image| image.parent.clone()) {
        let format = layers.last().map_or(Format::Vhd, |image| image.format);
        if layers.len() >= MAX_CHAIN {
            return Err(Error::new(ErrorKind::LimitExceeded, "the chain of differencing disks is too long")
                .expected(format_args!("at most {MAX_CHAIN} images"), "more"));
        }
        if layers.iter().any(|image| image.format == format && link.ids.contains(&image.identity)) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "this chain of differencing disks runs in a circle: an image is named as its own parent",
            ));
        }
        let Some(found) = left.iter().position(|(_, c)| link.ids.contains(&c.image.identity)) else {
            if left.is_empty() {
                break;
            }
            return Err(wrong_parent(&link.ids, &link.paths, &left));
        };
        let (file, parent) = left.swap_remove(found);
        if parent.image.format != format {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: a VHD and a VHDX cannot be in one chain", parent.name),
            ));
        }
        check_time_stamp(&parent, link.time_stamp)?;
        layers.push(Rc::new(parent.image));
        files.push(file);
    }
    match left.first() {
        Some((_, extra)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is no parent of this image, nor of its parents", extra.name),
        )),
        None => Ok(Chain { layers, files }),
    }
}

/// A VHD child notes its parent's time: the footer's, or the file's modification time, as its maker
/// held it. A parent that has neither was changed since, and no longer is what the child was made of.
fn check_time_stamp(parent: &Candidate, expected: Option<u32>) -> Result<()> {
    let (Some(expected), Metadata::Vhd(metadata)) = (expected, &parent.image.metadata) else { return Ok(()) };
    let footer = metadata.footer.time_stamp.get();
    let modified = parent.modified.is_some_and(|at| at.abs_diff(expected) <= 2);
    if footer == expected || modified {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NeedsParent,
        format!(
            "{} has the right identifier, but was changed after this differencing disk was made from it (or lost its \
             modification time in a copy)",
            parent.name
        ),
    )
    .expected(format_args!("time stamp {expected}"), footer))
}

fn wrong_parent(ids: &[Uuid], paths: &[String], given: &[(usize, Candidate)]) -> Error {
    let names: Vec<&str> = given.iter().map(|(_, c)| c.name.as_str()).collect();
    let wanted: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let found: Vec<String> = given.iter().map(|(_, c)| c.image.identity.to_string()).collect();
    let path = paths.first().map(|path| format!(" It was last known as {path:?}.")).unwrap_or_default();
    let message = format!(
        "none of the files given ({}) is the parent of this differencing disk.{path}",
        names.join(", ")
    );
    Error::new(ErrorKind::NeedsParent, message)
        .expected(format_args!("identifier {}", wanted.join(" or ")), found.join(", "))
}
