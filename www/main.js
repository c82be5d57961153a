/** The page: takes images in, keeps their cards, and joins what belongs together. */

/* global PAGE_VERSION */

import './styles/page.css';

import { childrenOf, resolveChain } from './chain.js';
import { displayText } from './format.js';
import { DiskImage } from './image.js';
import { fromDrop, fromHandles, fromInput, isSameFile, sample } from './intake.js';
import { inTurn } from './engines.js';
import { keepFocus } from './focus.js';
import { lackingEngine } from './features.js';
import { forget, remember } from './remembered.js';
import { imageCard } from './ui/card.js';
import { mountCompare } from './ui/compare.js';
import { byId } from './ui/dom.js';
import { mountFaultReport } from './ui/fault.js';
import { notice } from './ui/notice.js';
import { mountQueueBar } from './ui/queue-bar.js';
import { restoreCards } from './ui/restore.js';
import { tellUnfinished } from './ui/unfinished.js';
import { mountUpdates } from './ui/update.js';
import { mountWhere } from './ui/where.js';
import { NO_ENGINE } from './words.js';

/** @import { Picked } from './types.js' */

/** @type {Map<DiskImage, { root: HTMLElement, fold: (open: boolean) => void }>} */
const cards = new Map();

const files = /** @type {HTMLInputElement} */ (byId('files'));
const chooseFiles = () => files.click();

const compare = mountCompare();
mountIntake();
mountModes();
tellWhatIsMissing();
byId('boot').remove();
mountWhere();
keepFocus();
const bar = mountQueueBar(() => [...cards.keys()]);
byId('version').textContent = PAGE_VERSION;
mountFaultReport(() => [...cards.keys()]);
void mountUpdates({
  hasWork: () => cards.size > 0 || byId('compare-outcome').childElementCount > 0,
  unsaved: () => [...cards.keys()].filter((image) => image.outcome?.blob && !image.outcome.isChecked).length,
});

function mountIntake() {
  byId('pick').addEventListener('click', chooseFiles);
  files.addEventListener('change', () => {
    void add(fromInput(files.files));
    files.value = '';
  });
  byId('sample').addEventListener('click', () => void addSample());

  let depth = 0;
  const dragging = (/** @type {boolean} */ on) => document.body.classList.toggle('dragging', on);
  window.addEventListener('dragenter', () => dragging(++depth > 0));
  window.addEventListener('dragleave', () => dragging((depth = Math.max(0, depth - 1)) > 0));
  window.addEventListener('dragover', (event) => event.preventDefault());
  window.addEventListener('drop', (event) => {
    const alreadyTaken = event.defaultPrevented;
    event.preventDefault();
    dragging((depth = 0) > 0);
    // A place in the comparison has taken it already.
    if (alreadyTaken || !event.dataTransfer) return;
    void fromDrop(event.dataTransfer).then(isComparing() ? compare.take : add);
  });
  const addHandles = async (/** @type {readonly FileSystemHandle[]} */ handles) => add(await fromHandles(handles));
  window.launchQueue?.setConsumer(({ files: handles }) => void addHandles(handles));
  void restoreCards(addHandles).then(() => tellUnfinished(addHandles));
}

/** Where the engine cannot run at all, that is told now and not after a person has found their disk. */
function tellWhatIsMissing() {
  const lacking = lackingEngine();
  if (lacking) byId('cannot-run').replaceChildren(notice('bad', NO_ENGINE[lacking]));
}

function isComparing() {
  return location.hash === '#compare';
}

