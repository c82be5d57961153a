/**
 * The declarations of the npm package, for each host's entry, from the code: tsc reads its JSDoc.
 *
 *   lib/*.js ── tsc ──► types/lib/*.d.ts      what functions and classes take and give
 *   lib/types.d.ts, pkg/vhd_compactor.d.ts ──► types/      the shapes that they share
 */
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { announce } from './console.mjs';
import { buildIfChanged } from './inputs.mjs';
import { inRoot } from './paths.mjs';
import { run } from './process.mjs';

const engine = 'pkg/vhd_compactor.d.ts';
const inputs = ['lib', engine, 'tsconfig.json', 'tsconfig.package.json', 'scripts/lib/types.mjs'];
const entries = ['types/lib/index.node.d.ts', 'types/lib/index.web.d.ts'];

/** Builds types/ where the library or the engine has changed. */
export async function buildTypes() {
  await buildIfChanged('types', inputs, entries, () =>
    announce('Declaring the types of the package', async () => {
      rmSync(inRoot('types'), { recursive: true, force: true });
      await run(process.execPath, [inRoot('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.package.json']);
      mkdirSync(inRoot('types', 'pkg'));
      copyFileSync(inRoot('lib/types.d.ts'), inRoot('types/lib/types.d.ts'));
      // Without how a module is loaded: that needs the DOM's types, and nobody else does.
      const [shapes = ''] = readFileSync(inRoot(engine), 'utf8').split(/^export type InitInput/m);
      writeFileSync(inRoot('types', engine), shapes);
      // JavaScript cannot export types of another file; what an entry declares itself goes first.
      for (const entry of entries) appendFileSync(inRoot(entry), "export * from './types.js';\n");
    }),
  );
}
