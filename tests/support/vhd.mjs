/**
 * A second writer of VHDs, independent of the product's, for images that no stock tool makes and for tests
 * that must run without any tool.
 *
 *   dynamic:  footer copy │ dynamic disk header │ BAT │ [parent locator] │ (bitmap │ payload)… │ footer
 *   fixed:    payload │ footer
 *
 * Source: Microsoft, Virtual Hard Disk Image Format Specification (2006). All numbers big-endian.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const SECTOR = 512;
const BLOCK = 2 * 1024 * 1024;
const DEFAULT_ID = Buffer.from('0123456789abcdef').toString('hex');

/**
 * @typedef {object} Disk
 * @property {number} size in bytes
 * @property {string} [id] the image's unique id, 32 hexadecimal digits
 * @property {{ id: string, name: string, modified?: number }} [parent] makes it a differencing image; `modified` is the
 *   time that it noted of the parent, in seconds since 2000
 * @property {boolean} [savedState]
 * @property {string} [creator] four letters; by default those of a program whose Current Size counts
 * @property {number} [blockSize]
 */

/**
 * A small dynamic image, or a differencing one where `parent` is given.
 * @param {Omit<Disk, 'size' | 'blockSize'> & { blocks: number, stored: Record<number, number> }} recipe how
 *   many blocks of 2 MiB the disk has, and the byte that fills each stored block
 */
export function dynamicVhd({ blocks, stored, ...disk }) {
  const payload = new Map(Object.entries(stored).map(([block, fill]) => [Number(block), Buffer.alloc(BLOCK, fill)]));
  const { front, bitmap, end } = frame({ ...disk, size: blocks * BLOCK }, [...payload.keys()]);
  return Buffer.concat([front, ...[...payload.values()].flatMap((bytes) => [bitmap, bytes]), end]);
}

/** A small fixed image. @param {{ bytes: Buffer, id: string }} recipe */
export const fixedVhd = ({ bytes, id }) => Buffer.concat([bytes, footer({ size: bytes.length, id }, 2)]);

/**
 * Writes a dynamic VHD of any size.
 * @param {string} path
 * @param {Disk & { blocks: Record<number, Uint8Array> }} recipe what each stored block starts with; zeros follow,
 *   as a hole of the file, so that a huge image costs no space
 */
