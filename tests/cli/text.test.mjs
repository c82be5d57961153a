import assert from 'node:assert/strict';
import test from 'node:test';
import { columns, duration, exactSize, json, percent, size, visible } from '../../cli/text.js';

test('sizes', () => {
  for (const [bytes, text] of /** @type {const} */ ([
    [0, '0 bytes'],
    [1023, '1023 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1024 * 1024 - 1, '1.0 MiB'],
    [127 * 1024 ** 3, '127 GiB'],
    [2040 * 1024 ** 3, '2.0 TiB'],
  ])) {
    assert.equal(size(bytes), text);
  }
  assert.equal(exactSize(1536), '1.5 KiB (1,536 bytes)');
  assert.equal(exactSize(12), '12 bytes');
});

test('times and shares', () => {
  assert.equal(duration(1.23), '1.2 s');
  assert.equal(duration(59.7), '60 s');
  assert.equal(duration(600), '10 min');
  assert.equal(duration(7260), '2 h 1 min');
  assert.equal(percent(999, 1000), '99 %');
  assert.equal(percent(0, 0), '0 %');
});

test('columns are aligned, without spaces at the end', () => {
  assert.deepEqual(
    columns([
      ['a', 'bb', ''],
      ['ccc', 'd', 'e'],
    ]),
    ['  a    bb', '  ccc  d   e'],
  );
});

test('nothing that a terminal obeys gets through', () => {
  assert.equal(visible('a\u001b[31mb\u0007\u009b2J'), 'a\\u{1b}[31mb\\u{7}\\u{9b}2J');
  assert.equal(
    visible('exe.\u202efdp\u2066\u200b\ufeff\n\t'),
    'exe.\\u{202e}fdp\\u{2066}\\u{200b}\\u{feff}\\u{a}\\u{9}',
  );
  assert.equal(visible('half \ud800 pair \u{1f600}'), 'half \\u{d800} pair \u{1f600}');
  assert.equal(visible('Ünïcödé – 日本'), 'Ünïcödé – 日本');
});

test('nor in JSON, whose value stays the same', () => {
  const value = { label: 'a\u001b\u009b\u202e\u{e0001}\ud800"\n', list: [1, null] };
  const text = json(value);
  assert.match(text, /^[\n\x20-\x7e]*$/);
  assert.deepEqual(JSON.parse(text), value);
});
