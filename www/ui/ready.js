/** An image that was read: what it holds, what can be saved, the choices, and the two ways to save. */

import { EngineError } from '../bridge.js';
import { outputFormat } from '../choices.js';
import { about, bytes } from '../format.js';
import { nameProblem, outputName, withExtension } from '../names.js';
import { enqueue } from '../queue.js';
import { obstacles, remedyOf } from '../remedies.js';
import {
  CLOSING_BYTES_PER_SECOND,
  canPickFolder,
  createIn,
  downloadCosts,
  downloadTarget,
  pickFolder,
} from '../save.js';
import { copyable, el, fromTemplate, prose } from './dom.js';
import { headline } from './headline.js';
import { inside } from './inside.js';
import { mountMap } from './map.js';
import { failureNotice, isAlarm, notice, warningNotice } from './notice.js';
import { options, questions } from './options.js';
import { volumeName } from './volumes.js';

/** @import { DiskImage } from '../image.js' */
/** @import { EstimateReport, InspectReport } from '../types.js' */

const WIDE = '(min-width: 62rem)';
/** Reasons that stand above, with their remedy. */
const DECLINED = 'volume-declined';
const SAID_ELSEWHERE = new Set([DECLINED]);

/**
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function readyView(image, signal) {
  const { root, slot } = fromTemplate('ready-template');
  mountMap(slot('map'), image, signal);
  slot('inside').append(...inside(image));

  const asked = questions(image);
  const chosen = options(image);
  slot('questions').append(...asked.elements);
  slot('option-list').append(...chosen.elements);
  /** @type {HTMLDetailsElement} */ (slot('options')).open = window.matchMedia(WIDE).matches;
  const save = savePanel(image);
  slot('save').append(save.element);
  slot('form').addEventListener('submit', (event) => event.preventDefault());

  let wasKnown = false;
  const update = () => {
    keepOpen(slot('headline'), headline(image));
    asked.update();
    chosen.update();
    // They appear together, once it is known which of them change anything.
    wasKnown ||= image.knowsAlternatives;
    slot('option-list').setAttribute('aria-busy', String(!wasKnown));
    save.update();
    slot('why').replaceChildren(...why(image));
  };
  image.addEventListener('estimate', update, { signal });
  update();
  return root;
}

/**
 * The notices above an image that can be worked on.
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function readyNotices(image, signal) {
  const { report, estimate } = image;
  const warnings = report?.warnings ?? [];
  // What could cost a person their files comes before everything else.
  const notices = warnings.filter(isAlarm).map(warningNotice);
  notices.push(...(report ? obstacles(report, estimate).map((volume) => obstacleNotice(volume, estimate)) : []));
  if (image.wasCancelled) {
    notices.push(cancelledNotice(image, signal));
  }
  if (image.hasChildren) {
    notices.push(
      notice('warn', {
        title: 'Other images are built upon this one',
        meaning:
          'They fit only a parent that reads as before. “Zeros only” keeps them valid, and is chosen for that reason.',
      }),
    );
  }
  notices.push(...warnings.filter((warning) => !isAlarm(warning)).map(warningNotice));
  return notices;
}

/**
 * Why a volume keeps its free space, and what to do about it: above all else, and only there.
 * @param {InspectReport['volumes'][number]} volume
 * @param {EstimateReport | null} estimate
 */
