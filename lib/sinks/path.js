import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { CompactorError, asCompactorError } from '../errors.js';
import { PathSource } from '../sources/path.js';

/** @import { Sink } from '../types.js' */

/** What zeros are compared with: how finely they are left out. */
const ZEROS = Buffer.alloc(64 * 1024);

/**
 * Writes the new image beside its place and renames it when it is complete (Node).
 *
 * @implements {Sink}
 */
export class PathSink {
  kind = 'path';
  largestPiece = 8 * 1024 * 1024;
  #force;
  /** @type {number | undefined} */
  #fd;
  #temporary;
  #size = 0;

  /**
   * @param {string} file
   * @param {{ force?: boolean }} [options] `force` replaces a file that is already there
   */
  constructor(file, { force = false } = {}) {
    this.path = file;
    this.name = file;
    this.#force = force;
    const suffix = randomBytes(6).toString('hex');
    this.#temporary = path.join(path.dirname(file), `.${path.basename(file)}.${suffix}.tmp`);
  }

  /**
   * @param {number} size
   * @param {import('../types.js').ImageSource[]} sources
   */
  async begin(size, sources) {
    this.refuse(sources);
    this.#size = size;
    this.#checkSpace(size);
    this.#fd = fs.openSync(this.#temporary, 'wx');
  }

  /**
   * Throws if the output may not be written: it is one of the sources (by whatever path or link), or it
   * is there already.
   *
   * @param {import('../types.js').ImageSource[]} sources
   */
  refuse(sources) {
    const there = fs.statSync(this.path, { throwIfNoEntry: false });
    for (const source of sources) {
      const same =
        source instanceof PathSource && there?.ino === source.identity.ino && there?.dev === source.identity.dev;
      if (same) {
        throw new CompactorError('invalid-argument', `the output ${this.path} is the same file as ${source.path}`);
      }
    }
    // A dangling link counts as there, too: writing through it would surprise.
    if (!this.#force && fs.lstatSync(this.path, { throwIfNoEntry: false })) {
      throw new CompactorError('invalid-argument', `${this.path} already exists`);
    }
    if (there && !there.isFile()) {
      throw new CompactorError('invalid-argument', `${this.path} is no regular file`);
    }
  }

  /**
   * @param {import('../types.js').Piece} piece
   * @param {number} position
   * @param {import('../types.js').ImageSource[]} sources
   */
  async write(piece, position, sources) {
    // Zeros are left out: the file is set to its length in the end, and what was not written is zero.
    if (piece.kind === 'bytes') this.#put(piece.bytes, position);
    if (piece.kind === 'source') {
      this.#put(sources[piece.file].read(piece.start, piece.end - piece.start), position);
    }
  }

  async commit() {
    const fd = this.#open();
    fs.ftruncateSync(fd, this.#size);
    fs.fsyncSync(fd);
    fs.closeSync(fd);
    this.#fd = undefined;
    if (this.#force) {
      fs.renameSync(this.#temporary, this.path);
    } else {
      this.#place();
    }
  }

  async abort() {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
    fs.rmSync(this.#temporary, { force: true });
  }

  /** Removes the unfinished file at once: for a process that is about to end. */
  abortSync() {
    fs.rmSync(this.#temporary, { force: true });
  }

  async readBack() {
    if (this.#fd === undefined) return null;
    fs.ftruncateSync(this.#fd, this.#size);
    return new PathSource(this.#temporary);
  }

  #open() {
    if (this.#fd === undefined) throw new CompactorError('internal', 'a sink was used before it was begun');
    return this.#fd;
  }

  /** Puts the file in its place, unless another program has put one there meanwhile. */
  #place() {
    try {
      fs.linkSync(this.#temporary, this.path);
      fs.unlinkSync(this.#temporary);
    } catch (thrown) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (thrown);
      if (code === 'EEXIST' || fs.existsSync(this.path)) {
        throw new CompactorError('invalid-argument', `${this.path} already exists`, { cause: thrown });
      }
      // A file system without hard links.
      fs.renameSync(this.#temporary, this.path);
    }
  }

  /** @param {number} size */
  #checkSpace(size) {
    const { bavail, bsize } = fs.statfsSync(path.dirname(this.path));
    if (bavail * bsize < size) {
      throw new CompactorError(
        'out-of-space',
        `the new image needs ${size} bytes, and ${path.dirname(this.path)} has ${bavail * bsize} free`,
      );
    }
  }

  /**
   * Writes what is not zero: the rest of the file reads as zero anyway, and where the file system can
   * leave it out it takes neither time nor room.
   *
   * @param {Uint8Array} bytes
   * @param {number} position
   */
  #put(bytes, position) {
    /** @param {number} from */
    const grain = (from) => Math.min(bytes.length, from + ZEROS.length);
    /** @param {number} from */
    const isZero = (from) => ZEROS.subarray(0, grain(from) - from).equals(bytes.subarray(from, grain(from)));
    let start = 0;
    while (start < bytes.length) {
      if (isZero(start)) {
        start = grain(start);
        continue;
      }
      let end = grain(start);
      while (end < bytes.length && !isZero(end)) end = grain(end);
      this.#writeAll(bytes.subarray(start, end), position + start);
      start = end;
    }
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} position
   */
  #writeAll(bytes, position) {
    const fd = this.#open();
    let done = 0;
    try {
      while (done < bytes.length) {
        done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
      }
    } catch (thrown) {
      throw asCompactorError(thrown, 'write-failed');
    }
  }
}
