/** The Rust side of the set-up: the toolchain, and tools built by cargo. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { Stop, announce } from './console.mjs';
import { inRoot, toolsFolder } from './paths.mjs';
import { addToPath, run, which } from './process.mjs';
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

/** cargo and a linker; rustup adds what rust-toolchain.toml asks for. */
export async function ensureRust() {
  if (!which('cargo')) addToPath(join(process.env.CARGO_HOME || join(homedir(), '.cargo'), 'bin'));
  if (!which('cargo')) throw new Stop('Rust is missing: install it from https://rustup.rs and run this again.');
  if (!which('cc') && process.platform !== 'win32') {
    await ensurePackages([{ name: 'build-essential', provides: ['cc'] }]);
    if (!which('cc')) throw new Stop('Rust needs a linker: install a C compiler (`cc`) and run this again.');
  }
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
