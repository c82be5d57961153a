//! The parent locator: a table of keys and values that tells a differencing disk's parent
//! (MS-VHDX 2.6.2.6).
//!
//! ```text
//!   0                     20                          20 + 12 n
//!   type │ reserved │ n │ (key, value) places │ … │ UTF-16 texts
//! ```

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{LOCATOR_TYPE_VHDX, ParentLocatorEntry, ParentLocatorHeader};
use crate::error::{Error, Result, Site};
use crate::image::ParentLink;
use crate::units::{Space, add, len64, mul};

/// Bytes of the header, and of one entry.
const HEADER: u64 = 20;
const ENTRY: u64 = 12;
/// Most entries, and most bytes of all texts together: entries may name the same bytes again and again.
const MAX_PAIRS: u16 = 256;
const MAX_TEXT: usize = 512 << 10;

/// The parent's data write GUID.
const PARENT_LINKAGE: &str = "parent_linkage";
/// Another one, while a merge is under way.
const PARENT_LINKAGE2: &str = "parent_linkage2";
/// The paths, in the order in which they are to be tried.
const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// Where in the item entry `number` is.
fn entry_place(number: u64) -> Result<u64> {
    add(HEADER, mul(number, ENTRY, "a parent locator")?, "a parent locator")
}

/// A parent locator of the VHDX kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// Keys and values as UTF-16, which need not be valid text.
    pairs: Vec<(Vec<u16>, Vec<u16>)>,
    /// The parent's data write GUID.
    linkage: Uuid,
    /// The second one, where it is in use.
    linkage2: Option<Uuid>,
}

