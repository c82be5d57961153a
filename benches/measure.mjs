/** Time and memory of a program, from outside. */
import { existsSync } from 'node:fs';
import { Stop } from '../scripts/lib/console.mjs';
import { attempt } from '../scripts/lib/process.mjs';

/** @typedef {{ seconds: number, cpu: number, peak: number }} Cost seconds of time and of processors, bytes of memory */

// GNU time: what the kernel says of a finished child.
const gnuTime = '/usr/bin/time';

/**
 * Runs a program that must succeed and measures it.
 * @param {string[]} commandLine @returns {Promise<Cost>}
 */
export async function costOf(commandLine) {
  if (!existsSync(gnuTime)) throw new Stop('The bench measures with GNU time: install the package time.');
  const started = performance.now();
  const { code, output } = await attempt(gnuTime, ['-f', 'cost %U %S %M', ...commandLine]);
  const seconds = (performance.now() - started) / 1000;
  const [, user, system, peak] = /^cost (\S+) (\S+) (\d+)$/m.exec(output) ?? [];
  if (code !== 0 || !peak) throw new Error(`${commandLine.join(' ')} failed:\n${output}`);
  return { seconds, cpu: Number(user) + Number(system), peak: Number(peak) * 1024 };
}

/** @param {Cost[]} costs @param {keyof Cost} key */
export const median = (costs, key) => medianOf(costs.map((cost) => cost[key]));

/** @param {number[]} values */
export function medianOf(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The least and the most. @param {Cost[]} costs @param {keyof Cost} key */
export function spread(costs, key) {
  const values = costs.map((cost) => cost[key]);
  return `${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)}`;
}
