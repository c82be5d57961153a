/** Where things are: the repository, and the cache outside it that all clones of a person share. */
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A path inside the repository. */
export const inRoot = (/** @type {string[]} */ ...parts) => join(root, ...parts);

/** Tools that were built or fetched for this project, one folder `<name>-<version>` each. */
export const toolsFolder =
  process.env.VHD_COMPACTOR_TOOLS ||
  join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'vhd-compactor', 'tools');

/** What a build remembers; goes when node_modules goes, so that a fresh `npm ci` builds afresh. */
export const stampsFolder = inRoot('node_modules', '.cache', 'vhd-compactor');
