import assert from 'node:assert/strict';
import test from 'node:test';
import { columns, visible } from '../../cli/text.js';
import * as text from '../../lib/text.js';
import { DECEIVES, deceiving, hostileNames } from '../support/hostile-names.mjs';

/** With the no-break spaces that a person does not type. */
const plain = (/** @type {string} */ line) => line.replaceAll('\u00a0', ' ');

test('sizes count as Windows shows them', () => {
  for (const [count, shown] of /** @type {const} */ ([
    [0, '0 bytes'],
    [1, '1 byte'],
    [999, '999 bytes'],
    [1000, '0.98 KB'],
    [1024, '1 KB'],
    [1536, '1.5 KB'],
    [1024 * 1024 - 1, '1 MB'],
    [2 * 1024 ** 2, '2 MB'],
    [31.46 * 1024 ** 3, '31.5 GB'],
    [127 * 1024 ** 3, '127 GB'],
    [2040 * 1024 ** 3, '1.99 TB'],
    [-1536, '−1.5 KB'],
  ])) {
    assert.equal(plain(text.bytes(count)), shown);
  }
  assert.equal(plain(text.bothBytes(1536)), '1.5 KB (1,536 bytes)');
  assert.equal(plain(text.bothBytes(12)), '12 bytes');
  assert.equal(text.exactBytes(1), '1 byte');
  assert.equal(plain(text.rate(310 * 1024 ** 2)), '310 MB/s');
  assert.match(text.bytes(1024), /\u00a0/, 'a number is not broken from its unit');
});

test('times and shares', () => {
  for (const [seconds, shown] of /** @type {const} */ ([
    [0.4, 'less than a second'],
    [1, '1 second'],
    [59.7, '60 seconds'],
    [600, '10 minutes'],
    [7200, '2 hours'],
    [7260, '2 hours 1 minute'],
  ])) {
    assert.equal(text.duration(seconds), shown);
  }
  assert.equal(text.about(600), 'about 10 minutes');
  assert.equal(text.about(0.4), 'less than a second');
  for (const [part, whole, shown] of /** @type {const} */ ([
    [9999, 10000, 'over 99.9 %'],
    [997, 1000, '99.7 %'],
    [4, 1000, '0.4 %'],
    [1, 10000, 'under 0.1 %'],
    [0, 0, '0 %'],
    [63, 100, '63 %'],
    [5, 5, '100 %'],
  ])) {
    assert.equal(plain(text.percent(part, whole)), shown);
  }
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

test('one list of deceiving characters serves terminal, JSON and page', () => {
  for (const char of deceiving) {
    const code = (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
    assert.equal(visible(`a${char}b`), `a⟨U+${code}⟩b`);
    assert.equal(text.displayText(`a${char}b`), `a⟨U+${code}⟩b`);
    const written = text.json({ label: `a${char}b` });
    assert.match(written, /^[\n\x20-\x7e]*$/, code);
    assert.deepEqual(JSON.parse(written), { label: `a${char}b` });
  }
});

test('no hostile name deceives, wherever it is shown, and JSON gives it back', () => {
  for (const [what, name] of Object.entries(hostileNames)) {
    for (const shown of [visible(name), text.visible(name), text.displayText(name), text.json({ [name]: name })]) {
      assert.doesNotMatch(shown, DECEIVES, what);
    }
    assert.doesNotMatch(visible(name), /[\r\n]/, what);
    assert.ok([...text.displayText(name)].length <= 200 * '⟨U+E0041⟩'.length, what);
    assert.equal(JSON.parse(text.json([name]))[0], name, what);
  }
});

test('what is honest stays as it is', () => {
  for (const label of ['Ünïcödé – 日本', 'данные', 'مرحبا', 'हिन्दी', '\u{1f600}', 'a\u3000b', 'e\u0301']) {
    assert.equal(text.displayText(label), label);
    assert.equal(visible(label), label);
  }
  assert.equal(visible(text.bytes(1536)), '1.5 KB');
});

test('a terminal gets one line, whatever a name holds', () => {
  assert.equal(visible('a\u001b[31mb\u0007\u009b2J'), 'a⟨U+001B⟩[31mb⟨U+0007⟩⟨U+009B⟩2J');
  assert.equal(visible('exe.\u202efdp'), 'exe.⟨U+202E⟩fdp');
});

test('a page gets no endless text, and no half of a character', () => {
  assert.equal(text.displayText('x'.repeat(300)), `${'x'.repeat(200)}…`);
  assert.equal(text.displayText('\u{1f600}'.repeat(9), 4), `${'\u{1f600}'.repeat(4)}…`);
});
