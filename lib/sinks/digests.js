/**
 * What a file must hold, by a digest of each run of it: for a file that can be read only once it stands in its place.
 *
 * ```text
 *   pieces ─────► runs of 16 MiB ──► read from the source once more, digest    while the browser writes and closes
 *   saved file ──────────────────► read, digest ──► the same?                  once it is in its place
 *   between the runs, behind them ──────────────► nothing but zeros?
 * ```
 * Both sides are read anew: neither what the browser read in order to write, nor what it wrote, is taken on trust.
 * Reading and digesting are the browser's own, beside this thread.
 */
import { CompactorError } from '../errors.js';
import { ofSaved } from '../sources/file.js';

/** Bytes of which a digest is taken. */
const RUN = 16 * 1024 * 1024;

/** @typedef {{ start: number, end: number, digest: Promise<ArrayBuffer | null> }} Run */

export class RunDigests {
  /** @type {Run[]} */
  #runs = [];
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  #stopped = false;

  /**
   * Takes what the file must hold from `position` on.
   *
   * @param {number} position
   * @param {Blob} data
   */
  take(position, data) {
    for (let from = 0; from < data.size; from += RUN) {
      const run = data.slice(from, from + RUN);
      const digest = heard(this.#last.then(() => (this.#stopped ? null : digestOf(run))));
      this.#last = digest.catch(() => {});
      this.#runs.push({ start: position + from, end: position + from + run.size, digest });
    }
  }

  /**
   * Reads the whole file back. Throws `differs` at the first run that is not what it must be; between the runs and
   * behind them, that is zeros.
   *
   * @param {Blob} saved
   * @param {number} size how long it must be
   * @param {(done: number) => Promise<void>} tell how far it is; may throw to stop
   */
  async compare(saved, size, tell) {
    if (saved.size !== size) throw differs(Math.min(saved.size, size));
    /** @param {Run | undefined} run */
    const read = (run) => run && heard(ofSaved(digestOf(saved.slice(run.start, run.end))));
    let next = read(this.#runs[0]);
    let at = 0;
    for (const [index, { start, end, digest }] of this.#runs.entries()) {
      // One is read while the one before it is digested.
      const under = next;
      next = read(this.#runs[index + 1]);
      const [expected, found] = await Promise.all([digest, under]);
      if (!expected || !found || !isSame(expected, found)) throw differs(start);
      await requireZeros(saved, at, start, tell);
      at = end;
      await tell(end);
    }
    await requireZeros(saved, at, size, tell);
  }

  /** Reads nothing more. */
  stop() {
    this.#stopped = true;
  }
}

/**
 * Throws `differs` where anything but zeros stands between two places of a file.
 *
 * @param {Blob} saved
 * @param {number} start
 * @param {number} end
 * @param {(done: number) => Promise<void>} tell
 */
async function requireZeros(saved, start, end, tell) {
  for (let from = start; from < end; from += RUN) {
    const to = Math.min(end, from + RUN);
    const bytes = await ofSaved(saved.slice(from, to).arrayBuffer());
    if (bytes.byteLength !== to - from || !isZero(bytes)) throw differs(from);
    await tell(to);
  }
}

/** @param {ArrayBuffer} buffer */
function isZero(buffer) {
  const words = new BigUint64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
  const rest = new Uint8Array(buffer, words.byteLength);
  return words.every((word) => word === 0n) && rest.every((byte) => byte === 0);
}

/** @param {number} offset where in the file */
function differs(offset) {
  return new CompactorError('differs', 'what the browser saved does not read as it was made', {
    site: { structure: 'new image', space: 'file', offset },
  });
}

/** @param {Blob} blob */
const digestOf = async (blob) => crypto.subtle.digest('SHA-256', await blob.arrayBuffer());

/**
 * A promise that is waited for later: until then its failure is no unhandled one.
 *
 * @template T
 * @param {Promise<T>} promise
 */
function heard(promise) {
  promise.catch(() => {});
  return promise;
}

/** @param {ArrayBuffer} one @param {ArrayBuffer} other */
function isSame(one, other) {
  const bytes = new Uint8Array(other);
  return one.byteLength === other.byteLength && new Uint8Array(one).every((byte, at) => byte === bytes[at]);
}
