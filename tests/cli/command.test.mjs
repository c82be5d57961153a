/** The command from outside: what it prints, what it writes, how it ends. */
import assert from 'node:assert/strict';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';
import test, { before } from 'node:test';
import { asJson, vhdCompactor } from '../support/command.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { writeDynamicVhd, writeFixedVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const small = path('small.vhd');
const dense = path('dense.vhd');
const MiB = 1024 * 1024;

before(() => {
  const data = Buffer.from('data');
  // Blocks 1 and 3 are stored and all zero.
  writeDynamicVhd(small, { size: 20 * MiB, blocks: { 0: data, 1: Buffer.alloc(0), 3: Buffer.alloc(0), 7: data } });
  writeDynamicVhd(dense, { size: 4 * MiB, blocks: { 1: data } });
});

test('inspect as text', () => {
  const { status, stdout, stderr } = vhdCompactor(['inspect', small]);
  assert.equal(status, 0);
  assert.equal(stderr, '');
  assert.match(stdout, /^small\.vhd$/m);
  assert.match(stdout, /^ {2}Format +VHD, dynamic, blocks of 2 MB, sectors of 512 bytes$/m);
  assert.match(stdout, /^ {2}Virtual size +20 MB \(20,971,520 bytes\)$/m);
  assert.match(stdout, /^ {2}Blocks +4 of 10 stored$/m);
  assert.match(stdout, /^Volumes$/m);
  assert.match(stdout, /^Compacting$/m);
});

test('inspect as JSON has every key of the contract', () => {
  const { status, value } = asJson('inspect', small);
  assert.equal(status, 0);
  const keys =
    'file fileSize format diskType virtualSize blockSize logicalSectorSize creator identity blocks parent volumes estimate warnings';
  for (const key of keys.split(' ')) assert.ok(key in value, key);
  assert.equal(value.fileSize, statSync(small).size);
  assert.deepEqual(
    [value.format, value.diskType, value.virtualSize, value.blockSize],
    ['vhd', 'dynamic', 20 * MiB, 2 * MiB],
  );
  assert.deepEqual(value.blocks, { total: 10, present: 4, partiallyPresent: 0 });
  for (const key of [
    'scheme',
    'index',
    'start',
    'length',
    'type',
    'name',
    'fileSystem',
    'label',
    'freeBytes',
    'declined',
  ]) {
    assert.ok(key in value.volumes[0], key);
  }
  const estimateKeys = 'outputSize saves absentBytes freeBytes freeByVolume parts blocks fragmented reasons';
  for (const key of estimateKeys.split(' ')) assert.ok(key in value.estimate, key);
});

test('compact drops zero blocks, says so, and verify agrees', () => {
  const output = path('compacted.vhd');
  const { status, stdout, stderr } = vhdCompactor(['compact', small, output]);
  assert.equal(status, 0);
  assert.equal(stderr, '', 'progress belongs on a terminal');
  assert.match(stdout, /^ {2}Before +8 MB .* small\.vhd$/m);
  assert.match(stdout, /^ {2}After +4\.\d+ MB /m);
  assert.match(stdout, /^ {2}- blocks: 2 zero$/m);
  assert.match(stdout, /^Verified: /m);
  assert.ok(statSync(output).size < 4.1 * MiB);
  const verified = vhdCompactor(['verify', small, output]);
  assert.equal(verified.status, 0);
  assert.match(verified.stdout, /^The disks are the same: /);
});

test('compact as JSON has every key of the contract', () => {
  const output = path('compacted-json.vhd');
  const { status, value } = asJson('compact', small, output);
  assert.equal(status, 0);
  const keys =
    'input output inputSize outputSize virtualSize blocks verified verification dropped bytesRead bytesWritten elapsedMs warnings';
  for (const key of keys.split(' ')) assert.ok(key in value, key);
  assert.equal(value.output, output);
  assert.equal(value.outputSize, statSync(output).size);
  assert.equal(value.verified, true);
  assert.deepEqual(value.blocks, { kept: 2, omitted: { absent: 6, zero: 2, free: 0, equalToParent: 0 } });
  const verified = asJson('verify', small, output);
  assert.equal(verified.status, 0);
  for (const key of ['comparedBytes', 'tracedBytes', 'zeroBytes', 'skippedFreeBytes']) {
    assert.ok(key in verified.value.verification, key);
  }
});

