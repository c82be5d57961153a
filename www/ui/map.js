/** The block map with its legend, its text equivalent and a line about the block under the pointer. */

import { BlockMapPicture, capacity, countCells, drawSwatch, heightOf } from '../blockmap.js';
import { bytes, integer, percent } from '../format.js';
import { BLOCK_CLASSES } from '../words.js';
import { el } from './dom.js';

/** @import { DiskImage } from '../image.js' */
/** @import { BlockMap } from '../types.js' */

/**
 * Fills `section` with the map of `image` and keeps it up to date.
 * @param {HTMLElement} section
 * @param {DiskImage} image
 * @param {AbortSignal} signal ends the upkeep
 */
export function mountMap(section, image, signal) {
  const canvas = el('canvas', { class: 'map-canvas', role: 'img' });
  const readout = el('p', { class: 'map-readout', 'aria-hidden': 'true' });
  const legend = el('ul', { class: 'legend' });
  section.replaceChildren(
    el('div', { class: 'map-head' }, el('h3', {}, 'What the image holds'), readout),
    canvas,
    legend,
  );
  const picture = new BlockMapPicture(canvas);
  // Its place is kept before it is known: as many squares as there will be.
  const keepPlace = (/** @type {number} */ width) => {
    const cells = Math.min(capacity(width), image.report?.blocks.total ?? 0);
    if (!image.map && cells > 0) canvas.style.height = `${heightOf(cells, width)}px`;
  };
  /** @type {Map<number, HTMLCanvasElement>} */
  const swatches = new Map();

  const refresh = () => {
    if (!image.map || !image.report) return;
    picture.show(image.map);
    readout.textContent = scaleOf(image.map, image.report.blockSize);
    canvas.setAttribute('aria-label', describe(image.map));
    showLegend(legend, swatches, image.map);
  };

  const observer = new ResizeObserver(([entry]) => {
    const width = entry?.contentRect.width ?? 0;
    if (width === 0) return;
    keepPlace(width);
    picture.resize(width);
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

  canvas.addEventListener(
    'pointermove',
    (event) => {
      const cell = picture.cellAt(event.offsetX, event.offsetY);
      if (image.map && image.report) {
        readout.textContent =
          cell < 0 ? scaleOf(image.map, image.report.blockSize) : describeCell(image, image.map, cell);
      }
    },
    { signal },
  );
  canvas.addEventListener('pointerleave', refresh, { signal });
  refresh();
}

/**
 * @param {HTMLElement} legend
 * @param {Map<number, HTMLCanvasElement>} swatches
 * @param {BlockMap} map
 */
function showLegend(legend, swatches, map) {
  const counts = countCells(map);
  const shown = BLOCK_CLASSES.filter(({ id }) => counts.has(id));
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
    if (share) share.textContent = percent(counts.get(id) ?? 0, map.cells.length);
  });
}

/** @param {BlockMap} map */
function describe(map) {
  const counts = countCells(map);
  const parts = BLOCK_CLASSES.filter(({ id }) => counts.has(id)).map(
    ({ id, label }) => `${label.toLowerCase()} ${percent(counts.get(id) ?? 0, map.cells.length)}`,
  );
  return `Map of the image, from the start of the disk to its end: ${parts.join(', ')}.`;
}

/**
 * @param {BlockMap} map
 * @param {number} blockSize
 */
function scaleOf(map, blockSize) {
  const blocks = map.blocksPerCell;
  return blocks === 1
    ? `each square is one block of ${bytes(blockSize)}`
    : `each square is ${integer(blocks)} blocks, ${bytes(blockSize * blocks)}`;
}

/**
 * @param {DiskImage} image
 * @param {BlockMap} map
 * @param {number} cell
 */
function describeCell({ report }, map, cell) {
  if (!report) return '';
  const span = report.blockSize * map.blocksPerCell;
  const kind = BLOCK_CLASSES.find(({ id }) => id === map.cells[cell]);
  const start = cell * span;
  const volume = report.volumes.find((one) => one.start < start + span && start < one.start + one.length);
  const where = volume ? `, ${volume.fileSystem}` : '';
  return `${kind?.label ?? ''} · at ${bytes(start)}${where}`;
}
