/**
 * What may be asked for: each option once. From here come the command's flags and their help, the tables in
 * `docs/api.md` and what is passed on to the engine; a test proves that the engine knows the same ones.
 *
 * To add an option: a line here, a field in the engine's `Options`, and what the engine does with it.
 */
import { CompactorError } from './errors.js';
import { FORMAT_NAMES } from './formats.js';

/**
 * @typedef {'inspect' | 'compact' | 'verify'} Command
 * @typedef {object} Option
 * @property {string} flag of the command, without its dashes
 * @property {string} [name] in JavaScript; what has none is the command's own
 * @property {'flag' | 'choice' | 'size' | 'files'} type
 * @property {string} [default] what holds where nothing is said, as the reference shows it
 * @property {Command[]} commands that take it
 * @property {string} help a line of `--help`, or one for each value
 * @property {string} [meaning] for the reference, where it is more than the help
 * @property {string[]} [values] of a choice
 * @property {string} [short] its one letter
 * @property {boolean} [isNegated] the flag stands for `false`
 * @property {boolean} [isOfHost] read by this library, and not by the engine
 */

/** @type {Command[]} */
const everywhere = ['inspect', 'compact', 'verify'];

/** @type {Option[]} */
export const OPTIONS = [
  {
    flag: 'parent',
    name: 'parents',
    type: 'files',
    default: 'none',
    commands: everywhere,
    isOfHost: true,
    help: 'a parent of a differencing disk; once for each',
    meaning: 'the parents of a differencing disk, in any order',
  },
  {
    flag: 'trust-parent',
    name: 'trustParent',
    type: 'flag',
    default: '`false`',
    commands: everywhere,
    help: 'believe a parent that lost its file time in a copy',
    meaning:
      "believes a VHD's parent that has the right identifier and another time than its child noted: it was copied or " +
      'downloaded. If anything was written to it since, what both read together is a mixture',
  },
  {
    flag: 'drop-page-files',
    name: 'dropPageFiles',
    type: 'flag',
    default: '`false`',
    commands: everywhere,
    help: 'count what is in page and swap files as free',
    meaning: 'treats the contents of `pagefile.sys`, `swapfile.sys`, an inactive `hiberfil.sys` and Linux swap as free',
  },
  {
    flag: 'ignore-shadow-copies',
    name: 'ignoreShadowCopies',
    type: 'flag',
    default: '`false`',
    commands: everywhere,
    help: 'count what only volume shadow copies need as free',
    meaning: 'treats space that only volume shadow copies need as free: restore points and previous versions are lost',
  },
  {
    flag: 'json',
    type: 'flag',
    commands: everywhere,
    help: 'the result, or {"error": …}, as JSON on stdout',
  },
  { flag: 'help', short: 'h', type: 'flag', commands: everywhere, help: 'this text' },
  { flag: 'version', short: 'V', type: 'flag', commands: everywhere, help: 'the version' },
  {
    flag: 'mode',
    name: 'mode',
    type: 'choice',
    values: ['full', 'quick', 'zero'],
    default: '`"full"`',
    commands: ['compact'],
    help:
      'full: drop what file systems prove free, and what is zero\n' +
      'quick: drop only what is proved free; reads only metadata\n' +
      'zero: drop only what is zero; every byte of the disk stays',
    meaning:
      '`full`: drops what is free and what is zero. `quick`: drops what is free and reads no payload. `zero`: drops ' +
      'what is zero and believes no file system',
  },
  {
    flag: 'format',
    name: 'format',
    type: 'choice',
    values: FORMAT_NAMES,
    default: "the source's",
    commands: ['compact'],
    help: 'write this format',
    meaning: '`"vhd"` or `"vhdx"`',
  },
  {
    flag: 'block-size',
    name: 'blockSize',
    type: 'size',
    values: ['smallest', 'keep'],
    default: '`"smallest"`',
    commands: ['compact'],
    help:
      'smallest: of the size that gives the smallest file\n' +
      "keep: of the source's size\n" +
      'a number with K or M, as 512K or 2M: of that size',
    meaning:
      '`"smallest"`: the size that gives the smallest file. `"keep"`: the source\'s. A number: bytes of a block, VHDX ' +
      '1–256 MB, VHD 512 KB or 2 MB',
  },
  {
    flag: 'to-dynamic',
    name: 'toDynamic',
    type: 'flag',
    default: '`false`',
    commands: ['compact'],
    help: 'turn a fixed disk into a dynamic one',
    meaning: 'lets a fixed image become dynamic; otherwise it is refused',
  },
  {
    flag: 'flatten',
    name: 'flatten',
    type: 'flag',
    default: '`false`',
    commands: ['compact'],
    help: 'merge a differencing disk with its parents',
    meaning: 'merges a differencing disk with all its parents into one dynamic image',
  },
  {
    flag: 'scrub',
    name: 'scrub',
    type: 'flag',
    default: '`false`',
    commands: ['compact'],
    help: 'write zeros over free space in the blocks that stay',
    meaning: 'writes free sectors of kept blocks as zeros',
  },
  {
    flag: 'no-verify',
    name: 'verify',
    type: 'flag',
    isNegated: true,
    default: '`true`',
    commands: ['compact'],
    isOfHost: true,
    help: 'do not read the result back and compare',
    meaning: 'reads the result back and compares',
  },
  { flag: 'force', type: 'flag', commands: ['compact'], help: 'replace OUTPUT if it exists' },
];

/** Of the API alone: no command line can say it. */
const FINDINGS = 'findings';
const KNOWN = new Map(OPTIONS.flatMap((option) => (option.name ? [[option.name, option]] : [])));

/**
 * What of `options` the engine reads: all but the host's own. A name that nobody knows is refused, since what was
 * meant by it would not be done.
 *
 * @param {import('./types.js').Options} options
 * @returns {import('../pkg/vhd_compactor.js').Options}
 */
export function forEngine(options) {
  const asked = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  for (const [name] of asked) {
    if (name !== FINDINGS && !KNOWN.has(name)) {
      throw new CompactorError('invalid-argument', `there is no option ${JSON.stringify(name)}`);
    }
  }
  return Object.fromEntries(asked.filter(([name]) => name !== FINDINGS && !KNOWN.get(name)?.isOfHost));
}
