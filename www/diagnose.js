/**
 * Why a file was refused, as far as the file itself tells: whether it is still there, and what its first
 * and last bytes look like. The engine says what is wrong with an image; this says what a thing is that is
 * no image, or no longer one.
 */

/** @import { EngineError } from './bridge.js' */

/**
 * @typedef {object} Cause
 * @property {'gone' | 'empty' | 'text' | 'packed' | 'other-image' | 'unfinished' | 'no-footer'} cause
 * @property {string} what the kind of file, where that is known
 */

const HEAD_BYTES = 4096;
const SECTOR = 512;
/** Codes that a file which is gone may be told by: engines of browsers do not agree. */
const READING = new Set(['read-failed', 'source-changed', 'permission-denied']);

/** How other kinds of files begin. @type {[Cause['cause'], string, number, string][]} */
const SIGNATURES = [
  ['other-image', 'VMDK', 0, 'KDMV'],
  ['other-image', 'VMDK', 0, 'COWD'],
  ['other-image', 'VMDK', 0, '# Disk DescriptorFile'],
  ['other-image', 'VDI', 64, '\x7f\x10\xda\xbe'],
  ['other-image', 'QCOW2', 0, 'QFI\xfb'],
  ['other-image', 'Parallels', 0, 'WithoutFreeSpace'],
  ['other-image', 'WIM', 0, 'MSWIM\0'],
  ['packed', 'ZIP', 0, 'PK\x03\x04'],
  ['packed', '7z', 0, "7z\xbc\xaf'\x1c"],
  ['packed', 'RAR', 0, 'Rar!\x1a\x07'],
  ['packed', 'gzip', 0, '\x1f\x8b'],
  ['packed', 'xz', 0, '\xfd7zXZ\0'],
  ['packed', 'zstd', 0, '\x28\xb5\x2f\xfd'],
  ['packed', 'bzip2', 0, 'BZh'],
  ['packed', 'tar', 257, 'ustar'],
];

/**
 * @param {EngineError} error
 * @param {File[]} files the image, then its parents
 * @returns {Promise<Cause | null>}
 */
export async function diagnose(error, files) {
  if (READING.has(error.code)) return (await anyGone(files)) ? { cause: 'gone', what: '' } : null;
  const [file] = files;
  if (!file || !['not-recognised', 'corrupt'].includes(error.code)) return null;
  if (file.size === 0) return { cause: 'empty', what: '' };
  try {
    const head = await bytesOf(file, 0, HEAD_BYTES);
    const tail = await bytesOf(file, Math.max(0, file.size - SECTOR), file.size);
    return error.code === 'corrupt' ? whyDamaged(error.message) : whatItIs(file.name, head, tail);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {Uint8Array} head
 * @param {Uint8Array} tail
 * @returns {Cause | null}
 */
export function whatItIs(name, head, tail) {
  for (const [cause, what, at, magic] of SIGNATURES) {
    if (startsWith(head.subarray(at), magic)) return { cause, what };
  }
  if (isText(head)) return { cause: 'text', what: '' };
  const isBootSector = head[510] === 0x55 && head[511] === 0xaa;
  if (/\.vhd$/i.test(name) && isBootSector && !startsWith(tail, 'conectix')) return { cause: 'no-footer', what: '' };
  return null;
}

/**
 * @param {string} message the engine's
 * @returns {Cause | null}
 */
const whyDamaged = (message) =>
  /cut off|past the end of the file/.test(message) ? { cause: 'unfinished', what: '' } : null;

/** @param {File[]} files */
async function anyGone(files) {
  const gone = await Promise.all(
    files.map((file) =>
      bytesOf(file, 0, 1).then(
        () => false,
        (/** @type {DOMException} */ { name }) => name === 'NotFoundError',
      ),
    ),
  );
  return gone.includes(true);
}

/**
 * @param {Blob} file
 * @param {number} start
 * @param {number} end
 */
const bytesOf = async (file, start, end) => new Uint8Array(await file.slice(start, end).arrayBuffer());

/**
 * @param {Uint8Array} bytes
 * @param {string} magic one character a byte
 */
const startsWith = (bytes, magic) => [...magic].every((character, at) => bytes[at] === character.charCodeAt(0));

/**
 * Whether these bytes are UTF-8 or UTF-16 text with nothing in it that no editor writes.
 * @param {Uint8Array} bytes
 */
function isText(bytes) {
  const isWide = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  if (isWide) return true;
  try {
    // As a stream: the last character may be cut in two.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
    // eslint-disable-next-line no-control-regex -- control characters are what tells data from text
    return text.length > 0 && !/[\0-\x08\x0e-\x1a\x1c-\x1f]/.test(text);
  } catch {
    return false;
  }
}
