/** The new file: whose it is, what it may replace, and what is said before anything is read. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import test, { before, mock } from 'node:test';
import { CompactorError, PathSink, compact } from '../../lib/index.node.js';
import { temporaryBeside } from '../../lib/sinks/temporary.js';
import { asJson, startVhdCompactor, vhdCompactor } from '../support/command.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { dynamicVhd, writeDynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const MiB = 1024 * 1024;
const small = path('small.vhd');
const isRoot = process.getuid?.() === 0;
const withoutModes = process.platform === 'win32' && 'Windows has no modes';
const nobody = { uid: 65534, gid: 65534 };

before(() => {
  writeDynamicVhd(small, { size: 20 * MiB, blocks: { 0: Buffer.from('data'), 3: Buffer.alloc(0), 7: Buffer.of(1) } });
  fs.chmodSync(path(), 0o755);
});

const modeOf = (/** @type {string} */ file) => fs.statSync(file).mode & 0o777;
/** A folder of its own with a copy of the image. */
function folderWith(/** @type {string} */ name, { mode = 0o644 } = {}) {
  fs.mkdirSync(path(name));
  const image = path(name, 'in.vhd');
  fs.copyFileSync(small, image);
  fs.chmodSync(image, mode);
  return { image, output: path(name, 'out.vhd'), names: () => fs.readdirSync(path(name)).sort() };
}
/** What a compaction is refused with before it reads. */
async function refusal(/** @type {string} */ image, /** @type {string | PathSink} */ output) {
  const job = await compact(image, output);
  try {
    await job.result;
  } catch (thrown) {
    assert.ok(thrown instanceof CompactorError, String(thrown));
    assert.equal(job.progress.phase, 'queued', 'before anything is read of the payload');
    return thrown;
  }
  return assert.fail('it was not refused');
}

for (const mode of [0o600, 0o640, 0o644, 0o664, 0o400, 0o755]) {
  test(`the new file has the mode of the source: ${mode.toString(8)}`, { skip: withoutModes }, async () => {
    const { image, output } = folderWith(`mode-${mode.toString(8)}`, { mode });
    await (
      await compact(image, output)
    ).result;
    assert.equal(modeOf(output).toString(8), mode.toString(8));
  });
}

test('while it is written, only its owner can open the new file', { skip: withoutModes }, async () => {
  const { image, output, names } = folderWith('begun', { mode: 0o644 });
  const sink = new PathSink(output);
  /** @type {number[]} */
  const modes = [];
  const { write } = fs;
  const writing = mock.method(fs, 'write', (/** @type {any} */ ...args) => {
    modes.push(fs.fstatSync(args[0]).mode & 0o777);
    return /** @type {any} */ (write)(...args);
  });
  const job = await compact(image, sink);
  await job.result;
  writing.mock.restore();
  assert.deepEqual([...new Set(modes)], [0o600]);
  assert.deepEqual(names(), ['in.vhd', 'out.vhd']);
});

test('a merged image is as closed as the most closed of its files', { skip: withoutModes }, () => {
  const { image, parent, base, names } = chain('merged');
  fs.chmodSync(image, 0o644);
  fs.chmodSync(parent, 0o600);
  const output = path('merged', 'flat.vhd');
  const { status, value } = asJson('compact', image, output, '--flatten', '--parent', parent, '--parent', base);
  assert.equal(status, 0, JSON.stringify(value));
  assert.equal(modeOf(output), 0o600);
  assert.ok(names().includes('flat.vhd'));
});

test('root keeps the owner and the group', { skip: withoutModes || (!isRoot && 'needs root') }, () => {
  const { image, output } = folderWith('owned', { mode: 0o640 });
  fs.chownSync(image, 1234, 2345);
  assert.equal(vhdCompactor(['compact', image, output]).status, 0);
  const { uid, gid } = fs.statSync(output);
  assert.deepEqual([uid, gid, modeOf(output)], [1234, 2345, 0o640]);
});

test('where the group cannot be kept it may do what everybody may', { skip: !isRoot && 'needs root' }, () => {
  const { image, output } = folderWith('grouped', { mode: 0o664 });
  fs.chmodSync(path('grouped'), 0o777);
  const { status, stderr } = vhdCompactor(['compact', image, output], nobody);
  assert.equal(status, 0, stderr);
  assert.deepEqual([fs.statSync(output).uid, modeOf(output)], [nobody.uid, 0o644]);
});

test('a missing folder is told before anything is read', async () => {
  const { image } = folderWith('no-folder');
  for (const output of [path('no-folder', 'none', 'out.vhd'), join(image, 'out.vhd')]) {
    const { code, message } = await refusal(image, output);
    assert.equal(code, 'invalid-argument', message);
    assert.ok(message.includes(output) || message.includes(dirname(output)), message);
  }
});

