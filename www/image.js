/**
 * One image on the page: its file, what is known of it, and its life from being read to being done.
 *
 *   reading ─► ready ─► waiting ─► running ─► done | nothing
 *      │         ▲          └─────────┴─────► ready (cancelled) | failed
 *      └─► needs-parent | failed
 */

import { Engine, EngineError, asEngineError } from './bridge.js';
import { assumed, defaultChoices, mustAskDynamic, variants } from './choices.js';
import { diagnose } from './diagnose.js';
import { atRest, inUse } from './engines.js';
import { cellsFor, isMostlyAbsent } from './squares.js';

/** @import { BlockMap, Choices, CompactReport, Destination, Estimated, InspectReport, JobProgress, LogEntry, Picked } from './types.js' */
/** @import { Missing } from './chain.js' */

/** @typedef {'reading'|'needs-parent'|'ready'|'waiting'|'running'|'done'|'nothing'|'failed'} State */
/**
 * A new image. One in a folder is saved; one that was handed to the browser is made, and whether it was saved
 * this page cannot know, unless the saved file was compared with it.
 * @typedef {{ report: CompactReport, blob: Blob | null, name: string, place: string | null, isChecked: boolean, release: () => Promise<void> }} Outcome
 */

/** How long a worker may take to stop before it is ended. */
const CANCEL_GRACE_MS = 350;
const SLOW_CLEARING_MS = 400;
/** How long a card waits for its picture: that of a huge disk comes later. */
const MAP_PATIENCE_MS = 250;
/** For a card that is folded while it runs: when it is opened there is something to see. */
const USUAL_CAPACITY = 1200;

let nextId = 1;

/** @param {number} ms */
const after = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/**
 * Events: `state` (the state or what belongs to it changed), `estimate`, `map`, `progress`, `clearing`, `saved`.
 */
export class DiskImage extends EventTarget {
  /** @type {State} */
  state = 'reading';
  /** @type {InspectReport | null} */
  report = null;
  /** @type {EngineError | null} */
  error = null;
  /** @type {DiskImage[]} nearest first */
  parents = [];
  /** @type {Missing | null} */
  missing = null;
  /** Whether the person said that there is no parent to be had. */
  goesAlone = false;
  /** Whether other images on the page are built upon this one. */
  hasChildren = false;
  /** @type {Choices} */
  choices = defaultChoices();
  /** @type {Record<string, Estimated>} what each answer to each choice would give */
  estimates = {};
  /** @type {BlockMap | null} */
  map = null;
  /** @type {{ progress: JobProgress, percent: number } | null} */
  progress = null;
  /** @type {LogEntry[]} */
  log = [];
  /** @type {Outcome | null} */
  outcome = null;
  wasCancelled = false;
  /** How wide its picture is, or will be, in pixels; 0 while nobody knows. */
  mapWidth = 0;
  /** Whether the browser still holds the new file that was given up. */
  isClearing = false;

  /** @type {Engine | null} */
  #engine = null;
  /** @type {Promise<{ engine: Engine, report: InspectReport }> | null} */
  #started = null;
  /** How many squares the picture has room for; a card that was never open has none yet. */
  #capacity = 0;
  #estimateTurn = 0;
  #mapTurn = 0;
  #isLookedAt = false;
  #isChecked = false;
  /** @type {symbol | null} */
  #ticket = null;
  #cancelAsked = false;

  /** @param {Picked} picked */
  constructor({ file, handle }) {
    super();
    this.id = nextId++;
    this.file = file;
    this.handle = handle;
    this.name = file.name;
  }

  get isBusy() {
    return this.state === 'waiting' || this.state === 'running';
  }

  /** The estimate of the present choices. */
  get estimate() {
    return this.estimateOf('now');
  }

  /**
   * What one answer to one choice would give; null where it cannot be had.
   * @param {string} variant
   */
  estimateOf(variant) {
    const estimated = this.estimates[variant];
    return estimated && 'estimate' in estimated ? estimated.estimate : null;
  }

