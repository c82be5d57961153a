/**
 * Where the new image is. In a folder it is saved, and this page has read it back. What was handed to the browser
 * is made; whether it arrived is told here only once the person gives the saved file to be compared.
 */

import { announce } from '../announce.js';
import { Engine, asEngineError } from '../bridge.js';
import { bytes, integer, percent } from '../format.js';
import { guarded } from '../guard.js';
import { fromDrop, fromInput } from '../intake.js';
import { canPickFolder, createIn, pickFolder, startDownload } from '../save.js';
import { enqueue } from '../queue.js';
import { button, el, foreign, icon } from './dom.js';
import { failureNotice, notice } from './notice.js';

/** @import { DiskImage, Outcome } from '../image.js' */
/** @import { FileDifference } from '../types.js' */

/**
 * @param {DiskImage} image
 * @param {Outcome} outcome
 */
export function whereItIs(image, outcome) {
  const { name, place, blob } = outcome;
  if (place !== null || !blob) {
    return el(
      'p',
      {},
      'Saved as ',
      el('strong', {}, foreign(name)),
      ' in the folder ',
      el('strong', {}, foreign(place ?? '')),
      '.',
    );
  }
  const said = el('div', { class: 'saved-said', role: 'status' });
  const input = el('input', { type: 'file', hidden: true, 'aria-label': 'The saved file' });
  const check = button('Check the saved file…', () => input.click());
  const compare = async (/** @type {File | undefined} */ file) => {
    if (!file || check.getAttribute('aria-disabled') === 'true') return;
    check.setAttribute('aria-disabled', 'true');
    try {
      await compareSaved(image, blob, file, said);
    } finally {
      check.removeAttribute('aria-disabled');
    }
  };
  input.addEventListener('change', () => {
    void compare(fromInput(input.files)[0]?.file);
    input.value = '';
  });

  const panel = el(
    'div',
    { class: 'saved' },
    el(
      'p',
      {},
      'The new image is made, and handed to the browser to be saved as ',
      el('strong', {}, foreign(name)),
      '. Whether it arrived, the browser’s downloads list tells; keep this page open until then.',
    ),
    el(
      'div',
      { class: 'buttons' },
      check,
      input,
      button('Download again', () => void startDownload(blob, name), 'quiet'),
      canPickFolder ? button('Save to a folder…', () => void toFolder(image, name, said), 'quiet') : null,
    ),
    el(
      'p',
      { class: 'hint' },
      'Choose the saved file, or drop it here: it is compared byte for byte with what was made.',
    ),
    said,
  );
  panel.addEventListener('drop', (event) => {
    if (!event.dataTransfer) return;
    event.preventDefault();
    void fromDrop(event.dataTransfer).then(([picked]) => compare(picked?.file));
  });
  if (outcome.isChecked) said.replaceChildren(checked());
  return panel;
}

/**
 * @param {DiskImage} image
 * @param {Blob} made
 * @param {File} saved
 * @param {HTMLElement} said
 */
async function compareSaved(image, made, saved, said) {
  const engine = new Engine();
  const bar = el('progress', { 'aria-label': 'Comparing the saved file' });
  const line = el('p', { class: 'muted' }, 'Comparing…');
  said.replaceChildren(
    bar,
    line,
    button('Cancel', () => engine.terminate(), 'quiet'),
  );
  engine.addEventListener('compared', (event) => {
    const { done, total } = /** @type {CustomEvent} */ (event).detail;
    bar.max = total;
    bar.value = done;
    line.textContent = `Compared ${bytes(done)} (${percent(done, total)}).`;
  });
  try {
    const difference = await guarded(() => engine.call('sameBytes', made, saved));
    if (difference.differs === 'none') image.setChecked();
    said.replaceChildren(difference.differs === 'none' ? checked() : unlike(difference, made, saved));
  } catch (thrown) {
    const error = asEngineError(thrown);
    said.replaceChildren(...(error.code === 'cancelled' ? [] : [failureNotice(error)]));
  } finally {
    engine.terminate();
  }
  announce(said.textContent ?? '');
}

const checked = () =>
  el(
    'div',
    { class: 'proof' },
    icon('check'),
    el(
      'p',
      {},
      el('strong', {}, 'Saved, and checked. '),
      'The file that you gave holds, byte for byte, what was made here.',
    ),
  );

/**
 * @param {FileDifference} difference
 * @param {Blob} made
 * @param {File} saved
 */
function unlike(difference, made, saved) {
  const isShort = saved.size < made.size;
  const meaning =
    difference.differs === 'bytes'
      ? `It has the right size, and differs at byte ${integer(difference.at)}.`
      : `It has ${integer(saved.size)} bytes; the new image has ${integer(made.size)}.`;
  return notice('bad', {
    title: 'That file is not what was made',
    meaning: `${meaning} Your own image is as it was.`,
    next:
      difference.differs === 'size' && isShort
        ? 'If the browser is still saving, wait for its downloads list and check again. Otherwise save it once more.'
        : 'See that it is the right file. If it is, save it once more, to another drive if there is one, and do not use this copy.',
  });
}

/**
 * Runs the same once more, into a folder: what is there is then read back and compared.
 * @param {DiskImage} image
 * @param {string} name
 * @param {HTMLElement} said
 */
async function toFolder(image, name, said) {
  try {
    const folder = await pickFolder(image.handle);
    if (folder) void enqueue(image, await createIn(folder, name, [image, ...image.parents]));
  } catch (thrown) {
    said.replaceChildren(failureNotice(asEngineError(thrown)));
  }
}
