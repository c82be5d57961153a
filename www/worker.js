/**
 * The worker: holds one opened image and at most one running job, and does everything heavy. The
 * job hands control back to the event loop between its steps, so that a cancel gets in.
 */

import { CompactorError, DownloadSink, FileSource, PickerSink, load, open, verify } from '../lib/index.web.js';
import { compareFiles } from './compare-files.js';
import { findingsFor } from './findings.js';
import { learnPace, paceOf } from './pace.js';
import { toSquares } from './squares.js';
import { StagedSink } from './staged-sink.js';

/** @import { Calls, Choices, Destination, Estimated, Failure, Request, Told, View } from './types.js' */
/** @import { OpenImage } from '../lib/index.web.js' */
/** @import { Job } from '../lib/types.js' */

const PROGRESS_EVERY_MS = 100;
const MAP_EVERY_MS = 250;
const TICK_EVERY_MS = 500;

/** @type {OpenImage | null} */
let image = null;
/** @type {Job<any> | null} */
let job = null;
/** The walk that confirms what is free, while nothing else goes on. @type {Job<void> | null} */
let checking = null;
/** @type {View | null} */
let view = null;

/** @type {{ [K in keyof Calls]: (...args: Parameters<Calls[K]>) => ReturnType<Calls[K]> | Promise<ReturnType<Calls[K]>> }} */
const calls = {
  async open(file, parents, choices) {
    image?.close();
    image = null;
    await theEngine();
    image = await open(file, { ...choices, parents: asSources(parents) });
    return image.report;
  },

  async check(choices) {
    const opened = theImage();
    if (opened.checked) return opened.inspect(choices);
    checking = opened.check();
    try {
      await checking.result;
    } catch (error) {
      // A run goes on with it as its own first step.
      if (error instanceof CompactorError && error.code === 'cancelled') return null;
      throw error;
    } finally {
      checking = null;
    }
    return opened === image ? opened.inspect(choices) : null;
  },

  estimates(variants) {
    const opened = theImage();
    return Object.fromEntries(Object.entries(variants).map(([name, choices]) => [name, estimateOf(opened, choices)]));
  },

  blockMap: ({ cells, capacity, isPacked }, choices) =>
    toSquares(theImage().blockMap(cells, choices), capacity, isPacked),

  async compact(destination, choices) {
    const sink = sinkFor(destination);
    Object.assign(sink.rates, await paceOf(sink.kind));
    const opened = theImage();
    checking?.cancel();
    await checking?.result.catch(() => {});
    const findings = findingsFor(opened.sources, choices);
    const running = opened.compact(sink, { ...choices, findings });
    const report = await follow(running).catch(differenceAs('reads-differently'));
    await findings.forget();
    await learnPace(sink.kind, running.rates);
    return { report, blob: sink instanceof PickerSink ? null : sink.blob };
  },

  async verify(original, compacted, parents, choices) {
    await theEngine();
    const comparison = await verify(original, compacted, { ...choices, parents: asSources(parents) });
    return follow(comparison).catch(differenceAs('not-the-same'));
  },

  sameBytes: (made, saved) => compareFiles(made, saved, (done, total) => send({ event: 'compared', done, total })),

  watch(wanted) {
    view = wanted;
  },

  cancel() {
    job?.cancel();
  },
};

/** What may come in while a call is under way; every other call waits for the one before it. */
const AT_ONCE = new Set(['watch', 'cancel', 'check']);
/** @type {Promise<void>} */
let previous = Promise.resolve();

self.addEventListener('message', ({ data }) => {
  const request = /** @type {Request} */ (data);
  if (AT_ONCE.has(request.call)) void answer(request);
  else previous = previous.then(() => answer(request));
});

/** @param {Request} request */
async function answer({ id, call, args }) {
  try {
    const value = await /** @type {(...args: any[]) => unknown} */ (calls[call])(...args);
    self.postMessage({ id, value });
  } catch (error) {
    self.postMessage({ id, failure: asFailure(error) });
  }
}

/** @param {Destination} destination */
function sinkFor(destination) {
  switch (destination.kind) {
    case 'folder':
      return new PickerSink(destination.handle);
    case 'download':
      return new DownloadSink(destination.name);
    case 'staged':
      return new StagedSink(destination.name, destination.stagedName);
  }
}

/** @param {File[]} files */
const asSources = (files) => files.map((file) => new FileSource(file));

/** The engine is a file of its own: after a new version was put up, an old page may not find it any more. */
async function theEngine() {
  try {
    await load();
  } catch (error) {
    /** @type {Failure} */
    const failure = { code: 'page-incomplete', message: String(error), site: null };
    throw failure;
  }
}

function theImage() {
  if (!image) throw new Error('no image is open');
  return image;
}

/**
 * @param {OpenImage} opened
 * @param {Choices} choices
 * @returns {Estimated}
 */
function estimateOf(opened, choices) {
  try {
    return { estimate: opened.estimate(choices) };
  } catch (error) {
    if (error instanceof CompactorError && error.code !== 'internal') return { refused: error.message };
    throw error;
  }
}

/**
 * Tells the main thread how a job goes until it ends.
 * @template T
 * @param {Job<T>} started
 * @returns {Promise<T>}
 */
async function follow(started) {
  job = started;
  let progressAt = 0;
  let mapAt = 0;
  let logged = 0;
  let phase = '';

  const tell = (/** @type {boolean} */ always) => {
    const now = performance.now();
    const entered = started.progress.phase !== phase;
    phase = started.progress.phase;
    if (always || entered || now - progressAt >= PROGRESS_EVERY_MS) {
      progressAt = now;
      send({ event: 'progress', progress: started.progress, percent: started.percentComplete });
    }
    if (view && (entered || now - mapAt >= MAP_EVERY_MS)) {
      mapAt = now;
      const map = started.blockMap(view.cells);
      if (map) send({ event: 'map', map: toSquares(map, view.capacity, view.isPacked) });
    }
    if (started.log.length > logged) {
      send({ event: 'log', entries: started.log.slice(logged) });
      logged = started.log.length;
    }
  };

  // A phase that tells nothing goes on by the clock.
  const ticking = setInterval(() => tell(true), TICK_EVERY_MS);
  started.addEventListener('progress', () => tell(false));
  started.addEventListener('state', () => tell(true));
  try {
    const result = await started.result;
    tell(true);
    return result;
  } finally {
    clearInterval(ticking);
    job = null;
  }
}

/** @param {Told} told */
function send(told) {
  self.postMessage(told);
}

/**
 * A difference is told in other words where a person gave both images.
 * @param {Failure['code']} code
 */
function differenceAs(code) {
  return (/** @type {unknown} */ error) => {
    const differs = error instanceof CompactorError && error.code === 'differs';
    throw differs ? { ...asFailure(error), code } : error;
  };
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
function asFailure(error) {
  if (isFailure(error)) {
    const { code, message, site, expected, found } = error;
    return { code, message, site, expected, found };
  }
  return { code: 'internal', message: error instanceof Error ? error.message : String(error), site: null };
}

/**
 * @param {any} error
 * @returns {error is Failure}
 */
const isFailure = (error) => typeof error?.code === 'string' && typeof error.message === 'string';