test('a folder that cannot be written is told before anything is read', { skip: !isRoot && 'needs root' }, () => {
  const { image, output, names } = folderWith('closed');
  const { status, stdout } = vhdCompactor(['compact', image, output, '--json'], nobody);
  const { error } = JSON.parse(stdout);
  assert.deepEqual([status, error.code], [1, 'permission-denied']);
  assert.match(error.message, /folder .*closed cannot be written/);
  assert.deepEqual(names(), ['in.vhd']);
});

test('names up to the longest are written', async () => {
  const { image, names } = folderWith('long');
  const longest = [`${'n'.repeat(251)}.vhd`, `${'ä'.repeat(125)}.vhd`, `${'🖴'.repeat(62)}.vhd`];
  for (const name of longest) await (await compact(image, path('long', name))).result;
  assert.deepEqual(names(), ['in.vhd', ...longest].sort());
  const tooLong = await refusal(image, path('long', `${'n'.repeat(252)}.vhd`));
  assert.equal(tooLong.code, 'invalid-argument');
});

test('unfinished files have names that every file system takes', () => {
  for (const name of ['a', 'disk.vhdx', 'n'.repeat(255), 'ä'.repeat(127), '🖴'.repeat(63), ' '.repeat(200)]) {
    const temporary = basename(temporaryBeside(`/folder/${name}`));
    assert.ok(Buffer.byteLength(temporary) <= 143, `${Buffer.byteLength(temporary)} bytes`);
    assert.match(temporary, /^\.[^\ufffd]+\.vhd-compactor\.tmp$/);
  }
});

test('a file system that tells nothing of its room is believed to have some', async () => {
  const { image } = folderWith('room');
  const nothing = { type: 0, bsize: 0, blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0 };
  for (const [name, answer] of /** @type {const} */ ([
    ['zeros.vhd', () => nothing],
    ['none.vhd', () => assert.fail('ENOSYS')],
  ])) {
    const asked = mock.method(fs, 'statfsSync', answer);
    await (await compact(image, path('room', name))).result.finally(() => asked.mock.restore());
    assert.ok(fs.existsSync(path('room', name)));
  }
  const full = mock.method(fs, 'statfsSync', () => ({ ...nothing, bsize: 4096, blocks: 1000, bavail: 1 }));
  const job = await compact(image, path('room', 'full.vhd'));
  await assert.rejects(
    job.result.finally(() => full.mock.restore()),
    { code: 'out-of-space', message: /4096 free/ },
  );
  assert.ok(!fs.existsSync(path('room', 'full.vhd')));
});

for (const [system, code] of /** @type {const} */ ([
  ['EIO', 'write-failed'],
  ['ENOSPC', 'out-of-space'],
  ['EDQUOT', 'out-of-space'],
])) {
  test(`${system} when the file is closed is a failure and leaves nothing`, async () => {
    const { image, output, names } = folderWith(`close-${system}`);
    const sink = new PathSink(output);
    const opened = fs.openSync;
    let written = -1;
    const opening = mock.method(fs, 'openSync', (/** @type {Parameters<typeof opened>} */ ...args) => {
      const fd = opened(...args);
      if (args[1] === 'wx+') written = fd;
      return fd;
    });
    const closed = fs.closeSync;
    const closing = mock.method(fs, 'closeSync', (/** @type {number} */ fd) => {
      closed(fd);
      if (fd === written) throw Object.assign(new Error(`${system}: told at the close`), { code: system });
    });
    const job = await compact(image, sink);
    await assert.rejects(job.result, { code, message: /closed: .*told at the close/ });
    opening.mock.restore();
    closing.mock.restore();
    assert.deepEqual(names(), ['in.vhd']);
  });
}

test('the folder is synced after the name is given', { skip: withoutModes }, async () => {
  const { image, output } = folderWith('synced');
  /** @type {string[]} */
  const calls = [];
  const [link, sync] = [fs.linkSync, fs.fsyncSync];
  const mocks = [
    mock.method(fs, 'linkSync', (/** @type {Parameters<typeof link>} */ ...args) => {
      calls.push('link');
      return link(...args);
    }),
    mock.method(fs, 'fsyncSync', (/** @type {number} */ fd) => {
      calls.push(fs.fstatSync(fd).isDirectory() ? 'sync folder' : 'sync file');
      return sync(fd);
    }),
  ];
  await (
    await compact(image, output)
  ).result;
  for (const { mock: mocked } of mocks) mocked.restore();
  assert.deepEqual(calls, ['sync file', 'link', 'sync folder']);
});

