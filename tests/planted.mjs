/**
 * Faults that somebody might make, each as a change of one place of the engine. `npm run plant` makes one after another
 * in a copy, and the tests must fail on each; `tests/scripts/planted.test.mjs` sees to it that every place is still there.
 *
 * @typedef {object} Planted
 * @property {string} what the fault, in a few words
 * @property {string} file
 * @property {string} from what stands there, once in the file
 * @property {string} to
 */

/** @type {Planted[]} */
export const planted = [
  {
    what: 'the last sector of a read is dropped',
    file: 'src/io/window.rs',
    from: 'self.inner.read_exact_at(part.start, head)\n',
    to: 'let keep = head.len().saturating_sub(512);\n            self.inner.read_exact_at(part.start, head.get_mut(..keep).unwrap_or_default())\n',
  },
  {
    what: 'the payload of a VHD is a sector off',
    file: 'src/image/vhd/bat.rs',
    from: 'let payload = add(bitmap, self.bitmap_len, "a block")?;',
    to: 'let payload = add(bitmap, add(self.bitmap_len, 512, "a block")?, "a block")?;',
  },
  {
    what: 'the log of a VHDX is not replayed',
    file: 'src/image/vhdx/open.rs',
    from: 'let container = match header.log_guid {',
    to: 'let container = match header.log_guid.filter(|_| false) {',
  },
  {
    what: 'revoked blocks of a journal are replayed',
    file: 'src/fs/ext/journal.rs',
    from: 'if stays {',
    to: 'if stays && false {',
  },
  {
    what: 'the padding of $Bitmap is read as clusters',
    file: 'src/fs/ntfs/bitmap.rs',
    from: 'let used = used | padding;',
    to: 'let _ = padding;',
  },
  {
    what: 'a data run may end one cluster past the volume',
    file: 'src/fs/ntfs/stream.rs',
    from: 'lcn.checked_add(len).filter(|&end| end <= clusters)?;',
    to: 'lcn.checked_add(len).filter(|&end| end <= clusters.saturating_add(1))?;',
  },
  {
    what: 'an unwritten extent of ext4 is read with its mark as length',
    file: 'src/fs/ext/blockmap.rs',
    from: 'let len = if unwritten { len & !MAX_EXTENT } else { len };',
    to: '',
  },
  {
    what: 'a multiplication wraps round',
    file: 'src/units.rs',
    from: 'a.checked_mul(b).ok_or_else(|| too_large(what))',
    to: '{ let _ = what; Ok(a.wrapping_mul(b)) }',
  },
  {
    what: 'a chain that runs in a circle is followed',
    file: 'src/image/chain.rs',
    from: 'Some(image.format) == format && link.matches(image)',
    to: 'false && Some(image.format) == format && link.matches(image)',
  },
  {
    what: 'the second witness is not listened to',
    file: 'src/fs/witness.rs',
    from: 'if !self.calls_free(range.clone()) {',
    to: 'if !self.calls_free(range.clone()) || true {',
  },
  {
    what: 'shadow copies are not asked by the second witness',
    file: 'src/fs/witness.rs',
    from: '.filter(|(request, _)| *request == Request::ShadowCopies)',
    to: '.filter(|(request, _)| *request == Request::ShadowCopies && false)',
  },
  {
    what: 'the end of what is looked at for zeros is forgotten',
    file: 'src/compact/scan.rs',
    from: ' && rest.iter().all(|&byte| byte == 0)',
    to: ' && (rest.is_empty() || true)',
  },
  {
    what: 'a block goes that is free in part',
    file: 'src/extents.rs',
    from: 'window.start >= window.end || self.within(window.clone()).next() == Some(window)',
    to: 'window.start >= window.end || self.within(window.clone()).next().is_some()',
  },
  {
    what: 'a resumed scan forgets that reads change',
    file: 'src/compact/scan.rs',
    from: 'self.reads_changed = flags & 1 != 0;',
    to: '',
  },
  {
    what: 'free space of blocks that are kept may differ, too',
    file: 'src/compact/layout.rs',
    from: 'if plan.scrubs() {\n            return plan.free.clone();',
    to: 'if plan.scrubs() || true {\n            return plan.free.clone();',
  },
  {
    what: 'a traced range is believed wherever it was copied from',
    file: 'src/compact/trace.rs',
    from: 'add(start, length(&(known.range.start..at)), "a place in a file")? == expected',
    to: '{ let _ = (start, expected); true }',
  },
  {
    what: 'the second witness of Btrfs does not look at the extents of files',
    file: 'src/fs/btrfs/walk.rs',
    from: 'if key.kind == EXTENT_DATA {',
    to: 'if key.kind == EXTENT_DATA && key.offset == u64::MAX {',
  },
  {
    what: 'tree blocks of Btrfs are counted, and free',
    file: 'src/fs/btrfs/map.rs',
    from: 'rest = Some((chunk, range.end,',
    to: 'rest = Some((chunk, if key.kind == METADATA_ITEM { end } else { range.end },',
  },
];
