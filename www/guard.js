/**
 * What keeps a run safe from the outside: the browser asks before the page is left, the screen (and
 * with it the computer) stays awake, and a new version of the page waits.
 */

const LOCK = 'vhd-compactor-run';

let running = 0;
/** @type {WakeLockSentinel | null} */
let wakeLock = null;

/**
 * Holds everything until the work is over.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function guarded(work) {
  running += 1;
  if (running === 1) begin();
  try {
    return await (navigator.locks ? navigator.locks.request(LOCK, { mode: 'shared' }, work) : work());
  } finally {
    running -= 1;
    if (running === 0) end();
  }
}

/**
 * Does something once no page of this site is at work.
 * @param {() => void} action
 */
export async function whenIdle(action) {
  if (navigator.locks) await navigator.locks.request(LOCK, { mode: 'exclusive' }, action);
  else if (running === 0) action();
}

/** @param {string} text shown before the page's name in the window's title; empty for none */
export function setTitle(text) {
  document.title = text ? `${text} – VHD Compactor` : 'VHD Compactor – make a virtual disk smaller';
}

function begin() {
  window.addEventListener('beforeunload', ask);
  document.addEventListener('visibilitychange', keepAwake);
  void keepAwake();
}

function end() {
  window.removeEventListener('beforeunload', ask);
  document.removeEventListener('visibilitychange', keepAwake);
  void wakeLock?.release().catch(() => undefined);
  wakeLock = null;
}

/** @param {BeforeUnloadEvent} event */
function ask(event) {
  event.preventDefault();
}

/** A lock is lost while the page is hidden, so it is taken anew when the page comes back. */
async function keepAwake() {
  if (document.visibilityState !== 'visible' || !('wakeLock' in navigator)) return;
  try {
    wakeLock = await navigator.wakeLock.request('screen');
    if (running === 0) await wakeLock.release();
  } catch {
    wakeLock = null;
  }
}
