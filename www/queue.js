/**
 * The line of images that wait and work. One run at a time: two would only take turns on the same drive. What
 * was put in line since the line was last empty is one *batch*, and has a progress and a sum of its own.
 */

import { guarded } from './guard.js';
import { startDownload } from './save.js';
import { noteRun } from './unfinished.js';

/** @import { DiskImage } from './image.js' */
/** @import { Target } from './save.js' */

/** Below this a time left is a guess. */
const ENOUGH_SHARE = 0.03;
const ENOUGH_MS = 1500;

class Queue extends EventTarget {
  /** @type {DiskImage[]} */
  #batch = [];
  /** @type {Set<DiskImage>} those that are over, well or not */
  #over = new Set();
  #startedAt = 0;
  /** @type {Promise<void>} */
  #line = Promise.resolve();

  /**
   * Compacts `image` into `target` when its turn comes.
   * @param {DiskImage} image
   * @param {Target} target
   */
  add(image, target) {
    if (!this.isBusy) {
      this.#batch = [];
      this.#over.clear();
      this.#startedAt = performance.now();
    }
    this.#batch = [...this.#batch.filter((one) => one !== image), image];
    this.#over.delete(image);
    const ticket = image.wait();
    // What waits in line has its file already: a tab that is closed leaves it behind, too.
    const { name, folder } = target;
    const noted = noteRun({ source: image.name, handle: image.handle, name, folder });
    this.#line = this.#line
      .then(() => guarded(() => this.#run(image, ticket, target)))
      .finally(() => noted.then((over) => over()));
    this.#tell();
    return this.#line;
  }

  get isBusy() {
    return this.#batch.some((image) => image.isBusy);
  }

  /** Stops what works and lets go of what waits. */
  cancelAll() {
    // The waiting ones first, or each would start as the one before it ends.
    for (const image of this.#batch.toReversed()) image.cancel();
    this.#tell();
  }

  /** How the batch goes. */
  get status() {
    const weight = (/** @type {DiskImage} */ image) => Math.max(1, image.file.size);
    const doneShare = (/** @type {DiskImage} */ image) =>
      this.#over.has(image) || !image.isBusy ? 1 : (image.percent ?? 0) / 100;
    const whole = this.#batch.reduce((sum, image) => sum + weight(image), 0);
    const done = this.#batch.reduce((sum, image) => sum + weight(image) * doneShare(image), 0);
    const share = whole > 0 ? done / whole : 0;
    const elapsed = performance.now() - this.#startedAt;
    const known = share >= ENOUGH_SHARE && elapsed >= ENOUGH_MS && share < 1;
    const made = this.#batch.filter(({ state, outcome }) => state === 'done' && outcome !== null);
    return {
      isBusy: this.isBusy,
      count: this.#batch.length,
      over: this.#batch.filter((image) => !image.isBusy).length,
      share,
      secondsLeft: known ? ((elapsed / share) * (1 - share)) / 1000 : null,
      made: made.length,
      inFolder: made.filter(({ outcome }) => outcome?.place !== null).length,
      failed: this.#batch.filter(({ state }) => state === 'failed').length,
      savedBytes: made.reduce(
        (sum, { outcome }) => sum + (outcome ? Math.max(0, outcome.report.inputSize - outcome.report.outputSize) : 0),
        0,
      ),
    };
  }

  /**
   * @param {DiskImage} image
   * @param {symbol} ticket
   * @param {Target} target
   */
  async #run(image, ticket, target) {
    const tell = () => this.#tell();
    image.addEventListener('progress', tell);
    try {
      const made = await image.compact(ticket, target.destination, {
        name: target.name,
        place: target.place,
        // What is in a folder is the person's, and stays.
        release: target.place === null ? target.discard : () => Promise.resolve(),
      });
      if (!made) await image.clearUp(target.discard());
      else if (image.outcome?.blob) startDownload(image.outcome.blob, target.name);
    } finally {
      image.removeEventListener('progress', tell);
      this.#over.add(image);
      this.#tell();
    }
  }

  #tell() {
    this.dispatchEvent(new Event('change'));
  }
}

export const queue = new Queue();

/**
 * @param {DiskImage} image
 * @param {Target} target
 */
export const enqueue = (image, target) => queue.add(image, target);
