/** A message in three sentences: what happened, what it means for the data, what to do next. */

import { displayText } from '../format.js';
import { ALARMS, CAUSES, ERRORS } from '../words.js';
import { button, fromTemplate, prose } from './dom.js';

const MAX_DETAIL_CHARS = 1000;

/** @import { EngineError } from '../bridge.js' */
/** @import { InspectReport } from '../types.js' */

/** Where the words cannot say what is the matter, and the detail does. */
const DETAIL_MATTERS = new Set([
  'unsupported',
  'wrong-image-type',
  'invalid-argument',
  'internal',
  'reads-differently',
  'not-the-same',
]);

/**
 * @param {EngineError} error
 * @param {Node[]} actions
 */
export function failureNotice(error, actions = []) {
  const { known, code } = error;
  const words = known ? CAUSES[known.cause](known.what) : ERRORS[code];
  const element = notice('bad', words, detailOf(error), actions);
  const details = element.querySelector('details');
  if (details) details.open = !known && DETAIL_MATTERS.has(code);
  return element;
}

/**
 * The answer to `parent-changed`; what is risked stands in its words.
 * @param {() => void} act
 */
export const trustButton = (act) => button('Nothing was written to it: use this parent', act, 'quiet');

/**
 * @param {'bad' | 'warn' | 'good' | 'plain'} tone
 * @param {{ title: string, meaning?: string, next?: string }} words
 * @param {string} [detail]
 * @param {Node[]} [actions]
 */
export function notice(tone, { title, meaning, next }, detail = '', actions = []) {
  const { root, slot } = fromTemplate('notice-template');
  root.classList.add(tone);
  slot('title').textContent = title;
  for (const [name, text] of Object.entries({ meaning, next })) {
    slot(name).replaceChildren(...prose(text ?? ''));
    slot(name).hidden = !text;
  }
  slot('more').hidden = detail === '';
  slot('detail').textContent = displayText(detail, MAX_DETAIL_CHARS);
  slot('actions').append(...actions);
  slot('actions').hidden = actions.length === 0;
  return root;
}

/**
 * What the engine warns of.
 * @param {InspectReport['warnings'][number]} warning
 */
export function warningNotice({ code, message }) {
  return notice('warn', { title: ALARMS[code] ?? 'Good to know', meaning: message });
}

/** Whether it could cost a person their files. @param {{ code: string }} warning */
export const isAlarm = ({ code }) => code in ALARMS;

/** @param {EngineError} error */
function detailOf({ code, message, site, expected, found }) {
  const parts = [
    message,
    site && `${site.structure}, ${site.space} offset ${site.offset}`,
    expected && `expected ${expected}`,
    found && `found ${found}`,
  ];
  return `${parts.filter(Boolean).join(' — ')} (${code})`;
}
