/**
 * The engine for JavaScript: cargo, then wasm-bindgen, then wasm-opt, into pkg/.
 *
 *   src/ ── cargo build ──► target/…/vhd_compactor.wasm ── wasm-bindgen ──► .js .d.ts .wasm ── wasm-opt ──► pkg/
 */
import { renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { announce, say } from './console.mjs';
import { buildIfChanged } from './inputs.mjs';
import { inRoot } from './paths.mjs';
import { run } from './process.mjs';
import { ensureCargoTool, ensureRust, wasmBindgen } from './rust.mjs';

const target = 'wasm32-unknown-unknown';
const module = 'vhd_compactor';
const inputs = ['src', 'Cargo.toml', 'Cargo.lock', '.cargo', 'package-lock.json', 'scripts/lib/wasm.mjs'];
const outputs = ['_bg.wasm', '.js', '.d.ts'].map((suffix) => join('pkg', module + suffix));

/**
 * What rustc emits for this target plus SIMD; wasm-opt must be told. -O3, since the scan is the product:
 * -Oz saves a few per cent of the size. As often as it still gets smaller.
 */
const optimise = [
  '-O3',
  '--converge',
  '--enable-simd',
  '--enable-bulk-memory',
  '--enable-bulk-memory-opt',
  '--enable-nontrapping-float-to-int',
  '--enable-sign-ext',
  '--enable-mutable-globals',
  '--enable-reference-types',
  '--enable-multivalue',
  '--strip-debug',
  '--strip-producers',
];

/** Builds pkg/ where the sources have changed. */
export async function buildWasm() {
  await buildIfChanged('wasm', inputs, outputs, async () => {
    await ensureRust();
    await ensureCargoTool(wasmBindgen());
    await announce('Building the engine (WebAssembly)', compile);
    say(`  ${outputs[0]}: ${(statSync(inRoot(outputs[0] ?? '')).size / 1024).toFixed(0)} KiB`);
  });
}

/** Builds beside and renames: pkg/ is whole or absent. */
async function compile() {
  await run('cargo', ['build', '--release', '--lib', '--target', target]);
  const { target_directory: folder } = JSON.parse(
    await run('cargo', ['metadata', '--no-deps', '--format-version', '1', '--quiet']),
  );
  const compiled = join(folder, target, 'release', `${module}.wasm`);
  const beside = inRoot(`pkg-${process.pid}`);
  try {
    await run('wasm-bindgen', ['--target', 'web', '--out-dir', beside, compiled]);
    const wasm = join(beside, `${module}_bg.wasm`);
    const wasmOpt = inRoot('node_modules', 'binaryen', 'bin', 'wasm-opt');
    await run(process.execPath, [wasmOpt, ...optimise, wasm, '-o', wasm]);
    rmSync(inRoot('pkg'), { recursive: true, force: true });
    renameSync(beside, inRoot('pkg'));
  } finally {
    rmSync(beside, { recursive: true, force: true });
  }
}
