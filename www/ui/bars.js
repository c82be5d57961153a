/** Two bars on one scale: the image before and after. */

import { size, el } from './dom.js';
import { bytes } from '../format.js';

/** @typedef {{ kind: 'stays' | 'maybe' | 'gone', bytes: number, label: string }} Segment */
/** @typedef {{ label: string, total: number, segments: Segment[] }} Bar */

/** @param {Bar[]} rows */
export function bars(rows) {
  const widest = Math.max(1, ...rows.map((row) => row.segments.reduce((sum, one) => sum + one.bytes, 0)));
  const kinds = new Map(
    rows.flatMap((row) => row.segments.filter((one) => one.bytes > 0)).map((one) => [one.kind, one.label]),
  );
  return el(
    'div',
    { class: 'bars' },
    ...rows.map((row) => bar(row, widest)),
    el(
      'ul',
      { class: 'bar-legend' },
      ...[...kinds].map(([kind, label]) => el('li', {}, el('span', { class: `chip ${kind}` }), label)),
    ),
  );
}

/**
 * @param {Bar} row
 * @param {number} widest
 */
function bar({ label, total, segments }, widest) {
  const shown = segments.filter((one) => one.bytes > 0);
  const track = el('div', {
    class: 'bar',
    role: 'img',
    'aria-label': `${label}: ${shown.map((one) => `${bytes(one.bytes)} ${one.label}`).join(', ')}`,
  });
  for (const { kind, bytes: count } of shown) {
    const part = el('span', { class: kind });
    part.style.setProperty('--share', String(count / widest));
    track.append(part);
  }
  return el('div', { class: 'bar-row' }, el('span', { class: 'bar-label' }, label), track, size(total));
}
