/**
 * Names that somebody may give a file, a volume or a parent to deceive who reads them, or to break what prints them.
 * This is the one list: every place where a foreign name is shown or written is tested with all of it.
 */
import { Buffer } from 'node:buffer';
import { fixedVhd } from './vhd.mjs';

/** One character of every kind that passes for another, or for none. */
export const deceiving = [
  ...['\u0000', '\u0007', '\u001b', '\n', '\t', '\u007f', '\u0085', '\u009b'],
  ...['\u00ad', '\u034f', '\u061c', '\u115f', '\u1160', '\u17b4', '\u180b', '\u180e'],
  ...['\u200b', '\u200c', '\u200d', '\u200e', '\u200f', '\u2028', '\u2029', '\u202a', '\u202e'],
  ...['\u2060', '\u2064', '\u2066', '\u2069', '\u206f', '\u2800', '\u3164', '\ufe00', '\ufe0f', '\ufeff', '\uffa0'],
  ...['\ufff9', '\ufffb', '\ud800', '\udfff', '\u{1bca0}', '\u{1d173}', '\u{e0001}', '\u{e0020}', '\u{e0100}'],
];

/** Whole names, by what they try. @type {Record<string, string>} */
export const hostileNames = {
  'direction turned': 'invoice\u202egpj.exe',
  'direction isolated': 'a\u2066b\u2069c\u200fd',
  'nothing to be seen': '\u200b\u2060\u00ad\ufeff',
  'commands to a terminal': '\u001b[2J\u001b[31mred\u001b]0;title\u0007\u009b31m',
  'a link in a terminal': '\u001b]8;;http://evil.example\u001b\\here\u001b]8;;\u001b\\',
  'the line again': 'good\rbad\b\b\b',
  'lines of its own': 'a\nVerified: 1 TB compared.\r\n\u2028b\u2029c\u0085d',
  'markup that runs': '<img src=x onerror=alert(1)><script>alert(2)</script>',
  'markup for an attribute': '"\' onmouseover="alert(3)" x=\'',
  'an end of a comment': '--></style></title><b>bold</b>',
  'the end of a text in JSON': 'a","error":{"code":"x"},"b":"\\',
  'a prototype': '__proto__',
  'a formula': '=1+cmd|"/C calc"!A0',
  'a format': '%s%n${x}`id`$(id){{7*7}}',
  'a way up': '../../../etc/passwd',
  'a way up in Windows': '..\\..\\Windows\\System32\\x',
  'a stream in Windows': 'disk.vhd:hidden:$DATA',
  'a device in Windows': 'con',
  'a device with an extension': 'LPT1.vhd',
  'an option': '--force',
  'dots and spaces at the end': 'disk. . ',
  'dots alone': '..',
  'half of a character': 'a\ud800b\udfffc',
  'marks without end': `a${'\u0301'.repeat(180)}`,
  'a length without end': 'x'.repeat(4000),
  'a length in wide characters': '💾'.repeat(1500),
  'a zero inside': 'disk.vhd\u0000.exe',
  'tags and fillers': 'a\u{e0041}\u{e007f}\u3164\u2800b',
};

/** What a shown text must not hold: the list above in general, by Unicode's own classes; lines may end. */
export const DECEIVES = /[\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|[^\n\P{Cc}]/u;

/** A small disk with one partition of that name (GPT: 36 units of UTF-16) and nothing in it. @param {string} name */
export function diskWithPartition(name) {
  const disk = Buffer.alloc(2 << 20);
  const sectors = disk.length / 512;
  disk[450] = 0xee;
  disk.writeUInt32LE(1, 454);
  disk.writeUInt32LE(sectors - 1, 458);
  disk.writeUInt16LE(0xaa55, 510);
  const entries = Buffer.alloc(128 * 128);
  // Linux data; a GUID of its own; sectors 64 to 1087.
  Buffer.from('af3dc60f838472478e793d69d8477de4', 'hex').copy(entries);
  entries.fill(0x5a, 16, 32);
  entries.writeBigUInt64LE(64n, 32);
  entries.writeBigUInt64LE(1087n, 40);
  utf16(name).copy(entries, 56, 0, 72);
  const header = (/** @type {number} */ at, /** @type {number} */ other, /** @type {number} */ table) => {
    const bytes = Buffer.alloc(92);
    bytes.write('EFI PART', 'latin1');
    bytes.writeUInt32LE(0x10000, 8);
    bytes.writeUInt32LE(92, 12);
    bytes.writeBigUInt64LE(BigInt(at), 24);
    bytes.writeBigUInt64LE(BigInt(other), 32);
    bytes.writeBigUInt64LE(34n, 40);
    bytes.writeBigUInt64LE(BigInt(sectors - 34), 48);
    bytes.fill(0x3c, 56, 72);
    bytes.writeBigUInt64LE(BigInt(table), 72);
    bytes.writeUInt32LE(128, 80);
    bytes.writeUInt32LE(128, 84);
    bytes.writeUInt32LE(crc32(entries), 88);
    bytes.writeUInt32LE(crc32(bytes), 16);
    return bytes;
  };
  header(1, sectors - 1, 2).copy(disk, 512);
  entries.copy(disk, 1024);
  entries.copy(disk, (sectors - 33) * 512);
  header(sectors - 1, 1, sectors - 33).copy(disk, (sectors - 1) * 512);
  return fixedVhd({ bytes: disk, id: 'dd'.repeat(16) });
}

/** As it stands, halves of characters too. @param {string} text */
function utf16(text) {
  const bytes = Buffer.alloc(text.length * 2);
  for (let i = 0; i < text.length; i += 1) bytes.writeUInt16LE(text.charCodeAt(i), i * 2);
  return bytes;
}

/** CRC-32 as GPT has it. @param {Uint8Array} bytes */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
