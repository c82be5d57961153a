/** The engine's table of formats, and that every list which is read where no engine is loaded agrees with it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { ACCEPTED_FILES, EXTENSIONS, FORMAT_NAMES, formatOfName } from '../../lib/formats.js';
import { CompactorError, MemorySink, compact, formats, inspect } from '../../lib/index.node.js';
import { OPTIONS } from '../../lib/options.js';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { variants } from '../../www/choices.js';
import { outputName, withExtension } from '../../www/names.js';
import { scratchFolder } from '../support/scratch.mjs';
import { writeDynamicVhd } from '../support/vhd.mjs';

const KIB = 1024;
const MIB = 1024 * KIB;
const table = await formats();
const names = table.map(({ name }) => name);
const path = scratchFolder();
const image = path('image.vhd');
writeDynamicVhd(image, { size: 8 * MIB, blocks: { 0: Buffer.from('data'), 2: Buffer.alloc(0) } });

/** Of what has no order. */
const sorted = (/** @type {string[]} */ list) => [...list].sort();
const dotted = (/** @type {string[]} */ extensions) => extensions.map((one) => `.${one}`);

test('the table has what its reference says, and nothing else', () => {
  const reference = readFileSync(inRoot('docs', 'api.md'), 'utf8');
  const from = reference.indexOf('### Formats');
  const section = reference.slice(from, reference.indexOf('###', from + 3));
  for (const row of table) {
    const told = [...section.matchAll(/`(\w+)`(?= \(| and `|,)/g)].map(([, name]) => name);
    assert.deepEqual(Object.keys(row), told);
    assert.ok(row.blockSizes.includes(row.smallestUsualBlock), row.name);
    assert.deepEqual(
      row.blockSizes,
      [...row.blockSizes].sort((a, b) => a - b),
    );
  }
});

test('the library without an engine knows the same names and extensions', () => {
  assert.deepEqual(FORMAT_NAMES, names);
  assert.deepEqual(EXTENSIONS, Object.fromEntries(table.map(({ name, extensions }) => [name, extensions])));
  assert.equal(formatOfName('vhd'), null, 'a name without an extension promises nothing');
  assert.equal(formatOfName('disk.vmdk'), null);
  assert.equal(formatOfName(''), null);
});

test('the option and its help offer the formats and block sizes of the table', () => {
  const option = (/** @type {string} */ name) => OPTIONS.find((one) => one.name === name);
  assert.deepEqual(option('format')?.values, names);
  assert.equal(option('format')?.meaning, names.map((name) => `\`"${name}"\``).join(' or '));
  const inWords = (/** @type {number} */ size) => (size < MIB ? `${size / KIB} KB` : `${size / MIB} MB`);
  for (const { title, blockSizes } of table) {
    const [first = 0, last = 0] = [blockSizes[0], blockSizes.at(-1)];
    const told =
      blockSizes.length > 2 ? `${first / MIB}–${inWords(last)}` : blockSizes.map((size) => inWords(size)).join(' or ');
    assert.match(option('blockSize')?.meaning ?? '', new RegExp(`\\b${title} ${told}(,|$)`));
  }
});

test('the engine takes exactly the block sizes of the table', async () => {
  const powers = Array.from({ length: 12 }, (_, n) => (256 * KIB) << n);
  for (const { name, blockSizes } of table) {
    for (const blockSize of powers) {
      const job = compact(image, new MemorySink(), { format: name, blockSize });
      const outcome = await job.then((one) => one.result).catch((/** @type {unknown} */ error) => error);
      if (blockSizes.includes(blockSize)) {
        assert.ok(!(outcome instanceof Error), `${name} ${blockSize}: ${String(outcome)}`);
      } else {
        assert.ok(outcome instanceof CompactorError && outcome.code === 'invalid-argument', `${name} ${blockSize}`);
      }
    }
  }
});

test('the page takes, names and offers the formats of the table', async () => {
  const all = sorted(table.flatMap(({ extensions }) => dotted(extensions)));
  assert.deepEqual(sorted(ACCEPTED_FILES.split(',')), all);
  const page = readFileSync(inRoot('www', 'index.html'), 'utf8');
  const inputs = [...page.matchAll(/accept="([^"]*)"/g)].map(([, list = '']) => sorted(list.split(',')));
  assert.deepEqual(inputs, [all]);

  /** @type {{ file_handlers: { accept: Record<string, string[]> }[] }} */
  const manifest = JSON.parse(readFileSync(inRoot('www', 'manifest.webmanifest'), 'utf8'));
  const opened = manifest.file_handlers.flatMap(({ accept }) => Object.values(accept));
  assert.deepEqual(
    opened,
    table.map(({ extensions }) => dotted(extensions)),
  );

  for (const { name, extensions } of table) {
    for (const one of extensions) {
      assert.equal(outputName(`disk.${one}`, name, name), `disk-compacted.${one}`);
      assert.equal(withExtension(`disk.${one.toUpperCase()}`, name), `disk.${one.toUpperCase()}`);
      for (const other of names.filter((to) => to !== name)) {
        assert.equal(outputName(`disk.${one}`, name, other), `disk-compacted.${other}`);
        assert.equal(withExtension(`disk.${one}`, other), `disk.${other}`);
      }
    }
  }

  const choices = variants(await inspect(image), { mode: 'full' }, false);
  const offered = Object.keys(choices).filter((key) => key.startsWith('format:'));
  assert.deepEqual(sorted(offered), sorted(names.map((name) => `format:${name}`)));
});

test('what a report says of children is the sentence of the table', async () => {
  for (const { name, children } of table) {
    const output = path(`children.${name}`);
    await (
      await compact(image, output, { format: name })
    ).result;
    assert.equal((await inspect(output)).children, children);
  }
});