impl Locator {
    /// Reads the item `data`, which is at file offset `at`.
    pub fn parse(data: &[u8], at: u64) -> Result<Self> {
        let field = |by| Site { structure: "VHDX parent locator", space: Space::File, offset: at }.field(by);
        let Ok((header, rest)) = ParentLocatorHeader::read_from_prefix(data) else {
            return Err(Error::corrupt(field(0), "the parent locator is too short for its header")
                .expected(format_args!("{HEADER} bytes or more"), data.len()));
        };
        let kind = Uuid::from_bytes_le(header.locator_type);
        if kind != LOCATOR_TYPE_VHDX {
            return Err(Error::unsupported(field(0), "the parent of this disk is no VHDX")
                .expected(LOCATOR_TYPE_VHDX, kind));
        }
        if header.reserved.get() != 0 {
            return Err(Error::corrupt(field(16), "a reserved field of the parent locator is in use"));
        }
        let count = header.key_value_count.get();
        if count > MAX_PAIRS {
            return Err(Error::limit(field(18), "the parent locator has too many entries")
                .expected(format_args!("at most {MAX_PAIRS}"), count));
        }
        let entries_end = entry_place(u64::from(count))?;
        if entries_end > len64(data.len()) {
            return Err(Error::corrupt(field(18), "the parent locator is too short for its entries")
                .expected(format_args!("{entries_end} bytes or more"), data.len()));
        }
        let mut pairs: Vec<(Vec<u16>, Vec<u16>)> = Vec::new();
        let mut total = 0usize;
        for (number, entry) in (0u64..).zip(rest.chunks_exact(12).take(usize::from(count))) {
            let by = entry_place(number)?;
            let entry = ParentLocatorEntry::read_from_bytes(entry)
                .map_err(|_| Error::internal("a parent locator entry of the wrong length"))?;
            let key = text(data, entry.key_offset.get(), entry.key_length.get());
            let value = text(data, entry.value_offset.get(), entry.value_length.get());
            let (Some(key), Some(value)) = (key, value) else {
                return Err(Error::corrupt(
                    field(by),
                    "a key or value of the parent locator is no text inside it",
                ));
            };
            // The sum so far is at most half of `MAX_TEXT`, and a text has at most 64 KiB.
            total = total.wrapping_add(key.len()).wrapping_add(value.len());
            if total > MAX_TEXT / 2 {
                return Err(Error::limit(field(by), "the texts of the parent locator are too long")
                    .expected(format_args!("at most {MAX_TEXT} bytes"), "more"));
            }
            pairs.push((key, value));
        }
        let mut keys: Vec<&[u16]> = pairs.iter().map(|(key, _)| key.as_slice()).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Error::corrupt(field(HEADER), "the parent locator has a key twice"));
        }
        let guid = |key: &str| {
            let value = find(&pairs, key)?;
            Some(Uuid::parse_str(&value).map_err(|_| {
                Error::corrupt(field(HEADER), format!("the {key} of the parent locator is no GUID"))
                    .expected("{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}", value.escape_debug())
            }))
        };
        let linkage = guid(PARENT_LINKAGE).ok_or_else(|| {
            Error::corrupt(
                field(HEADER),
                "the parent locator does not say which parent: it has no parent_linkage",
            )
        })??;
        // The specification no longer allows it; Windows writes it, mostly as zero.
        let linkage2 = guid(PARENT_LINKAGE2).transpose()?.filter(|guid| !guid.is_nil());
        Ok(Self { pairs, linkage, linkage2 })
    }

    /// What it says of the parent.
    pub fn link(&self) -> ParentLink {
        ParentLink {
            ids: [Some(self.linkage), self.linkage2].into_iter().flatten().collect(),
            time_stamp: None,
            is_raw: false,
            paths: PATHS.iter().filter_map(|key| find(&self.pairs, key)).collect(),
        }
    }

    /// The item's bytes, with the GUIDs in lower case and braces as the specification wants them.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let too_large = || Error::internal("a parent locator grew too large");
        let texts: Vec<(Vec<u8>, Vec<u8>)> =
            self.pairs.iter().map(|(key, value)| (bytes(key), bytes(&self.rewritten(key, value)))).collect();
        let header = ParentLocatorHeader {
            locator_type: LOCATOR_TYPE_VHDX.to_bytes_le(),
            reserved: 0.into(),
            key_value_count: u16::try_from(texts.len()).map_err(|_| too_large())?.into(),
        };
        let mut item = header.as_bytes().to_vec();
        let mut at = entry_place(len64(texts.len()))?;
        for (key, value) in &texts {
            let key_offset = at;
            let value_offset = add(key_offset, len64(key.len()), "a parent locator")?;
            at = add(value_offset, len64(value.len()), "a parent locator")?;
            let entry = ParentLocatorEntry {
                key_offset: u32::try_from(key_offset).map_err(|_| too_large())?.into(),
                value_offset: u32::try_from(value_offset).map_err(|_| too_large())?.into(),
                key_length: u16::try_from(key.len()).map_err(|_| too_large())?.into(),
                value_length: u16::try_from(value.len()).map_err(|_| too_large())?.into(),
            };
            item.extend_from_slice(entry.as_bytes());
        }
        for (key, value) in &texts {
            item.extend_from_slice(key);
            item.extend_from_slice(value);
        }
        Ok(item)
    }

    /// The value as it is written: libvhdi reads a GUID in upper case as zero.
    fn rewritten(&self, key: &[u16], value: &[u16]) -> Vec<u16> {
        let guid = match String::from_utf16_lossy(key).as_str() {
            PARENT_LINKAGE => self.linkage,
            PARENT_LINKAGE2 => self.linkage2.unwrap_or_default(),
            _ => return value.to_vec(),
        };
        guid.braced().to_string().encode_utf16().collect()
    }
}

/// A text inside `data`: not empty, whole UTF-16 units, no NUL.
fn text(data: &[u8], offset: u32, length: u16) -> Option<Vec<u16>> {
    let from = usize::try_from(offset).ok().filter(|&from| from > 0)?;
    let bytes = data.get(from..)?.get(..usize::from(length))?;
    let units = bytes.chunks_exact(2);
    if bytes.is_empty() || !units.remainder().is_empty() {
        return None;
    }
    let units: Vec<u16> = units.filter_map(|pair| pair.try_into().ok()).map(u16::from_le_bytes).collect();
    (!units.contains(&0)).then_some(units)
}

