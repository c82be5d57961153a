//! Extended attributes, as far as they decide who owns what.
//!
//! ```text
//!   in an inode    magic │ entry │ entry │ … │ 0 │ … values      values are counted from the first entry
//!   in a block     header (32 bytes) │ entry │ … │ 0 │ … values   … from the start of the block
//!
//!   entry          0x0 e_name_len   0x1 e_name_index   0x2 e_value_offs   0x4 e_value_inum
//!                  0x8 e_value_size   0xC e_hash   0x10 name
//! ```
//! An inode may hold a large value (ea_inode), and more of a small directory (inline_data). Source: the
//! kernel's `ext4/attributes.rst`.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::blockmap::Fault;

const MAGIC: [u8; 4] = 0xEA02_0000u32.to_le_bytes();
/// The header of a block of attributes.
const BLOCK_HEADER: usize = 32;
/// e_name_index of "system.".
const SYSTEM: u8 = 7;
const CUT_OFF: Fault = "its extended attributes are cut off";

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    e_name_len: u8,
    e_name_index: u8,
    e_value_offs: U16,
    e_value_inum: U32,
    e_value_size: U32,
    e_hash: U32,
}

/// Attributes in memory.
#[derive(Debug, Default)]
pub(super) struct Attributes<'b> {
    /// Inodes that hold values.
    pub value_inodes: Vec<u32>,
    /// The rest of the file's inline data.
    pub inline_data: &'b [u8],
}

/// Attributes inside an inode, from where its fields end.
pub(super) fn in_inode(bytes: &[u8]) -> Result<Attributes<'_>, Fault> {
    match bytes.strip_prefix(&MAGIC) {
        Some(entries) => read(entries, entries),
        None => Ok(Attributes::default()),
    }
}

/// Attributes of a block.
pub(super) fn in_block(bytes: &[u8]) -> Result<Attributes<'_>, Fault> {
    let entries = bytes.get(BLOCK_HEADER..).filter(|_| bytes.starts_with(&MAGIC));
    read(entries.ok_or("its block of extended attributes has no magic number")?, bytes)
}

fn read<'b>(mut entries: &'b [u8], values: &'b [u8]) -> Result<Attributes<'b>, Fault> {
    let mut found = Attributes::default();
    // Four zero bytes end the list; so does the end of what holds it.
    while let Some(head) = entries.first_chunk::<4>()
        && *head != [0; 4]
    {
        let Ok((raw, rest)) = RawEntry::ref_from_prefix(entries) else { return Err(CUT_OFF) };
        let padded = usize::from(raw.e_name_len).next_multiple_of(4);
        let name = rest.get(..raw.e_name_len.into()).ok_or(CUT_OFF)?;
        if raw.e_value_inum.get() != 0 {
            found.value_inodes.push(raw.e_value_inum.get());
        } else if raw.e_name_index == SYSTEM && name == b"data" {
            let start = usize::from(raw.e_value_offs.get());
            let value = usize::try_from(raw.e_value_size.get())
                .ok()
                .and_then(|len| values.get(start..)?.get(..len))
                .ok_or(CUT_OFF)?;
            found.inline_data = value;
        }
        entries = rest.get(padded..).ok_or(CUT_OFF)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u8, name: &[u8], offset: u16, inode: u32, size: u32) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(name.len()).unwrap(), index];
        bytes.extend(offset.to_le_bytes());
        bytes.extend([inode.to_le_bytes(), size.to_le_bytes(), [0; 4]].concat());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn list() -> Vec<u8> {
        let entries = [entry(1, b"big", 0, 77, 5000), entry(SYSTEM, b"data", 77, 0, 3)].concat();
        let mut bytes = [entries, vec![0; 40]].concat();
        bytes[77..80].copy_from_slice(b"abc");
        bytes
    }

    #[test]
    fn values_in_inodes_and_inline_data_are_found() {
        let bytes = [MAGIC.to_vec(), list()].concat();
        let found = in_inode(&bytes).unwrap();
        assert_eq!((found.value_inodes, found.inline_data), (vec![77], b"abc".as_slice()));
        let mut block = [MAGIC.to_vec(), vec![0; 28], list()].concat();
        block[77..80].copy_from_slice(b"xyz");
        let found = in_block(&block).unwrap();
        assert_eq!((found.value_inodes, found.inline_data), (vec![77], b"xyz".as_slice()));
        assert!(in_inode(&[0; 100]).unwrap().value_inodes.is_empty(), "an inode may have none");
    }

    #[test]
    fn what_is_cut_off_or_no_list_is_a_fault() {
        assert!(in_block(&[0; 100]).is_err());
        assert!(in_block(&MAGIC).is_err());
        let bytes = [MAGIC.to_vec(), list()].concat();
        for len in [10, 22, 30, 50, 64] {
            assert!(in_inode(&bytes[..len]).is_err(), "{len}");
        }
    }
}
