/** The reports of the library as text. Every function gives lines; whoever prints them makes them safe. */
import { columns, duration, exactSize, number, percent, size } from './text.js';

/** @typedef {import('../lib/types.d.ts').InspectReport} InspectReport */
/** @typedef {import('../lib/types.d.ts').CompactReport} CompactReport */
/** @typedef {import('../lib/types.d.ts').VerifyReport} VerifyReport */
/** @typedef {{ code: string, message: string }} Message */

/** @returns {string[]} */
export function inspectLines(/** @type {InspectReport} */ report) {
  return [
    report.file,
    ...columns(facts(report)),
    ...section('Volumes', columns(report.volumes.map(volumeRow))),
    ...section('Compacting', columns(estimateRows(report))),
    ...section('Why it will not shrink more', items(report.estimate.reasons)),
    ...section('Would be lost', report.estimate.dataLost.map((what) => `  - ${what}`)),
    ...section('Warnings', items(report.warnings)),
  ];
}

/** @returns {string[][]} */
function facts({ format, diskType, blockSize, logicalSectorSize, blocks, ...report }) {
  const layout = diskType === 'fixed' ? '' : `, blocks of ${size(blockSize)}`;
  const partial = blocks.partiallyPresent ? `, ${number(blocks.partiallyPresent)} of them partially` : '';
  return [
    ['Format', `${format.toUpperCase()}, ${diskType}${layout}, sectors of ${size(logicalSectorSize)}`],
    ['Virtual size', exactSize(report.virtualSize)],
    ['File size', exactSize(report.fileSize)],
    ...(diskType === 'fixed'
      ? []
      : [['Blocks', `${number(blocks.present)} of ${number(blocks.total)} present${partial}`]]),
    ['Created by', report.creator],
    ['Identity', report.identity],
    ...(report.parent ? [['Parent', [report.parent.id, ...report.parent.paths].join('  ')]] : []),
  ];
}

/** @returns {string[]} */
function volumeRow(/** @type {InspectReport['volumes'][number]} */ volume) {
  const free = volume.freeBytes === null ? '' : `${size(volume.freeBytes)} free`;
  const declined = volume.declined ? `only looked at for zeros: ${volume.declined.detail}` : '';
  return [
    `${volume.index}`,
    volume.scheme,
    `at ${size(volume.start)}`,
    size(volume.length),
    volume.fileSystem || volume.type,
    volume.label ? `“${volume.label}”` : volume.name ? `“${volume.name}”` : '',
    declined || free,
  ];
}

/** @returns {string[][]} */
function estimateRows(/** @type {InspectReport} */ { estimate, fileSize }) {
  if (estimate.saves <= 0 && estimate.mayBeZeroBytes === 0) return [['Nothing to gain', '']];
  return [
    ['New size', `${exactSize(estimate.outputSize)} at most`],
    ['Saves', `${size(estimate.saves)} at least (${percent(estimate.saves, fileSize)})`],
    ['Proved free', size(estimate.freeBytes)],
    ['May be zero', `${size(estimate.mayBeZeroBytes)}, known once it has been read`],
    ['Must stay', size(estimate.mustStayBytes)],
  ];
}

/** @returns {string[]} */
export function compactLines(/** @type {CompactReport} */ report) {
  if (report.nothingToGain) {
    return ['Nothing to gain: the image is as small as it gets. No file was written.', ...warnings(report)];
  }
  const { blocks, inputSize, outputSize } = report;
  const saved = inputSize - outputSize;
  return [
    ...columns([
      ['Before', exactSize(inputSize), report.input],
      ['After', exactSize(outputSize), report.output ?? ''],
      ['Saved', exactSize(saved), percent(saved, inputSize)],
    ]),
    ...section('Left out', [
      ...report.dropped.map(
        ({ volume, bytes, why }) => `  - ${size(bytes)}${volume === null ? '' : ` in volume ${volume}`}: ${why}`,
      ),
      ...omitted(blocks.omitted),
    ]),
    '',
    verification(report),
    `${size(report.bytesRead)} read and ${size(report.bytesWritten)} written in ${duration(report.elapsedMs / 1000)}.`,
    ...warnings(report),
  ];
}

/** @returns {string[]} */
function omitted(/** @type {CompactReport['blocks']['omitted']} */ { zero, free, equalToParent }) {
  const kinds = [
    [zero, 'found to be zero'],
    [free, 'proved free'],
    [equalToParent, 'equal to the parent'],
  ];
  const told = kinds.filter(([count]) => count).map(([count, why]) => `${number(Number(count))} ${why}`);
  return told.length ? [`  - blocks: ${told.join(', ')}`] : [];
}

function verification(/** @type {CompactReport} */ { verified, verification: proof }) {
  if (!verified || !proof) return 'Not verified.';
  return `Verified: ${compared(proof)}`;
}

const compared = (/** @type {VerifyReport} */ { comparedBytes, skippedFreeBytes }) =>
  `${exactSize(comparedBytes)} read the same in both` +
  `${skippedFreeBytes ? `; ${size(skippedFreeBytes)} of free space were left out` : ''}.`;

/** @returns {string[]} */
export function verifyLines(/** @type {VerifyReport} */ report) {
  return [`The images are the same: ${compared(report)}`, `  ${report.algorithm}  ${report.digest}`];
}

/** A failure as one sentence, with the place in the file where it was seen. */
export function failureLine(/** @type {{ message: string, site?: import('./failure.js').Site }} */ { message, site }) {
  const place = site ? ` (${site.structure} at ${site.space} offset 0x${site.offset.toString(16)})` : '';
  return `vhd-compactor: ${message}${place}`;
}

const warnings = (/** @type {CompactReport} */ report) => section('Warnings', items(report.warnings));
const items = (/** @type {Message[]} */ messages) => messages.map(({ message }) => `  - ${message}`);
const section = (/** @type {string} */ title, /** @type {string[]} */ lines) =>
  lines.length ? ['', title, ...lines] : [];
