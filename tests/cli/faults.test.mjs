/**
 * Every call to the file system that a compaction makes, failing in every way that it can: by itself, in half, late,
 * without a word, or with the process killed. After each the source is what it was, nothing that is not whole has the
 * final name, nothing else is left, the code is the right one, and a second run succeeds.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import test, { before, mock } from 'node:test';
import { BytesSource, CompactorError, MemorySink, PathSink, compact, verify } from '../../lib/index.node.js';
import { asCompactorError } from '../../lib/errors.js';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { command } from '../support/command.mjs';
import { asItIs, failureOf, tryEachFault, writeSmallImage } from '../support/each-fault.mjs';
import { intercept, systemError } from '../support/faults.mjs';
import { scratchFolder } from '../support/scratch.mjs';

/** @import { Call } from '../support/faults.mjs' */
/** @typedef {import('../support/each-fault.mjs').Fault<Call>} Fault */

const path = scratchFolder({ inMemory: true });
const KiB = 1024;
const [image, output] = [path('in.vhd'), path('out.vhd')];
/** The source and the result, as they must be. */
let source = Buffer.alloc(0);
let whole = Buffer.alloc(0);

before(async () => {
  writeSmallImage(image);
  source = fs.readFileSync(image);
  await (
    await compact(image, output)
  ).result;
  whole = fs.readFileSync(output);
  fs.rmSync(output);
});

/** @returns {Fault} */
const fails = (/** @type {string} */ code, /** @type {Fault['ends']} */ ends) => ({
  what: `fails with ${code}`,
  act: () => {
    throw systemError(code);
  },
  ends,
});
/** @returns {Fault} */
const says = (/** @type {any} */ answer, /** @type {Fault['ends']} */ ends) => ({
  what: `says ${answer} and does nothing`,
  act: () => answer,
  ends,
});

/** Once in half, then with an error or well. */
const half = (/** @type {Call} */ { args: [fd, bytes, from, length, position], real }) =>
  real(fd, bytes, from, length > 1 ? length >> 1 : length, position);

const isOutput = (/** @type {Call} */ { path: file }) => file.includes('out.vhd');
const differs = ['write-failed', 'differs', 'corrupt', 'not-recognised'];

/** What can go wrong with a call. @returns {Fault[]} */
function faultsOf(/** @type {Call} */ call) {
  const ours = isOutput(call);
  const failed = [ours ? 'write-failed' : 'read-failed'];
  const denied = ['permission-denied'];
  switch (call.name) {
    case 'read':
      return [
        // Where another copy serves it ends well; a volume that cannot be read once, and then can, is another.
        fails('EIO', ['well', 'differs', ...failed]),
        fails('EINTR', 'well'),
        { what: 'gives half', act: half, ends: 'well' },
        says(0, ['well', ...(ours ? differs : ['differs', 'source-changed'])]),
        // Of what is stored twice the other copy serves.
        { what: 'gives other bytes', act: corrupted, ends: ['well', ...differs] },
      ];
    case 'write':
      return [
        fails('EIO', failed),
        fails('ENOSPC', ['out-of-space']),
        fails('EDQUOT', ['out-of-space']),
        { what: 'writes half', act: half, ends: 'well' },
        { what: 'writes half and fails', act: torn, ends: ['out-of-space'] },
        says(0, failed),
        { what: 'says that it is done, and does nothing', act: ({ args }) => args[3], ends: differs },
        { what: 'writes other bytes', act: corrupted, ends: differs },
      ];
    case 'open':
      // The folder, to sync it: where that is refused it cannot be had.
      if (call.path === path()) return [fails('EIO', ['write-failed']), fails('EACCES', 'well')];
      return [fails('EIO', failed), fails('EACCES', denied), fails('EBUSY', ['in-use']), fails('EMFILE', failed)];
    case 'fdatasync':
    case 'fsync':
      if (call.path === path()) return [fails('EIO', ['write-failed']), fails('EINVAL', 'well')];
      return [fails('EIO', failed), fails('ENOSPC', ['out-of-space']), fails('EDQUOT', ['out-of-space'])];
    case 'ftruncate':
      return [fails('EIO', failed), fails('ENOSPC', ['out-of-space']), fails('EFBIG', ['out-of-space'])];
    case 'close':
      return call.isWritten ? [after('EIO', failed), after('ENOSPC', ['out-of-space'])] : [after('EIO', 'well')];
    case 'link':
      return [
        fails('EPERM', 'well'),
        fails('EIO', 'well'),
        fails('EEXIST', ['invalid-argument']),
        says(undefined, ['write-failed']),
      ];
    case 'rename':
      return [
        fails('EIO', failed),
        fails('EACCES', denied),
        fails('ENOSPC', ['out-of-space']),
        fails('EBUSY', ['in-use']),
        says(undefined, ['write-failed']),
      ];
    case 'unlink':
    case 'readdir':
    case 'realpath':
    case 'statfs':
    case 'fchown':
    case 'fchmod':
      return [fails('EIO', 'well'), fails('EPERM', 'well'), fails('ENOSYS', 'well')];
    case 'access':
      return [fails('EACCES', denied), fails('EROFS', denied)];
    default:
      return [fails('EIO', [...failed, 'write-failed']), fails('EACCES', denied)];
  }
}

