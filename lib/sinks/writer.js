/**
 * Writes a file in long runs, several at a time, and proves each (Node).
 *
 * ```text
 *   pieces ──► run of 8 MiB ──► written ──► read back ──────────────► compared ──► its buffer serves again
 *                                           pieces, read once more ──┘
 *              (this thread)    (Node's pool of threads)            (this thread)
 *                    every 256 MiB, meanwhile: fdatasync
 * ```
 * What is compared was read anew on both sides, so a read of the source that went wrong once is found as well as a
 * write that did. Stretches of zeros are left out: what was never written reads as zero, and takes neither time nor room.
 */
import fs from 'node:fs';

import { CompactorError } from '../errors.js';

/** Bytes of a run. */
const RUN = 8 * 1024 * 1024;
/** Runs under way at once: one is filled, one is written, one is read back. */
const RUNS = 3;
/** How finely zeros are left out. */
const ZEROS = Buffer.alloc(64 * 1024);
/** The system is told to write to the disk this often, so that the last sync finds little to do. */
const SYNC_EVERY = 256 * 1024 * 1024;

/** @typedef {(target: Buffer, from: number) => void} Fill */
/** @typedef {{ at: number, length: number, from: number, fill: Fill }} Part */
/** @typedef {{ bytes: Buffer, start: number, length: number, parts: Part[] }} Run */

export class RunWriter {
  #fd;
  #verify;
  #fail;
  /** @type {Run[]} */
  #idle = [];
  /** @type {Run | null} */
  #filling = null;
  /** What is under way, oldest first. @type {Promise<void>[]} */
  #underWay = [];
  /** @type {Promise<void> | null} */
  #syncing = null;
  #unsynced = 0;
  #made = 0;
  /** What is read back: one run at a time. */
  #back = Buffer.alloc(0);
  /** @type {Promise<void>} */
  #lastComparison = Promise.resolve();
  /** The first failure: nothing is done after it. @type {{ error: unknown } | null} */
  #failed = null;

  /**
   * @param {number} fd open for reading and writing
   * @param {{ verify: boolean, fail: (what: string, thrown: unknown) => never }} options `fail` tells what could not be
   *   done to the file
   */
  constructor(fd, { verify, fail }) {
    this.#fd = fd;
    this.#verify = verify;
    this.#fail = fail;
  }

