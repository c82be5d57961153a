import { CompactorError } from '../errors.js';
import { BlobSource } from '../sources/file.js';

/** @import { Sink } from '../types.js' */

/** Zeros that are shared by all pieces that need some. */
const ZEROS = 1024 * 1024;

/**
 * Composes the new image as one `Blob` of slices of the source and made bytes, for the browser to download.
 * Nothing is copied before the download, and no second copy is kept.
 *
 * @implements {Sink}
 */
export class DownloadSink {
  kind = 'download';
  composed = true;
  // Nothing is copied here, and nothing is read again: the browser copies when the job is over.
  rates = { write: 20e9, finish: 200e9, verify: 20e9 };
  /** The new image, once it is complete. @type {Blob | null} */
  blob = null;
  /** @type {Blob[]} */
  #parts = [];
  /** @type {Blob | null} */
  #zeros = null;
  #size = 0;

  /** @param {string} name what the file shall be called */
  constructor(name) {
    this.name = name;
  }

  /** @param {number} size */
  async begin(size) {
    this.#size = size;
  }

  /**
   * @param {import('../types.js').Piece} piece
   * @param {number} _position
   * @param {import('../types.js').ImageSource[]} sources
   */
  async write(piece, _position, sources) {
    if (piece.kind === 'bytes') {
      // As a Blob the bytes leave the worker's memory.
      this.#parts.push(new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (piece.bytes)]));
    } else if (piece.kind === 'zeros') {
      this.#pushZeros(piece.length);
    } else {
      const { blob } = sources[piece.file];
      if (!blob) throw new CompactorError('internal', 'a source without a blob cannot be saved by a browser');
      this.#parts.push(blob.slice(piece.start, piece.end));
    }
  }

  async commit() {
    this.blob = this.#compose();
    this.#parts = [];
  }

  async abort() {
    this.#parts = [];
    this.blob = null;
  }

  async readBack() {
    return new BlobSource(this.name, this.blob ?? this.#compose());
  }

  #compose() {
    const blob = new Blob(this.#parts, { type: 'application/octet-stream' });
    if (blob.size !== this.#size) {
      throw new CompactorError('source-changed', 'a source file changed its size while the new image was composed');
    }
    return blob;
  }

  /** @param {number} length */
  #pushZeros(length) {
    this.#zeros ??= new Blob([new Uint8Array(ZEROS)]);
    for (let left = length; left > 0; left -= ZEROS) {
      this.#parts.push(left >= ZEROS ? this.#zeros : this.#zeros.slice(0, left));
    }
  }
}
