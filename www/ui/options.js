/** The choices, in plain words, each with what it changes. */

import { bytes } from '../format.js';
import { answersOf, variantOf } from '../choices.js';
import { el } from './dom.js';

/** @import { DiskImage } from '../image.js' */
/** @import { Answers } from '../choices.js' */
/** @import { InspectReport } from '../types.js' */

/**
 * @typedef {object} Words of an answer
 * @property {string} label
 * @property {string} hint
 * @property {() => string | null} [effect] what this answer gives; null hides it. Else the size of the new image
 */

/**
 * The options of `image`, and a function that brings their effects up to date.
 * @param {DiskImage} image
 */
export function options(image) {
  const report = /** @type {InspectReport} */ (image.report);
  const parts = [thorough(image, report), blockSize(image, report), format(image, report), alsoRemove(image)];
  if (image.parents.length > 0) parts.push(chain(image));
  return join(parts);
}

/**
 * What only the person can decide, asked openly.
 * @param {DiskImage} image
 */
export function questions(image) {
  const report = /** @type {InspectReport} */ (image.report);
  const parts = [shadowCopies(image, report)];
  if (report.diskType === 'fixed') parts.unshift(dynamic(image, report));
  return join(parts);
}

/**
 * The options that would still make the new image smaller, in words; empty where none would.
 * @param {DiskImage} image
 */
export function whatWouldHelp(image) {
  const candidates = {
    'smaller blocks': variantOf('blockSize', 'smallest'),
    'emptied page files': variantOf('dropPageFiles', 'yes'),
    'giving up shadow copies': variantOf('ignoreShadowCopies', 'yes'),
    'merging it with its parents': variantOf('flatten', 'yes'),
    'leaving out free space': variantOf('mode', 'full'),
  };
  return Object.entries(candidates)
    .filter(([, variant]) => (gain(image, 'now', variant) ?? 0) > 0)
    .map(([name]) => name);
}

/** @typedef {{ element: HTMLElement, update: () => void }} Part */

