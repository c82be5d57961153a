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

/** The tools of the tests; building is a step of the test run itself. */
export async function prepareTests() {
  await ensureNodeModules();
  await ensureRust();
  await ensureCargoTool(wasmBindgen());
  await ensureCargoTool(wasmPack);
  await ensureCargoTool(geckodriver);
  await ensurePackages(testPackages);
  await ensurePython();
}
