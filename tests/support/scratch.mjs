/** A folder for a test file's images, gone afterwards. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** Linux keeps what is there in memory, so that a thousand syncs cost nothing. */
const memory = '/dev/shm';

/** Makes the folder; the result gives paths inside it. @param {{ inMemory?: boolean }} [options] */
export function scratchFolder({ inMemory = false } = {}) {
  const folder = mkdtempSync(join(inMemory && existsSync(memory) ? memory : tmpdir(), 'vhd-compactor-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return (/** @type {string[]} */ ...names) => join(folder, ...names);
}
