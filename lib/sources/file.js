import { CompactorError, asCompactorError } from '../errors.js';

/** @import { ImageSource } from '../types.js' */

/**
 * A `File` that a person dropped or picked (browser, in a dedicated worker). The engine reads it itself,
 * through `FileReaderSync`.
 *
 * @implements {ImageSource}
 */
export class FileSource {
  /** @param {File} file */
  constructor(file) {
    this.blob = file;
    this.name = file.name;
    this.size = file.size;
    this.lastModified = file.lastModified;
  }

  /**
   * @param {number} offset
   * @param {number} length
   * @returns {Uint8Array}
   */
  read(offset, length) {
    const slice = this.blob.slice(offset, offset + length);
    return new Uint8Array(new FileReaderSync().readAsArrayBuffer(slice));
  }
}

/**
 * Bytes that a browser composed: a new image before it is saved.
 *
 * @implements {ImageSource}
 */
export class BlobSource {
  /**
   * @param {string} name
   * @param {Blob} blob
   */
  constructor(name, blob) {
    this.blob = blob;
    this.name = name;
    this.size = blob.size;
  }

  /**
   * @param {number} offset
   * @param {number} length
   * @returns {Uint8Array}
   */
  read(offset, length) {
    return new Uint8Array(new FileReaderSync().readAsArrayBuffer(this.blob.slice(offset, offset + length)));
  }
}

/** What a browser has saved: that it cannot be read is a fault of the place that was written to, and not of a source. */
export class SavedFile extends FileSource {
  /** @override @param {number} offset @param {number} length */
  read(offset, length) {
    try {
      return super.read(offset, length);
    } catch (thrown) {
      throw notReadBack(thrown);
    }
  }
}

/**
 * Waits for something of a file that was saved.
 *
 * @template T
 * @param {Promise<T>} reading
 * @returns {Promise<T>}
 */
export const ofSaved = (reading) =>
  reading.catch((thrown) => {
    throw notReadBack(thrown);
  });

/** @param {unknown} thrown */
function notReadBack(thrown) {
  const { code, message } = asCompactorError(thrown, 'write-failed');
  return new CompactorError(code, `what the browser saved could not be read back: ${message}`, { cause: thrown });
}
