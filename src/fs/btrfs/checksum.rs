//! What superblocks and tree blocks are sealed with: one kind for the whole file system.
//!
//! ```text
//!   superblock, tree block:  digest, zeros up to 32 bytes │ what it is the digest of, to the end of the block
//! ```
//! Source: Btrfs documentation, "Checksumming" and "On-disk format: superblock" (`csum_type`).

use blake2::Blake2b;
use blake2::digest::consts::U32;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use crate::checksum::crc32c;

/// How long the field of a digest is, whatever is used of it.
const FIELD: usize = 32;

/// A kind of checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    XxHash64,
    Sha256,
    /// BLAKE2b with a digest of 256 bits.
    Blake2b,
}

impl Checksum {
    /// The kind of this number; none where the number means nothing here.
    pub(super) const fn of(kind: u16) -> Option<Self> {
        match kind {
            0 => Some(Self::Crc32c),
            1 => Some(Self::XxHash64),
            2 => Some(Self::Sha256),
            3 => Some(Self::Blake2b),
            _ => None,
        }
    }

    /// Whether a block begins with the digest of what follows its field.
    pub(super) fn seals(self, block: &[u8]) -> bool {
        block.split_at_checked(FIELD).is_some_and(|(field, rest)| field.starts_with(&self.digest(rest)))
    }

    /// As it stands at the beginning of the field.
    pub(super) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32c => crc32c(bytes).to_le_bytes().to_vec(),
            Self::XxHash64 => XxHash64::oneshot(0, bytes).to_le_bytes().to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Blake2b => Blake2b::<U32>::digest(bytes).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of "abc", by the programs `xxhsum -H64`, `sha256sum` and `b2sum -l 256`, and by RFC 3720, B.4, for 32
    /// bytes of zeros.
    #[test]
    fn each_kind_is_what_others_make_of_the_same_bytes() {
        let cases: [(u16, &[u8], &str); 4] = [
            (0, &[0; 32], "aa36918a"),
            (1, b"abc", "44bc2cf5ad770999"),
            (2, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (3, b"abc", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"),
        ];
        for (kind, bytes, digest) in cases {
            let mut digest: Vec<u8> = (0..digest.len() / 2)
                .map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            // Numbers are little-endian on the disk, and the tools print the most significant byte first.
            if kind == 1 {
                digest.reverse();
            }
            let mut block = digest.clone();
            block.resize(FIELD, 0);
            block.extend(bytes);
            let checksum = Checksum::of(kind).unwrap();
            assert!(checksum.seals(&block), "{checksum:?}");
            for at in [0, digest.len() - 1, FIELD, block.len() - 1] {
                let mut damaged = block.clone();
                damaged[at] ^= 1;
                assert!(!checksum.seals(&damaged), "{checksum:?} at {at}");
            }
            assert!(!checksum.seals(&block[..FIELD - 1]));
        }
        assert_eq!(Checksum::of(4), None);
    }
}
