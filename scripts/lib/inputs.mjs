/**
 * "Unchanged since the last build?": a digest over the names and contents of a build's inputs. Contents
 * and not times, since a checkout or a clone changes times only.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { inRoot, stampsFolder } from './paths.mjs';

/** The digest of files and folders (named relative to the repository); what is missing counts as such. */
export function digest(/** @type {string[]} */ ...names) {
  const hash = createHash('sha256');
  for (const name of names) addTo(hash, name);
  return hash.digest('hex');
}

/** @param {import('node:crypto').Hash} hash @param {string} name */
function addTo(hash, name) {
  const path = inRoot(name);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) {
    for (const entry of readdirSync(path).sort()) addTo(hash, join(name, entry));
  } else {
    hash.update(`${name}\0${stat?.size ?? 'missing'}\0`);
    if (stat) hash.update(readFileSync(path));
  }
}

/**
 * Builds unless the inputs are what they were when it last succeeded and the outputs are still there.
 * @param {string} name @param {string[]} inputs @param {string[]} outputs @param {() => Promise<unknown>} build
 */
export async function buildIfChanged(name, inputs, outputs, build) {
  const stamp = join(stampsFolder, `${name}.sha256`);
  const now = digest(...inputs);
  const before = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  if (before === now && outputs.every((output) => existsSync(inRoot(output)))) return;
  await build();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, now);
}
