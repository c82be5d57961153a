/** The test run as a list of steps, quickest first; each gives counts and keeps its output for failures. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { counts, ofCargo, ofNodeTest } from './counts.mjs';
import { buildPage } from './page.mjs';
import { inRoot } from './paths.mjs';
import { attempt, which } from './process.mjs';
import { buildWasm } from './wasm.mjs';

/** @typedef {import('./counts.mjs').Counts} Counts */
/**
 * @typedef {object} Step
 * @property {string} name
 * @property {() => Promise<{ counts: Counts, output: string }>} run
 * @property {boolean} [lint] also part of `npm run lint`
 * @property {boolean} [always] part of every run: others build on it, and it is quick when nothing changed
 * @property {string[]} [programs] without one of which the step is skipped
 * @property {import('./setup.mjs').Need[]} [needs] what is set up for it
 */

/** Minutes after which a test program counts as hanging: compiling it all on a busy machine takes a third of that. */
const TEST_LIMIT = 45;
const minutes = (/** @type {number} */ count) => count * 60_000;
const bin = (/** @type {string} */ path) => inRoot('node_modules', path);
const wasm = ['--target', 'wasm32-unknown-unknown'];
const cached = (/** @type {string} */ name) => bin(`.cache/${name}`);

/** @type {Step[]} */
export const steps = [
  nodeCheck('prettier', 'prettier/bin/prettier.cjs', '--check', '--log-level=warn', '--cache', '.'),
  nodeCheck(
    'eslint',
    'eslint/bin/eslint.js',
    '--cache',
    '--cache-location',
    `${cached('eslint')}/`,
    '--max-warnings=0',
  ),
  check('cargo fmt', 'cargo', 'fmt', '--all', '--check'),
  check('clippy', 'cargo', 'clippy', '--workspace', '--all-targets', '--', '-D', 'warnings'),
  check('clippy for wasm32', 'cargo', 'clippy', ...wasm, '--lib', '--tests', '--', '-D', 'warnings'),
  build('engine', buildWasm),
  // After the engine: its declarations are among what is checked.
  nodeCheck('tsc', 'typescript/bin/tsc'),
  cargoTests('cargo test', 'cargo', 'test', '--workspace', '--no-fail-fast', '--', '--show-output'),
  build('page', buildPage),
  nodeTests('scripts', 'tests/scripts'),
  nodeTests('cli', 'tests/cli', 'packages', 'python'),
  nodeTests('package', 'tests/package'),
  wasmPack('chrome', 'chromium', 'chromedriver'),
  wasmPack('firefox', 'firefox-esr', 'geckodriver'),
  nodeTests('e2e', 'tests/e2e', 'packages'),
];

/** @returns {Step} a program that succeeds or fails: one test */
function check(/** @type {string} */ name, /** @type {string} */ command, /** @type {string[]} */ ...args) {
  return {
    name,
    lint: true,
    async run() {
      const { code, output } = await attempt(command, args, { limit: minutes(TEST_LIMIT) });
      return { counts: counts(code === 0 ? { passed: 1 } : { failed: 1 }), output };
    },
  };
}

/** @returns {Step} */
function nodeCheck(/** @type {string} */ name, /** @type {string} */ script, /** @type {string[]} */ ...args) {
  return check(name, process.execPath, bin(script), ...args);
}

/** @returns {Step} */
function build(/** @type {string} */ what, /** @type {() => Promise<void>} */ work) {
  return {
    name: `build the ${what}`,
    always: true,
    async run() {
      await work();
      return { counts: counts({ passed: 1 }), output: '' };
    },
  };
}

/** @returns {Step} */
function cargoTests(/** @type {string} */ name, /** @type {string} */ command, /** @type {string[]} */ ...args) {
  return {
    name,
    needs: ['packages', 'python'],
    async run() {
      const { code, output, timedOut } = await attempt(command, args, { limit: minutes(TEST_LIMIT) });
      return {
        counts: orFailed(ofCargo(output), code),
        output: timedOut ? `${output}\nstopped after ${TEST_LIMIT} min` : output,
      };
    },
  };
}

/** @returns {Step} the same engine in a browser's worker */
function wasmPack(
  /** @type {'chrome' | 'firefox'} */ browser,
  /** @type {string} */ program,
  /** @type {string} */ driver,
) {
  const args = ['--headless', `--${browser}`, `--${driver}`, which(driver) ?? driver, '--mode', 'no-install'];
  // wasm-pack compiles first and then runs `cargo test`: one profile for both, or all is compiled twice.
  const step = cargoTests(`wasm-pack ${browser}`, 'wasm-pack', 'test', ...args, '--', '--profile', 'test');
  return { ...step, programs: [program, driver], needs: ['wasm-bindgen', 'wasm-pack', 'geckodriver', 'packages'] };
}

/** @returns {Step} the files `*.test.mjs` of a folder */
function nodeTests(
  /** @type {string} */ name,
  /** @type {string} */ folder,
  /** @type {import('./setup.mjs').Need[]} */ ...needs
) {
  return {
    name,
    needs,
    async run() {
      const path = inRoot(folder);
      const files = existsSync(path) ? readdirSync(path).filter((file) => file.endsWith('.test.mjs')) : [];
      if (files.length === 0) return { counts: counts({ failed: 1 }), output: `no *.test.mjs in ${folder}` };
      const scratch = mkdtempSync(join(tmpdir(), 'vhd-compactor-'));
      const events = join(scratch, 'events');
      try {
        const { code, output, timedOut } = await attempt(
          process.execPath,
          [
            '--test',
            '--test-concurrency=2',
            '--test-reporter=spec',
            '--test-reporter-destination=stdout',
            `--test-reporter=${inRoot('scripts/lib/test-events.mjs')}`,
            `--test-reporter-destination=${events}`,
            ...files.map((file) => join(path, file)),
          ],
          { limit: minutes(TEST_LIMIT) },
        );
        const result = orFailed(ofNodeTest(existsSync(events) ? readFileSync(events, 'utf8') : ''), code);
        return { counts: result, output: timedOut ? `${output}\nstopped after ${TEST_LIMIT} min` : output };
      } finally {
        rmSync(scratch, { recursive: true, force: true });
      }
    },
  };
}

/** A program that failed without a failed test (it did not compile, it was stopped) is one failure. */
function orFailed(/** @type {Counts} */ result, /** @type {number} */ code) {
  return code !== 0 && result.failed === 0 ? { ...result, failed: 1 } : result;
}
