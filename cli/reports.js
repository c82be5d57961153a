/** The reports of the library as text. Every function gives lines; whoever prints them makes them safe. */
import { bothBytes, bytes, duration, integer, percent } from '../lib/text.js';
import { columns } from './text.js';

/**
 * @import { CompactReport, EstimateReport, InspectReport, Site, VerificationReport, VerifyReport } from '../lib/types.js'
 * @typedef {InspectReport['volumes'][number]} Volume
 * @typedef {{ code: string, message: string }} Notice
 */

/** @returns {string[]} */
export function inspectLines(/** @type {InspectReport} */ report) {
  const { estimate, unavailable } = report;
  return [
    report.file,
    ...columns(facts(report)),
    ...section('Volumes', volumeLines(report.volumes, estimate)),
    ...section('Compacting', estimate ? columns(estimateRows(estimate, report.fileSize)) : notices([unavailable])),
    ...section('What stays', columns(partRows(estimate))),
    ...section('Why it will not shrink more', reasons(estimate)),
    ...section('Warnings', notices(report.warnings)),
  ];
}

/** @returns {string[][]} */
function facts(/** @type {InspectReport} */ report) {
  const { format, diskType, blocks, parent } = report;
  const layout = diskType === 'fixed' ? '' : `, blocks of ${bytes(report.blockSize)}`;
  const partial = blocks.partiallyPresent ? `, and ${integer(blocks.partiallyPresent)} in part` : '';
  const stored = `${integer(blocks.present)} of ${integer(blocks.total)} stored${partial}`;
  return [
    ['Format', `${format.toUpperCase()}, ${diskType}${layout}, sectors of ${bytes(report.logicalSectorSize)}`],
    ['Virtual size', bothBytes(report.virtualSize)],
    ['File size', bothBytes(report.fileSize)],
    ...(diskType === 'fixed' ? [] : [['Blocks', stored]]),
    ['Created by', report.creator],
    ['Identity', report.identity],
    ...(parent ? [['Parent', describeParent(parent)]] : []),
    ...(parent && !parent.found ? [...new Set(parent.paths)].map((path) => ['', `last seen at ${path}`]) : []),
  ];
}

/** @param {{id: string, found: boolean, raw: boolean}} parent */
function describeParent(parent) {
  if (parent.raw) return 'a raw disk, which is not read here';
  return parent.found ? parent.id : `${parent.id}, not given: name it with --parent`;
}

/**
 * @param {Volume[]} volumes
 * @param {EstimateReport | null} estimate whose reasons tell why most of them are only looked at for zeros
 * @returns {string[]}
 */
function volumeLines(volumes, estimate) {
  const rows = columns(volumes.map(volumeRow));
  const isTold = (/** @type {string} */ detail) => estimate?.reasons.some(({ message }) => message.includes(detail));
  return volumes.flatMap(({ declined }, i) => {
    if (!declined) return [rows[i]];
    return isTold(declined.detail) ? [`${rows[i]} see below`] : [rows[i], `      ${declined.detail}`];
  });
}

/** @returns {string[]} */
function volumeRow(/** @type {Volume} */ volume) {
  const label = volume.label || volume.name;
  const amounts = [
    volume.declined ? 'only looked at for zeros:' : `${bytes(volume.freeBytes ?? 0)} free`,
    volume.pageFileBytes ? `${bytes(volume.pageFileBytes)} in page files` : '',
    volume.shadowCopyBytes ? `${bytes(volume.shadowCopyBytes)} held by shadow copies` : '',
  ];
  return [
    volume.scheme === 'whole' ? 'whole disk' : `${volume.scheme.toUpperCase()} ${volume.index}`,
    `at ${bytes(volume.start)}`,
    bytes(volume.length),
    volume.fileSystem,
    label ? `“${label}”` : '',
    amounts.filter(Boolean).join(', '),
  ];
}

/**
 * Why it will not shrink more, the most bytes first, with what to run.
 *
 * @returns {string[]}
 */
function reasons(/** @type {EstimateReport | null} */ estimate) {
  return (estimate?.reasons ?? []).flatMap(({ message, bytes: count, commands }) => [
    `  - ${count ? `${bytes(count)}: ` : ''}${message}`,
    ...commands.map((command) => `      ${command}`),
  ]);
}

