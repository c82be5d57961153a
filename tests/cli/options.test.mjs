/** The table of options, and that the engine, the reference and the declarations say the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { help } from '../../cli/args.js';
import { OPTIONS } from '../../lib/options.js';
import { inRoot } from '../../scripts/lib/paths.mjs';

const named = OPTIONS.filter(({ name }) => name);

test('the engine reads those that are not of this library, and no others', () => {
  const declared = readFileSync(inRoot('pkg', 'vhd_compactor.d.ts'), 'utf8');
  const body = /export interface Options \{([^}]*)\}/.exec(declared)?.[1] ?? '';
  const read = [...body.matchAll(/^ {4}(\w+)\?:/gm)].map(([, name]) => name);
  assert.deepEqual(read.sort(), named.flatMap((option) => (option.isOfHost ? [] : [option.name])).sort());
  for (const { name, values } of named) {
    const type = new RegExp(`^ {4}${name}\\?: (.*);$`, 'm').exec(body)?.[1] ?? '';
    assert.deepEqual([...type.matchAll(/"(\w+)"/g)].map(([, value]) => value).sort(), [...(values ?? [])].sort(), name);
  }
});

test('the reference has the table', () => {
  const rows = named.map(
    ({ name, flag, default: otherwise, meaning }) => `| \`${name}\` | \`--${flag}\` | ${otherwise} | ${meaning} |`,
  );
  const reference = readFileSync(inRoot('docs', 'api.md'), 'utf8');
  const from = reference.indexOf('| option | flag |');
  const [, , ...written] = reference.slice(from, reference.indexOf('\n\n', from)).split('\n');
  assert.deepEqual(written.slice(0, rows.length), rows);
  // What only JavaScript can say.
  assert.deepEqual(
    written.slice(rows.length).map((row) => row.split(' ')[1]),
    ['`findings`'],
  );
});

test('the help has every flag once, and fits a terminal', () => {
  const lines = help().split('\n');
  for (const { flag } of OPTIONS) {
    assert.equal(
      lines.filter((line) => line.startsWith(`  --${flag}`) && !/^[\w-]/.test(line.slice(flag.length + 4))).length,
      1,
      flag,
    );
  }
  assert.deepEqual(
    lines.filter((line) => line.length > 80),
    [],
  );
});
