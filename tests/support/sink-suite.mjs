/** What every sink must do, whatever it writes to: one suite for all of them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { CompactorError } from '../../lib/errors.js';

/**
 * @import { ImageSource, Opened, Piece, Sink } from '../../lib/types.js'
 * @typedef {object} Place where a sink writes to
 * @property {Sink} sink
 * @property {ImageSource[]} sources that the sink can take pieces of
 * @property {() => Promise<Uint8Array | null>} result what is there under the final name; null where nothing is
 * @property {() => string[]} remains what is there besides
 */

const MiB = 1024 * 1024;
/** What the sources hold. */
export const contents = [pattern(3 * MiB, 3), pattern(2 * MiB + 5, 11)];

/** Pieces of every kind and of awkward lengths, and what they come to. @type {Piece[]} */
const pieces = [
  { kind: 'bytes', bytes: pattern(513, 5) },
  { kind: 'zeros', length: 3583 },
  { kind: 'source', file: 0, start: 1, end: MiB + 7 },
  { kind: 'source', file: 1, start: 0, end: 2 * MiB + 5 },
  { kind: 'zeros', length: 2 * MiB + 1 },
  { kind: 'bytes', bytes: new Uint8Array(70_000) },
  { kind: 'source', file: 0, start: 3 * MiB - 1, end: 3 * MiB },
  { kind: 'bytes', bytes: Uint8Array.of(9) },
  { kind: 'zeros', length: 100_001 },
];
const whole = Buffer.concat(pieces.map(bytesOf));

/** @param {string} name @param {() => Place} place a new one for each test */
export function sinkSuite(name, place) {
  test(`${name}: what is written is what the pieces say, before and after it gets its name`, async () => {
    const { sink, sources, result, remains } = place();
    await sink.begin(whole.length, sources);
    await writeAll(sink, sources, pieces);
    assert.equal(await result(), null, 'it appears only when it is complete');
    const readsBack = async () => {
      const written = await sink.readBack();
      assert.ok(written && whole.equals(await bytesIn(written)));
      written.close?.();
    };
    if (!sink.isSavedFirst) await readsBack();
    await sink.commit();
    assert.ok(whole.equals((await result()) ?? Buffer.of()));
    if (sink.isSavedFirst) await readsBack();
    assert.deepEqual(remains(), []);
  });

  test(`${name}: an image of nothing but zeros, and one of no bytes`, async () => {
    for (const length of [MiB + 3, 0]) {
      const { sink, sources, result } = place();
      await sink.begin(length, sources);
      if (length) await sink.write({ kind: 'zeros', length }, 0, sources);
      await sink.commit();
      assert.ok(Buffer.alloc(length).equals((await result()) ?? Buffer.of(1)));
    }
  });

  test(`${name}: nothing is left of what is given up, whenever that is`, async () => {
    for (let given = -1; given <= pieces.length; given += 1) {
      const { sink, sources, result, remains } = place();
      if (given >= 0) await sink.begin(whole.length, sources);
      if (given > 0) await writeAll(sink, sources, pieces.slice(0, given));
      if (given === pieces.length) (await sink.readBack())?.close?.();
      await sink.abort();
      assert.deepEqual([await result(), remains()], [null, []], `after ${given} pieces`);
      await sink.abort();
    }
  });

  test(`${name}: what has its name already goes, too, when the job fails after all`, async () => {
    const { sink, sources, result, remains } = place();
    await sink.begin(whole.length, sources);
    await writeAll(sink, sources, pieces);
    await sink.commit();
    await sink.abort();
    assert.deepEqual([await result(), remains()], [null, []]);
  });

  test(`${name}: before it is begun it takes nothing`, async () => {
    const { sink, sources, result } = place();
    if (sink.kind === 'memory' || sink.kind === 'download') return;
    await assert.rejects(
      (async () => sink.write({ kind: 'bytes', bytes: Uint8Array.of(1) }, 0, sources))(),
      CompactorError,
    );
    await assert.rejects((async () => sink.commit())(), CompactorError);
    assert.equal(await result(), null);
  });
}

/** @param {Sink} sink @param {ImageSource[]} sources @param {Piece[]} some */
async function writeAll(sink, sources, some) {
  let position = 0;
  for (const piece of some) {
    await sink.write(piece, position, sources);
    position += bytesOf(piece).length;
  }
}

/** @param {Piece} piece @returns {Uint8Array} */
function bytesOf(piece) {
  if (piece.kind === 'zeros') return new Uint8Array(piece.length);
  return piece.kind === 'bytes' ? piece.bytes : contents[piece.file].subarray(piece.start, piece.end);
}

/** @param {ImageSource} source */
async function bytesIn(source) {
  return source.blob ? new Uint8Array(await source.blob.arrayBuffer()) : source.read(0, source.size);
}

/** Bytes that repeat late enough for a shift to show. @param {number} length @param {number} step */
function pattern(length, step) {
  return Uint8Array.from({ length }, (_, i) => (i * step + (i >> 8)) & 0xff);
}
