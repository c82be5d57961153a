/**
 * What a test program printed, as counts. Every test is exactly one of passed, failed and skipped; a
 * skipped one has a name and a reason.
 */

/**
 * @typedef {object} Skip
 * @property {string} name
 * @property {string} why
 * @property {boolean} [excused] set-up cannot help it: an image that others made, a test that is left out on purpose
 */
/** @typedef {{ passed: number, failed: number, skipped: Skip[] }} Counts */

/** @type {(counts: Partial<Counts>) => Counts} */
export const counts = (given) => ({ passed: 0, failed: 0, skipped: [], ...given });

/** The sum of several counts. */
export const sum = (/** @type {Counts[]} */ all) =>
  all.reduce(
    (total, one) => ({
      passed: total.passed + one.passed,
      failed: total.failed + one.failed,
      skipped: [...total.skipped, ...one.skipped],
    }),
    counts({}),
  );

/**
 * The output of `cargo test -- --show-output` or of `wasm-pack test`. A test that lacks a tool returns
 * early and prints `skipped: <test name>: <why>`; the harness calls that passed and shows the line in the
 * test's own section:
 *
 *   test fs::maps_ext4 ... ok
 *   ---- fs::maps_ext4 stdout ----
 *   skipped: fs::maps_ext4: mkfs.ext4 is not installed
 *   test result: ok. 1 passed; 0 failed; 0 ignored; …
 * @param {string} output @returns {Counts}
 */
export function ofCargo(output) {
  const total = counts({});
  let program = newProgram();
  for (const line of output.split('\n')) {
    const section = /^---- (\S+) (?:stdout|output) ----$/.exec(line);
    // Written past the harness it may stand behind `test fs::maps_ext4 ... `.
    const skip = /(?:^|\.\.\. )skipped: ((?:[^:]|::)+): (.*)$/.exec(line);
    const verdict = /^test (\S+) \.\.\. (FAILED|FAIL|ignored)(?:, (.*))?$/.exec(line);
    const end = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
    if (section) program.section = section[1] ?? '';
    else if (skip) addSkip(program, skip[1] ?? '', skip[2] ?? '');
    else if (verdict) addVerdict(program, verdict[1] ?? '', verdict[2] ?? '', verdict[3]);
    else if (end) {
      const early = [...program.skips].filter(([test]) => !program.failed.has(test)).map(([, skipped]) => skipped);
      total.passed += Number(end[1]) - early.length;
      total.failed += Number(end[2]);
      total.skipped.push(...early, ...program.ignored);
      program = newProgram();
    }
  }
  return total;
}

/** @typedef {ReturnType<typeof newProgram>} Program */
/** What is known of one test program until its result line. */
const newProgram = () => ({
  section: '',
  /** @type {Map<string, Skip>} */ skips: new Map(),
  /** @type {Set<string>} */ failed: new Set(),
  /** @type {Skip[]} */ ignored: [],
});

/** @param {Program} program @param {string} name @param {string} verdict @param {string} [why] */
function addVerdict(program, name, verdict, why = verdict) {
  if (verdict === 'ignored') program.ignored.push({ name, why, excused: true });
  else program.failed.add(name);
}

/** A test is skipped once, whatever number of reasons it gives. */
function addSkip(/** @type {Program} */ program, /** @type {string} */ name, /** @type {string} */ why) {
  const test = program.section || name;
  const before = program.skips.get(test)?.why.split('; ') ?? [];
  const reasons = [...new Set([...before, why])];
  const excused = reasons.every((reason) => reason.startsWith('the image '));
  program.skips.set(test, { name, why: reasons.join('; '), ...(excused && { excused }) });
}

/**
 * The lines of test-events.mjs.
 * @param {string} lines @returns {Counts}
 */
export function ofNodeTest(lines) {
  const total = counts({});
  for (const line of lines.split('\n').filter(Boolean)) {
    const { name, outcome, why } = JSON.parse(line);
    if (outcome === 'skipped') total.skipped.push({ name, why });
    else if (outcome === 'passed') total.passed += 1;
    else total.failed += 1;
  }
  return total;
}
