/**
 * The files of the cards on the page, kept over a reload: as handles, where the browser gives them (a drop, or
 * the system's file manager). Only where a file lies is kept, never what is in it; after a reload the browser
 * asks the person again before the page may read.
 */

import { del, entries, set } from 'idb-keyval';
import { MAX_AGE_MS, lazyStore } from './store.js';

/** @import { Picked } from './types.js' */

/** One session is one tab: each finds its own cards. */
const SESSION = 'vhd-compactor-session';

/** @typedef {{ handle: FileSystemFileHandle, at: number }} Kept */

const store = lazyStore('vhd-compactor-cards', 'handles');

/** @param {string} name */
const key = (name) => `${session()} ${name}`;

function session() {
  let id = sessionStorage.getItem(SESSION);
  if (!id) {
    id = crypto.randomUUID();
    sessionStorage.setItem(SESSION, id);
  }
  return id;
}

/** @param {Picked} picked */
export async function remember({ file, handle }) {
  // A browser that keeps nothing (a private window) loses the cards with a reload, and nothing else.
  if (handle) await set(key(file.name), { handle, at: Date.now() }, store()).catch(() => {});
}

/** @param {string} name of the file whose card was taken away */
export const forget = (name) => del(key(name), store()).catch(() => {});

/**
 * The files that were on this tab's page, whether or not they may be read.
 * @returns {Promise<FileSystemFileHandle[]>}
 */
export async function remembered() {
  try {
    /** @type {[string, Kept][]} */
    const all = await entries(store());
    const now = Date.now();
    const old = all.filter(([, { at }]) => now - at > MAX_AGE_MS);
    for (const [name] of old) await del(name, store());
    const mine = all.filter(([name, { at }]) => name.startsWith(`${session()} `) && now - at <= MAX_AGE_MS);
    return mine.map(([, { handle }]) => handle);
  } catch {
    return [];
  }
}

/**
 * Those that may be read, after asking where the browser wants that; must be called in a click then.
 * @param {FileSystemFileHandle[]} handles
 * @param {boolean} mayAsk
 */
export async function readable(handles, mayAsk) {
  const allowed = [];
  for (const handle of handles) {
    let state = (await handle.queryPermission?.({ mode: 'read' })) ?? 'granted';
    if (state === 'prompt' && mayAsk) state = (await handle.requestPermission?.({ mode: 'read' })) ?? 'denied';
    if (state === 'granted') allowed.push(handle);
  }
  return allowed;
}
