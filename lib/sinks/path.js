import fs from 'node:fs';
import path from 'node:path';

import { CompactorError, asCompactorError } from '../errors.js';
import { PathSource } from '../sources/path.js';
import { readInto } from '../sources/read.js';
import { isAncestor } from './ancestors.js';
import { removeAbandoned, temporaryBeside } from './temporary.js';
import { RunWriter } from './writer.js';

/** @import { ImageSource, Opened, Piece, Sink } from '../types.js' */

/** What a file system says that cannot do a thing, as opposed to one that failed to. */
const NOT_SUPPORTED = new Set(['EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EPERM', 'EACCES', 'EISDIR', 'EBADF']);
const onWindows = process.platform === 'win32';

/**
 * Writes the new image beside its place and renames it when it is complete (Node).
 *
 * ```text
 *   prepare   before anything is read: is the place free, can the folder be written?
 *   begin     is there room? An unfinished file is made that only its owner can open
 *   write     …
 *   readBack  what was written, to be compared
 *   commit    length, owner and mode of the source, fsync, close; the name; fsync of the folder
 *   abort     nothing of it stays
 * ```
 *
 * @implements {Sink}
 */
export class PathSink {
  kind = 'path';
  rates = { check: 1000e6, scan: 4000e6, write: 500e6, finish: 1000e6, verify: 20e9 };
  composed = true;
  largestPiece = 8 * 1024 * 1024;
  #force;
  #folder;
  #temporary;
  /** @type {number | undefined} */
  #fd;
  /** @type {{ mode: number, uid: number, gid: number } | null} */
  #access = null;
  #size = 0;
  /** @type {RunWriter | null} */
  #writer = null;
  /** The new image once it has its name, where nothing was there before. @type {fs.BigIntStats | null} */
  #placed = null;

  /**
   * @param {string} file
   * @param {{ force?: boolean }} [options] `force` replaces a file that is already there
   */
  constructor(file, { force = false } = {}) {
    this.path = file;
    this.name = file;
    this.#force = force;
    this.#folder = path.dirname(file);
    this.#temporary = temporaryBeside(file);
  }

