/**
 * One run at a time: two would only take turns on the same drive. The others wait in line.
 */

import { guarded } from './guard.js';
import { startDownload } from './save.js';

/** @import { DiskImage } from './image.js' */
/** @import { Target } from './save.js' */

/** @type {Promise<void>} */
let line = Promise.resolve();

/**
 * Compacts `image` into `target` when its turn comes.
 * @param {DiskImage} image
 * @param {Target} target
 */
export function enqueue(image, target) {
  const ticket = image.wait();
  line = line.then(() => guarded(() => run(image, ticket, target)));
  return line;
}

/**
 * @param {DiskImage} image
 * @param {symbol} ticket
 * @param {Target} target
 */
async function run(image, ticket, target) {
  const made = await image.compact(ticket, target.destination, target);
  if (!made) await image.clearUp(target.discard());
  else if (image.outcome?.blob) startDownload(image.outcome.blob, target.name);
}
