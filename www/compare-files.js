/** Whether a file that the browser saved holds, byte for byte, what was made. In a worker. */

/** @import { FileDifference } from './types.js' */

/** Few calls: each costs a round trip to the browser's process. */
const RUN = 16 * 1024 * 1024;
const WORD = 4;

/**
 * @param {Blob} made
 * @param {Blob} saved
 * @param {(done: number, total: number) => void} tell
 * @returns {Promise<FileDifference>}
 */
export async function compareFiles(made, saved, tell) {
  if (made.size !== saved.size) return { differs: 'size' };
  for (let start = 0; start < made.size; start += RUN) {
    const end = Math.min(made.size, start + RUN);
    tell(start, made.size);
    const [one, other] = await Promise.all([
      made.slice(start, end).arrayBuffer(),
      saved.slice(start, end).arrayBuffer(),
    ]);
    const at = firstDifference(one, other);
    if (at >= 0) return { differs: 'bytes', at: start + at };
  }
  return { differs: 'none' };
}

/**
 * @param {ArrayBuffer} one
 * @param {ArrayBuffer} other of the same length
 */
export const firstDifference = (one, other) => differenceOf(new Uint8Array(one), new Uint8Array(other));

/**
 * Where two runs of bytes first differ, or -1.
 * @param {Uint8Array} one
 * @param {Uint8Array} other of the same length
 */
export function differenceOf(one, other) {
  // Word by word where both lie on words, which nearly all do.
  const isAligned = one.byteOffset % WORD === 0 && other.byteOffset % WORD === 0;
  const words = isAligned ? Math.floor(one.length / WORD) : 0;
  const left = new Int32Array(one.buffer, isAligned ? one.byteOffset : 0, words);
  const right = new Int32Array(other.buffer, isAligned ? other.byteOffset : 0, words);
  let same = 0;
  while (same < words && left[same] === right[same]) same += 1;
  for (let at = same * WORD; at < one.length; at++) if (one[at] !== other[at]) return at;
  return -1;
}
