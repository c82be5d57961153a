/**
 * "Report a fault": what helps to find it, put together here and sent by nobody. Names are left out: they
 * are the person's, and no fault is in them.
 */

/* global PAGE_VERSION, PAGE_LINKS */

import { visible } from '../format.js';
import { byId } from './dom.js';

/** @import { DiskImage } from '../image.js' */
/** @import { InspectReport } from '../types.js' */

/** What of a report names something of the person's, or tells their disks apart. */
const PRIVATE = new Set([
  'file',
  'input',
  'output',
  'label',
  'name',
  'names',
  'paths',
  'id',
  'ids',
  'identity',
  'digest',
]);
const LEFT_OUT = '(left out)';

/** @param {() => DiskImage[]} images what is on the page */
export function mountFaultReport(images) {
  const dialog = /** @type {HTMLDialogElement} */ (byId('fault'));
  const text = /** @type {HTMLTextAreaElement} */ (byId('fault-text'));
  const copy = byId('fault-copy');
  const { source, bugs } = PAGE_LINKS;
  link('source-link', source);
  link('fault-link', bugs);

  byId('report-fault').addEventListener('click', () => {
    text.value = faultReport(images(), PAGE_VERSION, navigator.userAgent);
    copy.textContent = 'Copy';
    dialog.showModal();
  });
  copy.addEventListener('click', () => {
    navigator.clipboard.writeText(text.value).then(
      () => {
        copy.textContent = 'Copied';
      },
      () => text.select(),
    );
  });
}

/**
 * @param {string} id
 * @param {string | null} address
 */
function link(id, address) {
  if (!address) return;
  const anchor = /** @type {HTMLAnchorElement} */ (byId(id));
  anchor.href = address;
  anchor.hidden = false;
}

/**
 * @param {Pick<DiskImage, 'state' | 'report' | 'error' | 'log' | 'choices' | 'file' | 'outcome' | 'parents'>[]} images
 * @param {string} version
 * @param {string} browser
 */
export function faultReport(images, version, browser) {
  const names = namesOf(images);
  const parts = images.map((image, index) =>
    [
      `## Image ${index + 1}: ${image.state}, ${image.file.size} bytes`,
      `choices: ${JSON.stringify(image.choices)}`,
      image.error ? `error: ${JSON.stringify({ ...image.error, message: image.error.message })}` : '',
      image.report ? `inspect: ${JSON.stringify(image.report, withoutNames, 1)}` : '',
      image.outcome ? `result: ${JSON.stringify(image.outcome.report, withoutNames, 1)}` : '',
      ...image.log.map(({ time, level, message }) => `${time} ${level} ${message}`),
    ]
      .filter(Boolean)
      .join('\n'),
  );
  const text = [`VHD Compactor ${version}`, browser, 'What I did, and what happened instead: …', ...parts].join('\n\n');
  const cleaned = names.reduce((rest, name) => rest.replaceAll(name, LEFT_OUT), text);
  return cleaned.split('\n').map(visible).join('\n');
}

/**
 * @param {string} key
 * @param {unknown} value
 */
const withoutNames = (key, value) => (PRIVATE.has(key) && value !== null ? LEFT_OUT : value);

/**
 * Every name that sentences of the engine could hold, longest first: one may be part of another.
 * @param {Pick<DiskImage, 'report' | 'file' | 'parents' | 'outcome'>[]} images
 */
function namesOf(images) {
  const names = images.flatMap(({ report, file, parents, outcome }) => [
    file.name,
    outcome?.name,
    ...parents.map((parent) => parent.file.name),
    ...(report?.volumes ?? []).flatMap(({ label, name }) => [label, name]),
    ...(report?.parent?.paths ?? []).flatMap((path) => [path, ...path.split(/[\\/]/)]),
    report?.identity,
  ]);
  const known = names.filter((name) => name !== null && name !== undefined).map(String);
  // An error is written as JSON, in which some characters of a name are escaped.
  return [...new Set(known.flatMap((name) => [name, JSON.stringify(name).slice(1, -1)]))]
    .filter((name) => name.length > 1)
    .sort((one, other) => other.length - one.length);
}
