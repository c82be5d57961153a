/**
 * `npm run bench`: the command beside qemu-img, on the same images in the same run, as ratios.
 * `npm run bench -- 127 --runs=5` takes the images whose names start so, five times each.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Stop, main, say } from '../scripts/lib/console.mjs';
import { inRoot } from '../scripts/lib/paths.mjs';
import { which } from '../scripts/lib/process.mjs';
import { prepareCommandLine } from '../scripts/lib/setup.mjs';
import { qemuImg } from '../tests/support/tools.mjs';
import { cases } from './cases.mjs';
import { costOf, typical } from './measure.mjs';

/** @import { Cost } from './measure.mjs' */

await main(async () => {
  const { values, positionals } = parseArgs({
    options: { runs: { type: 'string', default: '3' } },
    allowPositionals: true,
  });
  if (!which('qemu-img')) throw new Stop('The bench compares with qemu-img: install the package qemu-utils.');
  await prepareCommandLine();
  const [version] = qemuImg('--version').split('\n');
  console.log(`${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}, ${version}`);
  console.log(`Medians of ${values.runs} runs; memory is the peak of the process; ratios are ours to theirs.\n`);
  row('image', 'task', 's', 'MiB', 'qemu-img s', 'MiB', 'time', 'memory', 'output');
  row(...Array.from({ length: 9 }, () => '---'));
  for (const one of cases) {
    if (positionals.length > 0 && !positionals.some((start) => one.name.startsWith(start))) continue;
    if (one.skip) say(`skipped: ${one.name}: ${one.skip}`);
    else await measure(one, Number(values.runs));
  }
});

/** @param {import('./cases.mjs').Case} one @param {number} runs */
async function measure({ name, make, tasks }, runs) {
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-bench-'));
  try {
    const image = make(folder);
    for (const task of tasks) await compare(name, task, image, folder, runs);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * @param {string} name @param {import('./cases.mjs').Task} task @param {string} image @param {string} folder
 * @param {number} runs
 */
async function compare(name, { what, ours, theirs }, image, folder, runs) {
  const command = [process.execPath, inRoot('cli/vhd-compactor.js')];
  const outputs = [join(folder, 'ours'), join(folder, 'theirs')];
  /** @type {{ ours: Cost[], theirs: Cost[] }} */
  const costs = { ours: [], theirs: [] };
  // By turns, so that what else the machine does falls on both.
  for (let run = 0; run < runs; run += 1) {
    for (const output of outputs) rmSync(output, { force: true });
    costs.ours.push(await costOf([...command, ...ours(image, outputs[0])]));
    costs.theirs.push(await costOf(['qemu-img', ...theirs(image, outputs[1])]));
  }
  const [mine, other] = [typical(costs.ours), typical(costs.theirs)];
  const [size, otherSize] = outputs.map((output) => statSync(output, { throwIfNoEntry: false })?.size);
  row(
    name,
    what,
    mine.seconds.toFixed(2),
    (mine.peakMiB ?? 0).toFixed(0),
    other.seconds.toFixed(2),
    (other.peakMiB ?? 0).toFixed(0),
    (mine.seconds / other.seconds).toFixed(2),
    mine.peakMiB && other.peakMiB ? (mine.peakMiB / other.peakMiB).toFixed(2) : '–',
    size && otherSize ? (size / otherSize).toFixed(3) : '–',
  );
}

function row(/** @type {string[]} */ ...cells) {
  console.log(`| ${cells.join(' | ')} |`);
}
