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
