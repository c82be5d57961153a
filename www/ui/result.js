/** An image that is done: before and after, the proof, what went and why, and what to do now. */

import { bytes, duration, exactBytes, integer, percent } from '../format.js';
import { outputName } from '../names.js';
import { bars } from './bars.js';
import { button, el, fromTemplate, icon, prose, saveTextButton, size } from './dom.js';
import { mountMap } from './map.js';
import { isAlarm, notice, warningNotice } from './notice.js';
import { whatWouldHelp } from './options.js';
import { whereItIs } from './saved.js';
import { volumeName } from './volumes.js';
import { nextSteps } from './where.js';

/** @import { DiskImage, Outcome } from '../image.js' */
/** @import { CompactReport } from '../types.js' */

/** What the engine says of differencing images that build upon the old one, by format. */
const CHILDREN_END = 'children-invalid';

/**
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function resultView(image, signal) {
  const outcome = /** @type {Outcome} */ (image.outcome);
  const { report } = outcome;
  const saved = report.inputSize - report.outputSize;
  const map = el('section', { class: 'map', 'aria-label': 'Block map' });
  const next = fromTemplate('next-steps-template');
  if (image.report) next.slot('products').append(...nextSteps(image.name, image.report));
  const children = report.warnings.find(({ code }) => code === CHILDREN_END);
  next.slot('children').replaceChildren(...prose(children?.message ?? ''));
  const view = el(
    'div',
    { class: 'result' },
    el(
      'div',
      { class: 'headline' },
      el(
        'h3',
        { class: 'figures', tabindex: '-1' },
        el('span', { class: 'from' }, size(report.inputSize)),
        el('span', { class: 'to-sign', 'aria-hidden': 'true' }, '→'),
        el('span', { class: 'visually-hidden' }, ' became '),
        el('span', { class: 'to' }, size(report.outputSize)),
      ),
      el(
        'p',
        { class: 'saves' },
        `${bytes(saved)} smaller (${percent(saved, report.inputSize)}), in ${duration(report.elapsedMs / 1000)}.`,
      ),
      bars([
        {
          label: 'Before',
          total: report.inputSize,
          segments: [
            { kind: 'stays', bytes: report.outputSize, label: 'kept' },
            { kind: 'gone', bytes: Math.max(0, saved), label: 'left out' },
          ],
        },
        {
          label: 'After',
          total: report.outputSize,
          segments: [{ kind: 'stays', bytes: report.outputSize, label: 'kept' }],
        },
      ]),
    ),
    proof(report, outcome.blob === null),
    ...oddities(image, report),
    whereItIs(image, outcome),
    whatWent(image, report),
    map,
    el('div', { class: 'buttons' }, ...afterwards(image, outcome)),
    next.root,
  );
  mountMap(map, image, signal);
  return view;
}

/** @param {DiskImage} image */
export function nothingView(image) {
  const helpful = whatWouldHelp(image);
  return notice(
    'plain',
    {
      title: 'Nothing to gain',
      meaning:
        'The image is already as small as these choices can make it. Nothing was written; your file is as it was.',
      next: helpful.length > 0 ? `What may still help, among the options: ${helpful.join(', ')}.` : undefined,
    },
    '',
    [button('Back to the options', () => image.again())],
  );
}

/**
 * What the run found odd, beyond what was said before it; what could cost a person their files is said again, since the
 * next steps end with the old image deleted.
 * @param {DiskImage} image
 * @param {CompactReport} report
 */
function oddities(image, report) {
  const said = new Set([CHILDREN_END, ...(image.report?.warnings ?? []).map(({ code }) => code)]);
  return report.warnings.filter((warning) => isAlarm(warning) || !said.has(warning.code)).map(warningNotice);
}

/**
 * @param {CompactReport} report
 * @param {boolean} isRead whether the saved file itself was read, and not only what is handed to the browser
 */
