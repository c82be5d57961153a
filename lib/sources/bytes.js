import { CompactorError } from '../errors.js';

/** @import { ImageSource } from '../types.js' */

/**
 * An image in memory.
 *
 * @implements {ImageSource}
 */
export class BytesSource {
  #bytes;

  /**
   * @param {string} name
   * @param {Uint8Array} bytes
   */
  constructor(name, bytes) {
    this.name = name;
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  /**
   * @param {number} offset
   * @param {number} length
   */
  read(offset, length) {
    if (offset + length > this.size) throw new CompactorError('read-failed', 'a read past the end of the image');
    return this.#bytes.subarray(offset, offset + length);
  }
}