/** @returns {string[][]} */
function estimateRows(/** @type {EstimateReport} */ estimate, /** @type {number} */ fileSize) {
  const { outputSize, saves, exact } = estimate;
  return [
    ['New size', `${exact ? '' : 'at most '}${bothBytes(Math.min(outputSize, fileSize))}`],
    ['Saves', `${exact ? '' : 'at least '}${bytes(saves)} (${percent(saves, fileSize)})`],
    ['Block size', bytes(estimate.blockSize)],
    ['Goes as free', bytes(estimate.freeBytes)],
  ];
}

/**
 * Every byte that stays, by what it is.
 *
 * @returns {string[][]}
 */
function partRows(/** @type {EstimateReport | null} */ estimate) {
  return (estimate?.parts ?? []).map(({ label, bytes: count, place, fileSystem, mayBeZero }) => [
    bytes(count),
    label,
    [place, fileSystem === 'unknown' ? null : fileSystem].filter(Boolean).join(', '),
    mayBeZero ? 'goes where it is zero' : '',
  ]);
}

/** @returns {string[]} */
export function compactLines(/** @type {CompactReport} */ report) {
  if (report.nothingToGain) {
    return ['Nothing to gain: the image is as small as it can be. No file was written.', ...warnings(report)];
  }
  const { inputSize, outputSize } = report;
  const saved = inputSize - outputSize;
  return [
    ...columns([
      ['Before', bothBytes(inputSize), report.input],
      ['After', bothBytes(outputSize), report.output ?? ''],
      saved < 0 ? ['Grown by', bothBytes(-saved)] : ['Saved', bothBytes(saved), percent(saved, inputSize)],
    ]),
    ...section('Left out', [...dropped(report), ...omitted(report)]),
    '',
    report.verified && report.verification ? `Verified: ${compared(report.verification)}` : 'Not verified.',
    `${bytes(report.bytesRead)} read and ${bytes(report.bytesWritten)} written in ${duration(report.elapsedMs / 1000)}.`,
    ...warnings(report),
  ];
}

const dropped = (/** @type {CompactReport} */ report) =>
  report.dropped.map(
    ({ place, fileSystem, bytes: count }) => `  - ${bytes(count)} of free space in ${place} (${fileSystem})`,
  );

/** @returns {string[]} */
function omitted(/** @type {CompactReport} */ { blocks: { omitted: blocks } }) {
  const kinds = /** @type {const} */ ([
    [blocks.free, 'free'],
    [blocks.zero, 'zero'],
    [blocks.equalToParent, 'equal to the parent'],
  ]);
  const told = kinds.filter(([count]) => count > 0).map(([count, why]) => `${integer(count)} ${why}`);
  return told.length > 0 ? [`  - blocks: ${told.join(', ')}`] : [];
}

const compared = (/** @type {VerificationReport} */ { comparedBytes, tracedBytes, zeroBytes, skippedFreeBytes }) =>
  `${bothBytes(comparedBytes + tracedBytes + zeroBytes)} are the same in both` +
  `${skippedFreeBytes ? `; ${bytes(skippedFreeBytes)} of free space need not be` : ''}.`;

/** @returns {string[]} */
export function verifyLines(/** @type {VerifyReport} */ { verification }) {
  return [`The disks are the same: ${compared(verification)}`];
}

/**
 * A failure as one line: the sentence, what was expected and found, and the place where it was seen, each once.
 *
 * @param {{ message: string, expected: string | null, found: string | null, site: Site | null }} failure
 */
export function failureLine({ message, expected, found, site }) {
  const values = expected === null ? '' : `: expected ${expected}, found ${found}`;
  const place = site ? ` [${site.structure} at ${site.space} offset 0x${site.offset.toString(16)}]` : '';
  return `vhd-compactor: ${message}${values}${place}`;
}

const warnings = (/** @type {CompactReport} */ report) => section('Warnings', notices(report.warnings));

/** @returns {string[]} */
function notices(/** @type {(Notice | null)[]} */ all) {
  return all.flatMap((notice) => (notice ? [`  - ${notice.message}`] : []));
}

/** @returns {string[]} */
function section(/** @type {string} */ title, /** @type {string[]} */ lines) {
  return lines.length > 0 ? ['', title, ...lines] : [];
}
