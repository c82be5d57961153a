/**
 * `npm run plant`: makes each fault of tests/planted.mjs in a copy of the engine and runs the tests of the engine and a
 * short fuzz campaign on it, which must fail. `npm run plant -- witness revoked` takes the faults whose words say so.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { planted } from '../tests/planted.mjs';
import { Stop, main } from './lib/console.mjs';
import { inRoot } from './lib/paths.mjs';
import { attempt } from './lib/process.mjs';
import { ensureRust } from './lib/rust.mjs';
import { ensurePackages, testPackages } from './lib/system.mjs';

/** @import { Planted } from '../tests/planted.mjs' */

/** Who may catch a fault, the fastest first. @type {[string, string[]][]} */
const judges = [
  ['unit tests', ['test', '--lib']],
  ['fuzzing', ['test', '-p', 'fuzz-harness']],
];
const MINUTES = 10;

await main(async () => {
  const wanted = process.argv.slice(2);
  const chosen = planted.filter(({ what }) => wanted.length === 0 || wanted.some((word) => what.includes(word)));
  if (chosen.length === 0) throw new Stop('No fault is called so.');
  await ensureRust();
  await ensurePackages(testPackages);
  const copy = mkdtempSync(join(tmpdir(), 'vhd-compactor-planted-'));
  try {
    const { output } = await attempt('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard']);
    for (const file of output.split('\0').filter(Boolean)) {
      cpSync(inRoot(file), join(copy, file), { recursive: true, preserveTimestamps: true });
    }
    const sound = await firstToFail(copy);
    if (sound !== null) throw new Stop(`Without any fault the ${sound} fail already.`);
    console.log('| fault | caught by |\n|---|---|');
    let missed = 0;
    for (const fault of chosen) {
      const by = await withFault(copy, fault, () => firstToFail(copy));
      if (by === null) missed += 1;
      console.log(`| ${fault.what} | ${by ?? '**nobody**'} |`);
    }
    console.log(`\n${chosen.length - missed} of ${chosen.length} caught`);
    return missed === 0 ? 0 : 1;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
});

/** @template T @param {string} copy @param {Planted} fault @param {() => Promise<T>} work */
async function withFault(copy, { file, from, to, what }, work) {
  const path = join(copy, file);
  const sound = readFileSync(path, 'utf8');
  const faulty = sound.replace(from, () => to);
  if (faulty === sound) throw new Stop(`${file} has no such place any more: ${what}`);
  writeFileSync(path, faulty);
  try {
    return await work();
  } finally {
    writeFileSync(path, sound);
  }
}

/** Which judge fails first in the copy; null if none does. @param {string} copy */
async function firstToFail(copy) {
  // Warnings of a planted fault (code that is never reached) are no catch.
  const env = {
    ...process.env,
    CARGO_TARGET_DIR: join(dirname(copy), 'vhd-compactor-planted-target'),
    RUSTFLAGS: '--cap-lints=warn',
  };
  for (const [name, args] of judges) {
    const { code, output } = await attempt('cargo', args, { cwd: copy, env, limit: MINUTES * 60_000 });
    // A fault that does not compile shows nothing about the tests.
    if (/^error(?:\[E\d+\])?: (?!test failed)/m.test(output) && !output.includes('test result:')) {
      throw new Stop(`It does not compile:\n${output}`);
    }
    if (code !== 0) return name;
  }
  return null;
}
