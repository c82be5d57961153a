/**
 * Which of the images at hand is the parent of which: a differencing image names its parent's
 * identity, and every image tells its own.
 */

/** @import { InspectReport } from './types.js' */

/**
 * @typedef {object} Missing the first parent that is not at hand
 * @property {string[]} paths where the child thinks that it lies
 * @property {string} wantedBy the name of the image that asks for it
 */

/**
 * The parents of `child` among `images`, nearest first, up to an image that has none.
 * @template {{ name: string, report: InspectReport | null }} T
 * @param {T} child
 * @param {Iterable<T>} images
 * @returns {{ parents: T[], missing: Missing | null }}
 */
export function resolveChain(child, images) {
  /** @type {Map<string, T>} */
  const byIdentity = new Map();
  for (const image of images) {
    if (image.report && image !== child) byIdentity.set(identity(image.report.identity), image);
  }
  /** @type {T[]} */
  const parents = [];
  let youngest = child;
  for (;;) {
    const link = youngest.report?.parent;
    if (!link) return { parents, missing: null };
    const parent = link.ids.map((id) => byIdentity.get(identity(id))).find((found) => found !== undefined);
    // An image that is met twice would make the chain endless: it is not its own ancestor.
    if (!parent || parents.includes(parent)) {
      return { parents, missing: { paths: link.paths, wantedBy: youngest.name } };
    }
    parents.push(parent);
    youngest = parent;
  }
}

/**
 * The images among `images` whose chain leads through `parent`.
 * @template {{ name: string, report: InspectReport | null }} T
 * @param {T} parent
 * @param {Iterable<T>} images
 */
export function childrenOf(parent, images) {
  const all = [...images];
  return all.filter((image) => image !== parent && resolveChain(image, all).parents.includes(parent));
}

/**
 * The file name at the end of a path of any system.
 * @param {string} path
 */
export const baseName = (path) => path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;

/** @param {string} id */
const identity = (id) => id.toLowerCase().replace(/[{}]/g, '');
