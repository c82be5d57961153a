/** What is in the image: its own facts and its volumes. */

import { bytes, plural } from '../format.js';
import { obstacles } from '../remedies.js';
import { DISK_TYPES } from '../words.js';
import { el, foreign, prose, size } from './dom.js';
import { volumeKind } from './volumes.js';

/** @import { DiskImage } from '../image.js' */
/** @import { EstimateReport, InspectReport } from '../types.js' */

/** @param {InspectReport} report */
export function kindLine(report) {
  const type = report.diskType === 'fixed' ? 'fixed size' : report.diskType;
  return `${report.format.toUpperCase()}, ${type} · a ${bytes(report.virtualSize)} disk in a ${bytes(report.fileSize)} file`;
}

/** @param {DiskImage} image */
export function inside(image) {
  const report = /** @type {InspectReport} */ (image.report);
  return [
    el(
      'h3',
      {},
      report.volumes.length === 1 ? 'The volume inside' : `The ${plural(report.volumes.length, 'volume')} inside`,
    ),
    report.volumes.length > 0
      ? volumes(report, image.estimate)
      : el('p', {}, 'No volume was found; only blocks of zeros can go.'),
    el('details', { class: 'facts' }, el('summary', {}, 'About the image'), facts(image, report)),
  ];
}

/**
 * @param {InspectReport} report
 * @param {EstimateReport | null} estimate
 */
function volumes(report, estimate) {
  const headlines = obstacles(report, estimate);
  return el(
    'ul',
    { class: 'volumes' },
    ...report.volumes.map((volume) => {
      const name = volume.label || volume.name;
      const free = volume.freeBytes;
      const known = free !== null && free !== undefined && !volume.declined;
      return el(
        'li',
        { class: volume.declined ? 'declined' : undefined },
        el(
          'div',
          { class: 'volume-head' },
          el('strong', {}, foreign(volumeKind(volume))),
          name ? el('span', { class: 'volume-name' }, foreign(name)) : null,
          el(
            'span',
            { class: 'volume-size' },
            size(volume.length),
            known ? el('span', { class: 'muted' }, ', ', size(free), ' free') : null,
          ),
        ),
        known ? meter(free, volume.length) : null,
        volume.declined ? whyDeclined(volume, headlines.includes(volume)) : null,
      );
    }),
  );
}

/**
 * The reason in words, unless it is the headline already.
 * @param {InspectReport['volumes'][number]} volume
 * @param {boolean} isHeadline
 */
function whyDeclined(volume, isHeadline) {
  if (isHeadline) {
    return el('p', { class: 'why-declined' }, 'Its free space is not known: see above.');
  }
  return el('p', { class: 'why-declined' }, ...prose(volume.declined?.detail ?? ''));
}

/**
 * @param {number} free
 * @param {number} whole
 */
function meter(free, whole) {
  const bar = el('div', { class: 'bar thin', 'aria-hidden': 'true' });
  for (const [kind, count] of /** @type {const} */ ([
    ['stays', whole - free],
    ['gone', free],
  ])) {
    const part = el('span', { class: kind });
    part.style.setProperty('--share', String(count / Math.max(1, whole)));
    bar.append(part);
  }
  return bar;
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function facts(image, report) {
  /** @type {[string, (Node | string)[]][]} */
  const rows = [
    ['Format', [`${report.format.toUpperCase()}, ${DISK_TYPES[report.diskType]}`]],
    ['File', [size(report.fileSize), exact(report.fileSize)]],
    ['Disk', [size(report.virtualSize), exact(report.virtualSize)]],
    [
      'Blocks',
      [
        `${plural(report.blocks.total, 'block')} of ${bytes(report.blockSize)}, ${plural(report.blocks.present, 'block')} stored`,
      ],
    ],
    ['Sectors', [`${report.logicalSectorSize} bytes`]],
    ['Made by', [foreign(report.creator || 'unknown')]],
    ['Identity', [el('code', {}, foreign(String(report.identity)))]],
  ];
  if (image.parents.length > 0) {
    rows.push([
      'Built upon',
      image.parents.flatMap((parent, index) => [index > 0 ? ', then ' : '', foreign(parent.name)]),
    ]);
  }
  return el('dl', {}, ...rows.map(([name, values]) => el('div', {}, el('dt', {}, name), el('dd', {}, ...values))));
}

/** @param {number} count */
const exact = (count) => ` (${count.toLocaleString('en')} bytes)`;