test('--no-verify does not verify', () => {
  const { status, value } = asJson('compact', small, path('unverified.vhd'), '--no-verify');
  assert.deepEqual([status, value.verified, value.verification], [0, false, null]);
});

test('nothing to gain is no failure and writes no file', () => {
  const output = path('again.vhd');
  const { status, stdout } = vhdCompactor(['compact', dense, output]);
  assert.equal(status, 0);
  assert.match(stdout, /Nothing to gain/);
  const { value } = asJson('compact', dense, output);
  assert.deepEqual([value.nothingToGain, value.output, value.outputSize], [true, null, statSync(dense).size]);
  assert.ok(!existsSync(output));
});

test('a difference is found, and is a failure', () => {
  const other = path('other.vhd');
  writeDynamicVhd(other, { size: 20 * MiB, blocks: { 0: Buffer.from('Data'), 7: Buffer.from('data') } });
  const { status, stdout, stderr } = vhdCompactor(['verify', small, other]);
  assert.equal(status, 1);
  assert.equal(stdout, '');
  assert.match(stderr, /^vhd-compactor: .*\n$/);
});

test('an existing OUTPUT stays, unless --force', () => {
  const output = path('existing.vhd');
  writeFileSync(output, 'precious');
  const refused = asJson('compact', small, output);
  assert.equal(refused.status, 1);
  assert.equal(refused.value.error.code, 'invalid-argument');
  assert.equal(readFileSync(output, 'utf8'), 'precious');
  assert.equal(vhdCompactor(['compact', small, output, '--force']).status, 0);
  assert.ok(statSync(output).size > MiB);
});

test('OUTPUT is never the image, by whatever name', () => {
  const image = path('image.vhd');
  writeFileSync(image, readFileSync(small));
  linkSync(image, path('hard-link.vhd'));
  symlinkSync(image, path('link.vhd'));
  symlinkSync('link.vhd', path('link-to-link.vhd'));
  mkdirSync(path('folder'));
  symlinkSync('..', path('folder', 'up'));
  const names = [image, path('.', 'folder', '..', 'image.vhd'), path('folder', 'up', 'image.vhd')];
  for (const output of [...names, path('hard-link.vhd'), path('link.vhd'), path('link-to-link.vhd')]) {
    for (const force of [[], ['--force']]) {
      const { status, value } = asJson('compact', image, output, ...force);
      assert.deepEqual([status, value.error?.code], [1, 'invalid-argument'], output);
    }
  }
  assert.deepEqual(readFileSync(image), readFileSync(small));
});

test('OUTPUT is never a parent, nor a folder, nor through a link to nowhere', () => {
  const parent = path('parent.vhd');
  writeFileSync(parent, readFileSync(small));
  assert.equal(vhdCompactor(['compact', small, parent, '--parent', parent, '--force']).status, 1);
  assert.deepEqual(readFileSync(parent), readFileSync(small));
  assert.equal(vhdCompactor(['compact', small, path('folder'), '--force']).status, 1);
  symlinkSync('nowhere.vhd', path('dangling.vhd'));
  assert.equal(vhdCompactor(['compact', small, path('dangling.vhd')]).status, 1);
  assert.ok(!readdirSync(path()).includes('nowhere.vhd'));
  assert.equal(vhdCompactor(['compact', small, path('no-such-folder', 'out.vhd')]).status, 1);
});

test('a failure is one sentence on stderr, or JSON on stdout', () => {
  const missing = path('missing.vhd');
  const text = vhdCompactor(['inspect', missing]);
  assert.deepEqual([text.status, text.stdout], [1, '']);
  assert.match(text.stderr, /^vhd-compactor: .*missing\.vhd.*\n$/);
  const { status, stderr, value } = asJson('inspect', missing);
  assert.deepEqual([status, stderr], [1, '']);
  assert.deepEqual(Object.keys(value), ['error']);
  assert.deepEqual(Object.keys(value.error), ['code', 'message', 'expected', 'found', 'site']);
  assert.equal(value.error.code, 'read-failed');
});

