/**
 * Small VHD images, built by hand (VHD specification 1.0; big-endian), for what no stock tool makes:
 *
 *   footer copy │ dynamic header │ BAT │ [parent locator] │ (bitmap │ block)… │ footer
 */

const SECTOR = 512;
const BLOCK = 2 * 1024 * 1024;
const ABSENT = 0xffffffff;

/**
 * @typedef {object} Recipe
 * @property {number} blocks of 2 MiB that the disk has
 * @property {Record<number, number>} stored what fills each stored block: a byte
 * @property {string} id the image's unique id, 32 hexadecimal digits
 * @property {{ id: string, name: string }} [parent]
 * @property {boolean} [savedState]
 * @property {string} [creator] four letters
 */

/** A dynamic image, or a differencing one where `parent` is given. @param {Recipe} recipe */
export function dynamicVhd({ blocks, stored, id, parent, savedState = false, creator = 'win ' }) {
  const tableBytes = roundUp(blocks * 4);
  const locator = parent ? Buffer.from(parent.name, 'utf16le') : Buffer.alloc(0);
  const locatorAt = 1536 + tableBytes;
  let next = locatorAt + roundUp(locator.length);

  const table = Buffer.alloc(tableBytes, 0xff);
  const parts = [];
  for (let block = 0; block < blocks; block++) {
    const fill = stored[block];
    table.writeUInt32BE(fill === undefined ? ABSENT : next / SECTOR, block * 4);
    if (fill === undefined) continue;
    parts.push(Buffer.alloc(SECTOR, 0xff), Buffer.alloc(BLOCK, fill));
    next += SECTOR + BLOCK;
  }

  const end = footer({ size: blocks * BLOCK, type: parent ? 4 : 3, dataOffset: 512n, id, savedState, creator });
  const header = dynamicHeader(blocks, parent, locator.length, locatorAt);
  return Buffer.concat([end, header, table, pad(locator), ...parts, end]);
}

/** A fixed image. @param {{ bytes: Buffer, id: string }} recipe */
export const fixedVhd = ({ bytes, id }) =>
  Buffer.concat([
    bytes,
    footer({ size: bytes.length, type: 2, dataOffset: 0xffffffffffffffffn, id, savedState: false, creator: 'win ' }),
  ]);

/** @param {{ size: number, type: number, dataOffset: bigint, id: string, savedState: boolean, creator: string }} of */
function footer({ size, type, dataOffset, id, savedState, creator }) {
  const bytes = Buffer.alloc(SECTOR);
  bytes.write('conectix', 0, 'latin1');
  bytes.writeUInt32BE(2, 8);
  bytes.writeUInt32BE(0x00010000, 12);
  bytes.writeBigUInt64BE(dataOffset, 16);
  bytes.write(creator, 28, 'latin1');
  bytes.writeUInt32BE(0x000a0000, 32);
  bytes.write('Wi2k', 36, 'latin1');
  bytes.writeBigUInt64BE(BigInt(size), 40);
  bytes.writeBigUInt64BE(BigInt(size), 48);
  // Cylinders, heads, sectors: any that fit, since the creator says that the size above counts.
  bytes.writeUInt16BE(Math.min(65535, Math.floor(size / SECTOR / 16 / 63)), 56);
  bytes[58] = 16;
  bytes[59] = 63;
  bytes.writeUInt32BE(type, 60);
  Buffer.from(id, 'hex').copy(bytes, 68);
  bytes[84] = savedState ? 1 : 0;
  return withChecksum(bytes, 64);
}

/**
 * @param {number} blocks
 * @param {Recipe['parent']} parent
 * @param {number} locatorLength
 * @param {number} locatorAt
 */
function dynamicHeader(blocks, parent, locatorLength, locatorAt) {
  const bytes = Buffer.alloc(1024);
  bytes.write('cxsparse', 0, 'latin1');
  bytes.writeBigUInt64BE(0xffffffffffffffffn, 8);
  bytes.writeBigUInt64BE(1536n, 16);
  bytes.writeUInt32BE(0x00010000, 24);
  bytes.writeUInt32BE(blocks, 28);
  bytes.writeUInt32BE(BLOCK, 32);
  if (parent) {
    Buffer.from(parent.id, 'hex').copy(bytes, 40);
    Buffer.from(parent.name, 'utf16le').swap16().copy(bytes, 64);
    bytes.write('W2ru', 576, 'latin1');
    bytes.writeUInt32BE(roundUp(locatorLength) / SECTOR, 580);
    bytes.writeUInt32BE(locatorLength, 584);
    bytes.writeBigUInt64BE(BigInt(locatorAt), 592);
  }
  return withChecksum(bytes, 36);
}

/** @param {Buffer} bytes @param {number} at */
function withChecksum(bytes, at) {
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.writeUInt32BE(~sum >>> 0, at);
  return bytes;
}

const roundUp = (/** @type {number} */ length) => Math.ceil(length / SECTOR) * SECTOR;
const pad = (/** @type {Buffer} */ bytes) => Buffer.concat([bytes], roundUp(bytes.length));
