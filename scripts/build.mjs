/** `npm run build`: the engine into pkg/ and the page into dist/; with --engine only the former. */
import { main } from './lib/console.mjs';
import { prepareCommandLine, preparePage } from './lib/setup.mjs';

await main(() => (process.argv.includes('--engine') ? prepareCommandLine() : preparePage()));
