/**
 * Every call to the browser that a compaction in the page makes, failing in every way that it can, by each way of
 * saving. After each the source is what it was, nothing that is not whole has the final name, nothing else is left, the
 * code is the right one, and a second run succeeds.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import test, { before } from 'node:test';
import { BytesSource, compact, verify } from '../../lib/index.node.js';
import { DownloadSink } from '../../lib/sinks/download.js';
import { PickerSink } from '../../lib/sinks/picker.js';
import { FileSource } from '../../lib/sources/file.js';
import { StagedSink } from '../../www/staged-sink.js';
import { PickedFile, chosen, install, intercept, ownFiles } from '../support/browser.mjs';
import { asItIs, failureOf, tryEachFault, writeSmallImage } from '../support/each-fault.mjs';
import { scratchFolder } from '../support/scratch.mjs';

/** @import { CompactorError } from '../../lib/errors.js' */
/** @import { Sink } from '../../lib/types.js' */
/** @import { Call } from '../support/browser.mjs' */
/** @typedef {import('../support/each-fault.mjs').Fault<Call>} Fault */

/**
 * A way of saving: its sink, what has the final name (null where nothing has), and what else is there.
 * @typedef {{ sink: Sink, result: () => Uint8Array | null, remains: () => string[] }} Place
 */

const path = scratchFolder({ inMemory: true });
const KiB = 1024;
let source = new Uint8Array();
/** What it must be, and what it must come to. */
let original = Buffer.alloc(0);
let whole = Buffer.alloc(0);

before(() => {
  writeSmallImage(path('in.vhd'));
  original = fs.readFileSync(path('in.vhd'));
  source = Uint8Array.from(original);
  install();
});

/** @type {Record<string, () => Place>} */
const places = {
  folder: () => {
    const handle = new PickedFile('out.vhd');
    return {
      sink: new PickerSink(/** @type {any} */ (handle)),
      result: () => (handle.file?.bytes.length ? handle.file.bytes : null),
      // Until the sink is begun the file is the page's, which made it.
      remains: () => [
        ...(handle.isBegun && handle.file?.bytes.length === 0 ? ['an empty file'] : []),
        ...(handle.open > 0 ? ['a stream that is still open'] : []),
      ],
    };
  },
  download: () => {
    const sink = new DownloadSink('out.vhd');
    return { sink, result: () => read(sink.blob), remains: () => [] };
  },
  'browser’s storage': () => {
    const sink = new StagedSink('out.vhd', 'staged');
    return { sink, result: () => read(sink.blob), remains: () => (sink.blob ? [] : [...ownFiles.keys()]) };
  },
};

const read = (/** @type {any} */ blob) => /** @type {Uint8Array | null} */ (blob && blob.read());

/** @returns {Fault} */
const fails = (/** @type {string} */ name, /** @type {string[]} */ ...ends) => ({
  what: `fails with ${name}`,
  act: () => {
    throw new DOMException('refused', name);
  },
  ends,
});
/** @returns {Fault} a call that is done, and then fails */
const after = (/** @type {string} */ name, /** @type {string[]} */ ...ends) => ({
  what: `is done and fails with ${name}`,
  act: (call) => {
    asItIs(call);
    throw new DOMException('refused', name);
  },
  ends,
});
const half = (/** @type {Uint8Array} */ bytes) => bytes.subarray(0, bytes.length >> 1);
const turned = (/** @type {Uint8Array} */ bytes) => bytes.map((byte) => byte ^ 0xff);

/** What can go wrong with a call. @returns {Fault[]} */
function faultsOf(/** @type {Call} */ { name, of }) {
  const damaged = ['differs', 'corrupt', 'not-recognised', 'source-changed'];
  switch (name) {
    case 'read': {
      const known = of === 'source' ? ['source-changed'] : ['write-failed', 'differs'];
      const wrong = [...(of === 'source' ? damaged : ['differs', 'write-failed']), 'well'];
      return [
        // Of what is stored twice the other copy serves. What can be read again was not what stopped the browser.
        fails('NotReadableError', ...known, ...(of === 'source' ? ['well', 'differs', 'out-of-space'] : [])),
        fails('NotFoundError', ...known, ...(of === 'source' ? ['well', 'differs', 'write-failed'] : [])),
        { what: 'gives half', act: ({ real }) => half(real()), ends: wrong },
        {
          what: 'gives other bytes',
          act: ({ real }) => turned(real()),
          ends: wrong,
        },
      ];
    }
    case 'write':
      return [
        fails('QuotaExceededError', 'out-of-space'),
        fails('NotAllowedError', 'permission-denied'),
        fails('InvalidStateError', 'write-failed'),
        // The folder is gone, or its drive.
        fails('NotFoundError', 'write-failed'),
        { what: 'writes half and fails', act: torn, ends: ['out-of-space'] },
        {
          what: 'says that it is done, and does nothing',
          act: ({ args: [bytes] }) => bytes?.length,
          ends: ['differs', 'write-failed'],
        },
        {
          what: 'writes other bytes',
          act: ({ real, args: [bytes = new Uint8Array()] }) => real(turned(bytes)),
          ends: ['differs'],
        },
      ];
    case 'close':
      return [
        fails('QuotaExceededError', 'out-of-space'),
        fails('AbortError', 'permission-denied', 'write-failed'),
        fails('InvalidStateError', 'write-failed'),
        after('InvalidStateError', 'write-failed'),
      ];
    case 'flush':
    case 'truncate':
      return [fails('QuotaExceededError', 'out-of-space'), fails('InvalidStateError', 'write-failed')];
    case 'createWritable':
    case 'createSyncAccessHandle':
      return [
        fails('NoModificationAllowedError', 'in-use'),
        fails('NotAllowedError', 'permission-denied'),
        fails('NotFoundError', 'write-failed'),
      ];
    case 'getFileHandle':
    case 'getDirectory':
      return [
        fails('NotAllowedError', 'permission-denied'),
        fails('QuotaExceededError', 'out-of-space'),
        fails('InvalidStateError', 'write-failed'),
      ];
    case 'getFile':
      return [
        fails('NotFoundError', 'write-failed'),
        fails('NotAllowedError', 'permission-denied'),
        fails('NotReadableError', 'write-failed'),
      ];
    default:
      return [fails('InvalidStateError', 'well', 'write-failed')];
  }
}

