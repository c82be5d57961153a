import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { attempt } from '../../scripts/lib/process.mjs';

/** Runs steps in a process of their own, since they print. */
function runSteps(/** @type {string} */ steps, options = '{}') {
  const script = `
    import { counts } from '${inRoot('scripts/lib/counts.mjs')}';
    import { runSteps } from '${inRoot('scripts/lib/test-run.mjs')}';
    process.exitCode = await runSteps(${steps}, ${options});`;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  return { status, lines: stdout.trimEnd().split('\n') };
}

test('the summary is the last line and the skipped tests stand before it', () => {
  const { status, lines } = runSteps(`[
    { name: 'one', run: async () => ({ counts: counts({ passed: 2, skipped: [{ name: 'x', why: 'no tool' }] }), output: '' }) },
    { name: 'two', programs: ['no-such-program'], run: async () => { throw new Error('must not run'); } }]`);
  assert.equal(status, 0);
  assert.deepEqual(lines.slice(-3), [
    'skipped: one: x: no tool',
    'skipped: two: all tests: no-such-program not installed',
    '2 passed, 0 failed, 2 skipped',
  ]);
});

test('strict: a skip that set-up could have helped is a failure', () => {
  const { status, lines } = runSteps(
    `[
    { name: 'one', run: async () => ({ counts: counts({ passed: 2, skipped: [
      { name: 'x', why: 'no tool' }, { name: 'y', why: 'the image a.vhd is not at hand', excused: true }] }), output: '' }) },
    { name: 'two', programs: ['no-such-program'], run: async () => { throw new Error('must not run'); } }]`,
    '{ strict: true }',
  );
  assert.equal(status, 1);
  assert.deepEqual(lines.slice(-2), [
    'skipped: one: y: the image a.vhd is not at hand',
    '2 passed, 2 failed, 1 skipped',
  ]);
  assert.match(lines.join('\n'), /may not be skipped: x: no tool/);
});

test('a failure shows what was printed, lets the other steps run, and is the exit code', () => {
  const { status, lines } = runSteps(`[
    { name: 'one', run: async () => ({ counts: counts({ failed: 1 }), output: 'why it failed' }) },
    { name: 'two', run: async () => { throw new Error('broken step'); } },
    { name: 'three', run: async () => ({ counts: counts({ passed: 1 }), output: 'never shown' }) }]`);
  assert.equal(status, 1);
  assert.equal(lines.at(-1), '1 passed, 2 failed, 0 skipped');
  const text = lines.join('\n');
  assert.match(text, /why it failed/);
  assert.match(text, /broken step/);
  assert.doesNotMatch(text, /never shown/);
});

test('stdout and stderr come in the order in which they were written', async () => {
  const { output, code } = await attempt('sh', ['-c', 'echo 1; echo 2 >&2; echo 3; exit 3']);
  assert.deepEqual([output, code], ['1\n2\n3\n', 3]);
});

test('a program beyond its limit is ended together with its children', async () => {
  const script = `
    const { spawn } = require('node:child_process');
    spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], { stdio: 'inherit' });`;
  const started = Date.now();
  const outcome = await attempt(process.execPath, ['-e', script], { limit: 700 });
  assert.equal(outcome.timedOut, true);
  assert.notEqual(outcome.code, 0);
  assert.ok(Date.now() - started < 10_000, 'the grandchild held the pipe open');
});
