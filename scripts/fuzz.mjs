/**
 * `npm run fuzz -- 30m`: fuzzes for that long, all targets by turns; `npm run fuzz -- 2h engine image` only these.
 * libFuzzer does it, guided by coverage, where the pinned nightly can be had; with --stable, or where it cannot, the
 * campaign of fuzz/harness does, with random inputs. What fails is kept in fuzz/artifacts/.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Stop, main, say } from './lib/console.mjs';
import { inRoot } from './lib/paths.mjs';
import { attempt, run } from './lib/process.mjs';
import { cargoFuzz, ensureCargoTool, ensureRust } from './lib/rust.mjs';
import { ensurePackages, testPackages } from './lib/system.mjs';

const all = ['image', 'volume', 'journal', 'engine'];
const units = { s: 1, m: 60, h: 3600 };

await main(async () => {
  const { values, positionals } = parseArgs({ options: { stable: { type: 'boolean' } }, allowPositionals: true });
  const [time = '30m', ...wanted] = positionals;
  const [, count, unit] = /^(\d+)([smh])$/.exec(time) ?? [];
  const unknown = wanted.filter((name) => !all.includes(name));
  if (!count || unknown.length > 0) throw new Stop(`usage: npm run fuzz -- 30m [--stable] [${all.join('|')} …]`);
  const seconds = Number(count) * units[/** @type {keyof units} */ (unit)];
  const targets = wanted.length > 0 ? wanted : all;
  await ensureRust();
  await ensurePackages(testPackages);
  if (!values.stable && (await hasNightly())) await withLibFuzzer(targets, Math.ceil(seconds / targets.length));
  else await withStableRust(targets, seconds);
});

/** @param {string[]} targets @param {number} seconds */
async function withStableRust(targets, seconds) {
  const command = ['run', '--profile', 'fuzz', '-p', 'fuzz-harness', '--bin', 'campaign', '--'];
  // Other inputs in every run; the number of one that fails is in the name of its file.
  const first = String(Date.now());
  await run('cargo', [...command, '--seconds', String(seconds), '--first', first, ...targets], { output: 'show' });
}

/** @param {string[]} targets @param {number} seconds for each */
async function withLibFuzzer(targets, seconds) {
  await ensureCargoTool(cargoFuzz);
  for (const target of targets) {
    const corpus = inRoot('fuzz/corpus', target);
    mkdirSync(corpus, { recursive: true });
    say(`${target} for ${seconds} s`);
    const limits = [`-max_total_time=${seconds}`, '-max_len=132', '-rss_limit_mb=1024', '-timeout=60'];
    await run('cargo', [`+${nightly()}`, 'fuzz', 'run', target, '--', ...limits], { output: 'show' });
  }
}

/** The toolchain that fuzz/rust-toolchain.toml pins. */
function nightly() {
  const text = readFileSync(inRoot('fuzz/rust-toolchain.toml'), 'utf8');
  return /^channel = "(.*)"$/m.exec(text)?.[1] ?? '';
}

async function hasNightly() {
  if ((await attempt('rustc', [`+${nightly()}`, '--version'])).code === 0) return true;
  const { code } = await attempt('rustup', ['toolchain', 'install', nightly(), '--profile', 'minimal']);
  if (code !== 0) say(`${nightly()} cannot be had: stable Rust does it, with random inputs.`);
  return code === 0;
}
