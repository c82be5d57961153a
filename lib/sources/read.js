import { CompactorError, asCompactorError } from '../errors.js';

/** @import { ImageSource } from '../types.js' */

/**
 * Exactly `length` bytes of a source. Whatever else comes of it is a fault of reading, whoever asked.
 *
 * @param {ImageSource} source
 * @param {number} offset
 * @param {number} length
 */
export function readExactly(source, offset, length) {
  let bytes;
  try {
    bytes = source.read(offset, length);
  } catch (thrown) {
    throw asCompactorError(thrown, 'read-failed');
  }
  if (bytes.length !== length) {
    throw new CompactorError('source-changed', `${source.name} gave ${bytes.length} bytes instead of ${length}`);
  }
  return bytes;
}

/**
 * Fills `target` with the bytes of a source from `offset` on; without a copy where the source can.
 *
 * @param {ImageSource} source
 * @param {Uint8Array} target
 * @param {number} offset
 */
export function readInto(source, target, offset) {
  if (!source.readInto) {
    target.set(readExactly(source, offset, target.length));
    return;
  }
  try {
    source.readInto(target, offset);
  } catch (thrown) {
    throw asCompactorError(thrown, 'read-failed');
  }
}
