/** Every sink passes the same suite. Those of the browser write to doubles of what a browser gives. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { basename } from 'node:path';
import test, { before, mock } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { BytesSource, MemorySink, PathSink, PathSource } from '../../lib/index.node.js';
import { DownloadSink } from '../../lib/sinks/download.js';
import { PickerSink } from '../../lib/sinks/picker.js';
import { StagedSink } from '../../www/staged-sink.js';
import { PickedFile, chosen, install, intercept, ownFiles } from '../support/browser.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { contents, sinkSuite } from '../support/sink-suite.mjs';

const MiB = 1024 * 1024;
const path = scratchFolder({ inMemory: true });
const inMemory = () => contents.map((bytes, i) => new BytesSource(`${i}`, bytes));
const asBlobs = () =>
  contents.map((bytes, i) => ({ ...new BytesSource(`${i}`, bytes), blob: new Blob([bytes]), read: () => bytes }));

install();
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
  const handle = new PickedFile('out.vhd');
  return {
    sink: new PickerSink(/** @type {any} */ (handle)),
    sources: asBlobs(),
    // The page makes the file, empty, before the sink is begun.
    result: async () => (handle.isWritten ? (handle.file?.bytes ?? null) : null),
    remains: () => (handle.open > 0 ? ['a stream that is still open'] : []),
  };
});

sinkSuite('staged', () => {
  const { sink, names } = stagedPlace();
  return {
    sink,
    sources: inMemory(),
    result: async () => sink.blob && new Uint8Array(await sink.blob.arrayBuffer()),
    remains: () => (sink.blob ? [] : names()),
  };
});

/** The browser's own storage, empty, with a sink that writes to it. */
function stagedPlace() {
  ownFiles.clear();
  return { sink: new StagedSink('out.vhd', 'staged-name'), names: () => [...ownFiles.keys()] };
}

/** A picked file of two pieces and a gap, saved; and what is read of the saved file. */
async function pickedAndSaved() {
  const bytes = Uint8Array.from({ length: 40 * MiB + 3 }, (_, i) => (i % 251) + 1);
  const counts = { saved: 0, reads: 0 };
  const source = /** @type {any} */ ({ ...new BytesSource('in', bytes), blob: new Blob([bytes]) });
  const handle = new PickedFile('out.vhd');
  const sink = new PickerSink(/** @type {any} */ (handle));
  const gap = 3583;
  await sink.begin(2 * bytes.length + gap, [source], { verify: true });
  for (const position of [0, bytes.length + gap]) {
    for (let start = 0; start < bytes.length; start += sink.largestPiece) {
      const end = Math.min(bytes.length, start + sink.largestPiece);
      await sink.write({ kind: 'source', file: 0, start, end }, position + start, [source]);
    }
  }
  await sink.commit();
  const compare = async () => {
    /** @type {number[]} */
    const told = [];
    const slice = mock.method(Blob.prototype, 'slice', counted);
    const original = handle.getFile.bind(handle);
    handle.getFile = async () => Object.assign(await original(), { isSaved: true });
    try {
      await sink.compare(async (done) => void told.push(done));
    } finally {
      slice.mock.restore();
    }
    return told;
  };
  const { slice: whole } = Blob.prototype;
  /** @this {Blob} */
  function counted(/** @type {number} */ start, /** @type {number} */ end) {
    if ('isSaved' in this) {
      counts.saved += end - start;
      counts.reads += 1;
    }
    return whole.call(this, start, end);
  }
  return { handle, compare, counts, size: 2 * bytes.length + gap, length: bytes.length };
}

test('picker: what was saved is read back once, in few reads, and is the same', async () => {
  const { handle, compare, counts, size } = await pickedAndSaved();
  const told = await compare();
  assert.equal(told.at(-1), size);
  assert.deepEqual(
    told,
    told.toSorted((a, b) => a - b),
  );
  // What must be zero between two writes, too.
  assert.equal(counts.saved, size);
  assert.ok(counts.reads <= Math.ceil(size / (16 * MiB)) + 4, `${counts.reads} reads of the saved file`);
  assert.ok(handle.writes <= 4, `${handle.writes} writes`);
});

test('picker: one byte that was saved otherwise is found, wherever it is', async () => {
  const { handle, compare, size, length } = await pickedAndSaved();
  const saved = /** @type {Uint8Array} */ (handle.file?.bytes);
  for (const at of [0, 16 * MiB - 1, 16 * MiB, length - 1, length, length + 3582, length + 3583, size - 1]) {
    saved[at] ^= 1;
    await assert.rejects(compare(), (error) => {
      const { code, site } = /** @type {{ code: string, site: { offset: number } }} */ (error);
      return code === 'differs' && site.offset <= at && at < site.offset + 16 * MiB;
    });
    saved[at] ^= 1;
  }
  await compare();
});

