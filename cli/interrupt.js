/** Ctrl-C, and being told to end: the job is cancelled, which leaves nothing behind. */

const signals = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/**
 * Waits for a job that a signal may cancel.
 * @template T
 * @param {import('../lib/types.js').Job<T>} job
 */
export async function interruptible(job) {
  const cancel = () => job.cancel();
  for (const signal of signals) process.on(signal, cancel);
  try {
    return await job.result;
  } finally {
    for (const signal of signals) process.off(signal, cancel);
  }
}
