/**
 * How far a job is, and how long it takes still, in time and not in bytes: bytes of one phase cost something else
 * than bytes of another, and the ways of saving differ a hundredfold.
 *
 *   percent = time gone / (time gone + time left)
 *   time left = what is left of this phase, at its measured rate
 *             + each phase to come, at the rate that the way of saving is known to have
 *
 * @typedef {import('./types.js').JobPhase} JobPhase
 * @typedef {{ bytes: number, rate: number }} Expected bytes, and bytes a second
 */

/** How many seconds of measuring outweigh what was expected of a phase. */
const PRIOR_SECONDS = 1;
/** What happened in about this many seconds counts most: a disk is not alike everywhere. */
const RECENT_SECONDS = 4;
/** The phase that tells nothing: the browser, or the system, puts the file in its place. */
const SILENT = 'finish';
/** It is not called done before it is. */
const ALMOST = 0.95;
/** What took less than this, in seconds, tells nothing of a rate. */
const WORTH_KNOWING = 0.2;

export class Forecast {
  /** @type {Map<JobPhase, Expected>} in their order */
  #expected = new Map();
  /** @type {JobPhase} */
  #phase = 'queued';
  #done = 0;
  #total = 0;
  #recent = 0;
  #last = { time: 0, bytes: 0 };
  #startedAt;
  #enteredAt;
  #percent = 0;
  /** @type {Partial<Record<JobPhase, number>>} */
  #measured = {};
  #now;

  /** @param {() => number} [now] in milliseconds */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#startedAt = this.#enteredAt = now();
  }

  /**
   * What is expected of the phases to come, in their order; what is known better later replaces it. What was expected of
   * the phase that goes on stays.
   *
   * @param {[JobPhase, Expected][]} phases
   */
  expect(phases) {
    const current = this.#expected.get(this.#phase);
    this.#expected = new Map(current ? [[this.#phase, current], ...phases] : phases);
  }

  /**
   * @param {JobPhase} phase
   * @param {number} total bytes; 0 while they are not known
   */
  enter(phase, total) {
    this.#learn();
    // Phases are entered in their order: what was expected of those before it is over.
    for (const before of [...this.#expected.keys()]) {
      if (before === phase) break;
      if (this.#expected.has(phase)) this.#expected.delete(before);
    }
    this.#expected.delete(this.#phase);
    if (phase === 'done') this.#expected.clear();
    this.#phase = phase;
    this.#total = total || (this.#expected.get(phase)?.bytes ?? 0);
    this.#done = this.#recent = 0;
    this.#enteredAt = this.#now();
    this.#last = { time: this.#enteredAt, bytes: 0 };
  }

  /**
   * @param {number} done bytes of this phase
   * @param {number} total
   */
  advance(done, total) {
    const time = this.#now();
    const seconds = (time - this.#last.time) / 1000;
    if (seconds > 0.2) {
      const current = Math.max(0, done - this.#last.bytes) / seconds;
      const weight = Math.min(1, seconds / RECENT_SECONDS);
      this.#recent = this.#recent === 0 ? current : this.#recent + weight * (current - this.#recent);
      this.#last = { time, bytes: done };
    }
    this.#done = done;
    this.#total = total;
  }

  /** Bytes a second of each phase that is over, as far as it took long enough to tell. */
  get measured() {
    return this.#measured;
  }

  #learn() {
    const seconds = (this.#now() - this.#enteredAt) / 1000;
    const prior = this.#expected.get(this.#phase);
    // That it took next to nothing is worth knowing, too, where it was expected to take long.
    const foreseen = prior ? prior.bytes / prior.rate : 0;
    if (this.#done > 0 && Math.max(seconds, foreseen) >= WORTH_KNOWING) {
      this.#measured[this.#phase] = this.#done / Math.max(seconds, 0.01);
    }
  }

  /** Bytes a second in this phase, lately. */
  get rate() {
    return this.#recent;
  }

  /** Seconds to the end of the job, as well as it can be known. */
  get secondsLeft() {
    let left = this.#secondsOfPhase();
    for (const [phase, { bytes, rate }] of this.#expected) if (phase !== this.#phase) left += bytes / rate;
    return left;
  }

  /** 0 to 100; never back. */
  get percent() {
    const gone = (this.#now() - this.#startedAt) / 1000;
    const left = this.secondsLeft;
    // While nothing is known of the phase, that nothing is left is not known either.
    const isKnown = this.#total > 0 || this.#expected.has(this.#phase) || this.#phase === 'done';
    if (isKnown && gone + left > 0) this.#percent = Math.max(this.#percent, (100 * gone) / (gone + left));
    return Math.min(99.9, this.#percent);
  }

  #secondsOfPhase() {
    const elapsed = (this.#now() - this.#enteredAt) / 1000;
    const prior = this.#expected.get(this.#phase);
    if (this.#done === 0 && prior) {
      const whole = prior.bytes / prior.rate;
      // What tells nothing goes by the clock; what only tells nothing yet may take as long again as it did.
      return Math.max(whole - elapsed, this.#phase === SILENT ? whole * (1 - ALMOST) : elapsed);
    }
    if (this.#total <= this.#done) return 0;
    const overall = prior
      ? (this.#done + prior.rate * PRIOR_SECONDS) / (elapsed + PRIOR_SECONDS)
      : this.#done / Math.max(elapsed, 0.001);
    if (overall <= 0) return elapsed;
    const left = this.#total - this.#done;
    // Between what it took on the whole and what it takes lately: times are averaged, since a slow stretch counts more.
    return this.#recent > 0 ? (left / overall + left / this.#recent) / 2 : left / overall;
  }
}
