/**
 * Writes the new image into the browser's own storage (OPFS), and hands out the one file there to be downloaded:
 * for browsers that hold a whole download in memory when it is composed of many parts.
 *
 * Measured in Firefox ESR 153 (node benches/firefox-download.mjs), 1.2 GB of 512 slices, saved to disk; memory of
 * the parent process at its peak:
 *
 *   one Blob of 512 slices                  11.0 s   1,527 MB   (381 before)
 *   one Blob of 7 slices                     3.0 s     397 MB
 *   a stream through the service worker     15.9 s   1,539 MB   (the same with made-up bytes: it buffers the answer)
 *   one file in OPFS, then a download of it  6.3 s     390 MB
 *
 * Chromium needs none of it: the Blob of 512 slices takes 3.5 s there, and no memory.
 */

import { CompactorError } from '../lib/index.web.js';
import { SavedFile, ofSaved } from '../lib/sources/file.js';
import { readExactly } from '../lib/sources/read.js';
import { differenceOf } from './compare-files.js';

/** @import { ImageSource, Piece, Sink } from '../lib/types.js' */

const STAGE = 'staged';

/** @implements {Sink} */
export class StagedSink {
  kind = 'staged';
  // Each piece is read back as soon as it is written.
  composed = true;
  isSavedFirst = true;
  rates = { write: 200e6, finish: 20e9, verify: 20e9 };
  largestPiece = 16 * 1024 * 1024;
  /** The new image, once it is complete. @type {File | null} */
  blob = null;
  /** @type {FileSystemFileHandle | null} */
  #handle = null;
  /** @type {FileSystemSyncAccessHandle | null} */
  #access = null;
  #size = 0;
  #isProved = false;
  #again = new Uint8Array();

  /**
   * @param {string} name what the file shall be called
   * @param {string} stagedName what it is called in the browser's storage
   */
  constructor(name, stagedName) {
    this.name = name;
    this.stagedName = stagedName;
  }

  /**
   * @param {number} size
   * @param {ImageSource[]} _sources
   * @param {{ verify?: boolean }} [options]
   */
  async begin(size, _sources, { verify = false } = {}) {
    this.#size = size;
    this.#isProved = verify;
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    if (quota - usage < size) {
      throw new CompactorError(
        'out-of-space',
        `this browser lets a page keep ${quota - usage} bytes; ${size} are needed`,
      );
    }
    const folder = await stage();
    this.#handle = await folder.getFileHandle(this.stagedName, { create: true });
    this.#access = await this.#handle.createSyncAccessHandle();
    this.#access.truncate(size);
  }

  /**
   * @param {Piece} piece
   * @param {number} position
   * @param {ImageSource[]} sources
   */
  async write(piece, position, sources) {
    // The file was made at its full length, of zeros.
    if (piece.kind === 'zeros') return;
    const access = this.#open();
    const bytes = piece.kind === 'bytes' ? piece.bytes : bytesOf(piece, sources);
    const taken = access.write(bytes, { at: position });
    if (taken !== bytes.length) {
      // A drive that is full takes what still fits.
      throw new CompactorError(
        'out-of-space',
        `the browser took ${taken} of ${bytes.length} bytes at byte ${position}, most likely for want of room`,
      );
    }
    if (!this.#isProved) return;
    // The source's side anew, too: a read of it that went wrong once would otherwise be written and confirmed.
    this.#readAgain(piece.kind === 'bytes' ? bytes : bytesOf(piece, sources), position);
  }

  async commit() {
    const access = this.#open();
    access.flush();
    access.close();
    this.#access = null;
    const file = await (this.#handle && ofSaved(this.#handle.getFile()));
    if (file?.size !== this.#size) throw new CompactorError('write-failed', `the new file has ${file?.size} bytes`);
    this.blob = file;
  }

  async abort() {
    const access = this.#access;
    this.#access = null;
    this.blob = null;
    try {
      access?.close();
    } finally {
      await (await stage()).removeEntry(this.stagedName).catch(() => {});
    }
  }

  async readBack() {
    return this.blob && new SavedFile(this.blob);
  }

  /**
   * Compares what was just written: the proof then need not read it once more.
   * @param {Uint8Array} bytes what it must be
   * @param {number} position
   */
  #readAgain(bytes, position) {
    if (this.#again.byteLength !== bytes.length) this.#again = new Uint8Array(bytes.length);
    const read = this.#open().read(this.#again, { at: position });
    const at = read === bytes.length ? differenceOf(bytes, this.#again) : read;
    if (at >= 0) {
      throw new CompactorError('differs', 'the browser’s storage does not hold what was written to it', {
        site: { structure: 'new image', space: 'file', offset: position + at },
      });
    }
  }

  #open() {
    if (!this.#access) throw new CompactorError('internal', 'a sink was used before it was begun');
    return this.#access;
  }
}

/**
 * What cannot be read is the source's fault, not that of the place that is written to.
 * @param {Piece & { kind: 'source' }} piece
 * @param {ImageSource[]} sources
 */
function bytesOf({ file, start, end }, sources) {
  const source = sources[file];
  if (!source) throw new CompactorError('internal', `there is no source ${file}`);
  return readExactly(source, start, end - start);
}

/** The folder in the browser's storage. */
const stage = async () => (await navigator.storage.getDirectory()).getDirectoryHandle(STAGE, { create: true });