function proof({ verified, verification }, isRead) {
  if (!verified || !verification) {
    return notice('warn', {
      title: 'Not compared',
      meaning: 'The new image is complete, but it was not read back and compared with yours.',
      next: 'Keep your image until you have compared the two (“Compare two images”, above).',
    });
  }
  return el(
    'div',
    { class: 'proof' },
    icon('check'),
    el('p', {}, el('strong', {}, 'Proved to hold the same. '), isRead ? READ_BACK : '', proofLine(verification)),
  );
}

const READ_BACK = 'The saved file was read back from its first byte to its last, and is what was to be written. ';

/** @param {NonNullable<CompactReport['verification']>} verification */
function proofLine({ tracedBytes, comparedBytes, zeroBytes, skippedFreeBytes }) {
  const parts = [
    tracedBytes > 0 ? `the new image’s own tables lead ${bytes(tracedBytes)} to the very same bytes of your file` : '',
    comparedBytes > 0 ? `${bytes(comparedBytes)} were compared byte by byte` : '',
    zeroBytes > 0 ? `${bytes(zeroBytes)} were read and are zero` : '',
    skippedFreeBytes > 0 ? `${bytes(skippedFreeBytes)} are proved free and may differ` : '',
  ].filter(Boolean);
  const text = parts.join('; ');
  return text === '' ? 'There was nothing to compare.' : `${text[0]?.toUpperCase()}${text.slice(1)}.`;
}

/**
 * What went, as parts that add up to the difference between the two files.
 * @param {DiskImage} image
 * @param {CompactReport} report
 */
function whatWent({ report: inspected }, report) {
  const rows = report.dropped.map(({ volume: position, bytes: count }) => {
    const volume = inspected?.volumes[position];
    return { label: ['Free space of ', ...(volume ? volumeName(volume) : ['a volume'])], count };
  });
  const free = rows.reduce((sum, { count }) => sum + count, 0);
  const rest = report.inputSize - report.outputSize - free;
  rows.push({
    label: [rest >= 0 ? 'Zeros, tables and padding' : 'Larger tables and padding of the new image'],
    count: rest,
  });
  const elements = rows
    .filter(({ count }) => count !== 0)
    .map(({ label, count }) =>
      el(
        'tr',
        {},
        el('th', { scope: 'row' }, ...label),
        el('td', {}, size(count)),
        el('td', { class: 'muted exact' }, exactBytes(count)),
      ),
    );
  const { omitted, kept } = report.blocks;
  return el(
    'details',
    { class: 'breakdown', open: true },
    el('summary', {}, 'What was left out, and why'),
    el('table', {}, el('tbody', {}, ...elements)),
    el(
      'p',
      { class: 'muted' },
      `Blocks: ${integer(kept)} kept; left out ${integer(omitted.free)} free, ${integer(omitted.zero)} zero` +
        `${omitted.equalToParent > 0 ? `, ${integer(omitted.equalToParent)} as in the parent` : ''}; ${integer(omitted.absent)} were never stored. ` +
        `Read ${bytes(report.bytesRead)}, wrote ${bytes(report.bytesWritten)}.`,
    ),
  );
}

/**
 * @param {DiskImage} image
 * @param {Outcome} outcome
 */
function afterwards(image, { report }) {
  const stem = image.report ? outputName(image.name, image.report.format, image.report.format) : image.name;
  const log = () => image.log.map(({ time, level, message }) => `${time} ${level.padEnd(7)} ${message}\n`).join('');
  return [
    button('Compact another', () => document.getElementById('pick')?.click()),
    button('Back to the options', () => image.again(), 'quiet'),
    saveTextButton(
      'Save the report',
      `${stem}.report.json`,
      () => `${JSON.stringify(report, null, 2)}\n`,
      'application/json',
    ),
    saveTextButton('Save the log', `${stem}.log.txt`, log, 'text/plain'),
  ];
}
