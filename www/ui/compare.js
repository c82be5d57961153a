/** The second mode: compare an image with its compacted twin. */

import { ACCEPTED_FILES } from '../../lib/formats.js';
import { announce } from '../announce.js';
import { Engine, asEngineError } from '../bridge.js';
import { diagnose } from '../diagnose.js';
import { bytes } from '../format.js';
import { guarded, setTitle } from '../guard.js';
import { fromDrop, fromInput } from '../intake.js';
import { byId, el, foreign, fromTemplate, icon, size } from './dom.js';
import { failureNotice, notice, trustButton } from './notice.js';
import { progressMeter } from './running.js';

/** @import { EngineError } from '../bridge.js' */
/** @import { Choices, Picked, VerifyReport } from '../types.js' */

/** @typedef {'original' | 'compacted' | 'parents'} Slot */

/** @type {{ slot: Slot, label: string, hint: string }[]} */
const SLOTS = [
  { slot: 'original', label: 'The image as it was', hint: 'Drop it here, or choose it' },
  { slot: 'compacted', label: 'The compacted image', hint: 'Drop it here, or choose it' },
  { slot: 'parents', label: 'Parents', hint: 'Only for a differencing image: drop or choose all of them' },
];

/** What a compaction may have given up on request, which may differ then. */
const GIVEN_UP = /** @type {const} */ ([
  { name: 'dropPageFiles', label: 'Empty page and swap files' },
  { name: 'ignoreShadowCopies', label: 'Shadow copies may go' },
]);

/** Returns what takes files that were dropped beside the places for them. */
export function mountCompare() {
  /** @type {Record<Slot, File[]>} */
  const chosen = { original: [], compacted: [], parents: [] };
  const start = el('button', { type: 'button', class: 'primary' }, 'Compare');
  start.disabled = true;

  const choose = (/** @type {Slot} */ slot, /** @type {Picked[]} */ picked) => {
    if (picked.length === 0) return;
    chosen[slot] = picked.map(({ file }) => file).slice(0, slot === 'parents' ? undefined : 1);
    const names = chosen[slot].flatMap((file) => [foreign(file.name), ' ', size(file.size), el('br')]);
    byId(`pick-${slot}`)
      .querySelector('.slot-file')
      ?.replaceChildren(...names);
    start.disabled = chosen.original.length === 0 || chosen.compacted.length === 0;
    byId('compare-outcome').replaceChildren();
  };

  const gaveUp = GIVEN_UP.map(({ name, label }) => {
    const input = el('input', { type: 'checkbox', id: `compare-${name}` });
    return { name, input, row: el('div', { class: 'choice' }, input, el('label', { for: input.id }, label)) };
  });
  const asked = el(
    'fieldset',
    { class: 'wide' },
    el('legend', {}, 'When it was compacted, did you choose one of these?'),
    ...gaveUp.map(({ row }) => row),
  );
  byId('pair').append(...SLOTS.map((one) => slotFor(one, choose)), asked, start);
  start.addEventListener('click', () => {
    const [original] = chosen.original;
    const [compacted] = chosen.compacted;
    if (!original || !compacted) return;
    const choices = Object.fromEntries(gaveUp.map(({ name, input }) => [name, input.checked]));
    void compare({ original, compacted, parents: chosen.parents, choices }, start);
  });

  return {
    /** @param {Picked[]} picked */
    take(picked) {
      // The larger one was there first; a single one goes where something is missing.
      const [first, second] = [...picked].sort((one, other) => other.file.size - one.file.size);
      if (first && second) {
        choose('original', [first]);
        choose('compacted', [second]);
      } else {
        choose(chosen.original.length === 0 ? 'original' : 'compacted', picked);
      }
    },
  };
}

/**
 * @param {typeof SLOTS[number]} place
 * @param {(slot: Slot, picked: Picked[]) => void} choose
 */
function slotFor({ slot, label, hint }, choose) {
  const input = el('input', {
    type: 'file',
    accept: ACCEPTED_FILES,
    multiple: slot === 'parents',
    hidden: true,
    id: `file-${slot}`,
    'aria-label': label,
  });
  const target = el(
    'button',
    { type: 'button', class: `drop-target small ${slot}`, id: `pick-${slot}` },
    el('span', { class: 'drop-title' }, label),
    el('span', { class: 'slot-file' }, hint),
  );
  target.addEventListener('click', () => input.click());
  input.addEventListener('change', () => {
    choose(slot, fromInput(input.files));
    input.value = '';
  });
  target.addEventListener('drop', async (event) => {
    event.preventDefault();
    if (event.dataTransfer) choose(slot, await fromDrop(event.dataTransfer));
  });
  return el('div', { class: slot === 'parents' ? 'wide' : undefined }, target, input);
}

/**
 * @param {{ original: File, compacted: File, parents: File[], choices: Choices }} what
 * @param {HTMLButtonElement} start
 */
async function compare({ original, compacted, parents, choices }, start) {
  const outcome = byId('compare-outcome');
  const { root, slot } = fromTemplate('running-template');
  const meter = progressMeter(slot, compacted.name);
  slot('map').remove();
  slot('steps').remove();
  outcome.replaceChildren(el('div', { class: 'card' }, el('div', { class: 'card-body' }, root)));
  start.disabled = true;

  const engine = new Engine();
  slot('cancel').addEventListener('click', () => engine.terminate());
  const waysOn = (/** @type {EngineError} */ { code }) => {
    const trusting = { ...choices, trustParent: true };
    const again = () => void compare({ original, compacted, parents, choices: trusting }, start);
    return code === 'parent-changed' ? [trustButton(again)] : [];
  };
  engine.addEventListener('progress', (event) => {
    const { progress, percent } = /** @type {CustomEvent} */ (event).detail;
    meter.show(progress, percent);
  });
  meter.show(null, 0);
  try {
    const report = await guarded(() => engine.call('verify', original, compacted, parents, choices));
    outcome.replaceChildren(same(report));
    announce('The two images hold the same.');
  } catch (error) {
    const failure = asEngineError(error);
    failure.known = await diagnose(failure, [original, compacted, ...parents]);
    outcome.replaceChildren(
      failure.code === 'cancelled' ? notice('plain', { title: 'Cancelled' }) : failureNotice(failure, waysOn(failure)),
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
    ),
  );
}
