/** Child processes: find a program, run it and wait, keep what it printed for when it fails. */
import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
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
 * Runs a program without stdin and waits for it, whatever its exit code.
 * @param {string} command @param {string[]} args @param {RunOptions} [options] @returns {Promise<Outcome>}
 */
export function attempt(command, args, { cwd = root, env = process.env, output = 'keep', limit } = {}) {
  return new Promise((resolve, reject) => {
    const stdio =
      output === 'show' ? /** @type {const} */ (['ignore', 2, 2]) : /** @type {const} */ (['ignore', 'pipe', 'pipe']);
    // A process group of its own, so that a limit ends the grandchildren too.
    const child = spawn(command, args, { cwd, env, stdio: [...stdio], detached: limit !== undefined });
    /** @type {Buffer[]} */
    const chunks = [];
    child.stdout?.on('data', (chunk) => chunks.push(chunk));
    child.stderr?.on('data', (chunk) => chunks.push(chunk));
    let timedOut = false;
    /** @type {NodeJS.Timeout | undefined} */
    let timer;
    const { pid } = child;
    if (limit !== undefined && pid !== undefined) {
      if (groups.size === 0) endWithUs();
      groups.add(pid);
      timer = setTimeout(() => {
        timedOut = true;
        killGroup(pid);
      }, limit);
    }
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      groups.delete(pid);
      resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString(), timedOut });
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
