/**
 * What is measured: images that are made for it, what the command does with them, and what qemu-img does with the
 * same image beside it.
 *
 * Free space is made stale by formatting over noise: whatever a file system does not use there is noise, as on a disk
 * whose files were deleted.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { qemuImg, tool, unless } from '../tests/support/tools.mjs';
import { writeDynamicVhd } from '../tests/support/vhd.mjs';
import { makeNtfsWithFiles } from './ntfs-files.mjs';

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {string | false} skip the reason, or false
 * @property {(folder: string) => string} make writes the image, gives its path
 * @property {Task[]} tasks run by turns
 */
/**
 * @typedef {object} Task
 * @property {string} what
 * @property {string} program `ours`, or one that is installed
 * @property {(image: string, output: string) => string[]} args
 * @property {boolean} [sync] whether the output must be on the disk when the task ends; `ours` sees to that itself
 * @property {string} [against] the task whose time it is divided by
 */

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const NOISE = Buffer.alloc(16 * MiB);

/** @type {(format: string, ...options: string[]) => Task} */
const qemu = (format, ...options) => ({
  what: 'qemu-img convert, sync',
  program: 'qemu-img',
  args: (image, output) => ['convert', '-O', format, ...options, image, output],
  sync: true,
});
/** @type {(what: string, ...flags: string[]) => Task} */
const compact = (what, ...flags) => ({
  what,
  program: 'ours',
  args: (image, output) => ['compact', image, output, ...flags, '--force'],
  against: 'qemu-img convert, sync',
});
const verified = compact('compact');
const unverified = compact('compact --no-verify', '--no-verify');
/** What an image of this format is compared with. */
const both = (/** @type {string} */ format) => [verified, unverified, qemu(format)];
/** @type {Task[]} */
const inspecting = [
  { what: 'inspect', program: 'ours', args: (image) => ['inspect', image], against: 'qemu-img map' },
  { what: 'qemu-img map', program: 'qemu-img', args: (image) => ['map', '--output=json', image] },
];

/** @type {Case[]} */
export const cases = [
  {
    name: 'a: all in use, 2 GiB VHD',
    skip: false,
    make: (folder) => vhd(folder, { size: 2 * GiB, stored: 1024, data: () => true }),
    // A copy of what is all in use saves nothing, and is not made unless something else is asked for.
    tasks: [
      compact('compact', '--format', 'vhdx'),
      compact('compact --no-verify', '--format', 'vhdx', '--no-verify'),
      qemu('vhdx', '-o', 'subformat=dynamic'),
    ],
  },
  {
    name: 'b: NTFS half stale, 2 GiB VHD',
    skip: unless('mkfs.ntfs', 'ntfscp'),
    make: (folder) =>
      halfStale(folder, 'vpc', 'image.vhd', (raw, file) => {
        tool('mkfs.ntfs', '-Q', '-q', '-F', '-s', '512', '-p', '0', raw);
        tool('ntfscp', '-q', raw, file, 'in-use');
      }),
    tasks: both('vpc'),
  },
  {
    name: 'c: ext4 half stale, 2 GiB VHDX',
    skip: unless('mkfs.ext4', 'debugfs'),
    make: (folder) =>
      halfStale(folder, 'vhdx', 'image.vhdx', (raw, file) => {
        tool('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', raw);
        tool('debugfs', '-w', '-R', `write ${file} in-use`, raw);
      }),
    tasks: both('vhdx'),
  },
  {
    name: 'd: nine tenths stored zeros, 4 GiB VHD',
    skip: false,
    make: (folder) => vhd(folder, { size: 4 * GiB, stored: 2048, data: (block) => block % 10 === 0 }),
    tasks: both('vpc'),
  },
  {
    name: 'e: 32 MiB blocks, half of each stale, 2 GiB ext4 in VHDX',
    skip: unless('mkfs.ext4', 'debugfs'),
    make: (folder) => formatted(folder, 2 * GiB, 'block_size=33554432', (raw) => deletedHalves(folder, raw)),
    tasks: both('vhdx'),
  },
  {
    // As many pieces of the source as blocks.
    name: 'f: 100,000 scattered blocks of 32 KiB, VHD',
    skip: false,
    make: (folder) =>
      vhd(folder, { size: 8 * GiB, blockSize: 32 * 1024, stored: 200_000, data: (block) => block % 2 === 0 }),
    tasks: both('vpc'),
  },
  { name: 'small', skip: false, make: smallVhd, tasks: [...inspecting, verified, qemu('vpc')] },
  {
    name: '127 GiB with little in it',
    skip: false,
    make: (folder) => vhd(folder, { size: 127 * GiB, stored: 64, data: (block) => block % 2 === 0 }),
    tasks: [...inspecting, verified, qemu('vpc')],
  },
  {
    name: '2040 GiB with little in it',
    skip: false,
    make: (folder) => vhd(folder, { size: 2040 * GiB, stored: 64, data: (block) => block % 2 === 0 }),
    tasks: inspecting,
  },
  {
    name: '127 GiB NTFS',
    skip: unless('mkfs.ntfs'),
    make: (folder) =>
      formatted(folder, 127 * GiB, '', (raw) => tool('mkfs.ntfs', '-Q', '-q', '-F', '-s', '512', '-p', '0', raw)),
    tasks: inspecting,
  },
  {
    // 1 GB of $MFT, every record of which the second witness looks at.
    name: '16 GiB NTFS with 1,000,000 files',
    skip: unless('mkfs.ntfs'),
    make: (folder) => formatted(folder, 16 * GiB, '', (raw) => makeNtfsWithFiles(raw, 16 * GiB, 1_000_000)),
    tasks: inspecting,
  },
  {
    name: '1 TiB ext4',
    skip: unless('mkfs.ext4'),
    make: (folder) => formatted(folder, 1024 * GiB, '', (raw) => tool('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', raw)),
    tasks: inspecting,
  },
  {
    name: '64 TiB VHDX, empty',
    skip: false,
    make: (folder) => {
      const image = join(folder, 'image.vhdx');
      qemuImg('create', '-q', '-f', 'vhdx', image, '64T');
      return image;
    },
    tasks: inspecting,
  },
];

