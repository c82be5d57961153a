/**
 * The picture of an image's blocks on a canvas: one small shape a cell, crisp on every screen. Each
 * class differs in shape as well as in colour, so that it can be told apart without colours.
 */

import { BLOCK_CLASSES } from './words.js';

/** @import { BlockMap } from './types.js' */

const GAP = 2;
const SMALLEST_PITCH = 11;
const LARGEST_PITCH = 26;
const TALLEST = 232;
const FADE_MS = 350;

/** @type {Map<number, { key: string }>} */
const CLASSES = new Map(BLOCK_CLASSES.map((one) => [one.id, one]));

/**
 * How many cells fit into a picture of that width.
 * @param {number} width in CSS pixels
 */
export function capacity(width) {
  return Math.max(1, Math.floor((width + GAP) / SMALLEST_PITCH)) * Math.floor(TALLEST / SMALLEST_PITCH);
}

/**
 * The largest cells with which `count` of them fit.
 * @param {number} count
 * @param {number} width in CSS pixels
 */
export function arrange(count, width) {
  let pitch = LARGEST_PITCH;
  let columns = 1;
  for (; pitch >= SMALLEST_PITCH; pitch -= 1) {
    columns = Math.max(1, Math.floor((width + GAP) / pitch));
    if (Math.ceil(count / columns) * pitch <= TALLEST) break;
  }
  const fitted = (width + GAP) / columns;
  const cell = Math.min(fitted, LARGEST_PITCH);
  return { columns, pitch: cell, rows: Math.max(1, Math.ceil(count / columns)) };
}

/**
 * How tall the picture of `count` cells is.
 * @param {number} count
 * @param {number} width in CSS pixels
 */
export function heightOf(count, width) {
  const { rows, pitch } = arrange(count, width);
  return Math.ceil(rows * pitch - GAP);
}

