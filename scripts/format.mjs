/** `npm run format`: rewrites what `npm run lint` would complain about where a tool can. */
import { main } from './lib/console.mjs';
import { ensureNodeModules } from './lib/node-modules.mjs';
import { inRoot } from './lib/paths.mjs';
import { run } from './lib/process.mjs';
import { ensureRust } from './lib/rust.mjs';

await main(async () => {
  await ensureNodeModules();
  await ensureRust();
  const bin = (/** @type {string} */ path) => inRoot('node_modules', path);
  await run(process.execPath, [bin('prettier/bin/prettier.cjs'), '--write', '--log-level=warn', '.'], {
    output: 'show',
  });
  await run(process.execPath, [bin('eslint/bin/eslint.js'), '--fix'], { output: 'show' });
  await run('cargo', ['fmt', '--all'], { output: 'show' });
});
