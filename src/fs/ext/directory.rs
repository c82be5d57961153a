//! Directories: which inodes they name.
//!
//! ```text
//!   a block    │ entry │ entry │ …     each: 0x0 inode (0: unused)   0x4 rec_len   0x6 name_len
//!                                            0x7 file_type           0x8 name
//!   inline     i_block: parent's inode │ entries …   the attribute "system.data": more entries
//! ```
//! An index of names (dir_index) hides in blocks that look like one unused entry, so a plain reader need not
//! know it. Source: the kernel's `ext4/directory.rst`, `ext4/inlinedata.rst`.

use super::blockmap::Fault;
use crate::units::len64;

/// What precedes the name in an entry.
const HEADER: usize = 8;
const FILE_TYPE_DIRECTORY: u8 = 2;

/// An entry that names an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'b> {
    pub inode: u32,
    pub name: &'b [u8],
    file_type: u8,
}

impl Entry<'_> {
    /// Whether it is the directory itself or its parent.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// Whether it may be a directory; without the filetype feature it may always be.
    pub(super) fn may_be_directory(&self) -> bool {
        matches!(self.file_type, 0 | FILE_TYPE_DIRECTORY)
    }
}

/// The entries in a stretch of a directory that no entry crosses: a block, or a part of inline data.
pub(super) fn entries(bytes: &[u8]) -> Entries<'_> {
    Entries { rest: bytes, len: len64(bytes.len()) }
}

/// See [`entries`]; ends at the first fault.
pub(super) struct Entries<'b> {
    rest: &'b [u8],
    len: u64,
}

impl<'b> Entries<'b> {
    /// The next entry in use, and what follows it.
    fn split(&self) -> Result<(Entry<'b>, &'b [u8]), Fault> {
        const SHORT: Fault = "an entry of the directory is cut off";
        let Some((&[a, b, c, d, low, high, name_len, file_type], _)) =
            self.rest.split_first_chunk::<HEADER>()
        else {
            return Err(SHORT);
        };
        let rec_len = self.entry_len(u16::from_le_bytes([low, high]));
        let name_end = HEADER.checked_add(name_len.into());
        let valid = rec_len.is_multiple_of(4) && name_end.is_some_and(|end| end <= rec_len);
        if !valid {
            return Err("an entry of the directory has an impossible length");
        }
        let (entry, after) = self.rest.split_at_checked(rec_len).ok_or(SHORT)?;
        let name = name_end.and_then(|end| entry.get(HEADER..end)).ok_or(SHORT)?;
        Ok((Entry { inode: u32::from_le_bytes([a, b, c, d]), name, file_type }, after))
    }

    /// The length of an entry; blocks of 64 KiB need a bit that the field does not have.
    fn entry_len(&self, rec_len: u16) -> usize {
        let rec_len = usize::from(rec_len);
        match rec_len {
            _ if self.len < 1 << 16 => rec_len,
            0 | 0xFFFF => 1 << 16,
            _ => rec_len & 0xFFFC | (rec_len & 3) << 16,
        }
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<Entry<'b>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.split() {
                Ok((entry, after)) => {
                    self.rest = after;
                    if entry.inode != 0 {
                        return Some(Ok(entry));
                    }
                }
                Err(fault) => {
                    self.rest = &[];
                    return Some(Err(fault));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, rec_len: u16, name: &[u8], file_type: u8) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(rec_len.to_le_bytes());
        bytes.extend([u8::try_from(name.len()).unwrap(), file_type]);
        bytes.extend(name);
        bytes.resize(rec_len.into(), 0);
        bytes
    }

    #[test]
    fn entries_in_use_are_told_in_order() {
        let block = [entry(2, 12, b".", 2), entry(0, 16, b"gone", 1), entry(12, 20, b"a", 1)].concat();
        let found: Vec<_> = entries(&block).map(Result::unwrap).collect();
        assert_eq!(found.iter().map(|entry| entry.inode).collect::<Vec<_>>(), [2, 12]);
        assert!(found[0].is_dot() && !found[1].is_dot());
        assert!(found[0].may_be_directory() && !found[1].may_be_directory());
    }

    #[test]
    fn an_entry_may_fill_a_block_of_64_kib() {
        for len in [0, 0xFFFF] {
            let mut block = entry(12, 16, b"whole", 1);
            block[4..6].copy_from_slice(&u16::to_le_bytes(len));
            block.resize(1 << 16, 0);
            assert_eq!(entries(&block).map(Result::unwrap).count(), 1);
        }
    }

    #[test]
    fn each_impossible_entry_is_a_fault_and_the_last_that_is_told() {
        for bad in [
            entry(12, 16, b"a", 1)[..4].to_vec(),
            [entry(12, 16, b"a", 1), vec![0; 16]].concat(),
            entry(12, 18, b"a", 1),
            entry(12, 16, b"longer than its entry", 1),
            entry(12, 16, b"a", 1)[..12].to_vec(),
        ] {
            let found: Vec<_> = entries(&bad).collect();
            assert!(found.last().unwrap().is_err() && found.len() <= 2, "{bad:?}");
        }
    }
}
