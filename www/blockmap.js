/**
 * The picture of an image's blocks on a canvas: one small shape a cell, crisp on every screen. Each
 * class differs in shape as well as in colour, so that it can be told apart without colours.
 */

import { ABSENT } from './squares.js';
import { BLOCK_CLASSES } from './words.js';

/** @import { BlockMap } from './types.js' */

const GAP = 2;
const SMALLEST_PITCH = 11;
const LARGEST_PITCH = 26;
const TALLEST = 232;

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

/** A canvas that shows a block map. */
export class BlockMapPicture {
  /** @type {BlockMap | null} */
  #map = null;
  #width = 0;
  #frame = 0;
  /** The square that is pointed at, or -1. */
  #marked = -1;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
  }

  /** @param {number} width in CSS pixels */
  resize(width) {
    this.#width = width;
    this.repaint();
  }

  /** @param {BlockMap} map */
  show(map) {
    this.#map = map;
    this.repaint();
  }

  /** @param {number} index of a square, or -1 */
  mark(index) {
    if (index === this.#marked) return;
    this.#marked = index;
    this.repaint();
  }

  /** How many squares stand in a row. */
  get columns() {
    return this.#map ? arrange(this.#map.firsts.length, this.#width).columns : 1;
  }

  /**
   * The index of the square at a place in the picture, or -1.
   * @param {number} x CSS pixels from the left edge
   * @param {number} y CSS pixels from the top
   */
  squareAt(x, y) {
    if (!this.#map) return -1;
    const { columns, pitch } = arrange(this.#map.firsts.length, this.#width);
    const column = Math.floor(x / pitch);
    if (column < 0 || column >= columns || y < 0) return -1;
    const index = Math.floor(y / pitch) * columns + column;
    return index < this.#map.firsts.length ? index : -1;
  }

  /** Draws anew in the next frame: after a change of theme, size or content. */
  repaint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const map = this.#map;
    const context = this.canvas.getContext('2d');
    if (!map || !context || this.#width <= 0) return;
    const count = map.firsts.length;
    const { columns, pitch } = arrange(count, this.#width);
    const scale = window.devicePixelRatio || 1;
    const height = heightOf(count, this.#width);
    this.canvas.width = Math.round(this.#width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.height = `${height}px`;
    context.scale(scale, scale);

    const colours = readColours(this.canvas);
    for (let index = 0; index < count; index++) {
      const x = (index % columns) * pitch;
      const y = Math.floor(index / columns) * pitch;
      drawSquare(context, map, index, x, y, pitch - GAP, colours);
      if (index === this.#marked) mark(context, x, y, pitch - GAP, colours);
    }
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

/** @typedef {Record<string, string>} Colours */

/**
 * @param {HTMLElement} element
 * @returns {Colours}
 */
function readColours(element) {
  const style = getComputedStyle(element);
  const colours = BLOCK_CLASSES.map(({ key }) => [key, style.getPropertyValue(`--cell-${key}`)]);
  return Object.fromEntries([...colours, ['ink', style.getPropertyValue('--ink')]]);
}

/** @type {Record<string, (context: CanvasRenderingContext2D, x: number, y: number, size: number) => void>} */
const SHAPES = {
  used: fill,
  held(context, x, y, size) {
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
 * A square of one class has its shape; one of several is filled from the bottom, each by its share of the bytes.
 * @param {CanvasRenderingContext2D} context
 * @param {BlockMap} map
 * @param {number} index
 * @param {number} x
 * @param {number} y
 * @param {number} size
 * @param {Colours} colours
 */
function drawSquare(context, map, index, x, y, size, colours) {
  const bytes = map.bytes.subarray(index * map.classes, (index + 1) * map.classes);
  const present = BLOCK_CLASSES.filter(({ id }) => (bytes[id] ?? 0) > 0);
  const stored = present.filter(({ id }) => id !== ABSENT);
  const [only] = stored.length > 0 ? stored : present;
  // What was never stored shows as room that is left; in a packed picture it is not shown at all.
  const parts = map.isPacked ? stored : present;
  if (!only || parts.length <= 1) {
    drawCell(context, only?.id ?? ABSENT, x, y, size, colours);
    return;
  }
  const whole = parts.reduce((sum, { id }) => sum + (bytes[id] ?? 0), 0);
  context.save();
  square(context, x, y, size);
  context.clip();
  let bottom = y + size;
  for (const { id, key } of stored) {
    // However little it is, it shows.
    const height = Math.max(size / 8, ((bytes[id] ?? 0) / whole) * size);
    context.fillStyle = colours[key] ?? '';
    context.globalAlpha = OPACITY[key] ?? 1;
    context.fillRect(x, bottom - height, size, height);
    bottom -= height;
  }
  context.restore();
  context.strokeStyle = colours[only.key] ?? '';
  outline(context, x, y, size);
}

/** How strongly a class shows within a mixed square. @type {Record<string, number>} */
const OPACITY = { held: 0.45, free: 0.4, zero: 0.25, dropped: 0.15 };

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, size: number, colours: Colours) => void} */
function mark(context, x, y, size, colours) {
  context.strokeStyle = colours.ink ?? '';
  context.lineWidth = 2;
  context.beginPath();
  context.roundRect(x, y, size, size, size / 5);
  context.stroke();
}

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
