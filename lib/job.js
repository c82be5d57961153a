/**
 * A job: something that takes a while, that can be watched, and that can be cancelled.
 *
 * ```text
 *   queued ──► running ──► completed
 *                 │  └───► failed      (the promise rejects with a CompactorError)
 *                 └──────► cancelled   (the same, with code "cancelled")
 * ```
 *
 * @typedef {import('./types.js').JobState} JobState
 * @typedef {import('./types.js').JobPhase} JobPhase
 * @typedef {import('./types.js').JobProgress} JobProgress
 * @typedef {import('./types.js').LogEntry} LogEntry
 */

import { CompactorError, asCompactorError } from './errors.js';
import { Forecast } from './forecast.js';

/** How often progress is told, in milliseconds. */
const TELL_EVERY = 100;
/** How often messages are let in, in milliseconds: a turn of a worker's event loop takes about one. */
const BREATHE_EVERY = 10;

let jobs = 0;

/** @template T */
export class Job extends EventTarget {
  /** @type {JobState} */
  #state = 'queued';
  /** @type {JobProgress} */
  #progress = { phase: 'queued', bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, secondsLeft: null };
  /** @type {LogEntry[]} */
  #log = [];
  #cancelled = false;
  #control;

  /**
   * @param {(control: Control) => Promise<T>} work what to do; it calls `control` as it goes
   */
  constructor(work) {
    super();
    this.id = `job-${++jobs}`;
    this.#control = new Control({
      isCancelled: () => this.#cancelled,
      tell: (progress) => {
        this.#progress = progress;
        this.dispatchEvent(new Event('progress'));
      },
      log: (level, message) => {
        this.#log.push({ time: new Date().toISOString(), level, message });
        this.dispatchEvent(new Event('log'));
      },
    });
    /** @type {Promise<T>} */
    this.result = this.#run(work);
    // Who only watches the state need not handle the promise.
    this.result.catch(() => {});
  }

  get state() {
    return this.#state;
  }

  get progress() {
    // The time left goes on while a phase tells nothing.
    return this.#state === 'running' ? { ...this.#progress, secondsLeft: this.#control.secondsLeft } : this.#progress;
  }

  get percentComplete() {
    return this.#state === 'completed' ? 100 : this.#control.percent;
  }

  /** Bytes a second of each phase that is over: what a sink may say in `rates` the next time. */
  get rates() {
    return this.#control.rates;
  }

  get log() {
    return this.#log;
  }

  /** Stops the job at its next step, within half a second; nothing is left behind. */
  cancel() {
    if (this.#state === 'queued' || this.#state === 'running') this.#cancelled = true;
  }

  /**
   * The disk as a picture, as far as the job knows it by now; null where it has none.
   *
   * @param {number} cells
   * @returns {import('./types.js').BlockMap | null}
   */
  blockMap(cells) {
    return this.#control.picture?.(cells) ?? null;
  }

  /** @param {(control: Control) => Promise<T>} work */
  async #run(work) {
    // The caller gets the job before anything happens, so that no event is missed.
    await breathe();
    try {
      this.#enter('running');
      this.#control.check();
      const result = await work(this.#control);
      this.#control.phase('done', 0);
      this.#enter('completed');
      return result;
    } catch (thrown) {
      const error = asCompactorError(thrown);
      this.#control.log(error.code === 'cancelled' ? 'info' : 'error', error.message);
      this.#enter(error.code === 'cancelled' ? 'cancelled' : 'failed');
      throw error;
    }
  }

  /** @param {JobState} state */
  #enter(state) {
    this.#state = state;
    this.dispatchEvent(new Event('state'));
  }
}

/** What a job's work calls while it goes. */
export class Control {
  /** @type {JobProgress} */
  #now = { phase: 'queued', bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, secondsLeft: null };
  #told = 0;
  #breathed = 0;
  #forecast = new Forecast();
  #hooks;
  /** @type {((cells: number) => import('./types.js').BlockMap) | null} */
  picture = null;

  /**
   * @param {{ isCancelled(): boolean, tell(progress: JobProgress): void, log(level: LogEntry['level'], message: string): void }} hooks
   */
  constructor(hooks) {
    this.#hooks = hooks;
  }

  get percent() {
    return this.#forecast.percent;
  }

  get rates() {
    return this.#forecast.measured;
  }

  /** Of the whole job; null while nobody knows. */
  get secondsLeft() {
    return this.#now.phase === 'queued' ? null : this.#forecast.secondsLeft;
  }

  /**
   * Says what the phases to come are expected to take.
   *
   * @param {[JobPhase, import('./forecast.js').Expected][]} phases
   */
  expect(phases) {
    this.#forecast.expect(phases);
  }

  /**
   * Enters the next phase.
   *
   * @param {JobPhase} phase
   * @param {number} bytesTotal
   */
  phase(phase, bytesTotal) {
    this.#forecast.enter(phase, bytesTotal);
    this.#now = { phase, bytesDone: 0, bytesTotal, bytesPerSecond: 0, secondsLeft: null };
    this.#hooks.tell(this.#now);
  }

  /**
   * Says how far the phase is.
   *
   * @param {number} bytesDone
   * @param {number} [bytesTotal]
   */
  advance(bytesDone, bytesTotal = this.#now.bytesTotal) {
    this.#forecast.advance(bytesDone, bytesTotal);
    const time = performance.now();
    this.#now = { ...this.#now, bytesDone, bytesTotal, bytesPerSecond: this.#forecast.rate };
    if (time - this.#told >= TELL_EVERY || bytesDone >= bytesTotal) {
      this.#told = time;
      this.#hooks.tell(this.#now);
    }
  }

  /**
   * @param {LogEntry['level']} level
   * @param {string} message
   */
  log(level, message) {
    this.#hooks.log(level, message);
  }

  /** Throws where the person cancelled. */
  check() {
    if (this.#hooks.isCancelled()) throw new CompactorError('cancelled', 'cancelled; nothing was written');
  }

  /** Lets messages in (a cancel among them) every now and then, and throws where the person cancelled. */
  async breathe() {
    if (performance.now() - this.#breathed >= BREATHE_EVERY) {
      await breathe();
      this.#breathed = performance.now();
    }
    this.check();
  }
}

/**
 * One turn of the event loop. A resolved promise would not do: a loop of awaits never lets a message
 * in.
 *
 * @returns {Promise<void>}
 */
export function breathe() {
  if (typeof setImmediate === 'function') return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