/** @returns {Fault} a call that is done, and then fails */
const after = (/** @type {string} */ code, /** @type {Fault['ends']} */ ends) => ({
  what: `is done and fails with ${code}`,
  act: ({ args, real }) => {
    real(...args);
    throw systemError(code);
  },
  ends,
});

function torn(/** @type {Call} */ call) {
  half(call);
  throw systemError('ENOSPC');
}

/** Reads or writes with every bit turned. */
function corrupted(/** @type {Call} */ { name, args: [fd, bytes, from, length, position], real }) {
  if (name === 'write') {
    const turned = Buffer.from(bytes.subarray(from, from + length)).map((byte) => ~byte);
    return real(fd, turned, 0, length, position);
  }
  const n = real(fd, bytes, from, length, position);
  for (let i = from; i < from + n; i += 1) bytes[i] = ~bytes[i];
  return n;
}

/** Runs a compaction in which `act` does what calls do; null where it ended well, or how it failed. */
async function attempt(/** @type {(call: Call) => any} */ act, /** @type {boolean} */ force) {
  const restore = intercept(path(), act);
  return failureOf(async () => (await compact(image, new PathSink(output, { force }))).result).finally(restore);
}

/** The calls of a run in which nothing goes wrong. */
async function callsOf(/** @type {boolean} */ force) {
  /** @type {Call[]} */
  const calls = [];
  const failed = await attempt((call) => {
    calls.push({ ...call, path: call.path });
    return asItIs(call);
  }, force);
  assert.equal(failed, null);
  return calls;
}

const leftovers = () => fs.readdirSync(path()).filter((name) => name !== 'in.vhd' && name !== 'out.vhd');

/** A file that was left is as one that a killed process left: it is known, and the next run takes it away. */
function asOfTheDead() {
  const gone = spawnSync(process.execPath, ['-e', '']).pid;
  for (const name of leftovers()) {
    assert.match(name, /^\.out\.vhd\..*\.vhd-compactor\.tmp$/);
    fs.renameSync(path(name), path(name.replace(`-${process.pid}-`, `-${gone}-`)));
  }
}

/** @param {string} what @param {CompactorError | null} failed @param {Buffer | null} old what was there before @param {boolean} isFirst */
async function judge(what, failed, old, isFirst) {
  assert.ok(fs.readFileSync(image).equals(source), `${what}: the source was changed`);
  if (failed) {
    const there = fs.existsSync(output) ? fs.readFileSync(output) : null;
    assert.ok(old && there ? there.equals(old) || there.equals(whole) : there === old, `${what}: what has the name`);
  } else if (!fs.readFileSync(output).equals(whole)) {
    // A block that was read wrongly once may have been kept, though it is zero: the disk is the same.
    const { verified, verification } = await (await verify(image, output)).result;
    assert.ok(verified && verification.skippedFreeBytes === 0, `${what}: the result is another`);
  }
  // Where the folder is as it was, the next run is the first.
  if (leftovers().length === 0 && !isFirst) return;
  asOfTheDead();
  const again = await (await compact(image, new PathSink(output, { force: true }))).result;
  assert.ok(again.verified && fs.readFileSync(output).equals(whole), `${what}: a second run fails`);
  assert.deepEqual(leftovers(), [], `${what}: something is left`);
}

