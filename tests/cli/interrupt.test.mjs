/** Ctrl-C in the middle, and what a terminal sees. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { which } from '../../scripts/lib/process.mjs';
import { command, startVhdCompactor } from '../support/command.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { writeDynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const MiB = 1024 * 1024;

/** An image of stored blocks, holes of the file but for their first bytes; every eighth is all zero. */
function writeImage(/** @type {string} */ file, /** @type {number} */ count) {
  const blocks = Object.fromEntries(Array.from({ length: count }, (_, i) => [i, Buffer.from(i % 8 ? 'data' : '')]));
  writeDynamicVhd(file, { size: count * 2 * MiB, blocks });
}

/** @type {[moment: string, blocks: number, reached: (folder: string, pid: number) => boolean][]} */
const moments = [
  ['while it scans', 16384, (_, pid) => bytesRead(pid) > 64 * MiB],
  ['while it writes', 1024, (folder) => readdirSync(folder).length > 1],
];

for (const [moment, count, reached] of moments) {
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'])) {
    const skip = process.platform === 'linux' ? false : 'looks into /proc';
    test(`${signal} ${moment} leaves nothing and exits with 130`, { skip }, async () => {
      const folder = path(`${signal} ${moment}`);
      mkdirSync(folder);
      writeImage(join(folder, 'in.vhd'), count);
      const child = startVhdCompactor(['compact', join(folder, 'in.vhd'), join(folder, 'out.vhd'), '--json']);
      let stdout = '';
      child.stdout.on('data', (chunk) => (stdout += chunk));
      const ended = new Promise((resolve) => child.once('close', resolve));
      await until(() => reached(folder, child.pid ?? 0));
      const sent = Date.now();
      child.kill(signal);
      assert.equal(await ended, 130);
      assert.ok(Date.now() - sent < 3000, 'a cancel is heard at once');
      assert.equal(JSON.parse(stdout).error.code, 'cancelled');
      assert.deepEqual(readdirSync(folder), ['in.vhd']);
    });
  }
}

test('a terminal sees progress, and it is wiped at the end', { skip: which('script') ? false : 'no script(1)' }, () => {
  const image = path('short.vhd');
  writeImage(image, 256);
  const line = `stty cols 100; ${process.execPath} ${command} compact ${image} ${path('out.vhd')}`;
  const { stdout, status } = spawnSync('script', ['-qec', line, '/dev/null'], {
    encoding: 'utf8',
    env: { ...process.env, TERM: 'xterm' },
  });
  assert.equal(status, 0);
  const wipe = '\r\u001b[K';
  assert.match(stdout.replaceAll(wipe, '\n'), /\n(Looking for zeros|Writing|Comparing) +[█░]{20} +\d+ %/);
  const last = stdout.slice(stdout.lastIndexOf(wipe));
  assert.doesNotMatch(last, /█/);
  assert.match(last, /Verified: /);
  assert.ok(existsSync(path('out.vhd')));
});

/** What a process has read so far, from whatever. */
const bytesRead = (/** @type {number} */ pid) =>
  Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1]);

/** Waits for something that happens soon. */
async function until(/** @type {() => boolean} */ happened) {
  for (let tries = 0; !happened(); tries += 1) {
    assert.ok(tries < 3000, 'it did not happen within 60 s');
    await delay(20);
  }
}