  /** Whether it is known what each answer to each choice would give. */
  get knowsAlternatives() {
    if (!this.report) return false;
    return Object.keys(variants(this.report, this.choices, this.parents.length > 0)).every(
      (name) => !this.isOpen(name),
    );
  }

  /**
   * Whether that is still being worked out.
   * @param {string} variant
   */
  isOpen(variant) {
    return this.estimates[variant] === undefined;
  }

  /** How far the run is, of 100; null where none goes on. */
  get percent() {
    return this.state === 'running' ? (this.progress?.percent ?? 0) : null;
  }

  /** Why the present choices cannot be had, where that is so. */
  get refused() {
    const { now } = this.estimates;
    return now && 'refused' in now ? now.refused : null;
  }

  /** Why the image cannot be saved now, in a word for the page; null when it can. */
  get hindrance() {
    if (this.state !== 'ready') return 'state';
    if (this.report && mustAskDynamic(this.report, this.choices)) return 'dynamic-question';
    return this.estimate ? null : 'estimate';
  }

  /** Reads the image's tables, with its parents once they are known. */
  async read() {
    this.#enter('reading');
    try {
      // A handle gives the file as it is now, also when it changed since it was dropped.
      if (this.handle) this.file = await this.handle.getFile().catch(() => this.file);
      this.report = (await this.#start()).report;
      const { parent } = this.report;
      if (parent && !parent.found && !parent.raw && !this.goesAlone) {
        this.#enter('needs-parent');
        return;
      }
      await this.#estimateNow();
      await Promise.race([this.#fetchMap(), after(MAP_PATIENCE_MS)]);
      this.#enter('ready');
      if (this.#isLookedAt) void this.#workOutTheRest();
    } catch (error) {
      await this.#fail(error);
    }
  }

  /** Reads the image once more, after a failure. */
  retry() {
    this.error = null;
    return this.read();
  }

  /** Takes a person's word that nothing was written to a parent whose time is another than its child noted. */
  trustParent() {
    this.choices = { ...this.choices, trustParent: true };
    return this.retry();
  }

  /** Goes on with what a differencing image tells by itself. */
  goAlone() {
    this.goesAlone = true;
    return this.read();
  }

  /** The card was opened or folded: what only an open card shows is worked out for an open one. */
  look(/** @type {boolean} */ isOpen) {
    const wasOpen = this.#isLookedAt;
    this.#isLookedAt = isOpen;
    if (isOpen && !wasOpen && this.state === 'ready') void this.#workOutTheRest();
  }

  /** Whether what is free is confirmed by now: until then the estimate is what the file systems say. */
  get isChecked() {
    return this.#isChecked;
  }

  /** What need not be there at first sight: the alternatives, and whether what is free is confirmed. */
  async #workOutTheRest() {
    await this.#estimateOthers();
    if (this.#isChecked || this.state !== 'ready') return;
    try {
      const engine = await this.#openEngine();
      const report = await engine.call('check', this.choices);
      if (!report || this.state !== 'ready') return;
      this.#isChecked = true;
      const declined = (/** @type {InspectReport | null} */ one) =>
        JSON.stringify(one?.volumes.map((volume) => volume.declined));
      const changed = declined(report) !== declined(this.report);
      this.report = report;
      if (!changed) {
        this.#tell('estimate');
        return;
      }
      await this.#estimateNow();
      this.#tell('state');
      await this.refreshMap();
      await this.#estimateOthers();
    } catch (error) {
      await this.#fail(error);
    }
  }

  /** Whether its engine may be ended and started again when it is needed. */
  get mayRest() {
    return !this.isBusy && this.state !== 'reading' && (this.#engine?.isIdle ?? false);
  }

  /** Other images turn out to be built upon this one: what keeps them valid becomes the choice. */
  becomeParent() {
    if (this.hasChildren || this.state !== 'ready') return;
    this.hasChildren = true;
    this.choices = { ...this.choices, mode: 'zero' };
    this.#tell('state');
    void this.choose({});
  }

  /** @param {Partial<Choices>} changed */
  async choose(changed) {
    this.choices = { ...this.choices, ...changed };
    try {
      await this.#estimateNow();
      await this.refreshMap();
      await this.#workOutTheRest();
    } catch (error) {
      await this.#fail(error);
    }
  }

  /**
   * Says how many squares the picture of the image has room for.
   * @param {number} capacity
   */
  async wantMap(capacity) {
    if (capacity === this.#capacity) return undefined;
    this.#capacity = capacity;
    if (this.state !== 'running') return this.refreshMap();
    // An engine that ends meanwhile has no map to give.
    return this.#engine?.call('watch', this.#view).catch(() => undefined);
  }

  /** The picture's blocks are those of the new image. */
  get mapBlockSize() {
    return this.outcome?.report.blockSize ?? this.estimate?.blockSize ?? this.report?.blockSize ?? 1;
  }

  get #view() {
    const capacity = this.#capacity || USUAL_CAPACITY;
    const blocks = this.report?.blocks ?? { total: 1, present: 1, partiallyPresent: 0 };
    return { cells: cellsFor(capacity, blocks), capacity, isPacked: isMostlyAbsent(blocks) };
  }

  async refreshMap() {
    if (this.state === 'ready') await this.#fetchMap();
  }

  async #fetchMap() {
    if (!this.report || this.#capacity === 0 || this.refused) return;
    const turn = ++this.#mapTurn;
    try {
      const engine = await this.#openEngine();
      const map = await engine.call('blockMap', this.#view, assumed(this.report, this.choices));
      if (turn === this.#mapTurn) this.#setMap(map);
    } catch (error) {
      await this.#fail(error);
    }
  }

  /** Puts the image in line and returns the ticket for its turn; a cancel makes it void. */
  wait() {
    this.#cancelAsked = false;
    this.wasCancelled = false;
    this.#ticket = Symbol('turn');
    this.#enter('waiting');
    return this.#ticket;
  }

  /**
   * Compacts the image, unless its ticket is void. Whatever happens, the image ends in a state that
   * says so. Returns whether a new image was made.
   * @param {symbol} ticket
   * @param {Destination} destination
   * @param {{ name: string, place: string | null, release: () => Promise<void> }} target `release` lets go of what is kept of it
   */
  async compact(ticket, destination, target) {
    if (ticket !== this.#ticket) return false;
    this.log = [];
    this.progress = null;
    this.#dropOutcome();
    this.#enter('running');
    try {
      const engine = await this.#openEngine();
      await engine.call('watch', this.#view);
      const result = await engine.call('compact', destination, this.choices);
      this.outcome = { ...result, ...target, isChecked: false };
      this.close();
      this.#enter(result.report.nothingToGain ? 'nothing' : 'done');
      return this.state === 'done';
    } catch (error) {
      if (this.#cancelAsked || (error instanceof EngineError && error.code === 'cancelled')) {
        this.#backToReady();
      } else await this.#fail(error);
      return false;
    }
  }

  /** Stops waiting or working; takes effect within half a second. */
  cancel() {
    if (!this.isBusy) return;
    this.#ticket = null;
    this.#cancelAsked = true;
    if (this.state === 'waiting') {
      this.#backToReady();
      return;
    }
    const engine = this.#engine;
    void engine?.call('cancel').catch(() => undefined);
    setTimeout(() => {
      if (this.#cancelAsked && this.state === 'running' && this.#engine === engine) engine?.terminate();
    }, CANCEL_GRACE_MS);
  }

  /**
   * Says that something is still being cleared up, where that takes a while.
   * @param {Promise<void>} cleared
   */
  async clearUp(cleared) {
    const slow = setTimeout(() => this.#setClearing(true), SLOW_CLEARING_MS);
    await cleared;
    clearTimeout(slow);
    if (this.isClearing) this.#setClearing(false);
  }

  /** Back to the choices, with the image as it was read. */
  again() {
    this.#dropOutcome();
    this.error = null;
    if (this.report && this.estimate) this.#backToReady(false);
    else void this.read();
  }

  /** The saved file was compared with the new image, and is the same. */
  setChecked() {
    if (!this.outcome) return;
    this.outcome.isChecked = true;
    this.#tell('saved');
  }

  /** Lets go of everything: the image leaves the page. */
  dispose() {
    this.#dropOutcome();
    this.close();
  }

  #dropOutcome() {
    void this.outcome?.release();
    this.outcome = null;
  }

  /** Ends the engine; another is started when one is needed. */
  close() {
    this.#engine?.terminate();
    this.#engine = null;
    atRest(this);
  }

  #backToReady(cancelled = true) {
    this.#cancelAsked = false;
    this.wasCancelled = cancelled;
    this.#enter('ready');
    void this.refreshMapAfterRun();
  }

  /** The live map showed the run; the picture before the next one starts anew. */
  async refreshMapAfterRun() {
    try {
      await this.#openEngine();
      await this.refreshMap();
      void this.#estimateOthers();
    } catch (error) {
      await this.#fail(error);
    }
  }

  /** First the present choices, which are what a person looks at. */
  async #estimateNow() {
    if (!this.report) return;
    const { now } = variants(this.report, this.choices, this.parents.length > 0);
    await this.#estimate({ now }, ++this.#estimateTurn);
  }

  /** Then the alternatives, which may take a moment for a disk of many terabytes. */
  async #estimateOthers() {
    if (!this.report) return;
    const turn = this.#estimateTurn;
    const all = variants(this.report, this.choices, this.parents.length > 0);
    try {
      // One by one, so that whatever else is asked meanwhile gets its turn.
      for (const [name, choices] of Object.entries(all)) {
        if (name !== 'now' && turn === this.#estimateTurn) await this.#estimate({ [name]: choices }, turn);
      }
    } catch (error) {
      await this.#fail(error);
    }
  }

  /**
   * @param {Record<string, Choices>} wanted
   * @param {number} turn
   */
  async #estimate(wanted, turn) {
    const engine = await this.#openEngine();
    const estimates = await engine.call('estimates', wanted);
    if (turn !== this.#estimateTurn) return;
    this.estimates = { ...this.estimates, ...estimates };
    this.#tell('estimate');
  }

  /** The engine with the image open in it, also after an ended run. */
  async #openEngine() {
    inUse(this);
    const started = !this.#engine || this.#engine.ended || !this.#started ? this.#start() : this.#started;
    return (await started).engine;
  }

  /** Starts an engine that opens the image. A promise that is kept, so that two who need it share one. */
  #start() {
    const engine = this.#freshEngine();
    this.#isChecked = false;
    this.#started = engine
      .call('open', this.file, this.#parentFiles(), this.choices)
      .then((report) => ({ engine, report }));
    return this.#started;
  }

  #freshEngine() {
    this.#engine?.terminate();
    inUse(this);
    const engine = new Engine();
    engine.addEventListener('progress', (event) => {
      this.progress = /** @type {CustomEvent} */ (event).detail;
      this.#tell('progress');
    });
    engine.addEventListener('map', (event) => this.#setMap(/** @type {CustomEvent} */ (event).detail.map));
    engine.addEventListener('log', (event) => this.log.push(.../** @type {CustomEvent} */ (event).detail.entries));
    this.#engine = engine;
    return engine;
  }

  #parentFiles() {
    return this.parents.map((parent) => parent.file);
  }

  /** @param {BlockMap} map */
  #setMap(map) {
    this.map = map;
    this.#tell('map');
  }

  /** @param {boolean} isClearing */
  #setClearing(isClearing) {
    this.isClearing = isClearing;
    this.#tell('clearing');
  }

  /** @param {State} state */
  #enter(state) {
    this.state = state;
    this.#tell('state');
  }

  /** @param {unknown} thrown */
  async #fail(thrown) {
    // An engine that was ended on purpose is no failure.
    if (thrown instanceof EngineError && thrown.code === 'cancelled') return;
    const error = asEngineError(thrown);
    error.known = await diagnose(error, [this.file, ...this.#parentFiles()]);
    this.error = error;
    this.#enter('failed');
  }

  /** @param {string} type */
  #tell(type) {
    this.dispatchEvent(new Event(type));
  }
}
