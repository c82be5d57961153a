/** The parts of the page that need no browser: numbers, words, chains, the picture's arrangement. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { DECEIVES, deceiving, hostileNames } from '../support/hostile-names.mjs';
import { arrange, capacity } from '../../www/blockmap.js';
import { baseName, childrenOf, resolveChain } from '../../www/chain.js';
import { mustAskDynamic, variants } from '../../www/choices.js';
import { whatItIs } from '../../www/diagnose.js';
import * as format from '../../www/format.js';
import * as names from '../../www/names.js';
import { remedyOf } from '../../www/remedies.js';
import { lackingEngine } from '../../www/features.js';
import { isMostlyAbsent, toSquares } from '../../www/squares.js';
import { BLOCK_CLASSES, ERRORS } from '../../www/words.js';

test('sizes read as people say them', () => {
  const cases = /** @type {const} */ ([
    [0, '0 bytes'],
    [1, '1 byte'],
    [999, '999 bytes'],
    [1024, '1 KB'],
    [1023.6 * 1024, '1 MB'],
    [1.5 * 1024 ** 2, '1.5 MB'],
    [31.46 * 1024 ** 3, '31.5 GB'],
    [512 * 1024 ** 3, '512 GB'],
    [2 ** 53 - 1, '8 PB'],
    [-2048, '−2 KB'],
  ]);
  for (const [count, text] of cases) assert.equal(format.bytes(count).replace('\u00a0', ' '), text);
  assert.equal(format.exactBytes(1_234_567), '1,234,567 bytes');
});

test('percentages never claim all or nothing', () => {
  assert.equal(format.percent(1, 100_000), 'under 0.1\u00a0%');
  assert.equal(format.percent(4, 1000), '0.4\u00a0%');
  assert.equal(format.percent(99_999, 100_000), 'over 99.9\u00a0%');
  assert.equal(format.percent(997, 1000), '99.7\u00a0%');
  assert.equal(format.percent(1, 3), '33\u00a0%');
  assert.equal(format.percent(0, 5), '0\u00a0%');
  assert.equal(format.percent(5, 5), '100\u00a0%');
  assert.equal(format.percent(5, 0), '0\u00a0%');
});

test('times are no more exact than they can be', () => {
  assert.equal(format.duration(0.4), 'less than a second');
  assert.equal(format.duration(1), '1 second');
  assert.equal(format.duration(89), '89 seconds');
  assert.equal(format.duration(100), '2 minutes');
  assert.equal(format.duration(7200), '2 hours');
  assert.equal(format.duration(5400), '1 hour 30 minutes');
});

test('the new image gets a name of its own, legal on every system', () => {
  const { outputName } = names;
  assert.equal(outputName('disk.vhdx', 'vhdx', 'vhdx'), 'disk-compacted.vhdx');
  assert.equal(outputName('web.AVHDX', 'vhdx', 'vhdx'), 'web-compacted.AVHDX');
  assert.equal(outputName('disk.vhdx', 'vhdx', 'vhd'), 'disk-compacted.vhd');
  assert.equal(outputName('disk', 'vhd', 'vhd'), 'disk-compacted.vhd');
  assert.equal(outputName('disk.img', 'vhd', 'vhd'), 'disk-compacted.vhd');
  assert.equal(outputName('a:b?.vhd', 'vhd', 'vhd'), 'a_b_-compacted.vhd');
  assert.equal(outputName('a\u202egpj.vhd', 'vhd', 'vhd'), 'a_gpj-compacted.vhd');
  assert.equal(outputName('con.old.vhd', 'vhd', 'vhd'), '_con.old-compacted.vhd');
  assert.equal(outputName('   .vhd', 'vhd', 'vhd'), 'disk-compacted.vhd');
  for (const long of ['ä'.repeat(255), '💾'.repeat(90)]) {
    const made = outputName(`${long}.vhdx`, 'vhdx', 'vhdx');
    assert.ok(Buffer.byteLength(made) <= 220, made);
    assert.ok(made.endsWith('-compacted.vhdx') && encodeURIComponent(made), made);
    assert.equal(names.nameProblem(made), '');
  }
  assert.equal(names.numberedName('disk-compacted.vhd', 2), 'disk-compacted (2).vhd');
});

test('whatever a source is called, the new image gets a legal name, and is shown as what it is', () => {
  for (const [what, name] of Object.entries(hostileNames)) {
    for (const source of [name, `${name}.vhd`]) {
      const made = names.outputName(source, 'vhd', 'vhd');
      assert.equal(names.nameProblem(made), '', what);
      assert.ok(made.endsWith('-compacted.vhd') && Buffer.byteLength(made) <= 220, what);
    }
    assert.doesNotMatch(format.displayText(name), DECEIVES, what);
    assert.doesNotMatch(format.displayText(baseName(name)), DECEIVES, what);
  }
  for (const char of deceiving) assert.notEqual(names.nameProblem(`a${char}b.vhd`), '', JSON.stringify(char));
});

