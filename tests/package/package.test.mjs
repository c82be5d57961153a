/** The npm package as others get it: packed, installed elsewhere, used. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import test, { before } from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { npm } from '../../scripts/lib/process.mjs';
import { buildTypes } from '../../scripts/lib/types.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { writeDynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const project = path('project');
const image = path('image.vhd');
/** @type {{ filename: string, size: number, files: { path: string, size: number }[] }} */
let packed;

before(async () => {
  await buildTypes();
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
    'types/lib/index.node.d.ts',
    'types/lib/index.web.d.ts',
    'types/lib/types.d.ts',
    'types/pkg/vhd_compactor.d.ts',
    'pkg/vhd_compactor.js',
    'pkg/vhd_compactor_bg.wasm',
  ]) {
    assert.ok(names.includes(name), `${name} is missing`);
  }
  const foreign = names.filter(
    (name) => !/^(cli|lib|pkg|types|docs)\/|^(package\.json|README\.md|CHANGELOG\.md|LICENSE-\w+)$/.test(name),
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

/** What a program may do in both hosts, with what it has as files there. */
const useOfBoth = (/** @type {string} */ input) => `
  import {
    compact, formats, inspect, open, verify, version, BytesSource, CompactorError, Job, MemorySink, OpenImage,
    type BlockMap, type CompactReport, type EstimateReport, type ErrorCode, type FormatReport, type ImageSource,
    type InspectReport, type LogEntry, type Options, type Piece, type Sink, type VerifyReport,
  } from 'vhd-compactor';
  const image = ${input};
  const sink = new MemorySink();
  const options: Options = { mode: 'quick', blockSize: 2 ** 20, scrub: true, verify: false };
  const opened: OpenImage = await open(image, { parents: [image, new BytesSource('p', new Uint8Array(1))] });
  const report: InspectReport = opened.report;
  const estimate: EstimateReport = opened.estimate(options);
  const map: BlockMap = opened.blockMap(64);
  const job: Job<CompactReport> = await compact(image, sink, { mode: 'full', findings: { load: async () => null, save: async () => {} } });
  job.addEventListener('progress', () => job.progress.bytesPerSecond.toFixed());
  const result: CompactReport = await job.result;
  const compared: Job<VerifyReport> = await verify(image, new BytesSource('x', sink.bytes ?? new Uint8Array()));
  const entries: LogEntry[] = compared.log;
  const name: string = (await version()).toUpperCase();
  const table: FormatReport[] = await formats();
  const asked: Options = { format: table[0]?.name, blockSize: table[0]?.smallestUsualBlock };
  const code: ErrorCode = new CompactorError('corrupt', 'broken', { site: null }).code;
  class Own implements Sink {
    kind = 'own';
    async begin(size: number, sources: ImageSource[]) {}
    async write(piece: Piece, position: number) { if (piece.kind === 'source') piece.start.toFixed(); }
    async commit() {}
    async abort() {}
    async readBack() { return null; }
  }
  const own: Sink = new Own();
  // @ts-expect-error: there is no such mode.
  await compact(image, sink, { mode: 'fast' });
  // @ts-expect-error: nor such an option.
  await compact(image, sink, { quickly: true });
  // @ts-expect-error: nor such a code.
  new CompactorError('broken', 'broken');
  // @ts-expect-error: this is a promise in both hosts.
  verify(image, image).result;
  export const all = [report, estimate, map, result, entries, name, asked, code, own, await inspect(image), opened.sources] as const;
`;

/** Every export that there is when the program runs is declared. */
const everyExport = async (/** @type {string} */ entry) => {
  const names = Object.keys(await import(entry));
  return `import { ${names.join(', ')} } from 'vhd-compactor';\nexport const every = [${names.join(', ')}];\n`;
};

for (const { host, flags, input, own, entry } of [
  {
    host: 'Node (nodenext)',
    flags: ['--module', 'nodenext', '--lib', 'es2023', '--types', 'node'],
    input: "'in.vhd'",
    own: `import { PathSink, PathSource, type Sink } from 'vhd-compactor';
      const sink: Sink = new PathSink('out.vhd', { force: true });
      export const source = new PathSource('in.vhd').identity.ino + 1n;
      export { sink };
      // @ts-expect-error: of the browser.
      import { PickerSink } from 'vhd-compactor';`,
    entry: inRoot('lib/index.node.js'),
  },
  {
    host: 'a browser (bundler)',
    flags: ['--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2023,dom,dom.iterable'],
    input: "new File([], 'in.vhd')",
    own: `import { DownloadSink, FileSource, PickerSink, type Sink } from 'vhd-compactor';
      const sinks: Sink[] = [new DownloadSink('out.vhd'), new PickerSink(null as unknown as FileSystemFileHandle)];
      export const source = new FileSource(new File([], 'in.vhd')).blob;
      export const blob: Blob | null = new DownloadSink('out.vhd').blob;
      export { sinks };
      // @ts-expect-error: of Node.
      import { PathSink } from 'vhd-compactor';`,
    entry: inRoot('lib/index.web.js'),
  },
]) {
  test(`its declarations are true for those who use them in ${host}`, async () => {
    const files = { 'use.ts': useOfBoth(input), 'own.ts': own, 'every.ts': await everyExport(entry) };
    for (const [name, text] of Object.entries(files)) writeFileSync(path('project', name), text);
    // What a project for Node has besides.
    for (const name of ['@types/node', 'undici-types']) {
      mkdirSync(path('project', 'node_modules', '@types'), { recursive: true });
      rmSync(path('project', 'node_modules', name), { force: true });
      symlinkSync(inRoot('node_modules', name), path('project', 'node_modules', name));
    }
    const tsc = inRoot('node_modules/typescript/bin/tsc');
    const { status, stdout } = spawnSync(
      process.execPath,
      [tsc, '--noEmit', '--strict', '--target', 'es2022', ...flags, ...Object.keys(files)],
      { cwd: project, encoding: 'utf8' },
    );
    assert.equal(status, 0, stdout);
  });
}