/** The two modes are addresses, so that they can be linked and gone back to. */
function mountModes() {
  const show = () => {
    const mode = isComparing() ? 'compare' : 'compact';
    for (const one of ['compact', 'compare']) byId(one).hidden = one !== mode;
    for (const link of document.querySelectorAll('nav a')) {
      if (link.getAttribute('href') === `#${mode}`) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
  };
  window.addEventListener('hashchange', show);
  show();
}

async function addSample() {
  const link = /** @type {HTMLButtonElement} */ (byId('sample'));
  if (link.getAttribute('aria-disabled') === 'true') return;
  // Not `disabled`: that would take the focus away.
  link.setAttribute('aria-disabled', 'true');
  try {
    await add([await sample()]);
  } catch {
    say('The sample could not be loaded; try again with a network.');
  } finally {
    link.removeAttribute('aria-disabled');
  }
}

/** @param {Picked[]} picked */
async function add(picked) {
  if (picked.length === 0) {
    say('Only files can be dropped here. Drop the image itself, not its folder.');
    return;
  }
  say('');
  location.hash = '#compact';
  /** @type {DiskImage[]} */
  const added = [];
  for (const one of picked) {
    const here = await alreadyHere(one);
    if (here) {
      cards.get(here)?.root.scrollIntoView({ block: 'nearest' });
      say(`${displayText(here.name)} is here already.`);
    } else {
      added.push(addCard(new DiskImage(one)));
      void remember(one);
    }
  }
  unfoldFor(added);
  const had = document.activeElement;
  arrange();
  // What was pressed may be gone with the welcome.
  if (had && had !== document.body && !had.checkVisibility()) {
    cards
      .get(/** @type {DiskImage} */ (added[0]))
      ?.root.querySelector('h2')
      ?.focus({ preventScroll: true });
  }
  await Promise.all(added.map((image) => inTurn(() => image.read())));
  await joinChains();
}

/** @param {Picked} picked */
async function alreadyHere(picked) {
  for (const image of cards.keys()) if (await isSameFile(picked, image)) return image;
  return null;
}

/**
 * A word about what was dropped, where nothing else shows it.
 * @param {string} text
 */
function say(text) {
  byId('intake-note').textContent = text;
}

/** @param {DiskImage} image */
function addCard(image) {
  const card = imageCard(image, { remove: () => remove(image), addFiles: chooseFiles });
  cards.set(image, card);
  byId('cards').append(card.root);
  for (const event of ['state', 'estimate', 'saved']) image.addEventListener(event, bar.update);
  return image;
}

/** @param {DiskImage} image */
function remove(image) {
  image.dispose();
  void forget(image.name);
  cards.get(image)?.root.remove();
  cards.delete(image);
  arrange();
  byId('pick').focus();
}

/** Gives every image that waits for a parent the parents that are here now. */
async function joinChains() {
  const images = [...cards.keys()];
  const reads = [];
  for (const image of images) {
    if (image.state !== 'needs-parent') continue;
    const { parents, missing } = resolveChain(image, images);
    if (missing) {
      image.missing = missing;
      image.dispatchEvent(new Event('state'));
    } else {
      image.parents = parents;
      reads.push(inTurn(() => image.read()));
    }
  }
  for (const image of images) if (childrenOf(image, images).length > 0) image.becomeParent();
  await Promise.all(reads);
}

/**
 * What a person came for is open: an image that waited for its parent, else the first of the new ones.
 * @param {DiskImage[]} added
 */
function unfoldFor(added) {
  const waiting = [...cards.keys()].filter(({ state }) => state === 'needs-parent');
  const open = waiting.length > 0 ? waiting : added.slice(0, 1);
  if (open.length > 0) cards.forEach(({ fold }, image) => fold(open.includes(image)));
}

/** The welcome steps back for the first card: what moves for it is not seen moving. */
function settle() {
  document.body.classList.add('is-settling');
  requestAnimationFrame(() => requestAnimationFrame(() => document.body.classList.remove('is-settling')));
}

/** With one image its card is open; with several, one is, and the others open on demand. */
function arrange() {
  const many = cards.size > 1;
  const isFirst = cards.size > 0 && !document.body.classList.contains('has-images');
  document.body.classList.toggle('has-images', cards.size > 0);
  if (isFirst) settle();
  document.body.classList.toggle('has-many', many);
  byId('cards').hidden = cards.size === 0;
  if (!many) cards.forEach(({ fold }) => fold(true));
  bar.update();
}
