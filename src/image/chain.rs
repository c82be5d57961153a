//! Chains: which of the files that were given is whose parent.
//!
//! Matched by identifier, never by name: a VHD's unique id, a VHDX's data write GUID. A locator's
//! path only serves to ask a person for what is missing.

use std::rc::Rc;

use uuid::Uuid;

use super::{Image, Metadata, ParentLink, vhd};
use crate::error::{Error, ErrorKind, Result, Warning};

/// Most images of one chain; Hyper-V and XenServer stay far below.
const MAX_CHAIN: usize = 64;
/// How far a parent's modification time may be off: file systems round it to as much as two seconds.
const TIME_GRAIN: u32 = 2;

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
    /// The images: the child first. The last one may still have a parent, which was not given.
    pub layers: Vec<Rc<Image>>,
    /// For each layer, which of the files that were given it is: 0 the child, 1 the first candidate, …
    pub files: Vec<usize>,
    /// What is odd about the links.
    pub warnings: Vec<Warning>,
}

/// Puts `child` and its parents in order, as far as they were given. A chain may end early: what only
/// the missing parents hold is then unknown, which is no error here.
///
/// # Errors
/// `needs-parent` where candidates were given and none fits, or one fits and has changed since;
/// `corrupt` for a cycle; `unsupported` for two formats in one chain; `invalid-argument` for a candidate
/// that is nobody's parent, and for two that are the same.
pub fn assemble(child: Image, candidates: Vec<Candidate>) -> Result<Chain> {
    let mut left: Vec<(usize, Candidate)> = (1..).zip(candidates).collect();
    let mut youngest = Rc::new(child);
    let mut who = String::from("this differencing disk");
    let mut chain = Chain { layers: vec![Rc::clone(&youngest)], files: vec![0], warnings: Vec::new() };
    while let Some(link) = &youngest.parent {
        check_for_circle(&chain.layers, link)?;
        let fits = |candidate: &Candidate| link.matches(&candidate.image);
        let Some(found) = left.iter().position(|(_, candidate)| fits(candidate)) else {
            if left.is_empty() {
                break;
            }
            if link.is_raw {
                return Err(raw_parent(&who, link));
            }
            return Err(not_among(&who, &youngest, link, &left));
        };
        let (file, parent) = left.swap_remove(found);
        if let Some((_, twin)) = left.iter().find(|(_, candidate)| fits(candidate)) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} and {} both have the identifier of the parent of {who}; give only the one that it was made \
                     from",
                    parent.name, twin.name
                ),
            ));
        }
        if parent.image.format != youngest.format {
            return Err(two_formats(&parent));
        }
        let (sector, parents) =
            (youngest.geometry.logical_sector_size, parent.image.geometry.logical_sector_size);
        if sector != parents {
            // MS-VHDX 2.6.2.6: a child has its parent's logical sector size.
            let message = format!("{} has sectors of another size than its child", parent.name);
            return Err(Error::new(ErrorKind::Unsupported, message).expected(sector, parents));
        }
        chain.warnings.extend(check_time_stamp(&youngest, &parent, link.time_stamp)?);
        youngest = Rc::new(parent.image);
        who = parent.name;
        chain.layers.push(Rc::clone(&youngest));
        chain.files.push(file);
    }
    match left.first() {
        Some((_, extra)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is no parent of this image, nor of its parents", extra.name),
        )),
        None => Ok(chain),
    }
}

fn check_for_circle(layers: &[Rc<Image>], link: &ParentLink) -> Result<()> {
    if layers.len() >= MAX_CHAIN {
        return Err(Error::new(ErrorKind::LimitExceeded, "the chain of differencing disks is too long")
            .expected(format_args!("at most {MAX_CHAIN} images"), "more"));
    }
    let format = layers.first().map(|child| child.format);
    if layers.iter().any(|image| Some(image.format) == format && link.matches(image)) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "this chain of differencing disks runs in a circle: an image is named as its own parent",
        ));
    }
    Ok(())
}

/// A VHD child notes its parent's time: the footer's, or the file's modification time, as its maker
/// held it. A parent that has neither was changed since, and no longer is what the child was made of.
fn check_time_stamp(child: &Image, parent: &Candidate, expected: Option<u32>) -> Result<Option<Warning>> {
    let (Metadata::Vhd(own), Metadata::Vhd(metadata)) = (&child.metadata, &parent.image.metadata) else {
        return Ok(None);
    };
    let Some(expected) = expected else { return Ok(None) };
    let footer = metadata.footer.time_stamp.get();
    let modified = parent.modified.is_some_and(|at| at.abs_diff(expected) <= TIME_GRAIN);
    if footer == expected || modified {
        return Ok(None);
    }
    if own.footer.creator_application == vhd::XENSERVER {
        return Ok(Some(Warning::new(
            "parent-time-differs",
            format!(
                "{} has the right identifier and another time than was noted for it. XenServer does not keep that \
                 time, so this says little; make sure that nothing was written to it since.",
                parent.name
            ),
        )));
    }
    let error = Error::new(
        ErrorKind::NeedsParent,
        format!(
            "{} has the right identifier, but was changed after this differencing disk was made from it, or lost its \
             modification time in a copy: give the file itself, or leave the parents out",
            parent.name
        ),
    );
    Err(match parent.modified {
        Some(modified) => {
            error.expected(format_args!("time {expected}"), format_args!("{footer} and {modified}"))
        }
        None => error.expected(format_args!("time {expected}"), footer),
    })
}

fn raw_parent(who: &str, link: &ParentLink) -> Error {
    let message = format!(
        "the parent of {who} is {}: XenServer made it from a raw disk, which has no identifier, so no file can be \
         told to be that disk. Compact it without its parent, or let XenServer merge them first",
        link.describe()
    );
    Error::new(ErrorKind::Unsupported, message)
}

fn two_formats(parent: &Candidate) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} is a {}: a VHD and a VHDX cannot be in one chain",
            parent.name,
            parent.image.format.title()
        ),
    )
}

/// Says which parent is missing, in a person's terms: name and path. What was given is told by
/// name, with what speaks against it where that is not the identifier alone.
fn not_among(who: &str, child: &Image, link: &ParentLink, given: &[(usize, Candidate)]) -> Error {
    let names: Vec<String> = given
        .iter()
        .map(|(_, candidate)| {
            let Candidate { name, image, .. } = candidate;
            if image.format != child.format {
                format!("{name}, which is a {}", image.format.title())
            } else if link.has_file_name(name) {
                format!("{name}, which has the name and another identifier")
            } else {
                name.clone()
            }
        })
        .collect();
    let wanted: Vec<String> = link.ids.iter().map(Uuid::to_string).collect();
    let found: Vec<String> = given.iter().map(|(_, c)| c.image.identity.to_string()).collect();
    let message = format!(
        "the parent of {who}, {}, is not among the files given ({})",
        link.describe(),
        names.join("; ")
    );
    let error = Error::new(ErrorKind::NeedsParent, message);
    if wanted.is_empty() {
        return error;
    }
    error.expected(format_args!("identifier {}", wanted.join(" or ")), found.join(", "))
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
