/**
 * What is measured: images that are made for it, what the command does with them, and what qemu-img does
 * with the same image beside it.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { qemuImg, tool, unless } from '../tests/support/tools.mjs';
import { writeDynamicVhd } from '../tests/support/vhd.mjs';

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {string | false} skip the reason, or false
 * @property {(folder: string) => string} make writes the image, gives its path
 * @property {Task[]} tasks
 */
/**
 * @typedef {object} Task
 * @property {string} what
 * @property {(image: string, output: string) => string[]} ours arguments of the command
 * @property {(image: string, output: string) => string[]} theirs arguments of qemu-img
 */

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

/** @type {(mode: string) => Task} */
const compact = (mode) => ({
  what: `compact, ${mode}`,
  ours: (image, output) => ['compact', image, output, '--mode', mode, '--force'],
  theirs: (image, output) => ['convert', '-O', 'vpc', image, output],
});
/** @type {Task} */
const compactUnverified = {
  ...compact('full'),
  what: 'compact, full, not verified',
  ours: (image, output) => ['compact', image, output, '--no-verify', '--force'],
};
/** @type {Task} */
const inspect = {
  what: 'inspect',
  ours: (image) => ['inspect', image],
  theirs: (image) => ['map', '--output=json', image],
};

/** @type {Case[]} */
export const cases = [
  {
    name: 'small',
    skip: false,
    make: (folder) => vhd(folder, { size: 16 * MiB, stored: 8, data: (block) => block % 2 === 0 }),
    tasks: [inspect, compact('full')],
  },
  {
    name: '2 GiB, half of it zero',
    skip: false,
    make: (folder) => vhd(folder, { size: 2 * GiB, stored: 1024, data: (block) => block % 2 === 0 }),
    tasks: [compact('full'), compactUnverified],
  },
  {
    name: '127 GiB with little in it',
    skip: false,
    make: (folder) => vhd(folder, { size: 127 * GiB, stored: 64, data: (block) => block % 2 === 0 }),
    tasks: [inspect, compact('full')],
  },
  {
    name: '2040 GiB with little in it',
    skip: false,
    make: (folder) => vhd(folder, { size: 2040 * GiB, stored: 64, data: (block) => block % 2 === 0 }),
    tasks: [inspect, compact('full')],
  },
  {
    name: 'ext4, 1 GiB, half of it deleted',
    skip: unless('mkfs.ext4', 'debugfs'),
    make: halfStale,
    tasks: [compact('quick'), compact('full'), compact('zero')],
  },
  {
    name: '127 GiB NTFS',
    skip: unless('mkfs.ntfs'),
    make: (folder) =>
      formatted(folder, 127 * GiB, (raw) => tool('mkfs.ntfs', '-Q', '-q', '-F', '-s', '512', '-p', '0', raw)),
    tasks: [inspect],
  },
  {
    name: '1 TiB ext4',
    skip: unless('mkfs.ext4'),
    make: (folder) => formatted(folder, 1024 * GiB, (raw) => tool('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', raw)),
    tasks: [inspect],
  },
  {
    name: '64 TiB VHDX, empty',
    skip: false,
    make: (folder) => {
      const image = join(folder, 'image.vhdx');
      qemuImg('create', '-q', '-f', 'vhdx', image, '64T');
      return image;
    },
    tasks: [inspect],
  },
];

/**
 * A dynamic VHD whose first blocks are stored.
 * @param {string} folder @param {{ size: number, stored: number, data: (block: number) => boolean }} shape
 */
function vhd(folder, { size, stored, data }) {
  const image = join(folder, 'image.vhd');
  const blockSize = 2 * MiB;
  const [noise, zeros] = [randomFillSync(Buffer.alloc(blockSize)), Buffer.alloc(blockSize)];
  const blocks = Object.fromEntries(Array.from({ length: stored }, (_, i) => [i, data(i) ? noise : zeros]));
  writeDynamicVhd(image, { size, blockSize, blocks });
  return image;
}

/** A VHDX of a bare disk that `format` formats. */
function formatted(
  /** @type {string} */ folder,
  /** @type {number} */ size,
  /** @type {(raw: string) => void} */ format,
) {
  const [raw, image] = [join(folder, 'raw'), join(folder, 'image.vhdx')];
  writeFileSync(raw, '');
  truncateSync(raw, size);
  format(raw);
  qemuImg('convert', '-f', 'raw', '-O', 'vhdx', '-o', 'subformat=dynamic', raw, image);
  rmSync(raw);
  return image;
}

/** An ext4 of 4 GiB with 16 files of 64 MiB, of which every second was deleted. */
function halfStale(/** @type {string} */ folder) {
  const [raw, image, files] = [join(folder, 'raw'), join(folder, 'image.vhd'), join(folder, 'files')];
  mkdirSync(files);
  const noise = Buffer.alloc(64 * MiB);
  for (let i = 0; i < 16; i += 1) {
    const fd = openSync(join(files, `${i}`), 'w');
    writeSync(fd, randomFillSync(noise));
    closeSync(fd);
  }
  tool('mkfs.ext4', '-q', '-F', '-d', files, raw, '4G');
  for (let i = 0; i < 16; i += 2) tool('debugfs', '-w', '-R', `rm /${i}`, raw);
  qemuImg('convert', '-f', 'raw', '-O', 'vpc', '-o', 'force_size=on', raw, image);
  rmSync(raw);
  rmSync(files, { recursive: true });
  return image;
}
