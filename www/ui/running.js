/** An image at work: the step, true progress, speed, time left, the live map, and Cancel. */

import { announceProgress } from '../announce.js';
import { about, bytes, displayText, rate } from '../format.js';
import { setTitle } from '../guard.js';
import { CLOSING_BYTES_PER_SECOND } from '../save.js';
import { PHASES, STEPS } from '../words.js';
import { el, fromTemplate } from './dom.js';
import { mountMap } from './map.js';

/** @import { DiskImage } from '../image.js' */
/** @import { JobProgress } from '../types.js' */

/**
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function runningView(image, signal) {
  const { root, slot } = fromTemplate('running-template');
  const meter = progressMeter(slot, image.name);
  slot('cancel').addEventListener('click', () => {
    // Not `disabled`: that would take the focus away.
    slot('cancel').setAttribute('aria-disabled', 'true');
    image.cancel();
  });
  if (image.state === 'running') mountMap(slot('map'), image, signal);
  else slot('map').remove();

  const update = () => {
    if (image.state === 'waiting') meter.waiting();
    else meter.show(image.progress?.progress ?? null, image.progress?.percent ?? 0);
  };
  image.addEventListener('progress', update, { signal });
  signal.addEventListener('abort', () => setTitle(''));
  update();
  return root;
}

/**
 * Fills the slots of the running view from a job's progress.
 * @param {(name: string) => HTMLElement} slot
 * @param {string} name of what is worked on
 */
export function progressMeter(slot, name) {
  const bar = /** @type {HTMLProgressElement} */ (slot('bar'));
  bar.setAttribute('aria-label', `Progress of ${displayText(name)}`);
  const steps = STEPS.map(({ phase, label }) => ({ phase, item: el('li', {}, label) }));
  slot('steps').append(...steps.map(({ item }) => item));

  return {
    waiting() {
      slot('phase').textContent = 'Waiting until the image before it is done';
      bar.removeAttribute('value');
      root(slot).classList.add('is-waiting');
    },
    /**
     * @param {JobProgress | null} progress
     * @param {number} percent
     */
    show(progress, percent) {
      const phase = progress?.phase ?? 'queued';
      slot('phase').textContent = PHASES[phase] ?? phase;
      const at = STEPS.findIndex((step) => step.phase === (phase === 'finish' ? 'write' : phase));
      steps.forEach(({ item }, index) => {
        item.className = phase === 'done' || index < at ? 'is-done' : index === at ? 'is-current' : '';
        if (index === at) item.setAttribute('aria-current', 'step');
        else item.removeAttribute('aria-current');
      });

      const silent = phase === 'finish' && progress !== null && progress.bytesDone < progress.bytesTotal;
      if (!progress) bar.removeAttribute('value');
      else bar.value = percent;
      setTitle(`${Math.floor(percent)} % · ${name}`);

      slot('done').textContent =
        progress && progress.bytesTotal > 0 ? `${bytes(progress.bytesDone)} of ${bytes(progress.bytesTotal)}` : '–';
      slot('rate').textContent = progress && progress.bytesPerSecond > 0 ? rate(progress.bytesPerSecond) : '–';
      slot('left').textContent = timeLeft(progress);
      slot('note').textContent = silent ? closingNote(progress.bytesTotal) : '';
      slot('note').hidden = !silent;
      announceProgress(`${name}: ${slot('phase').textContent}, ${Math.floor(percent)} percent.`);
    },
  };
}

/** @param {JobProgress | null} progress */
function timeLeft(progress) {
  if (!progress) return '–';
  return progress.secondsLeft === null ? '–' : about(progress.secondsLeft);
}

/** @param {number} total */
function closingNote(total) {
  const seconds = total / CLOSING_BYTES_PER_SECOND;
  return `The browser now checks the whole new file by itself before it puts it in its place. That takes ${about(seconds)}, and it tells nothing meanwhile.`;
}

/** @param {(name: string) => HTMLElement} slot */
const root = (slot) => /** @type {HTMLElement} */ (slot('phase').parentElement);
