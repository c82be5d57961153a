/** The time left and the bar tell the truth: with a clock of their own, for three kinds of image and each way of saving. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Forecast } from '../../lib/forecast.js';

/** @import { JobPhase } from '../../lib/types.js' */
/** @typedef {{ phase: JobPhase, bytes: number, rate: number | ((share: number) => number), expected: number, isSilent?: boolean }} Part `rate` is the true one */

const STEP_MS = 100;
const GB = 1e9;

/** Runs a job by the clock; gives the share of time gone, the percentage and the time left, against the true ones. @param {Part[]} parts */
function run(parts) {
  let now = 0;
  const forecast = new Forecast(() => now);
  forecast.expect(parts.map(({ phase, bytes, expected }) => [phase, { bytes, rate: expected }]));
  const moments = [];
  for (const { phase, bytes, rate, isSilent } of parts) {
    forecast.enter(phase, bytes);
    for (let done = 0; done < bytes;) {
      now += STEP_MS;
      done = Math.min(bytes, done + (typeof rate === 'number' ? rate : rate(done / bytes)) * (STEP_MS / 1000));
      if (!isSilent) forecast.advance(done, bytes);
      moments.push({ now, percent: forecast.percent, left: forecast.secondsLeft });
    }
  }
  return moments.map((one) => ({ ...one, share: one.now / now, trueLeft: (now - one.now) / 1000 }));
}

/** Past the first 5 % the time left is right within a factor of two, or within two seconds. @param {Part[]} parts */
function assertTrue(parts) {
  const moments = run(parts);
  let before = 0;
  for (const { share, percent, left, trueLeft } of moments) {
    assert.ok(percent >= before, `the bar went back: ${before} to ${percent}`);
    assert.ok(percent - before < 12, `the bar jumped from ${before} to ${percent}`);
    before = percent;
    if (share < 0.05) continue;
    const right = left <= 2 * trueLeft + 2 && trueLeft <= 2 * left + 2;
    assert.ok(right, `at ${Math.round(share * 100)} %: ${left.toFixed(1)} s left, in truth ${trueLeft.toFixed(1)} s`);
  }
  assert.ok(before > 95, `it ended at ${before}`);
}

/** What the scan meets. @type {Record<string, { bytes: number, rate: Part['rate'] }>} */
const scans = {
  'all in use': { bytes: 8 * GB, rate: 2 * GB },
  'half zero, in turns': { bytes: 8 * GB, rate: (share) => (Math.floor(share * 40) % 2 ? 0.3 * GB : 2 * GB) },
  'all zero': { bytes: 8 * GB, rate: 0.3 * GB },
};
/** How it is saved. @type {Record<string, Part[]>} */
const savings = {
  download: [
    { phase: 'write', bytes: 4 * GB, rate: 12 * GB, expected: 20e9 },
    { phase: 'verify', bytes: 4 * GB, rate: 12 * GB, expected: 20e9 },
  ],
  'the browser’s storage': [{ phase: 'write', bytes: 4 * GB, rate: 0.25 * GB, expected: 200e6 }],
  'a folder': [
    { phase: 'write', bytes: 4 * GB, rate: 0.4 * GB, expected: 350e6 },
    { phase: 'finish', bytes: 4 * GB, rate: 0.12 * GB, expected: 100e6, isSilent: true },
    { phase: 'verify', bytes: 4 * GB, rate: 0.3 * GB, expected: 350e6 },
  ],
};

for (const [kind, scan] of Object.entries(scans)) {
  for (const [way, saving] of Object.entries(savings)) {
    test(`${kind}, saved by ${way}`, () => {
      assertTrue([{ phase: 'scan', ...scan, expected: 1000e6 }, ...saving]);
    });
  }
}

test('a phase that is silent moves on by the clock, and is not called done before it is', () => {
  const moments = run([{ phase: 'finish', bytes: GB, rate: 0.02 * GB, expected: 100e6, isSilent: true }]);
  assert.ok(moments.every(({ left }) => left > 0));
  assert.ok(moments.some(({ percent }) => percent > 50));
  assert.ok(moments.every(({ percent }) => percent < 100));
});

test('what was expected of a phase that does not come is forgotten', () => {
  const forecast = new Forecast(() => 0);
  forecast.expect([
    ['check', { bytes: 1e9, rate: 1e6 }],
    ['scan', { bytes: 1e9, rate: 1e9 }],
  ]);
  forecast.enter('scan', 1e9);
  assert.ok(forecast.secondsLeft < 2);
});

test('a phase that tells nothing at first is not taken for one that is nearly over', () => {
  let now = 0;
  const forecast = new Forecast(() => now);
  forecast.expect([['scan', { bytes: 1e8, rate: 1e9 }]]);
  forecast.enter('scan', 0);
  now = 2000;
  assert.ok(forecast.percent <= 51, `${forecast.percent} %`);
  assert.ok(forecast.secondsLeft >= 1);
});

test('a disk that is quick at first and slow then holds the bar, and does not end it', () => {
  const moments = run([
    { phase: 'scan', bytes: 8 * GB, rate: (share) => (share < 0.5 ? 4 * GB : 0.4 * GB), expected: 1000e6 },
  ]);
  for (const { share, percent } of moments) if (share < 0.5) assert.ok(percent < 80, `${percent} % at ${share}`);
});

test('at the end nothing is left', () => {
  const forecast = new Forecast(() => 0);
  forecast.expect([['verify', { bytes: 1e9, rate: 1e6 }]]);
  forecast.enter('done', 0);
  assert.equal(forecast.secondsLeft, 0);
});

test('before anything is known the bar stands at its start, and does not stick at its end', () => {
  let now = 0;
  const forecast = new Forecast(() => now);
  now = 50;
  assert.equal(forecast.percent, 0);
  forecast.expect([['scan', { bytes: 1e9, rate: 1e8 }]]);
  assert.equal(forecast.percent, 0);
  forecast.enter('scan', 0);
  now = 1050;
  assert.ok(forecast.percent < 15, `${forecast.percent} %`);
  forecast.enter('check', 0);
  now = 1100;
  assert.ok(forecast.percent < 15, `${forecast.percent} %`);
});
