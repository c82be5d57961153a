/** A progress bar on a terminal's last line; nothing anywhere else. */
import { duration, rate } from '../lib/text.js';
import { visible } from './text.js';

/** @typedef {import('../lib/types.js').Job<unknown>} AnyJob */

const verbs = {
  queued: 'Waiting',
  check: 'Checking owners',
  scan: 'Looking for zeros',
  write: 'Writing',
  finish: 'Finishing',
  verify: 'Comparing',
  done: 'Done',
};
const erase = '\r\u001b[K';
const everyMs = 100;

/**
 * Shows a job until the returned function is called.
 * @param {AnyJob} job @param {NodeJS.WriteStream} stream
 */
export function showProgress(job, stream) {
  if (!stream.isTTY || process.env.TERM === 'dumb') return () => {};
  let drawn = 0;
  const draw = () => {
    const now = Date.now();
    if (now - drawn < everyMs) return;
    drawn = now;
    stream.write(erase + progressLine(job, stream.columns || 80));
  };
  job.addEventListener('progress', draw);
  return () => {
    job.removeEventListener('progress', draw);
    if (drawn) stream.write(erase);
  };
}

/** "Writing  ██████░░░░  61 %  310 MB/s  12 seconds left", cut to the width of the terminal. */
export function progressLine(/** @type {AnyJob} */ job, /** @type {number} */ width) {
  const { phase, bytesPerSecond, secondsLeft } = job.progress;
  const percent = Math.max(0, Math.min(100, job.percentComplete));
  const done = Math.floor(percent / 5);
  const bar = '█'.repeat(done) + '░'.repeat(20 - done);
  const parts = [verbs[phase].padEnd(17), bar, `${Math.floor(percent)} %`.padStart(5)];
  if (bytesPerSecond > 0) parts.push(rate(bytesPerSecond));
  if (secondsLeft !== null && Number.isFinite(secondsLeft)) parts.push(`${duration(secondsLeft)} left`);
  return visible(parts.join('  ')).slice(0, width - 1);
}