for (const force of [false, true]) {
  test(`each call fails in each way, ${force ? 'over a file that is there' : 'where nothing is'}`, async (t) => {
    const old = force ? Buffer.from('an old file') : null;
    const reset = () => (old ? fs.writeFileSync(output, old) : fs.rmSync(output, { force: true }));
    reset();
    const calls = await callsOf(force);
    const run = (/** @type {(call: Call) => any} */ act) => {
      reset();
      return attempt(act, force);
    };
    const tried = await tryEachFault(calls, faultsOf, run, async ({ call, kind, what, failed }) => {
      if (call.name !== 'unlink') assert.deepEqual(leftovers(), [], `${what}: something is left`);
      await judge(what, failed, old, kind === 0);
    });
    t.diagnostic(`${tried} faults in ${calls.length} calls`);
    assert.ok(tried > 100);
  });
}

test('what cannot even be removed is removed by the next run', async () => {
  fs.rmSync(output, { force: true });
  const failed = await attempt((call) => {
    if (call.name === 'fsync' || call.name === 'rm') throw systemError('EIO');
    return call.real(...call.args);
  }, false);
  // The first fault is told, not the second.
  assert.match(failed?.message ?? '', /written to the disk/);
  assert.equal(leftovers().length, 1);
  await judge('a failure that leaves something', failed, null, true);
});

test('killed before each call, and in the middle of each write', async (t) => {
  fs.rmSync(output, { force: true });
  const calls = (await callsOf(false)).filter(({ name }) => name !== 'close');
  fs.rmSync(output);
  const moments = calls.flatMap(({ number, name }) =>
    name === 'write' ? [`${number}`, `${number} torn`] : [`${number}`],
  );
  for (const moment of moments) {
    fs.rmSync(output, { force: true });
    const { signal } = spawnSync(
      process.execPath,
      ['--import', inRoot('tests/support/killed.mjs'), command, 'compact', image, output],
      { env: { ...process.env, KILLED_IN: path(), KILLED_AT: moment } },
    );
    assert.equal(signal, 'SIGKILL', `call ${moment}`);
    assert.ok(fs.readFileSync(image).equals(source), `call ${moment}: the source was changed`);
    if (fs.existsSync(output)) assert.ok(fs.readFileSync(output).equals(whole), `call ${moment}: what has the name`);
    const again = await (await compact(image, new PathSink(output, { force: true }))).result;
    assert.ok(again.verified && fs.readFileSync(output).equals(whole), `call ${moment}: a second run fails`);
    assert.deepEqual(leftovers(), [], `call ${moment}: something is left`);
  }
  t.diagnostic(`killed ${moments.length} times`);
});

