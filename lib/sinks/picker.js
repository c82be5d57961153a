import { CompactorError, asCompactorError } from '../errors.js';
import { SavedFile, ofSaved } from '../sources/file.js';
import { RunDigests } from './digests.js';

/** @import { Sink } from '../types.js' */

/** Bytes that are written by one call, at most: a call for each block takes half as long again. */
const RUN = 32 * 1024 * 1024;
/** Zeros up to this long are written. A longer stretch is left out, for which the browser begins anew. */
const MAX_GAP = 64 * 1024;

/**
 * Writes the new image to a file of a picked folder. The browser keeps it aside
 * and puts it in place when it is closed; until then an existing file stays as it was.
 *
 * @implements {Sink}
 */
export class PickerSink {
  kind = 'picker';
  // Every run is read back and compared, once the file stands in its place.
  composed = true;
  isSavedFirst = true;
  // Chromium hashes the whole file when it is closed; then all of it is read back.
  rates = { write: 350e6, finish: 100e6, verify: 700e6 };
  largestPiece = RUN;
  /** @type {FileSystemWritableFileStream | null} */
  #writable = null;
  #handle;
  #size = 0;
  #committed = false;
  /** What the file must hold, where it is to be proved. @type {RunDigests | null} */
  #digests = null;
  /** What the next call writes. @type {BlobPart[]} */
  #parts = [];
  #start = 0;
  #length = 0;

  /** @param {FileSystemFileHandle} handle */
  constructor(handle) {
    this.#handle = handle;
    this.name = handle.name;
  }

  /**
   * @param {number} size
   * @param {import('../types.js').ImageSource[]} [_sources]
   * @param {{ verify?: boolean }} [options]
   */
  async begin(size, _sources, { verify = true } = {}) {
    this.#size = size;
    this.#digests = verify ? new RunDigests() : null;
    this.#writable = await this.#handle.createWritable();
  }

  /**
   * @param {import('../types.js').Piece} piece
   * @param {number} position
   * @param {import('../types.js').ImageSource[]} sources
   */
  async write(piece, position, sources) {
    // A gap stands for zeros: the file is set to its length in the end.
    if (piece.kind === 'zeros') return;
    this.#stream();
    const data =
      piece.kind === 'bytes'
        ? new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (piece.bytes)])
        : slice(sources[piece.file], piece.start, piece.end);
    const gap = position - this.#start - this.#length;
    if (gap > MAX_GAP || this.#length + gap + data.size > RUN) await this.#writeRun();
    if (this.#length === 0) this.#start = position;
    else if (gap > 0) this.#parts.push(new Uint8Array(gap));
    this.#parts.push(data);
    this.#length = position + data.size - this.#start;
  }

  async commit() {
    const stream = this.#stream();
    await this.#writeRun();
    await stream.truncate(this.#size);
    try {
      await stream.close();
    } catch (thrown) {
      throw whyNotPlaced(thrown);
    }
    this.#writable = null;
    this.#committed = true;
  }

  async abort() {
    this.#parts = [];
    this.#length = 0;
    this.#digests?.stop();
    try {
      await this.#writable?.abort();
    } finally {
      this.#writable = null;
      // A picked file that was not there before is there now, and empty.
      if (this.#committed || (await this.#isEmpty())) {
        const removable = /** @type {{ remove?: () => Promise<void> }} */ (/** @type {unknown} */ (this.#handle));
        await removable.remove?.();
      }
    }
    this.#committed = false;
  }

  async readBack() {
    return new SavedFile(await ofSaved(this.#handle.getFile()));
  }

  /** @param {(done: number) => Promise<void>} tell */
  async compare(tell) {
    // What was not to be proved cannot be.
    if (!this.#digests) throw new CompactorError('internal', 'a file was compared that was not to be verified');
    await this.#digests.compare(await ofSaved(this.#handle.getFile()), this.#size, tell);
  }

  async #writeRun() {
    if (this.#length === 0) return;
    const [position, data] = [this.#start, new Blob(this.#parts)];
    this.#start += this.#length;
    this.#length = 0;
    this.#parts = [];
    try {
      await this.#stream().write({ type: 'write', position, data });
    } catch (thrown) {
      throw await causeOf(thrown, data);
    }
    this.#digests?.take(position, data);
  }

  async #isEmpty() {
    try {
      return (await this.#handle.getFile()).size === 0;
    } catch (thrown) {
      // It is gone already.
      if (/** @type {DOMException} */ (thrown).name === 'NotFoundError') return false;
      throw thrown;
    }
  }

  #stream() {
    if (!this.#writable) throw new CompactorError('internal', 'a sink was used before it was begun');
    return this.#writable;
  }
}

/**
 * What a failed write really was. A source that cannot be read and a folder that is gone have the same names; and a place
 * that ran full while a Blob was copied to it is told by Chromium, now and then, as a Blob that could not be read. Which it
 * is, is seen by reading the Blob.
 *
 * @param {unknown} thrown
 * @param {Blob} data what was to be written
 */
async function causeOf(thrown, data) {
  const { name, message } = /** @type {DOMException} */ (thrown);
  if (name !== 'NotReadableError' && name !== 'NotFoundError') return thrown;
  try {
    await data.arrayBuffer();
  } catch (again) {
    return asCompactorError(again, 'read-failed');
  }
  if (name === 'NotFoundError') return thrown;
  return new CompactorError(
    'out-of-space',
    `the browser stopped writing, most likely for want of room, since what it was to write can be read: ${message}`,
    { cause: thrown },
  );
}

/**
 * Why a whole file was not put in its place. An abort is nobody's wish here: so Chromium says that its protection against
 * harmful downloads refused the file (WHATWG File System, the close algorithm of FileSystemWritableFileStream).
 *
 * @param {unknown} thrown
 */
function whyNotPlaced(thrown) {
  const { name, message } = /** @type {DOMException} */ (thrown);
  if (name !== 'AbortError') return thrown;
  return new CompactorError(
    'permission-denied',
    `the browser refused to put the new file in its place, as its protection against downloads does: ${message}`,
    { cause: thrown },
  );
}

/**
 * @param {import('../types.js').ImageSource} source
 * @param {number} start
 * @param {number} end
 */
function slice(source, start, end) {
  if (!source.blob) throw new CompactorError('internal', 'a source without a blob cannot be saved by a browser');
  return source.blob.slice(start, end);
}
