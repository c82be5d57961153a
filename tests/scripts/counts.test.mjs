import assert from 'node:assert/strict';
import test from 'node:test';
import { ofCargo, ofNodeTest, sum } from '../../scripts/lib/counts.mjs';

test('a test that says it was skipped is not a passed one', () => {
  const output = `
running 3 tests
test fs::maps_ext4 ... ok
test fs::maps_ntfs ... ok
test units::adds ... ok

successes:

---- fs::maps_ext4 stdout ----
skipped: fs::maps_ext4: mkfs.ext4 is not installed

successes:
    fs::maps_ext4

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
`;
  assert.deepEqual(ofCargo(output), {
    passed: 2,
    failed: 0,
    skipped: [{ name: 'fs::maps_ext4', why: 'mkfs.ext4 is not installed' }],
  });
});

test('a skip that is written past the harness counts, too', () => {
  const output = `test volumes::mounts ... skipped: volumes::mounts: no loop devices
ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured`;
  assert.deepEqual(ofCargo(output).skipped, [{ name: 'volumes::mounts', why: 'no loop devices' }]);
});

test('several reasons of one test are one skip', () => {
  const output = `---- chains stdout ----
skipped: chains: the image a.vhd is not at hand
skipped: chains: qemu-img is not installed
skipped: chains: the image a.vhd is not at hand
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out`;
  assert.deepEqual(ofCargo(output), {
    passed: 0,
    failed: 0,
    skipped: [{ name: 'chains', why: 'the image a.vhd is not at hand; qemu-img is not installed' }],
  });
});

test('what no set-up can bring is excused', () => {
  const output = `---- reads stdout ----
skipped: reads: the image a.vhd is not at hand
skipped: reads: the image b.vhd is not at hand
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out`;
  assert.deepEqual(ofCargo(output).skipped, [
    { name: 'reads', why: 'the image a.vhd is not at hand; the image b.vhd is not at hand', excused: true },
  ]);
});

test('the same name in two programs is two tests, a failed test is no skip, an ignored one is', () => {
  const output = `---- opens stdout ----
skipped: opens: no qemu-img
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured
test opens ... FAILED
test slow ... ignored, takes an hour
---- opens stdout ----
skipped: opens: no qemu-img
test result: FAILED. 4 passed; 1 failed; 1 ignored; 0 measured`;
  assert.deepEqual(ofCargo(output), {
    passed: 4,
    failed: 1,
    skipped: [
      { name: 'opens', why: 'no qemu-img' },
      { name: 'slow', why: 'takes an hour', excused: true },
    ],
  });
});

test('node:test lines are counted by outcome', () => {
  const lines = [
    { name: 'a', outcome: 'passed', why: '' },
    { name: 'b', outcome: 'failed', why: '' },
    { name: 'c', outcome: 'skipped', why: 'no browser' },
  ];
  const one = ofNodeTest(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  assert.deepEqual(one, { passed: 1, failed: 1, skipped: [{ name: 'c', why: 'no browser' }] });
  assert.equal(sum([one, one]).skipped.length, 2);
});
