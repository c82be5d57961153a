/**
 * Each call of a compaction failing in each way that it can: what the suites of faults have in common, whether the calls
 * go to a file system (`faults.mjs`) or to a browser (`browser.mjs`).
 */
import assert from 'node:assert/strict';
import { CompactorError } from '../../lib/errors.js';
import { writeDynamicVhd } from './vhd.mjs';

/**
 * @typedef {object} Numbered a call, as far as it matters here
 * @property {number} number from 0
 * @property {string} name
 * @property {any[]} args
 * @property {(...args: any[]) => any} real
 */

/**
 * What is done to a call, and how the compaction must end: well, or with one of these codes.
 * @template {Numbered} C
 * @typedef {{ what: string, act: (call: C) => any, ends: string | string[] }} Fault
 */

const KiB = 1024;

/** Writes a small image that keeps some blocks and loses some. @param {string} path */
export function writeSmallImage(path) {
  const data = Buffer.alloc(300 * KiB, 7);
  const blocks = { 0: Buffer.from('data'), 1: Buffer.alloc(0), 2: data, 5: Buffer.of(1, 2, 3), 6: Buffer.alloc(0) };
  writeDynamicVhd(path, { size: 4096 * KiB, blockSize: 512 * KiB, blocks });
}

export const asItIs = (/** @type {Numbered} */ call) => call.real(...call.args);

/** How a compaction failed; null where it ended well. @param {() => Promise<unknown>} work */
export async function failureOf(work) {
  try {
    await work();
    return null;
  } catch (thrown) {
    if (!(thrown instanceof CompactorError)) throw thrown;
    return thrown;
  }
}

/**
 * Runs a compaction for each fault of each call, and hands on how it ended, if it is as it must be. How many were tried.
 * @template {Numbered} C
 * @param {C[]} calls of a run in which nothing goes wrong
 * @param {(call: C) => Fault<C>[]} faultsOf
 * @param {(act: (call: C) => any) => Promise<CompactorError | null>} attempt a compaction in which `act` does what calls do
 * @param {(ended: { call: C, kind: number, what: string, failed: CompactorError | null }) => Promise<void>} judge
 */
export async function tryEachFault(calls, faultsOf, attempt, judge) {
  let tried = 0;
  for (const { number } of calls) {
    for (let kind = 0; ; kind += 1) {
      /** @type {{ call: C, fault: Fault<C> } | undefined} */
      let hit;
      const failed = await attempt((call) => {
        const fault = call.number === number ? faultsOf(call)[kind] : undefined;
        if (!fault) return asItIs(call);
        hit = { call, fault };
        return fault.act(call);
      });
      if (!hit) break;
      tried += 1;
      const { call, fault } = hit;
      const what = `call ${number}, ${call.name} ${fault.what}`;
      const ended = failed ? `${failed.code}: ${failed.message}` : 'well';
      assert.ok(fault.ends.includes(failed?.code ?? 'well'), `${what}; expected ${fault.ends}, ended ${ended}`);
      await judge({ call, kind, what, failed });
    }
  }
  return tried;
}
