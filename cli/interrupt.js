/** Ctrl-C, and being told to end: the job is cancelled, which leaves nothing behind. */

// Ctrl-C and Ctrl-\, a closed terminal, and Windows' Ctrl-Break and closed window (which sends SIGHUP).
const signals = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGBREAK']);

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
