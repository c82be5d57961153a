/** The command: asks the library, prints what it says, and gives the exit code. */
import { readFileSync } from 'node:fs';
import { CompactorError } from '../lib/errors.js';
import { json } from '../lib/text.js';
import { UsageError, help, parse } from './args.js';
import { interruptible } from './interrupt.js';
import { showProgress } from './progress.js';
import { compactLines, failureLine, inspectLines, verifyLines } from './reports.js';
import { visible } from './text.js';

/** @typedef {import('./args.js').Question} Question */

const exit = { done: 0, failed: 1, usage: 2, interrupted: 130 };

/**
 * @param {string[]} argv without node and the script
 * @returns {Promise<number>} the exit code
 */
export async function main(argv) {
  // A reader that has seen enough (`| head`) is no failure.
  process.stdout.on('error', ignoreClosedPipe);
  try {
    const question = parse(argv);
    if (question === 'help') print(help().split('\n'));
    else if (question === 'version') print([version()]);
    else await answer(question);
    return exit.done;
  } catch (error) {
    return fail(error, argv.includes('--json'));
  }
}

async function answer(/** @type {Question} */ question) {
  const { report, lines } = await ask(question);
  if (question.json) process.stdout.write(`${json(report)}\n`);
  else print(lines);
}

/** @returns {Promise<{ report: unknown, lines: string[] }>} */
async function ask(/** @type {Question} */ { command, files, parents, force, options }) {
  // Not for those who only want help.
  const { PathSink, PathSource, compact, open, verify } = await import('../lib/index.node.js');
  const [first = '', second = ''] = files;
  const image = new PathSource(first);
  const all = { ...options, parents: parents.map((path) => new PathSource(path)) };
  if (command === 'inspect') {
    const opened = await open(image, all);
    try {
      await follow(opened.check());
      return { report: opened.report, lines: inspectLines(opened.report) };
    } finally {
      opened.close();
    }
  }
  if (command === 'verify') {
    const report = await follow(await verify(image, new PathSource(second), all));
    return { report, lines: verifyLines(report) };
  }
  const sink = new PathSink(second, { force });
  // Whatever ends this process: nothing half-written stays.
  const remove = () => sink.abortSync();
  process.once('exit', remove);
  const report = await follow(await compact(image, sink, all));
  process.off('exit', remove);
  return { report, lines: compactLines(report) };
}

/**
 * @template T
 * @param {import('../lib/types.js').Job<T>} job
 */
async function follow(job) {
  const hide = showProgress(job, process.stderr);
  try {
    return await interruptible(job);
  } finally {
    hide();
  }
}

/** Tells a failure where it was asked for, and gives its exit code. */
function fail(/** @type {unknown} */ error, /** @type {boolean} */ asJson) {
  const failure = described(error);
  const { code, message, expected, found, site } = failure;
  if (asJson) process.stdout.write(`${json({ error: { code, message, expected, found, site } })}\n`);
  else process.stderr.write(`${visible(failureLine(failure))}\n`);
  if (error instanceof UsageError) {
    if (!asJson) process.stderr.write('Try: vhd-compactor --help\n');
    return exit.usage;
  }
  return code === 'cancelled' ? exit.interrupted : exit.failed;
}

function described(/** @type {unknown} */ error) {
  if (error instanceof CompactorError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new CompactorError(error instanceof UsageError ? 'invalid-argument' : 'internal', message);
}

function print(/** @type {string[]} */ lines) {
  process.stdout.write(`${lines.map(visible).join('\n')}\n`);
}

function version() {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
}

function ignoreClosedPipe(/** @type {NodeJS.ErrnoException} */ error) {
  if (error.code !== 'EPIPE') throw error;
}
