/**
 * NTFS with very many files, made in seconds: mkntfs makes the volume, and $MFT is made longer here, by a file
 * record of one cluster for each file. No directory names them, which a reader of the table does not mind.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { tool } from '../tests/support/tools.mjs';

const CLUSTER = 4096;
const RECORD = 1024;
const ATTRIBUTE = { standard: 0x10, fileName: 0x30, data: 0x80, bitmap: 0xb0, end: 0xffffffff };
/** Records of $MFT that are left to the system. */
const FIRST_FILE = 64;
/** Behind the copy of the first records, in the middle of the volume, mkntfs puts the log and more. */
const BEHIND_THE_MIDDLE = 1 << 16;

/**
 * Writes a volume with `files` files of one cluster each over the (sparse, large enough) file `raw`.
 * @param {string} raw @param {number} size bytes of the volume @param {number} files
 */
export function makeNtfsWithFiles(raw, size, files) {
  tool('mkfs.ntfs', '-Q', '-q', '-F', '-s', '512', '-p', '0', '-c', `${CLUSTER}`, raw);
  const fd = openSync(raw, 'r+');
  try {
    lengthenTable(fd, size, files);
  } finally {
    closeSync(fd);
  }
}

/** @param {number} fd @param {number} size @param {number} files */
function lengthenTable(fd, size, files) {
  const boot = read(fd, 0, 512);
  const [table, mirror] = [Number(boot.readBigUInt64LE(0x30)), Number(boot.readBigUInt64LE(0x38))];
  const own = unprotect(read(fd, table * CLUSTER, RECORD));
  const bitmapRecord = unprotect(read(fd, table * CLUSTER + 6 * RECORD, RECORD));
  const bitmap = firstRun(find(bitmapRecord, ATTRIBUTE.data));
  const head = firstRun(find(own, ATTRIBUTE.data));
  const formerTaken = firstRun(find(own, ATTRIBUTE.bitmap));

  const records = FIRST_FILE + files;
  const tail = { lcn: mirror + BEHIND_THE_MIDDLE, length: clusters(records * RECORD) - head.length };
  const taken = { lcn: tail.lcn + tail.length, length: clusters(records / 8) };
  const contents = taken.lcn + taken.length;
  const end = contents + files;
  if (end * CLUSTER > size) throw new Error('the volume is too small for its files');

  const bytes = (head.length + tail.length) * CLUSTER;
  const attributes = [...every(own)].filter((one) => one.readUInt32LE(0) < ATTRIBUTE.data);
  attributes.push(nonResident(ATTRIBUTE.data, [head, tail], records * RECORD, bytes));
  attributes.push(nonResident(ATTRIBUTE.bitmap, [taken], Math.ceil(records / 8), taken.length * CLUSTER));
  const header = own.subarray(0, own.readUInt16LE(20));
  const standard = find(own, ATTRIBUTE.standard);
  const lengthened = protect(record(header, 0, attributes));
  for (const lcn of [table, mirror]) write(fd, lcn * CLUSTER, lengthened);

  // A record for each number, the first ones free; the head of the table has room for a few of them.
  const perPiece = 4096;
  const headRecords = (head.length * CLUSTER) / RECORD;
  const place = (/** @type {number} */ number) =>
    number < headRecords ? table * CLUSTER + number * RECORD : tail.lcn * CLUSTER + (number - headRecords) * RECORD;
  for (let from = 27; from < records;) {
    const to = Math.min(records, from < headRecords ? headRecords : from + perPiece);
    const piece = Buffer.alloc((to - from) * RECORD);
    for (let number = from; number < to; number += 1) {
      const file = number - FIRST_FILE;
      const its = file < 0 ? [] : fileAttributes(standard, file, contents + file);
      const made = record(header, number, its);
      made.writeUInt16LE(file < 0 ? 0 : 1, 22);
      piece.set(protect(made), (number - from) * RECORD);
    }
    write(fd, place(from), piece);
    from = to;
  }
  write(fd, taken.lcn * CLUSTER, takenBits(records));
  mark(fd, bitmap.lcn * CLUSTER, true, tail.lcn, end);
  mark(fd, bitmap.lcn * CLUSTER, false, formerTaken.lcn, formerTaken.lcn + formerTaken.length);
}

/** @param {Buffer} standard @param {number} file @param {number} lcn of its one cluster */
const fileAttributes = (standard, file, lcn) => [
  standard,
  fileName(`file ${file}`),
  nonResident(ATTRIBUTE.data, [{ lcn, length: 1 }], CLUSTER, CLUSTER),
];

/** @param {Buffer} header @param {number} number @param {Buffer[]} attributes */
function record(header, number, attributes) {
  const made = Buffer.alloc(RECORD);
  header.copy(made);
  made.writeUInt32LE(number, 44);
  let at = header.length;
  for (const attribute of attributes) {
    attribute.copy(made, at);
    at += attribute.length;
  }
  made.writeUInt32LE(ATTRIBUTE.end, at);
  made.writeUInt32LE(at + 8, 24);
  return made;
}