  /**
   * Throws if the output may not be written: it is there already, it is one of the sources or of their parents (by
   * whatever path or link), or its folder is missing or cannot be written.
   *
   * @param {Opened} image
   */
  async prepare(image) {
    this.#refuse(image.sources);
    if (this.#force && isAncestor(image, this.path)) {
      throw new CompactorError(
        'invalid-argument',
        `${this.path} is a parent of ${image.sources[0].name}, and what was made from it would be lost`,
      );
    }
    this.#checkFolder();
    removeAbandoned(this.#folder);
  }

  /**
   * @param {number} size
   * @param {ImageSource[]} sources
   * @param {{ verify?: boolean }} [options]
   */
  async begin(size, sources, { verify = true } = {}) {
    this.#refuse(sources);
    this.#size = size;
    this.#checkRoom(size);
    this.#access = narrowest(sources);
    // Only the owner's, until it is known whose it may be. Where no source has a mode, the usual one.
    const mode = this.#access ? 0o600 : 0o666;
    this.#fd = this.#doing('made', () => fs.openSync(this.#temporary, 'wx+', mode));
    this.#writer = new RunWriter(this.#fd, { verify, fail: (what, thrown) => this.#fail(what, thrown) });
  }

  /**
   * @param {Piece} piece
   * @param {number} position
   * @param {ImageSource[]} sources
   */
  async write(piece, position, sources) {
    const writer = this.#begun();
    if (piece.kind === 'bytes') {
      const { bytes } = piece;
      await writer.take(position, bytes.length, (target, from) =>
        target.set(bytes.subarray(from, from + target.length)),
      );
    } else if (piece.kind === 'source') {
      const source = sources[piece.file];
      await writer.take(position, piece.end - piece.start, (target, from) =>
        readInto(source, target, piece.start + from),
      );
    }
    // Zeros are left out: the file is set to its length in the end, and what was not written is zero.
  }

  async readBack() {
    const fd = this.#fd;
    if (fd === undefined) return null;
    await this.#writer?.drain();
    this.#doing('set to its length', () => fs.ftruncateSync(fd, this.#size));
    return this.#doing('read back', () => new WrittenFile(this.#temporary, this.path));
  }

  async commit() {
    await this.#begun().drain();
    const fd = /** @type {number} */ (this.#fd);
    this.#doing('set to its length', () => fs.ftruncateSync(fd, this.#size));
    this.#giveAccess(fd);
    this.#doing('written to the disk', () => fs.fsyncSync(fd));
    const written = this.#doing('looked at', () => fs.fstatSync(fd, { bigint: true }));
    if (written.size !== BigInt(this.#size)) {
      throw new CompactorError('write-failed', `${this.path} has ${written.size} bytes instead of ${this.#size}`);
    }
    // Some file systems tell only here that a write has failed.
    this.#fd = undefined;
    this.#writer = null;
    this.#doing('closed', () => fs.closeSync(fd));
    const isNew = this.#doing('put in its place', () => (this.#force ? this.#replace() : this.#place()));
    this.#placed = isNew ? written : null;
    this.#checkPlaced(written);
    this.#syncFolder();
  }

  async abort() {
    const [placed, fd] = [this.#placed, this.#fd];
    // Its number may be another file's as soon as it is closed.
    await this.#writer?.settled();
    this.#placed = null;
    this.#writer = null;
    this.#fd = undefined;
    // It goes, whether or not it can be closed.
    if (fd !== undefined) isPermitted(() => fs.closeSync(fd));
    try {
      this.abortSync();
    } finally {
      // Only what this sink has put there: by now it may be another file.
      const there = placed && fs.lstatSync(this.path, { bigint: true, throwIfNoEntry: false });
      if (placed && there?.ino === placed.ino && there.dev === placed.dev) fs.rmSync(this.path, { force: true });
    }
  }

  /** Removes the unfinished file, and no other, at once: for a process that is about to end. */
  abortSync() {
    fs.rmSync(this.#temporary, { force: true });
  }

  #begun() {
    if (!this.#writer) throw new CompactorError('internal', 'a sink was used before it was begun');
    return this.#writer;
  }

  /** @param {ImageSource[]} sources */
  #refuse(sources) {
    const there = this.#look(() => fs.statSync(this.path, { bigint: true, throwIfNoEntry: false }));
    for (const source of sources) {
      if (there && source instanceof PathSource && isSameFile(there, this.path, source)) {
        throw new CompactorError('invalid-argument', `the output ${this.path} is the same file as ${source.path}`);
      }
    }
    // A link that leads nowhere counts as there, too: writing through it would surprise.
    if (!this.#force && this.#look(() => fs.lstatSync(this.path, { throwIfNoEntry: false }))) {
      throw new CompactorError('invalid-argument', `${this.path} already exists`);
    }
    if (there && !there.isFile()) {
      throw new CompactorError('invalid-argument', `${this.path} is no regular file`);
    }
  }

  #checkFolder() {
    const folder = this.#look(() => fs.statSync(this.#folder, { throwIfNoEntry: false }));
    if (!folder?.isDirectory()) {
      throw new CompactorError('invalid-argument', `there is no folder ${this.#folder} for the new image`);
    }
    try {
      fs.accessSync(this.#folder, fs.constants.W_OK | fs.constants.X_OK);
    } catch (thrown) {
      const { code, message } = asCompactorError(thrown, 'permission-denied');
      throw new CompactorError(code, `the folder ${this.#folder} cannot be written: ${message}`, { cause: thrown });
    }
  }

  /** @param {number} size */
  #checkRoom(size) {
    let room;
    try {
      room = fs.statfsSync(this.#folder);
    } catch {
      return;
    }
    // Some file systems (of FUSE, mostly) tell nothing, which looks like a full disk of no size.
    if (room.blocks === 0) return;
    const free = room.bavail * room.bsize;
    if (free < size) {
      throw new CompactorError(
        'out-of-space',
        `the new image needs ${size} bytes, and ${this.#folder} has ${free} free`,
      );
    }
  }

  /**
   * Gives the new file the owner and the mode of the source, where that is permitted. Where the group cannot be
   * given, what the group might do is cut to what everybody may.
   *
   * @param {number} fd
   */
  #giveAccess(fd) {
    // On Windows a file has the permissions of its folder.
    if (!this.#access || onWindows) return;
    const { mode, uid, gid } = this.#access;
    let isGroups = isPermitted(() => fs.fchownSync(fd, uid, gid));
    isGroups ||= isPermitted(() => fs.fchownSync(fd, process.geteuid?.() ?? uid, gid));
    const others = mode & 0o007;
    const group = isGroups ? mode & 0o070 : mode & 0o070 & (others << 3);
    // Where a mode is not to be had (FAT, CIFS) there is none to protect either.
    isPermitted(() => fs.fchmodSync(fd, (mode & 0o700) | group | others));
  }

  /** Puts the file in its place, over what is there. True where nothing was. */
  #replace() {
    const wasThere = fs.lstatSync(this.path, { throwIfNoEntry: false }) !== undefined;
    try {
      fs.renameSync(this.#temporary, this.path);
    } catch (thrown) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (thrown);
      if (onWindows && wasThere && /^(EPERM|EACCES|EBUSY)$/.test(code ?? '')) {
        throw new CompactorError('in-use', `${this.path} is read-only, or another program has it open`, {
          cause: thrown,
        });
      }
      throw thrown;
    }
    return !wasThere;
  }

  /** Puts the file in its place, unless another program has put one there meanwhile. True, since nothing was. */
  #place() {
    try {
      fs.linkSync(this.#temporary, this.path);
    } catch (thrown) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (thrown);
      if (code === 'EEXIST' || fs.lstatSync(this.path, { throwIfNoEntry: false })) {
        throw new CompactorError('invalid-argument', `${this.path} already exists`, { cause: thrown });
      }
      // A file system without hard links.
      fs.renameSync(this.#temporary, this.path);
      return true;
    }
    // A second name of the whole image, if it stays: a later run removes it.
    isPermitted(() => fs.unlinkSync(this.#temporary));
    return true;
  }

  /**
   * Success is what can be seen, not what was said.
   *
   * @param {fs.BigIntStats} written
   */
  #checkPlaced(written) {
    const there = this.#doing('looked at', () => fs.lstatSync(this.path, { bigint: true, throwIfNoEntry: false }));
    if (there?.size !== written.size) {
      throw new CompactorError(
        'write-failed',
        `${this.path} is not there, or not whole, after it was put in its place`,
      );
    }
  }

  /**
   * Makes the new name last: who deletes the source next must not lose both if the power fails.
   * Not every system can: Windows does not open folders.
   */
  #syncFolder() {
    /** @type {number | undefined} */
    let fd;
    try {
      fd = fs.openSync(this.#folder, 'r');
      fs.fsyncSync(fd);
    } catch (thrown) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (thrown);
      if (!NOT_SUPPORTED.has(code ?? '')) this.#fail('recorded in its folder', thrown);
    } finally {
      if (fd !== undefined) isPermitted(() => fs.closeSync(/** @type {number} */ (fd)));
    }
  }

  /**
   * @template T
   * @param {string} what
   * @param {() => T} call
   * @returns {T}
   */
  #doing(what, call) {
    try {
      return call();
    } catch (thrown) {
      return this.#fail(what, thrown);
    }
  }

  /**
   * @template T
   * @param {() => T} call
   */
  #look(call) {
    try {
      return call();
    } catch (thrown) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (thrown);
      // A name that is too long, or a way that leads through a file, or in a circle.
      const isName = /^(ENAMETOOLONG|ENOTDIR|ELOOP|EINVAL|ERR_INVALID_ARG_VALUE)$/.test(code ?? '');
      const error = asCompactorError(thrown, isName ? 'invalid-argument' : 'write-failed');
      throw new CompactorError(error.code, `${this.path} cannot be written: ${error.message}`, { cause: thrown });
    }
  }

