/** Time and memory of a program, from outside. */
import { existsSync } from 'node:fs';
import { attempt } from '../scripts/lib/process.mjs';

/** @typedef {{ seconds: number, peakMiB: number | null }} Cost */

// GNU time: what the kernel says of a finished child.
const gnuTime = '/usr/bin/time';

/**
 * Runs a program that must succeed and measures it.
 * @param {string[]} commandLine @returns {Promise<Cost>}
 */
export async function costOf(commandLine) {
  const measured = existsSync(gnuTime) ? [gnuTime, '-f', 'peak %M', ...commandLine] : commandLine;
  const [command = '', ...args] = measured;
  const started = performance.now();
  const { code, output } = await attempt(command, args);
  const seconds = (performance.now() - started) / 1000;
  if (code !== 0) throw new Error(`${commandLine.join(' ')} failed:\n${output}`);
  const peak = /^peak (\d+)$/m.exec(output)?.[1];
  return { seconds, peakMiB: peak ? Number(peak) / 1024 : null };
}

/** The medians of several costs. */
export const typical = (/** @type {Cost[]} */ costs) => ({
  seconds: median(costs.map(({ seconds }) => seconds)),
  peakMiB: costs[0]?.peakMiB === null ? null : median(costs.map(({ peakMiB }) => peakMiB ?? 0)),
});

function median(/** @type {number[]} */ values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
