/** The npm package as others get it: packed, installed elsewhere, used. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import test, { before } from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { npm } from '../../scripts/lib/process.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { writeDynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const project = path('project');
const image = path('image.vhd');
/** @type {{ filename: string, size: number, files: { path: string, size: number }[] }} */
let packed;

before(async () => {
  // npm talks on stderr, too, and run gives both: the list of files is the array at the end.
  const output = await npm(['pack', '--json', '--ignore-scripts', '--loglevel=error', '--pack-destination', path()]);
  [packed] = JSON.parse(output.slice(output.indexOf('[\n')));
  mkdirSync(project);
  writeFileSync(path('project', 'package.json'), '{ "private": true, "type": "module" }');
  const install = ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', path(packed.filename)];
  await npm(install, { cwd: project });
  const MiB = 1024 * 1024;
  writeDynamicVhd(image, { size: 8 * MiB, blocks: { 0: Buffer.from('data'), 2: Buffer.alloc(0) } });
});

test('holds what is used and what the licence asks for, and nothing else', () => {
  const names = packed.files.map((file) => file.path);
  for (const name of [
    'package.json',
    'LICENSE-MIT',
    'LICENSE-APACHE',
    'cli/vhd-compactor.js',
    'lib/index.node.js',
    'lib/index.web.js',
    'lib/types.d.ts',
    'pkg/vhd_compactor.js',
    'pkg/vhd_compactor_bg.wasm',
  ]) {
    assert.ok(names.includes(name), `${name} is missing`);
  }
  const foreign = names.filter(
    (name) => !/^(cli|lib|pkg|docs)\/|^(package\.json|README\.md|CHANGELOG\.md|LICENSE-\w+)$/.test(name),
  );
  assert.deepEqual(foreign, []);
  assert.ok(packed.size < 1024 * 1024, `the package has ${packed.size} bytes`);
});

test('brings the command', () => {
  const command = path('project', 'node_modules', '.bin', 'vhd-compactor');
  const report = JSON.parse(execFileSync(command, ['inspect', image, '--json'], { encoding: 'utf8' }));
  assert.equal(report.blocks.present, 2);
  const { version } = JSON.parse(readFileSync(inRoot('package.json'), 'utf8'));
  assert.equal(execFileSync(command, ['--version'], { encoding: 'utf8' }), `${version}\n`);
});

test('is imported by its name', () => {
  writeFileSync(
    path('project', 'use.js'),
    `import { compact, inspect } from 'vhd-compactor';
     const [image, output] = process.argv.slice(2);
     const { virtualSize } = await inspect(image);
     const { outputSize, verified } = await (await compact(image, output)).result;
     console.log(JSON.stringify({ virtualSize, outputSize, verified }));`,
  );
  const output = path('output.vhd');
  const result = execFileSync(process.execPath, ['use.js', image, output], { cwd: project, encoding: 'utf8' });
  assert.deepEqual(JSON.parse(result), {
    virtualSize: 8 * 1024 * 1024,
    outputSize: statSync(output).size,
    verified: true,
  });
});

test('its declarations type-check for those who use them', () => {
  writeFileSync(
    path('project', 'use.ts'),
    `import { compact, type CompactReport } from 'vhd-compactor';
     const job = await compact('in.vhd', 'out.vhd', { mode: 'quick' });
     const report: CompactReport = await job.result;
     // @ts-expect-error: there is no such mode.
     await compact('in.vhd', 'out.vhd', { mode: 'fast' });
     export const size: number = report.outputSize;`,
  );
  const flags = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'es2022', '--module', 'nodenext'];
  execFileSync(process.execPath, [inRoot('node_modules/typescript/bin/tsc'), ...flags, 'use.ts'], {
    cwd: project,
    stdio: 'pipe',
    encoding: 'utf8',
  });
});
