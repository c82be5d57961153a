//! Multiple mount protection: a block in which whoever uses the volume counts up.
//!
//! ```text
//!   0x00 mmp_magic 0x004D4D50   0x04 mmp_seq   0x10 mmp_nodename[64]   …   0x3FC mmp_checksum
//! ```
//! Source: the kernel's `ext4/mmp.rst`.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::superblock::Superblock;
use super::{checksum, features, site};
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{ReadAt, read_struct};

const MAGIC: u32 = 0x004D_4D50;
/// mmp_seq when nobody uses the volume.
const SEQ_CLEAN: u32 = 0xFF4D_4D50;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawMmp {
    mmp_magic: U32,
    mmp_seq: U32,
    mmp_rest: [u8; 0x3F4],
    mmp_checksum: U32,
}

/// Declines a volume that is in use by its own account.
pub(super) fn require_idle(volume: &dyn ReadAt, superblock: &Superblock) -> Result<(), Stop> {
    if !superblock.features.has(features::MMP) {
        return Ok(());
    }
    let at = site("ext4 MMP block", superblock.byte_of(superblock.mmp_block)?);
    let damaged = |what: &str| {
        Decline::new(
            DeclineReason::Inconsistent,
            format!("The block for multiple mount protection is damaged ({what}). Run e2fsck."),
        )
        .at(at)
    };
    if !superblock.holds(superblock.mmp_block) {
        return Err(damaged("it lies outside the file system").into());
    }
    let mmp: RawMmp = read_struct(volume, at.offset)?;
    if mmp.mmp_magic.get() != MAGIC {
        return Err(damaged("it has no magic number").into());
    }
    let covered = mmp.as_bytes().get(..0x3FC);
    let expected = covered.map(|covered| checksum::crc32c(superblock.checksum_seed, covered));
    if superblock.features.has(features::METADATA_CSUM) && expected != Some(mmp.mmp_checksum.get()) {
        return Err(damaged("its checksum is wrong").into());
    }
    if mmp.mmp_seq.get() != SEQ_CLEAN {
        return Err(Decline::new(
            DeclineReason::Dirty,
            "The file system is marked as being in use by a computer or by e2fsck. Unmount it there, \
             then try again.",
        )
        .at(at)
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::Sample;

    fn guarded(seq: u32, change: impl FnOnce(&mut [u8])) -> Sample {
        const AT: usize = 50 * 1024;
        let mut sample = Sample::new().with_bits(0x60, 0x100).with32(0x168, 50);
        sample.put32(AT, MAGIC);
        sample.put32(AT + 4, seq);
        let seed = checksum::crc32c(checksum::START, b"unique as a uuid");
        let crc = checksum::crc32c(seed, &sample.bytes[AT..AT + 0x3FC]);
        sample.put32(AT + 0x3FC, crc);
        change(&mut sample.bytes[AT..AT + 1024]);
        sample
    }

    #[test]
    fn an_idle_volume_is_mapped() {
        guarded(SEQ_CLEAN, |_| {}).mapped();
    }

    #[test]
    fn a_volume_in_use_or_with_a_damaged_block_declines() {
        assert_eq!(guarded(0xE24D_4D50, |_| {}).declined().reason, DeclineReason::Dirty, "e2fsck at work");
        assert_eq!(guarded(1234, |_| {}).declined().reason, DeclineReason::Dirty);
        for damaged in [
            guarded(SEQ_CLEAN, |block| block[0] = 0),
            guarded(SEQ_CLEAN, |block| block[20] = 1),
            guarded(SEQ_CLEAN, |_| {}).with32(0x168, 0),
            guarded(SEQ_CLEAN, |_| {}).with32(0x168, 5000),
        ] {
            assert_eq!(damaged.declined().reason, DeclineReason::Inconsistent);
        }
    }
}
