/** `npm start`: builds what has changed and serves the page on this machine. PORT chooses the port. */
import { main, say } from './lib/console.mjs';
import { inRoot } from './lib/paths.mjs';
import { serve } from './lib/server.mjs';
import { preparePage } from './lib/setup.mjs';

await main(async () => {
  await preparePage();
  const { address } = await serve(inRoot('dist'), Number(process.env.PORT || 8080));
  console.log(`vhd-compactor is at ${address}`);
  say('Ctrl-C ends it.');
});
