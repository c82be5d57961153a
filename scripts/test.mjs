/**
 * `npm test`: sets up what is missing, builds, runs every test, and ends with the line
 * `N passed, N failed, N skipped`. `npm test -- cli clippy` runs only the steps whose names start so; with --strict
 * a test that lacks a tool fails instead of being skipped.
 */
import { parseArgs } from 'node:util';
import { Stop, main } from './lib/console.mjs';
import { prepareTests } from './lib/setup.mjs';
import { steps } from './lib/steps.mjs';
import { runSteps } from './lib/test-run.mjs';

await main(async () => {
  const { values, positionals: wanted } = parseArgs({
    options: { strict: { type: 'boolean' } },
    allowPositionals: true,
  });
  const unknown = wanted.filter((start) => !steps.some(({ name }) => name.startsWith(start)));
  if (unknown.length > 0) {
    throw new Stop(`No step ${unknown.join(', ')}; there are: ${steps.map(({ name }) => name).join(', ')}`);
  }
  const isChosen = (/** @type {import('./lib/steps.mjs').Step} */ { name, always }) =>
    wanted.length === 0 || always || wanted.some((start) => name.startsWith(start));
  const chosen = steps.filter(isChosen);
  await prepareTests(chosen);
  return runSteps(chosen, { strict: values.strict });
});
