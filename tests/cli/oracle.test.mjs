/**
 * Real file systems, made by strangers' tools, compacted, and judged by strangers' tools: every byte that
 * is not free reads the same, the file systems are whole, the files are theirs, and nobody writes smaller.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import test, { before } from 'node:test';
import { asJson } from '../support/command.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { qemuImg, sha256, sha256ByLibvhdi, tool, unless, unlessPython } from '../support/tools.mjs';
import { writeDynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const MiB = 1024 * 1024;
const size = 160 * MiB;
const tools = unless('qemu-img', 'mkfs.ext4', 'debugfs', 'e2fsck', 'mkfs.fat', 'fsck.fat', 'mcopy', 'mdel', 'sfdisk');

/** Where the FAT volume starts in its disk. */
const fatOffset = MiB;
const fat = (/** @type {string} */ raw) => `${raw}@@${fatOffset}`;

/** @type {{ name: string, format: string, image: string, raw: string }[]} */
const images = [];

for (const [fileSystem, container, format] of /** @type {const} */ ([
  ['ext4', 'qemu.vhd', 'vpc'],
  ['ext4', 'full.vhd', 'vpc'],
  ['ext4', 'qemu.vhdx', 'vhdx'],
  ['fat', 'qemu.vhd', 'vpc'],
  ['fat', 'full.vhd', 'vpc'],
  ['fat', 'qemu.vhdx', 'vhdx'],
])) {
  const name = `${fileSystem}.${container}`;
  images.push({ name, format, image: path(name), raw: path(`${fileSystem}.raw`) });
}

before(() => {
  if (tools) return;
  mkdirSync(path('files'));
  for (const name of ['small.txt', 'one.bin', 'two.bin', 'stale-1.bin', 'stale-2.bin']) {
    writeFileSync(path('files', name), noise(name, name === 'small.txt' ? 1000 : 11 * MiB));
  }
  makeExt4(path('ext4.raw'));
  makeFat(path('fat.raw'));
  for (const raw of ['ext4', 'fat']) {
    const from = ['convert', '-f', 'raw', path(`${raw}.raw`)];
    qemuImg(...from, '-O', 'vpc', '-o', 'force_size=on', path(`${raw}.qemu.vhd`));
    qemuImg(...from, '-O', 'vhdx', '-o', 'subformat=dynamic,block_size=2M', path(`${raw}.qemu.vhdx`));
    writeEveryBlock(path(`${raw}.full.vhd`), readFileSync(path(`${raw}.raw`)));
  }
});

for (const { name, format, image, raw } of images) {
  const [, suffix = ''] = /\.(vhdx?)$/.exec(name) ?? [];
  const zeroOnly = path(`${name}.zero.${suffix}`);
  const full = path(`${name}.full.${suffix}`);
  const compact = (/** @type {string} */ mode, /** @type {string} */ output) => {
    if (existsSync(output)) return output;
    const { status, value } = asJson('compact', image, output, '--mode', mode);
    assert.equal(status, 0, JSON.stringify(value));
    // Where nothing is to be gained there is nothing to judge but the image itself.
    return value.nothingToGain ? image : output;
  };

  test(`${name}, zeros dropped: qemu-img reads every byte the same`, { skip: tools }, () => {
    const output = compact('zero', zeroOnly);
    qemuImg('compare', '-f', format, '-F', 'raw', output, raw);
    assert.equal(JSON.parse(qemuImg('info', '--output=json', '-f', format, output))['virtual-size'], size);
    if (format === 'vhdx') qemuImg('check', '-f', format, output);
  });

  test(`${name}, zeros dropped: libvhdi reads every byte the same`, { skip: tools || unlessPython('pyvhdi') }, () => {
    assert.equal(sha256ByLibvhdi(compact('zero', zeroOnly)), sha256(raw));
  });

  test(`${name}, zeros dropped: 7-Zip reads every byte the same`, { skip: tools || unless('7zz') }, () => {
    const output = compact('zero', zeroOnly);
    tool('7zz', 't', `-t${suffix}`, output);
    tool('7zz', 'e', '-y', `-t${suffix}`, `-o${path(`${name}.7z`)}`, output);
    const [extracted = ''] = readdirSync(path(`${name}.7z`));
    assert.equal(sha256(path(`${name}.7z`, extracted)), sha256(raw));
  });

  test(`${name}, zeros dropped: as small as qemu-img makes it`, { skip: tools }, () => {
    const theirs = path(`${name}.theirs.${suffix}`);
    const options = format === 'vpc' ? 'force_size=on' : 'subformat=dynamic,block_size=2M';
    qemuImg('convert', '-f', format, '-O', format, '-o', options, image, theirs);
    // Payload lies at multiples of 4 KiB here, where qemu-img packs by sectors.
    assert.ok(statSync(compact('zero', zeroOnly)).size <= statSync(theirs).size * 1.002);
  });

  test(`${name}, free space dropped: the file system is whole and the files are the same`, { skip: tools }, () => {
    const output = compact('full', full);
    const after = path(`${name}.after.raw`);
    qemuImg('convert', '-f', format, '-O', 'raw', output, after);
    // What raw loses at its end is zero.
    truncateSync(after, size);
    judgeFiles(name, after);
    // Two deleted files of 11 MiB are gone.
    assert.ok(statSync(output).size < statSync(compact('zero', zeroOnly)).size - 16 * MiB);
  });
}

