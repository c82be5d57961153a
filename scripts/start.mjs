/** `npm start`: builds what has changed and serves the page on this machine. PORT chooses the port. */
import { main, say } from './lib/console.mjs';
import { inRoot } from './lib/paths.mjs';
import { preparePage } from './lib/setup.mjs';

await main(async () => {
  await preparePage();
  // Not before: the server is one of the packages that the line above installs.
  const { serve } = await import('./lib/server.mjs');
  const { address } = await serve(inRoot('dist'), Number(process.env.PORT || 8080));
  console.log(`vhd-compactor is at ${address}`);
  say('Ctrl-C ends it.');
});
