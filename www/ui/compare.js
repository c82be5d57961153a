/** The second mode: compare an image with its compacted twin. */

import { announce } from '../announce.js';
import { Engine, EngineError } from '../bridge.js';
import { bytes } from '../format.js';
import { guarded, setTitle } from '../guard.js';
import { fromDrop, fromInput } from '../intake.js';
import { byId, el, foreign, fromTemplate, icon, size } from './dom.js';
import { failureNotice, notice } from './notice.js';
import { progressMeter } from './running.js';

/** @import { VerifyReport } from '../types.js' */

const SLOTS = /** @type {const} */ ([
  ['original', 'The image as it was'],
  ['compacted', 'The compacted image'],
]);

export function mountCompare() {
  /** @type {Record<string, File | null>} */
  const chosen = { original: null, compacted: null };
  const start = el('button', { type: 'button', class: 'primary' }, 'Compare');
  start.disabled = true;

  const choose = (/** @type {string} */ slot, /** @type {File | undefined} */ file) => {
    if (!file) return;
    chosen[slot] = file;
    byId(`pick-${slot}`).querySelector('.slot-file')?.replaceChildren(foreign(file.name), ' ', size(file.size));
    start.disabled = !chosen.original || !chosen.compacted;
    byId('compare-outcome').replaceChildren();
  };

  byId('pair').append(...SLOTS.map(([slot, label]) => slotFor(slot, label, choose)), start);
  start.addEventListener('click', () => {
    if (chosen.original && chosen.compacted) void compare(chosen.original, chosen.compacted, start);
  });
}

/**
 * @param {string} slot
 * @param {string} label
 * @param {(slot: string, file: File | undefined) => void} choose
 */
function slotFor(slot, label, choose) {
  const input = el('input', {
    type: 'file',
    accept: '.vhd,.vhdx,.avhd,.avhdx',
    hidden: true,
    id: `file-${slot}`,
    'aria-label': label,
  });
  const target = el(
    'button',
    { type: 'button', class: 'drop-target small', id: `pick-${slot}` },
    el('span', { class: 'drop-title' }, label),
    el('span', { class: 'slot-file' }, 'Drop it here, or choose it'),
  );
  target.addEventListener('click', () => input.click());
  input.addEventListener('change', () => choose(slot, fromInput(input.files)[0]?.file));
  target.addEventListener('drop', async (event) => {
    event.preventDefault();
    event.stopPropagation();
    document.body.classList.remove('dragging');
    if (event.dataTransfer) choose(slot, (await fromDrop(event.dataTransfer))[0]?.file);
  });
  return el('div', {}, target, input);
}

/**
 * @param {File} original
 * @param {File} compacted
 * @param {HTMLButtonElement} start
 */
async function compare(original, compacted, start) {
  const outcome = byId('compare-outcome');
  const { root, slot } = fromTemplate('running-template');
  const meter = progressMeter(slot, compacted.name);
  slot('map').remove();
  slot('steps').remove();
  outcome.replaceChildren(el('div', { class: 'card' }, el('div', { class: 'card-body' }, root)));
  start.disabled = true;

  const engine = new Engine();
  slot('cancel').addEventListener('click', () => engine.terminate());
  engine.addEventListener('progress', (event) => {
    const { progress, percent } = /** @type {CustomEvent} */ (event).detail;
    meter.show(progress, percent);
  });
  meter.show(null, 0);
  try {
    const report = await guarded(() => engine.call('verify', original, compacted, []));
    outcome.replaceChildren(same(report));
    announce('The two images hold the same.');
  } catch (error) {
    const failure =
      error instanceof EngineError ? error : new EngineError({ code: 'internal', message: String(error), site: null });
    outcome.replaceChildren(
      failure.code === 'cancelled' ? notice('plain', { title: 'Cancelled' }) : failureNotice(failure),
    );
    announce(outcome.querySelector('h3')?.textContent ?? '');
  } finally {
    engine.terminate();
    setTitle('');
    start.disabled = false;
    start.focus();
  }
}

/** @param {VerifyReport} report */
function same({ verification }) {
  return el(
    'div',
    { class: 'card' },
    el(
      'div',
      { class: 'card-body' },
      el(
        'div',
        { class: 'proof' },
        icon('check'),
        el(
          'p',
          {},
          el('strong', {}, 'They hold the same. '),
          `${bytes(verification.comparedBytes)} were compared byte by byte; ${bytes(verification.skippedFreeBytes)} are proved free and may differ.`,
        ),
      ),
      el('p', { class: 'muted detail' }, `${verification.algorithm}: `, el('code', {}, verification.digest)),
    ),
  );
}
