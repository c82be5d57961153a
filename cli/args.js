/** The command line: what may be asked, and the parsed question. */
import { parseArgs } from 'node:util';

/**
 * @typedef {object} Question
 * @property {'inspect' | 'compact' | 'verify'} command
 * @property {string[]} files the operands, in order
 * @property {string[]} parents
 * @property {boolean} json
 * @property {boolean} force
 * @property {Omit<import('../lib/types.js').Options, 'parents'>} options
 */

export const help = `\
Makes virtual hard disks (VHD, VHDX) smaller. The original is only ever read.

  vhd-compactor inspect IMAGE
      what is in it, what can be saved, and why not more
  vhd-compactor compact IMAGE OUTPUT
      write a smaller image and compare it with the original
  vhd-compactor verify ORIGINAL COMPACTED
      compare two images, leaving out what is proved free

All:
  --parent FILE           a parent of a differencing disk; once for each
  --drop-page-files       count what is in page and swap files as free
  --ignore-shadow-copies  count what only volume shadow copies need as free
  --json                  the result, or {"error": …}, as JSON on stdout
  --help, --version

compact:
  --mode full             drop what file systems prove free, and what is zero
         quick            only what is proved free: reads only metadata
         zero             only what is zero: every byte of the disk stays
  --format vhd|vhdx       write another format
  --block-size SIZE       blocks of this size: 512K, 2M
  --to-dynamic            turn a fixed disk into a dynamic one
  --flatten               merge a differencing disk with its parents
  --scrub                 write zeros over free space in the blocks that stay
  --no-verify             do not read the result back and compare
  --force                 replace OUTPUT if it exists

Exit code: 0 done, or nothing to gain; 1 failed; 2 wrong usage; 130 interrupted
`;

/** A command line that makes no sense; its message says why. */
export class UsageError extends Error {}

const flag = /** @type {const} */ ({ type: 'boolean', default: false });
const common = {
  json: flag,
  help: { ...flag, short: 'h' },
  version: { ...flag, short: 'V' },
  'drop-page-files': flag,
  'ignore-shadow-copies': flag,
  parent: /** @type {const} */ ({ type: 'string', multiple: true, default: /** @type {string[]} */ ([]) }),
};
const forCompact = {
  mode: /** @type {const} */ ({ type: 'string', default: 'full' }),
  format: /** @type {const} */ ({ type: 'string' }),
  'block-size': /** @type {const} */ ({ type: 'string' }),
  'to-dynamic': flag,
  flatten: flag,
  scrub: flag,
  'no-verify': flag,
  force: flag,
};

const modes = /** @type {const} */ (['full', 'quick', 'zero']);
const formats = /** @type {const} */ (['vhd', 'vhdx']);
const operands = { inspect: ['IMAGE'], compact: ['IMAGE', 'OUTPUT'], verify: ['ORIGINAL', 'COMPACTED'] };

/**
 * @param {string[]} argv
 * @returns {'help' | 'version' | Question}
 */
export function parse(argv) {
  const { values, positionals } = parsed(argv);
  if (values.help) return 'help';
  if (values.version) return 'version';
  const [command, ...files] = positionals;
  if (command === undefined) throw new UsageError('Say what to do: inspect, compact or verify.');
  if (!isCommand(command)) throw new UsageError(`There is no command '${command}'.`);
  if (files.length !== operands[command].length || files.includes('')) {
    throw new UsageError(`${command} takes ${operands[command].join(' and ')}.`);
  }
  if (command !== 'compact') refuseOptionsOfCompact(argv, command);
  return {
    command,
    files,
    parents: values.parent,
    json: values.json,
    force: values.force,
    options: {
      mode: oneOf('mode', values.mode, modes),
      verify: !values['no-verify'],
      toDynamic: values['to-dynamic'],
      flatten: values.flatten,
      scrub: values.scrub,
      dropPageFiles: values['drop-page-files'],
      ignoreShadowCopies: values['ignore-shadow-copies'],
      ...(values.format !== undefined && { format: oneOf('format', values.format, formats) }),
      ...(values['block-size'] !== undefined && { blockSize: sizeOf(values['block-size']) }),
    },
  };
}

function parsed(/** @type {string[]} */ argv) {
  try {
    return parseArgs({ args: argv, options: { ...common, ...forCompact }, allowPositionals: true });
  } catch (error) {
    // parseArgs explains itself: "Unknown option '--jsn'. To specify …".
    throw new UsageError(`${error instanceof Error ? error.message : error}`.replace(/\.? To specify.*$/s, '.'));
  }
}

/** @returns {command is Question['command']} */
function isCommand(/** @type {string} */ command) {
  return Object.hasOwn(operands, command);
}

function refuseOptionsOfCompact(/** @type {string[]} */ argv, /** @type {string} */ command) {
  try {
    parseArgs({ args: argv, options: common, allowPositionals: true });
  } catch (error) {
    const option = /'(?:-\w, )?(--[\w-]+)/.exec(`${error}`)?.[1];
    throw new UsageError(`${command} has no option ${option}; compact has.`);
  }
}

/**
 * @template {string} T
 * @param {string} option @param {string} value @param {readonly T[]} allowed
 */
function oneOf(option, value, allowed) {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw new UsageError(`--${option} is ${allowed.join(' or ')}, not '${value}'.`);
  return found;
}

function sizeOf(/** @type {string} */ text) {
  const [, digits, unit] = /^([1-9]\d{0,6})([KM])(?:iB)?$/i.exec(text) ?? [];
  if (!digits || !unit) throw new UsageError(`--block-size is a size as 512K or 2M, not '${text}'.`);
  return Number(digits) * (unit.toUpperCase() === 'K' ? 1024 : 1024 * 1024);
}
