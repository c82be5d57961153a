/** The estimate: from how much to how much, and how that is worked out. */

import { bytes, displayText, exactBytes, percent } from '../format.js';
import { bars } from './bars.js';
import { el, size } from './dom.js';
import { volumeName } from './volumes.js';

/** @import { DiskImage } from '../image.js' */
/** @import { EstimateReport, InspectReport } from '../types.js' */

/** @param {DiskImage} image */
export function headline(image) {
  const { report, estimate } = image;
  if (!report) return [];
  if (!estimate) {
    return [
      el('p', { class: 'figures' }, size(report.fileSize)),
      el('p', { class: 'refused' }, displayText(image.refused ?? 'Working it out…', 600)),
    ];
  }

  const { exact } = estimate;
  const after = Math.min(estimate.outputSize, report.fileSize);
  const saved = Math.max(0, report.fileSize - after);
  const maybe = Math.min(mayBeZeroBytes(estimate), after);
  return [
    el(
      'p',
      { class: 'figures' },
      el('span', { class: 'from' }, size(report.fileSize)),
      el('span', { class: 'to-sign', 'aria-hidden': 'true' }, '→'),
      el('span', { class: 'visually-hidden' }, ' becomes '),
      el('span', { class: 'to' }, size(after), exact ? null : el('small', {}, ' or less')),
    ),
    el('p', { class: saved > 0 ? 'saves' : 'refused' }, savesLine(report.fileSize, saved, maybe, exact)),
    bars([
      {
        label: 'Now',
        total: report.fileSize,
        segments: [
          { kind: 'stays', bytes: after - maybe, label: 'stays' },
          { kind: 'maybe', bytes: maybe, label: 'looked through for zeros' },
          { kind: 'gone', bytes: saved, label: 'goes' },
        ],
      },
      {
        label: 'New',
        total: after,
        segments: [
          { kind: 'stays', bytes: after - maybe, label: 'stays' },
          { kind: 'maybe', bytes: maybe, label: 'looked through for zeros' },
        ],
      },
    ]),
    breakdown(report, estimate),
  ];
}

/**
 * What goes where it turns out to be zero.
 * @param {EstimateReport} estimate
 */
const mayBeZeroBytes = ({ parts }) => parts.reduce((sum, part) => sum + (part.mayBeZero ? part.bytes : 0), 0);

/** What saves less than this share of the file is alignment and tables. */
const NEXT_TO_NOTHING = 1000;

/**
 * @param {number} before
 * @param {number} saved
 * @param {number} maybe
 * @param {boolean} exact
 */
function savesLine(before, saved, maybe, exact) {
  const isNothing = saved * NEXT_TO_NOTHING < before;
  if (!exact && maybe > 0 && isNothing) {
    const known = saved > 0 ? 'Next to no' : 'No';
    return `${known} free space can be left out. Up to ${bytes(maybe)} may turn out to be zeros; only looking can tell.`;
  }
  if (saved > 0) return `Saves ${exact ? '' : 'at least '}${bytes(saved)} (${percent(saved, before)}).`;
  return 'It is as small as it can get with these choices.';
}

/**
 * @param {InspectReport} report
 * @param {EstimateReport} estimate
 */
function breakdown(report, estimate) {
  const rows = [row('Your file now', report.fileSize)];
  for (const { volume: position, bytes: count } of estimate.freeByVolume) {
    if (count === 0) continue;
    const volume = report.volumes[position];
    rows.push(row(['Free space of ', ...(volume ? volumeName(volume) : ['a volume']), ', left out'], count, '−'));
  }
  for (const { label, bytes: count, volume: position } of estimate.parts) {
    // Not every part lies in a volume. Two may have the same file system, so its name alone tells too little.
    const volume = position === null ? undefined : report.volumes[position];
    rows.push(row([label, ...(volume ? [', ', ...volumeName(volume)] : [])], count));
  }
  rows.push(row(estimate.exact ? 'New image' : 'New image, at most', estimate.outputSize, '', true));
  return el(
    'details',
    { class: 'breakdown' },
    el('summary', {}, 'How this is worked out'),
    el('table', {}, el('tbody', {}, ...rows)),
  );
}

/**
 * @param {string | (Node | string)[]} label
 * @param {number} count
 * @param {string} [sign]
 * @param {boolean} [total]
 */
function row(label, count, sign = '', total = false) {
  return el(
    'tr',
    { class: total ? 'total' : undefined },
    el('th', { scope: 'row' }, ...(typeof label === 'string' ? [label] : label)),
    el('td', {}, `${sign}${bytes(count)}`),
    el('td', { class: 'muted exact' }, exactBytes(count)),
  );
}