test('the disk is full after any number of bytes', { skip: withoutMounts() }, async (t) => {
  const small = path('small-disk');
  let filled = 0;
  fs.mkdirSync(small);
  // What is not zero is written: this much, and the folder.
  for (let room = 64 * KiB; ; room += 64 * KiB) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${room}`, 'tmpfs', small]);
    const untold = mock.method(fs, 'statfsSync', () => ({ blocks: 0 }));
    try {
      const target = join(small, 'out.vhd');
      const ended = await (await compact(image, target)).result.catch((error) => error);
      if (!(ended instanceof CompactorError)) {
        assert.ok(fs.readFileSync(target).equals(whole));
        break;
      }
      filled += 1;
      assert.equal(ended.code, 'out-of-space', `${room} bytes: ${ended.message}`);
      assert.deepEqual(fs.readdirSync(small), [], `${room} bytes`);
    } finally {
      untold.mock.restore();
      execFileSync('umount', [small]);
    }
  }
  assert.ok(fs.readFileSync(image).equals(source));
  fs.rmdirSync(small);
  t.diagnostic(`${filled} sizes of disk that are too small`);
  assert.ok(filled > 3);
});

/** What can happen to the source at any moment, and how that must end. @type {[what: string, act: () => void, code: string | null][]} */
const meanwhile = [
  ['grows', () => fs.appendFileSync(image, 'more'), 'source-changed'],
  ['shrinks', () => fs.truncateSync(image, 4096), 'source-changed'],
  ['is written', () => overwrite(image, 'DATA'), 'source-changed'],
  ['is removed', () => fs.rmSync(image), null],
  ['is replaced', () => replace(image, 'another'), null],
];

for (const [what, act, code] of meanwhile) {
  test(`the source ${what} at any moment`, async (t) => {
    let moments = 0;
    for (let at = 0; ; at += 1) {
      fs.rmSync(output, { force: true });
      fs.rmSync(image, { force: true });
      fs.writeFileSync(image, source);
      let passed = 0;
      let isOpen = false;
      let acted = false;
      const failed = await attempt((call) => {
        // Once it is open, and before the last look at it.
        if (isOpen && passed++ === at) {
          act();
          acted = true;
        }
        const result = call.real(...call.args);
        isOpen ||= call.name === 'fstat' && call.path === image;
        return result;
      }, false);
      if (!acted) break;
      moments += 1;
      if (failed) assert.equal(failed.code, code, `moment ${at}: ${failed.message}`);
      else if (code !== null) assert.ok(passed - at < 20, `moment ${at}: it went unnoticed`);
      if (fs.existsSync(output)) assert.ok(fs.readFileSync(output).equals(whole), `moment ${at}: what has the name`);
      assert.deepEqual(leftovers(), [], `moment ${at}: something is left`);
    }
    fs.rmSync(image, { force: true });
    fs.writeFileSync(image, source);
    t.diagnostic(`${moments} moments`);
  });
}

test('memory: each read of a source fails in each way', async (t) => {
  /** @type {[string, (bytes: Uint8Array) => Uint8Array, string[]][]} */
  const ways = [
    ['throws', () => assert.fail('a fault of the source itself'), ['read-failed', 'differs']],
    [
      'throws what the library knows',
      () => fail(new CompactorError('source-changed', 'gone')),
      ['source-changed', 'differs'],
    ],
    ['gives too little', (bytes) => bytes.subarray(1), ['source-changed', 'differs']],
    ['gives other bytes', (bytes) => bytes.map((byte) => ~byte), differs],
  ];
  let tried = 0;
  for (const [what, way, codes] of ways) {
    for (let at = 0; ; at += 1) {
      let reads = 0;
      const bytes = new BytesSource('in.vhd', source);
      const read = bytes.read.bind(bytes);
      bytes.read = (offset, length) => (reads++ === at ? way(read(offset, length)) : read(offset, length));
      const sink = new MemorySink();
      /** @type {unknown} */
      let failed = null;
      try {
        await (
          await compact(bytes, sink)
        ).result;
      } catch (thrown) {
        failed = thrown;
      }
      if (reads <= at) break;
      tried += 1;
      assert.ok(failed === null || failed instanceof CompactorError, `read ${at} ${what}: ${failed}`);
      if (failed) {
        assert.ok(codes.includes(failed.code), `read ${at} ${what}: ${failed.code}, ${failed.message}`);
        assert.equal(sink.bytes, null);
      } else {
        const { verified } = await (await verify(image, new BytesSource('out.vhd', sink.bytes ?? whole))).result;
        assert.ok(verified);
      }
    }
  }
  t.diagnostic(`${tried} faults`);
});

test('memory: what is larger than memory says so', async () => {
  const sink = new MemorySink();
  await assert.rejects(
    sink.begin(2 ** 52).catch((thrown) => fail(asCompactorError(thrown, 'write-failed'))),
    {
      code: 'out-of-memory',
    },
  );
});

/** @returns {never} */
function fail(/** @type {unknown} */ error) {
  throw error;
}

function overwrite(/** @type {string} */ file, /** @type {string} */ text) {
  const fd = fs.openSync(file, 'r+');
  fs.writeSync(fd, text, 600 * KiB);
  fs.closeSync(fd);
  fs.utimesSync(file, 1e9, 1e9);
}

function replace(/** @type {string} */ file, /** @type {string} */ text) {
  fs.writeFileSync(`${file}.new`, text);
  fs.renameSync(`${file}.new`, file);
}

function withoutMounts() {
  return (process.platform !== 'linux' || process.getuid?.() !== 0) && 'only root can mount a small disk';
}
