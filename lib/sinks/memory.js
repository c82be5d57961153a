import { BytesSource } from '../sources/bytes.js';
import { readExactly } from '../sources/read.js';

/** @import { Sink } from '../types.js' */

/**
 * Keeps the new image in memory: for small results and tests.
 *
 * @implements {Sink}
 */
export class MemorySink {
  kind = 'memory';
  rates = { check: 1000e6, scan: 4000e6, write: 1000e6, finish: 200e9, verify: 20e9 };
  /** The new image, once it is complete. @type {Uint8Array | null} */
  bytes = null;
  /** @type {Uint8Array} */
  #growing = new Uint8Array();

  /** @param {number} size */
  async begin(size) {
    this.#growing = new Uint8Array(size);
  }

  /**
   * @param {import('../types.js').Piece} piece
   * @param {number} position
   * @param {import('../types.js').ImageSource[]} sources
   */
  async write(piece, position, sources) {
    if (piece.kind === 'bytes') this.#growing.set(piece.bytes, position);
    if (piece.kind === 'source') {
      this.#growing.set(readExactly(sources[piece.file], piece.start, piece.end - piece.start), position);
    }
  }

  async commit() {
    this.bytes = this.#growing;
  }

  async abort() {
    this.#growing = new Uint8Array();
    this.bytes = null;
  }

  async readBack() {
    return new BytesSource('new image', this.#growing);
  }
}
