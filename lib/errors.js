/**
 * The one error of the API: a plain sentence, a stable `code`, what was expected and found, and the place in the file.
 *
 * @typedef {import('./types.js').ErrorCode} ErrorCode
 * @typedef {import('./types.js').Site} Site
 */

export class CompactorError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {{ expected?: string | null, found?: string | null, site?: Site | null, cause?: unknown }} [details]
   */
  constructor(code, message, { expected = null, found = null, site = null, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'CompactorError';
    this.code = code;
    /** What the specification wants there, where that can be said. */
    this.expected = expected;
    /** What the file has there. */
    this.found = found;
    /** Where it was seen; the message does not repeat it. */
    this.site = site;
  }
}

/** What operating systems say (Node), as our codes. @type {Record<string, ErrorCode>} */
const SYSTEM_CODES = {
  ENOSPC: 'out-of-space',
  EDQUOT: 'out-of-space',
  EFBIG: 'out-of-space',
  EACCES: 'permission-denied',
  EPERM: 'permission-denied',
  EROFS: 'permission-denied',
  EBUSY: 'in-use',
  ETXTBSY: 'in-use',
  // A lease, as Samba takes one for its clients.
  EAGAIN: 'in-use',
  ENOMEM: 'out-of-memory',
};

/** What browsers say, as our codes. @type {Record<string, ErrorCode>} */
const BROWSER_CODES = {
  QuotaExceededError: 'out-of-space',
  NotAllowedError: 'permission-denied',
  SecurityError: 'permission-denied',
  NoModificationAllowedError: 'in-use',
  InvalidModificationError: 'in-use',
};

/**
 * Whatever was thrown, as a {@link CompactorError}. `fallback` is the code for what says nothing of
 * itself: what failed while reading is "read-failed", while writing "write-failed".
 *
 * @param {unknown} thrown
 * @param {ErrorCode} fallback
 * @returns {CompactorError}
 */
export function asCompactorError(thrown, fallback = 'internal') {
  if (thrown instanceof CompactorError) return thrown;
  const error = /** @type {Partial<CompactorError>} */ (
    thrown !== null && typeof thrown === 'object' ? thrown : { message: String(thrown) }
  );
  const message = error.message ?? String(thrown);
  if (error.name === 'CompactorError' && typeof error.code === 'string') {
    // Made by the engine, or in another realm.
    const { expected = null, found = null, site = null } = error;
    return new CompactorError(/** @type {ErrorCode} */ (error.code), message, { expected, found, site, cause: thrown });
  }
  if (typeof WebAssembly !== 'undefined' && thrown instanceof WebAssembly.RuntimeError) {
    return new CompactorError('internal', `the engine stopped: ${message}`, { cause: thrown });
  }
  if (thrown instanceof RangeError && /memory|allocation|array buffer|invalid typed array length/i.test(message)) {
    return new CompactorError('out-of-memory', message, { cause: thrown });
  }
  const code =
    (typeof error.code === 'string' && SYSTEM_CODES[error.code]) ||
    (error.name && BROWSER_CODES[error.name]) ||
    (fallback === 'read-failed' && /^(NotReadable|NotFound)Error$/.test(error.name ?? '') && 'source-changed') ||
    fallback;
  return new CompactorError(/** @type {ErrorCode} */ (code), message, { cause: thrown });
}
