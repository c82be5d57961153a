/**
 * Whether a file is a parent of an image that was opened, or a parent's parent, also where none was given (Node).
 *
 * A child says where it last saw its parent and which identifiers the parent has. Parents are looked for as programs
 * do: where the child says, and in the child's own folder.
 */
import fs from 'node:fs';
import path from 'node:path';

import { formatOfName } from '../formats.js';
import { PathSource } from '../sources/path.js';

/**
 * @import { Opened, Identified } from '../types.js'
 * @typedef {object} Step one image of the chain
 * @property {NonNullable<Identified['parent']>} link what it says of its parent
 * @property {string} folder where it is
 */

/** A chain that is longer than this is a circle, or somebody's joke. */
const MAX_CHAIN = 256;

/**
 * @param {Opened} image
 * @param {string} file
 */
export function isAncestor(image, file) {
  const [source] = image.sources;
  const target = realPath(file);
  if (!target || !image.report.parent || !(source instanceof PathSource)) return false;
  const identity = identify(image, target)?.identity;
  const known = remembering(image);
  /** @type {Step | null} */
  let next = { link: image.report.parent, folder: path.dirname(realPath(source.path) ?? source.path) };
  for (let length = 0; next && length < MAX_CHAIN; length += 1) {
    if (identity !== undefined && next.link.ids.includes(identity)) return true;
    if (placesOf(next).includes(target)) return true;
    next = above(next, known);
  }
  // Of a chain without an end nothing can be excluded.
  return next !== null;
}

/**
 * The parent's own link, where the parent is found and has one.
 *
 * @param {Step} step
 * @param {(file: string) => Identified | null} known
 * @returns {Step | null}
 */
function above(step, known) {
  for (const file of new Set([...placesOf(step), ...imagesIn(step.folder)])) {
    const found = known(file);
    if (found && step.link.ids.includes(found.identity)) {
      return found.parent && { link: found.parent, folder: path.dirname(file) };
    }
  }
  return null;
}

/** Opens every file once. @param {Opened} image */
function remembering(image) {
  /** @type {Map<string, Identified | null>} */
  const seen = new Map();
  return (/** @type {string} */ file) => {
    let found = seen.get(file);
    if (found === undefined) {
      found = identify(image, file);
      seen.set(file, found);
    }
    return found;
  };
}

/** Where a parent may be: as the child says, and by that name in the child's folder. @param {Step} step */
function placesOf({ link, folder }) {
  const places = link.paths.flatMap((said) => {
    const local = said.replace(/^file:\/\/(localhost)?/i, '').replaceAll('\\', '/');
    return [path.resolve(folder, local), path.join(folder, path.posix.basename(local))];
  });
  return [...new Set(places.flatMap((place) => realPath(place) ?? []))];
}

/** @param {string} folder */
function imagesIn(folder) {
  try {
    return fs
      .readdirSync(folder)
      .filter((name) => formatOfName(name) !== null)
      .flatMap((name) => realPath(path.join(folder, name)) ?? []);
  } catch {
    return [];
  }
}

/** @param {Opened} image @param {string} file */
function identify(image, file) {
  /** @type {PathSource | undefined} */
  let source;
  try {
    source = new PathSource(file);
    return image.identify(source);
  } catch {
    // No image, or none that can be read: it is nobody's parent that could be told.
    return null;
  } finally {
    source?.close();
  }
}

/** @param {string} file */
function realPath(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    return null;
  }
}
