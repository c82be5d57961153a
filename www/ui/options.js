/** The choices, in plain words, each with what it changes. */

import { bytes } from '../format.js';
import { outputFormat } from '../choices.js';
import { el } from './dom.js';

/** @import { DiskImage } from '../image.js' */
/** @import { Choices, InspectReport } from '../types.js' */

/**
 * @typedef {object} Answer
 * @property {string} value
 * @property {string} label
 * @property {string} [hint]
 * @property {() => string | null} effect what this answer gives; null hides the answer
 * @property {Partial<Choices>} sets
 */

/**
 * The options of `image`, and a function that brings their effects up to date.
 * @param {DiskImage} image
 */
export function options(image) {
  const report = /** @type {InspectReport} */ (image.report);
  const parts = [thorough(image), blockSize(image, report), format(image, report), alsoRemove(image)];
  if (image.parents.length > 0) parts.push(chain(image));
  return join(parts);
}

/**
 * What only the person can decide, asked openly.
 * @param {DiskImage} image
 */
export function questions(image) {
  const report = /** @type {InspectReport} */ (image.report);
  const parts = [shadowCopies(image)];
  if (report.diskType === 'fixed') parts.unshift(dynamic(image));
  return join(parts);
}

/**
 * The options that would still make the new image smaller, in words; empty where none would.
 * @param {DiskImage} image
 */
export function whatWouldHelp(image) {
  /** @type {[string, string, string][]} */
  const candidates = [
    ['smaller blocks', 'now', 'block:smallest'],
    ['emptied page files', 'now', 'dropPageFiles:yes'],
    ['giving up shadow copies', 'now', 'ignoreShadowCopies:yes'],
    ['merging it with its parents', 'now', 'flatten:yes'],
    ['leaving out free space', 'now', 'mode:full'],
  ];
  return candidates.filter(([, without, withIt]) => (gain(image, without, withIt) ?? 0) > 0).map(([name]) => name);
}

/** @typedef {{ element: HTMLElement, update: () => void }} Part */

/** @param {Part[]} parts */
function join(parts) {
  return {
    elements: parts.map((part) => part.element),
    update: () => parts.forEach((part) => part.update()),
  };
}

