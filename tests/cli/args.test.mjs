import assert from 'node:assert/strict';
import test from 'node:test';
import { UsageError, parse } from '../../cli/args.js';

const question = (/** @type {string[]} */ ...argv) => {
  const parsed = parse(argv);
  assert.ok(typeof parsed === 'object', 'no question');
  return parsed;
};

test('compact with every option', () => {
  assert.deepEqual(
    question(
      ...['compact', '--mode', 'quick', 'in.vhd', '--parent=p1', 'out.vhdx', '--parent', 'p2', '--force', '--json'],
      ...['--no-verify', '--block-size=2M', '--format', 'vhdx', '--to-dynamic', '--scrub', '--drop-page-files'],
      ...['--ignore-shadow-copies', '--flatten'],
    ),
    {
      command: 'compact',
      files: ['in.vhd', 'out.vhdx'],
      parents: ['p1', 'p2'],
      json: true,
      force: true,
      options: {
        mode: 'quick',
        verify: false,
        blockSize: 2097152,
        format: 'vhdx',
        toDynamic: true,
        scrub: true,
        dropPageFiles: true,
        ignoreShadowCopies: true,
        flatten: true,
      },
    },
  );
});

test('what is not said is left to the engine', () => {
  assert.deepEqual(question('compact', 'a', 'b'), {
    command: 'compact',
    files: ['a', 'b'],
    parents: [],
    json: false,
    force: false,
    options: {},
  });
});

test('sizes of blocks', () => {
  for (const [text, bytes] of /** @type {const} */ ([
    ['512K', 524288],
    ['512KiB', 524288],
    ['1M', 1048576],
    ['256m', 268435456],
  ])) {
    assert.equal(question('compact', 'a', 'b', '--block-size', text).options.blockSize, bytes, text);
  }
  for (const text of ['2', '0K', '-1M', '1.5M', '1G', 'M', '', '1e3K', '99999999M']) {
    assert.throws(() => parse(['compact', 'a', 'b', `--block-size=${text}`]), UsageError, text);
  }
});

test('help and version win over everything but nonsense', () => {
  assert.equal(parse(['--help']), 'help');
  assert.equal(parse(['compact', '-h']), 'help');
  assert.equal(parse(['--version']), 'version');
});

test('what makes no sense is refused with a reason', () => {
  for (const [argv, reason] of /** @type {const} */ ([
    [[], /inspect, compact or verify/],
    [['shrink', 'a'], /no command 'shrink'/],
    [['toString'], /no command 'toString'/],
    [['inspect'], /inspect takes IMAGE/],
    [['inspect', 'a', 'b'], /inspect takes IMAGE/],
    [['inspect', ''], /inspect takes IMAGE/],
    [['compact', 'a'], /IMAGE and OUTPUT/],
    [['verify', 'a'], /ORIGINAL and COMPACTED/],
    [['compact', 'a', 'b', '--mode', 'fast'], /full or quick or zero, not 'fast'/],
    [['compact', 'a', 'b', '--format', 'vmdk'], /vhd or vhdx, not 'vmdk'/],
    [['compact', 'a', 'b', '--mode'], /--mode/],
    [['compact', 'a', 'b', '--forced'], /Unknown option '--forced'/],
    [['inspect', 'a', '--force'], /inspect has no option --force; compact has/],
    [['verify', 'a', 'b', '--mode=zero'], /verify has no option --mode; compact has/],
    [['inspect', 'a', '--json=yes'], /--json/],
  ])) {
    assert.throws(() => parse([...argv]), { constructor: UsageError, message: reason }, argv.join(' '));
  }
});
