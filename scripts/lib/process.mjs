/** Child processes: find a program, run it and wait, keep what it printed for when it fails. */
import { spawn } from 'node:child_process';
import { accessSync, closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { Stop } from './console.mjs';
import { root } from './paths.mjs';

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd] the repository by default
 * @property {NodeJS.ProcessEnv} [env]
 * @property {'keep' | 'show'} [output] keep it for the caller, or show it as it comes (stdout too goes to
 *   stderr, which leaves stdout to results)
 * @property {number} [limit] milliseconds after which the program and its children are killed
 */
/** @typedef {{ code: number, output: string, timedOut: boolean }} Outcome */

/** The full path of a program on PATH, or null. */
export function which(/** @type {string} */ name, path = process.env.PATH ?? '') {
  const suffixes = process.platform === 'win32' ? ['.exe', '.cmd', ''] : [''];
  for (const folder of path.split(delimiter)) {
    for (const suffix of suffixes) {
      const candidate = join(folder, name + suffix);
      try {
        accessSync(candidate, constants.X_OK);
        if (folder && statSync(candidate).isFile()) return candidate;
      } catch {
        // Not here: the next folder may have it.
      }
    }
  }
  return null;
}

/** Puts folders in front of PATH for this process and its children. */
export function addToPath(/** @type {string[]} */ ...folders) {
  const present = new Set((process.env.PATH ?? '').split(delimiter));
  const missing = folders.filter((folder) => !present.has(folder));
  process.env.PATH = [...missing, process.env.PATH].join(delimiter);
}

/** Groups of processes that outlive a Ctrl-C unless they are told. */
const groups = new Set();
const killGroup = (/** @type {number} */ pid) => {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group has ended already.
  }
};
const killGroups = () => groups.forEach(killGroup);

/**
 * Runs a program without stdin and waits for it, whatever its exit code. What it prints on stdout and
 * stderr goes to one file, which keeps the order and needs nobody to read it meanwhile.
 * @param {string} command @param {string[]} args @param {RunOptions} [options] @returns {Promise<Outcome>}
 */
export async function attempt(command, args, { cwd = root, env = process.env, output = 'keep', limit } = {}) {
  const scratch = mkdtempSync(join(tmpdir(), 'vhd-compactor-run-'));
  const file = join(scratch, 'output');
  const fd = output === 'keep' ? openSync(file, 'w') : 2;
  try {
    // A process group of its own where there is a limit, so that it ends the grandchildren too.
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', fd, fd], detached: limit !== undefined });
    const ended = await waitFor(child, limit);
    return { ...ended, output: output === 'keep' ? readFileSync(file, 'utf8') : '' };
  } finally {
    if (output === 'keep') closeSync(fd);
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * @param {import('node:child_process').ChildProcess} child @param {number} [limit]
 * @returns {Promise<{ code: number, timedOut: boolean }>}
 */
function waitFor(child, limit) {
  return new Promise((resolve, reject) => {
    const { pid } = child;
    let timedOut = false;
    /** @type {NodeJS.Timeout | undefined} */
    let timer;
    if (limit !== undefined && pid !== undefined) {
      endWithUs();
      groups.add(pid);
      timer = setTimeout(() => {
        timedOut = true;
        killGroup(pid);
      }, limit);
    }
    child.once('error', reject);
    child.once('exit', (code) => {
      clearTimeout(timer);
      // What it left running (a browser, a driver) ends with it.
      if (limit !== undefined && pid !== undefined) killGroup(pid);
      groups.delete(pid);
      resolve({ code: code ?? 1, timedOut });
    });
  });
}

let watching = false;
/** Kills the groups when this process is told to end. */
function endWithUs() {
  if (watching) return;
  watching = true;
  for (const [signal, code] of /** @type {const} */ ([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ])) {
    process.once(signal, () => {
      killGroups();
      process.exit(code);
    });
  }
  process.once('exit', killGroups);
}

/**
 * Runs a program that must succeed.
 * @param {string} command @param {string[]} args @param {RunOptions} [options] @returns {Promise<string>} its output
 */
export async function run(command, args, options) {
  const outcome = await attempt(command, args, options);
  if (outcome.code !== 0) {
    throw new Stop(
      `${outcome.output.trimEnd()}\n\n\`${[command, ...args].join(' ')}\` failed (exit code ${outcome.code}).`,
    );
  }
  return outcome.output;
}

/** Runs npm: the one that started us, else the one on PATH. */
export function npm(/** @type {string[]} */ args, /** @type {RunOptions} */ options = {}) {
  const cli = process.env.npm_execpath;
  return cli ? run(process.execPath, [cli, ...args], options) : run(which('npm') ?? 'npm', args, options);
}