/** @param {Part[]} parts */
function join(parts) {
  return {
    elements: parts.map((part) => part.element),
    update: () => parts.forEach((part) => part.update()),
  };
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function thorough(image, report) {
  const orLess = (/** @type {string} */ variant) => () => {
    const size = outputSize(image, variant);
    return size && image.estimateOf(variant) ? `${size} or less` : size;
  };
  return radios(image, report, 'How thorough', 'mode', {
    full: {
      label: 'Smallest',
      hint: 'Leaves out free space, then reads the rest to find zeros.',
      effect: orLess(variantOf('mode', 'full')),
    },
    quick: {
      label: 'Quick',
      hint: 'Leaves out free space and reads nothing else.',
    },
    zero: {
      label: 'Zeros only',
      hint: 'Every byte reads as before, deleted files included. Checkpoints built upon this image stay valid.',
      effect: orLess(variantOf('mode', 'zero')),
    },
  });
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function blockSize(image, report) {
  const part = radios(image, report, 'Block size', 'blockSize', {
    smallest: {
      label: 'What makes it smallest',
      hint: 'Smaller blocks let smaller gaps go. The disk may grow a little more slowly.',
    },
    keep: {
      label: `Keep ${bytes(report.blockSize)}`,
      hint: 'As in your image.',
    },
  });
  return shownIf(part, () => {
    // Offered where it changes anything; once it was chosen it stays, so that there is a way back.
    const saved = gain(image, variantOf('blockSize', 'keep'), variantOf('blockSize', 'smallest'));
    return (saved ?? 0) > 0 || image.choices.blockSize !== undefined;
  });
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function format(image, report) {
  const part = radios(image, report, 'Format', 'format', {
    vhdx: { label: 'VHDX', hint: 'For WSL, Docker and Hyper-V.' },
    vhd: { label: 'VHD', hint: 'For VirtualBox, Azure and older systems.' },
  });
  const variants = [variantOf('format', 'vhd'), variantOf('format', 'vhdx')];
  return shownIf(part, () => variants.every((variant) => image.estimateOf(variant)));
}

/** @param {DiskImage} image */
function alsoRemove(image) {
  const [no, yes] = [variantOf('dropPageFiles', 'no'), variantOf('dropPageFiles', 'yes')];
  const pageFiles = checkbox(image, 'dropPageFiles', {
    label: 'Empty page and swap files',
    hint: 'The system makes them anew when it starts.',
    effect: () => {
      if (image.isOpen(yes)) return '…';
      const saved = gain(image, no, yes) ?? 0;
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
      effect: () => outputSize(image, variantOf('flatten', 'yes')),
    }),
  ]);
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function dynamic(image, report) {
  const part = radios(image, report, 'This image has a fixed size. May the new one be dynamic?', 'toDynamic', {
    yes: {
      label: 'Yes',
      hint: 'It then takes only the room that its data needs, and grows with it. WSL, Docker, Hyper-V and VirtualBox all run such disks.',
    },
    no: {
      label: 'No, leave it',
      hint: 'A fixed-size image always takes its whole size, so there is nothing to make smaller. Azure runs only such disks.',
      effect: () => bytes(report.fileSize),
    },
  });
  part.element.classList.add('question');
  return part;
}

/**
 * @param {DiskImage} image
 * @param {InspectReport} report
 */
function shadowCopies(image, report) {
  const legend = 'This disk holds shadow copies (restore points). Are they still needed?';
  const part = radios(image, report, legend, 'ignoreShadowCopies', {
    no: {
      label: 'Keep them',
      hint: 'What they hold of deleted and changed files stays, although the disk calls it free.',
    },
    yes: {
      label: 'They may go',
      hint: 'Previous versions of files and restore points on this disk will be lost or damaged. The files as they are now are not touched.',
    },
  });
  part.element.classList.add('question');
  return shownIf(part, () => {
    // Asked as soon as the disk is read, and not when the answer's worth is known: the page must not move.
    const some = image.report?.volumes.some(({ shadowCopyBytes }) => shadowCopyBytes > 0) ?? false;
    return some && gain(image, variantOf('ignoreShadowCopies', 'no'), variantOf('ignoreShadowCopies', 'yes')) !== 0;
  });
}

/**
 * @param {DiskImage} image
 * @param {string} variant
 */
function outputSize(image, variant) {
  const estimate = image.estimateOf(variant);
  if (image.isOpen(variant)) return '…';
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
 * @template {keyof Answers} C
 * @param {DiskImage} image
 * @param {InspectReport} report
 * @param {string} legend
 * @param {C} choice
 * @param {Record<keyof Answers[C] & string, Words>} words of each answer, in the order in which they are shown
 * @returns {Part}
 */
function radios(image, report, legend, choice, words) {
  const answers = /** @type {Record<string, import('../types.js').Choices>} */ (answersOf(report)[choice]);
  const groupName = `${choice}-${image.id}`;
  const rows = /** @type {[keyof Answers[C] & string, Words][]} */ (Object.entries(words)).map(([answer, said]) => {
    const sets = answers[answer] ?? {};
    const input = el('input', { type: 'radio', name: groupName, value: answer });
    input.addEventListener('change', () => {
      if (input.checked) void image.choose(sets);
    });
    const tell = said.effect ?? (() => outputSize(image, variantOf(choice, answer)));
    return { sets, input, tell, ...choiceRow(input, `${groupName}-${answer}`, said.label, said.hint) };
  });
  return {
    element: el('fieldset', {}, el('legend', {}, legend), ...rows.map((row) => row.element)),
    update() {
      for (const { sets, input, tell, element, effect } of rows) {
        const text = tell();
        element.hidden = text === null;
        effect.textContent = text ?? '';
        input.checked = image.choices[choice] === sets[choice];
      }
    },
  };
}

/**
 * @param {Part} part
 * @param {() => boolean} isShown
 * @returns {Part}
 */
function shownIf(part, isShown) {
  return {
    element: part.element,
    update() {
      part.update();
      part.element.hidden = !isShown();
    },
  };
}

/**
 * @param {DiskImage} image
 * @param {'dropPageFiles' | 'scrub' | 'flatten'} name
 * @param {Required<Words>} words
 * @returns {Part}
 */
function checkbox(image, name, words) {
  const input = el('input', { type: 'checkbox' });
  input.addEventListener('change', () => void image.choose({ [name]: input.checked || undefined }));
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