function obstacleNotice(volume, estimate) {
  const remedy = remedyOf(volume);
  // What the engine advises for this very image comes first; the reason's sentence begins with the volume's number.
  const detail = volume.declined?.detail ?? '';
  const reason = estimate?.reasons.find(({ code, message }) => code === DECLINED && message.includes(detail));
  const isAdvised = reason !== undefined && reason.commands.length > 0;
  // What the detail itself says to do is not said twice; a command in it is what is to be copied.
  const tellsRemedy = /\btry again\b/.test(detail);
  const named = tellsRemedy ? [...detail.matchAll(/`([^`]+)`/g)].map(([, command = '']) => command) : [];
  const fallback = named.length > 0 ? named : remedy.commands;
  const name = el('span', {}, ...volumeName(volume, true));
  const element = notice(
    'warn',
    {
      title: ` ${remedy.title}, so its free space stays`,
      meaning: isAdvised ? reason.message.slice(reason.message.indexOf(detail)) : detail,
      next: isAdvised || tellsRemedy ? undefined : remedy.next,
    },
    '',
    (isAdvised ? reason.commands : fallback).map(copyable),
  );
  element.querySelector('h3')?.prepend(name);
  return element;
}

/**
 * @param {DiskImage} image
 * @param {AbortSignal} signal
 */
function cancelledNotice(image, signal) {
  const element = notice('plain', { title: 'Cancelled', meaning: ' ' });
  const update = () => {
    const [meaning] = element.querySelectorAll('p');
    if (!meaning) return;
    meaning.textContent = image.isClearing
      ? 'Your file is as it was. The browser still holds the new file, and it is removed as soon as it lets go: keep this page open for a moment.'
      : 'Nothing was left behind, and your file is as it was.';
  };
  image.addEventListener('clearing', update, { signal });
  update();
  return element;
}

/** @param {DiskImage} image */
function savePanel(image) {
  const report = /** @type {InspectReport} */ (image.report);
  const suggestion = () => outputName(image.name, report.format, outputFormat(report, image.choices));
  const id = `name-${image.id}`;
  const name = el('input', { type: 'text', id, required: true, autocomplete: 'off', spellcheck: 'false' });
  let suggested = suggestion();
  name.value = suggested;
  const check = () => name.setCustomValidity(nameProblem(name.value));
  name.addEventListener('input', check);
  name.addEventListener('change', () => {
    if (nameProblem(name.value) === '') name.value = withExtension(name.value, outputFormat(report, image.choices));
    check();
  });

  const download = el('button', { type: 'button', class: 'primary' }, 'Download');
  const folder = el('button', { type: 'button' }, 'Save to a folder…');
  folder.hidden = !canPickFolder;
  const hint = el('p', { class: 'hint', id: `${id}-hint` });
  const problem = el('div', { class: 'save-problem' });
  for (const one of [download, folder]) one.setAttribute('aria-describedby', hint.id);

  const mayStart = () => image.hindrance === null && name.reportValidity();
  download.addEventListener('click', async () => {
    if (mayStart()) void enqueue(image, await downloadTarget(name.value, image.estimate?.outputSize ?? 0));
  });
  folder.addEventListener('click', async () => {
    if (!mayStart()) return;
    problem.replaceChildren();
    try {
      const place = await pickFolder(image.handle);
      if (place) void enqueue(image, await createIn(place, name.value, [image, ...image.parents]));
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      problem.replaceChildren(failureNotice(error));
    }
  });

  return {
    element: el(
      'div',
      {},
      el('label', { for: id }, 'Name of the new image'),
      name,
      el('div', { class: 'buttons' }, download, folder),
      hint,
      problem,
    ),
    update() {
      if (name.value === suggested) name.value = suggestion();
      else if (nameProblem(name.value) === '') {
        name.value = withExtension(name.value, outputFormat(report, image.choices));
      }
      suggested = suggestion();
      download.disabled = folder.disabled = image.hindrance !== null;
      hint.replaceChildren(...saveHint(image));
    },
  };
}

/** @param {DiskImage} image */
function saveHint(image) {
  if (image.hindrance === 'dynamic-question') return ['Answer the question above first.'];
  if (!image.estimate) return ['With these choices there is nothing to save.'];
  const { outputSize } = image.estimate;
  const lines = [`Needs ${bytes(outputSize)} of room.`];
  const costs = downloadCosts(outputSize);
  if (costs === 'storage') {
    lines.push(' The browser keeps as much again in its own storage until this page is closed.');
  } else if (costs === 'memory') {
    lines.push(
      ` This browser also holds the whole new image in memory while it saves (${bytes(outputSize)}): Chrome or Edge do without.`,
    );
  }
  const closing = outputSize / CLOSING_BYTES_PER_SECOND;
  if (canPickFolder && closing > 5) {
    lines.push(
      ` Download is the faster way: in a folder the browser checks the whole file once more before it appears, ${about(closing)}.`,
    );
  }
  return lines;
}

/** @param {DiskImage} image */
function why({ estimate }) {
  if (!estimate) return [];
  const reasons = estimate.reasons.filter(({ code }) => !SAID_ELSEWHERE.has(code));
  if (reasons.length === 0) return [];
  return [
    el('h3', {}, 'Why it will not shrink more'),
    el(
      'ul',
      { class: 'reasons' },
      ...reasons.map(({ message, bytes: count, commands }) =>
        el(
          'li',
          {},
          count > 0 ? el('strong', {}, `${bytes(count)}: `) : null,
          el('bdi', {}, ...prose(message)),
          ...commands.map(copyable),
        ),
      ),
    ),
  ];
}

/**
 * Replaces the children of a slot and keeps its details as they were opened.
 * @param {HTMLElement} slot
 * @param {Node[]} children
 */
function keepOpen(slot, children) {
  const wasOpen = slot.querySelector('details')?.open ?? false;
  slot.replaceChildren(...children);
  const details = slot.querySelector('details');
  if (details) details.open = wasOpen;
}
