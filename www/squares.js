/**
 * From the engine's cells to the squares of the picture. A cell is a stretch of the disk with its bytes by class.
 * Where most of a disk was never stored, the picture shows what is stored, packed in disk order: else a square
 * stands for hundreds of blocks, and a full gigabyte of a huge disk would be no more than a dot.
 *
 *   cells   ····■■·····■·······■■■····
 *   squares ■■■■■■                      (packed: what stores nothing is left out)
 */

/** @import { BlockMap, Picture } from './types.js' */

export const ABSENT = 0;
/** How finely a disk is asked for where it will be packed. */
export const FINE = 16_384;
/** Below this share of stored blocks the picture is packed. */
const LITTLE = 0.4;

/**
 * Whether little of the disk is stored.
 * @param {{ total: number, present: number, partiallyPresent: number }} blocks
 */
export const isMostlyAbsent = ({ total, present, partiallyPresent }) => present + partiallyPresent < total * LITTLE;

/**
 * How many cells to ask the engine for.
 * @param {number} capacity how many squares the picture has room for
 * @param {{ total: number, present: number, partiallyPresent: number }} blocks
 */
export const cellsFor = (capacity, blocks) => (isMostlyAbsent(blocks) ? Math.max(FINE, capacity) : capacity);

/**
 * @param {Picture} cells the engine's
 * @param {number} capacity how many squares there is room for
 * @param {boolean} isPacked
 * @returns {BlockMap}
 */
export function toSquares({ cells, classes, blocksPerCell }, capacity, isPacked) {
  const count = cells.length / classes;
  const shown = [];
  for (let cell = 0; cell < count; cell++) if (!isPacked || storedOf(cells, cell, classes) > 0) shown.push(cell);
  const perSquare = Math.max(1, Math.ceil(shown.length / Math.max(1, capacity)));
  const squares = Math.ceil(shown.length / perSquare);
  const bytes = new Float64Array(squares * classes);
  const firsts = new Float64Array(squares);
  const lasts = new Float64Array(squares);
  for (const [index, cell] of shown.entries()) {
    const square = Math.floor(index / perSquare);
    if (index % perSquare === 0) firsts[square] = cell * blocksPerCell;
    lasts[square] = (cell + 1) * blocksPerCell - 1;
    for (let kind = 0; kind < classes; kind++) {
      bytes[square * classes + kind] = (bytes[square * classes + kind] ?? 0) + (cells[cell * classes + kind] ?? 0);
    }
  }
  const totals = new Array(classes).fill(0);
  for (const [index, value] of cells.entries()) totals[index % classes] += value;
  return { bytes, classes, firsts, lasts, totals, isPacked };
}

/**
 * @param {Float64Array} cells
 * @param {number} cell
 * @param {number} classes
 */
function storedOf(cells, cell, classes) {
  let stored = 0;
  for (let kind = 0; kind < classes; kind++) if (kind !== ABSENT) stored += cells[cell * classes + kind] ?? 0;
  return stored;
}
