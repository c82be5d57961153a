/**
 * What both hosts share: opening, compacting and verifying, over the wasm engine.
 *
 * @typedef {import('./types.js').ImageSource} ImageSource
 * @typedef {import('./types.js').Sink} Sink
 * @typedef {import('./types.js').Options} Options
 * @typedef {import('./types.js').CompactReport} CompactReport
 * @typedef {import('./types.js').VerifyReport} VerifyReport
 * @typedef {import('./job.js').Control} Control
 * @typedef {typeof import('../pkg/vhd_compactor.js')} Engine
 * @typedef {{ done: number, total: number, finished: boolean }} Progress
 */

import { CompactorError, asCompactorError } from './errors.js';
import { Job } from './job.js';
import { forEngine } from './options.js';

/** How many bytes a step of the engine reads at most, about: a fraction of a second on a slow disk. */
const STEP = 8 * 1024 * 1024;
/** A picked disk of a legacy split set: `disk.v01`, `disk.v02`, … */
const SPLIT_SET = /\.v\d\d$/i;
/** How often a scan's findings are kept, in milliseconds. */
const FINDINGS_EVERY = 5000;

/** Bytes a second that a phase makes where nothing better is known: in a browser, on a laptop of two cores. */
const RATES = { check: 200e6, scan: 300e6, write: 400e6, finish: 2000e6, verify: 2000e6 };

/** What the walk over all owners reads of an ordinary disk, until it tells itself. */
const CHECKED_BYTES = 20 * 1024 * 1024;

/**
 * An image that was opened and analysed. Only its metadata was read. What its file systems call free is good
 * for an estimate at once; before anything is dropped, `check` walks the owners of what they hold.
 */
export class OpenImage {
  #engine;
  #image;
  #sources;
  #checked = false;
  #options;