/** fsck finds nothing, and every file that was not deleted has its bytes. */
function judgeFiles(/** @type {string} */ name, /** @type {string} */ raw) {
  const folder = path(`${name}.files`);
  mkdirSync(folder);
  if (name.startsWith('ext4')) {
    tool('e2fsck', '-fn', raw);
    tool('debugfs', '-R', `rdump / ${folder}`, raw);
  } else {
    const volume = path(`${name}.volume`);
    writeFileSync(volume, readFileSync(raw).subarray(fatOffset));
    tool('fsck.fat', '-n', volume);
    tool('mcopy', '-i', fat(raw), '::*', folder);
  }
  for (const file of ['small.txt', 'one.bin', 'two.bin']) {
    assert.equal(sha256(`${folder}/${file}`), sha256(path('files', file)), file);
  }
}

/** A bare disk of ext4, as WSL has it, with files, and files that were deleted. */
function makeExt4(/** @type {string} */ raw) {
  tool('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0', '-d', path('files'), raw, `${size / 1024}K`);
  for (const name of ['stale-1.bin', 'stale-2.bin']) tool('debugfs', '-w', '-R', `rm /${name}`, raw);
  tool('e2fsck', '-fn', raw);
}

/** An MBR disk with one FAT32 volume. */
function makeFat(/** @type {string} */ raw) {
  writeFileSync(raw, '');
  truncateSync(raw, size);
  const script = path('sfdisk');
  writeFileSync(script, `label: dos\nstart=${fatOffset / 512}, type=c\n`);
  tool('sh', '-c', `sfdisk -q '${raw}' < '${script}'`);
  const blocks = `${(size - fatOffset) / 1024}`;
  tool('mkfs.fat', '-F', '32', '-s', '2', '--offset', `${fatOffset / 512}`, raw, blocks);
  for (const name of readdirSync(path('files'))) tool('mcopy', '-i', fat(raw), path('files', name), '::/');
  for (const name of ['stale-1.bin', 'stale-2.bin']) tool('mdel', '-i', fat(raw), `::/${name}`);
}

/** A VHD that stores every block, zero or not. */
function writeEveryBlock(/** @type {string} */ file, /** @type {Buffer} */ raw) {
  const blockSize = 2 * MiB;
  const count = raw.length / blockSize;
  const blocks = Object.fromEntries(
    Array.from({ length: count }, (_, i) => [i, raw.subarray(i * blockSize, (i + 1) * blockSize)]),
  );
  writeDynamicVhd(file, { size: raw.length, blockSize, blocks });
}

/** Bytes that no compressor and no zero scan shortens, the same at every run. */
function noise(/** @type {string} */ seed, /** @type {number} */ length) {
  return createHash('shake256', { outputLength: length }).update(seed).digest();
}