test('what a person types as a name is checked, and gets its extension', () => {
  for (const bad of [
    '',
    '   ',
    '..',
    'a/b.vhd',
    'a\\b.vhd',
    'NUL.vhd',
    'com1',
    'x.',
    'a\u200bb.vhd',
    'a\nb.vhd',
    'x'.repeat(300),
  ]) {
    assert.notEqual(names.nameProblem(bad), '', JSON.stringify(bad));
  }
  for (const good of ['disk.vhd', 'Größe 2.vhdx', '.hidden.vhd', 'console.vhd']) {
    assert.equal(names.nameProblem(good), '');
  }
  assert.equal(names.withExtension('disk', 'vhdx'), 'disk.vhdx');
  assert.equal(names.withExtension('disk.2026', 'vhdx'), 'disk.2026.vhdx');
  assert.equal(names.withExtension(' disk.VHDX ', 'vhdx'), 'disk.VHDX');
  assert.equal(names.withExtension('disk.avhdx', 'vhdx'), 'disk.avhdx');
  assert.equal(names.withExtension('disk.vhd', 'vhdx'), 'disk.vhdx', 'one of the other format would be misread');
});

test('a file that is no image is told apart by its bytes', () => {
  const head = (/** @type {string} */ text, at = 0) => {
    const bytes = new Uint8Array(4096).fill(0x81);
    bytes.set(Buffer.from(text, 'latin1'), at);
    return bytes;
  };
  const nothing = new Uint8Array(512);
  assert.equal(whatItIs('a.vhd', head('KDMV'), nothing)?.what, 'VMDK');
  assert.equal(whatItIs('a.vhd', head('QFI\xfb'), nothing)?.what, 'QCOW2');
  assert.equal(whatItIs('a.vhd', head('PK\x03\x04'), nothing)?.cause, 'packed');
  assert.equal(whatItIs('a.vhd', Buffer.from('Dear all, ñ'), nothing)?.cause, 'text');
  assert.equal(whatItIs('a.vhd', Buffer.from('<!doctype html>\r\n\t'), nothing)?.cause, 'text');
  assert.equal(whatItIs('a.vhd', Buffer.from('text\0'), nothing), null, 'no text has a zero byte');
  const boot = head('\x55\xaa', 510);
  assert.equal(whatItIs('a.vhd', boot, nothing)?.cause, 'no-footer');
  assert.equal(whatItIs('a.raw', boot, nothing), null);
});

test('every reason for declining a volume has a title, and the frequent ones a command', () => {
  const declared = readFileSync(inRoot('src/fs/mod.rs'), 'utf8');
  const codes = [...declared.matchAll(/Self::\w+ => "([a-z-]+)"/g)].map(([, code]) => code);
  assert.ok(codes.length >= 11);
  const volume = (/** @type {string | undefined} */ reason, /** @type {string} */ fileSystem) =>
    /** @type {any} */ ({ fileSystem, declined: { reason, detail: '' } });
  for (const code of codes) assert.notEqual(remedyOf(volume(code, 'NTFS')).title, 'cannot be judged', code);
  assert.ok(remedyOf(volume('dirty', 'ext4')).commands.includes('wsl --shutdown'));
  assert.ok(remedyOf(volume('hibernated', 'NTFS')).commands.length > 0);
  assert.ok(remedyOf(volume('error-state', 'FAT32')).commands.length > 0);
});

test('text from outside shows what it holds', () => {
  assert.equal(format.displayText('a\u202egpj.exe\u0000b'), 'a⟨U+202E⟩gpj.exe⟨U+0000⟩b');
  assert.equal(format.displayText('x'.repeat(300)).length, 201);
  assert.equal(baseName('C:\\VMs\\base.vhdx'), 'base.vhdx');
  assert.equal(baseName('/srv/base.vhdx'), 'base.vhdx');
});

test('every failure has its words', () => {
  const declared = readFileSync(inRoot('lib/types.d.ts'), 'utf8');
  const codes = /type ErrorCode =([^;]+);/.exec(declared)?.[1]?.match(/[a-z-]{3,}/g) ?? [];
  assert.ok(codes.length >= 16);
  for (const code of codes) {
    const words = ERRORS[/** @type {keyof typeof ERRORS} */ (code)];
    assert.ok(words, code);
    for (const sentence of [words.meaning, words.next]) assert.match(sentence, /^[A-Z“].*\.$/, code);
    assert.match(words.title, /^[A-Z].*[^.]$/, code);
  }
});

