import fs from 'node:fs';
import path from 'node:path';

import { CompactorError, asCompactorError } from '../errors.js';

/** @import { ImageSource } from '../types.js' */

/**
 * A file of the file system, opened for reading only (Node).
 *
 * @implements {ImageSource}
 */
export class PathSource {
  /** @type {number | undefined} */
  #fd;
  /** @type {fs.Stats} */
  #opened;
  #buffer = Buffer.alloc(0);

  /** @param {string} file */
  constructor(file) {
    this.path = file;
    this.name = path.basename(file);
    try {
      // Not blocking: a named pipe would wait for a writer for ever.
      this.#fd = fs.openSync(file, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
      this.#opened = fs.fstatSync(this.#fd);
    } catch (thrown) {
      if (this.#fd !== undefined) fs.closeSync(this.#fd);
      throw asCompactorError(thrown, 'read-failed');
    }
    if (!this.#opened.isFile()) {
      fs.closeSync(this.#fd);
      throw new CompactorError('read-failed', `${file} is no regular file`);
    }
    this.size = this.#opened.size;
    this.lastModified = this.#opened.mtimeMs;
  }

  /** Device and inode: what tells whether two paths are one file. */
  get identity() {
    return { dev: this.#opened.dev, ino: this.#opened.ino };
  }

  /**
   * The bytes, valid until the next read.
   *
   * @param {number} offset
   * @param {number} length
   */
  read(offset, length) {
    if (this.#fd === undefined) throw new CompactorError('internal', `${this.name} was closed already`);
    if (this.#buffer.length < length) this.#buffer = Buffer.allocUnsafeSlow(length);
    let done = 0;
    try {
      while (done < length) {
        const n = fs.readSync(this.#fd, this.#buffer, done, length - done, offset + done);
        if (n === 0) throw new CompactorError('source-changed', `${this.name} became shorter while it was read`);
        done += n;
      }
    } catch (thrown) {
      throw asCompactorError(thrown, 'read-failed');
    }
    return this.#buffer.subarray(0, length);
  }

  /** Throws if the file was changed since it was opened. */
  check() {
    if (this.#fd === undefined) return;
    const now = fs.fstatSync(this.#fd);
    if (now.size !== this.#opened.size || now.mtimeMs !== this.#opened.mtimeMs) {
      throw new CompactorError('source-changed', `${this.name} was changed by another program while it was read`);
    }
  }

  close() {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }
}