  /**
   * @param {string} what
   * @param {unknown} thrown
   * @returns {never}
   */
  #fail(what, thrown) {
    if (thrown instanceof CompactorError && thrown.code !== 'read-failed') throw thrown;
    const { code, message } = asCompactorError(thrown, 'write-failed');
    throw new CompactorError(
      code === 'read-failed' ? 'write-failed' : code,
      `${this.path} could not be ${what}: ${message}`,
      { cause: thrown },
    );
  }
}

/** What was written: that it cannot be read is a fault of the output, and not of a source. */
class WrittenFile extends PathSource {
  #output;

  /** @param {string} temporary @param {string} file */
  constructor(temporary, file) {
    super(temporary);
    this.#output = file;
  }

  /** @override @param {Uint8Array} target @param {number} offset */
  readInto(target, offset) {
    try {
      super.readInto(target, offset);
    } catch (thrown) {
      const { message } = /** @type {Error} */ (thrown);
      throw new CompactorError('write-failed', `${this.#output} could not be read back: ${message}`, { cause: thrown });
    }
  }
}

/**
 * The owner of the first source, and what everybody may do with all of them: the new file holds bytes of each.
 *
 * @param {ImageSource[]} sources
 */
function narrowest(sources) {
  const all = sources.flatMap((source) => (source instanceof PathSource ? [source.access] : []));
  return all.length > 0 ? { ...all[0], mode: all.reduce((mode, access) => mode & access.mode, 0o777) } : null;
}

/**
 * By its number, and by its name where a file system numbers files anew at each look.
 *
 * @param {fs.BigIntStats} there
 * @param {string} file
 * @param {PathSource} source
 */
function isSameFile(there, file, { identity, path: other }) {
  if (there.ino === identity.ino && there.dev === identity.dev) return true;
  try {
    return fs.realpathSync(file) === fs.realpathSync(other);
  } catch {
    // The source has another name by now, or none.
    return false;
  }
}

/** @param {() => void} call */
function isPermitted(call) {
  try {
    call();
    return true;
  } catch {
    return false;
  }
}
