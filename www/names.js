/**
 * Names of new files: legal on every system, since an image is carried from one to another. What is
 * suggested is made legal; what a person typed is checked, and told in words.
 */

import { formatOfName } from '../lib/formats.js';
import { DECEIVING } from './format.js';

/** What the file systems of Windows refuse in a name; the others refuse less. */
const ILLEGAL = '\\/:*?"<>|';
const ILLEGAL_CHARACTERS = /[\\/:*?"<>|]/g;
/** Devices in Windows, with any extension. */
const RESERVED = /^(con|prn|aux|nul|(com|lpt)[0-9¹²³])$/i;
/** In UTF-8, which is what Linux counts; room is left for ` (2)` and for what a browser appends. */
const MAX_BYTES = 220;

/** @typedef {'vhd' | 'vhdx'} Format */

/**
 * The name of the new image: `disk.vhdx` becomes `disk-compacted.vhdx`, `web.avhdx` keeps its kind.
 * @param {string} name of the source
 * @param {string} from format of the source
 * @param {string} to format of the new image
 */
export function outputName(name, from, to) {
  const { stem, extension } = parts(name);
  const kept = from === to && fits(extension, to) ? extension : `.${to}`;
  return `${legalStem(stem, `-compacted${kept}`)}-compacted${kept}`;
}

/**
 * The `n`th name to try where the first is taken: `disk-compacted (2).vhdx`.
 * @param {string} name
 * @param {number} n from 1
 */
export function numberedName(name, n) {
  if (n <= 1) return name;
  const dot = name.lastIndexOf('.');
  return dot > 0 ? `${name.slice(0, dot)} (${n})${name.slice(dot)}` : `${name} (${n})`;
}

/**
 * What a person typed, with the extension that its format must have.
 * @param {string} typed
 * @param {string} format of the new image
 */
export function withExtension(typed, format) {
  const name = typed.trim();
  const { stem, extension } = parts(name);
  if (fits(extension, format)) return name;
  // Programs go by the extension: one of the other format would have the image misread.
  return formatOfName(extension) ? `${stem}.${format}` : `${name.replace(/\.+$/, '')}.${format}`;
}

/**
 * Why a file cannot be called that everywhere; empty when it can.
 * @param {string} name
 */
export function nameProblem(name) {
  const bare = name.trim();
  const { stem } = parts(bare);
  if (stem === '' || /^\.+$/.test(stem)) return 'The new file needs a name.';
  if (bare.search(ILLEGAL_CHARACTERS) >= 0) return `A file name cannot hold any of ${[...ILLEGAL].join(' ')}`;
  if (bare.search(DECEIVING) >= 0) return 'The name holds an invisible character: type it anew.';
  if (RESERVED.test(bare.split('.')[0]?.trim() ?? '')) {
    return `Windows keeps the name “${bare.split('.')[0]}” for itself.`;
  }
  if (/[. ]$/.test(bare)) return 'A file name cannot end with a dot.';
  if (byteLength(bare) > MAX_BYTES) return 'The name is too long for some systems.';
  return '';
}

/** @param {string} name */
function parts(name) {
  const dot = name.lastIndexOf('.');
  return dot > 0 ? { stem: name.slice(0, dot), extension: name.slice(dot) } : { stem: name, extension: '' };
}

/**
 * Whether an extension is one of that format: `.avhdx` is VHDX, too.
 * @param {string} extension
 * @param {string} format
 */
const fits = (extension, format) => formatOfName(extension) === format;

/**
 * @param {string} stem
 * @param {string} ending what will follow
 */
function legalStem(stem, ending) {
  const plain = stem
    .replace(DECEIVING, '_')
    .replace(ILLEGAL_CHARACTERS, '_')
    .replace(/^[\s.]+|[\s.]+$/g, '');
  let short = plain;
  while (byteLength(short + ending) > MAX_BYTES) short = [...short].slice(0, -1).join('');
  return RESERVED.test(short.split('.')[0]?.trim() ?? '') ? `_${short}` : short || 'disk';
}

/** @param {string} text */
const byteLength = (text) => new TextEncoder().encode(text).length;
