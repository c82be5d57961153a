/** Runs steps one after another, all of them whatever fails, and prints the summary last. */
import { Stop, seconds } from './console.mjs';
import { counts, sum } from './counts.mjs';
import { which } from './process.mjs';

/** @import { Counts } from './counts.mjs' */
/** @typedef {import('./steps.mjs').Step} Step */

/**
 * @param {Step[]} steps
 * @param {{ strict?: boolean }} [options] strict: a skip that set-up could have helped is a failure
 * @returns {Promise<number>} the exit code
 */
export async function runSteps(steps, { strict = false } = {}) {
  const results = [];
  for (const step of steps) {
    const started = Date.now();
    const { counts: found, output } = await outcomeOf(step);
    const result = strict ? withoutExcuse(found) : found;
    if (result.failed > 0) console.log(output.trimEnd());
    const mark = result.failed > 0 ? '✗' : result.passed > 0 ? '✓' : '–';
    console.log(`${mark} ${step.name.padEnd(20)} ${line(result).padEnd(36)} ${seconds(Date.now() - started)}`);
    results.push({
      ...result,
      skipped: result.skipped.map((skip) => ({ ...skip, name: `${step.name}: ${skip.name}` })),
    });
  }
  const total = sum(results);
  console.log('');
  for (const { name, why } of total.skipped) console.log(`skipped: ${name}: ${why}`);
  console.log(line(total));
  return total.failed > 0 ? 1 : 0;
}

/** @param {Counts} result */
const line = ({ passed, failed, skipped }) => `${passed} passed, ${failed} failed, ${skipped.length} skipped`;

/** Skips without an excuse are failures. @param {Counts} result @returns {Counts} */
function withoutExcuse({ passed, failed, skipped }) {
  const missed = skipped.filter(({ excused }) => !excused);
  for (const { name, why } of missed) console.log(`may not be skipped: ${name}: ${why}`);
  return { passed, failed: failed + missed.length, skipped: skipped.filter(({ excused }) => excused) };
}

/** @param {Step} step */
async function outcomeOf(step) {
  const missing = (step.programs ?? []).filter((program) => !which(program));
  if (missing.length > 0) {
    const why = `${missing.join(' and ')} not installed`;
    return { counts: counts({ skipped: [{ name: 'all tests', why }] }), output: '' };
  }
  try {
    return await step.run();
  } catch (error) {
    const output = error instanceof Stop ? error.message : String(error instanceof Error ? error.stack : error);
    return { counts: counts({ failed: 1 }), output };
  }
}
