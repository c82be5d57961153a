/**
 * One engine: a worker with the WebAssembly in it, behind promises. A fault in one image never
 * reaches another, and an engine that does not answer can simply be ended, since it only reads.
 *
 *   main thread  ── { id, call, args } ──►  worker
 *                ◄── { id, value | failure }
 *                ◄── { event: progress | map | log }
 */

/** @import { Answer, Calls, Failure, Told } from './types.js' */
/** @import { Cause } from './diagnose.js' */

/** A failure as the engine told it, with the engine's stable code. */
export class EngineError extends Error {
  /** @param {Failure} failure */
  constructor({ code, message, site, expected = null, found = null }) {
    super(message);
    this.name = 'EngineError';
    this.code = code;
    this.site = site;
    this.expected = expected;
    this.found = found;
    /** What the file itself tells about it. @type {Cause | null} */
    this.known = null;
  }
}

/**
 * Whatever was thrown, as an error with a code.
 * @param {unknown} thrown
 */
export function asEngineError(thrown) {
  if (thrown instanceof EngineError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new EngineError({ code: 'internal', message, site: null });
}

/** Events: `progress`, `map`, `log`, each a `CustomEvent` with the report as its detail. */
export class Engine extends EventTarget {
  #worker;
  #nextId = 1;
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  #open = new Map();
  #ended = false;

  constructor() {
    super();
    this.#worker = new Worker(new URL('./worker.js', import.meta.url));
    this.#worker.addEventListener('message', (event) => this.#receive(event.data));
    this.#worker.addEventListener('error', (event) => {
      event.preventDefault();
      // Without a message the worker's own file could not be loaded.
      this.#end({
        code: event.message ? 'internal' : 'page-incomplete',
        message: event.message || 'the worker could not be started',
        site: null,
      });
    });
    this.#worker.addEventListener('messageerror', () => {
      this.#end({ code: 'internal', message: 'a message could not be read', site: null });
    });
  }

  get ended() {
    return this.#ended;
  }

  /** Whether nothing is being waited for. */
  get isIdle() {
    return this.#open.size === 0;
  }

  /**
   * @template {keyof Calls} K
   * @param {K} call
   * @param {Parameters<Calls[K]>} args
   * @returns {Promise<ReturnType<Calls[K]>>}
   */
  call(call, ...args) {
    if (this.#ended) {
      return Promise.reject(new EngineError({ code: 'cancelled', message: 'the engine has ended', site: null }));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, args });
    });
  }

  /** Ends the worker at once; whatever is open is rejected as cancelled. */
  terminate() {
    this.#end({ code: 'cancelled', message: 'cancelled', site: null });
  }

  /** @param {Answer | Told} message */
  #receive(message) {
    if ('event' in message) {
      this.dispatchEvent(new CustomEvent(message.event, { detail: message }));
      return;
    }
    const call = this.#open.get(message.id);
    this.#open.delete(message.id);
    if ('failure' in message) call?.reject(new EngineError(message.failure));
    else call?.resolve(message.value);
  }

  /** @param {Failure} failure */
  #end(failure) {
    this.#ended = true;
    this.#worker.terminate();
    for (const { reject } of this.#open.values()) reject(new EngineError(failure));
    this.#open.clear();
  }
}
