//! Parent locators: where programs of other systems look for the parent, and what the child knows of it.

use std::collections::HashSet;

use uuid::Uuid;

use super::format::{DynamicHeader, FOOTER_LEN, Footer};
use crate::error::{Error, Result, Site};
use crate::image::{Container, ParentLink};
use crate::io::{ReadAt, read_vec};
use crate::units::{Space, index};

/// Most bytes of one parent locator's data.
pub const MAX_LOCATOR: u64 = 64 << 10;

/// The data of each parent locator; empty where there is none.
pub fn read_locators(container: &Container, header: &DynamicHeader, header_at: u64) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let header_site = Site { structure: "VHD parent locator", space: Space::File, offset: header_at };
    for (by, locator) in (576..).step_by(24).zip(&header.parent_locators) {
        let len = u64::from(locator.data_length.get());
        if locator.platform_code == [0; 4] || len == 0 {
            all.push(Vec::new());
            continue;
        }
        let site = header_site.field(by);
        if len > MAX_LOCATOR {
            return Err(Error::limit(site, "a parent locator is too long")
                .expected(format_args!("at most {MAX_LOCATOR} bytes"), len));
        }
        let at = locator.data_offset.get();
        if at.checked_add(len).is_none_or(|data_end| data_end > container.size()) || at < FOOTER_LEN {
            return Err(Error::corrupt(site, "a parent locator's data does not lie inside the file")
                .expected(format_args!("before {}", container.size()), at));
        }
        all.push(read_vec(container, at, index(len, "a parent locator")?)?);
    }
    Ok(all)
}

/// What a child says of its parent.
pub fn parent_link(footer: &Footer, header: &DynamicHeader, locators: &[Vec<u8>]) -> ParentLink {
    let mut paths = Vec::new();
    for (locator, data) in header.parent_locators.iter().zip(locators) {
        let path = match &locator.platform_code {
            b"W2ru" | b"W2ku" => utf16(data, u16::from_le_bytes),
            b"MacX" => file_url(data),
            _ => continue,
        };
        paths.push(path);
    }
    paths.push(utf16(&header.parent_unicode_name, u16::from_be_bytes));
    let mut seen = HashSet::new();
    paths.retain(|path| !path.is_empty() && seen.insert(path.clone()));
    let time_stamp = Some(header.parent_time_stamp.get()).filter(|&stamp| stamp != 0);
    let id = Uuid::from_bytes(header.parent_unique_id);
    // XenServer makes children of raw disks, which have no identifier.
    let is_raw = id.is_nil() && footer.xenserver_version().is_some();
    ParentLink { ids: vec![id], time_stamp, paths, is_raw }
}

/// Text up to the first NUL; what is no text becomes a replacement character.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).map(unit);
    char::decode_utf16(units.take_while(|&u| u != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The path of a file URL, as MacX locators hold it: UTF-8, with %xx for what a URL cannot hold.
fn file_url(data: &[u8]) -> String {
    let url = data.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut rest = url.strip_prefix(b"file://").unwrap_or(url);
    rest = rest.strip_prefix(b"localhost").unwrap_or(rest);
    let mut path = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(meant) => {
                path.push(meant);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&path).into_owned()
}
