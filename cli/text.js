/** Text for people: sizes, aligned columns, and nothing that a terminal would obey. */

const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** A size as people say it: "1.5 GiB". */
export function size(/** @type {number} */ bytes) {
  let value = bytes;
  let unit = 0;
  // 1023.95 would be shown as 1024.0.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(Number.isInteger(value) || value >= 99.95 ? 0 : 1)} ${units[unit]}`;
}

const grouped = new Intl.NumberFormat('en-GB');
export const number = (/** @type {number} */ value) => grouped.format(value);

/** A size for people and exactly: "1.5 GiB (1,610,612,736 bytes)". */
export const exactSize = (/** @type {number} */ bytes) =>
  bytes < 1024 ? size(bytes) : `${size(bytes)} (${number(bytes)} bytes)`;

export function duration(/** @type {number} */ seconds) {
  if (seconds < 100) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A share, rounded down: what is left of a disk is never "100 %" saved. */
export const percent = (/** @type {number} */ part, /** @type {number} */ whole) =>
  `${whole > 0 ? Math.floor((100 * part) / whole) : 0} %`;

/** Rows with their columns aligned, two spaces in front of each. */
export function columns(/** @type {string[][]} */ rows) {
  /** @type {number[]} */
  const widths = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows.map((row) => `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd());
}

// Control characters, bidirectional and other invisible formatting, line separators, half characters.
const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** A line with everything that a terminal would act on, or hide, made visible. */
export const visible = (/** @type {string} */ line) =>
  line.replace(unsafe, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);

/** JSON that a terminal may show: the same value, those characters escaped. */
export function json(/** @type {unknown} */ value) {
  const escape = (/** @type {string} */ char) =>
    char === '\n' ? char : [...Array(char.length).keys()].map((i) => `\\u${hex4(char.charCodeAt(i))}`).join('');
  return JSON.stringify(value, null, 2).replace(unsafe, escape);
}

const hex4 = (/** @type {number} */ unit) => unit.toString(16).padStart(4, '0');
