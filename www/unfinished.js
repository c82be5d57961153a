/**
 * Runs that were cut short because their tab was closed or the browser ended: noted when they are put in line, forgotten
 * when they are over, however that was, and told at the next visit. A lock of its tab tells a run that still goes on
 * from one that nobody will finish.
 */

import { del, entries, set } from 'idb-keyval';
import { holdLock } from './locks.js';
import { MAX_AGE_MS, lazyStore } from './store.js';

/**
 * @typedef {object} Unfinished
 * @property {string} source the name of the file that was worked on
 * @property {FileSystemFileHandle | null} handle where the browser gave one
 * @property {string} name of the new image
 * @property {FileSystemDirectoryHandle | null} folder where it was to stand; null for a download
 */
/** @typedef {'gone' | 'empty' | 'there' | 'unknown'} Left what is left in the folder */

const LOCK = 'vhd-compactor-unfinished-';

const store = lazyStore('vhd-compactor-runs', 'unfinished');

/**
 * Notes a run. What comes back is called once it is over.
 * @param {Unfinished} run
 * @returns {Promise<() => Promise<void>>}
 */
export async function noteRun(run) {
  if (!('locks' in navigator)) return () => Promise.resolve();
  const id = crypto.randomUUID();
  const release = await holdLock(LOCK + id);
  // A browser that keeps nothing (a private window) tells nothing later.
  await set(id, { ...run, at: Date.now() }, store()).catch(() => {});
  return () => forgetRun(id).finally(release);
}

/** @param {string} id */
export const forgetRun = (id) => del(id, store()).catch(() => {});

/**
 * The runs whose tabs are gone, by their ids.
 * @returns {Promise<[string, Unfinished][]>}
 */
export async function unfinishedRuns() {
  try {
    /** @type {[string, Unfinished & { at: number }][]} */
    const all = await entries(store());
    const { held = [] } = await navigator.locks.query();
    const alive = new Set(held.map(({ name }) => name));
    const old = all.filter(([, { at }]) => Date.now() - at > MAX_AGE_MS).map(([id]) => id);
    for (const id of old) await forgetRun(id);
    return all.filter(([id]) => !alive.has(LOCK + id) && !old.includes(id));
  } catch {
    return [];
  }
}

/**
 * What a run left in its folder, as far as the page may look there. The browser writes aside and puts a file in its place
 * when it is whole: until then the name stands for an empty file.
 * @param {Unfinished} run
 * @param {boolean} mayAsk only in a click
 * @returns {Promise<Left>}
 */
export async function whatIsLeft({ folder, name }, mayAsk) {
  if (!folder) return 'gone';
  try {
    const how = { mode: /** @type {const} */ ('readwrite') };
    let state = (await folder.queryPermission?.(how)) ?? 'granted';
    if (state === 'prompt' && mayAsk) state = (await folder.requestPermission?.(how)) ?? 'denied';
    if (state !== 'granted') return 'unknown';
    const { size } = await (await folder.getFileHandle(name)).getFile();
    return size === 0 ? 'empty' : 'there';
  } catch (error) {
    return /** @type {DOMException} */ (error).name === 'NotFoundError' ? 'gone' : 'unknown';
  }
}

/** Removes the empty file; one that holds something stays. Returns what is left then. @param {Unfinished} run @returns {Promise<Left>} */
export async function removeEmpty(run) {
  const left = await whatIsLeft(run, true);
  if (left !== 'empty') return left;
  await run.folder?.removeEntry(run.name);
  return 'gone';
}
