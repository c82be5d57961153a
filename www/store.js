/** What the page keeps in this browser (IndexedDB): each kind of thing in a store of its own, opened when it is first used. */

import { createStore } from 'idb-keyval';

/** What was kept longer ago than this is of no use to anyone. */
export const MAX_AGE_MS = 7 * 24 * 3600 * 1000;

/**
 * @param {string} database
 * @param {string} name
 * @returns {() => import('idb-keyval').UseStore}
 */
export function lazyStore(database, name) {
  /** @type {import('idb-keyval').UseStore | undefined} */
  let opened;
  return () => (opened ??= createStore(database, name));
}