export function writeDynamicVhd(path, { blocks, ...disk }) {
  const { front, bitmap, end, blockSize } = frame(disk, Object.keys(blocks).map(Number));
  const fd = openSync(path, 'w');
  try {
    writeSync(fd, front, 0, front.length, 0);
    let position = front.length;
    for (const start of Object.values(blocks)) {
      writeSync(fd, bitmap, 0, bitmap.length, position);
      writeSync(fd, start, 0, start.length, position + bitmap.length);
      position += bitmap.length + blockSize;
    }
    ftruncateSync(fd, position);
    writeSync(fd, end, 0, end.length, position);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a fixed VHD of any size that starts with `start`; zeros follow.
 * @param {string} path @param {{ size: number, start: Uint8Array }} recipe
 */
export function writeFixedVhd(path, { size, start }) {
  const fd = openSync(path, 'w');
  try {
    writeSync(fd, start, 0, start.length, 0);
    ftruncateSync(fd, size);
    writeSync(fd, footer({ size }, 2), 0, SECTOR, size);
  } finally {
    closeSync(fd);
  }
}

/**
 * Everything but the payload, for these stored blocks in this order.
 * @param {Disk} disk @param {number[]} stored
 */
function frame(disk, stored) {
  const { size, parent, blockSize = BLOCK } = disk;
  const entries = Math.ceil(size / blockSize);
  // Of ones: no block is stored.
  const table = Buffer.alloc(roundUp(entries * 4), 0xff);
  const locator = padded(Buffer.from(parent?.name ?? '', 'utf16le'));
  const locatorAt = 3 * SECTOR + table.length;
  const bitmap = Buffer.alloc(roundUp(blockSize / SECTOR / 8), 0xff);
  let position = locatorAt + locator.length;
  for (const block of stored) {
    table.writeUInt32BE(position / SECTOR, block * 4);
    position += bitmap.length + blockSize;
  }
  const end = footer(disk, parent ? 4 : 3);
  const header = dynamicHeader(entries, blockSize, parent, locatorAt);
  return { front: Buffer.concat([end, header, table, locator]), bitmap, end, blockSize };
}

/** @param {Disk} disk @param {2 | 3 | 4} type fixed, dynamic or differencing */
function footer({ size, id = DEFAULT_ID, savedState = false, creator = 'win ' }, type) {
  const bytes = Buffer.alloc(SECTOR);
  bytes.write('conectix', 0, 'latin1');
  bytes.writeUInt32BE(2, 8); // Features: the reserved bit
  bytes.writeUInt32BE(0x00010000, 12); // File Format Version
  bytes.writeBigUInt64BE(type === 2 ? 0xffffffffffffffffn : 512n, 16); // Data Offset
  bytes.write(creator, 28, 'latin1'); // Creator Application
  bytes.writeUInt32BE(0x000a0000, 32); // Creator Version
  bytes.write('Wi2k', 36, 'latin1'); // Creator Host OS
  bytes.writeBigUInt64BE(BigInt(size), 40); // Original Size
  bytes.writeBigUInt64BE(BigInt(size), 48); // Current Size
  bytes.writeUInt16BE(Math.min(65535, Math.floor(size / SECTOR / 16 / 63)), 56); // Disk Geometry: cylinders,
  bytes[58] = 16; // heads,
  bytes[59] = 63; // sectors
  bytes.writeUInt32BE(type, 60); // Disk Type
  Buffer.from(id, 'hex').copy(bytes, 68); // Unique Id
  bytes[84] = savedState ? 1 : 0; // Saved State
  return withChecksum(bytes, 64);
}

/**
 * @param {number} entries @param {number} blockSize @param {Disk['parent']} parent @param {number} locatorAt
 */
function dynamicHeader(entries, blockSize, parent, locatorAt) {
  const bytes = Buffer.alloc(2 * SECTOR);
  bytes.write('cxsparse', 0, 'latin1');
  bytes.writeBigUInt64BE(0xffffffffffffffffn, 8); // Data Offset: unused
  bytes.writeBigUInt64BE(BigInt(3 * SECTOR), 16); // Table Offset
  bytes.writeUInt32BE(0x00010000, 24); // Header Version
  bytes.writeUInt32BE(entries, 28); // Max Table Entries
  bytes.writeUInt32BE(blockSize, 32); // Block Size
  if (parent) {
    const length = parent.name.length * 2;
    Buffer.from(parent.id, 'hex').copy(bytes, 40); // Parent Unique ID
    bytes.writeUInt32BE(parent.modified ?? 0, 56); // Parent Time Stamp
    Buffer.from(parent.name, 'utf16le').swap16().copy(bytes, 64, 0, 512); // Parent Unicode Name
    bytes.write('W2ru', 576, 'latin1'); // Parent Locator Entry 1: Platform Code,
    bytes.writeUInt32BE(roundUp(length) / SECTOR, 580); // Platform Data Space,
    bytes.writeUInt32BE(length, 584); // Platform Data Length,
    bytes.writeBigUInt64BE(BigInt(locatorAt), 592); // Platform Data Offset
  }
  return withChecksum(bytes, 36);
}

/** Sets the one's complement of the sum of the bytes. @param {Buffer} bytes @param {number} at */
function withChecksum(bytes, at) {
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.writeUInt32BE(~sum >>> 0, at);
  return bytes;
}

const roundUp = (/** @type {number} */ length) => Math.ceil(length / SECTOR) * SECTOR;
const padded = (/** @type {Buffer} */ bytes) => Buffer.concat([bytes], roundUp(bytes.length));
