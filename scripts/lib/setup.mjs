/**
 * What each command needs, smallest first. Every part looks before it acts, so that all of it takes a
 * moment when nothing is missing.
 *
 *   command line    npm packages, Rust, wasm-bindgen-cli ─► pkg/
 *   page            the same ─► pkg/ ─► dist/
 *   tests           the same, drivers and browsers, judges of images
 */
import { ensureNodeModules } from './node-modules.mjs';
import { buildPage } from './page.mjs';
import { ensureCargoTool, ensureRust, geckodriver, wasmBindgen, wasmPack } from './rust.mjs';
import { ensurePackages, ensurePython, testPackages } from './system.mjs';
import { buildWasm } from './wasm.mjs';

export async function prepareCommandLine() {
  await ensureNodeModules();
  await buildWasm();
}

export async function preparePage() {
  await prepareCommandLine();
  await buildPage();
}

/** What steps of the test run may need, in the order in which it is set up. */
const needs = /** @type {const} */ ({
  'wasm-bindgen': () => ensureCargoTool(wasmBindgen()),
  'wasm-pack': () => ensureCargoTool(wasmPack),
  geckodriver: () => ensureCargoTool(geckodriver),
  packages: () => ensurePackages(testPackages),
  python: ensurePython,
});
/** @typedef {keyof typeof needs} Need */

/** The tools of these steps; building is a step of the test run itself. */
export async function prepareTests(/** @type {{ needs?: Need[] }[]} */ steps) {
  await ensureNodeModules();
  await ensureRust();
  const wanted = new Set(steps.flatMap((step) => step.needs ?? []));
  for (const [need, ensure] of Object.entries(needs)) {
    if (wanted.has(/** @type {Need} */ (need))) await ensure();
  }
}
