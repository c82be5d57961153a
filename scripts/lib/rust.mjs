/** The Rust side of the set-up: the toolchain, and tools built by cargo. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { Stop, announce } from './console.mjs';
import { inRoot, toolsFolder } from './paths.mjs';
import { addToPath, attempt, run, which } from './process.mjs';
import { ensurePackages } from './system.mjs';

/** @typedef {{ name: string, version: string, program: string, minutes: number, flags: string[] }} CargoTool */

/** @type {() => CargoTool} */
export const wasmBindgen = () => ({
  name: 'wasm-bindgen-cli',
  version: lockedWasmBindgen(),
  program: 'wasm-bindgen',
  minutes: 1,
  // Not --locked: the lock file of 0.2.130 itself does not resolve.
  flags: ['--debug'],
});
/** @type {CargoTool} */
export const wasmPack = {
  name: 'wasm-pack',
  version: '0.15.0',
  program: 'wasm-pack',
  minutes: 2,
  flags: ['--debug', '--locked'],
};
/** @type {CargoTool} */
export const geckodriver = {
  name: 'geckodriver',
  version: '0.37.1',
  program: 'geckodriver',
  minutes: 2,
  flags: ['--debug', '--locked'],
};
/** @type {CargoTool} */
export const cargoFuzz = {
  name: 'cargo-fuzz',
  version: '0.13.2',
  program: 'cargo-fuzz',
  minutes: 1,
  flags: ['--debug', '--locked'],
};

/** The version that Cargo.toml pins; the tool and the library must be the same. */
function lockedWasmBindgen() {
  const version = /^wasm-bindgen = "=([\d.]+)"$/m.exec(readFileSync(inRoot('Cargo.toml'), 'utf8'))?.[1];
  if (!version) throw new Stop('Cargo.toml no longer pins wasm-bindgen as `wasm-bindgen = "=x.y.z"`.');
  return version;
}

/** cargo, a linker, and what rust-toolchain.toml asks for. */
export async function ensureRust() {
  if (!which('cargo')) addToPath(join(process.env.CARGO_HOME || join(homedir(), '.cargo'), 'bin'));
  if (!which('cargo')) throw new Stop('Rust is missing: install it from https://rustup.rs and run this again.');
  if (!which('cc') && process.platform !== 'win32') {
    await ensurePackages([{ name: 'build-essential', provides: ['cc'] }]);
    if (!which('cc')) throw new Stop('Rust needs a linker: install a C compiler (`cc`) and run this again.');
  }
  await ensureToolchain();
}

/**
 * rustup adds what a toolchain file asks for by itself, but neither where that is switched off
 * (`RUSTUP_AUTO_INSTALL=0`) nor where the toolchain was there first. Without rustup, Rust is the distribution's
 * business, and what it lacks is told by cargo.
 */
async function ensureToolchain() {
  if (!which('rustup')) return;
  const file = readFileSync(inRoot('rust-toolchain.toml'), 'utf8');
  for (const { kind, wanted } of /** @type {const} */ ([
    { kind: 'target', wanted: listIn(file, 'targets') },
    { kind: 'component', wanted: listIn(file, 'components') },
  ])) {
    const { code, output } = await attempt('rustup', [kind, 'list', '--installed']);
    // A toolchain that is not there at all is installed with everything that the file names.
    if (code !== 0) return void (await announce('Installing Rust', () => run('rustup', ['toolchain', 'install'])));
    const installed = output.split('\n');
    const missing = wanted.filter((name) => !installed.some((one) => one === name || one.startsWith(`${name}-`)));
    if (missing.length === 0) continue;
    await announce(`Adding ${missing.join(', ')} to Rust`, () => run('rustup', [kind, 'add', ...missing]));
  }
}

/** The strings of a list in rust-toolchain.toml. @param {string} file @param {string} key */
function listIn(file, key) {
  const list = new RegExp(`^${key} = \\[(.*)\\]$`, 'm').exec(file)?.[1];
  if (list === undefined) throw new Stop(`rust-toolchain.toml no longer has a line \`${key} = […]\`.`);
  return [...list.matchAll(/"([^"]+)"/g)].map((match) => match[1] ?? '');
}

/** Puts a tool on PATH, building it first where the cache has none of that version. */
export async function ensureCargoTool(/** @type {CargoTool} */ tool) {
  const home = join(toolsFolder, `${tool.name}-${tool.version}`);
  const program = join(home, 'bin', tool.program);
  if (!existsSync(program) && !existsSync(`${program}.exe`)) {
    await announce(`Building ${tool.name} ${tool.version} (once; about ${tool.minutes} min)`, () =>
      install(tool, home),
    );
  }
  addToPath(dirname(program));
}

/** Installs beside and renames, so that a build that was interrupted leaves no half tool. */
async function install(/** @type {CargoTool} */ { name, version, flags }, /** @type {string} */ home) {
  mkdirSync(toolsFolder, { recursive: true });
  const beside = mkdtempSync(join(toolsFolder, `.${name}-`));
  // The tool's build goes to a temporary folder, not into the project's.
  const { CARGO_TARGET_DIR: _, ...env } = process.env;
  try {
    const args = ['install', name, '--version', version, ...flags, '--no-track', '--root', beside];
    await run('cargo', args, { cwd: toolsFolder, env });
    rmSync(home, { recursive: true, force: true });
    renameSync(beside, home);
  } finally {
    rmSync(beside, { recursive: true, force: true });
  }
}
