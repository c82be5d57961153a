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

/// What it takes for a VHD's parent to be believed. Its identifier must always fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentTrust {
    /// It must also have the time that its child noted, in its footer or as its file's.
    #[default]
    IdentifierAndTime,
    /// The identifier is enough: a person says that nothing was written to the parent since, although its
    /// file lost its time in a copy.
    Identifier,
}

impl ParentTrust {
    /// What a person's word means: whether the parents are to be trusted.
    #[must_use]
    pub const fn by_word(trusted: bool) -> Self {
        if trusted { Self::Identifier } else { Self::IdentifierAndTime }
    }
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
/// `needs-parent` where candidates were given and none fits; `parent-changed` where one fits by its identifier
/// and not by its time, unless it is to be trusted; `corrupt` for a cycle; `unsupported` for two formats in one chain; `invalid-argument` for a candidate
/// that is nobody's parent, and for two that are the same.
pub fn assemble(child: Image, candidates: Vec<Candidate>, trust: ParentTrust) -> Result<Chain> {
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
        chain.warnings.extend(check_time_stamp(&youngest, &parent, link.time_stamp, trust)?);
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
fn check_time_stamp(
    child: &Image,
    parent: &Candidate,
    expected: Option<u32>,
    trust: ParentTrust,
) -> Result<Option<Warning>> {
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
    if trust == ParentTrust::Identifier {
        return Ok(Some(Warning::new(
            "parent-trusted",
            format!(
                "{} was taken for the parent by its identifier alone, as you asked. If anything was written to it \
                 after this differencing disk was made, the two no longer belong together: what they read is then a \
                 mixture, and files in it may be damaged.",
                parent.name
            ),
        )));
    }
    let error = Error::new(
        ErrorKind::ParentChanged,
        format!(
            "{} has the right identifier and another time than this differencing disk noted for it. It was copied or \
             downloaded, which changes the time and nothing else; or something was written to it since, and then the \
             two no longer belong together and what they read is a mixture. Give the original file, or, if you know \
             that nothing was written to it, say that it is to be trusted",
            parent.name
        ),
    );
    let found = match parent.modified {
        Some(modified) if modified != footer => format!("{} and {}", utc(footer), utc(modified)),
        _ => utc(footer),
    };
    Err(error.expected(utc(expected), found))
}

/// A time in seconds since 2000-01-01 UTC as a person reads it.
fn utc(seconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (2000u32, days);
    let is_leap =
        |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let year_days = |year| if is_leap(year) { 366 } else { 365 };
    // 32 bits of seconds end in 2136.
    while let Some(rest) = day.checked_sub(year_days(year)) {
        (year, day) = (year.wrapping_add(1), rest);
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1u32;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        let Some(rest) = day.checked_sub(length) else { break };
        (month, day) = (month.wrapping_add(1), rest);
    }
    let (hour, minute) = (second / 3600, second % 3600 / 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{:02} UTC", day.wrapping_add(1), second % 60)
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
