/** The card of one image: its head, and the view that belongs to its state. */

import { announce } from '../announce.js';
import { capacity } from '../blockmap.js';
import { baseName } from '../chain.js';
import { bytes, displayText } from '../format.js';
import { STATES } from '../words.js';
import { button, el, foreign, fromTemplate } from './dom.js';
import { kindLine } from './inside.js';
import { failureNotice, notice, trustButton } from './notice.js';
import { readyNotices, readyView } from './ready.js';
import { nothingView, resultView } from './result.js';
import { runningView } from './running.js';

/** @import { EngineError } from '../bridge.js' */
/** @import { DiskImage } from '../image.js' */
/** @import { Missing } from '../chain.js' */

/** From this width of a card on the choices stand beside the picture, and take so much of it. */
const BESIDE_REM = 56;
const SIDE_REM = 25.5;

/**
 * @param {DiskImage} image
 * @param {{ remove: () => void, addFiles: () => void }} actions
 */
export function imageCard(image, actions) {
  const { root, slot } = fromTemplate('card-template');
  slot('name').replaceChildren(foreign(image.name));
  slot('name').id = `image-${image.id}`;
  root.querySelector('article')?.setAttribute('aria-labelledby', slot('name').id);
  slot('remove').addEventListener('click', actions.remove);

  const fold = (/** @type {boolean} */ open) => {
    slot('fold').setAttribute('aria-expanded', String(open));
    slot('body').hidden = !open;
    image.look(open);
  };
  slot('fold').addEventListener('click', () => fold(slot('body').hidden));

  const showResult = () => {
    slot('result').textContent = resultLine(image);
  };
  const showState = () => {
    slot('state').textContent = stateName(image);
    // The head tells how far it is, for a card that is folded.
    slot('state').dataset.percent = image.percent === null ? '' : `${Math.floor(image.percent)} %`;
  };
  let upkeep = new AbortController();
  const show = () => {
    upkeep.abort();
    upkeep = new AbortController();
    root.dataset.state = image.state;
    showState();
    slot('kind').textContent = image.report ? kindLine(image.report) : bytes(image.file.size);
    showResult();
    /** @type {HTMLButtonElement} */ (slot('remove')).disabled = image.isBusy;
    const hadFocus = slot('body').contains(document.activeElement);
    slot('body').replaceChildren(...view(image, upkeep.signal, actions));
    if (hadFocus) {
      const heading = /** @type {HTMLElement | null} */ (slot('body').querySelector('h3[tabindex]'));
      (heading ?? slot('name')).focus();
    }
    announce(stateSentence(image));
  };
  // Asked for before the card shows it, so that the picture is there when the card is.
  requestAnimationFrame(() => {
    const width = mapWidth(slot('body'));
    if (image.state !== 'reading' || width <= 0) return;
    image.mapWidth = width;
    void image.wantMap(capacity(width));
  });
  image.addEventListener('state', show);
  image.addEventListener('estimate', showResult);
  image.addEventListener('progress', showState);
  image.addEventListener('saved', showState);
  show();
  return { root, fold };
}

/**
 * How wide the picture will be, in pixels: as the style sheet has it.
 * @param {HTMLElement} body of the card
 */
function mapWidth(body) {
  const { paddingLeft, paddingRight, fontSize } = getComputedStyle(body);
  const rem = parseFloat(fontSize);
  const width = body.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  return body.clientWidth >= BESIDE_REM * rem ? width - SIDE_REM * rem : width;
}

/**
 * @param {DiskImage} image
 * @param {AbortSignal} signal
 * @param {{ addFiles: () => void }} actions
 * @returns {Node[]}
 */
function view(image, signal, actions) {
  switch (image.state) {
    case 'reading':
      return [
        el('p', { class: 'reading' }, 'Reading the tables of the image and of the file systems inside…'),
        el('progress', { 'aria-label': `Reading ${displayText(image.name)}` }),
      ];
    case 'needs-parent':
      return [missingParent(image, actions.addFiles)];
    case 'ready':
      return [...readyNotices(image, signal), readyView(image, signal)];
    case 'waiting':
    case 'running':
      return [runningView(image, signal)];
    case 'done':
      return [resultView(image, signal)];
    case 'nothing':
      return [nothingView(image)];
    case 'failed':
      return image.error ? [failureNotice(image.error, waysOn(image, image.error))] : [];
  }
}

/**
 * What a person can do about a failure from here.
 * @param {DiskImage} image
 * @param {EngineError} error
 */
function waysOn(image, error) {
  const again = button('Try again', () => void image.retry());
  return error.code === 'parent-changed' ? [trustButton(() => void image.trustParent()), again] : [again];
}

/**
 * @param {DiskImage} image
 * @param {() => void} addFiles
 */
function missingParent(image, addFiles) {
  const missing = /** @type {Missing | null} */ (image.missing);
  const paths = [...new Set(missing?.paths ?? [])].map((path) => displayText(path));
  const name = paths.length > 0 ? `“${baseName(paths.at(-1) ?? '')}”` : 'the parent';
  return notice(
    'warn',
    {
      title: `This image needs its parent, ${name}`,
      meaning: `${missing?.wantedBy && missing.wantedBy !== image.name ? `“${displayText(missing.wantedBy)}”, on which it builds,` : 'It is a differencing image and'} holds only what changed since its parent. Without the parent nobody can tell what is free; only what the child holds by itself can be looked at. Neither file is ever changed.`,
      next: paths.length > 0 ? `Drop it here too. It was last seen at: ${paths.join('  ·  ')}` : 'Drop it here too.',
    },
    '',
    [button('Choose the parent…', addFiles, 'primary'), button('Go on without it', () => image.goAlone(), 'quiet')],
  );
}

/**
 * What is to be had, for a card that is folded.
 * @param {DiskImage} image
 */
function resultLine({ state, estimate, outcome }) {
  if (state === 'done' && outcome) {
    const { inputSize, outputSize } = outcome.report;
    return `${bytes(outputSize)}, ${bytes(Math.max(0, inputSize - outputSize))} saved`;
  }
  if (state !== 'ready' || !estimate) return '';
  return estimate.saves > 0 ? `saves ${estimate.exact ? '' : 'at least '}${bytes(estimate.saves)}` : '';
}

/** @param {DiskImage} image */
function stateSentence({ name, state, estimate, outcome }) {
  switch (state) {
    case 'ready':
      return estimate
        ? `${name} is read. The new image will take ${bytes(estimate.outputSize)}${estimate.exact ? '' : ' or less'}.`
        : `${name} is read.`;
    case 'done':
      return outcome ? `${name} is done: the new image takes ${bytes(outcome.report.outputSize)}.` : `${name} is done.`;
    default:
      return `${name}: ${STATES[state] ?? state}.`;
  }
}

/**
 * The state in a word. A new image that the browser saves is *made*: that it is saved, this page cannot know.
 * @param {DiskImage} image
 */
function stateName({ state, outcome }) {
  if (state !== 'done' || !outcome) return STATES[state] ?? '';
  return outcome.isChecked || outcome.place !== null ? 'Saved' : 'Made';
}
