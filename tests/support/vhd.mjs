/**
 * A second writer of VHDs, independent of the product's, for tests that must run without any tool.
 *
 *   dynamic:  footer copy │ dynamic disk header │ BAT │ (bitmap │ payload) … │ footer
 *   fixed:    payload │ footer
 *
 * Source: Microsoft, Virtual Hard Disk Image Format Specification (2006). All numbers big-endian.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const sector = 512;
const roundUp = (/** @type {number} */ value, /** @type {number} */ unit) => Math.ceil(value / unit) * unit;

/**
 * @typedef {object} DynamicVhd
 * @property {number} size of the disk, in bytes
 * @property {number} [blockSize]
 * @property {Record<number, Uint8Array>} blocks what each stored block starts with; zeros follow, as a
 *   hole of the file, so that a huge image costs no space
 */

/**
 * Writes a dynamic VHD.
 * @param {string} path @param {DynamicVhd} image
 */
export function writeDynamicVhd(path, { size, blockSize = 2 * 1024 * 1024, blocks }) {
  const count = Math.ceil(size / blockSize);
  const bitmap = Buffer.alloc(roundUp(blockSize / sector / 8, sector), 0xff);
  const bat = Buffer.alloc(roundUp(count * 4, sector), 0xff);
  const footer = vhdFooter({ size, type: 3 });
  const fd = openSync(path, 'w');
  try {
    let end = 3 * sector + bat.length;
    for (const [index, start] of Object.entries(blocks)) {
      bat.writeUInt32BE(end / sector, Number(index) * 4);
      writeSync(fd, bitmap, 0, bitmap.length, end);
      writeSync(fd, start, 0, start.length, end + bitmap.length);
      end += bitmap.length + blockSize;
    }
    writeSync(fd, footer, 0, sector, 0);
    writeSync(fd, dynamicHeader(count, blockSize), 0, 2 * sector, sector);
    writeSync(fd, bat, 0, bat.length, 3 * sector);
    ftruncateSync(fd, end);
    writeSync(fd, footer, 0, sector, end);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a fixed VHD that starts with `start`; zeros follow.
 * @param {string} path @param {{ size: number, start: Uint8Array }} image
 */
export function writeFixedVhd(path, { size, start }) {
  const fd = openSync(path, 'w');
  try {
    writeSync(fd, start, 0, start.length, 0);
    ftruncateSync(fd, size);
    writeSync(fd, vhdFooter({ size, type: 2 }), 0, sector, size);
  } finally {
    closeSync(fd);
  }
}

/** @param {{ size: number, type: 2 | 3 }} disk */
function vhdFooter({ size, type }) {
  const footer = Buffer.alloc(sector);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8); // Features: the reserved bit
  footer.writeUInt32BE(0x10000, 12); // File Format Version
  footer.writeBigUInt64BE(type === 2 ? 0xffffffffffffffffn : 512n, 16); // Data Offset
  footer.write('win ', 28, 'latin1'); // Creator Application: readers then go by Current Size
  footer.writeUInt32BE(0x60001, 32); // Creator Version
  footer.write('Wi2k', 36, 'latin1'); // Creator Host OS
  footer.writeBigUInt64BE(BigInt(size), 40); // Original Size
  footer.writeBigUInt64BE(BigInt(size), 48); // Current Size
  footer.writeUInt16BE(Math.min(65535, Math.floor(size / sector / 16 / 63)), 56); // Disk Geometry
  footer.writeUInt8(16, 58);
  footer.writeUInt8(63, 59);
  footer.writeUInt32BE(type, 60); // Disk Type
  footer.write('0123456789abcdef', 68, 'latin1'); // Unique Id
  footer.writeUInt32BE(checksum(footer), 64);
  return footer;
}

function dynamicHeader(/** @type {number} */ entries, /** @type {number} */ blockSize) {
  const header = Buffer.alloc(2 * sector);
  header.write('cxsparse', 0, 'latin1');
  header.fill(0xff, 8, 16); // Data Offset: unused
  header.writeBigUInt64BE(BigInt(3 * sector), 16); // Table Offset
  header.writeUInt32BE(0x10000, 24); // Header Version
  header.writeUInt32BE(entries, 28); // Max Table Entries
  header.writeUInt32BE(blockSize, 32); // Block Size
  header.writeUInt32BE(checksum(header), 36);
  return header;
}

/** The one's complement of the sum of the bytes, the checksum field itself being zero. */
const checksum = (/** @type {Buffer} */ bytes) => ~bytes.reduce((sum, byte) => sum + byte, 0) >>> 0;
