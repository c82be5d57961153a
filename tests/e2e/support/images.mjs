/** Images for the tests: the sample that comes with the page, and small ones built by hand. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { inRoot } from '../../../scripts/lib/paths.mjs';
import { tool } from '../../support/tools.mjs';
import { dynamicVhd, fixedVhd } from '../../support/vhd.mjs';

const BASE = 'aa'.repeat(16);
const CHILD = 'bb'.repeat(16);
const GRANDCHILD = 'cc'.repeat(16);

/** A VHDX of 48 MB with a FAT16 and an ext4 volume: www/sample/make.sh. */
export const sample = () => gunzipSync(readFileSync(inRoot('www/sample/sample.vhdx.gz')));

/** Two blocks of data, three of zeros, and the rest never stored; no file system. */
export const base = () => dynamicVhd({ blocks: 16, stored: { 0: 1, 1: 0, 2: 0, 5: 7, 6: 0 }, id: BASE });

/** Built upon `base`: one block of its own, one equal to the parent's, one zero where the parent is too. */
export const child = () =>
  dynamicVhd({ blocks: 16, stored: { 3: 9, 5: 7, 6: 0 }, id: CHILD, parent: { id: BASE, name: 'base.vhd' } });

/** As `child`, and it noted a time of its parent that no file of a test has. */
export const estranged = () =>
  dynamicVhd({
    blocks: 16,
    stored: { 3: 9 },
    id: CHILD,
    parent: { id: BASE, name: 'base.vhd', modified: 1_000_000 },
  });

/** Built upon `child`. */
export const grandchild = () =>
  dynamicVhd({ blocks: 16, stored: { 4: 5 }, id: GRANDCHILD, parent: { id: CHILD, name: 'child.vhd' } });

/** A fixed image: a quarter of data, the rest zero. */
export const fixed = () =>
  fixedVhd({ bytes: Buffer.concat([Buffer.alloc(4 << 20, 3), Buffer.alloc(12 << 20)]), id: BASE });

/** An image that its machine has saved its state upon. */
export const saved = () => dynamicVhd({ blocks: 4, stored: { 0: 1 }, id: BASE, savedState: true });

/** `size` bytes of data and as many zeros, in a fixed image: what takes a while. @param {number} size */
export const large = (size) =>
  fixedVhd({ bytes: Buffer.concat([Buffer.alloc(size, 0xa5), Buffer.alloc(size)]), id: BASE });

/** A child whose parent has a name that would be markup, and that turns the writing direction. */
export const hostile = () =>
  dynamicVhd({
    blocks: 4,
    stored: { 0: 1 },
    id: CHILD,
    parent: { id: BASE, name: 'C:\\<b>bold</b>\u202egpj.vhd' },
  });

/** So many blocks of 2 MB that are stored and hold only zeros: what is looked through to the end. @param {number} blocks */
export const zeros = (blocks) =>
  dynamicVhd({
    blocks,
    stored: Object.fromEntries(Array.from({ length: blocks }, (_, block) => [block, 0])),
    id: BASE,
  });

/** An ext4 on a bare disk over which an empty partition table was written, as after “initialise disk”. By mkfs.ext4 and sfdisk. */
export function underPartitionTable() {
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-'));
  try {
    const raw = join(folder, 'raw');
    writeFileSync(raw, '');
    truncateSync(raw, 32 << 20);
    tool('mkfs.ext4', '-q', '-F', '-b', '1024', raw);
    execFileSync('sfdisk', ['-q', '--wipe', 'never', raw], { input: 'label: gpt\n' });
    return fixedVhd({ bytes: readFileSync(raw), id: BASE });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