test('wrong usage exits with 2 and points to --help', () => {
  const text = vhdCompactor(['compact', small]);
  assert.deepEqual([text.status, text.stdout], [2, '']);
  assert.match(text.stderr, /compact takes IMAGE and OUTPUT\.\nTry: vhd-compactor --help\n$/);
  const { status, value } = asJson('frobnicate');
  assert.deepEqual([status, value.error.code], [2, 'invalid-argument']);
});

test('--help and --version', () => {
  const help = vhdCompactor(['--help']);
  assert.equal(help.status, 0);
  assert.match(help.stdout, /vhd-compactor compact IMAGE OUTPUT/);
  assert.ok(help.stdout.split('\n').every((line) => line.length <= 80));
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  assert.equal(vhdCompactor(['--version']).stdout, `${version}\n`);
});

/** @type {[name: string, bytes: () => Buffer][]} */
const broken = [
  ['an empty file', () => Buffer.alloc(0)],
  ['one byte', () => Buffer.from('c')],
  ['text', () => Buffer.from('This is no disk image.\n'.repeat(100))],
  ['zeros', () => Buffer.alloc(MiB)],
  ['a sector of nothing but a cookie', () => Buffer.concat([Buffer.from('conectix'), Buffer.alloc(504)])],
  ['a VHDX cookie and no more', () => Buffer.concat([Buffer.from('vhdxfile'), Buffer.alloc(MiB)])],
  ['half an image', () => readFileSync(small).subarray(0, 3 * MiB)],
  ['an image without its tables', () => readFileSync(small).subarray(0, 1000)],
  ['a BAT that points outside', () => patched(readFileSync(small), 3 * 512, Buffer.from([0x7f, 0xff, 0xff, 0xf0]))],
];

for (const [name, bytes] of broken) {
  test(`${name} is refused with a code and leaves nothing`, () => {
    const folder = path(name.replaceAll(' ', '-'));
    mkdirSync(folder);
    const image = `${folder}/broken.vhd`;
    writeFileSync(image, bytes());
    const { status, value } = asJson('compact', image, `${folder}/out.vhd`);
    assert.equal(status, 1);
    assert.match(value.error.code, /^(not-recognised|corrupt|unsupported|limit-exceeded)$/);
    assert.ok(value.error.message.length > 10);
    assert.deepEqual(readdirSync(folder), ['broken.vhd']);
    const text = vhdCompactor(['inspect', image]);
    assert.equal(text.status, 1);
    assert.doesNotMatch(text.stderr, /\n\s+at /, 'no stack on a person');
  });
}

test('a folder, and a device, are no images', () => {
  for (const image of [path(), '/dev/null']) {
    assert.equal(asJson('inspect', image).value.error.code, 'read-failed', image);
  }
});

test('control characters of a name do not reach the terminal', () => {
  const image = path('a\u001b]0;title\u0007\u009b31m\u202e.vhd');
  writeFileSync(image, readFileSync(small));
  const { stdout } = vhdCompactor(['inspect', image]);
  assert.match(stdout, /⟨U\+001B⟩\]0;title/);
  const failed = vhdCompactor(['compact', image, image]);
  assert.equal(failed.status, 1);
  for (const text of [stdout, failed.stderr, vhdCompactor(['inspect', image, '--json']).stdout]) {
    assert.doesNotMatch(text, /[^\n\P{Cc}]|\p{Cf}/u);
  }
  assert.equal(asJson('inspect', image).value.file, basename(image));
});

test('a fixed disk becomes dynamic when asked', () => {
  const fixed = path('fixed.vhd');
  writeFixedVhd(fixed, { size: 20 * MiB, start: Buffer.from('data') });
  const { status, value } = asJson('compact', fixed, path('to-dynamic.vhd'), '--to-dynamic');
  assert.equal(status, 0);
  assert.equal(asJson('inspect', path('to-dynamic.vhd')).value.diskType, 'dynamic');
  assert.ok(value.outputSize < 3 * MiB);
  const refused = asJson('compact', fixed, path('refused.vhd'));
  assert.deepEqual([refused.status, refused.value.error?.code], [1, 'wrong-image-type']);
});

function patched(/** @type {Buffer} */ bytes, /** @type {number} */ offset, /** @type {Buffer} */ by) {
  by.copy(bytes, offset);
  return bytes;
}
