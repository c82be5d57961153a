/** The block map with its legend, its text equivalent and a line about the square that is pointed at. */

import { BlockMapPicture, capacity, drawSwatch, heightOf } from '../blockmap.js';
import { bytes, integer, percent, plural } from '../format.js';
import { ABSENT, isMostlyAbsent } from '../squares.js';
import { BLOCK_CLASSES } from '../words.js';
import { el, size } from './dom.js';

/** @import { DiskImage } from '../image.js' */
/** @import { BlockMap, InspectReport } from '../types.js' */

let nextId = 1;

/**
 * Fills `section` with the map of `image` and keeps it up to date.
 * @param {HTMLElement} section
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function mountMap(section, image, signal) {
  const readout = el('p', { class: 'map-readout', id: `map-readout-${nextId++}`, 'aria-live': 'polite' });
  const canvas = el('canvas', { class: 'map-canvas', role: 'img', tabindex: '0', 'aria-describedby': readout.id });
  const legend = el('ul', { class: 'legend' });
  const title = image.report && isMostlyAbsent(image.report.blocks) ? 'What the image stores' : 'What the image holds';
  section.replaceChildren(el('div', { class: 'map-head' }, el('h3', {}, title), readout), canvas, legend);
  const picture = new BlockMapPicture(canvas);
  /** @type {Map<number, HTMLCanvasElement>} */
  const swatches = new Map();
  let pointed = -1;

  const say = () => {
    const { map, report } = image;
    if (!map || !report) return;
    const blockSize = image.mapBlockSize;
    readout.textContent = pointed < 0 ? scaleOf(map, blockSize) : describeSquare(map, report, blockSize, pointed);
    picture.mark(pointed);
  };
  const refresh = () => {
    if (!image.map || !image.report) return;
    pointed = Math.min(pointed, image.map.firsts.length - 1);
    picture.show(image.map);
    canvas.setAttribute('aria-label', describe(image.map));
    showLegend(legend, swatches, image.map);
    say();
  };
  // Its place is kept before it is known: as many squares as there will be.
  const keepPlace = (/** @type {number} */ width) => {
    if (image.map) canvas.style.height = `${heightOf(image.map.firsts.length, width)}px`;
    const { total = 0, present = 0, partiallyPresent = 0 } = image.report?.blocks ?? {};
    const isPacked = isMostlyAbsent({ total, present, partiallyPresent });
    const blocks = isPacked ? present + partiallyPresent : total;
    const smaller = (image.report?.blockSize ?? 1) / image.mapBlockSize;
    const squares = Math.min(capacity(width), Math.ceil(blocks * smaller));
    if (!image.map && squares > 0) canvas.style.height = `${heightOf(squares, width)}px`;
  };

  if (image.mapWidth > 0) keepPlace(image.mapWidth);
  const observer = new ResizeObserver(([entry]) => {
    const width = entry?.contentRect.width ?? 0;
    if (width === 0) return;
    keepPlace(width);
    picture.resize(width);
    image.mapWidth = width;
    void image.wantMap(capacity(width));
  });
  observer.observe(canvas);
  signal.addEventListener('abort', () => observer.disconnect());
  image.addEventListener('map', refresh, { signal });

  const repaint = () => {
    picture.repaint();
    for (const [kind, swatch] of swatches) drawSwatch(swatch, kind);
  };
  for (const query of ['(prefers-color-scheme: dark)', '(forced-colors: active)', '(resolution: 1dppx)']) {
    window.matchMedia(query).addEventListener('change', repaint, { signal });
  }

  const point = (/** @type {number} */ square) => {
    if (square === pointed) return;
    pointed = square;
    say();
  };
  canvas.addEventListener('pointermove', ({ offsetX, offsetY }) => point(picture.squareAt(offsetX, offsetY)), {
    signal,
  });
  canvas.addEventListener('pointerleave', () => point(-1), { signal });
  canvas.addEventListener('blur', () => point(-1), { signal });
  canvas.addEventListener(
    'keydown',
    (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -picture.columns, ArrowDown: picture.columns };
      const by = steps[/** @type {keyof typeof steps} */ (event.key)];
      const last = (image.map?.firsts.length ?? 0) - 1;
      if (by === undefined || last < 0) return;
      event.preventDefault();
      point(pointed < 0 ? 0 : Math.max(0, Math.min(last, pointed + by)));
    },
    { signal },
  );
  refresh();
}