function smallVhd(/** @type {string} */ folder) {
  return vhd(folder, { size: 16 * MiB, stored: 8, data: (block) => block % 2 === 0 });
}

/**
 * A dynamic VHD whose first blocks are stored.
 * @param {string} folder @param {{ size: number, blockSize?: number, stored: number, data: (block: number) => boolean }} shape
 */
function vhd(folder, { size, blockSize = 2 * MiB, stored, data }) {
  const image = join(folder, 'image.vhd');
  const [random, zeros] = [randomFillSync(Buffer.alloc(blockSize)), Buffer.alloc(blockSize)];
  const blocks = Object.fromEntries(Array.from({ length: stored }, (_, i) => [i, data(i) ? random : zeros]));
  writeDynamicVhd(image, { size, blockSize, blocks });
  return image;
}

/**
 * A VHDX of a bare disk that `format` formats.
 * @param {string} folder @param {number} size @param {string} options @param {(raw: string) => void} format
 */
function formatted(folder, size, options, format) {
  const [raw, image] = [join(folder, 'raw'), join(folder, 'image.vhdx')];
  writeFileSync(raw, '');
  truncateSync(raw, size);
  format(raw);
  qemuImg(
    'convert',
    '-f',
    'raw',
    '-O',
    'vhdx',
    '-o',
    ['subformat=dynamic', options].filter(Boolean).join(','),
    raw,
    image,
  );
  rmSync(raw);
  return image;
}

/**
 * A bare disk of 2 GiB of noise that is formatted, with 1 GiB in one file.
 * @param {string} folder @param {string} format @param {string} name
 * @param {(raw: string, file: string) => void} fill
 */
function halfStale(folder, format, name, fill) {
  const [raw, image, file] = [join(folder, 'raw'), join(folder, name), join(folder, 'file')];
  mkdirSync(folder, { recursive: true });
  noise(raw, 2 * GiB);
  noise(file, GiB);
  fill(raw, file);
  const options = format === 'vpc' ? 'force_size=on' : 'subformat=dynamic,block_size=2M';
  qemuImg('convert', '-f', 'raw', '-O', format, '-o', options, raw, image);
  rmSync(raw);
  rmSync(file);
  return image;
}

/** An ext4 with files of 16 MiB, every second of which was deleted. @param {string} folder @param {string} raw */
function deletedHalves(folder, raw) {
  const files = join(folder, 'files');
  mkdirSync(files);
  for (let i = 0; i < 100; i += 1) noise(join(files, `${i}`), 16 * MiB);
  tool('mkfs.ext4', '-q', '-F', '-d', files, raw);
  for (let i = 0; i < 100; i += 2) tool('debugfs', '-w', '-R', `rm /${i}`, raw);
  rmSync(files, { recursive: true });
}

/** Writes bytes that no program shortens. @param {string} file @param {number} size */
function noise(file, size) {
  const fd = openSync(file, 'w');
  for (let position = 0; position < size; position += NOISE.length) {
    writeSync(fd, randomFillSync(NOISE), 0, Math.min(NOISE.length, size - position), position);
  }
  closeSync(fd);
}
