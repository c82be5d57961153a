/**
 * Numbers as people read them. Sizes count as Windows shows them: 1 GB = 1,073,741,824 bytes, since
 * virtual disks are made in those units ("a 512 GB disk").
 */

const UNITS = ['bytes', 'KB', 'MB', 'GB', 'TB', 'PB'];

/**
 * A size to three digits: `31.5 GB`, never broken over two lines.
 * @param {number} count bytes
 */
export function bytes(count) {
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  const number = value.toFixed(digits).replace(/\.0+$|(\.\d*[1-9])0+$/, '$1');
  const name = unit === 0 && number === '1' ? 'byte' : UNITS[unit];
  return `${count < 0 ? '−' : ''}${number}\u00a0${name}`;
}

/** @param {number} count */
export const integer = (count) => count.toLocaleString('en');

/** @param {number} count bytes */
export const exactBytes = (count) => `${integer(count)} ${count === 1 ? 'byte' : 'bytes'}`;

/**
 * `63 %`, `0.4 %`, `99.7 %`; never `100 %` for a part and never `0 %` for something.
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
  if (whole <= 0 || part <= 0) return '0\u00a0%';
  if (part >= whole) return '100\u00a0%';
  const share = (part / whole) * 100;
  if (share < 0.1) return 'under 0.1\u00a0%';
  if (share > 99.9) return 'over 99.9\u00a0%';
  return `${share < 1 || share >= 99.5 ? Number(share.toFixed(1)) : Math.round(share)}\u00a0%`;
}

/**
 * A length of time, no more exact than it can be known.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 1) return 'less than a second';
  if (seconds < 90) return `${plural(Math.round(seconds), 'second')}`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return plural(minutes, 'minute');
  const hours = Math.floor(minutes / 60);
  return minutes % 60 === 0 ? plural(hours, 'hour') : `${plural(hours, 'hour')} ${plural(minutes % 60, 'minute')}`;
}

/** @param {number} bytesPerSecond */
export const rate = (bytesPerSecond) => `${bytes(bytesPerSecond)}/s`;

/**
 * @param {number} count
 * @param {string} noun
 */
export const plural = (count, noun) => `${integer(count)} ${noun}${count === 1 ? '' : 's'}`;

/** Unicode's ways of making one name look like another: controls, direction marks, invisible joiners. */
export const DECEIVING = /[\p{Cc}\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;

/**
 * A character that cannot be seen, as one that can: `U+202E` in brackets.
 * @param {string} character
 */
const shown = (character) => `⟨U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`;

/**
 * Text out of an image, for the eye: nothing invisible, nothing endless.
 * @param {string} text
 * @param {number} [limit]
 */
export function displayText(text, limit = 200) {
  const clean = text.replace(DECEIVING, shown);
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean;
}
