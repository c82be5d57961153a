/**
 * Where a new image may go.
 *
 * - *Download*: the worker composes one `Blob`, and the browser saves it. Every browser can; some would hold all of
 *   it in memory, and there it goes through the browser's own storage (`staged-sink.js` has the measurements).
 * - *A folder*: where the browser has a folder picker, a new file is made there.
 *
 * `showSaveFilePicker` is not used on purpose: Chromium empties the file that is picked in it at
 * once, before the page learns which it is. A person who picks the source itself would have lost it
 * before it could be refused. Here the page names the file, and never an existing one.
 */

import { numberedName } from './names.js';
import { EngineError } from './bridge.js';
import { holdStagedName, removeAbandoned, roomInBrowser } from './stage.js';

/** @import { Destination, Picked } from './types.js' */

/**
 * @typedef {object} Target
 * @property {Destination} destination
 * @property {string} name the new file's name
 * @property {string | null} place the folder's name
 * @property {FileSystemDirectoryHandle | null} folder
 * @property {() => Promise<void>} discard removes what was begun; fulfilled when it is gone
 */

const MANY_NAMES = 1000;
/** @type {Record<string, 'permission-denied' | 'out-of-space'>} */
const CREATE_CODES = { NotAllowedError: 'permission-denied', QuotaExceededError: 'out-of-space' };
const RETRY_MS = 250;
const RETRIES = 7200;

/** The browser hashes a file before it puts it in its place, at about this rate, without a report. */
export const CLOSING_BYTES_PER_SECOND = 100e6;

export const canPickFolder = typeof window.showDirectoryPicker === 'function';

/**
 * Asks for a folder; must be called in a click. Null where the person thought better of it.
 * @param {FileSystemFileHandle | null} beside a file whose folder is a good start
 */
export async function pickFolder(beside) {
  const pick = window.showDirectoryPicker;
  if (!pick) return null;
  try {
    return await pick({ id: 'new-images', mode: 'readwrite', ...(beside && { startIn: beside }) });
  } catch (error) {
    const { name, message } = /** @type {DOMException} */ (error);
    if (name === 'AbortError') return null;
    throw new EngineError({ code: 'blocked-folder', message, site: null });
  }
}

/**
 * A new, empty file of that name, or of the first numbered name that is not taken.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} wanted
 * @param {Iterable<Picked>} sources none of which may be the result
 * @returns {Promise<Target>}
 */
export async function createIn(folder, wanted, sources) {
  try {
    const name = await freeName(folder, wanted);
    const handle = await folder.getFileHandle(name, { create: true });
    try {
      await refuseSources(handle, sources);
    } catch (error) {
      await removeIfEmpty(folder, handle).catch(() => {});
      throw error;
    }
    return {
      destination: { kind: 'folder', handle },
      name,
      place: folder.name,
      folder,
      discard: () => removeWhenReleased(folder, name),
    };
  } catch (error) {
    if (error instanceof EngineError) throw error;
    const { name, message } = /** @type {DOMException} */ (error);
    throw new EngineError({ code: CREATE_CODES[name] ?? 'write-failed', message, site: null });
  }
}

/**
 * @param {FileSystemFileHandle} handle
 * @param {Iterable<Picked>} sources
 */
async function refuseSources(handle, sources) {
  for (const source of sources) {
    if (source.handle && (await handle.isSameEntry(source.handle))) {
      throw new EngineError({ code: 'same-file', message: `${handle.name} is a source`, site: null });
    }
  }
}

/**
 * Removes a file that was made a moment ago; never one that holds anything.
 * @param {FileSystemDirectoryHandle} folder
 * @param {FileSystemFileHandle} handle
 */
async function removeIfEmpty(folder, handle) {
  const { size } = await handle.getFile();
  if (size === 0) await folder.removeEntry(handle.name);
}

/**
 * Removes a file that was begun. A browser that is closing it cannot be stopped, and holds it until it is
 * closed: then it goes.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 */
async function removeWhenReleased(folder, name) {
  for (let left = RETRIES; left > 0; left--) {
    try {
      await folder.removeEntry(name);
      return;
    } catch (error) {
      const held = /** @type {DOMException} */ (error).name === 'NoModificationAllowedError';
      if (!held) return;
      await new Promise((resolve) => {
        setTimeout(resolve, RETRY_MS);
      });
    }
  }
}

/**
 * A download. Where the browser would hold all of it in memory, it goes through the browser's own storage.
 * @param {string} name
 * @param {number} size of the new image, about
 * @returns {Promise<Target>}
 */
export async function downloadTarget(name, size) {
  const target = { name, place: null, folder: null };
  // A download before this one may have taken what was there when the page was opened.
  if (!canPickFolder) await lookForRoom();
  if (downloadCosts(size) !== 'storage') {
    return { ...target, destination: { kind: 'download', name }, discard: () => Promise.resolve() };
  }
  const held = await holdStagedName();
  return { ...target, destination: { kind: 'staged', name, stagedName: held.name }, discard: held.release };
}

/** Below this the memory of a composed download does not matter. */
const STAGE_FROM = 64 * 1024 * 1024;

/** What this browser would still keep for the page; until it is known, nothing is promised. */
let room = 0;
if (!canPickFolder) void removeAbandoned().then(lookForRoom);

async function lookForRoom() {
  room = await roomInBrowser();
}

/**
 * What a download takes of the computer beside its place on the drive: nothing in Chromium, which has folder
 * pickers, too; elsewhere a copy in the browser's storage, or, where that does not fit, in memory.
 * @param {number} size
 * @returns {'nothing' | 'storage' | 'memory'}
 */
export function downloadCosts(size) {
  if (canPickFolder || size < STAGE_FROM) return 'nothing';
  return room >= size && 'locks' in navigator ? 'storage' : 'memory';
}

/**
 * Hands a blob to the browser to save. The address stays valid while the page is open, since nothing
 * tells when the browser has finished.
 * @param {Blob} blob
 * @param {string} name
 */
export function startDownload(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  return link.href;
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} wanted
 */
async function freeName(folder, wanted) {
  for (let n = 1; n <= MANY_NAMES; n++) {
    const name = numberedName(wanted, n);
    if (!(await exists(folder, name))) return name;
  }
  throw new EngineError({ code: 'write-failed', message: `every name like ${wanted} is taken`, site: null });
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 */
async function exists(folder, name) {
  try {
    await folder.getFileHandle(name);
    return true;
  } catch (error) {
    const { name: kind } = /** @type {DOMException} */ (error);
    if (kind === 'NotFoundError') return false;
    if (kind === 'TypeMismatchError') return true;
    throw error;
  }
}