fn find(pairs: &[(Vec<u16>, Vec<u16>)], key: &str) -> Option<String> {
    let (_, value) = pairs.iter().find(|(name, _)| name.iter().copied().eq(key.encode_utf16()))?;
    Some(String::from_utf16_lossy(value))
}

fn bytes(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::image::vhdx::testing::{LOCATOR, PARENT, TestImage, breaks, breaks_as, utf16};

    #[test]
    fn ids_and_paths_are_read_in_their_order() {
        let mut image = TestImage::differencing();
        image.set_locator(&[
            ("absolute_win32_path", "C:\\vm\\p.vhdx"),
            ("parent_linkage2", "{00000000-0000-0000-0000-000000000001}"),
            ("volume_path", "\\\\?\\Volume{1}\\p.vhdx"),
            ("parent_linkage", "{7584F8FB-36D3-4091-AFB5-B1AFE587BFA8}"),
            ("relative_path", "..\\p.vhdx"),
            ("unheard of", "kept"),
        ]);
        let link = image.open().unwrap().parent.unwrap();
        assert_eq!(link.ids, [PARENT, Uuid::from_u128(1)]);
        assert_eq!(link.paths, ["..\\p.vhdx", "\\\\?\\Volume{1}\\p.vhdx", "C:\\vm\\p.vhdx"]);
        assert_eq!(link.time_stamp, None);
    }

    #[test]
    fn a_second_linkage_of_zero_is_none_and_paths_may_be_missing() {
        let mut image = TestImage::differencing();
        let linkage = PARENT.to_string();
        let zero = "{00000000-0000-0000-0000-000000000000}";
        image.set_locator(&[("parent_linkage", linkage.as_str()), ("parent_linkage2", zero)]);
        let link = image.open().unwrap().parent.unwrap();
        assert_eq!(link.ids, [PARENT]);
        assert!(link.paths.is_empty());
    }

    /// A locator of a linkage and of further entries, each of a key of its own and a value of so many units.
    fn with_texts(lengths: &[usize]) -> Result<Locator> {
        let values =
            std::iter::once(PARENT.braced().to_string()).chain(lengths.iter().map(|&n| "x".repeat(n)));
        let mut head = LOCATOR_TYPE_VHDX.to_bytes_le().to_vec();
        head.extend([0, 0]);
        head.extend(u16::try_from(lengths.len() + 1).unwrap().to_le_bytes());
        let mut texts = Vec::new();
        for (n, value) in values.enumerate() {
            let key = if n == 0 { PARENT_LINKAGE.to_owned() } else { format!("key of text {n:03}") };
            assert_eq!(key.len(), 14 + usize::from(n > 0));
            let at = 20 + 12 * (lengths.len() + 1) + texts.len();
            let (key, value) = (utf16(&key), utf16(&value));
            head.extend(u32::try_from(at).unwrap().to_le_bytes());
            head.extend(u32::try_from(at + key.len()).unwrap().to_le_bytes());
            head.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
            head.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
            texts.extend(key);
            texts.extend(value);
        }
        Locator::parse(&[head, texts].concat(), 0)
    }

    #[test]
    fn a_locator_has_so_many_entries_and_so_much_text_and_no_more() {
        assert!(with_texts(&[1; 255]).is_ok());
        assert_eq!(with_texts(&[1; 256]).unwrap_err().kind(), ErrorKind::LimitExceeded);
        // 14 and 38 units of the linkage, 9 keys of 15 units, and the rest.
        let rest = (512 << 10) / 2 - 14 - 38 - 9 * 15 - 8 * 32_000;
        let mut lengths = [[32_000; 8].as_slice(), &[rest]].concat();
        assert!(with_texts(&lengths).is_ok());
        lengths[8] += 1;
        assert_eq!(with_texts(&lengths).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn every_field_is_checked() {
        let image = TestImage::differencing();
        let linkage = PARENT.braced().to_string();
        let first = LOCATOR + 20;
        breaks_as(&image, ErrorKind::Unsupported, "parent of this disk is no VHDX", |i| i.put(LOCATOR, &[1]));
        breaks(&image, "reserved field of the parent locator", |i| i.put16(LOCATOR + 16, 1));
        breaks(&image, "too short for its entries", |i| i.put16(LOCATOR + 18, 100));
        breaks_as(&image, ErrorKind::LimitExceeded, "too many entries", |i| i.put16(LOCATOR + 18, 257));
        breaks(&image, "too short for its header", |i| {
            let at = i.item_entry(5);
            i.put32(at + 20, 19);
        });
        for by in [0, 4] {
            breaks(&image, "no text inside it", |i| i.put32(first + by, 0));
            breaks(&image, "no text inside it", |i| i.put32(first + by, 2000));
            breaks(&image, "no text inside it", |i| i.put32(first + by, u32::MAX));
        }
        for by in [8, 10] {
            breaks(&image, "no text inside it", |i| i.put16(first + by, 0));
            breaks(&image, "no text inside it", |i| i.put16(first + by, 7));
            breaks(&image, "no text inside it", |i| i.put16(first + by, 60_000));
        }
        breaks(&image, "no text inside it", |i| {
            i.set_locator(&[("parent_linkage", linkage.as_str()), ("relative_path", "a\0b")]);
        });
        breaks(&image, "key twice", |i| i.set_locator(&[("a", "b"), ("a", "c")]));
        breaks(&image, "has no parent_linkage", |i| i.set_locator(&[("relative_path", "b")]));
        breaks(&image, "parent_linkage of the parent locator is no GUID", |i| {
            i.set_locator(&[("parent_linkage", "{7584f8fb}")]);
        });
        breaks(&image, "parent_linkage2 of the parent locator is no GUID", |i| {
            i.set_locator(&[("parent_linkage", linkage.as_str()), ("parent_linkage2", "no")]);
        });
        breaks_as(&image, ErrorKind::LimitExceeded, "texts of the parent locator are too long", |i| {
            // Many entries that all name the same long text.
            i.set_locator(&[("a", "b"); 16]);
            for n in 0..16 {
                i.put32(LOCATOR + 20 + n * 12 + 4, 400);
                i.put16(LOCATOR + 20 + n * 12 + 10, 65_000);
            }
            i.put(LOCATOR + 400, &[1; 65_000]);
            let at = i.item_entry(5);
            i.put32(at + 20, 66_000);
        });
        breaks(&image, "wrong thing", |i| {
            let at = i.item_entry(5);
            i.put32(at + 24, 6);
        });
    }

    #[test]
    fn what_is_written_is_lower_case_and_otherwise_the_same() {
        let mut image = TestImage::differencing();
        image.set_locator(&[
            ("relative_path", "..\\Päter.vhdx"),
            ("parent_linkage", "{7584F8FB-36D3-4091-AFB5-B1AFE587BFA8}"),
            ("Key", "Value"),
        ]);
        let read = |bytes: &[u8]| Locator::parse(bytes, 0).unwrap();
        let source = read(&image.bytes[LOCATOR..LOCATOR + 2000]);
        let written = source.to_bytes().unwrap();
        let again = read(&written);
        assert_eq!(again.link(), source.link());
        assert_eq!(again.pairs[0], source.pairs[0]);
        assert_eq!(again.pairs[2], source.pairs[2]);
        let lower = utf16("{7584f8fb-36d3-4091-afb5-b1afe587bfa8}");
        assert!(written.windows(lower.len()).any(|window| window == lower));
        assert_eq!(again.to_bytes().unwrap(), written);
    }
}