/** @param {string} name in the root directory */
function fileName(name) {
  const value = Buffer.alloc(66 + name.length * 2);
  value.writeBigUInt64LE(5n | (5n << 48n), 0);
  value.writeUInt8(name.length, 64);
  value.write(name, 66, 'utf16le');
  const made = Buffer.alloc(roundUp(24 + value.length, 8));
  made.writeUInt32LE(ATTRIBUTE.fileName, 0);
  made.writeUInt32LE(made.length, 4);
  made.writeUInt32LE(value.length, 16);
  made.writeUInt16LE(24, 20);
  value.copy(made, 24);
  return made;
}

/** @typedef {{ lcn: number, length: number }} Run */

/** @param {number} kind @param {Run[]} runs @param {number} used bytes @param {number} allocated bytes */
function nonResident(kind, runs, used, allocated) {
  const made = Buffer.alloc(roundUp(64 + runs.length * 9 + 1, 8));
  const length = runs.reduce((sum, run) => sum + run.length, 0);
  made.writeUInt32LE(kind, 0);
  made.writeUInt32LE(made.length, 4);
  made.writeUInt8(1, 8);
  made.writeUInt16LE(64, 10);
  made.writeBigUInt64LE(BigInt(length - 1), 24);
  made.writeUInt16LE(64, 32);
  made.writeBigUInt64LE(BigInt(allocated), 40);
  made.writeBigUInt64LE(BigInt(used), 48);
  made.writeBigUInt64LE(BigInt(used), 56);
  let [at, last] = [64, 0];
  for (const run of runs) {
    made.writeUInt8(0x44, at);
    made.writeUInt32LE(run.length, at + 1);
    made.writeInt32LE(run.lcn - last, at + 5);
    last = run.lcn;
    at += 9;
  }
  return made;
}

/** The attributes of a record without its fixups. */
function* every(/** @type {Buffer} */ bytes) {
  let at = bytes.readUInt16LE(20);
  while (bytes.readUInt32LE(at) !== ATTRIBUTE.end) {
    const length = bytes.readUInt32LE(at + 4);
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

function find(/** @type {Buffer} */ bytes, /** @type {number} */ kind) {
  for (const attribute of every(bytes)) if (attribute.readUInt32LE(0) === kind) return attribute;
  throw new Error(`no attribute of type ${kind}`);
}

/** @returns {Run} */
function firstRun(/** @type {Buffer} */ attribute) {
  const at = attribute.readUInt16LE(32);
  const sizes = attribute.readUInt8(at);
  const [lengthBytes, lcnBytes] = [sizes & 15, sizes >> 4];
  return {
    length: attribute.readUIntLE(at + 1, lengthBytes),
    lcn: attribute.readIntLE(at + 1 + lengthBytes, lcnBytes),
  };
}

/** Puts the true last two bytes of each 512 back. */
function unprotect(/** @type {Buffer} */ bytes) {
  const array = bytes.readUInt16LE(4);
  for (let i = 0; i * 512 < RECORD; i += 1) bytes.copy(bytes, i * 512 + 510, array + 2 + i * 2, array + 4 + i * 2);
  return bytes;
}

function protect(/** @type {Buffer} */ bytes) {
  const array = bytes.readUInt16LE(4);
  for (let i = 0; i * 512 < RECORD; i += 1) {
    bytes.copy(bytes, array + 2 + i * 2, i * 512 + 510, i * 512 + 512);
    bytes.copy(bytes, i * 512 + 510, array, array + 2);
  }
  return bytes;
}

/** $MFT's own $BITMAP: the system's records and all files are taken. */
function takenBits(/** @type {number} */ records) {
  const bits = Buffer.alloc(Math.ceil(records / 8), 0xff);
  bits.fill(0, 2, FIRST_FILE / 8);
  bits.writeUInt8(0x07, 3);
  if (records % 8 > 0) bits.writeUInt8((1 << (records % 8)) - 1, bits.length - 1);
  return bits;
}

/** Writes the bits of clusters `from` to `to`. */
function mark(
  /** @type {number} */ fd,
  /** @type {number} */ at,
  /** @type {boolean} */ used,
  /** @type {number} */ from,
  /** @type {number} */ to,
) {
  const first = Math.floor(from / 8);
  const bits = read(fd, at + first, Math.ceil(to / 8) - first);
  for (let cluster = from; cluster < to; cluster += 1) {
    const [byte, bit] = [Math.floor(cluster / 8) - first, 1 << (cluster % 8)];
    bits.writeUInt8(used ? bits.readUInt8(byte) | bit : bits.readUInt8(byte) & ~bit, byte);
  }
  write(fd, at + first, bits);
}

const roundUp = (/** @type {number} */ value, /** @type {number} */ unit) => Math.ceil(value / unit) * unit;
const clusters = (/** @type {number} */ bytes) => Math.ceil(bytes / CLUSTER);

function read(/** @type {number} */ fd, /** @type {number} */ at, /** @type {number} */ length) {
  const bytes = Buffer.alloc(length);
  if (readSync(fd, bytes, 0, length, at) !== length) throw new Error('the volume ends early');
  return bytes;
}

function write(/** @type {number} */ fd, /** @type {number} */ at, /** @type {Buffer} */ bytes) {
  if (writeSync(fd, bytes, 0, bytes.length, at) !== bytes.length) throw new Error('not everything was written');
}