/** A canvas that shows a block map and fades changed cells over. */
export class BlockMapPicture {
  /** @type {BlockMap | null} */
  #map = null;
  /** @type {Uint8Array} */
  #before = new Uint8Array();
  /** @type {Float64Array} */
  #changedAt = new Float64Array();
  #width = 0;
  #frame = 0;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.calm = window.matchMedia('(prefers-reduced-motion: reduce)');
  }

  /** @param {number} width in CSS pixels */
  resize(width) {
    this.#width = width;
    this.#redraw();
  }

  /** @param {BlockMap} map */
  show(map) {
    const now = performance.now();
    const same = this.#map?.cells.length === map.cells.length;
    const before = same && this.#map ? this.#map.cells : map.cells;
    if (!same) this.#changedAt = new Float64Array(map.cells.length).fill(-Infinity);
    if (!same || this.#before.length !== map.cells.length) this.#before = Uint8Array.from(before);
    map.cells.forEach((kind, index) => {
      if (before[index] === kind) return;
      this.#before[index] = before[index] ?? kind;
      this.#changedAt[index] = now;
    });
    this.#map = map;
    this.#redraw();
  }

  /**
   * The index of the cell at a place in the picture, or -1.
   * @param {number} x CSS pixels from the left edge
   * @param {number} y CSS pixels from the top
   */
  cellAt(x, y) {
    if (!this.#map) return -1;
    const { columns, pitch } = arrange(this.#map.cells.length, this.#width);
    const column = Math.floor(x / pitch);
    if (column < 0 || column >= columns || y < 0) return -1;
    const index = Math.floor(y / pitch) * columns + column;
    return index < this.#map.cells.length ? index : -1;
  }

  /** Draws anew in the next frame: after a change of theme, size or content. */
  #redraw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const map = this.#map;
    const context = this.canvas.getContext('2d');
    if (!map || !context || this.#width <= 0) return;
    const { columns, pitch } = arrange(map.cells.length, this.#width);
    const scale = window.devicePixelRatio || 1;
    const height = heightOf(map.cells.length, this.#width);
    this.canvas.width = Math.round(this.#width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.height = `${height}px`;
    context.scale(scale, scale);

    const colours = readColours(this.canvas);
    const now = performance.now();
    let fading = false;
    map.cells.forEach((kind, index) => {
      const x = (index % columns) * pitch;
      const y = Math.floor(index / columns) * pitch;
      const age = this.calm.matches ? 1 : Math.min(1, (now - (this.#changedAt[index] ?? -Infinity)) / FADE_MS);
      if (age < 1) {
        fading = true;
        context.globalAlpha = 1 - age;
        drawCell(context, this.#before[index] ?? kind, x, y, pitch - GAP, colours);
        context.globalAlpha = age;
      }
      drawCell(context, kind, x, y, pitch - GAP, colours);
      context.globalAlpha = 1;
    });
    if (fading) this.#redraw();
  }

  /** After a change of theme. */
  repaint() {
    this.#redraw();
  }
}

/**
 * One cell on its own, for the legend.
 * @param {HTMLCanvasElement} canvas
 * @param {number} kind
 */
export function drawSwatch(canvas, kind) {
  const size = 14;
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * scale);
  const context = canvas.getContext('2d');
  if (!context) return;
  context.scale(scale, scale);
  drawCell(context, kind, 0.5, 0.5, size - 1, readColours(canvas));
}

/**
 * How often each class occurs.
 * @param {BlockMap} map
 */
export function countCells(map) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const kind of map.cells) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** @typedef {Record<string, string>} Colours */

/**
 * @param {HTMLElement} element
 * @returns {Colours}
 */
function readColours(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(BLOCK_CLASSES.map(({ key }) => [key, style.getPropertyValue(`--cell-${key}`)]));
}

/** @type {Record<string, (context: CanvasRenderingContext2D, x: number, y: number, size: number) => void>} */
const SHAPES = {
  used: fill,
  kept: fill,
  partly(context, x, y, size) {
    outline(context, x, y, size);
    context.beginPath();
    context.moveTo(x, y + size * 0.15);
    context.lineTo(x + size * 0.85, y + size);
    context.lineTo(x, y + size);
    context.fill();
  },
  declined(context, x, y, size) {
    context.save();
    square(context, x, y, size);
    context.clip();
    context.lineWidth = size / 5;
    context.beginPath();
    for (let at = 0; at <= size * 2; at += size / 2) {
      context.moveTo(x + at, y - 1);
      context.lineTo(x + at - size - 1, y + size);
    }
    context.stroke();
    context.restore();
    outline(context, x, y, size);
  },
  free(context, x, y, size) {
    const alpha = context.globalAlpha;
    context.globalAlpha = alpha * 0.3;
    fill(context, x, y, size);
    context.globalAlpha = alpha;
    outline(context, x, y, size);
  },
  zero(context, x, y, size) {
    outline(context, x, y, size);
    dot(context, x, y, size);
  },
  dropped: dot,
  absent: outline,
};

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} kind
 * @param {number} x
 * @param {number} y
 * @param {number} size
 * @param {Colours} colours
 */
function drawCell(context, kind, x, y, size, colours) {
  const key = CLASSES.get(kind)?.key ?? 'used';
  context.fillStyle = context.strokeStyle = colours[key] ?? '';
  SHAPES[key]?.(context, x, y, size);
}

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, size: number) => void} */
function square(context, x, y, size) {
  context.beginPath();
  context.roundRect(x, y, size, size, size / 5);
}

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, size: number) => void} */
function fill(context, x, y, size) {
  square(context, x, y, size);
  context.fill();
}

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, size: number) => void} */
function outline(context, x, y, size) {
  square(context, x + 0.5, y + 0.5, size - 1);
  context.lineWidth = 1;
  context.stroke();
}

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, size: number) => void} */
function dot(context, x, y, size) {
  context.beginPath();
  context.arc(x + size / 2, y + size / 2, Math.max(1, size / 8), 0, Math.PI * 2);
  context.fill();
}
