/** The command line: what may be asked, and the parsed question. The options come from one table. */
import { parseArgs } from 'node:util';
import { OPTIONS } from '../lib/options.js';

/** @import { Command, Option } from '../lib/options.js' */

/**
 * @typedef {object} Question
 * @property {Command} command
 * @property {string[]} files the operands, in order
 * @property {string[]} parents
 * @property {boolean} json
 * @property {boolean} force
 * @property {Omit<import('../lib/types.js').Options, 'parents'>} options only what was said
 */

/** @type {Record<Command, { operands: string[], does: string }>} */
const commands = {
  inspect: { operands: ['IMAGE'], does: 'what is in it, what can be saved, and why not more' },
  compact: { operands: ['IMAGE', 'OUTPUT'], does: 'write a smaller image and compare it with the original' },
  verify: {
    operands: ['ORIGINAL', 'COMPACTED'],
    does: 'compare two images, leaving out what is proved free',
  },
};

/** What `--help` prints. */
export const help = () =>
  [
    'Makes virtual hard disks (VHD, VHDX) smaller. The original is only ever read.',
    '',
    ...Object.entries(commands).flatMap(([name, { operands, does }]) => [
      `  vhd-compactor ${name} ${operands.join(' ')}`,
      `      ${does}`,
    ]),
    '',
    'All:',
    ...OPTIONS.filter((option) => option.commands.length > 1).flatMap(helpLines),
    '',
    'compact:',
    ...OPTIONS.filter((option) => option.commands.length === 1).flatMap(helpLines),
    '',
    'Sizes: 1 KB = 1,024 bytes, 1 MB = 1,024 KB, and so on.',
    'Exit code: 0 done, or nothing to gain; 1 failed; 2 wrong usage; 130 interrupted',
  ].join('\n');

/** What stands behind a flag. */
const valueOf = (/** @type {Option} */ { type, values = [] }) =>
  ({ flag: '', choice: ` ${values.join('|')}`, size: ' SIZE', files: ' FILE' })[type];

/** An option in the help: its flag, and a line for what it does, or one for each value. */
function helpLines(/** @type {Option} */ option) {
  const left = `  --${option.flag}${valueOf(option)}`;
  const lines = option.help.split('\n');
  if (lines.length === 1) return [`${left.padEnd(25)} ${lines[0]}`];
  return [left, ...lines.map((line) => `      ${line}`)];
}

/** A command line that makes no sense; its message says why. */
export class UsageError extends Error {}

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
  const { operands } = commands[command];
  if (files.length !== operands.length || files.includes('')) {
    throw new UsageError(`${command} takes ${operands.join(' and ')}.`);
  }
  const said = OPTIONS.filter(({ flag }) => values[flag] !== undefined);
  const foreign = said.find((option) => !option.commands.includes(command));
  if (foreign) throw new UsageError(`${command} has no option --${foreign.flag}; ${foreign.commands[0]} has.`);
  const { parents = [], ...options } = Object.fromEntries(
    said.flatMap((option) => (option.name ? [[option.name, valueSaid(option, values[option.flag])]] : [])),
  );
  return { command, files, parents, json: values.json === true, force: values.force === true, options };
}

/**
 * @param {string[]} argv
 * @returns {{ values: Record<string, string | boolean | string[] | undefined>, positionals: string[] }}
 */
function parsed(argv) {
  const known = OPTIONS.map(({ flag, type, short }) => [
    flag,
    { type: type === 'flag' ? 'boolean' : 'string', multiple: type === 'files', ...(short && { short }) },
  ]);
  try {
    return /** @type {any} */ (parseArgs({ args: argv, options: Object.fromEntries(known), allowPositionals: true }));
  } catch (error) {
    // parseArgs explains itself: "Unknown option '--jsn'. To specify …".
    throw new UsageError(`${error instanceof Error ? error.message : error}`.replace(/\.? To specify.*$/s, '.'));
  }
}

/** @returns {command is Command} */
function isCommand(/** @type {string} */ command) {
  return Object.hasOwn(commands, command);
}

/** What an option stands for, from what parseArgs found. */
function valueSaid(/** @type {Option} */ { flag, type, values, isNegated }, /** @type {any} */ found) {
  if (type === 'choice') return oneOf(flag, found, values ?? []);
  if (type === 'size') return values?.includes(found) ? found : sizeOf(flag, found);
  return isNegated ? !found : found;
}

/** @param {string} flag @param {string} value @param {string[]} allowed */
function oneOf(flag, value, allowed) {
  if (!allowed.includes(value)) throw new UsageError(`--${flag} is ${allowed.join(' or ')}, not '${value}'.`);
  return value;
}

/** @param {string} flag @param {string} text */
function sizeOf(flag, text) {
  const [, digits, unit] = /^([1-9]\d{0,6})([KM])(?:i?B)?$/i.exec(text) ?? [];
  if (!digits || !unit) throw new UsageError(`--${flag} is a size as 512K or 2M, not '${text}'.`);
  return Number(digits) * (unit.toUpperCase() === 'K' ? 1024 : 1024 * 1024);
}