test('a file system without hard links gets the file by a rename, and never over another', async () => {
  const { image, output, names } = folderWith('no-links');
  const refuse = () => {
    throw Object.assign(new Error('EPERM: no links here'), { code: 'EPERM' });
  };
  const linking = mock.method(fs, 'linkSync', refuse);
  await (
    await compact(image, output)
  ).result;
  assert.deepEqual(names(), ['in.vhd', 'out.vhd']);
  // One that comes while ours is written.
  const other = path('no-links', 'other.vhd');
  linking.mock.mockImplementation(() => {
    fs.writeFileSync(other, 'precious');
    return refuse();
  });
  await assert.rejects((await compact(image, other)).result, { code: 'invalid-argument' });
  linking.mock.restore();
  assert.equal(fs.readFileSync(other, 'utf8'), 'precious');
  assert.deepEqual(names(), ['in.vhd', 'other.vhd', 'out.vhd']);
});

/** A child, its parent, and the parent's parent, in one folder. */
function chain(/** @type {string} */ name) {
  fs.mkdirSync(path(name));
  const ids = ['1', '2', '3'].map((digit) => digit.repeat(32));
  const files = ['base.vhd', 'parent.vhd', 'child.vhd'].map((file) => path(name, file));
  fs.writeFileSync(files[0], dynamicVhd({ blocks: 4, stored: { 0: 1, 1: 2 }, id: ids[0] }));
  for (const i of [1, 2]) {
    const parent = { id: ids[i - 1], name: basename(files[i - 1]) };
    fs.writeFileSync(files[i], dynamicVhd({ blocks: 4, stored: { 0: i, 2: 0 }, id: ids[i], parent }));
  }
  // Whole seconds of 2000, as the recipe's children expect.
  for (const file of files) fs.utimesSync(file, 946684800, 946684800);
  const [base, parent, image] = files;
  return { base, parent, image, names: () => fs.readdirSync(path(name)).sort() };
}

/** @type {[what: string, arrange: (files: ReturnType<typeof chain>) => string][]} */
const ancestors = [
  ['its parent', ({ parent }) => parent],
  ["its parent's parent", ({ base }) => base],
  ['its parent under another name', ({ parent }) => renamed(parent, 'moved.vhd')],
  ["its parent's parent, the parent under another name", ({ parent, base }) => (renamed(parent, 'moved.vhd'), base)],
  ['its parent by a link', ({ parent }) => linked(parent, 'link.vhd')],
  ['a file with the name of its parent', ({ parent }) => (fs.writeFileSync(parent, 'no image, or a raw one'), parent)],
];

for (const [what, arrange] of ancestors) {
  test(`--force does not overwrite ${what}, though it was not given`, () => {
    const files = chain(what.replaceAll(/\W/g, '-'));
    const output = arrange(files);
    const before_ = fs.readFileSync(output);
    const { status, value } = asJson('compact', files.image, output, '--force');
    assert.deepEqual([status, value.error?.code], [1, 'invalid-argument'], JSON.stringify(value));
    assert.match(value.error.message, /is a parent of child\.vhd/);
    assert.deepEqual(fs.readFileSync(output), before_);
  });
}

test('--force overwrites what is no parent', () => {
  const { image } = chain('no-parent');
  const output = path('no-parent', 'sibling.vhd');
  fs.copyFileSync(small, output);
  const { status, value } = asJson('compact', image, output, '--force');
  assert.equal(status, 0, JSON.stringify(value));
});

test(
  'what a killed run left is removed by the next',
  { skip: process.platform !== 'linux' && 'looks into /proc' },
  async () => {
    const { image, output, names } = folderWith('killed');
    const blocks = Object.fromEntries(Array.from({ length: 1024 }, (_, i) => [i, Buffer.from(i % 8 ? 'data' : '')]));
    writeDynamicVhd(image, { size: 2048 * MiB, blocks });
    const child = startVhdCompactor(['compact', image, output]);
    const ended = new Promise((resolve) => child.once('close', resolve));
    const waiting = setInterval(() => names().length > 1 && child.kill('SIGKILL'), 5);
    await ended;
    clearInterval(waiting);
    const [left = ''] = names().filter((name) => name.endsWith('.tmp'));
    assert.match(left, /^\.out\.vhd\..*\.vhd-compactor\.tmp$/);
    // Those of a running process, of another machine and of another program stay.
    const others = [
      left.replace(`-${child.pid}-`, `-${process.pid}-`),
      left.replace(/vhd\.[0-9a-f]{8}-/, 'vhd.00000001-'),
      '.out.vhd.tmp',
      '.mine.vhd-compactor.tmp',
    ];
    for (const name of others) fs.writeFileSync(path('killed', name), hostname());
    assert.equal(vhdCompactor(['compact', image, output, '--no-verify']).status, 0);
    assert.deepEqual(names(), [...others, 'in.vhd', 'out.vhd'].sort());
  },
);

function renamed(/** @type {string} */ file, /** @type {string} */ name) {
  const to = join(dirname(file), name);
  fs.renameSync(file, to);
  return to;
}

function linked(/** @type {string} */ file, /** @type {string} */ name) {
  const at = join(dirname(file), name);
  fs.symlinkSync(file, at);
  return at;
}
