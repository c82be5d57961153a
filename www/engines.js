/**
 * How many engines are kept: each is a worker with a memory of its own, some 20 MB. An image that nobody looks
 * at gives its engine up for another, and gets a new one when it is needed again, for the price of reading its
 * tables once more.
 */

/** @typedef {{ readonly mayRest: boolean, close(): void }} Holder */

const MAX_ENGINES = 4;
const MAX_READING = 3;

/** Those with an engine; the one that was used last stands last. @type {Set<Holder>} */
const holders = new Set();

/** @param {Holder} holder needs its engine now */
export function inUse(holder) {
  holders.delete(holder);
  holders.add(holder);
  trim();
}

/** @param {Holder} holder has no engine any more */
export function atRest(holder) {
  holders.delete(holder);
}

/** Ends the engines that are too many; also called when one becomes idle. */
export function trim() {
  for (const holder of [...holders]) {
    if (holders.size <= MAX_ENGINES) return;
    if (holder.mayRest) holder.close();
  }
}

/** @type {(() => void)[]} */
const waiting = [];
let reading = 0;

/**
 * Does something that opens an image, a few at a time.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function inTurn(work) {
  if (reading >= MAX_READING) {
    await new Promise((resolve) => {
      waiting.push(() => resolve(undefined));
    });
  }
  reading += 1;
  try {
    return await work();
  } finally {
    reading -= 1;
    trim();
    waiting.shift()?.();
  }
}