  /**
   * @param {Engine} engine
   * @param {ImageSource} source
   * @param {Options} options
   */
  constructor(engine, source, options) {
    const parents = options.parents ?? [];
    for (const file of [source, ...parents]) refuseSplitSet(file);
    this.#engine = engine;
    this.#sources = [source, ...parents];
    this.#options = options;
    this.#image = attempt(() => engine.OpenImage.open(source, parents, options.trustParent), 'read-failed');
    this.report = attempt(() => this.#image.report(forEngine(options)));
  }

  /** The files: the image first, then its parents as they were given. */
  get sources() {
    return this.#sources;
  }

  /** Whether the free space is confirmed. */
  get checked() {
    return this.#checked;
  }

  /**
   * Confirms the free space by a walk over everything that owns some. A compaction does so by itself.
   *
   * @returns {Job<void>}
   */
  check() {
    return new Job((control) => this.#check(control));
  }

  /** @param {Options} [options] */
  inspect(options = {}) {
    return attempt(() => this.#image.report(forEngine(options)), 'read-failed');
  }

  /** @param {Options} [options] */
  estimate(options = {}) {
    return attempt(() => this.#image.estimate(forEngine(options)), 'read-failed');
  }

  /**
   * @param {number} cells
   * @param {Options} [options]
   */
  blockMap(cells, options = {}) {
    return picture(attempt(() => this.#image.blockMap(forEngine(options), cells), 'read-failed'));
  }

  /**
   * @param {Sink} sink
   * @param {Options} [options]
   * @returns {Job<CompactReport>}
   */
  compact(sink, options = {}) {
    const { verify = true } = options;
    return new Job((control) => this.#compact(control, sink, options, verify));
  }

  /** Lets go of the memory and of the files. */
  close() {
    this.#image.free();
    for (const source of this.#sources) source.close?.();
  }

  /** What a sink may know. @returns {import('./types.js').Opened} */
  #opened() {
    return {
      sources: this.#sources,
      report: this.report,
      identify: (source) => {
        const other = this.#engine.OpenImage.open(source, []);
        try {
          return other.report({});
        } finally {
          other.free();
        }
      },
    };
  }

  /** @param {Control} control */
  async #check(control) {
    if (this.#checked) return;
    control.phase('check', 0);
    await step(control, (budget) => this.#image.checkStep(budget));
    this.#checked = true;
    this.report = this.inspect(this.#options);
  }

  /**
   * @param {Control} control
   * @param {Sink} sink
   * @param {Options} options
   * @param {boolean} verify
   * @returns {Promise<CompactReport>}
   */
  async #compact(control, sink, options, verify) {
    const started = performance.now();
    const [source] = this.#sources;
    control.log('info', `Opened ${source.name}: ${source.size} bytes.`);
    await attemptAsync(() => sink.prepare?.(this.#opened()), 'write-failed');
    // How large it gets is known roughly by now, and exactly once everything was looked at.
    const { outputSize } = this.estimate(options);
    const looked = options.mode === 'quick' ? 0 : outputSize;
    const rates = ratesOf(sink);
    control.expect([
      ...(this.#checked ? [] : [expected('check', CHECKED_BYTES, rates.check)]),
      expected('scan', looked, rates.scan),
      ...savingOf(sink, outputSize, verify),
    ]);
    await unchanged(this.#sources, () => this.#check(control));
    const compaction = attempt(() => this.#image.compact(forEngine(options)), 'read-failed');
    try {
      control.picture = (cells) => picture(compaction.blockMap(cells));
      const foresee = () => control.expect(savingOf(sink, compaction.foreseenSize, verify));
      await unchanged(this.#sources, () => scan(control, compaction, this.#sources, options.findings, foresee));
      const outcome = attempt(() => compaction.layOut(), 'read-failed');
      logOutcome(control, outcome, source.size);
      /** @type {CompactReport} */
      const report = {
        input: source.name,
        output: null,
        inputSize: source.size,
        ...outcome,
        verified: false,
        verification: null,
        bytesRead: compaction.bytesRead,
        bytesWritten: 0,
        elapsedMs: 0,
      };
      if (outcome.nothingToGain) {
        report.outputSize = source.size;
        control.log('info', 'There is nothing to gain: the image is as small as it can be. Nothing was written.');
      } else {
        await this.#save(control, compaction, sink, report, verify);
      }
      report.elapsedMs = Math.round(performance.now() - started);
      return report;
    } finally {
      control.picture = null;
      compaction.free();
    }
  }

  /**
   * @param {Control} control
   * @param {import('../pkg/vhd_compactor.js').Compaction} compaction
   * @param {Sink} sink
   * @param {CompactReport} report
   * @param {boolean} verify
   */
  async #save(control, compaction, sink, report, verify) {
    control.expect(savingOf(sink, report.outputSize, verify));
    try {
      await attemptAsync(() => sink.begin(report.outputSize, this.#sources, { verify }), 'write-failed');
      await unchanged(this.#sources, async () => {
        await write(control, compaction, sink, this.#sources, report);
        if (verify && !sink.isSavedFirst) await verifySink(control, compaction, sink, report);
      });
      control.check();
      control.phase('finish', report.outputSize);
      await attemptAsync(() => sink.commit(), 'write-failed');
      control.advance(report.outputSize);
      if (verify && sink.isSavedFirst) {
        await unchanged(this.#sources, () => verifySink(control, compaction, sink, report));
      }
      report.output = sink.name ?? null;
      control.log('info', `Wrote ${report.outputSize} bytes${sink.name ? ` to ${sink.name}` : ''}.`);
      if (!report.verified) control.log('warning', 'The result was not verified.');
    } catch (thrown) {
      // Report the original failure; ignore errors while cleaning up.
      await Promise.resolve(sink.abort()).catch(() => {});
      throw thrown;
    }
  }
}

/** What is known of each phase: by the sink, or else in general. @param {Sink} sink */
const ratesOf = (sink) => ({ ...RATES, ...sink.rates });

/**
 * What saving takes by this sink, in the order in which it goes.
 *
 * @param {Sink} sink
 * @param {number} size
 * @param {boolean} verify
 * @returns {[import('./types.js').JobPhase, import('./forecast.js').Expected][]}
 */
function savingOf(sink, size, verify) {
  const rates = ratesOf(sink);
  const proof = verify ? [expected('verify', size, rates.verify)] : [];
  const finish = expected('finish', size, rates.finish);
  return [expected('write', size, rates.write), ...(sink.isSavedFirst ? [finish, ...proof] : [...proof, finish])];
}

/**
 * @param {import('./types.js').JobPhase} phase
 * @param {number} bytes
 * @param {number} rate
 * @returns {[import('./types.js').JobPhase, import('./forecast.js').Expected]}
 */
const expected = (phase, bytes, rate) => [phase, { bytes, rate }];

/**
 * Compares an original with its compacted image.
 *
 * @param {Engine} engine
 * @param {ImageSource} original
 * @param {ImageSource} compacted
 * @param {Options} options
 * @returns {Job<VerifyReport>}
 */
export function verifyImages(engine, original, compacted, options = {}) {
  return new Job(async (control) => {
    const started = performance.now();
    const parents = options.parents ?? [];
    const sources = [original, compacted, ...parents];
    try {
      control.log('info', `Comparing ${original.name} with ${compacted.name}.`);
      const verification = await unchanged(sources, () =>
        compareImages(control, () => engine.Comparison.open(original, compacted, parents, forEngine(options))),
      );
      return {
        original: original.name,
        compacted: compacted.name,
        originalSize: original.size,
        compactedSize: compacted.size,
        verified: true,
        verification,
        elapsedMs: Math.round(performance.now() - started),
      };
    } finally {
      for (const source of sources) source.close?.();
    }
  });
}

/**
 * @param {Control} control
 * @param {import('../pkg/vhd_compactor.js').Compaction} compaction
 * @param {ImageSource[]} sources
 * @param {import('./types.js').Findings | undefined} findings
 * @param {() => void} foresee says what is expected to follow, as it gets clearer
 */
async function scan(control, compaction, sources, findings, foresee) {
  control.phase('scan', 0);
  const look = (/** @type {number} */ budget) => {
    const progress = compaction.scanStep(budget);
    foresee();
    return progress;
  };
  if (!findings) {
    await step(control, look);
    return;
  }
  // Names, sizes and times: a file that was changed since has findings of another name.
  const files = sources.map(({ name, size, lastModified }) => `${name} ${size} ${lastModified ?? ''}`).join('\n');
  const kept = await findings.load();
  if (kept && compaction.resumeFindings(files, kept)) {
    control.log('info', 'Going on where the last run of the same job stopped.');
  }
  let saved = performance.now();
  const keep = async () => {
    const bytes = compaction.saveFindings(files);
    // What cannot be kept costs time in a repeat, and nothing else.
    if (bytes) await findings.save(bytes).catch(() => {});
  };
  try {
    await step(control, (budget) => {
      const progress = look(budget);
      if (progress.finished || performance.now() - saved < FINDINGS_EVERY) return progress;
      saved = performance.now();
      return keep().then(() => progress);
    });
  } finally {
    await keep();
  }
}

/**
 * @param {Control} control
 * @param {() => import('../pkg/vhd_compactor.js').Comparison} open
 */
async function compareImages(control, open) {
  const comparison = attempt(open, 'read-failed');
  try {
    control.phase('verify', 0);
    await step(control, (budget) => comparison.step(budget));
    const verification = comparison.report();
    if (!verification) throw new CompactorError('internal', 'a comparison ended without a result');
    control.log('info', `The disks read the same: ${verification.comparedBytes} stored bytes compared.`);
    return verification;
  } finally {
    comparison.free();
  }
}

/**
 * Does something for which sources must stay as they are. Where one does not, that is the reason of whatever came of
 * it, also of a difference.
 *
 * @template T
 * @param {ImageSource[]} sources
 * @param {() => Promise<T>} work
 */
async function unchanged(sources, work) {
  try {
    return await work();
  } finally {
    for (const source of sources) source.check?.();
  }
}

/**
 * Steps the engine to its end, with a turn of the event loop in between.
 *
 * @param {Control} control
 * @param {(budget: number) => Progress | Promise<Progress>} work
 */
async function step(control, work) {
  for (;;) {
    const progress = await attemptAsync(() => work(STEP), 'read-failed');
    control.advance(progress.done, progress.total);
    if (progress.finished) return;
    await control.breathe();
  }
}

/**
 * @param {Control} control
 * @param {import('../pkg/vhd_compactor.js').Compaction} compaction
 * @param {Sink} sink
 * @param {ImageSource[]} sources
 * @param {CompactReport} report
 */
async function write(control, compaction, sink, sources, report) {
  control.phase('write', report.outputSize);
  const largest = sink.largestPiece ?? Infinity;
  let position = 0;
  for (;;) {
    const pieces = attempt(() => compaction.nextPieces(), 'read-failed');
    if (pieces.length === 0) break;
    for (const whole of pieces) {
      for (const piece of split(whole, largest)) {
        const length = pieceLength(piece);
        await attemptAsync(() => sink.write(piece, position, sources), 'write-failed');
        position += length;
        if (piece.kind === 'source') report.bytesRead += length;
        control.advance(position);
        await control.breathe();
      }
    }
  }
  if (position !== report.outputSize) {
    throw new CompactorError('internal', `the new image came out at ${position} bytes instead of ${report.outputSize}`);
  }
  report.bytesWritten = position;
}

/**
 * @param {Control} control
 * @param {import('../pkg/vhd_compactor.js').Compaction} compaction
 * @param {Sink} sink
 * @param {CompactReport} report
 */
async function verifySink(control, compaction, sink, report) {
  const written = await attemptAsync(() => sink.readBack(), 'write-failed');
  if (!written) return;
  try {
    control.phase('verify', report.outputSize);
    const told = (/** @type {number} */ done) => {
      control.advance(done);
      return control.breathe();
    };
    await attemptAsync(() => sink.compare?.(told), 'read-failed');
    try {
      compaction.startVerification(written, sink.composed ?? false);
    } catch (thrown) {
      // It is not the source that is corrupt, or no image.
      const error = asCompactorError(thrown, 'write-failed');
      const isOwn = ['write-failed', 'internal', 'out-of-memory'].includes(error.code);
      const message = `what was written is not what it should be: ${error.message}`;
      throw new CompactorError(isOwn ? error.code : 'differs', message, {
        expected: error.expected,
        found: error.found,
        site: error.site,
        cause: thrown,
      });
    }
    await step(control, (budget) => {
      const progress = compaction.verificationStep(budget);
      // After a comparison of the whole file the bar is at its end: following the tables takes a moment.
      return sink.compare ? { ...progress, done: report.outputSize, total: report.outputSize } : progress;
    });
    report.verification = compaction.verification() ?? null;
    report.verified = report.verification !== null;
    if (report.verification) {
      const { comparedBytes, tracedBytes, zeroBytes } = report.verification;
      control.log(
        'info',
        `Verified: ${tracedBytes} stored bytes are the source's own, ${comparedBytes} were read in both images and are ` +
          `the same, ${zeroBytes} were left out as zero; volumes and free space are the same in the new image.`,
      );
    }
  } finally {
    written.close?.();
  }
}

/**
 * @param {Control} control
 * @param {import('../pkg/vhd_compactor.js').CompactOutcome} outcome
 * @param {number} inputSize
 */
function logOutcome(control, outcome, inputSize) {
  const { kept, omitted } = outcome.blocks;
  control.log(
    'info',
    `Blocks: ${kept} kept; omitted ${omitted.zero} zero, ${omitted.free} free, ${omitted.equalToParent} equal to the ` +
      `parent; ${omitted.absent} were never stored.`,
  );
  for (const dropped of outcome.dropped) {
    control.log('info', `${dropped.bytes} free bytes of ${dropped.place} (${dropped.fileSystem}) dropped.`);
  }
  for (const warning of outcome.warnings) control.log('warning', warning.message);
  control.log('info', `Size: ${inputSize} bytes before, ${outcome.outputSize} bytes after.`);
}

/**
 * Cuts a piece into parts of at most `largest` bytes, so that progress moves and a cancel is heard.
 *
 * @param {import('./types.js').Piece} piece
 * @param {number} largest
 * @returns {Iterable<import('./types.js').Piece>}
 */
function* split(piece, largest) {
  if (piece.kind !== 'source') {
    yield piece;
    return;
  }
  for (let start = piece.start; start < piece.end; start += largest) {
    yield { ...piece, start, end: Math.min(piece.end, start + largest) };
  }
}

/** @param {import('./types.js').Piece} piece */
function pieceLength(piece) {
  if (piece.kind === 'source') return piece.end - piece.start;
  return piece.kind === 'zeros' ? piece.length : piece.bytes.length;
}

/**
 * @param {{ cells: number[], classes: number, blocksPerCell: number }} map
 * @returns {import('./types.js').BlockMap}
 */
function picture({ cells, classes, blocksPerCell }) {
  return { cells: Float64Array.from(cells), classes, blocksPerCell };
}

/** @param {ImageSource} source */
function refuseSplitSet(source) {
  if (SPLIT_SET.test(source.name)) {
    throw new CompactorError(
      'unsupported',
      `${source.name} is part of a split VHD set (.vhd, .v01, .v02, …), which is not handled; join its parts first`,
    );
  }
}

/**
 * @template T
 * @param {() => T} call
 * @param {import('./types.js').ErrorCode} [fallback]
 * @returns {T}
 */
function attempt(call, fallback = 'internal') {
  try {
    return call();
  } catch (thrown) {
    throw asCompactorError(thrown, fallback);
  }
}

/**
 * @template T
 * @param {() => Promise<T> | T} call
 * @param {import('./types.js').ErrorCode} fallback
 * @returns {Promise<T>}
 */
async function attemptAsync(call, fallback) {
  try {
    return await call();
  } catch (thrown) {
    throw asCompactorError(thrown, fallback);
  }
}
