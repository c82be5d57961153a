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
  /** @type {fs.BigIntStats} */
  #opened;
  #buffer = Buffer.alloc(0);

  /** @param {string} file */
  constructor(file) {
    this.path = file;
    this.name = path.basename(file);
    try {
      // Not blocking: a named pipe would wait for a writer for ever.
      this.#fd = fs.openSync(file, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
      this.#opened = fs.fstatSync(this.#fd, { bigint: true });
      if (!this.#opened.isFile()) throw new CompactorError('read-failed', `${file} is no regular file`);
    } catch (thrown) {
      this.close();
      throw asCompactorError(thrown, 'read-failed');
    }
    this.size = Number(this.#opened.size);
    this.lastModified = Number(this.#opened.mtimeMs);
  }

  /** Device and inode: what tells whether two paths are one file. */
  get identity() {
    return { dev: this.#opened.dev, ino: this.#opened.ino };
  }

  /** Who may read the file: what a file made from it should not widen. */
  get access() {
    const { mode, uid, gid } = this.#opened;
    return { mode: Number(mode) & 0o777, uid: Number(uid), gid: Number(gid) };
  }

  /**
   * The bytes, valid until the next read.
   *
   * @param {number} offset
   * @param {number} length
   * @returns {Uint8Array}
   */
  read(offset, length) {
    if (this.#buffer.length < length) this.#buffer = Buffer.allocUnsafeSlow(length);
    const bytes = this.#buffer.subarray(0, length);
    this.readInto(bytes, offset);
    return bytes;
  }

  /**
   * Fills `target` with the bytes from `offset` on.
   *
   * @param {Uint8Array} target
   * @param {number} offset
   */
  readInto(target, offset) {
    if (this.#fd === undefined) throw new CompactorError('internal', `${this.name} was closed already`);
    let done = 0;
    while (done < target.length) {
      const n = this.#readSome(this.#fd, target, done, offset + done);
      if (n === 0) throw new CompactorError('source-changed', `${this.name} became shorter while it was read`);
      done += n;
    }
  }

  /** Throws if the file was changed since it was opened. */
  check() {
    if (this.#fd === undefined) return;
    const now = this.#stat(this.#fd);
    if (now.size !== this.#opened.size || now.mtimeNs !== this.#opened.mtimeNs) {
      throw new CompactorError('source-changed', `${this.name} was changed by another program while it was read`);
    }
  }

  close() {
    const fd = this.#fd;
    this.#fd = undefined;
    try {
      if (fd !== undefined) fs.closeSync(fd);
    } catch {
      // Nothing was written through it, so nothing can be lost by it.
    }
  }

  /** @param {number} fd */
  #stat(fd) {
    try {
      return fs.fstatSync(fd, { bigint: true });
    } catch (thrown) {
      throw asCompactorError(thrown, 'read-failed');
    }
  }

  /**
   * @param {number} fd
   * @param {Uint8Array} target
   * @param {number} from
   * @param {number} offset
   */
  #readSome(fd, target, from, offset) {
    for (;;) {
      try {
        return fs.readSync(fd, target, from, target.length - from, offset);
      } catch (thrown) {
        // A signal came first, and nothing was read.
        if (/** @type {NodeJS.ErrnoException} */ (thrown).code === 'EINTR') continue;
        const { message } = /** @type {Error} */ (thrown);
        const error = asCompactorError(thrown, 'read-failed');
        throw new CompactorError(error.code, `${this.name} could not be read at byte ${offset}: ${message}`, {
          cause: thrown,
        });
      }
    }
  }
}