/**
 * @param {HTMLElement} legend
 * @param {Map<number, HTMLCanvasElement>} swatches
 * @param {BlockMap} map
 */
function showLegend(legend, swatches, map) {
  const shown = BLOCK_CLASSES.filter(({ id }) => (map.totals[id] ?? 0) > 0);
  const present = shown.map(({ id }) => id).join();
  if (legend.dataset.shown !== present) {
    legend.dataset.shown = present;
    swatches.clear();
    legend.replaceChildren(
      ...shown.map(({ id, label, means }) => {
        const swatch = el('canvas', { class: 'swatch', 'aria-hidden': 'true' });
        swatches.set(id, swatch);
        return el(
          'li',
          { title: means },
          swatch,
          el('span', {}, label, el('span', { class: 'visually-hidden' }, ` (${means})`)),
          el('span', { class: 'share' }),
        );
      }),
    );
    // In the next frame, when they are in the page and have its colours.
    requestAnimationFrame(() => swatches.forEach((swatch, kind) => drawSwatch(swatch, kind)));
  }
  shown.forEach(({ id }, index) => {
    const share = legend.children[index]?.querySelector('.share');
    share?.replaceChildren(size(map.totals[id] ?? 0));
  });
}

/** @param {BlockMap} map */
function describe(map) {
  const stored = map.totals.reduce((sum, count, id) => sum + (id === ABSENT ? 0 : count), 0);
  const parts = BLOCK_CLASSES.filter(({ id }) => (map.totals[id] ?? 0) > 0).map(({ id, label }) => {
    const count = map.totals[id] ?? 0;
    return `${label.toLowerCase()} ${bytes(count)}${id === ABSENT ? '' : ` (${percent(count, stored)} of what is stored)`}`;
  });
  const order = map.isPacked
    ? 'what the image stores, in the order of the disk'
    : 'the disk, from its start to its end';
  return `Map of ${order}: ${parts.join(', ')}. With the arrow keys, each square is told.`;
}

/**
 * @param {BlockMap} map
 * @param {number} blockSize
 */
function scaleOf({ firsts, lasts, isPacked }, blockSize) {
  const blocks = (lasts[0] ?? 0) - (firsts[0] ?? 0) + 1;
  const what = isPacked ? 'only what is stored is shown; ' : '';
  return blocks === 1
    ? `${what}each square is one block of ${bytes(blockSize)}`
    : `${what}each square is about ${plural(blocks, 'block')}, ${bytes(blockSize * blocks)}`;
}

/**
 * @param {BlockMap} map
 * @param {InspectReport} report
 * @param {number} blockSize
 * @param {number} square
 */
function describeSquare(map, { volumes, virtualSize }, blockSize, square) {
  const first = map.firsts[square] ?? 0;
  const last = map.lasts[square] ?? 0;
  const start = first * blockSize;
  const end = Math.min(virtualSize, (last + 1) * blockSize);
  const parts = BLOCK_CLASSES.map(({ id, label }) => ({ id, label, count: map.bytes[square * map.classes + id] ?? 0 }))
    .filter(({ count }) => count > 0)
    .map(({ label, count }) => `${label.toLowerCase()} ${bytes(count)}`);
  const volume = volumes.find((one) => one.start < end && start < one.start + one.length);
  const where = first === last ? `block ${integer(first)}` : `blocks ${integer(first)} to ${integer(last)}`;
  return `${where}, at ${bytes(start)}${volume ? `, ${volume.fileSystem}` : ''}: ${parts.join(', ')}`;
}
