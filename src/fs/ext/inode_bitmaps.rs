//! Inode bitmaps: which inodes of a group are in use, one bit each, by their place in the table.

use std::collections::HashMap;

use super::superblock::Superblock;
use crate::error::Error;
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64};

/// How much of neighbouring bitmaps is read at once: with flex_bg, those of 16 groups lie together.
const READ_AHEAD: u64 = 64 << 10;
/// How much of bitmaps is remembered. Names in a directory mostly lead to the same few groups.
const MAX_BYTES: u64 = 8 << 20;

/// Inode bitmaps that were read.
#[derive(Debug, Default)]
pub(super) struct InodeBitmaps {
    by_group: HashMap<u32, Vec<u8>>,
    /// Blocks that were read last, from this one on.
    near: (u64, Vec<u8>),
}

impl InodeBitmaps {
    /// The bitmap of `group`, which lies in `block`.
    pub(super) fn of(
        &mut self,
        volume: &dyn ReadAt,
        superblock: &Superblock,
        group: u32,
        block: u64,
    ) -> Result<&[u8], Stop> {
        if !self.by_group.contains_key(&group) {
            let bitmap = self.read(volume, superblock, block)?;
            let most = MAX_BYTES.checked_div(len64(bitmap.len()).max(1)).unwrap_or(1);
            if len64(self.by_group.len()) >= most {
                self.by_group.clear();
            }
            self.by_group.insert(group, bitmap);
        }
        let bitmap = self.by_group.get(&group).map(Vec::as_slice);
        bitmap.ok_or_else(|| Error::internal("a bitmap that was just read").into())
    }

    fn read(&mut self, volume: &dyn ReadAt, superblock: &Superblock, block: u64) -> Result<Vec<u8>, Stop> {
        let bits = u64::from(superblock.inodes_per_group);
        let len = index(bits.div_ceil(8), "an inode bitmap")?;
        for attempt in 0..2 {
            let (first, bytes) = &self.near;
            let inside = block.checked_sub(*first).map(|inside| superblock.byte_of(inside)).transpose()?;
            let end = inside.map(|inside| add(inside, superblock.block_size, "a bitmap")).transpose()?;
            if let (Some(inside), Some(end)) = (inside, end)
                && end <= len64(bytes.len())
                && let Some(bitmap) = bytes.get(index(inside, "a bitmap")?..).and_then(|rest| rest.get(..len))
            {
                return Ok(bitmap.to_vec());
            }
            if attempt == 0 {
                let at_once = READ_AHEAD.checked_div(superblock.block_size).unwrap_or(1).max(1);
                let left = superblock.blocks.checked_sub(block).unwrap_or(1);
                let blocks = superblock.groups_per_flex.clamp(1, at_once).min(left);
                let size = index(superblock.byte_of(blocks)?, "inode bitmaps")?;
                self.near = (block, read_vec(volume, superblock.byte_of(block)?, size)?);
            }
        }
        Err(Error::internal("an inode bitmap is longer than its block").into())
    }
}

/// Whether the bit at `place` is set; one behind the bitmap is not.
pub(super) fn is_set(bitmap: &[u8], place: u32) -> bool {
    let byte = usize::try_from(place / 8).ok().and_then(|byte| bitmap.get(byte));
    byte.is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}
