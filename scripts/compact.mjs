/**
 * `npm run --silent compact -- inspect disk.vhd`: the command from a checkout. It runs in this very
 * process, so that Ctrl-C reaches it once, and in the folder where npm was called.
 */
import { main } from './lib/console.mjs';
import { prepareCommandLine } from './lib/setup.mjs';

await main(async () => {
  await prepareCommandLine();
  process.chdir(process.env.INIT_CWD ?? '.');
  const command = await import('../cli/main.js');
  return command.main(process.argv.slice(2));
});
