/** Every sink passes the same suite. Those of the browser write to doubles of what a browser gives. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { basename } from 'node:path';
import test, { before, mock } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { BytesSource, MemorySink, PathSink, PathSource } from '../../lib/index.node.js';
import { DownloadSink } from '../../lib/sinks/download.js';
import { PickerSink } from '../../lib/sinks/picker.js';
import { scratchFolder } from '../support/scratch.mjs';
import { contents, sinkSuite } from '../support/sink-suite.mjs';

const MiB = 1024 * 1024;
const path = scratchFolder({ inMemory: true });
const inMemory = () => contents.map((bytes, i) => new BytesSource(`${i}`, bytes));
const asBlobs = () =>
  contents.map((bytes, i) => ({ ...new BytesSource(`${i}`, bytes), blob: new Blob([bytes]), read: () => bytes }));

before(() => contents.forEach((bytes, i) => fs.writeFileSync(path(`source-${i}`), bytes)));

sinkSuite('memory', () => {
  const sink = new MemorySink();
  return { sink, sources: inMemory(), result: async () => sink.bytes, remains: () => [] };
});

let folders = 0;
/** @param {{ force: boolean }} options */
const pathPlace = (options) => () => {
  const folder = path(`out-${(folders += 1)}`);
  fs.mkdirSync(folder);
  const file = `${folder}/out.vhd`;
  return {
    sink: new PathSink(file, options),
    sources: contents.map((_, i) => new PathSource(path(`source-${i}`))),
    result: async () => (fs.existsSync(file) ? fs.readFileSync(file) : null),
    remains: () => fs.readdirSync(folder).filter((name) => name !== basename(file)),
  };
};
sinkSuite('path', pathPlace({ force: false }));
sinkSuite('path with force', pathPlace({ force: true }));

test('path with force: an old file stays until the new one is complete, and when it fails', async () => {
  const { sink, sources, result } = pathPlace({ force: true })();
  const { path: file } = /** @type {PathSink} */ (sink);
  fs.writeFileSync(file, 'old');
  await sink.begin(4, sources);
  await sink.write({ kind: 'bytes', bytes: Buffer.from('new!') }, 0, sources);
  assert.equal(`${await result()}`, 'old');
  await sink.abort();
  assert.equal(`${await result()}`, 'old');
});

for (const verify of [true, false]) {
  test(`path: many runs with gaps of every length, ${verify ? 'read back' : 'not read back'}`, async () => {
    const bytes = Buffer.from(Uint8Array.from({ length: 9 * MiB + 1 }, (_, i) => (i % 251) + 1));
    const source = new BytesSource('in', bytes);
    const gaps = [0, 1, 64 * 1024, 64 * 1024 + 1, 8 * MiB - 5, 8 * MiB, 20 * MiB + 3];
    const { sink, result } = pathPlace({ force: false })();
    const size = gaps.reduce((sum, gap) => sum + gap + bytes.length, 0);
    await sink.begin(size, [source], { verify });
    let position = 0;
    for (const gap of gaps) {
      await sink.write({ kind: 'source', file: 0, start: 0, end: bytes.length }, position, [source]);
      position += bytes.length + gap;
    }
    await sink.commit();
    const written = (await result()) ?? Buffer.of();
    assert.equal(written.length, size);
    position = 0;
    for (const gap of gaps) {
      const end = position + bytes.length;
      assert.ok(bytes.equals(written.subarray(position, end)), `before a gap of ${gap}`);
      assert.ok(
        written.subarray(end, end + gap).every((byte) => byte === 0),
        `in a gap of ${gap}`,
      );
      position = end + gap;
    }
  });
}

test('path: however long the file, the buffers are few', async () => {
  const bytes = Buffer.alloc(8 * MiB, 7);
  const source = new BytesSource('in', bytes);
  const { sink } = pathPlace({ force: false })();
  const made = mock.method(Buffer, 'allocUnsafeSlow');
  const pieces = 24;
  await sink.begin(pieces * bytes.length, [source], { verify: true });
  for (let i = 0; i < pieces; i += 1) {
    await sink.write({ kind: 'source', file: 0, start: 0, end: bytes.length }, i * bytes.length, [source]);
    // At first the disk is the faster, later not.
    if (i < pieces / 2) await delay(50);
  }
  await sink.commit();
  const count = made.mock.callCount();
  made.mock.restore();
  await sink.abort();
  assert.ok(count <= 4, `${count} buffers`);
});

sinkSuite('download', () => {
  const sink = new DownloadSink('out.vhd');
  return {
    sink,
    sources: asBlobs(),
    result: async () => sink.blob && new Uint8Array(await sink.blob.arrayBuffer()),
    remains: () => [],
  };
});

sinkSuite('picker', () => {
  const handle = new FileHandle('out.vhd');
  return {
    sink: new PickerSink(/** @type {any} */ (handle)),
    sources: asBlobs(),
    // The page makes the file, empty, before the sink is begun.
    result: async () => (handle.isWritten ? handle.bytes : null),
    remains: () => (handle.open > 0 ? ['a stream that is still open'] : []),
  };
});

/** A file of a picked folder: what is written shows when the stream is closed. */
class FileHandle {
  kind = 'file';
  open = 0;
  isWritten = false;
  /** @type {Uint8Array | null} */
  bytes = new Uint8Array();

  constructor(/** @type {string} */ name) {
    this.name = name;
  }

  async getFile() {
    if (!this.bytes) throw new DOMException('it was removed', 'NotFoundError');
    return new File([Uint8Array.from(this.bytes)], this.name);
  }

  async createWritable() {
    let aside = Buffer.alloc(0);
    this.open += 1;
    const end = () => {
      this.open -= 1;
    };
    return {
      write: async (/** @type {{ position: number, data: Blob | Uint8Array<ArrayBuffer> }} */ { position, data }) => {
        const bytes = new Uint8Array(await new Blob([data]).arrayBuffer());
        if (aside.length < position) aside = Buffer.concat([aside], position);
        aside = Buffer.concat([aside.subarray(0, position), bytes, aside.subarray(position + bytes.length)]);
      },
      truncate: async (/** @type {number} */ length) => {
        aside = Buffer.concat([aside], length);
      },
      close: async () => {
        this.bytes = Uint8Array.from(aside);
        this.isWritten = true;
        end();
      },
      abort: async () => end(),
    };
  }

  async remove() {
    this.bytes = null;
  }
}
