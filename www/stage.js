/**
 * The page's side of results that lie in the browser's own storage: whose they are, and that none is left
 * behind. Each is held by a lock of its tab, so that one whose tab is gone can be told and removed.
 */

import { holdLock } from './locks.js';

const FOLDER = 'staged';
const LOCK = 'vhd-compactor-staged-';

/** A name that no other result has, held until this tab is closed or `release` is called. */
export async function holdStagedName() {
  const name = crypto.randomUUID();
  const release = await holdLock(LOCK + name);
  return { name, release: () => removeStaged(name).finally(release) };
}

/** Removes what tabs that are gone have left behind. */
export async function removeAbandoned() {
  try {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER);
    for await (const name of folder.keys()) {
      await navigator.locks.request(LOCK + name, { ifAvailable: true }, async (lock) => {
        if (lock) await folder.removeEntry(name).catch(() => {});
      });
    }
  } catch {
    // There is no such folder, or no such storage: nothing is left behind.
  }
}

/** How many bytes this browser would still keep for the page. */
export async function roomInBrowser() {
  try {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    await navigator.storage.getDirectory();
    return Math.max(0, quota - usage);
  } catch {
    return 0;
  }
}

/** @param {string} name */
async function removeStaged(name) {
  try {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER);
    await folder.removeEntry(name);
  } catch {
    // Gone already.
  }
}