test('picker: a saved file that ends early, or late, is found', async () => {
  const { handle, compare, size } = await pickedAndSaved();
  const saved = handle.file?.bytes ?? new Uint8Array();
  handle.file = { of: 'output', bytes: saved.subarray(0, size - 1) };
  await assert.rejects(compare(), { code: 'differs' });
  handle.file = { of: 'output', bytes: Buffer.concat([saved, Buffer.alloc(1)]) };
  await assert.rejects(compare(), { code: 'differs', site: { structure: 'new image', space: 'file', offset: size } });
});

test('picker: what was not to be verified is not called the same', async () => {
  const sink = new PickerSink(/** @type {any} */ (new PickedFile('out.vhd')));
  await sink.begin(0, [], { verify: false });
  await sink.commit();
  await assert.rejects(
    sink.compare(async () => {}),
    { code: 'internal' },
  );
});

/** What comes of a run that the browser does not write. @param {DOMException} refusal @param {Blob} blob */
async function refusedRun(refusal, blob) {
  const handle = new PickedFile('out.vhd');
  const stream = { ...(await handle.createWritable()), write: () => Promise.reject(refusal) };
  handle.createWritable = async () => stream;
  const sink = new PickerSink(/** @type {any} */ (handle));
  const source = /** @type {any} */ ({ ...new BytesSource('in', new Uint8Array()), blob });
  await sink.begin(blob.size, [source], { verify: false });
  await sink.write({ kind: 'source', file: 0, start: 0, end: blob.size }, 0, [source]);
  return sink.commit().then(
    () => assert.fail('it was written'),
    (thrown) => thrown,
  );
}

const cannotBeRead = 'The requested file could not be read';

test('picker: a write that is refused as if the source could not be read, though it can: the place is full', async () => {
  const refusal = new DOMException(cannotBeRead, 'NotReadableError');
  const { code, message, cause } = await refusedRun(refusal, new Blob(['readable']));
  assert.equal(code, 'out-of-space');
  assert.match(message, /stopped writing.*The requested file could not be read/);
  assert.equal(cause, refusal);
});

test('picker: a source that cannot be read is the source’s fault', async () => {
  const refusal = new DOMException(cannotBeRead, 'NotReadableError');
  const restore = intercept((call) => {
    if (call.name === 'read') throw new DOMException('it is gone', 'NotFoundError');
    return call.real(...call.args);
  });
  assert.equal(
    (await refusedRun(refusal, chosen(Uint8Array.of(1, 2), 'gone')).finally(restore)).code,
    'source-changed',
  );
});

test('picker: any other refusal is passed on as it is', async () => {
  const refusal = new DOMException('no', 'QuotaExceededError');
  assert.equal(await refusedRun(refusal, new Blob(['readable'])), refusal);
});

test('picker: a file that the browser will not put in its place was not cancelled by anybody', async () => {
  const refusal = new DOMException('Blocked by Safe Browsing.', 'AbortError');
  const handle = new PickedFile('out.vhd');
  const stream = { ...(await handle.createWritable()), close: () => Promise.reject(refusal) };
  handle.createWritable = async () => stream;
  const sink = new PickerSink(/** @type {any} */ (handle));
  await sink.begin(0, [], { verify: false });
  await assert.rejects(sink.commit(), { code: 'permission-denied', cause: refusal });
});

test('staged: storage that takes a part of what it is given is full, and nothing is left', async () => {
  const { sink, names } = stagedPlace();
  await sink.begin(16, []);
  const restore = intercept(({ args: [bytes], real }) => real(bytes?.subarray(0, 10)));
  const write = sink.write({ kind: 'bytes', bytes: new Uint8Array(16) }, 0, []).finally(restore);
  await assert.rejects(write, (thrown) => {
    const { code, message } = /** @type {{ code: string, message: string }} */ (thrown);
    return code === 'out-of-space' && message.includes('10 of 16 bytes');
  });
  await sink.abort();
  assert.deepEqual(names(), []);
});

test('staged: a source that cannot be read is the source’s fault', async () => {
  const { sink } = stagedPlace();
  const refuse = () => {
    throw new DOMException(cannotBeRead, 'NotReadableError');
  };
  const source = Object.assign(new BytesSource('in', new Uint8Array(16)), { read: refuse });
  await sink.begin(16, [source]);
  await assert.rejects(sink.write({ kind: 'source', file: 0, start: 0, end: 16 }, 0, [source]), {
    code: 'source-changed',
  });
});
