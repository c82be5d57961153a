/** `npm run build`: the engine into pkg/ and the page into dist/; with --engine only the former, with --package also types/. */
import { main } from './lib/console.mjs';
import { prepareCommandLine, preparePage } from './lib/setup.mjs';
import { buildTypes } from './lib/types.mjs';

await main(async () => {
  const forPackage = process.argv.includes('--package');
  await (forPackage || process.argv.includes('--engine') ? prepareCommandLine() : preparePage());
  if (forPackage) await buildTypes();
});