/** @param {DiskImage} image */
function thorough(image) {
  const size = (/** @type {string} */ key, /** @type {string} */ suffix) => () => {
    const estimate = image.estimateOf(key);
    if (image.isOpen(key)) return '…';
    return estimate ? `${bytes(estimate.outputSize)}${suffix}` : null;
  };
  return radios(image, 'How thorough', 'mode', () => image.choices.mode ?? 'full', [
    {
      value: 'full',
      label: 'Smallest',
      hint: 'Leaves out free space, then reads the rest to find zeros.',
      effect: size('mode:full', ' or less'),
      sets: { mode: 'full' },
    },
    {
      value: 'quick',
      label: 'Quick',
      hint: 'Leaves out free space and reads nothing else.',
      effect: size('mode:quick', ''),
      sets: { mode: 'quick' },
    },
    {
      value: 'zero',
      label: 'Zeros only',
      hint: 'Every byte reads as before, deleted files included. Checkpoints built upon this image stay valid.',
      effect: size('mode:zero', ' or less'),
      sets: { mode: 'zero' },
    },
  ]);
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function blockSize(image, report) {
  const part = radios(image, 'Block size', 'block', () => (image.choices.blockSize === 'keep' ? 'keep' : 'smallest'), [
    {
      value: 'smallest',
      label: 'What makes it smallest',
      hint: 'Smaller blocks let smaller gaps go. The disk may grow a little more slowly.',
      effect: () => outputSize(image, 'block:smallest'),
      sets: { blockSize: undefined },
    },
    {
      value: 'keep',
      label: `Keep ${bytes(report.blockSize)}`,
      hint: 'As in your image.',
      effect: () => outputSize(image, 'block:keep'),
      sets: { blockSize: 'keep' },
    },
  ]);
  return {
    element: part.element,
    update() {
      part.update();
      // Offered where it changes anything; once it was chosen it stays, so that there is a way back.
      const helps = (gain(image, 'block:keep', 'block:smallest') ?? 0) > 0;
      part.element.hidden = !helps && image.choices.blockSize === undefined;
    },
  };
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function format(image, report) {
  const part = radios(image, 'Format', 'format', () => outputFormat(report, image.choices), [
    {
      value: 'vhdx',
      label: 'VHDX',
      hint: 'For WSL, Docker and Hyper-V.',
      effect: () => outputSize(image, 'format:vhdx'),
      sets: { format: report.format === 'vhdx' ? undefined : 'vhdx', blockSize: undefined },
    },
    {
      value: 'vhd',
      label: 'VHD',
      hint: 'For VirtualBox, Azure and older systems.',
      effect: () => outputSize(image, 'format:vhd'),
      sets: { format: report.format === 'vhd' ? undefined : 'vhd', blockSize: undefined },
    },
  ]);
  return {
    element: part.element,
    update() {
      part.update();
      part.element.hidden = !image.estimateOf('format:vhd') || !image.estimateOf('format:vhdx');
    },
  };
}

/** @param {DiskImage} image */
function alsoRemove(image) {
  const pageFiles = checkbox(image, 'dropPageFiles', {
    label: 'Empty page and swap files',
    hint: 'The system makes them anew when it starts.',
    effect: () => {
      if (image.isOpen('dropPageFiles:yes')) return '…';
      const saved = gain(image, 'dropPageFiles:no', 'dropPageFiles:yes') ?? 0;
      return saved > 0 || image.choices.dropPageFiles ? changeText(saved) : null;
    },
  });
  const scrub = checkbox(image, 'scrub', {
    label: 'Wipe what was deleted',
    hint: 'Fills free space that has to stay with zeros, so that nothing deleted can be recovered.',
    effect: () => (image.choices.mode === 'zero' ? null : 'no change in size'),
  });
  return group('Also', [pageFiles, scrub]);
}

/** @param {DiskImage} image */
function chain(image) {
  return group('Chain', [
    checkbox(image, 'flatten', {
      label: 'Merge with its parents',
      hint: `Makes one image that stands alone, of this and ${image.parents.length === 1 ? 'its parent' : `its ${image.parents.length} parents`}.`,
      effect: () => outputSize(image, 'flatten:yes'),
    }),
  ]);
}

/** @param {DiskImage} image */
function dynamic(image) {
  const part = radios(
    image,
    'This image has a fixed size. May the new one be dynamic?',
    'dynamic',
    () => (image.choices.toDynamic === undefined ? '' : image.choices.toDynamic ? 'yes' : 'no'),
    [
      {
        value: 'yes',
        label: 'Yes',
        hint: 'It then takes only the room that its data needs, and grows with it. WSL, Docker, Hyper-V and VirtualBox all run such disks.',
        effect: () => outputSize(image, 'toDynamic:yes'),
        sets: { toDynamic: true },
      },
      {
        value: 'no',
        label: 'No, leave it',
        hint: 'A fixed-size image always takes its whole size, so there is nothing to make smaller. Azure runs only such disks.',
        effect: () => (image.report ? bytes(image.report.fileSize) : null),
        sets: { toDynamic: false },
      },
    ],
  );
  part.element.classList.add('question');
  return part;
}

/** @param {DiskImage} image */
function shadowCopies(image) {
  const part = radios(
    image,
    'This disk holds shadow copies (restore points). Are they still needed?',
    'shadow',
    () => (image.choices.ignoreShadowCopies ? 'no' : 'yes'),
    [
      {
        value: 'yes',
        label: 'Keep them',
        hint: 'What they hold of deleted and changed files stays, although the disk calls it free.',
        effect: () => outputSize(image, 'ignoreShadowCopies:no'),
        sets: { ignoreShadowCopies: false },
      },
      {
        value: 'no',
        label: 'They may go',
        hint: 'Previous versions of files and restore points on this disk will be lost or damaged. The files as they are now are not touched.',
        effect: () => outputSize(image, 'ignoreShadowCopies:yes'),
        sets: { ignoreShadowCopies: true },
      },
    ],
  );
  part.element.classList.add('question');
  return {
    element: part.element,
    update() {
      part.update();
      // Asked as soon as the disk is read, and not when the answer's worth is known: the page must not move.
      const some = image.report?.volumes.some(({ shadowCopyBytes }) => shadowCopyBytes > 0) ?? false;
      const saved = gain(image, 'ignoreShadowCopies:no', 'ignoreShadowCopies:yes');
      part.element.hidden = !some || saved === 0;
    },
  };
}

/**
 * @param {DiskImage} image
 * @param {string} key
 */
function outputSize(image, key) {
  const estimate = image.estimateOf(key);
  if (image.isOpen(key)) return '…';
  return estimate ? bytes(estimate.outputSize) : null;
}

/**
 * What one answer saves over another, in bytes; null where one of them cannot be had.
 * @param {DiskImage} image
 * @param {string} without
 * @param {string} withIt
 */
function gain(image, without, withIt) {
  const before = image.estimateOf(without);
  const after = image.estimateOf(withIt);
  return before && after ? before.outputSize - after.outputSize : null;
}

/** @param {number} saved */
function changeText(saved) {
  if (saved === 0) return 'no change in size';
  return saved > 0 ? `saves ${bytes(saved)}` : `${bytes(-saved)} more`;
}

/**
 * @param {DiskImage} image
 * @param {string} legend
 * @param {string} name
 * @param {() => string} chosen
 * @param {Answer[]} answers
 * @returns {Part}
 */
function radios(image, legend, name, chosen, answers) {
  const groupName = `${name}-${image.id}`;
  const rows = answers.map((answer) => {
    const input = el('input', { type: 'radio', name: groupName, value: answer.value });
    input.addEventListener('change', () => {
      if (input.checked) void image.choose(answer.sets);
    });
    return { answer, input, ...choiceRow(input, `${groupName}-${answer.value}`, answer.label, answer.hint) };
  });
  return {
    element: el('fieldset', {}, el('legend', {}, legend), ...rows.map((row) => row.element)),
    update() {
      for (const { answer, input, element, effect } of rows) {
        const text = answer.effect();
        element.hidden = text === null;
        effect.textContent = text ?? '';
        input.checked = chosen() === answer.value;
      }
    },
  };
}

/**
 * @param {DiskImage} image
 * @param {'dropPageFiles' | 'scrub' | 'flatten'} name
 * @param {{ label: string, hint: string, effect: () => string | null }} words
 * @returns {Part}
 */
function checkbox(image, name, words) {
  const input = el('input', { type: 'checkbox' });
  input.addEventListener('change', () => void image.choose({ [name]: input.checked }));
  const { element, effect } = choiceRow(input, `${name}-${image.id}`, words.label, words.hint);
  return {
    element,
    update() {
      const text = words.effect();
      element.hidden = text === null;
      effect.textContent = text ?? '';
      input.checked = Boolean(image.choices[name]);
    },
  };
}

/**
 * @param {string} legend
 * @param {Part[]} parts
 * @returns {Part}
 */
function group(legend, parts) {
  const element = el('fieldset', {}, el('legend', {}, legend), ...parts.map((part) => part.element));
  return {
    element,
    update() {
      parts.forEach((part) => part.update());
      element.hidden = parts.every((part) => part.element.hidden);
    },
  };
}

/**
 * @param {HTMLInputElement} input
 * @param {string} id
 * @param {string} label
 * @param {string} [hint]
 */
function choiceRow(input, id, label, hint = '') {
  const effect = el('span', { class: 'effect', id: `${id}-effect` });
  input.id = id;
  input.setAttribute('aria-describedby', `${id}-effect ${id}-hint`);
  const element = el(
    'div',
    { class: 'choice' },
    input,
    el('label', { for: id }, label),
    effect,
    el('p', { class: 'hint', id: `${id}-hint` }, hint),
  );
  return { element, effect };
}
