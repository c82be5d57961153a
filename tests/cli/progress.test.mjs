import assert from 'node:assert/strict';
import test from 'node:test';
import { progressLine, showProgress } from '../../cli/progress.js';

/** @import { JobProgress } from '../../lib/types.js' */

function jobAt(/** @type {number} */ percentComplete, /** @type {Partial<JobProgress>} */ progress) {
  const job = new EventTarget();
  const now = { phase: 'write', bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, secondsLeft: null, ...progress };
  return /** @type {any} */ (Object.assign(job, { percentComplete, progress: now }));
}

test('says what is done, how fast, and how long it will take', () => {
  const line = progressLine(jobAt(61.2, { bytesPerSecond: 325058560, secondsLeft: 12.2 }), 200);
  assert.equal(line, 'Writing            ████████████░░░░░░░░   61 %  310 MB/s  12 seconds left');
});

test('says nothing that it does not know, and fits the terminal', () => {
  assert.equal(progressLine(jobAt(0, { phase: 'scan' }), 200), `Looking for zeros  ${'░'.repeat(20)}    0 %`);
  assert.equal(progressLine(jobAt(100, { bytesPerSecond: 1, secondsLeft: 9 }), 40).length, 39);
});

test('draws on a terminal only, and wipes what it drew', () => {
  for (const [isTTY, expected] of /** @type {const} */ ([
    [false, 0],
    [true, 2],
  ])) {
    /** @type {string[]} */
    const written = [];
    const stream = /** @type {any} */ ({
      isTTY,
      columns: 80,
      write: (/** @type {string} */ text) => written.push(text),
    });
    const job = jobAt(50, {});
    const hide = showProgress(job, stream);
    job.dispatchEvent(new Event('progress'));
    job.dispatchEvent(new Event('progress'));
    hide();
    job.dispatchEvent(new Event('progress'));
    assert.equal(written.length, expected);
    if (isTTY) assert.equal(written.at(-1), '\r\u001b[K');
  }
});