function torn(/** @type {Call} */ { real, args: [bytes = new Uint8Array()] }) {
  real(half(bytes));
  throw new DOMException('refused', 'QuotaExceededError');
}

/** Runs a compaction in which `act` does what calls do; null where it ended well, or how it failed. */
async function attempt(/** @type {Place} */ { sink }, /** @type {(call: Call) => any} */ act) {
  const restore = intercept(act);
  return failureOf(async () => {
    const { verified } = await (await compact(new FileSource(chosen(source, 'in.vhd')), sink)).result;
    assert.ok(verified);
  }).finally(restore);
}

for (const [way, place] of Object.entries(places)) {
  test(`${way}: each call fails in each way`, async (t) => {
    const first = place();
    /** @type {Call[]} */
    const calls = [];
    assert.equal(await attempt(first, (call) => (calls.push(call), asItIs(call))), null);
    whole = Buffer.from(first.result() ?? []);
    assert.ok(whole.length > 512 * KiB && whole.length < original.length);
    ownFiles.clear();
    let now = place();
    const run = (/** @type {(call: Call) => any} */ act) => {
      ownFiles.clear();
      now = place();
      return attempt(now, act);
    };
    const tried = await tryEachFault(calls, faultsOf, run, ({ call, what, failed }) =>
      judge(`${what}, of the ${call.of}`, now, failed),
    );
    ownFiles.clear();
    t.diagnostic(`${tried} faults in ${calls.length} calls`);
    assert.ok(tried > 10);
    assert.equal(await attempt(place(), asItIs), null, 'a run after all of them');
    ownFiles.clear();
  });
}

/** What is cleared away after a fault may fail, too: then the first fault is told, and whatever can go is gone. */
for (const [way, first, cleanup, left] of /** @type {const} */ ([
  ['folder', 'close', 'abort', ['a stream that is still open']],
  ['folder', 'write', 'abort', ['a stream that is still open']],
  ['folder', 'write', 'remove', ['an empty file']],
  ['browser’s storage', 'write', 'close', []],
  ['browser’s storage', 'write', 'removeEntry', ['staged']],
])) {
  test(`${way}: ${first} fails, and then ${cleanup} does`, async () => {
    let hasFailed = false;
    const place = /** @type {() => Place} */ (places[way]);
    const now = place();
    const failed = await attempt(now, (call) => {
      if (call.of === 'output' && call.name === first && !hasFailed) {
        hasFailed = true;
        throw new DOMException('the first', 'QuotaExceededError');
      }
      if (hasFailed && call.name === cleanup) throw new DOMException('the second', 'InvalidStateError');
      return asItIs(call);
    });
    assert.deepEqual([failed?.code, failed?.message], ['out-of-space', 'the first']);
    assert.deepEqual(now.remains(), left);
    ownFiles.clear();
    assert.equal(await attempt(place(), asItIs), null, 'a second run');
    ownFiles.clear();
  });
}

/** @param {string} what @param {Place} place @param {CompactorError | null} failed */
async function judge(what, { result, remains }, failed) {
  assert.ok(original.equals(source), `${what}: the source was changed`);
  const there = result();
  assert.deepEqual(remains(), [], `${what}: something is left`);
  if (failed) {
    assert.ok(there === null || whole.equals(there), `${what}: what has the name is not whole`);
  } else if (!there || !whole.equals(there)) {
    // A block that was read wrongly once may have been kept, though it is zero: the disk is the same.
    const made = new BytesSource('out.vhd', there ?? new Uint8Array());
    const { verification } = await (
      await verify(new BytesSource('in.vhd', source), made)
    ).result.catch((error) => assert.fail(`${what}: ${error.message}`));
    assert.equal(verification.skippedFreeBytes, 0, `${what}: the result is another`);
  }
}
