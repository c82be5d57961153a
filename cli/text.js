/** Lines for a terminal. */
import * as text from '../lib/text.js';

/** Rows with their columns aligned, two spaces in front of each. */
export function columns(/** @type {string[][]} */ rows) {
  /** @type {number[]} */
  const widths = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows.map((row) => `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd());
}

/**
 * A line with everything that a terminal would act on, or hide, made visible. It is broken by nobody, so its
 * no-break spaces may be what people type and search for.
 */
export const visible = (/** @type {string} */ line) => text.visible(line.replaceAll('\u00a0', ' '));