test('this engine can run the engine: the probe is a valid module', () => assert.equal(lackingEngine(), null));

test('squares count bytes; what little is stored of a large disk fills the picture', () => {
  const classes = 7;
  // 1000 cells of 10 blocks: three of them store something, one of those a mixture.
  const cells = new Float64Array(1000 * classes);
  for (let cell = 0; cell < 1000; cell++) cells[cell * classes] = 100;
  for (const [cell, kind, bytes] of /** @type {const} */ ([
    [5, 1, 40],
    [5, 2, 20],
    [500, 2, 100],
    [999, 1, 7],
  ])) {
    cells[cell * classes + kind] = bytes;
    cells[cell * classes] = (cells[cell * classes] ?? 0) - bytes;
  }
  const packed = toSquares({ cells, classes, blocksPerCell: 10 }, 200, true);
  assert.deepEqual([...packed.firsts], [50, 5000, 9990]);
  assert.deepEqual([...packed.lasts], [59, 5009, 9999]);
  assert.deepEqual([...packed.bytes.subarray(0, classes)], [40, 40, 20, 0, 0, 0, 0]);
  assert.deepEqual(packed.totals, [100_000 - 167, 47, 120, 0, 0, 0, 0]);

  const whole = toSquares({ cells, classes, blocksPerCell: 10 }, 200, false);
  assert.equal(whole.firsts.length, 200);
  assert.deepEqual([whole.firsts[1], whole.lasts[1]], [50, 99]);
  assert.equal(
    whole.bytes.reduce((sum, one) => sum + one, 0),
    100_000,
    'no byte is lost or counted twice',
  );
  assert.deepEqual(whole.totals, packed.totals);

  assert.ok(isMostlyAbsent({ total: 1000, present: 30, partiallyPresent: 0 }));
  assert.ok(!isMostlyAbsent({ total: 1000, present: 900, partiallyPresent: 0 }));
});

test('every class of block has a name, a meaning and a place in the legend', () => {
  assert.deepEqual(BLOCK_CLASSES.map(({ id }) => id).sort(), [0, 1, 2, 3, 4, 5, 6]);
  assert.equal(new Set(BLOCK_CLASSES.map(({ key }) => key)).size, 7);
});

/** @param {string} name @param {string} id @param {string} [parent] */
const image = (name, id, parent) => ({
  name,
  report: /** @type {any} */ ({
    identity: id,
    parent: parent ? { ids: [parent], paths: [`${parent}.vhdx`] } : null,
  }),
});

test('a chain is followed to its end, whatever the order and the spelling', () => {
  const [c2, c1, base] = [image('c2', 'C2', 'c1'), image('c1', '{c1}', 'b0'), image('base', 'B0')];
  assert.deepEqual(resolveChain(c2, [base, c2, c1]), { parents: [c1, base], missing: null });
  assert.deepEqual(resolveChain(c2, [c2, c1]), {
    parents: [c1],
    missing: { paths: ['b0.vhdx'], wantedBy: 'c1' },
  });
  assert.deepEqual(childrenOf(base, [c2, base, c1]), [c2, c1]);
  assert.deepEqual(childrenOf(c2, [c2, base, c1]), []);
});

test('a chain that leads back to itself ends', () => {
  const [one, two] = [image('one', '1', '2'), image('two', '2', '1')];
  assert.equal(resolveChain(one, [one, two]).missing?.wantedBy, 'two');
  const self = image('self', '9', '9');
  assert.equal(resolveChain(self, [self]).missing?.wantedBy, 'self');
});

test('a fixed image is estimated as a dynamic one, and asked about', () => {
  const report = /** @type {any} */ ({ format: 'vhd', diskType: 'fixed', blockSize: 2 << 20 });
  assert.ok(mustAskDynamic(report, {}));
  assert.equal(variants(report, {}, false).now.toDynamic, true);
  assert.ok(!mustAskDynamic(report, { toDynamic: false }));
  assert.equal(variants(report, { toDynamic: false }, false).now.toDynamic, false);
});

test('the picture fits its width, from one block to millions', () => {
  for (const width of [240, 360, 640, 1100]) {
    for (const count of [1, 7, 40, capacity(width)]) {
      const { columns, pitch, rows } = arrange(count, width);
      assert.ok(columns * pitch <= width + 3, `${count} in ${width}`);
      assert.ok(columns * rows >= count);
      assert.ok(rows * pitch <= 260, `${count} in ${width}: ${rows} rows of ${pitch}`);
      assert.ok(pitch >= 10 && pitch <= 26);
    }
  }
});
