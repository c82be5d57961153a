/**
 * `npm run bench`: the command beside qemu-img, on the same images in the same run, as ratios.
 * `npm run bench -- a: b: --runs=7` takes the images whose names start so, seven times each. The first run of each task
 * warms the caches and is not counted.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Stop, main, say } from '../scripts/lib/console.mjs';
import { inRoot } from '../scripts/lib/paths.mjs';
import { which } from '../scripts/lib/process.mjs';
import { prepareCommandLine } from '../scripts/lib/setup.mjs';
import { qemuImg } from '../tests/support/tools.mjs';
import { cases } from './cases.mjs';
import { costOf, median, spread } from './measure.mjs';

/** @import { Case, Task } from './cases.mjs' */
/** @import { Cost } from './measure.mjs' */

await main(async () => {
  const { values, positionals } = parseArgs({
    options: { runs: { type: 'string', default: '5' } },
    allowPositionals: true,
  });
  if (!which('qemu-img')) throw new Stop('The bench compares with qemu-img: install the package qemu-utils.');
  await prepareCommandLine();
  const [version] = qemuImg('--version').split('\n');
  console.log(`${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}, ${version}`);
  console.log(
    `Medians of ${values.runs} runs by turns [least–most]; what else the machine does: load ${loadavg()[0]}.`,
  );
  console.log('CPU is what the process used, in user and system time. Ratios are to the task that is named.\n');
  row('image', 'task', 'seconds', 'CPU s', 'peak MB', 'output MB', 'time ratio', 'CPU ratio');
  row(...Array.from({ length: 8 }, () => '---'));
  for (const one of cases) {
    if (positionals.length > 0 && !positionals.some((start) => one.name.startsWith(start))) continue;
    if (one.skip) say(`skipped: ${one.name}: ${one.skip}`);
    else await measure(one, Number(values.runs));
  }
});

/** @param {Case} one @param {number} runs */
async function measure({ name, make, tasks }, runs) {
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-bench-'));
  try {
    const image = make(folder);
    // Nothing of the making is still on its way to the disk.
    spawnSync('sync');
    const results = tasks.map((task) => ({
      task,
      output: join(folder, 'output'),
      costs: /** @type {Cost[]} */ ([]),
      size: 0,
    }));
    // By turns, so that what else the machine does falls on all.
    for (let run = 0; run <= runs; run += 1) {
      for (const result of results) {
        rmSync(result.output, { force: true });
        const cost = await costOf(commandOf(result.task, image, result.output));
        if (run > 0) result.costs.push(cost);
        result.size = statSync(result.output, { throwIfNoEntry: false })?.size ?? 0;
      }
    }
    for (const { task, costs, size } of results) {
      const other = results.find((result) => result.task.what === task.against)?.costs;
      const ratio = (/** @type {'seconds' | 'cpu'} */ key) =>
        other ? (median(costs, key) / median(other, key)).toFixed(2) : '';
      row(
        name,
        task.what,
        `${median(costs, 'seconds').toFixed(2)} [${spread(costs, 'seconds')}]`,
        median(costs, 'cpu').toFixed(2),
        (median(costs, 'peak') / 2 ** 20).toFixed(0),
        size ? (size / 2 ** 20).toFixed(0) : '',
        ratio('seconds'),
        ratio('cpu'),
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {Task} task @param {string} image @param {string} output */
function commandOf({ program, args, sync }, image, output) {
  const command = program === 'ours' ? [process.execPath, inRoot('cli/vhd-compactor.js')] : [program];
  const line = [...command, ...args(image, output)];
  return sync ? ['sh', '-c', '"$@" && sync "$0"', output, ...line] : line;
}

function row(/** @type {string[]} */ ...cells) {
  console.log(`| ${cells.join(' | ')} |`);
}