  /**
   * Takes the next `length` bytes of the file, which `fill` puts into the buffers that it is given, now and when
   * they are compared.
   *
   * @param {number} position behind everything that was taken before
   * @param {number} length
   * @param {Fill} fill `from` counts from `position`
   */
  async take(position, length, fill) {
    let done = 0;
    while (done < length) {
      const run = await this.#runFor(position + done);
      const at = position + done - run.start;
      // Between two pieces lie zeros.
      run.bytes.fill(0, run.length, at);
      const part = { at, length: Math.min(length - done, RUN - at), from: done, fill };
      fillIn(run, part);
      if (this.#verify) run.parts.push(part);
      run.length = at + part.length;
      done += part.length;
      if (run.length === RUN) this.#send();
    }
  }

  /** Writes what is left; when the promise is fulfilled, everything was written and compared. */
  async drain() {
    if (this.#filling) this.#send();
    await this.settled();
    if (this.#failed) throw this.#failed.error;
  }

  /** Waits until nothing touches the file any more, whether or not it went well. */
  async settled() {
    while (this.#underWay.length > 0) await this.#underWay.shift();
    await this.#syncing;
  }

  /** The run that takes what is written at `position`. @param {number} position */
  async #runFor(position) {
    if (this.#filling && position - this.#filling.start - this.#filling.length > ZEROS.length) this.#send();
    if (this.#filling && position >= this.#filling.start + RUN) this.#send();
    if (!this.#filling) {
      // Those that ended long ago are among them.
      while (this.#idle.length === 0 && this.#made >= RUNS) await this.#underWay.shift();
      if (this.#failed) throw this.#failed.error;
      this.#filling = this.#idle.pop() ?? this.#newRun();
      this.#filling.start = position;
      this.#filling.length = 0;
      this.#filling.parts = [];
    }
    return this.#filling;
  }

  /** @returns {Run} */
  #newRun() {
    this.#made += 1;
    return { bytes: Buffer.allocUnsafeSlow(RUN), start: 0, length: 0, parts: [] };
  }

  /** Sends the run that was being filled on its way. */
  #send() {
    const run = /** @type {Run} */ (this.#filling);
    this.#filling = null;
    this.#underWay.push(
      this.#carry(run)
        .catch((error) => {
          this.#failed ??= { error };
        })
        .then(() => {
          this.#idle.push(run);
        }),
    );
  }

  /** @param {Run} run */
  async #carry(run) {
    const { start, length } = run;
    const whole = run.bytes.subarray(0, length);
    for (const [from, to] of stretches(whole)) await this.#write(whole.subarray(from, to), start + from);
    this.#syncNowAndThen(length);
    if (!this.#verify) return;
    const comparison = this.#lastComparison.then(() => this.#compare(run));
    this.#lastComparison = comparison.catch(() => {});
    await comparison;
  }

  /** @param {Buffer} bytes @param {number} position */
  async #write(bytes, position) {
    let done = 0;
    while (done < bytes.length) {
      if (this.#failed) return;
      const at = position + done;
      const written = await this.#call(`written at byte ${at}`, (back) =>
        fs.write(this.#fd, bytes, done, bytes.length - done, at, back),
      );
      if (written === 0) this.#fail(`written at byte ${at}`, new Error('the file system writes nothing more'));
      done += written;
    }
  }

  /** @param {Run} run */
  async #compare(run) {
    if (this.#failed) return;
    if (this.#back.length === 0) this.#back = Buffer.allocUnsafeSlow(RUN);
    const back = this.#back.subarray(0, run.length);
    let done = 0;
    while (done < back.length) {
      const at = run.start + done;
      const read = await this.#call(`read back at byte ${at}`, (callback) =>
        fs.read(this.#fd, back, done, back.length - done, at, callback),
      );
      // What lies past the end was left out as zero: the file gets its length in the end.
      if (read === 0) break;
      done += read;
    }
    back.fill(0, done);
    for (const part of run.parts) fillIn(run, part);
    if (!back.equals(run.bytes.subarray(0, run.length))) {
      throw new CompactorError(
        'differs',
        `what was written at byte ${run.start} and behind does not read as its source`,
      );
    }
  }

  /** @param {number} written */
  #syncNowAndThen(written) {
    this.#unsynced += written;
    if (this.#unsynced < SYNC_EVERY || this.#syncing) return;
    this.#unsynced = 0;
    this.#syncing = this.#call('written to the disk', (callback) => fs.fdatasync(this.#fd, callback))
      .catch((error) => {
        this.#failed ??= { error };
      })
      .then(() => {
        this.#syncing = null;
      });
  }

  /**
   * @param {string} what
   * @param {(callback: (error: Error | null, count?: number) => void) => void} call
   * @returns {Promise<number>}
   */
  async #call(what, call) {
    for (;;) {
      try {
        return await new Promise((resolve, reject) => {
          call((error, count = 0) => (error ? reject(error) : resolve(count)));
        });
      } catch (thrown) {
        // A signal came first, and nothing was done.
        if (/** @type {NodeJS.ErrnoException} */ (thrown).code !== 'EINTR') this.#fail(what, thrown);
      }
    }
  }
}

/** @param {Run} run @param {Part} part */
const fillIn = ({ bytes }, { at, length, from, fill }) => fill(bytes.subarray(at, at + length), from);

/**
 * The stretches of `bytes` that are not zero.
 *
 * @param {Buffer} bytes
 * @returns {Iterable<[number, number]>}
 */
function* stretches(bytes) {
  const grain = (/** @type {number} */ from) => Math.min(bytes.length, from + ZEROS.length);
  const isZero = (/** @type {number} */ from) =>
    ZEROS.subarray(0, grain(from) - from).equals(bytes.subarray(from, grain(from)));
  let start = 0;
  while (start < bytes.length) {
    let end = grain(start);
    if (!isZero(start)) {
      while (end < bytes.length && !isZero(end)) end = grain(end);
      yield [start, end];
    }
    start = end;
  }
}
