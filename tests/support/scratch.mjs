/** A folder for a test file's images, gone afterwards. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** Makes the folder; the result gives paths inside it. */
export function scratchFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return (/** @type {string[]} */ ...names) => join(folder, ...names);
}
