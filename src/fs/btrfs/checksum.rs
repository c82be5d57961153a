//! The checksums of superblocks and tree blocks: the first 32 bytes hold the checksum of all the others.
//!
//! Source: btrfs-progs documentation, "On-disk Format" (`csum_type`), and `btrfs(5)`, "Checksum algorithms".

use blake2::Blake2b256;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use crate::checksum::crc32c;

/// How many bytes at the beginning of a block are for its checksum.
const ROOM: usize = 32;

/// A kind of checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChecksumKind {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl ChecksumKind {
    /// The kind of this number, if it is known.
    pub(super) fn of(number: u16) -> Option<Self> {
        [Self::Crc32c, Self::XxHash64, Self::Sha256, Self::Blake2b].get(usize::from(number)).copied()
    }

    /// Whether a block begins with the checksum of the rest. Where that is shorter than its room, the bytes behind
    /// it mean nothing.
    pub(super) fn matches(self, block: &[u8]) -> bool {
        let Some((sum, rest)) = block.split_at_checked(ROOM) else { return false };
        match self {
            Self::Crc32c => sum.starts_with(&crc32c(rest).to_le_bytes()),
            Self::XxHash64 => sum.starts_with(&XxHash64::oneshot(0, rest).to_le_bytes()),
            Self::Sha256 => *sum == *Sha256::digest(rest),
            Self::Blake2b => *sum == *Blake2b256::digest(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn published_values() {
        // Of no bytes at all: the specifications' and RFC 7693's own programs give these.
        let values = [
            (0, "00000000"),
            (1, "99e9d85137db46ef"),
            (2, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (3, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"),
        ];
        for (number, sum) in values {
            let mut block = hex(sum);
            block.resize(ROOM, 7);
            let kind = ChecksumKind::of(number).unwrap();
            assert!(kind.matches(&block), "{kind:?}");
            block[3] ^= 1;
            assert!(!kind.matches(&block), "{kind:?}");
        }
        assert_eq!(ChecksumKind::of(4), None);
        assert!(!ChecksumKind::Crc32c.matches(&[0; ROOM - 1]));
    }
}
