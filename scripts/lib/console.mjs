/** What the scripts say, and how they end. Set-up speaks on stderr: stdout belongs to results. */

/** A failure that a person can act on; shown as its message, without a stack. */
export class Stop extends Error {}

export const say = (/** @type {string} */ text) => void process.stderr.write(`${text}\n`);

/** Announces work that takes a while, does it, and says how long it took. */
export async function announce(/** @type {string} */ what, /** @type {() => Promise<unknown>} */ work) {
  say(`${what} …`);
  const started = Date.now();
  await work();
  say(`  done in ${seconds(Date.now() - started)}`);
}

export const seconds = (/** @type {number} */ ms) => `${(ms / 1000).toFixed(1)} s`;

/** Runs a script's body; its number, if any, is the exit code. */
export async function main(/** @type {() => Promise<number | void>} */ body) {
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}
