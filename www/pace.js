/**
 * How fast each way of saving was on this machine, kept in this browser (IndexedDB), so that the time left is right from
 * the beginning of the next run. Bytes a second of each phase, and nothing of any file.
 */

import { get, set } from 'idb-keyval';
import { lazyStore } from './store.js';

/** @import { JobPhase } from '../lib/types.js' */
/** @typedef {Partial<Record<JobPhase, number>>} Rates */

const store = lazyStore('vhd-compactor-pace', 'rates');

/**
 * @param {string} way of saving
 * @returns {Promise<Rates>}
 */
export const paceOf = (way) =>
  get(way, store()).then(
    (/** @type {Rates | undefined} */ rates) => rates ?? {},
    () => ({}),
  );

/**
 * Learns from a run: half of what was known stays, since the next disk is another one.
 *
 * @param {string} way
 * @param {Rates} measured
 */
export async function learnPace(way, measured) {
  const known = await paceOf(way);
  const learned = Object.entries(measured).map(([phase, rate]) => {
    const before = known[/** @type {JobPhase} */ (phase)] ?? rate;
    return [phase, Math.sqrt(before * rate)];
  });
  // A browser that keeps nothing (a private window) begins anew each time.
  await set(way, { ...known, ...Object.fromEntries(learned) }, store()).catch(() => {});
}
