/** `npm run lint`: the steps of the test run that read the code and do not run it. */
import { main } from './lib/console.mjs';
import { ensureNodeModules } from './lib/node-modules.mjs';
import { ensureRust } from './lib/rust.mjs';
import { steps } from './lib/steps.mjs';
import { runSteps } from './lib/test-run.mjs';
import { buildWasm } from './lib/wasm.mjs';

await main(async () => {
  await ensureNodeModules();
  await ensureRust();
  await buildWasm();
  return runSteps(steps.filter(({ lint }) => lint));
});
