/**
 * Numbers and foreign text for people: one style for the page, the command and the log.
 *
 * Sizes count as Windows, Hyper-V and WSL show them: 1 KB = 1,024 bytes, 1 MB = 1,048,576 bytes, and so on, since
 * virtual disks and their blocks are made in those units ("a 512 GB disk", "blocks of 2 MB"). A number and its unit
 * are never broken over two lines: the space between them is a no-break space.
 */

const UNITS = ['bytes', 'KB', 'MB', 'GB', 'TB', 'PB'];
const GAP = '\u00a0';

/**
 * A size to three digits: `31.5 GB`.
 *
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
  return `${count < 0 ? '−' : ''}${number}${GAP}${name}`;
}

/** A number with its thousands grouped. @param {number} count */
export const integer = (count) => count.toLocaleString('en');

/** A size to the byte: `1,536 bytes`. @param {number} count bytes */
export const exactBytes = (count) => plural(count, 'byte');

/** A size for people and exactly: `1.5 KB (1,536 bytes)`. @param {number} count bytes */
export const bothBytes = (count) => (Math.abs(count) < 1000 ? bytes(count) : `${bytes(count)} (${exactBytes(count)})`);

/**
 * `63 %`, `0.4 %`, `99.7 %`; never `100 %` for a part and never `0 %` for something.
 *
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
  if (whole <= 0 || part <= 0) return `0${GAP}%`;
  if (part >= whole) return `100${GAP}%`;
  const share = (part / whole) * 100;
  if (share < 0.1) return `under 0.1${GAP}%`;
  if (share > 99.9) return `over 99.9${GAP}%`;
  return `${share < 1 || share >= 99.5 ? Number(share.toFixed(1)) : Math.round(share)}${GAP}%`;
}

/**
 * A length of time, no more exact than it can be known.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 1) return 'less than a second';
  if (seconds < 90) return plural(Math.round(seconds), 'second');
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return plural(minutes, 'minute');
  const hours = Math.floor(minutes / 60);
  return minutes % 60 === 0 ? plural(hours, 'hour') : `${plural(hours, 'hour')} ${plural(minutes % 60, 'minute')}`;
}

/**
 * A length of time that is foreseen: `about 2 minutes`.
 *
 * @param {number} seconds
 */
export const about = (seconds) => `${seconds < 1 ? '' : 'about '}${duration(seconds)}`;

/** @param {number} bytesPerSecond */
export const rate = (bytesPerSecond) => `${bytes(bytesPerSecond)}/s`;

/**
 * @param {number} count
 * @param {string} noun
 */
export const plural = (count, noun) => `${integer(count)} ${noun}${count === 1 ? '' : 's'}`;

/**
 * Characters by which one text passes for another, or by which a terminal is commanded: controls, direction marks and
 * other invisible formatting, separators of lines and paragraphs, halves of characters, and whatever else Unicode has
 * that shows nothing (zero-width joiners, fillers, variation selectors, tags, the blank Braille pattern).
 */
export const DECEIVING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/**
 * A text with every deceiving character shown by its number: `⟨U+202E⟩`.
 *
 * @param {string} text
 */
export const visible = (text) =>
  text.replace(DECEIVING, (char) => `⟨U+${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`);

/**
 * JSON that a terminal may show: the same value, deceiving characters escaped.
 *
 * @param {unknown} value
 */
export const json = (value) =>
  JSON.stringify(value, null, 2).replace(DECEIVING, (char) => (char === '\n' ? char : unitsOf(char)));

/** @param {string} char */
const unitsOf = (char) =>
  Array.from({ length: char.length }, (_, i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');

/**
 * A text out of an image for a page: nothing invisible, nothing endless, and no half of a character.
 *
 * @param {string} text
 * @param {number} [limit] characters
 */
export function displayText(text, limit = 200) {
  const cut = [...text].slice(0, limit + 1);
  return visible(cut.length > limit ? `${cut.slice(0, limit).join('')}…` : text);
}
