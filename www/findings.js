/**
 * What scans have found, kept in this browser (IndexedDB), so that a job that was interrupted goes on
 * where it stopped: after a cancel, a closed tab, a sleeping laptop. Kept by the files' names, sizes and
 * times and by the options; the engine checks again that they fit, and uses nothing else.
 */

import { del, entries, get, set } from 'idb-keyval';
import { lazyStore } from './store.js';

/** @import { Findings, ImageSource } from '../lib/types.js' */
/** @import { Choices } from './types.js' */

/** How many jobs are remembered: the newest. */
const MOST = 20;

/** @typedef {{ at: number, bytes: Uint8Array }} Kept */

const store = lazyStore('vhd-compactor', 'findings');

/**
 * @param {ImageSource[]} sources
 * @param {Choices} choices
 * @returns {Findings & { forget(): Promise<void> }}
 */
export function findingsFor(sources, choices) {
  const files = sources.map(({ name, size, lastModified }) => [name, size, lastModified]);
  const key = JSON.stringify([files, Object.entries(choices).sort()]);
  return {
    // A browser that keeps nothing (a private window) costs a repeat its head start, and nothing else.
    load: () =>
      get(key, store()).then(
        (/** @type {Kept | undefined} */ kept) => kept?.bytes ?? null,
        () => null,
      ),
    async save(bytes) {
      await set(key, { at: Date.now(), bytes }, store());
      await prune();
    },
    forget: () => del(key, store()).catch(() => {}),
  };
}

async function prune() {
  /** @type {[IDBValidKey, Kept][]} */
  const all = await entries(store());
  const old = all.sort(([, a], [, b]) => b.at - a.at).slice(MOST);
  for (const [key] of old) await del(key, store());
}
